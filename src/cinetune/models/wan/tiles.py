"""A VAE pass in tiles, for cards that cannot hold a whole picture: less memory, and no longer the same picture.

Each tile is taken through all frames by itself, so only its own history is in memory; where tiles overlap, their
results are faded into each other. What a convolution sees ends at its tile, so results differ from a whole pass near
the edges (docs/numerics.md says by how much).
"""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction

import torch
from torch import Tensor

__all__ = ["OVERLAP", "in_tiles", "spans"]

OVERLAP = Fraction(1, 4)
"""Of a tile's side, at least."""


def spans(length: int, tile: int) -> list[tuple[int, int]]:
    """Where tiles of one size begin and end along a side: as few as overlap by a quarter or more, evenly laid."""
    if tile >= length:
        return [(0, length)]
    step = tile - int(tile * OVERLAP)
    count = -(-(length - tile) // step) + 1
    starts = [round(number * (length - tile) / (count - 1)) for number in range(count)]
    return [(start, start + tile) for start in starts]


def in_tiles(x_BCthw: Tensor, tile: int, scale: Fraction, work: Callable[[Tensor], Tensor]) -> Tensor:
    """`work` on tiles of at most `tile` x `tile` of the input, joined, on the CPU in float32. `work` makes `scale`
    times the rows and columns of what it is given; of an input that it shrinks, tiles begin on the grid of the result.
    """
    grid = scale.denominator
    laid = (spans(length // grid, tile // grid) for length in x_BCthw.shape[3:])
    rows, columns = ([(a * grid, b * grid) for a, b in side] for side in laid)
    joined: Tensor | None = None
    weight = torch.zeros(1)
    for row in rows:
        for column in columns:
            made = work(x_BCthw[..., slice(*row), slice(*column)]).float().cpu()
            fade = _fade(row, rows, scale)[:, None] * _fade(column, columns, scale)
            if joined is None:
                sides = [int(length * scale) for length in x_BCthw.shape[3:]]
                joined, weight = made.new_zeros(*made.shape[:3], *sides), made.new_zeros(*sides)
            there = (..., *(slice(int(a * scale), int(b * scale)) for a, b in (row, column)))
            joined[there] += made * fade
            weight[there] += fade
    assert joined is not None
    return joined.div_(weight)


def _fade(span: tuple[int, int], others: list[tuple[int, int]], scale: Fraction) -> Tensor:
    """Weights along a side of a tile: 1, and rising from its edge as far as the tile before or after it reaches."""
    start, stop = span
    before = int(max((end - start for begin, end in others if begin < start), default=0) * scale)
    after = int(max((stop - begin for begin, _ in others if begin > start), default=0) * scale)
    weights = torch.ones(int((stop - start) * scale))
    weights[:before] *= (torch.arange(before) + 0.5) / max(before, 1)
    weights[len(weights) - after :] *= ((torch.arange(after) + 0.5) / max(after, 1)).flip(0)
    return weights
