"""Shot lists from elsewhere: a table (CSV), or the markers of a timeline (OTIO), as rows of `shots.toml`.

A table has one shot a row, its columns called as the keys of a shot. A marker becomes a shot: its name the id, its
comment the prompt, its length the shot's, and the frame of the film under it the reference picture.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import fields
from fractions import Fraction
from pathlib import Path
from typing import Any
from urllib.parse import urlparse
from urllib.request import url2pathname

from cinetune.artifacts import PlannedShot
from cinetune.config import unknown_key
from cinetune.durable import atomic_write
from cinetune.errors import ConfigError, FootageError
from cinetune.footage.edit.markers import Marker, otio_markers
from cinetune.footage.read.stills import write_png16
from cinetune.footage.video import probe, read_frames
from cinetune.outside import MOST_TABLE, csv_rows, is_file, on_disk, read_text
from cinetune.shotlist import check_shots, load_shots, shots_text

__all__ = ["import_shots"]

REFERENCES = "references"
MARKED_SECONDS = 2.0
"""Of a shot from a marker without a length."""
_LONGEST_NAME = 80  # letters
_DECIMAL = {"seconds", "look_strength", "preview_strength"}
_WHOLE = {"seed", "height", "width", "candidates", "pick"}
_COUNT = re.compile(r"-?\d{1,18}", re.ASCII)
_NUMBER = re.compile(r"\d{1,9}(\.\d{1,9})?", re.ASCII)
_COLUMNS = tuple(field.name for field in fields(PlannedShot) if field.name != "prompts")


def import_shots(root: Path, source: Path) -> int:
    """Write the shots of a .csv or .otio file into `root/shots.toml`, and the pictures under markers into
    `root/references`; how many there are.

    Nothing is written unless every row is sound. Raises `ConfigError` for rows that are not (all of them named), and
    when the list has shots already; `FootageError` for a marker on no film, or on one that cannot be read.
    """
    target = root / "shots.toml"
    if target.is_file() and load_shots(target).shots:
        raise ConfigError("the project has shots already", where=str(target), remedy="empty the list, or add by hand")
    lines: list[int] = []
    match source.suffix.lower():
        case ".csv" | ".tsv":
            numbered = list(_table_rows(source))
            lines, rows = [line for line, _ in numbered], [row for _, row in numbered]
        case ".otio":
            rows = _marked_rows(root, source)
        case suffix:
            raise ConfigError(f"shots cannot be read from {suffix or source.name}", remedy="a .csv or .otio file")
    check_shots(rows, root, where=str(source), lines=lines)
    with atomic_write(target) as temporary:
        temporary.write_text(f"# from {source.name!a}\n\n{shots_text(rows)}", encoding="utf-8")
    return len(rows)


def _table_rows(source: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    for line, cells in csv_rows(read_text(source, most=MOST_TABLE), where=str(source), needs="id"):
        unknown = next((name for name in cells if name not in _COLUMNS), None)
        if unknown is not None:
            raise ConfigError(unknown_key(unknown, list(_COLUMNS)), where=f"{source}, line 1")
        where = f"{source}, line {line}"
        yield line, {name: _cell(name, cell.strip(), where) for name, cell in cells.items() if cell.strip()}


def _cell(name: str, text: str, where: str) -> Any:
    if name not in _DECIMAL | _WHOLE:
        return text
    if (_COUNT if name in _WHOLE else _NUMBER).fullmatch(text) is None:
        raise ConfigError(f"{name} is not a {'whole ' if name in _WHOLE else ''}number: {text[:60]!r}", where=where)
    return int(text) if name in _WHOLE else float(text)


def _marked_rows(root: Path, source: Path) -> list[dict[str, Any]]:
    text = read_text(source, refuse=FootageError)
    found: list[tuple[dict[str, Any], Path, Fraction]] = []
    for number, marker in enumerate(otio_markers(text), start=1):
        film = _film(marker, source)
        name = re.sub(r"[^A-Za-z0-9._-]+", "_", marker.name).strip("._-")[:_LONGEST_NAME] or f"marker{number:02d}"
        if not marker.words:
            raise ConfigError(f"{marker.label} has no comment", where=str(source), remedy="its comment is the prompt")
        if (root / REFERENCES / f"{name}.png").exists() or any(name == row["id"] for row, _, _ in found):
            what = f"{marker.label}: there is a {REFERENCES}/{name}.png already"
            raise ConfigError(what, where=str(source), remedy="give its marker another name, or move that picture")
        row = {
            "id": name,
            "prompt": marker.words,
            "domain": "in",
            "reference": f"{REFERENCES}/{name}.png",
            "seconds": float(marker.seconds) or MARKED_SECONDS,
            "seed": number,
        }
        found.append((row, film, marker.at))
    for row, film, at in found:
        facts = probe(film)
        index = min(facts.frames - 1, int(at * facts.rate))
        picture = read_frames(film, [index], colour=facts.colour, rate=facts.rate, reading=facts.reading)[0]
        write_png16(root / row["reference"], picture)
    return [row for row, _, _ in found]


def _film(marker: Marker, source: Path) -> Path:
    if not marker.file:
        remedy = "put it on a clip, or relink that clip, or write the shot into shots.toml by hand"
        raise FootageError(f"{marker.label} lies on no media", where=str(source), remedy=remedy)
    named = urlparse(marker.file)
    path = Path(url2pathname(named.path) if named.scheme == "file" else marker.file)
    for film in (on_disk(source.parent, str(path)), on_disk(source.parent, path.name)):
        if is_file(film):
            return film
    remedy = "put the film beside the timeline"
    raise FootageError(f"{marker.label}: its media {path.name!r} is not there", where=str(source), remedy=remedy)
