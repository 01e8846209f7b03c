"""One shot on several cards, and many shots on many.

    shots      each group of processes makes other shots
    guidance   of the two passes of classifier-free guidance each half of a group makes one, and they exchange results
    ulysses    the tokens of one pass are shared (Jacobs et al., arXiv 2309.14509)
    shard      the frozen base lies in shards over the group, for cards that cannot hold it

They compose: processes are numbered shots-major, then guidance, then Ulysses, so that those who talk most are
neighbours. All processes of a group hold the same latents after every step. Equal to one process bit for bit, but for
Ulysses, which multiplies other shapes (tests/generation/test_partition.py states how close).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeVar, cast

import torch
from torch import Tensor, distributed
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh

from cinetune.errors import ConfigError
from cinetune.models.family import Conditioning, VideoModel
from cinetune.models.memory.share import Share
from cinetune.models.memory.spread import check_shares, shard_base, share_tokens
from cinetune.processes import Processes
from cinetune.sections import ShootSection

__all__ = ["Partition", "partition", "partition_for"]

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Partition(Processes):
    """How the processes of a run share its shots. `grid` has the dimensions `shots`, `guidance`, `ring` (always 1),
    `ulysses`.
    """

    guidance: int = 1
    ulysses: int = 1
    shard: bool = False
    grid: DeviceMesh | None = None

    @property
    def group_size(self) -> int:
        """Processes that make one shot together."""
        return self.guidance * self.ulysses

    @property
    def groups(self) -> int:
        return self.size // self.group_size

    @property
    def share(self) -> Share | None:
        """The part of the base that this process reads; None = all of it."""
        return Share(rank=self.rank, size=self.size) if self.shard else None

    def describe(self) -> str:
        """`8 processes: 2 shots at a time, guidance over 2, ulysses 2`; empty when alone."""
        if self.size == 1:
            return ""
        parts = [f"{self.groups} shots at a time"] if self.groups > 1 else []
        parts += ["guidance over 2"] if self.guidance > 1 else []
        parts += [f"ulysses {self.ulysses}"] if self.ulysses > 1 else []
        parts += ["base in shards"] if self.shard else []
        return f"{self.size} processes: {', '.join(parts)}"

    def mine(self, tasks: Sequence[T]) -> Sequence[T]:
        """The shots of this process's group: dealt out in turn, each to exactly one group."""
        return tasks[self.rank // self.group_size :: self.groups]

    def keeps(self) -> bool:
        """Whether this process writes what its group has made."""
        return self.rank % self.group_size == 0

    def spread(self, model: VideoModel, shapes: Sequence[Sequence[int]]) -> VideoModel:
        """The model as this process runs it: adapters first, then this. `shapes` are the latents `(.., f, h, w)` it
        will see. Raises `ConfigError` when heads or tokens do not divide.
        """
        if self.grid is None:
            return model
        denoiser: Any = model.denoiser
        if self.ulysses > 1:
            check_shares(model, self.ulysses, shapes)
            share_tokens(denoiser, self.grid, ulysses=self.ulysses, rank=self.rank, size=self.size)
        if self.shard:
            shard_base(denoiser, init_device_mesh(self.grid.device_type, (self.size,), mesh_dim_names=("shard",)))
        return cast("VideoModel", _Halved(model, self.grid)) if self.guidance > 1 else model


def partition(
    processes: Processes, *, guidance: int = 1, ulysses: int = 1, shard: bool = False, kind: str = "cpu"
) -> Partition:
    """Lay out the processes of a run over a grid of `kind` devices; those that are left make other shots. Every process
    must call it.

    `shard` keeps one copy of the base among all of them: every pass needs every process, so all must make equally many
    passes, and shots are not shared out. Raises `ConfigError` when the numbers do not divide.
    """
    if guidance not in (1, 2):
        raise ConfigError(f"guidance over {guidance} processes: it has two passes", remedy="use 1 or 2")
    group = guidance * ulysses
    if processes.size % group:
        what = f"{processes.size} processes cannot make shots in groups of {guidance} x {ulysses}"
        raise ConfigError(what, remedy=f"start a multiple of {group}")
    if shard and processes.size != group:
        what = f"a base in shards over {processes.size} processes makes one shot at a time, but a group is {group}"
        raise ConfigError(what, remedy="let guidance x ulysses be the number of processes, or do not shard")
    if processes.size == 1:
        return Partition()
    shape = (processes.size // group, guidance, 1, ulysses)
    grid = init_device_mesh(kind, shape, mesh_dim_names=("shots", "guidance", "ring", "ulysses"))
    return Partition(
        rank=processes.rank, size=processes.size, guidance=guidance, ulysses=ulysses, shard=shard, grid=grid
    )


def partition_for(processes: Processes, section: ShootSection, kind: str) -> Partition:
    """The partition that `[shoot]` asks for. Raises `ConfigError` when the numbers do not divide, or an executor is
    asked for besides.
    """
    if section.executor != "local" or section.workers > 1:
        what = f"{processes.size} processes of torchrun, and shoot.executor = {section.executor!r} with its own workers"
        raise ConfigError(what, remedy='start without torchrun, or set shoot.executor = "local" and shoot.workers = 0')
    return partition(
        processes,
        guidance=2 if section.split_guidance else 1,
        ulysses=section.ulysses,
        shard=section.shard,
        kind=kind,
    )


class _Halved:
    """A model whose two passes of guidance are made by two processes."""

    def __init__(self, model: VideoModel, grid: DeviceMesh) -> None:
        self._model = model
        self._group = grid.get_group("guidance")
        self._half = grid.get_local_rank("guidance")

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)

    def velocities(
        self, x_BCfhw: Tensor, sigma_B: Tensor, cond: Conditioning, negative: Conditioning
    ) -> tuple[Tensor, Tensor]:
        """The velocities with the prompt and with the negative text, each computed once in the group."""
        mine = self._model.velocity(x_BCfhw, sigma_B, negative if self._half else cond).contiguous()
        both = [torch.empty_like(mine) for _ in range(2)]
        distributed.all_gather(both, mine, group=self._group)
        return both[0], both[1]
