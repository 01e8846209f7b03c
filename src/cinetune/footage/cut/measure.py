"""What a training window looks like, from a few of its frames: motion, sharpness, brightness, and fingerprints by which
copies are found.

The frames are pairs of neighbours at the start, in the middle and at the end, as training will see them: cropped and
resized, R'G'B' in [0, 1]. Nothing here needs a model.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from fractions import Fraction

import numpy as np
from scipy.fft import dctn
from scipy.ndimage import gaussian_filter, uniform_filter1d

from cinetune.artifacts import Measures
from cinetune.footage.read.color import resize

__all__ = ["SAME_PICTURE", "find_copies", "fingerprint", "measure", "sampled_pairs"]

Array = np.ndarray
SAME_PICTURE = 0.25
"""Largest share of differing bits at which two fingerprints show the same picture. tests/footage/test_measure.py holds
graded, compressed, mirrored and cropped copies below 0.22 and different pictures above 0.28."""
_WIDTH = 128  # motion is measured at this width, so that a film's size and its grain matter little
_LUMA = np.array([0.2126, 0.7152, 0.0722], np.float32)
_ALL_WAYS = np.pi / 2  # one over the mean |cos| between a motion and edges that lie in all directions
_NEAR_BLACK = 0.04  # luma: 9 of 219 code values of 8 bit above black
_FLAT = 0.02  # standard deviation of luma below which a picture has no shape to compare
_KEPT = (1.0, 0.95, 0.9, 0.85, 0.8, 0.75)  # shares of the picture that a copy may have kept around its middle
_WAVES = 16  # a fingerprint has _WAVES squared bits; with 8 x 8, different landscapes came too near each other


def sampled_pairs(frames: int) -> list[int]:
    """Six positions in a window of `frames` >= 2: two neighbours at the start, in the middle and at the end."""
    middle = min(frames // 2, frames - 2)
    return [0, 1, middle, middle + 1, frames - 2, frames - 1]


def measure(pairs_THWC: Array, rate: Fraction, *, window: str) -> Measures:
    """Measure the frames of `sampled_pairs`, [6, H, W, 3] in [0, 1], of a window at `rate`. Rounded to four digits.

    `motion` is in per cent of the picture's width per second; `sharpness`, `brightness` (mean luma) and `black` (share
    of nearly black pixels) lie between 0 and 1.
    """
    luma = pairs_THWC @ _LUMA
    firsts = range(0, len(luma), 2)
    speeds = [_speed(_small(pairs_THWC[k]), _small(pairs_THWC[k + 1])) for k in firsts]
    return Measures(
        window=window,
        motion=round(float(np.mean(speeds)) * float(rate) * 100, 4),
        sharpness=round(float(np.median([_sharpness(luma[k]) for k in firsts])), 4),
        brightness=round(float(luma.mean()), 4),
        black=round(float((luma < _NEAR_BLACK).mean()), 4),
    )


def _small(rgb: Array) -> Array:
    """Luma at the width where motion is measured, free of grain."""
    height = max(8, round(rgb.shape[0] * _WIDTH / rgb.shape[1]))
    return gaussian_filter(resize(rgb, (_WIDTH, height)) @ _LUMA, 1.5)


def _speed(before: Array, after: Array) -> float:
    """How far edges moved between two pictures, as a share of the width: |dI/dt| over |dI/dx|, weighted by contrast.

    The optical flow constraint, which sees motion across an edge only: right on average over edges in all directions. A
    leap of many pixels is underrated. A change of overall brightness is no motion.
    """
    change = after - before
    change = change - np.median(change)
    rows, columns = np.gradient((before + after) * 0.5)
    slope = np.hypot(rows, columns)
    if slope.mean() < 1e-4:
        return 0.0
    across = float((np.abs(change) * slope).sum() / (slope**2).sum())
    return across * _ALL_WAYS / before.shape[1]


def _sharpness(luma: Array) -> float:
    """Difference between neighbouring pixels that a mean over 9 takes away, as a share of all of it: blur changes a
    sharp picture more than a soft one (Crete and others, The Blur Effect, 2007). The softer axis counts.
    """
    shares: list[float] = []
    for axis in (0, 1):
        sharp = np.abs(np.diff(luma, axis=axis))
        soft = np.abs(np.diff(uniform_filter1d(luma, 9, axis=axis), axis=axis))
        shares.append(float(np.maximum(sharp - soft, 0.0).sum() / sharp.sum()) if sharp.mean() > 1e-4 else 0.0)
    return min(shares)


def fingerprint(rgb: Array) -> tuple[str, ...]:
    """Hashes of a picture's coarse shape in hex, by which a copy is known after compression, grading, a mirror or a
    small punch-in: the whole picture first, then middle parts of it, then the same mirrored. Empty for a flat picture.
    """
    small = resize(rgb, (96, 64)) @ _LUMA
    if float(small.std()) < _FLAT:
        return ()
    return tuple(_hash(_middle(view, share)) for view in (small, small[:, ::-1]) for share in _KEPT)


def _middle(picture: Array, share: float) -> Array:
    height, width = picture.shape
    top, left = round(height * (1 - share) / 2), round(width * (1 - share) / 2)
    return picture[top : height - top, left : width - left]


def _hash(luma: Array) -> str:
    """Which of the longest waves of the picture are above their median: a perceptual hash (Zauner, 2010), longer."""
    square = resize(luma[..., None], (4 * _WAVES, 4 * _WAVES))[..., 0]
    waves = np.asarray(dctn(square, norm="ortho"))[:_WAVES, :_WAVES].ravel()
    waves[0] = np.median(waves[1:])  # the mean brightness says nothing about shape
    return np.packbits(waves > waves[0]).tobytes().hex()


def find_copies(
    prints: Sequence[Sequence[Sequence[str]]], groups: Sequence[str], *, limit: float = SAME_PICTURE
) -> list[tuple[int, int, float]]:
    """Pairs of windows of different groups that show the same picture: (first, second, share of bits that differ), the
    share at most `limit`.

    `prints` holds the fingerprints of some frames of each window. The whole of one picture is compared with the whole
    and the parts of the other, in both directions; the nearest two frames count.
    """
    owner = np.array([k for k, window in enumerate(prints) for frame in window for _ in frame], np.intp)
    if not owner.size:
        return []
    whole = np.array([view == 0 for window in prints for frame in window for view in range(len(frame))])
    codes = b"".join(bytes.fromhex(view) for window in prints for frame in window for view in frame)
    bits = np.unpackbits(np.frombuffer(codes, np.uint8).reshape(len(owner), -1), axis=1)
    signs = bits.astype(np.float32) * 2 - 1
    starts = np.flatnonzero(np.diff(owner, prepend=-1))
    nearest = np.ones((len(prints), len(prints)), np.float32)
    for window in np.unique(owner):
        agree = (signs[whole & (owner == window)] @ signs.T).max(axis=0) / signs.shape[1]
        nearest[window, owner[starts]] = (1 - np.maximum.reduceat(agree, starts)) / 2
    nearest = np.minimum(nearest, nearest.T)
    pairs = ((a, b, float(nearest[a, b])) for a, b in itertools.combinations(range(len(prints)), 2))
    return [pair for pair in pairs if groups[pair[0]] != groups[pair[1]] and pair[2] <= limit]
