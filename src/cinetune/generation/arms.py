"""The model with the adapters of the arms of a project."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path

from cinetune.artifacts import Arm
from cinetune.config import Config
from cinetune.generation.partition import Partition
from cinetune.models import load_model
from cinetune.models.adapters.distilled import DISTILLED, load_distilled
from cinetune.models.adapters.lora import load_lora, use_loras
from cinetune.models.family import VideoModel
from cinetune.models.memory.fit import compile_to_shoot
from cinetune.runtime import choose_device
from cinetune.timecode import frames_to_latent

__all__ = ["ArmModel"]


class ArmModel:
    """The model with the adapters of all arms loaded; one of them, or none, is active at a time, and beside it the
    `distilled` one of a preview. `part` spreads it over several processes, which make segments of the size that
    `config` shoots.
    """

    def __init__(
        self, config: Config, adapters: Mapping[Arm, Path], part: Partition | None = None, *,
        distilled: Path | None = None,
    ) -> None:  # fmt: skip
        self.device = choose_device(config.model.device, config.model.dtype)
        self.model: VideoModel = load_model(config.model, device=self.device, share=part.share if part else None)
        with warnings.catch_warnings():
            # PEFT doubts that a second adapter on one model is meant; it is.
            warnings.filterwarnings("ignore", message="Already found a `peft_config`")
            for arm, path in adapters.items():
                load_lora(self.model, path, name=arm)
            self._distilled = load_distilled(self.model, distilled) if distilled else None
        use_loras(self.model, {})
        if config.shoot.compile and not config.shoot.preview:
            compile_to_shoot(self.model, config.model, self.device)
        self.part = part
        self._shared = part.spread(self.model, [self._latent_shape(config)]) if part else self.model

    def _latent_shape(self, config: Config) -> tuple[int, int, int]:
        """Of a segment: `f, h, w`."""
        info, (height, width) = self.model.info, config.shoot_size()
        frames = frames_to_latent(config.shoot.segment_frames, info.stride_time)
        return frames, height // info.stride_space, width // info.stride_space

    def activate(self, arm: Arm, *, strength: float = 1.0, distilled: float = 1.0) -> VideoModel:
        """The model as `arm` uses it, its own adapter and the distilled one at these strengths; without the latter
        `base` and `trigger` are the untouched model exactly.
        """
        strengths: dict[str, float] = {} if arm in ("base", "trigger") else {arm: strength}
        if self._distilled is not None:
            self._distilled.set_strength(distilled)
            strengths[DISTILLED] = distilled
        use_loras(self.model, strengths)
        return self._shared
