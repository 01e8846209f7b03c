"""What a video model must offer, and the runtime bundles that carry its tensors.

Shape letters: B batch, C channels, T pixel frames, H W pixels, f h w latent frames, rows, columns, L tokens, D width.
Pixels are RGB in [-1, 1]. Latents are normalised (zero mean, unit variance per channel).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Protocol

import torch
from torch import Tensor, nn

from cinetune.catalogue import Release
from cinetune.errors import ModelError

__all__ = ["Batch", "Conditioning", "ModelInfo", "VideoModel"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelInfo:
    """Facts of a loaded model: its release (name, rate, own size, LoRA targets, licence), and what its files say."""

    release: Release
    latent_channels: int
    stride_time: int
    stride_space: int
    patch_space: int
    positions: int
    """Most patches along a side, and most latent frames, that the denoiser has positions for."""
    weights_sha256: str
    location: str

    @property
    def name(self) -> str:
        return self.release.name

    @property
    def rate(self) -> Fraction:
        """Frames per second."""
        return self.release.rate

    @property
    def targets(self) -> Mapping[str, str]:
        """Full-match regex over the denoiser's module names, by preset name."""
        return self.release.targets

    @property
    def multiple(self) -> int:
        """Picture height and width must be multiples of this many pixels."""
        return self.stride_space * self.patch_space


@dataclass(frozen=True, slots=True, kw_only=True)
class Conditioning:
    """What the denoiser is told: `text_BLD` zero-padded prompt embeddings, `image_BLD` CLIP tokens of the first frame,
    `latent_BCfhw` the mask and condition latents that are joined to the noisy latents along C. `negative_BLD` is the
    text for guidance; None = no guidance.
    """

    text_BLD: Tensor
    image_BLD: Tensor
    latent_BCfhw: Tensor
    negative_BLD: Tensor | None = None

    def __post_init__(self) -> None:
        sizes = {len(t) for t in (self.text_BLD, self.image_BLD, self.latent_BCfhw) if t is not None}
        if len(sizes) != 1:
            raise ModelError(f"conditioning mixes batch sizes {sorted(sizes)}")

    def to(self, device: torch.device | str, dtype: torch.dtype) -> Conditioning:
        """The same on a device in a type; from pinned memory the host does not wait."""

        def moved(tensor: Tensor) -> Tensor:
            return tensor.to(device, dtype, non_blocking=True)

        return Conditioning(
            text_BLD=moved(self.text_BLD), image_BLD=moved(self.image_BLD), latent_BCfhw=moved(self.latent_BCfhw),
            negative_BLD=None if self.negative_BLD is None else moved(self.negative_BLD),
        )  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """One training batch: clean latents and their conditioning."""

    latents_BCfhw: Tensor
    cond: Conditioning

    def __post_init__(self) -> None:
        if len(self.latents_BCfhw) != len(self.cond.text_BLD):
            raise ModelError(f"{len(self.latents_BCfhw)} latents but {len(self.cond.text_BLD)} conditions")

    def to(self, device: torch.device) -> Batch:
        """The same on a device, the condition in the type of its text, which is the model's."""
        latents = self.latents_BCfhw.to(device, non_blocking=True)
        return Batch(latents_BCfhw=latents, cond=self.cond.to(device, self.cond.text_BLD.dtype))


class VideoModel(Protocol):
    """An image-to-video generator. No base class: a family is one file that has these members."""

    @property
    def info(self) -> ModelInfo: ...

    @property
    def denoiser(self) -> nn.Module:
        """The network that LoRA, checkpointing and sharding wrap."""
        ...

    def encode_video(self, x_BCTHW: Tensor) -> Tensor:
        """Normalised latents `BCfhw` (posterior mode). T must be 4n+1; raises `ModelError`."""
        ...

    def condition(
        self,
        prompts: Sequence[str],
        first_BCHW: Tensor,
        frames: int,
        *,
        last_BCHW: Tensor | None = None,
        negative: Sequence[str] | None = None,
    ) -> Conditioning:
        """Conditioning for clips of `frames` pixel frames that start at `first_BCHW` ([-1, 1]). Raises `ModelError` on
        sizes the model cannot take.
        """
        ...

    def velocity(self, x_BCfhw: Tensor, sigma_B: Tensor, cond: Conditioning) -> Tensor:
        """Predicted velocity `n - x0` at noise level sigma in [0, 1] (uses `cond.text_BLD`; guidance is the
        sampler's, which asks a model that has `velocities(x, sigma, cond, negative)` for both of its passes together).
        """
        ...

    def decode(self, z_BCfhw: Tensor) -> Iterator[Tensor]:
        """Pixel chunks `BCtHW` in [-1, 1], one latent frame at a time; joined they equal a whole decode bit for bit."""
        ...
