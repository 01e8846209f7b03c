"""Markers of an OpenTimelineIO file: places in an edit that somebody wants a new shot for."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from cinetune.errors import FootageError
from cinetune.footage.edit.otiojson import _children, _files, _media, _range, _schema, _seconds, _words, picture_tracks

__all__ = ["Marker", "otio_markers"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Marker:
    """`words` is its comment, `file` the media it lies on as the timeline names it ("" = none), `at` the seconds from
    the first frame of that file, `seconds` how long the marked range is (0 = a point).
    """

    label: str
    name: str
    words: str
    file: str
    at: Fraction
    seconds: Fraction


def otio_markers(text: str) -> list[Marker]:
    """Every marker of the timeline and of its picture tracks, in order of the edit. Those on a gap, a track or the
    timeline itself lie on no media.

    Raises `FootageError` for what is no readable OTIO file, and when there is no marker.
    """
    remedy = "export it again as OpenTimelineIO with its markers"
    found: list[Marker] = []
    seen: list[Any] = []
    for timeline, track in picture_tracks(text, remedy=remedy):
        if not any(timeline is other for other in seen):
            seen.append(timeline)
            found += _marks(timeline.get("tracks"), f"timeline {_words(timeline, 'name')!r}")
        found += _marks(track, f"track {_words(track, 'name')!r}")
        for item in _children(track):
            found += _marks(item, f"{_schema(item).lower() or 'item'} {_words(item, 'name')!r}")
    if not found:
        raise FootageError("the timeline has no marker", remedy=remedy)
    return found


def _marks(item: Any, place: str) -> Iterator[Marker]:
    """The markers of one object of the timeline; only a clip has media."""
    if not isinstance(item, dict):
        return
    media = _media(item) if _schema(item) == "Clip" else None
    files = _files(media)
    available = _range(media)
    origin = _seconds(available.get("start_time")) if isinstance(available, dict) else None
    marks = item.get("markers")
    for number, mark in enumerate(marks if isinstance(marks, list) else [], start=1):
        name = _words(mark, "name")
        span = mark.get("marked_range") if isinstance(mark, dict) else None
        start = _seconds(span.get("start_time")) if isinstance(span, dict) else None
        length = _seconds(span.get("duration")) if isinstance(span, dict) else None
        label = f"marker {name or number!r} on {place}"
        if start is None:
            raise FootageError(f"{label} has no time", remedy="set it again in the editing program, and export")
        yield Marker(
            label=label,
            name=name,
            words=_words(mark, "comment"),
            file=files[0] if files else "",
            at=max(Fraction(0), start - (origin or 0)),
            seconds=max(Fraction(0), length or Fraction(0)),
        )
