"""A quick look at a shot: fewer steps, a smaller picture, blocks of the denoiser left out where a step changes little,
and, where `shoot.preview_adapter` names one, a step-distilled adapter in every arm. For the eye only: such shots are
labelled and never scored.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from diffusers.hooks import FirstBlockCacheConfig
from torch import Tensor, nn

from cinetune.artifacts import PlannedShot
from cinetune.config import Config
from cinetune.models import empty_denoiser
from cinetune.models.adapters.distilled import check_distilled
from cinetune.models.family import Conditioning, ModelInfo, VideoModel
from cinetune.models.files.weights import adapter_sha256

__all__ = ["StepCached", "as_run", "checked_preview_adapter", "preview_size"]


def checked_preview_adapter(config: Config, root: Path) -> str:
    """sha256 of a preview's distilled adapter, "" without one, after it was read and held against the base model's
    shapes. Raises `WeightsError` for what is no such adapter, `ModelError` for one of another base.
    """
    path = config.preview_adapter(root)
    if path is None:
        return ""
    check_distilled(empty_denoiser(config.model), config.model.base().name, path)
    return adapter_sha256(path)


def preview_size(size: tuple[int, int], share: float, multiple: int) -> tuple[int, int]:
    """(height, width) at about `share` of a size, on the model's grid."""
    height, width = (max(multiple, round(side * share / multiple) * multiple) for side in size)
    return height, width


def as_run(made_by: Mapping[str, str], adapter_sha256: str, shot: PlannedShot) -> dict[str, str]:
    """The base model of a shot (`cinetune.models.model_identity`) with the distilled adapter it ran with, if any."""
    return dict(made_by) | ({"distilled": f"{adapter_sha256} at {shot.preview_strength:g}"} if adapter_sha256 else {})


class StepCached:
    """A `VideoModel` whose denoiser skips all blocks but the first while that one's residual changes by less than
    `threshold` (relative L1) from the last step that was computed: diffusers' first-block cache. 0 skips nothing.

    The memory of a segment is dropped where the next one begins: when its condition is made, or the noise level rises.
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
        self._level = -1.0
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
