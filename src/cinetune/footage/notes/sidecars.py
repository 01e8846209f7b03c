"""What people write beside their clips: captions, scene names, rights.

    clip.txt                         one caption for every shot of clip.* (of a sequence: of clip.0001.exr ...)
    metadata.jsonl                   {"file_name": "clip.mp4", "text": "...", "scene": "...", "shot": 0} per line
    metadata.csv, captions.csv       the same as columns
    captions.generated.jsonl         what `cinetune caption` wrote: used where a person wrote nothing

A row may name one shot by `shot` (counted from 0 in the order found) or by `start_frame` (the frame the shot was cut in
at), or stand for the whole clip; with both, the shot of that number must start there. `caption` is read
as `text`. `owner`, `licence`, `consent`, `document` state rights.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from cinetune.artifacts import FootageClip, Rights, Shot, Window
from cinetune.errors import ConfigError
from cinetune.store import atomic_write, sha256_file

__all__ = [
    "GENERATED",
    "METADATA",
    "SIDECAR_SUFFIXES",
    "Generated",
    "Row",
    "captions_of",
    "clip_stem",
    "files_below",
    "footage_files",
    "is_sequence",
    "members",
    "read_generated",
    "read_rows",
    "rights_csv",
    "rights_of",
    "row_for_shot",
    "sidecar_files",
    "source_sha256",
    "table_rows",
    "write_generated",
]

GENERATED = "captions.generated.jsonl"
METADATA = "metadata.jsonl"

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
_TABLES = (METADATA, "metadata.csv", "captions.csv")
_FEWEST_PICTURES = {".exr": 2, ".dpx": 2, ".tif": 2, ".tiff": 2, ".png": 12}
"""How many numbered files of one name make a clip; a few PNGs are stills that somebody keeps beside it."""
_NUMBERED = re.compile(r"(?P<stem>.*?)(?P<digits>\d+)\.[^.]+")
_PLACE = re.compile(r"%0(?P<width>\d+)d")
_LONGEST_NAME = 255  # bytes; to ask for a longer one is an error on most disks
_NEAR = 2  # frames a stated start may lie after the start found


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """What one line of a sidecar says about one clip; `source` is the sidecar's path inside the footage folder, or
    `generated (<model>)`."""

    text: str
    source: str
    scene: str = ""
    shot: int | None = None
    start_frame: int | None = None
    rights: Rights = field(default_factory=Rights)
    generated: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Generated:
    """A machine's caption of `frames` frames from `start_frame` of the clip with these bytes, and what made it.
    `edited`: a person changed the text since, so it is theirs."""

    file_name: str
    clip_sha256: str
    start_frame: int
    frames: int
    text: str
    model: str
    prompt_sha256: str
    edited: bool = False


def files_below(folder: Path) -> list[Path]:
    """All under `folder` that is neither hidden nor a folder. Linked folders are not entered; folders that vanish on
    the way, or cannot be read, have nothing in them.
    """
    found: list[Path] = []
    for place, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        found += [path for name in names if not name.startswith(".") and not (path := Path(place, name)).is_dir()]
    return found


def footage_files(folder: Path) -> list[Path]:
    """Every file under `folder` that is not hidden and not a sidecar, sorted; files of unknown kind, links to
    nothing and pipes are listed too, so that they get a verdict. Numbered pictures of one name stand as one path,
    `A001.%04d.exr` (see `members`).
    """
    files = files_below(folder)
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
    return sorted(p for p in files_below(folder) if p.is_file() and (p.name in _TABLES or p.suffix.lower() == ".txt"))


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
                inside = (place / table).relative_to(folder).as_posix()
                found = [item for name in dict.fromkeys(names) for item in _found(place / table, name)]
                rows += [_row(item, place / table, inside) for item in found]
        if place == folder:
            break
        place = place.parent
    text = clip.with_name(f"{clip_stem(clip)}.txt")
    if len(os.fsencode(text.name)) <= _LONGEST_NAME and text.is_file():
        rows.append(Row(text=" ".join(_read(text).split()), source=text.relative_to(folder).as_posix()))
    return rows


def _found(table: Path, name: str) -> list[dict[str, Any]]:
    return [item for item in table_rows(table) if item.get("file_name") == name]


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ConfigError("a caption file is not UTF-8 text", where=str(path), remedy="save it as UTF-8") from error
    except OSError as error:
        raise ConfigError(f"a caption file cannot be read ({error.strerror})", where=str(path)) from error


def table_rows(path: Path) -> Iterator[dict[str, Any]]:
    """The rows of a caption table as written. Raises `ConfigError` naming the line that is not a row."""
    text = _read(path)
    if path.suffix == ".csv":
        try:
            yield from csv.DictReader(text.splitlines())
        except csv.Error as error:
            raise ConfigError(f"not a table: {error}", where=str(path)) from error
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


def _row(item: dict[str, Any], path: Path, source: str) -> Row:
    def number(key: str) -> int | None:
        value = item.get(key)
        if value is None or value == "":
            return None
        if isinstance(value, bool) or not str(value).isdecimal():
            raise ConfigError(f"{key} must be a whole number, not {value!r}", where=f"{path}, {item['file_name']}")
        return int(value)

    def words(key: str) -> str:
        return " ".join(str(item.get(key) or "").split())

    return Row(
        text=words("text") or words("caption"),
        source=source,
        scene=words("scene"),
        shot=number("shot"),
        start_frame=number("start_frame"),
        rights=Rights(
            owner=words("owner"), licence=words("licence"), consent=words("consent"), document=words("document")
        ),
    )


def row_for_shot(rows: list[Row], *, index: int, start: int) -> Row | None:
    """The row for shot number `index` that starts at frame `start`: by number (and start frame, if it says both), else
    by start frame, else the clip's own row; None if none fits.
    """
    return next(iter(_fitting(rows, index, start)), None)


def _fitting(rows: list[Row], index: int, start: int) -> list[Row]:
    """The rows that speak of a shot, the closest first. Of those by start frame only the latest do: an earlier one
    speaks of an earlier shot, also where the latest has no text.
    """
    numbered = [
        row for row in rows if row.shot == index and (row.start_frame is None or abs(row.start_frame - start) <= _NEAR)
    ]
    frames = [(row.start_frame, row) for row in rows if row.shot is None and row.start_frame is not None]
    latest = max((frame for frame, _ in frames if frame <= start + _NEAR), default=None)
    started = [row for frame, row in frames if frame == latest]
    return numbered + started + [row for row in rows if row.shot is None and row.start_frame is None]


def rights_of(rows: list[Row]) -> Rights:
    """The first stated rights of a clip; empty when none are."""
    return next((row.rights for row in rows if row.rights != Rights()), Rights())


def captions_of(root: Path, folder: Path, clips: Mapping[str, FootageClip], shots: Sequence[Shot]) -> list[Row]:
    """What is said about each shot, in order; a row without text, of source "none", where nothing is. A person's words
    always win; a machine's are used only for the very frames they were written for.

    `root` is the project folder, `folder` the footage folder. Raises `ConfigError` on bad rows, and on rows that number
    shots that were not found.
    """
    folder = Path(os.path.normpath(folder))
    found = {name: read_rows(folder, Path(os.path.normpath(root / clip.path))) for name, clip in clips.items()}
    machine = {(row.clip_sha256, row.start_frame, row.frames): row for row in read_generated(folder)}
    order: dict[str, list[Shot]] = {}
    for shot in shots:
        order.setdefault(shot.clip, []).append(shot)
    for clip, mine in order.items():
        extra = [row for row in found[clip] if row.shot is not None and row.shot >= len(mine)]
        if extra:
            raise ConfigError(
                f"{extra[0].source} captions shot {extra[0].shot} of {clip}; {len(mine)} shots were found, from 0",
                where=clips[clip].path,
                remedy='name shots by "start_frame" instead of "shot"',
            )
    rows: list[Row] = []
    for shot in shots:
        index, start = order[shot.clip].index(shot), shot.span.start
        fitting = _fitting(found[shot.clip], index, start) or [Row(text="", source="none")]
        row = fitting[0]
        told = next((other for other in fitting if other.text), None)
        made = machine.get((clips[shot.clip].sha256, start, shot.span.frames))
        if told is not None:
            row = replace(told, scene=row.scene or told.scene)
        elif made is not None and made.edited:
            row = replace(row, text=made.text, source=GENERATED)
        elif made is not None:
            row = replace(row, text=made.text, source=f"generated ({made.model})", generated=True)
        rows.append(row)
    return rows


_GENERATED_KEYS = ("file_name", "start_frame", "frames", "text", "model", "prompt_sha256", "clip_sha256")


def read_generated(folder: Path) -> list[Generated]:
    """The rows of `captions.generated.jsonl`; none if there is no such file. Raises `ConfigError` on bad rows."""
    path = folder / GENERATED
    rows: list[Generated] = []
    for number, item in enumerate(table_rows(path) if path.is_file() else (), start=1):
        known = {key: item.get(key) for key in _GENERATED_KEYS}
        numbers = (known["start_frame"], known["frames"])
        if any(type(value) is not int for value in numbers) or not all(
            isinstance(value, str) for key, value in known.items() if key not in ("start_frame", "frames")
        ):
            remedy = "mend it or delete the file; `cinetune caption` writes it again"
            raise ConfigError("a generated caption lacks one of its keys", where=f"{path}, row {number}", remedy=remedy)
        text: Any = known["text"]
        values: dict[str, Any] = known | {"text": " ".join(text.split())}
        rows.append(Generated(**values, edited=_text_sha(values["text"]) != item.get("text_sha256")))
    return rows


def write_generated(folder: Path, rows: Iterable[Generated]) -> Path:
    """Write `captions.generated.jsonl` atomically, sorted by file and frame; the same rows give the same bytes. Rows a
    person edited are marked, so that they stay theirs. Raises `StoreError`.
    """
    lines: list[str] = []
    for row in sorted(rows, key=lambda row: (row.file_name, row.start_frame, row.frames, row.clip_sha256)):
        item = {key: getattr(row, key) for key in _GENERATED_KEYS}
        item["text_sha256"] = "edited" if row.edited else _text_sha(row.text)
        lines.append(json.dumps(item, ensure_ascii=False) + "\n")
    path = folder / GENERATED
    with atomic_write(path) as temporary:
        temporary.write_text("".join(lines), encoding="utf-8")
    return path


def _text_sha(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


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
