"""Film files in and out, through PyAV: what is read comes from `cinetune.footage.reading`, tagged movies are written
here. No ffmpeg program is needed.

Rates are exact fractions, and colour is converted by `cinetune.footage.color` alone. `size` is always (width, height).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import av.container
import av.error
import av.video.stream
import numpy as np

from cinetune.errors import FootageError
from cinetune.footage.color import resize
from cinetune.footage.planes import BT709_LIMITED, rgb_frame
from cinetune.footage.reading import Probe, iterate, probe, read_at_rate, read_frames, read_window
from cinetune.store import atomic_write

__all__ = ["MOVIES", "Movie", "Probe", "iterate", "probe", "read_at_rate", "read_frames", "read_window", "write_video"]

Array = np.ndarray
Size = tuple[int, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Movie:
    """How one kind of movie is encoded: libav encoder, its pixel format and options, and the file suffix."""

    encoder: str
    pixels: str
    suffix: str
    options: dict[str, str]


# With x264's macroblock tree (mbtree) equal frames give unequal files from run to run; without it they are equal.
MOVIES = {
    "h264": Movie(
        encoder="libx264", pixels="yuv420p", suffix=".mp4", options={"crf": "14", "preset": "medium", "mbtree": "0"}
    ),
    "prores_hq": Movie(
        encoder="prores_ks", pixels="yuv422p10le", suffix=".mov", options={"profile": "3", "vendor": "apl0"}
    ),
}
_THREADS = 4  # fixed: x264's result depends on the number of threads, and files should not depend on the machine


def write_video(
    path: Path,
    frames: Iterable[Array],
    *,
    rate: Fraction,
    codec: str = "h264",
    timecode: str | None = None,
    size: Size | None = None,
) -> None:
    """Write R'G'B' frames [H, W, 3] in [0, 1] (an array [T, H, W, 3] or an iterator) as a BT.709 limited movie, every
    frame tagged.

    `timecode` is the start label (`01:00:00:00`); `size` = (width, height) resizes. Atomic: the file appears whole or
    not at all. Raises `FootageError` for no frames or odd sizes, `StoreError` when the disk refuses.
    """
    movie = MOVIES[codec]
    with atomic_write(path) as temporary:
        try:
            _encode(temporary, frames, movie, rate=rate, timecode=timecode, size=size)
        except av.error.FFmpegError as error:
            raise OSError(error.errno, error.strerror) from error


def _encode(
    path: Path, frames: Iterable[Array], movie: Movie, *, rate: Fraction, timecode: str | None, size: Size | None
) -> None:
    stream: av.video.stream.VideoStream | None = None
    with av.open(str(path), "w", options={"movflags": "+faststart"}) as container:
        for count, rgb in enumerate(frames):
            rgb = rgb if size is None else resize(rgb, size)
            if stream is None:
                stream = _add_stream(container, movie, rate, (rgb.shape[1], rgb.shape[0]))
                if timecode is not None:
                    stream.metadata["timecode"] = timecode
            assert (stream.width, stream.height) == (rgb.shape[1], rgb.shape[0]), (
                "frames of one movie must have one size"
            )
            frame = rgb_frame(rgb, movie.pixels)
            frame.pts, frame.time_base = count, 1 / rate
            container.mux(stream.encode(frame))
        if stream is None:
            raise FootageError("there are no frames to write", where=str(path))
        container.mux(stream.encode())


def _add_stream(
    container: av.container.OutputContainer, movie: Movie, rate: Fraction, size: Size
) -> av.video.stream.VideoStream:
    if size[0] % 2 or size[1] % 2:
        raise FootageError(f"a movie needs even sides, not {size[0]}x{size[1]}", remedy="choose an even deliver.height")
    stream = container.add_stream(movie.encoder, rate=rate)
    assert isinstance(stream, av.video.stream.VideoStream)
    stream.width, stream.height = size
    stream.pix_fmt = movie.pixels
    stream.options = dict(movie.options)
    stream.codec_context.thread_count = _THREADS
    for name, code in BT709_LIMITED.items():
        setattr(stream.codec_context, name, code)
    return stream
