"""Distances between two feature sets: Fréchet (FID, FVD) and kernel (KID, KVD), small-sample traps handled."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from cinetune.errors import ScoreError
from cinetune.metrics.checks import Array, feature_rows, same_width

__all__ = ["FrechetNull", "KidTable", "frechet", "frechet_null", "kid", "kid_blocked"]


def frechet(a_ND: ArrayLike, b_ND: ArrayLike) -> float:
    """Fréchet distance between the Gaussians fitted to two feature sets.

    `|m_a - m_b|^2 + tr S_a + tr S_b - 2 tr (S_a S_b)^(1/2)` (Dowson & Landau 1982; Heusel et al. 2017), covariances
    with `1/(N-1)`. The last trace is the nuclear norm of `A B^T` with `A`, `B` the centred rows over `sqrt(N-1)`:
    exact when `N < D`, and no matrix square root. float64. Range [0, inf), in squared feature units; the two sets may
    differ in N. Small N biases it upward by a lot: print `frechet_null` beside it. Raises `ScoreError` for fewer than
    two rows.
    """
    a, b = feature_rows(a_ND, name="frechet a", least=2), feature_rows(b_ND, name="frechet b", least=2)
    same_width(a, b)
    shift = a.mean(0) - b.mean(0)
    a, b = _root(a), _root(b)
    cross = np.linalg.svd(a @ b.T, compute_uv=False).sum()
    return max(0.0, float(shift @ shift + (a * a).sum() + (b * b).sum() - 2 * cross))


@dataclass(frozen=True, slots=True, kw_only=True)
class FrechetNull:
    """What `frechet` reads when nothing differs, over random splits into `n` and `m` rows or blocks."""

    mean: float
    sd: float
    n: int
    m: int
    repeats: int


def frechet_null(
    pool_ND: ArrayLike,
    *,
    sizes: tuple[int, int] | None = None,
    blocks: Sequence[object] | None = None,
    repeats: int = 50,
    seed: int = 0,
) -> FrechetNull:
    """Value of `frechet` between two disjoint random subsets of one pool: its bias at that N, by seeded random splits.

    `sizes=(n, m)` defaults to two halves. Pool the two sets of a comparison and pass their sizes to get the null at
    exactly that N; halves of a single set of N rows give the null at N/2. With `blocks` (one clip label per row)
    whole clips are dealt out and `sizes` counts clips, as frames of one clip are not independent. Raises `ScoreError`
    if the pool is too small.
    """
    pool = feature_rows(pool_ND, name="frechet_null pool", least=4)
    label = np.arange(len(pool)) if blocks is None else _labels(blocks, len(pool), "frechet_null blocks")
    count = int(label.max()) + 1
    n, m = sizes if sizes is not None else (count // 2, count // 2)
    if min(n, m) < 1 or n + m > count:
        raise ScoreError(f"cannot split {count} units into {n} and {m}", where="frechet_null")
    rng = np.random.default_rng(seed)
    values = []
    for _ in range(repeats):
        order = rng.permutation(count)
        values.append(frechet(pool[np.isin(label, order[:n])], pool[np.isin(label, order[n : n + m])]))
    return FrechetNull(mean=float(np.mean(values)), sd=float(np.std(values)), n=n, m=m, repeats=repeats)


def kid(
    x_ND: ArrayLike,
    y_ND: ArrayLike,
    *,
    blocks_x: Sequence[object] | None = None,
    blocks_y: Sequence[object] | None = None,
    shared_blocks: bool = False,
) -> float:
    """Kernel distance: unbiased squared MMD, `k(x, y) = (x.y / D + 1)^3` (Binkowski et al. 2018), no subsets.

    `mean_{i!=j} k(x_i, x_j) + mean_{i!=j} k(y_i, y_j) - 2 mean k(x_i, y_j)`. Unbiased only if rows are independent,
    which frames of one clip are not: give the clip of each row in `blocks_x`, `blocks_y` and pairs inside a clip are
    left out. `shared_blocks=True` says that equal labels on both sides mean the same shot; those cross pairs are left
    out too. Around 0 when the sets match (may be negative). Raises `ScoreError` for fewer than two rows or clips on a
    side.
    """
    x, y = feature_rows(x_ND, name="kid x", least=2), feature_rows(y_ND, name="kid y", least=2)
    same_width(x, y)
    in_x = np.arange(len(x)) if blocks_x is None else _labels(blocks_x, len(x), "kid blocks_x")
    in_y = np.arange(len(y)) if blocks_y is None else _labels(blocks_y, len(y), "kid blocks_y")
    cross = np.ones((len(x), len(y)), dtype=bool)
    if shared_blocks:
        if blocks_x is None or blocks_y is None:
            raise ScoreError("shared_blocks needs the clip labels of both sets", where="kid")
        cross = np.asarray([[p != q for q in blocks_y] for p in blocks_x], dtype=bool)
    inside_x, inside_y = in_x[:, None] != in_x, in_y[:, None] != in_y
    if not (inside_x.any() and inside_y.any() and cross.any()):
        raise ScoreError(
            "a set has only one clip, no pair is left to compare", where="kid", remedy="score two or more shots"
        )
    return float(_cubic(x, x)[inside_x].mean() + _cubic(y, y)[inside_y].mean() - 2 * _cubic(x, y)[cross].mean())


def kid_blocked(clips_x: Sequence[ArrayLike], clips_y: Sequence[ArrayLike]) -> float:
    """`kid` over two lists of clips `[T_i, D]`, pairs inside a clip left out: the primary set metric."""
    table = KidTable.of([*clips_x, *clips_y])
    return table.distance(range(len(clips_x)), range(len(clips_x), len(clips_x) + len(clips_y)))


@dataclass(frozen=True, slots=True, kw_only=True)
class KidTable:
    """Kernel sums between clips, so that clip-blocked KID of any two groups of clips costs no further feature work.

    `sums_CC[a, b]` is the sum of the cubic kernel over frames of clip a and clip b, `frames_C` the frame counts.
    Permutation tests and jackknives over shots call `distance` thousands of times.
    """

    sums_CC: Array
    frames_C: Array

    @classmethod
    def of(cls, clips: Sequence[ArrayLike]) -> "KidTable":
        """Build the table from clips `[T_i, D]` (any T_i >= 1, one D); raises `ScoreError` for bad features."""
        rows = [feature_rows(clip, name=f"clip {i}") for i, clip in enumerate(clips)]
        for one in rows[1:]:
            same_width(rows[0], one)
        sums = np.zeros((len(rows), len(rows)))
        for i, one in enumerate(rows):
            for j in range(i, len(rows)):
                sums[i, j] = sums[j, i] = _cubic(one, rows[j]).sum()
        return cls(sums_CC=sums, frames_C=np.asarray([len(one) for one in rows], dtype=np.float64))

    def distance(self, xs: Sequence[int], ys: Sequence[int]) -> float:
        """Clip-blocked KID between clips numbered `xs` and `ys`; each side needs two or more (`ScoreError`)."""
        x, y = np.asarray(xs, dtype=np.intp), np.asarray(ys, dtype=np.intp)
        if min(len(x), len(y)) < 2:
            raise ScoreError("a set has fewer than two clips", where="kid", remedy="score two or more shots")
        cross = self.sums_CC[np.ix_(x, y)].sum() / (self.frames_C[x].sum() * self.frames_C[y].sum())
        return float(self._within(x) + self._within(y) - 2 * cross)

    def _within(self, x: np.ndarray) -> float:
        total = self.sums_CC[np.ix_(x, x)].sum() - self.sums_CC[x, x].sum()
        frames = self.frames_C[x]
        return float(total / (frames.sum() ** 2 - (frames**2).sum()))


def _cubic(x_ND: Array, y_MD: Array) -> Array:
    return (x_ND @ y_MD.T / x_ND.shape[1] + 1) ** 3


def _root(x_ND: Array) -> Array:
    """A matrix R, at most D rows, with `R^T R` the covariance of `x_ND`."""
    centred = (x_ND - x_ND.mean(0)) / np.sqrt(len(x_ND) - 1)
    # QR keeps the cross product D x D when there are more rows than columns; the nuclear norm is unchanged.
    return np.asarray(np.linalg.qr(centred, mode="r")) if centred.shape[0] > centred.shape[1] else centred


def _labels(blocks: Sequence[object], rows: int, name: str) -> np.ndarray:
    if len(blocks) != rows:
        raise ScoreError(f"{len(blocks)} clip labels for {rows} feature rows", where=name)
    number: dict[object, int] = {}
    return np.asarray([number.setdefault(block, len(number)) for block in blocks], dtype=np.intp)
