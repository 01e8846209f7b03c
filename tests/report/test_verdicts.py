from __future__ import annotations

from dataclasses import replace
from typing import Literal

import pytest

from cinetune.artifacts import Arm, Score, Scorecard
from cinetune.report.verdicts import answers, headline, number, rows, signed

MINUS = "\N{MINUS SIGN}"
Kind = Literal["", "closer", "guard", "interaction"]


def score(metric: str, word: str, kind: Kind = "closer", value: float = -1.0) -> Score:
    """A score with a word; `not measured` stands for a missing value."""
    missing = word == "not measured"
    return Score(
        metric=metric, version="1", unit="", better="lower", value=None if missing else value,
        low=None if missing else value - 0.5, high=None if missing else value + 0.5, n=8, harmed=3, claim=kind,
        q=0.01 if not kind else None, verdict="" if missing else word, why="no truth" if missing else "",
    )  # fmt: skip


def card(
    *scores: Score,
    arm: Arm = "look",
    versus: Arm = "base",
    domain: Literal["in", "out", "both"] = "in",
    levels: dict[str, dict[str, float | None]] | None = None,
) -> Scorecard:
    return Scorecard(
        arm=arm, versus=versus, domain=domain, shots=tuple(f"s{index}" for index in range(8)), seeds=(0,),
        levels=levels or {}, effects=scores, per_shot={}, protocol={}, warnings=(),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("improved", "improved"), "improved"),
        (("improved", "cannot tell"), "improved in part"),
        (("improved", "no worse"), "improved in part"),
        (("improved", "worse"), "mixed"),
        (("cannot tell", "worse"), "worse"),
        (("improved", "withheld"), "withheld"),
        (("improved", "not measured"), "improved"),
        (("improved", "not valid here"), "improved"),
        (("no worse", "no worse"), "no worse"),
        (("no worse", "cannot tell"), "cannot tell"),
        (("not measured", "not valid here"), "not measured"),
    ],
)
def test_an_answer_says_what_its_rows_say(words: tuple[str, str], expected: str) -> None:
    (answer,) = answers([card(score("tone_w1", words[0]), score("colour_error", words[1], value=-5.2))])
    assert answer.word == expected
    assert [row.word for row in answer.rows] == list(words)


def test_an_answer_never_hides_its_clearest_row() -> None:
    """The sentence over "cannot tell" and a clear gain names the gain with its numbers."""
    (answer,) = answers([card(score("tone_w1", "cannot tell"), score("colour_error", "improved", value=-5.2))])
    assert f"colour error to the truth {MINUS}5.2 ({MINUS}5.7 to {MINUS}4.7)" in answer.sentence
    assert "Not shown for tone-curve distance" in answer.sentence


def test_cost_is_asked_in_both_worlds() -> None:
    cards = [
        card(score("structure", "worse", "guard", 0.067), score("motion_error", "no worse", "guard")),
        card(score("structure", "cannot tell", "guard"), domain="out"),
    ]
    inside, outside = answers(cards)
    assert (inside.word, outside.word) == ("worse", "cannot tell")
    assert "It costs structure +0.07" in inside.sentence
    assert "more than the margin cannot be ruled out for structure" in outside.sentence
    held = answers([card(score("structure", "no worse", "guard"), score("motion_error", "improved", "guard"))])
    assert held[0].word == "no worse"
    assert answers([card(score("structure", "not measured", "guard"))])[0].word == "not measured"


def test_rows_that_were_not_declared_decide_nothing() -> None:
    assert answers([card(score("motion", "", ""))]) == []
    (row,) = rows(card(score("motion", "", "")))
    assert (row.word, row.sign, row.declared) == ("", "▼", False)


@pytest.mark.parametrize(
    ("inside", "outside", "word", "said"),
    [
        (-3.0, -1.0, "more inside", "helps more at home than away"),
        (-1.0, -3.0, "more outside", "helps more away than at home"),
        (1.0, 3.0, "more inside", "harms less at home than away"),
        (-2.0, 1.0, "more inside", "helps at home and not away"),
    ],
)
def test_the_interaction_does_not_turn_harm_into_help(inside: float, outside: float, word: str, said: str) -> None:
    levels: dict[str, dict[str, float | None]] = {"tone_w1": {"in": inside, "out": outside}}
    both = card(score("tone_w1", word, "interaction", inside - outside), domain="both", levels=levels)
    (answer,) = answers([both])
    assert answer.word == word and said in answer.sentence and answer.tone == "fine"


def test_the_control_is_judged_by_look_against_plain() -> None:
    (answer,) = answers([card(score("tone_w1", "improved"), versus="plain")])
    assert (answer.kind, answer.word) == ("control", "improved")
    assert "Closer to the film than an ordinary adapter" in answer.sentence


@pytest.mark.parametrize(
    ("inside", "outside", "guard", "sentence"),
    [
        ("improved", "cannot tell", "worse", "Yes at home, unclear away; it costs structure."),
        ("improved", "worse", "no worse", "Yes at home, no, further from the film away; nothing that was guarded was "
         "lost."),
        ("cannot tell", "no worse", "cannot tell", "Unclear at home, no gain shown and no harm done away; "
         "whether it costs structure is not known."),
    ],
)  # fmt: skip
def test_one_sentence_says_it_all(inside: str, outside: str, guard: str, sentence: str) -> None:
    cards = [
        card(score("tone_w1", inside), score("structure", guard, "guard", 0.1)),
        card(score("tone_w1", outside), domain="out"),
    ]
    assert headline(answers(cards)) == sentence


def test_no_card_no_answer() -> None:
    assert answers([]) == []
    assert headline([]) == "Nothing was declared that the shots could answer."


def test_the_base_with_the_trigger_phrase_is_named() -> None:
    (answer,) = answers([card(score("tone_w1", "improved"), versus="trigger")])
    assert "than the base model with the same trigger phrase" in answer.sentence


def test_the_shots_that_gained_least_are_named() -> None:
    gains = {"night": -0.2, "dusk": -1.5, "noon": -6.0, "dawn": 0.4, "day": -5.5}
    by_shot = {shot: {"base": 10.0, "look": 10.0 + gain} for shot, gain in gains.items()}
    one = replace(card(score("tone_w1", "improved", value=-2.56)), per_shot={"tone_w1": by_shot})
    assert rows(one)[0].least == f"least in dawn (+0.4) and night ({MINUS}0.2)"
    few = replace(one, per_shot={"tone_w1": {shot: by_shot[shot] for shot in ("night", "noon", "day")}})
    assert rows(few)[0].least == ""


def test_declared_rows_come_first_and_a_missing_value_keeps_its_reason() -> None:
    first, second = rows(card(score("motion", "", ""), score("tone_w1", "not measured")))
    assert (first.score.metric, first.word, first.score.why) == ("tone_w1", "not measured", "no truth")
    assert (second.title, second.harmed) == ("motion", "3 of 8 shots moved the wrong way")


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
