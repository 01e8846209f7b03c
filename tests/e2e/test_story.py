"""The whole story on real files through the command line, and again after a kill -9 in the middle."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from e2e.mini import make_mini

STAGES = ("ingest", "prepare", "cache", "train", "keyframes", "expand", "deliver", "score", "report")


def cinetune(*arguments: str, cwd: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "cinetune", *arguments]
    # one group, so that a kill reaches worker processes too, as a power cut would
    return subprocess.Popen(
        command, cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    )


def finish(*arguments: str, cwd: Path) -> str:
    process = cinetune(*arguments, cwd=cwd)
    output, _ = process.communicate(timeout=600)
    assert process.returncode == 0, output
    return output


def outputs(root: Path) -> dict[str, str]:
    return {name: json.loads((root / f"work/stages/{name}.json").read_text())["output_sha"] for name in STAGES}


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_run_killed_in_cache_train_and_expand_ends_like_an_unbroken_one(tmp_path: Path):
    whole, broken = make_mini(tmp_path / "whole"), make_mini(tmp_path / "broken")
    finish("run", cwd=whole)
    assert "nothing to do" in finish("run", cwd=whole).lower()

    def killed_when(*globs: str) -> None:
        process = cinetune("run", cwd=broken)
        deadline = time.monotonic() + 300
        while not any(list((broken / "work").glob(pattern)) for pattern in globs):
            assert process.poll() is None, f"it ended before the kill: {process.communicate()[0]}"
            assert time.monotonic() < deadline
            time.sleep(0.02)
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()

    killed_when("units/cache/*.json")
    assert not (broken / "work/stages/cache.json").exists()
    killed_when("train/look/*.safetensors", "train/look/**/*.json")
    assert not (broken / "work/stages/train.json").exists()
    killed_when("units/expand/*.json")
    assert not (broken / "work/stages/expand.json").exists()
    finish("run", cwd=broken)
    assert not list((broken / "work").rglob(".partial-*"))
    # deliveries carry a path with the project's own version numbers; everything before them is the same to the bit
    for name in STAGES[:-1]:
        assert outputs(broken)[name] == outputs(whole)[name], name
