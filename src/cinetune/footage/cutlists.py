"""Which frames of which footage file the edit lists in a folder use.

Every event of every EDL, OTIO and FCP7 XML file is matched to a file by file name, clip name or reel, and by the
timecode the file starts at. What cannot be used is left out with a reason, never silently.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

import av
import av.error

from cinetune.errors import FootageError
from cinetune.footage.edl import parse_edl
from cinetune.footage.events import CutEvent, frame_range, usable_range
from cinetune.footage.otiojson import parse_otio
from cinetune.footage.sidecars import files_below
from cinetune.footage.xmeml import parse_xmeml
from cinetune.timecode import exact_rate

__all__ = ["CUT_LISTS", "CutPlan", "cut_list_files", "plan_cuts", "read_cut_list", "spans_of"]

CUT_LISTS = (".edl", ".fcpxml", ".otio", ".xml")
"""Endings of edit lists; FCPXML is looked at only to say what to export instead."""
_MAX_BYTES = 64 * 1024 * 1024  # a feature film's XML has some tens of megabytes
_LEAST_PREFIX = 3  # letters of a reel that a longer file name must begin with
_CMX_REEL = 8  # letters that CMX3600 keeps of a reel


@dataclass(frozen=True, slots=True, kw_only=True)
class CutPlan:
    """What the edit lists of a folder ask for.

    `events` are those of each file, `broken` the files whose own list cannot be used, `refused` the other lists that
    cannot be read, `notes` what became of each readable list.
    """

    events: dict[Path, tuple[CutEvent, ...]] = field(default_factory=dict)
    broken: dict[Path, FootageError] = field(default_factory=dict)
    refused: dict[Path, FootageError] = field(default_factory=dict)
    notes: dict[Path, str] = field(default_factory=dict)


def cut_list_files(folder: Path) -> list[Path]:
    """Files under `folder` that may be edit lists, sorted; hidden ones are left out."""
    return sorted(path for path in files_below(folder) if path.suffix.lower() in CUT_LISTS and path.is_file())


def read_cut_list(path: Path) -> list[CutEvent] | None:
    """The events of an EDL, OTIO or FCP7 XML file in order; None for XML that is no edit. Raises `FootageError`."""
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise FootageError(f"it is larger than {_MAX_BYTES >> 20} MiB", remedy="export only the sequence you need")
        data = path.read_bytes()
        match path.suffix.lower():
            case ".xml" | ".fcpxml":
                return parse_xmeml(data, edit=path.name)
            case ".otio":
                return parse_otio(_text(data), edit=path.name)
            case _:
                return parse_edl(_text(data), edit=path.name)
    except OSError as error:
        raise FootageError(f"it cannot be read: {error.strerror}", where=str(path)) from error
    except FootageError as error:
        raise FootageError(error.what, where=str(path), remedy=error.remedy) from error


def _text(data: bytes) -> str:
    encoding = "utf-16" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
    try:
        return data.decode(encoding)
    except UnicodeDecodeError:
        return data.decode("latin-1")  # old systems write names in one of several 8-bit sets; labels are ASCII in all


@dataclass(frozen=True, slots=True, kw_only=True)
class _Header:
    """What a file says of itself without decoding; `frames` may be a little off, `reel` is empty mostly."""

    rate: Fraction
    timecode: str | None
    frames: int | None
    reel: str


def _read_header(path: Path) -> _Header | None:
    """None for what is no film; that is found and said when the file itself is judged."""
    try:
        with av.open(str(path), metadata_errors="replace") as container:
            if not container.streams.video:
                return None
            stream = container.streams.video[0]
            rate = stream.guessed_rate or stream.average_rate
            if not rate:
                return None
            exact = exact_rate(rate)
            frames = stream.frames or None
            if frames is None and container.duration:
                frames = round(Fraction(container.duration, av.time_base) * exact)
            words = dict(container.metadata) | dict(stream.metadata)
            for other in container.streams:
                words = dict(other.metadata) | words
            return _Header(
                rate=exact,
                timecode=words.get("timecode"),
                frames=frames,
                reel=(words.get("reel_name") or words.get("reel_umid_name") or "").strip(),
            )
    except (av.error.FFmpegError, OSError, ValueError):
        return None


class _Shelf:
    """The footage files, found by what an edit list calls them. Headers are read when they are needed, once."""

    def __init__(self, files: Sequence[Path]) -> None:
        self._files = files
        self._headers: dict[Path, _Header | None] = {}

    def header(self, path: Path) -> _Header | None:
        if path not in self._headers:
            self._headers[path] = _read_header(path)
        return self._headers[path]

    def holds(self, path: Path, event: CutEvent) -> bool:
        """Whether the event's source time may lie in the file."""
        header = self.header(path)
        if header is None:
            return True
        found = frame_range(event, rate=header.rate, timecode=header.timecode)
        if isinstance(found, str):
            return False
        slack = 0 if header.frames is None else header.frames // 100 + 2
        return found[0] >= 0 and (header.frames is None or found[1] <= header.frames + slack)

    def find(self, event: CutEvent) -> Path | str:
        """The file of an event, or why there is none. A name that fits several files is settled by timecode."""
        named: list[Path] = []
        fitting: list[Path] = []
        for level in self._levels(event):
            named = named or level
            held = [path for path in level if self.holds(path, event)]
            fitting = [path for path in fitting if path in held] or fitting or held
            if len(fitting) == 1:
                return fitting[0]
        if fitting:
            return f"{len(fitting)} files answer to its name and timecode ({', '.join(p.name for p in fitting[:3])})"
        if len(named) == 1:
            return named[0]
        names = ", ".join(dict.fromkeys(name for name in (event.reel, *event.clips, *event.files) if name))
        if named:
            return f"none of {len(named)} files called {names!r} holds its source time"
        return f"no file is called {names!r}"

    def _levels(self, event: CutEvent) -> Iterator[list[Path]]:
        """Files that answer to the event's names, the surest kind of name first."""
        urls = [tuple(part for part in name.lower().replace("\\", "/").split("/") if part) for name in event.files]
        yield self._best_tail([url for url in urls if url])
        names = {url[-1] for url in urls if url} | {name.strip().lower() for name in event.clips}
        names |= {name.rpartition(".")[0] for name in names if "." in name}
        yield [path for path in self._files if {path.name.lower(), path.stem.lower()} & names]
        if event.reel:
            yield [path for path in self._files if _reel_fits(path, event.reel)]
            yield [path for path in self._files if self._reel_inside(path) == event.reel.lower()]

    def _reel_inside(self, path: Path) -> str:
        header = self.header(path)
        return "" if header is None else header.reel.lower()

    def _best_tail(self, urls: list[tuple[str, ...]]) -> list[Path]:
        """The files that share the most folders with a path of the list, counted from the file name."""
        best: dict[int, list[Path]] = defaultdict(list)
        for path in self._files:
            parts = [part.lower() for part in path.parts]
            best[max((_common_tail(parts, url) for url in urls), default=0)].append(path)
        longest = max(best, default=0)
        return best[longest] if longest else []


def _common_tail(parts: Sequence[str], url: Sequence[str]) -> int:
    count = 0
    for ours, theirs in zip(reversed(parts), reversed(url), strict=False):
        if ours != theirs:
            break
        count += 1
    return count


def _reel_fits(path: Path, reel: str) -> bool:
    """Whether a reel names the file or its folder: whole, as the beginning of the name, or as CMX3600 shortens it."""
    reel, stem = reel.lower(), path.stem.lower()
    if reel in (stem, path.name.lower(), path.parent.name.lower()):
        return True
    if len(reel) >= _LEAST_PREFIX and stem.startswith(reel):
        # A001 begins A001_take2 and A001C003, but is another reel than A0012.
        before, after = stem[len(reel) - 1], stem[len(reel)]
        if not after.isalnum() or before.isdigit() != after.isdigit():
            return True
    plain = "".join(letter for letter in stem if letter.isalnum())
    return len(reel) == _CMX_REEL and (stem[:_CMX_REEL] == reel or plain[:_CMX_REEL] == reel)


def plan_cuts(folder: Path, files: Sequence[Path]) -> CutPlan:
    """Read every edit list under `folder` and share its events out to `files`.

    A list beside a file of the same name speaks of that file wherever its events name no other.
    """
    plan = CutPlan()
    shelf = _Shelf(files)
    events: dict[Path, list[CutEvent]] = defaultdict(list)
    for path in cut_list_files(folder):
        twins = [file for file in files if file.with_suffix("") == path.with_suffix("")]
        try:
            found = read_cut_list(path)
        except FootageError as error:
            plan.refused[path] = error
            plan.broken.update(dict.fromkeys(twins, error))
            continue
        if found is None:
            continue
        given, plan.notes[path] = _share_out(found, twins, shelf, events)
        if twins and not given:
            remedy = "export the list again, or remove it to have cuts detected"
            error = FootageError(f"its cut list has nothing to use: {plan.notes[path]}", where=str(path), remedy=remedy)
            plan.broken.update(dict.fromkeys(twins, error))
    plan.events.update({file: tuple(found) for file, found in events.items() if found})
    return plan


def _share_out(
    found: Sequence[CutEvent], twins: Sequence[Path], shelf: _Shelf, events: dict[Path, list[CutEvent]]
) -> tuple[int, str]:
    """Give each event to its file; how many were given, and in words where they went and what was left out."""
    used: set[Path] = set()
    given = 0
    left_out: dict[str, list[str]] = defaultdict(list)
    for event in found:
        if event.skip:
            left_out[event.skip].append(event.label)
            continue
        match = shelf.find(event)
        if twins and (isinstance(match, str) or not shelf.holds(match, event)):
            targets = list(twins)
        elif isinstance(match, str):
            left_out[match].append(event.label)
            continue
        else:
            targets = [match]
        given += 1
        for file in targets:
            used.add(file)
            events[file].append(event)
    words = [f"{len(found)} events, {given} matched to {len(used)} files"]
    return given, "; ".join([*words, *_reasons(left_out)])


def _reasons(left_out: dict[str, list[str]]) -> list[str]:
    return [f"left out {', '.join(labels)}: {reason}" for reason, labels in left_out.items()]


def spans_of(
    events: Sequence[CutEvent], *, rate: Fraction, frames: int, timecode: str | None
) -> tuple[list[tuple[int, int]], list[str]]:
    """[start, end) frame spans that the events use of a file, in order, and in words what was used and left out.

    Uses that overlap become one span: where one event runs over the edge of another, the source has no cut. Spans that
    only touch stay apart.
    """
    spans: list[tuple[int, int]] = []
    notes: list[str] = []
    trimmed = 0
    for edit in dict.fromkeys(event.edit for event in events):
        left_out: dict[str, list[str]] = defaultdict(list)
        used = 0
        for event in (event for event in events if event.edit == edit):
            found = usable_range(event, rate=rate, frames=frames, timecode=timecode)
            if isinstance(found, str):
                left_out[found].append(event.label)
                continue
            used += 1
            spans.append(found)
            whole = frame_range(event, rate=rate, timecode=timecode)
            trimmed += 0 if isinstance(whole, str) else whole[1] - whole[0] - (found[1] - found[0])
        notes.append("; ".join([f"cut by {edit}: {used} events", *_reasons(left_out)]))
    if trimmed:
        notes.append(f"{trimmed} frames left out under transitions")
    merged: list[tuple[int, int]] = []
    for start, end in sorted(spans):
        if merged and start < merged[-1][1]:
            merged[-1] = merged[-1][0], max(end, merged[-1][1])
        else:
            merged.append((start, end))
    if len(merged) < len(spans):
        notes.append(f"{len(spans) - len(merged)} events repeat or overlap others: one span each")
    return merged, notes
