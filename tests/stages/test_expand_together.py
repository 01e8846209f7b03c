"""Keyframes and shots that several processes make together are those of one."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from cinetune.errors import ConfigError
from cinetune.pipeline import run
from cinetune.records import read_log
from cinetune.runtime import Quiet
from cinetune.stages import keyframes
from cinetune.store import Project
from crew import crew
from small_project import make_project

STAGES = ("keyframes", "expand")


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_project(tmp_path_factory.mktemp("together") / "p", shots=2, seconds=0.8)


@pytest.fixture(scope="module")
def alone(template: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return made(Path(shutil.copytree(template, tmp_path_factory.mktemp("alone") / "p")))


def made(root: Path, *overrides: str) -> dict[str, str]:
    """What the stages wrote, by the hash of their records."""
    project = Project(root, overrides=overrides)
    for stage in STAGES:
        run(project, Quiet(), only=stage)
    return {stage: project.store.need_stage(stage).output_sha for stage in STAGES}


@pytest.mark.parametrize(
    ("size", "settings"),
    [
        (2, ()),
        (2, ("shoot.split_guidance=true",)),
        pytest.param(4, ("shoot.split_guidance=true",), marks=pytest.mark.slow),
    ],
)
def test_several_processes_write_the_records_of_one(
    template: Path, alone: dict[str, str], tmp_path: Path, size: int, settings: tuple[str, ...]
) -> None:
    root = Path(shutil.copytree(template, tmp_path / "p"))
    crew(size, lambda: made(root, *settings) and None, tmp_path / "said")  # type: ignore[arg-type,return-value]
    store = Project(root).store
    assert {stage: store.need_stage(stage).output_sha for stage in STAGES} == alone
    logs = [read_log(path) for path in (root / "work" / "logs" / "expand").iterdir()]
    assert [[line["kind"] for line in log] for log in logs] == [["begin", "made"]] * 4
    assert not (root / "work" / "expand").exists()


@pytest.mark.slow
@pytest.mark.parametrize("settings", [("shoot.ulysses=2",), ("shoot.split_guidance=true", "shoot.shard=true")])
def test_shared_tokens_and_a_base_in_shards_give_the_pictures_of_one_to_rounding(
    template: Path, tmp_path: Path, settings: tuple[str, ...]
) -> None:
    """The order of a sum on a CPU depends on where its operands lie in memory, and shards are gathered elsewhere."""
    from cinetune.files import read_master

    plain, shared = (Path(shutil.copytree(template, tmp_path / name)) for name in ("plain", "shared"))
    made(plain)
    crew(2, lambda: made(shared, *settings) and None, tmp_path / "said")  # type: ignore[arg-type,return-value]
    films = []
    for root in (plain, shared):
        store = Project(root).store
        films.append([read_master(store.path(one.video)) for one in store.need_stage("expand").groups["sequences"]])
    for one, other in zip(*films, strict=True):
        assert abs(one - other).max() < 1e-3


def test_an_executor_and_torchrun_at_once_are_refused(template: Path, tmp_path: Path) -> None:
    root = Path(shutil.copytree(template, tmp_path / "p"))

    def job() -> None:
        with pytest.raises(ConfigError, match=r"shoot\.executor"):
            keyframes.run(Project(root, overrides=("shoot.workers=2",)), Quiet())

    crew(2, job, tmp_path / "said")
