"""The model with the adapters of the arms of a project."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path

from cinetune.artifacts import Arm
from cinetune.generation.partition import Partition
from cinetune.models import load_model
from cinetune.models.adapters.lora import load_lora, use_lora
from cinetune.models.family import VideoModel
from cinetune.runtime import choose_device
from cinetune.sections import ModelSection
from cinetune.timecode import frames_to_latent

__all__ = ["ArmModel"]


class ArmModel:
    """The model with the adapters of all arms loaded; one of them, or none, is active at a time. `part` spreads
    it over several processes, which make segments of one `size` (frames, height, width).
    """

    def __init__(
        self,
        section: ModelSection,
        adapters: Mapping[Arm, Path],
        part: Partition | None = None,
        size: tuple[int, int, int] = (1, 1, 1),
    ) -> None:
        self.device = choose_device(section.device, section.dtype)
        self.model: VideoModel = load_model(section, device=self.device)
        with warnings.catch_warnings():
            # PEFT doubts that a second adapter on one model is meant; it is, and only one is ever in use.
            warnings.filterwarnings("ignore", message="Already found a `peft_config`")
            for arm, path in adapters.items():
                load_lora(self.model, path, name=arm)
        self.part = part
        frames, height, width = size
        stride = self.model.info.stride_space
        shape = (frames_to_latent(frames, self.model.info.stride_time), height // stride, width // stride)
        self._shared = part.spread(self.model, [shape]) if part else self.model
        self.activate("base")

    def activate(self, arm: Arm) -> VideoModel:
        """The model as `arm` uses it; `base` and `trigger` are the untouched model exactly."""
        use_lora(self.model, None if arm in ("base", "trigger") else arm)
        return self._shared
