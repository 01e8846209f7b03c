"""The four ways to a keyframe, and the choice among candidates."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from cinetune.footage.read.stills import read_image, write_png16
from cinetune.generation import (
    Recipe,
    candidate_seed,
    film_clouds,
    fit_picture,
    generate,
    look_distance,
    make_candidate,
    pictures,
    plan_segments,
)
from cinetune.generation.keyframe import _late_picture, _unpinned
from cinetune.models.wan.wan21 import WanVideo
from small_project import moving_picture
from support import tiny_wan

RECIPE = Recipe(prompt="a barn at dusk", negative="", frames=9, steps=4, guidance=1.0, shift=3.0)


@pytest.fixture(scope="module")
def model() -> WanVideo:
    return tiny_wan()


@pytest.fixture(scope="module")
def reference() -> torch.Tensor:
    return torch.from_numpy(moving_picture(3, frames=1)[0])


def test_as_is_is_the_reference(model: WanVideo, reference: torch.Tensor) -> None:
    made = make_candidate("as-is", model, reference, RECIPE, seed=1, strength=0.5, film=None)
    assert torch.equal(made.picture_HWC, reference) and made.opening is None


def test_develop_keeps_the_first_segment_and_shows_its_first_picture(model: WanVideo, reference: torch.Tensor) -> None:
    made = make_candidate("develop", model, reference, RECIPE, seed=11, strength=0.5, film=None)
    assert made.opening is not None
    assert torch.equal(made.opening, generate(model, reference, RECIPE, seed=11))
    assert torch.equal(made.picture_HWC, next(pictures(model, made.opening)))


def test_candidate_zero_of_develop_is_the_shots_own_first_segment() -> None:
    assert candidate_seed(4, 1, 0) == plan_segments(9, 9, shot_seed=4, seed_index=1)[0].seed
    assert len({candidate_seed(4, index, number) for index in range(2) for number in range(3)}) == 6


def test_late_takes_the_nearest_of_the_sharp_late_pictures() -> None:
    film = [torch.from_numpy(moving_picture(2, warmth=w, frames=1)[0]) for w in np.linspace(0, 0.2, 9)]
    warm = film_clouds([film[7].numpy()])
    blurred = film[7].mean(0, keepdim=True).expand_as(film[7])
    assert _late_picture([*film[:7], film[8], film[7], film[8]], warm) is film[7]
    assert _late_picture([*film[:7], film[8], blurred, film[8]], warm) is film[8]
    assert _late_picture([film[7], *film[:6], film[8], film[8], film[8]], warm) is film[8]


def test_late_runs_on_the_model_and_returns_one_of_its_late_pictures(model: WanVideo, reference: torch.Tensor) -> None:
    cloud = film_clouds([moving_picture(8, frames=1, warmth=0.1)[0]])
    made = make_candidate("late", model, reference, RECIPE, seed=3, strength=0.5, film=cloud)
    late = list(pictures(model, generate(model, reference, RECIPE, seed=3)))[6:]
    assert made.opening is None and any(torch.equal(made.picture_HWC, picture) for picture in late)


def test_restyle_goes_from_the_reference_to_noise_as_strength_rises(model: WanVideo, reference: torch.Tensor) -> None:
    still = (reference.permute(2, 0, 1)[None, :, None] * 2 - 1).repeat(1, 1, 9, 1, 1)
    coded = next(pictures(model, model.encode_video(still)))
    moved = []
    for strength in (0.01, 0.25, 0.5, 1.0):
        made = make_candidate("restyle", model, reference, RECIPE, seed=5, strength=strength, film=None)
        moved.append(float((made.picture_HWC - coded).abs().mean()))
    assert moved[0] == 0
    assert moved == sorted(moved) and moved[-1] > moved[1] > 0


def test_restyle_pins_no_frame(model: WanVideo, reference: torch.Tensor) -> None:
    cond = _unpinned(model, reference, RECIPE)
    grey = model.condition([RECIPE.prompt], torch.zeros(1, 3, 32, 48), 9)
    assert not cond.latent_BCfhw[:, :4].any()
    torch.testing.assert_close(cond.latent_BCfhw[:, 4:], grey.latent_BCfhw[:, 4:])
    assert torch.equal(
        cond.image_BLD, model.condition([RECIPE.prompt], reference.permute(2, 0, 1)[None] * 2 - 1, 9).image_BLD
    )


def test_distance_to_the_film_is_the_grades() -> None:
    pictures_ = [torch.from_numpy(moving_picture(1, frames=1, warmth=w)[0]) for w in (0.0, 0.12, 0.3)]
    film = film_clouds([moving_picture(1, frames=1, warmth=0.12)[0]])
    near, same, far = (look_distance(picture, film) for picture in pictures_)
    assert same == pytest.approx(0, abs=1e-4) and min(near, far) > 1


def test_a_reference_is_cut_to_shape_and_resized() -> None:
    wide = np.zeros((32, 96, 3), np.float32)
    wide[:, 24:72] = 0.5
    cut = fit_picture(wide, height=16, width=24)
    assert cut.shape == (16, 24, 3) and torch.allclose(cut, torch.full_like(cut, 0.5), atol=1e-3)
    same = moving_picture(1, frames=1)[0]
    assert np.array_equal(fit_picture(same, height=32, width=48).numpy(), same)
    assert fit_picture(np.ones((7, 5, 3), np.float32), height=32, width=48).shape == (32, 48, 3)


def test_a_keyframe_survives_its_png(tmp_path: Path, reference: torch.Tensor) -> None:
    write_png16(tmp_path / "a.png", reference.numpy())
    once = read_image(tmp_path / "a.png")
    assert np.abs(once - reference.numpy()).max() <= 0.5 / 65535 + 1e-7
    write_png16(tmp_path / "b.png", once)
    assert np.array_equal(read_image(tmp_path / "b.png"), once)
    assert math.isclose(float(once.max()), float(reference.max()), abs_tol=1e-4)
