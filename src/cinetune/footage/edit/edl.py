"""CMX3600 edit lists, in as editors write them and out in the strict form.

Read: Avid, Resolve, Premiere and Final Cut dialects (long reel names, clip names and source files in comments, colons
under `FCM: DROP FRAME`, M2 speed lines). Written: eight-character reels, with clip name and source file as comments.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path

from cinetune.durable import atomic_write
from cinetune.errors import ConfigError, FootageError
from cinetune.footage.edit.events import MOST_EVENTS, UNNAMED, CutEvent, Labelled
from cinetune.timecode import frames_to_timecode

__all__ = ["EDL_RATES", "EdlCut", "edl_text", "legal_reels", "parse_edl", "write_edl"]

EDL_RATES = frozenset(
    [Fraction(rate) for rate in (24, 25, 30, 48, 50, 60)] + [Fraction(rate * 1000, 1001) for rate in (24, 30, 48, 60)]
)
"""Rates that have a SMPTE timecode, so that an EDL can count them."""
_REMEDY = "export it as CMX3600, or remove it"
_REEL_LENGTH = 8
_RESERVED = {"AX", "BL"}  # auxiliary source and black: not names of reels

_LABEL = r"(\d\d[:;.]\d\d[:;.]\d\d[:;.]\d\d)"
_EVENT = re.compile(
    r"(\d{1,6})\s+(\S.{0,198}?)\s+(\S{1,32})\s+(C|D|W\d{1,3}|K[ \t]*[BO]?)(?:\s+(\d{1,4}))?"
    rf"(?:\s+\(F\))?\s+{_LABEL}\s+{_LABEL}\s+{_LABEL}\s+{_LABEL}\s*",
    re.ASCII | re.IGNORECASE,
)
_STARTS_EVENT = re.compile(r"\d{1,6}\s+\S", re.ASCII)
_SPEED = re.compile(r"M2\s+(\S.{0,198}?)\s+([+-]?\d{1,5}(?:\.\d{1,6})?)(?:\s+\S+)?\s*", re.ASCII | re.IGNORECASE)
_COMMENT = re.compile(r"\*?\s*(FROM |TO |)CLIP NAME\s*:\s*(.+)", re.IGNORECASE)  # some programs leave out the star
_SOURCE_FILE = re.compile(
    r"\*?\s*(FROM |TO |)(?:SOURCE |MEDIA )?(?:FILE|CLIP|PATH|FILE ?NAME|FILE ?PATH|CLIP FILE|CLIP PATH)\s*:\s*(.+)",
    re.IGNORECASE,
)
_LONG_REEL = re.compile(r"\*?\s*FINAL CUT PRO REEL\s*:\s*(\S.*)", re.IGNORECASE)
_REPLACED = re.compile(r"\sREPLACED BY\s*:\s*(\S+)", re.IGNORECASE)
_STILL = re.compile(r"\*?\s*(?:FROM |TO |)(?:CLIP )?(?:IS A STILL|FREEZE FRAME)", re.IGNORECASE)
_LINE = re.compile(r"[^\r\n]+")
_MOST_LINES = 200_000
_MOST_NAMES = 20  # of one event
_LONGEST = 2000  # letters of a line; CMX3600 means 80


@dataclass(frozen=True, slots=True, kw_only=True)
class EdlCut:
    """One event to write: `frames` frames from frame count `source` of a reel, at frame count `record` of the edit;
    counts are of timecode. `file` is the name of the source file, empty to leave it out.
    """

    name: str
    reel: str
    source: int
    record: int
    frames: int
    file: str = ""


def parse_edl(text: str, *, edit: str) -> list[CutEvent]:
    """The events of a CMX3600 list in order, those without picture marked with the reason.

    Raises `FootageError` when a line that starts an event cannot be read, or when there is no event.
    """
    events: list[CutEvent] = []
    drop: bool | None = None
    reels: dict[str, str] = {}
    if max(text.count("\n"), text.count("\r")) > _MOST_LINES:
        raise FootageError(f"the EDL has more than {_MOST_LINES} lines", remedy=_REMEDY)
    for number, line in _lines(text):
        if len(events) > MOST_EVENTS or len(line) > _LONGEST:
            what = f"line {number} has {len(line)} letters" if len(line) > _LONGEST else f"over {MOST_EVENTS} events"
            raise FootageError(f"the EDL cannot be read: {what}", remedy=_REMEDY)
        if line.upper().startswith("FCM:"):
            mode = line[4:].strip().upper()
            drop = False if mode.startswith("NON") else True if mode.startswith("DROP") else None
        elif match := _EVENT.fullmatch(line):
            events.append(_event(match, drop, edit))
        elif _STARTS_EVENT.match(line):
            raise FootageError(
                f"the EDL cannot be read: line {number} is no CMX3600 event: {line[:80]!r}", remedy=_REMEDY
            )
        elif match := _LONG_REEL.match(line):
            if short := _REPLACED.search(match[1]):
                reels[short[1]] = match[1][: short.start()].strip()
        elif events:
            _annotate(events, line)
    most = max((int(label[-2:]) for event in events for label in _labels(event)), default=0)
    found = [_finish(event, reels, most) for event in _explicit(events) if not _names_outgoing(event)]
    if not found:
        raise FootageError("the EDL has no events", remedy="remove it, or export it again as CMX3600")
    return found


def _lines(text: str) -> Iterator[tuple[int, str]]:
    """(number, line) of the lines that are not empty: they end at a line feed or a carriage return and nowhere else."""
    number, at = 1, 0
    for match in _LINE.finditer(text):
        between = text[at : match.start()]
        number += between.count("\n") + between.replace("\r\n", "").count("\r")
        at = match.end()
        yield number, match[0].strip().lstrip("\ufeff")


def _labels(event: CutEvent) -> tuple[str, ...]:
    source = event.source
    if not isinstance(source, Labelled):
        return ()
    return source.start, source.end, source.record_start, source.record_end


def _names_outgoing(event: CutEvent) -> bool:
    """A line without length only names the outgoing side of a transition."""
    source = event.source
    return isinstance(source, Labelled) and source.start == source.end and source.record_start == source.record_end


def _event(match: re.Match[str], drop: bool | None, edit: str) -> CutEvent:
    label, reel, channel, kind, length = (match[group] for group in range(1, 6))
    source = Labelled(
        start=match[6],
        end=match[7],
        record_start=match[8],
        record_end=match[9],
        drop=_drop(match[6], match[7], drop),
        record_drop=_drop(match[8], match[9], drop),
        head=int(length or 0) if kind[0] in "DdWw" else 0,
    )
    skip = ""
    if "V" not in channel.upper() and channel.upper() != "B":
        skip = "sound only"
    elif reel.upper() in ("BL", "BLACK"):
        skip = "black"
    elif kind[0] in "Kk":
        skip = "key: a composite of two pictures"
    elif kind[0] in "DdWw" and not length:
        skip = "a transition of unknown length"
    return CutEvent(edit=edit, kind="edl", label=label, reel=reel, source=source, skip=skip)


def _drop(first: str, second: str, stated: bool | None) -> bool | None:
    """How a pair of labels counts: a mark before the frames says drop-frame; colons leave it to the FCM line."""
    return True if {first[-3], second[-3]} & {";", "."} else stated


def _explicit(events: list[CutEvent]) -> list[CutEvent]:
    """Where a list marks any label as drop-frame, its colons mean non-drop whatever FCM says."""
    marks = {label[-3] for event in events for label in _labels(event)}
    if not marks & {";", "."}:
        return events

    def by_mark(label: str) -> bool:
        return label[-3] in ";."

    return [
        replace(
            event,
            source=replace(
                event.source, drop=by_mark(event.source.start), record_drop=by_mark(event.source.record_start)
            ),
        )
        if isinstance(event.source, Labelled)
        else event
        for event in events
    ]


def _annotate(events: list[CutEvent], line: str) -> None:
    """Give a comment or speed line to the event it speaks of: FROM names the first line of a transition, TO the
    last.
    """
    last = len(events) - 1
    group = [k for k in range(max(0, last - 3), last + 1) if events[k].label == events[last].label]
    if match := _SPEED.fullmatch(line):
        reel, speed = match[1].strip(), Fraction(match[2])
        same = [k for k in group if events[k].reel == reel] or [last]
        for k in same:
            source = events[k].source
            if isinstance(source, Labelled):
                events[k] = replace(events[k], source=replace(source, speed=speed))
    elif match := _COMMENT.match(line):
        outgoing, name = match[1].upper() != "TO ", match[2].strip()
        mixed = any(isinstance(source := events[k].source, Labelled) and source.head for k in group)
        for k in group if not mixed else group[:1] if outgoing else group[-1:]:
            events[k] = replace(events[k], clips=(name,) if not outgoing else (*events[k].clips, name)[-_MOST_NAMES:])
    elif match := _SOURCE_FILE.match(line):
        # Unless it says so, the first source file of a transition belongs to its first line, the next to its second.
        said = {"FROM ": group[0], "TO ": last}.get(match[1].upper())
        k = next((k for k in group if not events[k].files), last) if said is None else said
        events[k] = replace(events[k], files=(*events[k].files, match[2].strip())[-_MOST_NAMES:])
    elif _STILL.match(line):
        k = last if re.match(r"\*?\s*TO", line, re.IGNORECASE) else group[0]
        events[k] = replace(events[k], skip=events[k].skip or "still or freeze frame")


def _finish(event: CutEvent, reels: dict[str, str], most: int) -> CutEvent:
    reel = "" if event.reel.upper() in _RESERVED else reels.get(event.reel, event.reel)
    skip = event.skip
    if not skip and not reel and not event.files and not event.clips:
        skip = UNNAMED
    source = replace(event.source, most=most) if isinstance(event.source, Labelled) else event.source
    return replace(event, reel=reel, skip=skip, source=source)


def legal_reels(names: Sequence[str]) -> list[str]:
    """A strict CMX3600 reel for each name: up to eight of A-Z and 0-9, one for each different name, none of them
    reserved.
    """
    reels: dict[str, str] = {}
    for name in names:
        plain = re.sub(r"[^A-Z0-9]", "", name.upper())[:_REEL_LENGTH] or "REEL"
        reel, number = plain, 1
        while name not in reels and (reel in reels.values() or reel in _RESERVED):
            number += 1
            reel = f"{plain[: _REEL_LENGTH - len(str(number))]}{number}"
        reels.setdefault(name, reel)
    return [reels[name] for name in names]


def edl_text(cuts: Sequence[EdlCut], *, title: str, rate: Fraction, drop_frame: bool = False) -> str:
    """A CMX3600 list of straight cuts. Raises `ConfigError` at rates without SMPTE timecode, and for drop-frame at
    rates that have none.
    """
    if rate not in EDL_RATES:
        raise ConfigError(f"there is no SMPTE timecode at {rate} fps", remedy="conform to 24, 25 or 30 fps")
    lines = [f"TITLE: {_one_line(title)}", f"FCM: {'' if drop_frame else 'NON-'}DROP FRAME", ""]
    for number, cut in enumerate(cuts, start=1):
        times = (cut.source, cut.source + cut.frames, cut.record, cut.record + cut.frames)
        labels = " ".join(frames_to_timecode(count, rate, drop_frame=drop_frame) for count in times)
        lines.append(f"{number:03d}  {cut.reel[:_REEL_LENGTH]:<8} V     C        {labels}")
        lines.append(f"* FROM CLIP NAME: {_one_line(cut.name)}")
        if cut.file:
            lines.append(f"* SOURCE FILE: {_one_line(cut.file)}")
        lines.append("")
    return "\n".join(lines).encode("ascii", errors="replace").decode("ascii")


def _one_line(text: str) -> str:
    return " ".join(text.split())


def write_edl(path: Path, cuts: Sequence[EdlCut], *, title: str, rate: Fraction, drop_frame: bool = False) -> None:
    """Write `edl_text`, atomically."""
    text = edl_text(cuts, title=title, rate=rate, drop_frame=drop_frame)
    with atomic_write(path) as temporary:
        temporary.write_text(text, encoding="ascii")
