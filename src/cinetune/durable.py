"""Files that are whole or not there, whoever is killed while they are written; and nobody's files but our own.

What is being written grows in a folder `.partial-XXXXXXXX` beside its target, as `file<suffix>` or `folder`, and is
renamed when it is whole. The file `claim` in that folder is locked for as long as its process lives. So what a killed
process left can be told from what another one is writing at this moment, and from folders of other programs: `sweep`
takes only the first.

No link is followed out of a project: a project may come from anybody, and a link in it may name any file of its reader.
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from io import BufferedReader
from pathlib import Path

from cinetune.errors import StoreError

__all__ = [
    "PARTIAL",
    "append",
    "atomic_write",
    "claimed",
    "growing",
    "inside",
    "locked",
    "opened",
    "publish",
    "storage_error",
    "sweep",
    "sweep_claims",
    "unfinished",
    "whole_folder",
]

PARTIAL = ".partial-"
"""Prefix of folders in which something is being written."""
_CLAIM = "claim"
_OURS = b"cinetune\n"
_SHORT = re.compile(r"\d+ requested and \d+ written")
"""What NumPy says, without a number of an error, when a disk takes only a part of an array."""
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_READ_ONLY = {errno.EACCES, errno.EROFS, errno.EPERM}
_PLAIN = os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
"""How a file that we may change is opened: no link is followed, and a pipe does not make us wait."""


def storage_error(error: OSError, path: Path) -> StoreError:
    """What the disk refused, as our own error."""
    if error.errno in _FULL:
        remedy = "free space and run the same command again"
        return StoreError("the disk is full; nothing was lost", where=str(path), remedy=remedy)
    if error.errno in _READ_ONLY:
        remedy = "change its permissions, or copy the project elsewhere"
        return StoreError("the project folder cannot be written", where=str(path), remedy=remedy)
    return StoreError(f"cannot write: {error.strerror or error}", where=str(path))


# ---------------------------------------------------------------- writing


def _claim(beside: Path) -> tuple[Path, int]:
    """A new folder, and the descriptor whose lock says that we are alive. A sweep may take the folder in the moment
    before it is locked; then another one is made.
    """
    while True:
        folder = Path(tempfile.mkdtemp(prefix=PARTIAL, dir=beside))
        try:
            descriptor = os.open(folder / _CLAIM, _PLAIN | os.O_CREAT | os.O_EXCL, 0o600)
        except FileNotFoundError:
            continue
        try:
            if _take(descriptor, folder / _CLAIM):
                os.write(descriptor, _OURS)
                return folder, descriptor
        except OSError:
            os.close(descriptor)
            shutil.rmtree(folder, ignore_errors=True)
            raise
        os.close(descriptor)


def _take(descriptor: int, path: Path) -> bool:
    """Lock an open file unless another process has it; whether it is ours and still the one of that name."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        there, here = os.lstat(path), os.fstat(descriptor)
    except (BlockingIOError, FileNotFoundError):
        return False
    return (there.st_dev, there.st_ino) == (here.st_dev, here.st_ino)


@contextmanager
def growing(path: Path) -> Iterator[Path]:
    """A temporary path on the disk of `path` with its suffix, removed at the end unless it was renamed.

    Raises `StoreError` when the disk is full, read-only or fails.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        folder, descriptor = _claim(path.parent)
    except OSError as error:
        raise storage_error(error, path) from error
    try:
        yield folder / f"file{path.suffix}"
    except OSError as error:
        if _SHORT.fullmatch(str(error)):
            raise storage_error(OSError(errno.ENOSPC, "it took a part"), path) from error
        if error.errno in _FULL | _READ_ONLY | {errno.EIO}:
            raise storage_error(error, path) from error
        raise
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(descriptor)


def publish(temporary: Path, path: Path) -> None:
    """Flush a finished temporary file to disk, then give it its name in one step."""
    with temporary.open("rb+") as file:
        os.fsync(file.fileno())
    temporary.chmod(0o644)
    path.parent.mkdir(exist_ok=True)
    temporary.replace(path)


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Yields a temporary path on the disk of `path` with the same suffix; on success it is fsynced and renamed over
    `path`.

    Raises `StoreError` on a full or read-only disk; the temporary file is removed on any failure.
    """
    with growing(path) as temporary:
        temporary.touch(mode=0o600)
        yield temporary
        try:
            publish(temporary, path)
        except OSError as error:
            raise storage_error(error, path) from error


def append(path: Path, text: str, *, root: Path) -> None:
    """Add to the end of a file of the project at `root` in one write. Raises `StoreError`."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(inside(root, path), os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW, 0o644)
        try:
            os.write(descriptor, text.encode())
        finally:
            os.close(descriptor)
    except OSError as error:
        raise storage_error(error, path) from error


@contextmanager
def whole_folder(out: Path) -> Iterator[Path]:
    """Yields an empty folder that gets the name `out` when the block ends: a run that is stopped leaves no half of it.
    What killed runs left beside `out` is swept first.

    Raises `StoreError` when the disk refuses, or when `out` appeared meanwhile.
    """
    sweep(out.parent)
    with growing(out) as temporary:
        folder = temporary.with_name("folder")
        try:
            folder.mkdir()
            yield folder
            folder.rename(out)
        except OSError as error:
            raise storage_error(error, out) from error


# ---------------------------------------------------------------- what was left


def sweep(folder: Path) -> None:
    """Remove what killed processes were writing in `folder` itself. What a living process claims stays, and so does
    whatever is not ours, whatever its name.
    """
    try:
        names = [entry.name for entry in os.scandir(folder) if entry.name.startswith(PARTIAL)]
        above = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        return
    try:
        for name in names:
            with suppress(OSError):  # taken by another sweep, or not ours to take
                _sweep_one(name, above)
    finally:
        os.close(above)


def _sweep_one(name: str, above: int) -> None:
    inner = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=above)
    try:
        claim = os.open(_CLAIM, _PLAIN, dir_fd=inner)
    except FileNotFoundError:
        os.rmdir(name, dir_fd=above)  # killed before it was claimed: only an empty folder goes
        return
    finally:
        os.close(inner)
    try:
        fcntl.flock(claim, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if stat.S_ISREG(os.fstat(claim).st_mode) and os.read(claim, 2 * len(_OURS)) in (b"", _OURS):
            shutil.rmtree(name, dir_fd=above)
    finally:
        os.close(claim)


def unfinished(root: Path, folder: Path) -> list[Path]:
    """The folders under `folder`, itself included, in which something may be left to sweep.

    Raises `StoreError` for a link that leads out of `root`.
    """
    inside(root, folder)
    found: list[Path] = []
    waiting = [folder] if folder.is_dir() else []
    while waiting:
        here = waiting.pop()
        try:
            entries = list(os.scandir(here))
        except OSError:
            continue  # gone meanwhile, or not ours to read
        for entry in entries:
            if entry.name.startswith(PARTIAL):
                found.append(here)
            elif entry.is_symlink():
                inside(root, Path(entry.path))
            elif entry.is_dir(follow_symlinks=False):
                waiting.append(Path(entry.path))
    return list(dict.fromkeys(found))


# ---------------------------------------------------------------- links and locks


@contextmanager
def opened(path: Path, *, linked: bool = False) -> Iterator[BufferedReader]:
    """A file to read, if it is a plain one: a pipe would be waited for, a device never ends. A link is followed where
    it may be `linked`. Raises `OSError` with the reason.
    """
    follow = 0 if linked else os.O_NOFOLLOW
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | follow)
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(errno.ENXIO, "a folder, a pipe or a device, no file", str(path))
        with os.fdopen(descriptor, "rb", closefd=False) as file:
            yield file
    finally:
        os.close(descriptor)


def inside(root: Path, path: Path) -> Path:
    """`path`, if it lies inside `root` when all links are followed. Raises `StoreError` if not."""
    try:
        real = os.path.realpath(path)
    except (OSError, ValueError) as error:
        raise StoreError("a path of the project cannot be used", where=f"{str(path)!r}"[:200]) from error
    if not Path(real).is_relative_to(os.path.realpath(root)):
        raise StoreError(
            "a link leads out of the project folder",
            where=str(path),
            remedy="look where it leads, then delete it; to keep part of a project on another disk, mount that there",
        )
    return path


@contextmanager
def claimed(path: Path, *, wait: bool = True) -> Iterator[bool]:
    """Claim a piece of work by the lock of its own file, which is gone afterwards and, for the others, when this
    process dies. The value is whether it is ours: without `wait` it may be another's. Raises `StoreError`.
    """
    while True:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(path, _PLAIN | os.O_CREAT, 0o644)
        except OSError as error:
            raise storage_error(error, path) from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            if _take(descriptor, path):
                break
        except BlockingIOError:
            os.close(descriptor)
            yield False
            return
        os.close(descriptor)  # its owner has just finished, and removed it
    try:
        yield True
    finally:
        path.unlink(missing_ok=True)
        os.close(descriptor)


def sweep_claims(folder: Path) -> None:
    """Remove the files of claims whose processes are gone."""
    for path in folder.glob("*/*"):
        with claimed(path, wait=False):
            pass
    for path in [*folder.glob("*"), folder]:
        with suppress(OSError):
            path.rmdir()


@contextmanager
def locked(path: Path, root: Path) -> Iterator[None]:
    """Hold the lock file `path` of a project; it dies with its process, and holds our process id for people.

    Raises `StoreError` if another process has it, if the disk refuses, or if it is no lock file, which is left alone.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, _PLAIN | os.O_CREAT, 0o644)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise StoreError("the project's lock is a link", where=str(path), remedy="delete it") from error
        raise storage_error(error, path) from error
    try:
        said = os.read(descriptor, 64) if stat.S_ISREG(os.fstat(descriptor).st_mode) else b"?"
        if re.fullmatch(rb"\d{0,20}\n?", said) is None:
            what = "the project's lock is a file of another kind; it was not touched"
            raise StoreError(what, where=str(path), remedy="look what it is, then move it away")
        if not _take(descriptor, path):
            raise StoreError(
                f"another cinetune is working on this project (process {said.decode().strip() or 'unknown'})",
                where=str(root), remedy="wait for it, or stop it",
            )  # fmt: skip
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, str(os.getpid()).encode(), 0)
        yield
    finally:
        os.close(descriptor)
