"""OpenTimelineIO files in.

The file is plain JSON and is read as such: OTIO's own reader ends the whole process on some damaged files, and an edit
list comes from elsewhere. What we write goes through the library (`cinetune.footage.edit.timeline`).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from typing import Any
from urllib.parse import unquote

from cinetune.errors import ConfigError, FootageError
from cinetune.footage.edit.events import MOST_EVENTS, Counted, CutEvent
from cinetune.outside import parse_json
from cinetune.timecode import exact_rate

__all__ = ["parse_otio", "picture_tracks"]

Node = dict[str, Any]
_REMEDY = "export it again as OpenTimelineIO, or remove it"
_WHOLE = Fraction(1, 10_000)  # frames; times are floats in the file, and this near to a whole frame they mean it
_MOST = 1e12  # frames or frames per second; beyond, a number is damage


def parse_otio(text: str, *, edit: str) -> list[CutEvent]:
    """The picture events of a timeline or a collection of timelines, those no file can serve marked with the reason.

    Raises `FootageError` for what is no readable OTIO file, and when there is no event.
    """
    events: list[CutEvent] = []
    for timeline, track in picture_tracks(text, remedy=_REMEDY):
        items = _children(track)
        places = _placed(items, _seconds(timeline.get("global_start_time")))
        events += _track_events(items, edit, len(events), places)
    if not events:
        raise FootageError("the OTIO file has no picture in any timeline", remedy=_REMEDY)
    return events


def picture_tracks(text: str, *, remedy: str) -> Iterator[tuple[Node, Node]]:
    """Each timeline with one of its picture tracks, of a timeline or a collection of them. Raises `FootageError` for
    what is no readable OTIO file.
    """
    try:
        root = parse_json(text, where="", refuse=FootageError, finite=False, halves=True)
    except FootageError as error:
        raise FootageError(f"the OTIO file cannot be read: {error.what}", remedy=remedy) from error
    for timeline in _children(root) if _schema(root) == "SerializableCollection" else [root]:
        if _schema(timeline) != "Timeline":
            continue
        for track in _children(timeline.get("tracks")):
            # A track was called Sequence before OTIO was released, and need not say that it is of pictures.
            if _schema(track) in ("Track", "Sequence") and track.get("kind", "Video") == "Video":
                yield timeline, track


def _schema(node: Any) -> str:
    """The kind of an object without its version; empty for what is no object."""
    name = node.get("OTIO_SCHEMA") if isinstance(node, dict) else None
    return name.partition(".")[0] if isinstance(name, str) else ""


def _children(node: Any) -> list[Any]:
    children = node.get("children") if isinstance(node, dict) else None
    return children if isinstance(children, list) else []


def _words(node: Any, key: str) -> str:
    text = node.get(key) if isinstance(node, dict) else None
    return text.strip() if isinstance(text, str) else ""


def _placed(items: list[Any], start: Fraction | None) -> list[Counted | None]:
    """The record time of each item, in timecode that begins at `start`, or since the first frame if there is none;
    None from the first item on whose length the file does not say.
    """
    at: Fraction | None = start or Fraction(0)
    origin = None if start else Fraction(0)
    places: list[Counted | None] = []
    for item in items:
        place = None
        if at is not None and _schema(item) != "Transition":
            span = (item.get("source_range") if isinstance(item, dict) else None) or _range(_media(item))
            length = _seconds(span.get("duration")) if isinstance(span, dict) else None
            rate = _rate(span.get("duration")) if isinstance(span, dict) else None
            if length is not None and rate is not None and length > 0:
                place = Counted(start=at, length=length, rate=rate, origin=origin)
            at = None if length is None or length < 0 else at + length
        places.append(place)
    return places


def _range(media: Any) -> Any:
    return media.get("available_range") if isinstance(media, dict) else None


def _track_events(items: list[Any], edit: str, before: int, places: list[Counted | None]) -> Iterator[CutEvent]:
    for k, item in enumerate(items):
        if _schema(item) in ("Transition", "Gap"):
            continue
        before += 1
        if before > MOST_EVENTS:
            raise FootageError(f"the OTIO file has more than {MOST_EVENTS} clips", remedy=_REMEDY)
        name = _words(item, "name")
        label = f"{before} {name!r}" if name else str(before)
        left: Any = items[k - 1] if k else None
        right: Any = items[k + 1] if k + 1 < len(items) else None
        head = _seconds(left.get("out_offset")) if _schema(left) == "Transition" else Fraction(0)
        tail = _seconds(right.get("in_offset")) if _schema(right) == "Transition" else Fraction(0)
        place = places[k]
        if place is not None and head is not None and tail is not None and min(head, tail) >= 0:
            place = replace(place, head=head, tail=tail)
        yield _event(item, CutEvent(edit=edit, kind="otio", label=label, record=place), head, tail)


def _event(item: Any, event: CutEvent, head: Fraction | None, tail: Fraction | None) -> CutEvent:
    media = _media(item)
    skip, source = _why_not(item, media), None
    if not skip:
        source = None if head is None or tail is None else _source(item, media, head, tail)
        skip = "" if source is not None else "no source time"
    names = (_words(item, "name"), _words(media, "name"))
    return replace(
        event,
        files=_files(media),
        clips=tuple(dict.fromkeys(name for name in names if name)),
        reel=_reel(item) or _reel(media),
        source=source,
        skip=skip,
    )


def _media(item: Any) -> Any:
    """The media of a clip: one, or since the second version of the schema the active one of several."""
    if not isinstance(item, dict):
        return None
    several = item.get("media_references")
    if isinstance(several, dict):
        return several.get(_words(item, "active_media_reference_key") or "DEFAULT_MEDIA")
    return item.get("media_reference")


def _why_not(item: Any, media: Any) -> str:
    if _schema(item) != "Clip":
        return "nested composition" if _schema(item) in ("Stack", "Track", "Timeline") else "not a clip"
    if item.get("enabled") is False:
        return "disabled"
    if _schema(media) == "GeneratorReference":
        return "generator or title"
    effects = item.get("effects")
    for effect in effects if isinstance(effects, list) else []:
        kind = _schema(effect)
        if kind == "FreezeFrame":
            return "still or freeze frame"
        if kind == "TimeEffect" or (kind == "LinearTimeWarp" and effect.get("time_scalar") != 1):
            return "speed change"
    return ""


def _rate(time: Any) -> Fraction | None:
    rate = time.get("rate") if isinstance(time, dict) else None
    if isinstance(rate, bool) or not isinstance(rate, (int, float)) or not 0.001 < rate < _MOST:
        return None
    try:
        return exact_rate(float(rate))
    except ConfigError:
        return None


def _seconds(time: Any) -> Fraction | None:
    """An OTIO time in exact seconds; None for what is no time."""
    rate = _rate(time)
    value = time.get("value") if isinstance(time, dict) else None
    if rate is None or isinstance(value, bool) or not isinstance(value, (int, float)) or not -_MOST < value < _MOST:
        return None
    exact = Fraction(value)
    whole = round(exact)
    return (whole if abs(exact - whole) <= _WHOLE else exact.limit_denominator(1_000_000)) / rate


def _source(clip: Node, media: Any, head: Fraction, tail: Fraction) -> Counted | None:
    """Source time of a clip: its own range, or the whole of its media."""
    available = _range(media)
    span = clip.get("source_range") or available
    if not isinstance(span, dict):
        return None
    start, length, rate = (
        _seconds(span.get("start_time")),
        _seconds(span.get("duration")),
        _rate(span.get("start_time")),
    )
    if start is None or length is None or rate is None or length <= 0 or head < 0 or tail < 0:
        return None
    origin = _seconds(available.get("start_time")) if isinstance(available, dict) else None
    return Counted(start=start, length=length, rate=rate, origin=origin, head=head, tail=tail)


def _files(media: Any) -> tuple[str, ...]:
    kind = _schema(media)
    if kind == "ExternalReference":
        url = _words(media, "target_url")
    elif kind == "ImageSequenceReference":
        url = _words(media, "target_url_base") + _words(media, "name_prefix")
    else:
        url = ""
    return (unquote(url),) if url else ()


def _reel(holder: Any) -> str:
    metadata = holder.get("metadata") if isinstance(holder, dict) else None
    if not isinstance(metadata, dict):
        return ""
    return _words(metadata.get("cmx_3600"), "reel") or _words(metadata, "reel")
