"""Compiled blocks: one program for all of them, held to themselves uncompiled."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import WanTransformer3DModel
from torch._dynamo.testing import CompileCounterWithBackend
from torch._dynamo.utils import counters

from cinetune.errors import ConfigError, ModelError
from cinetune.models.adapters.lora import add_lora
from cinetune.models.family import Batch, Conditioning
from cinetune.models.memory import fit as fitting
from cinetune.models.memory.fit import Load, fit, place_on_device, prove
from cinetune.models.wan.wan21 import WanVideo
from cinetune.runtime import Device, Quiet
from cinetune.sections import ModelSection, TrainSection
from cinetune.training.step import flow_loss

CPU = Device("cpu", "float32", "test")
LAYERS = 12
"""More than dynamo's own limit of eight programs for one function."""
LOAD = Load(shape=(2, 16, 3, 8, 12), image_tokens=17)

pytestmark = pytest.mark.filterwarnings("ignore")  # the compiler sets off warnings inside torch itself


@pytest.fixture
def deep(tiny_folder: Path) -> Callable[..., WanVideo]:
    """`deep(checkpointing="full", storage="fp8")`: the tiny model with twelve compiled blocks and an adapter."""

    def make(*, checkpointing: str, **settings: Any) -> WanVideo:
        model = WanVideo.from_folder(tiny_folder, family="wan21", parts="denoiser")
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(1)
            deeper = WanTransformer3DModel.from_config({**model.denoiser.config, "num_layers": LAYERS})
            assert isinstance(deeper, WanTransformer3DModel)
            model._transformer = deeper
        model.denoiser.eval().requires_grad_(False)
        section = ModelSection.model_validate(settings)
        place_on_device(model.denoiser, section, CPU)
        recipe = TrainSection.model_validate({"checkpointing": checkpointing, "compile": True})
        fit(model, section, recipe, CPU, Quiet())
        add_lora(model, rank=2, alpha=4, targets="cross", seed=0)
        return model

    return make


def step(model: WanVideo, seed: int = 0) -> None:
    gen = torch.Generator().manual_seed(seed)
    x, noise = (torch.randn(2, 16, 3, 8, 12, generator=gen) for _ in range(2))
    cond = Conditioning(
        text_BLD=torch.randn(2, 512, 32, generator=gen), image_BLD=torch.randn(2, 17, 32, generator=gen),
        latent_BCfhw=torch.randn(2, 20, 3, 8, 12, generator=gen),
    )  # fmt: skip
    flow_loss(model, Batch(latents_BCfhw=x, cond=cond), torch.rand(2, generator=gen), noise).mean().backward()


ALL = [(mode, storage) for mode in ("none", "selective", "full") for storage in ("plain", "fp8", "int8", "nf4")]
QUICK = [("none", "plain"), ("full", "plain"), ("selective", "fp8")]


@pytest.mark.parametrize(
    ("checkpointing", "storage"),
    [*QUICK, *(pytest.param(*one, marks=pytest.mark.slow) for one in ALL if one not in QUICK)],
)
def test_all_blocks_are_one_program(
    deep: Callable[..., WanVideo], graphs: CompileCounterWithBackend, checkpointing: str, storage: str
) -> None:
    """The first block, whose input carries no gradient, and the other eleven; and not once more in the next step."""
    model = deep(checkpointing=checkpointing, storage=storage)
    for seed in range(2):
        step(model, seed)
        assert graphs.frame_count == 2
    assert not counters["graph_break"]


def test_each_behaviour_is_one_program(deep: Callable[..., WanVideo], graphs: CompileCounterWithBackend) -> None:
    """Some blocks that keep everything before others that do not."""
    model = deep(checkpointing="none")
    for block in model.denoiser.blocks[5:]:
        fitting._become(block, fitting._Selective)
    step(model)
    assert graphs.frame_count == 3
    assert len({type(block) for block in model.denoiser.blocks}) == 2


def test_what_dynamo_would_run_uncompiled_is_an_error(
    deep: Callable[..., WanVideo], graphs: CompileCounterWithBackend
) -> None:
    """A class of its own for every block, as it was: the limit is met, and said."""
    model = deep(checkpointing="none")
    for block in model.denoiser.blocks:
        block.__class__ = type("Own", (type(block),), {})
    limit: Any = torch._dynamo.config.patch(recompile_limit=3)
    with limit, pytest.raises(ModelError, match="cannot be compiled once for all"):
        step(model)
    assert graphs.frame_count == 3


@pytest.mark.parametrize("checkpointing", ["none", "selective"])
def test_compiled_blocks_are_held_to_themselves(
    deep: Callable[..., WanVideo], graphs: CompileCounterWithBackend, checkpointing: str
) -> None:
    model = deep(checkpointing=checkpointing)
    before = {name: value.clone() for name, value in model.denoiser.named_parameters()}
    assert prove(model.denoiser, LOAD) > 1 - 1e-6
    assert graphs.frame_count == 2, "the very programs that training will use"
    step(model)
    assert graphs.frame_count == 2
    assert all(torch.equal(before[name], value) for name, value in model.denoiser.named_parameters())


def test_wrong_gradients_are_found(deep: Callable[..., WanVideo], monkeypatch: pytest.MonkeyPatch) -> None:
    """A compiler whose forward is right and whose backward is off by a tenth of random noise."""
    from torch._dynamo.backends.common import aot_autograd

    def off(graph: torch.fx.GraphModule, _: Any) -> Callable[..., Any]:
        def run(*inputs: Any) -> Any:
            return [
                one if one is None or not one.is_floating_point() else one + 0.1 * one.std() * torch.randn_like(one)
                for one in graph(*inputs)
            ]

        return run

    torch._dynamo.reset()
    monkeypatch.setattr(fitting, "BACKEND", aot_autograd(fw_compiler=lambda graph, _: graph, bw_compiler=off))
    model = deep(checkpointing="none")
    with pytest.raises(ModelError, match=r"compute something else: the cosine of their \w+'s gradient"):
        prove(model.denoiser, LOAD)
    torch._dynamo.reset()


def test_a_kernel_that_went_wrong_when_compiled_is_refused(tiny_folder: Path) -> None:
    model = WanVideo.from_folder(tiny_folder, family="wan21", parts="denoiser")
    with pytest.raises(ConfigError, match="may not stand in a compiled block"):
        fit(model, ModelSection(attention="_native_cudnn"), TrainSection(compile=True), CPU, Quiet())
