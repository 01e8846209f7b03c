"""The project folder: what each stage wrote, whether it is still true, and how nothing is lost when a run dies.

    DIR/cinetune.toml  DIR/shots.toml    the user's; never written after `new`
    DIR/footage/                         the user's; only `caption` adds a file of its own
    DIR/work/objects/<xx>/<sha><suffix>  files by the sha256 of their bytes, verified when read
    DIR/work/units/<stage>/<key>.json    one finished piece of a stage (a clip, a latent, a shot): need not be redone
    DIR/work/stages/<stage>.json         a finished stage: its input key, its records, its provenance
    DIR/work/prepare/                    for people: the contact sheet of what is trained, who owns it
    DIR/work/claims/<stage>/<key>        held while a worker makes a piece
    DIR/work/logs/<stage>/<piece>.jsonl  who made a piece, when, and what went wrong; no part of any result
    DIR/work/lock                        held while a stage runs
    DIR/deliveries/  DIR/report/         results for people

All writes go to a temporary name on the same disk, are fsynced, then renamed (`cinetune.durable`). A stage is *stale*
when its input key (its config sections, its own inputs, and the output hashes of its parents) is no longer the one it
was made with.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any, TypeVar

from cinetune import artifacts
from cinetune.artifacts import FileRef, Provenance
from cinetune.config import Config, flatten, load_config, need_file
from cinetune.durable import (
    atomic_write,
    claimed,
    growing,
    inside,
    locked,
    opened,
    publish,
    sweep,
    sweep_claims,
    unfinished,
)
from cinetune.errors import StoreError
from cinetune.outside import MOST_TOML, is_file, read_bytes
from cinetune.records import artifact, from_json, sealed, to_json, unsealed
from cinetune.results import Result
from cinetune.shotlist import load_shots

__all__ = ["Project", "StageRecord", "Store", "content_key", "file_refs", "sha256_file"]

T = TypeVar("T")
R = TypeVar("R", bound=Result)
Inputs = dict[str, dict[str, Any]]
_VOLATILE = {"provenance", "timing", "created_utc", "wall_seconds"}


def sha256_file(path: Path) -> str:
    """sha256 of a file's bytes, in hex. Raises `OSError` when it cannot be read, or is no plain file."""
    with opened(path, linked=True) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def content_key(*parts: object) -> str:
    """A 32-hex-digit key over JSON-able parts and artifact records (volatile fields such as times left out)."""
    plain = [json.loads(to_json(part)) if hasattr(part, "__dataclass_fields__") else part for part in parts]
    text = json.dumps(_stable(plain), sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def _stable(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _stable(inner) for key, inner in value.items() if key not in _VOLATILE}
    if isinstance(value, (list, tuple)):
        return [_stable(inner) for inner in value]
    return value


def _output_sha(groups: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(_stable(groups), sort_keys=True).encode()).hexdigest()


def file_refs(record: object) -> Iterator[FileRef]:
    """Every `FileRef` inside a record, however deep."""
    if isinstance(record, FileRef):
        yield record
    elif isinstance(record, (tuple, list)):
        for item in record:
            yield from file_refs(item)
    elif is_dataclass(record):
        for part in fields(record):
            yield from file_refs(getattr(record, part.name))


def _stamp(parts: Sequence[Path]) -> str:
    """The newest time of change of some files, in ns, and what differs once one is written to or replaced."""
    found = [part.stat() for part in parts]
    facts = [[each.st_ino, each.st_size, each.st_mtime_ns, each.st_ctime_ns] for each in found]
    newest = max(max(each.st_mtime_ns, each.st_ctime_ns) for each in found)
    return f"{newest} {content_key(facts)}"


@dataclass(frozen=True, slots=True)
class StageRecord:
    """A finished stage as read back: `groups` maps a name to its records (`clips` to FootageClips, and so on); `inputs`
    holds by name what `input_key` was made of, to tell what changed since."""

    stage: str
    input_key: str
    output_sha: str
    groups: dict[str, tuple[Any, ...]]
    notes: tuple[str, ...]
    provenance: Provenance
    inputs: Inputs = field(default_factory=dict)


@artifact
class _Group:
    """Records of one kind, by the kind's name."""

    kind: str
    items: tuple[dict[str, Any], ...]


@artifact
class _Body:
    """The file of a finished stage."""

    stage: str
    input_key: str
    output_sha: str
    groups: dict[str, _Group]
    notes: tuple[str, ...]
    provenance: Provenance
    inputs: Inputs
    schema: int


def _read_group(group: _Group, where: str) -> tuple[Any, ...]:
    if not group.items:
        return ()
    if group.kind not in artifacts.__all__:
        remedy = "delete it and run the stage again"
        raise StoreError(f"a record of an unknown kind {group.kind[:60]!r}", where=where, remedy=remedy)
    kind = getattr(artifacts, group.kind)
    return tuple(from_json(kind, json.dumps(item), where=where) for item in group.items)


def _named_files(plain: Any) -> Iterator[str]:
    """Paths of all `FileRef`s in a record as read from JSON."""
    if isinstance(plain, dict) and plain.keys() == {"path", "sha256"}:
        yield str(plain["path"])
    elif isinstance(plain, (dict, list)):
        for item in plain.values() if isinstance(plain, dict) else plain:
            yield from _named_files(item)


def _of_another_version(path: Path) -> StoreError:
    return StoreError(
        "another version of cinetune worked on this project, and its results cannot be mixed with those of this one",
        where=str(path),
        remedy="go on with that version; or move the folder `work` aside and `cinetune run`: it makes everything anew "
        "from the same settings, footage, captions and shots. train.init_from takes the look that was trained, as an "
        "export or as its .safetensors in work/objects",
    )


def _typed(kind: type[R], record: StageRecord) -> R:
    try:
        return kind(**record.groups)
    except TypeError as error:
        remedy = f"run `cinetune {record.stage} --again`"
        raise StoreError(f"`{record.stage}` was made by another version: {error}", remedy=remedy) from error


_CLOCK_GRAIN = 2_000_000_000


class Store:
    """Files and records under `DIR/work`."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.work = root / "work"
        self._verified: set[FileRef] = set()
        self.inputs: dict[str, Inputs] = {}
        """What each input key asked for in this process was made of; `save_stage` writes it down."""
        self._hashes: dict[str, list[str]] | None = None
        self._hashed = False
        self._read: dict[str, tuple[str, StageRecord]] = {}
        """Finished stages as read once, each with the stamp of its file."""

    def sha256(
        self, path: Path, *, fresh: bool = False, parts: Sequence[Path] = (), of: Callable[[Path], str] = sha256_file
    ) -> str:
        """sha256 of a file of the user's. While its size, time and place on the disk are what they were, its bytes are
        not read again, unless `fresh`. `of` hashes what is made of several `parts`. Kept on disk by `save_stage`.
        """
        stamp = _stamp(parts or (path,))
        name = os.path.relpath(path, self.root).encode("utf-8", "backslashreplace").decode()
        if self._hashes is None:
            self._hashes = self._read_hashes()
        if not fresh and (known := self._hashes.get(name)) and known[0] == stamp:
            return known[1]
        digest = of(path)
        if _stamp(parts or (path,)) == stamp:  # else it was written to while it was read
            self._hashes[name], self._hashed = [stamp, digest], True
        return digest

    def _read_hashes(self) -> dict[str, list[str]]:
        """A cache: what is no such table is as good as none."""
        try:
            with opened(self._hash_file) as file:
                table = unsealed(file.read(), where=str(self._hash_file)) or {}
        except (OSError, StoreError):
            return {}
        return {
            str(name): [str(part) for part in pair]
            for name, pair in table.items()
            if isinstance(pair, list) and len(pair) == 2
        }

    @property
    def _hash_file(self) -> Path:
        return self.work / "hashes.json"

    def _keep_hashes(self) -> None:
        """Those of files that are still there and were not written a moment ago: within the grain of a disk's clock a
        file can change and keep its time."""
        if not self._hashed or self._hashes is None:
            return
        recent = time.time_ns() - _CLOCK_GRAIN
        kept = {
            name: pair
            for name, pair in sorted(self._hashes.items())
            if (self.root / name).exists() and int(pair[0].split()[0]) < recent
        }
        self.write_text(self._hash_file, sealed(kept))
        self._hashed = False

    def add(self, source: Path) -> FileRef:
        """Copy a file in under its content hash; a second copy of the same bytes costs nothing."""
        with self.new_object(source.suffix) as (temporary, done):
            shutil.copyfile(source, temporary)
        return done[0]

    @contextmanager
    def new_object(self, suffix: str) -> Iterator[tuple[Path, list[FileRef]]]:
        """Yields (temporary path to write, list that holds the `FileRef` once the block ends)."""
        done: list[FileRef] = []
        objects = inside(self.root, self.work / "objects")
        with growing(objects / f"new{suffix}") as temporary:
            temporary.touch(mode=0o600)
            yield temporary, done
            digest = sha256_file(temporary)
            target = inside(self.root, objects / digest[:2] / f"{digest}{suffix}")
            publish(temporary, target)
        done.append(FileRef(path=target.relative_to(self.root).as_posix(), sha256=digest))

    def path(self, ref: FileRef) -> Path:
        """The file of a reference, its sha256 checked once per process.

        Raises `StoreError` if it is missing, damaged, or outside the project.
        """
        path = Path(os.path.normpath(self.root / ref.path))
        if not path.is_relative_to(os.path.normpath(self.root)):
            raise StoreError("a record points outside the project folder", where=ref.path)
        inside(self.root, path)
        if not is_file(path):
            remedy = "`cinetune run` makes it again"
            raise StoreError("a file of the project is missing", where=ref.path, remedy=remedy)
        if ref not in self._verified:
            if sha256_file(path) != ref.sha256:
                remedy = "delete it; `cinetune run` makes it again"
                raise StoreError("a file of the project is damaged (sha256 differs)", where=ref.path, remedy=remedy)
            self._verified.add(ref)
        return path

    def missing(self, record: object) -> str:
        """Path of the first file a record names that is not there; empty if all are."""
        return next((ref.path for ref in file_refs(record) if not is_file(self.root / ref.path)), "")

    def unit(self, stage: str, key: str, kind: Callable[..., T], make: Callable[[], T]) -> T:
        """The record of one piece of a stage: read if it was finished before under the same key and its files are
        still there, else made and kept."""
        if (kept := self.find_unit(stage, key, kind)) is not None:
            return kept
        record = make()
        self.write_text(self._unit_path(stage, key), sealed(json.loads(to_json(record))))
        return record

    def find_unit(self, stage: str, key: str, kind: Callable[..., T]) -> T | None:
        """The record of a piece that was finished before, perhaps by another process."""
        kept = self._kept_unit(stage, key)
        return None if kept is None else from_json(kind, json.dumps(kept), where=str(self._unit_path(stage, key)))

    def made_unit(self, stage: str, key: str, kind: Callable[..., T]) -> T:
        """`find_unit` of a piece that is known to be there."""
        found = self.find_unit(stage, key, kind)
        assert found is not None, f"every piece of {stage} was made before it is read"
        return found

    def has_unit(self, stage: str, key: str) -> bool:
        """Whether `unit` would read this piece instead of making it."""
        return self._kept_unit(stage, key) is not None

    def _kept_unit(self, stage: str, key: str) -> dict[str, Any] | None:
        """A finished piece as JSON, None if there is none or a file of it is gone. Raises `StoreError` if damaged."""
        path = self._unit_path(stage, key)
        if not path.is_file():
            return None
        record = unsealed(inside(self.root, path).read_bytes(), where=str(path))
        return record if record and all(is_file(self.root / name) for name in _named_files(record)) else None

    def claim(self, stage: str, key: str, *, wait: bool = True) -> AbstractContextManager[bool]:
        """Claim a piece while it is made: see `cinetune.durable.claimed`."""
        return claimed(inside(self.root, self.work / "claims" / stage / key), wait=wait)

    def _unit_path(self, stage: str, key: str) -> Path:
        assert "/" not in key, key
        return self.work / "units" / stage / f"{key}.json"

    def write_text(self, path: Path, text: str) -> None:
        """Atomic UTF-8 write of a file of the project."""
        with atomic_write(inside(self.root, path)) as temporary:
            temporary.write_text(text, encoding="utf-8")

    def save_stage(
        self,
        stage: str,
        input_key: str,
        groups: Mapping[str, Sequence[Any]],
        *,
        made: Provenance,
        notes: Sequence[str] = (),
    ) -> StageRecord:
        """Write a finished stage; its output hash covers the records without times and provenance."""
        plain: dict[str, Any] = {}
        for name, items in groups.items():
            kinds = {type(item).__name__ for item in items}
            assert len(kinds) <= 1, f"{name} mixes {kinds}"
            plain[name] = {"kind": "".join(kinds), "items": [json.loads(to_json(item)) for item in items]}
        output_sha = _output_sha(plain)
        body = {
            "schema": artifacts.SCHEMA, "stage": stage, "input_key": input_key, "output_sha": output_sha,
            "groups": plain, "notes": list(notes), "provenance": json.loads(to_json(made)),
            "inputs": self.inputs.get(input_key, {}),
        }  # fmt: skip
        self._keep_hashes()
        self.write_text(self.stage_path(stage), sealed(body))
        kept = {name: tuple(items) for name, items in groups.items()}
        return StageRecord(stage, input_key, output_sha, kept, tuple(notes), made, body["inputs"])

    def stage_path(self, stage: str) -> Path:
        return self.work / "stages" / f"{stage}.json"

    def load_stage(self, stage: str) -> StageRecord | None:
        """A finished stage, or None. Raises `StoreError` if its file is damaged, edited or of another schema. While its
        file is the same it is read once."""
        path = self.stage_path(stage)
        if not path.is_file():
            return None
        stamp = _stamp((inside(self.root, path),))
        if stage not in self._read or self._read[stage][0] != stamp:
            self._read[stage] = stamp, self._stage_from(path, stage)
        return self._read[stage][1]

    def _stage_from(self, path: Path, stage: str) -> StageRecord:
        plain, remedy = unsealed(path.read_bytes(), where=str(path)), "run the stage again"
        if plain is None or plain.get("schema") != artifacts.SCHEMA:
            raise _of_another_version(path)
        body = from_json(_Body, json.dumps(plain), where=str(path))
        if _output_sha(plain["groups"]) != body.output_sha or body.stage != stage:
            what = f"the record of `{stage}` is damaged: its contents do not match its own hash"
            raise StoreError(what, where=str(path), remedy=remedy)
        groups = {name: _read_group(group, str(path)) for name, group in body.groups.items()}
        return StageRecord(stage, body.input_key, body.output_sha, groups, body.notes, body.provenance, body.inputs)

    def check_version(self) -> None:
        """Raise `StoreError` for a project that another version worked on: nothing in it may be written over."""
        for path in sorted((self.work / "stages").glob("*.json")):
            try:
                with opened(path) as file:
                    plain = json.loads(file.read())
            except (OSError, ValueError, RecursionError):
                continue  # whoever reads it says what is wrong with it
            if isinstance(plain, dict) and plain.get("schema", artifacts.SCHEMA) != artifacts.SCHEMA:
                raise _of_another_version(path)

    def need_stage(self, stage: str) -> StageRecord:
        """A finished stage. Raises `StoreError` naming the verb to run first."""
        record = self.load_stage(stage)
        if record is None:
            remedy = f"run `cinetune {stage}` or `cinetune run`"
            raise StoreError(f"`{stage}` has not been run yet", where=str(self.root), remedy=remedy)
        return record

    def need(self, kind: type[R]) -> R:
        """The result of a finished stage, by its type. Raises `StoreError` naming the verb to run first."""
        return _typed(kind, self.need_stage(kind.stage))

    def find(self, kind: type[R]) -> R | None:
        """The result of a stage, by its type; None while it has not run. Raises `StoreError` as `load_stage`."""
        record = self.load_stage(kind.stage)
        return None if record is None else _typed(kind, record)

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the project for one writer; the lock dies with its process. What a killed writer left is swept first.

        Raises `StoreError` if another process has it, the folder cannot be written, or a link in it leads elsewhere.
        """
        written = (self.work, self.root / "deliveries", self.root / "report")
        left = [folder for top in written for folder in unfinished(self.root, top)]
        with locked(self.work / "lock", self.root):
            for folder in (self.root, *left):
                sweep(folder)
            sweep_claims(self.work / "claims")
            yield


_WHO = ("shoot.executor", "shoot.workers", "shoot.options", "shoot.split_guidance", "shoot.shard")
"""Settings of who does the work. No byte depends on them."""


class Project:
    """An opened project folder: its root, its checked configuration, and its store. `force` lets an unfinished training
    go on although something changed.
    """

    def __init__(self, root: Path, *, overrides: tuple[str, ...] = (), force: bool = False) -> None:
        self.root, self.overrides, self.force = root, overrides, force
        self.config, self.origins = load_config(root / "cinetune.toml", overrides=overrides)
        self.store = Store(root)

    config: Config

    def shots(self) -> artifacts.ShotPlan:
        return load_shots(self.root / "shots.toml")

    def shots_sha256(self) -> str:
        """sha256 of the shot list. Raises `ConfigError` when there is none, or it cannot be read."""
        path = self.root / "shots.toml"
        return hashlib.sha256(read_bytes(need_file(path), most=MOST_TOML)).hexdigest()

    def input_key(
        self, stage: str, *, parents: Sequence[str], sections: Sequence[str], inputs: Mapping[str, str]
    ) -> str:
        """The key a stage's result is valid for: its settings, its parents' outputs ("" for a parent that has not run),
        and what it reads outside the store."""
        outputs: dict[str, str] = {}
        for name in parents:
            record = self.store.load_stage(name)
            outputs[name] = record.output_sha if record else ""
        settings = flatten(self.config.model_dump(mode="json", include=set(sections)))
        settings = {name: value for name, value in settings.items() if not name.startswith(_WHO)}
        parts = {"settings": settings, "parents": outputs, "inputs": dict(inputs)}
        key = content_key(artifacts.SCHEMA, stage, parts)
        self.store.inputs[key] = parts
        return key
