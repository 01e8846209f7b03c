"""Our conditioning and sampler against diffusers' `WanImageToVideoPipeline`, over the same tiny files."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import WanImageToVideoPipeline
from PIL import Image

from cinetune.models.wan.conv import use_fast_conv3d
from cinetune.models.wan.sample import sample
from cinetune.models.wan.wan21 import WanVideo

PROMPT, NEGATIVE = "A man &amp;amp; a car in\n the  rain", "warm dusk"
HEIGHT, WIDTH, FRAMES = 32, 48, 9


@pytest.fixture(scope="module")
def pipe(tiny_folder: Path) -> WanImageToVideoPipeline:
    pipeline = WanImageToVideoPipeline.from_pretrained(tiny_folder)
    pipeline.set_progress_bar_config(disable=True)
    use_fast_conv3d(pipeline.vae)  # the same kernels, so that what is left to differ is our arithmetic
    return pipeline


@pytest.fixture
def crop_model(tiny_folder: Path) -> WanVideo:
    return WanVideo.from_folder(tiny_folder, family="pocket", clip_preprocess="crop")


def picture(height: int = HEIGHT, width: int = WIDTH) -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8))


def tensor(image: Image.Image) -> torch.Tensor:
    return torch.from_numpy(np.asarray(image).copy()).permute(2, 0, 1)[None].float() / 255 * 2 - 1


@torch.no_grad()
@pytest.mark.parametrize("frames", [1, 5, 9])
def test_condition_latent_is_prepare_latents(pipe: WanImageToVideoPipeline, model: WanVideo, frames: int) -> None:
    first = pipe.video_processor.preprocess(picture(), height=HEIGHT, width=WIDTH)
    _, want = pipe.prepare_latents(first, 1, 16, HEIGHT, WIDTH, frames, torch.float32, torch.device("cpu"))
    torch.testing.assert_close(model.condition_latent(tensor(picture()), frames), want, atol=1e-6, rtol=0)


@torch.no_grad()
@pytest.mark.parametrize("size", [(32, 48), (48, 32), (64, 96), (40, 40), (72, 128), (32, 33)])
def test_crop_tokens_are_encode_image(
    pipe: WanImageToVideoPipeline, crop_model: WanVideo, size: tuple[int, int]
) -> None:
    image = picture(*size)
    torch.testing.assert_close(crop_model.image_tokens(tensor(image)), pipe.encode_image(image), atol=1e-6, rtol=0)


@torch.no_grad()
def test_text_is_encode_prompt(pipe: WanImageToVideoPipeline, model: WanVideo) -> None:
    cond = model.condition([PROMPT], tensor(picture()), 1, negative=[NEGATIVE])
    want, against = pipe.encode_prompt([PROMPT], [NEGATIVE], max_sequence_length=512)
    assert want is not None and against is not None and torch.equal(cond.text_BLD, want)
    assert cond.negative_BLD is not None and torch.equal(cond.negative_BLD, against)


@pytest.mark.parametrize("guidance", [1.0, 3.5])
@pytest.mark.parametrize("shift", [3.0, 5.0])
def test_sampling_is_the_pipeline_bit_for_bit(
    pipe: WanImageToVideoPipeline, crop_model: WanVideo, guidance: float, shift: float
) -> None:
    noise = torch.randn(1, 16, 3, 8, 12, generator=torch.Generator().manual_seed(3))
    pipe.register_modules(scheduler=type(pipe.scheduler).from_config(pipe.scheduler.config, flow_shift=shift))
    made: Any = pipe(
        image=picture(),
        prompt=PROMPT,
        negative_prompt=NEGATIVE,
        height=HEIGHT,
        width=WIDTH,
        num_frames=FRAMES,
        num_inference_steps=5,
        guidance_scale=guidance,
        latents=noise.clone(),
        output_type="latent",
    )
    want = made.frames
    cond = crop_model.condition([PROMPT], tensor(picture()), FRAMES, negative=[NEGATIVE])
    got = sample(crop_model, cond, noise, steps=5, guidance=guidance, shift=shift)
    assert torch.equal(got, want)
    if guidance > 1:
        assert not torch.equal(
            got, sample(crop_model, replace(cond, negative_BLD=None), noise, steps=5, guidance=guidance, shift=shift)
        )


def test_frames_are_the_pipelines(pipe: WanImageToVideoPipeline, crop_model: WanVideo) -> None:
    noise = torch.randn(1, 16, 2, 8, 12, generator=torch.Generator().manual_seed(4))
    pipe.register_modules(scheduler=type(pipe.scheduler).from_config(pipe.scheduler.config, flow_shift=3.0))
    made: Any = pipe(
        image=picture(),
        prompt=PROMPT,
        height=HEIGHT,
        width=WIDTH,
        num_frames=5,
        num_inference_steps=2,
        guidance_scale=1.0,
        latents=noise.clone(),
        output_type="pt",
    )
    want = made.frames
    cond = crop_model.condition([PROMPT], tensor(picture()), 5)
    latents = sample(crop_model, cond, noise, steps=2, guidance=1.0, shift=3.0)
    video = torch.cat(list(crop_model.decode(latents)), dim=2) / 2 + 0.5
    torch.testing.assert_close(video.transpose(1, 2), want, atol=1e-6, rtol=0)
