"""Shots over several processes are the shots of one."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch

from cinetune.errors import ConfigError
from cinetune.generation.partition import Partition, partition
from cinetune.generation.segment import Recipe, generate
from cinetune.models.adapters.lora import add_lora
from cinetune.models.wan.wan21 import WanVideo
from cinetune.processes import Processes, join_group
from cinetune.sections import ModelSection, ParallelSection
from crew import crew
from support import tiny_wan

SHAPE = (16, 3, 8, 12)
RECIPE = Recipe(prompt="a man", negative="rain", frames=9, steps=3, guidance=4.0, shift=3.0)
ROUNDING = 1e-5
"""Relative distance of latents where tokens are shared (attention over fewer heads at a time) or the base is gathered
from shards (on a CPU the order of a sum depends on where its operands lie): float32, grown over layers and steps."""


@pytest.fixture(scope="module")
def base() -> WanVideo:
    """A tiny model whose four heads can be shared, with an adapter that does something."""
    model = tiny_wan(heads=4)
    made = add_lora(model, rank=2, alpha=4, targets="cross", seed=0)
    gen = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, parameter in made:
            if "lora_B" in name:
                parameter.copy_(torch.randn(parameter.shape, generator=gen) * 0.1)
    return model


def shot(model: WanVideo, seed: int) -> torch.Tensor:
    picture = torch.rand(32, 48, 3, generator=torch.Generator().manual_seed(seed))
    return generate(model, picture, RECIPE, seed=seed)


@pytest.fixture(scope="module")
def alone(base: WanVideo) -> list[torch.Tensor]:
    model = copy.deepcopy(base)  # a copy's convolutions take torch's own way, as in the processes below
    return [shot(model, seed) for seed in range(3)]


def laid_out(**settings: object) -> Partition:
    return partition(join_group(ModelSection(device="cpu"), ParallelSection()), **settings)  # type: ignore[arg-type]


WAYS = [
    ("guidance", 2, {"guidance": 2}, 0.0),
    ("shots", 2, {}, 0.0),
    ("ulysses", 2, {"ulysses": 2}, ROUNDING),
    pytest.param("guidance, base in shards", 2, {"guidance": 2, "shard": True}, ROUNDING, marks=pytest.mark.slow),
    pytest.param("guidance and ulysses", 4, {"guidance": 2, "ulysses": 2}, ROUNDING, marks=pytest.mark.slow),
    pytest.param("shots and guidance", 4, {"guidance": 2}, 0.0, marks=pytest.mark.slow),
    pytest.param("ulysses 4", 4, {"ulysses": 4}, ROUNDING, marks=pytest.mark.slow),
]


@pytest.mark.parametrize(("name", "size", "settings", "tolerance"), WAYS)
def test_several_processes_make_the_shots_of_one(
    base: WanVideo, alone: list[torch.Tensor], tmp_path: Path, name: str, size: int, settings: dict[str, object],
    tolerance: float,
) -> None:  # fmt: skip
    def job() -> None:
        made = laid_out(**settings)
        model = made.spread(copy.deepcopy(base), [SHAPE])
        for seed in made.mine(range(3)):
            latents = shot(model, seed)  # type: ignore[arg-type]
            apart = float((latents - alone[seed]).norm() / alone[seed].norm())
            assert apart <= tolerance, (name, seed, apart)
            if made.keeps():
                torch.save(latents, tmp_path / f"shot-{seed}-{made.rank}.pt")

    crew(size, job, tmp_path / "said")
    assert sorted(path.name.split("-")[1] for path in tmp_path.glob("shot-*.pt")) == ["0", "1", "2"]


def test_each_half_makes_one_pass(base: WanVideo, tmp_path: Path) -> None:
    """Three steps of guidance are six passes; each of two processes makes three."""

    def job() -> None:
        made = laid_out(guidance=2)
        model = copy.deepcopy(base)
        passes: list[int] = []
        model.denoiser.register_forward_pre_hook(lambda *_: passes.append(1))
        shot(made.spread(model, [SHAPE]), 0)  # type: ignore[arg-type]
        assert len(passes) == RECIPE.steps

    crew(2, job, tmp_path / "said")


def test_guidance_in_one_batch_is_guidance(base: WanVideo, alone: list[torch.Tensor]) -> None:
    """Another shape of the same products: to rounding, grown over three steps."""
    passes: list[int] = []
    base.together = True
    hook = base.denoiser.register_forward_pre_hook(
        lambda _, __, given: passes.append(len(given["hidden_states"])), with_kwargs=True
    )
    try:
        latents = shot(base, 0)
    finally:
        base.together = False
        hook.remove()
    assert passes == [2] * RECIPE.steps
    assert float((latents - alone[0]).norm() / alone[0].norm()) < ROUNDING


@pytest.mark.parametrize(
    ("size", "settings", "what"),
    [
        (3, {"guidance": 2}, "3 processes cannot make shots in groups of 2 x 1"),
        (4, {"guidance": 3}, "guidance over 3"),
        (4, {"guidance": 2, "shard": True}, "one shot at a time"),
    ],
)
def test_numbers_that_do_not_divide_are_refused(size: int, settings: dict[str, int], what: str) -> None:
    with pytest.raises(ConfigError, match=what):
        partition(Processes(rank=0, size=size), **settings)  # type: ignore[arg-type]


def test_alone_is_alone(base: WanVideo) -> None:
    made = partition(Processes())
    assert made.spread(base, [SHAPE]) is base and made.keeps() and list(made.mine([1, 2])) == [1, 2]
    assert made.describe() == ""
    text = Partition(rank=0, size=8, guidance=2, ulysses=2).describe()
    assert text == "8 processes: 2 shots at a time, guidance over 2, ulysses 2"
