"""Workers are forked from a process that has imported everything, see the environment of now, end with their parent."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from cinetune.nursery import worker_context

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="workers are forked on Linux only")


def test_a_worker_with_a_card_starts_afresh() -> None:
    assert worker_context("0").get_start_method() == "spawn"


SCRIPT = """
import os, sys
from pathlib import Path
from cinetune.nursery import open_nursery, worker_context

def work(folder):
    there = "torch" in sys.modules and "cinetune.training.loop" in sys.modules
    Path(folder, "worker").write_text(f"{os.getpid()} {there}")
    from cinetune.generation.crew import _die_with_parent
    _die_with_parent()

if __name__ == "__main__":
    assert open_nursery()
    process = worker_context(None).Process(target=work, args=(sys.argv[1],), daemon=True)
    process.start()
    process.join()
"""


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_worker_has_everything_imported_and_ends_with_its_parent_however_that_ends(tmp_path: Path) -> None:
    (tmp_path / "main.py").write_text(SCRIPT)
    parent = subprocess.Popen([sys.executable, str(tmp_path / "main.py"), str(tmp_path)])
    said = tmp_path / "worker"
    while not said.is_file() or not said.read_text():
        assert parent.poll() is None
        time.sleep(0.1)
    pid, imported = said.read_text().split()
    assert imported == "True"
    os.kill(parent.pid, signal.SIGKILL)
    parent.wait()
    for _ in range(300):
        if not Path(f"/proc/{pid}").is_dir():
            return
        time.sleep(0.1)
    pytest.fail("the worker outlived its parent")


def _open_telling(folder: str) -> Any:
    return lambda task: Path(folder, str(task)).write_text(os.environ.get("CINETUNE_TEST", ""))


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_worker_sees_the_environment_of_now(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from cinetune.generation import Work, run_tasks

    for value in ("one", "two"):
        monkeypatch.setenv("CINETUNE_TEST", value)
        run_tasks(Work(tasks=[1, 2], open_maker=partial(_open_telling, str(tmp_path)), done=lambda *_: None), workers=2)
        assert {(tmp_path / name).read_text() for name in ("1", "2")} == {value}
