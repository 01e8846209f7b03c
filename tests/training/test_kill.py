"""`cinetune train` killed with SIGKILL at twenty random points ends with the bytes of a run that was left alone."""

from __future__ import annotations

import os
import random
import shutil
import signal
import time
import warnings
from dataclasses import replace
from pathlib import Path

import pytest

from cinetune.artifacts import Look
from cinetune.cli import main
from cinetune.durable import PARTIAL
from cinetune.runtime import Quiet
from cinetune.stages import cache
from cinetune.store import Project
from small_project import make_project, provenance_of

KILLS = 20
SETTINGS = (
    "train.steps=60",
    "train.batch=2",
    "train.accumulate=1",
    "train.rank=2",
    "train.lr=0.01",
    "train.validate_every=15",
    "train.validation_steps=1",
    "train.validation_shots=1",
    "train.patience=99",
    "train.checkpoint_every=1",
    "train.augment.probability=0.5",
    "train.augment.variants=1",
    "train.augment.single_frame=0.2",
)
COMMAND = [word for setting in SETTINGS for word in ("--set", setting)]


def cached(root: Path) -> Path:
    """A project of three cached windows, one of them held out."""
    make_project(root, film=3)
    (root / "work" / "stages" / "train.json").unlink()
    project = Project(root, overrides=SETTINGS)
    windows = project.store.need_stage("prepare").groups["windows"]
    windows = [*windows[:2], replace(windows[2], split="held")]
    project.store.save_stage("prepare", "test", {"windows": windows}, made=provenance_of())
    cache.run(project, Quiet())
    return root


def start(root: Path) -> int:
    """The verb in a process of its own. It is forked, so that its imports are not paid twenty times."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.12 warns of any fork beside threads
        child = os.fork()
    if child == 0:
        try:
            with Path(os.devnull).open("w") as nowhere:
                os.dup2(nowhere.fileno(), 1)
                os._exit(main(["train", "-C", str(root), *COMMAND]))
        finally:
            os._exit(1)
    return child


def lines(folder: Path) -> int:
    path = folder / "log.jsonl"
    return path.read_bytes().count(b"\n") if path.is_file() else 0


def torn_files(folder: Path) -> set[str]:
    """Checkpoints that were being written."""
    return {path.parent.name for path in folder.glob(f"{PARTIAL}*/file.safetensors")}


def kill_somewhere(root: Path, chance: random.Random) -> bool:
    """Kill one run at a random point; every second time in the middle of writing a checkpoint. Whether it was that."""
    folder = root / "work" / "train" / "look"
    before = torn_files(folder)
    child = start(root)
    target = lines(folder) + chance.randint(0, 2)
    writing = chance.random() < 0.5
    while lines(folder) < target:
        assert os.waitpid(child, os.WNOHANG)[0] == 0, "the run ended before it could be killed"
    if writing:
        while not torn_files(folder) - before:
            assert os.waitpid(child, os.WNOHANG)[0] == 0, "the run ended before it could be killed"
    else:
        time.sleep(chance.random() * 0.2)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return bool(torn_files(folder) - before)


def look_of(root: Path) -> Look:
    return Project(root, overrides=SETTINGS).store.need_stage("train").groups["looks"][0]


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_twenty_kills_change_no_byte(tmp_path: Path) -> None:
    whole = cached(tmp_path / "whole")
    broken = Path(shutil.copytree(whole, tmp_path / "broken"))
    assert os.waitpid(start(whole), 0)[1] == 0
    chance = random.Random(20)
    torn = [kill_somewhere(broken, chance) for _ in range(KILLS)]
    assert any(torn), "no kill hit a checkpoint being written"
    before = lines(broken / "work" / "train" / "look")
    assert before < lines(whole / "work" / "train" / "look"), "the killed run had nothing left to do"
    assert os.waitpid(start(broken), 0)[1] == 0
    for name in ("log.jsonl", "checkpoint.safetensors"):
        one, other = (root / "work" / "train" / "look" / name for root in (whole, broken))
        assert one.read_bytes() == other.read_bytes(), name
    assert look_of(broken).weights == look_of(whole).weights and look_of(broken).log == look_of(whole).log
    assert look_of(broken).forced == ()
