"""What the boxes of a QuickTime or MP4 file say that libav does not pass on: the base its timecode counts at, and
the edit list of its picture.

Boxes as in ISO/IEC 14496-12 and the QuickTime File Format: a length of four bytes, a name of four, then the content.
Only `moov` is read, and only up to a bound; what does not fit is as if it were not there.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import BinaryIO

__all__ = ["Movie", "boxes_in", "place_of_moov", "read_boxes", "timecode_base"]

_MOST_MOOV = 64 << 20
_MOST_BOXES = 100_000
_MOST_BASE = 240  # frames a second that a timecode counts
_COUNTER = 8  # a tmcd flag: it counts frames, and is no time
Box = tuple[bytes, int, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Movie:
    """`base`: whole frames a second that the timecode of the picture counts, 0 = not said. `edits`: (length in ticks of
    the movie, first tick of the picture's own clock or -1 for an empty one) of the picture's edit list; `scale` and
    `own_scale` are the ticks a second of the two clocks.
    """

    base: int
    edits: tuple[tuple[int, int], ...]
    scale: int
    own_scale: int


def read_boxes(path: Path) -> Movie | None:
    """None for what is no QuickTime or MP4 file, or is damaged."""
    try:
        with path.open("rb") as file:
            place = place_of_moov(file)
            if place is None or place[1] - place[0] > _MOST_MOOV:
                return None
            file.seek(place[0])
            return _movie(file.read(place[1] - place[0]))
    except (OSError, struct.error, IndexError):
        return None


def timecode_base(path: Path, rate: Fraction) -> Fraction | None:
    """Frames a second that the timecode of a file of `rate` counts; None where that is `rate`, or not said.

    The track says a whole number; the clock is the picture's, so that 30 of a picture at 60000/1001 are 30000/1001.
    """
    movie = read_boxes(path)
    if movie is None or movie.base in (0, round(rate)) or round(rate) == 0:
        return None
    return rate * Fraction(movie.base, round(rate))


def place_of_moov(file: BinaryIO) -> tuple[int, int] | None:
    """Where the content of `moov` begins and ends in a file; None if it has none."""
    at, end = 0, file.seek(0, 2)
    for _ in range(_MOST_BOXES):
        file.seek(at)
        head = file.read(16)
        if len(head) < 8:
            return None
        length, name = struct.unpack_from(">I4s", head)
        skip = 8
        if length == 1:
            length, skip = struct.unpack_from(">Q", head, 8)[0], 16
        length = length or end - at
        if length < skip or at + length > end:
            return None
        if name == b"moov":
            return at + skip, at + length
        at += length
    return None


def boxes_in(data: bytes, start: int, end: int) -> Iterator[Box]:
    """(name, start, end of the content) of the boxes between two places."""
    for _ in range(_MOST_BOXES):
        if start + 8 > end:
            return
        length, name = struct.unpack_from(">I4s", data, start)
        skip = 8
        if length == 1:
            length, skip = struct.unpack_from(">Q", data, start + 8)[0], 16
        length = length or end - start
        if length < skip or start + length > end:
            return
        yield name, start + skip, start + length
        start += length


def _find(data: bytes, start: int, end: int, *path: bytes) -> tuple[int, int] | None:
    for name in path:
        found = next(((a, b) for each, a, b in boxes_in(data, start, end) if each == name), None)
        if found is None:
            return None
        start, end = found
    return start, end


def _movie(data: bytes) -> Movie | None:
    tracks = [(start, end) for name, start, end in boxes_in(data, 0, len(data)) if name == b"trak"]
    kinds = {track: _kind(data, *track) for track in tracks}
    picture = next((track for track in tracks if kinds[track] == b"vide"), None)
    header = _find(data, 0, len(data), b"mvhd")
    if picture is None or header is None:
        return None
    clocks = [track for track in tracks if kinds[track] == b"tmcd"]
    named = _reference(data, *picture)
    clock = next((track for track in clocks if _number(data, *track) == named), clocks[0] if clocks else None)
    media = _find(data, *picture, b"mdia", b"mdhd")
    return Movie(
        base=0 if clock is None else _base(data, *clock),
        edits=_edits(data, *picture),
        scale=_scale(data, header[0]),
        own_scale=0 if media is None else _scale(data, media[0]),
    )


def _kind(data: bytes, start: int, end: int) -> bytes:
    place = _find(data, start, end, b"mdia", b"hdlr")
    return b"" if place is None else data[place[0] + 8 : place[0] + 12]


def _scale(data: bytes, at: int) -> int:
    """Ticks a second of `mvhd` and `mdhd`: after two times of four bytes, or of eight in version 1."""
    return struct.unpack_from(">I", data, at + (20 if data[at] == 1 else 12))[0]


def _number(data: bytes, start: int, end: int) -> int | None:
    place = _find(data, start, end, b"tkhd")
    return None if place is None else struct.unpack_from(">I", data, place[0] + (20 if data[place[0]] == 1 else 12))[0]


def _reference(data: bytes, start: int, end: int) -> int | None:
    """The number of the track that holds the picture's timecode."""
    place = _find(data, start, end, b"tref", b"tmcd")
    return None if place is None or place[1] - place[0] < 4 else struct.unpack_from(">I", data, place[0])[0]


def _base(data: bytes, start: int, end: int) -> int:
    table = _find(data, start, end, b"mdia", b"minf", b"stbl", b"stsd")
    entry = None if table is None else _find(data, table[0] + 8, table[1], b"tmcd")
    if entry is None or entry[1] - entry[0] < 25:
        return 0
    flags, scale, lasts, frames = struct.unpack_from(">IIIB", data, entry[0] + 12)
    if flags & _COUNTER:
        return 0
    base = round(scale / lasts) if lasts else frames
    return base if 0 < base <= _MOST_BASE else 0


def _edits(data: bytes, start: int, end: int) -> tuple[tuple[int, int], ...]:
    place = _find(data, start, end, b"edts", b"elst")
    if place is None:
        return ()
    count = min(struct.unpack_from(">I", data, place[0] + 4)[0], _MOST_BOXES)
    form, size = (">Qq", 20) if data[place[0]] == 1 else (">Ii", 12)
    rows = [struct.unpack_from(form, data, place[0] + 8 + size * k) for k in range(count)]
    return tuple((int(length), int(first)) for length, first in rows)
