"""The plan against every row measured on a card, and what it says of a card of 24 GB."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from cinetune.cost.cards import MARGIN
from cinetune.cost.memory import Setting
from cinetune.plan.run import shapes_of
from cinetune.store import Project
from cost.measured import ROWS, Row, table

NUMERICS = Path(__file__).resolve().parents[2] / "docs" / "numerics.md"


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row.kind} {row.size[0]} {row.what}")
def test_the_plan_is_right_about_what_was_measured(row: Row) -> None:
    seconds, memory = row.planned()
    assert seconds == pytest.approx(row.seconds, rel=0.10)
    if row.memory is not None:
        assert memory == pytest.approx(row.memory, rel=0.03)


def test_the_page_shows_these_rows() -> None:
    page = NUMERICS.read_text(encoding="utf-8")
    assert [line for line in table() if line not in page] == []


def test_a_card_of_24_gb_trains_and_shoots(tmp_path: Path) -> None:
    """A step over 33 frames of 480x832, and a segment of 81 frames of 720x1280, with the margin every plan leaves."""
    limit = 24e9 * MARGIN
    lean = Setting(checkpointing="full", storage="fp8", offload_blocks=40)
    (tmp_path / "cinetune.toml").write_text('preset = "wan21"\n[prepare]\nheight = 480\nwidth = 832\n')
    run, _ = shapes_of(Project(tmp_path))
    assert run is not None and run.memory(lean).total < limit
    (tmp_path / "cinetune.toml").write_text('preset = "wan21"\n[shoot]\nheight = 720\nwidth = 1280\n')
    run, _ = shapes_of(Project(tmp_path))
    assert run is not None
    shooting = run.shooting(lean, 81)
    assert shooting.total < limit
    everything = replace(shooting, encoders=shooting.encoders + 2 * run.encoders.text_parameters())
    assert everything.total > limit, "beside the text encoder it would not fit"
