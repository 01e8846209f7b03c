"""A long shot takes no more memory than a short one, also at 720p with the full-width autoencoder."""

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
if len(sys.argv) > 7:
    from dataclasses import replace
    from diffusers import AutoencoderKLWan, WanTransformer3DModel
    from cinetune.models.wan.conv import use_fast_conv3d
    model._info = replace(model._info, stride_space=8)
    model._transformer = WanTransformer3DModel.from_config(model.denoiser.config, rope_max_seq_len=1024).eval()
    model._vae = AutoencoderKLWan().eval().requires_grad_(False)  # Wan2.1's own: width 96, strides 4 and 8
    use_fast_conv3d(model._vae)
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


def peak(tmp_path: Path, frames: int, *more: str, height: int, width: int) -> int:
    words = [str(Path(__file__).parents[1]), str(tmp_path / "master"), str(frames), str(height), str(width), "1", *more]
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", SCRIPT, *words], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_memory_is_flat_from_two_seconds_to_sixty(tmp_path: Path) -> None:
    short, long = (peak(tmp_path, frames, height=64, width=96) for frames in (33, 961))
    assert (tmp_path / "master").stat().st_size > 961 * 64 * 96 * 3 * 2
    assert long < 1.05 * short


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_720p_goes_through_the_full_width_autoencoder(tmp_path: Path) -> None:
    """Nine frames of 1280x720 through Wan2.1's own autoencoder, encoded and decoded frame by frame."""
    used = peak(tmp_path, 9, "full", height=720, width=1280)
    assert (tmp_path / "master").stat().st_size > 9 * 720 * 1280 * 3 * 2
    assert used < 12 << 30
