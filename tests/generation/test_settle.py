"""The settled grade: what the fitted map does, against linear algebra done another way."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.linalg import sqrtm

from cinetune.generation import SETTLED, colour_map, generate, led, make_candidate, pictures, regraded, settled_pixels
from cinetune.generation.segment import Recipe
from cinetune.models.wan.wan21 import WanVideo
from small_project import moving_picture
from support import tiny_wan

RECIPE = Recipe(prompt="a barn at dusk", negative="", frames=9, steps=2, guidance=1.0, shift=3.0)


@pytest.fixture(scope="module")
def model() -> WanVideo:
    return tiny_wan()


def colours(seed: int, count: int = 4000) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return 0.5 + rng.standard_normal((count, 3)) @ (0.15 * np.eye(3) + rng.uniform(-0.05, 0.05, (3, 3)))


def test_the_map_gives_the_goals_mean_and_covariance_and_is_the_optimal_one() -> None:
    source, goal = colours(1), colours(2) + 0.1
    matrix, offset = colour_map(source, goal)
    moved = source @ matrix + offset
    np.testing.assert_allclose(moved.mean(0), goal.mean(0), atol=1e-9)
    np.testing.assert_allclose(np.cov(moved.T), np.cov(goal.T), atol=1e-5, rtol=1e-2)
    # the optimal map between Gaussians is the symmetric positive one
    np.testing.assert_allclose(matrix, matrix.T, atol=1e-9)
    assert np.linalg.eigvalsh(matrix).min() > 0
    s, g = np.cov(source.T), np.cov(goal.T)
    root = np.real(np.asarray(sqrtm(s)))
    middle = np.real(np.asarray(sqrtm(root @ g @ root)))
    expected = np.linalg.inv(root) @ middle @ np.linalg.inv(root)
    np.testing.assert_allclose(matrix, expected, rtol=1e-2, atol=2e-3)


def test_a_grade_that_is_such_a_map_is_found_exactly() -> None:
    source = colours(3)
    grade = np.array([[1.1, 0.05, 0.0], [0.05, 0.8, 0.02], [0.0, 0.02, 0.9]])
    matrix, offset = colour_map(source, source @ grade + [0.05, -0.02, 0.1])
    np.testing.assert_allclose(matrix, grade, atol=2e-3)
    np.testing.assert_allclose(offset, [0.05, -0.02, 0.1], atol=2e-3)


def test_a_flat_picture_is_only_shifted() -> None:
    flat = torch.full((8, 8, 3), 0.4)
    np.testing.assert_allclose(
        regraded(flat, colours(4)).numpy(), np.broadcast_to(colours(4).mean(0), (8, 8, 3)), atol=1e-6
    )
    assert torch.isfinite(regraded(colours_picture(), np.full((50, 3), 0.3))).all()


def test_a_grey_picture_is_toned_without_blowing_up_its_noise() -> None:
    rng = np.random.default_rng(0)
    grey = np.repeat(rng.uniform(0.1, 0.9, (16, 16, 1)), 3, axis=2) + rng.normal(0, 0.001, (16, 16, 3))
    made = regraded(torch.from_numpy(grey.astype(np.float32)), colours(5)).double().numpy()
    light = np.c_[grey.mean(2).ravel(), np.ones(256)]
    inside = ((made > 0) & (made < 1)).all(2).ravel()
    left = made.reshape(-1, 3)[inside]
    left = left - light[inside] @ np.linalg.lstsq(light[inside], left, rcond=None)[0]
    assert left.std() < 0.003


def colours_picture() -> torch.Tensor:
    return torch.from_numpy(moving_picture(3, frames=1)[0])


def test_the_settled_frames_are_those_after_the_first_latents() -> None:
    frames = [torch.full((2, 2, 3), number / 10) for number in range(9)]
    np.testing.assert_allclose(np.unique(settled_pixels(frames)), np.array([0.5, 0.6, 0.7, 0.8]), atol=1e-7)
    np.testing.assert_allclose(np.unique(settled_pixels(frames[:3])), np.array([0.2]), atol=1e-7)


def test_settle_gives_the_reference_the_grade_of_its_own_segment(model: WanVideo) -> None:
    reference = colours_picture()
    made = make_candidate("settle", model, reference, RECIPE, seed=4, strength=0.5, film=None)
    settled = settled_pixels(list(pictures(model, generate(model, reference, RECIPE, seed=4))))
    assert made.opening is None
    assert torch.equal(made.picture_HWC, regraded(reference, settled))
    # geometry: the map is one for all pixels, so equal colours stay equal
    ours, theirs = made.picture_HWC.reshape(-1, 3).numpy(), reference.reshape(-1, 3).numpy()
    inside = ((ours > 0) & (ours < 1)).all(1)
    fit = np.linalg.lstsq(np.c_[theirs[inside], np.ones(inside.sum())], ours[inside], rcond=None)
    assert np.abs(np.c_[theirs[inside], np.ones(inside.sum())] @ fit[0] - ours[inside]).max() < 1e-5


def test_the_first_pictures_are_led_to_the_grade_of_those_behind_them_and_the_rest_is_untouched() -> None:
    film = torch.from_numpy(moving_picture(2, frames=17))
    under = film * 0.8 + 0.02
    under[SETTLED:] = film[SETTLED:]
    shown = torch.stack(list(led(under, 4)))
    assert torch.equal(shown[SETTLED:], film[SETTLED:])
    goal = film[SETTLED : SETTLED + 4].reshape(-1, 3)
    for picture in shown[:SETTLED].reshape(SETTLED, -1, 3):
        torch.testing.assert_close(picture.mean(0), goal.mean(0), atol=2e-3, rtol=0)
        torch.testing.assert_close(picture.std(0), goal.std(0), atol=5e-3, rtol=0)
    # it undoes the fault: what was taken from the first pictures is back
    assert (shown - film).abs().mean() < 0.25 * (under - film).abs().mean()


def test_a_segment_with_nothing_settled_is_left_alone() -> None:
    film = torch.from_numpy(moving_picture(2, frames=SETTLED))
    assert torch.equal(torch.stack(list(led(film, 4))), film)
    one_more = torch.stack(list(led(torch.from_numpy(moving_picture(2, frames=SETTLED + 1)), 4)))
    assert len(one_more) == SETTLED + 1


def test_a_led_keyframe_is_the_first_picture_of_its_segment(model: WanVideo) -> None:
    reference = torch.from_numpy(moving_picture(5, frames=1)[0])
    made = make_candidate("lead", model, reference, RECIPE, seed=4, strength=0.5, film=None)
    latents = generate(model, reference, RECIPE, seed=4)
    assert made.opening is not None and torch.equal(made.opening, latents)
    assert torch.equal(made.picture_HWC, next(led(pictures(model, latents), model.info.stride_time)))
    assert not torch.equal(made.picture_HWC, next(pictures(model, latents)))
