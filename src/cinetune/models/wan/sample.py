"""The denoising loop: UniPC (arXiv 2302.04867) with classifier-free guidance, diffusers' Wan pipeline bit for bit."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from diffusers.schedulers.scheduling_unipc_multistep import UniPCMultistepScheduler
from torch import Tensor

from cinetune.errors import ModelError
from cinetune.models.family import Conditioning, VideoModel
from cinetune.models.wan.flow import TRAIN_STEPS, add_noise

__all__ = ["sample"]


@torch.no_grad()
def sample(
    model: VideoModel,
    cond: Conditioning,
    noise_BCfhw: Tensor,
    *,
    steps: int,
    guidance: float,
    shift: float,
    start_latents: Tensor | None = None,
    strength: float = 1.0,
    held_BCfhw: Tensor | None = None,
    on_step: Callable[[int, int], None] | None = None,
) -> Tensor:
    """Latents `BCfhw` (float32, on the conditioning's device) made of `noise_BCfhw`. No random numbers are drawn here.

    Guidance (Ho & Salimans, arXiv 2207.12598) costs a second pass and is used when `guidance` > 1 and `cond` has
    negative text; the picture conditions both passes. With `strength` < 1 the last `round(steps * strength)` steps are
    run on `start_latents` noised to that level (SDEdit, arXiv 2108.01073); strength 0 returns them unchanged. The first
    latent frames are led to `held_BCfhw`: there the velocity is noise minus those latents, a straight way that every
    solver follows exactly, and the other frames see them at each step's own noise level.
    `on_step(done, total)` is called after each step. Raises `ModelError` on shapes that do not fit and when the result
    is not finite.
    """
    _check(model, cond, noise_BCfhw, strength, start_latents)
    device = cond.latent_BCfhw.device
    latents = noise_BCfhw.to(device, torch.float32)
    straight = None if held_BCfhw is None else latents[:, :, : held_BCfhw.shape[2]] - held_BCfhw.to(latents)
    scheduler = UniPCMultistepScheduler(
        num_train_timesteps=TRAIN_STEPS, prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=shift
    )
    scheduler.set_timesteps(steps, device=device)
    begin = steps - round(steps * strength)
    if start_latents is not None and strength < 1:
        sigma = scheduler.sigmas[begin].to(device).expand(len(latents))
        latents = add_noise(start_latents.to(device, torch.float32), latents, sigma)
    # without it the scheduler looks the first time up by value, and finds the wrong step where rounded times repeat
    scheduler.set_begin_index(begin)
    negative = cond if cond.negative_BLD is None else replace(cond, text_BLD=cond.negative_BLD, negative_BLD=None)
    for done, time in enumerate(scheduler.timesteps[begin:], start=1):
        sigma_B = (time.double().cpu() / TRAIN_STEPS).expand(len(latents))
        if guidance > 1 and cond.negative_BLD is not None:
            velocity, base = _both(model, latents, sigma_B, cond, negative)
            velocity = base + guidance * (velocity - base)
        else:
            velocity = model.velocity(latents, sigma_B, cond)
        if straight is not None:
            velocity = torch.cat([straight.to(velocity.dtype), velocity[:, :, straight.shape[2] :]], dim=2)
        latents = scheduler.step(velocity, time, latents, return_dict=False)[0]
        if on_step is not None:
            on_step(done, steps - begin)
    if not bool(torch.isfinite(latents).all()):
        raise ModelError(
            "the model produced NaN or infinite latents",
            remedy="check the adapter and the dtype; float32 rules out overflow",
        )
    return latents


def _check(
    model: VideoModel, cond: Conditioning, noise_BCfhw: Tensor, strength: float, start_latents: Tensor | None
) -> None:
    fits = noise_BCfhw.shape[0] == cond.latent_BCfhw.shape[0] and noise_BCfhw.shape[2:] == cond.latent_BCfhw.shape[2:]
    if not fits or noise_BCfhw.shape[1] != model.info.latent_channels:
        raise ModelError(
            f"noise of shape {tuple(noise_BCfhw.shape)} does not fit "
            f"conditioning of shape {tuple(cond.latent_BCfhw.shape)}"
        )
    if not 0 <= strength <= 1 or (strength < 1 and start_latents is None):
        raise ModelError(f"strength {strength} needs start latents and a value from 0 to 1")


def _both(
    model: VideoModel, latents: Tensor, sigma_B: Tensor, cond: Conditioning, negative: Conditioning
) -> tuple[Tensor, Tensor]:
    """The two passes of guidance as the model makes them, or one after the other."""
    velocities = getattr(model, "velocities", None)
    if velocities is not None:
        return velocities(latents, sigma_B, cond, negative)
    return model.velocity(latents, sigma_B, cond), model.velocity(latents, sigma_B, negative)
