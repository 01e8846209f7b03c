"""Rectified-flow arithmetic (Liu et al., arXiv 2209.03003; Lipman et al., arXiv 2210.02747) as Wan2.1 uses it.

x = (1 - sigma) x0 + sigma n        velocity target = n - x0        sigma 0 = picture, 1 = noise
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

__all__ = ["add_noise", "sample_sigmas", "schedule", "shift_sigma", "target"]

TRAIN_STEPS = 1000


def shift_sigma(sigma: Tensor, shift: float) -> Tensor:
    """Noise levels moved towards 1 for larger pictures: `s sigma / (1 + (s - 1) sigma)` (arXiv 2403.03206, eq. 23)."""
    return shift * sigma / (1 + (shift - 1) * sigma)


def sample_sigmas(
    n: int, gen: torch.Generator, *, scheme: Literal["logit-normal", "uniform"], shift: float, stratified: bool = True
) -> Tensor:
    """`n` training noise levels in (0, 1), float32, shifted.

    `logit-normal` is the sigmoid of a unit normal (arXiv 2403.03206, section 3.1). Stratified: one draw from each n-th
    of the distribution, in random order, so that small batches cover all noise levels.
    """
    uniform = torch.rand(n, generator=gen, dtype=torch.float64)
    if stratified:
        uniform = (torch.randperm(n, generator=gen) + uniform) / n
    uniform = uniform.clamp(1e-6, 1 - 1e-6)
    sigma = torch.sigmoid(torch.special.ndtri(uniform)) if scheme == "logit-normal" else uniform
    return shift_sigma(sigma, shift).float()


def add_noise(x0: Tensor, noise: Tensor, sigma_B: Tensor) -> Tensor:
    """`(1 - sigma) x0 + sigma n`, one sigma for each item of the batch."""
    sigma = sigma_B.view(-1, *[1] * (x0.dim() - 1))
    return (1 - sigma) * x0 + sigma * noise


def target(x0: Tensor, noise: Tensor) -> Tensor:
    """The velocity `n - x0` that the denoiser learns."""
    return noise - x0


def schedule(steps: int, shift: float) -> Tensor:
    """Noise levels of a sampling run, float32 `[steps + 1]`: shifted even steps from 1, and 0 at the end.

    The first is 1 - 1e-6, because the solver takes the logarithm of 1 - sigma.
    """
    even = torch.linspace(1, 1 / TRAIN_STEPS, steps + 1, dtype=torch.float64)[:-1]
    sigma = shift_sigma(even, shift)
    sigma[0] = 1 - 1e-6
    return torch.cat([sigma, sigma.new_zeros(1)]).float()
