"""Small films for tests: colour patches, a frame counter that can be read back from the pixels, files with chosen tags
and flaws.
"""

from __future__ import annotations

from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from cinetune.footage.read.color import rgb_to_yuv
from cinetune.footage.video import write_video

__all__ = ["BITS", "FILM", "counted", "counter", "drift", "patches", "write_counted", "write_sound", "write_tagged"]

FILM = Fraction(24000, 1001)
BITS = 10


def patches(height: int = 96, width: int = 128) -> np.ndarray:
    """[H, W, 3]: a grid of 4 x 6 flat colours: primaries, secondaries, skin, and greys."""
    steps = [(r, g, b) for r in (0.1, 0.5, 0.9) for g in (0.1, 0.8) for b in (0.1, 0.8)]
    steps += [(v, v, v) for v in (0.0, 0.02, 0.18, 0.5, 0.75, 1.0)]
    steps += [
        (1, 0, 0),
        (0, 1, 0),
        (0, 0, 1),
        (0.78, 0.57, 0.44),
        (200 / 255, 40 / 255, 40 / 255),
        (40 / 255, 180 / 255, 60 / 255),
    ]
    grid = np.array(steps, np.float32).reshape(4, 6, 3)
    rows, columns = np.arange(height) * 4 // height, np.arange(width) * 6 // width
    return grid[rows][:, columns]


def counted(number: int, height: int = 48, width: int = 80) -> np.ndarray:
    """[H, W, 3] whose upper half shows `number` as BITS black or white blocks over a gradient that depends on
    nothing.
    """
    frame = np.tile(np.linspace(0.2, 0.8, width, dtype=np.float32)[None, :, None], (height, 1, 3))
    for bit in range(BITS):
        frame[: height // 2, bit * width // BITS : (bit + 1) * width // BITS] = (number >> bit) & 1
    return frame


def counter(frame: np.ndarray) -> int:
    """The number shown by `counted`, at any size."""
    height, width = frame.shape[:2]
    row = frame[height // 4, :, 1]
    return sum(int(row[int((bit + 0.5) * width / BITS)] > 0.5) << bit for bit in range(BITS))


def write_counted(
    path: Path, frames: int, *, rate: Fraction = FILM, codec: str = "h264", timecode: str | None = None
) -> None:
    """A film of 80x48 whose frames carry their own number."""
    write_video(path, (counted(k) for k in range(frames)), rate=rate, codec=codec, timecode=timecode)


def drift(seed: int, frames: int, height: int = 48, width: int = 80) -> np.ndarray:
    """[T, H, W, 3]: a coarse random texture that moves one pixel a frame; another seed looks like another shot."""
    rng = np.random.default_rng(seed)
    blocks = rng.uniform(0.2, 0.9, (height // 8, width // 8, 3)).astype(np.float32)
    base = np.kron(blocks, np.ones((8, 8, 1), np.float32)) * np.float32(0.7) + rng.uniform(0, 0.25, 3).astype(
        np.float32
    )
    return np.stack([np.roll(base, k, axis=1) for k in range(frames)])


def write_tagged(
    path: Path,
    frames: Iterable[np.ndarray],
    *,
    matrix: str = "bt709",
    full_range: bool = False,
    tags: tuple[int, int, int, int] = (2, 2, 2, 0),
    rate: Fraction = FILM,
    stamps: Iterable[int] | None = None,
    tick: Fraction | None = None,
    options: dict[str, str] | None = None,
) -> None:
    """Lossless 4:4:4 H.264 of R'G'B' frames, coded by `matrix` and range, tagged (matrix, primaries, transfer, range)
    as told.

    `stamps` replaces the frame numbers, for uneven time, counted in `tick` seconds (a frame, if not said).
    """
    with av.open(str(path), "w") as container:
        stream = None
        for number, (rgb, stamp) in enumerate(zip(frames, stamps or iter(int, 1), strict=False)):
            if stream is None:
                stream = container.add_stream("libx264", rate=rate)
                assert isinstance(stream, av.VideoStream)
                stream.height, stream.width = rgb.shape[:2]
                stream.pix_fmt, stream.options = "yuv444p", {"qp": "0", "preset": "ultrafast", **(options or {})}
                context = stream.codec_context
                if tick is not None:
                    context.time_base = tick
                context.colorspace, context.color_primaries, context.color_trc, context.color_range = tags
            planes = rgb_to_yuv(rgb, matrix=matrix, full_range=full_range, bits=8)
            frame = av.VideoFrame.from_ndarray(
                np.stack([np.clip(np.rint(plane), 0, 255) for plane in planes]).astype(np.uint8), format="yuv444p"
            )
            frame.colorspace, frame.color_primaries, frame.color_trc, frame.color_range = tags
            frame.pts, frame.time_base = (number if stamps is None else stamp), tick or 1 / rate
            container.mux(stream.encode(frame))
        assert stream is not None, "no frames"
        container.mux(stream.encode())


def write_sound(path: Path) -> None:
    """A quarter of a second of tone without picture."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=8000)
        stream.layout = "mono"
        tone = np.sin(np.arange(2048) / 8).astype(np.float32)[None]
        frame = av.AudioFrame.from_ndarray(tone, format="fltp", layout="mono")
        frame.sample_rate, frame.pts = 8000, 0
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
