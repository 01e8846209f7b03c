"""Planted copies are found, new clips are not, and the base model is the control."""

import numpy as np
import pytest
from scipy import stats as scipy_stats

from cinetune.errors import ScoreError
from cinetune.metrics import conformal_p, copying_limit, leave_one_scene_out, nearest_training, training_neighbours

D, SCENES = 24, 32


@pytest.fixture(scope="module")
def film():
    rng = np.random.default_rng(0)
    middle = rng.normal(size=D)
    return [middle + rng.normal(size=D) + 0.2 * rng.normal(size=(6, D)) for _ in range(2 * SCENES)], middle


def scene_names() -> list[str]:
    return [f"s{i % SCENES}" for i in range(2 * SCENES)]


def test_nearest_neighbour_names_the_frame(film):
    training, _ = film
    probe = np.random.default_rng(1).normal(size=(4, D))
    probe[2] = 3 * training[17][5]
    found = nearest_training(probe, training)
    assert (found.frame, found.clip, found.clip_frame) == (2, 17, 5)
    assert found.similarity == pytest.approx(1)


def test_calibration_never_compares_a_scene_with_itself():
    rng = np.random.default_rng(2)
    scenes = [rng.normal(size=(3, D)) for _ in range(3)]
    twice = [clip for clip in scenes for _ in range(2)]
    names = [name for name in "abc" for _ in range(2)]
    calibration = leave_one_scene_out(twice, names)
    assert calibration.shape == (3,) and calibration.max() < 0.95
    expected = nearest_training(scenes[0], scenes[1:]).similarity
    assert calibration[0] == pytest.approx(expected)


def test_conformal_p_by_hand():
    assert conformal_p(0.9, [0.1, 0.5, 0.9]) == 0.5
    assert conformal_p(1.0, [0.1, 0.5, 0.9]) == 0.25
    assert conformal_p(0.0, [0.1, 0.5, 0.9]) == 1


def test_planted_copies_are_suspect_and_new_clips_are_not(film):
    training, middle = film
    rng = np.random.default_rng(3)
    novel = [middle + rng.normal(size=D) + 0.2 * rng.normal(size=(6, D)) for _ in range(10)]
    base = [middle + rng.normal(size=D) + 0.2 * rng.normal(size=(6, D)) for _ in range(13)]
    copies = [training[i] + 0.02 * rng.normal(size=(6, D)) for i in (3, 40, 63)]
    found = training_neighbours([*copies, *novel], base, training, scenes=scene_names())
    assert [f.suspect for f in found[:3]] == [True] * 3
    assert all(f.p == pytest.approx(1 / (SCENES + 1)) and f.excess > 0 for f in found[:3])
    assert [f.look.clip for f in found[:3]] == [3, 40, 63]
    assert sum(f.suspect for f in found[3:]) <= 1


def test_a_copy_that_the_base_makes_too_is_not_blamed_on_the_look(film):
    training, _ = film
    found = training_neighbours([training[0][:3]], [training[0][:3]], training, scenes=scene_names())
    assert found[0].excess == 0 and not found[0].suspect


def test_a_page_of_new_clips_is_seldom_suspected(film):
    """100 pages of a look that copies nothing, 16 shots each, 12 scenes: one page in twenty at most, and 9 of 100 is
    what chance makes of that (p = .05). By the rank among scenes alone most pages would be.
    """
    _, middle = film
    rng = np.random.default_rng(6)
    suspected = ranked = 0
    for _ in range(100):
        clips = [middle + rng.normal(size=D) + 0.2 * rng.normal(size=(2, D)) for _ in range(12 + 32)]
        training, look, base = clips[:12], clips[12:28], clips[28:]
        found = training_neighbours(look, base, training, scenes=[f"s{i}" for i in range(12)])
        suspected += any(one.suspect for one in found)
        ranked += any(one.p <= 1 / 13 and one.excess > 0 for one in found)
    assert suspected <= 9 and ranked > 50


def test_the_limit_rises_with_the_number_of_shots_and_holds_for_one():
    """One probe: the 95 % quantile of the distribution that the cosines come from, which scipy knows."""
    nearest = scipy_stats.gumbel_r(1.0, 0.1)
    calibration = np.tanh(nearest.rvs(4000, random_state=7))
    assert np.arctanh(copying_limit(calibration, probes=1)) == pytest.approx(nearest.ppf(0.95), abs=0.02)
    limits = [copying_limit(calibration[:12], probes=count) for count in (1, 16, 96)]
    assert limits == sorted(limits) and limits[-1] < 1
    with pytest.raises(ScoreError, match="2 scenes"):
        copying_limit([0.1, 0.2], probes=1)


def test_new_scenes_get_uniform_p(film):
    training, middle = film
    calibration = leave_one_scene_out(training, scene_names())
    rng = np.random.default_rng(4)
    p = [
        conformal_p(
            nearest_training(middle + rng.normal(size=D) + 0.2 * rng.normal(size=(6, D)), training).similarity,
            calibration,
        )
        for _ in range(200)
    ]
    assert np.mean(np.asarray(p) <= 0.1) < 0.2 and 0.35 < np.mean(p) < 0.65


def test_bad_input_is_refused(film):
    training, _ = film
    with pytest.raises(ScoreError, match="two scenes"):
        leave_one_scene_out(training[:2], ["a", "a"])
    with pytest.raises(ScoreError, match="scene names"):
        leave_one_scene_out(training[:2], ["a"])
    with pytest.raises(ScoreError, match="base clips"):
        training_neighbours(training[:1], [], training, scenes=scene_names())
    with pytest.raises(ScoreError, match="no training"):
        nearest_training(training[0], [])
