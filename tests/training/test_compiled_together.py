"""Compiled blocks where several processes share tokens, weights or both: the same two programs for any number of
blocks, and the gradients of uncompiled ones.
"""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import WanTransformer3DModel
from torch import Tensor, nn
from torch._dynamo.testing import CompileCounterWithBackend
from torch._dynamo.utils import counters

from cinetune.models.adapters.lora import add_lora
from cinetune.models.family import Batch, Conditioning
from cinetune.models.memory import fit as fitting
from cinetune.models.memory.fit import fit, place_on_device
from cinetune.models.wan.wan21 import WanVideo
from cinetune.processes import join_group
from cinetune.runtime import Device, Quiet
from cinetune.sections import ModelSection, ParallelSection, TrainSection
from cinetune.training import arrange
from cinetune.training.step import flow_loss
from crew import crew
from support import tiny_wan

CPU = Device("cpu", "float32", "test")
SHAPE = (16, 3, 8, 12)
LAYERS = 9
"""More than dynamo's own limit of eight programs for one function."""
SHARED = {"ulysses": {"ulysses": 2}, "fsdp": {"data": "fsdp"}, "both": {"data": "fsdp", "ulysses": 2}}

pytestmark = pytest.mark.filterwarnings("ignore")  # the compiler sets off warnings inside torch itself


@pytest.fixture(scope="module")
def base() -> WanVideo:
    model = tiny_wan(heads=4)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        deeper = WanTransformer3DModel.from_config({**model.denoiser.config, "num_layers": LAYERS})
    assert isinstance(deeper, WanTransformer3DModel)
    model._transformer = deeper.eval().requires_grad_(False)
    return model


def fitted(base: WanVideo, recipe: TrainSection, storage: str) -> tuple[WanVideo, dict[str, nn.Parameter]]:
    model, section = copy.deepcopy(base), ModelSection.model_validate({"storage": storage})
    place_on_device(model.denoiser, section, CPU)
    fit(model, section, recipe, CPU, Quiet())
    adapter = dict(add_lora(model, rank=2, alpha=4, targets="cross", seed=0))
    gen = torch.Generator().manual_seed(5)
    for parameter in adapter.values():
        nn.init.normal_(parameter, std=0.1, generator=gen)
    return model, adapter


def gradient(model: WanVideo, adapter: dict[str, nn.Parameter], seed: int) -> Tensor:
    gen = torch.Generator().manual_seed(seed)
    x, noise = (torch.randn(2, *SHAPE, generator=gen) for _ in range(2))
    cond = Conditioning(
        text_BLD=torch.randn(2, 512, 32, generator=gen), image_BLD=torch.randn(2, 17, 32, generator=gen),
        latent_BCfhw=torch.randn(2, 20, *SHAPE[1:], generator=gen),
    )  # fmt: skip
    flow_loss(model, Batch(latents_BCfhw=x, cond=cond), torch.rand(2, generator=gen), noise).mean().backward()
    found = torch.cat([parameter.grad.flatten() for parameter in adapter.values() if parameter.grad is not None])
    model.denoiser.zero_grad()
    return found


CASES = [
    (name, mode, storage) for name in SHARED for mode in ("none", "selective", "full") for storage in ("plain", "fp8")
]
QUICK = [("ulysses", "none", "plain")]


@pytest.mark.timeout(240)
@pytest.mark.parametrize(
    ("name", "checkpointing", "storage"),
    [*QUICK, *(pytest.param(*case, marks=pytest.mark.slow) for case in CASES if case not in QUICK)],
)
def test_all_blocks_of_all_processes_are_one_program(
    base: WanVideo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, checkpointing: str, storage: str
) -> None:
    """The first block, whose input carries no gradient, and the others; and not once more in the next step."""
    graphs = CompileCounterWithBackend("aot_eager")
    monkeypatch.setattr(fitting, "BACKEND", graphs)

    def job() -> None:
        section = ParallelSection.model_validate(SHARED[name])
        world = arrange(join_group(ModelSection(device="cpu"), section), section)
        found: dict[bool, list[Tensor]] = {}
        for compiled in (False, True):
            torch._dynamo.reset()
            counters.clear()
            recipe = TrainSection.model_validate({"checkpointing": checkpointing, "compile": compiled})
            model, adapter = fitted(base, recipe, storage)
            world.parallelise(model, adapter, [SHAPE])
            found[compiled] = []
            for seed in range(2):
                found[compiled].append(gradient(model, adapter, seed))
                assert graphs.frame_count == (2 if compiled else 0)
        assert not counters["graph_break"]
        pairs: Any = zip(found[True], found[False], strict=True)
        assert all(float((one - other).norm() / other.norm()) < 1e-6 for one, other in pairs)
        assert float((found[True][0] - found[True][1]).norm()) > 0

    crew(2, job, tmp_path / "said", seconds=200)
