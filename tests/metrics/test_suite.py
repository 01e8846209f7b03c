"""The table of metrics: every row gives a number when its needs are met, a reason when they are not, and points the
right way.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from cinetune.metrics import ClipMaps
from cinetune.metrics.networks import FeatureNet, wrap_clip
from cinetune.metrics.suite import (
    METRICS,
    ClipReading,
    Evidence,
    Semantics,
    apart,
    cloud,
    curve,
    measure,
    picked,
    signed,
)
from cinetune.models.wan import pocket
from small_project import moving_picture

WORDS = ("barn", "hill", "rain", "dusk")


@pytest.fixture(scope="module")
def net() -> FeatureNet:
    made = pocket.fresh(WORDS, seed=0)
    return wrap_clip(made.clip.eval(), tokenizer=made.tokenizer, sha256="0", title="untrained pocket")


def embed(net: FeatureNet, frames: np.ndarray) -> np.ndarray:
    return net.frames(signed(picked(frames)))


@pytest.fixture(scope="module")
def evidence(net: FeatureNet) -> Evidence:
    shot, truth, film = moving_picture(1), moving_picture(1, warmth=0.1), moving_picture(5, warmth=0.1)
    words = net.text(["barn at dusk"])
    assert words is not None
    return Evidence(
        shot=ClipReading(shot),
        cloud_N3=cloud(shot),
        film_N3=cloud(film),
        truth=ClipReading(truth),
        clip=Semantics(
            frames_TD=embed(net, shot),
            text_D=words[0],
            film_ND=embed(net, film),
            truth_TD=embed(net, truth),
        ),
        net=ClipMaps(net.model),
        twin_THWC=film,
        drift=1.5,
        seam_ratio=1.1,
    )


def test_names_are_unique_and_every_row_gives_a_number(evidence: Evidence) -> None:
    assert len({row.name for row in METRICS}) == len(METRICS)
    found = measure(evidence)
    assert [name for name, (value, why) in found.items() if value is None or why] == []
    assert all(np.isfinite(value) for value, _ in found.values() if value is not None)
    assert found["drift"][0] == 1.5 and found["seam_ratio"][0] == 1.1


def test_what_is_not_known_is_none_with_the_reason(evidence: Evidence) -> None:
    bare = Evidence(shot=evidence.shot, cloud_N3=evidence.cloud_N3)
    found = measure(bare)
    assert {name for name, (value, _) in found.items() if value is not None} == {"motion", "luma_flicker", "still"}
    assert found["tone_w1"][1] == "the film has no training windows"
    assert found["lpips"][1] == "no truth is known for these shots"
    assert found["clip_text"][1] == "no feature network is here"
    assert found["seam_ratio"][1] == "the shots are one segment long"
    short = replace(evidence, shot=ClipReading(evidence.shot.frames_THWC[:2]), truth=None)
    assert measure(short)["luma_flicker"][0] is None and "frames" in measure(short)["luma_flicker"][1]


def test_the_truth_itself_scores_best_where_there_is_a_truth(evidence: Evidence) -> None:
    assert evidence.truth is not None
    found = measure(replace(evidence, shot=evidence.truth, cloud_N3=cloud(evidence.truth.frames_THWC)))
    for name in ("colour_error", "lpips", "tlp", "motion_error", "warp_error", "flicker_error"):
        assert found[name][0] == pytest.approx(0, abs=1e-6)
        assert (measure(evidence)[name][0] or 0) > 1e-4 or name in ("motion_error", "warp_error", "flicker_error")
    for name in ("structure", "gradients"):
        assert found[name][0] == pytest.approx(1, abs=1e-9)


def test_a_blur_costs_structure_and_a_grade_does_not(evidence: Evidence) -> None:
    assert evidence.truth is not None
    soft = gaussian_filter(evidence.truth.frames_THWC, (0, 2, 2, 0))
    blurred, graded = measure(replace(evidence, shot=ClipReading(soft))), measure(evidence)
    for name in ("structure", "gradients"):
        assert (blurred[name][0] or 0) < (graded[name][0] or 0) - 0.001, name


def test_every_row_repeats_exactly(evidence: Evidence) -> None:
    again = replace(
        evidence, shot=ClipReading(evidence.shot.frames_THWC.copy()), cloud_N3=cloud(evidence.shot.frames_THWC.copy())
    )  # fmt: skip
    assert measure(again) == measure(evidence)


def test_content_is_the_mean_cosine_with_the_truth(evidence: Evidence) -> None:
    assert evidence.clip is not None
    frames = np.array([[1.0, 0.0], [3.0, 4.0], [0.0, 2.0]])
    truth = np.array([[2.0, 0.0], [4.0, 3.0]])
    clip = replace(evidence.clip, frames_TD=frames, truth_TD=truth, text_D=None, film_ND=None)
    assert measure(replace(evidence, clip=clip))["content"][0] == pytest.approx((1 + 24 / 25) / 2)


def test_structure_without_a_truth_is_held_against_the_twin(evidence: Evidence) -> None:
    own = evidence.shot.frames_THWC
    assert measure(replace(evidence, twin_THWC=own))["structure_kept"][0] == pytest.approx(1, abs=1e-9)
    films = [ClipReading(film) for film in (own**1.1, gaussian_filter(own, (0, 2, 2, 0)))]
    kept = [measure(replace(evidence, shot=film, twin_THWC=own)) for film in films]
    assert 1 > (kept[0]["structure_kept"][0] or 0) > (kept[1]["structure_kept"][0] or 0)


def test_the_curve_is_the_distance_frame_by_frame(evidence: Evidence) -> None:
    drawn = curve(evidence)
    assert len(drawn) == 8
    assert np.mean(drawn) == pytest.approx(measure(evidence)["lpips"][0])
    assert curve(replace(evidence, truth=None)) == ()


def test_a_truth_of_another_size_and_black_frames_give_a_reason(evidence: Evidence) -> None:
    assert evidence.truth is not None
    small = measure(replace(evidence, truth=ClipReading(evidence.truth.frames_THWC[:, :16])))
    for name in ("colour_error", "structure", "lpips", "motion_error"):
        assert small[name][0] is None and "differ in shape" in small[name][1], name
    black = evidence.shot.frames_THWC.copy()
    black[3] = 0
    found = measure(replace(evidence, shot=ClipReading(black)))
    assert found["structure"][0] is None and "black" in found["structure"][1]
    hole = evidence.shot.frames_THWC.copy()
    hole[2] = np.nan
    found = measure(replace(evidence, shot=ClipReading(hole)))
    assert {name for name, (value, _) in found.items() if value is not None and not np.isfinite(value)} == set()


def test_a_network_without_words_says_so(evidence: Evidence) -> None:
    assert evidence.clip is not None
    mute = replace(evidence, clip=replace(evidence.clip, text_D=None), missing={"text": "own has no text tower"})
    assert measure(mute)["clip_text"] == (None, "own has no text tower")


def test_a_grade_like_the_films_is_nearer_to_it(evidence: Evidence) -> None:
    warm = moving_picture(1, warmth=0.1)
    near, far = measure(replace(evidence, shot=ClipReading(warm), cloud_N3=cloud(warm))), measure(evidence)
    for name in ("lab_frechet", "split_tone", "palette"):
        assert (near[name][0] or 0) < (far[name][0] or 0)


def test_a_frozen_shot_is_still_and_moves_less_than_its_truth(evidence: Evidence) -> None:
    frozen = np.repeat(evidence.shot.frames_THWC[:1], 9, axis=0)
    found = measure(replace(evidence, shot=ClipReading(frozen)))
    assert found["still"][0] == 1 and found["motion"][0] == 0
    assert (found["motion_error"][0] or 0) > 1 > (measure(evidence)["motion_error"][0] or 0)


def test_a_truth_longer_than_the_shot_is_cut(evidence: Evidence) -> None:
    longer = replace(evidence, truth=ClipReading(moving_picture(1, frames=13, warmth=0.1)))
    assert measure(longer)["colour_error"] == measure(evidence)["colour_error"]


def test_features_leave_out_the_given_frame(net: FeatureNet) -> None:
    film = moving_picture(1)
    changed = film.copy()
    changed[0] = 0
    assert embed(net, film).shape == (2, 64)
    assert np.array_equal(embed(net, film), embed(net, changed))
    assert embed(net, film[:1]).shape == (1, 64)


def test_set_metrics_read_frames_eight_apart() -> None:
    numbers = np.arange(33, dtype=np.float32)[:, None, None, None]
    frames = picked(numbers).reshape(-1, 1).astype(np.float64)
    assert frames.ravel().tolist() == [4, 8, 12, 16, 20, 24, 28, 32]
    assert apart(frames).ravel().tolist() == [8, 16, 24, 32]
    assert len(apart(frames[:1])) == 1
