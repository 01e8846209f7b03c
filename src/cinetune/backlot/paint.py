"""Drawing primitives: soft-edged shapes from signed distances, painted over planar float32 frames.

Every shape function returns a signed distance in picture heights, positive inside. Coordinates broadcast:
`x` is [T|1, 1, W], `y` is [T|1, H, 1], so anything that depends on one of them alone stays cheap.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import reduce

import numpy as np

__all__ = [
    "Array",
    "Canvas",
    "Color",
    "Number",
    "box",
    "capsule",
    "convex",
    "cover",
    "disc",
    "ellipse",
    "in_turn",
    "mix",
    "scale",
    "tile",
    "union",
    "waves",
]

Array = np.ndarray
Number = float | np.ndarray
Color = Sequence[Number]

AT_ONCE = 8
"""Frames that are worked on together: their planes fit a processor's cache, those of a whole shot do not."""
EDGE = 1.25  # width of an edge in pixels: a little more than one, so that slow motion does not crawl


def in_turn(frames: Array) -> Iterator[Array]:
    """A few frames at a time, along the first axis."""
    for first in range(0, len(frames), AT_ONCE):
        yield frames[first : first + AT_ONCE]


def cover(distance: Array, pixel: Number) -> Array:
    """Opacity in [0, 1] of a signed distance, with an edge as wide as `EDGE` pixels at any resolution."""
    alpha = distance * (1.0 / (EDGE * np.asarray(pixel, np.float32)))
    alpha += np.float32(0.5)
    return np.clip(alpha, 0.0, 1.0, out=alpha)


def disc(x: Array, y: Array, cx: Number, cy: Number, radius: Number) -> Array:
    """Signed distance to a circle."""
    return radius - np.sqrt((x - cx) ** 2 + (y - cy) ** 2)


def ellipse(x: Array, y: Array, cx: Number, cy: Number, *, a: float, b: float) -> Array:
    """Approximate signed distance to an axis-aligned ellipse with half axes `a` and `b`."""
    return (1.0 - np.sqrt(((x - cx) * (1.0 / a)) ** 2 + ((y - cy) * (1.0 / b)) ** 2)) * min(a, b)


def box(x: Array, y: Array, cx: Number, cy: Number, *, a: Number, b: Number) -> Array:
    """Signed distance (outside: the larger axis) to a rectangle with half sides `a` and `b`."""
    return np.minimum(a - np.abs(x - cx), b - np.abs(y - cy))


def capsule(x: Array, y: Array, start: tuple[Number, Number], end: tuple[Number, Number], *, r: Number) -> Array:
    """Signed distance to a thick line from `start` to `end` with round ends of radius `r`."""
    dx, dy = end[0] - start[0], end[1] - start[1]
    px, py = x - start[0], y - start[1]
    along = np.clip((px * dx + py * dy) / (dx * dx + dy * dy + 1e-9), 0.0, 1.0)
    return r - np.sqrt((px - along * dx) ** 2 + (py - along * dy) ** 2)


def convex(x: Array, y: Array, points: Sequence[tuple[Number, Number]]) -> Array:
    """Signed distance (outside: to the edge lines) to a convex polygon; corners in either turning sense."""
    (x0, y0), (x1, y1), (x2, y2) = points[:3]
    turn = np.sign((x1 - x0) * (y2 - y1) - (y1 - y0) * (x2 - x1))
    inside: Array | None = None
    for (ax, ay), (bx, by) in zip(points, [*points[1:], points[0]], strict=True):
        dx, dy = bx - ax, by - ay
        edge = ((y - ay) * dx - (x - ax) * dy) * (turn / np.sqrt(dx * dx + dy * dy + 1e-12))
        inside = edge if inside is None else np.minimum(inside, edge)
    assert inside is not None
    return inside


def union(*shapes: Array) -> Array:
    """One shape out of several; they may differ in shape as long as they broadcast."""
    return reduce(np.maximum, shapes)


def tile(x: Array, period: float, shift: float = 0.0) -> tuple[Array, Array]:
    """Repeat the world along x: (index of the tile, x inside the tile with 0 at its middle)."""
    index = np.floor((x - shift) * (1.0 / period) + 0.5)
    return index.astype(np.int64), (x - shift - index * period).astype(np.float32)


def waves(x: Array, rng: np.random.Generator, frequency: float) -> Array:
    """A rolling line in about [-1, 1]: three sines with random phases, `frequency` in radians per height."""
    phase = rng.uniform(0.0, 6.283, 3)
    line = 0.6 * np.sin(x * frequency + phase[0]) + 0.28 * np.sin(x * (2.13 * frequency) + phase[1])
    return (line + 0.12 * np.sin(x * (4.37 * frequency) + phase[2])).astype(np.float32)


def mix(first: Color, second: Color, amount: Number) -> tuple[Number, ...]:
    """Blend two colours, `amount` = 0 gives the first; works with arrays as channels."""
    return tuple(a + (b - a) * amount for a, b in zip(first, second, strict=True))


def scale(color: Color, *factors: Number) -> tuple[Number, ...]:
    """A colour made brighter or darker."""
    for factor in factors:
        color = tuple(channel * factor for channel in color)
    return tuple(color)


class Canvas:
    """Planar RGB frames [3, T, H, W] in [0, 1], kept as a single frame until something moves."""

    def __init__(self, frames: int, height: int, width: int) -> None:
        self.frames = frames
        self.rgb = np.zeros((3, 1, height, width), np.float32)

    def unfold(self) -> None:
        """Give every frame its own pixels."""
        if self.rgb.shape[1] < self.frames:
            self.rgb = np.repeat(self.rgb, self.frames, axis=1)

    def over(self, color: Color, alpha: Array) -> None:
        """Paint a colour (floats or arrays) with opacity `alpha`."""
        self._blend(color, alpha, 0.0)

    def light(self, color: Color, amount: Array) -> None:
        """Add light as a screen blend, which never clips."""
        self._blend(color, amount, 1.0)

    def _blend(self, color: Color, alpha: Array, screen: float) -> None:
        if max(np.shape(item)[0] for item in _arrays((alpha, *color))) > 1:
            self.unfold()
        for plane, value in zip(self.rgb, color, strict=True):
            if screen:
                plane += (1.0 - plane) * (alpha * np.asarray(value, np.float32))
            else:
                plane += (value - plane) * alpha


def _arrays(items: Iterable[Number]) -> list[Array]:
    return [item for item in items if isinstance(item, np.ndarray) and item.ndim == 3]
