"""The keyframes stage: what it writes for each arm, that it can be killed, and what makes a keyframe stale."""

from __future__ import annotations

import os
import shutil
import signal
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file as load_numpy
from safetensors.torch import load_file

from cinetune.artifacts import Keyframe
from cinetune.errors import ConfigError, StoreError
from cinetune.footage.read.stills import read_image, write_png16
from cinetune.runtime import Quiet
from cinetune.stages import expand, keyframes
from cinetune.store import Project, StageRecord
from small_project import make_project, moving_picture


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_project(tmp_path_factory.mktemp("keyframes") / "p", shots=2, arms=("look", "plain"))


def copy(template: Path, where: Path) -> Path:
    return Path(shutil.copytree(template, where))


def run(root: Path, *overrides: str) -> tuple[Project, StageRecord]:
    project = Project(root, overrides=overrides)
    return project, keyframes.run(project, Quiet())


class KilledAfter(Quiet):
    """A reporter whose process is killed once `pieces` pieces are done."""

    def __init__(self, pieces: int) -> None:
        super().__init__()
        self.left = pieces

    @contextmanager
    def progress(self, label: str, total: int):
        yield self

    def advance(self, steps: int = 1, note: str = "") -> None:
        self.left -= 1
        if self.left == 0:
            os.kill(os.getpid(), signal.SIGKILL)


def test_every_shot_arm_and_seed_gets_a_keyframe(template: Path, tmp_path: Path) -> None:
    project, record = run(copy(template, tmp_path / "p"), "shoot.seeds=2")
    made: tuple[Keyframe, ...] = record.groups["keyframes"]
    names = [(k.arm, k.shot, k.seed) for k in made]
    assert names == [
        (arm, shot, seed) for arm in ("base", "look", "plain") for shot in ("sh0", "sh1") for seed in (0, 1)
    ]
    assert len({k.image.sha256 for k in made}) == len(made)
    for keyframe in made:
        assert (
            keyframe.method == "develop"
            and keyframe.opening is not None
            and keyframe.picked == 0
            and len(keyframe.scores) == 1
        )
        assert load_file(project.store.path(keyframe.opening))["latents_BCfhw"].shape == (1, 16, 3, 8, 12)
        # the reference, not the developed picture, is what the model is given
        given = read_image(project.store.path(keyframe.condition))
        assert np.array_equal(given, read_image(project.root / "refs" / f"{keyframe.shot}.png"))
    again = keyframes.run(project, Quiet())
    assert again.output_sha == record.output_sha


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_killed_run_goes_on_where_it_was_and_ends_the_same(template: Path, tmp_path: Path) -> None:
    whole = run(copy(template, tmp_path / "whole"))[1]
    root = copy(template, tmp_path / "killed")
    child = os.fork()
    if child == 0:
        keyframes.run(Project(root), KilledAfter(2))
        os._exit(1)
    assert os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGKILL
    units = sorted((root / "work" / "units" / "keyframes").glob("*.json"))
    assert len(units) == 2
    before = [unit.stat().st_mtime_ns for unit in units]
    report = Quiet()
    resumed = keyframes.run(Project(root), report)
    assert resumed.output_sha == whole.output_sha
    assert [unit.stat().st_mtime_ns for unit in units] == before
    assert "2 of 6 keyframes are there already" in report.lines


def test_only_what_changed_is_made_again(template: Path, tmp_path: Path) -> None:
    root = copy(template, tmp_path / "p")
    project, first = run(root)
    write_png16(root / "refs" / "sh1.png", moving_picture(77, frames=1)[0])
    assert first.input_key != keyframes.STAGE.key(project)
    report = Quiet()
    second = keyframes.run(project, report)
    assert "3 of 6 keyframes are there already" in report.lines
    changed = {
        a.shot for a, b in zip(first.groups["keyframes"], second.groups["keyframes"], strict=True) if a.image != b.image
    }
    assert changed == {"sh1"}
    # the number of processes changes nothing
    run(root, "shoot.workers=2")
    assert len(list((root / "work" / "units" / "keyframes").glob("*.json"))) == 9


def test_all_arms_share_one_candidate_chosen_by_no_score_of_the_page(template: Path, tmp_path: Path) -> None:
    root = copy(template, tmp_path / "p")
    project, record = run(root, "keyframes.candidates=3", "shoot.seeds=2")
    made, plain = record.groups["keyframes"], run(root)[1].groups["keyframes"]
    assert len(record.notes) == 4 and all("keeps most of the reference's edges" in note for note in record.notes)
    sheet = read_image(project.store.work / "keyframes" / "candidates.png")
    assert sheet.shape[0] > 12 * 32 and sheet.shape[1] > 3 * 48  # a row for each shot, arm and seed
    for place in sorted({(k.shot, k.seed) for k in made}):
        note = next(note for note in record.notes if note.startswith(f"{place[0]} seed {place[1]}:"))
        order = [float(part.partition(")")[0]) for part in note.split("(")[1:]]
        assert order == sorted(order, reverse=True) and len(order) == 3
        own = [k for k in made if (k.shot, k.seed) == place]
        assert [k.arm for k in own] == ["base", "look", "plain"]
        assert {k.picked for k in own} == {int(np.argmax(np.mean([k.scores for k in own], axis=0)))}
        for keyframe in own:
            assert len(keyframe.scores) == len(keyframe.candidates) == 3
            assert keyframe.image == keyframe.candidates[keyframe.picked]
    for single in plain:
        ranked = next(k for k in made if (k.shot, k.arm, k.seed) == (single.shot, single.arm, 0))
        assert ranked.candidates[0] == single.image and ranked.candidates[1] != single.image


def test_the_trigger_arm_has_the_phrase_and_no_adapter(template: Path, tmp_path: Path) -> None:
    root = copy(template, tmp_path / "p")
    report = Quiet()
    made = keyframes.run(Project(root, overrides=('prepare.trigger="warm film"', "shoot.steps=1")), report)
    by_arm = {k.arm: k for k in made.groups["keyframes"] if k.shot == "sh0"}
    assert list(by_arm) == ["base", "trigger", "look", "plain"]
    assert len({k.image.sha256 for k in by_arm.values()}) == 4
    assert any(line.startswith("design ") and "base, trigger, look, plain" in line for line in report.lines)
    assert any(line.startswith("power ") for line in report.lines), "power is said before anything is shot"
    asked = ('prepare.trigger="warm film"', "shoot.steps=1", 'score.design.arms=["base", "look"]')
    without = keyframes.run(Project(root, overrides=asked), Quiet())
    assert {k.arm for k in without.groups["keyframes"]} == {"base", "look"}
    same = {k.shot: k for k in without.groups["keyframes"] if k.arm == "look"}
    assert same["sh0"] == by_arm["look"]


@pytest.mark.parametrize("method", ["develop", "restyle"])
def test_a_person_may_pick_another_candidate(template: Path, tmp_path: Path, method: str) -> None:
    root = copy(template, tmp_path / "p")
    settings = ("keyframes.candidates=2", f"keyframes.method={method}", "shoot.steps=1")
    ranked = run(root, *settings)[1].groups["keyframes"]
    last = next(k for k in ranked if k.shot == "sh1" and k.arm == "look")
    other = 1 - last.picked
    shots = root / "shots.toml"
    shots.write_text(shots.read_text() + f"pick = {other}\n")
    units = sorted((root / "work" / "units" / "keyframes").glob("*.json"))
    project, record = run(root, *settings)
    assert sorted((root / "work" / "units" / "keyframes").glob("*.json")) == units, "candidates were made again"
    for before, after in zip(ranked, record.groups["keyframes"], strict=True):
        assert after.picked == (other if after.shot == "sh1" else before.picked)
        assert after.image == after.candidates[after.picked]
        given = after.condition if method == "develop" else after.image
        assert after.condition == given and (after.condition != after.image) == (method == "develop")
    picked = next(k for k in record.groups["keyframes"] if k.shot == "sh1" and k.arm == "look")
    assert picked.opening is None
    if method == "develop":  # the shot begins with the picture that was picked
        sequences = expand.run(project, Quiet()).groups["sequences"]
        video = next(s.video for s in sequences if s.shot == "sh1" and s.arm == "look")
        first = load_numpy(project.store.path(video))["frames_THWC"][0] / 65535
        assert np.abs(first - read_image(project.store.path(picked.image))).max() < 1e-3


def test_a_pick_past_the_last_candidate_is_refused_before_work(template: Path, tmp_path: Path) -> None:
    root = copy(template, tmp_path / "p")
    shots = root / "shots.toml"
    shots.write_text(shots.read_text() + "pick = 2\n")
    with pytest.raises(ConfigError, match="numbered 0 to 1"):
        run(root, "keyframes.candidates=2")
    shots.write_text(shots.read_text().replace("pick = 2", "pick = -1"))
    with pytest.raises(ConfigError, match="counts from 0"):
        run(root)


@pytest.mark.parametrize("method", ["as-is", "restyle", "late", "settle"])
def test_other_methods_give_the_model_the_keyframe_itself(template: Path, tmp_path: Path, method: str) -> None:
    record = run(copy(template, tmp_path / "p"), f"keyframes.method={method}", "shoot.steps=1")[1]
    base, look, _ = (k for k in record.groups["keyframes"] if k.shot == "sh0")
    assert base.opening is None and base.condition == base.image
    assert (base.image == look.image) == (method == "as-is")


def test_a_shot_may_have_its_own_method(template: Path, tmp_path: Path) -> None:
    root = copy(template, tmp_path / "p")
    shots = root / "shots.toml"
    shots.write_text(shots.read_text() + 'method = "as-is"\n')
    made = run(root)[1].groups["keyframes"]
    assert {(k.shot, k.method) for k in made} == {("sh0", "develop"), ("sh1", "as-is")}


def test_an_empty_shot_list_and_a_missing_look_are_named(template: Path, tmp_path: Path) -> None:
    root = copy(template, tmp_path / "p")
    (root / "shots.toml").write_text("")
    with pytest.raises(ConfigError, match="shot list is empty"):
        run(root)
    (root / "work" / "stages" / "train.json").unlink()
    with pytest.raises(StoreError, match="`train` has not been run"):
        run(root)


def test_a_painted_keyframe_is_every_arms_first_picture(template: Path, tmp_path: Path) -> None:
    root = copy(template, tmp_path / "p")
    painted = moving_picture(55, frames=1)[0]
    write_png16(root / "refs" / "painted.png", painted)
    (root / "shots.toml").write_text((root / "shots.toml").read_text() + 'keyframe = "refs/painted.png"\n')
    project, record = run(root)
    found = [k for k in record.groups["keyframes"] if k.shot == "sh1"]
    assert {(k.method, k.image == k.condition) for k in found} == {("as-is", True)} and len(found) == 3
    assert np.abs(read_image(project.store.path(found[0].image)) - painted).max() < 1e-4
    before = keyframes.inputs(project)
    write_png16(root / "refs" / "painted.png", painted * 0.5)
    assert keyframes.inputs(project) != before


def test_a_shot_may_have_its_own_size_and_candidates(template: Path, tmp_path: Path) -> None:
    root = copy(template, tmp_path / "p")
    (root / "shots.toml").write_text((root / "shots.toml").read_text() + "height = 48\nwidth = 64\ncandidates = 2\n")
    project, record = run(root, "shoot.steps=1")
    for keyframe in record.groups["keyframes"]:
        own = keyframe.shot == "sh1"
        shape = read_image(project.store.path(keyframe.image)).shape
        assert (shape, len(keyframe.candidates)) == (((48, 64, 3), 2) if own else ((32, 48, 3), 1))


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ('last = "refs/sh0.png"', "shot 'sh1': .* was not taught to arrive at a picture"),
        ('rate = "24"', "shot 'sh1': .* makes 16 frames a second, not 24"),
        ("height = 50\nwidth = 64", "shot 'sh1': .* needs sides that are multiples"),
        ("height = 48", "shot 'sh1'"),
    ],
)
def test_what_the_model_cannot_do_is_refused_by_shot(template: Path, tmp_path: Path, line: str, reason: str) -> None:
    root = copy(template, tmp_path / "p")
    (root / "shots.toml").write_text((root / "shots.toml").read_text() + line + "\n")
    with pytest.raises(ConfigError, match=reason):
        run(root)
    assert not (root / "work" / "units" / "keyframes").exists()
