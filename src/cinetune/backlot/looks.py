"""Film looks for the backlot: what a film does to neutral footage, with known parameters.

The grade is a pure function of one pixel, so the graded truth of any neutral frame can be computed exactly. Vignette,
halation and grain come after it. Grade, in order: contrast around a pivot, lift / gamma / gain, saturation about
BT.709 luma, then split toning (shadow and highlight tints weighted by luma).
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import repeat

import numpy as np

from cinetune.backlot.paint import Array, in_turn

__all__ = ["LOOKS", "FilmLook", "apply_look", "grade"]

Tint = tuple[float, float, float]
LUMA = np.asarray([0.2126, 0.7152, 0.0722], np.float32)


@dataclass(frozen=True, slots=True, kw_only=True)
class FilmLook:
    """Parameters of a look; colours and offsets in display units [0, 1].

    contrast: slope at `pivot` (1 = none). lift: level of black. gain: level of white. gamma: > 1 brightens the middle.
    saturation: 1 = none. shadow_tint, highlight_tint: offsets added where it is dark, bright. grain: standard deviation
    in the middle tones. vignette: darkening of the corners. halation: strength of the red glow round lights.
    """

    name: str
    description: str
    contrast: float = 1.0
    pivot: float = 0.45
    lift: float = 0.0
    gamma: float = 1.0
    gain: float = 1.0
    saturation: float = 1.0
    shadow_tint: Tint = (0.0, 0.0, 0.0)
    highlight_tint: Tint = (0.0, 0.0, 0.0)
    grain: float = 0.0
    vignette: float = 0.0
    halation: float = 0.0

    def tone(self, values: Array) -> Array:
        """The tone curve alone: monotone from [0, 1] to [lift, gain]."""
        x = np.clip(np.asarray(values, np.float32), 0.0, 1.0)
        below = self.pivot * (x / self.pivot) ** self.contrast
        above = 1.0 - (1.0 - self.pivot) * ((1.0 - x) / (1.0 - self.pivot)) ** self.contrast
        curve = np.where(x < self.pivot, below, above) ** (1.0 / self.gamma)
        return (self.lift + (self.gain - self.lift) * curve).astype(np.float32)


LOOKS: dict[str, FilmLook] = {
    "ember": FilmLook(
        name="ember",
        description="warm highlights over teal shadows, contrasty, colours held back: a fire-lit epic",
        contrast=1.34,
        pivot=0.47,
        gamma=0.88,
        gain=0.98,
        saturation=0.70,
        shadow_tint=(-0.085, 0.045, 0.105),
        highlight_tint=(0.150, 0.020, -0.215),
        grain=0.018,
        vignette=0.22,
        halation=0.10,
    ),
    "silver": FilmLook(
        name="silver",
        description="bleach bypass: hard contrast, colours almost gone, cold steel highlights",
        contrast=1.38,
        pivot=0.48,
        gamma=1.04,
        lift=0.015,
        saturation=0.32,
        shadow_tint=(-0.020, -0.004, 0.040),
        highlight_tint=(-0.045, 0.008, 0.050),
        grain=0.021,
        vignette=0.26,
        halation=0.04,
    ),
    "gouache": FilmLook(
        name="gouache",
        description="a faded print: lifted plum blacks, creamy whites, soft contrast, muted colours",
        contrast=0.84,
        pivot=0.5,
        lift=0.13,
        gamma=1.05,
        gain=0.93,
        saturation=0.66,
        shadow_tint=(0.065, -0.005, 0.030),
        highlight_tint=(0.045, 0.012, -0.095),
        grain=0.012,
        vignette=0.08,
        halation=0.05,
    ),
}


def grade(frames: Array, look: FilmLook) -> Array:
    """The noiseless truth of a look: pointwise grade and vignette. [T, H, W, 3] in [0, 1] to the same."""
    return np.concatenate([_vignette(_pointwise(some, look), look.vignette) for some in in_turn(frames)])


def apply_look(frames: Array, look: FilmLook, *, seed: int = 0, grain: bool = True) -> Array:
    """Give neutral frames [T, H, W, 3] in [0, 1] the whole look: grade, halation, vignette, grain.

    Grain is drawn per frame from `seed`. It lies on a lattice of fixed size in picture heights, so it has the same
    size and strength at any resolution.
    """
    noise = _grain(frames.shape, seed) if grain and look.grain > 0.0 else None
    parts = zip(in_turn(frames), in_turn(noise) if noise is not None else repeat(None), strict=False)
    return np.concatenate([_looked(some, look, its) for some, its in parts])


def _looked(frames: Array, look: FilmLook, noise: Array | None) -> Array:
    """The whole look on frames, with their grain."""
    graded = _pointwise(frames, look)
    if look.halation > 0.0:
        graded = _halation(graded, look.halation)
    graded = _vignette(graded, look.vignette)
    if noise is not None:
        luma = graded @ LUMA
        weight = look.grain * (0.35 + 2.6 * luma * (1.0 - luma))
        graded = graded + (weight * noise)[..., None]
    return np.clip(graded, 0.0, 1.0).astype(np.float32)


def _pointwise(frames: Array, look: FilmLook) -> Array:
    toned = look.tone(frames)
    luma = (toned @ LUMA)[..., None]
    toned = luma + (toned - luma) * np.float32(look.saturation)
    bright = np.clip(luma, 0.0, 1.0) ** 1.2
    shadow, highlight = np.asarray(look.shadow_tint, np.float32), np.asarray(look.highlight_tint, np.float32)
    return np.clip(toned + shadow * (1.0 - bright) + highlight * bright, 0.0, 1.0).astype(np.float32)


def _vignette(frames: Array, strength: float) -> Array:
    _, height, width, _ = frames.shape
    y = (np.arange(height, dtype=np.float32) + 0.5) / height * 2.0 - 1.0
    x = (np.arange(width, dtype=np.float32) + 0.5) / width * 2.0 - 1.0
    radius = (x[None, :] ** 2 + y[:, None] ** 2) * 0.5
    return frames * (1.0 - strength * radius**1.3)[None, :, :, None].astype(np.float32)


def _halation(frames: Array, strength: float) -> Array:
    """A red-orange glow that spreads from highlights, by three box blurs in each direction."""
    height = frames.shape[1]
    source = np.clip((frames @ LUMA - 0.72) * 3.0, 0.0, 1.0)
    radius = max(1, round(height * 0.03))
    for _ in range(3):
        source = _box_blur(_box_blur(source, radius, 1), radius, 2)
    glow = (source * strength)[..., None] * np.asarray([1.0, 0.42, 0.18], np.float32)
    return frames + (1.0 - frames) * glow


def _box_blur(planes: Array, radius: int, axis: int) -> Array:
    size = planes.shape[axis]
    pad = [(0, 0)] * 3
    pad[axis] = (radius + 1, radius)
    total = np.cumsum(np.pad(planes, pad, mode="edge"), axis=axis, dtype=np.float64)
    ahead = np.take(total, np.arange(2 * radius + 1, 2 * radius + 1 + size), axis=axis)
    behind = np.take(total, np.arange(size), axis=axis)
    return ((ahead - behind) / (2 * radius + 1)).astype(np.float32)


def _grain(shape: tuple[int, ...], seed: int) -> Array:
    """Zero-mean, unit-variance noise [T, H, W] on a lattice of 64 lines, enlarged linearly above that."""
    frames, height, width, _ = shape
    lines = min(64, height)
    columns = max(2, round(width * lines / height))
    rng = np.random.default_rng(seed)
    noise = rng.standard_normal((frames, lines, columns), dtype=np.float32)
    if (lines, columns) != (height, width):
        for axis, size in ((1, height), (2, width)):
            noise = _stretch(noise, size, axis)
    noise -= noise.mean(axis=(1, 2), keepdims=True)
    return noise / noise.std(axis=(1, 2), keepdims=True)


def _stretch(noise: Array, size: int, axis: int) -> Array:
    count = noise.shape[axis]
    place = np.clip((np.arange(size) + 0.5) * count / size - 0.5, 0, count - 1)
    low = np.floor(place).astype(np.int64)
    form = [1, 1, 1]
    form[axis] = size
    share = (place - low).astype(np.float32).reshape(form)
    high = np.minimum(low + 1, count - 1)
    return np.take(noise, low, axis=axis) * (1.0 - share) + np.take(noise, high, axis=axis) * share
