"""Products in float8: what is rounded, that the kernel is the one asked for, and how far the gradients are off."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pydantic
import pytest
import torch
from torch import Tensor, nn

from cinetune.models import load_model
from cinetune.models.adapters.lora import add_lora
from cinetune.models.memory.storage import StoredLinear
from cinetune.runtime import Device
from cinetune.sections import ModelSection

FP8 = ModelSection(storage="fp8", compute="fp8")


def rounded(x: Tensor) -> Tensor:
    """Rows in float8 by hand: scaled to 448, rounded, and back, in float64."""
    scale = x.double().abs().amax(1, keepdim=True) / 448
    return (x.double() / scale).float().to(torch.float8_e4m3fn).double() * scale


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float32])
def test_the_product_is_that_of_the_rounded_parts(kind: torch.dtype) -> None:
    torch.manual_seed(0)
    linear = nn.Linear(64, 48).to(kind).requires_grad_(False)
    layer = StoredLinear(linear, "fp8", multiplies=True)
    x = torch.randn(3, 7, 64).to(kind).requires_grad_()
    out = layer(x)
    weight = layer.decoded(torch.float64)
    want = rounded(x.detach().flatten(0, 1)) @ weight.T
    torch.testing.assert_close(out.double().flatten(0, 1), want + linear.bias.double(), rtol=1e-2, atol=2e-2)
    grad = torch.randn(3, 7, 48).to(kind)
    (found,) = torch.autograd.grad(out, x, grad)
    scaled = grad.flatten(0, 1) * layer.scale.T.to(kind)
    want = rounded(scaled) @ (weight / layer.scale.double())
    torch.testing.assert_close(found.double().flatten(0, 1), want, rtol=1e-2, atol=2e-2)
    exact = grad.double().flatten(0, 1) @ linear.weight.double()
    assert float((found.double().flatten(0, 1) - exact).norm() / exact.norm()) < 0.08


def test_layers_that_the_kernel_cannot_take_are_decoded() -> None:
    assert not StoredLinear(nn.Linear(40, 48), "fp8", multiplies=True).multiplies
    assert not StoredLinear(nn.Linear(64, 48), "int8", multiplies=True).multiplies


def gradients(section: ModelSection, dtype: str) -> Tensor:
    model = load_model(section, device=Device("cpu", dtype, "test"))
    gen = torch.Generator().manual_seed(1)
    cond = model.condition(["a rider at dusk"], torch.rand(1, 3, 64, 96, generator=gen) * 2 - 1, 5)
    parameters = [parameter for _, parameter in add_lora(model, rank=4, alpha=8, targets="cross", seed=0)]
    for parameter in parameters:
        nn.init.normal_(parameter, std=0.02, generator=gen)
    x = torch.randn(1, 16, 2, 16, 24, generator=gen)
    model.velocity(x, torch.tensor([0.5]), cond).square().mean().backward()
    return torch.cat([parameter.grad.flatten().float() for parameter in parameters if parameter.grad is not None])


def test_gradients_on_pocket_keep_their_direction(monkeypatch: pytest.MonkeyPatch) -> None:
    true = gradients(ModelSection(), "float32")
    calls: list[int] = []
    real: Callable[..., Any] = torch._scaled_mm
    monkeypatch.setattr(torch, "_scaled_mm", lambda *asked, **more: calls.append(1) or real(*asked, **more))
    cosine = torch.nn.functional.cosine_similarity(gradients(FP8, "bfloat16"), true, dim=0)
    assert float(cosine) > 0.99
    # forward the 12 linear layers of six blocks; backward the 8 of each that see pictures, in the first block 3
    assert len(calls) == 6 * 12 + 5 * 8 + 3


def test_it_is_asked_for_whole_and_told_apart() -> None:
    with pytest.raises(pydantic.ValidationError, match=r"needs model\.storage"):
        ModelSection(compute="fp8")
    from cinetune.models import model_identity

    place = Device("cpu", "bfloat16", "test")
    kinds = [ModelSection(), ModelSection(storage="fp8"), FP8]
    assert len({model_identity(kind, device=place)["storage"] for kind in kinds}) == 3
