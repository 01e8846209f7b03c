"""Cached windows as training batches, in an order that depends only on the seed and the step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor

from cinetune.errors import ModelError
from cinetune.files import EMPTY, LATENTS, TEXT, given, variants_in
from cinetune.models.family import Batch, Conditioning
from cinetune.models.wan.wan21 import pad_text
from cinetune.runtime import generator
from cinetune.sections import AugmentSection

__all__ = ["Picked", "WindowFile", "batch_shape", "check_finite", "load_batch", "load_empty", "pick", "window_file"]


@dataclass(frozen=True, slots=True, kw_only=True)
class WindowFile:
    """One cached window: `variants` re-graded conditions lie beside the original one. `shape` is that of its latents,
    `(C, f, h, w)`, and `image_tokens` how many its picture has.
    """

    id: str
    path: Path
    variants: int
    shape: tuple[int, ...]
    image_tokens: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Picked:
    """What one optimiser step trains on: positions in the list of windows, the condition variant of each (0 =
    original), and whether the whole step uses one-frame windows.
    """

    windows: tuple[int, ...]
    variants: tuple[int, ...]
    single_frame: bool


def window_file(window: str, path: Path) -> WindowFile:
    """Open a cached window, count its variants and read its shape."""
    with safe_open(path, framework="pt") as tensors:
        variants = variants_in(tensors.keys())
        shape = tuple(tensors.get_slice(LATENTS).get_shape())
        image = tensors.get_slice(given(0)[1]).get_shape()[0]
    return WindowFile(id=window, path=path, variants=variants, shape=shape, image_tokens=image)


def check_finite(file: WindowFile) -> None:
    """Raise `ModelError` for a window with NaN or infinity in it: one of them would reach every weight."""
    with safe_open(file.path, framework="pt") as tensors:
        for name in tensors.keys():  # noqa: SIM118  (safe_open is not a dict)
            if not torch.isfinite(tensors.get_tensor(name)).all():
                raise ModelError(
                    f"the cache of window {file.id} holds values that are not finite ({name})",
                    where=str(file.path),
                    remedy="delete that file and run `cinetune cache` again; if it stays so, look at the clip, or set "
                    'model.dtype = "float32"',
                )


def batch_shape(files: Sequence[WindowFile], *, single_frame: bool = False) -> tuple[int, ...]:
    """The shape `BCfhw` of the latents of a batch. Raises `ModelError` when the windows differ in shape."""
    shapes = {file.shape for file in files}
    if len(shapes) != 1:
        raise ModelError(
            f"windows of different shapes cannot share a step: {sorted(shapes)}",
            where=", ".join(file.id for file in files),
            remedy="prepare all windows at one size, or set train.batch = 1 and train.accumulate = 1",
        )
    channels, frames, rows, columns = files[0].shape
    return len(files), channels, 1 if single_frame else frames, rows, columns


def pick(step: int, *, count: int, windows: int, available: int, augment: AugmentSection, seed: int) -> Picked:
    """The `count` elements of optimiser step `step` (from 0): shuffled passes over all windows, without a gap between
    passes.

    `available` is the number of cached variants. A pure function of its arguments: a resumed run needs no sampler
    state.
    """
    order: list[int] = []
    shuffled: dict[int, list[int]] = {}
    for position in range(step * count, (step + 1) * count):
        epoch, place = divmod(position, windows)
        if epoch not in shuffled:
            shuffled[epoch] = torch.randperm(windows, generator=generator(seed, "train/order", epoch)).tolist()
        order.append(shuffled[epoch][place])
    gen = generator(seed, "train/augment", step)
    changed = torch.rand(count, generator=gen) < augment.probability
    chosen = torch.randint(1, max(available, 1) + 1, (count,), generator=gen)
    single = bool(torch.rand(1, generator=gen) < augment.single_frame)
    variants = tuple(int(number) if change and available else 0 for number, change in zip(chosen, changed, strict=True))
    return Picked(windows=tuple(order), variants=variants, single_frame=single)


def load_batch(files: Sequence[WindowFile], variants: Sequence[int], *, single_frame: bool = False) -> Batch:
    """Read a batch on the CPU. With `single_frame` only the first latent frame is read, which is exact: the VAE is
    causal.

    Raises `ModelError` when the windows differ in shape.
    """
    batch_shape(files)
    latents, conds, images, texts = [], [], [], []
    for file, variant in zip(files, variants, strict=True):
        condition, image = given(variant)
        with safe_open(file.path, framework="pt") as tensors:
            latents.append(_frames(tensors, LATENTS, single_frame))
            conds.append(_frames(tensors, condition, single_frame))
            images.append(tensors.get_tensor(image))
            texts.append(tensors.get_tensor(TEXT))
    cond = Conditioning(text_BLD=pad_text(texts), image_BLD=torch.stack(images), latent_BCfhw=torch.stack(conds))
    return Batch(latents_BCfhw=torch.stack(latents), cond=cond)


def load_empty(path: Path) -> Tensor:
    """The embedding of the empty prompt, padded, `[1, 512, D]`."""
    with safe_open(path, framework="pt") as tensors:
        return pad_text([tensors.get_tensor(EMPTY)])


def _frames(tensors: safe_open, name: str, single_frame: bool) -> Tensor:
    return tensors.get_slice(name)[:, :1] if single_frame else tensors.get_tensor(name)
