"""Several processes learn what one learns: the same bytes where only elements and weights are shared out, the same to
rounding where tokens are."""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from cinetune.errors import CinetuneError, ConfigError, ModelError
from cinetune.metrics import ClipMaps
from cinetune.models.lora import lora_state
from cinetune.models.wan21 import WanVideo
from cinetune.processes import Processes, meet
from cinetune.runtime import Quiet
from cinetune.sections import ModelSection, ParallelSection, TrainSection
from cinetune.training import HeldShot, Validator, WindowFile, World, alone, arrange, train
from crew import crew
from support import tiny_wan

ULYSSES = 2e-5
"""Tolerance, relative to a tensor's length, where attention is added up in another order: float32 rounding (6e-8) grows
over the layers, and Adam's division lets the rounding of small gradients show."""


@pytest.fixture(scope="module")
def base() -> WanVideo:
    """A tiny model whose four heads can be shared by two or four processes."""
    return tiny_wan(heads=4)


@pytest.fixture
def steps(recipe: TrainSection) -> TrainSection:
    """Four steps of four elements with everything on, and one evaluation in the middle."""
    return recipe.model_copy(update={"steps": 4, "accumulate": 4, "validate_every": 2, "checkpoint_every": 1})


Go = Callable[..., None]


class Breaks(Quiet):
    """Ends the run in the middle of a step, as Ctrl-C would."""

    def __init__(self, after: int) -> None:
        super().__init__()
        self.left = after

    def advance(self, steps: int = 1, note: str = "") -> None:
        self.left -= steps
        if self.left < 0:
            raise KeyboardInterrupt


@pytest.fixture
def go(base: WanVideo, files: list[WindowFile], empty: torch.Tensor, net: ClipMaps) -> Go:
    """`go(recipe, folder, world)` trains from a fresh copy of the base."""
    truth = torch.rand(9, 3, 32, 48, generator=torch.Generator().manual_seed(2)) * 2 - 1

    def run(recipe: TrainSection, folder: Path, world: World, *, windows: list[WindowFile] | None = None, after=99):
        model = copy.deepcopy(base)
        shots = [HeldShot(file=files[3], truth_TCHW=truth)]
        if recipe.checkpointing:
            model.denoiser.enable_gradient_checkpointing()
        judge = Validator(
            model, files[3:], shots, net=net, net_name="maps", recipe=recipe, folder=folder / "samples", world=world
        )
        with torch.random.fork_rng(devices=[]):
            finished = train(
                model,
                windows or files[:3],
                empty,
                validator=judge,
                recipe=recipe,
                arm="look",
                folder=folder,
                fingerprint={"data set": "d"},
                report=Breaks(after),
                world=world,
            )
        states = world.gather({name: value.double().sum().item() for name, value in lora_state(model, "look").items()})
        assert all(state == states[0] for state in states)
        assert finished.last_step == recipe.steps

    return run


def world_of(**section: object) -> World:
    parallel = ParallelSection.model_validate(section)
    return arrange(meet(ModelSection(device="cpu"), parallel), parallel)


def same_bytes(folder: Path, other: Path) -> None:
    assert (folder / "log.jsonl").read_text() == (other / "log.jsonl").read_text()
    assert (folder / "checkpoint.safetensors").read_bytes() == (other / "checkpoint.safetensors").read_bytes()
    assert [path.name for path in sorted((folder / "samples").iterdir())] == [
        path.name for path in sorted((other / "samples").iterdir())
    ]


def nearly_the_same(folder: Path, other: Path) -> None:
    """Losses, gradients (the optimiser's moments are made of them) and the adapter after all steps."""
    lines, others = (
        [json.loads(line) for line in (one / "log.jsonl").read_text().splitlines()] for one in (folder, other)
    )
    assert [(line["kind"], line["step"]) for line in lines] == [(line["kind"], line["step"]) for line in others]
    for one, two in zip(lines, others, strict=True):
        for key in ("loss", "grad_norm", "v_loss", "distance", "adapter_norm"):
            assert one.get(key) == pytest.approx(two.get(key), rel=ULYSSES), (key, one["step"])
    mine, theirs = (load_file(one / "checkpoint.safetensors") for one in (folder, other))
    assert mine.keys() == theirs.keys()
    for name, value in mine.items():
        error = float((value - theirs[name]).double().norm() / theirs[name].double().norm().clamp(min=1e-30))
        assert error < ULYSSES, (name, error)


TWO = {
    "ddp": {"data": "ddp"},
    "fsdp": {"data": "fsdp"},
    "ulysses": {"data": "fsdp", "ulysses": 2},
}
FOUR = TWO | {
    "hsdp": {"data": "hsdp", "replicas": 2},
    "ddp x ulysses": {"data": "ddp", "ulysses": 2},
    "hsdp x ulysses": {"data": "hsdp", "replicas": 2, "ulysses": 2},
    "ulysses 4": {"data": "fsdp", "ulysses": 4},
}


@pytest.mark.parametrize(("size", "modes"), [(2, TWO), (4, FOUR)], ids=["2", "4"])
def test_many_processes_learn_what_one_learns(
    size: int, modes: dict[str, dict[str, object]], go: Go, steps: TrainSection, tmp_path: Path
) -> None:
    go(steps, tmp_path / "one", alone())

    def job() -> None:
        for name, section in modes.items():
            go(steps, tmp_path / name, world_of(**section))

    crew(size, job, tmp_path)
    for name, section in modes.items():
        (nearly_the_same if section.get("ulysses") else same_bytes)(tmp_path / name, tmp_path / "one")
