"""The processes of one run. `torchrun` (or anything else that sets RANK, WORLD_SIZE, MASTER_ADDR and MASTER_PORT)
starts the same command several times; `join_group` brings them together. One of them leads: only it locks the project,
writes records and speaks to a person.

Torch is imported inside the functions that need it, so that the command line starts without it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar

from cinetune.errors import CinetuneError, ClusterError, ConfigError
from cinetune.outside import count_of

if TYPE_CHECKING:
    from cinetune.sections import ModelSection, ParallelSection

__all__ = ["Processes", "join_group", "launched", "leave_group"]

T = TypeVar("T")

_TORN = ("connection closed", "connection reset", "connection refused", "timed out", "broken pipe", "nccl")
"""What the network layers say, in any case, when another process died or stopped answering."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Processes:
    """This process among the `size` of its run: `rank` counts from 0, and 0 leads. Alone by default."""

    rank: int = 0
    size: int = 1

    @property
    def main(self) -> bool:
        return self.rank == 0

    def gather(self, value: T) -> list[T]:
        """The values of all processes, in rank order, on every one. They must pickle."""
        if self.size == 1:
            return [value]
        from torch import distributed

        values: list[Any] = [None] * self.size
        distributed.all_gather_object(values, value)
        return values

    def lead(self, make: Callable[[], T]) -> T:
        """Only the leading process calls `make`; every one gets its result, or raises the `CinetuneError` it raised."""
        if self.size == 1:
            return make()
        from torch import distributed

        found: list[Any] = [None, None]
        if self.main:
            try:
                found[0] = make()
            except CinetuneError as error:
                found[1] = error
        distributed.broadcast_object_list(found, src=0)
        if found[1] is not None:
            raise found[1]
        return found[0]

    def same(self, value: T) -> T:
        """The leading process's value. Decisions that all must take alike go through it."""
        return self.lead(lambda: value)

    def together(self, make: Callable[[], T]) -> T:
        """Every process calls `make`, and waits for the others; a `CinetuneError` of one is raised by all of them."""
        found, failed = None, None
        try:
            found = make()
        except CinetuneError as error:
            failed = error
        for error in self.gather(failed):
            if error is not None:
                raise error
        return found  # pyright: ignore[reportReturnType]

    @contextmanager
    def watching(self) -> Iterator[None]:
        """What the network says inside the block, when another process is gone, becomes a `ClusterError`."""
        try:
            yield
        except RuntimeError as error:
            if self.size == 1 or not any(word in str(error).lower() for word in _TORN):
                raise
            raise ClusterError(
                f"process {self.rank} of {self.size} lost the others",
                where=str(error).splitlines()[0][:200],
                remedy="see the first message of the process that died; the same command continues the run",
            ) from error


def launched() -> Processes:
    """What the launcher says in the environment; alone where there is none. Imports nothing, joins nothing.

    Raises `ClusterError` for numbers that are none.
    """
    if not {"RANK", "WORLD_SIZE", "MASTER_ADDR"} <= os.environ.keys():
        return Processes()
    rank, size = count_of("RANK", 0, refuse=ClusterError), count_of("WORLD_SIZE", 1, refuse=ClusterError)
    if rank >= size:
        raise ClusterError(f"RANK is {rank} and WORLD_SIZE {size}", remedy="start with torchrun, or unset both")
    return Processes(rank=rank, size=size)


def join_group(model: ModelSection, section: ParallelSection) -> Processes:
    """Join the other processes of the run, once: a second call only says who this is. Each takes the GPU of its local
    rank.

    Raises `ClusterError` when they cannot meet (the port is taken, or one does not come within
    `parallel.timeout_minutes`), `ConfigError` when this machine has fewer GPUs than processes.
    """
    here = launched()
    if here.size == 1:
        return here
    import torch
    from torch import distributed

    if distributed.is_initialized():
        return here
    cuda = model.device.partition(":")[0] in ("auto", "cuda") and torch.cuda.is_available()
    if cuda:
        local, count = count_of("LOCAL_RANK", 0, refuse=ClusterError), torch.cuda.device_count()
        if ":" in model.device:
            raise ConfigError(f"model.device is {model.device!r} in every process", remedy='set it to "auto"')
        if local >= count:
            raise ConfigError(
                f"process {local} of this machine has no GPU: torch sees {count}",
                where="torchrun --nproc-per-node",
                remedy=f"start at most {count} on each machine",
            )
        torch.cuda.set_device(local)
    backend = section.backend if section.backend != "auto" else "cpu:gloo,cuda:nccl" if cuda else "gloo"
    address = f"{os.environ['MASTER_ADDR']}:{os.environ.get('MASTER_PORT', '?')}"
    try:
        distributed.init_process_group(backend, timeout=timedelta(minutes=section.timeout_minutes))
    except (RuntimeError, ValueError) as error:  # torch has no common class for what can go wrong here
        raise ClusterError(
            f"the {here.size} processes of this run cannot meet: {str(error).splitlines()[0][:200]}",
            where=address,
            remedy="another program may hold the port: use torchrun --standalone on one machine, or another port in "
            "--rdzv-endpoint; on several, see that the first one can be reached",
        ) from error
    return here


def leave_group() -> None:
    """Leave in good order at the end of a run."""
    if launched().size > 1:
        from torch import distributed

        if distributed.is_initialized():
            distributed.destroy_process_group()
