"""The report without pictures: the same words and numbers, in forms that other programs read."""

from __future__ import annotations

import csv
import io
import json

from cinetune.report import verdicts
from cinetune.report.formats import as_csv, as_json, as_markdown
from cinetune.results import Scored
from cinetune.store import Project


def test_markdown_says_what_the_page_says(salt_road: Project) -> None:
    cards = salt_road.store.need(Scored).scorecards
    text = as_markdown("The | Salt\nRoad", cards, None)
    assert text.startswith("# The \\| Salt Road\n\nYes at home, unclear away; it costs structure.\n")
    for answer in verdicts.answers(cards):
        assert answer.sentence in text
    rows = [line for line in text.splitlines() if line.startswith("| look")]
    declared = sum(bool(score.claim) for card in cards for score in card.effects)
    assert len(rows) == declared and all(line.count("|") == 8 for line in rows)


def test_json_holds_every_card_and_the_answers(salt_road: Project) -> None:
    cards = salt_road.store.need(Scored).scorecards
    body = json.loads(as_json("Salt", cards, None))
    assert len(body["scorecards"]) == len(cards) and body["headline"].startswith("Yes at home")
    assert [answer["word"] for answer in body["answers"]] == [answer.word for answer in verdicts.answers(cards)]


def test_csv_has_a_line_for_each_measure_with_full_numbers(salt_road: Project) -> None:
    cards = salt_road.store.need(Scored).scorecards
    rows = list(csv.DictReader(io.StringIO(as_csv("Salt", cards, None))))
    assert len(rows) == sum(len(card.effects) for card in cards)
    first = cards[0].effects[0]
    assert rows[0]["metric"] == first.metric and float(rows[0]["value"]) == first.value
    missing = next(row for row in rows if row["why"] == "no graded truth for these shots")
    assert missing["value"] == "" and missing["verdict"] == ""
