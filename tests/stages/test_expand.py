"""The expand stage: masters, proxies, seeds shared by the arms, workers, and resuming."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from cinetune.artifacts import Sequence
from cinetune.footage.read.stills import read_image
from cinetune.footage.video import probe
from cinetune.runtime import Quiet
from cinetune.stages import expand, keyframes
from cinetune.store import Project, StageRecord
from small_project import make_project


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two shots of 13 frames, that is two segments, with their keyframes."""
    root = make_project(tmp_path_factory.mktemp("expand") / "p", shots=2, seconds=0.8)
    keyframes.run(Project(root), Quiet())
    return root


def run(template: Path, where: Path, *overrides: str) -> tuple[Project, StageRecord]:
    project = Project(Path(shutil.copytree(template, where)), overrides=overrides)
    return project, expand.run(project, Quiet())


def master(project: Project, sequence: Sequence) -> np.ndarray:
    return load_file(project.store.path(sequence.video))["frames_THWC"]


@pytest.fixture(scope="module")
def serial(template: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Project, StageRecord]:
    return run(template, tmp_path_factory.mktemp("serial") / "p")


def test_each_keyframe_becomes_a_shot(serial: tuple[Project, StageRecord]) -> None:
    project, record = serial
    made: tuple[Sequence, ...] = record.groups["sequences"]
    assert [(s.arm, s.shot, s.domain) for s in made] == [
        ("base", "sh0", "in"),
        ("base", "sh1", "out"),
        ("look", "sh0", "in"),
        ("look", "sh1", "out"),
    ]
    for sequence in made:
        film = master(project, sequence)
        assert film.dtype == np.uint16 and film.shape == (13, 32, 48, 3) == (
            sequence.frames,
            sequence.height,
            sequence.width,
            3,
        )
        assert [(s.first_frame, s.frames) for s in sequence.segments] == [(0, 9), (9, 4)]
        assert sequence.seam_ratio is not None and sequence.seam_ratio > 0 and sequence.drift > 0
        facts = probe(project.store.path(sequence.proxy))
        assert (facts.frames, facts.rate, facts.height, facts.width) == (13, sequence.rate, 256, 384)
    assert any("worst join" in note for note in record.notes)


def test_a_developed_shot_opens_with_its_keyframe(serial: tuple[Project, StageRecord]) -> None:
    project, record = serial
    found = project.store.need_stage("keyframes").groups["keyframes"]
    for keyframe, sequence in zip(found, record.groups["sequences"], strict=True):
        picture = np.rint(read_image(project.store.path(keyframe.image)) * 65535).astype(np.uint16)
        assert np.array_equal(master(project, sequence)[0], picture)
        assert sequence.keyframe == keyframe.image.sha256


def test_arms_share_seeds_and_differ_in_pictures(serial: tuple[Project, StageRecord]) -> None:
    project, record = serial
    base, look = record.groups["sequences"][0], record.groups["sequences"][2]
    assert base.segments == look.segments
    assert not np.array_equal(master(project, base), master(project, look))


def test_workers_make_the_same_bytes(template: Path, tmp_path: Path, serial: tuple[Project, StageRecord]) -> None:
    record = run(template, tmp_path / "p", "shoot.workers=2")[1]
    for there, here in zip(record.groups["sequences"], serial[1].groups["sequences"], strict=True):
        assert (there.video, there.proxy, there.drift) == (here.video, here.proxy, here.drift)
    assert record.output_sha == serial[1].output_sha


def test_an_opening_that_has_to_be_computed_again_is_the_same(
    template: Path, tmp_path: Path, serial: tuple[Project, StageRecord]
) -> None:
    from dataclasses import replace

    root = Path(shutil.copytree(template, tmp_path / "p"))
    project = Project(root)
    record = project.store.need_stage("keyframes")
    bare = [replace(keyframe, opening=None) for keyframe in record.groups["keyframes"]]
    project.store.save_stage("keyframes", record.input_key, {"keyframes": bare}, made=record.provenance)
    again = expand.run(project, Quiet()).groups["sequences"]
    assert [s.video for s in again] == [s.video for s in serial[1].groups["sequences"]]


def test_finished_shots_are_not_made_again(template: Path, tmp_path: Path) -> None:
    class Stopped(Quiet):
        def advance(self, steps: int = 1, note: str = "") -> None:
            raise KeyboardInterrupt

    root = Path(shutil.copytree(template, tmp_path / "p"))
    with pytest.raises(KeyboardInterrupt):
        expand.run(Project(root), Stopped())
    (unit,) = (root / "work" / "units" / "expand").glob("*.json")
    before = unit.stat().st_mtime_ns
    report = Quiet()
    expand.run(Project(root), report)
    assert unit.stat().st_mtime_ns == before and report.lines == ["1 of 4 shots are there already"]
    prompts = (root / "shots.toml").read_text().replace("a sh1 barn", "a sh1 hill")
    (root / "shots.toml").write_text(prompts)
    report = Quiet()
    expand.run(Project(root), report)
    assert report.lines == ["2 of 4 shots are there already"]


def test_a_shot_taken_out_of_the_list_is_left_out(template: Path, tmp_path: Path) -> None:
    root = Path(shutil.copytree(template, tmp_path / "p"))
    text = (root / "shots.toml").read_text()
    (root / "shots.toml").write_text(text[: text.rindex("[[shot]]")].replace("seconds = 0.8", "seconds = 0.1"))
    made = expand.run(Project(root), Quiet()).groups["sequences"]
    assert [(s.shot, s.frames, s.seam_ratio) for s in made] == [("sh0", 5, None), ("sh0", 5, None)]
