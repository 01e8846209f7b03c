"""The model dressed for the arms of a project."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path

from cinetune.artifacts import Arm
from cinetune.models import load_model
from cinetune.models.adapters.lora import load_lora, use_lora
from cinetune.models.family import VideoModel
from cinetune.runtime import choose_device
from cinetune.sections import ModelSection

__all__ = ["Cast"]


class Cast:
    """The model with the adapters of all arms loaded; one of them, or none, is worn at a time."""

    def __init__(self, section: ModelSection, adapters: Mapping[Arm, Path]) -> None:
        self.device = choose_device(section.device, section.dtype)
        self.model: VideoModel = load_model(section, device=self.device)
        with warnings.catch_warnings():
            # PEFT doubts that a second adapter on one model is meant; it is, and only one is ever in use.
            warnings.filterwarnings("ignore", message="Already found a `peft_config`")
            for arm, path in adapters.items():
                load_lora(self.model, path, name=arm)
        self.wear("base")

    def wear(self, arm: Arm) -> VideoModel:
        """The model as `arm` uses it; `base` and `trigger` are the untouched model exactly."""
        use_lora(self.model, None if arm in ("base", "trigger") else arm)
        return self.model
