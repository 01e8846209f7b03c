from __future__ import annotations

from typing import Literal

import pytest

from cinetune.artifacts import Arm, Score, Scorecard
from cinetune.report.verdicts import claims, number, rows, signed

MINUS = "\N{MINUS SIGN}"
PRIMARY = ("tone_w1", "colour_error")


def card(
    *effects: tuple[str, str], arm: Arm = "look", versus: Arm = "base", domain: Literal["in", "out", "both"] = "in"
) -> Scorecard:
    """A card with one effect for each (metric, verdict); the verdict `not measured` stands for a missing value."""
    scores = tuple(
        Score(
            metric=metric,
            version="1",
            unit="",
            better="lower",
            value=None if word == "not measured" else -1.0,
            n=8,
            verdict="" if word == "not measured" else word,
            why="no truth" if word == "not measured" else "",
        )
        for metric, word in effects
    )
    shots = tuple(f"s{index}" for index in range(8))
    return Scorecard(
        arm=arm,
        versus=versus,
        domain=domain,
        shots=shots,
        seeds=(0,),
        levels={},
        effects=scores,
        per_shot={},
        protocol={},
        warnings=(),
    )


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("improved", "improved"), "improved"),
        (("improved", "cannot tell"), "cannot tell"),
        (("improved", "worse"), "worse"),
        (("improved", "no worse"), "no worse"),
        (("improved", "not measured"), "improved"),
        (("not measured", "not measured"), "not measured"),
    ],
)
def test_a_claim_is_as_strong_as_its_weakest_measure(words: tuple[str, str], expected: str) -> None:
    (claim,) = claims([card(*zip(PRIMARY, words, strict=True))], PRIMARY)
    assert claim.word == expected
    assert [row.word for row in claim.rows] == list(words)


def test_only_primary_measures_decide_whether_the_look_is_closer() -> None:
    closer, steady = claims([card(("motion", "worse"), ("tone_w1", "improved"))], PRIMARY)
    assert (closer.word, steady.word) == ("improved", "worse")
    assert "motion" in steady.sentence


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("no worse", "improved"), "no worse"),
        (("no worse", "cannot tell"), "cannot tell"),
        (("not measured", "not measured"), "not measured"),
    ],
)
def test_steadiness_claims_no_more_than_was_shown(words: tuple[str, str], expected: str) -> None:
    (_, steady) = claims([card(*zip(("lpips", "motion"), words, strict=True))], PRIMARY)
    assert steady.word == expected


def test_the_control_is_judged_by_look_against_plain() -> None:
    cards = [
        card(("tone_w1", "improved"), versus="plain"),
        card(("tone_w1", "cannot tell"), arm="plain"),
    ]
    (claim,) = claims(cards, PRIMARY)
    assert claim.word == "improved"
    assert claim.sentence.endswith("Ordinary training alone, against base: cannot tell.")


def test_no_card_no_claim() -> None:
    assert claims([], PRIMARY) == []


def test_primary_rows_come_first_and_a_missing_value_keeps_its_reason() -> None:
    first, second = rows(card(("motion", "no worse"), ("tone_w1", "not measured")), PRIMARY)
    assert (first.score.metric, first.word, first.score.why) == ("tone_w1", "not measured", "no truth")
    assert (second.title, second.tone) == ("motion", "fine")


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "\N{EM DASH}"),
        (0.0, "0.00"),
        (9.4149, "9.41"),
        (0.01234, "0.0123"),
        (123.4, "123"),
        (-2.5, f"{MINUS}2.50"),
    ],
)
def test_numbers_have_three_digits(value: float | None, text: str) -> None:
    assert number(value) == text


def test_signs_are_shown() -> None:
    assert (signed(0.5), signed(-0.5), signed(None)) == ("+0.500", f"{MINUS}0.500", "\N{EM DASH}")
