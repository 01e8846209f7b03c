"""Scorecards from measured values with planted effects: pairing, domains, noise floor, words, and refusals."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from cinetune.artifacts import Scorecard
from cinetune.metrics import holm, sign_flip
from cinetune.metrics.cards import Measured, Results, Rules, scorecards
from cinetune.metrics.suite import METRICS
from cinetune.records import to_json

RULES = Rules(primary=("tone_w1", "colour_error"), alpha=0.05, protocol={"unit": "shot"}, warnings=("one film",))


def made(
    *,
    inside: int = 8,
    outside: int = 8,
    gain: float = -3.0,
    gain_out: float = 0.0,
    seeds: int = 1,
    noise: float = 0.3,
    arms=("base", "look"),
) -> Results:
    """Clips whose every metric is a shot level, plus `gain` for the look, plus seed noise; features drawn around the
    arm's centre.
    """
    rng = np.random.default_rng(1)
    domains = {f"in{k}": "in" for k in range(inside)} | {f"out{k}": "out" for k in range(outside)}
    clips = []
    for shot, domain in domains.items():
        level = 10 + rng.normal(0, 2)
        for arm in arms:
            for seed in range(seeds):
                effect = 0 if arm != "look" else gain if domain == "in" else gain_out
                values = {row.name: (level + effect + rng.normal(0, noise), "") for row in METRICS}
                shift = 1.0 if arm == "base" else 0.2
                clips.append(
                    Measured(arm=arm, shot=shot, seed=seed, values=values, features_TD=rng.normal(shift, 0.3, (3, 5)))
                )
    film = tuple(rng.normal(0, 0.3, (6, 5)) for _ in range(5))
    return Results(clips=tuple(clips), domains=domains, spread={"tone_w1": 1.25}, film=film)  # type: ignore[arg-type]


def card(cards: list[Scorecard], domain: str, arm: str = "look", versus: str = "base") -> Scorecard:
    return next(c for c in cards if (c.arm, c.versus, c.domain) == (arm, versus, domain))


def score(found: Scorecard, metric: str):
    return next(s for s in found.effects if s.metric == metric)


def test_a_planted_effect_is_found_where_it_is_and_only_there() -> None:
    results = made()
    cards = scorecards(results, RULES)
    assert [(c.arm, c.versus, c.domain) for c in cards] == [("look", "base", d) for d in ("in", "out", "both")]
    inside, outside, both = (score(card(cards, d), "tone_w1") for d in ("in", "out", "both"))
    assert inside.verdict == "improved" and inside.value == pytest.approx(-3, abs=0.4) and inside.n == 8
    assert inside.low is not None and inside.high is not None and inside.low < -3 < inside.high
    assert outside.verdict == "cannot tell"
    assert both.verdict == "improved" and both.value == pytest.approx(-3, abs=0.5)
    assert score(card(cards, "in"), "clip_text").verdict == "worse"
    assert score(card(cards, "in"), "motion").verdict == "cannot tell"
    for found in cards:
        assert to_json(found)


def test_the_effect_is_the_mean_of_shot_differences_with_seeds_averaged_first() -> None:
    results = made(seeds=3)
    found = card(scorecards(results, RULES), "in")
    means = {
        arm: [
            np.mean([c.values["palette"][0] for c in results.clips if c.arm == arm and c.shot == f"in{k}"])
            for k in range(8)
        ]
        for arm in ("base", "look")
    }
    differences = np.subtract(means["look"], means["base"])
    palette = score(found, "palette")
    assert palette.value == pytest.approx(differences.mean()) and palette.p == pytest.approx(sign_flip(differences))
    assert found.per_shot["palette"]["in3"]["look"] == pytest.approx(means["look"][3])
    assert found.levels["palette"]["base"] == pytest.approx(np.mean(means["base"]))
    assert found.seeds == (0, 1, 2) and found.shots == tuple(f"in{k}" for k in range(8))
    assert found.levels["tone_w1"]["film"] == 1.25


def test_base_against_base_sets_the_noise_an_effect_must_exceed() -> None:
    quiet, loud = made(seeds=2, gain=-0.6, noise=0.1), made(seeds=2, gain=-0.6, noise=0.1)
    shifted = [
        replace(c, values={k: (v + 3 * c.seed, "") for k, (v, _) in c.values.items() if v is not None})
        for c in loud.clips
    ]
    first = card(scorecards(quiet, RULES), "in")
    second = card(scorecards(replace(loud, clips=tuple(shifted)), RULES), "in")
    assert (first.levels["palette"]["a_a"] or 0) < 0.2 and second.levels["palette"]["a_a"] == pytest.approx(3, abs=0.2)
    assert score(first, "palette").verdict == "improved"
    assert score(second, "palette").verdict == "no worse"
    assert score(second, "motion").verdict == "no worse"
    assert "a_a" not in card(scorecards(made(), RULES), "in").levels["palette"]


@pytest.mark.parametrize(("gain", "word"), [(0.0, "no worse"), (0.9, "worse"), (-2.0, "improved")])
def test_no_worse_is_said_within_a_tenth_of_the_way_to_a_frozen_frame(gain: float, word: str) -> None:
    results = made(gain=gain)
    anchors = [
        Measured(arm=arm, shot=f"in{k}", seed=0, values={"motion_error": (value, ""), "motion": (value, "")})
        for arm, value in (("floor", 1.0), ("ceiling", 8.0))
        for k in range(8)
    ]
    found = card(scorecards(replace(results, clips=(*results.clips, *anchors)), RULES), "in")
    assert score(found, "motion_error").verdict == word
    assert score(found, "motion").verdict == ("no worse" if gain == 0 else "cannot tell")
    without = card(scorecards(results, RULES), "in")
    assert score(without, "motion_error").verdict == ("cannot tell" if gain == 0 else word)


def test_below_six_shots_there_is_no_p_and_no_verdict() -> None:
    cards = scorecards(made(inside=5, outside=1), RULES)
    inside, outside = score(card(cards, "in"), "tone_w1"), score(card(cards, "out"), "tone_w1")
    assert inside.p is None and inside.verdict == "cannot tell" and inside.low is not None
    assert "no p value below 6" in inside.why
    assert outside.low is None
    assert any("5 shots in domain `in`" in warning for warning in card(cards, "in").warnings)
    assert "one film" in card(cards, "in").warnings
    assert score(card(cards, "both"), "tone_w1").p is None


def test_six_shots_are_too_few_for_two_primary_metrics_and_it_says_so() -> None:
    found = card(scorecards(made(inside=6, gain=-30), RULES), "in")
    assert score(found, "tone_w1").verdict == "cannot tell" and score(found, "tone_w1").p == pytest.approx(2 / 64)
    assert any("a verdict on 2 primary metrics needs 7 or more" in warning for warning in found.warnings)
    assert score(found, "palette").verdict == "improved"
    assert not any("needs 7" in w for w in card(scorecards(made(inside=7), RULES), "in").warnings)


def test_primary_metrics_are_judged_after_holm() -> None:
    results = made(gain=-0.32, noise=0.25, inside=7)
    plain = card(scorecards(results, replace(RULES, primary=("tone_w1",))), "in")
    names = tuple(row.name for row in METRICS)
    strict = card(scorecards(results, replace(RULES, primary=names)), "in")
    raw = [score(plain, name).p for name in names]
    for name, p in zip(names, holm(raw), strict=True):
        found = score(strict, name)
        assert found.p == score(plain, name).p
        if p != found.p:
            assert f"p {p:.3g} after Holm over {len(names)}" in found.why
            assert found.verdict in ("cannot tell", "no worse")


def test_a_metric_that_could_not_be_measured_keeps_its_reason() -> None:
    results = made()
    clips = [
        replace(c, values=c.values | {"lpips": (None, "no truth is known for these shots")}) for c in results.clips
    ]
    clips = [
        replace(c, values=c.values | {"colour_error": (None, "no truth is known for these shots")})
        if c.shot.startswith("out")
        else c
        for c in clips
    ]
    cards = scorecards(replace(results, clips=tuple(clips)), RULES)
    lpips = score(card(cards, "in"), "lpips")
    assert (lpips.value, lpips.verdict, lpips.why) == (None, "", "no truth is known for these shots")
    assert score(card(cards, "both"), "colour_error").why == "measured in one domain only"
    assert score(card(cards, "both"), "lpips").why == "no truth is known for these shots"
    assert score(card(cards, "in"), "colour_error").verdict == "improved"


def test_clip_kid_compares_sets_and_blocks_by_shot() -> None:
    cards = scorecards(made(seeds=2), RULES)
    kid = score(card(cards, "in"), "clip_kid")
    assert kid.verdict == "improved" and kid.n == 8 and (kid.value or 0) < 0
    levels = card(cards, "in").levels["clip_kid"]
    assert (levels["look"] or 0) < (levels["base"] or 0)
    assert score(card(cards, "out"), "clip_kid").better == "none"
    bare = made()
    clips = tuple(replace(c, features_TD=None) for c in bare.clips)
    assert score(card(scorecards(replace(bare, clips=clips), RULES), "in"), "clip_kid").why == "no CLIP is installed"


def test_the_control_arm_adds_its_two_comparisons() -> None:
    cards = scorecards(made(arms=("base", "look", "plain"), outside=0), RULES)
    assert [(c.arm, c.versus, c.domain) for c in cards] == [
        ("look", "base", "in"),
        ("plain", "base", "in"),
        ("look", "plain", "in"),
    ]
    assert score(card(cards, "in", "look", "plain"), "tone_w1").verdict == "improved"
    assert score(card(cards, "in", "plain", "base"), "tone_w1").verdict == "cannot tell"


def test_only_shots_that_both_arms_have_are_compared() -> None:
    results = made()
    kept = tuple(c for c in results.clips if not (c.arm == "look" and c.shot in ("in0", "in1")))
    found = card(scorecards(replace(results, clips=kept), RULES), "in")
    assert found.shots == tuple(f"in{k}" for k in range(2, 8)) and score(found, "tone_w1").n == 6
