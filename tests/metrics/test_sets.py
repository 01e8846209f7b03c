"""The table of set metrics: arms against their own domain and the film, one number a shot."""

from collections.abc import Iterable
from typing import Any

import numpy as np
import pytest

from cinetune.artifacts import Arm, Domain
from cinetune.errors import ScoreError
from cinetune.metrics import frechet, kid_blocked
from cinetune.metrics.cards import SetEffect
from cinetune.metrics.sets import LEAST_CLIPS, SETS, SetClip, SetInput, set_effects, wrong_domain

PAIRS: tuple[tuple[Arm, Arm], ...] = (("look", "base"),)
DOMAINS: tuple[Domain, ...] = ("in", "out")
SHOTS = 8


def world(*, gain: float = 0.7, seed: int = 0, seeds: int = 1, width: int = 12) -> SetInput:
    """Two worlds of features. The base is 1 away from each; the look closes `gain` of that in the film's."""
    rng = np.random.default_rng(seed)
    place = {"in": np.r_[3.0, np.zeros(width - 1)], "out": np.r_[-3.0, np.zeros(width - 1)]}
    off = np.r_[0.0, 1.0, np.zeros(width - 2)]

    def clip(centre: np.ndarray) -> np.ndarray:
        return centre + 0.5 * rng.normal(size=width) + 0.2 * rng.normal(size=(4, width))

    clips: list[SetClip] = []
    domains: dict[str, Domain] = {}
    for domain in DOMAINS:
        for i in range(SHOTS):
            domains[f"{domain}{i}"] = domain
            for number in range(seeds):
                base = clip(place[domain] + off)
                look = base - off * (gain if domain == "in" else 0.0)
                clips.append(SetClip(arm="base", shot=f"{domain}{i}", seed=number, features_TD=base))
                clips.append(SetClip(arm="look", shot=f"{domain}{i}", seed=number, features_TD=look))
    references: dict[Domain, list[tuple[str, np.ndarray]]] = {
        domain: [("", clip(place[domain])) for _ in range(10)] for domain in DOMAINS
    }
    return SetInput(
        network="own", per="frame", clips=tuple(clips), domains=domains, references=references,
        film=[clip(place["in"]) for _ in range(12)],
    )  # fmt: skip


def one(effects: Iterable[SetEffect], metric: str, domain: str) -> SetEffect:
    return next(e for e in effects if (e.metric, e.domain) == (metric, domain))


def rows(given: SetInput, arm: str, domain: str) -> list[np.ndarray]:
    return [c.features_TD for c in given.clips if c.arm == arm and given.domains[c.shot] == domain]


def test_the_mean_of_a_kid_effect_is_the_difference_of_the_distances() -> None:
    given = world()
    effects = set_effects(given, PAIRS)
    for domain in DOMAINS:
        found = one(effects, "clip_kid", domain)
        reference = [r for _, r in given.references[domain]]
        want = [kid_blocked(rows(given, arm, domain), reference) for arm in ("look", "base")]
        # A U-statistic of degree two over shots: its jackknife mean is the statistic itself.
        assert np.mean(found.effects) == pytest.approx(want[0] - want[1], rel=1e-9, abs=1e-12)
        assert (found.levels["look"], found.levels["base"]) == pytest.approx(tuple(want))
        assert len(found.effects) == SHOTS
        assert (found.reference_error > 0) == (domain == "in"), "no effect, no error of the choice of reference"


def test_a_gain_inside_and_none_outside_is_found_by_every_measure() -> None:
    effects = set_effects(world(), PAIRS)
    for measure in SETS:
        if measure.per == "frame":
            inside, outside = (np.asarray(one(effects, measure.name, d).effects) for d in ("in", "out"))
            assert inside.mean() < 0 and abs(outside.mean()) < 1e-9, measure.name
            error = np.hypot(inside.std(ddof=1) / SHOTS**0.5, one(effects, measure.name, "in").reference_error)
            assert inside.mean() / error < -2.4, measure.name  # Student at 7 degrees


def test_every_set_measure_repeats_exactly() -> None:
    assert set_effects(world(), PAIRS) == set_effects(world(), PAIRS)


def test_identical_arms_differ_by_exactly_nothing() -> None:
    for effect in set_effects(world(gain=0.0), PAIRS):
        np.testing.assert_allclose(effect.effects, 0, atol=1e-9)


def test_the_more_the_look_gains_the_further_each_effect_falls() -> None:
    ladder = [
        {e.metric: np.mean(e.effects) for e in set_effects(world(gain=gain), PAIRS) if e.domain == "in"}
        for gain in (0.2, 0.5, 0.8)
    ]
    for metric in ladder[0]:
        assert ladder[0][metric] > ladder[1][metric] > ladder[2][metric], metric


def test_fid_is_the_frechet_distance_with_its_null_beside_it() -> None:
    given = world()
    found = one(set_effects(given, PAIRS), "clip_fid", "in")
    reference = np.concatenate([r for _, r in given.references["in"]])
    want = frechet(np.concatenate(rows(given, "look", "in")), reference)
    assert found.levels["look"] == pytest.approx(want, rel=1e-9)
    null, spread = found.levels["null"], found.levels["null_sd"]
    assert null is not None and null > 0 and spread is not None and spread > 0
    assert "null" not in one(set_effects(given, PAIRS), "clip_kid", "in").levels, "KID has no bias to show"


def test_the_level_of_the_film_is_a_mean_over_splits_near_zero() -> None:
    found = one(set_effects(world(), PAIRS), "clip_kid_film", "in")
    real, spread = found.levels["real"], found.levels["real_sd"]
    assert real is not None and spread is not None and abs(real) < spread


def test_base_against_base_needs_two_seeds() -> None:
    assert "a_a" not in one(set_effects(world(), PAIRS), "clip_kid", "in").levels
    noise = one(set_effects(world(seeds=2), PAIRS), "clip_kid", "in").levels["a_a"]
    assert noise is not None and noise > 0


def test_closeness_to_the_film_is_no_merit_outside_its_world() -> None:
    effects = set_effects(world(), PAIRS)
    assert one(effects, "clip_kid_film", "out").better == "none"
    assert one(effects, "clip_kid", "out").better == one(effects, "clip_kid_film", "in").better == "lower"


def test_three_reference_clips_are_refused_with_the_reason() -> None:
    given = world()
    few = SetInput(
        network="own", per="frame", clips=given.clips, domains=given.domains, film=given.film[:2],
        references={"in": given.references["in"][:3]}, why_not={"out": "no reference is named for domain `out`"},
    )  # fmt: skip
    effects = set_effects(few, PAIRS)
    assert f"has 3 clips, at least {LEAST_CLIPS}" in one(effects, "clip_kid", "in").why
    assert one(effects, "clip_kid", "out").why == "no reference is named for domain `out`"
    assert "film has 2 training scenes" in one(effects, "clip_kid_film", "in").why
    assert all(e.effects == () and e.levels == {} for e in effects)


def test_one_shot_is_refused_with_the_reason() -> None:
    given = world()
    clips = tuple(c for c in given.clips if c.shot in ("in0", "out0"))
    lone = SetInput(network="own", per="frame", clips=clips, domains={"in0": "in", "out0": "out"},
                    references=given.references, film=given.film)  # fmt: skip
    assert "three shots" in one(set_effects(lone, PAIRS), "clip_kid", "in").why


def test_features_of_another_network_are_refused() -> None:
    given = world()
    mixed = SetInput(network="own", per="frame", clips=given.clips, domains=given.domains, film=given.film,
                     references={"in": [("", np.zeros((4, 7)))] * 8})  # fmt: skip
    with pytest.raises(ScoreError, match="one feature network"):
        set_effects(mixed, PAIRS)


def test_a_folder_of_the_wrong_world_is_said() -> None:
    given = world()
    assert wrong_domain(given) == []
    swapped: dict[Domain, Any] = {"in": given.references["out"], "out": given.references["in"]}
    wrong = SetInput(network="own", per="frame", clips=given.clips, domains=given.domains, film=given.film,
                     references=swapped)  # fmt: skip
    assert [("`in`" in w, "right folder" in w) for w in wrong_domain(wrong)] == [(True, True)] * 2


def test_video_features_have_their_own_measures() -> None:
    given = world()
    video = SetInput(network="vjepa2", per="clip", clips=given.clips, domains=given.domains, film=given.film,
                     references=given.references)  # fmt: skip
    assert {e.metric for e in set_effects(video, PAIRS, suffix="@vjepa2")} == {"kvd@vjepa2", "kvd_film@vjepa2"}
