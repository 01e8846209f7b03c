"""What people write beside their clips: captions, scene names, rights.

    clip.txt                         one caption for every shot of clip.*
    metadata.jsonl                   {"file_name": "clip.mp4", "text": "...", "scene": "...", "shot": 0} per line
    metadata.csv, captions.csv       the same as columns

A row may name one shot by `shot` (counted from 0 in the order found) or by `start_frame` (the frame the shot was cut in
at), or stand for the whole clip. `caption` is read as `text`. `owner`, `licence`, `consent`, `document` state rights.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cinetune.artifacts import FootageClip, Rights, Window
from cinetune.errors import ConfigError

__all__ = [
    "SIDECAR_SUFFIXES",
    "Row",
    "footage_files",
    "read_rows",
    "rights_csv",
    "rights_of",
    "row_for_shot",
    "sidecar_files",
]

SIDECAR_SUFFIXES = frozenset(
    {
        ".ale",
        ".csv",
        ".edl",
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
    that they get a verdict.
    """
    return sorted(
        path
        for path in folder.rglob("*")
        if path.is_file()
        and path.suffix.lower() not in SIDECAR_SUFFIXES
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
    )


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
        name = clip.relative_to(place).as_posix()
        for table in _TABLES:
            if (place / table).is_file():
                rows += [_row(item, place / table) for item in _items(place / table) if item.get("file_name") == name]
        if place == folder:
            break
        place = place.parent
    text = clip.with_suffix(".txt")
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


def rights_csv(clips: Mapping[str, FootageClip], windows: Sequence[Window]) -> tuple[str, list[str]]:
    """(a CSV table of who owns every clip that `windows` use and what they are used for, the clips whose owner or
    licence is not stated)."""
    out = io.StringIO()
    table = csv.writer(out, lineterminator="\n")
    table.writerow(
        ["clip", "file", "sha256", "owner", "licence", "consent", "document", "scenes", "train windows", "held windows"]
    )
    unstated: list[str] = []
    for name in dict.fromkeys(window.clip for window in windows):
        clip, mine = clips[name], [window for window in windows if window.clip == name]
        rights = clip.rights
        if not (rights.owner and rights.licence):
            unstated.append(name)
        scenes = "; ".join(dict.fromkeys(window.scene for window in mine))
        counts = [sum(window.split == split for window in mine) for split in ("train", "held")]
        stated = [rights.owner, rights.licence, rights.consent, rights.document]
        table.writerow([name, clip.path, clip.sha256, *stated, scenes, *counts])
    return out.getvalue(), unstated
