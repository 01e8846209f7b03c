"""Where shots begin and end, which frames are no picture, and where the picture lies inside its bars.

A `Watcher` sees every frame once while `probe` decodes, so that a film is decoded a single time. Hard cuts come from
PySceneDetect's adaptive detector; black runs and the brightness ramps that lead into and out of them are cut away;
frozen pieces are dropped.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction

import av
import numpy as np
from av.video.reformatter import VideoReformatter

from cinetune.artifacts import Colour
from cinetune.footage.planes import frame_luma, thumbnail

__all__ = ["Piece", "Signals", "Watcher", "find_bars", "find_pieces", "shared_bars"]

Array = np.ndarray
_THUMB_WIDTH = 160
_BAR_LEVEL = 0.06  # luma that a bar never reaches: 13 code values of 8 bit above black, more than codecs ring
_BAR_SHARE = 0.1  # a picture line has at least this share of pixels that are ever brighter
_BLACK_MEAN, _BLACK_PEAK = 0.02, 0.08
_MIN_CUT_DISTANCE = 3  # frames; the detector's own 15 would hide the second of two quick cuts inside a shot
_PROFILE_EVERY = 5
_CHUNK = 5  # profiles looked at together for bars that change: about a second
_SURE_SHARE = 0.5  # of a line beside a bar that is lit when there is no doubt where the picture ends
_STILL = 3  # largest change, in 8-bit levels, that a codec makes of two equal frames (key frames may jump further)


@dataclass(frozen=True, slots=True)
class Signals:
    """What a `Watcher` saw: hard cuts (first frame of each new shot), and per frame the mean luma, the bright-end luma
    (99.5 %), and the largest change against the frame before (8-bit levels on a thumbnail). Of every fifth frame,
    `rows` [S, H] and `columns` [S, W] are the share of pixels in each line that are brighter than bars are."""

    cuts: tuple[int, ...]
    mean: Array
    peak: Array
    change: Array
    rows: Array
    columns: Array


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
        self._scaler = VideoReformatter()
        self._cuts: list[int] = []
        self._mean: list[float] = []
        self._peak: list[float] = []
        self._change: list[int] = []
        self._before: Array | None = None
        self._rows: list[Array] = []
        self._columns: list[Array] = []

    def see(self, index: int, frame: av.VideoFrame, colour: Colour) -> None:
        """Take in picture `index` (all of them, in order). Number 0 again starts anew."""
        if index == 0 and self._mean:
            self.__init__(detect=self._detector is not None)
        small = thumbnail(frame, _THUMB_WIDTH, colour, scaler=self._scaler)
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
        if index % _PROFILE_EVERY == 0:
            lit = frame_luma(frame, colour) > _BAR_LEVEL
            self._rows.append(lit.mean(axis=1, dtype=np.float32))
            self._columns.append(lit.mean(axis=0, dtype=np.float32))

    def signals(self) -> Signals:
        """Everything seen so far; at least one frame."""
        assert self._rows, "no frame was seen"
        return Signals(
            tuple(sorted(set(self._cuts))),
            np.array(self._mean),
            np.array(self._peak),
            np.array(self._change),
            np.stack(self._rows),
            np.stack(self._columns),
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
    signals: Signals,
    *,
    rate: Fraction,
    min_seconds: float,
    spans: Sequence[tuple[int, int]] | None = None,
    steady_bars: bool = False,
    unfit: Callable[[int, int], str] | None = None,
) -> tuple[list[Piece], list[str]]:
    """The usable pieces in order, and in words what was left out. `spans` = [start, end) pairs from an EDL replace the
    detected cuts. `steady_bars` leaves out pieces whose bars change, and `unfit(start, end)` those that it names.

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
            elif unfit is not None and (what := unfit(a, b)):
                left_out.append(f"{what} {a}..{b - 1}")
            elif inner.size and np.quantile(inner, 0.9) <= _STILL:
                left_out.append(f"frozen piece {a}..{b - 1}")
            elif steady_bars and _bars_change(signals, a, b):
                left_out.append(f"piece {a}..{b - 1}, whose bars change")
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

    `frames` is luma [T, H, W] or R'G'B' [T, H, W, 3], black 0 and white 1. A dark frame cannot make a bar (the frame
    that lights a line most decides), nor can a dark side of the picture: bars come in equal pairs. Grain in the bars
    does not hide them, as no frame lights more than a few of their pixels.
    """
    luma = frames @ np.array([0.2126, 0.7152, 0.0722], np.float32) if frames.ndim == 4 else frames
    lit = luma > _BAR_LEVEL
    return _box(lit.mean(axis=2), lit.mean(axis=1))


def shared_bars(
    signals: Signals, pieces: Sequence[Piece], *, turn: int
) -> tuple[tuple[int, int, int, int], tuple[str, ...]]:
    """The picture that no piece has bars in, after `turn` quarter turns anticlockwise, and a note where pieces differ.
    A piece whose bars would take the rest of the others is outvoted by the longer pieces.
    """
    rows, columns = signals.rows, signals.columns
    for _ in range(turn):
        rows, columns = columns[:, ::-1], rows
    boxes = {}
    for piece in pieces:
        at = _profiles(piece.start, piece.start + piece.frames)
        box = _box(rows[at], columns[at])
        boxes[box] = boxes.get(box, 0) + piece.frames
    shared = max(boxes, key=lambda box: boxes[box])
    for x, y, width, height in sorted(boxes, key=lambda box: -boxes[box]):
        left, top = max(x, shared[0]), max(y, shared[1])
        across = min(x + width, shared[0] + shared[2]) - left
        down = min(y + height, shared[1] + shared[3]) - top
        if across * down * 2 >= shared[2] * shared[3]:
            shared = left, top, across, down
    differ = f"bars differ between shots ({len(boxes)} kinds): cropped to what all share"
    return shared, (differ,) if len(boxes) > 1 else ()


def _profiles(start: int, end: int) -> slice:
    """The profiles of frames [start, end), at least one."""
    first = -(-start // _PROFILE_EVERY)
    last = -(-end // _PROFILE_EVERY)
    return slice(first, last) if last > first else slice(start // _PROFILE_EVERY, start // _PROFILE_EVERY + 1)


def _box(rows: Array, columns: Array) -> tuple[int, int, int, int]:
    """(x, y, width, height) by the shares of lit pixels per frame and line."""
    top, height = _extent(rows.max(axis=0))
    left, width = _extent(columns.max(axis=0))
    return left, top, width, height


def _bars_change(signals: Signals, start: int, end: int) -> bool:
    """Whether two moments of a piece have, beyond doubt, bars of another size: dark moments do not count."""
    at = _profiles(start, end)
    for lines in (signals.rows[at], signals.columns[at]):
        sure: list[tuple[int, int]] = []
        for chunk in (lines[k : k + _CHUNK].max(axis=0) for k in range(0, len(lines), _CHUNK)):
            first, count = _extent(chunk)
            inner = chunk[first : first + count]
            edges = min(inner[:3].max(initial=0.0), inner[-3:].max(initial=0.0))
            if edges >= _SURE_SHARE * chunk.max(initial=0.0) > 0:
                sure.append((first, count))
        widths = [count for _, count in sure]
        if widths and max(widths) - min(widths) > max(4, len(lines[0]) // 50):
            return True
    return False


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
