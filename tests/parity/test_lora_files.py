"""An adapter trained here, written here, and loaded by stock diffusers must give the trained model's very numbers."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from diffusers import WanImageToVideoPipeline
from torch import Tensor

from cinetune.models import export, lora, weights
from cinetune.models.family import Conditioning
from cinetune.models.flow import add_noise, target
from cinetune.models.wan21 import WanVideo

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
    pipe.load_lora_weights(path, adapter_name="look")
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
