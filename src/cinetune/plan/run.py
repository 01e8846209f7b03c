"""A project with the shapes of its model: what a training step of it needs, and how its settings are called."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from cinetune.config import MODEL_GEOMETRY, Config
from cinetune.cost.cards import CARDS, CPU, Card, Fit, Offer, fits, settings, step_seconds
from cinetune.cost.memory import Memory, Setting, training_memory
from cinetune.cost.shape import WAN21, WAN21_ENCODERS, Denoiser, Encoders, denoiser_of, encoders_of
from cinetune.errors import CinetuneError
from cinetune.models import model_folder, weights
from cinetune.sections import ModelSection, TrainSection
from cinetune.store import Project

__all__ = ["Run", "bytes_each", "in_words", "shapes_of", "size_of"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """A project with the shapes of its model."""

    project: Project
    denoiser: Denoiser
    encoders: Encoders

    @property
    def config(self) -> Config:
        return self.project.config

    @property
    def cards(self) -> tuple[Card, ...]:
        return (CPU,) if self.config.model.family == "pocket" else CARDS

    @property
    def tokens(self) -> int:
        prepare = self.config.prepare
        return self.denoiser.tokens(prepare.frames, *size_of(prepare.height, prepare.width, self.config))

    @property
    def setting(self) -> Setting:
        return setting_of(self.config)

    def memory(self, setting: Setting) -> Memory:
        train = self.config.train
        return training_memory(self.denoiser, self.tokens, rank=train.rank, targets=train.targets, setting=setting)

    def step(self, card: Card) -> float:
        """Seconds of an optimiser step; a share of the steps may be on one-frame windows."""
        train = self.config.train
        size = size_of(self.config.prepare.height, self.config.prepare.width, self.config)
        single = train.augment.single_frame

        def seconds(tokens: int) -> float:
            return step_seconds(
                self.denoiser, tokens, card, rank=train.rank, targets=train.targets, setting=self.setting
            )  # fmt: skip

        mean = (1 - single) * seconds(self.tokens) + single * seconds(self.denoiser.tokens(1, *size))
        return mean * train.accumulate

    def choices(self, card: Card) -> list[Fit]:
        """All settings of a training step of the same clips, fastest first."""
        train = self.config.train
        batches = sorted({1, train.batch}, reverse=True)
        each = self.setting.bytes_each
        return fits(
            self.denoiser, self.tokens, card, rank=train.rank, targets=train.targets,
            clips=train.batch * train.accumulate,
            choices=settings(self.denoiser, offered(), batches=batches, bytes_each=each),
        )  # fmt: skip


def setting_of(config: Config) -> Setting:
    """The choices of a project. The only place that reads these settings."""
    train, model = config.train, config.model
    return Setting(
        checkpointing=train.checkpointing, storage=model.storage, offload_blocks=model.offload_blocks,
        batch=train.batch, bytes_each=bytes_each(config),
    )  # fmt: skip


def offered() -> Offer:
    """What this version can be told."""
    return Offer(
        checkpointing=get_args(TrainSection.model_fields["checkpointing"].annotation),
        storage=get_args(ModelSection.model_fields["storage"].annotation),
        offload=True,
    )


def in_words(setting: Setting, config: Config) -> str:
    """A setting as the options that choose it."""
    words = [f"train.checkpointing={setting.checkpointing}"]
    if setting.storage != "plain":
        words.append(f"model.storage={setting.storage}")
    if setting.offload_blocks:
        words.append(f"model.offload_blocks={setting.offload_blocks}")
    if setting.batch != config.train.batch:
        words.append(f"train.batch={setting.batch}")
        words.append(f"train.accumulate={config.train.accumulate * config.train.batch // setting.batch}")
    return " ".join(words)


def shapes_of(project: Project) -> tuple[Run | None, list[str]]:
    """The model's shapes from its own files, or Wan2.1 14B's where they are not there yet."""
    config = project.config
    try:
        folder = model_folder(config.model)
        weights.need_folder(folder)
    except CinetuneError as error:
        known = Run(project=project, denoiser=WAN21, encoders=WAN21_ENCODERS)
        return known if config.model.family == "wan21" else None, [str(error)]
    parts = ("vae", "text_encoder", "image_encoder")
    encoders = encoders_of(*(_json(folder / part / "config.json") for part in parts))
    denoiser = denoiser_of(
        _json(folder / "transformer" / "config.json"), image_tokens=encoders.eye_tokens,
        multiple=MODEL_GEOMETRY[config.model.family].multiple,
    )  # fmt: skip
    return Run(project=project, denoiser=denoiser, encoders=encoders), []


def _json(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8"))


def bytes_each(config: Config) -> int:
    wide = config.model.dtype == "float32" or (config.model.dtype == "auto" and config.model.family == "pocket")
    return 4 if wide else 2


def size_of(height: int, width: int, config: Config) -> tuple[int, int]:
    geometry = MODEL_GEOMETRY[config.model.family]
    return (height, width) if height and width else (geometry.height, geometry.width)
