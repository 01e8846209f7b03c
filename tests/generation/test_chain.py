"""The chain of segments: lengths, hand-over, seeds, colour anchor, and what is measured on it."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
import torch

from cinetune.artifacts import Segment
from cinetune.generation import (
    Opening,
    Recipe,
    anchored,
    chain,
    drift,
    generate,
    pictures,
    plan_segments,
    shot_frames,
    worst_seam,
)
from cinetune.generation.segment import conditioning, starting_noise
from cinetune.models.wan.sample import sample
from cinetune.models.wan.wan21 import WanVideo
from small_project import moving_picture
from support import tiny_wan

RECIPE = Recipe(prompt="a barn at dusk", negative="", frames=9, steps=2, guidance=2.0, shift=3.0)


@pytest.fixture(scope="module")
def model() -> WanVideo:
    return tiny_wan()


@pytest.fixture(scope="module")
def opening() -> Opening:
    picture = torch.from_numpy(moving_picture(3, frames=1)[0])
    return Opening(condition_HWC=picture, keyframe_HWC=picture)


@pytest.mark.parametrize(
    ("seconds", "rate", "frames"),
    [
        (2.0, Fraction(16), 33),
        (4.0, Fraction(16), 65),
        (0.01, Fraction(16), 1),
        (2.0625, Fraction(16), 33),
        (2.07, Fraction(16), 37),
        (0.3125, Fraction(16), 5),
        (1.0, Fraction(24000, 1001), 25),
        (0.1, Fraction(10), 1),
        (0.3, Fraction(30), 9),
    ],
)
def test_a_shot_has_the_fewest_frames_of_the_rule_that_last_long_enough(
    seconds: float, rate: Fraction, frames: int
) -> None:
    assert shot_frames(seconds, rate) == frames
    assert frames % 4 == 1


def test_segments_cover_the_shot_once_and_each_has_its_own_seed() -> None:
    segments = plan_segments(65, 33, shot_seed=5, seed_index=0)
    assert [(s.first_frame, s.frames) for s in segments] == [(0, 33), (33, 32)]
    cut = plan_segments(73, 33, shot_seed=5, seed_index=0)
    assert [(s.first_frame, s.frames) for s in cut] == [(0, 33), (33, 32), (65, 8)]
    assert len({s.seed for s in cut}) == 3
    assert cut[:2] == segments
    assert not {s.seed for s in cut} & {s.seed for s in plan_segments(73, 33, shot_seed=5, seed_index=1)}
    other = plan_segments(65, 33, shot_seed=5, seed_index=0, candidate=2)
    assert other[0].seed != segments[0].seed and other[1].seed == segments[1].seed


def test_one_segment_is_the_plain_sample_decoded(model: WanVideo, opening: Opening) -> None:
    segments = plan_segments(9, 9, shot_seed=1, seed_index=0)
    film = torch.stack(list(chain(model, opening, RECIPE, segments)))
    first = opening.condition_HWC.permute(2, 0, 1)[None] * 2 - 1
    cond = model.condition([RECIPE.prompt], first, 9, negative=[""])
    noise = torch.randn(1, 16, 3, 8, 12, generator=torch.Generator().manual_seed(segments[0].seed))
    plain = torch.cat(list(model.decode(sample(model, cond, noise, steps=2, guidance=2.0, shift=3.0))), dim=2)
    assert torch.equal(film, ((plain[0] + 1) / 2).clamp(0, 1).permute(1, 2, 3, 0))


def test_the_second_segment_starts_at_the_exact_last_picture_of_the_first(model: WanVideo, opening: Opening) -> None:
    segments = plan_segments(15, 9, shot_seed=1, seed_index=0)
    film = list(chain(model, opening, RECIPE, segments))
    assert len(film) == 15
    first = list(chain(model, opening, RECIPE, segments[:1]))
    second = list(pictures(model, generate(model, first[-1], RECIPE, seed=segments[1].seed)))
    assert all(torch.equal(a, b) for a, b in zip(film, [*first, *second[1:7]], strict=True))


def test_an_opening_that_was_made_before_gives_the_same_pictures(model: WanVideo, opening: Opening) -> None:
    segments = plan_segments(9, 9, shot_seed=2, seed_index=0)
    latents = generate(model, opening.condition_HWC, RECIPE, seed=segments[0].seed)
    again = list(chain(model, replace(opening, latents=latents), RECIPE, segments))
    assert all(torch.equal(a, b) for a, b in zip(chain(model, opening, RECIPE, segments), again, strict=True))


def test_guidance_one_asks_for_no_negative_text(model: WanVideo, opening: Opening) -> None:
    assert conditioning(model, opening.condition_HWC, replace(RECIPE, guidance=1.0)).negative_BLD is None
    assert conditioning(model, opening.condition_HWC, RECIPE).negative_BLD is not None


def test_noise_depends_on_the_seed_alone(model: WanVideo) -> None:
    torch.manual_seed(1)
    a = starting_noise(model.info, 9, height=32, width=48, seed=7)
    torch.manual_seed(2)
    assert torch.equal(a, starting_noise(model.info, 9, height=32, width=48, seed=7))
    assert not torch.equal(a, starting_noise(model.info, 9, height=32, width=48, seed=8))
    assert a.shape == (1, 16, 3, 8, 12)


@pytest.mark.parametrize("strength", [0.0, 0.5, 1.0])
def test_the_anchor_moves_mean_and_spread_by_its_strength(strength: float) -> None:
    gen = torch.Generator().manual_seed(0)
    picture, key = 0.3 + 0.1 * torch.rand(16, 16, 3, generator=gen), 0.5 + 0.2 * torch.rand(16, 16, 3, generator=gen)
    moved = anchored(picture, key, strength=strength)
    for fact in (lambda x: x.mean((0, 1)), lambda x: x.std((0, 1))):
        torch.testing.assert_close(fact(moved), torch.lerp(fact(picture), fact(key), strength))
    if strength == 0:
        assert moved is picture


def test_the_anchor_ramps_inside_each_segment(model: WanVideo, opening: Opening) -> None:
    segments = plan_segments(17, 9, shot_seed=1, seed_index=0)
    key = torch.full_like(opening.keyframe_HWC, 0.5) + 0.1 * (opening.keyframe_HWC - opening.keyframe_HWC.mean())
    pulled = Opening(condition_HWC=opening.condition_HWC, keyframe_HWC=key)
    plain, film = (list(chain(model, pulled, RECIPE, segments, anchor=a)) for a in (0.0, 1.0))
    assert torch.equal(film[0], plain[0])
    for end in (8, 16):
        torch.testing.assert_close(film[end].mean((0, 1)), key.mean((0, 1)), atol=0.02, rtol=0)
    assert (film[4].mean((0, 1)) - key.mean((0, 1))).abs().max() > 0.02


def test_seam_and_drift_are_measured_where_they_are() -> None:
    film = np.full((10, 8, 8, 3), 0.5, np.float32) + 0.01 * np.arange(10, dtype=np.float32)[:, None, None, None]
    film[5:] += 0.04
    segments = (Segment(first_frame=0, frames=5, seed=0), Segment(first_frame=5, frames=5, seed=1))
    assert worst_seam(film, segments) == pytest.approx(5, rel=1e-3)
    assert worst_seam(film, segments[:1]) is None
    assert drift(film, film[-1]) == 0
    assert drift(film, film[0]) > 1
