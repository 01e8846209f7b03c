"""The declared experiment: its arms, claims, margins, hash and power."""

from __future__ import annotations

import pytest

from cinetune.artifacts import FileRef, Keyframe
from cinetune.config import Config
from cinetune.errors import ConfigError
from cinetune.metrics.design import MARGINS, claims_of, declare, detectable, shared
from cinetune.metrics.suite import METRICS


def config(**design: object) -> Config:
    return Config.model_validate(
        {"score": {"design": design}, "prepare": {"trigger": "x"}, "train": {"plain_arm": True}}
    )


def test_detectable_effects_are_the_published_ones() -> None:
    """Paired d at 80 % power, two-sided .05 (Cohen 1988, noncentral t)."""
    expected = {8: 1.16, 10: 1.00, 12: 0.89, 16: 0.75, 20: 0.66, 30: 0.53}
    assert {n: round(detectable(n), 2) for n in expected} == expected


def test_arms_are_those_that_exist() -> None:
    assert config().arms() == ("base", "trigger", "look", "plain")
    assert config(arms=["look"]).arms() == ("base", "look")
    assert Config().arms() == ("base", "look")


def test_the_look_is_held_against_the_base_with_the_trigger_phrase() -> None:
    claims = claims_of(config(closer=["tone_w1"], guards=["structure"], interaction=["tone_w1"], control=["palette"]))
    assert [(c.kind, c.metric, c.versus, c.domain, c.margin) for c in claims] == [
        ("closer", "tone_w1", "trigger", "in", MARGINS["tone_w1"]),
        ("closer", "tone_w1", "trigger", "out", MARGINS["tone_w1"]),
        ("guard", "structure", "trigger", "in", MARGINS["structure"]),
        ("guard", "structure", "trigger", "out", MARGINS["structure"]),
        ("interaction", "tone_w1", "trigger", "both", None),
        ("closer", "palette", "plain", "in", MARGINS["palette"]),
    ]
    assert {c.versus for c in claims_of(Config())} == {"base"}
    home = claims_of(config(domains=["in"]))
    assert {c.domain for c in home} == {"in"}


def test_the_hash_is_over_the_design_and_not_over_the_shots() -> None:
    shots = {"in": 8, "out": 8}
    one = declare(config(), shots=shots)
    assert one.sha == declare(config(), shots={"in": 20}).sha
    for other in (
        config(margins={"palette": 2.0, "colour_error": 2.0}),
        config(guards=["palette"]),
        config(arms=["base"]),
        config(rarest=8),
    ):
        assert declare(other, shots=shots).sha != one.sha
    assert declare(config(margins={"palette": 2.0}), shots=shots).sha == one.sha, "no claim is on it"


def test_power_is_said_in_words_for_each_domain() -> None:
    lines = declare(config(), shots={"in": 8, "out": 5}).power
    assert "8 shots in domain `in`: an effect of d >= 1.16 is found four times in five by one test alone" in lines[0]
    assert lines[1] == "5 shots in domain `out`: no verdict below 8"
    assert "10 shots a domain would show d >= 1.00" in lines[2]


def test_where_no_truth_is_known_structure_is_held_against_the_shot_without_the_look() -> None:
    claims = declare(config(guards=["structure", "luma_flicker"]), shots={"in": 8, "out": 8}, no_truth=["out"]).claims
    guards = [(c.metric, c.domain, c.margin) for c in claims if c.kind == "guard"]
    assert guards == [
        ("structure", "in", 0.02), ("luma_flicker", "in", 0.1),
        ("structure_kept", "out", 0.02), ("luma_flicker", "out", 0.1),
    ]  # fmt: skip


def test_a_measure_that_does_not_exist_is_refused_wherever_it_is_named() -> None:
    for name in ("closer", "guards", "interaction", "control"):
        with pytest.raises(ConfigError, match="'beauty', which is not measured"):
            declare(config(**{name: ["beauty"]}), shots={})
    with pytest.raises(ConfigError, match="'beauty'"):
        declare(config(margins={"beauty": 1.0}), shots={})
    assert declare(config(closer=["clip_kid@dinov2"]), shots={}).claims[0].margin is None


def test_margins_are_for_measures_with_a_better_side() -> None:
    merits = {row.name for row in METRICS if row.better != "none"}
    assert merits <= set(MARGINS), "a measure without a margin can never read `no worse`"


def test_the_protocol_says_what_arms_do_not_share() -> None:
    file = FileRef(path="a", sha256="a")

    def key(arm: str, method: str = "develop", picked: int = 0) -> Keyframe:
        return Keyframe(
            shot="s", arm=arm, seed=0, method=method, image=file, condition=file, opening=None, candidates=(file,),  # type: ignore[arg-type]
            scores=(1.0,), picked=picked,
        )  # fmt: skip

    assert shared([], [], "") == "arms share reference, seed, candidate, scenes of the film and settings"
    said = shared([key("base"), key("look")], [], "a film look")
    assert "they do not share the first picture (develop: each arm makes its own" in said and "`a film look`" in said
    assert "which late frame" in shared([key("base", "late")], [], "") and "candidate of" not in said
    assert "the candidate of 1 shots" in shared([key("base"), key("look", picked=1)], [], "")
    assert shared([key("base", "as-is")], [], "").endswith("settings")
