"""Looks for other programs: every format reads back to the trained adapter; nothing is overwritten."""

import re
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest
import torch
from huggingface_hub import ModelCard
from safetensors import safe_open
from safetensors.torch import load_file

from cinetune.cli import main
from cinetune.errors import ConfigError, StoreError
from cinetune.export_look import TARGETS, Target, export_look, push
from cinetune.models import model_ref
from cinetune.models.adapters.export import FORMATS, adapter_metadata, read_adapter
from cinetune.results import Trained
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


def test_the_merged_model_by_original_names_holds_the_same_numbers(film: Project, tmp_path: Path) -> None:
    export_look(film, tmp_path / "merged", Quiet(), to="merged")
    export_look(film, tmp_path / "original", Quiet(), to="merged-original")
    merged = load_file(next((tmp_path / "merged" / "transformer").glob("*.safetensors")))
    original = load_file(tmp_path / "original" / "diffusion_pytorch_model.safetensors")
    assert len(original) == len(merged) and "head.modulation" in original
    assert torch.equal(original["blocks.1.cross_attn.k_img.weight"], merged["blocks.1.attn2.add_k_proj.weight"])
    (look,) = (look for look in film.store.need(Trained).looks if look.arm == "look")
    with safe_open(tmp_path / "original" / "diffusion_pytorch_model.safetensors", framework="pt") as file:
        header = file.metadata()
    said = [header[f"cinetune.{key}"] for key in ("base", "trigger", "licence", "name")]
    assert said == [look.model.weights_sha256, look.trigger, look.licence, look.name]


@pytest.fixture(scope="module")
def folder(film: Project, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What is published of a look that nobody measured."""
    out = tmp_path_factory.mktemp("hub") / "warm-film"
    export_look(film, out, Quiet(), to="hub")
    return out


def test_the_code_on_the_card_runs(film: Project, folder: Path) -> None:
    """As a reader would: only the two places of the files are filled in."""
    text = (folder / "README.md").read_text(encoding="utf-8")
    code = text.split("```python\n")[1].split("```")[0]
    code = code.replace("path/to/the/base/model", film.config.model.path).replace("path/to/this/folder", str(folder))
    code = code.replace("torch.bfloat16", "torch.float32")
    names: dict[str, Any] = {}
    exec(code, names)
    look, loaded = trained(film, "look"), names["pipe"].transformer
    layers = {key: module for key, module in loaded.named_modules() if hasattr(module, "get_delta_weight")}
    for key in {name.rpartition(".lora_")[0] for name in look}:
        want = look[f"{key}.lora_B.weight"] @ look[f"{key}.lora_A.weight"]
        torch.testing.assert_close(layers[key].get_delta_weight("look"), want, atol=1e-6, rtol=1e-6)
    comfy = re.findall(r"`([^`]+)` into `models/loras`", text)[0]
    assert read_adapter(folder / comfy).keys() == look.keys()
    assert all(name.startswith("diffusion_model.") for name in load_file(folder / comfy))


def test_the_card_says_what_there_is_and_no_more(film: Project, folder: Path) -> None:
    text = (folder / "README.md").read_text(encoding="utf-8")
    data = ModelCard(text).data.to_dict()
    assert data["library_name"] == "diffusers" and data["pipeline_tag"] == "image-to-video"
    assert data["instance_prompt"] == "warm film" and "model-index" not in data
    assert "Nothing was measured." in text and "`warm film`" in text
    assert "2 windows of 9 frames at 48x32, from 2 scenes" in text
    assert str(film.root) not in text and film.config.model.path not in text and "footage/" not in text
    assert {path.name for path in folder.iterdir()} == {
        "README.md", "pytorch_lora_weights.safetensors", "small-comfyui.safetensors",
    }  # fmt: skip


class Hub:
    """What is handed to the hub's client, written down; the client itself is huggingface_hub's to test."""

    private = True
    calls: ClassVar[list[tuple[str, dict[str, Any]]]] = []

    def __init__(self, **_: Any) -> None: ...

    def create_repo(self, name: str, **options: Any) -> str:
        self.calls.append(("create", {"name": name} | options))
        return f"https://huggingface.co/{name}"

    def model_info(self, name: str) -> SimpleNamespace:
        return SimpleNamespace(private=self.private)

    def upload_folder(self, **options: Any) -> None:
        files = {p.name: p.read_bytes() for p in Path(options["folder_path"]).iterdir()}
        self.calls.append(("upload", options | {"files": files}))


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> type[Hub]:
    monkeypatch.setattr("huggingface_hub.HfApi", Hub)
    Hub.calls.clear()
    return Hub


def test_push_sends_that_folder_and_private_unless_told(folder: Path, tmp_path: Path, hub: type[Hub]) -> None:
    out = Path(shutil.copytree(folder, tmp_path / "warm"))
    assert push(out, "me/warm-film", public=False, report=Quiet()) == "https://huggingface.co/me/warm-film"
    (made, repository), (sent, what) = hub.calls
    assert (made, repository) == ("create", {"name": "me/warm-film", "private": True, "exist_ok": True})
    assert sent == "upload" and what["repo_id"] == "me/warm-film" and Path(what["folder_path"]) == out
    assert what["files"].keys() == {path.name for path in folder.iterdir()}
    assert b'adapter = "me/warm-film"' in what["files"]["README.md"]
    hub.calls.clear()
    push(out, "me/warm-film", public=True, report=Quiet())
    assert hub.calls[0][1]["private"] is False


def test_push_never_sends_to_a_public_place_unasked(
    folder: Path, tmp_path: Path, hub: type[Hub], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Hub, "private", False)
    with pytest.raises(ConfigError, match="is public; nothing was sent"):
        push(folder, "me/warm-film", public=False, report=Quiet())
    with pytest.raises(ConfigError, match="not the name of a repository"):
        push(folder, "warm film", public=False, report=Quiet())
    with pytest.raises(ConfigError, match=r"not ready to be published: no README\.md"):
        push(tmp_path, "me/warm-film", public=False, report=Quiet())
    assert [kind for kind, _ in hub.calls] == ["create"]


def test_nothing_is_sent_without_the_word(film: Project, tmp_path: Path, hub: type[Hub]) -> None:
    out = str(tmp_path / "out")
    assert main(["export", out, "--to", "hub", "-C", str(film.root)]) == 0
    assert main(["export", out, "--push", "me/warm-film", "-C", str(film.root)]) == 2  # nobody is there to say yes
    assert hub.calls == []
    assert main(["export", out, "--push", "me/warm-film", "--yes", "-C", str(film.root)]) == 0
    assert [kind for kind, _ in hub.calls] == ["create", "upload"]
