"""Padding as one token: velocity and gradients are those of all the pads, for texts of any length in a batch."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from cinetune.models.adapters.lora import add_lora
from cinetune.models.family import Conditioning
from cinetune.models.wan.pads import folded_text
from cinetune.models.wan.wan21 import WanVideo, pad_text

TEXTS = ([5, 2], [0, 9], [512, 3], [511, 512], [1, 1])


def told(rows: list[int]) -> Conditioning:
    gen = torch.Generator().manual_seed(7)
    text = pad_text([torch.randn(count, 32, generator=gen) for count in rows])
    return Conditioning(
        text_BLD=text,
        image_BLD=torch.randn(2, 17, 32, generator=gen),
        latent_BCfhw=torch.randn(2, 20, 2, 8, 12, generator=gen),
    )


@pytest.fixture(scope="module")
def pair(tiny_folder: Path) -> tuple[WanVideo, WanVideo]:
    """The same model, stock and folding, with the same adapter."""
    models = [WanVideo.from_folder(tiny_folder, family="pocket", short_ways=folds) for folds in (False, True)]
    for model in models:
        gen = torch.Generator().manual_seed(1)
        for _, parameter in add_lora(model, rank=4, alpha=8, targets="cross", seed=0):
            nn.init.normal_(parameter, std=0.05, generator=gen)
    return models[0], models[1]


def velocity(model: WanVideo, rows: list[int]) -> tuple[Tensor, Tensor]:
    x = torch.randn(2, 16, 2, 8, 12, generator=torch.Generator().manual_seed(3))
    parameters = [p for p in model.denoiser.parameters() if p.requires_grad]
    out = model.velocity(x, torch.tensor([0.3, 0.8]), told(rows))
    grads = torch.autograd.grad(out.square().sum(), parameters)
    return out.detach(), torch.cat([grad.flatten() for grad in grads])


@pytest.mark.parametrize("rows", TEXTS)
def test_folded_pads_give_the_velocity_and_the_gradients_of_all_pads(
    pair: tuple[WanVideo, WanVideo], rows: list[int]
) -> None:
    for stock, folded in zip(*(velocity(model, rows) for model in pair), strict=True):
        assert float((stock - folded).norm() / stock.norm()) < 5e-6


@pytest.mark.parametrize("rows", TEXTS)
def test_the_weights_of_the_rows_add_up_to_all_tokens(rows: list[int]) -> None:
    text, added = folded_text(told(rows).text_BLD)
    assert text.shape[1] == min(max(rows) + 1, 512) == added.shape[-1]
    torch.testing.assert_close(
        added.double().exp().sum(-1).flatten(), torch.full((2,), 512.0).double(), rtol=1e-6, atol=0
    )
    for row, count in enumerate(rows):
        assert not bool(added[row, ..., :count].any())


def test_no_more_tokens_are_attended_to_than_are_needed(
    pair: tuple[WanVideo, WanVideo], monkeypatch: pytest.MonkeyPatch
) -> None:
    from cinetune.models.wan import pads

    seen: list[int] = []
    real = pads.dispatch_attention_fn
    monkeypatch.setattr(
        pads, "dispatch_attention_fn", lambda q, k, v, **more: seen.append(k.shape[1]) or real(q, k, v, **more)
    )
    velocity(pair[1], [5, 2])
    assert seen == [6, 17] * 2, "six text tokens and the picture's, in each of two blocks"
