"""The real command under the real launcher, on the pocket model: killed, continued, and held against one process."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from cinetune.store import Project
from small_project import make_project

SETTINGS = (
    "model.family=pocket", "model.path=", "train.steps=12", "train.batch=1", "train.accumulate=2", "train.lr=0.001",
    "train.rank=2", "train.validate_every=12", "train.validation_steps=1", "train.validation_shots=1",
    "train.checkpoint_every=1", "train.checkpointing=none",
)  # fmt: skip
LAUNCHER = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "cinetune")

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


def _command(root: Path, verb: str, *, many: bool, settings: tuple[str, ...] = SETTINGS) -> list[str]:
    words = [sys.executable, *(LAUNCHER if many else ("-m", "cinetune")), verb, "-C", str(root)]
    return words + [word for setting in settings for word in ("--set", setting)]


def _run(
    root: Path, verb: str, *, many: bool, settings: tuple[str, ...] = SETTINGS
) -> subprocess.CompletedProcess[str]:
    command = _command(root, verb, many=many, settings=settings)
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=600)


def _children(parent: int) -> list[int]:
    """Processes that one has started."""
    found: list[int] = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            after_name = path.read_text().rpartition(")")[2].split()
        except OSError:  # it ended meanwhile
            continue
        if int(after_name[1]) == parent:
            found.append(int(path.parent.name))
    return found


def _look(root: Path) -> tuple[str, str]:
    look = Project(root).store.need_stage("train").groups["looks"][0]
    return look.weights.sha256, look.log.sha256


def test_two_processes_killed_and_continued_make_the_look_of_one(tmp_path: Path) -> None:
    one = make_project(tmp_path / "one", film=3)
    (one / "work" / "stages" / "train.json").unlink()
    two = Path(shutil.copytree(one, tmp_path / "two"))
    for root, many in ((one, False), (two, True)):
        done = _run(root, "cache", many=many)
        assert done.returncode == 0, done.stderr
    first, second = (Project(root).store.need_stage("cache").output_sha for root in (one, two))
    assert first == second

    done = _run(one, "train", many=False)
    assert done.returncode == 0, done.stderr
    log = two / "work" / "train" / "look" / "log.jsonl"
    job = subprocess.Popen(_command(two, "train", many=True), stdout=subprocess.DEVNULL)
    while not (log.is_file() and log.read_text().count('"kind": "step"') >= 2):
        assert job.poll() is None, "it ended before it could be killed"
        time.sleep(0.01)
    whole = [job.pid, *_children(job.pid)]
    assert len(whole) >= 3  # the launcher and both processes, which are no group
    for process in whole:
        os.kill(process, signal.SIGKILL)
    job.wait()
    assert Project(two).store.load_stage("train") is None
    done = _run(two, "train", many=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("going on from step") == 1  # and only one process speaks
    assert _look(two) == _look(one)


def test_a_failure_ends_all_with_its_reason(tmp_path: Path) -> None:
    root = make_project(tmp_path / "p", film=2)
    (root / "work" / "stages" / "train.json").unlink()
    assert _run(root, "cache", many=False).returncode == 0
    started = time.monotonic()
    done = _run(root, "train", many=True, settings=(*SETTINGS, "train.accumulate=3"))
    assert done.returncode != 0 and time.monotonic() - started < 300
    assert "3 elements cannot be shared by 2 data ranks" in done.stderr
    assert "exitcode  : 2" in done.stderr  # the launcher says whose; its own code is always 1
    assert "This is a bug" not in done.stderr
