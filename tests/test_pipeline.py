"""Staleness, order, resuming: small real stages that write words instead of films."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, make_dataclass
from typing import Any

import pytest

from cinetune import pipeline
from cinetune.artifacts import Rejected
from cinetune.errors import ConfigError, FootageError, StoreError
from cinetune.pipeline import STAGES, StageStatus, stage_named
from cinetune.runtime import Quiet, Reporter
from cinetune.stage import Made, Stage
from cinetune.store import Project, StageRecord, sha256_file

ORDER = ["ingest", "prepare", "cache", "train", "keyframes", "expand", "deliver", "score", "report"]


@dataclass
class Words:
    """A stage that joins its parents' words and its own file's; `calls` counts its runs."""

    name: str
    parents: tuple[Words, ...] = ()
    sections: tuple[str, ...] = ()
    file: str = ""
    before: Callable[[], None] = lambda: None
    calls: list[str] = field(default_factory=list)
    result: Any = None
    stage: Any = None

    def __post_init__(self) -> None:
        groups = [("words", tuple[Any, ...], ()), ("files", tuple[Any, ...], ())]
        self.result = make_dataclass("Joined", groups, namespace={"stage": self.name}, frozen=True, kw_only=True)
        parents = tuple(parent.result for parent in self.parents)
        self.stage = Stage(
            result=self.result, make=self.make, inputs=self.inputs, parents=parents, sections=self.sections
        )

    def inputs(self, project: Project) -> dict[str, str]:
        path = project.root / self.file
        if self.file and not path.is_file():
            raise ConfigError(f"no {self.file}")
        return {self.file: sha256_file(path)} if self.file else {}

    def make(self, project: Project, report: Reporter) -> Made[Any]:
        self.before()
        self.calls.append(self.name)
        words = [word.path for parent in self.parents for word in project.store.need(parent.result).words]
        if self.file:
            words.append((project.root / self.file).read_text())
        with project.store.new_object(".txt") as (path, done):
            path.write_text(" ".join(words))
        said = Rejected(path=" ".join([*words, self.name]).split()[-1], reason="r", remedy="r")
        return Made(result=self.result(words=(said,), files=tuple(done)))


def status(project: Project, story: tuple[Words, ...]) -> list[StageStatus]:
    return pipeline.status(project, [each.stage for each in story])


def run(project: Project, report: Quiet, *, stages: tuple[Words, ...], **how: Any) -> list[StageRecord]:
    return pipeline.run(project, report, stages=[each.stage for each in stages], **how)


@pytest.fixture
def story(project: Project) -> tuple[Words, Words, Words]:
    (project.root / "film.txt").write_text("film")
    return (
        ingest := Words("ingest", file="film.txt", sections=("footage",)),
        train := Words("train", parents=(ingest,), sections=("train",)),
        Words("score", parents=(train,), sections=("score",)),
    )


def states(rows: list[StageStatus]) -> list[str]:
    return [row.state for row in rows]


def why(rows: list[StageStatus]) -> list[str]:
    return [row.why for row in rows]


def test_the_story_is_told_in_order() -> None:
    assert [stage.name for stage in STAGES] == ORDER


def test_every_stage_reads_only_what_comes_before_it() -> None:
    for position, stage in enumerate(STAGES):
        assert set(stage.reads) <= set(ORDER[:position]), stage.name


@pytest.mark.parametrize("stage", STAGES, ids=ORDER)
def test_every_stage_names_real_sections(project: Project, stage: Stage[Any]) -> None:
    assert set(stage.sections) <= set(type(project.config).model_fields)


def test_nothing_has_run_yet(project: Project, story: tuple[Words, ...]) -> None:
    rows = status(project, story)
    assert states(rows) == ["missing"] * 3
    assert why(rows) == ["not run yet", "after ingest", "after train"]
    assert not (project.root / "work").exists(), "status only reads"


def test_a_second_run_does_nothing(project: Project, report: Quiet, story: tuple[Words, ...]) -> None:
    assert [record.stage for record in run(project, report, stages=story)] == ["ingest", "train", "score"]
    assert states(status(project, story)) == ["done"] * 3
    assert run(Project(project.root), report, stages=story) == []
    assert [len(stage.calls) for stage in story] == [1, 1, 1]
    row = status(project, story)[0]
    assert row.wall_seconds is not None and row.wall_seconds >= 0
    assert row.created_utc.endswith("+00:00")


def test_a_changed_setting_is_named_and_runs_what_follows(
    project: Project, report: Quiet, story: tuple[Words, ...]
) -> None:
    run(project, report, stages=story)
    changed = Project(project.root, overrides=("train.lr=1e-3", "train.rank=4"))
    rows = status(changed, story)
    assert states(rows) == ["done", "stale", "stale"]
    assert why(rows)[1:] == ["train.lr: 3e-05 -> 0.001; train.rank: 8 -> 4", "after train"]
    assert [record.stage for record in run(changed, report, stages=story)] == ["train"]
    assert states(status(changed, story)) == ["done"] * 3, "train came out the same, so what follows still holds"


def test_a_changed_file_is_named_and_runs_what_follows(
    project: Project, report: Quiet, story: tuple[Words, ...]
) -> None:
    run(project, report, stages=story)
    (project.root / "film.txt").write_text("another film, cut")
    assert why(status(project, story)) == ["film.txt changed", "after ingest", "after train"]
    ran = [record.stage for record in run(project, report, stages=story)]
    assert ran == ["ingest", "train"], "train reads the new words but comes out the same, so score still holds"


def test_a_lost_file_is_made_again(project: Project, report: Quiet, story: tuple[Words, ...]) -> None:
    record = run(project, report, stages=story)[1]
    lost = record.groups["files"][0]
    project.store.path(lost).unlink()
    row = status(project, story)[1]
    assert (row.state, row.why) == ("stale", f"{lost.path} is gone")
    run(project, report, stages=story)
    assert project.store.path(lost).is_file()


def test_a_run_that_fails_keeps_what_was_finished_and_goes_on_from_there(
    project: Project, report: Quiet, story: tuple[Words, ...]
) -> None:
    def fail() -> None:
        raise FootageError("bad reel")

    story[1].before = fail
    with pytest.raises(FootageError, match="bad reel"):
        run(project, report, stages=story)
    assert states(status(project, story)) == ["done", "missing", "missing"]
    story[1].before = lambda: None
    assert [record.stage for record in run(project, report, stages=story)] == ["train", "score"]


def test_run_until_and_only(project: Project, report: Quiet, story: tuple[Words, ...]) -> None:
    assert [record.stage for record in run(project, report, until="train", stages=story)] == ["ingest", "train"]
    assert [record.stage for record in run(project, report, only="score", stages=story)] == ["score"]
    assert [record.stage for record in run(project, report, only="score", again=True, stages=story)] == ["score"]
    with pytest.raises(ConfigError, match="no stage 'shoot'"):
        run(project, report, until="shoot", stages=story)


def test_a_stage_without_its_parent_says_what_to_run(project: Project, report: Quiet, story: tuple[Words, ...]) -> None:
    with pytest.raises(StoreError, match="`train` has not been run yet"):
        run(project, report, only="score", stages=story)


def test_what_cannot_be_told_is_blocked_with_its_reason(
    project: Project, report: Quiet, story: tuple[Words, ...]
) -> None:
    run(project, report, stages=story)
    (project.root / "film.txt").unlink()
    rows = status(project, story)
    assert (rows[0].state, rows[0].why) == ("blocked", "no film.txt")
    assert states(rows)[1:] == ["stale", "stale"]
    with pytest.raises(ConfigError, match=r"no film\.txt"):
        run(project, report, stages=story)


def test_a_damaged_record_is_blocked(project: Project, report: Quiet, story: tuple[Words, ...]) -> None:
    run(project, report, stages=story)
    project.store.stage_path("train").write_text("{")
    rows = status(project, story)
    assert states(rows) == ["done", "blocked", "blocked"]
    assert "damaged" in rows[1].why


def test_stages_are_found_by_name(story: tuple[Words, ...]) -> None:
    assert stage_named("train", [each.stage for each in story]) is story[1].stage


def test_a_run_holds_the_project(project: Project, report: Quiet, story: tuple[Words, ...]) -> None:
    def second() -> None:
        with pytest.raises(StoreError, match="another cinetune"):
            run(Project(project.root), Quiet(), stages=story)

    story[0].before = second
    run(project, report, stages=story)
    assert len(story[0].calls) == 1
