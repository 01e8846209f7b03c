"""One training step as pure functions: draw the randomness, then the loss of each element of a batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from cinetune.models.family import Batch, VideoModel
from cinetune.models.wan import flow
from cinetune.sections import TrainSection

__all__ = ["Draws", "draw", "flow_loss", "step_loss"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Draws:
    """Everything random about one optimiser step: noise levels in (0, 1), noise, and which captions are dropped."""

    sigma_B: Tensor
    noise_BCfhw: Tensor
    drop_B: Tensor

    def part(self, rows: slice) -> Draws:
        """Some elements of the step."""
        return Draws(sigma_B=self.sigma_B[rows], noise_BCfhw=self.noise_BCfhw[rows], drop_B=self.drop_B[rows])

    def to(self, device: torch.device) -> Draws:
        """The same on a device; from pinned memory the host does not wait."""
        sigma, noise, drop = (
            value.to(device, non_blocking=True) for value in (self.sigma_B, self.noise_BCfhw, self.drop_B)
        )
        return Draws(sigma_B=sigma, noise_BCfhw=noise, drop_B=drop)


def draw(shape: Sequence[int], gen: torch.Generator, recipe: TrainSection) -> Draws:
    """Draw for latents `BCfhw` of a whole optimiser step at once, on the CPU: splitting it into micro-batches, on one
    device or many, changes nothing.

    Noise levels are stratified over the batch.
    """
    sigma_B = flow.sample_sigmas(shape[0], gen, scheme=recipe.timesteps, shift=recipe.shift, stratified=True)
    noise = torch.randn(tuple(shape), generator=gen)
    return Draws(
        sigma_B=sigma_B, noise_BCfhw=noise, drop_B=torch.rand(shape[0], generator=gen) < recipe.caption_dropout
    )


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
