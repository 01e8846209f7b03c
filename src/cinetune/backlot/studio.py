"""The studio: canvas, camera and light together, with the scenery that many sets share."""

from __future__ import annotations

import numpy as np

from cinetune.backlot.camera import Camera, View
from cinetune.backlot.light import Light
from cinetune.backlot.paint import Array, Canvas, Color, Number, cover, disc, ellipse, mix, scale, tile, waves

__all__ = ["HORIZON", "Studio"]

HORIZON = 0.62


class Studio:
    """What a set is drawn on. `rng` is drawn from in a fixed order, so a seed always builds the same place."""

    def __init__(
        self, canvas: Canvas, camera: Camera, light: Light, *, rng: np.random.Generator, seconds: Array
    ) -> None:
        self.canvas = canvas
        self.camera = camera
        self.light = light
        self.rng = rng
        self.seconds = seconds
        self._views: dict[float, View] = {}

    def view(self, depth: float) -> View:
        """Coordinates of the layer at `depth`, computed once."""
        if depth not in self._views:
            self._views[depth] = self.camera.view(depth)
        return self._views[depth]

    def table(self, low: float, high: float) -> Array:
        """Sixteen random numbers to index by tile number modulo 16."""
        return self.rng.uniform(low, high, 16).astype(np.float32)

    def fill(self, view: View, color: Color, distance: Array, opacity: Number = 1.0) -> None:
        """Paint a shape given by its signed distance."""
        alpha = cover(distance, view.px)
        if isinstance(opacity, np.ndarray) or opacity != 1.0:
            alpha = alpha * opacity
        self.canvas.over(color, alpha)

    def glow(self, color: Color, dx: Array, dy: Array, *, radius: float, strength: Number) -> None:
        """A round halo of light around dx = dy = 0."""
        halo = np.exp(dx * dx * (-1.0 / radius**2)) * strength
        self.canvas.light(color, halo * np.exp(dy * dy * (-1.0 / radius**2)))

    def sky(self, *, clouds: float = 0.5, stars: float | None = None, sun: bool = True) -> None:
        """Gradient, stars, sun or moon, clouds. `clouds` is their opacity."""
        light, view = self.light, self.view(0.06)
        height = np.clip(view.y * (1.0 / HORIZON), 0.0, 1.0)
        upper, lower = np.clip(height * 1.8, 0.0, 1.0), np.clip(height * 1.9 - 0.9, 0.0, 1.0)
        self.canvas.over(mix(mix(light.zenith, light.middle, upper), light.horizon, lower), np.ones_like(view.x))
        place = self.rng.uniform(-0.55, 0.55)
        many = light.stars if stars is None else stars
        if many > 0.0:
            self._stars(many)
        if sun:
            dx, dy = view.x - np.float32(place), view.y - np.float32(light.sun_y)
            self.glow(light.sun, dx, dy, radius=light.sun_radius * 3.4, strength=0.30)
            self.fill(view, light.sun, disc(dx, dy, 0.0, 0.0, light.sun_radius))
            if light.stars == 1.0:
                craters = disc(dx, dy, 0.02, -0.012, 0.02)
                self.fill(view, scale(light.sun, 0.86), craters)
        if clouds > 0.0:
            self._clouds(clouds)

    def _stars(self, many: float) -> None:
        view = self.view(0.06)
        for period, rows in ((0.23, (0.05, 0.21, 0.37)), (0.31, (0.12, 0.29, 0.46))):
            shift, drop, size = self.rng.uniform(0, 1), self.table(-0.05, 0.05), self.table(0.006, 0.013)
            for row in rows:
                index, local = tile(view.x, period, shift + 3.7 * row)
                off = drop[(index * 5 + int(row * 40)) % 16]
                radius = size[(index * 3 + int(row * 100)) % 16]
                twinkle = many * (0.8 + 0.2 * np.sin(self.seconds * 2.4 + index))
                spot = disc(local, view.y, off * 1.5, row + off, radius)
                self.fill(view, (0.95, 0.96, 1.0), spot, twinkle)

    def _clouds(self, opacity: float) -> None:
        light, view = self.light, self.view(0.12)
        color = mix(light.horizon, (1.0, 1.0, 1.0), 0.55 * min(1.0, light.ambient[1] * 0.9))
        color = scale(color, 0.6 if light.stars == 1.0 else 1.0)
        drift = self.seconds * 0.012
        for row in (0.16, 0.31):
            index, local = tile(view.x - drift, 1.05, self.rng.uniform(0, 1))
            lift = self.table(-0.07, 0.07)[index % 16]
            shape = ellipse(local, view.y, 0.0, row + lift, a=0.21, b=0.035)
            shape = np.maximum(shape, ellipse(local, view.y, -0.05, row - 0.025 + lift, a=0.085, b=0.05))
            shape = np.maximum(shape, ellipse(local, view.y, 0.06, row - 0.015 + lift, a=0.07, b=0.04))
            self.canvas.over(color, np.clip(shape * 32.0, 0.0, 1.0) * opacity)

    def hills(self, depth: float, color: Color, *, top: float, swell: float, pitch: float) -> Array:
        """A rolling ridge with a lit and a shaded side. Returns its top line [T|1, 1, W]."""
        view = self.view(depth)
        line = top - swell * waves(view.x, self.rng, pitch)
        slope = np.gradient(line, axis=2) / np.gradient(view.x, axis=2)
        shade = 1.0 + 0.16 * np.tanh(slope * 3.0)
        self.fill(view, scale(self.light.tone(color, depth), shade), view.y - line)
        return line

    def peaks(self, depth: float, color: Color, *, base: float, height: float, snow: float = 0.0) -> None:
        """A chain of pointed mountains; `snow` is the share of the height that is white."""
        view = self.view(depth)
        for period, share in ((0.83, 1.0), (0.57, 0.72)):
            index, local = tile(view.x, period, self.rng.uniform(0, 1))
            lean, size = self.table(-0.06, 0.06)[index % 16], self.table(0.78, 1.08)[(index + 3) % 16]
            tall = height * share * size
            off = local - lean
            jag = 0.012 * np.sin(view.x * 31.0)
            drop = np.abs(off) * (2.0 * height * share / period) + jag
            shape = np.minimum((view.y - (base - tall + drop)) * 0.6, base + 0.1 - view.y)
            self.fill(view, self.light.tone(color, depth), shape)
            self.fill(
                view, self.light.tone(scale(color, 0.72), depth), np.minimum(shape, off + 0.03 * np.sin(view.y * 40))
            )
            if snow:
                line = base - tall * (1.0 - snow) + 0.022 * np.sin(view.x * 38.0)
                white = mix(
                    self.light.tone((0.95, 0.97, 1.0), depth),
                    self.light.tone((0.6, 0.7, 0.86), depth),
                    cover(off, 0.05),
                )
                self.fill(view, white, np.minimum(shape, line - view.y))

    def ground(self, color: Color, *, top: float, patch: Color, grain: float = 0.5) -> None:
        """The near ground below `top`, with soft patches that slide in perspective."""
        view = self.view(1.0)
        x = self.camera.floor(top)
        phase = self.rng.uniform(0.0, 6.283, 2)
        rows = (view.y - top) * (20.0 / (0.35 + (view.y - top).clip(0.0)))
        blots = np.sin(x * 4.1 + phase[0] + rows * 0.35) * np.sin(rows + phase[1] + np.sin(x * 2.3 + phase[1]))
        tint = np.clip(blots * 1.4 * grain, 0.0, 1.0).astype(np.float32)
        dark = 1.06 - 0.34 * np.clip(view.y - top, 0.0, 1.0)
        near, far = self.light.tone(color, 1.0), self.light.tone(patch, 1.0)
        self.fill(view, scale(mix(near, far, tint), dark), view.y - top)

    def water(self, color: Color, *, top: float, bottom: float) -> None:
        """Water between two heights: mirrors the sky, with glints that wander."""
        view = self.view(0.7)
        light = self.light
        deep = np.clip((view.y - top) / (bottom - top), 0.0, 1.0)
        tone = mix(mix(light.tone(color, 0.9), light.horizon, 0.45), light.tone(color, 1.0), deep)
        self.fill(view, tone, view.y - top)
        for row, period, speed in ((0.15, 0.43, 0.05), (0.42, 0.57, -0.06), (0.75, 0.71, 0.08)):
            y = top + row * (bottom - top)
            index, local = tile(view.x + self.seconds * speed, period, self.rng.uniform(0, 1))
            wide = 0.09 + 0.03 * np.sin(self.seconds * 2.0 + index)
            glint = np.minimum(
                wide - np.abs(local), (0.011 - np.abs(view.y - y - 0.004 * np.sin(self.seconds * 3 + index)))
            )
            self.fill(view, mix(light.horizon, light.sun, 0.5), glint, 0.55)
