"""One training step as pure functions: draw the randomness, then the loss of each element of a batch."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from cinetune.models import flow
from cinetune.models.family import Batch, VideoModel
from cinetune.sections import TrainSection

__all__ = ["Draws", "draw", "flow_loss", "split", "step_loss"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Draws:
    """Everything random about one optimiser step: noise levels in (0, 1), noise, and which captions are dropped."""

    sigma_B: Tensor
    noise_BCfhw: Tensor
    drop_B: Tensor


def draw(latents_BCfhw: Tensor, gen: torch.Generator, recipe: TrainSection) -> Draws:
    """Draw for a whole optimiser step at once, so that splitting it into micro-batches changes nothing.

    Noise levels are stratified over the batch. All numbers come from the CPU generator `gen` and are then moved to
    the latents' device.
    """
    count = len(latents_BCfhw)
    device = latents_BCfhw.device
    sigma_B = flow.sample_sigmas(count, gen, scheme=recipe.timesteps, shift=recipe.shift, stratified=True)
    noise = torch.randn(latents_BCfhw.shape, generator=gen)
    drop_B = torch.rand(count, generator=gen) < recipe.caption_dropout
    return Draws(sigma_B=sigma_B.to(device), noise_BCfhw=noise.to(device), drop_B=drop_B.to(device))


def flow_loss(model: VideoModel, batch: Batch, sigma_B: Tensor, noise_BCfhw: Tensor) -> Tensor:
    """Mean squared error `[B]` (float32) of the predicted velocity against `n - x0` (rectified flow, Liu et al.
    2022).
    """
    noisy = flow.add_noise(batch.latents_BCfhw, noise_BCfhw, sigma_B)
    predicted = model.velocity(noisy, sigma_B, batch.cond).float()
    wanted = flow.target(batch.latents_BCfhw, noise_BCfhw).float()
    return (predicted - wanted).square().flatten(1).mean(1)


def step_loss(model: VideoModel, batch: Batch, draws: Draws, *, empty_1LD: Tensor) -> Tensor:
    """`flow_loss` with the captions in `draws.drop_B` replaced by the embedding of the empty prompt, `[B]`.

    Only the text is dropped: guidance keeps the first frame and its CLIP tokens in both of its branches, so training
    must too.
    """
    text = torch.where(draws.drop_B[:, None, None], empty_1LD.to(batch.cond.text_BLD), batch.cond.text_BLD)
    kept = Batch(latents_BCfhw=batch.latents_BCfhw, cond=replace(batch.cond, text_BLD=text))
    return flow_loss(model, kept, draws.sigma_B, draws.noise_BCfhw)


def split(batch: Batch, draws: Draws, size: int) -> list[tuple[Batch, Draws]]:
    """Micro-batches of at most `size` elements, in order."""
    parts: list[tuple[Batch, Draws]] = []
    for start in range(0, len(batch.latents_BCfhw), size):
        part = slice(start, start + size)
        cond = replace(
            batch.cond,
            text_BLD=batch.cond.text_BLD[part],
            image_BLD=batch.cond.image_BLD[part],
            latent_BCfhw=batch.cond.latent_BCfhw[part],
        )
        piece = Draws(sigma_B=draws.sigma_B[part], noise_BCfhw=draws.noise_BCfhw[part], drop_B=draws.drop_B[part])
        parts.append((Batch(latents_BCfhw=batch.latents_BCfhw[part], cond=cond), piece))
    return parts
