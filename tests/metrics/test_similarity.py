"""CLIP-SIM and LPIPS formulas against hand values and laws."""

import math

import numpy as np
import pytest
import torch

from cinetune.errors import ScoreError
from cinetune.metrics import (
    frame_similarity,
    lpips_curve,
    perceptual_distance,
    reference_similarity,
    text_similarity,
    tlp,
)


class Raw:
    """The frame itself as the only map: distances can be worked out by hand."""

    channel_weights = None

    def __call__(self, frames_TCHW: torch.Tensor) -> list[torch.Tensor]:
        return [frames_TCHW]


def test_cosines_by_hand_and_scale_free():
    frames = [[2.0, 0], [0, 5], [1, 2]]
    near, far = 2 / math.sqrt(5), 1 / math.sqrt(5)
    assert text_similarity(frames, [3, 0]) == pytest.approx((1 + 0 + far) / 3)
    assert frame_similarity(frames) == pytest.approx(near / 2)
    assert frame_similarity([[1.0, 2]] * 4) == pytest.approx(1)
    score = reference_similarity(frames, [[1, 0], [0, 9]])
    assert score.mean == pytest.approx((1 + 1 + near + far) / 6)
    assert score.highest == pytest.approx((1 + 1 + near) / 3)


def test_cosines_refuse_what_has_no_cosine():
    with pytest.raises(ScoreError, match="zero"):
        frame_similarity([[0.0, 0], [1, 1]])
    with pytest.raises(ScoreError, match="too few"):
        frame_similarity([[1.0, 1]])
    with pytest.raises(ScoreError, match="widths"):
        text_similarity([[1.0, 1]], [1, 1, 1])


def test_perceptual_distance_by_hand():
    x = torch.tensor([1.0, 0]).view(1, 2, 1, 1).expand(1, 2, 2, 2)
    y = torch.tensor([0, 7.0]).view(1, 2, 1, 1).expand(1, 2, 2, 2)
    assert perceptual_distance([x], [y]).item() == pytest.approx(2)
    assert perceptual_distance([x], [-x]).item() == pytest.approx(4)
    assert perceptual_distance([x], [3 * x]).item() == pytest.approx(0)
    assert perceptual_distance(
        [x, x], [y, y], [torch.tensor([0.5, 0.25]), torch.tensor([1.0, 0])]
    ).item() == pytest.approx(1.75)
    half = torch.cat([x[..., :1], y[..., 1:]], dim=-1)
    assert perceptual_distance([x], [half]).item() == pytest.approx(1)


def test_lpips_curve_is_per_frame_whatever_the_chunk():
    torch.manual_seed(0)
    x, y = torch.rand(7, 3, 8, 8) * 2 - 1, torch.rand(7, 3, 8, 8) * 2 - 1
    curve = lpips_curve(Raw(), x, y)
    assert curve.shape == (7,) and curve.dtype == np.float64
    np.testing.assert_array_equal(curve, lpips_curve(Raw(), x, y, chunk=3))
    assert lpips_curve(Raw(), x[2:3], y[2:3])[0] == pytest.approx(curve[2])
    assert np.abs(lpips_curve(Raw(), x, x)).max() == 0
    noise = torch.randn_like(x)
    means = [lpips_curve(Raw(), x, x + s * noise).mean() for s in (0.05, 0.2, 0.8)]
    assert means == sorted(means) and means[0] > 0


def test_tlp_sees_freezing_and_flicker_alike():
    torch.manual_seed(1)
    base = torch.rand(1, 3, 8, 8) * 2 - 1
    drift = torch.randn(1, 3, 8, 8)
    real = torch.cat([base + 0.1 * t * drift for t in range(6)])
    frozen = base.expand_as(real)
    busy = torch.cat([base + 0.1 * t * drift + 0.5 * (-1) ** t for t in range(6)])
    assert tlp(Raw(), real, real) == 0
    assert tlp(Raw(), frozen, real) > 0
    assert tlp(Raw(), busy, real) > tlp(Raw(), frozen, real)


def test_mismatches_are_refused():
    x = torch.ones(2, 3, 4, 4)
    with pytest.raises(ScoreError, match="shape"):
        lpips_curve(Raw(), x, x[:1])
    with pytest.raises(ScoreError, match="channel weights"):
        perceptual_distance([x], [x], [torch.ones(3), torch.ones(3)])
    with pytest.raises(ScoreError, match="channels"):
        perceptual_distance([x], [x], [torch.ones(4)])
    with pytest.raises(ScoreError, match="compared"):
        perceptual_distance([x, x], [x])
