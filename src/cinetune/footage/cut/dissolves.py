"""Dissolves, found in small pictures of a film: runs of frames that show two shots at once.

While shot A dissolves into shot B every frame is (1 - a) A + a B with a share `a` that grows from 0 to 1. Two things
follow. Detail of the two shots does not line up, so its energy falls along (1 - a)^2 and a^2 to about half in the
middle, however the shots move (the variance curve of A. M. Alattar, ISCAS 1993): this proposes places. And the frames
are a mix of the clean ones on either side, each carried on by its own motion, with shares on one straight line that
stand still outside: this decides. A camera move or a subject passes pictures that are no such mix; changed light or
focus leaves the picture like itself.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.ndimage import minimum_filter1d, shift

__all__ = ["find_dissolves"]

Array = np.ndarray
_STEPS = (4, 5, 6, 8, 10, 12, 16, 20, 24, 32, 40, 48, 64, 80, 96, 128, 160, 192)
"""Frames from a clean one to the next clean one that are tried; the true ends are then fitted."""
_DIP = 0.75  # of the detail at both ends that the middle of a dissolve has at most; shots without common detail: 0.5
_LEAST_DIP = 0.95  # of the lesser end that the least detail inside has at most
_LEAST_DETAIL = 0.5  # 8-bit levels from one cell to the next, root of the mean square
_ALIKE = 0.92  # correlation from which on two pictures are one shot
_REST = 0.7  # of the rest that a move would leave which the mix may not explain
_BENT = 0.05  # root of the mean square distance of the shares from their line
_AT_REST = 0.12  # how far the share may be from 0 before and from 1 after
_INNER = (0.12, 0.88)  # shares the line is fitted to
_SHORTEST = 3  # mixed frames
_REACH = 4  # frames over which motion is measured
_FAR = (3, 6)  # cells down and across that a picture may move in `_REACH` frames
_GUARD = 16  # this part of the length is left out on both sides too: slow ends are hard to see
_LEAST_LEFT = 0.3  # of each side of the picture that must be seen in both shots after their motion


@dataclass(frozen=True, slots=True)
class _Mix:
    """The frames from `first` on against a mix of two clean ones: shares, and the squared rest as a part of what a move
    would leave, where every pixel leaps from one picture to the other at its own time: a (1 - a) |A - B|^2.
    """

    first: int
    share: Array
    rest: Array


def find_dissolves(planes_THW: Array, *, cuts: Sequence[int], longest: int) -> list[tuple[int, int]]:
    """[start, end) of every run of mixed frames, in order. `planes_THW` are small luma pictures of all frames in 8-bit
    levels, `cuts` the first frames of shots after hard cuts (none lies in a dissolve), `longest` the most frames that a
    dissolve may take. A mix of fewer than three frames is not looked for. From 16 frames on, a run is a little wider
    than the mix, by a sixteenth of its length on both sides.
    """
    marks = [0, *sorted(cuts), len(planes_THW)]
    found: list[tuple[int, int]] = []
    for begin, stop in itertools.pairwise(marks):  # one at a time: a whole film in 32 bit is large
        run = _found(planes_THW[begin:stop].astype(np.float32), longest)
        found += [(begin + start, begin + end) for start, end in run]
    return found


def _found(planes: Array, longest: int) -> list[tuple[int, int]]:
    """`find_dissolves` in frames without a hard cut."""
    found: list[tuple[int, int]] = []
    for first, last in _candidates(planes, longest):
        if any(first < end and start <= last for start, end in found):
            continue
        ends = _fitted(planes, first, last)
        if ends is not None and not any(ends[0] < end and start < ends[1] for start, end in found):
            found.append(ends)
    return sorted(found)


def _candidates(planes: Array, longest: int) -> Iterator[tuple[int, int]]:
    """(clean frame before, clean frame after) wherever detail dips between two pictures unlike each other, short ones
    first.
    """
    count = len(planes)
    detail = _detail(planes)
    flat = planes.reshape(count, -1)
    flat = flat - flat.mean(axis=1, keepdims=True)
    power = np.einsum("td,td->t", flat, flat)
    for steps in _STEPS:
        if steps > longest + 1 or steps >= count:
            return
        before, middle, after = (slice(k, count - steps + k) for k in (0, steps // 2, steps))
        ends = (detail[before] + detail[after]) / 2
        dip = detail[middle] / np.maximum(ends, 1e-6)
        like = np.einsum("td,td->t", flat[before], flat[after])
        unlike = like < _ALIKE * np.sqrt(power[before] * power[after])
        seen = np.minimum(detail[before], detail[after]) > _LEAST_DETAIL**2
        deepest = dip <= minimum_filter1d(dip, max(3, steps // 2))
        for first in np.flatnonzero(unlike & seen & deepest & (dip < _DIP)):
            yield int(first), int(first) + steps


def _detail(planes: Array) -> Array:
    """Mean squared step from cell to cell, per frame."""
    return (np.diff(planes, axis=1) ** 2).mean(axis=(1, 2)) + (np.diff(planes, axis=2) ** 2).mean(axis=(1, 2))


def _fitted(planes: Array, first: int, last: int) -> tuple[int, int] | None:
    """[start, end) of the mixed frames near the clean frames `first` and `last`; None if it is no dissolve."""
    # Ends are first taken well outside of the fitted ones: from a mixed frame on, the line would confirm itself.
    spare = max(2, (last - first) // 4)
    for beyond in (spare, spare, spare, 0):
        mix = _mix(planes, first, last)
        inner = _ramp(mix.share[first - mix.first : last + 1 - mix.first]) + first - mix.first if mix else ()
        if mix is None or len(inner) < _SHORTEST:
            return None
        slope, at_zero = np.polyfit(inner, mix.share[inner], 1)
        bent = np.polyval((slope, at_zero), inner) - mix.share[inner]
        if slope <= 0 or np.sqrt(np.mean(bent**2)) > _BENT or np.median(mix.rest[inner]) > _REST:
            return None
        begin, end = mix.first - at_zero / slope, mix.first + (1 - at_zero) / slope
        first = max(0, math.floor(begin + 0.4) - beyond)
        last = min(len(planes) - 1, math.ceil(end - 0.4) + beyond)
        if last - first <= _SHORTEST:
            return None
    detail = _detail(planes[first : last + 1])
    if detail.min() > _LEAST_DIP * min(detail[0], detail[-1]):
        return None  # a blur grows or goes: a mix of sharp and soft, too
    mix = _mix(planes, first, last)
    if mix is None or first - mix.first < 2 or mix.first + len(mix.share) - 1 - last < 2:
        return None
    before, after = mix.share[: first - mix.first], mix.share[last + 1 - mix.first :]
    if max(abs(before).max(), abs(after - 1).max()) > _AT_REST:
        return None
    guard = (last - first - 1) // _GUARD
    return max(0, first + 1 - guard), min(len(planes), last + guard)


def _mix(planes: Array, first: int, last: int) -> _Mix | None:
    """The frames from some before `first` to some after `last` as a mix of these two, each carried on by the motion it
    had outside; None where both are alike, or move too far to be compared.
    """
    margin = max(2, min(_REACH, (last - first) // 2))
    start, end = max(0, first - margin), min(len(planes), last + 1 + margin)
    drifts = _drift(planes[start], planes[first], first - start), _drift(planes[last], planes[end - 1], end - 1 - last)
    shares: list[float] = []
    rests: list[float] = []
    for number in range(start, end):
        moves = drifts[0] * (number - first), drifts[1] * (number - last)
        window = _seen(moves, planes.shape[1:])
        if window is None:
            return None
        parts = [planes[number], *(_moved(planes[k], move) for k, move in zip((first, last), moves, strict=True))]
        frame, before, after = (part[window] - part[window].mean() for part in parts)
        if (before * after).sum() > _ALIKE * np.sqrt((before**2).sum() * (after**2).sum()):
            return None
        step = after - before
        apart = max(float((step**2).sum()), 1e-6)
        share = float(((frame - before) * step).sum()) / apart
        shares.append(share)
        rests.append(float(((frame - before - share * step) ** 2).sum()) / max(share * (1 - share) * apart, 1e-6))
    return _Mix(start, np.array(shares), np.array(rests))


def _moved(picture: Array, move: Array) -> Array:
    return shift(picture, move, order=1, mode="nearest") if np.abs(move).max() > 0.05 else picture


def _seen(moves: Sequence[Array], shape: tuple[int, ...]) -> tuple[slice, slice] | None:
    """The part of the picture that every one of the moved pictures covers; None where it is too small."""
    low = [math.ceil(max(0.0, *(float(move[axis]) for move in moves))) for axis in (0, 1)]
    high = [side + math.floor(min(0.0, *(float(move[axis]) for move in moves))) for axis, side in enumerate(shape)]
    if any(b - a < _LEAST_LEFT * side for a, b, side in zip(low, high, shape, strict=True)):
        return None
    return slice(low[0], high[0]), slice(low[1], high[1])


def _drift(before: Array, after: Array, frames: int) -> Array:
    """[rows, columns] per frame by which a picture moves as a whole from `before` to `after`, `frames` later."""
    still = np.zeros(2)
    if frames < 1:
        return still
    height, width = before.shape
    down, across = min(_FAR[0], height // 4), min(_FAR[1], width // 4)
    inner = after[down : height - down, across : width - across]
    costs = np.empty((2 * down + 1, 2 * across + 1))
    for y, x in itertools.product(range(-down, down + 1), range(-across, across + 1)):
        moved = before[down - y : height - down - y, across - x : width - across - x]
        costs[y + down, x + across] = np.mean((moved - inner) ** 2)
    y, x = np.unravel_index(int(costs.argmin()), costs.shape)
    best = np.array([y - down + _vertex(costs[:, x], int(y)), x - across + _vertex(costs[y], int(x))])
    return best / frames


def _vertex(costs: Array, at: int) -> float:
    """Where, from `at`, the parabola through the lowest cost and its neighbours is lowest: between -0.5 and 0.5."""
    if not 0 < at < len(costs) - 1:
        return 0.0
    left, middle, right = costs[at - 1 : at + 2]
    if middle < 0.05 * min(left, right):
        return 0.0  # as good as equal: the two sides differ by what the picture holds, not by its motion
    return float(np.clip((left - right) / max(2 * (left - 2 * middle + right), 1e-6), -0.5, 0.5))


def _ramp(share: Array) -> Array:
    """Numbers of the frames around the middle of the ramp whose share is clearly between the two."""
    low, high = _INNER
    start = end = int(np.argmin(abs(share - 0.5)))
    while start > 0 and low < share[start - 1] < high:
        start -= 1
    while end + 1 < len(share) and low < share[end + 1] < high:
        end += 1
    return np.arange(start, end + 1)
