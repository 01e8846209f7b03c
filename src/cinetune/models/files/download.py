"""Getting a published base model: the only code of cinetune that reads from the network, and only when asked by name.

The hub's list of files gives each one's size and hash at one commit. A file is written to `.partial/<hash>` inside the
target folder, continued there after an interruption by an HTTP range, checked, and only then moved to its name. So a
name in the folder is always a whole, checked file. huggingface_hub makes the requests; its own download function is not
used because (as of 2.4) it starts over after a kill and compares sizes only.
"""

from __future__ import annotations

import errno
import hashlib
import io
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from cinetune.errors import ConfigError, ServiceError, StoreError, WeightsError
from cinetune.models.files import weights
from cinetune.runtime import Bar, Reporter
from cinetune.store import sha256_file

if TYPE_CHECKING:
    from huggingface_hub import HfApi

__all__ = ["Offer", "RemoteFile", "hub_errors", "look_up", "pull"]

_FOLDERS = {*weights.COMPONENTS, "tokenizer", "image_processor", "scheduler"}
_TOP = {"model_index.json", "README.md", "LICENSE", "LICENSE.txt"}
_SPARE = 1 << 30
"""Bytes of the disk that are left free."""
_PARTIAL = ".partial"
_TRIES = 5
_PAUSE = 1.0
"""Seconds before a lost connection is taken up again; longer each time that nothing came."""


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """One file as the hub lists it: `digest` is its sha256, or for small files that git itself keeps its git hash."""

    path: str
    size: int
    digest: str

    @property
    def is_sha256(self) -> bool:
        return len(self.digest) == 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Offer:
    """What would be downloaded. `said` is the licence by the repository's own card, to be read beside ours."""

    name: str
    repository: str
    licence: str
    said: str
    commit: str
    files: tuple[RemoteFile, ...]

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(file.size for file in self.files)


def look_up(name: str) -> Offer:
    """Ask the hub what a model of `weights.SOURCES` consists of. Nothing is downloaded.

    Raises `ConfigError` for another name, `ServiceError` when the hub cannot be reached or refuses.
    """
    if name in weights.NOT_YET:
        known = f"one of {', '.join(weights.SOURCES)}"
        raise ConfigError(f"{name} cannot be used yet: {weights.NOT_YET[name]}", remedy=known)
    if name not in weights.SOURCES:
        raise ConfigError(f"no model is called {name!r}", remedy=f"one of {', '.join(weights.SOURCES)}")
    source = weights.SOURCES[name]
    with hub_errors(source.repository):
        from huggingface_hub.hf_api import RepoFile

        api = _api()
        info = api.model_info(source.repository)
        commit = info.sha or "main"
        listed = [
            RemoteFile(entry.path, entry.size, entry.lfs.sha256 if entry.lfs else entry.blob_id)
            for entry in api.list_repo_tree(source.repository, recursive=True, revision=commit)
            if isinstance(entry, RepoFile) and _wanted(entry.path)
        ]
    said = str(getattr(info.card_data, "license", None) or "not said")
    return Offer(
        name=name, repository=source.repository, licence=source.licence, said=said, commit=commit, files=tuple(listed)
    )


def _wanted(path: str) -> bool:
    """Whether a listed file belongs to the model: no pickles, no examples, nothing outside the folder."""
    pure = PurePosixPath(path)
    if pure.is_absolute() or ".." in pure.parts:
        return False
    if len(pure.parts) == 1:
        return path in _TOP
    return pure.parts[0] in _FOLDERS and pure.suffix in (".json", ".safetensors", ".model", ".txt")


def _api() -> HfApi:
    from huggingface_hub import HfApi

    return HfApi(library_name="cinetune")


@contextmanager
def hub_errors(where: str) -> Iterator[None]:
    """Errors of the network and of the hub as our own, with what to do."""
    from huggingface_hub import errors

    again = "check the connection and run the same command again: it goes on where it stopped"
    offline = "unset HF_HUB_OFFLINE, or copy the folder from a machine with a network and set model.path to it"
    refused = "open the model's page, accept its conditions, then `hf auth login`, and run the same command again"
    try:
        yield
    except errors.OfflineModeIsEnabled as error:
        raise ServiceError(
            "this machine is set to work offline (HF_HUB_OFFLINE)", where=where, remedy=offline
        ) from error
    except errors.GatedRepoError as error:
        raise ServiceError("the hub gives this model only to people it knows", where=where, remedy=refused) from error
    except errors.HfHubHTTPError as error:
        status = error.response.status_code
        if status in (401, 403):
            raise ServiceError(f"the hub refuses access ({status})", where=where, remedy=refused) from error
        what = "the hub does not have it (404)" if status == 404 else f"the hub answers with an error ({status})"
        raise ServiceError(what, where=where, remedy="it may have moved; else try again later") from error
    except errors.HTTPError as error:  # what the HTTP library raises for lost and refused connections
        raise ServiceError(f"the hub cannot be reached: {error}", where=where, remedy=again) from error
    except OSError as error:
        if error.errno in (errno.EACCES, errno.ENOSPC, errno.EROFS):
            raise StoreError(
                f"the file cannot be written: {error.strerror}",
                where=where,
                remedy="free space, or choose another disk",
            ) from error
        raise ServiceError(f"the download broke off: {error}", where=where, remedy=again) from error


def pull(offer: Offer, folder: Path, report: Reporter) -> None:
    """Download what is missing of an offer into `folder`, and check all of it.

    Raises `StoreError` when the disk is too small or refuses, `ServiceError` when the connection ends (the next call
    continues), `WeightsError` when a file is not what the hub lists, or the whole is not a usable model.
    """
    partial = folder / _PARTIAL
    try:
        partial.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StoreError(f"the folder cannot be made: {error.strerror}", where=str(folder)) from error
    known = weights.known_sha256(folder)
    missing = [file for file in offer.files if not _is_there(folder, file, known)]
    _check_disk(folder, missing)
    with report.progress(f"download {offer.name} (MiB)", max(1, sum(file.size for file in missing) >> 20)) as bar:
        meter = _Meter(bar)
        for file in missing:
            with hub_errors(f"{offer.repository}, {file.path}"):
                _fetch(offer, file, partial, meter)
            _land(folder, file)
            if file.is_sha256:
                known[weights.stamp(folder, folder / file.path)] = file.digest
                weights.keep_sha256(folder, known)
    shutil.rmtree(partial, ignore_errors=True)
    report.say(f"{len(missing)} files downloaded, {len(offer.files) - len(missing)} were there; all hashes agree")
    weights.need_folder(folder)


def _is_there(folder: Path, file: RemoteFile, known: dict[str, str]) -> bool:
    path = folder / file.path
    if not path.is_file() or path.stat().st_size != file.size:
        return False
    stamp = weights.stamp(folder, path)
    if file.is_sha256 and stamp not in known:
        known[stamp] = sha256_file(path)
    return (known[stamp] if file.is_sha256 else _git_hash(path)) == file.digest


def _check_disk(folder: Path, missing: list[RemoteFile]) -> None:
    parts = (folder / _PARTIAL / file.digest for file in missing)
    have = sum(part.stat().st_size for part in parts if part.is_file())
    need = sum(file.size for file in missing) - have + (_SPARE if missing else 0)
    free = shutil.disk_usage(folder).free
    if free < need:
        raise StoreError(
            f"{need / 2**30:.1f} GiB are needed and {free / 2**30:.1f} GiB are free; nothing was downloaded",
            where=str(folder),
            remedy="free space, or choose another disk with --to",
        )


class _Meter:
    """Bytes as they arrive, told to a bar in whole MiB."""

    def __init__(self, bar: Bar) -> None:
        self._bar, self._bytes = bar, 0

    def add(self, count: int, note: str) -> None:
        before = self._bytes >> 20
        self._bytes += count
        if steps := (self._bytes >> 20) - before:
            self._bar.advance(steps, note)


class _Part(io.FileIO):
    """An unbuffered file that counts what is written: a kill loses nothing that had arrived."""

    def __init__(self, path: Path, meter: _Meter, note: str) -> None:
        super().__init__(path, "r+")
        self._meter, self._note = meter, note

    def write(self, chunk: Any) -> int:
        view = memoryview(chunk)
        while view:
            view = view[super().write(view) or 0 :]
        self._meter.add(len(chunk), self._note)
        return len(chunk)


def _fetch(offer: Offer, file: RemoteFile, partial: Path, meter: _Meter) -> None:
    """Bring `.partial/<hash>` to its full length, from where it is. A lost connection is taken up again until `_TRIES`
    in a row bring nothing. Raises what the HTTP library raises.
    """
    from huggingface_hub import errors

    path = partial / file.digest
    path.touch()
    meter.add(min(path.stat().st_size, file.size), file.path)
    with _Part(path, meter, file.path) as part:
        fruitless = 0
        while (before := path.stat().st_size) != file.size:
            try:
                _stream(offer, file, part)
            except errors.HfHubHTTPError:
                raise
            except errors.HTTPError:
                fruitless = 0 if path.stat().st_size > before else fruitless + 1
                if fruitless == _TRIES:
                    raise
                time.sleep(_PAUSE * (1 + fruitless))


def _stream(offer: Offer, file: RemoteFile, part: _Part) -> None:
    """One request for the rest of a file, written as it arrives."""
    from huggingface_hub import hf_hub_url
    from huggingface_hub.utils import build_hf_headers, get_session, hf_raise_for_status

    done = part.seek(0, io.SEEK_END)
    if done > file.size:
        done = 0
    url = hf_hub_url(offer.repository, file.path, revision=offer.commit)
    headers = build_hf_headers(library_name="cinetune") | {"Accept-Encoding": "identity", "Range": f"bytes={done}-"}
    with get_session().stream("GET", url, headers=headers, follow_redirects=True, timeout=60) as response:
        hf_raise_for_status(response)
        start = done if response.status_code == 206 else 0  # a server may answer with the whole file
        part.truncate(start)
        part.seek(start)
        for chunk in response.iter_bytes():
            part.write(chunk)
            if part.tell() > file.size:
                raise OSError("more bytes than the hub lists")
    if part.tell() < file.size:
        raise OSError("fewer bytes than the hub lists")


def _land(folder: Path, file: RemoteFile) -> None:
    """Check a complete part and give it its name; a wrong one is thrown away. Raises `WeightsError`."""
    part, target = folder / _PARTIAL / file.digest, folder / file.path
    found = sha256_file(part) if file.is_sha256 else _git_hash(part)
    if found != file.digest:
        part.unlink()
        raise WeightsError(
            f"{file.path} is not what the hub lists: its hash is {found[:12]}, not {file.digest[:12]}",
            where=str(folder),
            remedy="run the same command again; if it happens again, something between here and the hub changes files",
        )
    target.parent.mkdir(parents=True, exist_ok=True)
    part.replace(target)


def _git_hash(path: Path) -> str:
    """git's name for a file's content: SHA-1 over a short header and the bytes. It is the only one that the hub gives
    for small files.
    """
    data = path.read_bytes()
    return hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()
