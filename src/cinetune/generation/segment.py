"""One call of the model: a first picture in, a segment of film out.

A picture is an `HWC` float32 tensor on the CPU, display R'G'B' in [0, 1]; a segment is a stream of such pictures.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from cinetune.footage.read.color import resize
from cinetune.models.family import Conditioning, ModelInfo, VideoModel
from cinetune.models.wan.sample import sample
from cinetune.timecode import frames_to_latent

__all__ = ["Recipe", "centre_box", "coded", "conditioning", "fit_picture", "generate", "pictures", "starting_noise"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """How a segment is asked for. `frames` pixel frames (4n+1); `negative` counts only where `guidance` > 1."""

    prompt: str
    negative: str
    frames: int
    steps: int
    guidance: float
    shift: float


def centre_box(size: tuple[int, int], *, height: int, width: int) -> tuple[int, int, int, int]:
    """The largest centred part (x, y, width, height) of a picture of `size` = (rows, columns) that has the wanted
    shape.
    """
    rows, columns = size
    scale = max(height / rows, width / columns)
    tall, wide = min(rows, round(height / scale)), min(columns, round(width / scale))
    return (columns - wide) // 2, (rows - tall) // 2, wide, tall


def fit_picture(picture_HWC: np.ndarray, *, height: int, width: int) -> Tensor:
    """The `centre_box` of the picture, resized to `height` x `width` as training windows are."""
    x, y, wide, tall = centre_box(picture_HWC.shape[:2], height=height, width=width)
    return torch.from_numpy(resize(picture_HWC[y : y + tall, x : x + wide], (width, height)).copy())


def starting_noise(info: ModelInfo, frames: int, *, height: int, width: int, seed: int) -> Tensor:
    """Unit Gaussian latents `1Cfhw`, float32, drawn on the CPU: the same for one seed on every device and in every
    arm.
    """
    stride = info.stride_space
    shape = (1, info.latent_channels, frames_to_latent(frames, info.stride_time), height // stride, width // stride)
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def conditioning(model: VideoModel, picture_HWC: Tensor, recipe: Recipe) -> Conditioning:
    """What the model is told about one segment that starts at the picture; negative text only where guidance is on."""
    first = picture_HWC.permute(2, 0, 1)[None] * 2 - 1
    negative = [recipe.negative] if recipe.guidance > 1 else None
    return model.condition([recipe.prompt], first, recipe.frames, negative=negative)


def generate(
    model: VideoModel, picture_HWC: Tensor, recipe: Recipe, *, seed: int, held_THWC: Tensor | None = None
) -> Tensor:
    """Latents `1Cfhw` of one segment that starts at the picture; with `held`, at those `stride * n + 1` pictures, of
    which the given one is the first. Raises `ModelError` if they are not finite.
    """
    height, width = picture_HWC.shape[:2]
    noise = starting_noise(model.info, recipe.frames, height=height, width=width, seed=seed)
    cond = conditioning(model, picture_HWC, recipe)
    return sample(
        model,
        cond,
        noise,
        steps=recipe.steps,
        guidance=recipe.guidance,
        shift=recipe.shift,
        held_BCfhw=None if held_THWC is None else model.encode_video(held_THWC.permute(3, 0, 1, 2)[None] * 2 - 1),
    )


@torch.no_grad()
def pictures(model: VideoModel, latents_BCfhw: Tensor) -> Iterator[Tensor]:
    """The decoded pictures of one segment (batch 1), one after the other, clipped to [0, 1]; only one chunk is held."""
    for chunk in model.decode(latents_BCfhw):
        yield from ((chunk[0].float() + 1) / 2).clamp(0, 1).permute(1, 2, 3, 0).cpu().contiguous().unbind(0)


@torch.no_grad()
def coded(model: VideoModel, film_THWC: np.ndarray) -> np.ndarray:
    """A film of `stride * n + 1` pictures in [0, 1] through the model's VAE and back: what no generation can better."""
    video = torch.from_numpy(film_THWC.copy()).permute(3, 0, 1, 2)[None] * 2 - 1
    return torch.stack(list(pictures(model, model.encode_video(video)))).numpy()
