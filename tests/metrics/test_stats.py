"""Statistics: exact values, scipy as a second opinion, and error rates and coverage by simulation."""

import itertools

import numpy as np
import pytest
from scipy import stats as scipy_stats

from cinetune.errors import ScoreError
from cinetune.metrics import (
    Estimate,
    KernelTable,
    holm,
    interaction,
    jackknife_error,
    kid_blocked,
    not_worse,
    paired,
    paired_set,
    pseudo_values,
    sign_flip,
    student_interval,
    tost,
    verdict,
)


def test_sign_flip_smallest_value_is_two_in_two_to_the_n():
    for n in (6, 8, 16):
        assert sign_flip(np.arange(1.0, n + 1)) == 2 / 2**n
    assert sign_flip([1.0, -1] * 3) == 1
    assert sign_flip(np.zeros(7)) == 1
    assert sign_flip(1e-9 * np.arange(1.0, 9)) == 2 / 2**8


def test_sign_flip_equals_scipy_and_a_full_list():
    d = np.random.default_rng(0).normal(0.4, 1, 9)
    brute = np.mean([abs(np.dot(s, d)) >= abs(d.sum()) - 1e-12 for s in itertools.product([-1, 1], repeat=9)])
    assert sign_flip(d) == pytest.approx(brute)
    oracle = scipy_stats.permutation_test((d,), np.mean, permutation_type="samples", n_resamples=np.inf)
    assert sign_flip(d) == pytest.approx(oracle.pvalue)


def test_sign_flip_by_chance_is_seeded_and_near_the_exact_value():
    d = np.random.default_rng(1).normal(0.35, 1, 20)
    p = sign_flip(d, seed=3)
    assert p == sign_flip(d, seed=3) != sign_flip(d, seed=4)
    assert p == pytest.approx(scipy_stats.ttest_1samp(d, 0).pvalue, abs=0.03)
    assert sign_flip(np.full(40, 1.0)) == 1 / 20_001


def test_no_p_below_six_shots():
    for n in range(1, 6):
        score = paired(np.arange(1.0, n + 1))
        assert score.p is None and f"{n} shots" in score.why and score.n == n
        assert verdict(score) == "cannot tell"
    assert paired([1.0]).low is None and paired([1.0, 2]).low is not None
    assert paired(np.arange(1.0, 7)).p == 2 / 64
    with pytest.raises(ScoreError, match="5 shots"):
        sign_flip(np.ones(5))
    for test in (tost, lambda d, m: not_worse(d, m, better="lower")):
        assert test([0.1] * 5, 1.0).p is None
    assert interaction(np.ones(8), np.arange(5.0)).p is None
    small = paired_set(lambda x, _: float(np.mean(x)), [1.0] * 5, [2.0] * 5, reference=[0])
    assert small.p is None and small.value == 1 and small.why


def test_student_interval_equals_scipy_and_covers():
    rng = np.random.default_rng(2)
    x = rng.normal(3, 2, 8)
    low, high = student_interval(x)
    assert (low, high) == pytest.approx(scipy_stats.ttest_1samp(x, 0).confidence_interval(0.95))
    hits = [low < 1 < high for low, high in (student_interval(rng.normal(1, 2, 8)) for _ in range(1000))]
    assert 0.93 < np.mean(hits) < 0.97


def test_sign_flip_and_interaction_hold_their_level():
    rng = np.random.default_rng(3)
    flips = [sign_flip(rng.standard_t(4, 8)) <= 0.05 for _ in range(600)]
    assert 0.02 < np.mean(flips) < 0.08
    welch = [interaction(rng.normal(0, 1, 8), rng.normal(0, 3, 8), draws=400).p <= 0.05 for _ in range(300)]
    assert 0.02 < np.mean(welch) < 0.09


def test_interaction_equals_scipy_and_sees_an_effect():
    rng = np.random.default_rng(4)
    x, y = rng.normal(-1.5, 1, 8), rng.normal(0, 2, 10)
    score = interaction(x, y, draws=5000)
    oracle = scipy_stats.ttest_ind(x, y, equal_var=False)
    assert (score.low, score.high) == pytest.approx(oracle.confidence_interval(0.95))
    assert score.value == pytest.approx(x.mean() - y.mean()) and score.n == 8
    assert score.p == pytest.approx(oracle.pvalue, abs=0.03)
    exact = scipy_stats.permutation_test(
        (x[:7], y[:7]),
        lambda a, b, axis: scipy_stats.ttest_ind(a, b, axis=axis, equal_var=False).statistic,
        n_resamples=np.inf,
    )
    assert interaction(x[:7], y[:7]).p == pytest.approx(exact.pvalue)
    assert interaction(np.ones(6), np.zeros(6)).p == pytest.approx(2 / 924)
    assert interaction(np.ones(6), np.ones(6)).p == 1


def test_jackknife_of_a_mean_is_its_standard_error():
    x = np.random.default_rng(5).normal(size=12).tolist()
    assert jackknife_error(lambda kept: float(np.mean(kept)), x) == pytest.approx(np.std(x, ddof=1) / np.sqrt(12))
    with pytest.raises(ScoreError):
        jackknife_error(lambda kept: 0.0, [1])


def test_paired_set_of_a_mean_is_the_sign_flip_test():
    rng = np.random.default_rng(6)
    base, look = rng.normal(size=9), rng.normal(0.5, 1, 9)
    ours = paired_set(lambda x, _: float(np.mean(x)), base.tolist(), look.tolist(), reference=[0])
    plain = paired(look - base)
    assert (ours.value, ours.low, ours.high, ours.p) == pytest.approx((plain.value, plain.low, plain.high, plain.p))
    many = [rng.normal(size=20).tolist() for _ in range(2)]
    first = paired_set(lambda x, _: float(np.mean(x)), *many, reference=[0], seed=1)
    assert first == paired_set(lambda x, _: float(np.mean(x)), *many, reference=[0], seed=1)


def test_paired_set_interval_counts_the_reference_too():
    rng = np.random.default_rng(8)
    base, look, reference = rng.normal(size=8), rng.normal(2, 1, 8), rng.normal(5, 2, 6)
    score = paired_set(
        lambda x, r: float(np.mean(x) * np.mean(r)), base.tolist(), look.tolist(), reference=reference.tolist()
    )
    d = look - base
    spread = np.hypot(reference.mean() * scipy_stats.sem(d), d.mean() * scipy_stats.sem(reference))
    half = scipy_stats.t.ppf(0.975, 7) * spread
    assert (score.low, score.high) == pytest.approx((score.value - half, score.value + half))


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
    effect = table.distance(range(5, 10), range(10, 15)) - table.distance(range(5), range(10, 15))
    assert values.mean() == pytest.approx(effect, abs=1e-9) and error > 0
    with pytest.raises(ScoreError, match="three pairs"):
        pseudo_values(table.distance, [0, 1], [2, 3], reference=[4, 5])


def kid_effect(seed: int, *, pull: float, n: int) -> Estimate:
    """Base and look clips that share their content; the look moves towards the reference by `pull` of the gap."""
    rng = np.random.default_rng(seed)
    reference = [rng.normal(size=12) + 0.2 * rng.normal(size=(3, 12)) for _ in range(20)]
    content = [0.8 + rng.normal(size=12) for _ in range(n)]
    base = [c + 0.3 * rng.normal(size=(3, 12)) for c in content]
    look = [c - 0.8 * pull + 0.3 * rng.normal(size=(3, 12)) for c in content]
    table = KernelTable.of([*reference, *base, *look])
    before, after = range(20, 20 + n), range(20 + n, 20 + 2 * n)
    score = paired_set(table.distance, list(before), list(after), reference=list(range(20)), draws=200)
    assert score.value == pytest.approx(kid_blocked(look, reference) - kid_blocked(base, reference))
    return score


def test_swap_test_on_kid_holds_its_level():
    null = [kid_effect(seed, pull=0, n=8).p for seed in range(80)]
    assert np.mean(np.asarray(null) <= 0.05) < 0.13


def test_swap_test_on_kid_has_power_and_its_interval_covers():
    few = [kid_effect(seed, pull=1, n=8) for seed in range(15)]
    assert np.mean([s.p <= 0.05 for s in few]) >= 0.8
    more = [kid_effect(seed, pull=1, n=12) for seed in range(30)]
    assert np.mean([verdict(s) == "improved" for s in more]) >= 0.8
    truth = np.mean([s.value for s in more])
    assert np.mean([s.low < truth < s.high for s in more]) >= 0.8


def test_equivalence_is_the_interval_inside_the_margin():
    rng = np.random.default_rng(7)
    for seed_mean in (0.0, 0.3, 0.6, 1.0):
        d = rng.normal(seed_mean, 0.5, 10)
        score = tost(d, 0.7)
        assert score.low is not None and score.high is not None and score.p is not None
        assert (score.p < 0.05) == (score.low > -0.7 and score.high < 0.7)
        expected = max(
            scipy_stats.ttest_1samp(d, -0.7, alternative="greater").pvalue,
            scipy_stats.ttest_1samp(d, 0.7, alternative="less").pvalue,
        )
        assert score.p == pytest.approx(expected)
    assert tost(np.zeros(6), 0.1).p == 0
    with pytest.raises(ScoreError, match="margin"):
        tost(np.zeros(6), 0)


def test_not_worse_looks_at_the_bad_side_only():
    much_lower = np.linspace(-5.2, -4.8, 8)
    assert not_worse(much_lower, 0.5, better="lower").p < 1e-6
    assert not_worse(much_lower, 0.5, better="higher").p > 0.99
    assert tost(much_lower, 0.5).p > 0.99


def test_holm_by_hand_and_with_gaps():
    assert holm([0.004, 0.02, 0.03, 0.2]) == pytest.approx([0.016, 0.06, 0.06, 0.2])
    assert holm([0.2, None, 0.004]) == [pytest.approx(0.2), None, pytest.approx(0.008)]
    assert holm([0.9, 0.8]) == [1, 1]
    assert holm([]) == []


def test_verdict_words():
    def of(value: float, low: float, high: float, p: float = 0.01) -> Estimate:
        return Estimate(value=value, low=low, high=high, p=p, n=10)

    assert verdict(of(-2, -3, -1)) == "improved"
    assert verdict(of(-2, -3, -1), better="higher") == "worse"
    assert verdict(of(2, 1, 3)) == "worse"
    assert verdict(of(2, 1, 3), better="higher") == "improved"
    assert verdict(of(2, -1, 5)) == "cannot tell"
    assert verdict(of(2, 1, 3, p=0.06)) == "cannot tell"
    assert verdict(of(-2, -3, -1), margin=1.5) == "cannot tell"
    assert verdict(of(-2, -3, -1), margin=0.5) == "improved"


def test_values_must_be_numbers():
    for bad in ([], [1.0, np.nan], [[1.0, 2.0]]):
        with pytest.raises(ScoreError):
            paired(bad)
