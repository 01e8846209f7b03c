"""The brush that draws a subject: a small window that travels with it, in the subject's own coordinates."""

from __future__ import annotations

import numpy as np

from cinetune.backlot.paint import Array, Canvas, Color, Number, box, capsule, convex, cover, disc, ellipse, union
from cinetune.backlot.studio import Studio

__all__ = ["Brush"]

KEYLINE = 0.011  # outline around a subject, in picture heights: what keeps it apart from any background


class Brush:
    """Subject coordinates: `u` points the way it moves, `v` points up, (0, 0) is where it stands or floats.

    Parts are collected first, so that one outline can be drawn around all of them, then painted in order.
    """

    def __init__(self, studio: Studio, *, at: tuple[Array, Array], facing: float, size: float, reach: float) -> None:
        studio.canvas.unfold()
        self.studio = studio
        self.seconds = studio.seconds
        camera = studio.camera
        grow = (1.0 + (camera.zoom - 1.0)) * size
        largest = 1.6 * size
        rows, columns = camera.height, camera.width
        tall = min(rows, int(np.ceil(2.0 * reach * largest * rows)) + 2)
        wide = min(columns, tall)
        x, y = camera.project(*at)
        left = np.floor((x + camera.aspect / 2) * rows - wide / 2).astype(np.int64)
        top = np.floor((y - 0.45 * reach * grow) * rows - tall / 2).astype(np.int64)
        left = np.clip(left.reshape(-1, 1, 1), 0, columns - wide) + np.arange(wide)[None, None, :]
        top = np.clip(top.reshape(-1, 1, 1), 0, rows - tall) + np.arange(tall)[None, :, None]
        frames = studio.canvas.frames
        self._where = (np.arange(frames)[:, None, None], top + np.zeros((frames, 1, 1), np.int64), left)
        columns_x = (left + 0.5) / rows - camera.aspect / 2
        self.u: Array = ((columns_x - x) * (facing / grow)).astype(np.float32)
        self.v: Array = ((y - (top + 0.5) / rows) / grow).astype(np.float32)
        self.px: Array = np.asarray(camera.pixel / grow, np.float32)
        self._parts: list[tuple[Color, Array, float]] = []
        self._lights: list[tuple[Color, Array]] = []

    def swing(self, rate: float, shift: float = 0.0) -> Array:
        """A sine of time [T, 1, 1] at `rate` turns per second."""
        return np.sin(self.seconds * (6.2831853 * rate) + shift)

    def part(self, color: Color, shape: Array, *, lit: float = 0.0) -> None:
        """Add a part; `lit` = 1 keeps its colour in the dark (lamps, flames, screens)."""
        shaded = self.studio.light.subject(color)
        self._parts.append((tuple(s + (c - s) * lit for s, c in zip(shaded, color, strict=True)), shape, 1.0))

    def clear(self, color: Color, shape: Array, opacity: float) -> None:
        """Add a see-through part, such as a spinning rotor; it gets no outline."""
        self._parts.append((self.studio.light.subject(color), shape, opacity))

    def halo(self, color: Color, u: Number, v: Number, *, radius: float, strength: Number) -> None:
        """Light around a point, added after all parts."""
        fall = -1.0 / radius**2
        self._lights.append((color, np.exp((self.u - u) ** 2 * fall) * (np.exp((self.v - v) ** 2 * fall) * strength)))

    def beam(self, color: Color, points: list[tuple[float, float]], strength: float) -> None:
        """A cone of light that leaves between the first two corners and fades with distance."""
        u, v = ((points[0][k] + points[1][k]) * 0.5 for k in (0, 1))
        length = max(float(np.hypot(point[0] - u, point[1] - v)) for point in points)
        fade = np.clip(1.08 - np.sqrt((self.u - u) ** 2 + (self.v - v) ** 2) * (1.0 / length), 0.0, 1.0)
        self._lights.append((color, cover(convex(self.u, self.v, points), self.px * 2.0) * fade * strength))

    def disc(self, u: Number, v: Number, r: Number) -> Array:
        """A circle in subject coordinates."""
        return disc(self.u, self.v, u, v, r)

    def ellipse(self, u: Number, v: Number, a: float, b: float) -> Array:
        """An ellipse in subject coordinates."""
        return ellipse(self.u, self.v, u, v, a=a, b=b)

    def box(self, u: Number, v: Number, a: Number, b: Number) -> Array:
        """A rectangle given by its middle and half sides."""
        return box(self.u, self.v, u, v, a=a, b=b)

    def limb(self, start: tuple[Number, Number], end: tuple[Number, Number], r: float) -> Array:
        """A thick line with round ends."""
        return capsule(self.u, self.v, start, end, r=r)

    def shape(self, *points: tuple[Number, Number]) -> Array:
        """A convex polygon."""
        return convex(self.u, self.v, points)

    def wheel(self, u: float, v: float, r: float, *, turns: float, rim: Color, hub: Color) -> None:
        """A wheel with two turning spokes."""
        self.part(rim, self.disc(u, v, r))
        inner = self.disc(u, v, r * 0.62)
        self.part(hub, inner)
        angle = self.seconds * (6.2831853 * turns)
        c, s = np.cos(angle) * (r * 0.62), np.sin(angle) * (r * 0.62)
        self.part(rim, self.limb((u - c, v + s), (u + c, v - s), r * 0.16))
        self.part(rim, self.limb((u - s, v - c), (u + s, v + c), r * 0.16))

    def finish(self, *, shadow: float, ground: float) -> None:
        """Paint shadow, outline, parts and lights, and put the window back into the picture."""
        canvas: Canvas = self.studio.canvas
        patch = canvas.rgb[(slice(None), *self._where)]
        if shadow:
            spot = self.ellipse(0.0, ground - 0.005, shadow, 0.028)
            _blend(patch, (0.0, 0.0, 0.02), cover(spot, self.px * 2.0) * 0.38)
        outline = union(*(shape for _, shape, opacity in self._parts if opacity == 1.0))
        _blend(patch, self.studio.light.rim, cover(outline + KEYLINE, self.px) * 0.85)
        for color, shape, opacity in self._parts:
            _blend(patch, color, cover(shape, self.px) * opacity)
        for color, amount in self._lights:
            for plane, value in zip(patch, color, strict=True):
                plane += (1.0 - plane) * (amount * value)
        canvas.rgb[(slice(None), *self._where)] = patch


def _blend(patch: Array, color: Color, alpha: Array) -> None:
    for plane, value in zip(patch, color, strict=True):
        plane += (value - plane) * alpha
