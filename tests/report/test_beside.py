"""Looks side by side: every word is its own page's, and what cannot be compared says so."""

from __future__ import annotations

from pathlib import Path

import pytest

from cinetune.errors import StoreError
from cinetune.report.beside import side_by_side, write_beside
from cinetune.results import Scored
from cinetune.store import Project


def test_a_column_for_each_look_with_its_own_words(salt_road: Project) -> None:
    head, answer, design, *rows = side_by_side([salt_road, salt_road])
    assert head == ["comparison", "domain", "measure", *[f"the-salt-road ({salt_road.root.name})"] * 2]
    assert answer[3].startswith("Yes at home") and design[2] == "the same"
    declared = sum(bool(score.claim) for card in salt_road.store.need(Scored).scorecards for score in card.effects)
    assert len(rows) == declared and all(row[3] == row[4] and row[3] for row in rows)
    assert ["look - base", "in", "structure", *["\N{MINUS SIGN}0.067 worse"] * 2] in rows


def test_the_page_shows_the_same_shots_by_every_look(salt_road: Project) -> None:
    path = write_beside([salt_road, salt_road])
    page = path.read_text(encoding="utf-8")
    assert path == salt_road.root / "report" / "beside.html"
    shots = len(salt_road.shots().shots)
    truths = sum(shot.truth is not None for shot in salt_road.shots().shots)
    assert page.count('<img class="still"') == 3 * shots + truths
    assert page.count(">improved</span>") == 2 * sum(
        score.verdict == "improved" for card in salt_road.store.need(Scored).scorecards for score in card.effects
    )
    assert "://" not in page and "<script" not in page


def test_a_project_without_scores_is_named(salt_road: Project, tmp_path: Path) -> None:
    (tmp_path / "cinetune.toml").write_text('name = "empty"\n')
    with pytest.raises(StoreError, match="score"):
        side_by_side([salt_road, Project(tmp_path)])
