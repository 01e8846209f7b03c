"""Looks for other programs: every format reads back to the trained adapter; nothing is overwritten."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from cinetune.errors import ConfigError, StoreError
from cinetune.handover import TARGETS, Target, export_look
from cinetune.models import model_ref
from cinetune.models.export import FORMATS, adapter_metadata, read_adapter
from cinetune.runtime import Quiet
from cinetune.store import Project
from small_project import make_project, provenance_of


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A project with trained looks, made with the weights its settings name."""
    project = Project(make_project(tmp_path_factory.mktemp("film") / "project", arms=("look", "plain")))
    record = project.store.need_stage("train")
    base = model_ref(project.config.model)
    looks = [replace(look, model=base) for look in record.groups["looks"]]
    project.store.save_stage("train", record.input_key, {"looks": looks}, made=provenance_of())
    return project


def trained(project: Project, arm: str) -> dict[str, torch.Tensor]:
    looks = {look.arm: look for look in project.store.need_stage("train").groups["looks"]}
    return read_adapter(project.store.path(looks[arm].weights))


@pytest.mark.parametrize("to", FORMATS)
def test_every_format_reads_back_to_the_same_adapter(film: Project, tmp_path: Path, to: Target) -> None:
    out = tmp_path / f"{to}.safetensors"
    export_look(film, out, Quiet(), to=to)
    expected, found = trained(film, "look"), read_adapter(out)
    assert found.keys() == expected.keys()
    assert all(torch.allclose(found[name], expected[name], atol=1e-6) for name in expected)
    assert adapter_metadata(out)["trigger"] == "warm film"


def test_the_plain_arm_is_another_adapter(film: Project, tmp_path: Path) -> None:
    arms = [look.arm for look in film.store.need_stage("train").groups["looks"]]
    other = next(arm for arm in arms if arm != "look")
    export_look(film, tmp_path / "other.safetensors", Quiet(), to="comfy", arm=other)
    found, look = read_adapter(tmp_path / "other.safetensors"), trained(film, "look")
    assert any(not torch.equal(found[name], look[name]) for name in look)


def test_the_merged_model_holds_base_plus_look(film: Project, tmp_path: Path) -> None:
    export_look(film, tmp_path / "merged", Quiet(), to="merged")
    base = load_file(next((Path(film.config.model.path) / "transformer").glob("*.safetensors")))
    merged = load_file(next((tmp_path / "merged" / "transformer").glob("*.safetensors")))
    look = trained(film, "look")
    assert merged.keys() == base.keys()
    assert (tmp_path / "merged" / "model_index.json").is_file()
    for name, before in base.items():
        layer = name.removesuffix(".weight")
        if f"{layer}.lora_A.weight" in look:
            change = look[f"{layer}.lora_B.weight"] @ look[f"{layer}.lora_A.weight"]
            assert torch.allclose(merged[name], before + change, atol=1e-5), name
            assert bool(change.any())
        else:
            assert torch.equal(merged[name], before), name


@pytest.mark.parametrize("to", TARGETS)
def test_nothing_is_overwritten(film: Project, tmp_path: Path, to: Target) -> None:
    out = tmp_path / "look.safetensors"
    out.write_bytes(b"mine")
    with pytest.raises(ConfigError, match="there already"):
        export_look(film, out, Quiet(), to=to)
    assert out.read_bytes() == b"mine"


def test_a_wrong_name_is_explained(film: Project, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"must end in \.safetensors"):
        export_look(film, tmp_path / "look.ckpt", Quiet(), to="diffusers")
    with pytest.raises(StoreError, match="no 'other' arm"):
        export_look(film, tmp_path / "a.safetensors", Quiet(), to="diffusers", arm="other")


def test_a_look_is_never_merged_into_other_weights(film: Project, tmp_path: Path) -> None:
    record = film.store.need_stage("train")
    looks = [replace(look, model=replace(look.model, weights_sha256="0" * 64)) for look in record.groups["looks"]]
    other = Project(film.root)
    other.store.save_stage("train", record.input_key, {"looks": looks}, made=provenance_of())
    try:
        with pytest.raises(ConfigError, match="other weights"):
            export_look(other, tmp_path / "merged", Quiet(), to="merged")
    finally:
        film.store.save_stage("train", record.input_key, record.groups, made=record.provenance)
    assert not (tmp_path / "merged").exists()
