"""The settled grade of a segment, carried back to the picture it starts from.

An image-to-video model holds its first frame to the picture it was given, so a look takes hold of the frames after it
first: the shot opens under-graded and jumps. What the look does is there to be read in the settled frames. It is fitted
as one colour transform and applied to the given picture, whose geometry is not touched (`regraded`), or to each of the
first pictures of the segment itself (`led`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
import torch
from torch import Tensor

from cinetune.metrics.checks import Array

__all__ = ["SETTLED", "colour_map", "led", "regraded", "settled_pixels"]

SETTLED = 5
"""The first frame is the given picture, the next four share one latent frame with nothing before them to lean on."""
_RIDGE = 1e-5
"""A little under the square of an 8-bit code value: colours that differ less are noise, and are not stretched."""
_PIXELS = 50_000


def colour_map(source_N3: Array, goal_N3: Array) -> tuple[Array, Array]:
    """The affine map `x @ A + b` (`A` 3x3, `b` 3) that gives colours the goal's mean and covariance and moves them
    least: the linear Monge-Kantorovich map (Pitie & Kokaram 2007), `A = S^-1/2 (S^1/2 G S^1/2)^1/2 S^-1/2`.

    A source of one colour is only shifted, and a grey one only toned: nothing tells how to stretch what is not there.
    """
    source, goal = np.asarray(source_N3, np.float64), np.asarray(goal_N3, np.float64)
    mean, goal_mean = source.mean(0), goal.mean(0)
    cov, goal_cov = np.cov(source.T), np.cov(goal.T)
    values, vectors = np.linalg.eigh(cov)
    seen = vectors[:, values > _RIDGE]
    root = _root(cov + _RIDGE * np.eye(3))
    inverse = np.linalg.inv(root)
    matrix = inverse @ _root(root @ (goal_cov + _RIDGE * np.eye(3)) @ root) @ inverse
    along = seen @ seen.T
    matrix = along @ matrix + np.eye(3) - along
    return matrix, goal_mean - mean @ matrix


def regraded(picture_HWC: Tensor, settled_N3: Array) -> Tensor:
    """The picture with the grade of the settled pixels, clipped to [0, 1]."""
    matrix, offset = colour_map(picture_HWC.double().reshape(-1, 3).numpy(), settled_N3)
    return torch.from_numpy(np.clip(picture_HWC.double().numpy() @ matrix + offset, 0, 1).astype(np.float32))


def settled_pixels(frames: list[Tensor]) -> Array:
    """Pixels `[N, 3]` of the settled frames of a segment (of its last one, if it is shorter), taken at even steps."""
    pixels = torch.cat([frame.reshape(-1, 3) for frame in frames[min(SETTLED, len(frames) - 1) :]])
    return pixels[:: max(1, len(pixels) // _PIXELS)].double().numpy()


def led(frames: Iterable[Tensor], group: int) -> Iterator[Tensor]:
    """The pictures of a segment, the first `SETTLED` of them in the grade of the `group` pictures that follow them: the
    nearest in time that are settled. The rest is untouched, and so is a segment with nothing behind them.
    """
    waiting: list[Tensor] = []
    rest = iter(frames)
    for frame in rest:
        waiting.append(frame)
        if len(waiting) == SETTLED + group:
            break
    if len(waiting) > SETTLED:
        goal = settled_pixels(waiting)
        waiting[:SETTLED] = [regraded(frame, goal) for frame in waiting[:SETTLED]]
    yield from waiting
    yield from rest


def _root(matrix: Array) -> Array:
    """The symmetric square root of a positive matrix."""
    values, vectors = np.linalg.eigh(matrix)
    return (vectors * np.sqrt(np.maximum(values, 0))) @ vectors.T
