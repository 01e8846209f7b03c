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
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from cinetune.artifacts import FootageClip, Rights, Shot, Window
from cinetune.durable import atomic_write
from cinetune.errors import ConfigError
from cinetune.outside import (
    MOST_TABLE,
    csv_rows,
    folded,
    is_file,
    json_lines,
    name_parts,
    one_line,
    read_text,
    same_name,
    spreadsheet_cell,
)
from cinetune.store import sha256_file

__all__ = [
    "GENERATED",
    "METADATA",
    "SIDECAR_SUFFIXES",
    "CaptionRow",
    "Generated",
    "Notes",
    "captions_of",
    "clip_stem",
    "files_below",
    "footage_files",
    "is_sequence",
    "members",
    "read_generated",
    "rights_csv",
    "rights_of",
    "rows_for_shot",
    "sidecar_files",
    "source_sha256",
    "table_rows",
    "unheard",
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
_NUMBERED = re.compile(r"(?P<stem>.*?)(?P<digits>\d+)\.[^.]+", re.ASCII)
_PLACE = re.compile(r"%0(?P<width>\d+)d", re.ASCII)
_WORDS = ("text", "caption", "scene", "owner", "licence", "consent", "document")
_NEAR = 2  # frames a stated start may lie after the start found


@dataclass(frozen=True, slots=True, kw_only=True)
class CaptionRow:
    """What one line of a sidecar says about one clip; `source` is the sidecar's path inside the footage folder, or
    `generated (<model>)`, `line` the row's place in it (0 = the whole file)."""

    text: str
    source: str
    scene: str = ""
    shot: int | None = None
    start_frame: int | None = None
    rights: Rights = field(default_factory=Rights)
    generated: bool = False
    line: int = 0


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
    name = re.compile(rf"{re.escape(before)}(\d{{{width}}}|[1-9]\d{{{width},}}){re.escape(after)}", re.ASCII)
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
    return sorted(p for p in files_below(folder) if is_file(p) and (p.name in _TABLES or p.suffix.lower() == ".txt"))


class Notes:
    """All that sidecars under `folder` say, by clip. Each table is read once, when a clip below it is asked for.

    A row's `file_name` is the path of a clip from the table's folder, with or without its suffix; or, where only one
    clip answers to it, the same in another Unicode form or case, a longer path (of another machine) that ends in it, or
    its bare name.
    """

    def __init__(self, folder: Path, clips: Iterable[Path] = ()) -> None:
        self._folder = folder
        self._clips = list(dict.fromkeys([*footage_files(folder), *clips]))
        self._tables: dict[Path, dict[Path, list[tuple[int, dict[str, Any]]]]] = {}
        self._strays: dict[Path, list[str]] = {}
        self._texts: dict[Path, dict[str, list[Path]]] = {}

    def rows(self, clip: Path) -> list[CaptionRow]:
        """From tables in the clip's folder and up to `folder`, then its `.txt`. Raises `ConfigError` on bad rows."""
        rows: list[CaptionRow] = []
        place = clip.parent
        while True:
            for table in _TABLES:
                path = place / table
                if is_file(path):
                    inside = path.relative_to(self._folder).as_posix()
                    rows += [_row(item, path, inside, line) for line, item in self._table(path).get(clip, [])]
            if place in (self._folder, place.parent):
                break
            place = place.parent
        text = self._text_of(clip)
        if text is not None:
            source = text.relative_to(self._folder).as_posix()
            rows.append(CaptionRow(text=one_line(read_text(text, most=MOST_TABLE)), source=source))
        return rows

    def strays(self) -> list[str]:
        """In words, the rows of each table under the folder that speak of no clip, or could speak of several."""
        found: list[str] = []
        for table in (path for path in sidecar_files(self._folder) if path.name in _TABLES):
            name = table.relative_to(self._folder).as_posix()
            if not any(clip.is_relative_to(table.parent) for clip in self._clips):
                found.append(f"{name} is not read: no film lies in its folder or below")
                continue
            self._table(table)
            found += [f"{name}, {words}" for words in self._strays[table]]
        return found

    def _text_of(self, clip: Path) -> Path | None:
        """The caption file beside a clip; of several that differ in case alone, the one spelled as the clip."""
        place = clip.parent
        if place not in self._texts:
            found: dict[str, list[Path]] = {}
            for path in sorted(place.iterdir()) if place.is_dir() else ():
                if path.suffix.lower() == ".txt" and path.is_file():
                    found.setdefault(folded(path.name), []).append(path)
            self._texts[place] = found
        name = f"{clip_stem(clip)}.txt"
        fitting = self._texts[place].get(folded(name), [])
        return next((path for path in fitting if path.name == name), fitting[0] if len(fitting) == 1 else None)

    def _table(self, table: Path) -> dict[Path, list[tuple[int, dict[str, Any]]]]:
        if table not in self._tables:
            place = table.parent
            exact, near, bare = _index(place, [clip for clip in self._clips if clip.is_relative_to(place)])
            sure: dict[Path, list[tuple[int, dict[str, Any]]]] = {}
            likely: dict[Path, list[tuple[int, dict[str, Any]]]] = {}
            strays: list[str] = []
            for line, item in _numbered_rows(table):
                name = unicodedata.normalize("NFC", item["file_name"])
                parts = name_parts(name)
                if name in exact:
                    for clip in exact[name]:
                        sure.setdefault(clip, []).append((line, item))
                    continue
                fitting = near.get("/".join(parts)) or [
                    clip for spelled, clip in bare.get(parts[-1] if parts else "", []) if same_name(spelled, name)
                ]
                if len(set(fitting)) == 1:
                    likely.setdefault(fitting[0], []).append((line, item))
                else:
                    could = ", ".join(sorted({clip.relative_to(place).as_posix() for clip in fitting}))
                    what = f"could be any of {could}" if could else "is no film here"
                    strays.append(f"line {line}: {item['file_name']!r} {what}")
            self._tables[table], self._strays[table] = {**likely, **sure}, strays
        return self._tables[table]


def _index(
    place: Path, clips: Sequence[Path]
) -> tuple[dict[str, list[Path]], dict[str, list[Path]], dict[str, list[tuple[str, Path]]]]:
    """Clips by path from `place` with and without suffix: as spelled, as compared, and by the last part alone."""
    exact: dict[str, list[Path]] = {}
    near: dict[str, list[Path]] = {}
    bare: dict[str, list[tuple[str, Path]]] = {}
    for clip in clips:
        for path in dict.fromkeys((clip, clip.with_name(clip_stem(clip)))):
            name = unicodedata.normalize("NFC", path.relative_to(place).as_posix())
            exact.setdefault(name, []).append(clip)
            near.setdefault("/".join(name_parts(name)), []).append(clip)
            bare.setdefault(name_parts(name)[-1], []).append((name, clip))
    return exact, near, bare


def table_rows(path: Path) -> Iterator[dict[str, Any]]:
    """The rows of a caption table as written, each with a `file_name`. Raises `ConfigError` naming the line that is not
    a row.
    """
    return (item for _, item in _numbered_rows(path))


def _numbered_rows(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    text = read_text(path, most=MOST_TABLE)
    where = str(path)
    rows = csv_rows(text, where=where, needs="file_name") if path.suffix == ".csv" else json_lines(text, where=where)
    for number, item in rows:
        place = f"{path}, line {number}"
        if not isinstance(item, dict) or not isinstance(item.get("file_name"), str) or not item["file_name"].strip():
            raise ConfigError('a row needs a "file_name"', where=place)
        for key in _WORDS:
            if not isinstance(item.get(key, ""), str):
                value = json.dumps(item[key])[:60]
                raise ConfigError(f"{key} must be text, not {value}", where=place, remedy="leave the key out, or quote")
        yield number, item


def _row(item: dict[str, Any], path: Path, source: str, line: int) -> CaptionRow:
    def number(key: str) -> int | None:
        value = item.get(key)
        if value is None or value == "":
            return None
        if isinstance(value, bool) or re.fullmatch(r"\s*\d{1,12}\s*", str(value), re.ASCII) is None:
            where = f"{path}, {item['file_name']}"
            raise ConfigError(f"{key} must be a whole number, not {str(value)[:60]!r}", where=where)
        return int(value)

    def words(key: str) -> str:
        return one_line(item.get(key, ""))

    return CaptionRow(
        text=words("text") or words("caption"),
        source=source,
        line=line,
        scene=words("scene"),
        shot=number("shot"),
        start_frame=number("start_frame"),
        rights=Rights(
            owner=words("owner"), licence=words("licence"), consent=words("consent"), document=words("document")
        ),
    )


def rows_for_shot(rows: list[CaptionRow], index: int, start: int) -> list[CaptionRow]:
    """The rows that speak of shot number `index` of a clip, which starts at frame `start`: the closest first. Of those
    by start frame only the latest do: an earlier one speaks of an earlier shot, also where the latest has no text.
    """
    numbered = [
        row for row in rows if row.shot == index and (row.start_frame is None or abs(row.start_frame - start) <= _NEAR)
    ]
    frames = [(row.start_frame, row) for row in rows if row.shot is None and row.start_frame is not None]
    latest = max((frame for frame, _ in frames if frame <= start + _NEAR), default=None)
    started = [row for frame, row in frames if frame == latest]
    return numbered + started + [row for row in rows if row.shot is None and row.start_frame is None]


def rights_of(rows: list[CaptionRow]) -> Rights:
    """The first stated rights of a clip; empty when none are."""
    return next((row.rights for row in rows if row.rights != Rights()), Rights())


def captions_of(root: Path, folder: Path, clips: Mapping[str, FootageClip], shots: Sequence[Shot]) -> list[CaptionRow]:
    """What is said about each shot, in order; a row without text, of source "none", where nothing is. A person's words
    always win; a machine's are used only for the very frames they were written for.

    `root` is the project folder, `folder` the footage folder. Raises `ConfigError` on bad rows, and on rows that number
    shots that were not found.
    """
    found, order = _said(root, folder, clips), _in_order(shots)
    machine = {(row.clip_sha256, row.start_frame, row.frames): row for row in read_generated(folder)}
    for clip, mine in order.items():
        extra = [row for row in found[clip] if row.shot is not None and row.shot >= len(mine)]
        if extra:
            raise ConfigError(
                f"{extra[0].source} captions shot {extra[0].shot} of {clip}; {len(mine)} shots were found, from 0",
                where=clips[clip].path,
                remedy='name shots by "start_frame" instead of "shot"',
            )
    rows: list[CaptionRow] = []
    for shot in shots:
        index, start = order[shot.clip].index(shot), shot.span.start
        fitting = rows_for_shot(found[shot.clip], index, start) or [CaptionRow(text="", source="none")]
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


def unheard(root: Path, folder: Path, clips: Mapping[str, FootageClip], shots: Sequence[Shot]) -> list[str]:
    """In words, what a person wrote that no shot takes: rows for shots that begin elsewhere, and edited captions of
    frames that are no shot any more. Arguments and errors as `captions_of`.
    """
    words: list[str] = []
    order = _in_order(shots)
    for clip, rows in _said(root, folder, clips).items():
        mine = order.get(clip, [])
        taken = {id(row) for index, shot in enumerate(mine) for row in rows_for_shot(rows, index, shot.span.start)}
        for row in (row for row in rows if id(row) not in taken):
            named = [f"{key} = {value}" for key in ("shot", "start_frame") if (value := getattr(row, key)) is not None]
            words.append(f"{row.source}, line {row.line}: no shot of {clip} has {' and '.join(named) or 'a caption'}")
    cut = {(clips[shot.clip].sha256, shot.span.start, shot.span.frames) for shot in shots}
    for number, row in enumerate(read_generated(folder), start=1):
        if row.edited and (row.clip_sha256, row.start_frame, row.frames) not in cut:
            what = f"the caption you wrote for {row.frames} frames of {row.file_name} from {row.start_frame}"
            words.append(f"{GENERATED}, row {number}: {what} fits no shot any more")
    return words


def _said(root: Path, folder: Path, clips: Mapping[str, FootageClip]) -> dict[str, list[CaptionRow]]:
    """Everything that is said about each clip."""
    paths = {name: Path(os.path.normpath(root / clip.path)) for name, clip in clips.items()}
    notes = Notes(Path(os.path.normpath(folder)), paths.values())
    return {name: notes.rows(path) for name, path in paths.items()}


def _in_order(shots: Sequence[Shot]) -> dict[str, list[Shot]]:
    order: dict[str, list[Shot]] = {}
    for shot in shots:
        order.setdefault(shot.clip, []).append(shot)
    return order


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
        values: dict[str, Any] = known | {"text": one_line(text)}
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
        words = [name, clip.path, clip.sha256, *stated, scenes]
        table.writerow([*map(spreadsheet_cell, words), *counts])
    return out.getvalue(), unstated
