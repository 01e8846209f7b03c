"""Shooting with compiled blocks: one program for each arm's adapter, for any number of blocks, and the same shot."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from diffusers import WanTransformer3DModel
from torch._dynamo.testing import CompileCounterWithBackend
from torch._dynamo.utils import counters

from cinetune.config import Config
from cinetune.errors import ConfigError
from cinetune.generation import ArmModel
from cinetune.generation.segment import Recipe, generate
from cinetune.models import load_model
from cinetune.models.adapters.export import save_adapter
from cinetune.models.adapters.lora import add_lora, lora_state
from cinetune.sections import ModelSection
from support import save_tiny

LAYERS = 9
"""More than dynamo's own limit of eight programs for one function."""
RECIPE = Recipe(prompt="a man", negative="", frames=9, steps=2, guidance=1.0, shift=3.0)

pytestmark = pytest.mark.filterwarnings("ignore")  # the compiler sets off warnings inside torch itself


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("deep") / "model"
    save_tiny(folder)
    shipped = WanTransformer3DModel.from_pretrained(folder, subfolder="transformer")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        deeper = WanTransformer3DModel.from_config({**shipped.config, "num_layers": LAYERS})
    assert isinstance(deeper, WanTransformer3DModel)
    deeper.save_pretrained(folder / "transformer")
    return folder


@pytest.fixture(scope="module")
def adapters(folder: Path) -> dict[str, Path]:
    made: dict[str, Path] = {}
    for number, arm in enumerate(("look", "plain")):
        model = load_model(ModelSection(family="pocket", path=str(folder)))
        gen = torch.Generator().manual_seed(number)
        for _, parameter in add_lora(model, rank=2, alpha=4, targets="cross", name=arm, seed=number):
            torch.nn.init.normal_(parameter, std=0.1, generator=gen)
        made[arm] = folder.parent / f"{arm}.safetensors"
        save_adapter(made[arm], lora_state(model, arm), alpha=4, rank=2, metadata={})
    return made


def config(folder: Path, **model: object) -> Config:
    own = {"family": "pocket", "path": str(folder), "device": "cpu"} | model
    return Config.model_validate({"model": own, "shoot": {"compile": True}})


def shot(arms: ArmModel, arm: str, seed: int) -> torch.Tensor:
    picture = torch.rand(32, 48, 3, generator=torch.Generator().manual_seed(seed))
    return generate(arms.activate(arm), picture, RECIPE, seed=seed)  # type: ignore[arg-type]


def test_each_arm_is_one_program(folder: Path, adapters: dict, graphs: CompileCounterWithBackend) -> None:
    plain = config(folder).model_copy(update={"shoot": config(folder).shoot.model_copy(update={"compile": False})})
    uncompiled, compiled = ArmModel(plain, adapters), ArmModel(config(folder), adapters)
    seen: list[torch.Tensor] = []
    for programs, arm in enumerate(("base", "look", "plain"), start=1):
        for seed in range(2):
            found = shot(compiled, arm, seed)
            assert graphs.frame_count == programs
            want = shot(uncompiled, arm, seed)
            assert float((found - want).norm() / want.norm()) < 1e-6
            seen.append(found)
    for arm in ("look", "trigger", "plain"):
        shot(compiled, arm, 3)
    assert graphs.frame_count == 3, "each arm again, and the one that is the base"
    assert not counters["graph_break"]
    assert not torch.equal(seen[0], seen[2]) and not torch.equal(seen[2], seen[4])


def test_settings_that_exclude_it_are_refused(folder: Path) -> None:
    with pytest.raises(ConfigError, match=r"shoot\.compile and model\.offload_blocks"):
        ArmModel(config(folder, offload_blocks=1), {})


def test_a_compiled_shot_is_another_shot_and_a_preview_is_not() -> None:
    def digits(**shoot: object) -> dict:
        return Config.model_validate({"shoot": shoot}).shooting().moves_last_digits

    assert digits(compile=True) == {"compile": True}
    assert digits() == digits(compile=True, preview=True) == {}
