"""Edits through OpenTimelineIO: the events of a timeline in, a timeline of delivered shots (and its EDL) out."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import opentimelineio as otio

from cinetune.errors import ConfigError, FootageError
from cinetune.footage.edl import EDL_RATES, EdlCut, edl_text, legal_reels
from cinetune.footage.events import Counted, CutEvent
from cinetune.store import atomic_write
from cinetune.timecode import exact_rate

__all__ = ["TimelineEntry", "otio_text", "parse_otio", "write_edit"]

_REMEDY = "export it again as OpenTimelineIO, or remove it"
_WHOLE = Fraction(1, 10_000)  # frames; times are floats in the file, and this near to a whole frame they mean it
_RECORD_SECONDS = 3600  # edits start at 01:00:00:00 by custom


@dataclass(frozen=True, slots=True, kw_only=True)
class TimelineEntry:
    """One shot of a timeline: `media` is a path relative to the timeline's folder, `first` the frame number of its
    start timecode.

    `lead` frames (a slate) come before `first` in the file. `still_number` is the number in the name of the first still
    where the media is a sequence of stills. `shot` names the reel in an EDL.
    """

    name: str
    media: str
    rate: Fraction
    frames: int
    first: int = 0
    lead: int = 0
    still_number: int | None = None
    shot: str = ""
    metadata: dict[str, str] = field(default_factory=dict)


def _float_rate(rate: Fraction) -> float:
    # OTIO knows 24000/1001 but refuses timecode at the rounded 23.976.
    return rate.numerator / rate.denominator


def parse_otio(text: str, *, edit: str) -> list[CutEvent]:
    """The picture events of a timeline or a collection of timelines, those no file can serve marked with the reason.

    Raises `FootageError` for what is no readable OTIO file, and when there is no event.
    """
    try:
        # Python's reader bounds the depth; the library's own would run out of stack on a hostile file.
        json.loads(text)
        root = otio.adapters.read_from_string(text, adapter_name="otio_json")
    except (
        otio.exceptions.OTIOError,
        ValueError,
        KeyError,
        IndexError,
        TypeError,
        RuntimeError,  # RecursionError and what the library's C++ core throws
    ) as error:
        raise FootageError(f"the OTIO file cannot be read: {error}", remedy=_REMEDY) from error
    timelines = list(root) if isinstance(root, otio.schema.SerializableCollection) else [root]
    events: list[CutEvent] = []
    for timeline in timelines:
        if isinstance(timeline, otio.schema.Timeline):
            for track in timeline.video_tracks():
                events += _track_events(track, edit, len(events))
    if not events:
        raise FootageError("the OTIO file has no picture in any timeline", remedy=_REMEDY)
    return events


def _track_events(track: Any, edit: str, before: int) -> Iterator[CutEvent]:
    items = list(track)
    for k, item in enumerate(items):
        if isinstance(item, (otio.schema.Transition, otio.schema.Gap)):
            continue
        before += 1
        label = f"{before} {item.name!r}" if item.name else str(before)
        event = CutEvent(edit=edit, kind="otio", label=label, skip=_why_not(item))
        if event.skip:
            yield event
            continue
        left: Any = items[k - 1] if k else None
        right: Any = items[k + 1] if k + 1 < len(items) else None
        head = _seconds(left.out_offset) if isinstance(left, otio.schema.Transition) else Fraction(0)
        tail = _seconds(right.in_offset) if isinstance(right, otio.schema.Transition) else Fraction(0)
        source = None if head is None or tail is None else _source(item, head, tail)
        media = item.media_reference
        yield CutEvent(
            edit=edit,
            kind="otio",
            label=label,
            files=_files(media),
            clips=tuple(name for name in (item.name, media.name if media is not None else "") if name),
            reel=_reel(item),
            source=source,
            skip="" if source is not None else "no source time",
        )


def _why_not(item: Any) -> str:
    if not isinstance(item, otio.schema.Clip):
        return "nested composition"
    if not item.enabled:
        return "disabled"
    if isinstance(item.media_reference, otio.schema.GeneratorReference):
        return "generator or title"
    for effect in item.effects:
        if isinstance(effect, otio.schema.FreezeFrame):
            return "still or freeze frame"
        if isinstance(effect, otio.schema.LinearTimeWarp) and effect.time_scalar == 1.0:
            continue
        if isinstance(effect, otio.schema.TimeEffect):
            return "speed change"
    return ""


def _seconds(time: Any) -> Fraction | None:
    """An OTIO time in exact seconds; None for what is no time."""
    if time is None or not (math.isfinite(time.value) and math.isfinite(time.rate)) or time.rate <= 0:
        return None
    try:
        rate = exact_rate(float(time.rate))
    except ConfigError:
        return None
    value = Fraction(time.value)
    whole = round(value)
    return (whole if abs(value - whole) <= _WHOLE else value.limit_denominator(1_000_000)) / rate


def _source(clip: Any, head: Fraction, tail: Fraction) -> Counted | None:
    """Source time of a clip: its own range, or the whole of its media."""
    media = clip.media_reference
    available = None if media is None else media.available_range
    span = clip.source_range or available
    if span is None:
        return None
    start, length = _seconds(span.start_time), _seconds(span.duration)
    origin = None if available is None else _seconds(available.start_time)
    if start is None or length is None or length <= 0:
        return None
    rate = exact_rate(float(span.start_time.rate))
    return Counted(start=start, length=length, rate=rate, origin=origin, head=head, tail=tail)


def _files(media: Any) -> tuple[str, ...]:
    if isinstance(media, otio.schema.ExternalReference):
        return (unquote(media.target_url),) if media.target_url else ()
    if isinstance(media, otio.schema.ImageSequenceReference):
        return (unquote(f"{media.target_url_base}{media.name_prefix}"),)
    return ()


def _reel(clip: Any) -> str:
    for holder in (clip, clip.media_reference):
        for words in (holder.metadata.get("cmx_3600"), holder.metadata) if holder is not None else ():
            reel = words.get("reel") if hasattr(words, "get") else None
            if isinstance(reel, str) and reel.strip():
                return reel.strip()
    return ""


def _media_reference(entry: TimelineEntry, span: Any) -> Any:
    rate = _float_rate(entry.rate)
    if entry.still_number is None:
        start, length = entry.first - entry.lead, entry.frames + entry.lead
        whole = otio.opentime.TimeRange(
            otio.opentime.RationalTime(start, rate), otio.opentime.RationalTime(length, rate)
        )
        return otio.schema.ExternalReference(target_url=entry.media, available_range=whole)
    folder, _, name = entry.media.rpartition("/")
    number = str(entry.still_number)
    prefix, found, suffix = name.rpartition(number)
    assert found, f"{name} does not carry the number {number}"
    return otio.schema.ImageSequenceReference(
        target_url_base=f"{folder}/" if folder else "",
        name_prefix=prefix,
        name_suffix=suffix,
        start_frame=entry.still_number,
        frame_step=1,
        rate=rate,
        frame_zero_padding=len(number),
        available_range=span,
    )


def otio_text(entries: Sequence[TimelineEntry], *, title: str) -> str:
    """An OTIO timeline with one video track of `entries` one after the other."""
    timeline = otio.schema.Timeline(name=title)
    track = otio.schema.Track(name="V1", kind=otio.schema.TrackKind.Video)
    timeline.tracks.append(track)
    for entry in entries:
        rate = _float_rate(entry.rate)
        span = otio.opentime.TimeRange(
            otio.opentime.RationalTime(entry.first, rate), otio.opentime.RationalTime(entry.frames, rate)
        )
        clip = otio.schema.Clip(name=entry.name, media_reference=_media_reference(entry, span), source_range=span)
        clip.metadata["cinetune"] = dict(entry.metadata) | {"rate": f"{entry.rate.numerator}/{entry.rate.denominator}"}
        track.append(clip)
    return otio.adapters.write_to_string(timeline, adapter_name="otio_json")


def _edl_cuts(entries: Sequence[TimelineEntry]) -> list[EdlCut]:
    record = _RECORD_SECONDS * round(entries[0].rate)
    cuts: list[EdlCut] = []
    # One reel for each file: two files that start at one timecode may not share a name.
    shots = [entry.shot or entry.name for entry in entries]
    keys = [shot if shots.count(shot) == 1 else entry.name for shot, entry in zip(shots, entries, strict=True)]
    for entry, reel in zip(entries, legal_reels(keys), strict=True):
        file = entry.media.rpartition("/")[2]
        cuts.append(
            EdlCut(name=entry.name, reel=reel, source=entry.first, record=record, frames=entry.frames, file=file)
        )
        record += entry.frames
    return cuts


def write_edit(folder: Path, stem: str, entries: Sequence[TimelineEntry], *, title: str) -> tuple[list[Path], str]:
    """Write `STEM001.otio` and its CMX3600 EDL `STEM001.edl`, under the next free number; files that say the same
    already keep theirs, and none is overwritten. Returns the paths, and why there is no EDL (empty when there is one).
    """
    texts = {".otio": otio_text(entries, title=title)}
    rates = {entry.rate for entry in entries}
    why = ""
    if len(rates) > 1 or not rates <= EDL_RATES:
        why = f"an EDL counts one SMPTE rate, these shots run at {', '.join(str(rate) for rate in sorted(rates))} fps"
    else:
        texts[".edl"] = edl_text(_edl_cuts(entries), title=title, rate=entries[0].rate)
    taken = {
        int(path.stem[len(stem) :])
        for path in folder.glob("*")
        if path.suffix in (".otio", ".edl") and path.stem.startswith(stem) and path.stem[len(stem) :].isdecimal()
    }
    version = max(taken, default=0)
    paths = [folder / f"{stem}{version:03d}{suffix}" for suffix in texts]
    if not version or any(
        path.is_file() and path.read_bytes() != text.encode() for path, text in zip(paths, texts.values(), strict=True)
    ):
        paths = [folder / f"{stem}{version + 1:03d}{suffix}" for suffix in texts]
    for path, text in zip(paths, texts.values(), strict=True):
        if not path.is_file():
            with atomic_write(path) as temporary:
                temporary.write_text(text, encoding="utf-8")
    return paths, why
