"""What only a CUDA card can show. `pytest -m gpu`, or `tools/gpu/run.py tests`."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from cinetune.generation.segment import Recipe, generate, pictures
from cinetune.models import load_model
from cinetune.models.adapters.lora import add_lora
from cinetune.models.memory.fit import Load, fit, prove
from cinetune.runtime import Device, Quiet
from cinetune.sections import ModelSection, TrainSection
from shadows import WIDE_SHAPE, denoiser
from support import save_tiny

pytestmark = pytest.mark.gpu
CUDA = Device("cuda", "bfloat16", "test")
SHAPE = (1, 36, 3, 16, 24)


def gradients(network: Any, loss: Callable[[], Tensor]) -> Tensor:
    """The adapter's gradients as one float32 vector on the CPU."""
    loss().backward()
    found = [parameter.grad for parameter in network.parameters() if parameter.grad is not None]
    return torch.cat([one.flatten().float().cpu() for one in found])


def cosine(one: Tensor, other: Tensor) -> float:
    return float(torch.nn.functional.cosine_similarity(one.double(), other.double(), dim=0))


def wide(dtype: torch.dtype, device: str, **settings: Any) -> Any:
    """Two blocks of 14B's width with an adapter that does something, the same weights every time."""
    torch.manual_seed(0)
    network = denoiser(WIDE_SHAPE, targets="cross", **settings)
    gen = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if "lora_B" in name:
                parameter.copy_(torch.randn(parameter.shape, generator=gen) * 0.02)
    keep = set(network._keep_in_fp32_modules or [])
    for name, parameter in network.named_parameters():
        if not parameter.requires_grad and not keep & set(name.split(".")) and parameter.is_floating_point():
            parameter.data = parameter.data.to(dtype)
    moved: Any = network
    return moved.to(device)


def wide_loss(network: Any, dtype: torch.dtype, device: str) -> Callable[[], Tensor]:
    gen = torch.Generator().manual_seed(2)

    def random(*sizes: int) -> Tensor:
        return torch.randn(1, *sizes, generator=gen).to(device, dtype)

    given = {"hidden_states": random(*SHAPE[1:]), "timestep": torch.full((1,), 500.0, device=device),
             "encoder_hidden_states": random(512, 4096), "encoder_hidden_states_image": random(257, 1280)}  # fmt: skip
    return lambda: network(**given, return_dict=False)[0].float().square().mean()


@pytest.mark.parametrize("mode", ["none", "selective", "full"])
def test_a_step_in_bfloat16_is_the_one_in_float32(mode: Any) -> None:
    true = wide(torch.float32, "cpu")
    wanted = gradients(true, wide_loss(true, torch.float32, "cpu"))
    network = wide(torch.bfloat16, "cuda", mode=mode)
    assert cosine(gradients(network, wide_loss(network, torch.bfloat16, "cuda")), wanted) > 0.999


@pytest.mark.parametrize("mode", ["none", "selective", "full"])
def test_compiled_blocks_prove_themselves(mode: str) -> None:
    """At 14B's width, with the attention that is timed here; the shape is the one of 33 frames of 480x832."""
    network = wide(torch.bfloat16, "cuda")
    model: Any = type("Model", (), {"denoiser": network})()
    load = Load(shape=(1, 36, 9, 60, 104), image_tokens=257)
    fitted = fit(model, ModelSection(), TrainSection(checkpointing=mode, compile=True), CUDA, Quiet(), load=load)  # type: ignore[arg-type]
    assert fitted.attention.seconds
    assert prove(network, load) > 0.999


@pytest.mark.parametrize("storage", ["fp8", "int8"])
def test_stored_weights_are_near(storage: Any) -> None:
    plain = wide(torch.bfloat16, "cuda")
    stored = wide(torch.bfloat16, "cuda", storage=storage)
    one, other = (gradients(network, wide_loss(network, torch.bfloat16, "cuda")) for network in (plain, stored))
    assert cosine(one, other) > 0.98


def test_blocks_that_travel_on_a_stream_give_the_same_gradients(tmp_path: Path) -> None:
    save_tiny(tmp_path)
    found: list[Tensor] = []
    for away in (0, 2):
        section = ModelSection(family="wan21", path=str(tmp_path), offload_blocks=away)
        model = load_model(section, device=CUDA, parts="denoiser")
        fit(model, section, TrainSection(checkpointing="full"), CUDA, Quiet())
        add_lora(model, rank=2, alpha=4, targets="cross", seed=0)
        gen = torch.Generator().manual_seed(3)
        given = {"hidden_states": torch.randn(1, 36, 3, 8, 12, generator=gen), "timestep": torch.full((1,), 500.0),
                 "encoder_hidden_states": torch.randn(1, 512, 32, generator=gen),
                 "encoder_hidden_states_image": torch.randn(1, 17, 32, generator=gen)}  # fmt: skip
        given = {name: value.to("cuda", torch.bfloat16 if value.dim() > 1 else None) for name, value in given.items()}
        network: Any = model.denoiser
        loss = partial(_total, network, given)
        for _ in range(3):
            found.append(gradients(network, loss))
            network.zero_grad()
    assert all(torch.equal(one, found[0]) for one in found)


def _total(network: Any, given: dict[str, Tensor]) -> Tensor:
    return network(**given, return_dict=False)[0].float().sum()


def test_a_shot_is_the_cpus(tmp_path: Path) -> None:
    """In float32, where only the order of sums differs; and the encoders are back home after it."""
    save_tiny(tmp_path)
    section = ModelSection(family="wan21", path=str(tmp_path))
    recipe = Recipe(prompt="a man", negative="rain", frames=9, steps=3, guidance=4.0, shift=3.0)
    picture = torch.rand(32, 48, 3, generator=torch.Generator().manual_seed(0))
    films: list[Tensor] = []
    for place in ("cpu", "cuda"):
        model = load_model(section, device=Device(place, "float32", "test"))
        films.append(torch.stack(list(pictures(model, generate(model, picture, recipe, seed=1)))))
        assert next(model._text_encoder.parameters()).device.type == "cpu"  # type: ignore[union-attr]
    assert float((films[0] - films[1]).abs().max()) < 2e-3


def test_a_step_keeps_the_host_free() -> None:
    """torch itself raises at any wait for the card inside a forward and backward."""
    network = wide(torch.bfloat16, "cuda")
    loss = wide_loss(network, torch.bfloat16, "cuda")
    loss().backward()
    torch.cuda.set_sync_debug_mode("error")
    try:
        loss().backward()
    finally:
        torch.cuda.set_sync_debug_mode("default")
