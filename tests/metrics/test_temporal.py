"""Temporal measures on clips whose motion, flicker and seams are known because the test makes them."""

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter, shift

from cinetune.errors import ScoreError
from cinetune.metrics import colour_drift, luma_flicker, motion, seam_ratios, stillness


def pan(speed: float, *, t: int = 7) -> np.ndarray:
    """A soft texture that slides by `speed` pixels a frame, 64 x 96."""
    texture = gaussian_filter(np.random.default_rng(0).random((64, 200)), 2.5)
    texture = (texture - texture.min()) / (texture.max() - texture.min())
    frames = [shift(texture, (0, -speed * i), order=3, mode="grid-wrap")[:, :96] for i in range(t)]
    return np.repeat(np.clip(np.stack(frames), 0, 1)[..., None], 3, axis=-1)


def pulsed(x: np.ndarray, amount: float) -> np.ndarray:
    return np.clip(x * (1 + amount * (-1.0) ** np.arange(len(x)))[:, None, None, None], 0, 1)


def test_flicker_separates_pulsing_from_motion_and_fades():
    calm, fast = luma_flicker(pan(0)), luma_flicker(pan(2))
    assert (calm.frame, calm.tile) == (0, 0)
    values = [luma_flicker(pulsed(pan(2), amount)).frame for amount in (0, 0.01, 0.03)]
    assert values == sorted(values) and values[2] > 5 * fast.frame
    fade = np.ones((6, 8, 8, 3)) * np.linspace(0.1, 0.9, 6)[:, None, None, None]
    assert luma_flicker(fade).frame < 0.15 * luma_flicker(pulsed(fade, 0.1)).frame


def test_tiles_see_flicker_that_cancels_over_the_frame():
    x = np.full((6, 16, 16, 3), 0.5)
    sign = 0.02 * (-1.0) ** np.arange(6)[:, None, None, None]
    x[:, :8] += sign
    x[:, 8:] -= sign
    score = luma_flicker(x)
    assert score.tile > 50 * score.frame
    with pytest.raises(ScoreError, match="too few"):
        luma_flicker(x[:2])


def test_motion_speed_is_proportional_and_deaf_to_exposure_contrast_and_grain():
    speeds = [motion(pan(v)).speed for v in (0, 0.25, 0.5, 1.0)]
    assert speeds[0] == 0
    assert speeds[2] == pytest.approx(2 * speeds[1], rel=0.05) and speeds[3] == pytest.approx(2 * speeds[2], rel=0.1)
    true = 0.5 / 64 * 100
    assert 0.5 * true < speeds[2] < 1.05 * true
    assert motion(pan(0.5) * 0.4 + 0.3).speed == pytest.approx(speeds[2])
    exposure = 0.05 * (-1.0) ** np.arange(7)[:, None, None, None]
    assert motion(pan(0.5) * 0.8 + 0.1 + exposure).speed == pytest.approx(speeds[2], rel=0.05)
    grain = np.random.default_rng(1).normal(0, 0.02, pan(0).shape)
    assert motion(np.clip(pan(0.5) + grain, 0, 1)).speed == pytest.approx(speeds[2], rel=0.1)
    assert motion(np.full((3, 8, 8, 3), 0.5)).speed == 0


def test_mean_difference_by_hand():
    x = np.zeros((3, 4, 4, 3))
    x[1] = 0.25
    assert motion(x).difference == pytest.approx(0.25)


def test_stillness_finds_frozen_clips_and_runs():
    assert stillness(pan(0)).frozen
    moving = stillness(pan(1))
    assert not moving.frozen and moving.share == 0 and moving.longest == 0
    stuck = np.concatenate([pan(1), np.repeat(pan(1)[-1:], 3, axis=0)])
    score = stillness(stuck)
    assert score.longest == 3 and score.share == pytest.approx(3 / 9) and not score.frozen
    rounding = np.clip(pan(0) + np.random.default_rng(2).uniform(-0.5, 0.5, pan(0).shape) / 255, 0, 1)
    assert stillness(rounding).frozen


def test_seam_ratio_is_one_for_a_smooth_join_and_grows_with_a_jump():
    x = pan(1, t=12)
    assert seam_ratios(x, [6])[0] == pytest.approx(1, rel=0.1)
    jumps = []
    for jump in (0.05, 0.1, 0.2):
        y = x * 0.7
        y[6:] += jump
        jumps.append(seam_ratios(y, [6])[0])
    assert jumps == sorted(jumps) and jumps[0] > 1.5
    assert seam_ratios(np.full((5, 4, 4, 3), 0.5), [2])[0] == 0
    for seams in ([0], [12]):
        with pytest.raises(ScoreError, match="outside"):
            seam_ratios(x, seams)
    with pytest.raises(ScoreError, match="every step"):
        seam_ratios(x[:2], [1])


def test_colour_drift_starts_at_zero_and_grows():
    x = pan(0, t=5) * np.array([1, 0.8, 0.6])
    drifting = np.clip(x + np.linspace(0, 0.1, 5)[:, None, None, None] * np.array([1, 0, -1]), 0, 1)
    drift = colour_drift(drifting)
    assert drift.shape == (5,) and drift[0] == 0 and (np.diff(drift) > 0).all()
    assert np.abs(colour_drift(x)).max() == 0
