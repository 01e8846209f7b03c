"""One identity of the base model in the key of everything it made: an arm is never compared with another model's."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from cinetune.errors import StoreError
from cinetune.models import model_identity
from cinetune.models.files import weights
from cinetune.runtime import Device, Quiet
from cinetune.sections import ModelSection
from cinetune.stages import cache, expand, keyframes, score, train
from cinetune.store import Project
from small_project import make_project

CHANGES = ("model.storage=int8", "model.attention=_native_math", "model.clip_preprocess=crop", "model.dtype=bfloat16")
STAGES = (cache.STAGE, keyframes.STAGE, expand.STAGE)


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One shot in two arms, cached and made with the plain model."""
    root = make_project(tmp_path_factory.mktemp("identity") / "p", shots=1)
    for stage in STAGES:
        stage.run(Project(root), Quiet())
    return root


def units(root: Path, stage: str) -> set[str]:
    return {path.stem for path in (root / "work" / "units" / stage).glob("*.json")}


@pytest.mark.parametrize("change", CHANGES)
def test_both_arms_are_made_anew_with_another_model(template: Path, tmp_path: Path, change: str) -> None:
    root = Path(shutil.copytree(template, tmp_path / "p"))
    changed = Project(root, overrides=(change,))
    plain_key = train.trial_key(Project(root))
    for stage in STAGES:
        before = units(root, stage.name)
        stage.run(changed, Quiet())
        assert len(units(root, stage.name)) == 2 * len(before), stage.name
    assert train.trial_key(changed) != plain_key
    made = changed.store.need_stage("expand").groups["sequences"]
    assert {s.arm for s in made} == {"base", "look"} and all(
        s.made_by == model_identity(changed.config.model) for s in made
    )


def test_stored_weights_give_other_pictures_in_the_base_arm_too(template: Path, tmp_path: Path) -> None:
    root = Path(shutil.copytree(template, tmp_path / "p"))
    pictures = {}
    for storage in ("plain", "int8"):
        project = Project(root, overrides=(f"model.storage={storage}",))
        keyframes.run(project, Quiet())
        pictures[storage] = {s.arm: s.video.sha256 for s in expand.run(project, Quiet()).groups["sequences"]}
    assert all(pictures["plain"][arm] != pictures["int8"][arm] for arm in ("base", "look"))


def test_where_blocks_lie_is_no_other_model(template: Path, tmp_path: Path) -> None:
    root = Path(shutil.copytree(template, tmp_path / "p"))
    before = units(root, "expand")
    for stage in (keyframes, expand):
        stage.run(Project(root, overrides=("model.offload_blocks=1", "model.attention=native")), Quiet())
    assert units(root, "expand") == before


def test_the_protocol_names_the_model_and_a_mixture_is_refused(template: Path, tmp_path: Path) -> None:
    root = Path(shutil.copytree(template, tmp_path / "p"))
    project = Project(root)
    (card, *_) = score.run(project, Quiet()).groups["scorecards"]
    told = card.protocol["model"].split("; ")
    assert {"storage plain", "attention native", "clip_preprocess squash", "dtype float32"} <= set(told)
    record = project.store.need_stage("expand")
    base, look = record.groups["sequences"]
    other = replace(look, made_by={**look.made_by, "storage": "nf4"})
    project.store.save_stage("expand", "test", {"sequences": [base, other]}, made=record.provenance)
    with pytest.raises(StoreError, match="they differ in storage"):
        score.run(project, Quiet())


def test_the_kernels_are_those_of_the_device() -> None:
    section = ModelSection()
    on_cpu, on_gpu = (
        model_identity(section, device=Device(name, dtype, ""))
        for name, dtype in (("cpu", "float32"), ("mps", "float16"))
    )
    assert {name for name in on_cpu if on_cpu[name] != on_gpu[name]} == {"dtype", "blocks"}
    assert len(on_cpu["weights"]) == 64 and "torch " in on_cpu["computed by"]


def test_replaced_weights_are_noticed_and_missing_ones_are_no_change(template: Path, tmp_path: Path) -> None:
    """A folder with other weights makes stale what was made of it; a project looked at where they are not stays."""
    root = Path(shutil.copytree(template, tmp_path / "p"))
    shutil.move(root / "model", tmp_path / "weights")
    project = Project(root, overrides=(f"model.path={tmp_path / 'weights'}",))
    expand.run(project, Quiet())
    made = project.store.need_stage("expand").input_key
    assert expand.STAGE.key(project) == made
    config = tmp_path / "weights" / "transformer" / "config.json"
    kept = config.read_text()
    config.write_text(kept.replace('"eps": 1e-06', '"eps": 1e-05'))
    weights.weights_sha256.cache_clear()
    assert expand.STAGE.key(project) != made
    config.write_text(kept)
    shutil.move(tmp_path / "weights", tmp_path / "elsewhere")
    weights.weights_sha256.cache_clear()
    assert expand.STAGE.key(project) == made
