"""Edits in and out through OpenTimelineIO: CMX3600 EDLs beside clips, OTIO timelines beside deliveries."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

import opentimelineio as otio

from cinetune.errors import ConfigError, FootageError
from cinetune.store import atomic_write
from cinetune.timecode import frames_to_timecode, timecode_to_frames

__all__ = ["Event", "TimelineEntry", "read_edl", "write_edl", "write_otio"]


@dataclass(frozen=True, slots=True, kw_only=True)
class TimelineEntry:
    """One shot of a timeline: `media` is a path relative to the timeline's folder, `first` the frame number of its
    start timecode.
    """

    name: str
    media: str
    rate: Fraction
    frames: int
    first: int = 0
    metadata: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """One event of an EDL: frames [start, end) of the media, and the clip's name."""

    name: str
    start: int
    end: int


def _float_rate(rate: Fraction) -> float:
    # OTIO knows 24000/1001 but refuses timecode at the rounded 23.976.
    return rate.numerator / rate.denominator


def read_edl(path: Path, *, rate: Fraction, frames: int, start_timecode: str | None) -> list[tuple[int, int]]:
    """[start, end) frame pairs of the media, from the *source* timecodes of the EDL's events, in source order without
    repeats.

    Raises `FootageError` when the EDL cannot be read, or when an event lies outside the media of `frames` frames from
    `start_timecode`.
    """
    try:
        read = otio.adapters.read_from_file(str(path), adapter_name="cmx_3600", rate=_float_rate(rate))
        origin = timecode_to_frames(start_timecode, rate) if start_timecode else 0
    except (
        otio.exceptions.OTIOError,
        ConfigError,
        ValueError,
        KeyError,
        IndexError,
        UnicodeDecodeError,
        OSError,
    ) as error:
        raise FootageError(
            f"the EDL beside the clip cannot be read: {error}",
            where=str(path),
            remedy="export it as CMX3600 at the clip's rate, or remove it",
        ) from error
    timelines = list(read) if isinstance(read, otio.schema.SerializableCollection) else [read]
    spans: set[tuple[int, int]] = set()
    for clip in (clip for timeline in timelines for clip in timeline.find_clips()):
        if clip.source_range is None or isinstance(clip.media_reference, otio.schema.GeneratorReference):
            continue
        start = clip.source_range.start_time.to_frames() - origin
        end = start + clip.source_range.duration.to_frames()
        if start < 0 or end > frames:
            raise FootageError(
                f"EDL event {clip.name!r} covers frames {start}..{end - 1} of a clip of {frames}",
                where=str(path),
                remedy="its source timecodes must count from the clip's own start timecode",
            )
        spans.add((start, end))
    if not spans:
        raise FootageError(
            "the EDL beside the clip has no events", where=str(path), remedy="remove it, or export it again"
        )
    return sorted(spans)


def write_edl(
    path: Path, *, title: str, reel: str, events: Sequence[Event], rate: Fraction, start_timecode: str
) -> None:
    """A CMX3600 EDL of cuts on one reel, record time equal to source time. CMX3600 keeps eight characters of `reel`."""
    origin = timecode_to_frames(start_timecode, rate)
    lines = [f"TITLE: {title}", "FCM: NON-DROP FRAME", ""]
    for number, event in enumerate(events, start=1):
        first, last = (frames_to_timecode(origin + frame, rate) for frame in (event.start, event.end))
        lines += [
            f"{number:03d}  {reel[:8]:<8} V     C        {first} {last} {first} {last}",
            f"* FROM CLIP NAME: {event.name}",
            "",
        ]
    with atomic_write(path) as temporary:
        temporary.write_text("\n".join(lines), encoding="ascii", errors="replace")


def write_otio(path: Path, entries: Sequence[TimelineEntry], *, name: str) -> None:
    """An OTIO timeline with one video track of `entries` one after the other. Atomic."""
    timeline = otio.schema.Timeline(name=name)
    track = otio.schema.Track(name="V1", kind=otio.schema.TrackKind.Video)
    timeline.tracks.append(track)
    for entry in entries:
        rate = _float_rate(entry.rate)
        span = otio.opentime.TimeRange(
            otio.opentime.RationalTime(entry.first, rate), otio.opentime.RationalTime(entry.frames, rate)
        )
        media = otio.schema.ExternalReference(target_url=entry.media, available_range=span)
        clip = otio.schema.Clip(name=entry.name, media_reference=media, source_range=span)
        clip.metadata["cinetune"] = dict(entry.metadata) | {"rate": f"{entry.rate.numerator}/{entry.rate.denominator}"}
        track.append(clip)
    text = otio.adapters.write_to_string(timeline, adapter_name="otio_json")
    with atomic_write(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
