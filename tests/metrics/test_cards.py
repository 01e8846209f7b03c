"""Scorecards from measured values with planted effects: pairing, domains, words for what was declared, and refusals."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from cinetune.artifacts import Claim, Design, Score, Scorecard, Veto
from cinetune.metrics import effect
from cinetune.metrics.cards import Measured, Results, Rules, SetEffect, scorecards
from cinetune.metrics.claims import Row, put_in_words
from cinetune.metrics.suite import METRICS
from cinetune.records import to_json


def claim(kind: str, metric: str, domain: str = "in", *, versus: str = "base", margin: float | None = None) -> Claim:
    return Claim(kind=kind, metric=metric, arm="look", versus=versus, domain=domain, margin=margin)  # type: ignore[arg-type]


CLAIMS = (
    claim("closer", "tone_w1"),
    claim("closer", "tone_w1", "out", margin=1.0),
    claim("guard", "palette", margin=1.0),
    claim("interaction", "tone_w1", "both"),
)


def rules(*claims: Claim) -> Rules:
    design = Design(
        arms=("base", "look"),
        seeds=1,
        alpha=0.05,
        claims=claims,
        shots={"in": 8, "out": 8},
        power=(),
        sha="d" * 32,
        declared_utc="2026-01-01T00:00:00+00:00",
    )
    return Rules(design=design, protocol={"unit": "shot"}, warnings=("one film",))


RULES = rules(*CLAIMS)


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
    """Clips whose every metric is a shot level, plus `gain` for the look, plus seed noise of its own."""
    rng = np.random.default_rng(1)
    draws = {row.name: np.random.default_rng([2, *row.name.encode()]) for row in METRICS}
    domains = {f"in{k}": "in" for k in range(inside)} | {f"out{k}": "out" for k in range(outside)}
    clips = []
    for shot, domain in domains.items():
        level = 10 + rng.normal(0, 2)
        for arm in arms:
            for seed in range(seeds):
                gained = 0 if arm != "look" else gain if domain == "in" else gain_out
                values: dict[str, tuple[float | None, str]] = {
                    name: (level + gained + own.normal(0, noise), "") for name, own in draws.items()
                }
                clips.append(Measured(arm=arm, shot=shot, seed=seed, values=values))
    return Results(clips=tuple(clips), domains=domains, spread={"tone_w1": 1.25})  # type: ignore[arg-type]


def changed(results: Results, change: Callable[[Measured], dict[str, float]]) -> Results:
    """The same clips with some values put in place of others."""
    clips = [
        replace(c, values=c.values | {name: (value, "") for name, value in change(c).items()}) for c in results.clips
    ]
    return replace(results, clips=tuple(clips))


def level(clip: Measured, metric: str) -> float:
    value = clip.values[metric][0]
    assert value is not None
    return value


def card(cards: list[Scorecard], domain: str, arm: str = "look", versus: str = "base") -> Scorecard:
    return next(c for c in cards if (c.arm, c.versus, c.domain) == (arm, versus, domain))


def score(found: Scorecard, metric: str) -> Score:
    return next(s for s in found.effects if s.metric == metric)


def test_a_planted_effect_is_found_where_it_is_and_only_there() -> None:
    cards = scorecards(made(), RULES)
    assert [(c.arm, c.versus, c.domain) for c in cards] == [("look", "base", d) for d in ("in", "out", "both")]
    inside, outside, both = (score(card(cards, d), "tone_w1") for d in ("in", "out", "both"))
    assert inside.verdict == "improved" and inside.value == pytest.approx(-3, abs=0.4) and inside.n == 8
    assert inside.low is not None and inside.low90 is not None and inside.high is not None
    assert inside.value is not None
    assert inside.low < inside.low90 < inside.value < inside.high < -2.5 and inside.harmed == 0
    assert outside.verdict == "no worse" and outside.margin == 1
    assert both.verdict == "more inside" and both.value == pytest.approx(-3, abs=0.5)
    for found in cards:
        assert to_json(found)


def test_a_row_that_was_not_declared_never_gets_a_word() -> None:
    found = card(scorecards(made(), RULES), "in")
    for one in found.effects:
        if one.metric in ("tone_w1", "palette"):
            assert one.verdict and one.adjusted is not None and one.q is None
        else:
            assert not one.verdict and one.claim == "" and one.adjusted is None and one.q is not None
    lonely = card(scorecards(made(), rules()), "in")
    assert {one.verdict for one in lonely.effects} == {""}


def test_the_effect_is_the_mean_of_shot_differences_with_seeds_averaged_first() -> None:
    results = made(seeds=3)
    found = card(scorecards(results, RULES), "in")
    means = {
        arm: [
            np.mean([level(c, "split_tone") for c in results.clips if c.arm == arm and c.shot == f"in{k}"])
            for k in range(8)
        ]
        for arm in ("base", "look")
    }
    differences = {f"in{k}": float(means["look"][k] - means["base"][k]) for k in range(8)}
    one = score(found, "split_tone")
    assert one.value == pytest.approx(np.mean(list(differences.values()))) and one.p == effect(differences).p
    assert found.per_shot["split_tone"]["in3"]["look"] == pytest.approx(means["look"][3])
    assert found.levels["split_tone"]["base"] == pytest.approx(np.mean(means["base"]))
    assert found.seeds == (0, 1, 2) and found.shots == tuple(f"in{k}" for k in range(8))
    assert found.levels["tone_w1"]["film"] == 1.25


def test_base_against_base_is_a_band_and_no_margin() -> None:
    quiet = made(seeds=2, gain=-1.6, noise=0.1)
    loud = changed(quiet, lambda c: {"palette": (c.values["palette"][0] or 0) + 3 * c.seed})
    first, second = (card(scorecards(found, RULES), "in") for found in (quiet, loud))
    assert (first.levels["palette"]["a_a"] or 0) < 0.2 and second.levels["palette"]["a_a"] == pytest.approx(3, abs=0.2)
    assert score(first, "palette").verdict == score(second, "palette").verdict == "improved"
    assert "a_a" not in card(scorecards(made(), RULES), "in").levels["palette"]


@pytest.mark.parametrize(
    ("gain", "word", "why"),
    [
        (0.0, "no worse", ""),
        (0.6, "no worse", "a loss, but inside the margin of 1"),
        (1.6, "worse", ""),
        (-0.6, "no worse", "a gain, but surely smaller than the margin of 1"),
        (-1.0, "improved", ""),
        (-1.6, "improved", ""),
    ],
)
def test_no_worse_has_the_declared_margin(gain: float, word: str, why: str) -> None:
    one = score(card(scorecards(made(gain=gain, noise=0.15), RULES), "in"), "palette")
    assert (one.verdict, one.why, one.margin) == (word, why, 1.0)
    without = rules(claim("guard", "palette"))
    bare = score(card(scorecards(made(gain=gain, noise=0.15), without), "in"), "palette")
    assert bare.verdict == ("cannot tell" if gain == 0 else "worse" if gain > 0 else "improved")


def test_more_shots_make_no_worse_likelier() -> None:
    rng = np.random.default_rng(3)
    guard = claim("guard", "palette", margin=1.0)
    said = {}
    for n in (8, 24):
        words = []
        for _ in range(20):
            sample = {f"s{k}": float(value) for k, value in enumerate(rng.normal(0, 1.5, n))}
            found = effect(sample)
            blank = Score(metric="palette", version="1", unit="", better="lower", value=found.value, n=n)
            one = replace(blank, low=found.low, high=found.high, p=found.p)
            row = Row(arm="look", versus="base", domain="in", score=one, samples=(sample,))
            words.append(put_in_words([row], [guard], alpha=0.05)[0].verdict)
        said[n] = words.count("no worse")
    assert said[8] < 10 < said[24]


def test_a_measure_that_likes_base_better_than_the_truth_gets_no_verdict() -> None:
    results = made()
    truths = tuple(
        Measured(arm="truth", shot=f"in{k}", seed=0, values={"tone_w1": (12.0, ""), "palette": (2.0, "")})
        for k in range(8)
    )
    found = card(scorecards(replace(results, clips=results.clips + truths), RULES), "in")
    assert (
        score(found, "tone_w1").verdict == "not valid here"
        and "the truth itself reads 12" in score(found, "tone_w1").why
    )
    assert score(found, "palette").verdict == "improved"
    higher = rules(claim("closer", "clip_text"))
    low_truth = tuple(replace(c, values={"clip_text": (2.0, "")}) for c in truths)
    found = card(scorecards(replace(results, clips=results.clips + low_truth), higher), "in")
    assert score(found, "clip_text").verdict == "not valid here"


def test_a_veto_withholds_the_good_word_and_no_other() -> None:
    veto = Veto(arm="look", domain="in", metrics=("tone_w1",), why="3 of 8 shots copy training frames")
    found = card(scorecards(replace(made(), vetoes=(veto,)), RULES), "in")
    assert score(found, "tone_w1").verdict == "withheld" and "copy training frames" in score(found, "tone_w1").why
    assert score(found, "palette").verdict == "improved"
    harmed = card(scorecards(replace(made(gain=3.0), vetoes=(veto,)), RULES), "in")
    assert score(harmed, "tone_w1").verdict == "worse"


@pytest.mark.parametrize(
    ("gain", "gain_out", "word"),
    [(-3, -1, "more inside"), (-1, -3, "more outside"), (1, 3, "more inside"), (-2, -2, "cannot tell")],
)
def test_interaction_words_say_where_and_not_whether_it_is_good(gain: float, gain_out: float, word: str) -> None:
    cards = scorecards(made(gain=gain, gain_out=gain_out), RULES)
    assert score(card(cards, "both"), "tone_w1").verdict == word


def test_below_eight_shots_there_is_no_verdict_and_below_six_no_p() -> None:
    cards = scorecards(made(inside=5, outside=1), RULES)
    inside, outside = score(card(cards, "in"), "tone_w1"), score(card(cards, "out"), "tone_w1")
    assert inside.p is None and inside.verdict == "cannot tell" and inside.low is not None
    assert "no p value below 6" in inside.why
    assert outside.low is None and outside.value is not None and outside.verdict == "cannot tell"
    assert any("5 shots in domain `in`" in warning for warning in card(cards, "in").warnings)
    assert "one film" in card(cards, "in").warnings
    assert score(card(cards, "both"), "tone_w1").p is None
    seven = score(card(scorecards(made(inside=7, gain=-30), RULES), "in"), "tone_w1")
    assert seven.p == 2 / 128 and seven.verdict == "cannot tell" and "no verdict below 8" in seven.why


def test_kinds_of_shots_too_rare_to_be_met_are_refused_in_words() -> None:
    """A look that breaks one shot in eight breaks none of eight in a third of all cases: no test on them can see it.
    Who must know says so in the design, and below 23 shots there is no word.
    """
    strict = rules(*CLAIMS)
    strict = replace(strict, design=replace(strict.design, rarest=8))
    for count, word in ((22, "cannot tell"), (23, "improved")):
        found = card(scorecards(made(inside=count), strict), "in")
        assert score(found, "tone_w1").verdict == word
        assert any("no verdict below 23" in warning for warning in found.warnings) == (count == 22)
    few = score(card(scorecards(made(), strict), "in"), "tone_w1")
    assert "no verdict below 23" in few.why and "up to 31% of such shots may not be among them" in few.why
    assert few.harmed == 0 and few.harmed_most == pytest.approx(1 - 0.05 ** (1 / 8))
    assert score(card(scorecards(made(), RULES), "both"), "tone_w1").harmed_most is None


def test_without_a_truth_structure_can_be_kept_and_never_be_called_lost() -> None:
    claims = rules(claim("guard", "structure_kept", margin=0.02))

    def kept(loss: float) -> Score:
        rng = np.random.default_rng(4)
        results = changed(made(), lambda c: {"structure_kept": 1 - (c.arm == "look") * loss * rng.uniform(0.8, 1.2)})
        return score(card(scorecards(results, claims), "in"), "structure_kept")

    assert kept(0.001).verdict == "no worse"
    assert kept(0.2).verdict == "cannot tell" and "without a truth nobody can say" in kept(0.2).why


@pytest.mark.parametrize("step", [0.0, 1e-4])
def test_shots_that_hardly_move_are_no_worse_and_never_improved(step: float) -> None:
    """A null adapter moves every shot by the last bits, often the same way: that is no gain and no reason to doubt."""
    results = changed(made(), lambda c: {"palette": 5.0 - (c.arm == "look") * step * (1 + int(c.shot[-1]))})
    one = score(card(scorecards(results, RULES), "in"), "palette")
    assert one.verdict == "no worse" and "thousandth of the margin" in one.why


def test_tied_effects_are_refused_in_words() -> None:
    results = changed(made(), lambda c: {"tone_w1": 5.0 - (c.arm == "look") * (1 + int(c.shot[-1]) % 2)})
    one = score(card(scorecards(results, RULES), "in"), "tone_w1")
    assert one.verdict == "cannot tell" and "very same effect" in one.why


def test_many_claims_are_judged_as_one_family() -> None:
    results = made(gain=-0.32, noise=0.25)
    alone = score(card(scorecards(results, rules(claim("closer", "tone_w1"))), "in"), "tone_w1")
    names = [row.name for row in METRICS if row.better == "lower"]
    together = card(scorecards(results, rules(*(claim("closer", name) for name in names))), "in")
    one = score(together, "tone_w1")
    assert alone.p == one.p and alone.adjusted == pytest.approx(alone.p)
    assert one.adjusted is not None and alone.adjusted is not None and one.adjusted >= alone.adjusted
    for name in names:
        found = score(together, name)
        assert found.adjusted is not None and found.p is not None and found.adjusted >= found.p - 1e-12


def test_a_metric_that_could_not_be_measured_keeps_its_reason() -> None:
    missing = (None, "no truth is known for these shots")
    clips = [replace(c, values=c.values | {"lpips": missing}) for c in made().clips]
    clips = [replace(c, values=c.values | {"colour_error": missing}) if c.shot.startswith("out") else c for c in clips]
    claims = rules(*CLAIMS, claim("guard", "lpips"), claim("closer", "colour_error"))
    cards = scorecards(replace(made(), clips=tuple(clips)), claims)
    lpips = score(card(cards, "in"), "lpips")
    assert (lpips.value, lpips.verdict, lpips.claim, lpips.why) == (None, "", "guard", missing[1])
    assert score(card(cards, "both"), "colour_error").why == "measured in one domain only"
    assert score(card(cards, "both"), "lpips").why == missing[1]
    assert score(card(cards, "in"), "colour_error").verdict == "improved"


def test_a_value_that_is_no_number_is_left_out_by_name_and_never_averaged() -> None:
    results = changed(made(), lambda c: {"tone_w1": float("nan")} if (c.arm, c.shot) == ("look", "in3") else {})
    one = score(card(scorecards(results, RULES), "in"), "tone_w1")
    assert one.n == 7 and one.verdict == "cannot tell" and "without in3: no number" in one.why
    black = changed(made(), lambda c: {"tone_w1": float("nan")} if c.arm == "look" else {})
    gone = score(card(scorecards(black, RULES), "in"), "tone_w1")
    assert gone.value is None and gone.verdict == "" and gone.why == "no finite number came of it"
    two = made(seeds=2)
    half = changed(two, lambda c: {"tone_w1": float("inf")} if (c.arm, c.shot, c.seed) == ("base", "in3", 1) else {})
    assert score(card(scorecards(half, RULES), "in"), "tone_w1").n == 7
    draw = np.random.default_rng(2).normal(0, 0.1, 8)
    broken = scorecards(
        replace(made(), sets=(kid("in", draw, error=float("nan")),)), rules(claim("closer", "clip_kid"))
    )
    assert score(card(broken, "in"), "clip_kid").why == "no finite number came of it"


@pytest.mark.parametrize(("inside", "outside"), [(1, 0), (1, 1), (2, 0)])
def test_one_or_two_shots_give_numbers_and_no_word(inside: int, outside: int) -> None:
    for found in scorecards(made(inside=inside, outside=outside), RULES):
        assert {one.verdict for one in found.effects} <= {"", "cannot tell"}
        assert all(one.p is None for one in found.effects)
        assert to_json(found)


def kid(domain: str, effects: np.ndarray, error: float = 0.0) -> SetEffect:
    return SetEffect(
        metric="clip_kid", version="1", unit="squared MMD", better="lower", arm="look", versus="base", domain=domain,  # type: ignore[arg-type]
        shots=tuple(f"{domain}{k}" for k in range(8)), effects=tuple(effects), reference_error=error,
        levels={"look": 1.0, "base": 2.0},
    )  # fmt: skip


def test_set_metrics_are_judged_like_every_other() -> None:
    draw = np.random.default_rng(2).normal(0, 0.1, (2, 8))
    claims = rules(
        claim("closer", "clip_kid"), claim("closer", "clip_kid", "out"), claim("interaction", "clip_kid", "both")
    )
    sets = (kid("in", draw[0] - 1), kid("out", draw[1]))
    cards = scorecards(replace(made(), sets=sets), claims)
    words = [score(card(cards, domain), "clip_kid").verdict for domain in ("in", "out", "both")]
    assert words == ["improved", "cannot tell", "more inside"]
    assert card(cards, "in").levels["clip_kid"] == {"look": 1.0, "base": 2.0}
    unsure = scorecards(replace(made(), sets=(kid("in", draw[0] - 1, error=1.0), sets[1])), claims)
    assert score(card(unsure, "in"), "clip_kid").verdict == "cannot tell"
    assert score(card(unsure, "both"), "clip_kid").verdict == "cannot tell"
    none = SetEffect(
        metric="clip_kid", version="1", unit="", better="lower", arm="look", versus="base", domain="in", why="no CLIP",
    )  # fmt: skip
    assert score(card(scorecards(replace(made(), sets=(none,)), claims), "in"), "clip_kid").why == "no CLIP"


def test_every_pair_of_arms_has_its_comparison() -> None:
    cards = scorecards(made(arms=("base", "trigger", "look", "plain"), outside=0), RULES)
    assert [(c.arm, c.versus, c.domain) for c in cards] == [
        ("look", "base", "in"),
        ("look", "trigger", "in"),
        ("trigger", "base", "in"),
        ("plain", "base", "in"),
        ("look", "plain", "in"),
    ]
    fair = rules(claim("closer", "tone_w1", versus="trigger"))
    found = scorecards(made(arms=("base", "trigger", "look"), outside=0), fair)
    assert score(card(found, "in", "look", "trigger"), "tone_w1").verdict == "improved"
    assert score(card(found, "in", "look", "base"), "tone_w1").verdict == ""


def test_an_arm_that_was_not_rendered_leaves_no_card() -> None:
    cards = scorecards(made(arms=("base",)), RULES)
    assert cards == []


def test_curves_are_averaged_over_the_shots_of_the_card() -> None:
    results = made(inside=2, outside=1)
    clips = tuple(replace(c, curve=(1.0, 3.0, 5.0)[: 3 - (c.shot == "in1")]) for c in results.clips if c.arm == "look")
    plain = tuple(replace(c, curve=(2.0 * (c.shot == "in0"), 1.0)) for c in results.clips if c.arm == "base")
    found = card(scorecards(replace(results, clips=clips + plain), RULES), "in")
    assert found.curves == {"look": (1.0, 3.0), "base": (1.0, 1.0)}


def test_only_shots_that_both_arms_have_are_compared() -> None:
    results = made()
    kept = tuple(c for c in results.clips if not (c.arm == "look" and c.shot in ("in0", "in1")))
    found = card(scorecards(replace(results, clips=kept), RULES), "in")
    assert found.shots == tuple(f"in{k}" for k in range(2, 8)) and score(found, "tone_w1").n == 6
