"""`cinetune deliver`: turn generated shots into files for people. Reads `expand`, writes movies, stills and an edit.

Everything lies in DIR/deliveries under names from one template. A version is never overwritten: shots that changed get
the next free number, shots that did not keep theirs. Beside every delivery lies a JSON file that says how it was made.
"""

from __future__ import annotations

import json
import re
import shutil
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction
from pathlib import Path

import numpy as np

from cinetune.artifacts import Delivery, FileRef, Sequence
from cinetune.errors import ConfigError, FootageError, StoreError
from cinetune.files import master_slice
from cinetune.footage.edit.timeline import TimelineEntry, write_edit
from cinetune.footage.write.formats import (
    DELIVERIES,
    FIRST_FRAME,
    Picture,
    SlateCard,
    conform_indices,
    first_frame_number,
    slate_frames,
)
from cinetune.footage.write.sequences import STILLS
from cinetune.footage.write.signing import SIGNABLE, check_signer, sign_movie
from cinetune.records import from_json, sealed, to_json, unsealed
from cinetune.results import Delivered, Expanded, Ingested
from cinetune.runtime import Reporter
from cinetune.sections import FILM_RATE, DeliverSection, delivery_name
from cinetune.stage import Made, Stage
from cinetune.store import Project, content_key, sha256_file
from cinetune.timecode import exact_rate

__all__ = ["STAGE", "inputs", "make", "run"]

NAME = "deliver"
_REVISION = 3  # raise when the same master would be delivered with other pixels
_WRITERS = 2  # shots written at once: encoders leave cores idle
_PIXEL_SETTINGS = {"bars", "burn_in", "c2pa_certificate", "conform", "height", "rate", "slate"}
_FOR_THE_EDIT = (
    "prores_hq", "prores_4444", "dnxhr_hqx", "dnxhr_hqx_mxf", "proxy", "proxy_hevc10", "proxy_hevc",
    "png16", "tiff16", "exr_display", "exr_linear",
)  # fmt: skip
"""The timeline points at the first of these that is delivered."""
_NUMBER = 987654321  # stands for the version while a name is turned into a pattern


def inputs(project: Project) -> dict[str, str]:
    """The rate of the deliveries where the film decides it."""
    asked = project.config.deliver.rate
    return {"rate of the film": str(_rate(project))} if asked == FILM_RATE else {}


def _rate(project: Project) -> Fraction:
    """The rate of the deliveries: what is asked for, or what most of the film runs at (24 while there is none)."""
    asked = project.config.deliver.rate
    if asked != FILM_RATE:
        return exact_rate(asked)
    seconds: dict[Fraction, Fraction] = {}
    for clip in (project.store.find(Ingested) or Ingested()).clips:
        seconds[clip.rate] = seconds.get(clip.rate, Fraction(0)) + clip.frames / clip.rate
    return max(seconds, key=lambda rate: seconds[rate]) if seconds else Fraction(24)


def make(project: Project, report: Reporter) -> Made[Delivered]:
    """Write what is missing. Raises `ConfigError` for an unusable name template, `FootageError` when no arm matches."""
    config = project.config.deliver
    sequences = [item for item in project.store.need(Expanded).sequences if item.arm in config.arms]
    if not sequences:
        raise FootageError(
            f"no generated shot is of the arms {', '.join(config.arms)}",
            where=str(project.root),
            remedy="check deliver.arms, and the shot list",
        )
    for arm in sorted(set(config.arms) - {item.arm for item in sequences}):
        report.warn(f"arm {arm!r} is to be delivered but no shot was generated with it")
    _check_names(config, sequences)
    _check_settings(project)
    deliveries: list[Delivery] = []
    written = 0
    with report.progress(NAME, len(sequences) * len(config.formats)) as bar, ThreadPoolExecutor(_WRITERS) as pool:
        waiting = [pool.submit(_deliver, project, sequence) for sequence in sequences]
        try:
            for sequence, future in zip(sequences, waiting, strict=True):
                made, fresh = future.result()
                deliveries += made
                written += fresh
                bar.advance(len(config.formats), f"{sequence.shot} {sequence.arm}")
        finally:
            pool.shutdown(cancel_futures=True)
    timeline = _timeline(project, report, sequences, deliveries)
    kept = len(deliveries) - written
    if config.rate == FILM_RATE:
        report.say(f"delivered at {_rate(project)} frames per second, as the film runs (deliver.rate)")
    report.say(f"{written} deliveries written, {kept} unchanged; timeline {timeline}")
    return Made(result=Delivered(deliveries=tuple(deliveries)), notes=[f"timeline: {timeline}"])


STAGE = Stage(result=Delivered, make=make, inputs=inputs, parents=(Expanded,), sections=("name", "deliver"))
run = STAGE.run


def _folder(project: Project) -> Path:
    return project.root / "deliveries"


def _task(sequence: Sequence) -> str:
    """What a file's name says of the arm and the seed, and that it is a preview where it is."""
    name = sequence.arm if sequence.seed == 0 else f"{sequence.arm}{sequence.seed}"
    return f"preview-{name}" if sequence.preview else name


def _name(config: DeliverSection, sequence: Sequence, version: int) -> str:
    """The template filled in. Raises `ConfigError` for fields it does not know and for characters unfit for a file
    name.
    """
    try:
        delivery_name(config, shot="shot", task="arm", version=version)  # the template, whatever the shot is
        return delivery_name(config, shot=sequence.shot, task=_task(sequence), version=version)
    except ValueError as error:
        raise ConfigError(
            f"deliver.name = {config.name[:200]!r}: {error}",
            where=f"shot {sequence.shot}",
            remedy="its fields are {seq} {shot} {task} {version:03d}",
        ) from error


def _check_names(config: DeliverSection, sequences: list[Sequence]) -> None:
    names = [_name(config, sequence, 1) for sequence in sequences]
    if len(set(names)) < len(names) or _name(config, sequences[0], 2) == names[0]:
        raise ConfigError(
            f"deliver.name = {config.name!r} gives two files one name",
            remedy="keep {shot}, {task} and {version:03d} in it",
        )


def _check_settings(project: Project) -> None:
    """Raises `ConfigError` before anything is written: impossible bars, a missing library, an unusable signer."""
    config = project.config.deliver
    _bars(config)
    for name in config.formats:
        DELIVERIES[name].check()
    signer = _signer(project)
    if signer is not None:
        check_signer(**signer)


def _bars(config: DeliverSection) -> Fraction | None:
    """`2.39`, `16:9` or `16/9` as an exact ratio."""
    if not config.bars:
        return None
    across, _, down = config.bars.replace(":", "/").partition("/")
    return Fraction(across) / Fraction(down or 1)


def _signer(project: Project) -> dict[str, Path] | None:
    config = project.config.deliver
    if not config.c2pa_certificate:
        return None
    return {"certificate": project.root / config.c2pa_certificate, "key": project.root / config.c2pa_key}


class _StoredMaster:
    """The frames of a master, read from its file one at a time: a 720p shot of 10 s would be 0.9 GB in memory."""

    def __init__(self, path: Path) -> None:
        self._frames = master_slice(path)
        self.shape = tuple(int(side) for side in self._frames.get_shape())

    def __getitem__(self, index: int, /) -> np.ndarray:
        return self._frames[index]


def _source_key(project: Project, sequence: Sequence) -> str:
    """What the content of a version depends on; the formats of one version share it."""
    settings = project.config.deliver
    return content_key(
        NAME,
        _REVISION,
        project.config.name,
        sequence.video.sha256,
        settings.model_dump(mode="json", include=_PIXEL_SETTINGS) | {"rate": str(_rate(project))},
    )


def _choose_version(project: Project, sequence: Sequence, source: str) -> int:
    """The newest version made of the same source with all its files untouched, or being written of it when a run was
    stopped; else the number after every one there is.
    """
    folder, config = _folder(project), project.config.deliver
    endings = "|".join(re.escape(row.suffix) for row in DELIVERIES.values())
    pattern = re.compile(
        re.escape(_name(config, sequence, _NUMBER)).replace(str(_NUMBER), r"(\d+)") + rf"(\.[^/]+|{endings})?"
    )
    taken = {int(match[1]) for path in folder.glob("*") if (match := pattern.fullmatch(path.name))}
    for version in sorted(taken, reverse=True):
        notes = {name: _read_note(folder / _note_name(config, sequence, version, name)) for name in DELIVERIES}
        known = [note for note in notes.values() if note is not None]
        stem = _name(config, sequence, version)
        begun = {name for name in DELIVERIES if _begun(project, sequence, version, name) == source}
        unclaimed = any(
            notes[name] is None and name not in begun and (folder / f"{stem}{DELIVERIES[name].suffix}").exists()
            for name in config.formats
        )
        if (
            (known or begun)
            and not unclaimed
            and all(key == source and _untouched(project.root, r) for key, r in known)
        ):
            return version
    return max(taken, default=0) + 1


def _mark(project: Project, sequence: Sequence, version: int, format_name: str) -> Path:
    """The file that is there while a delivery is written and has no note yet."""
    name = _note_name(project.config.deliver, sequence, version, format_name)
    return project.store.work / "deliver" / name.replace("/", "_")


def _begun(project: Project, sequence: Sequence, version: int, format_name: str) -> str:
    """The source key of a delivery that was being written when its run was stopped; empty if there is none."""
    mark = _mark(project, sequence, version, format_name)
    return mark.read_text(encoding="utf-8") if mark.is_file() and not mark.is_symlink() else ""


def _clear(path: Path) -> None:
    """Remove what a stopped run left of a delivery, a file or a folder of pictures; a link goes, not what it names."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _note_name(config: DeliverSection, sequence: Sequence, version: int, format_name: str) -> str:
    return f"{_name(config, sequence, version)}.{format_name}.json"


def _read_note(path: Path) -> tuple[str, Delivery | None] | None:
    """(source key, record) of the JSON beside a delivery, the record None where someone rewrote it; None without
    one.
    """
    if not path.is_file():
        return None
    try:
        body = unsealed(path.read_bytes(), where=str(path)) or {}
        return str(body["source_key"]), from_json(Delivery, json.dumps(body["delivery"]), where=str(path))
    except (KeyError, StoreError):
        return "", None


def _untouched(root: Path, record: Delivery | None) -> bool:
    return record is not None and all(
        (root / ref.path).is_file() and sha256_file(root / ref.path) == ref.sha256 for ref in record.files
    )


def _deliver(project: Project, sequence: Sequence) -> tuple[list[Delivery], int]:
    """Every format of one shot, and how many of them had to be written."""
    config, folder = project.config.deliver, _folder(project)
    source = _source_key(project, sequence)
    version = _choose_version(project, sequence, source)
    done: dict[str, Delivery] = {}
    for name in config.formats:
        note = _read_note(folder / _note_name(config, sequence, version, name))
        if note is not None and note[1] is not None:
            done[name] = note[1]
    missing = [name for name in config.formats if name not in done]
    if missing:
        shown, rate = conform_indices(sequence.frames, sequence.rate, _rate(project), config.conform)
        picture = Picture(
            frames_THWC=_StoredMaster(project.store.path(sequence.video)),
            shown=shown,
            rate=rate,
            height=config.height,
            source=sequence.rate,
            conform=config.conform,
            bars=_bars(config),
        )
        card = SlateCard(
            film=project.config.name,
            shot=f"{config.seq} {sequence.shot}",
            version=version,
            look=_task(sequence),
            conform=f"{config.conform} from {sequence.rate} fps",
            made=sequence.provenance.created_utc[:10],
            slate=config.slate,
            burn_in=config.burn_in,
        )
        target = folder / _name(config, sequence, version)
        for name in missing:
            mark = _mark(project, sequence, version, name)
            if _begun(project, sequence, version, name) == source:
                _clear(folder / f"{target.name}{DELIVERIES[name].suffix}")
            project.store.write_text(mark, source)
            paths = DELIVERIES[name].write(target, picture, card)
            _sign(project, paths, sequence.provenance.tool)
            refs = tuple(FileRef(path=p.relative_to(project.root).as_posix(), sha256=sha256_file(p)) for p in paths)
            done[name] = Delivery(
                shot=sequence.shot,
                arm=sequence.arm,
                format=name,
                version=version,
                files=refs,
                rate=rate,
                frames=len(shown),
                conform=config.conform,
            )
            _write_note(project, sequence, done[name], source)
            mark.unlink()
    return [done[name] for name in config.formats], len(missing)


def _sign(project: Project, paths: list[Path], tool: str) -> None:
    signer = _signer(project)
    for path in paths:
        if signer is not None and path.suffix in SIGNABLE:
            sign_movie(path, **signer, title=path.name, tool=tool)


def _write_note(project: Project, sequence: Sequence, record: Delivery, source: str) -> None:
    body = {
        "generated": True,
        "colour": DELIVERIES[record.format].colour,
        "source_key": source,
        "delivery": json.loads(to_json(record)),
        "sequence": json.loads(to_json(sequence)),
        "settings": project.config.deliver.model_dump(mode="json", exclude={"c2pa_key"}),
    }
    name = _note_name(project.config.deliver, sequence, record.version, record.format)
    project.store.write_text(_folder(project) / name, sealed(body))


def _timeline(project: Project, report: Reporter, sequences: list[Sequence], deliveries: list[Delivery]) -> str:
    """Write an OTIO timeline and its EDL of the delivered look shots (of all shots when there is no look); their names.

    They point at one format, the first of `_FOR_THE_EDIT` that is delivered. An unchanged edit keeps its version.
    """
    arm = "look" if any(item.arm == "look" for item in sequences) else sequences[0].arm
    config, folder = project.config.deliver, _folder(project)
    preferred = next(name for name in _FOR_THE_EDIT if name in config.formats)
    entries = [
        TimelineEntry(
            name=_name(config, sequence, record.version),
            media=Path(record.files[0].path).relative_to(folder.name).as_posix(),
            rate=record.rate,
            frames=record.frames,
            first=first_frame_number(record.rate),
            lead=slate_frames(config.slate, record.rate) if preferred.startswith("proxy") else 0,
            still_number=FIRST_FRAME if preferred in STILLS else None,
            shot=sequence.shot,
            metadata={
                "shot": sequence.shot,
                "arm": sequence.arm,
                "version": str(record.version),
                "conform": record.conform,
            },
        )
        for sequence, record in zip(sequences, [item for item in deliveries if item.format == preferred], strict=True)
        if sequence.arm == arm
    ]
    paths, why = write_edit(folder, f"{project.config.name}_{arm}_v", entries, title=project.config.name)
    if why:
        report.warn(f"no EDL is written: {why}")
    return " and ".join(f"{folder.name}/{path.name}" for path in paths)
