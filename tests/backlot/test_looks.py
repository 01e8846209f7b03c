"""Film looks: monotone curves, visible but readable, honest grain."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from cinetune.backlot import LOOKS, FilmLook, apply_look, grade, render, sample_scene

SCENES = np.random.default_rng(2)
FRAMES = np.concatenate([render(sample_scene(SCENES), frames=1, start=1.0) for _ in range(24)])
GREY = np.full((6, 64, 96, 3), 0.5, np.float32)


def test_there_are_three_looks_under_their_own_names() -> None:
    assert len(LOOKS) == 3
    assert all(look.name == name and look.description for name, look in LOOKS.items())


@pytest.mark.parametrize("look", LOOKS.values(), ids=list(LOOKS))
def test_tone_curve_is_monotone_with_the_stated_ends(look: FilmLook) -> None:
    curve = look.tone(np.linspace(0.0, 1.0, 257))
    assert np.all(np.diff(curve) > 0.0)
    assert curve[0] == pytest.approx(look.lift, abs=1e-6)
    assert curve[-1] == pytest.approx(look.gain, abs=1e-6)


@pytest.mark.parametrize("look", LOOKS.values(), ids=list(LOOKS))
def test_effect_is_visible_and_keeps_the_time_of_day(look: FilmLook) -> None:
    graded = grade(FRAMES, look)
    assert 0.055 < float(np.abs(graded - FRAMES).mean()) < 0.13
    before, after = FRAMES.mean(axis=(1, 2, 3)), graded.mean(axis=(1, 2, 3))
    assert np.corrcoef(before, after)[0, 1] > 0.95


def test_looks_differ_from_each_other() -> None:
    graded = [grade(FRAMES, look) for look in LOOKS.values()]
    for first in range(3):
        for second in range(first):
            assert float(np.abs(graded[first] - graded[second]).mean()) > 0.05


@pytest.mark.parametrize("look", LOOKS.values(), ids=list(LOOKS))
def test_grade_is_pointwise_apart_from_the_vignette(look: FilmLook) -> None:
    plain = replace(look, vignette=0.0)
    shuffled = FRAMES[:, ::-1, ::-1]
    assert np.allclose(grade(shuffled, plain), grade(FRAMES, plain)[:, ::-1, ::-1], atol=1e-6)
    bare = replace(look, halation=0.0)
    assert np.allclose(apply_look(FRAMES, bare, grain=False), grade(FRAMES, look), atol=1e-6)


@pytest.mark.parametrize("look", LOOKS.values(), ids=list(LOOKS))
def test_range_dtype_and_determinism(look: FilmLook) -> None:
    first = apply_look(FRAMES, look, seed=4)
    assert first.dtype == np.float32
    assert first.shape == FRAMES.shape
    assert first.min() >= 0.0
    assert first.max() <= 1.0
    assert np.array_equal(first, apply_look(FRAMES, look, seed=4))
    assert not np.array_equal(first, apply_look(FRAMES, look, seed=5))


@pytest.mark.parametrize("size", [(64, 96), (160, 240)])
def test_grain_is_zero_mean_fresh_each_frame_and_as_strong_at_any_size(size: tuple[int, int]) -> None:
    look = replace(LOOKS["silver"], vignette=0.0, halation=0.0)
    grey = np.full((6, *size, 3), 0.5, np.float32)
    noise = apply_look(grey, look, seed=1) - grade(grey, look)
    assert abs(float(noise.mean())) < 1e-3
    assert 0.8 * look.grain < float(noise.std()) < 1.2 * look.grain
    assert abs(np.corrcoef(noise[0].ravel(), noise[1].ravel())[0, 1]) < 0.1


def test_vignette_darkens_the_corners_only() -> None:
    look = FilmLook(name="plain", description="", vignette=0.3)
    out = grade(GREY, look)[0, :, :, 0]
    assert out[32, 48] == pytest.approx(0.5, abs=0.005)
    assert out[0, 0] < 0.38


def test_halation_reddens_the_surroundings_of_a_light() -> None:
    lamp = np.full((1, 64, 96, 3), 0.1, np.float32)
    lamp[0, 28:36, 44:52] = 1.0
    look = FilmLook(name="plain", description="", halation=0.3)
    added = apply_look(lamp, look) - grade(lamp, look)
    near, far = added[0, 26, 48], added[0, 4, 4]
    assert near[0] > 0.02
    assert near[0] > 2.0 * near[2]
    assert float(np.abs(far).max()) < 1e-4
