"""Who makes the pieces of a stage: this process, worker processes on this machine, a Ray cluster, or Slurm jobs.

Pieces are independent. Whoever makes one claims it in the store first (a lock that dies with its process) and keeps it
there as one file, so a piece is never lost, doubled or half whatever is killed, and it does not matter who makes which:
all ways give the same bytes. Each worker loads the model once and works on one card of its own.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Generic, Literal, TypeVar

import torch

from cinetune.errors import CinetuneError, ConfigError, FootageError, ModelError, out_of_memory

__all__ = ["ATTEMPTS", "FAULTS", "Executor", "Work", "called", "cards", "lost_device", "one_thread", "run_tasks"]

T = TypeVar("T")
Maker = Callable[[Any], Any]
Executor = Literal["local", "ray", "slurm"]
ATTEMPTS = 2
"""How often a piece is tried when its worker is lost: a piece that kills its worker twice would do it again."""
FAULTS = (
    CinetuneError, ArithmeticError, AssertionError, AttributeError, ImportError, LookupError, MemoryError, OSError,
    RuntimeError, TypeError, ValueError,
)  # fmt: skip
"""What making a piece can end in and be told of; anything else ends its worker."""
_ENOUGH = 3
"""Failures without one success after which the rest is not tried."""


def called(task: Any) -> str:
    """A task as a person knows it."""
    return str(getattr(task, "label", task))


def _first_line(error: BaseException) -> str:
    """What went wrong, in one line; an error may have nothing to say but its name."""
    said = error.what if isinstance(error, CinetuneError) else "memory ran out" if out_of_memory(error) else str(error)
    return said.partition("\n")[0][:200] or type(error).__name__


@dataclass(slots=True, kw_only=True)
class Work(Generic[T]):
    """What is to be made, and how it went so far.

    `open_maker` is called once in each worker and gives the function that makes a piece; both it and the tasks must
    pickle. `done` is called here with each finished task and what its maker returned; `say` is told what goes wrong.
    """

    tasks: Sequence[T]
    open_maker: Callable[[], Maker]
    done: Callable[[T, Any], None]
    say: Callable[[str], None] = lambda _: None
    made: int = 0
    failed: dict[int, BaseException] = field(default_factory=dict)
    attempts: dict[int, int] = field(default_factory=dict)

    def finished(self, number: int, result: Any) -> None:
        self.made += 1
        self.done(self.tasks[number], result)

    def failing(self, number: int, error: BaseException) -> None:
        """A piece cannot be made. The others go on, unless all would end like it: then it is raised."""
        own = isinstance(error, (ModelError, FootageError, ConfigError)) or out_of_memory(error)
        self.failed[number] = error
        if not own or (not self.made and len(self.failed) >= _ENOUGH):
            raise error
        if len(self.tasks) > 1:
            self.say(f"{called(self.tasks[number])} failed: {_first_line(error)}; the rest goes on")

    def lost(self, number: int, why: str) -> bool:
        """A worker is gone with a piece. Whether the piece is to be tried again, which is said."""
        self.attempts[number] = self.attempts.get(number, 0) + 1
        if self.attempts[number] < ATTEMPTS:
            self.say(f"{called(self.tasks[number])}: {why}; once more with another worker")
            return True
        remedy = "often too little memory: lower shoot.workers and run again; what is finished is kept"
        self.failing(number, ModelError(f"{called(self.tasks[number])}: {why}, twice", remedy=remedy))
        return False

    def conclude(self) -> None:
        """Raise what failed; nothing did: return."""
        if not self.failed:
            return
        first = self.failed[min(self.failed)]
        if len(self.failed) == 1:
            raise first
        lines = [f"{called(self.tasks[n])}: {_first_line(e)}" for n, e in sorted(self.failed.items())]
        more = [f"and {len(lines) - 10} more"] if len(lines) > 10 else []
        places = dict.fromkeys(e.where for _, e in sorted(self.failed.items()) if isinstance(e, CinetuneError))
        raise ModelError(
            "\n    ".join([f"{len(lines)} of {len(self.tasks)} cannot be made", *lines[:10], *more]),
            where=", ".join(place for place in places if place),
            remedy=first.remedy if isinstance(first, CinetuneError) else "mend them and run again",
        ) from first


def run_tasks(
    work: Work[T], *, workers: int, executor: Executor = "local", options: Mapping[str, Any] | None = None
) -> None:
    """Make every task of `work`. `workers` 0 is one for each card, 1 without one; `options` are the executor's own.

    What cannot be made does not stop the rest: at the end the one error is raised, or one that lists all. What was
    finished stays in the store. An interruption ends the workers at once. Raises `ConfigError` for an executor whose
    package is not there.
    """
    if not work.tasks:
        return
    match executor:
        case "ray":
            from cinetune.generation.on_ray import run_on_ray

            run_on_ray(work, workers=workers, options=options or {})
        case "slurm":
            from cinetune.generation.on_slurm import run_on_slurm

            run_on_slurm(work, workers=workers, options=options or {})
        case "local":
            _run_here(work, workers)
    work.conclude()


def _run_here(work: Work[T], workers: int) -> None:
    from cinetune.generation.crew import run_crew

    found = cards()
    count = min(workers or max(len(found), 1), len(work.tasks))
    if found and count > len(found):
        work.say(f"{len(found)} workers, not {count}: one for each card")
        count = len(found)
    if count > 1:
        run_crew(work, [found[seat] if found else None for seat in range(count)])
        return
    with one_thread():
        maker = work.open_maker()
        for number, task in enumerate(work.tasks):
            try:
                result = maker(task)
            except FAULTS as error:
                if lost_device(error):  # no further call of this process would go through
                    what = f"{called(task)}: its card is gone ({_first_line(error)})"
                    raise ModelError(what, remedy="run again: what is finished is kept") from error
                work.failing(number, error)
            else:
                work.finished(number, result)


def cards() -> list[str]:
    """The CUDA devices that this process may use, by the names that CUDA_VISIBLE_DEVICES takes."""
    said = os.environ.get("CUDA_VISIBLE_DEVICES")
    count = torch.cuda.device_count()
    names = [name.strip() for name in said.split(",") if name.strip()] if said is not None else map(str, range(count))
    return list(names)[:count]


def lost_device(error: BaseException) -> bool:
    """Whether a card is gone: every further call of this process would fail as well."""
    return isinstance(error, RuntimeError) and not out_of_memory(error) and "CUDA error" in str(error)


@contextmanager
def one_thread() -> Iterator[None]:
    """One thread per process on the CPU: sums do not depend on how many there are, so neither do the pictures."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
