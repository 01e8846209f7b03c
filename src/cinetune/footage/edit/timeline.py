"""Edits out: an OpenTimelineIO timeline of delivered shots, and the EDL that says the same."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import opentimelineio as otio

from cinetune.durable import atomic_write
from cinetune.footage.edit.edl import EDL_RATES, EdlCut, edl_text, legal_reels

__all__ = ["TimelineEntry", "otio_text", "write_edit"]

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
    if entries:
        rate = entries[0].rate
        timeline.global_start_time = otio.opentime.RationalTime(_RECORD_SECONDS * round(rate), _float_rate(rate))
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
