"""Film files in and out, through PyAV: probe, read exact frames, write tagged movies and 16-bit stills. No ffmpeg
program is needed.

Frames are counted by decoding, rates are exact fractions, and colour is converted by `cinetune.footage.color` alone.
`size` is always (width, height) and `crop` (x, y, width, height), both in pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import av.container
import av.error
import av.video.stream
import numpy as np
from av.stream import Disposition

from cinetune.artifacts import Colour, FootageClip, Window
from cinetune.errors import FootageError
from cinetune.footage.color import resize
from cinetune.footage.planes import BT709_LIMITED, frame_colour, frame_rgb, rgb_frame
from cinetune.store import atomic_write
from cinetune.timecode import Span, exact_rate, resample_indices

__all__ = ["MOVIES", "Movie", "Probe", "iterate", "probe", "read_at_rate", "read_frames", "read_window", "write_video"]

Array = np.ndarray
Crop = tuple[int, int, int, int]
Size = tuple[int, int]
_SEEK_MARGIN = 48  # frames decoded ahead of a seek target; below this, decoding from the start is as quick


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe:
    """What a film file is, after decoding all of it."""

    path: Path
    codec: str
    rate: Fraction
    frames: int
    width: int
    height: int
    pixel_aspect: Fraction
    colour: Colour
    timecode: str | None
    notes: tuple[str, ...]


@contextmanager
def _opened(path: Path) -> Iterator[tuple[av.container.InputContainer, av.video.stream.VideoStream]]:
    """The container and its first real video stream; every libav failure inside the block becomes a `FootageError`."""
    if not path.is_file():
        raise FootageError("no such file", where=str(path))
    if path.stat().st_size == 0:
        raise FootageError("the file is empty (0 bytes)", where=str(path), remedy="copy it again from its source")
    try:
        with av.open(str(path)) as container:
            streams = [s for s in container.streams.video if not s.disposition & Disposition.attached_pic]
            if not streams:
                kind = "sound but no picture" if container.streams.audio else "no picture"
                raise FootageError(f"the file has {kind}", where=str(path), remedy="remove it from the footage folder")
            streams[0].thread_type = "AUTO"
            yield container, streams[0]
    except av.error.FFmpegError as error:
        raise FootageError(
            f"not a video, or a damaged one ({error.strerror})",
            where=str(path),
            remedy="check that it plays to its end; copy or export it again",
        ) from error
    except FootageError as error:
        if error.where:
            raise
        raise FootageError(error.what, where=str(path), remedy=error.remedy) from error


def probe(
    path: Path, *, min_seconds: float = 0.0, on_frame: Callable[[int, av.VideoFrame, Colour], None] | None = None
) -> Probe:
    """Decode the whole file once and say what it is; `on_frame(index, frame, colour)` sees every frame on the way.

    Raises `FootageError` with the reason for: empty or missing files, no video, damage or truncation at any frame, a
    varying rate or frame size, interlace, rotation, alpha, HDR or wide-gamut colour, and less than `min_seconds` of
    film.
    """
    with _opened(path) as (container, stream):
        stamps: list[int | None] = []
        interlaced = 0
        first: av.VideoFrame | None = None
        colour: Colour | None = None
        try:
            for frame in container.decode(stream):
                if first is None or colour is None:
                    first, colour = frame, frame_colour(frame)
                    _check_first(frame)
                if (frame.width, frame.height) != (first.width, first.height):
                    where = f"frame {len(stamps)}"
                    raise FootageError(f"the picture size changes at {where}", remedy="export it at one size")
                if frame.is_corrupt:
                    raise FootageError(f"frame {len(stamps)} is damaged", remedy="copy or export it again")
                if on_frame is not None:
                    on_frame(len(stamps), frame, colour)
                interlaced += frame.interlaced_frame
                stamps.append(frame.pts)
        except av.error.FFmpegError as error:
            if first is None:
                raise
            raise FootageError(
                f"damaged after frame {len(stamps) - 1} ({error.strerror})", remedy="copy or export it again"
            ) from error
        if first is None or colour is None:
            raise FootageError("no frame can be decoded", remedy="check that it plays; export it again")
        if interlaced * 2 > len(stamps):
            remedy = "deinterlace it (for example with bwdif) and export it progressive"
            raise FootageError("it is interlaced", remedy=remedy)
        rate, notes = _exact_rate(stream, stamps)
        _check_complete(stream, len(stamps), rate)
        if len(stamps) < 2 or len(stamps) / rate < min_seconds:
            raise FootageError(
                f"too short: {len(stamps)} frames, {float(len(stamps) / rate):.2f} s of the {min_seconds:g} s needed",
                remedy="use a longer clip, or lower footage.min_shot_seconds",
            )
        aspect = stream.sample_aspect_ratio
        timecode = stream.metadata.get("timecode") or container.metadata.get("timecode")
        return Probe(
            path=path,
            codec=stream.codec_context.name,
            rate=rate,
            frames=len(stamps),
            width=first.width,
            height=first.height,
            pixel_aspect=Fraction(aspect) if aspect else Fraction(1),
            colour=colour,
            timecode=timecode,
            notes=notes,
        )


def _check_first(frame: av.VideoFrame) -> None:
    if frame.rotation:
        raise FootageError(f"it is to be shown rotated by {frame.rotation} degrees", remedy="export it upright")
    if any(part.is_alpha for part in frame.format.components):
        raise FootageError("it has an alpha channel", remedy="flatten it and export it without alpha")


def _check_complete(stream: av.video.stream.VideoStream, frames: int, rate: Fraction) -> None:
    """A file cut off in transfer still opens; its header promises more than there is. Edit lists shorten both, so both
    must disagree.
    """
    if not stream.frames or stream.duration is None or stream.time_base is None:
        return
    promised = stream.duration * stream.time_base * rate
    if frames < stream.frames and frames + 0.5 < promised:
        raise FootageError(
            f"truncated: its header promises {stream.frames} frames, {frames} can be decoded",
            remedy="copy it again from its source",
        )


def _exact_rate(stream: av.video.stream.VideoStream, stamps: Sequence[int | None]) -> tuple[Fraction, tuple[str, ...]]:
    """The constant rate that the time stamps follow to a quarter of a frame. Raises `FootageError` when none does."""
    claimed = [exact_rate(rate) for rate in (stream.guessed_rate, stream.average_rate, stream.base_rate) if rate]
    known = [stamp for stamp in stamps if stamp is not None]
    if not claimed:
        raise FootageError("the file does not say its frame rate", remedy="wrap it in .mov or .mp4 at its true rate")
    if len(known) < len(stamps) or stream.time_base is None:
        return claimed[0], (f"no time stamps: taken as {claimed[0]} fps throughout",)
    tick = stream.time_base
    seconds = np.array([stamp - known[0] for stamp in known], dtype=np.float64) * float(tick)
    places = np.arange(len(known))
    errors = [float(np.abs(seconds * float(rate) - places).max()) for rate in claimed]
    best = min(range(len(claimed)), key=errors.__getitem__)
    if errors[best] > max(0.25, float(tick * claimed[best])):
        steps = np.diff(seconds)
        worst = int(np.abs(steps - np.median(steps)).argmax())
        raise FootageError(
            f"variable frame rate: frame {worst + 1} comes {steps[worst] * 1000:.1f} ms after frame {worst}, "
            f"most come after {np.median(steps) * 1000:.1f} ms",
            remedy="transcode it to a constant rate",
        )
    return claimed[best], ()


def iterate(
    path: Path, *, colour: Colour | None = None, crop: Crop | None = None, size: Size | None = None
) -> Iterator[Array]:
    """Every frame in order as R'G'B' [H, W, 3] float32 in [0, 1]. `colour=None` decides from the file's tags. Raises
    `FootageError`.
    """
    with _opened(path) as (container, stream):
        for frame in container.decode(stream):
            colour = colour or frame_colour(frame)
            yield _shaped(frame_rgb(frame, colour), crop, size)


def _shaped(rgb: Array, crop: Crop | None, size: Size | None) -> Array:
    if crop is not None:
        x, y, width, height = crop
        if x < 0 or y < 0 or x + width > rgb.shape[1] or y + height > rgb.shape[0]:
            raise FootageError(f"crop {crop} lies outside a picture of {rgb.shape[1]}x{rgb.shape[0]}")
        rgb = rgb[y : y + height, x : x + width]
    return rgb if size is None else resize(rgb, size)


def _indexed(
    container: av.container.InputContainer, stream: av.video.stream.VideoStream, start: int
) -> Iterator[tuple[int, av.VideoFrame]]:
    """(frame number, frame) from at or before `start`: seeks by time stamp when that is quicker, and checks that it
    landed early enough.
    """
    rate = stream.guessed_rate or stream.average_rate
    tick = stream.time_base
    if start > _SEEK_MARGIN and rate and tick and container.format.name != "h264":
        origin = next(container.decode(stream)).pts
        if origin is not None:
            exact = exact_rate(rate)
            container.seek(origin + int((start - _SEEK_MARGIN // 2) / exact / tick), stream=stream)
            early = False
            for frame in container.decode(stream):
                if frame.pts is None:
                    break
                index = round((frame.pts - origin) * tick * exact)
                early = early or index <= start
                if not early:
                    break
                yield index, frame
            if early:
                return
        container.seek(0, stream=stream)
    yield from enumerate(container.decode(stream))


def read_frames(
    path: Path,
    indices: Sequence[int],
    *,
    colour: Colour | None = None,
    crop: Crop | None = None,
    size: Size | None = None,
) -> Array:
    """Frames by number, in the given order (repeats allowed), as R'G'B' [T, H, W, 3] float32 in [0, 1].

    `colour=None` decides from the file's tags. Raises `FootageError` for unreadable files and numbers past the end.
    """
    assert indices and min(indices) >= 0, "read_frames needs frame numbers >= 0"
    wanted = set(indices)
    found: dict[int, Array] = {}
    with _opened(path) as (container, stream):
        for index, frame in _indexed(container, stream, min(wanted)):
            if index in wanted:
                colour = colour or frame_colour(frame)
                found[index] = _shaped(frame_rgb(frame, colour), crop, size)
            if len(found) == len(wanted):
                break
    missing = sorted(wanted - set(found))
    if missing:
        raise FootageError(
            f"the file has no frame {missing[0]}",
            where=str(path),
            remedy="it changed since it was ingested: run `cinetune ingest`",
        )
    return np.stack([found[index] for index in indices])


def read_window(root: Path, clip: FootageClip, window: Window) -> Array:
    """The pixels of a window as R'G'B' [T, H, W, 3] float32 in [0, 1]: its source frames, cropped, Lanczos-resized.
    `root` = project folder.
    """
    return read_frames(
        root / clip.path, window.source_frames, colour=clip.colour, crop=window.crop, size=(window.width, window.height)
    )


def read_at_rate(
    path: Path, *, rate: Fraction, frames: int, crop: Crop | None = None, size: Size | None = None
) -> Array:
    """The first `frames` frames at `rate`, picked by time from a file of any rate: [T, H, W, 3] float32 in [0, 1].

    Raises `FootageError` for unreadable files, `ConfigError` when the film is too short.
    """
    facts = probe(path)
    indices = resample_indices(Span(start=0, frames=facts.frames, rate=facts.rate), rate, frames)
    return read_frames(path, indices, colour=facts.colour, crop=crop, size=size)


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
    "h264_lossless": Movie(
        encoder="libx264", pixels="yuv444p", suffix=".mp4", options={"qp": "0", "preset": "medium", "mbtree": "0"}
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
