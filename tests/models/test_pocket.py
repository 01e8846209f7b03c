"""The shipped weights: they load in stock diffusers, fit the package, and can do what their card says."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKLWan, WanImageToVideoPipeline
from PIL import Image

from cinetune.backlot.scenes import caption, render, sample_scene
from cinetune.models.wan import pocket
from cinetune.models.wan.wan21 import WanVideo


@pytest.fixture(scope="module")
def model() -> WanVideo:
    return WanVideo.from_folder(pocket.weights_folder(), family="pocket")


@pytest.fixture(scope="module")
def shots() -> list[tuple[torch.Tensor, str]]:
    """Scenes no training has seen: pixels `3THW` in [-1, 1] and captions."""
    rng = np.random.default_rng(20_261_121)
    scenes = [sample_scene(rng) for _ in range(4)]
    return [(torch.from_numpy(render(scene)).permute(3, 0, 1, 2) * 2 - 1, caption(scene)) for scene in scenes]


def psnr(a: torch.Tensor, b: torch.Tensor) -> float:
    return float(10 * torch.log10(4 / (a - b).pow(2).mean()))


def test_the_weights_fit_the_package():
    files = list(pocket.weights_folder().rglob("*.safetensors"))
    assert sum(path.stat().st_size for path in files) <= 16_000_000
    assert not [path for path in pocket.weights_folder().rglob("*") if path.suffix in {".bin", ".pt", ".pth", ".ckpt"}]


def test_stock_diffusers_loads_and_runs_it(shots: list[tuple[torch.Tensor, str]]):
    pipeline = WanImageToVideoPipeline.from_pretrained(pocket.weights_folder())
    pipeline.set_progress_bar_config(disable=True)
    frames, text = shots[0]
    still = ((frames[:, 0] + 1) * 127.5).round().byte().permute(1, 2, 0).numpy()
    made: Any = pipeline(
        image=Image.fromarray(still),
        prompt=text,
        height=pocket.HEIGHT,
        width=pocket.WIDTH,
        num_frames=5,
        num_inference_steps=2,
        generator=torch.Generator().manual_seed(0),
        output_type="np",
    )
    film = made.frames[0]
    assert film.shape == (5, pocket.HEIGHT, pocket.WIDTH, 3)
    assert np.isfinite(film).all()


def test_the_autoencoder_keeps_new_scenes_to_the_last_frame(model: WanVideo, shots: list[tuple[torch.Tensor, str]]):
    video = torch.stack([frames for frames, _ in shots])
    back = torch.cat(list(model.decode(model.encode_video(video))), 2)
    whole = np.mean([psnr(a, b) for a, b in zip(back, video, strict=True)])
    last = np.mean([psnr(a[:, -1], b[:, -1]) for a, b in zip(back, video, strict=True)])
    numbers = json.loads((pocket.weights_folder() / "numbers.json").read_text())
    assert whole >= numbers["autoencoder PSNR over 33 frames, dB"] - 1.5
    assert last >= whole - 1.0


def test_clip_knows_which_caption_belongs(model: WanVideo, shots: list[tuple[torch.Tensor, str]]):
    clip, tokenizer = pocket.load_clip()
    tokens = tokenizer([text for _, text in shots], padding=True, return_tensors="pt")
    side = pocket.CLIP_VISION["image_size"]
    pixels = torch.nn.functional.interpolate(
        torch.stack([frames[:, 8] for frames, _ in shots]), size=(side, side), mode="bicubic", antialias=True
    )
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (pocket.CLIP_MEAN, pocket.CLIP_STD))
    with torch.no_grad():
        logits = clip(
            input_ids=tokens.input_ids,
            attention_mask=tokens.attention_mask,
            pixel_values=(pixels / 2 + 0.5 - mean) / std,
        ).logits_per_image
    assert logits.argmax(1).tolist() == list(range(len(shots)))


def test_the_denoiser_listens_to_the_picture_and_the_prompt(model: WanVideo, shots: list[tuple[torch.Tensor, str]]):
    video = torch.stack([frames for frames, _ in shots])
    latents = model.encode_video(video)
    noise = torch.randn(latents.shape, generator=torch.Generator().manual_seed(0))
    sigma = torch.full((len(shots),), 0.85)
    noisy = latents + 0.85 * (noise - latents)

    def error(first: torch.Tensor, texts: list[str]) -> float:
        cond = model.condition(texts, first, pocket.FRAMES)
        with torch.no_grad():
            return float((model.velocity(noisy, sigma, cond) - (noise - latents)).pow(2).mean())

    texts = [text for _, text in shots]
    right = error(video[:, :, 0], texts)
    assert right < 0.5 * float((noise - latents).pow(2).mean())
    assert error(video[:, :, 0].flip(0), texts) > 1.5 * right
    assert error(video[:, :, 0], texts[::-1]) > right


def test_saved_weights_do_not_say_where_they_were_loaded_from(tmp_path: Path):
    parts = pocket.fresh(["a"], seed=0)
    parts.vae.save_pretrained(tmp_path / "before")
    parts.vae = AutoencoderKLWan.from_pretrained(tmp_path / "before")
    pocket.save(parts, tmp_path / "saved")
    assert (tmp_path / "saved" / "vae" / "config.json").is_file()
    assert not [path for path in tmp_path.glob("saved/**/*.json") if str(tmp_path) in path.read_text()]
    assert not [path for path in pocket.weights_folder().rglob("*.json") if "_name_or_path" in path.read_text()]
