"""The report without pictures: Markdown to paste, JSON to compute with, CSV to sort: of the score stage alone."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from cinetune.artifacts import Design, Scorecard
from cinetune.outside import one_line
from cinetune.records import to_json
from cinetune.report import verdicts

__all__ = ["FORMATS", "as_csv", "as_json", "as_markdown"]

_COLUMNS: tuple[str, ...] = (
    "arm", "versus", "domain", "metric", "version", "unit", "better", "claim", "margin", "value", "low", "high",
    "low90", "high90", "p", "adjusted", "q", "n", "harmed", "harmed_most", "verdict", "why",
)  # fmt: skip


def as_markdown(title: str, cards: Sequence[Scorecard], design: Design | None) -> str:
    """The answers as a page of Markdown: the sentence, a table of claims, warnings, how it was measured."""
    found = verdicts.answers(cards)
    lines = [f"# {_cell(title)}", "", verdicts.headline(found), ""]
    for answer in found:
        lines += [f"**{answer.question}** {answer.word}. {answer.sentence}", ""]
    lines += ["| comparison | measure | change | 95 % interval | p over all claims | wrong way | word |",
              "|---|---|---|---|---|---|---|"]  # fmt: skip
    for card in cards:
        for row in verdicts.rows(card):
            if row.declared:
                score = row.score
                p = "" if score.adjusted is None else f"{score.adjusted:.2g}"
                harmed = row.harmed.replace(" shots moved the wrong way", "")
                cells = [f"{card.arm} - {card.versus}, {card.domain}", row.title, row.effect, row.interval, p, harmed]
                lines.append("| " + " | ".join(_cell(cell) for cell in [*cells, row.word]) + " |")
    lines += ["", *(f"- {_cell(warning)}" for warning in dict.fromkeys(w for card in cards for w in card.warnings))]
    if design is not None:
        lines += ["", f"Design `{design.sha}`, first seen {design.declared_utc}.", ""]
        lines += [f"- {_cell(line)}" for line in design.power]
    return "\n".join(lines).rstrip() + "\n"


def as_json(title: str, cards: Sequence[Scorecard], design: Design | None) -> str:
    """Everything the score stage wrote, with the answers in words."""
    found = verdicts.answers(cards)
    body: dict[str, Any] = {
        "film": title,
        "headline": verdicts.headline(found),
        "answers": [
            {"question": a.question, "kind": a.kind, "domain": a.domain, "word": a.word, "sentence": a.sentence}
            for a in found
        ],
        "design": None if design is None else json.loads(to_json(design)),
        "scorecards": [json.loads(to_json(card)) for card in cards],
    }
    return json.dumps(body, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def as_csv(title: str, cards: Sequence[Scorecard], design: Design | None) -> str:
    """One line for each measure of each comparison, numbers in full; what is not known is empty."""
    del title, design
    out = io.StringIO()
    writer = csv.DictWriter(out, _COLUMNS, lineterminator="\n")
    writer.writeheader()
    for card in cards:
        for score in card.effects:
            writer.writerow({"arm": card.arm, "versus": card.versus, "domain": card.domain} | asdict(score))
    return out.getvalue()


FORMATS = {"csv": as_csv, "json": as_json, "markdown": as_markdown}


def _cell(text: str) -> str:
    return one_line(text).replace("|", "\\|")
