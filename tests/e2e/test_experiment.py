"""An experiment from reels to its answer through the command line, on the pocket model."""

from __future__ import annotations

from pathlib import Path

import pytest

from cinetune.cli import main
from cinetune.results import Scored
from cinetune.store import Project
from e2e.mini import make_mini

SETTINGS = (
    "prepare.frames=9",
    "shoot.segment_frames=9",
    "train.steps=3",
    "train.validate_every=3",
    "deliver.burn_in=false",
)


def shortened(root: Path) -> Path:
    """The project with shots of half a second."""
    text = (root / "shots.toml").read_text(encoding="utf-8").replace("seed =", "seconds = 0.5\nseed =")
    (root / "shots.toml").write_text(text, encoding="utf-8")
    return root


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_question_is_answered_from_reels_to_the_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = shortened(make_mini(tmp_path / "p", film=6, shots=8))
    settings = [part for key in SETTINGS for part in ("--set", key)]
    assert main(["run", "-C", str(root), "--experiment", "ood", "--quick", *settings]) == 0
    said = capsys.readouterr()
    assert "found four times in five" in said.out and "clip_kid interaction (both)" in said.out
    answer = (root / "report" / "experiment-ood.md").read_text(encoding="utf-8")
    assert answer in said.out
    row = next(line for line in answer.splitlines() if line.startswith("| `clip_kid` "))
    assert row.count(" to ") == 3, "an interval in, out and between"
    assert "in: 8 truths of the shots" in answer and "pocket CLIP, never to be compared" in answer
    scored = Project(root).store.need(Scored)
    assert {(card.arm, card.versus) for card in scored.scorecards} >= {("look", "base")}
    assert (root / "work" / "score" / "copies-look.webp").is_file() or "not measured" in answer
