"""Distances between two feature sets: Fréchet (FID, FVD) and kernel (KID, KVD), small-sample traps handled."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from cinetune.errors import ScoreError
from cinetune.metrics.checks import Array, feature_rows, same_width, unit_rows

__all__ = [
    "FrechetTable",
    "KernelTable",
    "cubic",
    "frechet",
    "gaussian",
    "kid",
    "kid_blocked",
    "split_level",
]

_ROWS = 1024
"""Rows of the kernel matrix that are in memory at a time."""


def frechet(a_ND: ArrayLike, b_ND: ArrayLike) -> float:
    """Fréchet distance between the Gaussians fitted to two feature sets.

    `|m_a - m_b|^2 + tr S_a + tr S_b - 2 tr (S_a S_b)^(1/2)` (Dowson & Landau 1982; Heusel et al. 2017), covariances
    with `1/(N-1)`. The last trace is the nuclear norm of `A B^T` with `A`, `B` the centred rows over `sqrt(N-1)`:
    exact when `N < D`, and no matrix square root. With more rows than columns it is read off the eigenvalues of
    `L^T S_b L`, `S_a = L L^T`, where these span less than ten decades and so keep their digits. float64. Range [0,
    inf), in squared feature units; the two sets may differ in N. Small N biases it upward by a lot: print `split_level`
    beside it. Raises `ScoreError` for fewer than two rows.
    """
    a, b = feature_rows(a_ND, name="frechet a", least=2), feature_rows(b_ND, name="frechet b", least=2)
    same_width(a, b)
    shift = a.mean(0) - b.mean(0)
    a, b = _centred(a), _centred(b)
    spread = np.einsum("nd,nd->", a, a) + np.einsum("nd,nd->", b, b)
    return max(0.0, float(shift @ shift + spread - 2 * _nuclear(a, b)))


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
    across = -1 - np.arange(len(y))
    if shared_blocks:
        if blocks_x is None or blocks_y is None:
            raise ScoreError("shared_blocks needs the clip labels of both sets", where="kid")
        both = _labels([*blocks_x, *blocks_y], len(x) + len(y), "kid blocks")
        in_x, across = both[: len(x)], both[len(x) :]
    within = _pair_mean(x, x, in_x, in_x, same=True) + _pair_mean(y, y, in_y, in_y, same=True)
    return within - 2 * _pair_mean(x, y, in_x, across)


def kid_blocked(clips_x: Sequence[ArrayLike], clips_y: Sequence[ArrayLike]) -> float:
    """`kid` over two lists of clips `[T_i, D]`, pairs inside a clip left out: the primary set metric."""
    table = KernelTable.of([*clips_x, *clips_y])
    return table.distance(range(len(clips_x)), range(len(clips_x), len(clips_x) + len(clips_y)))


def cubic(x_ND: Array, y_MD: Array) -> Array:
    """Kernel of KID (Binkowski et al. 2018): `(x.y / D + 1)^3`, `[N, M]`."""
    found = x_ND @ y_MD.T
    found /= x_ND.shape[1]
    found += 1
    return found * found * found


def gaussian(x_ND: Array, y_MD: Array) -> Array:
    """Kernel of CMMD (Jayasumana et al. 2024), times 1000: `exp(-|x - y|^2 / (2 s^2))`, s = 10, on rows of length 1."""
    x, y = unit_rows(x_ND, name="cmmd"), unit_rows(y_MD, name="cmmd")
    return 1000 * np.exp((x @ y.T - 1) / 100)


@dataclass(frozen=True, slots=True, kw_only=True)
class KernelTable:
    """Kernel sums between clips, so that the clip-blocked squared MMD of any two groups of clips costs no further
    feature work.

    `sums_CC[a, b]` is the sum of the kernel over frames of clip a and clip b, `frames_C` the frame counts, `apart_CC`
    which clips may be compared across the groups. Jackknives over shots and references call `distance` often.
    """

    sums_CC: Array
    frames_C: Array
    apart_CC: np.ndarray

    @classmethod
    def of(
        cls,
        clips: Sequence[ArrayLike],
        *,
        kernel: Callable[[Array, Array], Array] = cubic,
        shots: Sequence[str] | None = None,
    ) -> "KernelTable":
        """Build the table from clips `[T_i, D]` (any T_i >= 1, one D). Clips that carry the same name in `shots` show
        the same scene, such as a shot and its truth, and are not compared; "" is nobody's.

        Raises `ScoreError` for bad features.
        """
        rows = _one_width(clips)
        pool = np.concatenate(rows)
        starts = np.cumsum([0, *(len(one) for one in rows[:-1])])
        sums = np.concatenate([np.add.reduceat(kernel(one, pool), starts, axis=1).sum(0)[None] for one in rows])
        named = np.asarray(["" for _ in rows] if shots is None else list(shots), dtype=object)
        apart = (named[:, None] != named[None]) | (named == "")[:, None]
        return cls(sums_CC=sums, frames_C=np.asarray([len(one) for one in rows], dtype=np.float64), apart_CC=apart)

    def distance(self, xs: Sequence[int], ys: Sequence[int]) -> float:
        """Clip-blocked squared MMD between clips numbered `xs` and `ys`; each side needs two or more (`ScoreError`)."""
        x, y = _two_sides(xs, ys)
        both = np.ix_(x, y)
        pairs = np.outer(self.frames_C[x], self.frames_C[y]) * self.apart_CC[both]
        if not pairs.any():
            raise ScoreError("every clip of one side is the same scene as every clip of the other", where="kid")
        cross = (self.sums_CC[both] * self.apart_CC[both]).sum() / pairs.sum()
        return float(self._within(x) + self._within(y) - 2 * cross)

    def _within(self, x: np.ndarray) -> float:
        total = self.sums_CC[np.ix_(x, x)].sum() - self.sums_CC[x, x].sum()
        frames = self.frames_C[x]
        return float(total / (frames.sum() ** 2 - (frames**2).sum()))


@dataclass(frozen=True, slots=True, kw_only=True)
class FrechetTable:
    """`frechet` between any two groups of clips from the inner products of all their frames, `gram_FF`: what a group
    costs depends on its frames, not on the width of the features. `clip_F` is the clip of each frame.
    """

    gram_FF: Array
    clip_F: np.ndarray

    @classmethod
    def of(cls, clips: Sequence[ArrayLike]) -> "FrechetTable":
        """Build the table from clips `[T_i, D]`. Raises `ScoreError` for bad features."""
        rows = _one_width(clips)
        # A common shift changes nothing and keeps the differences of large sums exact.
        pool = np.concatenate(rows)
        pool = pool - pool.mean(0)
        return cls(gram_FF=pool @ pool.T, clip_F=np.repeat(np.arange(len(rows)), [len(one) for one in rows]))

    def distance(self, xs: Sequence[int], ys: Sequence[int]) -> float:
        """Fréchet distance between clips numbered `xs` and `ys`; each side needs two or more (`ScoreError`)."""
        x, y = (np.flatnonzero(np.isin(self.clip_F, side)) for side in _two_sides(xs, ys))
        own_x, own_y = self.gram_FF[np.ix_(x, x)], self.gram_FF[np.ix_(y, y)]
        both = self.gram_FF[np.ix_(x, y)]
        shift = own_x.mean() + own_y.mean() - 2 * both.mean()
        spread = sum((np.trace(own) - len(own) * own.mean()) / (len(own) - 1) for own in (own_x, own_y))
        centred = both - both.mean(0, keepdims=True) - both.mean(1, keepdims=True) + both.mean()
        cross = np.linalg.svd(centred, compute_uv=False).sum() / np.sqrt((len(x) - 1) * (len(y) - 1))
        return max(0.0, float(shift + spread - 2 * cross))


def split_level(
    distance: Callable[[Sequence[int], Sequence[int]], float],
    items: Sequence[int],
    *,
    sizes: tuple[int, int] | None = None,
    repeats: int = 50,
    seed: int = 0,
) -> tuple[float, float]:
    """Mean and deviation of `distance` between two random disjoint groups of `items`, halves or of `sizes`: how far
    apart a set reads from itself at that N. Seeded. Raises `ScoreError` for fewer than four items.
    """
    n, m = sizes or (len(items) // 2, len(items) // 2)
    if min(n, m) < 2 or n + m > len(items):
        raise ScoreError(f"{len(items)} clips cannot be split into {n} and {m}", where="split_level")
    rng = np.random.default_rng(seed)
    values = []
    for _ in range(repeats):
        order = rng.permutation(np.asarray(items))
        values.append(distance(order[:n].tolist(), order[n : n + m].tolist()))
    return float(np.mean(values)), float(np.std(values, ddof=1))


def _two_sides(xs: Sequence[int], ys: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    x, y = np.asarray(xs, dtype=np.intp), np.asarray(ys, dtype=np.intp)
    if min(len(x), len(y)) < 2:
        raise ScoreError("a set has fewer than two clips", where="set metric", remedy="score two or more shots")
    return x, y


def _one_width(clips: Sequence[ArrayLike]) -> list[Array]:
    rows = [feature_rows(clip, name=f"clip {i}") for i, clip in enumerate(clips)]
    for one in rows[1:]:
        same_width(rows[0], one)
    return rows


def _pair_mean(x_ND: Array, y_MD: Array, in_x: np.ndarray, in_y: np.ndarray, *, same: bool = False) -> float:
    """Mean kernel over the pairs whose labels differ, a thousand rows at a time. `same`: x and y are one set, and of
    its symmetric kernel only what lies on and above the diagonal blocks is worked out.
    """
    total, count = 0.0, 0
    for start in range(0, len(x_ND), _ROWS):
        part = slice(start, start + _ROWS)
        rest = slice(start, None) if same else slice(None)
        kernel, keep = cubic(x_ND[part], y_MD[rest]), in_x[part, None] != in_y[rest]
        once = len(kernel) if same else kernel.shape[1]
        for columns, times in ((slice(0, once), 1), (slice(once, None), 2)):
            total += times * float(kernel[:, columns].sum(where=keep[:, columns]))
            count += times * int(keep[:, columns].sum())
    if count == 0:
        raise ScoreError(
            "a set has only one clip, no pair is left to compare", where="kid", remedy="score two or more shots"
        )
    return total / count


def _centred(x_ND: Array) -> Array:
    """A matrix A, of as many rows, with `A^T A` the covariance of `x_ND`."""
    return (x_ND - x_ND.mean(0)) / np.sqrt(len(x_ND) - 1)


def _nuclear(a_ND: Array, b_ND: Array) -> float:
    """Sum of the singular values of `A B^T`."""
    width = a_ND.shape[1]
    if min(len(a_ND), len(b_ND)) > width:
        try:
            root = np.linalg.cholesky(a_ND.T @ a_ND)
        except np.linalg.LinAlgError:
            root = None
        if root is not None:
            squares = np.linalg.eigvalsh(root.T @ (b_ND.T @ b_ND) @ root)
            if squares[0] > 1e-10 * squares[-1]:
                return float(np.sqrt(squares).sum())
    # QR keeps the cross product at most D x D; the nuclear norm is unchanged.
    a, b = (np.asarray(np.linalg.qr(x, mode="r")) if len(x) > width else x for x in (a_ND, b_ND))
    return float(np.linalg.svd(a @ b.T, compute_uv=False).sum())


def _labels(blocks: Sequence[object], rows: int, name: str) -> np.ndarray:
    if len(blocks) != rows:
        raise ScoreError(f"{len(blocks)} clip labels for {rows} feature rows", where=name)
    number: dict[object, int] = {}
    return np.asarray([number.setdefault(block, len(number)) for block in blocks], dtype=np.intp)
