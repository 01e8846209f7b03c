"""Who makes the shots: this process, or several worker processes that each load the model once.

Tasks are independent and their results are kept in the store by whoever makes them, so any of them can be lost and made
again, and it does not matter who makes which: serial and parallel runs give the same bytes.
"""

from __future__ import annotations

import multiprocessing
import os
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent import futures
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import torch

from cinetune.artifacts import Arm
from cinetune.errors import ModelError
from cinetune.models import load_model
from cinetune.models.adapters.lora import load_lora, use_lora
from cinetune.models.family import VideoModel
from cinetune.runtime import choose_device
from cinetune.sections import ModelSection

__all__ = ["Cast", "die_with_parent", "run_tasks"]

T = TypeVar("T")
Maker = Callable[[Any], None]

# The maker of a worker process; a process pool has no other place to keep what its initialiser opened.
_worker: dict[str, Maker] = {}


class Cast:
    """The model with the adapters of all arms loaded; one of them, or none, is worn at a time."""

    def __init__(self, section: ModelSection, adapters: Mapping[Arm, Path]) -> None:
        self.device = choose_device(section.device, section.dtype)
        self.model: VideoModel = load_model(section, device=self.device)
        with warnings.catch_warnings():
            # PEFT doubts that a second adapter on one model is meant; it is, and only one is ever in use.
            warnings.filterwarnings("ignore", message="Already found a `peft_config`")
            for arm, path in adapters.items():
                load_lora(self.model, path, name=arm)
        self.wear("base")

    def wear(self, arm: Arm) -> VideoModel:
        """The model as `arm` uses it; `base` and `trigger` are the untouched model exactly."""
        use_lora(self.model, None if arm in ("base", "trigger") else arm)
        return self.model


def run_tasks(tasks: Sequence[T], open_maker: Callable[[], Maker], *, workers: int, done: Callable[[T], None]) -> None:
    """Make every task, in `workers` processes that each call `open_maker` once (1 = in this process, in order).

    `open_maker` and the tasks must pickle. `done` is called here as tasks end. The first error stops the rest and is
    raised; a worker that dies (usually for lack of memory) raises `ModelError`. What was finished stays in the store
    either way.
    """
    workers = min(workers, len(tasks))
    if workers <= 1:
        with _one_thread():
            maker = open_maker() if tasks else None
            for task in tasks:
                assert maker is not None
                maker(task)
                done(task)
        return
    context = multiprocessing.get_context("spawn")
    with futures.ProcessPoolExecutor(workers, mp_context=context, initializer=_start, initargs=(open_maker,)) as pool:
        waiting = {pool.submit(_make, task): task for task in tasks}
        try:
            for future in futures.as_completed(waiting):
                future.result()
                done(waiting[future])
        except BrokenProcessPool as error:
            raise ModelError(
                f"one of {workers} worker processes died",
                where="shoot.workers",
                remedy="often too little memory: lower shoot.workers and run again; what is finished is kept",
            ) from error
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _start(open_maker: Callable[[], Maker]) -> None:
    threading.Thread(target=die_with_parent, daemon=True).start()
    torch.set_num_threads(1)
    _worker["maker"] = open_maker()


def die_with_parent() -> None:
    """A worker whose parent was killed would wait for tasks for ever, with the model in memory."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _make(task: Any) -> None:
    _worker["maker"](task)


@contextmanager
def _one_thread() -> Iterator[None]:
    """One thread per process on the CPU: sums do not depend on how many there are, so neither do the pictures."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
