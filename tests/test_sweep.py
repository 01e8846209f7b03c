"""A sweep: real trainings side by side, kept by what they were made from, and the project's own look left alone."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from cinetune import sweep
from cinetune.artifacts import Numbers, Trial
from cinetune.cli import main
from cinetune.errors import ConfigError, StoreError
from cinetune.models.adapters.export import read_adapter
from cinetune.runtime import Quiet
from cinetune.stages import cache, train
from cinetune.store import Project
from cinetune.sweep import Swept
from small_project import make_project, provenance_of

SETTINGS = (
    "train.steps=2", "train.batch=2", "train.accumulate=1", "train.rank=2", "train.alpha=4", "train.lr=0.01",
    "train.validate_every=1", "train.validation_steps=1", "train.validation_seeds=2", "train.checkpointing=none",
)  # fmt: skip
ASKED = {"rank": "2,4", "lr": "0.01", "targets": "cross"}


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three cached windows, one of them held out."""
    root = make_project(tmp_path_factory.mktemp("sweep") / "p", film=3)
    project = Project(root, overrides=SETTINGS)
    windows = project.store.need_stage("prepare").groups["windows"]
    project.store.save_stage(
        "prepare", "test", {"windows": [*windows[:2], replace(windows[2], split="held")]}, made=provenance_of()
    )
    cache.run(project, Quiet())
    return root


@pytest.fixture(scope="module")
def swept(template: Path) -> tuple[Project, Swept]:
    project = Project(template, overrides=SETTINGS)
    return project, sweep.run(project, ASKED, Quiet(), apart=False)


def test_a_row_for_each_combination_with_what_it_cost_and_reached(swept: tuple[Project, Swept]) -> None:
    project, found = swept
    assert [(trial.rank, trial.lr, trial.targets) for trial in found.trials] == [(2, 0.01, "cross"), (4, 0.01, "cross")]
    for trial in found.trials:
        assert trial.weights is not None and trial.log is not None
        state = read_adapter(project.store.path(trial.weights))
        assert trial.parameters == sum(tensor.numel() for tensor in state.values())
        log = [json.loads(line) for line in project.store.path(trial.log).read_text().splitlines()]
        kept = next(line for line in log if line["kind"] == "evaluation" and line["step"] == trial.step)
        assert (trial.distance, trial.v_loss, trial.colour) == (kept["distance"], kept["v_loss"], kept["colour"])
        assert log[0]["recipe"]["alpha"] / log[0]["recipe"]["rank"] == 2  # the scale stays the project's
        assert trial.memory_gib and trial.memory_gib > 0 and trial.seconds_per_step and trial.seconds_per_step > 0
    assert found.trials[1].parameters == 2 * (found.trials[0].parameters or 0)
    distances = [trial.distance or 0 for trial in found.trials]
    assert found.best == distances.index(min(distances))


def test_the_table_the_json_and_the_page_say_the_same(swept: tuple[Project, Swept]) -> None:
    _, found = swept
    assert len(found.rows) == 3
    assert ["best" in row[-1] for row in found.rows[1:]] == [index == found.best for index in range(2)]
    distance = found.rows[0].index("LPIPS distance")
    assert [row[distance].endswith("*") for row in found.rows[1:]] == [index == found.best for index in range(2)]
    body = json.loads(found.json)
    assert body["best"] == found.best and body["trials"][1]["distance"] == found.trials[1].distance
    assert json.loads((found.page.parent / "sweep.json").read_text()) == body
    html = found.page.read_text()
    assert all(cell in html for row in found.rows for cell in row if cell.strip())
    assert 'class="curve look"' in html and "http" not in re.sub(r"<meta.*?>", "", html)


def test_a_second_run_does_nothing_and_a_broken_one_goes_on(
    swept: tuple[Project, Swept], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project, found = swept
    root = Path(shutil.copytree(project.root, tmp_path / "p"))
    opened = Project(root, overrides=SETTINGS)
    made: list[int] = []
    monkeypatch.setattr(train, "trial", lambda one, *_: made.append(one.config.train.rank))
    assert sweep.run(opened, ASKED, Quiet(), apart=False) == replace(found, page=root / "work" / "sweep" / "index.html")
    assert made == []
    second = Project(root, overrides=(*SETTINGS, "train.rank=4", "train.alpha=8.0"))
    key = train.trial_key(second)
    (root / "work" / "units" / "sweep" / f"{key}.json").unlink()  # as after a kill during the second trial
    with pytest.raises(AttributeError):  # the stand-in trains nothing
        sweep.run(opened, ASKED, Quiet(), apart=False)
    assert made == [4]


def test_the_projects_own_look_is_left_alone(swept: tuple[Project, Swept]) -> None:
    project, _ = swept
    assert project.store.need_stage("train").input_key == "test"  # as the fixture wrote it
    assert not (project.root / "work" / "train").exists()
    kept = [path.stem for path in (project.root / "work" / "units" / "train").glob("*.json")]
    assert kept and all(project.store.find_unit("train", key, Numbers) for key in kept)  # losses before it, and no look


def test_a_training_that_breaks_down_is_a_row(template: Path, tmp_path: Path) -> None:
    project = Project(
        Path(shutil.copytree(template, tmp_path / "p")), overrides=(*SETTINGS, "train.steps=6", "train.alpha=1000000")
    )
    found = sweep.run(project, {"lr": "100"}, Quiet(), apart=False)
    assert found.best is None
    assert "NaN" in found.trials[0].why
    assert found.rows[1][-1].startswith("failed: ")


def test_presets_are_recipes_and_the_command_line_wins(template: Path) -> None:
    few = ("train.steps=2", "train.rank=2", "train.alpha=4", "train.validate_every=1")
    asked = sweep._combinations(Project(template, overrides=few), {"preset": "paper, like-ai-toolkit", "lr": "1e-3,"})
    first, second = (one.project.config for one in asked)
    assert [one.preset for one in asked] == ["paper", "like-ai-toolkit"]
    assert (first.train.schedule, first.train.weight_decay, first.train.targets) == ("cosine", 0.01, "cross")
    assert (second.train.schedule, second.train.weight_decay, second.train.targets) == ("constant", 1e-4, "all-linear")
    assert (second.train.ema, second.train.shift, second.train.caption_dropout) == (0.99, 1.0, 0.05)
    for config in (first, second):
        assert (config.train.steps, config.train.rank, config.train.alpha, config.train.lr) == (2, 2, 4.0, 1e-3)
        assert config.train.validate_every == 1 and config.model.path == str(template / "model")
        assert (config.prepare.frames, config.shoot.height) == (33, 0), "of a preset, the recipe alone"


def test_a_preset_does_not_take_over_the_projects_augmentation(template: Path) -> None:
    project = Project(template, overrides=("train.augment.probability=0.7", "train.ema=0.5", "train.plain_arm=true"))
    (one,) = sweep._combinations(project, {"lr": "1e-3"})
    assert one.project.config.train.augment.probability == 0.7
    given = Project(template)
    (root := given.root / "cinetune.toml").write_text(
        root.read_text() + "[train]\nema = 0.5\naugment.probability = 0.7\n"
    )
    try:
        (one,) = sweep._combinations(Project(template), {"preset": "like-musubi"})
    finally:
        root.write_text(root.read_text().partition("[train]")[0])
    assert (one.project.config.train.augment.probability, one.project.config.train.ema) == (0.0, 0.0)


def test_presets_stand_in_one_table_and_are_judged_alike(template: Path, tmp_path: Path) -> None:
    root = Path(shutil.copytree(template, tmp_path / "p"))
    project = Project(root, overrides=(*SETTINGS, "train.shift=3.0"))
    asked = {"preset": "paper,like-ai-toolkit"}
    found = sweep.run(Project(root, overrides=SETTINGS), asked, Quiet(), apart=False)
    assert found.presets == ("paper", "like-ai-toolkit")
    assert found.rows[0][:2] == ("preset", "rank") and [row[0] for row in found.rows[1:]] == list(found.presets)
    assert [trial["preset"] for trial in json.loads(found.json)["trials"]] == list(found.presets)
    starts, levels = [], []
    for trial in found.trials:
        assert trial.log is not None
        log = [json.loads(line) for line in project.store.path(trial.log).read_text().splitlines()]
        starts.append(log[0]["recipe"])
        levels.append(next(line for line in log if line["kind"] == "evaluation"))
    assert [recipe["shift"] for recipe in starts] == [3.0, 1.0]
    # before the first step all adapters play the base: only the judge's noise levels and sampler could tell them apart
    assert levels[0]["v_loss_at"] == levels[1]["v_loss_at"] and levels[0]["distance"] == levels[1]["distance"]
    again = sweep.run(Project(root, overrides=SETTINGS), asked, Quiet(), apart=False)
    assert again == found


def test_equals_are_named() -> None:
    trials = [
        Trial(rank=rank, lr=1e-3, targets="cross", distance=distance, noise=0.02, step=1)
        for rank, distance in ((4, 0.50), (8, 0.51), (16, 0.60))
    ]
    assert [row[-1] for row in sweep._rows(trials, 0, ["", "", ""])[1:]] == ["best", "as good within noise", ""]


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({}, "nothing to sweep over"),
        ({"rank": "four"}, "a rank of 'four'"),
        ({"rank": "0"}, "a rank of '0'"),
        ({"lr": "fast"}, "train.lr"),
        ({"targets": "crosss"}, "train.targets"),
        ({"preset": "papr"}, "no preset 'papr'(?s:.*)one of like-ai-toolkit"),
    ],
)
def test_what_cannot_be_swept_is_explained(template: Path, asked: dict[str, str], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        sweep.run(Project(template, overrides=SETTINGS), asked, Quiet())


def test_it_needs_the_cache(project: Project) -> None:
    with pytest.raises(StoreError, match="`cache` has not been run yet"):
        sweep.run(project, {"rank": "4"}, Quiet(), apart=False)


@pytest.mark.slow
def test_the_verb_trains_in_processes_of_their_own(template: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["sweep", "-C", str(template), "--rank", "2", "--lr", "0.02"]
    settings = [part for setting in SETTINGS for part in ("--set", setting)]
    assert main([*words, *settings]) == 0
    out = capsys.readouterr().out
    assert "trial 1 of 1: rank 2, lr 0.02, cross" in out
    assert "parameters" in out and "best" in out and "index.html" in out
    assert main([*words, *settings, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["best"] == 0
