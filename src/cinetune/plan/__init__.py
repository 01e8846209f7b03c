"""What a run would cost, worked out before anything is downloaded or started, and what to change when memory runs out.

The arithmetic is `cinetune.cost`'s; here it meets the project. The numbers are calculated, not measured.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from cinetune.config import MODEL_GEOMETRY
from cinetune.cost.cards import CARDS, CPU, MARGIN, Fit, cheapest, elementwise_bytes, work_seconds
from cinetune.cost.memory import encoder_bytes
from cinetune.cost.operations import (
    Work,
    forward,
    image_encoding,
    text_encoding,
    training,
    video_decoding,
    video_encoding,
)
from cinetune.errors import CinetuneError, StoreError, out_of_memory
from cinetune.models import weights
from cinetune.pipeline import Row, status
from cinetune.plan.run import Run, bytes_each, in_words, shapes_of, size_of
from cinetune.store import Project

__all__ = ["SIZES", "Plan", "explain_shortage", "make_plan"]

SIZES = (24, 48, 80, 141)
"""Gigabytes of the cards that a project is fitted to; the first card of that size gives the time."""

GB = 1e9
VAE_PARAMETERS = {"wan21": 126_892_531, "pocket": 1_000_000}


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What `cinetune plan` shows. `facts` are (what, how much) pairs in words; `memory` the parts of a training step in
    GB; `cards` and `fits` tables whose first row names the columns; `warnings` what stands in the way."""

    stages: tuple[Row, ...]
    settings: dict[str, tuple[Any, str]]
    facts: tuple[tuple[str, str], ...]
    memory: tuple[tuple[str, float], ...]
    cards: tuple[tuple[str, ...], ...]
    fits: tuple[tuple[str, ...], ...]
    warnings: tuple[str, ...]


def make_plan(project: Project) -> Plan:
    """The plan of a project; reads small files only, and needs neither weights nor footage."""
    config = project.config
    run, warnings = shapes_of(project)
    try:
        shots = [shot.seconds for shot in project.shots().shots]
    except CinetuneError as error:
        shots, warnings = [], [*warnings, f"shots.toml: {error.what}"]
    facts: list[tuple[str, str]] = []
    if run is not None:
        facts = [*_model_facts(run), *_training_facts(run), *_shooting_facts(run, shots)]
    values = config.model_dump(mode="json")
    chosen: dict[str, tuple[Any, str]] = {}
    for key, origin in project.origins.items():
        value = values
        for part in key.split("."):
            value = value[part]
        chosen[key] = (value, origin)
    return Plan(
        stages=tuple(status(project)), settings=chosen, facts=tuple(facts), warnings=tuple(warnings),
        memory=_memory_rows(run) if run else (), cards=_card_rows(run, shots) if run else (),
        fits=_fit_rows(run) if run else (),
    )  # fmt: skip


def _model_facts(run: Run) -> list[tuple[str, str]]:
    facts = [("model", f"{run.config.model.family}, denoiser of {_count(run.denoiser.parameters())} parameters")]
    if run.config.model.family == "wan21":
        source = next(iter(weights.SOURCES.values()))
        facts.append(("weights on disk", f"about {source.gib:.0f} GiB ({source.licence})"))
    return facts


def _training_facts(run: Run) -> list[tuple[str, str]]:
    config, train, shape = run.config, run.config.train, run.denoiser
    frames, (height, width) = config.prepare.frames, size_of(config.prepare.height, config.prepare.width, config)
    prepared = run.project.store.load_stage("prepare")
    windows = len(prepared.groups["windows"]) if prepared else 0
    kind = run.setting.checkpointing
    step = training(shape, run.tokens, rank=train.rank, targets=train.targets, checkpointing=kind).total
    trained = shape.adapter_parameters(train.rank, train.targets)
    looks = 2 if train.plain_arm else 1
    return [
        ("training window", f"{frames} frames of {width}x{height} = {run.tokens:,} tokens"),
        ("windows", f"{windows}" if prepared else "known after `cinetune prepare`"),
        (
            "cache on disk",
            _disk(_window_bytes(run) * windows) if prepared else f"{_window_bytes(run) / 1e6:.1f} MB each",
        ),
        ("caching, a window", _ops(_caching_work(run).total)),
        ("memory in caching", f"weights of the encoders {_encoder_bytes(run) / GB:.1f} GB, and their pictures"),
        ("adapter", f"rank {train.rank} on {train.targets}: {_count(trained)} parameters"),
        (
            "a training step",
            f"{_ops(step * train.accumulate * train.batch)} ({train.accumulate} x batch {train.batch})",
        ),
        ("training, at most", f"{train.steps} steps" + (f" for each of {looks} adapters" if looks > 1 else "")),
        ("memory in training", f"about {run.memory(run.setting).total / GB:.1f} GB"),
        ("checkpoints on disk", _disk(looks * 16 * trained)),
    ]


def _window_bytes(run: Run) -> int:
    """Latents and condition of one window in float32, its picture's tokens, and a caption of full length at most."""
    train, config = run.config.train, run.config
    height, width = size_of(config.prepare.height, config.prepare.width, config)
    area = height * width // (run.denoiser.multiple // 2) ** 2
    frames = 1 + (config.prepare.frames - 1) // run.denoiser.stride_time
    firsts = 1 + (train.augment.variants if train.augment.probability > 0 else 0)
    conditions = run.denoiser.channels_in - run.denoiser.channels_out
    cells = area * frames * (run.denoiser.channels_out + firsts * conditions)
    image = firsts * run.denoiser.image_tokens * run.denoiser.image_width
    return 4 * (cells + image) + bytes_each(config) * run.denoiser.text_tokens * run.denoiser.text_width


def _caching_work(run: Run) -> Work:
    """One window: the clip, each first frame with grey behind it, its picture's tokens, its caption."""
    train, config = run.config.train, run.config
    size = size_of(config.prepare.height, config.prepare.width, config)
    firsts = 1 + (train.augment.variants if train.augment.probability > 0 else 0)
    clips = (1 + firsts) * video_encoding(run.encoders, config.prepare.frames, *size)
    return Work(linear=clips + firsts * (image_encoding(run.encoders) + text_encoding(run.encoders)))


def _encoder_bytes(run: Run) -> int:
    return encoder_bytes(run.encoders, run.setting.bytes_each, VAE_PARAMETERS[run.config.model.family])


def _shooting_facts(run: Run, seconds: Sequence[float]) -> list[tuple[str, str]]:
    shoot = run.config.shoot
    height, width = size_of(shoot.height, shoot.width, run.config)
    if not seconds:
        return [("shooting", "known once shots.toml names shots")]
    arms, segments, lengths = _takes(run, seconds)
    forwards, segment = _segment(run)
    masters = sum(lengths) * arms * shoot.seeds * height * width * 6
    return [
        ("a segment", f"{shoot.segment_frames} frames of {width}x{height} in {forwards} passes: {_ops(segment.total)}"),
        ("shots", f"{len(seconds)} in {arms} arms x {shoot.seeds} seeds = {segments} segments"),
        ("masters on disk", f"about {masters / 2**30:.2f} GiB"),
    ]


def _takes(run: Run, seconds: Sequence[float]) -> tuple[int, int, list[int]]:
    """Arms, segments of all arms and seeds, and the frames of every shot."""
    shoot = run.config.shoot
    rate = MODEL_GEOMETRY[run.config.model.family].rate
    arms = 3 if run.config.train.plain_arm else 2
    lengths = [max(1, math.ceil(second * rate)) for second in seconds]
    joined = [max(1, math.ceil((length - 1) / (shoot.segment_frames - 1))) for length in lengths]
    return arms, sum(joined) * arms * shoot.seeds, lengths


def _segment(run: Run) -> tuple[int, Work]:
    """Passes through the denoiser for one segment, and the work of all of them and of decoding."""
    shoot = run.config.shoot
    size = size_of(shoot.height, shoot.width, run.config)
    forwards = shoot.steps * (2 if shoot.guidance > 1 else 1)
    work = forward(run.denoiser, run.denoiser.tokens(shoot.segment_frames, *size)) * forwards
    return forwards, work + Work(linear=video_decoding(run.encoders, shoot.segment_frames, *size))


def _memory_rows(run: Run) -> tuple[tuple[str, float], ...]:
    """GB of each part of a training step."""
    memory = run.memory(run.setting)
    parts = {
        "base weights": memory.weights, "adapter, gradients, AdamW": memory.adapter,
        "kept for the backward": memory.kept, "one block at work": memory.live, "together": memory.total,
    }  # fmt: skip
    return tuple((name, round(size / GB, 3)) for name, size in parts.items())


def _card_rows(run: Run, seconds: Sequence[float]) -> tuple[tuple[str, ...], ...]:
    """Seconds a step and hours on every card."""
    shoot, train = run.config.shoot, run.config.train
    rows: list[tuple[str, ...]] = [("card", "a step", "training, at most", "shooting", "rates")]
    forwards, work = _segment(run)
    tokens = run.denoiser.tokens(shoot.segment_frames, *size_of(shoot.height, shoot.width, run.config))
    moved = elementwise_bytes(run.denoiser, tokens, run.setting.bytes_each, forwards)
    segments = _takes(run, seconds)[1]
    for card in run.cards:
        step = run.step(card)
        whole = step * train.steps * (2 if train.plain_arm else 1)
        shot = _time(segments * work_seconds(work, card, moved=moved)) if seconds else "-"
        rows.append((card.name, f"{step:.2f} s", _time(whole), shot, card.source))
    return tuple(rows)


def _fit_rows(run: Run) -> tuple[tuple[str, ...], ...]:
    """For every size of card the fastest setting that fits, or why none does."""
    rows: list[tuple[str, ...]] = [("card", "needs", "a step", "fastest setting that fits")]
    for size in SIZES:
        card = CPU if run.config.model.family == "pocket" else next(c for c in CARDS if c.gigabytes == size)
        rows.append(_fit_row(run, f"{size} GB", run.choices(card), size * GB * MARGIN))
    return tuple(rows)


def _fit_row(run: Run, name: str, found: Sequence[Fit], limit: float) -> tuple[str, ...]:
    best = cheapest(found, limit)
    if best is not None:
        return name, f"{best.memory.total / GB:.1f} GB", f"{best.seconds:.2f} s", in_words(best.setting, run.config)
    least = min(found, key=lambda fit: fit.memory.total)
    parts = f"{least.memory.weights / GB:.1f} GB of weights, {least.memory.kept / GB:.1f} GB kept"
    why = f"none: {in_words(least.setting, run.config)} still needs {parts}; use fewer frames or a smaller size"
    return name, f"{least.memory.total / GB:.1f} GB", "-", why


@contextmanager
def explain_shortage(project: Project) -> Iterator[None]:
    """Memory that runs out inside becomes a `StoreError` with what was asked for, and the settings that need less."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not out_of_memory(error):
            raise
        run, _ = shapes_of(project)
        remedy = "use fewer frames or a smaller size" if run is None else _less(run)
        raise StoreError("memory ran out; nothing that was finished is lost", remedy=remedy) from error


def _less(run: Run) -> str:
    """The memory table, and the fastest settings below what was tried, as text."""
    tried = run.memory(run.setting)
    size = _memory_here(run.config.model.device)
    card = CPU if run.config.model.family == "pocket" else min(CARDS, key=lambda card: abs(card.gigabytes - size / GB))
    lines = [f"a training step was expected to need, in GB, of the {size / GB:.0f} here:"]
    lines += [f"  {name:28}{value:10.3f}" for name, value in _memory_rows(run)]
    below = [fit for fit in run.choices(card) if fit.memory.total < tried.total]
    fitting = [fit for fit in below if fit.memory.total <= size * MARGIN]
    lines.append("training settings that need less, fastest first:")
    for fit in (fitting or below)[:4]:
        lines.append(
            f"  {fit.memory.total / GB:8.3f} GB  {fit.seconds:9.2f} s a step  {in_words(fit.setting, run.config)}"
        )
    if not below:
        lines.append("  none: this is the leanest already")
    lines.append(
        "fewer frames or a smaller picture always need less: prepare.frames, prepare.height, prepare.width for"
    )
    lines.append("training; shoot.segment_frames, shoot.height, shoot.width, shoot.workers for shooting")
    return "\n         ".join(lines)


def _memory_here(device: str) -> float:
    """Bytes of the GPU in use, or of this machine."""
    import torch

    if device != "cpu" and torch.cuda.is_available():
        return float(torch.cuda.get_device_properties(torch.cuda.current_device()).total_memory)
    return float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))


def _disk(size: float) -> str:
    return f"about {size / GB:.2f} GB"


def _time(seconds: float) -> str:
    return f"{seconds / 60:.1f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _count(value: float) -> str:
    return f"{value / 1e9:.2f} billion" if value >= 1e9 else f"{value / 1e6:.2f} million"


def _ops(flops: float) -> str:
    for unit, size in (("EFLOP", 1e18), ("PFLOP", 1e15), ("TFLOP", 1e12)):
        if flops >= size:
            return f"{flops / size:.2f} {unit}"
    return f"{flops / 1e9:.1f} GFLOP"
