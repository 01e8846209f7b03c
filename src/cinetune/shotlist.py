"""The shot list `shots.toml`: what is to be shot. It is checked whole before anything runs, and every fault is named by
shot and line.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pydantic

from cinetune.artifacts import Arm, Cue, PlannedShot, ShotPlan
from cinetune.artifacts import Sequence as FilmSequence
from cinetune.config import SAFE_NAME, read_toml, unknown_key
from cinetune.durable import atomic_write
from cinetune.errors import ConfigError
from cinetune.outside import folded, is_file, on_disk, path_text, read_text, toml_string
from cinetune.timecode import exact_rate

__all__ = [
    "FILM_SCENES",
    "LONGEST_PROMPT",
    "LONGEST_SHOT",
    "STRONGEST",
    "Row",
    "check_shots",
    "load_shots",
    "pick_candidates",
    "shots_of_scenes",
    "shots_text",
    "spoken",
]

LONGEST_PROMPT = 2000
"""Characters. The text encoder reads 512 tokens, about so many characters of English, and drops the rest unsaid."""
LONGEST_SHOT = 600.0
"""Seconds; more is a slip of the pen."""
FILM_SCENES = 8
"""Of the film's own scenes, so many are read for the list's to be held against."""
STRONGEST = 4.0
"""Of an adapter; pictures fall apart long before."""

Row = Mapping[str, Any]
"""One `[[shot]]` table as it is written."""

_HEADER = re.compile(r"\s*\[\[\s*(?P<name>shot(?:\s*\.\s*prompts)?)\s*\]\]\s*(#.*)?")
_KEY = re.compile(r"\s*(?P<name>[A-Za-z0-9_-]+)\s*(=|\.)")
_PICTURES = ("reference", "keyframe", "last")
_EXTRA = ("extra_forbidden", "unexpected_keyword_argument")


def load_shots(path: Path) -> ShotPlan:
    """The shot list: an array of tables `[[shot]]`, keys as `PlannedShot`. A shot with a painted `keyframe` and no
    `reference` has the painting for its reference.

    Raises `ConfigError` that names every fault at once, by line and shot: unknown keys, values out of range, unusable
    or repeated ids, files that are not there.
    """
    table = read_toml(path)
    unknown = sorted(set(table) - {"shot"})
    if unknown:
        remedy = "the shot list is an array of [[shot]] tables"
        raise ConfigError(unknown_key(unknown[0], ["shot"]), where=str(path), remedy=remedy)
    rows = table.get("shot", [])
    lines = _lines(read_text(path))
    faults = sorted(_faults(rows, path.parent), key=lambda fault: fault[0])
    if faults:
        known = lines if isinstance(rows, list) and len(lines) == len(rows) else []
        raise ConfigError("\n  ".join(_words(rows, known, *fault) for fault in faults), where=str(path))
    return ShotPlan(shots=tuple(_spelled(_planned(row), path.parent) for row in rows))


def shots_of_scenes(plan: ShotPlan, made: Sequence[FilmSequence]) -> dict[tuple[str, Arm, int], list[FilmSequence]]:
    """The shots that were made of each scene (`PlannedShot.sequence`), by scene, arm and seed, where there are two or
    more.
    """
    scene_of = {shot.id: shot.sequence for shot in plan.shots if shot.sequence}
    found: dict[tuple[str, Arm, int], list[FilmSequence]] = {}
    for one in made:
        if one.shot in scene_of:
            found.setdefault((scene_of[one.shot], one.arm, one.seed), []).append(one)
    return {place: shots for place, shots in found.items() if len(shots) > 1}


def pick_candidates(path: Path, asked: Sequence[str]) -> None:
    """Write the choices `ID=K` into the shot list, `pick = K` of those shots; all else in the file stays as it is.

    Raises `ConfigError` for a shot that is not there and for what is no number from 0; then nothing is written.
    """
    import tomlkit
    from tomlkit.exceptions import TOMLKitError

    known = [shot.id for shot in load_shots(path).shots]
    try:
        document = tomlkit.parse(read_text(path))
    except TOMLKitError as error:
        raise ConfigError(f"it cannot be changed: {error}", where=str(path), remedy="write `pick` by hand") from error
    rows: Any = document["shot"] if known else []
    for text in asked:
        name, _, number = text.partition("=")
        if name not in known:
            remedy = f"one of {', '.join(known)}" if known else "list the shot first"
            raise ConfigError(f"no shot is called {name!r}", where=str(path), remedy=remedy)
        if not (number.isascii() and number.isdigit() and len(number) < 4):
            raise ConfigError(f"--pick {text!r} names no candidate", remedy=f"write --pick {name}=0")
        rows[known.index(name)]["pick"] = int(number)
    with atomic_write(path) as temporary:
        temporary.write_text(tomlkit.dumps(document), encoding="utf-8")


def check_shots(rows: Sequence[Row], folder: Path, *, where: str = "", lines: Sequence[int] = ()) -> None:
    """Raises `ConfigError` that names every fault of shots from elsewhere (a table, a timeline), before they are
    written; by the line of each row, where they have `lines`.
    """
    faults = sorted(_faults(rows, folder), key=lambda fault: fault[0])
    if faults:
        places = [{"": line} for line in lines]
        raise ConfigError("\n  ".join(_words(rows, places, *fault) for fault in faults), where=where)


def shots_text(rows: Sequence[Row]) -> str:
    """The rows as `shots.toml`. Raises `ConfigError` for a value that TOML cannot hold."""
    return "\n".join(_table_text("shot", row) for row in rows)


def spoken(shot: PlannedShot, text: str | None = None) -> str:
    """The shot's prompt (or another `text`) with its camera behind it; the trigger phrase is not part of it."""
    return ", ".join(part for part in (shot.prompt if text is None else text, shot.camera) if part)


def _table_text(name: str, row: Row) -> str:
    plain = [f"{key} = {_toml(value)}\n" for key, value in row.items() if key != "prompts"]
    cues = [_table_text("shot.prompts", cue) for cue in row.get("prompts", ())]
    return f"[[{name}]]\n" + "".join(plain) + "".join(f"\n{cue}" for cue in cues)


def _toml(value: Any) -> str:
    if isinstance(value, str):
        return toml_string(value)
    if isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value):
        return repr(value)
    raise ConfigError(f"{value!r} cannot be written into a shot list")


def _lines(text: str) -> list[dict[str, int]]:
    """For each `[[shot]]` the line (from 1) of its head ("") and of its keys (`seconds`, `prompts.0.at`)."""
    found: list[dict[str, int]] = []
    prefix, cues, quote = "", 0, ""
    for number, line in enumerate(text.replace("\r\n", "\n").split("\n"), start=1):
        inside = quote
        for mark in ('"""', "'''"):
            if quote in ("", mark) and line.count(mark) % 2:
                quote = "" if quote else mark
        if inside:
            continue
        head, key = _HEADER.fullmatch(line), _KEY.match(line)
        if head and head["name"] == "shot":
            found.append({"": number})
            prefix, cues = "", 0
        elif head and found:
            prefix, cues = f"prompts.{cues}.", cues + 1
            found[-1][prefix.rstrip(".")] = number
        elif key and found:
            found[-1].setdefault(prefix + key["name"], number)
    return found


def _words(rows: Any, lines: Sequence[Mapping[str, int]], index: int, key: str, what: str) -> str:
    row = rows[index] if isinstance(rows, list) and 0 <= index < len(rows) else {}
    name = row.get("id") if isinstance(row, dict) else None
    shot = f"shot {name!r}" if isinstance(name, str) and name else f"shot {index}"
    parts = key.split(".")
    places = (".".join(parts[:length]) for length in range(len(parts), -1, -1))
    line = next((lines[index][place] for place in places if place in lines[index]), None) if lines else None
    return f"{shot}{'' if line is None else f' (line {line})'}: {what}"


Fault = tuple[int, str, str]
"""Number of the shot, the key, what is wrong."""


def _faults(rows: Any, folder: Path) -> Iterator[Fault]:
    broken: set[int] = set()
    try:
        pydantic.TypeAdapter(ShotPlan).validate_python({"shots": rows})
    except pydantic.ValidationError as error:
        for item in error.errors():
            index = item["loc"][1] if len(item["loc"]) > 1 and isinstance(item["loc"][1], int) else 0
            broken.add(index)
            yield index, *_schema_fault(item)
    if not isinstance(rows, list):
        return
    seen: dict[str, str] = {}
    for index, row in enumerate(rows):
        name = row.get("id") if isinstance(row, dict) else None
        if isinstance(name, str):
            # some file systems do not tell A from a, and the id becomes part of file names
            if folded(name) in seen:
                yield index, "id", f"two shots are called {seen[folded(name)]!r}"
            seen.setdefault(folded(name), name)
        if index not in broken:
            yield from ((index, key, what) for key, what in _shot_faults(_planned(row), row, folder))


def _schema_fault(item: Any) -> tuple[str, str]:
    key = ".".join(str(part) for part in item["loc"][2:])
    if item["type"] not in _EXTRA:
        return key, f"{key or 'shot'}: {item['msg'].lower()}"
    record = Cue if key.startswith("prompts.") else PlannedShot
    return key, unknown_key(key.rsplit(".", 1)[-1], [field.name for field in fields(record)])


def _planned(row: Row) -> PlannedShot:
    shot = pydantic.TypeAdapter(PlannedShot).validate_python(row)
    return shot if shot.reference else replace(shot, reference=shot.keyframe or "")


def _spelled(shot: PlannedShot, folder: Path) -> PlannedShot:
    """The shot with its files as the disk spells them."""
    named = {key: value for key in (*_PICTURES, "truth") if (value := getattr(shot, key))}
    return replace(shot, **{key: _relative(folder, value) for key, value in named.items()})


def _relative(folder: Path, name: str) -> str:
    found = on_disk(folder, name)
    return name if found == folder / name else os.path.relpath(found, folder)


def _shot_faults(shot: PlannedShot, row: Row, folder: Path) -> Iterator[tuple[str, str]]:
    if not SAFE_NAME.fullmatch(shot.id):
        yield (
            "id",
            f"shot id {shot.id[:100]!r} cannot be used: letters, digits, '.', '_' and '-'; it becomes a file name",
        )
    if shot.sequence and not SAFE_NAME.fullmatch(shot.sequence):
        yield "sequence", f"sequence {shot.sequence!r} cannot be used: letters, digits, '.', '_' and '-'"
    if not 0 < shot.seconds <= LONGEST_SHOT:
        yield "seconds", f"seconds must be more than 0 and at most {LONGEST_SHOT:g}, not {shot.seconds}"
    for key in ("pick", "height", "width"):
        value = getattr(shot, key)
        if value is not None and value < 0:
            yield key, f"{key} counts from 0, not {value}"
    if bool(shot.height) != bool(shot.width):
        yield "height" if shot.height else "width", "height and width go together: give both, or neither"
    if shot.candidates is not None and shot.candidates < 1:
        yield "candidates", f"candidates must be 1 or more, not {shot.candidates}"
    for key in ("look_strength", "preview_strength"):
        if not 0 <= getattr(shot, key) <= STRONGEST:
            yield key, f"{key} must be from 0 to {STRONGEST:g}, not {getattr(shot, key)}"
    yield from _prompt_faults(shot)
    try:
        _ = exact_rate(shot.rate) if shot.rate else None
    except ConfigError as error:
        yield "rate", f"rate: {error.what}"
    if not row.get("reference") and shot.keyframe is None:
        yield "reference", "a shot needs a reference picture, or a painted keyframe"
    if shot.keyframe is not None and shot.method not in (None, "as-is"):
        yield "method", f"a painted keyframe is taken as it is, so method cannot be {shot.method!r}"
    for key in (*_PICTURES, "truth"):
        yield from ((key, what) for what in _file_faults(key, getattr(shot, key), folder))


def _prompt_faults(shot: PlannedShot) -> Iterator[tuple[str, str]]:
    texts = {"prompt": shot.prompt, "negative": shot.negative, "camera": shot.camera}
    texts |= {f"prompts.{number}.prompt": cue.prompt for number, cue in enumerate(shot.prompts)}
    for key, text in texts.items():
        if len(text) > LONGEST_PROMPT:
            yield (
                key,
                f"{key} has {len(text)} characters; the model reads about {LONGEST_PROMPT} and would drop the rest",
            )
    last = 0.0
    for number, cue in enumerate(shot.prompts):
        if not last < cue.at < shot.seconds:
            yield (
                f"prompts.{number}.at",
                (f"at = {cue.at:g} must lie after {last:g} and before the end of the shot, {shot.seconds:g} s"),
            )
        last = max(last, cue.at)


def _file_faults(role: str, name: str | None, folder: Path) -> Iterator[str]:
    if not name:
        return
    try:
        path_text(name)
    except ValueError as error:
        yield f"{role}: {error}"
        return
    if not Path(os.path.normpath(folder / name)).is_relative_to(os.path.normpath(folder)):
        yield f"{role} {name!r} is outside the project: copy it into the project folder"
    elif not is_file(on_disk(folder, name)):
        yield f"{role} {name!r} does not exist: give a path relative to the project folder"
