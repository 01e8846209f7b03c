"""The train stage: looks as records, the control arm, and what it refuses."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from cinetune import pipeline
from cinetune.artifacts import Look
from cinetune.errors import ConfigError, ModelError, StoreError, WeightsError
from cinetune.models import load_model
from cinetune.models.adapters.export import adapter_metadata, read_adapter
from cinetune.models.adapters.lora import load_lora, lora_state, start_from
from cinetune.models.files.weights import adapter_sha256
from cinetune.runtime import Quiet
from cinetune.sections import ModelSection
from cinetune.stages import cache, train
from cinetune.store import Project
from cinetune.training import Validator
from cinetune.training.fingerprint import summary
from crew import crew
from small_project import make_project, provenance_of

SETTINGS = (
    "train.steps=2",
    "train.batch=2",
    "train.accumulate=1",
    "train.rank=2",
    "train.alpha=4",
    "train.lr=0.01",
    "train.validate_every=1",
    "train.validation_steps=1",
    "train.checkpoint_every=1",
    "train.augment.probability=0.5",
    "train.augment.variants=1",
    "train.augment.single_frame=0.2",
    "train.plain_arm=true",
    "prepare.trigger=warm film",
)


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three cached windows, one of them held out."""
    root = make_project(tmp_path_factory.mktemp("train") / "p", film=3)
    (root / "work" / "stages" / "train.json").unlink()
    project = Project(root, overrides=SETTINGS)
    windows = project.store.need_stage("prepare").groups["windows"]
    project.store.save_stage(
        "prepare", "test", {"windows": [*windows[:2], replace(windows[2], split="held")]}, made=provenance_of()
    )
    cache.run(project, Quiet())
    return root


@pytest.fixture(scope="module")
def done(template: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Project, Quiet]:
    project = Project(Path(shutil.copytree(template, tmp_path_factory.mktemp("done") / "p")), overrides=SETTINGS)
    report = Quiet()
    train.run(project, report)
    return project, report


def looks(project: Project) -> dict[str, Look]:
    return {look.arm: look for look in project.store.need_stage("train").groups["looks"]}


def test_looks_are_usable_and_differ(done: tuple[Project, Quiet]) -> None:
    project, report = done
    found = looks(project)
    assert list(found) == ["look", "plain"]
    assert found["look"].recipe_sha != found["plain"].recipe_sha
    assert found["look"].dataset_sha == found["plain"].dataset_sha
    look = found["look"]
    assert (look.rank, look.alpha, look.targets, look.trigger) == (2, 4.0, "cross", "warm film")
    assert look.stopped == "reached 2 steps"
    assert 1 <= look.step <= 2
    path = project.store.path(look.weights)
    assert adapter_metadata(path)["trigger"] == "warm film"
    state = read_adapter(path)
    plain = read_adapter(project.store.path(found["plain"].weights))
    assert any(not torch.equal(state[name], plain[name]) for name in state)
    model = load_model(ModelSection(family="wan21", path=str(project.root / "model")), parts="denoiser")
    load_lora(model, path, name="look")
    assert any(bool(value.any()) for name, value in lora_state(model, "look").items() if "lora_B" in name)
    assert any("held-out v-loss" in line for line in report.lines)


def test_the_control_has_no_augmentation(done: tuple[Project, Quiet]) -> None:
    project = done[0]
    logs = {
        arm: [json.loads(line) for line in project.store.path(look.log).read_text().splitlines()]
        for arm, look in looks(project).items()
    }
    assert logs["look"][0]["recipe"]["augment"]["probability"] == 0.5
    for line in logs["plain"]:
        if line["kind"] == "step":
            assert line["variants"] == [0, 0]
            assert not line["single_frame"]
    # both are judged on the same clips, so that their curves can be compared
    first = {arm: next(line for line in lines if line["kind"] == "evaluation") for arm, lines in logs.items()}
    assert first["look"] == first["plain"] and first["look"]["v_loss_regraded"] is not None
    seen = {arm: [line["windows"] for line in lines if line["kind"] == "step"] for arm, lines in logs.items()}
    assert seen["look"] == seen["plain"]
    assert all(sorted(step) == ["w0", "w1"] for step in seen["look"])  # never the held-out window


def test_what_all_arms_know_before_training_is_worked_out_once(
    template: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: Counter[str] = Counter()
    for name in ("_losses", "_again"):
        real = getattr(Validator, name)
        counted = lambda self, *asked, name=name, real=real: calls.update([name]) or real(self, *asked)  # noqa: E731
        monkeypatch.setattr(Validator, name, counted)
    project = Project(Path(shutil.copytree(template, tmp_path / "p")), overrides=SETTINGS)
    seeds = project.config.train.validation_seeds
    train.run(project, Quiet())
    # held and seen windows before training once for both arms, then twice in each arm; luck once for both
    assert calls == {"_losses": 2 + 2 * 2 * 2, "_again": seeds - 1} and seeds > 1


def test_a_second_run_loads_nothing(done: tuple[Project, Quiet], monkeypatch: pytest.MonkeyPatch) -> None:
    project = done[0]
    before = project.store.need_stage("train")
    monkeypatch.setattr("cinetune.models.load_model", None)
    again = train.run(Project(project.root, overrides=SETTINGS), Quiet())
    assert again.output_sha == before.output_sha
    assert again.notes == before.notes


def test_a_broken_run_ends_with_the_same_look(
    template: Path, tmp_path: Path, done: tuple[Project, Quiet], monkeypatch: pytest.MonkeyPatch
) -> None:
    project = Project(Path(shutil.copytree(template, tmp_path / "p")), overrides=SETTINGS)
    plain = Validator.__call__

    def dies(self: Validator, step: int):
        if step == 2:
            raise KeyboardInterrupt
        return plain(self, step)

    with monkeypatch.context() as patch:
        patch.setattr(Validator, "__call__", dies)
        with pytest.raises(KeyboardInterrupt):
            train.run(project, Quiet())
    report = Quiet()
    train.run(project, report)
    assert "look: going on from step 1" in report.lines
    for arm, look in looks(project).items():
        other = looks(done[0])[arm]
        assert (look.weights, look.log) == (other.weights, other.log)


def test_arms_side_by_side_are_the_same_looks(template: Path, tmp_path: Path, done: tuple[Project, Quiet]) -> None:
    root = Path(shutil.copytree(template, tmp_path / "p"))
    report = Quiet()
    threads = torch.get_num_threads()
    train.run(Project(root, overrides=(*SETTINGS, "train.workers=2")), report)
    assert torch.get_num_threads() == threads
    for arm, look in looks(Project(root, overrides=SETTINGS)).items():
        assert look.weights == looks(done[0])[arm].weights
        assert any(line.startswith(f"{arm} step 2: held-out v-loss") for line in report.lines)
    again = train.run(Project(root, overrides=SETTINGS), Quiet())
    assert again.groups["looks"] == tuple(looks(Project(root, overrides=SETTINGS)).values())


def test_a_cache_without_variants_is_refused(template: Path, tmp_path: Path) -> None:
    project = Project(Path(shutil.copytree(template, tmp_path / "p")))
    cache.run(project, Quiet())
    with pytest.raises(StoreError, match="no re-graded first frames"):
        train.run(Project(project.root, overrides=SETTINGS), Quiet())


def test_without_held_out_windows_it_warns(template: Path, tmp_path: Path) -> None:
    root = Path(shutil.copytree(template, tmp_path / "p"))
    project = Project(root, overrides=(*SETTINGS, "train.plain_arm=false", "train.steps=1"))
    windows = project.store.need_stage("prepare").groups["windows"]
    project.store.save_stage("prepare", "test", {"windows": windows[:2]}, made=provenance_of())
    cache.run(project, Quiet())
    report = Quiet()
    train.run(project, report)
    assert any("no scene is held out" in warning for warning in report.warnings)


def test_training_starts_from_an_adapter_of_any_origin(
    template: Path, tmp_path: Path, done: tuple[Project, Quiet]
) -> None:
    """A PEFT folder with its own alpha: what is evaluated at step 0 is that adapter, not a fresh one."""
    trained = read_adapter(done[0].store.path(looks(done[0])["look"].weights))
    peft = tmp_path / "peft"
    peft.mkdir()
    tensors = {f"base_model.model.{k}": v / 8 if "lora_B" in k else v for k, v in trained.items()}
    save_file(tensors, peft / "adapter_model.safetensors")
    (peft / "adapter_config.json").write_text(json.dumps({"r": 2, "lora_alpha": 16}))
    settings = (*SETTINGS, "train.plain_arm=false", "train.steps=1", f"train.init_from={peft}")
    project, report = Project(Path(shutil.copytree(template, tmp_path / "p")), overrides=settings), Quiet()
    train.run(project, report)
    assert "look starts from peft" in report.lines
    model = load_model(ModelSection(family="wan21", path=str(project.root / "model")), parts="denoiser")
    state = start_from(model, peft, rank=2, alpha=4, targets="cross")
    assert all(torch.equal(state[k], v / 2 if "lora_B" in k else v) for k, v in trained.items())
    text = project.store.path(looks(project)["look"].log).read_text(encoding="utf-8")
    log = [json.loads(line) for line in text.splitlines()]
    norm = next(line["adapter_norm"] for line in log if line["kind"] == "evaluation" and line["step"] == 0)
    assert norm == pytest.approx(sum(float(v.double().square().sum()) for v in state.values()) ** 0.5, rel=1e-6)
    kept = adapter_sha256(peft)
    assert train.inputs(project)["train.init_from"] == kept
    first = summary({"first adapter": {"train.init_from": kept[:12]}})
    assert log[0]["fingerprint"] | first == log[0]["fingerprint"]
    (peft / "adapter_config.json").write_text(json.dumps({"r": 2, "lora_alpha": 8}))  # the same tensors, half as strong
    assert train.inputs(project)["train.init_from"] == adapter_sha256(peft) != kept


def test_a_start_that_does_not_fit_is_refused(template: Path, tmp_path: Path, done: tuple[Project, Quiet]) -> None:
    path = done[0].store.path(looks(done[0])["look"].weights)
    root = Path(shutil.copytree(template, tmp_path / "p"))
    with pytest.raises(ModelError, match=r"rank 2, not 4"):
        train.run(Project(root, overrides=(*SETTINGS, f"train.init_from={path}", "train.rank=4")), Quiet())
    with pytest.raises(WeightsError, match="no such adapter file"):
        train.run(Project(root, overrides=(*SETTINGS, "train.init_from=gone.safetensors")), Quiet())
    pickled = tmp_path / "look.bin"
    torch.save({}, pickled)
    with pytest.raises(WeightsError, match="can run code"):
        train.run(Project(root, overrides=(*SETTINGS, f"train.init_from={pickled}")), Quiet())


def test_an_unfinished_run_of_something_else_is_refused_by_name_and_can_be_forced(
    template: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = (*SETTINGS, "train.plain_arm=false")
    root = Path(shutil.copytree(template, tmp_path / "p"))
    plain = Validator.__call__

    def dies(self: Validator, step: int):
        if step == 2:
            raise KeyboardInterrupt
        return plain(self, step)

    with monkeypatch.context() as patch:
        patch.setattr(Validator, "__call__", dies)
        with pytest.raises(KeyboardInterrupt):
            train.run(Project(root, overrides=settings), Quiet())
    other = (*settings, "train.lr=0.02", "model.storage=int8")
    with pytest.raises(StoreError) as refused:
        train.run(Project(root, overrides=other), Quiet())
    assert "base model: storage plain -> int8" in refused.value.what
    assert "recipe: lr 0.01 -> 0.02" in refused.value.what and "cinetune train --force" in refused.value.remedy
    # what changes no number changes nothing: more checkpointing, blocks in host memory
    cheaper = (*settings, "train.checkpointing=full", "model.offload_blocks=1", "train.checkpoint_every=2")
    saved = Path(shutil.copytree(root, tmp_path / "cheaper"))
    report = Quiet()
    train.run(Project(saved, overrides=cheaper), report)
    assert "look: going on from step 1" in report.lines
    assert any("checkpointing full; attention native (no CUDA GPU)" in line for line in report.lines)

    record = train.run(Project(root, overrides=other, force=True), Quiet())
    look = record.groups["looks"][0]
    assert look.forced == ("step 1: base model: storage plain -> int8", "step 1: recipe: lr 0.01 -> 0.02")
    assert "look: forced at step 1: recipe: lr 0.01 -> 0.02" in record.notes
    assert looks(Project(saved))["look"].forced == ()


def test_processes_train_the_same_looks(template: Path, tmp_path: Path, done: tuple[Project, Quiet]) -> None:
    """Through the pipeline: one process holds the lock and writes, all learn."""
    root = Path(shutil.copytree(template, tmp_path / "p"))
    settings = (*SETTINGS, "model.device=cpu", "parallel.data=fsdp")
    report = Quiet()

    def job() -> None:
        records = pipeline.run(Project(root, overrides=settings), report, only="train")
        assert [record.stage for record in records] == ["train"]
        assert pipeline.run(Project(root, overrides=settings), report, only="train") == []
        assert any("training look on cpu, 2 processes (fsdp)" in line for line in report.lines)
        with pytest.raises(ConfigError, match="2 processes cannot work on `deliver` together"):
            pipeline.run(Project(root, overrides=settings), report, only="deliver")

    crew(2, job, tmp_path / "said")
    for arm, look in looks(Project(root, overrides=SETTINGS)).items():
        # a batch of two is cut into halves for two processes, so sums differ in the last bit
        one, other = (
            read_adapter(p.store.path(found.weights))
            for p, found in ((Project(root, overrides=SETTINGS), look), (done[0], looks(done[0])[arm]))
        )
        for name in one:
            torch.testing.assert_close(one[name], other[name], rtol=0, atol=2e-4)  # 2 % of one step of 0.01


def test_processes_that_cannot_share_the_work_all_say_so(template: Path, tmp_path: Path) -> None:
    root = Path(shutil.copytree(template, tmp_path / "p"))

    def job() -> None:
        for setting, what in (
            ("train.batch=1", "1 elements cannot be shared by 2 data ranks"),
            ("train.workers=2", "arms cannot be trained side by side"),
            ("parallel.ulysses=3", "world size of 2 does not divide by parallel.ulysses = 3"),
            ("model.offload_blocks=1", 'model.offload_blocks = 1 and parallel.data = "fsdp" exclude each other'),
        ):
            project = Project(root, overrides=(*SETTINGS, "model.device=cpu", "parallel.data=fsdp", setting))
            with pytest.raises(ConfigError, match=what):
                pipeline.run(project, Quiet(), only="train")

    crew(2, job, tmp_path / "said")


def test_trackers_get_the_numbers_of_the_log_and_change_no_byte_of_the_look(
    template: Path, tmp_path: Path, done: tuple[Project, Quiet]
) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    root = Path(shutil.copytree(template, tmp_path / "p"))
    project = Project(root, overrides=(*SETTINGS, 'train.trackers=["tensorboard"]'))
    train.run(project, Quiet())
    look = looks(project)["look"]
    assert look.weights.sha256 == looks(done[0])["look"].weights.sha256
    events = EventAccumulator(str(root / "work" / "train" / "look" / "trackers" / "tensorboard"))
    events.Reload()
    lines = [json.loads(line) for line in project.store.path(look.log).read_text(encoding="utf-8").splitlines()]
    losses = {line["step"]: line["loss"] for line in lines if line["kind"] == "step"}
    assert losses
    assert {event.step: event.value for event in events.Scalars("train/loss")} == pytest.approx(losses)
