"""The scan type of a movie for which libav writes no `fiel` box.

The box as in the QuickTime File Format: fields a frame (1 = progressive), then their order (0 = unknown, or none).
"""

from __future__ import annotations

import struct
from pathlib import Path

from cinetune.errors import FootageError
from cinetune.footage.read.boxes import boxes_in, place_of_moov

__all__ = ["say_progressive"]

_FIEL = struct.pack(">I4sBB", 10, b"fiel", 1, 0)
_HEAD = 8  # length and name of a box
_ENTRY = 78  # bytes of a picture's sample description before the boxes in it


def say_progressive(path: Path) -> None:
    """Add the box to the picture's sample description. `moov` must be the last thing in the file.

    Raises `FootageError` for a file that is laid out otherwise.
    """
    with path.open("r+b") as file:
        place = place_of_moov(file)
        if place is None or place[1] != file.seek(0, 2):
            raise FootageError("the movie that was written does not end with its description", where=str(path))
        start = place[0] - _HEAD
        file.seek(start)
        moov = bytearray(file.read())
        _add(moov, path)
        file.seek(start)
        file.write(moov)


def _add(moov: bytearray, path: Path) -> None:
    names = (b"moov", b"trak", b"mdia", b"minf", b"stbl", b"stsd")
    for chain in _chains(bytes(moov), 0, len(moov), names):
        if any(name == b"vmhd" for name, *_ in boxes_in(bytes(moov), chain[3] + _HEAD, _end(moov, chain[3]))):
            entry = chain[-1] + 2 * _HEAD  # behind version, flags and number of entries
            moov[entry + _HEAD + _ENTRY : entry + _HEAD + _ENTRY] = _FIEL
            for at in (*chain, entry):
                struct.pack_into(">I", moov, at, _end(moov, at) - at + len(_FIEL))
            return
    raise FootageError("the movie that was written has no picture", where=str(path))


def _end(data: bytearray, at: int) -> int:
    return at + struct.unpack_from(">I", data, at)[0]


def _chains(data: bytes, start: int, end: int, names: tuple[bytes, ...]) -> list[list[int]]:
    """Where the boxes of each chain of `names` begin, one inside the other."""
    if not names:
        return [[]]
    return [
        [inner - _HEAD, *rest]
        for name, inner, stop in boxes_in(data, start, end)
        if name == names[0]
        for rest in _chains(data, inner, stop, names[1:])
    ]
