"""An adapter trained here, written here, and loaded by stock diffusers must give the trained model's very numbers."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from diffusers import WanImageToVideoPipeline, WanTransformer3DModel
from diffusers.loaders.single_file_utils import convert_wan_transformer_to_diffusers
from safetensors.torch import load_file
from torch import Tensor

from cinetune.errors import ModelError
from cinetune.models.adapters import export, lora
from cinetune.models.adapters.names import original_name
from cinetune.models.family import Conditioning
from cinetune.models.files import weights
from cinetune.models.wan.flow import add_noise, target
from cinetune.models.wan.wan21 import WanVideo

ALPHA, RANK = 16.0, 4


def batch() -> tuple[Tensor, Conditioning]:
    gen = torch.Generator().manual_seed(0)
    cond = Conditioning(
        text_BLD=torch.randn(1, 512, 32, generator=gen),
        image_BLD=torch.randn(1, 17, 32, generator=gen),
        latent_BCfhw=torch.randn(1, 20, 2, 4, 4, generator=gen),
    )
    return torch.randn(1, 16, 2, 4, 4, generator=gen), cond


def velocity(denoiser: torch.nn.Module) -> Tensor:
    x, cond = batch()
    with torch.no_grad():
        return denoiser(
            hidden_states=torch.cat([x, cond.latent_BCfhw], dim=1),
            timestep=torch.tensor([600.0]),
            encoder_hidden_states=cond.text_BLD,
            encoder_hidden_states_image=cond.image_BLD,
            return_dict=False,
        )[0]


def train(model: WanVideo, targets: str) -> list[float]:
    """A few AdamW steps on one batch; the losses."""
    x0, cond = batch()
    noise = torch.randn(x0.shape, generator=torch.Generator().manual_seed(1))
    added = lora.add_lora(model, rank=RANK, alpha=ALPHA, targets=targets, seed=0)
    optimiser = torch.optim.AdamW([p for _, p in added], lr=3e-3)
    losses: list[float] = []
    for _ in range(6):
        sigma = torch.tensor([0.6])
        loss = (model.velocity(add_noise(x0, noise, sigma), sigma, cond) - target(x0, noise)).square().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    return losses


@dataclass(frozen=True)
class Trained:
    model: WanVideo
    base: Tensor
    look: Tensor


@pytest.fixture(scope="module", params=["cross", "all-linear", "cross-text"])
def trained(request: pytest.FixtureRequest, tiny_folder: Path) -> Trained:
    model = WanVideo.from_folder(tiny_folder, family="pocket")
    base = velocity(model.denoiser)
    losses = train(model, request.param)
    assert losses[-1] < losses[0]
    return Trained(model, base, velocity(model.denoiser))


@pytest.mark.parametrize("form", export.FORMATS)
def test_stock_diffusers_reproduces_the_trained_module(
    trained: Trained, tiny_folder: Path, tmp_path: Path, form: export.Format
) -> None:
    path = tmp_path / "look.safetensors"
    export.save_adapter(
        path,
        lora.lora_state(trained.model, "look"),
        alpha=ALPHA,
        rank=RANK,
        format=form,
        shapes=export.linear_shapes(trained.model.denoiser),
    )
    pipe = WanImageToVideoPipeline.from_pretrained(tiny_folder)
    pipe.load_lora_weights(str(path), adapter_name="look")
    assert torch.equal(velocity(pipe.transformer), trained.look)
    pipe.disable_lora()
    assert torch.equal(velocity(pipe.transformer), trained.base)
    assert not torch.allclose(trained.base, trained.look)

    ours = WanVideo.from_folder(tiny_folder, family="pocket", parts="denoiser")
    lora.load_lora(ours, path, name="shared")
    assert torch.equal(velocity(ours.denoiser), trained.look)


def test_a_merged_model_is_a_whole_stock_model(trained: Trained, tiny_folder: Path, tmp_path: Path) -> None:
    folder = tmp_path / "merged"
    export.save_merged(trained.model, folder, name="look", base=tiny_folder)
    assert torch.equal(velocity(trained.model.denoiser), trained.look)  # the model in memory is as it was
    pipe = WanImageToVideoPipeline.from_pretrained(folder)
    assert not any("lora" in name for name, _ in pipe.transformer.named_parameters())
    torch.testing.assert_close(velocity(pipe.transformer), trained.look, atol=1e-5, rtol=1e-5)
    assert {path.stat().st_mode & 0o777 for path in (folder / "transformer").iterdir()} == {0o644}
    assert weights.weights_sha256(folder) != trained.model.info.weights_sha256
    assert [path.name for path in tmp_path.iterdir()] == ["merged"]


def test_a_merged_model_by_original_names_is_the_same(trained: Trained, tiny_folder: Path, tmp_path: Path) -> None:
    export.save_merged(trained.model, tmp_path / "merged", name="look")
    export.save_merged_original(trained.model, tmp_path / "original", name="look")
    want = load_file(next((tmp_path / "merged" / "transformer").glob("*.safetensors")))
    path = tmp_path / "original" / "diffusion_pytorch_model.safetensors"
    back = convert_wan_transformer_to_diffusers(load_file(path))
    assert back.keys() == want.keys()
    assert all(torch.equal(back[key], want[key]) for key in want)
    stock = WanTransformer3DModel.from_single_file(
        str(path), config=str(tiny_folder), subfolder="transformer", local_files_only=True
    )
    torch.testing.assert_close(velocity(stock), trained.look, atol=1e-5, rtol=1e-5)
    config = json.loads((tmp_path / "original" / "config.json").read_text())
    assert (config["_class_name"], config["model_type"], config["dim"], config["in_dim"]) == ("WanModel", "i2v", 48, 36)
    assert {file.stat().st_mode & 0o777 for file in (tmp_path / "original").iterdir()} == {0o644}
    with pytest.raises(ModelError, match="already exists"):
        export.save_merged_original(trained.model, tmp_path / "original", name="look")


STRENGTHS = (0.0, 0.5, 1.0, 1.7)


@pytest.mark.parametrize("form", export.FORMATS)
def test_strength_scales_the_change_of_the_weights(
    trained: Trained, tiny_folder: Path, tmp_path: Path, form: export.Format
) -> None:
    """Strength s in stock diffusers = the base weights plus s times B A alpha / rank, added up by hand."""
    path, state = tmp_path / "look.safetensors", lora.lora_state(trained.model, "look")
    shapes = export.linear_shapes(trained.model.denoiser)
    export.save_adapter(path, state, alpha=ALPHA, rank=RANK, format=form, shapes=shapes)
    pipe = WanImageToVideoPipeline.from_pretrained(tiny_folder)
    base = {key: value.clone() for key, value in pipe.transformer.state_dict().items()}
    pipe.load_lora_weights(str(path), adapter_name="look")
    by_hand = WanVideo.from_folder(tiny_folder, family="pocket", parts="denoiser").denoiser
    for strength in STRENGTHS:
        pipe.set_adapters("look", strength)
        summed = dict(base)
        for module in {key.rpartition(".lora_")[0] for key in state}:
            change = state[f"{module}.lora_B.weight"].double() @ state[f"{module}.lora_A.weight"].double()
            summed[f"{module}.weight"] = (base[f"{module}.weight"] + strength * ALPHA / RANK * change).float()
        by_hand.load_state_dict(summed)
        torch.testing.assert_close(velocity(pipe.transformer), velocity(by_hand), atol=1e-5, rtol=1e-5)
    pipe.set_adapters("look", 0.0)
    assert torch.equal(velocity(pipe.transformer), trained.base)
    pipe.set_adapters("look", 1.0)
    assert torch.equal(velocity(pipe.transformer), trained.look)


COMFY_HALVES = (("lora_A.weight", "lora_B.weight"), ("lora_down.weight", "lora_up.weight"))


def comfy_merge(tensors: dict[str, Tensor], original: dict[str, Tensor]) -> tuple[dict[str, Tensor], set[str]]:
    """What ComfyUI does with a LoRA file, stated from its public rules, and the keys that it would not load.

    A weight `X.weight` of the model answers to `diffusion_model.X` and to `lora_unet_` + X with `_` for `.`; halves are
    A and B or down and up; strength is alpha / rank with an `.alpha`, else 1.
    """
    left, merged = set(tensors), dict(original)
    for key, weight in original.items():
        layer = key.removesuffix(".weight")
        for name in (f"diffusion_model.{layer}", f"lora_unet_{layer.replace('.', '_')}"):
            for down, up in COMFY_HALVES:
                if {f"{name}.{down}", f"{name}.{up}"} <= left:
                    a, b = tensors[f"{name}.{down}"], tensors[f"{name}.{up}"]
                    alpha = tensors.get(f"{name}.alpha")
                    scale = 1.0 if alpha is None else float(alpha) / len(a)
                    merged[key] = weight + scale * (b @ a)
                    left -= {f"{name}.{down}", f"{name}.{up}", f"{name}.alpha"}
    return merged, left


@pytest.mark.parametrize("form", export.FORMATS)
def test_comfyui_loads_every_key_and_means_the_same(
    trained: Trained, tiny_folder: Path, tmp_path: Path, form: export.Format
) -> None:
    path = tmp_path / "look.safetensors"
    shapes = export.linear_shapes(trained.model.denoiser)
    state = lora.lora_state(trained.model, "look")
    export.save_adapter(path, state, alpha=ALPHA, rank=RANK, format=form, shapes=shapes)
    plain = WanVideo.from_folder(tiny_folder, family="pocket", parts="denoiser").denoiser.state_dict()
    base = {original_name(key): value for key, value in plain.items()}
    merged, left = comfy_merge(load_file(path), base)
    if form == "diffusers":  # why there are two files: ComfyUI does not know diffusers' names for Wan
        assert left == set(load_file(path))
        return
    assert left == set()
    export.save_merged_original(trained.model, tmp_path / "original", name="look")
    want = load_file(tmp_path / "original" / "diffusion_pytorch_model.safetensors")
    assert merged.keys() == want.keys()
    for key, value in want.items():
        torch.testing.assert_close(merged[key], value, atol=1e-6, rtol=1e-6)
    assert any(not torch.equal(want[key], base[key]) for key in want)
