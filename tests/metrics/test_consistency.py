"""Shots of one scene: what the spread is, and that it grows with what pulls them apart."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy.linalg import sqrtm
from scipy.spatial.distance import cosine
from skimage.color import rgb2lab

from cinetune.errors import ScoreError
from cinetune.metrics import scene_spread, subject_likeness

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


def test_subjects_are_alike_as_the_cosines_of_their_mean_directions() -> None:
    shots = [RNG.normal(1, 1, (frames, 24)) for frames in (3, 5, 1)]
    means = [np.mean([row / np.sqrt((row**2).sum()) for row in shot], axis=0) for shot in shots]
    pairs = [1 - cosine(means[a], means[b]) for a, b in ((0, 1), (0, 2), (1, 2))]
    assert subject_likeness(shots) == pytest.approx(np.mean(pairs), rel=1e-9)
    assert subject_likeness(shots[::-1]) == pytest.approx(np.mean(pairs), rel=1e-9)
    assert subject_likeness([100 * shot for shot in shots]) == pytest.approx(np.mean(pairs), rel=1e-9)


def test_a_shot_is_its_own_twin_and_another_subject_is_less_the_more_of_it_there_is() -> None:
    one, other = RNG.normal(size=(4, 16)), RNG.normal(size=(4, 16))
    assert subject_likeness([one, one, one]) == pytest.approx(1, abs=1e-12)
    found = [subject_likeness([one, (1 - share) * one + share * other]) for share in np.linspace(0, 1, 9)]
    assert all(later < earlier for earlier, later in itertools.pairwise(found)) and found[-1] < 0.8
    assert subject_likeness([one, -one]) == pytest.approx(-1, abs=1e-12)


@pytest.mark.parametrize("bad", [np.zeros((2, 8)), np.full((2, 8), np.nan), np.array([[1.0, 0], [-1.0, 0]])])
def test_features_without_a_direction_are_refused(bad: np.ndarray) -> None:
    with pytest.raises(ScoreError, match="no direction"):
        subject_likeness([np.ones((2, bad.shape[1])), bad])
    with pytest.raises(ScoreError, match="1 shots"):
        subject_likeness([np.ones((2, 8))])
