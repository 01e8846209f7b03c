"""Getting a published base model: the only code of cinetune that reads from the network, and only when asked by name.

The hub's list of files gives each one's size and hash at one commit. A file is written to `.partial/<hash>` inside the
target folder, continued there after an interruption by an HTTP range, checked, and only then moved to its name. So a
name in the folder is always a whole, checked file. huggingface_hub's session makes the requests; its own functions are
not used because (as of 2.4) its download starts over after a kill and compares sizes only, and its listing reads
answers of any length for any time and trusts what they say.

A mirror, or whatever sits between here and the hub, may answer anything. So every answer has a limit in bytes and in
seconds; a name is used only if it is one of the model's, a hash only if it is 40 or 64 hex digits, a size only if it is
a whole number.
"""

from __future__ import annotations

import errno
import hashlib
import io
import json
import re
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from cinetune.catalogue import FACTS, NOT_YET, RELEASES, Recorded
from cinetune.durable import atomic_write
from cinetune.errors import ConfigError, ServiceError, StoreError, WeightsError
from cinetune.models.files import weights
from cinetune.records import to_json
from cinetune.runtime import Bar, Reporter
from cinetune.store import sha256_file

if TYPE_CHECKING:
    from httpx2 import Response

__all__ = ["HubFiles", "RemoteFile", "hub_errors", "look_up", "look_up_network", "pull", "pull_network"]

_FOLDERS = {*weights.COMPONENTS, "tokenizer", "image_processor", "scheduler"}
_TOP = {"model_index.json", "README.md", "LICENSE", "LICENSE.txt"}
_NETWORK_FILE = "model.safetensors"
_NETWORK = {
    _NETWORK_FILE, "config.json", "preprocessor_config.json", "video_preprocessor_config.json", "tokenizer.json",
    "tokenizer_config.json", "special_tokens_map.json", "vocab.json", "merges.txt", "README.md", "LICENSE",
}  # fmt: skip
"""What is taken of a feature network's repository."""
_SPARE = 1 << 30
"""Bytes of the disk that are left free."""
_PARTIAL = ".partial"
_TRIES = 5
_PAUSE = 1.0
"""Seconds before a lost connection is taken up again; longer each time that nothing came."""
_PATIENCE = 10.0
"""Seconds in which at least `_LEAST` bytes of a file must come; a slower connection is treated as a lost one."""
_LEAST = 10_000
_LIST_SECONDS = 30.0
"""For the whole list of files, however many pages it has."""
_LIST_BYTES = 16 << 20
_MOST_BYTES = 1 << 50
_MOST_FILES = 5_000
_HASH = re.compile(r"[0-9a-f]{64}|[0-9a-f]{40}")
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,199}")


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
class HubFiles:
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


def look_up(name: str) -> HubFiles:
    """Ask the hub what a release of the catalogue consists of. Nothing is downloaded.

    Raises `ConfigError` for another name, `ServiceError` when the hub cannot be reached, refuses, takes too long, or
    answers with anything else than a list of files.
    """
    published = {key: row for key, row in RELEASES.items() if row.repository}
    if name not in published:
        why = f"{name} cannot be used yet: {NOT_YET[name]}" if name in NOT_YET else f"no model is called {name!r}"
        raise ConfigError(why, remedy=f"one of {', '.join(published)}")
    source = published[name]
    return _ask(name, source.repository, source.licence, _wanted)


def look_up_network(name: str, repository: str, licence: str) -> HubFiles:
    """Ask the hub for a feature network: settings, tokenizer and one safetensors file at the top of a repository.

    Raises `ServiceError` as `look_up` does, and when the repository holds pickles only.
    """
    remote = _ask(name, repository, licence, lambda path: path in _NETWORK)
    if not any(file.path == _NETWORK_FILE for file in remote.files):
        raise ServiceError(
            f"the repository holds no {_NETWORK_FILE}, and pickled weights are refused", where=repository,
            remedy="convert it on a machine you trust, and put the file where `score.networks` says",
        )  # fmt: skip
    return remote


def _ask(name: str, repository: str, licence: str, wanted: Callable[[str], bool]) -> HubFiles:
    with hub_errors(repository):
        listing = _Listing(repository)
        facts = listing.ask("")
        if not isinstance(facts, dict):
            raise _odd(repository, "no facts about the model")
        commit, card = facts.get("sha"), facts.get("cardData")
        if not isinstance(commit, str) or re.fullmatch("[0-9a-f]{40}", commit) is None:
            raise _odd(repository, f"a commit called {_short(commit)}")
        files = _files(repository, listing.pages(f"/tree/{commit}?recursive=true"), wanted)
    said = card.get("license") if isinstance(card, dict) else None
    return HubFiles(
        name=name, repository=repository, licence=licence,
        said=said[:60] if isinstance(said, str) and said.isprintable() and said else "not said",
        commit=commit, files=files,
    )  # fmt: skip


def _short(value: object) -> str:
    return f"{value!r}"[:80]


def _odd(where: str, what: str) -> ServiceError:
    return ServiceError(
        f"the hub answers, but not as a hub does: {what}",
        where=where,
        remedy="log in to the network if it asks for that (open any page in a browser); if HF_ENDPOINT is set, see "
        "that it names a mirror of the hub",
    )


def _files(where: str, entries: Iterator[Any], wanted: Callable[[str], bool]) -> tuple[RemoteFile, ...]:
    """The model's files out of a listing, each checked. Raises `ServiceError` for one that cannot be true."""
    files: dict[str, RemoteFile] = {}
    for entry in entries:
        if not isinstance(entry, dict) or not isinstance(entry.get("path"), str):
            raise _odd(where, f"a file without a name: {_short(entry)}")
        if entry.get("type") != "file" or not wanted(entry["path"]):
            continue
        lfs = entry.get("lfs")
        path, kept = entry["path"], lfs if isinstance(lfs, dict) else entry
        size, digest = kept.get("size"), kept.get("oid")
        if type(size) is not int or not 0 <= size <= _MOST_BYTES:
            raise _odd(where, f"{path} has {_short(size)} bytes")
        if not isinstance(digest, str) or _HASH.fullmatch(digest) is None or (kept is lfs and len(digest) != 64):
            raise _odd(where, f"the hash of {path} is {_short(digest)}")
        if path.casefold() in files:
            raise _odd(where, f"{path} is listed twice")
        files[path.casefold()] = RemoteFile(path, size, digest)
        if len(files) > _MOST_FILES:
            raise _odd(where, f"more than {_MOST_FILES} files")
    for name, file in files.items():
        if any(parent.as_posix() in files for parent in PurePosixPath(name).parents):
            raise _odd(where, f"{file.path} lies inside another file")
    if not files:
        raise _odd(where, "none of the model's files is listed")
    return tuple(files.values())


def _wanted(path: str) -> bool:
    """Whether a listed file belongs to the model: no pickles, no examples, no name that could lead elsewhere."""
    parts = path.split("/")
    if not 1 <= len(parts) <= 4 or any(_NAME.fullmatch(part) is None for part in parts):
        return False
    if len(parts) == 1:
        return path in _TOP
    return parts[0] in _FOLDERS and PurePosixPath(path).suffix in (".json", ".safetensors", ".model", ".txt")


class _Listing:
    """Questions about one repository: together they may take `_LIST_SECONDS` and bring `_LIST_BYTES`."""

    def __init__(self, repository: str) -> None:
        from huggingface_hub import constants

        self._where, self._origin = repository, f"{constants.ENDPOINT}/"
        self._base = f"{constants.ENDPOINT}/api/models/{repository}"
        self._ends, self._left = time.monotonic() + _LIST_SECONDS, _LIST_BYTES

    def ask(self, what: str) -> Any:
        """The answer to one question as JSON."""
        return self._get(self._base + what)[0]

    def pages(self, what: str) -> Iterator[Any]:
        """The items of a list that comes in pages."""
        url = self._base + what
        while url:
            items, url = self._get(url)
            if not isinstance(items, list):
                raise _odd(self._where, "no list of files")
            yield from items
            if url and not url.startswith(self._origin):
                raise _odd(self._where, f"the list goes on at {_short(url)}")

    def _get(self, url: str) -> tuple[Any, str]:
        """(parsed answer, address of the next page or "")."""
        body = bytearray()
        with _request(url, self._where) as response:
            following = response.links.get("next", {}).get("url", "")
            for chunk in response.iter_raw():
                body += chunk
                if len(body) > self._left:
                    raise _odd(self._where, f"more than {_LIST_BYTES >> 20} MiB where a list was asked for")
                if time.monotonic() > self._ends:
                    raise ServiceError(
                        f"the hub needs more than {_LIST_SECONDS:g} s for its list of files",
                        where=self._where, remedy="try again later, or over another connection",
                    )  # fmt: skip
        self._left -= len(body)
        try:
            return json.loads(body), following
        except (ValueError, RecursionError) as error:
            raise _odd(self._where, f"{bytes(body[:60])!r} is no JSON") from error


@contextmanager
def _request(url: str, where: str, *, start: int | None = None) -> Iterator[Response]:
    """An answer that was not refused, its body still to come. `start` asks for the rest of a file."""
    from huggingface_hub.utils import build_hf_headers, get_session

    headers = build_hf_headers(library_name="cinetune") | {"Accept-Encoding": "identity"}
    if start is not None:
        headers["Range"] = f"bytes={start}-"
    with get_session().stream("GET", url, headers=headers, follow_redirects=True, timeout=_PATIENCE) as response:
        if response.status_code >= 400:
            raise _refused(response.status_code, gated=response.headers.get("X-Error-Code") == "GatedRepo", where=where)
        if response.headers.get("Content-Encoding", "identity") != "identity":
            raise _odd(where, f"packed bytes ({_short(response.headers['Content-Encoding'])})")
        yield response


_AGAIN = "check the connection and run the same command again: it goes on where it stopped"
_ASK_FIRST = "open the model's page, accept its conditions, then `hf auth login`, and run the same command again"


def _refused(status: int, *, gated: bool, where: str) -> ServiceError:
    if gated:
        return ServiceError("the hub gives this model only to people it knows", where=where, remedy=_ASK_FIRST)
    if status in (401, 403):
        return ServiceError(f"the hub refuses access ({status})", where=where, remedy=_ASK_FIRST)
    what = "the hub does not have it (404)" if status == 404 else f"the hub answers with an error ({status})"
    return ServiceError(what, where=where, remedy="it may have moved; else try again later")


@contextmanager
def hub_errors(where: str) -> Iterator[None]:
    """Errors of the network and of the hub as our own, with what to do."""
    from huggingface_hub import errors

    offline = "unset HF_HUB_OFFLINE, or copy the folder from a machine with a network and set model.path to it"
    try:
        yield
    except errors.OfflineModeIsEnabled as error:
        raise ServiceError(
            "this machine is set to work offline (HF_HUB_OFFLINE)", where=where, remedy=offline
        ) from error
    except errors.HfHubHTTPError as error:
        gated = isinstance(error, errors.GatedRepoError)
        raise _refused(error.response.status_code, gated=gated, where=where) from error
    except errors.HTTPError as error:  # what the HTTP library raises for lost and refused connections
        raise ServiceError(f"the hub cannot be reached: {error}", where=where, remedy=_AGAIN) from error
    except OSError as error:
        if error.errno in (errno.EACCES, errno.ENOSPC, errno.EROFS, errno.EDQUOT, errno.EFBIG):
            raise StoreError(
                f"the file cannot be written: {error.strerror}",
                where=where,
                remedy="free space, or choose another disk",
            ) from error
        raise ServiceError(f"the download broke off: {error}", where=where, remedy=_AGAIN) from error
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        # The hub's library takes an answer apart without checking it first.
        raise _odd(where, f"{type(error).__name__}: {error}"[:200]) from error


def pull(remote: HubFiles, folder: Path, report: Reporter) -> None:
    """Download what is missing of a release or network into `folder`, and check all of it.

    Raises `StoreError` when the disk is too small or refuses, `ServiceError` when the connection ends (the next call
    continues), `WeightsError` when a file is not what the hub lists, or the whole is not a usable model.
    """
    _bring(remote, folder, report)
    with atomic_write(folder / FACTS) as temporary:  # the files themselves do not say which release they are
        temporary.write_text(to_json(Recorded(release=remote.name, commit=remote.commit)), encoding="utf-8")
    weights.need_folder(folder)


def pull_network(remote: HubFiles, folder: Path, report: Reporter) -> None:
    """Download a feature network as `pull` does a base model. Whether it is one shows when it is loaded."""
    _bring(remote, folder, report)


def _bring(remote: HubFiles, folder: Path, report: Reporter) -> None:
    partial = folder / _PARTIAL
    try:
        partial.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StoreError(f"the folder cannot be made: {error.strerror}", where=str(folder)) from error
    known = weights.known_sha256(folder)
    missing = [file for file in remote.files if not _is_there(folder, file, known)]
    _check_disk(folder, missing)
    with report.progress(f"download {remote.name} (MiB)", max(1, sum(file.size for file in missing) >> 20)) as bar:
        meter = _Meter(bar)
        for file in missing:
            with hub_errors(f"{remote.repository}, {file.path}"):
                _fetch(remote, file, partial, meter, report)
                _land(folder, file)
            if file.is_sha256:
                known[weights.stamp(folder, folder / file.path)] = file.digest
                weights.keep_sha256(folder, known)
    shutil.rmtree(partial, ignore_errors=True)
    report.say(f"{len(missing)} files downloaded, {len(remote.files) - len(missing)} were there; all hashes agree")


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


def _fetch(remote: HubFiles, file: RemoteFile, partial: Path, meter: _Meter, report: Reporter) -> None:
    """Bring `.partial/<hash>` to its full length, from where it is. A lost or very slow connection is taken up again,
    and that is said, until `_TRIES` in a row bring next to nothing. Raises what the HTTP library raises.
    """
    from huggingface_hub import errors

    path = partial / file.digest
    path.touch()
    meter.add(min(path.stat().st_size, file.size), file.path)
    with _Part(path, meter, file.path) as part:
        fruitless = 0
        while (before := path.stat().st_size) != file.size:
            try:
                _stream(remote, file, part)
            except (errors.HTTPError, _TooSlow) as error:
                fruitless = 0 if path.stat().st_size - before >= _LEAST else fruitless + 1
                if fruitless == _TRIES:
                    raise
                report.warn(f"{file.path}: {str(error) or 'the connection was lost'}; trying again")
                time.sleep(_PAUSE * (1 + fruitless))


class _TooSlow(OSError):
    """A server that answers, and then sends next to nothing."""


def _stream(remote: HubFiles, file: RemoteFile, part: _Part) -> None:
    """One request for the rest of a file, written as it arrives."""
    from huggingface_hub import hf_hub_url

    done = part.seek(0, io.SEEK_END)
    if done > file.size:
        done = 0
    url = hf_hub_url(remote.repository, file.path, revision=remote.commit)
    with _request(url, f"{remote.repository}, {file.path}", start=done) as response:
        start = done if response.status_code == 206 else 0  # a server may answer with the whole file
        part.truncate(start)
        part.seek(start)
        since, mark = time.monotonic(), start
        for chunk in response.iter_raw():
            part.write(chunk)
            if part.tell() > file.size:
                raise OSError("more bytes than the hub lists")
            if time.monotonic() - since > _PATIENCE:
                came = part.tell() - mark
                if came < _LEAST:
                    raise _TooSlow(f"the hub sent {came} bytes in {_PATIENCE:g} s")
                since, mark = time.monotonic(), part.tell()
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
