"""Statistics: exact values, scipy as a second opinion, and error rates and coverage by simulation."""

import itertools
from typing import Any, cast

import numpy as np
import pytest
from scipy import optimize
from scipy import stats as scipy_stats

from cinetune.errors import ScoreError
from cinetune.metrics import (
    Hypothesis,
    KernelTable,
    benjamini_hochberg,
    effect,
    effect_between,
    effect_interval,
    harmed_at_most,
    interval_between,
    jackknife_error,
    least_shots,
    pseudo_values,
    step_down,
    tied,
)


def named(values, side: str = "s") -> dict[str, float]:
    return {f"{side}{k}": float(value) for k, value in enumerate(values)}


def p_of(result: Any) -> float:
    """What scipy found; its stubs do not name the attribute."""
    return float(result.pvalue)


def test_p_of_one_sample_is_the_sign_flip_test():
    d = np.random.default_rng(0).normal(0.4, 1, 9)
    brute = np.mean([abs(np.dot(s, d)) >= abs(d.sum()) - 1e-12 for s in itertools.product([-1, 1], repeat=9)])
    oracle = scipy_stats.permutation_test((d,), np.mean, permutation_type="samples", n_resamples=cast(int, np.inf))
    assert effect(named(d)).p == pytest.approx(brute) == pytest.approx(oracle.pvalue)
    for n in (6, 8, 12):
        assert effect(named(np.arange(1.0, n + 1))).p == 2 / 2**n
    assert effect(named(1e-9 * np.arange(1.0, 9))).p == 2 / 2**8
    assert effect(named(np.zeros(8))).p == 1


def test_many_shots_are_drawn_by_chance_with_a_seed():
    d = named(np.random.default_rng(1).normal(0.35, 1, 20))
    assert effect(d).p == effect(d).p == pytest.approx(p_of(scipy_stats.ttest_1samp(list(d.values()), 0)), abs=0.03)
    assert step_down([Hypothesis(samples=(named(np.linspace(1, 2, 40)),))]) == [pytest.approx(1 / 10_001)]


def test_below_six_shots_there_is_an_effect_and_no_p():
    found = effect(named([1.0, 2, 3, 4, 5]))
    assert (found.value, found.p) == (3, None) and "no p value below 6" in found.why and found.low is not None
    with pytest.raises(ScoreError, match="no p value below 6"):
        step_down([Hypothesis(samples=(named([1.0] * 5),))])


def test_interval_of_even_effects_is_students():
    d = np.linspace(-1, 3, 9)
    half = scipy_stats.t.ppf(1 - 0.066 / 2, 8) * scipy_stats.sem(d)
    assert effect_interval(d) == pytest.approx((1 - half, 1 + half))
    assert effect_interval([3.0]) == (None, None)
    low, high = effect_interval([2.0] * 7)
    assert (low, high) == (2, 2)


def test_interval_of_skewed_effects_solves_halls_equation():
    """Hall (1992): T + g T^2 / 3 + g^2 T^3 / 27 + g / (6 n), with T the standardised error of the mean."""
    d = np.exp(np.random.default_rng(3).normal(size=10))
    low, high = effect_interval(d)
    n, mean, sd = len(d), d.mean(), d.std(ddof=1)
    g = (1 + 8 / n) * scipy_stats.skew(d, bias=False)
    bound = scipy_stats.t.ppf(1 - 0.066 / 2, n - 1) / np.sqrt(n)

    def hall(centre: float) -> float:
        t = (mean - centre) / sd
        return t + g * t**2 / 3 + g**2 * t**3 / 27 + g / (6 * n)

    assert high == pytest.approx(optimize.brentq(lambda c: hall(c) + bound, mean, mean + 20 * sd))
    student = scipy_stats.t.ppf(1 - 0.066 / 2, n - 1) * sd / np.sqrt(n)
    assert low == pytest.approx(mean - student) and high > mean + 1.3 * student
    below, above = effect_interval(-d)
    assert below is not None and above is not None and (-above, -below) == pytest.approx((low, high))


@pytest.mark.parametrize("n", [8, 12])
def test_interval_covers_skewed_and_even_effects(n: int):
    """`benchmarks/level.py` prints every shape; Student's interval covers 83 % of lognormal means at n = 8."""
    rng = np.random.default_rng(n)
    for draw, mean in ((rng.lognormal, np.exp(0.5)), (rng.exponential, 1.0), (rng.normal, 0.0)):
        hits = []
        for _ in range(500):
            low, high = effect_interval(draw(size=n))
            hits.append(low is not None and high is not None and low <= mean <= high)
        assert 0.90 < np.mean(hits) < 0.985


def test_an_error_from_the_reference_widens_interval_and_p():
    d = named(np.random.default_rng(4).normal(1, 0.2, 8))
    sure, unsure = effect(d), effect(d, error=1.0)
    assert sure.value == unsure.value and sure.p == 2 / 256
    quantile = scipy_stats.t.ppf(1 - 0.033, 7)
    for a, b in ((sure.low, unsure.low), (sure.high, unsure.high)):
        assert a is not None and b is not None and sure.value is not None and unsure.value is not None
        assert abs(b - unsure.value) == pytest.approx(np.hypot(a - sure.value, quantile))
    assert unsure.p is not None and unsure.p > 0.05


def test_between_two_domains():
    rng = np.random.default_rng(5)
    x, y = rng.normal(-1.5, 1, 8), rng.normal(0, 2, 10)
    found = effect_between(named(x, "in"), named(y, "out"))
    assert found.value == pytest.approx(x.mean() - y.mean()) and found.n == 8
    assert found.p == pytest.approx(p_of(scipy_stats.ttest_ind(x, y, equal_var=False)), abs=0.04)
    (low_x, high_x), (low_y, high_y) = (effect_interval(part, confidence=0.945) for part in (x, y))
    low, high = interval_between(x, y)
    assert low == pytest.approx(found.value - np.hypot(x.mean() - low_x, high_y - y.mean()))
    assert high == pytest.approx(found.value + np.hypot(high_x - x.mean(), y.mean() - low_y))
    same = effect_between(named([1.0] * 6, "in"), named([1.0] * 6, "out"))
    assert same.p == 1 and same.value == 0


def test_step_down_equals_a_full_list_and_never_falls_below_the_single_p():
    rng = np.random.default_rng(6)
    samples = [named(rng.normal(shift, 1, 7)) for shift in (2.0, 0.8, 0.0)]
    ours = step_down([Hypothesis(samples=(sample,)) for sample in samples])

    def t(x):
        return abs(x.mean()) / np.sqrt(x.var(ddof=1) / len(x))

    flips = [np.array(s) for s in itertools.product([1.0, -1.0], repeat=7)]
    values = [np.array(list(sample.values())) for sample in samples]
    order = sorted(range(3), key=lambda i: -t(values[i]))
    running, expected = 0.0, [0.0] * 3
    for rank, i in enumerate(order):
        rest = order[rank:]
        hits = np.mean([max(t(f * values[k]) for k in rest) >= t(values[i]) - 1e-9 for f in flips])
        running = max(running, float(hits))
        expected[i] = running
    assert ours == pytest.approx(expected)
    for sample, p in zip(samples, ours, strict=True):
        single = effect(sample).p
        assert p is not None and single is not None and p >= single - 1e-12


def test_one_sided_against_a_line():
    d = named(np.linspace(0.1, 0.3, 8))
    below = step_down([Hypothesis(samples=(d,), line=0.5, side="below")])
    assert below == [1 / 256]
    assert step_down([Hypothesis(samples=(d,), line=0.5, side="above")])[0] > 0.99


def test_the_whole_family_errs_in_at_most_a_twentieth():
    rng = np.random.default_rng(7)
    errs = 0
    for _ in range(300):
        noise = rng.normal(size=(6, 8)) + rng.normal(size=8)
        away = rng.normal(size=(2, 8))
        family = [Hypothesis(samples=(named(row),)) for row in noise]
        family += [Hypothesis(samples=(named(row), named(far, "out"))) for row, far in zip(noise, away, strict=False)]
        errs += min(step_down(family, draws=1000)) <= 0.05
    assert errs / 300 < 0.09


def test_q_values_equal_scipys_and_keep_gaps():
    p = [0.001, 0.2, 0.03, 0.04, 0.9]
    assert benjamini_hochberg(p) == pytest.approx(scipy_stats.false_discovery_control(p))
    assert benjamini_hochberg([None, 0.02, None, 0.04]) == [None, 0.04, None, 0.04]
    assert benjamini_hochberg([]) == []


def test_share_of_harmed_shots_that_cannot_be_excluded():
    assert harmed_at_most(0, 8) == pytest.approx(1 - 0.05 ** (1 / 8))
    assert harmed_at_most(8, 8) == 1
    bound = harmed_at_most(3, 12)
    assert scipy_stats.binom.cdf(3, 12, bound) == pytest.approx(0.05)


def test_so_many_shots_meet_a_kind_that_is_so_rare():
    """19 times in 20: (1 - 1/k)^n <= .05 at n, and not at n - 1."""
    assert [least_shots(k) for k in (3, 8, 20)] == [8, 23, 59]
    for rarest in (8, 20):
        n = least_shots(rarest)
        assert (1 - 1 / rarest) ** n <= 0.05 < (1 - 1 / rarest) ** (n - 1)
        assert harmed_at_most(0, n) <= 1 / rarest < harmed_at_most(0, n - 1)


def test_ties_are_seen():
    assert tied([-1, 0, 1, 0, 1, 1, -1, 0]) and tied([0.0] * 6)
    assert not tied([0.1, 0.2, 0.3, 0.4, 0.5, 0.5, 0.6, 0.7])


def test_jackknife_of_a_mean_is_its_standard_error():
    x = np.random.default_rng(5).normal(size=12).tolist()
    assert jackknife_error(lambda kept: float(np.mean(kept)), x) == pytest.approx(np.std(x, ddof=1) / np.sqrt(12))
    with pytest.raises(ScoreError):
        jackknife_error(lambda kept: 0.0, [1])


def test_pseudo_values_of_a_mean_are_the_differences():
    rng = np.random.default_rng(9)
    base, look, reference = rng.normal(size=7), rng.normal(1, 1, 7), rng.normal(5, 2, 6)
    values, error = pseudo_values(
        lambda x, r: float(np.mean(x) * np.mean(r)), base.tolist(), look.tolist(), reference=reference.tolist()
    )
    assert values == pytest.approx((look - base) * reference.mean())
    assert error == pytest.approx(abs((look - base).mean()) * scipy_stats.sem(reference))


def test_pseudo_values_of_kid_average_to_its_effect_and_need_three_shots():
    rng = np.random.default_rng(10)
    clips = [rng.normal(size=(4, 6)) for _ in range(15)]
    table = KernelTable.of(clips)
    values, error = pseudo_values(table.distance, range(5), range(5, 10), reference=range(10, 15))
    whole = table.distance(range(5, 10), range(10, 15)) - table.distance(range(5), range(10, 15))
    assert values.mean() == pytest.approx(whole, abs=1e-9) and error > 0
    with pytest.raises(ScoreError, match="three pairs"):
        pseudo_values(table.distance, [0, 1], [2, 3], reference=[4, 5])


def test_p_and_interval_of_kid_have_one_target():
    """Base and look share their content and the look moves to the reference: found, and the interval says the same."""
    agree = []
    for seed in range(20):
        rng = np.random.default_rng(seed)
        reference = [rng.normal(size=12) + 0.2 * rng.normal(size=(3, 12)) for _ in range(20)]
        content = [0.8 + rng.normal(size=12) for _ in range(12)]
        base = [c + 0.3 * rng.normal(size=(3, 12)) for c in content]
        look = [c - 0.8 + 0.3 * rng.normal(size=(3, 12)) for c in content]
        table = KernelTable.of([*reference, *base, *look])
        values, error = pseudo_values(table.distance, range(20, 32), range(32, 44), reference=range(20))
        found = effect(named(values), error=error)
        assert found.p is not None and found.high is not None
        agree.append((found.p <= 0.05) == (found.high < 0))
    assert np.mean(agree) >= 0.8


def test_values_must_be_numbers():
    for bad in ({}, {"a": 1.0, "b": np.nan}):
        with pytest.raises(ScoreError):
            effect(bad)
    with pytest.raises(ScoreError, match="shape"):
        effect_interval([[1.0, 2.0]])
