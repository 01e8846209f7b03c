"""The table of metrics: every row gives a number when its needs are met, a reason when they are not, and points the
right way.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from cinetune.metrics import ClipMaps
from cinetune.metrics.suite import METRICS, Evidence, Semantics, cloud, embed, embed_text, measure
from cinetune.models.wan import pocket
from small_project import moving_picture

WORDS = ("barn", "hill", "rain", "dusk")


@pytest.fixture(scope="module")
def parts() -> pocket.Parts:
    made = pocket.fresh(WORDS, seed=0)
    made.clip.eval()
    return made


@pytest.fixture(scope="module")
def evidence(parts: pocket.Parts) -> Evidence:
    shot, truth, film = moving_picture(1), moving_picture(1, warmth=0.1), moving_picture(5, warmth=0.1)
    return Evidence(
        frames_THWC=shot,
        cloud_N3=cloud(shot),
        film_N3=cloud(film),
        truth_THWC=truth,
        clip=Semantics(
            frames_TD=embed(parts.clip, shot),
            text_D=embed_text(parts.clip, parts.tokenizer, ["barn at dusk"])[0],
            film_ND=embed(parts.clip, film),
            net=ClipMaps(parts.clip),
        ),
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
    bare = Evidence(frames_THWC=evidence.frames_THWC, cloud_N3=evidence.cloud_N3)
    found = measure(bare)
    assert {name for name, (value, _) in found.items() if value is not None} == {"motion", "luma_flicker", "still"}
    assert found["tone_w1"][1] == "the film has no training windows"
    assert found["lpips"][1] == "no truth is known for these shots"
    assert found["clip_text"][1] == "no CLIP is installed"
    assert found["seam_ratio"][1] == "the shots are one segment long"
    short = replace(evidence, frames_THWC=evidence.frames_THWC[:2], truth_THWC=None)
    assert measure(short)["luma_flicker"][0] is None and "frames" in measure(short)["luma_flicker"][1]


def test_the_truth_itself_scores_best_where_there_is_a_truth(evidence: Evidence) -> None:
    assert evidence.truth_THWC is not None
    found = measure(replace(evidence, frames_THWC=evidence.truth_THWC, cloud_N3=cloud(evidence.truth_THWC)))
    for name in ("colour_error", "lpips", "tlp", "motion_error"):
        assert found[name][0] == pytest.approx(0, abs=1e-6)
        assert (measure(evidence)[name][0] or 0) > 1e-4 or name == "motion_error"


def test_a_grade_like_the_films_is_nearer_to_it(evidence: Evidence) -> None:
    warm = moving_picture(1, warmth=0.1)
    near, far = measure(replace(evidence, frames_THWC=warm, cloud_N3=cloud(warm))), measure(evidence)
    for name in ("lab_frechet", "split_tone", "palette"):
        assert (near[name][0] or 0) < (far[name][0] or 0)


def test_a_frozen_shot_is_still_and_moves_less_than_its_truth(evidence: Evidence) -> None:
    frozen = np.repeat(evidence.frames_THWC[:1], 9, axis=0)
    found = measure(replace(evidence, frames_THWC=frozen))
    assert found["still"][0] == 1 and found["motion"][0] == 0
    assert (found["motion_error"][0] or 0) > 1 > (measure(evidence)["motion_error"][0] or 0)


def test_a_truth_longer_than_the_shot_is_cut(evidence: Evidence) -> None:
    longer = replace(evidence, truth_THWC=moving_picture(1, frames=13, warmth=0.1))
    assert measure(longer)["colour_error"] == measure(evidence)["colour_error"]


def test_features_leave_out_the_given_frame(parts: pocket.Parts) -> None:
    film = moving_picture(1)
    changed = film.copy()
    changed[0] = 0
    assert embed(parts.clip, film).shape == (2, 64)
    assert np.array_equal(embed(parts.clip, film), embed(parts.clip, changed))
    assert embed(parts.clip, film[:1]).shape == (1, 64)


def test_a_long_prompt_is_cut_by_the_tokenizer(parts: pocket.Parts) -> None:
    with torch.no_grad():
        rows = embed_text(parts.clip, parts.tokenizer, ["barn " * 200, "barn"])
    assert rows.shape == (2, 64) and np.isfinite(rows).all()
