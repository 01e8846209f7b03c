"""Several processes learn what one learns: the same bytes where only elements and weights are shared out, the same to
rounding where tokens are."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from cinetune.errors import ConfigError, ModelError
from cinetune.metrics import ClipMaps
from cinetune.models.adapters.lora import lora_state
from cinetune.models.memory.fit import fit, place_on_device
from cinetune.models.wan.wan21 import WanVideo
from cinetune.processes import Processes, join_group
from cinetune.runtime import Device, Quiet
from cinetune.sections import ModelSection, ParallelSection, TrainSection
from cinetune.training import HeldShot, Validator, WindowFile, World, alone, arrange, train, window_file
from crew import crew
from support import tiny_wan

CPU = Device("cpu", "float32", "test")
PLAIN = ModelSection()
ULYSSES = 5e-5
"""Tolerance of losses and gradients, relative to their length, where tokens are added up in another order: float32
rounding (6e-8), grown over the layers. An average instead of a sum would be off by 0.5."""
ADAM = 1e-3
"""The same after several steps: Adam divides every gradient by its own size, so the rounding of small ones shows, and
later gradients are taken elsewhere (1.6e-4 measured after three steps of 0.01)."""


@pytest.fixture(scope="module")
def base() -> WanVideo:
    """A tiny model whose four heads can be shared by two or four processes."""
    return tiny_wan(heads=4)


@pytest.fixture
def steps(recipe: TrainSection) -> TrainSection:
    """Three steps of four elements with everything on, evaluated before the first and after the last."""
    changes = {"steps": 3, "accumulate": 4, "validate_every": 3, "validation_steps": 1, "checkpoint_every": 1}
    return recipe.model_copy(update=changes)


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

    def run(
        recipe: TrainSection,
        folder: Path,
        world: World,
        *,
        section: ModelSection = PLAIN,
        windows: list[WindowFile] | None = None,
        after: int = 99,
    ) -> None:
        model = copy.deepcopy(base)
        place_on_device(model.denoiser, section, CPU)
        fit(model, section, recipe, CPU, Quiet())
        shots = [HeldShot(file=files[3], truth_TCHW=truth)]
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
    return arrange(join_group(ModelSection(device="cpu"), parallel), parallel)


def same_bytes(folder: Path, other: Path) -> None:
    assert (folder / "log.jsonl").read_text() == (other / "log.jsonl").read_text()
    assert (folder / "checkpoint.safetensors").read_bytes() == (other / "checkpoint.safetensors").read_bytes()
    assert [path.name for path in sorted((folder / "samples").iterdir())] == [
        path.name for path in sorted((other / "samples").iterdir())
    ]


def nearly_the_same(folder: Path, other: Path, tolerance: float) -> None:
    """Losses, lengths of gradients, and the adapter and the optimiser's moments after the last step."""
    lines, others = (
        [json.loads(line) for line in (one / "log.jsonl").read_text().splitlines()] for one in (folder, other)
    )
    assert [(line["kind"], line["step"]) for line in lines] == [(line["kind"], line["step"]) for line in others]
    for one, two in zip(lines, others, strict=True):
        for key in ("loss", "grad_norm", "v_loss", "distance", "adapter_norm"):
            assert (key in one) == (key in two)
            assert one.get(key, 0) == pytest.approx(two.get(key, 0), rel=ULYSSES), (key, one["step"])
    mine, theirs = (load_file(one / "checkpoint.safetensors") for one in (folder, other))
    assert mine.keys() == theirs.keys()
    for name, value in mine.items():
        error = float((value.double() - theirs[name]).norm() / theirs[name].double().norm().clamp(min=1e-30))
        assert error < tolerance, (name, error)


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


@pytest.mark.parametrize(
    ("size", "modes"),
    [pytest.param(2, TWO, id="2"), pytest.param(4, FOUR, id="4", marks=[pytest.mark.slow, pytest.mark.timeout(600)])],
)
def test_many_processes_learn_what_one_learns(
    size: int, modes: dict[str, dict[str, object]], go: Go, steps: TrainSection, tmp_path: Path
) -> None:
    first = steps.model_copy(update={"steps": 1, "validate_every": 1})  # its first moment is a tenth of the gradient
    go(steps, tmp_path / "one", alone())
    go(first, tmp_path / "one first", alone())

    def job() -> None:
        for name, section in modes.items():
            go(steps, tmp_path / name, world_of(**section))
            if "ulysses" in section:
                go(first, tmp_path / f"{name} first", world_of(**section))

    crew(size, job, tmp_path, seconds=100 if size == 2 else 580)
    for name, section in modes.items():
        if "ulysses" not in section:
            same_bytes(tmp_path / name, tmp_path / "one")
            continue
        nearly_the_same(tmp_path / name, tmp_path / "one", ADAM)
        moments = [load_file(tmp_path / f"{one} first" / "checkpoint.safetensors") for one in (name, "one")]
        for key in moments[0]:
            if key.endswith("exp_avg"):
                error, length = float((moments[0][key] - moments[1][key]).norm()), float(moments[1][key].norm())
                assert error <= ULYSSES * length, (name, key, error / max(length, 1e-30))
                assert length > 0 or "lora_A" in key  # its gradient is zero while B is


def test_a_run_goes_on_with_another_number_of_processes(go: Go, steps: TrainSection, tmp_path: Path) -> None:
    """Two processes, sharded; then four, whole; then one: the checkpoint knows nothing of them."""
    go(steps, tmp_path / "whole", alone())

    def broken(after: int, **section: object) -> None:
        world = world_of(**section)
        with pytest.raises(KeyboardInterrupt):
            go(steps, tmp_path / "moved", world, after=after)
        world.gather(0)  # until all are out of the step

    crew(2, lambda: broken(1, data="fsdp"), tmp_path)
    crew(4, lambda: broken(2), tmp_path)
    go(steps, tmp_path / "moved", alone())
    same_bytes(tmp_path / "moved", tmp_path / "whole")


FSDP, ULYSSES_2 = {"data": "fsdp"}, {"data": "fsdp", "ulysses": 2}
SAVING = [
    ({"checkpointing": "selective"}, {"storage": "nf4"}, FSDP),
    ({"checkpointing": "full"}, {"storage": "nf4"}, ULYSSES_2),
]
"""Recipe, model and sharing."""
MORE = [
    ({"checkpointing": kept}, {"storage": storage}, sharing)
    for kept in ("none", "selective", "full")
    for storage in ("plain", "fp8", "int8", "nf4")
    for sharing in (FSDP, ULYSSES_2)
] + [({"checkpointing": "full"}, {"offload_blocks": 1}, {"data": "ddp", "ulysses": 2})]


@pytest.mark.parametrize(
    "cases", [pytest.param(SAVING, id="some"), pytest.param(MORE, id="all", marks=[pytest.mark.slow])]
)
def test_what_saves_memory_goes_with_many_processes(
    cases: list[tuple[dict, dict, dict]], go: Go, steps: TrainSection, tmp_path: Path
) -> None:
    """Two processes with checkpointing, stored weights or offloaded blocks against one that has only the same storage:
    no bit differs where weights are shared out, and rounding alone where tokens are.
    """
    short = steps.model_copy(update={"steps": 2, "validate_every": 2, "accumulate": 2})
    for storage in {model.get("storage", "plain") for _, model, _ in cases}:
        go(short, tmp_path / storage, alone(), section=ModelSection(storage=storage))

    def job() -> None:
        for number, (recipe, model, sharing) in enumerate(cases):
            world, section = world_of(**sharing), ModelSection.model_validate(model)
            world.check_model(section)
            go(short.model_copy(update=recipe), tmp_path / str(number), world, section=section)

    crew(2, job, tmp_path, seconds=100 if len(cases) < 9 else 500)
    for number, (_, model, sharing) in enumerate(cases):
        tolerance = ADAM if sharing is not FSDP else 1e-30
        nearly_the_same(tmp_path / str(number), tmp_path / model.get("storage", "plain"), tolerance)


def test_every_process_refuses_the_window_that_one_of_them_saw(
    go: Go, steps: TrainSection, files: list[WindowFile], tmp_path: Path
) -> None:
    tensors = load_file(files[0].path)
    tensors["latents_Cfhw"][0, 0, 0, 0] = float("nan")
    save_file(tensors, tmp_path / "bad.safetensors")
    windows = [*files[1:3], window_file("bad window", tmp_path / "bad.safetensors")]

    def job() -> None:
        with pytest.raises(ModelError, match=r"not finite at training step 1(?s:.*)bad window") as caught:
            go(steps, tmp_path / "run", world_of(), windows=windows)
        world = world_of()
        said = world.gather(str(caught.value))
        assert said[0] == said[1]

    crew(2, job, tmp_path)
    kept = load_file(tmp_path / "run" / "checkpoint.safetensors")
    assert all(not tensor.any() for name, tensor in kept.items() if name.endswith("lora_B.weight"))


@pytest.mark.parametrize(
    ("batch", "accumulate", "size"), [(1, 4, 2), (1, 4, 4), (4, 1, 2), (3, 2, 2), (6, 2, 4), (2, 4, 1)]
)
def test_micro_batches_are_dealt_out_in_turn(batch: int, accumulate: int, size: int) -> None:
    """Round by round and rank by rank they are the elements in order, each once, in pieces no larger than a batch."""
    hands = [World(rank=rank, size=size).micro_batches(batch, accumulate) for rank in range(size)]
    order = [row for turn in zip(*hands, strict=True) for row in turn]
    assert [number for row in order for number in range(row.start, row.stop)] == list(range(batch * accumulate))
    assert all(row.stop - row.start <= batch for row in order)
    if accumulate % size == 0:  # then they are those of one process, and so is every bit of the sum
        assert {row.stop - row.start for row in order} == {batch}


def test_ulysses_ranks_work_on_the_same_elements() -> None:
    grid = [World(rank=rank, size=4, ulysses=2) for rank in range(4)]
    rows = [world.micro_batches(1, 2) for world in grid]
    assert rows[0] == rows[1] != rows[2] == rows[3]


def test_a_world_size_that_does_not_divide() -> None:
    with pytest.raises(ConfigError, match=r"4 elements cannot be shared by 3 data ranks(?s:.*)multiple of 3"):
        World(size=3).micro_batches(1, 4)
    for section in ({"ulysses": 2}, {"data": "hsdp", "replicas": 2}):
        with pytest.raises(ConfigError, match="world size of 3 does not divide by parallel"):
            arrange(Processes(size=3), ParallelSection.model_validate(section))
    with pytest.raises(ConfigError, match="world size of 1 does not divide"):
        arrange(Processes(), ParallelSection(ulysses=2))


@pytest.mark.parametrize(
    ("ulysses", "shape", "what"),
    [(3, (16, 3, 8, 12), "4 attention heads"), (4, (16, 1, 2, 12), "6 tokens of a window")],
)
def test_heads_and_tokens_must_divide(base: WanVideo, ulysses: int, shape: tuple[int, ...], what: str) -> None:
    world = World(size=ulysses, ulysses=ulysses)
    with pytest.raises(ConfigError, match=f"{what} cannot be shared by {ulysses} cards"):
        world.parallelise(base, {}, [(16, 3, 8, 12), shape])


def test_work_is_shared_out_and_comes_back_in_order(tmp_path: Path) -> None:
    def job() -> None:
        world = world_of()
        made: list[int] = []

        def square(number: int) -> int:
            made.append(number)
            return number * number

        assert world.map(square, [1, 2, 3, 4, 5]) == [1, 4, 9, 16, 25]
        assert made == ([1, 3, 5], [2, 4, 5])[world.rank]  # as many on each, as shards need

    crew(2, job, tmp_path)
