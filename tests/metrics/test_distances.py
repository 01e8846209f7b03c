"""Set distances: closed forms, invariances, and the small-sample behaviour that the docstrings promise."""

import numpy as np
import pytest
from scipy.linalg import sqrtm

from cinetune.errors import ScoreError
from cinetune.metrics import FrechetTable, KernelTable, frechet, gaussian, kid, kid_blocked, split_level


def with_moments(mean: list[float], covariance: np.ndarray, n: int = 64, seed: int = 0) -> np.ndarray:
    """Samples whose mean and covariance are exactly the given ones."""
    x = np.random.default_rng(seed).normal(size=(n, len(mean)))
    x -= x.mean(0)
    white = x @ np.linalg.inv(np.linalg.cholesky(np.cov(x.T).reshape(len(mean), -1))).T
    return white @ np.linalg.cholesky(covariance).T + mean


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [
        (([0.0], np.eye(1)), ([3.0], 4 * np.eye(1)), 10.0),
        (([0.0] * 4, np.eye(4)), ([0.5] * 4, np.diag([4, 1, 9, 0.25])), 6.25),
        (([0.0] * 2, np.array([[2.0, 1], [1, 2]])), ([0.0] * 2, np.diag([3.0, 1])), 0.5166852264),
    ],
)
def test_frechet_of_known_gaussians(a, b, expected):
    assert frechet(with_moments(*a), with_moments(*b, seed=1)) == pytest.approx(expected, abs=1e-8)


@pytest.mark.parametrize(("n", "m", "d"), [(12, 9, 40), (200, 150, 7), (30, 12, 20)])
def test_frechet_equals_the_matrix_square_root(n, m, d):
    rng = np.random.default_rng(3)
    a, b = rng.normal(size=(n, d)), rng.normal(size=(m, d)) * 1.5 + 0.3
    s_a, s_b = np.cov(a.T), np.cov(b.T)
    # Symmetric form of the root, defined also for the rank-deficient covariances of n < d.
    values, vectors = np.linalg.eigh(s_a)
    half = vectors @ np.diag(np.sqrt(np.clip(values, 0, None))) @ vectors.T
    inner = half @ s_b @ half
    if n > d:
        trace = float(np.trace(sqrtm(inner)).real)
    else:
        trace = float(np.sqrt(np.clip(np.linalg.eigvalsh(inner), 0, None)).sum())
    expected = ((a.mean(0) - b.mean(0)) ** 2).sum() + np.trace(s_a) + np.trace(s_b) - 2 * trace
    assert frechet(a, b) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("decades", [4, 8, 14])
def test_frechet_keeps_its_digits_when_the_spectrum_falls_steeply(decades: int):
    """Axes that are independent have the closed form sum (s_a - s_b)^2, whatever the span of their spreads."""
    spreads = np.logspace(0, -decades / 2, 24)
    a, b = (
        with_moments([0.0] * 24, np.diag(spreads**2)),
        with_moments([0.0] * 24, np.diag((2 * spreads) ** 2), seed=1),
    )
    assert frechet(a, b) == pytest.approx((spreads**2).sum(), rel=1e-6)


def test_kid_of_one_set_is_worked_out_by_halves_and_in_blocks(monkeypatch: pytest.MonkeyPatch):
    rng = np.random.default_rng(8)
    x, y = rng.normal(size=(37, 5)), rng.normal(size=(23, 5)) + 0.3
    blocks = [row // 3 for row in range(37)]
    whole = [kid(x, y), kid(x, y, blocks_x=blocks)]
    monkeypatch.setattr("cinetune.metrics.distances._ROWS", 7)
    assert [kid(x, y), kid(x, y, blocks_x=blocks)] == pytest.approx(whole, rel=1e-12)


def test_frechet_laws():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(20, 6)), rng.normal(size=(25, 6)) * 2
    turn = np.linalg.qr(rng.normal(size=(6, 6)))[0]
    assert frechet(x, x) == pytest.approx(0, abs=1e-10)
    assert frechet(x, y) == pytest.approx(frechet(y, x))
    assert frechet(x[:, :2], x[:, :2] + [3, 4]) == pytest.approx(25)
    assert frechet(x, x.mean(0) + 2 * (x - x.mean(0))) == pytest.approx(np.trace(np.cov(x.T)))
    assert frechet(x @ turn + 5, y @ turn + 5) == pytest.approx(frechet(x, y))
    assert frechet(3 * x, 3 * y) == pytest.approx(9 * frechet(x, y))
    steps = [frechet(x, x + s * rng.normal(size=x.shape)) for s in (0.1, 0.5, 2.0)]
    assert steps == sorted(steps)


def test_the_frechet_table_equals_the_direct_form():
    rng = np.random.default_rng(11)
    clips = [rng.normal(size=(t, 30)) * 3 + 100 for t in (3, 5, 2, 4, 6)]
    table = FrechetTable.of(clips)
    for xs, ys in (([0, 1], [2, 3, 4]), ([0, 4], [1, 2]), ([0, 1], [0, 1])):
        direct = frechet(np.concatenate([clips[i] for i in xs]), np.concatenate([clips[i] for i in ys]))
        assert table.distance(xs, ys) == pytest.approx(direct, rel=1e-9, abs=1e-8)
    with pytest.raises(ScoreError, match="two clips"):
        table.distance([0], [1, 2])
    with pytest.raises(ScoreError, match="widths"):
        FrechetTable.of([np.zeros((2, 3)), np.zeros((2, 4))])


def test_the_level_of_a_set_against_itself_shrinks_with_n_and_repeats_exactly():
    clips = list(np.random.default_rng(1).normal(size=(400, 1, 30)))
    table = FrechetTable.of(clips)
    small = split_level(table.distance, range(400), sizes=(20, 20))
    assert small[0] > 4 * split_level(table.distance, range(400), sizes=(200, 200), repeats=5)[0] > 0
    assert split_level(table.distance, range(400), sizes=(20, 20)) == small
    assert split_level(table.distance, range(400), sizes=(20, 20), seed=1) != small
    fresh = np.random.default_rng(2).normal(size=(20, 30))
    assert frechet(fresh, np.concatenate(clips[:20])) == pytest.approx(small[0], rel=0.25)
    with pytest.raises(ScoreError, match="split"):
        split_level(table.distance, range(400), sizes=(300, 200))


def test_whole_clips_are_dealt_out():
    rng = np.random.default_rng(4)
    clips = [rng.normal(size=5) + 0.1 * rng.normal(size=(16, 5)) for _ in range(20)]
    frames = [row[None] for clip in clips for row in clip]
    by_clip = split_level(FrechetTable.of(clips).distance, range(20))[0]
    assert by_clip > 5 * split_level(FrechetTable.of(frames).distance, range(320), repeats=5)[0]


def test_cmmd_is_near_ten_times_the_squared_mean_difference():
    """With sigma 10 and rows of length 1 the kernel is all but linear (the published metric's own weakness)."""
    rng = np.random.default_rng(12)
    x, y = rng.normal(size=(60, 16)) + 0.5, rng.normal(size=(50, 16))
    table = KernelTable.of([row[None] for row in (*x, *y)], kernel=gaussian)
    found = table.distance(range(60), range(60, 110))
    unit = [rows / np.linalg.norm(rows, axis=1, keepdims=True) for rows in (x, y)]
    # Unbiased squared distance of the means: like pairs without the diagonal.
    inner = [((rows.sum(0) ** 2).sum() - len(rows)) / (len(rows) * (len(rows) - 1)) for rows in unit]
    linear = inner[0] + inner[1] - 2 * unit[0].mean(0) @ unit[1].mean(0)
    assert found == pytest.approx(10 * linear, rel=0.02)


def test_kid_hand_case():
    assert kid([[1, 0], [0, 1]], [[1, 1], [0, 0]]) == pytest.approx(-2.375, abs=1e-12)


def test_kid_matches_the_population_value():
    rng = np.random.default_rng(5)
    d = 3
    m, n = np.array([0.5, -0.2, 0.1]), np.array([-0.3, 0.4, 0.6])
    s, r = np.diag([1.0, 0.5, 2.0]), np.array([[1.0, 0.3, 0], [0.3, 1, 0], [0, 0, 0.4]])

    def expected_kernel(m, s, n, r):
        e1 = m @ n
        e2 = np.trace((s + np.outer(m, m)) @ (r + np.outer(n, n)))
        e3 = e1**3 + 3 * e1 * (m @ r @ m + n @ s @ n + np.trace(s @ r)) + 6 * m @ r @ s @ n
        return 1 + 3 * e1 / d + 3 * e2 / d**2 + e3 / d**3

    truth = expected_kernel(m, s, m, s) + expected_kernel(n, r, n, r) - 2 * expected_kernel(m, s, n, r)
    runs = [kid(rng.multivariate_normal(m, s, 40), rng.multivariate_normal(n, r, 60)) for _ in range(300)]
    assert np.mean(runs) == pytest.approx(truth, abs=4 * np.std(runs) / np.sqrt(300))
    assert np.std(runs) / np.sqrt(300) < 0.25 * truth


def test_blocking_removes_the_leak_within_clips():
    rng = np.random.default_rng(6)

    def clips():
        return [0.95 * rng.normal(size=20) + 0.3 * rng.normal(size=(8, 20)) for _ in range(8)]

    naive, blocked = [], []
    for _ in range(60):
        x, y = clips(), clips()
        naive.append(kid(np.concatenate(x), np.concatenate(y)))
        blocked.append(kid_blocked(x, y))
    error = np.std(blocked) / np.sqrt(60)
    assert abs(np.mean(blocked)) < 3 * error
    assert np.mean(naive) > 10 * error


def test_kid_table_equals_the_direct_form_for_uneven_clips():
    rng = np.random.default_rng(7)
    x = [rng.normal(size=(t, 6)) for t in (3, 5, 2)]
    y = [rng.normal(size=(t, 6)) + 0.5 for t in (4, 1)]
    direct = kid(np.concatenate(x), np.concatenate(y), blocks_x=list("aaabbbbbcc"), blocks_y=list("aaaab"))
    assert kid_blocked(x, y) == pytest.approx(direct)
    table = KernelTable.of([*x, *y])
    assert table.distance([3, 4], [0, 1, 2]) == pytest.approx(direct)
    with pytest.raises(ScoreError, match="two clips"):
        table.distance([0], [1, 2])


def test_shared_blocks_leave_out_the_same_shot():
    rng = np.random.default_rng(8)
    shots = rng.normal(size=(12, 10))
    labels = list(range(12))
    copy = shots + 0.01 * rng.normal(size=shots.shape)
    # Every row of one set has its twin in the other: those pairs pull KID below zero unless they are left out.
    assert kid(shots, copy) < -0.2
    assert kid(shots, copy, blocks_x=labels, blocks_y=labels, shared_blocks=True) == pytest.approx(0, abs=0.05)


def test_bad_features_are_refused():
    good = np.ones((4, 3))
    for bad in (np.ones(4), np.full((4, 3), np.nan), np.ones((1, 3)), np.ones((4, 2))):
        with pytest.raises(ScoreError):
            frechet(good, bad)
    for bad in (np.ones(4), np.full((4, 3), np.nan), np.ones((4, 2))):
        with pytest.raises(ScoreError):
            kid(good, bad)
    with pytest.raises(ScoreError, match="one clip"):
        kid(good, good, blocks_x=[0] * 4)
    with pytest.raises(ScoreError, match="labels"):
        kid(good, good, blocks_x=[0] * 3)


def test_a_shot_is_not_held_against_its_own_truth():
    rng = np.random.default_rng(9)
    truths = [rng.normal(size=(4, 10)) for _ in range(8)]
    shots = [truth + 0.01 * rng.normal(size=truth.shape) for truth in truths]
    names = [str(i) for i in range(8)]
    bare = KernelTable.of([*shots, *truths]).distance(range(8), range(8, 16))
    apart = KernelTable.of([*shots, *truths], shots=names * 2).distance(range(8), range(8, 16))
    assert bare < -0.2
    assert apart == pytest.approx(0, abs=0.05)
    by_hand = kid(
        np.concatenate(shots), np.concatenate(truths), blocks_x=np.repeat(names, 4).tolist(),
        blocks_y=np.repeat(names, 4).tolist(), shared_blocks=True,
    )  # fmt: skip
    assert apart == pytest.approx(by_hand, rel=1e-9)
    with pytest.raises(ScoreError, match="same scene"):
        KernelTable.of([*shots[:1] * 2, *truths[:1] * 2], shots=["0"] * 4).distance([0, 1], [2, 3])
