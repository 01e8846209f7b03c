"""Where shots begin and end, which frames are no picture, and where the picture lies inside its bars.

A `Watcher` sees every frame once while `probe` decodes, so that a film is decoded a single time. Hard cuts come from
PySceneDetect's adaptive detector; black runs and the brightness ramps that lead into and out of them are cut away;
frozen pieces are dropped.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import av
import numpy as np

from cinetune.artifacts import Colour
from cinetune.footage.planes import frame_luma, thumbnail

__all__ = ["Piece", "Signals", "Watcher", "find_bars", "find_pieces"]

Array = np.ndarray
_THUMB_WIDTH = 160
_BAR_LEVEL = 0.06  # luma that a bar never reaches: 13 code values of 8 bit above black, more than codecs ring
_BAR_SHARE = 0.1  # a picture line has at least this share of pixels that are ever brighter
_BLACK_MEAN, _BLACK_PEAK = 0.02, 0.08
_MIN_CUT_DISTANCE = 3  # frames; the detector's own 15 would hide the second of two quick cuts inside a shot
_PROJECT_EVERY = 5
_STILL = 3  # largest change, in 8-bit levels, that a codec makes of two equal frames (key frames may jump further)


@dataclass(frozen=True, slots=True)
class Signals:
    """What a `Watcher` saw: hard cuts (first frame of each new shot), and per frame the mean luma, the bright-end luma
    (99.5 %), and the largest change against the frame before (8-bit levels on a thumbnail); `projection` [H, W] is the
    brightest luma each pixel reached."""

    cuts: tuple[int, ...]
    mean: Array
    peak: Array
    change: Array
    projection: Array


@dataclass(frozen=True, slots=True)
class Piece:
    """A usable run of frames of one shot."""

    start: int
    frames: int
    notes: tuple[str, ...]


class Watcher:
    """Collects `Signals`; pass `see` to `probe(on_frame=...)`. `detect=False` leaves out the cut detector."""

    def __init__(self, *, detect: bool = True) -> None:
        from scenedetect import AdaptiveDetector  # slow to import, and only footage that is being ingested needs it

        self._detector = AdaptiveDetector(min_scene_len=_MIN_CUT_DISTANCE) if detect else None
        self._cuts: list[int] = []
        self._mean: list[float] = []
        self._peak: list[float] = []
        self._change: list[int] = []
        self._before: Array | None = None
        self._projection: Array | None = None

    def see(self, index: int, frame: av.VideoFrame, colour: Colour) -> None:
        """Take in picture `index` (all of them, in order). Number 0 again starts anew."""
        if index == 0 and self._mean:
            self.__init__(detect=self._detector is not None)
        small = thumbnail(frame, _THUMB_WIDTH, colour)
        if self._detector is not None:
            from scenedetect import FrameTimecode

            # The detector only counts frames here, so its rate is immaterial; time is exact elsewhere.
            self._cuts += [cut.frame_num for cut in self._detector.process_frame(FrameTimecode(index, 24.0), small)]
        grey = small.mean(axis=2) * (1.0 / 255.0)
        self._mean.append(float(grey.mean()))
        self._peak.append(float(np.quantile(grey, 0.995)))
        moved = small if self._before is None else np.maximum(small, self._before) - np.minimum(small, self._before)
        self._change.append(255 if self._before is None else int(moved.max()))
        self._before = small
        if index % _PROJECT_EVERY == 0:
            luma = frame_luma(frame, colour)
            self._projection = luma if self._projection is None else np.maximum(self._projection, luma)

    def signals(self) -> Signals:
        """Everything seen so far; at least one frame."""
        assert self._projection is not None, "no frame was seen"
        return Signals(
            tuple(sorted(set(self._cuts))),
            np.array(self._mean),
            np.array(self._peak),
            np.array(self._change),
            self._projection,
        )


def _ramp(mean: Array, edge: int, step: int, stop: int) -> int:
    """From `edge`, the first frame beside a black run, walk away from black while the picture keeps brightening like a
    fade; returns the first frame at full brightness. `stop` is the last frame that may be looked at."""
    rises: list[float] = []
    at = edge
    while at != stop:
        rise = float(mean[at + step] - mean[at])
        floor = max(0.0005, 0.25 * float(np.median(rises))) if rises else 0.002
        if rise <= floor:
            break
        rises.append(rise)
        at += step
    return at


def _no_picture(signals: Signals) -> tuple[Array, Array]:
    """(black, fading) masks per frame."""
    mean, count = signals.mean, len(signals.mean)
    black = (mean < _BLACK_MEAN) & (signals.peak < _BLACK_PEAK)
    fading = np.zeros(count, bool)
    for start, end in _runs(black):
        if start > 0:
            full = _ramp(mean, start - 1, -1, 0)
            fading[full + 1 : start] = True
        if end < count:
            full = _ramp(mean, end, 1, count - 1)
            fading[end:full] = True
    return black, fading


def _runs(mask: Array) -> list[tuple[int, int]]:
    """[start, end) of each run of True."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], mask, [False]]).astype(np.int8)))
    return [(int(a), int(b)) for a, b in zip(edges[::2], edges[1::2], strict=True)]


def find_pieces(
    signals: Signals, *, rate: Fraction, min_seconds: float, spans: Sequence[tuple[int, int]] | None = None
) -> tuple[list[Piece], list[str]]:
    """The usable pieces in order, and in words what was left out. `spans` = [start, end) pairs from an EDL replace the
    detected cuts.

    No piece holds a hard cut, a black frame, or part of a fade to or from black.
    """
    count = len(signals.mean)
    if spans is None:
        marks = [0, *[cut for cut in signals.cuts if 0 < cut < count], count]
        spans = list(itertools.pairwise(marks))
    black, fading = _no_picture(signals)
    left_out = [f"{int(mask.sum())} {what} frames" for what, mask in (("black", black), ("fade", fading)) if mask.any()]
    pieces: list[Piece] = []
    short = 0
    for start, end in spans:
        for a, b in _runs(~(black | fading)[start:end]):
            a, b = a + start, b + start
            inner = signals.change[a + 1 : b]
            if (b - a) / rate < min_seconds:
                short += 1
            elif inner.size and np.quantile(inner, 0.9) <= _STILL:
                left_out.append(f"frozen piece {a}..{b - 1}")
            else:
                pieces.append(Piece(a, b - a, _repeats(inner)))
    if short:
        left_out.append(f"{short} pieces under {min_seconds:g} s")
    return pieces, left_out


def _repeats(change: Array) -> tuple[str, ...]:
    share = float((change <= _STILL).mean()) if change.size else 0.0
    return (f"{share:.0%} of frames repeat the one before: pulldown, or animation on twos",) if share > 0.15 else ()


def find_bars(frames: Array) -> tuple[int, int, int, int]:
    """The picture inside letterbox or pillarbox as (x, y, width, height), edges on even pixels, inside the bars.

    `frames` is luma [T, H, W] or R'G'B' [T, H, W, 3], black 0 and white 1; a single brightest-ever projection [1, H, W]
    serves too. A dark frame cannot make a bar (the brightest a pixel ever gets decides), nor can a dark side of the
    picture: bars come in equal pairs.
    """
    luma = frames @ np.array([0.2126, 0.7152, 0.0722], np.float32) if frames.ndim == 4 else frames
    bright = luma.max(axis=0) > _BAR_LEVEL
    top, height = _extent(bright.mean(axis=1))
    left, width = _extent(bright.mean(axis=0))
    return left, top, width, height


def _extent(share: Array) -> tuple[int, int]:
    """(first even line, even count) of the picture along one axis, the whole axis when there is no pair of bars."""
    lit = np.flatnonzero(share >= _BAR_SHARE * min(1.0, share.max(initial=0.0)))
    whole = 0, len(share)
    if share.max(initial=0.0) <= 0.0:
        return whole
    before, after = int(lit[0]), len(share) - 1 - int(lit[-1])
    if (
        before < 2
        or after < 2
        or abs(before - after) > max(2, (before + after) // 20)
        or before + after > 0.7 * len(share)
    ):
        return whole
    first, last = before + before % 2, len(share) - after
    return first, (last - first) // 2 * 2
