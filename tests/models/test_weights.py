"""Each way a weights folder can be wrong is named, and the remedy says what to download."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from cinetune.catalogue import RELEASES
from cinetune.errors import WeightsError
from cinetune.models import load_model, model_ref
from cinetune.models.files import weights
from cinetune.models.wan.wan21 import WanVideo
from cinetune.plan import make_plan
from cinetune.sections import ModelSection
from cinetune.store import Project


def _edit(folder: Path, **changes: object) -> None:
    path = folder / "transformer" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def _cut(folder: Path) -> None:
    path = folder / "vae" / "diffusion_pytorch_model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])


def _garbage(folder: Path) -> None:
    (folder / "vae" / "diffusion_pytorch_model.safetensors").write_bytes((5).to_bytes(8, "little") + b"hello")


def _header(text: str) -> Callable[[Path], object]:
    head = len(text).to_bytes(8, "little") + text.encode()
    return lambda folder: (folder / "vae" / "diffusion_pytorch_model.safetensors").write_bytes(head)


def _pickle(folder: Path) -> None:
    (folder / "text_encoder" / "model.safetensors").rename(folder / "text_encoder" / "pytorch_model.bin")


def _shards(folder: Path) -> None:
    index = {"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors"}}
    (folder / "text_encoder" / "model.safetensors.index.json").write_text(json.dumps(index))


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda f: shutil.rmtree(f / "vae"), "vae/config.json is missing"),
        (lambda f: (f / "model_index.json").unlink(), "model_index.json is missing"),
        (lambda f: (f / "vae" / "diffusion_pytorch_model.safetensors").unlink(), "no .safetensors"),
        (_cut, "cut short"),
        (_garbage, "not a safetensors file"),
        (_header("[" * 50_000), "not a safetensors file"),
        (_header("[1]"), "not a safetensors file"),
        (_header('{"a": {"data_offsets": [0]}}'), "not a safetensors file"),
        (_header('{"a": {"data_offsets": [0, null]}}'), "not a safetensors file"),
        (lambda f: (f / "vae" / "x.safetensors.index.json").write_text('{"weight_map": [1]}'), "names no files"),
        (lambda f: (f / "vae" / "x.safetensors.index.json").write_text('{"weight_map": {"a": 1}}'), "names no files"),
        (_pickle, "pickled weights only"),
        (_shards, "2 of 2 files are missing, first model-1"),
        (lambda f: _edit(f, image_dim=None), "no image branch"),
        (lambda f: _edit(f, pos_embed_seq_len=514), "FLF2V"),
        (lambda f: (f / "transformer_2").mkdir(), "Wan2.2"),
        (lambda f: (f / "transformer" / "config.json").write_text("{"), "not readable as JSON"),
    ],
)
def test_damage_is_named(tiny_folder: Path, tmp_path: Path, damage: Callable[[Path], object], words: str) -> None:
    folder = tmp_path / "weights"
    shutil.copytree(tiny_folder, folder)
    assert weights.check(folder) == []
    damage(folder)
    assert len(weights.check(folder)) == 1 and words in weights.check(folder)[0]


def test_missing_weights_say_what_to_download(tmp_path: Path) -> None:
    section = ModelSection(family="wan21", path=str(tmp_path / "none"))
    for attempt in (load_model, model_ref):
        with pytest.raises(WeightsError) as caught:
            attempt(section)
        assert "hf download Wan-AI/Wan2.1-I2V-14B-480P-Diffusers --local-dir" in str(caught.value)
        assert "Apache-2.0" in str(caught.value) and "model.path" in str(caught.value)


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        (f"{part}/config.json", damage)
        for part in ("vae", "transformer", "text_encoder", "image_encoder")
        for damage in ("junk", "list", "deep", "null", "latin", "counts", "empty")
    ],
)
def test_a_configuration_of_which_no_model_can_be_made(
    tiny_folder: Path, tmp_path: Path, name: str, damage: str
) -> None:
    """Refused by the loader and said by `plan`, in words; whose library it hurts depends on the part."""
    folder = tmp_path / "model"
    shutil.copytree(tiny_folder, folder)
    table = json.loads((folder / name).read_text())
    named = {
        key: value for key, value in table.items() if key.startswith("_") or key in ("architectures", "model_type")
    }
    counts = {key: "x" for key, value in table.items() if type(value) is int}
    text = {
        "junk": "{", "list": "[]", "deep": "[" * 100_000, "null": "null", "latin": "",
        "counts": json.dumps(table | counts), "empty": json.dumps(named),
    }[damage]  # fmt: skip
    data = text.encode()
    if damage == "latin":
        data = json.dumps(table | {"x": "caf\u00e9"}, ensure_ascii=False).encode("latin-1")
    (folder / name).write_bytes(data)
    with pytest.raises(WeightsError) as caught:
        WanVideo.from_folder(folder, family="pocket")
    assert "no reason given" not in str(caught.value)
    (tmp_path / "cinetune.toml").write_text(f"[model]\npath = {json.dumps(str(folder))}\n")
    make_plan(Project(tmp_path))


def test_sizes_are_those_of_the_published_parts() -> None:
    source = RELEASES["wan21-480p"]
    assert set(source.components_gib) == set(weights.COMPONENTS)
    assert source.components_gib["transformer"] == pytest.approx(16_394_878_784 * 2 / 2**30, abs=0.01)


def test_a_model_is_known_by_its_bytes(tiny_folder: Path, tmp_path: Path) -> None:
    first = model_ref(ModelSection(path=str(tiny_folder)))
    copy = tmp_path / "copy"
    shutil.copytree(tiny_folder, copy)
    assert model_ref(ModelSection(path=str(copy))).weights_sha256 == first.weights_sha256
    changed = tmp_path / "changed"
    shutil.copytree(tiny_folder, changed)
    _edit(changed, eps=1e-5)
    assert model_ref(ModelSection(path=str(changed))).weights_sha256 != first.weights_sha256


def test_hashes_of_large_files_are_kept(tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "large"
    shutil.copytree(tiny_folder, folder)
    monkeypatch.setattr(weights, "_SIDECAR_BYTES", 0)
    first = weights.weights_sha256(folder)
    assert (folder / ".cinetune-sha256.json").is_file()
    weights.weights_sha256.cache_clear()
    monkeypatch.setattr(weights, "sha256_file", lambda path: pytest.fail(f"{path} was hashed again"))
    assert weights.weights_sha256(folder) == first


def test_a_model_loads_by_its_section(tiny_folder: Path) -> None:
    model = load_model(ModelSection(path=str(tiny_folder), device="cpu", clip_preprocess="crop"), parts="encoders")
    assert isinstance(model, WanVideo) and model.info.location == str(tiny_folder) and model.device.type == "cpu"
