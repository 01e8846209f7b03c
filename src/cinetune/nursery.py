"""The process that workers are forked from: it has imported what they need and does nothing else, so that seconds of
importing are paid once in a run and not once for each worker of each stage.

On Linux only, and not beside cards: what CUDA holds does not survive a fork. It ends with the process that started it,
and so does every worker.
"""

from __future__ import annotations

import multiprocessing
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import forkserver, resource_tracker
from typing import Any

__all__ = ["deaf_to_interrupts", "open_nursery", "worker_context"]

_IMPORTED = (
    "cinetune.training", "cinetune.generation", "cinetune.models.wan.wan21", "cinetune.models.adapters.lora",
    "cinetune.scoring.measure", "cinetune.metrics.suite", "cinetune.footage.video", "cinetune.pages.sheet",
)  # fmt: skip


def open_nursery() -> bool:
    """Have it import, beside whatever the caller does next; whether there is one."""
    if sys.platform != "linux":
        return False
    forkserver.set_forkserver_preload(list(_IMPORTED))
    with deaf_to_interrupts():
        try:
            forkserver.ensure_running()
        except ChildProcessError:  # this process is itself the fork of one that has a nursery
            return False
    return True


def worker_context(card: str | None) -> Any:
    """How a worker that gets this card, or none, is started: a context of `multiprocessing`."""
    return multiprocessing.get_context("forkserver" if card is None and open_nursery() else "spawn")


@contextmanager
def deaf_to_interrupts() -> Iterator[None]:
    """Ctrl-C goes to all processes of a terminal; one that is started inside the block never hears it. The parent hears
    it alone, and ends them.
    """
    resource_tracker.ensure_running()  # it clears the mask of whoever starts it
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
