"""Movies out, through PyAV: one row per codec, frames streamed from an iterator, BT.709 limited tags on every frame
and in the container.

`size` is always (width, height) in pixels. Nothing here reads a film back: see `cinetune.footage.write.readback`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

import av
import av.container
import av.error
import av.video.stream
import numpy as np

from cinetune.durable import atomic_write
from cinetune.errors import FootageError
from cinetune.footage.read.color import resize
from cinetune.footage.read.planes import BT709_LIMITED, rgb_frame
from cinetune.footage.write.scan import say_progressive

__all__ = ["MOVIES", "MovieFormat", "encode_movie", "write_video"]

Array = np.ndarray
Size = tuple[int, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class MovieFormat:
    """How one kind of movie is encoded: libav encoder, its pixel format and options, and the file suffix.

    `tag` is the sample name in the container ('' = libav's own), `least` the smallest picture the codec takes, `rates`
    the only rates the container takes (empty = any). `unsaid`: neither libav's box nor the codec's own stream tells
    players that the picture is progressive.
    """

    encoder: str
    pixels: str
    suffix: str
    options: dict[str, str] = field(default_factory=dict[str, str])
    tag: str = ""
    least: Size = (2, 2)
    rates: tuple[Fraction, ...] = ()
    unsaid: bool = False


_DNXHR_LEAST = (256, 120)
_MXF_RATES = tuple(Fraction(text) for text in ["24000/1001", "24", "25", "30000/1001", "30", "50", "60000/1001", "60"])
# With x264's macroblock tree (mbtree) equal frames give unequal files from run to run; without it they are equal.
# QuickTime plays HEVC under the name hvc1 only. x265 writes its log past libav's: only errors are let through.
MOVIES = {
    "h264": MovieFormat(
        encoder="libx264", pixels="yuv420p", suffix=".mp4", options={"crf": "14", "preset": "medium", "mbtree": "0"}
    ),
    # to look at, and made by the hundred: a third of the time, a fifth more bytes
    "h264_quick": MovieFormat(
        encoder="libx264", pixels="yuv420p", suffix=".mp4", options={"crf": "14", "preset": "veryfast", "mbtree": "0"}
    ),
    "h264_lossless": MovieFormat(
        encoder="libx264", pixels="yuv444p", suffix=".mp4", options={"qp": "0", "preset": "medium", "mbtree": "0"}
    ),
    "hevc": MovieFormat(
        encoder="libx265",
        pixels="yuv420p",
        suffix=".mp4",
        options={"crf": "14", "preset": "fast", "x265-params": "log-level=error"},
        tag="hvc1",
    ),
    "hevc10": MovieFormat(
        encoder="libx265",
        pixels="yuv420p10le",
        suffix=".mp4",
        options={"crf": "14", "preset": "fast", "x265-params": "log-level=error"},
        tag="hvc1",
    ),
    "prores_hq": MovieFormat(
        encoder="prores_ks", pixels="yuv422p10le", suffix=".mov", options={"profile": "3", "vendor": "apl0"}
    ),
    "prores_4444": MovieFormat(
        encoder="prores_ks", pixels="yuv444p10le", suffix=".mov", options={"profile": "4", "vendor": "apl0"}
    ),
    "dnxhr_hqx": MovieFormat(
        encoder="dnxhd",
        pixels="yuv422p10le",
        suffix=".mov",
        options={"profile": "dnxhr_hqx"},
        least=_DNXHR_LEAST,
        unsaid=True,
    ),
    "dnxhr_hqx_mxf": MovieFormat(
        encoder="dnxhd",
        pixels="yuv422p10le",
        suffix=".mxf",
        options={"profile": "dnxhr_hqx"},
        least=_DNXHR_LEAST,
        rates=_MXF_RATES,
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
    not at all. Raises `FootageError` for no frames, and for sizes or rates the codec does not take, `StoreError` when
    the disk refuses.
    """
    with atomic_write(path) as temporary:
        encode_movie(temporary, frames, MOVIES[codec], rate=rate, timecode=timecode, size=size)


def encode_movie(
    path: Path,
    frames: Iterable[Array],
    movie: MovieFormat,
    *,
    rate: Fraction,
    timecode: str | None = None,
    size: Size | None = None,
) -> int:
    """As `write_video`, straight into `path`, one frame in memory at a time; the number of frames written.

    Raises `OSError` when the disk refuses: call it inside `atomic_write`.
    """
    count = 0
    stream: av.video.stream.VideoStream | None = None
    try:
        with av.open(str(path), "w", options=_container_options(movie)) as container:
            for rgb in frames:
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
                count += 1
            if stream is None:
                raise FootageError("there are no frames to write", where=str(path))
            container.mux(stream.encode())
    except av.error.FFmpegError as error:
        raise OSError(error.errno, error.strerror) from error
    if movie.unsaid:
        say_progressive(path)
    return count


def _container_options(movie: MovieFormat) -> dict[str, str]:
    # `moov` stays at the end where it has to grow afterwards: nothing behind it moves.
    return {} if movie.suffix == ".mxf" or movie.unsaid else {"movflags": "+faststart"}


def _add_stream(
    container: av.container.OutputContainer, movie: MovieFormat, rate: Fraction, size: Size
) -> av.video.stream.VideoStream:
    if size[0] % 2 or size[1] % 2:
        raise FootageError(f"a movie needs even sides, not {size[0]}x{size[1]}", remedy="choose an even deliver.height")
    if size[0] < movie.least[0] or size[1] < movie.least[1]:
        least = f"{movie.least[0]}x{movie.least[1]}"
        raise FootageError(
            f"{movie.encoder} needs pictures of {least} or more, not {size[0]}x{size[1]}",
            remedy="set a larger deliver.height, or choose another format",
        )
    if movie.rates and rate not in movie.rates:
        legal = ", ".join(str(known) for known in movie.rates)
        raise FootageError(
            f"{movie.suffix} cannot hold {rate} frames per second",
            remedy=f"set deliver.rate to one of {legal} with a conform other than none, or choose a .mov format",
        )
    stream = container.add_stream(movie.encoder, rate=rate)
    assert isinstance(stream, av.video.stream.VideoStream)
    stream.width, stream.height = size
    stream.pix_fmt = movie.pixels
    stream.options = {**movie.options, "field_order": "progressive"}
    stream.codec_context.sample_aspect_ratio = Fraction(1)
    stream.codec_context.thread_count = _THREADS
    if movie.tag:
        stream.codec_context.codec_tag = movie.tag
    for name, code in BT709_LIMITED.items():
        setattr(stream.codec_context, name, code)
    return stream
