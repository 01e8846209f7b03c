"""Where shots begin and end, which frames are no picture, and where the picture lies inside its bars.

A `Watcher` sees every frame once while `probe` decodes, so that a film is decoded a single time. Hard cuts come from
PySceneDetect's adaptive detector; black runs, the brightness ramps that lead into and out of them, and dissolves are
cut away; frozen pieces are dropped.
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
from cinetune.footage.cut.dissolves import find_dissolves
from cinetune.footage.read.planes import frame_luma, thumbnail

__all__ = ["Piece", "Signals", "Watcher", "find_bars", "find_pieces", "shared_bars"]

Array = np.ndarray
_THUMB_WIDTH = 160
_BAR_LEVEL = 0.06  # luma that a bar never reaches: 13 code values of 8 bit above black, more than codecs ring
_BAR_SHARE = 0.1  # a picture line has at least this share of pixels that are ever brighter
_NIGHT_PEAK = 0.2  # bright-end luma of a piece so dark that its bars are told by the mean of each line instead
_NIGHT_BAR, _NIGHT_STEP = 0.012, 0.006  # mean luma that a line of its bars never reaches; least step at their edge
_BLACK_MEAN, _BLACK_PEAK = 0.02, 0.08
_BLANK = 0.006  # standard deviation of the cells of a frame in which nothing can be made out
_STEADY = 0.7  # least of the brightness over half a dark run that is a picture, as a part of its most
_RISE, _DIM_RISE = 0.002, 0.0003  # mean luma by which a fade begins beside black, and a fade of a night
_MIN_CUT_DISTANCE = 3  # frames; the detector's own 15 would hide the second of two quick cuts inside a shot
_PROFILE_EVERY = 5
_CHUNK = 5  # profiles looked at together for bars that change: about a second
_SURE_SHARE = 0.5  # of a line beside a bar that is lit when there is no doubt where the picture ends
_STILL = 3  # largest change, in 8-bit levels, that a codec makes of two equal frames (key frames may jump further)
_CELLS = 32  # across a frame; grain and what a codec does to it do not reach their means
_STILL_CELL = 2.5  # 8-bit levels that a cell of a held picture may change while a codec refines it
_HELD = 5  # frames whose mean is compared for that
_LONGEST_DISSOLVE = 4  # seconds


@dataclass(frozen=True, slots=True)
class Signals:
    """What a `Watcher` saw: hard cuts (first frame of each new shot), and per frame the mean luma, the bright-end luma
    (99.5 %), and the largest change against the frame before (8-bit levels on a thumbnail); `cells` [T, h, w] are
    small luma pictures in 8-bit levels. Of every fifth frame, `rows` [S, H] and `columns` [S, W] are the share of
    pixels in each line that are brighter than bars are, and `row_light`, `column_light` the mean luma of each line."""

    cuts: tuple[int, ...]
    mean: Array
    peak: Array
    change: Array
    cells: Array
    rows: Array
    columns: Array
    row_light: Array
    column_light: Array


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
        self._cells: list[Array] = []
        self._rows: list[Array] = []
        self._columns: list[Array] = []
        self._row_light: list[Array] = []
        self._column_light: list[Array] = []

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
        self._cells.append(_cells(small))
        moved = small if self._before is None else np.maximum(small, self._before) - np.minimum(small, self._before)
        self._change.append(255 if self._before is None else int(moved.max()))
        self._before = small
        if index % _PROFILE_EVERY == 0:
            luma = frame_luma(frame, colour)
            lit = luma > _BAR_LEVEL
            self._rows.append(lit.mean(axis=1, dtype=np.float32))
            self._columns.append(lit.mean(axis=0, dtype=np.float32))
            self._row_light.append(luma.mean(axis=1).astype(np.float16))
            self._column_light.append(luma.mean(axis=0).astype(np.float16))

    def signals(self) -> Signals:
        """Everything seen so far; at least one frame."""
        assert self._rows, "no frame was seen"
        return Signals(
            tuple(sorted(set(self._cuts))),
            np.array(self._mean),
            np.array(self._peak),
            np.array(self._change),
            np.stack(self._cells),
            np.stack(self._rows),
            np.stack(self._columns),
            np.stack(self._row_light),
            np.stack(self._column_light),
        )


def _cells(small: Array) -> Array:
    """A thumbnail [h, w, 3] as the mean of cells that are about square, float16 in its levels."""
    height, width = small.shape[:2]
    down = min(height, max(2, round(height * _CELLS / width)))
    rows, columns = (np.arange(count) * side // count for side, count in ((height, down), (width, _CELLS)))
    sums = np.add.reduceat(np.add.reduceat(small.sum(axis=2, dtype=np.float32), columns, axis=1), rows, axis=0)
    pixels = np.diff(rows, append=height)[:, None] * np.diff(columns, append=width)
    return (sums / (3 * pixels)).astype(np.float16)


def _ramp(mean: Array, edge: int, step: int, stop: int, *, least: float) -> int:
    """From `edge`, the first frame beside a black run, walk away from black while the picture keeps brightening like a
    fade, by `least` at first; returns the first frame at full brightness. `stop` is the last frame that may be looked
    at.
    """
    rises: list[float] = []
    at = edge
    while at != stop:
        rise = float(mean[at + step] - mean[at])
        floor = max(0.0005, 0.25 * float(np.median(rises))) if rises else least
        if rise <= floor:
            break
        rises.append(rise)
        at += step
    return at


def _no_picture(signals: Signals) -> tuple[Array, Array]:
    """(black, fading) masks per frame. A dark run is a night, not black, where something can be made out in it and its
    light stays, as it would not in a fade.
    """
    mean, count = signals.mean, len(signals.mean)
    dark = (mean < _BLACK_MEAN) & (signals.peak < _BLACK_PEAK)
    dim = dark & (signals.cells.std(axis=(1, 2), dtype=np.float32) >= 255 * _BLANK)
    black, fading = dark.copy(), np.zeros(count, bool)
    for start, end in _runs(dim):
        alone = not (dark[start - 1 : start].any() or dark[end : end + 1].any())
        black[start:end] = not (alone or _stays(mean[start:end]))
    for start, end in _runs(black):
        if start > 0:
            full = _ramp(mean, start - 1, -1, 0, least=_DIM_RISE if dim[start - 1] else _RISE)
            fading[full + 1 : start] = True
        if end < count:
            full = _ramp(mean, end, 1, count - 1, least=_DIM_RISE if dim[end] else _RISE)
            fading[end:full] = True
    return black, fading


def _stays(mean: Array) -> bool:
    """Whether one half of a run of frames keeps its brightness."""
    halves = np.array_split(mean, 2)
    return len(mean) >= 2 * _HELD and any(half.min() > _STEADY * half.max() for half in halves)


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
    detected cuts, and dissolves are then left to it. `steady_bars` leaves out pieces whose bars change, and
    `unfit(start, end)` those that it names.

    No piece holds a hard cut, a black frame, part of a fade to or from black, or of a dissolve.
    """
    count = len(signals.mean)
    mixed: list[tuple[int, int]] = []
    black, fading = _no_picture(signals)
    left_out = [f"{int(mask.sum())} {what} frames" for what, mask in (("black", black), ("fade", fading)) if mask.any()]
    unclear = black | fading
    if spans is None:
        mixed = find_dissolves(signals.cells, cuts=signals.cuts, longest=round(_LONGEST_DISSOLVE * rate))
        marks = [0, *[cut for cut in signals.cuts if 0 < cut < count], count]
        spans = list(itertools.pairwise(marks))
    for start, end in mixed:
        if not unclear[start:end].any():
            unclear[start:end] = True
            left_out.append(f"dissolve {start}..{end - 1}")
    pieces: list[Piece] = []
    short = 0
    for start, end in spans:
        for a, b in _runs(~unclear[start:end]):
            a, b = a + start, b + start
            inner = signals.change[a + 1 : b]
            if (b - a) / rate < min_seconds:
                short += 1
            elif unfit is not None and (what := unfit(a, b)):
                left_out.append(f"{what} {a}..{b - 1}")
            elif inner.size and _held(inner, signals.cells[a:b]):
                left_out.append(f"frozen piece {a}..{b - 1}")
            elif steady_bars and _bars_change(signals, a, b):
                left_out.append(f"piece {a}..{b - 1}, whose bars change")
            else:
                pieces.append(Piece(a, b - a, _repeats(inner)))
    if short:
        left_out.append(f"{short} piece{'' if short == 1 else 's'} under {min_seconds:g} s")
    return pieces, left_out


def _held(change: Array, cells: Array) -> bool:
    """Whether the frames of a piece are one picture: nearly all repeat the one before, or half of them do while nothing
    larger than grain is elsewhere later on. Codecs refine a held picture in steps; what moves, however small, moves in
    more frames or leaves its cell.
    """
    if np.quantile(change, 0.9) <= _STILL:
        return True
    if np.median(change) > _STILL:
        return False
    count = max(1, min(_HELD, len(cells) // 3))
    means = [cells[k : k + count].mean(axis=0, dtype=np.float32) for k in range(0, len(cells) - count + 1, count)]
    return float(np.ptp(np.stack(means), axis=0).max()) <= _STILL_CELL


def _repeats(change: Array) -> tuple[str, ...]:
    share = float((change <= _STILL).mean()) if change.size else 0.0
    return (f"{share:.0%} of frames repeat the one before: pulldown, or animation on twos",) if share > 0.15 else ()


def find_bars(frames: Array) -> tuple[int, int, int, int]:
    """The picture inside letterbox or pillarbox as (x, y, width, height), edges on even pixels, inside the bars.

    `frames` is luma [T, H, W] or R'G'B' [T, H, W, 3], black 0 and white 1. A dark frame cannot make a bar (the frame
    that lights a line most decides), nor can a dark side of the picture: bars come in equal pairs. Grain in the bars
    does not hide them, as no frame lights more than a few of their pixels. In a night, never brighter than a fifth,
    bars are told by the mean luma of each line.
    """
    luma = frames @ np.array([0.2126, 0.7152, 0.0722], np.float32) if frames.ndim == 4 else frames
    if np.quantile(luma, 0.995, axis=(1, 2)).max() < _NIGHT_PEAK:
        return _night_box(luma.mean(axis=2), luma.mean(axis=1))
    lit = luma > _BAR_LEVEL
    return _box(lit.mean(axis=2), lit.mean(axis=1))


def shared_bars(
    signals: Signals, pieces: Sequence[Piece], *, turn: int
) -> tuple[tuple[int, int, int, int], tuple[str, ...]]:
    """The picture that no piece has bars in, after `turn` quarter turns anticlockwise, and a note where pieces differ.
    A piece whose bars would take the rest of the others is outvoted by the longer pieces.
    """
    rows, columns = signals.rows, signals.columns
    row_light, column_light = signals.row_light, signals.column_light
    for _ in range(turn):
        rows, columns = columns[:, ::-1], rows
        row_light, column_light = column_light[:, ::-1], row_light
    boxes = {}
    for piece in pieces:
        at = _profiles(piece.start, piece.start + piece.frames)
        night = _is_night(signals, piece.start, piece.start + piece.frames)
        box = _night_box(row_light[at], column_light[at]) if night else _box(rows[at], columns[at])
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


def _is_night(signals: Signals, start: int, end: int) -> bool:
    return bool(signals.peak[start:end].max() < _NIGHT_PEAK)


def _night_box(rows: Array, columns: Array) -> tuple[int, int, int, int]:
    """(x, y, width, height) by the mean luma per frame and line."""
    top, height = _night_extent(rows.max(axis=0))
    left, width = _night_extent(columns.max(axis=0))
    return left, top, width, height


def _night_extent(light: Array) -> tuple[int, int]:
    """`_extent` by the mean luma of each line: bars are black, even, and end in a step."""
    whole, quarter = (0, len(light)), len(light) // 4
    bar = max(light[0], light[-1])
    rise = float(np.median(light[quarter : len(light) - quarter]) - bar)
    if bar > _NIGHT_BAR or rise <= 2 * _NIGHT_STEP:
        return whole
    lit = np.flatnonzero(light > bar + max(_NIGHT_STEP / 2, 0.15 * rise))
    first, last = int(lit[0]), int(lit[-1])
    for outer, inner in ((first - 2, first + 2), (last + 2, last - 2)):
        if not 0 <= outer < len(light) or light[inner] - light[outer] < max(_NIGHT_STEP, 0.2 * rise):
            return whole
    return _paired(first, last, len(light))


def _bars_change(signals: Signals, start: int, end: int) -> bool:
    """Whether two moments of a piece have, beyond doubt, bars of another size: dark moments do not count."""
    if _is_night(signals, start, end):
        return False
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
    if share.max(initial=0.0) <= 0.0:
        return 0, len(share)
    return _paired(int(lit[0]), int(lit[-1]), len(share))


def _paired(first: int, last: int, side: int) -> tuple[int, int]:
    """(first even line, even count) of a picture from line `first` to `last` of `side`: all lines if what is left is no
    pair of bars.
    """
    before, after = first, side - 1 - last
    if before < 2 or after < 2 or abs(before - after) > max(2, (before + after) // 20) or before + after > 0.7 * side:
        return 0, side
    begin, end = before + before % 2, side - after
    return begin, (end - begin) // 2 * 2
