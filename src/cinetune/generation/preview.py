"""A quick look at a shot: fewer steps, a smaller picture, and blocks of the denoiser left out where a step changes
little. For the eye only: such shots are labelled and never scored.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from diffusers.hooks import FirstBlockCacheConfig
from torch import Tensor, nn

from cinetune.models.family import Conditioning, ModelInfo, VideoModel

__all__ = ["StepCached", "preview_size"]


def preview_size(size: tuple[int, int], share: float, multiple: int) -> tuple[int, int]:
    """(height, width) at about `share` of a size, on the model's grid."""
    height, width = (max(multiple, round(side * share / multiple) * multiple) for side in size)
    return height, width


class StepCached:
    """A `VideoModel` whose denoiser skips all blocks but the first while that one's residual changes by less than
    `threshold` (relative L1) from the last step that was computed: diffusers' first-block cache. 0 skips nothing.

    The memory of a segment is dropped when the noise level rises, which is where the next segment begins.
    """

    def __init__(self, model: VideoModel, threshold: float) -> None:
        self._model = model
        self._denoiser: Any = model.denoiser
        self._level = -1.0
        self._denoiser.enable_cache(FirstBlockCacheConfig(threshold=threshold))

    @property
    def info(self) -> ModelInfo:
        return self._model.info

    @property
    def denoiser(self) -> nn.Module:
        return self._model.denoiser

    def encode_video(self, x_BCTHW: Tensor) -> Tensor:
        return self._model.encode_video(x_BCTHW)

    def condition(
        self,
        prompts: Sequence[str],
        first_BCHW: Tensor,
        frames: int,
        *,
        last_BCHW: Tensor | None = None,
        negative: Sequence[str] | None = None,
    ) -> Conditioning:
        return self._model.condition(prompts, first_BCHW, frames, last_BCHW=last_BCHW, negative=negative)

    def velocity(self, x_BCfhw: Tensor, sigma_B: Tensor, cond: Conditioning) -> Tensor:
        level = float(torch.as_tensor(sigma_B).max())
        if level > self._level:
            self._denoiser._reset_stateful_cache()
        self._level = level
        # The sampler takes the negative text away for the second pass of guidance.
        with self._denoiser.cache_context("text" if cond.negative_BLD is not None else "alone"):
            return self._model.velocity(x_BCfhw, sigma_B, cond)

    def decode(self, z_BCfhw: Tensor) -> Iterator[Tensor]:
        return self._model.decode(z_BCfhw)

    def release(self) -> None:
        """The denoiser as it was."""
        self._denoiser.disable_cache()
