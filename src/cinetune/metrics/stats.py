"""Small-sample statistics with the shot as the unit.

Below six shots no p is given: two-sided p < .05 is out of reach there. Words need more, see `LEAST_FOR_WORDS`.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, TypeVar

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats as scipy_stats

from cinetune.errors import ScoreError
from cinetune.metrics.checks import Array

__all__ = [
    "LEAST_FOR_WORDS",
    "LEAST_SHOTS",
    "Estimate",
    "Hypothesis",
    "benjamini_hochberg",
    "effect",
    "effect_between",
    "effect_interval",
    "harmed_at_most",
    "interval_between",
    "jackknife_error",
    "least_shots",
    "pseudo_values",
    "step_down",
    "tied",
]

LEAST_SHOTS = 6
LEAST_FOR_WORDS = 8
"""Fewer shots show too little of a skewed effect: at 7 the interval of a lognormal one covers less than 93 %. It is
also how many it takes to meet a kind of shot that one in three is of, `least_shots(3)`."""
# Every sign pattern up to this many shots (of both domains), else seeded Monte Carlo.
_EXACT_LIMIT = 14
Side = Literal["both", "below", "above"]
T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """An effect with its 95 % and 90 % intervals and p. None where they cannot be had; `why` says why."""

    value: float
    low: float | None
    high: float | None
    low90: float | None
    high90: float | None
    p: float | None
    n: int
    why: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Hypothesis:
    """What `step_down` tests: the mean of one sample of per-shot effects against `line`, or that the means of two
    samples of different shots are equal. `side` is the alternative. `error` is a standard error from elsewhere (the
    choice of reference clips), added in quadrature.
    """

    samples: tuple[Mapping[str, float], ...]
    line: float = 0.0
    side: Side = "both"
    error: float = 0.0


def effect(values: Mapping[str, float], *, error: float = 0.0) -> Estimate:
    """Mean of per-shot effects (arm - versus, a shot's seeds averaged first) with its intervals and sign-flip p."""
    x = _values(list(values.values()), "effects")
    low, high = effect_interval(x, error=error)
    low90, high90 = effect_interval(x, confidence=0.9, error=error)
    p, why = (None, _too_few(len(x)))
    if len(x) >= LEAST_SHOTS:
        p, why = step_down([Hypothesis(samples=(values,), error=error)])[0], ""
    return Estimate(value=float(x.mean()), low=low, high=high, low90=low90, high90=high90, p=p, n=len(x), why=why)


def effect_between(inside: Mapping[str, float], outside: Mapping[str, float], *, error: float = 0.0) -> Estimate:
    """Mean per-shot effect inside the film's domain minus outside it. `n` is the smaller side."""
    x, y = _values(list(inside.values()), "inside"), _values(list(outside.values()), "outside")
    n = min(len(x), len(y))
    low, high = interval_between(x, y, error=error)
    low90, high90 = interval_between(x, y, confidence=0.9, error=error)
    p, why = (None, _too_few(n))
    if n >= LEAST_SHOTS:
        p, why = step_down([Hypothesis(samples=(inside, outside), error=error)])[0], ""
    value = float(x.mean() - y.mean())
    return Estimate(value=value, low=low, high=high, low90=low90, high90=high90, p=p, n=n, why=why)


def effect_interval(
    values: ArrayLike, *, confidence: float = 0.95, error: float = 0.0
) -> tuple[float | None, float | None]:
    """Confidence interval of a mean that holds for skewed effects too; `(None, None)` for a single value.

    The wider, at each end, of Student's t interval and the one that Hall's cubic transformation (1992) corrects for
    skewness. Skewness read off n values is far too small when the effect is skewed, so it counts 1 + 8 / n fold; as the
    wider of two covers more than either, each is taken at a little less: error rate 1.32 times the nominal one. Both
    figures were chosen by simulation, on normal, t3, exponential and lognormal effects; `benchmarks/level.py` prints
    the coverage on these and on shapes that had no say. With two values it is Student's alone.
    """
    x = _values(values, "values")
    n = len(x)
    if n < 2:
        return None, None
    mean, sd = float(x.mean()), float(x.std(ddof=1))
    quantile = float(scipy_stats.t.ppf(1 - 0.66 * (1 - confidence), n - 1))
    below = above = quantile * sd / math.sqrt(n)
    if n > 2 and sd > 1e-12 * float(np.abs(x).max()):
        skew = (1 + 8 / n) * float(scipy_stats.skew(x, bias=False))
        below = max(below, sd * _hall(quantile / math.sqrt(n), skew, n))
        above = max(above, -sd * _hall(-quantile / math.sqrt(n), skew, n))
    return mean - math.hypot(below, quantile * error), mean + math.hypot(above, quantile * error)


def interval_between(
    inside: ArrayLike, outside: ArrayLike, *, confidence: float = 0.95, error: float = 0.0
) -> tuple[float | None, float | None]:
    """Confidence interval of the difference of two means, from the intervals of each (Zou & Donner 2008), which are
    taken at 1.1 times the error rate: the difference covers more than its parts. Where both are skewed alike it covers
    up to 98.5 %, which is too careful.
    """
    x, y = _values(inside, "inside"), _values(outside, "outside")
    ends = [effect_interval(part, confidence=1 - 1.1 * (1 - confidence)) for part in (x, y)]
    (low_x, high_x), (low_y, high_y) = ends
    if low_x is None or high_x is None or low_y is None or high_y is None:
        return None, None
    value, mean_x, mean_y = float(x.mean() - y.mean()), float(x.mean()), float(y.mean())
    extra = error * float(scipy_stats.norm.ppf((1 + confidence) / 2))
    below = math.hypot(mean_x - low_x, high_y - mean_y, extra)
    above = math.hypot(high_x - mean_x, mean_y - low_y, extra)
    return value - below, value + above


def tied(values: ArrayLike) -> bool:
    """Whether per-shot effects take so few different values (at most half as many as there are shots) that neither test
    nor interval holds what it promises.
    """
    x = _values(values, "values")
    return len(np.unique(np.round(x, 12))) <= len(x) / 2


def harmed_at_most(harmed: int, n: int) -> float:
    """Largest share of harmed shots that `harmed` of `n` leave possible: one-sided 95 % bound (Clopper & Pearson
    1934)."""
    return 1.0 if harmed >= n else float(scipy_stats.beta.ppf(0.95, harmed + 1, n - harmed))


def maybe_missed(n: int) -> str:
    """What `n` shots leave open, in words: a kind of shot that none of them may be of."""
    return f"what befalls up to {harmed_at_most(0, n):.0%} of such shots may not be among them"


def too_few(n: int, domain: str, least: int) -> str:
    """In words, that a domain has fewer shots than any verdict needs."""
    return f"{n} {'shot' if n == 1 else 'shots'} in domain `{domain}`: no verdict below {least}"


def least_shots(rarest: int) -> int:
    """How many shots it takes to meet, 19 times in 20, a kind of shot that one in `rarest` is of: then
    `harmed_at_most(0, n)` is no more than its share. Never fewer than `LEAST_FOR_WORDS`.
    """
    return max(LEAST_FOR_WORDS, math.ceil(math.log(0.05) / math.log1p(-1 / rarest)))


def jackknife_error(statistic: Callable[[Sequence[T]], float], items: Sequence[T]) -> float:
    """Delete-one jackknife standard error (Tukey 1958): `sqrt((n-1)/n sum (s_-i - mean)^2)`. Needs two items."""
    if len(items) < 2:
        raise ScoreError("a jackknife needs two items or more", where="jackknife_error")
    left_out = np.asarray([statistic([*items[:i], *items[i + 1 :]]) for i in range(len(items))])
    n = len(items)
    return float(np.sqrt((n - 1) / n * ((left_out - left_out.mean()) ** 2).sum()))


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


def step_down(hypotheses: Sequence[Hypothesis], *, draws: int = 10_000, seed: int = 0) -> list[float]:
    """p of each hypothesis after step-down over all of them: the chance of one false rejection on the page is bounded.

    Signs of whole shots are flipped, the same for every measure (Fisher 1935), and the largest statistic of the
    hypotheses that are left is compared (Westfall & Young 1993, algorithm 2.8 on maxima), so that measures which move
    together cost little. The statistic is Student's t as a normal score; between domains Welch's t, with the flips on
    what is left of each value after its domain's mean. `Hypothesis.error` enlarges the error of what was observed only,
    as flips do not change the reference. Every pattern when all samples together have at most 14 shots, else seeded
    Monte Carlo. Needs six shots in every sample (`ScoreError`).
    """
    if any(len(sample) < LEAST_SHOTS for one in hypotheses for sample in one.samples):
        raise ScoreError(_too_few(min(len(s) for one in hypotheses for s in one.samples)), where="step_down")
    shots = sorted({shot for one in hypotheses for sample in one.samples for shot in sample})
    exact = len(shots) <= _EXACT_LIMIT
    signs_RN = _signs(len(shots), draws, seed)
    scores = [_scored(one, shots, signs_RN) for one in hypotheses]
    order = sorted(range(len(scores)), key=lambda i: -scores[i][0])
    adjusted, running = [1.0] * len(scores), 0.0
    largest_R = np.full(len(signs_RN), -np.inf)
    by_rank: list[float] = []
    for i in reversed(order):
        largest_R = np.maximum(largest_R, scores[i][1])
        hits = int((largest_R >= scores[i][0] - 1e-9).sum())
        by_rank.append(hits / len(signs_RN) if exact else (hits + 1) / (len(signs_RN) + 1))
    for i, p in zip(order, reversed(by_rank), strict=True):
        running = max(running, p)
        adjusted[i] = running
    return adjusted


def benjamini_hochberg(p_values: Sequence[float | None]) -> list[float | None]:
    """q of each p (Benjamini & Hochberg 1995): the share of false finds among those at least as small. None stays
    None."""
    present = sorted((p, i) for i, p in enumerate(p_values) if p is not None)
    q: list[float | None] = [None] * len(p_values)
    running = 1.0
    for rank, (p, i) in reversed(list(enumerate(present, start=1))):
        running = min(running, p * len(present) / rank)
        q[i] = running
    return q


def _scored(one: Hypothesis, shots: Sequence[str], signs_RN: Array) -> tuple[float, Array]:
    """The statistic as observed and under every flip, as normal scores that are large where the hypothesis fails."""
    place = {shot: k for k, shot in enumerate(shots)}
    parts = []
    for sample in one.samples:
        x = _values(list(sample.values()), "effects") - one.line
        null = x if len(one.samples) == 1 else x - x.mean()
        flipped_R = signs_RN[:, [place[shot] for shot in sample]] @ null / len(x)
        spare_R = np.maximum((null**2).sum() - len(x) * flipped_R**2, 0) / (len(x) - 1) / len(x)
        parts.append((len(x), float(x.mean()), float(x.var(ddof=1)) / len(x), flipped_R, spare_R))
    # The floor keeps a pattern without any spread finite, and so comparable with the others.
    floor = 1e-24 * max(float(np.abs(list(sample.values())).max()) for sample in one.samples) ** 2 + 1e-300
    if len(parts) == 1:
        n, mean, variance, flipped_R, spare_R = parts[0]
        observed = _normal_score(mean, variance + one.error**2 + floor, n - 1.0)
        null_R = _normal_score(flipped_R, spare_R + floor, n - 1.0)
    else:
        (n, mean, variance, flipped_R, spare_R), (m, mean_y, variance_y, flipped_y, spare_y) = parts
        observed = _normal_score(
            mean - mean_y, variance + variance_y + one.error**2 + floor, _welch_freedom(variance, n, variance_y, m)
        )
        null_R = _normal_score(flipped_R - flipped_y, spare_R + spare_y + floor, _welch_freedom(spare_R, n, spare_y, m))
    turn = {"both": np.abs, "below": np.negative, "above": np.positive}[one.side]
    return float(turn(observed)), turn(null_R)


def _normal_score(mean: ArrayLike, variance: ArrayLike, freedom: ArrayLike) -> Array:
    """Student's t as a normal score, by Wallace's approximation (1959): monotone, so no order changes within one n."""
    t, v = np.asarray(mean) / np.sqrt(variance), np.asarray(freedom)
    return np.asarray(np.sign(t) * (8 * v + 1) / (8 * v + 3) * np.sqrt(v * np.log1p(t * t / v)))


def _welch_freedom(a: ArrayLike, n: int, b: ArrayLike, m: int) -> Array:
    share = np.asarray(a) / (np.asarray(a) + np.asarray(b) + 1e-300)
    return np.asarray(1 / (share**2 / (n - 1) + (1 - share) ** 2 / (m - 1)))


def _hall(y: float, skew: float, n: int) -> float:
    """Inverse of Hall's transformation of a standardised mean over root n (his eq. 2.7)."""
    if abs(skew) < 1e-6:
        return y
    return float(3 / skew * (np.cbrt(1 + skew * (y - skew / (6 * n))) - 1))


@lru_cache(maxsize=8)
def _signs(n: int, draws: int, seed: int) -> Array:
    """Sign patterns `[R, n]`: every one, or `draws` of them by chance."""
    if n <= _EXACT_LIMIT:
        return 1.0 - 2.0 * ((np.arange(2**n)[:, None] >> np.arange(n)) & 1)
    return np.asarray(np.random.default_rng(seed).choice([-1.0, 1.0], (draws, n)))


def _values(values: ArrayLike, name: str) -> Array:
    x = np.asarray(values, dtype=np.float64)
    if x.ndim != 1 or len(x) == 0:
        raise ScoreError(f"one number per shot is needed, got shape {list(x.shape)}", where=name)
    if not np.isfinite(x).all():
        raise ScoreError("values hold NaN or infinity", where=name, remedy="leave out shots without a score")
    return x


def _too_few(n: int) -> str:
    return f"{n} shots; no p value below {LEAST_SHOTS}"
