"""How the model's 16 frames a second become the rate that was asked for. Frame counts are exact and depend on the mode
alone, never on the picture.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from fractions import Fraction
from typing import Protocol

import av
import av.error
import numpy as np
from av.filter import Graph

from cinetune.errors import FootageError
from cinetune.footage.read.color import from_light, rgb_to_yuv, to_light, yuv_to_rgb

__all__ = ["Master", "conform_indices", "conformed"]

Array = np.ndarray
_SCALE = np.float32(1.0 / 65535.0)
_AHEAD = 4  # frames that minterpolate must see on either side before it shows one
_MOTION = "mi_mode=mci:mc_mode=aobmc:me_mode=bidir:vsbmc=1:scd=none"


class Master(Protocol):
    """Generated frames, uint16 with 65535 = 1.0: an array [T, H, W, 3], or a file read one frame at a time."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    def __getitem__(self, index: int, /) -> Array: ...


def conform_indices(frames: int, source: Fraction, rate: Fraction, mode: str) -> tuple[list[int], Fraction]:
    """(master frame on screen at each delivered frame, delivered rate).

    `none`: every frame, at the master's rate. `retime`: every frame, at `rate` (faster or slower motion). `hold`,
    `blend`, `minterpolate`: at each delivered frame's time, the master frame on screen then; motion keeps its speed and
    the last delivered frame begins before the master ends.
    """
    if mode == "none":
        return list(range(frames)), source
    if mode == "retime":
        return list(range(frames)), rate
    assert mode in ("hold", "blend", "minterpolate"), f"unknown conform {mode!r}"
    count = math.ceil(frames * rate / source)
    return [int(k * source / rate) for k in range(count)], rate


def conformed(master: Master, shown: Sequence[int], *, source: Fraction, rate: Fraction, mode: str) -> Iterator[Array]:
    """The delivered frames in order, [H, W, 3] float32 in [0, 1]; few are in memory at once.

    `hold`, `none` and `retime` show the frames of `shown`. `blend` mixes, in linear light, the frame on screen with the
    next one by how near in time it is. `minterpolate` moves the picture along its motion (libavfilter, 8 bit). In both,
    a delivered frame at the time of a master frame is that frame exactly, and the last master frame stays to the end.
    """
    if mode == "blend":
        for k, index in enumerate(shown):
            share = k * source / rate - index
            after = min(index + 1, master.shape[0] - 1)
            yield _picture(master, index) if not share or after == index else _mixed(master, index, float(share))
    elif mode == "minterpolate":
        between = _interpolated(master, source, rate)
        for k, (index, made) in enumerate(zip(shown, between, strict=False)):
            exact = k * source / rate == index or index == master.shape[0] - 1
            yield _picture(master, index) if exact else made
    else:
        for index in shown:
            yield _picture(master, index)


def _picture(master: Master, index: int) -> Array:
    return master[index].astype(np.float32) * _SCALE


def _mixed(master: Master, index: int, share: float) -> Array:
    """Light adds on film and in the eye; mixing code values would darken every edge that moves."""
    near, far = to_light(_picture(master, index)), to_light(_picture(master, index + 1))
    return from_light(near + (far - near) * np.float32(share))


def _interpolated(master: Master, source: Fraction, rate: Fraction) -> Iterator[Array]:
    """What libavfilter's minterpolate shows at times k / rate, k = 0, 1, ... to the end of the master at least."""
    frames, height, width, _ = master.shape
    graph = Graph()
    entry = graph.add_buffer(width=width, height=height, format=av.VideoFormat("yuv444p"), time_base=1 / source)
    motion = graph.add("minterpolate", f"fps={rate}:{_MOTION}")
    end = graph.add("buffersink")
    entry.link_to(motion)
    motion.link_to(end)
    graph.configure()
    # The filter drops what it has not seen on both sides, so the first and the last frame stand still for a while.
    for number in range(-_AHEAD, frames + _AHEAD):
        frame = _filter_frame(_picture(master, min(max(number, 0), frames - 1)))
        frame.pts, frame.time_base = number, 1 / source
        graph.push(frame)
        yield from _pulled(graph, rate)
    graph.push(None)
    yield from _pulled(graph, rate)


def _pulled(graph: Graph, rate: Fraction) -> Iterator[Array]:
    while True:
        try:
            frame = graph.pull()
        except (av.error.BlockingIOError, av.error.EOFError):
            return
        assert isinstance(frame, av.VideoFrame) and frame.pts is not None
        if frame.time_base != 1 / rate:
            raise FootageError("minterpolate lost the frame rate", remedy="use deliver.conform = hold or blend")
        if frame.pts >= 0:
            planes = frame.to_ndarray()
            yield yuv_to_rgb(planes[0], planes[1], planes[2], matrix="bt709", full_range=True, bits=8)


def _filter_frame(rgb: Array) -> av.VideoFrame:
    planes = rgb_to_yuv(rgb, matrix="bt709", full_range=True, bits=8)
    levels = np.clip(np.rint(np.stack(planes)), 0, 255).astype(np.uint8)
    return av.VideoFrame.from_ndarray(levels, format="yuv444p")
