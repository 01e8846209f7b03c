"""The model with the adapters of the arms of a project."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path

from cinetune.artifacts import Arm
from cinetune.config import Config
from cinetune.generation.partition import Partition
from cinetune.models import load_model
from cinetune.models.adapters.lora import load_lora, use_lora
from cinetune.models.family import VideoModel
from cinetune.runtime import choose_device
from cinetune.timecode import frames_to_latent

__all__ = ["ArmModel"]


class ArmModel:
    """The model with the adapters of all arms loaded; one of them, or none, is active at a time. `part` spreads
    it over several processes, which make segments of the size that `config` shoots.
    """

    def __init__(self, config: Config, adapters: Mapping[Arm, Path], part: Partition | None = None) -> None:
        self.device = choose_device(config.model.device, config.model.dtype)
        self.model: VideoModel = load_model(config.model, device=self.device)
        with warnings.catch_warnings():
            # PEFT doubts that a second adapter on one model is meant; it is, and only one is ever in use.
            warnings.filterwarnings("ignore", message="Already found a `peft_config`")
            for arm, path in adapters.items():
                load_lora(self.model, path, name=arm)
        self.part = part
        self._shared = part.spread(self.model, [self._latent_shape(config)]) if part else self.model
        self.activate("base")

    def _latent_shape(self, config: Config) -> tuple[int, int, int]:
        """Of a segment: `f, h, w`."""
        info, (height, width) = self.model.info, config.shoot_size()
        frames = frames_to_latent(config.shoot.segment_frames, info.stride_time)
        return frames, height // info.stride_space, width // info.stride_space

    def activate(self, arm: Arm) -> VideoModel:
        """The model as `arm` uses it; `base` and `trigger` are the untouched model exactly."""
        use_lora(self.model, None if arm in ("base", "trigger") else arm)
        return self._shared
