"""Films with flaws: pictures that pan over backlot scenes, in files as cameras, broadcasters and bad copies leave them.

Every maker of a file returns the function that writes it, so that a table can name it without running it. Pictures are
[T, H, W, 3] float32 R'G'B' in [0, 1].
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fractions import Fraction
from functools import cache
from pathlib import Path

import av
import numpy as np

from cinetune.backlot.scenes import render, sample_scene
from cinetune.footage.read.color import resize, rgb_to_yuv, subsample_chroma
from cinetune.footage.read.stills import write_png16
from cinetune.footage.video import write_video

__all__ = [
    "BT709",
    "barred",
    "broken",
    "cut",
    "dissolved",
    "faded",
    "frozen",
    "interlaced",
    "movie",
    "numbered",
    "on_twos",
    "opening",
    "pan",
    "raw",
    "renamed",
    "rotated",
    "sound",
    "telecined",
]

Array = np.ndarray
Write = Callable[[Path], None]
BT709 = (1, 1, 1, 1)
"""Matrix, primaries, transfer and range: code points of H.273."""
_TICK = Fraction(1, 90000)
_TURNS = {
    45: (46341, 46341, 0, -46341, 46341, 0, 0, 0, 1 << 30),
    90: (0, 65536, 0, -65536, 0, 0, 0, 0, 1 << 30),
    180: (-65536, 0, 0, 0, -65536, 0, 0, 0, 1 << 30),
    270: (0, -65536, 0, 65536, 0, 0, 0, 0, 1 << 30),
}
"""Matrices of a track header, by the degrees clockwise that a player turns the picture."""
_UPRIGHT = (65536, 0, 0, 0, 65536, 0, 0, 0, 1 << 30)


@cache
def _still(number: int) -> Array:
    """A wide view [48, 128, 3] of one scene; another number is another place, lighter or darker."""
    scene = sample_scene(np.random.default_rng(70 + number), domain=("historical", "sci-fi")[number % 2])
    view = render(scene, frames=1, height=48, width=128)[0]
    return view * np.float32((1.0, 0.55)[number % 2])


def pan(number: int, frames: int, *, height: int = 48, width: int = 64, speed: float = 1.0) -> Array:
    """[T, H, W, 3]: a walk over scene `number`, `speed` pixels a frame, with grain that belongs to the scene."""
    wide = resize(_still(number), (width * 2, height))
    wide = wide + np.random.default_rng(number).normal(0, 0.03, wide.shape[:2]).astype(np.float32)[..., None]
    both = np.clip(np.concatenate([wide, wide[:, ::-1]], axis=1), 0.0, 1.0)
    return np.stack([np.roll(both, -round(k * speed), axis=1)[:, :width] for k in range(frames)])


def cut(*lengths: int, height: int = 48, width: int = 64, speed: float = 1.0) -> Array:
    """Shots of these lengths, one after the other, each of its own scene."""
    shots = [pan(k, length, height=height, width=width, speed=speed) for k, length in enumerate(lengths)]
    return np.concatenate(shots)


def barred(film: Array, x: int, y: int, *, gain: float = 1.0, grain: float = 0.0) -> Array:
    """Black bars of x columns left and right and y lines above and below, then grain over all."""
    framed = np.pad(film * np.float32(gain), ((0, 0), (y, y), (x, x), (0, 0)))
    noise = np.random.default_rng(5).normal(0, grain, framed.shape[:3]).astype(np.float32)
    return np.clip(framed + noise[..., None], 0.0, 1.0)


def opening() -> Array:
    """A shot of 60 whose letterbox opens from 16 lines to 4, then one of 30 that keeps 4."""
    film = np.pad(cut(60, 30, height=56), ((0, 0), (4, 4), (0, 0), (0, 0)))
    for k in range(60):
        lines = 16 - max(0, min(12, k - 24))
        film[k, :lines] = film[k, 64 - lines :] = 0.0
    return film


def _weave(top: Array, bottom: Array) -> Array:
    woven = top.copy()
    woven[:, 1::2] = bottom[:, 1::2]
    return woven


def interlaced(order: str) -> Array:
    """Shots of 14 and 16 frames of 240 lines, two moments in each frame; the cut lies between frames."""
    moments = cut(28, 32, height=240, width=128, speed=3.0)
    first, second = moments[::2], moments[1::2]
    return _weave(first, second) if order == "tff" else _weave(second, first)


def telecined() -> Array:
    """40 film frames on 50 of video, four on five; the cut at film frame 22 falls inside a mixed frame."""
    a, b, c, d = (cut(22, 18, height=240, width=128, speed=3.0)[k::4] for k in range(4))
    return np.stack([a, b, _weave(b, c), _weave(c, d), d], axis=1).reshape(-1, *a.shape[1:])


def faded() -> Array:
    """20 clean + 10 darkening, the last black | 4 black | 10 brightening, the first black + 20 clean."""
    film = cut(30, 34)
    film[20:30] *= (1 - np.arange(1, 11, dtype=np.float32) / 10)[:, None, None, None]
    film[30:34] = 0.0
    film[34:44] *= (np.arange(10, dtype=np.float32) / 10)[:, None, None, None]
    return film


def dissolved() -> Array:
    """Shots of 24 with a dissolve of 12 frames between them: frames 24..35 show both."""
    share = np.clip((np.arange(60) - 23) / 13, 0, 1).astype(np.float32)[:, None, None, None]
    return pan(0, 60) * (1 - share) + pan(1, 60) * share


def frozen() -> Array:
    """16 frames that move, then 20 times the same picture of another scene."""
    return np.concatenate([pan(0, 16), np.repeat(pan(1, 1), 20, axis=0)])


def on_twos() -> Array:
    """32 frames, each picture twice: animation on twos."""
    return np.repeat(pan(0, 16, speed=2.0), 2, axis=0)


def movie(
    film: Callable[[], Array], codec: str = "h264", rate: Fraction = Fraction(24), timecode: str | None = None
) -> Write:
    """Through the project's own writer, BT.709 limited."""
    return lambda path: write_video(path, film(), rate=rate, codec=codec, timecode=timecode)


def raw(
    film: Callable[[], Array],
    *,
    encoder: str = "libx264",
    pixels: str = "yuv420p",
    matrix: str = "bt709",
    tags: tuple[int, int, int, int] = BT709,
    rate: Fraction = Fraction(24),
    stamps: Sequence[int] | None = None,
    aspect: Fraction = Fraction(1),
    options: dict[str, str] | None = None,
) -> Write:
    """As told, for what the project's writer never does: other tags, squeezed pixels, alpha, uneven `stamps` (counted
    in 1/90000 s).
    """
    usual = {"libx264": {"crf": "12", "preset": "veryfast"}, "libx265": {"x265-params": "log-level=error"}}
    tick = 1 / rate if stamps is None else _TICK

    def write(path: Path) -> None:
        with av.open(str(path), "w") as container:
            stream = container.add_stream(encoder, rate=rate, options=usual.get(encoder, {}) | (options or {}))
            assert isinstance(stream, av.VideoStream)
            context, pictures = stream.codec_context, film()
            stream.height, stream.width, stream.pix_fmt = *pictures.shape[1:3], pixels
            context.sample_aspect_ratio, context.time_base = aspect, tick
            _tag(context, tags)
            for number, rgb in enumerate(pictures):
                frame = _frame(rgb, pixels, matrix, full_range=tags[3] == 2)
                _tag(frame, tags)
                frame.time_base, frame.pts = tick, number if stamps is None else stamps[number]
                container.mux(stream.encode(frame))
            container.mux(stream.encode())

    return write


def _tag(target: av.VideoFrame | av.VideoCodecContext, tags: tuple[int, int, int, int]) -> None:
    target.colorspace, target.color_primaries, target.color_trc, target.color_range = tags


def _frame(rgb: Array, pixels: str, matrix: str, *, full_range: bool) -> av.VideoFrame:
    """R'G'B' as planes of `pixels`; alpha, where there is one, covers the left half only."""
    frame = av.VideoFrame(rgb.shape[1], rgb.shape[0], pixels)
    parts = frame.format.components
    bits, width = parts[0].bits, frame.width
    luma, *chroma = rgb_to_yuv(rgb, matrix=matrix, full_range=full_range, bits=bits)
    halve = {"columns": parts[1].width < width, "rows": parts[1].height < frame.height}
    planes = [luma, *(subsample_chroma(plane, **halve) for plane in chroma)]
    if len(parts) == 4:
        planes.append(np.where(np.arange(width) < width // 2, 2.0**bits - 1, 0.0) * np.ones_like(luma))
    kind = np.dtype("<u2") if bits > 8 else np.dtype("u1")
    for plane, values in zip(frame.planes, planes, strict=True):
        rows = np.frombuffer(plane, kind).reshape(-1, plane.line_size // kind.itemsize)  # type: ignore[arg-type]
        rows[: values.shape[0], : values.shape[1]] = np.clip(np.rint(values), 0, 2**bits - 1)
    return frame


def rotated(write: Write, degrees: int) -> Write:
    """A QuickTime file whose header asks players to turn the picture, as phones write it."""

    def bytes_of(matrix: Sequence[int]) -> bytes:
        return b"".join(value.to_bytes(4, "big", signed=True) for value in matrix)

    def spoil(data: bytes) -> bytes:
        at = data.index(bytes_of(_UPRIGHT), data.index(b"tkhd"))
        return data[:at] + bytes_of(_TURNS[degrees]) + data[at + 36 :]

    return broken(write, spoil)


def broken(write: Write, spoil: Callable[[bytes], bytes]) -> Write:
    """A file whose bytes were changed after it was written."""

    def both(path: Path) -> None:
        write(path)
        path.write_bytes(spoil(path.read_bytes()))

    return both


def renamed(write: Write, suffix: str) -> Write:
    """A file whose name lies about its container: written as `suffix`, then moved."""

    def move(path: Path) -> None:
        write(path.with_suffix(suffix))
        path.with_suffix(suffix).replace(path)

    return move


def numbered(film: Callable[[], Array], *, first: int, missing: Sequence[int]) -> Write:
    """16-bit PNG pictures numbered from `first`, without the `missing` numbers; the path holds `%04d`."""

    def write(path: Path) -> None:
        for number, rgb in enumerate(film(), start=first):
            if number not in missing:
                write_png16(path.with_name(path.name % number), rgb)

    return write


def sound(path: Path) -> None:
    """A quarter of a second of tone, no picture."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=8000, layout="mono")
        assert isinstance(stream, av.AudioStream)
        tone = np.sin(np.arange(2048) / 8).astype(np.float32)[None]
        frame = av.AudioFrame.from_ndarray(tone, format="fltp", layout="mono")
        frame.sample_rate, frame.pts = 8000, 0
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
