"""What an edit list says about its sources and its record, and which frames of a file that means.

An EDL names frames by timecode label and does not say its rate; OTIO and FCP7 XML count time at a stated rate. Both
become whole frames of one file here, or a reason in words.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from fractions import Fraction

from cinetune.errors import ConfigError
from cinetune.timecode import timecode_to_frames

__all__ = [
    "MOST_EVENTS",
    "UNNAMED",
    "UNSEEN",
    "Counted",
    "CutEvent",
    "Labelled",
    "frame_range",
    "on_record",
    "outside",
    "usable_range",
]

UNNAMED = "auxiliary source (AX) without a clip name"
"""Why no source file can serve an event whose place in the edit may still be known."""
MOST_EVENTS = 50_000
"""In one list; a film of three hours has some thousand."""
UNSEEN = ("disabled", "sound only")
"""Reasons to skip an event that covers no picture of the edit."""
_DAY_LABELS = 24 * 3600


@dataclass(frozen=True, slots=True, kw_only=True)
class Labelled:
    """Source and record [start, end) as SMPTE labels. `drop` says how each pair counts, None where the list does not
    say. `speed` is the playing speed in frames per second where one is given; `head` frames at the start lie in a
    transition. `most` is the highest frame number in any label of the list, which tells how fast it counts.
    """

    start: str
    end: str
    record_start: str
    record_end: str
    drop: bool | None = None
    record_drop: bool | None = None
    speed: Fraction | None = None
    head: int = 0
    most: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Counted:
    """Source time in seconds of timecode counted at `rate`. `origin` is where the list thinks the file starts, None for
    time since timecode zero; `head` and `tail` seconds lie in transitions.
    """

    start: Fraction
    length: Fraction
    rate: Fraction
    origin: Fraction | None = None
    head: Fraction = Fraction(0)
    tail: Fraction = Fraction(0)


@dataclass(frozen=True, slots=True, kw_only=True)
class CutEvent:
    """One use of a source in the edit list `edit`; `label` is its number there.

    `files` are file names, paths or URLs, `clips` clip names, `reel` the tape name. `skip` is the reason why no file
    could serve it (black, sound only); then `source` may be None. `record` is its place in the edit where `source` does
    not hold it, None if the list does not say. With `by_record`, `source` is that place: see `on_record`.
    """

    edit: str
    kind: str
    label: str
    files: tuple[str, ...] = ()
    clips: tuple[str, ...] = ()
    reel: str = ""
    source: Labelled | Counted | None = None
    skip: str = ""
    record: Counted | None = None
    by_record: bool = False


def on_record(event: CutEvent) -> CutEvent:
    """The event as a use of the finished film: its source is its place in the edit."""
    place, source = event.record, event.source
    if isinstance(source, Labelled):
        place = replace(
            source,
            start=source.record_start,
            end=source.record_end,
            record_start=source.start,
            record_end=source.end,
            drop=source.record_drop,
            record_drop=source.drop,
        )
    skip = "" if event.skip == UNNAMED else event.skip
    if place is None and not skip:
        skip = "no record time"
    return replace(event, source=place, skip=skip, by_record=True)


def _counts_drop(timecode: str | None) -> bool:
    return timecode is not None and timecode[-3:-2] in (";", ".")


def _count(label: str, rate: Fraction, *, drop: bool) -> int:
    return timecode_to_frames(f"{label[:-3]}{';' if drop else ':'}{label[-2:]}", rate)


def _day(rate: Fraction, *, drop: bool) -> int:
    """Frames of 24 hours of timecode."""
    return _DAY_LABELS * round(rate) - (round(rate) // 15 * (24 * 60 - 24 * 6) if drop else 0)


def _distance(first: str, second: str, rate: Fraction, *, drop: bool) -> int:
    """Frames from one label to the other, over midnight where the second is earlier. Raises `ConfigError`."""
    return (_count(second, rate, drop=drop) - _count(first, rate, drop=drop)) % _day(rate, drop=drop)


def counting(source: Labelled, rate: Fraction, base: Fraction | None) -> Fraction:
    """Frames a second that the labels of a list count: those of the file's timecode, unless a label goes beyond."""
    return base if base is not None and source.most < round(base) else rate


def frame_range(
    event: CutEvent, *, rate: Fraction, timecode: str | None, base: Fraction | None = None
) -> tuple[int, int] | str:
    """[start, end) of the event in frames since the start of a file of `rate` that starts at `timecode`, or why there
    is none. It may lie outside the file. `base` is what the file's timecode counts where that is not `rate`: cameras of
    60 fps often count to 30.
    """
    try:
        match event.source:
            case Labelled() as source:
                return _labelled_range(source, rate, timecode, base)
            case Counted() as source:
                return _counted_range(source, rate, timecode, base or rate)
            case None:
                return event.skip or "no source time"
    except ConfigError as error:
        return f"{error.what} of the file"


def _labelled_range(
    source: Labelled, rate: Fraction, timecode: str | None, base: Fraction | None
) -> tuple[int, int] | str:
    counts = counting(source, rate, base)
    own = _counts_drop(timecode)
    stated = source.drop if source.drop is not None else own
    readings: list[tuple[int, int]] = []
    for drop in dict.fromkeys((stated, own if timecode else stated)):
        origin = Fraction(_count(timecode, base or rate, drop=drop) if timecode else 0) * counts / (base or rate)
        start = (_count(source.start, counts, drop=drop) - origin) % _day(counts, drop=drop) * rate / counts
        end = start + _distance(source.start, source.end, counts, drop=drop) * rate / counts
        if start.denominator != 1 or end.denominator != 1:
            return f"the list counts {round(counts)} frames a second, the file runs at {rate}: it falls between frames"
        readings.append((int(start), int(end)))
    if readings[0] != readings[-1]:
        words = {True: "drop-frame", False: "non-drop"}
        return f"the list counts {words[stated]}, the file {words[own]}"
    return readings[0]


def _counted_range(source: Counted, rate: Fraction, timecode: str | None, base: Fraction) -> tuple[int, int] | str:
    origin = source.origin
    # A list whose files all start at zero counts from the file's first frame, whatever timecode the file carries.
    if origin is None or (origin != 0 and timecode):
        origin = timecode_to_frames(timecode, base) / base if timecode else Fraction(0)
    start = (source.start - origin) * rate
    end = start + source.length * rate
    if start.denominator != 1 or end.denominator != 1:
        return f"the list counts at {source.rate} fps, the file runs at {rate}: the edit falls between its frames"
    return int(start), int(end)


def usable_range(
    event: CutEvent, *, rate: Fraction, frames: int, timecode: str | None, base: Fraction | None = None
) -> tuple[int, int] | str:
    """[start, end) of the frames of a file that can be used, or in words why there are none.

    Frames of dissolves and wipes are cut away; an event that plays at another speed, lies outside the file of `frames`
    frames, or cannot be placed at this rate is refused.
    """
    found = frame_range(event, rate=rate, timecode=timecode, base=base)
    if isinstance(found, str):
        return found
    start, end = found
    source = event.source
    if isinstance(source, Labelled):
        counts = counting(source, rate, base)
        objection = _speed_objection(event, source, (rate, counts), end - start, own=_counts_drop(timecode))
        if objection:
            return objection
        head, tail = math.ceil(source.head * rate / counts), 0
    else:
        assert source is not None, "an event without source time has no range"
        head, tail = math.ceil(source.head * rate), math.ceil(source.tail * rate)
    objection = outside(event, found, rate=rate, frames=frames, timecode=timecode)
    if objection:
        return objection
    if start + head >= end - tail:
        return "nothing outside its transitions"
    return start + head, end - tail


def outside(event: CutEvent, found: tuple[int, int], *, rate: Fraction, frames: int, timecode: str | None) -> str:
    """In words how `found` lies outside a file of `frames` frames; empty when it lies inside."""
    start, end = found
    source = event.source
    if start >= 0 and end <= frames:
        return ""
    if isinstance(source, Counted) and source.rate != rate:
        return f"outside the file, which runs at {rate} fps while the list counts at {source.rate}"
    place = f"{source.start} to {source.end}" if isinstance(source, Labelled) else f"frames {start}..{end - 1}"
    return f"outside the file ({place}; it has {frames} frames from {timecode or 'frame 0'})"


def _speed_objection(
    event: CutEvent, source: Labelled, rates: tuple[Fraction, Fraction], length: int, *, own: bool
) -> str:
    """Why the event does not play at its own speed; empty when it does. `rates` are those of the file and of the
    labels, `own` is how the file counts.
    """
    if source.speed is not None:
        if not any(abs(source.speed - rate) <= Fraction(5, 100) or source.speed == round(rate) for rate in rates):
            return "freeze frame" if source.speed == 0 else f"speed change ({float(source.speed):g} fps)"
        return ""
    stated = source.record_drop if source.record_drop is not None else source.drop
    played = _record_length(source, rates, drop=own if stated is None else stated)
    if played != length:
        frames = (played, length) if event.by_record else (length, played)
        return (
            f"{frames[0]} source frames in {frames[1]} frames of record time: a speed change, or a list of another rate"
        )
    return ""


def _record_length(source: Labelled, rates: tuple[Fraction, Fraction], *, drop: bool) -> Fraction | str:
    rate, counts = rates
    try:
        return _distance(source.record_start, source.record_end, counts, drop=drop) * rate / counts
    except ConfigError:
        return f"{source.record_start} to {source.record_end}"
