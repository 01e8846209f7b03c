"""A project with the shapes of its model: what its stages need, and how its settings are called."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import get_args

from cinetune.catalogue import Release, find_release
from cinetune.config import Config
from cinetune.cost.cards import (
    CARDS,
    CPU,
    MARGIN,
    Card,
    Choices,
    Fit,
    elementwise_bytes,
    fits,
    least_recomputation,
    settings,
    step_seconds,
    with_weights,
    work_seconds,
)
from cinetune.cost.memory import (
    BESIDE,
    FLOAT32,
    Memory,
    Setting,
    base_weights,
    block_bytes,
    encoder_bytes,
    training_memory,
)
from cinetune.cost.operations import Checkpointing, Operations, forward, video_decoding
from cinetune.cost.shape import WAN21, WAN21_ENCODERS, Denoiser, Encoders, denoiser_of, encoders_of
from cinetune.cost.shooting import clips_at_once, decoding_bytes, denoising_bytes, encoding_bytes, with_workspaces
from cinetune.errors import CinetuneError
from cinetune.models import model_folder
from cinetune.models.files import weights
from cinetune.sections import ModelSection
from cinetune.store import Project

__all__ = ["PlannedRun", "in_words", "shapes_of"]


_CONFIGS = ("transformer", "vae", "text_encoder", "image_encoder")
_PUBLISHED = {"wan21": (WAN21, WAN21_ENCODERS)}
"""Shapes of families whose weights need not be there to be planned with."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedRun:
    """A project with the shapes of its model."""

    project: Project
    base: Release
    denoiser: Denoiser
    encoders: Encoders

    @property
    def config(self) -> Config:
        return self.project.config

    @property
    def cards(self) -> tuple[Card, ...]:
        return (CPU,) if self.base.small else CARDS

    @property
    def tokens(self) -> int:
        return self.denoiser.tokens(self.config.prepare.frames, *self.train_size)

    @property
    def setting(self) -> Setting:
        """The choices of the project; `checkpointing = "auto"` as the leanest it may take."""
        return setting_of(self.config, small=self.base.small)

    def on(self, card: Card) -> Setting:
        """The choices as they come out on a card: `checkpointing = "auto"` is the least that fits there."""
        if self.config.train.checkpointing != "auto":
            return self.setting
        return self._least(self.setting, card)

    def _least(self, setting: Setting, card: Card) -> Setting:
        train = self.config.train
        limit = math.inf if card is CPU else card.gigabytes * 1e9 * MARGIN - FLOAT32 * self.encoders.vae_parameters()
        return least_recomputation(
            self.denoiser, self.tokens, rank=train.rank, targets=train.targets, setting=setting, limit=limit
        )  # fmt: skip

    @property
    def arms(self) -> int:
        """How many arms are rendered."""
        return len(self.config.arms())

    @property
    def looks(self) -> int:
        """How many adapters are trained: the look, and the plain one when it is asked for."""
        return 2 if self.config.train.plain_arm else 1

    @property
    def firsts(self) -> int:
        """First frames that are cached of each window: its own and the re-graded ones."""
        augment = self.config.train.augment
        return 1 + (augment.variants if augment.probability > 0 else 0)

    @property
    def train_size(self) -> tuple[int, int]:
        return self.config.train_size(self.base)

    @property
    def shoot_size(self) -> tuple[int, int]:
        return self.config.shoot_size(self.base)

    def memory(self, setting: Setting) -> Memory:
        """Training: a step, or decoding a held-out shot where that needs more. The autoencoder is loaded for it."""
        train = self.config.train
        memory = training_memory(self.denoiser, self.tokens, rank=train.rank, targets=train.targets, setting=setting)
        decoding = self._decoding(self.config.prepare.frames, self.train_size)
        live = max(memory.live, decoding - memory.kept)
        return replace(memory, live=live, encoders=4 * self.encoders.vae_parameters())

    def caching(self) -> Memory:
        """Encoding one window with its first frames."""
        frames, size = self.config.prepare.frames, self.train_size
        clips = min(self.firsts, clips_at_once(frames, *size))
        live = self._encoding(frames, size, clips)
        return Memory(weights=0, live=live, encoders=encoder_bytes(self.encoders, self.setting.bytes_each))

    def _encoding(self, frames: int, size: tuple[int, int], clips: int = 1) -> int:
        repeats = self.base.small  # they remember what their layers make of grey
        return self._convolved(encoding_bytes(self.encoders, frames, *self._tile(size), clips=clips, repeats=repeats))

    def _decoding(self, frames: int, size: tuple[int, int]) -> int:
        """Tiles are decoded through all frames, one after the other; they are joined in host memory."""
        tile = self._tile(size)
        held = 0 if tile == size else FLOAT32 * 3 * frames * tile[0] * tile[1]
        return self._convolved(decoding_bytes(self.encoders, *tile)) + held

    def _tile(self, size: tuple[int, int]) -> tuple[int, int]:
        tile = self.config.model.vae_tile
        return (min(size[0], tile), min(size[1], tile)) if tile else size

    def _convolved(self, size: int) -> int:
        """Small models run on the CPU, where convolutions have no workspaces to speak of."""
        return size if self.base.small else with_workspaces(size)

    def shooting(self, setting: Setting, frames: int) -> Memory:
        """Segments of some frames. What is told, encoding, denoising and decoding take turns: text and image encoder
        wait in host memory until they are called (which on the CPU is all the same memory), and only denoising has
        offloaded blocks on the card.
        """
        train, size = self.config.train, self.shoot_size
        tokens = self.denoiser.tokens(frames, *size)
        beside = min(BESIDE, setting.offload_blocks) * block_bytes(self.denoiser, setting)
        text, eye = self.encoders.text_parameters() * setting.bytes_each, FLOAT32 * self.encoders.eye_parameters()
        called = 0 if self.base.small else max(text, eye)
        live = max(
            denoising_bytes(self.denoiser, tokens, targets=train.targets, rank=train.rank, setting=setting),
            self._encoding(frames, size) - beside,
            self._decoding(frames, size) - beside,
            called - beside,
        )
        adapters = self.looks * 4 * self.denoiser.adapter_parameters(train.rank, train.targets)
        everything = encoder_bytes(self.encoders, setting.bytes_each)
        return Memory(
            weights=base_weights(self.denoiser, setting), adapter=adapters, live=live,
            encoders=everything if self.base.small else FLOAT32 * self.encoders.vae_parameters(),
        )  # fmt: skip

    def segment(self, frames: int) -> tuple[int, Operations]:
        """Passes through the denoiser for one segment, and the work of all of them and of decoding."""
        shoot, train, size = self.config.shoot, self.config.train, self.shoot_size
        forwards = shoot.steps * (2 if shoot.guidance > 1 else 1)
        tokens = self.denoiser.tokens(frames, *size)
        work = forward(self.denoiser, tokens, rank=train.rank, targets=train.targets) * forwards
        return forwards, work + Operations(convolution=video_decoding(self.encoders, frames, *size))

    def segment_seconds(self, card: Card, setting: Setting, frames: int) -> float:
        setting = replace(setting, compiled=False)  # that is said of training
        forwards, work = self.segment(frames)
        tokens = self.denoiser.tokens(frames, *self.shoot_size)
        moved = elementwise_bytes(self.denoiser, tokens, setting, forwards)
        computing = work_seconds(work, card, moved=moved)
        return with_weights(computing, self.denoiser, card, setting=setting, passes=forwards)

    def step(self, card: Card, setting: Setting | None = None) -> float:
        """Seconds of an optimiser step of the project's clips; a share of the steps may be on one-frame windows."""
        train, setting = self.config.train, setting or self.on(card)
        single = train.augment.single_frame

        def seconds(tokens: int) -> float:
            return step_seconds(
                self.denoiser, tokens, card, rank=train.rank, targets=train.targets, setting=setting
            )  # fmt: skip

        mean = (1 - single) * seconds(self.tokens) + single * seconds(self.denoiser.tokens(1, *self.train_size))
        return mean * train.accumulate * train.batch / setting.batch

    def choices(self, card: Card) -> list[Fit]:
        """All settings of a training step of the same clips, fastest first."""
        train = self.config.train
        batches = sorted({1, train.batch}, reverse=True)

        def seconds(setting: Setting) -> float:
            one = step_seconds(
                self.denoiser, self.tokens, card, rank=train.rank, targets=train.targets, setting=setting
            )  # fmt: skip
            return one * train.batch * train.accumulate / setting.batch

        plain = list(settings(self.denoiser, choices_of(self.base), batches=batches, like=self.setting))
        mixed = [self._least(setting, card) for setting in plain if setting.checkpointing == "selective"]
        return fits([*plain, *(setting for setting in mixed if setting.kept_blocks)], self.memory, seconds)

    def shooting_choices(self, card: Card, frames: int) -> list[Fit]:
        """All settings of segments of some frames, fastest first."""
        choices = replace(choices_of(self.base), checkpointing=("full",))  # means nothing here
        return fits(
            settings(self.denoiser, choices, batches=(1,), like=self.setting),
            lambda setting: self.shooting(setting, frames),
            lambda setting: self.segment_seconds(card, setting, frames),
        )


def setting_of(config: Config, *, small: bool) -> Setting:
    """The choices of a project. The only place that reads these settings."""
    train, model = config.train, config.model
    return Setting(
        checkpointing="full" if train.checkpointing == "auto" else train.checkpointing, storage=model.storage,
        offload_blocks=0 if small else model.offload_blocks, batch=train.batch, products=train.products,
        bytes_each=bytes_each(config, small=small), compiled=train.compile,
    )  # fmt: skip


def choices_of(base: Release) -> Choices:
    """What this version can be told; on the CPU, where small models are meant to run, host memory is all there is."""
    return Choices(
        checkpointing=get_args(Checkpointing),
        storage=get_args(ModelSection.model_fields["storage"].annotation),
        offload=not base.small,
    )


def in_words(setting: Setting, config: Config, *, training: bool = True) -> str:
    """A setting as the options that choose it."""
    mode = "auto" if setting.kept_blocks else setting.checkpointing
    # where it is "auto" it finds the least that fits by itself
    words = [f"train.checkpointing={mode}"] if training and config.train.checkpointing != "auto" else []
    if setting.storage != "plain" or setting.storage != config.model.storage:
        words.append(f"model.storage={setting.storage}")
    if setting.offload_blocks or config.model.offload_blocks:
        words.append(f"model.offload_blocks={setting.offload_blocks}")
    if training and setting.batch != config.train.batch:
        words.append(f"train.batch={setting.batch}")
        words.append(f"train.accumulate={config.train.accumulate * config.train.batch // setting.batch}")
    if training and setting.offload_blocks and config.train.compile:
        words.append("train.compile=false")
    return " ".join(words) or "as it is"


def shapes_of(project: Project) -> tuple[PlannedRun | None, list[str]]:
    """The model's shapes from its own files, or Wan2.1 14B's where they are not there yet."""
    model = project.config.model
    found: list[str] = []
    try:
        base = model.base()
    except CinetuneError as error:
        base, found = find_release(model.family), [str(error)]
    try:
        folder = model_folder(model)
        weights.need_folder(folder)
        with weights.built_from(folder):
            configs = [weights.read_config(folder, f"{part}/config.json") for part in _CONFIGS]
            encoders = encoders_of(*configs[1:])
            denoiser = denoiser_of(configs[0], image_tokens=encoders.eye_tokens, multiple=base.multiple)
    except CinetuneError as error:
        found.append(str(error))
        if model.family not in _PUBLISHED:
            return None, found
        denoiser, encoders = _PUBLISHED[model.family]
        return PlannedRun(project=project, base=base, denoiser=denoiser, encoders=encoders), found
    return PlannedRun(project=project, base=base, denoiser=denoiser, encoders=encoders), found


def bytes_each(config: Config, *, small: bool) -> int:
    """Bytes of a number in the type that the denoiser computes in; `auto` is float32 on a CPU."""
    wide = config.model.dtype == "float32" or (config.model.dtype == "auto" and small)
    return 4 if wide else 2
