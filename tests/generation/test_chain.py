"""The chain of segments: lengths, hand-over, seeds, colour anchor, and what is measured on it."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterable
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
import torch

from cinetune.artifacts import Cue, Limits
from cinetune.generation import (
    ChainRules,
    Opening,
    Recipe,
    Take,
    advanced,
    anchored,
    drift,
    generate,
    pictures,
    plan_segments,
    prompted,
    shoot,
    shot_frames,
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
    return Opening(condition_HWC=picture)


def film_of(takes: Iterable[Take]) -> np.ndarray:
    return np.concatenate([take.frames_THWC for take in takes])


def levels(frames: Iterable[torch.Tensor]) -> np.ndarray:
    return np.rint(torch.stack(list(frames)).numpy() * 65535).astype(np.uint16)


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
    film = film_of(shoot(model, opening, RECIPE, segments, ChainRules()))
    first = opening.condition_HWC.permute(2, 0, 1)[None] * 2 - 1
    cond = model.condition([RECIPE.prompt], first, 9, negative=[""])
    noise = torch.randn(1, 16, 3, 8, 12, generator=torch.Generator().manual_seed(segments[0].seed))
    plain = torch.cat(list(model.decode(sample(model, cond, noise, steps=2, guidance=2.0, shift=3.0))), dim=2)
    assert np.array_equal(film, levels(((plain[0] + 1) / 2).clamp(0, 1).permute(1, 2, 3, 0)))


def test_the_second_segment_starts_at_the_exact_last_picture_of_the_first(model: WanVideo, opening: Opening) -> None:
    segments = plan_segments(15, 9, shot_seed=1, seed_index=0)
    film = film_of(shoot(model, opening, RECIPE, segments, ChainRules()))
    assert len(film) == 15
    first = list(pictures(model, generate(model, opening.condition_HWC, RECIPE, seed=segments[0].seed)))
    second = list(pictures(model, generate(model, first[-1], RECIPE, seed=segments[1].seed)))
    assert np.array_equal(film, levels([*first, *second[1:7]]))


@pytest.mark.parametrize(
    ("frames", "spans"),
    [
        (13, [(0, 13)]),
        (14, [(0, 9), (9, 5)]),
        (21, [(0, 9), (9, 12)]),
        (22, [(0, 9), (9, 8), (17, 5)]),
        (33, [(0, 9), (9, 8), (17, 8), (25, 8)]),
    ],
)
def test_segments_that_share_pictures_cover_the_shot_once(frames: int, spans: list[tuple[int, int]]) -> None:
    segments = plan_segments(frames, 13, shot_seed=1, seed_index=0, overlap=5)
    assert [(one.first_frame, one.frames) for one in segments] == spans


def test_a_segment_gives_way_to_the_next_over_what_both_show(model: WanVideo, opening: Opening) -> None:
    recipe = replace(RECIPE, frames=13)
    segments = plan_segments(20, 13, shot_seed=1, seed_index=0, overlap=5)
    film = film_of(shoot(model, opening, recipe, segments, ChainRules(overlap=5)))
    assert len(film) == 20
    first = list(pictures(model, generate(model, opening.condition_HWC, recipe, seed=segments[0].seed)))
    tail = torch.stack(first[8:13])  # the picture that the second segment starts from, and those both show
    second = list(pictures(model, generate(model, tail[0], recipe, seed=segments[1].seed, held_THWC=tail)))
    faded = [torch.lerp(tail[i], second[i], i / 5) for i in range(1, 5)]
    assert np.array_equal(film, levels([*first[:9], *faded, *second[5:12]]))
    # what is shared decodes to what it was, as far as the autoencoder can
    coded = torch.stack(list(pictures(model, model.encode_video(tail.permute(3, 0, 1, 2)[None] * 2 - 1))))
    torch.testing.assert_close(torch.stack(second[:5]), coded, atol=2e-3, rtol=0)


def test_a_chain_with_overlap_goes_on_after_what_was_done(model: WanVideo, opening: Opening) -> None:
    segments = plan_segments(33, 13, shot_seed=1, seed_index=0, overlap=5)
    recipe, rules = replace(RECIPE, frames=13), ChainRules(overlap=5, anchor=0.5)
    whole = list(shoot(model, opening, recipe, segments, rules))
    assert all(take.given_THWC.shape == (5, 32, 48, 3) for take in whole[:-1])
    state = advanced(advanced(None, whole[0]), whole[1])
    rest = list(shoot(model, opening, recipe, segments, rules, state))
    assert np.array_equal(film_of(rest), film_of(whole[2:]))


def test_an_opening_that_was_made_before_gives_the_same_pictures(model: WanVideo, opening: Opening) -> None:
    segments = plan_segments(9, 9, shot_seed=2, seed_index=0)
    latents = generate(model, opening.condition_HWC, RECIPE, seed=segments[0].seed)
    again, plain = (
        film_of(shoot(model, one, RECIPE, segments, ChainRules()))
        for one in (replace(opening, latents=latents), opening)
    )
    assert np.array_equal(plain, again)


def test_a_chain_goes_on_after_what_was_done(model: WanVideo, opening: Opening) -> None:
    segments = plan_segments(23, 9, shot_seed=1, seed_index=0)
    rules = ChainRules(anchor=0.5, limits=NEVER, tries=2)
    whole = list(shoot(model, opening, RECIPE, segments, rules))
    state = None
    for done in (1, 2):
        state = advanced(state, whole[done - 1])
        rest = list(shoot(model, opening, RECIPE, segments, rules, state))
        assert [take.segment for take in rest] == [take.segment for take in whole[done:]]
        assert np.array_equal(film_of(rest), film_of(whole[done:]))


NEVER = Limits(seam=0.0, jump=0.0, drift=0.0, flicker=0.0, clips=1)
ALWAYS = Limits(seam=1e9, jump=1e9, drift=1e9, flicker=1e9, clips=1)


def test_a_segment_inside_the_limits_is_made_once(model: WanVideo, opening: Opening) -> None:
    segments = plan_segments(15, 9, shot_seed=1, seed_index=0)
    plain = film_of(shoot(model, opening, RECIPE, segments, ChainRules()))
    takes = list(shoot(model, opening, RECIPE, segments, ChainRules(limits=ALWAYS, tries=3)))
    assert np.array_equal(film_of(takes), plain)
    assert [len(take.segment.tries) for take in takes] == [1, 1]
    assert takes[0].segment.tries[0].seam is None and takes[1].segment.tries[0].seam is not None
    assert all(one.over == () for take in takes for one in take.segment.tries)


def test_a_failing_segment_is_tried_with_other_seeds_and_the_best_is_kept(model: WanVideo, opening: Opening) -> None:
    segments = plan_segments(15, 9, shot_seed=1, seed_index=0)
    strict = replace(ALWAYS, jump=1e-3)
    takes = list(shoot(model, opening, RECIPE, segments, ChainRules(limits=strict, tries=4)))
    for take, planned in zip(takes, segments, strict=True):
        tries = take.segment.tries
        assert len({one.seed for one in tries}) == 4 and tries[0].seed == planned.seed
        assert all(one.over == ("jump",) for one in tries)
        best = min(tries, key=lambda one: one.jump)
        assert take.segment.seed == best.seed
    # the kept pictures are those of the kept seed
    seed = takes[0].segment.seed
    assert np.array_equal(
        takes[0].frames_THWC, levels(pictures(model, generate(model, opening.condition_HWC, RECIPE, seed=seed)))
    )


def test_a_later_prompt_holds_from_the_nearest_segment_on() -> None:
    segments = plan_segments(129, 33, shot_seed=5, seed_index=0)  # they begin at 0, 2.06, 4.06, 6.06 s
    cues = [Cue(at=0.2, prompt="a"), Cue(at=3.5, prompt="b"), Cue(at=4.5, prompt="c")]
    assert [one.prompt for one in prompted(segments, cues, Fraction(16))] == ["", "a", "c", "c"]
    assert prompted(segments[:1], cues, Fraction(16)) == segments[:1]


def test_a_later_prompt_changes_its_segments_alone(model: WanVideo, opening: Opening) -> None:
    segments = plan_segments(23, 9, shot_seed=1, seed_index=0)
    plain = film_of(shoot(model, opening, RECIPE, segments, ChainRules()))
    cued = prompted(segments, [Cue(at=0.6, prompt="rain")], Fraction(16))
    film = film_of(shoot(model, opening, RECIPE, cued, ChainRules()))
    assert np.array_equal(film[:9], plain[:9]) and not np.array_equal(film[9:17], plain[9:17])


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
    picture = 0.3 + 0.1 * torch.rand(16, 16, 3, generator=gen)
    goal = torch.tensor([0.4, 0.5, 0.6]), torch.tensor([0.05, 0.1, 0.12])
    moved = anchored(picture, goal, strength=strength)
    torch.testing.assert_close(moved.mean((0, 1)), torch.lerp(picture.mean((0, 1)), goal[0], strength))
    torch.testing.assert_close(moved.std((0, 1)), torch.lerp(picture.std((0, 1)), goal[1], strength))
    if strength == 0:
        assert moved is picture


def test_later_segments_are_pulled_to_the_first_one_and_more_so_towards_their_end(
    model: WanVideo, opening: Opening
) -> None:
    segments = plan_segments(17, 9, shot_seed=1, seed_index=0)
    plain, film = (film_of(shoot(model, opening, RECIPE, segments, ChainRules(anchor=a))) for a in (0.0, 1.0))
    assert np.array_equal(film[:9], plain[:9])
    goal = (film[5:9] / 65535).mean((0, 1, 2))
    np.testing.assert_allclose((film[16] / 65535).mean((0, 1)), goal, atol=0.01)
    ways = np.abs((film[9:] / 65535).mean((1, 2)) - goal).max(1)
    assert ways[3] > ways[7]


def test_drift_is_measured_from_the_keyframe_to_the_end() -> None:
    film = np.full((10, 8, 8, 3), 0.5, np.float32) + 0.01 * np.arange(10, dtype=np.float32)[:, None, None, None]
    assert drift(film, film[-1]) == 0
    assert drift(film, film[0]) > 1


def test_no_more_than_two_segments_are_alive_however_long_the_shot(model: WanVideo, opening: Opening) -> None:
    segments = plan_segments(33, 9, shot_seed=1, seed_index=0)
    assert len(segments) == 4
    alive: list[weakref.ref[np.ndarray]] = []
    most = 0
    for take in shoot(model, opening, replace(RECIPE, steps=1, guidance=1.0), segments, ChainRules(anchor=0.5)):
        alive.append(weakref.ref(take.frames_THWC))
        del take
        gc.collect()
        most = max(most, sum(one() is not None for one in alive))
    assert len(alive) == 4 and most <= 2
