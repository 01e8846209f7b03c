"""Reopen what was just written and compare it with what was promised, by libav alone: a file that does not read back
is never delivered.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import av.error

from cinetune.errors import FootageError
from cinetune.footage.read.libav import appears, exact, metadata
from cinetune.footage.read.planes import BT709_LIMITED

__all__ = ["BT709_TAGS", "MovieFacts", "check_movie", "movie_facts"]

BT709_TAGS = tuple(BT709_LIMITED[name] for name in ("colorspace", "color_primaries", "color_trc", "color_range"))
"""(matrix, primaries, transfer, range) of BT.709 limited, as `MovieFacts.tags` gives them."""
_REMEDY = "the file was not delivered; report it with the format and the version of av (`cinetune doctor`)"


@dataclass(frozen=True, slots=True, kw_only=True)
class MovieFacts:
    """What a movie holds, by decoding every frame. `size` is (width, height).

    `tags` are the H.273 code points of (matrix, primaries, transfer, range) that all frames and the container share,
    None where they differ. `rate` is the rate that every time stamp keeps exactly, None where they do not.
    """

    frames: int
    rate: Fraction | None
    size: tuple[int, int]
    pixels: str
    tags: tuple[int, int, int, int] | None
    timecode: str | None


def _tags(holder: av.VideoFrame | av.VideoCodecContext) -> tuple[int, int, int, int]:
    return (int(holder.colorspace), int(holder.color_primaries), int(holder.color_trc), int(holder.color_range))


def movie_facts(path: Path) -> MovieFacts:
    """Decode all of a movie. Raises `FootageError` when it has no picture, or one that cannot be decoded."""
    try:
        with av.open(str(path)) as container:
            if not container.streams.video:
                raise FootageError("the file has no picture", where=str(path))
            stream = container.streams.video[0]
            stream.thread_type = "AUTO"
            times: list[Fraction | None] = []
            tags = {_tags(stream.codec_context)}
            kinds: set[tuple[int, int, str]] = set()
            for frame in container.decode(stream):
                times.append(appears(frame))
                kinds.add((frame.width, frame.height, frame.format.name))
                tags.add(_tags(frame))
            claimed = exact(stream.average_rate) or exact(stream.guessed_rate)
            timecode = metadata(stream).get("timecode") or metadata(container).get("timecode")
    except av.error.FFmpegError as error:
        raise FootageError(f"it cannot be decoded to its end ({error.strerror})", where=str(path)) from error
    if len(kinds) != 1:
        what = "its frames differ in size or kind" if kinds else "no frame can be decoded"
        raise FootageError(what, where=str(path))
    width, height, pixels = kinds.pop()
    even = claimed is not None and times == [number / claimed for number in range(len(times))]
    return MovieFacts(
        frames=len(times),
        rate=claimed if even else None,
        size=(width, height),
        pixels=pixels,
        tags=tags.pop() if len(tags) == 1 else None,
        timecode=timecode,
    )


def check_movie(
    path: Path, *, frames: int, rate: Fraction, size: tuple[int, int], bits: int, timecode: str | None
) -> None:
    """Raises `FootageError` naming every promise that the file at `path` does not keep: frame count, exact rate on
    every time stamp, size, bit depth (at least `bits`), BT.709 limited on every frame and in the container, and the
    start timecode.
    """
    found = movie_facts(path)
    depth = av.VideoFormat(found.pixels).components[0].bits
    promises = {
        "frames": (frames, found.frames),
        "rate": (rate, found.rate),
        "size": (size, found.size),
        "bits": (bits, min(depth, bits)),
        "colour tags": (BT709_TAGS, found.tags),
        "timecode": (timecode, found.timecode),
    }
    broken = [f"{name} {got}, not {told}" for name, (told, got) in promises.items() if told != got]
    if broken:
        raise FootageError(
            f"what was written does not read back as promised: {'; '.join(broken)}", where=str(path), remedy=_REMEDY
        )
