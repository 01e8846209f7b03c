"""What fits a card, and what to change when memory has run out."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from cinetune.cost.cards import CARDS, CPU, MARGIN, Card, Fit, cheapest
from cinetune.cost.memory import Memory
from cinetune.errors import StoreError, out_of_memory
from cinetune.pipeline import status
from cinetune.plan.run import PlannedRun, in_words, shapes_of
from cinetune.store import Project

__all__ = ["GB", "SIZES", "amount", "explain_shortage", "fit_rows", "memory_rows"]

SIZES = (24, 48, 80, 141)
"""Gigabytes of the cards that a project is fitted to; the first card of that size gives the time."""

GB = 1e9
SMALLER = "fewer frames or a smaller picture always need less: {}.{}, {}.height, {}.width"


def memory_rows(memory: Memory) -> tuple[tuple[str, float], ...]:
    """GB of each part that there is."""
    parts = {
        "denoiser's weights": memory.weights, "adapter": memory.adapter,
        "weights of the other networks": memory.encoders, "kept for the backward": memory.kept,
        "at work": memory.live,
    }  # fmt: skip
    rows = [(name, round(size / GB, 3)) for name, size in parts.items() if size]
    return *rows, ("together", round(memory.total / GB, 3))


def fit_rows(run: PlannedRun) -> tuple[tuple[str, ...], ...]:
    """For every size of card the fastest settings that fit, or why none do, stage by stage."""
    rows: list[tuple[str, ...]] = [("card", "stage", "needs", "time", "fastest setting that fits")]
    if run.base.small:
        return *rows, *_stage_rows(run, CPU.name, CPU, math.inf)
    for size in SIZES:
        card = next(card for card in CARDS if card.gigabytes == size)
        rows += _stage_rows(run, f"{size} GB ({card.name})", card, size * GB * MARGIN)
    return tuple(rows)


def _stage_rows(run: PlannedRun, name: str, card: Card, limit: float) -> Iterator[tuple[str, ...]]:
    caching = run.caching().total
    yield name, "cache", amount(caching), "-", "as it is" if caching <= limit else "none: use a smaller size"
    yield "", "train", *_fit_row(run, run.choices(card), limit, training=True)
    found = run.shooting_choices(card, run.config.shoot.segment_frames)
    yield "", "shoot", *_fit_row(run, found, limit, training=False)


def _fit_row(run: PlannedRun, found: Sequence[Fit], limit: float, *, training: bool) -> tuple[str, str, str]:
    best, unit = cheapest(found, limit), "a step" if training else "a segment"
    if best is not None:
        words = in_words(best.setting, run.config, training=training)
        return amount(best.memory.total), f"{best.seconds:.2f} s {unit}", words
    least = min(found, key=lambda fit: fit.memory.total)
    words = in_words(least.setting, run.config, training=training)
    why = f"none: the leanest is {words}; use fewer frames or a smaller size"
    return amount(least.memory.total), "-", why


def amount(size: float) -> str:
    if size >= GB:
        return f"{size / GB:.1f} GB"
    return f"{size / 1e6:.0f} MB" if size >= 1e6 else f"{size / 1e3:.0f} kB"


@contextmanager
def explain_shortage(project: Project, stage: str = "") -> Iterator[None]:
    """Memory that runs out inside becomes a `StoreError` with what was asked for, and the settings that need less.
    Without a name the `stage` is the first that is not done."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not out_of_memory(error):
            raise
        run, _ = shapes_of(project)
        name = stage or next((row.stage for row in status(project) if row.state != "done"), "")
        remedy = "use fewer frames or a smaller size" if run is None else _less(run, name)
        raise StoreError(
            f"memory ran out{f' in {name}' if name else ''}; nothing that was finished is lost", remedy=remedy
        ) from error


def _less(run: PlannedRun, stage: str) -> str:
    """The memory table of a stage, and the fastest settings below what was tried, as text."""
    size = _memory_here(run.config.model.device)
    card = CPU if run.base.small else min(CARDS, key=lambda card: abs(card.gigabytes - size / GB))
    match stage:
        case "train":
            lines = _table(run.memory(run.setting), "training", size)
            lines += _training_settings(run, card, size)
            lines.append(SMALLER.format("prepare", "frames", "prepare", "prepare"))
        case "cache":
            lines = _table(run.caching(), "encoding a window", size)
            lines.append(SMALLER.format("prepare", "frames", "prepare", "prepare"))
        case "keyframes" | "expand":
            shoot = run.config.shoot
            each = f", each of {shoot.at_once} workers," if shoot.at_once > 1 else ""
            lines = _table(run.shooting(run.setting, shoot.segment_frames), f"shooting{each}", size)
            lines += _shooting_settings(run, card, size)
            lines.append(SMALLER.format("shoot", "segment_frames", "shoot", "shoot"))
        case _:
            return "use fewer frames or a smaller size, and close what else uses memory"
    return "\n         ".join(lines)


def _table(memory: Memory, what: str, size: float) -> list[str]:
    lines = [f"{what} was expected to need, in GB, of the {size / GB:.0f} here:"]
    return lines + [f"  {name:30}{value:10.3f}" for name, value in memory_rows(memory)]


def _training_settings(run: PlannedRun, card: Card, size: float) -> list[str]:
    tried = run.memory(run.setting)
    options = [
        (fit.memory.total, f"{fit.seconds:9.2f} s a step  {in_words(fit.setting, run.config)}")
        for fit in _below(run.choices(card), tried, size)
    ]
    return _listed("training settings that need less, fastest first:", options, size)


def _shooting_settings(run: PlannedRun, card: Card, size: float) -> list[str]:
    """Quantised or offloaded weights, and shorter segments."""
    shoot, options = run.config.shoot, list[tuple[int, str]]()
    tried = run.shooting(run.setting, shoot.segment_frames)
    for frames in sorted({shoot.segment_frames, 33, 17}, reverse=True):
        if frames > shoot.segment_frames:
            continue
        words = f"shoot.segment_frames={frames} " if frames < shoot.segment_frames else ""
        for fit in _below(run.shooting_choices(card, frames), tried, size)[: 1 if words else 3]:
            told = in_words(fit.setting, run.config, training=False).replace("as it is", "")
            options.append((fit.memory.total, f"{fit.seconds:9.2f} s a segment  {words}{told}".rstrip()))
    lines = _listed("settings that need less, fastest first for each length:", options, size)
    return lines + (["shoot.workers=1 needs it only once"] if shoot.at_once > 1 else [])


def _below(found: Sequence[Fit], tried: Memory, size: float) -> list[Fit]:
    """Those that need less than what was tried; of them the ones that fit, where there are any. From fastest to
    slowest, each needs at least 5 % less than the one before it."""
    below = [fit for fit in found if fit.memory.total < tried.total]
    below = [fit for fit in below if fit.memory.total <= size * MARGIN] or below
    kept: list[Fit] = []
    for fit in below:
        if not kept or fit.memory.total <= 0.95 * kept[-1].memory.total:
            kept.append(fit)
    return kept[:5]


def _listed(title: str, options: Sequence[tuple[int, str]], size: float) -> list[str]:
    if not options:
        return [title, "  none: this is the leanest already"]
    if all(needs > size * MARGIN for needs, _ in options):
        title = title.removesuffix(":") + f" (none of them leaves {1 - MARGIN:.0%} free here):"
    return [title, *(f"  {needs / GB:8.3f} GB  {words}" for needs, words in options)]


def _memory_here(device: str) -> float:
    """Bytes of the GPU in use, or of this machine."""
    import torch

    if device != "cpu" and torch.cuda.is_available():
        return float(torch.cuda.get_device_properties(torch.cuda.current_device()).total_memory)
    return float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
