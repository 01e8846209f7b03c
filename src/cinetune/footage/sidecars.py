"""What people write beside their clips: captions, scene names, rights.

    clip.txt                         one caption for every shot of clip.* (of a sequence: of clip.0001.exr ...)
    metadata.jsonl                   {"file_name": "clip.mp4", "text": "...", "scene": "...", "shot": 0} per line
    metadata.csv, captions.csv       the same as columns

A row may name one shot by `shot` (counted from 0 in the order found) or by `start_frame` (the frame the shot was cut in
at), or stand for the whole clip. `caption` is read as `text`. `owner`, `licence`, `consent`, `document` state rights.
"""

from __future__ import annotations

import csv
import hashlib
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cinetune.artifacts import Rights
from cinetune.errors import ConfigError
from cinetune.store import sha256_file

__all__ = [
    "SIDECAR_SUFFIXES",
    "Row",
    "clip_stem",
    "footage_files",
    "is_sequence",
    "members",
    "read_rows",
    "rights_of",
    "row_for_shot",
    "sidecar_files",
    "source_sha256",
]

SIDECAR_SUFFIXES = frozenset(
    {
        ".ale",
        ".csv",
        ".edl",
        ".fcpxml",
        ".jpeg",
        ".jpg",
        ".json",
        ".jsonl",
        ".md",
        ".otio",
        ".pdf",
        ".png",
        ".srt",
        ".toml",
        ".txt",
        ".xml",
    }
)
_TABLES = ("metadata.jsonl", "metadata.csv", "captions.csv")
_FEWEST_PICTURES = {".exr": 2, ".dpx": 2, ".tif": 2, ".tiff": 2, ".png": 12}
"""How many numbered files of one name make a clip; a few PNGs are stills that somebody keeps beside it."""
_NUMBERED = re.compile(r"(?P<stem>.*?)(?P<digits>\d+)\.[^.]+")
_PLACE = re.compile(r"%0(?P<width>\d+)d")
_NEAR = 2  # frames a stated start may lie after the start found


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """What one line of a sidecar says about one clip; `source` is the sidecar's file name."""

    text: str
    source: str
    scene: str = ""
    shot: int | None = None
    start_frame: int | None = None
    rights: Rights = field(default_factory=Rights)


def footage_files(folder: Path) -> list[Path]:
    """Every file under `folder` that is not hidden and not a sidecar, sorted; files of unknown kind are listed too, so
    that they get a verdict. Numbered pictures of one name stand as one path, `A001.%04d.exr` (see `members`).
    """
    files = [
        path
        for path in folder.rglob("*")
        if path.is_file() and not any(part.startswith(".") for part in path.relative_to(folder).parts)
    ]
    named: dict[tuple[Path, str, str], list[tuple[str, Path]]] = {}
    for path in files:
        numbered = _NUMBERED.fullmatch(path.name)
        if numbered and path.suffix.lower() in _FEWEST_PICTURES:
            key = path.parent, numbered["stem"], path.suffix
            named.setdefault(key, []).append((numbered["digits"], path))
    runs: dict[Path, list[Path]] = {}
    for (parent, stem, suffix), mine in named.items():
        width = min(len(digits) for digits, _ in mine)
        fitting = [path for digits, path in mine if len(digits) == width or digits[0] != "0"]
        if len(fitting) >= _FEWEST_PICTURES[suffix.lower()]:
            runs[parent / f"{stem}%0{width}d{suffix}"] = fitting
    in_runs = {path for mine in runs.values() for path in mine}
    single = [path for path in files if path not in in_runs and path.suffix.lower() not in SIDECAR_SUFFIXES]
    return sorted([*runs, *single])


def is_sequence(path: Path) -> bool:
    """Whether a path stands for numbered pictures."""
    return _PLACE.search(path.name) is not None and not path.is_file()


def members(path: Path) -> dict[int, Path]:
    """The files of a sequence by their numbers; empty when there are none."""
    place = _PLACE.search(path.name)
    if place is None:
        return {}
    before, after, width = path.name[: place.start()], path.name[place.end() :], int(place["width"])
    name = re.compile(rf"{re.escape(before)}(\d{{{width}}}|[1-9]\d{{{width},}}){re.escape(after)}")
    found = ((name.fullmatch(each.name), each) for each in path.parent.iterdir()) if path.parent.is_dir() else ()
    return {int(match[1]): each for match, each in found if match}


def clip_stem(path: Path) -> str:
    """The name of a clip without its suffix; of a sequence what stands before the number, or else its folder."""
    if not is_sequence(path):
        return path.stem
    return path.name.partition("%")[0].rstrip("._- ") or path.parent.name


def source_sha256(path: Path) -> str:
    """sha256 of a clip's bytes; of a sequence, over the numbers and hashes of its files."""
    if not is_sequence(path):
        return sha256_file(path)
    lines = "".join(f"{number} {sha256_file(file)}\n" for number, file in sorted(members(path).items()))
    return hashlib.sha256(lines.encode()).hexdigest()


def sidecar_files(folder: Path) -> list[Path]:
    """The caption files and tables under `folder`, sorted."""
    return sorted(p for p in folder.rglob("*") if p.is_file() and (p.name in _TABLES or p.suffix.lower() == ".txt"))


def read_rows(folder: Path, clip: Path) -> list[Row]:
    """All that sidecars say about `clip`, from tables in its own folder and up to `folder`, then its `.txt`. Raises
    `ConfigError` on bad rows.
    """
    rows: list[Row] = []
    place = clip.parent
    while True:
        names = (clip.relative_to(place).as_posix(), clip.with_name(clip_stem(clip)).relative_to(place).as_posix())
        for table in _TABLES:
            if (place / table).is_file():
                rows += [_row(item, place / table) for item in _items(place / table) if item.get("file_name") in names]
        if place == folder:
            break
        place = place.parent
    text = clip.with_name(f"{clip_stem(clip)}.txt")
    if text.is_file():
        rows.append(Row(text=" ".join(_read(text).split()), source=text.name))
    return rows


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ConfigError("a caption file is not UTF-8 text", where=str(path), remedy="save it as UTF-8") from error


def _items(path: Path) -> Iterator[dict[str, Any]]:
    text = _read(path)
    if path.suffix == ".csv":
        yield from csv.DictReader(text.splitlines())
        return
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip():
            continue
        try:
            item = json.loads(line)
        except json.JSONDecodeError as error:
            raise ConfigError(f"not JSON: {error.msg}", where=f"{path}, line {number}") from error
        if not isinstance(item, dict) or not isinstance(item.get("file_name"), str):
            raise ConfigError('a row needs a "file_name"', where=f"{path}, line {number}")
        yield item


def _row(item: dict[str, Any], path: Path) -> Row:
    def number(key: str) -> int | None:
        value = item.get(key)
        if value is None or value == "":
            return None
        if isinstance(value, bool) or not str(value).isdigit():
            raise ConfigError(f"{key} must be a whole number, not {value!r}", where=f"{path}, {item['file_name']}")
        return int(value)

    def words(key: str) -> str:
        return " ".join(str(item.get(key) or "").split())

    return Row(
        text=words("text") or words("caption"),
        source=path.name,
        scene=words("scene"),
        shot=number("shot"),
        start_frame=number("start_frame"),
        rights=Rights(
            owner=words("owner"), licence=words("licence"), consent=words("consent"), document=words("document")
        ),
    )


def row_for_shot(rows: list[Row], *, index: int, start: int) -> Row | None:
    """The row for shot number `index` that starts at frame `start`: by number, else by start frame, else the clip's own
    row; None if none fits.
    """
    for row in rows:
        if row.shot == index:
            return row
    started = [row for row in rows if row.start_frame is not None and row.start_frame <= start + _NEAR]
    if started:
        return max(started, key=lambda row: row.start_frame or 0)
    return next((row for row in rows if row.shot is None and row.start_frame is None), None)


def rights_of(rows: list[Row]) -> Rights:
    """The first stated rights of a clip; empty when none are."""
    return next((row.rights for row in rows if row.rights != Rights()), Rights())
