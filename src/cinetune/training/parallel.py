"""Training on many cards. The processes of a run form a grid of data ranks times Ulysses ranks (Jacobs et al., arXiv
2309.14509): data ranks work on different elements of the same step, Ulysses ranks on different tokens of one element.

Only the frozen base is sharded. The adapter, its gradient and its optimiser are whole on every process, and gradients
are added in the order in which one process would add them. So the number of processes changes no bit of what is
learned (but for `ulysses`, which adds token by token), and a checkpoint has no shape of the cluster in it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

import torch
from torch import Tensor, distributed, nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh

from cinetune.errors import ClusterError, ConfigError
from cinetune.models.family import VideoModel
from cinetune.models.memory.share import Share
from cinetune.models.memory.spread import check_shares, shard_base, share_tokens
from cinetune.outside import count_of
from cinetune.processes import Processes
from cinetune.sections import ModelSection, ParallelSection

__all__ = ["GradientSum", "World", "alone", "arrange"]

T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class World(Processes):
    """The processes of a run and what each does. `grid` has the dimensions `data`, `ring` (always 1), `ulysses`;
    `copies` is what the base is sharded over (`fsdp`), or `replicate` times `shard` (`hsdp`).
    """

    data: Literal["ddp", "fsdp", "hsdp"] = "ddp"
    ulysses: int = 1
    grid: DeviceMesh | None = None
    copies: DeviceMesh | None = None

    @property
    def data_size(self) -> int:
        return self.size // self.ulysses

    @property
    def data_rank(self) -> int:
        return self.rank // self.ulysses

    @property
    def shards(self) -> int:
        """Processes that share one copy of the base."""
        return 1 if self.copies is None else self.copies.size(-1)

    @property
    def share(self) -> Share | None:
        """The part of the base that this process reads; None = all of it."""
        if self.copies is None:
            return None
        return Share(rank=self.copies.get_local_rank("shard"), size=self.copies.size(-1))

    def describe(self) -> str:
        """`4 processes (fsdp, ulysses 2)`; empty when alone."""
        if self.size == 1:
            return ""
        return f"{self.size} processes ({self.data}{f', ulysses {self.ulysses}' if self.ulysses > 1 else ''})"

    def check_model(self, section: ModelSection) -> None:
        """Raises `ConfigError` for settings of the model that these processes cannot share."""
        if section.offload_blocks and self.copies is not None:
            raise ConfigError(
                f'model.offload_blocks = {section.offload_blocks} and parallel.data = "{self.data}" exclude each '
                "other: a block that stays in host memory would be there whole, in every process",
                where="model.offload_blocks, parallel.data",
                remedy='set model.offload_blocks = 0 (shards make room already), or parallel.data = "ddp"',
            )

    def micro_batches(self, batch: int, accumulate: int) -> list[slice]:
        """The micro-batches of one optimiser step that this process does, as slices of its `batch * accumulate`
        elements. They are dealt out in turn, so that round r of all data ranks is r-th in the order of one process.

        Where `accumulate` does not divide, micro-batches are made smaller. Raises `ConfigError` when even elements do
        not.
        """
        elements = batch * accumulate
        if elements % self.data_size:
            raise ConfigError(
                f"a step of {elements} elements cannot be shared by {self.data_size} data ranks: the world size does "
                "not divide it",
                where=f"train.batch = {batch}, train.accumulate = {accumulate}, {self.size} processes, "
                f"parallel.ulysses = {self.ulysses}",
                remedy=f"make train.batch x train.accumulate a multiple of {self.data_size}, or start fewer processes",
            )
        size = math.gcd(batch, elements // self.data_size)
        starts = range(self.data_rank * size, elements, self.data_size * size)
        return [slice(start, start + size) for start in starts]

    def gather_losses(self, losses: Sequence[Tensor]) -> Tensor:
        """The losses of all elements of a step in their order, `[elements]`, from this process's micro-batches."""
        mine = torch.stack(list(losses))
        if self.data_size == 1:
            return mine.flatten()
        parts = [torch.empty_like(mine) for _ in range(self.data_size)]
        distributed.all_gather(parts, mine, group=self.group("data"))
        return torch.stack(parts, dim=1).flatten()  # [rounds, ranks, size]

    def map(self, make: Callable[[T], R], items: Sequence[T]) -> list[R]:
        """`make` of every item, shared out over the data ranks; the results of all, in order, on every process.

        All ranks make the same number, some of them one twice: forward passes of a sharded base need every process.
        Results must pickle.
        """
        if self.data_size == 1:
            return [make(item) for item in items]
        last = len(items) - 1
        turns = range(self.data_rank, math.ceil(len(items) / self.data_size) * self.data_size, self.data_size)
        mine = [make(items[min(turn, last)]) for turn in turns]
        parts: list[Any] = [None] * self.data_size
        distributed.all_gather_object(parts, mine, group=self.group("data"))
        return [parts[number % self.data_size][number // self.data_size] for number in range(len(items))]

    def parallelise(
        self, model: VideoModel, adapter: Mapping[str, nn.Parameter], shapes: Sequence[Sequence[int]]
    ) -> None:
        """Spread the denoiser over the processes, in place: tokens first, then weights (the order both need), the
        adapter left out. `shapes` are the latents `(.., f, h, w)` it will see.

        Raises `ConfigError` when heads or tokens do not divide by `ulysses`.
        """
        if self.ulysses > 1:
            check_shares(model, self.ulysses, shapes)
            assert self.grid is not None
            share_tokens(model.denoiser, self.grid, ulysses=self.ulysses, rank=self.rank, size=self.size)
        if self.copies is not None:
            shard_base(model.denoiser, self.copies, but=set(adapter.values()))

    def group(self, name: Literal["data", "ulysses"]) -> distributed.ProcessGroup:
        """The processes that share this one's place in the other dimensions."""
        assert self.grid is not None
        return self.grid.get_group(name)


def alone() -> World:
    """One process, no group."""
    return World()


def arrange(processes: Processes, section: ParallelSection) -> World:
    """Lay the processes out as `section` asks for. Every process must call it.

    Raises `ConfigError` when the world size does not divide by `ulysses` or `replicas`, or there is only one process
    and the section needs more.
    """
    rank, size = processes.rank, processes.size
    here = max(1, count_of("LOCAL_WORLD_SIZE", size, refuse=ClusterError))
    machines = max(1, size // here)
    replicas = section.replicas or machines
    asked = {"parallel.ulysses": section.ulysses}
    if section.data == "hsdp":
        asked["parallel.replicas"] = replicas
    for key, value in asked.items():
        if size % value:
            raise ConfigError(
                f"a world size of {size} does not divide by {key} = {value}",
                where=key,
                remedy="start a multiple of it with torchrun --nproc-per-node, or change the setting",
            )
    if size == 1:
        return World()
    kind = "cuda" if distributed.get_backend_config().find("nccl") >= 0 else "cpu"
    grid = init_device_mesh(
        kind, (size // section.ulysses, 1, section.ulysses), mesh_dim_names=("data", "ring", "ulysses")
    )
    copies = None
    if section.data == "fsdp":
        copies = init_device_mesh(kind, (size,), mesh_dim_names=("shard",))
    elif section.data == "hsdp":
        copies = init_device_mesh(kind, (replicas, size // replicas), mesh_dim_names=("replicate", "shard"))
    return World(rank=rank, size=size, data=section.data, ulysses=section.ulysses, grid=grid, copies=copies)


class GradientSum:
    """The gradient of one optimiser step over all processes. `add` after the backward pass of each micro-batch,
    `finish` before the optimiser: then every process holds the whole gradient.

    Each process adds up its own stretch of the gradient, in the order of the elements, and the stretches are joined at
    the end. With one micro-batch for each process that moves as many bytes as a ring all-reduce, but that one would
    add in another order for each world size. Ulysses ranks hold parts of one sum: they are added, never averaged.
    """

    def __init__(self, world: World, parameters: Sequence[nn.Parameter]) -> None:
        self._world, self._parameters = world, parameters
        self._stretch: Tensor | None = None

    def add(self) -> None:
        """Take in, and clear, the gradients that the last backward pass left. Alone, autograd adds them up itself."""
        world = self._world
        if world.size == 1:
            return
        parts = [torch.zeros_like(one) if one.grad is None else one.grad for one in self._parameters]
        flat = torch.cat([part.flatten() for part in parts])
        flat = nn.functional.pad(flat, (0, -len(flat) % world.data_size))
        for parameter in self._parameters:
            parameter.grad = None
        if world.ulysses > 1:
            distributed.all_reduce(flat, group=world.group("ulysses"))
        if world.data_size > 1:
            received = torch.empty_like(flat)
            distributed.all_to_all_single(received, flat, group=world.group("data"))
            flat = received
        for stretch in flat.view(world.data_size, -1):
            self._stretch = stretch.clone() if self._stretch is None else self._stretch.add_(stretch)

    def finish(self) -> None:
        """Give every process the whole sum, in `parameter.grad`."""
        world = self._world
        if self._stretch is None:
            return
        parts = [self._stretch]
        if world.data_size > 1:
            parts = [torch.empty_like(self._stretch) for _ in range(world.data_size)]
            distributed.all_gather(parts, self._stretch, group=world.group("data"))
        for parameter, values in zip(self._parameters, _cut(torch.cat(parts), self._parameters), strict=True):
            parameter.grad = values


def _cut(flat: Tensor, like: Sequence[Tensor]) -> Iterator[Tensor]:
    start = 0
    for one in like:
        yield flat[start : start + one.numel()].view(one.shape)
        start += one.numel()
