"""Which frames of which footage file the edit lists in a folder use.

Every event of every EDL, OTIO and FCP7 XML file is matched to a file by file name, clip name or reel, and by the
timecode the file starts at; a list of which no file is a source may be laid over the finished film by its record time.
What cannot be used is left out with a reason, never silently.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Literal

from cinetune.errors import FootageError
from cinetune.footage.edit.edl import parse_edl
from cinetune.footage.edit.events import UNSEEN, CutEvent, frame_range, on_record, usable_range
from cinetune.footage.edit.finder import FileFinder
from cinetune.footage.edit.masters import find_masters, record_spans
from cinetune.footage.edit.otiojson import parse_otio
from cinetune.footage.edit.xmeml import parse_xmeml
from cinetune.footage.notes.sidecars import files_below
from cinetune.outside import decode_text, read_bytes

__all__ = ["CUT_LISTS", "CutPlan", "cut_list_files", "plan_cuts", "read_cut_list", "spans_of"]

CUT_LISTS = (".edl", ".fcpxml", ".otio", ".xml")
"""Endings of edit lists; FCPXML is looked at only to say what to export instead."""
_REMEDY = "export only the sequence you need, or remove it"


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
        data = read_bytes(path, refuse=FootageError)
        match path.suffix.lower():
            case ".xml" | ".fcpxml":
                return parse_xmeml(data, edit=path.name)
            case ".otio":
                return parse_otio(_text(data), edit=path.name)
            case _:
                return parse_edl(_text(data), edit=path.name)
    except FootageError as error:
        raise FootageError(error.what, where=str(path), remedy=error.remedy or _REMEDY) from error


def _text(data: bytes) -> str:
    # Old systems write names in one of several 8-bit sets (labels are ASCII in all), and fill up the last block.
    data = data if data[:1] in (b"\xff", b"\xfe") else data.rstrip(b"\0")
    return decode_text(data, where="", refuse=FootageError, eight_bit=True)


def plan_cuts(folder: Path, files: Sequence[Path], *, time: Literal["auto", "source", "record"] = "auto") -> CutPlan:
    """Read every edit list under `folder` and share its events out to `files`.

    A list beside a file of the same name speaks of that file wherever its events name no other. `time` says by which of
    its two times a list is laid over the footage; `auto` decides for each list as `find_masters` does.
    """
    plan = CutPlan()
    finder = FileFinder(files)
    events: dict[Path, list[CutEvent]] = defaultdict(list)
    for path in cut_list_files(folder):
        twins = [file for file in files if file.with_suffix("") == path.with_suffix("")]
        try:
            found = read_cut_list(path)
            masters = find_masters(found or [], twins, finder, time=time)
        except FootageError as error:
            plan.refused[path] = error
            plan.broken.update(dict.fromkeys(twins, error))
            continue
        if found is None:
            continue
        for master in masters:
            events[master] += [on_record(event) for event in found if event.skip not in UNSEEN]
        if masters:
            names = ", ".join(master.name for master in masters)
            plan.notes[path] = f"{len(found)} events, laid over {names} by record time: no file is named by its sources"
            if time == "record":
                plan.notes[path] = f"{len(found)} events, laid over {names} by record time: footage.edit_list_time"
            continue
        given, plan.notes[path] = _share_out(found, twins, finder, events)
        if twins and not given:
            remedy = "export the list again, or remove it to have cuts detected"
            error = FootageError(f"its cut list has nothing to use: {plan.notes[path]}", where=str(path), remedy=remedy)
            plan.broken.update(dict.fromkeys(twins, error))
    plan.events.update({file: tuple(found) for file, found in events.items() if found})
    return plan


def _share_out(
    found: Sequence[CutEvent], twins: Sequence[Path], finder: FileFinder, events: dict[Path, list[CutEvent]]
) -> tuple[int, str]:
    """Give each event to its file; how many were given, and in words where they went and what was left out."""
    used: set[Path] = set()
    given = 0
    left_out: dict[str, list[str]] = defaultdict(list)
    for event in found:
        if event.skip:
            left_out[event.skip].append(event.label)
            continue
        match = finder.find(event)
        if twins and (isinstance(match, str) or not finder.holds(match, event)):
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
    events: Sequence[CutEvent], *, rate: Fraction, frames: int, timecode: str | None, base: Fraction | None = None
) -> tuple[list[tuple[int, int]], list[str]]:
    """[start, end) frame spans that the events use of a file, in order, and in words what was used and left out.

    Uses that overlap become one span: where one event runs over the edge of another, the source has no cut. Spans that
    only touch stay apart. Events laid over a finished film are cut as `record_spans` says, others then left out.
    `timecode` is the file's first label, which counts at `base` where that is not `rate`.
    """
    over = [event for event in events if event.by_record]
    if over:
        spans, notes = record_spans(over, rate=rate, frames=frames, timecode=timecode, base=base)
        others = dict.fromkeys(event.edit for event in events if not event.by_record)
        return spans, [
            *notes,
            *(f"{edit} left out: another list is laid over the film by record time" for edit in others),
        ]
    spans: list[tuple[int, int]] = []
    notes: list[str] = []
    trimmed = 0
    for edit in dict.fromkeys(event.edit for event in events):
        left_out: dict[str, list[str]] = defaultdict(list)
        used = 0
        for event in (event for event in events if event.edit == edit):
            found = usable_range(event, rate=rate, frames=frames, timecode=timecode, base=base)
            if isinstance(found, str):
                left_out[found].append(event.label)
                continue
            used += 1
            spans.append(found)
            whole = frame_range(event, rate=rate, timecode=timecode, base=base)
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
