"""The very command of a rented card, on a CPU at small sizes: in time, resumable, whole at its end."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from cinetune.models.wan import pocket
from cinetune.models.wan.wan21 import WanVideo

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tools"))
from pocket_training import autoencoder, film_set
from pocket_training.common import Muon, Pace, Run, cosine


def test_a_part_ends_by_its_steps_or_by_its_time_whichever_is_first() -> None:
    assert [Pace(4).share(step) for step in (0, 1, 2, 4, 9)] == [0, 0.25, 0.5, 1, 1]
    assert Pace(10**9, seconds=0.0).share(1) == 1
    assert Pace(10**9, seconds=1e9).share(5) < 1e-6
    assert 0.4 <= Pace(10**9, seconds=1e9, begun=0.4).share(5) < 0.41


def test_the_learning_rate_rises_then_falls_to_its_floor() -> None:
    assert cosine(0.0, 0, warmup=10) == pytest.approx(0.1)
    assert cosine(0.0, 9, warmup=10) == pytest.approx(1.0)
    assert cosine(0.5, 99, warmup=10) == pytest.approx(0.505)
    assert cosine(1.0, 99, warmup=10) == pytest.approx(0.01)


def test_muon_in_float32_takes_the_steps_of_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    """Against `torch.optim.Muon`, whose iteration rounds to bfloat16: each update turns the gradient the same way."""
    monkeypatch.setattr("pocket_training.common.fast_bfloat16", lambda _device: False)
    generator = torch.Generator().manual_seed(0)
    shapes = ((8, 8), (24, 8), (8, 24), (8, 8))
    weights = [torch.randn(shape, generator=generator) for shape in shapes]
    ours, theirs = ([nn.Parameter(w.clone()) for w in weights] for _ in range(2))
    pairs = [
        (kind(group, 1e-2, weight_decay=1e-4, adjust_lr_fn="match_rms_adamw"), group)
        for kind, group in ((Muon, ours), (torch.optim.Muon, theirs))
    ]
    for _ in range(3):
        gradients = [torch.randn(shape, generator=generator) for shape in shapes]
        for optimiser, group in pairs:
            for p, gradient in zip(group, gradients, strict=True):
                p.grad = gradient.clone()
            optimiser.step()
    for before, mine, other in zip(weights, ours, theirs, strict=True):
        moved = (other - before).norm()
        assert moved > 0 and (mine - other).norm() < 0.03 * moved
    assert pairs[0][0].state_dict()["state"].keys() == pairs[1][0].state_dict()["state"].keys()


def test_lost_detail_is_what_a_soft_clip_lacks_and_what_a_flickering_one_has_too_much() -> None:
    """Against closed forms: a ramp of a known slope against its mean, and a still that a known step moves."""
    slope, step = 0.02, 0.05
    ramp = (slope * torch.arange(24.0)).expand(1, 3, 5, 16, 24)
    flat = torch.zeros_like(ramp)
    assert autoencoder.lost_detail(ramp, ramp) == 0
    floor = 1e-5
    expected = (slope**2 + floor) ** 0.5 - floor**0.5
    assert autoencoder.lost_detail(ramp, flat).item() == pytest.approx(expected, rel=1e-4)
    flicker = ramp + step * (torch.arange(5) % 2).view(1, 1, 5, 1, 1)
    assert autoencoder.lost_detail(ramp, flicker).item() == pytest.approx(step, rel=1e-4)
    stills = torch.rand(2, 3, 1, 16, 24), torch.rand(2, 3, 1, 16, 24)
    assert autoencoder.lost_detail(*stills) > 0, "a single frame has no motion, but it has edges"


def test_an_encoder_that_is_kept_stays_bit_for_bit_with_its_statistics(tmp_path: Path) -> None:
    clips = tmp_path / "clips"
    clips.mkdir()
    for name, count in (("held", 4), ("train-0000", film_set.BLOCK)):
        pictures = np.random.default_rng(count).integers(0, 255, (count, 33, 64, 96, 3), np.uint8)
        np.save(clips / f"{name}.npy", pictures)
        (clips / f"{name}.json").write_text(json.dumps([""] * count))
    start = pocket.weights_folder()
    run = Run(
        work=tmp_path, out=tmp_path, images=tmp_path, seed=0, clips=film_set.BLOCK, held=4, reader_clips=0,
        reader_steps=0, vae_steps=1, clip_steps=0, denoiser_steps=0, ranks=1, device="cpu", start=start,
        keep_encoder=True, vae_batch=1,
    )  # fmt: skip
    threads = torch.get_num_threads()
    autoencoder.train(run)  # in this process, and with a thread for each core
    torch.set_num_threads(threads)
    trained = autoencoder.finish(run)
    before = load_file(start / "vae" / "diffusion_pytorch_model.safetensors")
    moved = {name for name, value in trained.state_dict().items() if not torch.equal(value, before[name])}
    assert moved and all(name.startswith(("decoder.", "post_quant_conv.")) for name in moved)
    config = json.loads((start / "vae" / "config.json").read_text())
    assert all(trained.config[name] == config[name] for name in ("latents_mean", "latents_std"))


def command(work: Path, out: Path, *more: str) -> list[str]:
    return [
        sys.executable, str(ROOT / "tools" / "train_pocket.py"), "--device", "cpu", "--minutes", "0.7",
        "--card-seconds", "10", "--compiler", "aot_eager", "--batch", "2", "--vae-batch", "1", "--clips", "80",
        "--held", "6", "--reader-clips", "40", "--reader-steps", "20", "--clip-steps", "0",
        "--start", str(pocket.weights_folder()), "--work", str(work), "--out", str(out), *more,
    ]  # fmt: skip


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_the_command_of_a_rented_card_trains_resumes_and_writes_a_model_with_its_card(tmp_path: Path) -> None:
    work, out = tmp_path / "work", tmp_path / "out"
    run = partial(
        subprocess.run, env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True, check=False
    )
    stopped = run(command(work, out, "--until", "vae"))
    assert stopped.returncode == 0, stopped.stderr[-3000:]
    assert not out.exists() and (work / "vae.ckpt").is_file()
    done = run(command(work, out))
    assert done.returncode == 0, done.stderr[-3000:]
    assert "recompile_limit" not in done.stderr
    model = WanVideo.from_folder(out, family="pocket")
    assert model.info.name == "pocket"
    before = load_file(pocket.weights_folder() / "transformer" / "diffusion_pytorch_model.safetensors")
    after = load_file(out / "transformer" / "diffusion_pytorch_model.safetensors")
    assert before.keys() == after.keys() and any((before[name] != after[name]).any() for name in before)
    assert (out / "latest" / "transformer").is_dir() and (out / "images" / "pocket.jpg").is_file()
    numbers = json.loads((out / "numbers.json").read_text())
    assert 10 < numbers["generated clip against the true one, PSNR, dB"] < 40
    card = (out / "README.md").read_text()
    assert "does not hold" in card or "holds" in card
    assert "--work work" in card and str(tmp_path) not in card
    assert all(path.stat().st_size < 16 * 2**20 for path in out.rglob("*") if path.is_file())
