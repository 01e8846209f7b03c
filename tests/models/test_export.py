"""Adapter files as bytes: names, header, mode, refusals. What other programs make of them is in tests/parity."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from cinetune.errors import ModelError, WeightsError
from cinetune.models.adapters import export, lora
from cinetune.models.wan.wan21 import WanVideo
from support import wan21_meta


def random_state(
    rank: int = 2, layers: tuple[str, ...] = ("attn2.to_q", "attn2.add_k_proj", "attn2.add_v_proj", "attn2.to_out.0")
) -> dict[str, Tensor]:
    gen = torch.Generator().manual_seed(0)
    state: dict[str, Tensor] = {}
    for block in range(2):
        for layer in layers:
            state[f"blocks.{block}.{layer}.lora_A.weight"] = torch.randn(rank, 48, generator=gen)
            state[f"blocks.{block}.{layer}.lora_B.weight"] = torch.randn(48, rank, generator=gen)
    return state


@pytest.mark.parametrize("format", export.FORMATS)
def test_every_format_reads_back_with_alpha_applied(model: WanVideo, tmp_path: Path, format: export.Format) -> None:  # noqa: A002
    state, path = random_state(), tmp_path / "look.safetensors"
    before = {key: value.clone() for key, value in state.items()}
    export.save_adapter(path, state, alpha=8, rank=2, format=format, shapes=export.linear_shapes(model.denoiser))
    back = export.read_adapter(path)
    assert set(back) == set(state)
    for key, value in state.items():
        assert torch.equal(value, before[key])
        assert torch.equal(back[key], value * 4 if ".lora_B." in key else value)


def test_names_in_each_format(model: WanVideo, tmp_path: Path) -> None:
    names: dict[str, set[str]] = {}
    for form in export.FORMATS:
        path = tmp_path / f"{form}.safetensors"
        export.save_adapter(
            path, random_state(), alpha=2, rank=2, format=form, shapes=export.linear_shapes(model.denoiser)
        )
        names[form] = set(load_file(path))
    assert "transformer.blocks.1.attn2.to_out.0.lora_A.weight" in names["diffusers"] and len(names["diffusers"]) == 16
    assert "diffusion_model.blocks.1.cross_attn.o.lora_A.weight" in names["comfy"] and len(names["comfy"]) == 16
    assert "diffusion_model.blocks.0.cross_attn.k_img.lora_B.weight" in names["comfy"]
    assert {"lora_unet_blocks_1_cross_attn_o.lora_down.weight", "lora_unet_blocks_0_ffn_2.alpha"} <= names["kohya"]
    assert len(names["kohya"]) == 2 * 12 * 3


def test_the_header_tells_where_it_comes_from(tmp_path: Path) -> None:
    path = tmp_path / "look.safetensors"
    export.save_adapter(path, random_state(), alpha=4, rank=2, metadata={"base": "tiny", "trigger": "film"})
    want = {"base": "tiny", "trigger": "film", "rank": "2", "alpha": "4", "alpha_baked": "true"}
    assert export.adapter_metadata(path) == want
    assert stat.S_IMODE(path.stat().st_mode) == 0o644
    with safe_open(path, framework="pt") as file:
        assert '"transformer.lora_alpha": 2' in file.metadata()["lora_adapter_metadata"]


def test_alpha_of_foreign_files_counts(tmp_path: Path) -> None:
    path = tmp_path / "foreign.safetensors"
    name = "lora_unet_blocks_0_cross_attn_k_img"
    tensors = {
        f"{name}.lora_down.weight": torch.ones(4, 8),
        f"{name}.lora_up.weight": torch.ones(8, 4),
        f"{name}.alpha": torch.tensor(1.0),
    }
    save_file(tensors, path)
    assert torch.equal(export.read_adapter(path)["blocks.0.attn2.add_k_proj.lora_B.weight"], torch.full((8, 4), 0.25))
    save_file(
        {f"transformer.blocks.0.attn2.to_q.lora_{s}.weight": torch.ones(2, 2) for s in "AB"},
        path,
        metadata={"lora_adapter_metadata": '{"transformer.r": 2, "transformer.lora_alpha": 6}'},
    )
    assert torch.equal(export.read_adapter(path)["blocks.0.attn2.to_q.lora_B.weight"], torch.full((2, 2), 3.0))


@pytest.mark.parametrize(
    ("tensors", "words"),
    [
        ({"lora_te_text_model.lora_down.weight": torch.ones(1, 1)}, "not a layer of a Wan LoRA"),
        ({"transformer.blocks.0.attn2.to_q.lora_A.weight": torch.ones(1, 1)}, "incomplete at"),
        ({"x.alpha": torch.ones(1)}, "the adapter is empty"),
    ],
)
def test_files_that_are_no_adapter_are_refused(tmp_path: Path, tensors: dict[str, Tensor], words: str) -> None:
    path = tmp_path / "x.safetensors"
    save_file(tensors, path)
    with pytest.raises(WeightsError, match=words):
        export.read_adapter(path)


def test_what_is_not_written(model: WanVideo, tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"\.safetensors only"):
        export.save_adapter(tmp_path / "look.bin", random_state(), alpha=2, rank=2)
    broken = random_state()
    broken["blocks.1.attn2.to_q.lora_B.weight"][0, 0] = torch.nan
    with pytest.raises(ModelError, match=r"NaN.*blocks\.1\.attn2\.to_q"):
        export.save_adapter(tmp_path / "look.safetensors", broken, alpha=2, rank=2)
    with pytest.raises(ModelError, match="shapes"):
        export.save_adapter(tmp_path / "look.safetensors", random_state(), alpha=2, rank=2, format="kohya")
    lora.add_lora(model, rank=2, alpha=2, targets="cross", seed=0)
    with pytest.raises(ModelError, match="already exists"):
        export.save_merged(model, tmp_path, name="look")
    with pytest.raises(ModelError, match="no adapter"):
        export.save_merged(model, tmp_path / "new", name="other")
    assert list(tmp_path.iterdir()) == []


def test_shapes_of_the_full_model_need_no_memory() -> None:
    shapes = export.linear_shapes(wan21_meta())
    assert len(shapes) == 480
    assert shapes["blocks.39.ffn.net.0.proj"] == (13824, 5120) and shapes["blocks.0.attn2.add_k_proj"] == (5120, 5120)
