"""Re-grades: named by seed, window and variant; inside their ranges; identity where every range is the identity."""

from __future__ import annotations

import numpy as np
import pytest

from cinetune.errors import ModelError
from cinetune.sections import AugmentSection
from cinetune.training.augment import Grade, apply_grade, draw_grade, regrade

IDENTITY = AugmentSection(saturation=(1, 1), gain=(1, 1), offset=(0, 0), gamma=(1, 1))


@pytest.fixture
def frame() -> np.ndarray:
    return np.random.default_rng(0).random((8, 10, 3), dtype=np.float32)


def test_identity_ranges_change_nothing(frame: np.ndarray) -> None:
    np.testing.assert_allclose(regrade(frame, IDENTITY, seed=0, window="w", variant=1), frame, atol=1e-6)


def test_named_by_seed_window_and_variant(frame: np.ndarray) -> None:
    ranges = AugmentSection(grain=0.05, blur=1.0)
    one = regrade(frame, ranges, seed=0, window="w", variant=1)
    np.testing.assert_array_equal(one, regrade(frame, ranges, seed=0, window="w", variant=1))
    for seed, window, variant in ((1, "w", 1), (0, "v", 1), (0, "w", 2)):
        assert not np.array_equal(one, regrade(frame, ranges, seed=seed, window=window, variant=variant))


def test_result_is_a_picture(frame: np.ndarray) -> None:
    wild = AugmentSection(saturation=(0, 5), gain=(0.2, 3), offset=(-0.8, 0.8), gamma=(0.2, 4), grain=0.5)
    for variant in range(1, 9):
        out = regrade(frame, wild, seed=0, window="w", variant=variant)
        assert out.dtype == np.float32
        assert out.shape == frame.shape
        assert out.min() >= 0
        assert out.max() <= 1


def test_each_control_does_what_it_says(frame: np.ndarray) -> None:
    random = np.random.default_rng(0)
    luma = frame @ np.array([0.2126, 0.7152, 0.0722])
    grey = apply_grade(frame, Grade(saturation=0), random)
    np.testing.assert_allclose(grey, np.repeat(luma[..., None], 3, axis=2), atol=1e-5)
    np.testing.assert_allclose(apply_grade(frame, Grade(gamma=2), random), frame**2, atol=1e-5)
    gained = apply_grade(frame, Grade(gain=(0.5, 1, 1), offset=(0, 0.1, 0)), random)
    np.testing.assert_allclose(gained[..., 0], frame[..., 0] / 2, atol=1e-6)
    np.testing.assert_allclose(gained[..., 1], np.minimum(frame[..., 1] + 0.1, 1), atol=1e-6)
    assert apply_grade(frame, Grade(blur=2), random).std() < frame.std() / 2
    noise = apply_grade(np.full((64, 64, 3), 0.5, np.float32), Grade(grain=0.05), random)
    assert noise.std() == pytest.approx(0.05, rel=0.1)


def test_draws_stay_inside_their_ranges() -> None:
    ranges = AugmentSection(grain=0.02, blur=0.7)
    random = np.random.default_rng(0)
    grades = [draw_grade(ranges, random) for _ in range(200)]
    saturations = [grade.saturation for grade in grades]
    assert 0.85 <= min(saturations) < 0.9
    assert 1.35 < max(saturations) <= 1.4
    assert all(0.94 <= gain <= 1.07 for grade in grades for gain in grade.gain)
    assert all(-0.05 <= offset <= 0.05 for grade in grades for offset in grade.offset)
    assert len({grade.gain[0] - grade.gain[1] for grade in grades}) == 200  # channels are drawn apart
    assert max(grade.grain for grade in grades) <= 0.02
    assert max(grade.blur for grade in grades) <= 0.7


def test_a_video_is_refused() -> None:
    with pytest.raises(ModelError, match=r"must be \[H, W, 3\]"):
        regrade(np.zeros((2, 4, 4, 3), np.float32), IDENTITY, seed=0, window="w", variant=1)
