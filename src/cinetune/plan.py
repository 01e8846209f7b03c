"""What a run would cost, worked out before anything is downloaded or started.

Operations are counted from the shape of the denoiser; hours follow from the effective rates in `RATES`. These are
estimates: expect 30 % either way on a known GPU.

Counting, for N tokens (latent frames x patches), width d, feed-forward f, L blocks, T text and I image tokens, two
operations per multiply-add:
    forward  = L (2N (6d^2 + 2df)  +  4N^2 d  +  4N (T + I) d  +  4d^2 (T + I))  +  embeddings
    training = linear layers: forward, recompute (with checkpointing), and one backward, as frozen weights need no
               gradient of their own; attention: forward, recompute, and 2.5 forwards for the backward
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from cinetune.config import MODEL_GEOMETRY, Config
from cinetune.errors import CinetuneError
from cinetune.models import model_folder, weights
from cinetune.pipeline import Row, status
from cinetune.store import Project

__all__ = ["RATES", "WAN21", "Denoiser", "Plan", "make_plan"]

RATES = {"wan21": {"one A100 80 GB": 163e12, "one H200": 375e12}, "pocket": {"two CPU cores": 100e9}}
"""Effective operations per second in training and sampling. wan21: bfloat16 with torch's own attention, from published
timings; pocket: float32, timed on a cloud machine."""

TARGET_LAYERS = {"cross": 6, "cross-text": 4, "attention": 10, "all-linear": 12}
"""Adapted layers in a block for each value of `train.targets`; two of `all-linear` are d x f, the others d x d."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Denoiser:
    """Shape of a Wan2.1 image-to-video denoiser. `multiple`: pixels per side of a token; `stride_time`: frames of a
    latent one."""

    layers: int
    width: int
    ffn: int
    channels_in: int
    channels_out: int
    text_width: int
    image_width: int
    frequencies: int
    text_tokens: int = 512
    image_tokens: int = 257
    multiple: int = 16
    stride_time: int = 4

    def parameters(self) -> int:
        """Parameters of the whole denoiser, norms and embeddings included."""
        d, f, square = self.width, self.ffn, self.width * (self.width + 1)
        block = 10 * square + 5 * d + 2 * d * f + f + d + 2 * d + 6 * d
        patch = self.channels_in * 4 * d + d
        clock = self.frequencies * d + d + square + 6 * square
        text = self.text_width * d + d + square
        image = 2 * self.image_width + self.image_width * (self.image_width + 1) + self.image_width * d + d + 2 * d
        out = self.channels_out * 4 * (d + 1) + 2 * d
        return self.layers * block + patch + clock + text + image + out

    def adapter_parameters(self, rank: int, targets: str) -> int:
        """Trained parameters of a LoRA: `rank * (in + out)` for each adapted layer."""
        wide = 2 if targets == "all-linear" else 0
        square = TARGET_LAYERS[targets] - wide
        return self.layers * rank * (square * 2 * self.width + wide * (self.width + self.ffn))

    def tokens(self, frames: int, height: int, width: int) -> int:
        latent_frames = 1 + (frames - 1) // self.stride_time
        return latent_frames * (height // self.multiple) * (width // self.multiple)

    def _parts(self, tokens: int) -> tuple[float, float, float, float]:
        """Operations of one forward: linear layers, keys and values of text and image, attention, embeddings."""
        d, context = self.width, self.text_tokens + self.image_tokens
        linear = 2.0 * tokens * self.layers * (6 * d * d + 2 * d * self.ffn)
        keys = 4.0 * self.layers * d * d * context
        attention = 4.0 * tokens * (tokens + context) * d * self.layers
        patches = 8.0 * tokens * d * (self.channels_in + self.channels_out)
        prompt = 2.0 * self.text_tokens * d * (self.text_width + d)
        picture = 2.0 * self.image_tokens * self.image_width * (self.image_width + d)
        clock = 2.0 * d * (self.frequencies + 7 * d)
        return linear, keys, attention, patches + prompt + picture + clock

    def forward_flops(self, tokens: int) -> float:
        return sum(self._parts(tokens))

    def training_flops(self, tokens: int, *, checkpointing: bool) -> float:
        """One LoRA step on one window, cross-attention targets; the first block's self-attention needs no backward."""
        linear, keys, attention, embeddings = self._parts(tokens)
        again = 1 if checkpointing else 0
        d = self.width
        spared = 10.0 * tokens * d * d + 2.5 * 4.0 * tokens * tokens * d
        return linear * (2 + again) + attention * (3.5 + again) + keys * (1 + again) + embeddings - spared

    def training_bytes(self, tokens: int, *, rank: int, targets: str, bytes_each: int, checkpointing: bool) -> float:
        """Peak memory of one window: weights, adapter with AdamW in float32, kept activations, one live block.

        A block keeps 23.75 values per token and unit of width for its backward, a checkpoint one.
        """
        block = 23.75 * self.width * bytes_each
        kept = self.width * bytes_each if checkpointing else block
        adapter = 16.0 * self.adapter_parameters(rank, targets)
        live = block if checkpointing else 0.0
        work = 4.0 * self.ffn * bytes_each
        return self.parameters() * bytes_each + adapter + tokens * (self.layers * kept + live + work)


WAN21 = Denoiser(
    layers=40, width=5120, ffn=13824, channels_in=36, channels_out=16, text_width=4096, image_width=1280,
    frequencies=256,
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What `cinetune plan` shows. `facts` are (what, how much) pairs in words; `warnings` what stands in the way."""

    stages: tuple[Row, ...]
    settings: dict[str, tuple[Any, str]]
    facts: tuple[tuple[str, str], ...]
    warnings: tuple[str, ...]


def make_plan(project: Project) -> Plan:
    """The plan of a project; reads small files only, and needs neither weights nor footage."""
    config = project.config
    denoiser, warnings = _denoiser(config)
    try:
        shots = [shot.seconds for shot in project.shots().shots]
    except CinetuneError as error:
        shots, warnings = [], [*warnings, f"shots.toml: {error.what}"]
    facts: list[tuple[str, str]] = []
    if denoiser is not None:
        facts = [*_model_facts(config, denoiser), *_training_facts(project, denoiser)]
        facts += _shooting_facts(config, denoiser, shots)
    values = config.model_dump(mode="json")
    settings: dict[str, tuple[Any, str]] = {}
    for key, origin in project.origins.items():
        value = values
        for part in key.split("."):
            value = value[part]
        settings[key] = (value, origin)
    return Plan(stages=tuple(status(project)), settings=settings, facts=tuple(facts), warnings=tuple(warnings))


def _denoiser(config: Config) -> tuple[Denoiser | None, list[str]]:
    """The denoiser's shape from its own files, or Wan2.1 14B where that is not there yet."""
    geometry = MODEL_GEOMETRY[config.model.family]
    try:
        folder = model_folder(config.model)
        weights.need_folder(folder)
    except CinetuneError as error:
        return WAN21 if config.model.family == "wan21" else None, [str(error)]
    shape = _json(folder / "transformer" / "config.json")
    eye = _json(folder / "image_encoder" / "config.json")
    side = eye["image_size"] // eye["patch_size"]
    known = Denoiser(
        layers=shape["num_layers"], width=shape["num_attention_heads"] * shape["attention_head_dim"],
        ffn=shape["ffn_dim"], channels_in=shape["in_channels"], channels_out=shape["out_channels"],
        text_width=shape["text_dim"], image_width=shape["image_dim"], frequencies=shape["freq_dim"],
    )  # fmt: skip
    return replace(known, image_tokens=side * side + 1, multiple=geometry.multiple), []


def _json(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8"))


def _bytes_each(config: Config) -> int:
    wide = config.model.dtype == "float32" or (config.model.dtype == "auto" and config.model.family == "pocket")
    return 4 if wide else 2


def _size(height: int, width: int, config: Config) -> tuple[int, int]:
    geometry = MODEL_GEOMETRY[config.model.family]
    return (height, width) if height and width else (geometry.height, geometry.width)


def _model_facts(config: Config, denoiser: Denoiser) -> list[tuple[str, str]]:
    count = denoiser.parameters()
    facts = [("model", f"{config.model.family}, denoiser of {_count(count)} parameters")]
    if config.model.family == "wan21":
        source = next(iter(weights.SOURCES.values()))
        facts.append(("weights on disk", f"about {source.gib:.0f} GiB ({source.licence})"))
    return facts


def _training_facts(project: Project, denoiser: Denoiser) -> list[tuple[str, str]]:
    config = project.config
    train, frames = config.train, config.prepare.frames
    height, width = _size(config.prepare.height, config.prepare.width, config)
    tokens = denoiser.tokens(frames, height, width)
    prepared = project.store.load_stage("prepare")
    windows = len(prepared.groups["windows"]) if prepared else 0
    single = train.augment.single_frame
    again = train.checkpointing != "none"
    each = (1 - single) * denoiser.training_flops(tokens, checkpointing=again)
    each += single * denoiser.training_flops(denoiser.tokens(1, height, width), checkpointing=again)
    looks = 2 if train.plain_arm else 1
    step = each * train.batch * train.accumulate
    memory = denoiser.training_bytes(
        tokens * train.batch, rank=train.rank, targets=train.targets, bytes_each=_bytes_each(config),
        checkpointing=again,
    )  # fmt: skip
    trained = denoiser.adapter_parameters(train.rank, train.targets)
    return [
        ("training window", f"{frames} frames of {width}x{height} = {tokens:,} tokens"),
        ("windows", f"{windows}" if prepared else "known after `cinetune prepare`"),
        ("adapter", f"rank {train.rank} on {train.targets}: {_count(trained)} parameters"),
        ("a training step", f"{_ops(step)} ({train.accumulate} x batch {train.batch})"),
        ("training, at most", f"{train.steps} steps: {_hours(step * train.steps * looks, config)}"),
        ("memory in training", f"about {memory / 2**30:.1f} GiB"),
    ]


def _shooting_facts(config: Config, denoiser: Denoiser, seconds: Sequence[float]) -> list[tuple[str, str]]:
    shoot, geometry = config.shoot, MODEL_GEOMETRY[config.model.family]
    height, width = _size(shoot.height, shoot.width, config)
    tokens = denoiser.tokens(shoot.segment_frames, height, width)
    if not seconds:
        return [("shooting", "known once shots.toml names shots")]
    forwards = shoot.steps * (2 if shoot.guidance > 1 else 1)
    segment = denoiser.forward_flops(tokens) * forwards
    arms = 3 if config.train.plain_arm else 2
    lengths = [max(1, math.ceil(second * geometry.rate)) for second in seconds]
    joined = [max(1, math.ceil((length - 1) / (shoot.segment_frames - 1))) for length in lengths]
    takes = arms * shoot.seeds
    total = segment * sum(joined) * takes
    masters = sum(lengths) * takes * height * width * 6
    return [
        ("a segment", f"{shoot.segment_frames} frames of {width}x{height} in {forwards} passes: {_ops(segment)}"),
        ("shots", f"{len(seconds)} in {arms} arms x {shoot.seeds} seeds = {sum(joined) * takes} segments"),
        ("shooting", _hours(total, config)),
        ("masters on disk", f"about {masters / 2**30:.2f} GiB"),
    ]


def _hours(flops: float, config: Config) -> str:
    """Time on each known device."""
    return "; ".join(f"{_time(flops / rate)} on {name}" for name, rate in RATES[config.model.family].items())


def _time(seconds: float) -> str:
    return f"{seconds / 60:.1f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _count(value: float) -> str:
    return f"{value / 1e9:.2f} billion" if value >= 1e9 else f"{value / 1e6:.2f} million"


def _ops(flops: float) -> str:
    for unit, size in (("EFLOP", 1e18), ("PFLOP", 1e15), ("TFLOP", 1e12)):
        if flops >= size:
            return f"{flops / size:.2f} {unit}"
    return f"{flops / 1e9:.1f} GFLOP"
