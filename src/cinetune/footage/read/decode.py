"""Opens a film file and gives its pictures by number, from any number on: by time where the rate varies, whole where
it has fields. Every libav failure becomes a `FootageError`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from fractions import Fraction
from itertools import chain
from pathlib import Path

import av
import av.container
import av.error
import av.video.stream
from av.stream import Disposition

from cinetune.artifacts import Reading
from cinetune.errors import FootageError
from cinetune.footage.read.fields import CYCLE, without_fields
from cinetune.footage.read.libav import appears, bounded, exact, open_to_read
from cinetune.footage.read.timing import claimed_rates, first_picture, on_screen

__all__ = ["opened", "picked", "pictures"]

_SEEK_MARGIN = 48  # frames decoded ahead of a seek target; below this, decoding from the start is as quick
_NO_FILM = {
    "concat": "a list of other files",
    "dash": "a playlist",
    "hls": "a playlist",
    "sdp": "an address",
    "tty": "text",
}
"""What libav opens as if it were a film: the pictures of a list lie in files whose bytes nobody hashed, and libav draws
text as characters on a screen."""
_WARM_UP = 4  # frames that a deinterlacer has seen before its result no longer depends on where it began


@contextmanager
def opened(path: Path) -> Iterator[tuple[av.container.InputContainer, av.video.stream.VideoStream]]:
    """The container and its first real video stream; every libav failure inside the block becomes a `FootageError`."""
    if not path.is_file():
        raise FootageError("no such file", where=str(path))
    if path.stat().st_size == 0:
        raise FootageError("the file is empty (0 bytes)", where=str(path), remedy="copy it again from its source")
    try:
        with open_to_read(path) as container:
            if container.format.name in _NO_FILM:
                raise FootageError(
                    f"not a film but {_NO_FILM[container.format.name]}",
                    where=str(path),
                    remedy="put the film itself into the footage folder",
                )
            streams = [s for s in container.streams.video if not s.disposition & Disposition.attached_pic]
            if not streams:
                kind = "sound but no picture" if container.streams.audio else "no picture"
                raise FootageError(f"the file has {kind}", where=str(path), remedy="remove it from the footage folder")
            if streams[0].codec_context is None:
                what = "its pictures are in a form that no decoder here knows"
                raise FootageError(what, where=str(path), remedy="export it again, for example as ProRes or H.264")
            bounded(streams[0])
            if streams[0].codec_context.width * streams[0].codec_context.height == 0:
                raise FootageError(
                    "its size is not known, or more than 67 million pixels",
                    where=str(path),
                    remedy="export it again, smaller than 8192x8192",
                )
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


def pictures(
    container: av.container.InputContainer,
    stream: av.video.stream.VideoStream,
    start: int,
    *,
    rate: Fraction | None,
    reading: Reading,
) -> Iterator[tuple[int, av.VideoFrame]]:
    """(picture number, frame) from at or before picture `start`, for a stream that was just opened. `rate` is the
    clip's; None takes the header's. The frames are not turned and their colour is not converted.
    """
    if rate is None:
        rate = next(iter(claimed_rates(stream.guessed_rate, stream.average_rate)), None)
    if reading.fields != "pulldown":
        yield from _by_number(container, stream, start, rate=rate, reading=reading)
        return
    assert rate is not None, "pulldown is only recognised at a known rate"
    kept = CYCLE - 1
    # One more cycle than needed: the filters compare with what came before.
    coded = _by_number(
        container,
        stream,
        max(0, start // kept * CYCLE - CYCLE),
        rate=rate * CYCLE / kept,
        reading=replace(reading, fields=""),
    )
    for index, frame in coded:
        if index % CYCLE == 0:
            cycles = chain([frame], (later for _, later in coded))
            whole = without_fields(cycles, "pulldown", order=reading.order)
            yield from enumerate(whole, start=index // CYCLE * kept)
            return


def picked(
    container: av.container.InputContainer,
    stream: av.video.stream.VideoStream,
    wanted: Collection[int],
    *,
    rate: Fraction | None,
    reading: Reading,
) -> Iterator[tuple[int, av.VideoFrame]]:
    """(picture number, frame) of the `wanted` pictures, in order, each once, until there are no more; otherwise as
    `pictures`. Where a codec codes every picture alone (ProRes, DNxHR, MJPEG), nothing else is decoded.
    """
    left = set(wanted)
    if stream.codec_context.codec.intra_only and rate is not None and not (reading.fields or reading.by_time):
        for number, frame in _coded_alone(container, stream, frozenset(wanted), rate):
            if number in left:
                left.remove(number)
                yield number, frame
        if not left:
            return
        container.seek(0, stream=stream)
    for number, frame in pictures(container, stream, min(left), rate=rate, reading=reading):
        if number in left:
            left.remove(number)
            yield number, frame
        if not left:
            return


def _coded_alone(
    container: av.container.InputContainer,
    stream: av.video.stream.VideoStream,
    wanted: Collection[int],
    rate: Fraction,
) -> Iterator[tuple[int, av.VideoFrame]]:
    """The `wanted` pictures, if the time stamps of their packets tell which these are."""
    tick = exact(stream.time_base)
    origin = next(container.decode(stream)).pts
    if origin is None or tick is None:
        return

    def place(pts: int | None) -> int:
        return -1 if pts is None else first_picture((pts - origin) * tick, rate)

    last = max(wanted)
    container.seek(origin + int(min(wanted) / rate / tick), stream=stream)
    for packet in container.demux(stream):
        number = place(packet.pts)
        if number > last:
            break
        if number in wanted:
            yield from ((place(frame.pts), frame) for frame in stream.decode(packet))
    yield from ((place(frame.pts), frame) for frame in stream.decode(None))


def _by_number(
    container: av.container.InputContainer,
    stream: av.video.stream.VideoStream,
    start: int,
    *,
    rate: Fraction | None,
    reading: Reading,
) -> Iterator[tuple[int, av.VideoFrame]]:
    """(number, frame) from at or before `start`: seeks by time stamp when that is quicker, and checks that it landed
    early enough.
    """
    tick = exact(stream.time_base)
    if start > _SEEK_MARGIN and rate is not None and tick is not None and container.format.name != "h264":
        origin = next(container.decode(stream)).pts
        if origin is not None:
            container.seek(origin + int((start - _SEEK_MARGIN // 2) / rate / tick), stream=stream)
            frames = container.decode(stream)
            landed = next(frames, None)
            if landed is not None and landed.pts is not None:
                first = first_picture((landed.pts - origin) * tick, rate)
                if first <= max(0, start - _WARM_UP):
                    whole = _whole(chain([landed], frames), reading)
                    yield from _numbered(whole, origin * tick, rate, by_time=reading.by_time)
                    return
        container.seek(0, stream=stream)
    whole = _whole(container.decode(stream), reading)
    head = next(whole, None)
    if head is None:
        return
    if not reading.by_time or rate is None:
        yield from enumerate(chain([head], whole))
        return
    origin = appears(head)
    assert origin is not None, "only files with time stamps are read by time"
    yield from _numbered(chain([head], whole), origin, rate, by_time=True)


def _whole(frames: Iterator[av.VideoFrame], reading: Reading) -> Iterator[av.VideoFrame]:
    return without_fields(frames, "bwdif", order=reading.order) if reading.fields == "bwdif" else frames


def _numbered(
    frames: Iterable[av.VideoFrame], origin: Fraction, rate: Fraction, *, by_time: bool
) -> Iterator[tuple[int, av.VideoFrame]]:
    """Frames with their picture numbers; `origin` is the time stamp of picture 0 in seconds."""
    if by_time:
        yield from on_screen(frames, origin=origin, rate=rate)
        return
    number = -1
    for frame in frames:
        at = appears(frame)
        number = number + 1 if at is None else first_picture(at - origin, rate)
        yield number, frame
