"""The pre-training self-attention computes what diffusers' does."""

from __future__ import annotations

import sys
from pathlib import Path

import torch

from cinetune.models.wan import pocket

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tools"))
from pocket_training import self_attention


@torch.no_grad()
def _run(denoiser: torch.nn.Module, x: torch.Tensor) -> torch.Tensor:
    gen = torch.Generator().manual_seed(2)
    return denoiser(
        hidden_states=x,
        timestep=torch.tensor([700.0]),
        encoder_hidden_states=torch.randn(1, 512, 64, generator=gen),
        encoder_hidden_states_image=torch.randn(1, 65, 64, generator=gen),
        return_dict=False,
    )[0]


def test_same_as_diffusers_on_all_frames_and_true_positions_on_some() -> None:
    denoiser = pocket.fresh([], seed=3).denoiser.eval()
    with torch.no_grad():
        # an untrained Wan answers almost nothing: give its last layer weight, or any bug would pass
        denoiser.proj_out.weight.copy_(torch.randn(denoiser.proj_out.weight.shape) * 0.1)
    x = torch.randn(1, 36, 4, 4, 6, generator=torch.Generator().manual_seed(1))
    whole = _run(denoiser, x)
    first = _run(denoiser, x[:, :, :2])
    rope = denoiser.rope(x)
    self_attention.install(denoiser)
    torch.testing.assert_close(_run(denoiser, x), whole, atol=2e-5, rtol=1e-4)
    self_attention.choose_frames(denoiser, torch.tensor([0, 1]))
    torch.testing.assert_close(_run(denoiser, x[:, :, :2]), first, atol=2e-5, rtol=1e-4)
    self_attention.choose_frames(denoiser, torch.tensor([0, 3]))
    for found, every in zip(denoiser.rope(x[:, :, [0, 3]]), rope, strict=True):
        assert torch.equal(found, every.unflatten(1, (4, -1))[:, [0, 3]].flatten(1, 2))
    assert not torch.allclose(_run(denoiser, x[:, :, :2]), first, atol=1e-4)
