"""Running tasks here or in worker processes: order, errors, and what a dying worker looks like."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest
import torch

from cinetune.errors import ModelError
from cinetune.generation import run_tasks


def _open(log: list[str], fail_at: int):
    log.append("open")

    def make(task: int) -> None:
        if task == fail_at:
            raise ModelError("bad task", remedy="none")
        log.append(f"make {task} with {torch.get_num_threads()} thread")

    return make


def _open_dying():
    return lambda task: os._exit(9)


def _open_waiting(folder: str):
    def make(task: int) -> None:
        Path(folder, f"{task}.pid").write_text(str(os.getpid()))
        time.sleep(600)

    return make


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_serial_opens_once_runs_in_order_and_gives_threads_back() -> None:
    log: list[str] = []
    done: list[int] = []
    torch.set_num_threads(2)
    run_tasks([3, 1, 2], partial(_open, log, -1), workers=1, done=done.append)
    assert done == [3, 1, 2] and torch.get_num_threads() == 2
    assert log == ["open", "make 3 with 1 thread", "make 1 with 1 thread", "make 2 with 1 thread"]
    torch.set_num_threads(1)


def test_nothing_to_do_opens_nothing() -> None:
    log: list[str] = []
    run_tasks([], partial(_open, log, -1), workers=4, done=lambda _: None)
    assert log == []


def test_the_first_error_stops_the_rest() -> None:
    log: list[str] = []
    done: list[int] = []
    with pytest.raises(ModelError, match="bad task"):
        run_tasks([1, 2, 3], partial(_open, log, 2), workers=1, done=done.append)
    assert done == [1]


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_an_error_in_a_worker_keeps_its_remedy_and_a_dead_worker_is_explained() -> None:
    with pytest.raises(ModelError, match="bad task\n  fix:   none") as caught:
        run_tasks([1, 2], partial(_open, [], 2), workers=2, done=lambda _: None)
    assert caught.value.remedy == "none"
    with pytest.raises(ModelError, match="worker processes died"):
        run_tasks([1, 2], _open_dying, workers=2, done=lambda _: None)


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.skipif(not Path("/proc").is_dir(), reason="needs /proc")
def test_workers_do_not_outlive_a_killed_parent(tmp_path: Path) -> None:
    script = (
        f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r})\n"
        "import functools, test_executors as t\n"
        "from cinetune.generation import run_tasks\n"
        "if __name__ == '__main__':\n"
        f"    maker = functools.partial(t._open_waiting, {str(tmp_path)!r})\n"
        "    run_tasks([0, 1], maker, workers=2, done=lambda _: None)\n"
    )
    (tmp_path / "main.py").write_text(script)
    parent = subprocess.Popen([sys.executable, str(tmp_path / "main.py")])
    while len(pids := [p for p in tmp_path.glob("*.pid") if p.read_text()]) < 2:
        assert parent.poll() is None
        time.sleep(0.2)
    parent.kill()
    parent.wait()
    workers = [int(path.read_text()) for path in pids]
    end = time.monotonic() + 60
    while any(_alive(pid) for pid in workers) and time.monotonic() < end:
        time.sleep(0.2)
    assert not any(_alive(pid) for pid in workers)
