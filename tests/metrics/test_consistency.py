"""Shots of one scene: what the spread is, and that it grows with what pulls them apart."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.linalg import sqrtm
from skimage.color import rgb2lab

from cinetune.errors import ScoreError
from cinetune.metrics import scene_spread

RNG = np.random.default_rng(0)
SHOTS = [0.2 + 0.6 * RNG.random((3, 12, 16, 3)) * RNG.uniform(0.5, 1, 3) for _ in range(3)]


def test_it_is_the_mean_over_pairs_of_what_others_compute() -> None:
    found = scene_spread(SHOTS)
    clouds = [rgb2lab(shot).reshape(-1, 3) for shot in SHOTS]
    light, palette = [], []
    for a, b in ((0, 1), (0, 2), (1, 2)):
        x, y = clouds[a], clouds[b]
        light.append(abs(x[:, 0].mean() - y[:, 0].mean()))
        s, t = np.cov(x.T), np.cov(y.T)
        root = np.asarray(sqrtm(s))
        cross = np.real(np.asarray(sqrtm(root @ t @ root)))
        palette.append(np.sqrt(((x.mean(0) - y.mean(0)) ** 2).sum() + np.trace(s + t - 2 * cross)))
    assert found.pairs == 3
    assert found.light == pytest.approx(np.mean(light), rel=1e-3)
    assert found.palette == pytest.approx(np.mean(palette), rel=1e-3)
    again = scene_spread(SHOTS[::-1])
    assert (again.light, again.palette) == pytest.approx((found.light, found.palette))


def test_a_shot_in_another_light_or_colour_pulls_the_scene_apart() -> None:
    same = scene_spread([SHOTS[0]] * 3)
    assert same.light == 0 and same.palette == pytest.approx(0, abs=1e-4)
    darker = scene_spread([SHOTS[0], SHOTS[0], SHOTS[0] * 0.7])
    warmer = scene_spread([SHOTS[0], SHOTS[0], np.clip(SHOTS[0] * [1.15, 1, 0.8], 0, 1)])
    assert darker.light > 5 and warmer.palette > 3 and warmer.light < darker.light


def test_one_shot_is_no_scene() -> None:
    with pytest.raises(ScoreError, match="1 shots"):
        scene_spread(SHOTS[:1])
