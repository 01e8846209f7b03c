"""Final Cut Pro 7 XML (`xmeml`) in, as Premiere, Resolve and Final Cut 7 write it.

The file comes from elsewhere and is read without trust: see `cinetune.outside.parse_xml`.
"""

from __future__ import annotations

import re
from dataclasses import replace
from fractions import Fraction
from urllib.parse import unquote
from xml.etree import ElementTree

from cinetune.errors import ConfigError, FootageError
from cinetune.footage.edit.events import MOST_EVENTS, Counted, CutEvent
from cinetune.outside import parse_xml
from cinetune.timecode import exact_rate, timecode_to_frames

__all__ = ["parse_xmeml"]

Element = ElementTree.Element
_NUMBER = re.compile(r"\s*([+-]?\d{1,12}(?:\.\d{0,12})?)\s*", re.ASCII)
_REMEDY = "export it again as Final Cut Pro 7 XML, or remove it"


def parse_xmeml(data: bytes, *, edit: str) -> list[CutEvent] | None:
    """The picture events of every sequence, those that no file can serve marked with the reason; None when the XML is
    something else (camera metadata, say).

    Raises `FootageError` for XML that is damaged or dangerous, for FCPXML, and when there is no event.
    """
    root = parse_xml(data, remedy=_REMEDY)
    if root.tag == "fcpxml":
        raise FootageError("FCPXML is not read", remedy="export the edit as FCP7 XML, OTIO or a CMX3600 EDL")
    if root.tag != "xmeml":
        return None
    files = {node.get("id", ""): node for node in root.iter("file") if len(node)}
    events: list[CutEvent] = []
    for sequence in _sequences(root):
        rate, origin = _rate(sequence), _origin(sequence, _rate(sequence))
        for track in sequence.findall("media/video/track"):
            for item in _placed(track):
                if len(events) >= MOST_EVENTS:
                    raise FootageError(f"the XML has more than {MOST_EVENTS} clips", remedy=_REMEDY)
                record = _record(item, rate, origin)
                event = CutEvent(edit=edit, kind="xml", label=str(len(events) + 1), record=record)
                events.append(_event(item, rate, files, event))
    if not events:
        raise FootageError("the XML has no picture in any sequence", remedy=_REMEDY)
    return events


def _sequences(node: Element) -> list[Element]:
    """Sequences that are not inside a clip of another."""
    found: list[Element] = []
    for child in node:
        if child.tag == "sequence":
            found.append(child)
        elif child.tag not in ("clipitem", "clip", "file"):
            found += _sequences(child)
    return found


def _number(node: Element, path: str) -> int | None:
    """A count as the application writes it: whole, or a decimal number near one."""
    match = _NUMBER.fullmatch(node.findtext(path) or "")
    return round(Fraction(match[1])) if match else None


def _says(node: Element, path: str) -> bool:
    return (node.findtext(path) or "").strip().upper() in ("TRUE", "1", "YES")


def _rate(node: Element) -> Fraction | None:
    match = _NUMBER.fullmatch(node.findtext("rate/timebase") or "")
    base = Fraction(match[1]) if match else Fraction(0)
    if not 0 < base <= 1000:
        return None
    if base.denominator != 1:
        return exact_rate(base)  # 23.98 or 29.97, as some write in place of the ntsc flag
    return base * Fraction(1000, 1001) if _says(node, "rate/ntsc") else base


def _placed(track: Element) -> list[tuple[Element, int | None, int | None, int, int]]:
    """(clip, start, end, head, tail) in sequence frames; `head` and `tail` lie under transitions. A side the file gives
    as -1 begins or ends with the transition beside it.
    """
    items = [node for node in track if node.tag in ("clipitem", "generatoritem", "transitionitem")]
    placed: list[tuple[Element, int | None, int | None, int, int]] = []
    for k, node in enumerate(items):
        if node.tag == "transitionitem":
            continue
        start, end = _number(node, "start"), _number(node, "end")
        head = tail = 0
        before = items[k - 1] if k and items[k - 1].tag == "transitionitem" else None
        after = items[k + 1] if k + 1 < len(items) and items[k + 1].tag == "transitionitem" else None
        if before is not None:
            first, last = _number(before, "start"), _number(before, "end")
            start = first if start == -1 else start
            head = max(0, last - start) if last is not None and start is not None else 0
        if after is not None:
            first, last = _number(after, "start"), _number(after, "end")
            end = last if end == -1 else end
            tail = max(0, end - first) if first is not None and end is not None else 0
        placed.append((node, start, end, head, tail))
    return placed


def _record(
    item: tuple[Element, int | None, int | None, int, int], rate: Fraction | None, origin: Fraction
) -> Counted | None:
    """The place of a clip in the edit, whose timecode begins at `origin`; 0: counted from the first frame."""
    _, start, end, head, tail = item
    if rate is None or start is None or end is None or not 0 <= start < end:
        return None
    return Counted(
        start=origin + start / rate,
        length=(end - start) / rate,
        rate=rate,
        origin=None if origin else origin,
        head=head / rate,
        tail=tail / rate,
    )


def _event(
    item: tuple[Element, int | None, int | None, int, int],
    sequence_rate: Fraction | None,
    files: dict[str, Element],
    event: CutEvent,
) -> CutEvent:
    node, start, end, head, tail = item
    name = (node.findtext("name") or "").strip()
    reference = node.find("file")
    media = None if reference is None else files.get(reference.get("id", ""), reference)
    skip = _why_not(node)
    first, last, rate = _number(node, "in"), _number(node, "out"), _rate(node) or sequence_rate
    source = None
    if not skip:
        if first is None or last is None or rate is None or min(first, last) < 0 or first >= last:
            skip = "no source time"
        elif start is None or end is None or sequence_rate is None or min(start, end) < 0:
            skip = "no place in the sequence"
        elif why := _speed_change(last - first, end - start, rate, sequence_rate):
            skip = why
        else:
            origin = _origin(media, rate)
            source = Counted(
                start=origin + first / rate,
                length=(last - first) / rate,
                rate=rate,
                origin=origin,
                head=head / sequence_rate,
                tail=tail / sequence_rate,
            )
    names = [] if media is None else [media.findtext("pathurl") or "", media.findtext("name") or ""]
    return replace(
        event,
        label=f"{event.label} {name!r}" if name else event.label,
        files=tuple(unquote(text.strip()) for text in names if text.strip()),
        clips=(name,) if name else (),
        reel="" if media is None else (media.findtext("timecode/reel/name") or "").strip(),
        source=source,
        skip=skip,
    )


def _speed_change(source: int, played: int, rate: Fraction, sequence_rate: Fraction) -> str:
    """Why a clip does not play at its own speed; empty when it does. Applications round an out point to a frame of
    either rate, and Premiere writes it one short: up to a frame of the slower rate is no change.
    """
    if abs(source / rate - played / sequence_rate) <= 1 / min(rate, sequence_rate):
        return ""
    if rate == sequence_rate:
        return f"{source} source frames in {played} frames of the sequence: a speed change"
    words = f"{source} source frames at {rate} fps in {played} frames of the sequence at {sequence_rate} fps"
    if abs(source - played) <= 1:
        return f"{words}: a speed change, or source times counted at the sequence's rate"
    return f"{words}: a speed change"


def _why_not(node: Element) -> str:
    if node.tag == "generatoritem":
        return "generator or title"
    if (node.findtext("enabled") or "").strip().upper() == "FALSE":
        return "disabled"
    if node.find("sequence") is not None:
        return "nested sequence"
    if node.find("multiclip") is not None:
        return "multicam clip"
    if _says(node, "stillframe"):
        return "still or freeze frame"
    for effect in node.findall("filter/effect"):
        if (effect.findtext("effectid") or "").strip().lower() != "timeremap":
            continue
        for parameter in effect.findall("parameter"):
            kind, value = (parameter.findtext("parameterid") or "").strip(), (parameter.findtext("value") or "").strip()
            if kind == "speed" and re.fullmatch(r"100(\.0*)?", value) is None:
                return f"speed change ({value[:12]} %)"
            if kind == "reverse" and _says(parameter, "value"):
                return "played backwards"
    return ""


def _origin(media: Element | None, rate: Fraction | None = None) -> Fraction:
    """Seconds of timecode at which the list thinks a file, or its own sequence, starts; 0 where it does not say. The
    timecode of a file of `rate` may count at a base of its own, and by a flag without some of the labels.
    """
    timecode = None if media is None else media.find("timecode")
    if media is None or timecode is None:
        return Fraction(0)
    clock = (_rate(media) if media.find("rate") is not None else None) or rate or _rate(timecode)
    base = _rate(timecode) or clock
    if clock is None or base is None or round(clock) == 0:
        return Fraction(0)
    base = clock * Fraction(round(base), round(clock))  # the base is a whole number, the clock is the picture's
    frame = _number(timecode, "frame")
    if frame is None:
        label = (timecode.findtext("string") or "").strip()
        if (timecode.findtext("displayformat") or "").strip().upper() == "DF":
            label = f"{label[:-3]};{label[-2:]}"
        try:
            frame = timecode_to_frames(label, base)
        except ConfigError:
            return Fraction(0)
    return Fraction(max(0, frame)) / base
