"""Looks side by side: every word is its own page's, and what cannot be compared says so."""

from __future__ import annotations

from pathlib import Path

import pytest

from cinetune.errors import StoreError
from cinetune.report.beside import side_by_side
from cinetune.results import Scored
from cinetune.store import Project


def test_a_column_for_each_look_with_its_own_words(salt_road: Project) -> None:
    head, answer, design, *rows = side_by_side([salt_road, salt_road])
    assert head[:3] == ["comparison", "domain", "measure"] and head[3] == head[4] == "the-salt-road"
    assert answer[3].startswith("Yes at home") and design[2] == "the same"
    declared = sum(bool(score.claim) for card in salt_road.store.need(Scored).scorecards for score in card.effects)
    assert len(rows) == declared and all(row[3] == row[4] and row[3] for row in rows)
    assert ["look - base", "in", "structure", *["\N{MINUS SIGN}0.067 worse"] * 2] in rows


def test_a_project_without_scores_is_named(salt_road: Project, tmp_path: Path) -> None:
    (tmp_path / "cinetune.toml").write_text('name = "empty"\n')
    with pytest.raises(StoreError, match="score"):
        side_by_side([salt_road, Project(tmp_path)])
