"""Small-sample statistics with the shot as the unit.

Below six shots no p is given: two-sided p < .05 is out of reach there.
"""

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, TypeVar

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats as scipy_stats

from cinetune.errors import ScoreError
from cinetune.metrics.checks import Array

__all__ = [
    "LEAST_SHOTS",
    "Estimate",
    "Verdict",
    "holm",
    "interaction",
    "jackknife_error",
    "not_worse",
    "paired",
    "paired_set",
    "pseudo_values",
    "sign_flip",
    "student_interval",
    "tost",
    "verdict",
]

LEAST_SHOTS = 6
_EXACT_LIMIT = 16
Better = Literal["lower", "higher"]
Verdict = Literal["improved", "worse", "cannot tell"]
T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """An effect with its interval and p. `low`, `high`, `p` are None where none can be had; `why` says why."""

    value: float
    low: float | None
    high: float | None
    p: float | None
    n: int
    why: str = ""


def paired(differences: ArrayLike, *, confidence: float = 0.95, seed: int = 0) -> Estimate:
    """Mean per-shot difference (look - base), Student-t interval, sign-flip p; average a shot's seeds first."""
    d = _values(differences, "differences")
    low, high = student_interval(d, confidence=confidence)
    p, why = (sign_flip(d, seed=seed), "") if len(d) >= LEAST_SHOTS else (None, _too_few(len(d)))
    return Estimate(value=float(d.mean()), low=low, high=high, p=p, n=len(d), why=why)


def sign_flip(differences: ArrayLike, *, draws: int = 20_000, seed: int = 0) -> float:
    """Two-sided sign-flip permutation p (Fisher 1935) of mean = 0: exact for n <= 16, else seeded Monte Carlo.

    Smallest value 2 / 2^n. Needs `n >= 6` (`ScoreError`).
    """
    d = _values(differences, "differences")
    if len(d) < LEAST_SHOTS:
        raise ScoreError(_too_few(len(d)), where="sign_flip")
    if len(d) <= _EXACT_LIMIT:
        return _at_least(np.abs(_sign_patterns(len(d)) @ d), abs(d.sum()), exact=True)
    signs = np.random.default_rng(seed).choice([-1.0, 1.0], size=(draws, len(d)))
    return _at_least(np.abs(signs @ d), abs(d.sum()), exact=False)


def student_interval(values: ArrayLike, *, confidence: float = 0.95) -> tuple[float | None, float | None]:
    """Student-t confidence interval of the mean; `(None, None)` for a single value."""
    x = _values(values, "values")
    if len(x) < 2:
        return None, None
    half = float(scipy_stats.t.ppf((1 + confidence) / 2, len(x) - 1) * x.std(ddof=1) / math.sqrt(len(x)))
    return float(x.mean()) - half, float(x.mean()) + half


def jackknife_error(statistic: Callable[[Sequence[T]], float], items: Sequence[T]) -> float:
    """Delete-one jackknife standard error (Tukey 1958): `sqrt((n-1)/n sum (s_-i - mean)^2)`. Needs two items."""
    if len(items) < 2:
        raise ScoreError("a jackknife needs two items or more", where="jackknife_error")
    left_out = np.asarray([statistic([*items[:i], *items[i + 1 :]]) for i in range(len(items))])
    n = len(items)
    return float(np.sqrt((n - 1) / n * ((left_out - left_out.mean()) ** 2).sum()))


def paired_set(
    statistic: Callable[[Sequence[T], Sequence[R]], float],
    base: Sequence[T],
    look: Sequence[T],
    *,
    reference: Sequence[R],
    confidence: float = 0.95,
    draws: int = 2000,
    seed: int = 0,
) -> Estimate:
    """Effect `statistic(look, reference) - statistic(base, reference)` of a set metric over paired shots.

    p: two-sided permutation that swaps base and look inside shots; every pattern when there are no more than `draws`,
    else seeded Monte Carlo. Interval: jackknife over pairs and, separately, over reference items, variances added,
    Student-t with n - 1 (with two reference items or fewer, the reference counts as fixed). Items can be clip numbers
    into a `KernelTable`, which makes each call cheap.
    """
    n = len(base)
    if n != len(look) or n < 2:
        raise ScoreError(f"{n} base and {len(look)} look shots, two pairs or more are needed", where="paired_set")

    def effect(pairs: Sequence[tuple[T, T]], against: Sequence[R]) -> float:
        return statistic([b for _, b in pairs], against) - statistic([a for a, _ in pairs], against)

    pairs = list(zip(base, look, strict=True))
    value = effect(pairs, reference)
    variance = jackknife_error(lambda kept: effect(kept, reference), pairs) ** 2 if n >= 3 else None
    if variance is not None and len(reference) >= 3:
        variance += jackknife_error(lambda kept: effect(pairs, kept), reference) ** 2
    half = None if variance is None else float(scipy_stats.t.ppf((1 + confidence) / 2, n - 1) * math.sqrt(variance))
    p, why = None, _too_few(n)
    if n >= LEAST_SHOTS:
        exact = 2 ** (n - 1) <= draws
        signs = _sign_patterns(n) if exact else np.random.default_rng(seed).choice([-1.0, 1.0], size=(draws, n))
        turned = [
            effect([(b, a) if s < 0 else (a, b) for (a, b), s in zip(pairs, row, strict=True)], reference)
            for row in signs
        ]
        p, why = _at_least(np.abs(turned), abs(value), exact=exact), ""
    low, high = (None, None) if half is None else (value - half, value + half)
    return Estimate(value=value, low=low, high=high, p=p, n=n, why=why)


def pseudo_values(
    statistic: Callable[[Sequence[T], Sequence[R]], float],
    base: Sequence[T],
    look: Sequence[T],
    *,
    reference: Sequence[R],
) -> tuple[Array, float]:
    """The effect `statistic(look, reference) - statistic(base, reference)` of a set metric as one number a shot.

    Jackknife pseudo-values `n e - (n - 1) e_-i` (Tukey 1958), shot i left out of both arms; a U-statistic such as KID
    equals their mean. They stand where the per-shot differences of other measures stand. The second result is the
    standard error from leaving out reference items, to be added in quadrature; 0 with fewer than three. Items can be
    clip numbers into a `KernelTable`. Raises `ScoreError` for unpaired arms or fewer than three shots.
    """
    n = len(base)
    if n != len(look) or n < 3:
        raise ScoreError(f"{n} base and {len(look)} look shots, three pairs or more are needed", where="pseudo_values")

    def effect(kept: Sequence[int], against: Sequence[R]) -> float:
        return statistic([look[i] for i in kept], against) - statistic([base[i] for i in kept], against)

    everyone = list(range(n))
    whole = effect(everyone, reference)
    values = [n * whole - (n - 1) * effect([*everyone[:i], *everyone[i + 1 :]], reference) for i in everyone]
    error = jackknife_error(lambda kept: effect(everyone, kept), reference) if len(reference) >= 3 else 0.0
    return np.asarray(values), error


def interaction(
    inside: ArrayLike, outside: ArrayLike, *, confidence: float = 0.95, draws: int = 20_000, seed: int = 0
) -> Estimate:
    """Domain x look: mean per-shot effect inside the film's domain minus outside it.

    Interval from Welch's t (1947). p permutes the domain labels of the differences, with Welch's t as statistic so
    that unequal spread does no harm; every split up to `draws`, else seeded Monte Carlo. `n` is the smaller side.
    """
    x, y = _values(inside, "inside"), _values(outside, "outside")
    n = min(len(x), len(y))
    value = float(x.mean() - y.mean())
    if n < 2:
        return Estimate(value=value, low=None, high=None, p=None, n=n, why=_too_few(n))
    parts = x.var(ddof=1) / len(x), y.var(ddof=1) / len(y)
    low = high = value
    if sum(parts) > 0:
        freedom = sum(parts) ** 2 / (parts[0] ** 2 / (len(x) - 1) + parts[1] ** 2 / (len(y) - 1))
        half = float(scipy_stats.t.ppf((1 + confidence) / 2, freedom) * math.sqrt(sum(parts)))
        low, high = value - half, value + half
    if n < LEAST_SHOTS:
        return Estimate(value=value, low=low, high=high, p=None, n=n, why=_too_few(n))
    pool = np.concatenate([x, y])
    exact = math.comb(len(pool), len(x)) <= draws
    if exact:
        chosen = np.zeros((math.comb(len(pool), len(x)), len(pool)), dtype=bool)
        for row, members in enumerate(itertools.combinations(range(len(pool)), len(x))):
            chosen[row, list(members)] = True
    else:
        chosen = np.random.default_rng(seed).permuted(np.tile(np.arange(len(pool)) < len(x), (draws, 1)), axis=1)
    observed = _welch(pool, (np.arange(len(pool)) < len(x))[None])
    p = _at_least(np.abs(_welch(pool, chosen)), abs(float(observed[0])), exact=exact)
    return Estimate(value=value, low=low, high=high, p=p, n=n)


def tost(differences: ArrayLike, margin: float, *, alpha: float = 0.05) -> Estimate:
    """Two one-sided t tests (Schuirmann 1987) that the mean lies inside +-`margin`: small p means "no real difference".

    The interval has confidence `1 - 2 alpha`; equivalence at `alpha` is the same as it lying inside the margin.
    """
    return _one_sided(differences, margin, sides=(-1, 1), alpha=alpha)


def not_worse(differences: ArrayLike, margin: float, *, better: Better, alpha: float = 0.05) -> Estimate:
    """Non-inferiority: one-sided t test that the mean is not worse than `margin`; small p means "does not hurt"."""
    return _one_sided(differences, margin, sides=(1,) if better == "lower" else (-1,), alpha=alpha)


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """Holm's step-down adjustment (1979) over the p values present; None stays None. Order kept, range [0, 1]."""
    present = [(p, i) for i, p in enumerate(p_values) if p is not None]
    adjusted: list[float | None] = [None] * len(p_values)
    running = 0.0
    for rank, (p, i) in enumerate(sorted(present)):
        running = max(running, min(1.0, (len(present) - rank) * p))
        adjusted[i] = running
    return adjusted


def verdict(
    estimate: Estimate, *, better: Better = "lower", margin: float | None = None, alpha: float = 0.05
) -> Verdict:
    """The word for a producer: "improved" or "worse" needs p <= `alpha` and an interval wholly past `margin`.

    Use the A/A difference (base against base) as `margin`; None is 0. Without p or interval it is "cannot tell".
    """
    past = 0.0 if margin is None else margin
    assert past >= 0
    if estimate.p is None or estimate.p > alpha or estimate.low is None or estimate.high is None:
        return "cannot tell"
    if estimate.high < -past:
        return "improved" if better == "lower" else "worse"
    if estimate.low > past:
        return "worse" if better == "lower" else "improved"
    return "cannot tell"


def _one_sided(differences: ArrayLike, margin: float, *, sides: tuple[int, ...], alpha: float) -> Estimate:
    d = _values(differences, "differences")
    if not margin > 0:
        raise ScoreError(
            f"margin must be positive, got {margin}", remedy="use the A/A difference or a value set beforehand"
        )
    low, high = student_interval(d, confidence=1 - 2 * alpha)
    if len(d) < LEAST_SHOTS:
        return Estimate(value=float(d.mean()), low=low, high=high, p=None, n=len(d), why=_too_few(len(d)))
    error = float(d.std(ddof=1)) / math.sqrt(len(d))
    room = [margin - side * float(d.mean()) for side in sides]
    tail = [scipy_stats.t.sf(r / error, len(d) - 1) if error > 0 else float(r <= 0) for r in room]
    return Estimate(value=float(d.mean()), low=low, high=high, p=float(max(tail)), n=len(d))


def _values(values: ArrayLike, name: str) -> Array:
    x = np.asarray(values, dtype=np.float64)
    if x.ndim != 1 or len(x) == 0:
        raise ScoreError(f"one number per shot is needed, got shape {list(x.shape)}", where=name)
    if not np.isfinite(x).all():
        raise ScoreError("values hold NaN or infinity", where=name, remedy="leave out shots without a score")
    return x


def _too_few(n: int) -> str:
    return f"{n} shots; no p value below {LEAST_SHOTS}"


def _sign_patterns(n: int) -> Array:
    """Half of all sign patterns `[2^(n-1), n]`; the rest mirrors them, a two-sided test sees both alike."""
    bits = (np.arange(2 ** (n - 1))[:, None] >> np.arange(n)) & 1
    return 1.0 - 2.0 * bits


def _at_least(permuted: ArrayLike, observed: float, *, exact: bool) -> float:
    # Equal sums come out of floating point a few ulps apart; without slack the observed pattern may not count itself.
    values = np.asarray(permuted, dtype=np.float64)
    hits = int((values >= observed - 1e-10 * float(np.abs(values).max())).sum())
    total = values.size
    return hits / total if exact else (hits + 1) / (total + 1)


def _welch(pool_N: Array, chosen_RN: np.ndarray) -> Array:
    count = chosen_RN.sum(1)
    rest = pool_N.size - count
    # Centring first keeps the one-pass variance exact for values far from zero.
    x = pool_N - pool_N.mean()
    sum_x, sum_all, square_x, square_all = chosen_RN @ x, x.sum(), chosen_RN @ (x * x), (x * x).sum()
    mean_x, mean_y = sum_x / count, (sum_all - sum_x) / rest
    var_x = np.maximum(square_x - count * mean_x**2, 0) / (count - 1)
    var_y = np.maximum(square_all - square_x - rest * mean_y**2, 0) / (rest - 1)
    # The floor keeps a split without any spread finite, and so comparable with the others.
    floor = 1e-9 * max(float(np.abs(x).max()), 1e-300)
    return (mean_x - mean_y) / np.maximum(np.sqrt(var_x / count + var_y / rest), floor)
