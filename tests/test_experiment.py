"""Experiments by name, on shots of small wan21 classes that are already made."""

from __future__ import annotations

from pathlib import Path

import pytest

from cinetune.cli import main
from cinetune.errors import ConfigError
from cinetune.experiment import EXPERIMENTS, announce, answer, concluded, settings_of
from cinetune.results import Scored
from cinetune.runtime import Quiet
from cinetune.stages import score
from cinetune.store import Project
from scoring_project import REFERENCES, make_scored_project


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_scored_project(tmp_path_factory.mktemp("experiment") / "p")


@pytest.fixture(scope="module")
def project(template: Path) -> Project:
    made = Project(template, overrides=tuple(settings_of("ood", list(REFERENCES), quick=True)))
    score.run(made, Quiet())
    return made


def test_the_users_settings_win_over_the_experiments() -> None:
    found = settings_of("ood", ["shoot.seeds=5"], quick=True)
    assert [text for text in found if text.startswith("shoot.seeds")] == ["shoot.seeds=5"]
    assert "shoot.seeds=3" in settings_of("ood", quick=False)
    with pytest.raises(ConfigError, match="one of ood"):
        settings_of("moon", quick=False)


def test_its_settings_are_settings_and_its_measures_are_measured(project: Project) -> None:
    """A misspelt key or measure in the table would only show after a night of rendering."""
    assert project.config.score.design.closer == ("clip_kid",)
    card = next(card for card in project.store.need(Scored).scorecards if card.domain == "in")
    assert set(EXPERIMENTS["ood"].measures) <= {found.metric for found in card.effects}


def test_the_question_is_answered_in_and_out_and_between(project: Project) -> None:
    cards = project.store.need(Scored).scorecards
    lines = {line.metric: line for line in answer(cards, EXPERIMENTS["ood"].measures)}
    for metric in ("clip_kid", "clip_fid"):
        line = lines[metric]
        for found in (line.inside, line.outside, line.between):
            assert found is not None and found.value is not None, metric
            assert found.low is not None and found.high is not None and found.low <= found.value <= found.high, metric
        assert line.inside is not None and line.outside is not None and line.between is not None
        assert line.inside.value is not None and line.outside.value is not None
        assert line.between.value == pytest.approx(line.inside.value - line.outside.value, rel=1e-6, abs=1e-12)
    # The planted look warms every shot; warm is nearer to the warm reference and further from the cold one.
    kid = lines["clip_kid"]
    assert kid.inside is not None and kid.outside is not None and kid.inside.value is not None
    assert kid.inside.claim == "closer" and kid.between is not None and kid.between.claim == "interaction"


def test_the_answer_is_written_down_with_how_it_was_measured(project: Project) -> None:
    text, path = concluded(project, "ood")
    assert path.read_text(encoding="utf-8") == text
    assert "| `clip_kid` (squared MMD) |" in text and "own: image encoder of wan21" in text
    assert "references: in: 6 clips of history; out: 6 clips of future" in text


def test_the_design_is_said_before_anything_is_rendered(project: Project) -> None:
    said = "\n".join(announce(project, "ood"))
    assert "8 shots, against history" in said and "clip_kid closer (in)" in said
    assert (
        "found four times in five" in said
        and "no truth: structure is held against the same shot without" in said
        and "structure_kept guard (out)" in said
    )


def test_what_is_missing_is_said_at_once(template: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "-C", str(template), "--experiment", "ood"]) == 2
    said = capsys.readouterr().err
    assert "set score.reference.in" in said and "set score.reference.out" in said and "docs/ood.md" in said
    few = Project(template, overrides=('score.reference.in="nowhere"',))
    with pytest.raises(ConfigError, match="names nowhere, which is not there"):
        announce(few, "ood")
