"""A long shot takes no more memory than a short one."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = """
import json, resource, sys, threading, time
from pathlib import Path
import numpy as np, torch
sys.path.insert(0, sys.argv[1])
torch.set_num_threads(1)
from support import tiny_wan
from cinetune.files import stream_master
from cinetune.generation import Opening, Recipe, Rules, plan_segments, shoot
frames, height, width, steps = (int(word) for word in sys.argv[3:7])
model = tiny_wan()
picture = torch.rand(height, width, 3, generator=torch.Generator().manual_seed(0))
recipe = Recipe(prompt="a barn", negative="", frames=9, steps=steps, guidance=1.0, shift=3.0)
peak, done = [0], threading.Event()
def watch():
    while not done.wait(0.01):
        now = int(open("/proc/self/statm").read().split()[1]) * resource.getpagesize()
        peak[0] = max(peak[0], now)
segments = plan_segments(frames, 9, shot_seed=1, seed_index=0)
for take in shoot(model, Opening(condition_HWC=picture), recipe, segments[:1], Rules()):
    pass  # warm: workspaces and caches exist
threading.Thread(target=watch, daemon=True).start()
parts = (take.frames_THWC for take in shoot(model, Opening(condition_HWC=picture), recipe, segments, Rules(anchor=0.5)))
stream_master(Path(sys.argv[2]), parts, (frames, height, width, 3))
done.set()
print(json.dumps(peak[0]))
"""


def peak(tmp_path: Path, frames: int, *, height: int, width: int) -> int:
    words = [str(Path(__file__).parents[1]), str(tmp_path / "master"), str(frames), str(height), str(width), "1"]
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", SCRIPT, *words], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_memory_is_flat_from_two_seconds_to_sixty(tmp_path: Path) -> None:
    short, long = (peak(tmp_path, frames, height=64, width=96) for frames in (33, 961))
    film = 961 * 64 * 96 * 3 * 2
    assert (tmp_path / "master").stat().st_size > film
    assert long < 1.05 * short
    assert long - short < film / 4  # 5 % of a process is more than a small film: hold it to the film, too
