"""A minute takes no more memory than two seconds, and the autoencoder of the real model takes 720p."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers.models.autoencoders.autoencoder_kl_wan import AutoencoderKLWan

from cinetune.backlot.scenes import render, sample_scene
from cinetune.generation import Recipe, generate, pictures
from cinetune.models.wan.wan21 import WanVideo
from cinetune.runtime import Quiet
from cinetune.stages import keyframes
from cinetune.store import Project
from small_project import make_project
from support import save_tiny

SETTINGS = ("model.allow_other_sizes=true",)
EXPAND = """
import sys
from pathlib import Path
from cinetune.runtime import Quiet
from cinetune.stages import expand
from cinetune.store import Project
record = expand.run(Project(Path(sys.argv[1]), overrides=tuple(sys.argv[2:])), Quiet())
for line in Path("/proc/self/status").read_text().splitlines():
    if line.startswith("VmHWM"):
        print(line.split()[1], *(sequence.frames for sequence in record.groups["sequences"]))
"""
"""In a fresh interpreter, whose highest resident memory is that of the stage."""
SIZE = ("shoot.height=96", "shoot.width=144", "shoot.steps=1", "shoot.guidance=1.0")


def peak_kib(root: Path, seconds: float) -> tuple[int, list[int]]:
    text = (root / "shots.toml").read_text()
    (root / "shots.toml").write_text(text.replace("seconds = 2.0", f"seconds = {seconds}"))
    keyframes.run(Project(root, overrides=SIZE), Quiet())
    told = subprocess.run([sys.executable, "-c", EXPAND, str(root), *SIZE], check=True, capture_output=True, text=True)
    peak, *frames = map(int, told.stdout.split())
    return peak, frames


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs /proc")
def test_a_minute_takes_no_more_memory_than_two_seconds(tmp_path: Path) -> None:
    """A minute of these pictures is 80 MB as levels and 160 MB as floats: piled up, they would show."""
    template = make_project(tmp_path / "p", seconds=2.0)
    peaks = {}
    for seconds, frames in ((2.0, 33), (60.0, 961)):
        root = Path(shutil.copytree(template, tmp_path / f"{seconds}"))
        peaks[seconds], made = peak_kib(root, seconds)
        assert made == [frames, frames]
    assert peaks[60.0] < 1.05 * peaks[2.0]


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_720p_goes_through_the_autoencoder_at_its_full_width(tmp_path: Path) -> None:
    """The architecture of Wan2.1's own VAE with random weights, a small denoiser, one frame, in tiles. Whole, five
    frames of 720p take 18 GB and twelve minutes of a core.
    """
    save_tiny(tmp_path)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        AutoencoderKLWan().save_pretrained(tmp_path / "vae")
    model = WanVideo.from_folder(tmp_path, family="wan21", release="wan21-720p", tile=320)
    assert model.info.stride_space == 8
    first = torch.from_numpy(render(sample_scene(np.random.default_rng(1)), frames=1, height=720, width=1280)[0])
    recipe = Recipe(prompt="a rider", negative="", frames=1, steps=1, guidance=1.0, shift=5.0)
    latents = generate(model, first, recipe, seed=1)
    assert latents.shape == (1, 16, 1, 90, 160)
    (picture,) = pictures(model, latents)
    assert picture.shape == (720, 1280, 3) and bool(torch.isfinite(picture).all()) and float(picture.std()) > 0
    tracked = Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]
    assert int(tracked) < 6_000_000  # KiB; whole it would be 18 GB
