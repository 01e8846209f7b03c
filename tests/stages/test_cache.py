"""The cache stage: what the files hold, what decides their keys, and resuming."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from cinetune.artifacts import LatentEntry, Window
from cinetune.errors import FootageError
from cinetune.footage import video
from cinetune.footage.video import read_window
from cinetune.models import load_model
from cinetune.models.wan.wan21 import WanVideo, pad_text
from cinetune.processes import join_group
from cinetune.runtime import Quiet
from cinetune.sections import ModelSection
from cinetune.stages import cache
from cinetune.store import Project
from cinetune.training import regrade
from crew import crew
from small_project import make_project, provenance_of

ON = ("train.augment.probability=0.5", "train.augment.variants=2", "prepare.trigger=warm film")


def set_windows(project: Project, windows: list[Window]) -> None:
    project.store.save_stage("prepare", "test", {"windows": windows}, made=provenance_of())


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three windows with captions of their own, the last one held out."""
    root = make_project(tmp_path_factory.mktemp("cache") / "p", film=3)
    project = Project(root)
    windows = project.store.need_stage("prepare").groups["windows"]
    changed = [replace(window, caption=f"a barn {number}") for number, window in enumerate(windows)]
    set_windows(project, [*changed[:2], replace(changed[2], split="held")])
    return root


@pytest.fixture(scope="module")
def done(template: Path, tmp_path_factory: pytest.TempPathFactory) -> Project:
    project = Project(Path(shutil.copytree(template, tmp_path_factory.mktemp("done") / "p")), overrides=ON)
    cache.run(project, Quiet())
    return project


def entries(project: Project) -> tuple[LatentEntry, ...]:
    record = project.store.load_stage("cache")
    assert record is not None
    return record.groups["entries"]


def units(project: Project) -> set[str]:
    return {path.name for path in (project.store.work / "units" / "cache").iterdir()}


@pytest.fixture(scope="module")
def model(template: Path) -> WanVideo:
    found = load_model(ModelSection(family="wan21", path=str(template / "model")), parts="encoders")
    assert isinstance(found, WanVideo)
    return found


def test_files_hold_what_the_model_is_told(done: Project, model: WanVideo) -> None:
    window: Window = done.store.need_stage("prepare").groups["windows"][1]
    clip = done.store.need_stage("ingest").groups["clips"][1]
    entry = entries(done)[1]
    tensors = load_file(done.store.path(entry.file))
    frames = read_window(done.root, clip, window)
    film = torch.from_numpy(frames).permute(3, 0, 1, 2)[None] * 2 - 1
    assert torch.equal(tensors["latents_Cfhw"], model.encode_video(film)[0])
    assert entry.latent_shape == (16, 3, 8, 12)
    for suffix, variant in (("", 0), (".1", 1), (".2", 2)):
        first = frames[0]
        if variant:
            first = regrade(first, done.config.train.augment, seed=0, window=window.id, variant=variant)
        cond = model.condition(["warm film, a barn 1"], torch.from_numpy(first).permute(2, 0, 1)[None] * 2 - 1, 9)
        torch.testing.assert_close(tensors[f"cond_Cfhw{suffix}"], cond.latent_BCfhw[0], rtol=0, atol=1e-4)
        torch.testing.assert_close(tensors[f"image_LD{suffix}"], cond.image_BLD[0], rtol=0, atol=1e-4)
        torch.testing.assert_close(pad_text([tensors["text_LD"]]), cond.text_BLD, rtol=0, atol=1e-5)
    assert not torch.equal(tensors["cond_Cfhw.1"], tensors["cond_Cfhw.2"])
    assert len(tensors["text_LD"]) < 20


def test_one_frame_is_a_slice(done: Project, model: WanVideo) -> None:
    window = done.store.need_stage("prepare").groups["windows"][0]
    frames = read_window(done.root, done.store.need_stage("ingest").groups["clips"][0], window)
    tensors = load_file(done.store.path(entries(done)[0].file))
    first = torch.from_numpy(frames[0]).permute(2, 0, 1)[None] * 2 - 1
    assert torch.equal(tensors["latents_Cfhw"][:, :1], model.encode_video(first[:, :, None])[0])
    single = model.condition([""] * 3, first.expand(3, 3, 32, 48), 1)
    assert torch.equal(tensors["cond_Cfhw"][:, :1], single.latent_BCfhw[0])


def test_splits_and_the_empty_prompt(done: Project, model: WanVideo) -> None:
    assert [entry.split for entry in entries(done)] == ["train", "train", "held"]
    record = done.store.load_stage("cache")
    assert record is not None
    empty = load_file(done.store.path(record.groups["shared"][0]))["empty_LD"]
    assert torch.equal(pad_text([empty]), pad_text(model.text([""])))


def test_a_killed_run_ends_with_the_same_bytes(
    template: Path, tmp_path: Path, done: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = Project(Path(shutil.copytree(template, tmp_path / "p")), overrides=ON)
    calls: list[str] = []

    def dies(root, clip, window):
        calls.append(window.id)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return read_window(root, clip, window)

    monkeypatch.setattr(video, "read_window", dies)
    with pytest.raises(KeyboardInterrupt):
        cache.run(project, Quiet())
    assert len(units(project)) == 2  # the empty prompt and one window
    cache.run(project, Quiet())
    assert calls == ["w0", "w1", "w1", "w2"]
    assert [entry.file for entry in entries(project)] == [entry.file for entry in entries(done)]


def test_a_second_run_loads_nothing(done: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    before = done.store.load_stage("cache")
    monkeypatch.setattr("cinetune.models.load_model", None)
    after = cache.run(Project(done.root, overrides=ON), Quiet())
    assert before is not None
    assert after.output_sha == before.output_sha


def test_keys_follow_content(template: Path, tmp_path: Path, done: Project) -> None:
    root = Path(shutil.copytree(done.root, tmp_path / "p"))

    def made_by(*overrides: str) -> int:
        project = Project(root, overrides=overrides)
        before = units(project)
        cache.run(project, Quiet())
        return len(units(project) - before)

    assert made_by(*ON, "train.lr=0.5", "train.augment.single_frame=0.3", "train.augment.probability=0.9") == 0
    windows = list(Project(root).store.need_stage("prepare").groups["windows"])
    set_windows(Project(root), [replace(windows[0], caption="another"), *windows[1:]])
    assert made_by(*ON) == 1
    assert made_by(*ON, "train.augment.gamma=[0.5, 2.0]") == 3
    assert made_by("train.augment.probability=0") == 3  # no trigger, no variants
    tensors = load_file(Project(root).store.path(entries(Project(root))[0].file))
    assert sorted(tensors) == ["cond_Cfhw", "image_LD", "latents_Cfhw", "text_LD"]


def test_processes_share_the_windows_and_make_the_same_files(done: Project, template: Path, tmp_path: Path) -> None:
    root = Path(shutil.copytree(template, tmp_path / "p"))

    def job() -> None:
        read = video.read_window
        windows: list[str] = []
        video.read_window = lambda *arguments: (windows.append(arguments[2].id), read(*arguments))[1]
        project = Project(root, overrides=(*ON, "model.device=cpu"))
        record = cache.run(project, Quiet())
        here = join_group(project.config.model, project.config.parallel)
        made = here.gather(windows)
        assert sorted(made[0] + made[1]) == ["w0", "w1", "w2"]  # each by one process, and by it alone
        assert all(made)
        outputs = here.gather(record.output_sha)
        assert outputs[0] == outputs[1]

    crew(2, job, tmp_path / "said")
    project = Project(root, overrides=ON)
    assert [entry.file for entry in entries(project)] == [entry.file for entry in entries(done)]
    record = project.store.load_stage("cache")
    assert record is not None and record.groups["shared"] == done.store.need_stage("cache").groups["shared"]


def test_a_window_that_one_process_cannot_read_ends_all(template: Path, tmp_path: Path) -> None:
    root = Path(shutil.copytree(template, tmp_path / "p"))
    (root / "footage" / "c1.mp4").write_bytes(b"no film")

    def job() -> None:
        project = Project(root, overrides=("model.device=cpu",))
        with pytest.raises(FootageError) as caught:
            cache.run(project, Quiet())
        said = join_group(project.config.model, project.config.parallel).gather(str(caught.value))
        assert said[0] == said[1] and "c1" in said[0]

    crew(2, job, tmp_path / "said")
    assert not Project(root).store.load_stage("cache")
