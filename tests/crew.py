"""Several processes of one run inside a test: forks of the test itself, so that nothing is imported or loaded twice."""

from __future__ import annotations

import os
import signal
import socket
import time
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path

import torch

__all__ = ["crew", "free_port"]


def free_port() -> int:
    """A TCP port that nobody listens on right now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def crew(size: int, job: Callable[[], None], folder: Path, *, machines: int = 1, seconds: float = 90) -> None:
    """Run `job` in `size` processes that `cinetune.processes.join_group` can join. Fails with what the first one said
    that failed, and after `seconds` with whatever hangs.
    """
    folder.mkdir(parents=True, exist_ok=True)
    places = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), "WORLD_SIZE": str(size)}
    places["LOCAL_WORLD_SIZE"] = str(size // machines)
    children: dict[int, int] = {}
    for rank in range(size):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.12 warns of any fork beside threads
            child = os.fork()
        if child:
            children[child] = rank
            continue
        code = 1
        try:
            torch.set_num_threads(1)  # a fork has none of the OpenMP threads that a test before it may have used
            os.environ.update(places, RANK=str(rank), LOCAL_RANK=str(rank % (size // machines)))
            job()
            code = 0
        except BaseException:
            (folder / f"failed-{rank}.txt").write_text(traceback.format_exc(), encoding="utf-8")
        finally:
            os._exit(code)
    end = time.monotonic() + seconds
    failed: list[int] = []
    try:
        while children and not failed:
            done, status = os.waitpid(-1, os.WNOHANG)
            if done in children:
                rank = children.pop(done)
                failed += [rank] if status else []
            assert time.monotonic() < end, f"processes {sorted(children.values())} hang"
            time.sleep(0.01)
    finally:
        for child in children:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
    said = [path.read_text(encoding="utf-8") for path in sorted(folder.glob("failed-*.txt"))]
    assert not failed, "\n".join(said) or f"processes {failed} died"
