"""Edit lists laid over a finished film: its shots lie where the list's record time puts them.

The sources such a list names are elsewhere; only its place in the edit and the film's own timecode are needed.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Literal

import numpy as np

from cinetune.errors import FootageError
from cinetune.footage.edit.events import (
    UNNAMED,
    UNSEEN,
    Counted,
    CutEvent,
    Labelled,
    frame_range,
    on_record,
    usable_range,
)
from cinetune.footage.edit.finder import FileFinder

__all__ = ["find_masters", "record_spans"]

_COVERED = Fraction(9, 10)  # of a file that bears another name, which the events must cover
_SETTING = 'set footage.edit_list_time = "record" or "source"'


def find_masters(
    found: Sequence[CutEvent], twins: Sequence[Path], finder: FileFinder, *, time: Literal["auto", "source", "record"]
) -> list[Path]:
    """The finished film that a list is laid over by record time; none = its events are matched by source.

    `auto`: never when a file answers to any source of the list. Else to the files of the list's own name (`twins`), if
    they hold the record time of every event and do not hold all their source times; without twins to the one file with
    timecode that holds every event and is covered by them to nine tenths. `record`: to the twins, else to the file that
    holds the most events. Raises `FootageError` when two readings are possible, or none.
    """
    shown = [on_record(event) for event in found if event.skip in ("", UNNAMED)]
    if time == "source" or not shown or not finder.files:
        return []
    if time == "record":
        return _chosen(shown, twins, finder)
    if any(finder.names(event) for event in found):
        return []
    start = _from_zero(found)
    holding = [
        path for path in twins or finder.files if all(_holds(finder, path, event, from_zero=start) for event in shown)
    ]
    if not twins:
        covered = [path for path in holding if _is_covered(finder, path, found)]
        if len(covered) == 1:
            return covered
        raise _refusal(found, shown, covered, finder)
    by_source = [event for event in found if not event.skip and any(finder.holds(path, event) for path in twins)]
    if not holding and by_source:
        return []
    if not holding:
        raise _refusal(found, shown, [], finder, twins)
    if len(by_source) == len(shown) and any(_differ(finder, path, found) for path in holding):
        raise FootageError(
            f"{holding[0].name} holds both its source and its record time, and they cut it differently", remedy=_SETTING
        )
    return [] if len(by_source) == len(shown) else holding


def _chosen(shown: list[CutEvent], twins: Sequence[Path], finder: FileFinder) -> list[Path]:
    """The files that record time is laid over when the project says so."""
    counts = {
        path: sum(not finder.objection(path, event) for event in shown if event.source is not None)
        for path in twins or finder.files
        if finder.header(path) is not None
    }
    most = max(counts.values(), default=0)
    best = [path for path, count in counts.items() if count == most > 0]
    if not best or (len(best) > 1 and not twins):
        raise _refusal([], shown, best, finder, twins)
    return best


def _from_zero(found: Sequence[CutEvent]) -> bool:
    """Whether a list counts source and record alike, from zero on: the edit of a film that has no timecode."""
    sources = [event.source for event in found if event.skip in ("", UNNAMED)]
    labels = [
        (source.start, source.end) if isinstance(source, Labelled) and _plays_itself(source) else None
        for source in sources
    ]
    return bool(labels) and None not in labels and min(label for label in labels if label)[0][:8] == "00:00:00"


def _plays_itself(source: Labelled) -> bool:
    return (source.start, source.end) == (source.record_start, source.record_end)


def _holds(finder: FileFinder, path: Path, event: CutEvent, *, from_zero: bool) -> bool:
    """Whether a file that states its timecode holds an event that states its own; `from_zero` says for the whole list
    that both count from the first frame.
    """
    header = finder.header(path)
    if header is None or event.source is None or (header.timecode is None and not from_zero):
        return False
    return not _startless(event) and finder.holds(path, event)


def _startless(event: CutEvent) -> bool:
    """Whether the list counts from the film's first frame, and not in timecode."""
    return isinstance(event.source, Counted) and event.source.origin is not None


def _is_covered(finder: FileFinder, path: Path, found: Sequence[CutEvent]) -> bool:
    header = finder.header(path)
    if header is None or not header.frames:
        return False
    places = [_place(finder, path, on_record(event)) for event in found if event.skip not in UNSEEN]
    seen = np.zeros(header.frames, bool)
    for place in places:
        if place:
            seen[max(0, place[0]) : max(0, place[1])] = True
    return int(seen.sum()) >= _COVERED * header.frames


def _differ(finder: FileFinder, path: Path, found: Sequence[CutEvent]) -> bool:
    """Whether source and record time put any event elsewhere."""
    shown = [event for event in found if not event.skip]
    return any(_place(finder, path, event) != _place(finder, path, on_record(event)) for event in shown)


def _place(finder: FileFinder, path: Path, event: CutEvent) -> tuple[int, int] | None:
    header = finder.header(path)
    if header is None or event.source is None:
        return None
    place = frame_range(event, rate=header.rate, timecode=header.timecode, base=header.base)
    return None if isinstance(place, str) else place


def _refusal(
    found: Sequence[CutEvent],
    shown: list[CutEvent],
    fitting: Sequence[Path],
    finder: FileFinder,
    twins: Sequence[Path] = (),
) -> FootageError:
    """Why a list can be laid over no file by record time, after its sources were found to name none."""
    remedy = "put its sources or its finished film, with timecode, into the footage folder; or " + _SETTING
    named = dict.fromkeys(name for event in found for name in (event.reel, *event.clips, *event.files) if name)
    start = f"no file is called {next(iter(named))!r}; " if named and not twins else ""
    if len(fitting) > 1:
        names = ", ".join(path.name for path in fitting[:3])
        remedy = "give the list the name of its film"
        return FootageError(f"{start}{len(fitting)} files hold its record time ({names})", remedy=remedy)
    reasons: list[str] = []
    for path in (twins or finder.files)[:3]:
        header = finder.header(path)
        if header is None:
            continue
        wrong = [(event, why) for event in shown if (why := _objection(finder, path, event))]
        why = f"{wrong[0][0].label} is {wrong[0][1]}" if wrong else "its events cover less than nine tenths of it"
        reasons.append(f"{path.name}: {why}")
    return FootageError(f"{start}its record time fits no file ({'; '.join(reasons)})", remedy=remedy)


def _objection(finder: FileFinder, path: Path, event: CutEvent) -> str:
    header = finder.header(path)
    if event.source is None:
        return f"without {event.skip.removeprefix('no ')}" if event.skip else ""
    if header is not None and header.timecode is None:
        return "not to be placed, as the file has no timecode"
    if _startless(event):
        return "not to be placed, as the list does not state its start timecode"
    return finder.objection(path, event)


def record_spans(
    events: Sequence[CutEvent], *, rate: Fraction, frames: int, timecode: str | None, base: Fraction | None = None
) -> tuple[list[tuple[int, int]], list[str]]:
    """[start, end) frame spans of the shots of a finished film, in order, and in words what was used and left out.

    Frames that a transition, a skipped event (a title, say) or a second event covers are left out. Where several lists
    are laid over the film, it is cut at the edits of each, and what one of them leaves out is left out.
    """
    clear, spoiled, edges = np.zeros(frames, bool), np.zeros(frames, bool), np.zeros(frames + 1, bool)
    notes: list[str] = []
    for edit in dict.fromkeys(event.edit for event in events):
        left_out: dict[str, list[str]] = defaultdict(list)
        layers, good = np.zeros(frames, int), np.zeros(frames, bool)
        used = 0
        for event in (event for event in events if event.edit == edit):
            whole = frame_range(event, rate=rate, timecode=timecode, base=base) if event.source else event.skip
            if not isinstance(whole, str):
                start, end = (min(max(0, at), frames) for at in whole)
                layers[start:end] += 1
                edges[[start, end]] = True
            usable = event.skip or usable_range(event, rate=rate, frames=frames, timecode=timecode, base=base)
            if isinstance(usable, str):
                left_out[usable].append(event.label)
                continue
            used += 1
            good[slice(*usable)] = True
        words = [f"cut by {edit}, laid over it by record time: {used} events"]
        words += [f"left out {', '.join(labels)}: {reason}" for reason, labels in left_out.items()]
        good &= layers == 1
        if (hidden := int(((layers > 0) & ~good).sum())) > 0:
            words.append(f"{hidden} frames left out under transitions, left-out events, or two events")
        clear |= good
        spoiled |= (layers > 0) & ~good
        notes.append("; ".join(words))
    keep = np.concatenate([[False], clear & ~spoiled, [False]])
    starts = np.flatnonzero(keep[1:-1] & (~keep[:-2] | edges[:-1]))
    ends = np.flatnonzero(keep[1:-1] & (~keep[2:] | edges[1:])) + 1
    return [(int(start), int(end)) for start, end in zip(starts, ends, strict=True)], notes
