"""What an optimiser step sees, read one step ahead: while the card works on one, a thread reads the windows of the next
and draws its noise into pinned memory, from where copying waits for nothing.

Everything here is a function of the step's number, so it does not matter who computes it, or when.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from cinetune.models.family import Batch
from cinetune.runtime import generator
from cinetune.sections import TrainSection
from cinetune.training.data import Picked, WindowFile, batch_shape, load_batch, pick
from cinetune.training.step import Draws, draw

__all__ = ["Seen", "look", "looking_ahead"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """One optimiser step: the windows picked, all draws of the step, and of each micro-batch of this process the batch
    and its draws.
    """

    picked: Picked
    files: tuple[WindowFile, ...]
    draws: Draws
    parts: tuple[tuple[Batch, Draws], ...]


def look(
    step: int, files: Sequence[WindowFile], recipe: TrainSection, rows: Sequence[slice], *, pin: bool = False
) -> Seen:
    """Windows, condition variants, noise levels, noise and dropped captions of step `step` (from 0), on the CPU.

    Raises `ModelError` when the windows differ in shape.
    """
    available = min(file.variants for file in files)
    picked = pick(
        step, count=recipe.batch * recipe.accumulate, windows=len(files), available=available, augment=recipe.augment,
        seed=recipe.seed,
    )  # fmt: skip
    chosen = tuple(files[index] for index in picked.windows)
    single = picked.single_frame
    draws = draw(batch_shape(chosen, single_frame=single), generator(recipe.seed, "train/noise", step), recipe)
    parts: list[tuple[Batch, Draws]] = []
    for part in rows:
        batch = load_batch(chosen[part], picked.variants[part], single_frame=single)
        mine = draws.part(part)
        parts.append((_pinned_batch(batch), _pinned(mine)) if pin else (batch, mine))
    return Seen(picked=picked, files=chosen, draws=draws, parts=tuple(parts))


@contextmanager
def looking_ahead(make: Callable[[int], Seen]) -> Iterator[Callable[[int], Seen]]:
    """`make` for one step after the other, each begun in a thread when the one before it is handed out. An error of
    reading is raised where that step is asked for.
    """
    with ThreadPoolExecutor(1, thread_name_prefix="read-ahead") as pool:
        waiting: dict[int, Future[Seen]] = {}

        def take(step: int) -> Seen:
            mine = waiting.pop(step, None) or pool.submit(make, step)
            found = mine.result()
            waiting[step + 1] = pool.submit(make, step + 1)
            return found

        try:
            yield take
        finally:
            pool.shutdown(cancel_futures=True)


def _pinned_batch(batch: Batch) -> Batch:
    cond = batch.cond
    fields: dict[str, Any] = {name: getattr(cond, name) for name in ("text_BLD", "image_BLD", "latent_BCfhw")}
    # in the type that the text has, which is the model's: converting on the card would wait for a second copy
    cond = replace(cond, **{name: _pin(value.to(cond.text_BLD.dtype)) for name, value in fields.items()})
    return Batch(latents_BCfhw=_pin(batch.latents_BCfhw), cond=cond)


def _pinned(draws: Draws) -> Draws:
    return Draws(
        sigma_B=_pin(draws.sigma_B), noise_BCfhw=_pin(draws.noise_BCfhw), drop_B=_pin(draws.drop_B)
    )  # fmt: skip


def _pin(tensor: Tensor) -> Tensor:
    return tensor.contiguous().pin_memory() if torch.cuda.is_available() else tensor
