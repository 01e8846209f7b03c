"""The historical sets. Each function paints everything behind the subject; `*_front` paints what stands before it."""

from __future__ import annotations

import numpy as np

from cinetune.backlot.paint import Color, box, capsule, convex, cover, disc, ellipse, mix, scale, tile, union
from cinetune.backlot.studio import HORIZON, Studio

__all__ = [
    "castle",
    "castle_front",
    "dunes",
    "harbour",
    "harbour_front",
    "monastery",
    "steppe",
    "steppe_front",
    "village",
]

LAMP: Color = (1.0, 0.78, 0.34)


def _lamp(studio: Studio, wall: Color) -> Color:
    """The colour of a window: dark by day, lit by night."""
    return mix(scale(wall, 0.45), LAMP, studio.light.lamps)


def _trees(studio: Studio, depth: float, color: Color, *, base: float, period: float, tall: float = 0.16) -> None:
    """Round trees, two crowns each."""
    view = studio.view(depth)
    index, x = tile(view.x, period, studio.rng.uniform(0, 1))
    size, off = studio.table(0.75, 1.15)[index % 16], studio.table(-0.08, 0.08)[(index * 3) % 16]
    x = x - off
    trunk = box(x, view.y, 0.0, base, a=0.012, b=tall * 0.5 * size)
    studio.fill(view, studio.light.tone((0.30, 0.20, 0.14), depth), trunk)
    crown = disc(x, view.y, 0.0, base - tall * size, tall * 0.55 * size)
    studio.fill(
        view,
        studio.light.tone(scale(color, 0.78), depth),
        np.maximum(crown, disc(x, view.y, 0.05, base - tall * 0.7 * size, tall * 0.42 * size)),
    )
    studio.fill(
        view, studio.light.tone(color, depth), disc(x, view.y, -0.018, base - tall * 1.12 * size, tall * 0.36 * size)
    )


def _pines(studio: Studio, depth: float, color: Color, *, base: float, period: float, tall: float) -> None:
    """Pointed pines in two tiers."""
    view = studio.view(depth)
    index, x = tile(view.x, period, studio.rng.uniform(0, 1))
    size = tall * studio.table(0.7, 1.1)[index % 16]
    x = x - studio.table(-0.07, 0.07)[(index * 5) % 16]
    y = view.y - base
    low = np.minimum((y + size * 0.75 - np.abs(x) * 2.6) * 0.4, -0.02 - y)
    high = np.minimum((y + size - np.abs(x) * 2.6) * 0.4, -size * 0.42 - y)
    studio.fill(view, studio.light.tone((0.26, 0.18, 0.13), depth), box(x, y, 0.0, 0.0, a=0.011, b=0.04))
    studio.fill(view, studio.light.tone(color, depth), np.maximum(low, high))


def dunes(studio: Studio) -> None:
    """Golden sand, pyramids in the haze, palms."""
    studio.sky(clouds=0.0)
    view = studio.view(0.2)
    index, x = tile(view.x, 1.25, studio.rng.uniform(-0.5, 0.5))
    apex = 0.40 - 0.06 * (index % 2)
    shape = np.minimum((view.y - apex - np.abs(x) * 0.82) * 0.77, 0.75 - view.y)
    studio.fill(view, studio.light.tone((0.86, 0.64, 0.40), 0.55), shape)
    studio.fill(view, studio.light.tone((0.58, 0.40, 0.30), 0.55), np.minimum(shape, x - (view.y - apex) * 0.25))
    studio.hills(0.35, (0.92, 0.70, 0.42), top=0.60, swell=0.035, pitch=5.0)
    view = studio.view(0.6)
    index, x = tile(view.x, 0.95, studio.rng.uniform(0, 1))
    top = 0.55 - studio.table(0.0, 0.08)[index % 16]
    trunk = capsule(x, view.y, (0.02, 0.70), (0.0, top), r=0.012)
    studio.fill(view, studio.light.tone((0.42, 0.27, 0.17), 0.8), trunk)
    sway = 0.01 * np.sin(studio.seconds * 2.2 + index)
    fronds = [capsule(x, view.y, (0.0, top), (dx + sway, top + dy), r=0.015) for dx, dy in FRONDS]
    studio.fill(view, studio.light.tone((0.22, 0.46, 0.24), 0.85), union(*fronds))
    studio.hills(0.65, (0.90, 0.65, 0.34), top=0.665, swell=0.03, pitch=4.0)
    studio.ground((0.93, 0.70, 0.38), top=0.73, patch=(0.80, 0.55, 0.29), grain=0.7)


FRONDS = ((-0.10, 0.035), (-0.075, -0.035), (0.0, -0.06), (0.075, -0.035), (0.10, 0.035))


def castle(studio: Studio) -> None:
    """A grey castle with blue roofs and red flags on a green hill, above a lake."""
    studio.sky(clouds=0.75)
    studio.hills(0.2, (0.42, 0.58, 0.52), top=0.56, swell=0.04, pitch=4.0)
    light, view = studio.light, studio.view(0.42)
    _, x = tile(view.x, 2.3, studio.rng.uniform(-0.45, 0.45))
    y = view.y
    green = (0.40, 0.58, 0.28)
    studio.fill(view, light.tone(scale(green, 0.9), 0.5), (y - 0.50 - 0.9 * x * x) * 0.7)
    stone, dark = light.tone((0.70, 0.67, 0.66), 0.75), light.tone((0.50, 0.47, 0.52), 0.75)
    roof = light.tone((0.20, 0.30, 0.56), 0.8)
    notch = 0.012 * np.sign(np.sin(x * 95.0))
    wall = np.minimum(np.minimum(0.31 - np.abs(x), y - 0.44 - notch), 0.58 - y)
    for cx, half, top in ((0.06, 0.075, 0.27), (-0.12, 0.05, 0.33)):
        studio.fill(view, dark, box(x, y, cx, 0.42, a=half, b=0.42 - top))
        studio.fill(view, roof, convex(x, y, [(cx - half - 0.02, top), (cx + half + 0.02, top), (cx, top - 0.15)]))
        flap = 0.012 * np.sin(studio.seconds * 7.0 + cx * 20)
        flag = [(cx, top - 0.20), (cx + 0.075, top - 0.18 + flap), (cx, top - 0.155)]
        studio.fill(view, light.tone((0.85, 0.16, 0.14), 0.9), convex(x, y, flag))
    studio.fill(view, stone, wall)
    for cx in (-0.31, 0.31):
        studio.fill(view, stone, box(x, y, cx, 0.47, a=0.055, b=0.11))
        studio.fill(view, roof, convex(x, y, [(cx - 0.07, 0.37), (cx + 0.07, 0.37), (cx, 0.25)]))
    studio.fill(view, scale(dark, 0.5), np.maximum(box(x, y, 0.0, 0.56, a=0.035, b=0.04), disc(x, y, 0.0, 0.52, 0.035)))
    lamp = _lamp(studio, dark)
    for cx, cy in ((0.04, 0.34), (-0.12, 0.40), (-0.2, 0.5), (0.2, 0.5), (-0.31, 0.43), (0.31, 0.43), (0.09, 0.40)):
        studio.fill(view, lamp, box(x, y, cx, cy, a=0.014, b=0.022))
    studio.glow(LAMP, x, y - 0.46, radius=0.28, strength=0.28 * light.lamps)
    studio.water((0.22, 0.42, 0.56), top=0.62, bottom=0.76)
    _trees(studio, 0.75, (0.28, 0.50, 0.24), base=0.76, period=0.9, tall=0.13)
    studio.ground((0.46, 0.64, 0.28), top=0.75, patch=(0.36, 0.53, 0.22))


def castle_front(studio: Studio) -> None:
    """Dark bushes slide by in front."""
    _bushes(studio, (0.20, 0.36, 0.18), period=1.5, lift=0.05)


def _bushes(studio: Studio, color: Color, *, period: float, lift: float) -> None:
    view = studio.view(1.35)
    index, x = tile(view.x, period, studio.rng.uniform(0.3, 1.2))
    size = studio.table(0.8, 1.2)[index % 16]
    shape = ellipse(x, view.y, 0.0, 1.03, a=0.20, b=0.08)
    shape = np.maximum(shape, disc(x, view.y, -0.08, 1.03 - lift * 0.4, 0.07 * size))
    shape = np.maximum(shape, disc(x, view.y, 0.06, 1.03 - lift, 0.065 * size))
    studio.fill(view, scale(studio.light.tone(color, 1.0), 0.75), shape)


def steppe(studio: Studio) -> None:
    """Wide yellow grass, snow mountains, white round tents with smoke."""
    studio.sky(clouds=0.8)
    studio.peaks(0.15, (0.40, 0.48, 0.66), base=0.60, height=0.26, snow=0.42)
    studio.hills(0.4, (0.66, 0.68, 0.34), top=0.60, swell=0.022, pitch=4.0)
    light, view = studio.light, studio.view(0.6)
    index, x = tile(view.x, 0.82, studio.rng.uniform(0, 1))
    size = studio.table(1.1, 1.4)[index % 16]
    x, y = x / size, (view.y - 0.695) / size
    felt = light.tone((0.94, 0.90, 0.82), 0.85)
    studio.fill(view, felt, box(x, y, 0.0, -0.03, a=0.125, b=0.045))
    studio.fill(
        view, light.tone((0.80, 0.72, 0.60), 0.9), np.minimum(ellipse(x, y, 0.0, -0.07, a=0.145, b=0.075), -0.065 - y)
    )
    studio.fill(view, light.tone((0.75, 0.25, 0.16), 0.9), box(x, y, 0.0, -0.064, a=0.13, b=0.010))
    studio.fill(view, _lamp(studio, light.tone((0.62, 0.30, 0.18), 0.9)), box(x, y, 0.0, -0.015, a=0.026, b=0.036))
    for puff in range(3):
        age = np.mod(studio.seconds * 0.35 + puff / 3.0, 1.0)
        smoke = disc(x, y, 0.05 * age, -0.16 - 0.15 * age, 0.016 + 0.022 * age)
        studio.fill(view, mix(light.horizon, (0.8, 0.8, 0.82), 0.3), smoke, 0.55 * (1.0 - age))
    studio.ground((0.78, 0.72, 0.36), top=0.70, patch=(0.62, 0.62, 0.28), grain=0.8)


def steppe_front(studio: Studio) -> None:
    """Tall grass that bends in the wind."""
    view, light = studio.view(1.3), studio.light
    index, x = tile(view.x, 0.46, studio.rng.uniform(0, 1))
    tall = studio.table(0.06, 0.13)[index % 16]
    bend = 0.02 * np.sin(studio.seconds * 2.6 + index * 1.7)
    blades = [
        convex(x, view.y, [(lean - 0.03, 1.03), (lean + 0.03, 1.03), (lean * 2.2 + bend, 1.0 - tall * share)])
        for lean, share in ((-0.04, 0.8), (0.0, 1.0), (0.045, 0.7))
    ]
    studio.fill(view, light.tone((0.48, 0.48, 0.18), 1.0), union(*blades))


def harbour(studio: Studio) -> None:
    """The sea, a striped lighthouse on its rock, distant sails, a stone quay with bollards."""
    studio.sky(clouds=0.65)
    light = studio.light
    view = studio.view(0.3)
    index, x = tile(view.x, 1.9, studio.rng.uniform(-0.5, 0.5))
    y = view.y
    studio.fill(view, light.tone((0.40, 0.40, 0.42), 0.7), ellipse(x, y, 0.03, 0.63, a=0.24, b=0.085))
    tower = convex(x, y, [(-0.055, 0.58), (0.055, 0.58), (0.036, 0.27), (-0.036, 0.27)])
    stripe = cover(np.sin(y * 58.0) * 0.017, view.px)
    studio.fill(view, mix(light.tone((0.95, 0.93, 0.9), 0.8), light.tone((0.82, 0.18, 0.16), 0.85), stripe), tower)
    studio.fill(
        view, mix(light.tone((0.75, 0.82, 0.85), 0.9), LAMP, light.lamps), box(x, y, 0.0, 0.25, a=0.026, b=0.025)
    )
    studio.fill(view, light.tone((0.30, 0.16, 0.16), 0.8), convex(x, y, [(-0.042, 0.23), (0.042, 0.23), (0.0, 0.17)]))
    studio.fill(view, light.tone((0.88, 0.84, 0.74), 0.8), box(x, y, 0.135, 0.55, a=0.07, b=0.04))
    studio.fill(view, light.tone((0.72, 0.30, 0.20), 0.8), convex(x, y, [(0.05, 0.515), (0.22, 0.515), (0.135, 0.45)]))
    studio.fill(view, _lamp(studio, light.tone((0.5, 0.5, 0.5), 0.8)), box(x, y, 0.135, 0.55, a=0.018, b=0.02))
    if light.lamps > 0.5:
        studio.glow(LAMP, x, y - 0.25, radius=0.16, strength=0.7 * light.lamps)
        swing = 0.5 * np.sin(studio.seconds * 1.3)
        beam = convex(x, y, [(0.0, 0.25), (-0.9, 0.22 + swing * 0.2), (-0.9, 0.02 + swing * 0.2)])
        fade = np.clip(1.0 + x * (1.0 / 0.85), 0.0, 1.0) * (0.34 * light.lamps)
        studio.canvas.light((1.0, 0.9, 0.6), cover(beam, 0.06) * fade)
    studio.water((0.12, 0.42, 0.56), top=HORIZON, bottom=0.84)
    view = studio.view(0.45)
    index, x = tile(view.x - 0.015 * studio.seconds, 1.37, studio.rng.uniform(0, 1))
    y = view.y - 0.645 - 0.004 * np.sin(studio.seconds * 2 + index)
    studio.fill(
        view, light.tone((0.32, 0.2, 0.15), 0.8), np.minimum(ellipse(x, y, 0.0, -0.01, a=0.08, b=0.03), y + 0.01)
    )
    sail = convex(x, y, [(-0.01, -0.02), (-0.01, -0.15), (-0.075, -0.02)])
    sail = np.maximum(sail, convex(x, y, [(0.01, -0.02), (0.01, -0.17), (0.07, -0.02)]))
    studio.fill(view, light.tone((0.96, 0.90, 0.78), 0.85), sail)
    _quay(studio)


def _quay(studio: Studio) -> None:
    studio.ground((0.62, 0.57, 0.52), top=0.815, patch=(0.50, 0.46, 0.44), grain=0.6)
    view, light = studio.view(1.0), studio.light
    studio.fill(
        view, light.tone((0.76, 0.71, 0.64), 1.0), box(view.x, view.y, 0.0, 0.82, a=9.0 + 0.0 * view.x, b=0.012)
    )
    _, x = tile(view.x, 0.6, studio.rng.uniform(0, 1))
    studio.fill(
        view,
        light.tone((0.28, 0.22, 0.22), 1.0),
        np.maximum(box(x, view.y, 0, 0.80, a=0.022, b=0.035), disc(x, view.y, 0.0, 0.765, 0.028)),
    )


def harbour_front(studio: Studio) -> None:
    """Barrels and a crate on the edge of the frame."""
    view, light = studio.view(1.3), studio.light
    _, x = tile(view.x, 1.7, studio.rng.uniform(0.4, 1.3))
    studio.fill(view, light.tone((0.42, 0.26, 0.15), 1.0), box(x, view.y, 0.1, 0.99, a=0.075, b=0.07))
    studio.fill(view, light.tone((0.56, 0.34, 0.18), 1.0), ellipse(x, view.y, -0.05, 0.99, a=0.062, b=0.09))
    studio.fill(view, light.tone((0.22, 0.16, 0.14), 1.0), box(x, view.y, -0.05, 0.975, a=0.06, b=0.009))


def village(studio: Studio) -> None:
    """Timbered houses with steep red roofs, a church, smoke, orchards."""
    studio.sky(clouds=0.7)
    studio.hills(0.2, (0.46, 0.62, 0.44), top=0.53, swell=0.05, pitch=3.4)
    light, view = studio.light, studio.view(0.42)
    _, x = tile(view.x, 2.1, studio.rng.uniform(-0.45, 0.45))
    y = view.y
    wall = light.tone((0.90, 0.87, 0.80), 0.72)
    slate = light.tone((0.30, 0.34, 0.44), 0.75)
    studio.fill(view, wall, np.maximum(box(x, y, 0.0, 0.5, a=0.055, b=0.17), box(x, y, 0.14, 0.57, a=0.13, b=0.08)))
    studio.fill(view, slate, convex(x, y, [(-0.075, 0.34), (0.075, 0.34), (0.0, 0.10)]))
    studio.fill(view, slate, convex(x, y, [(0.05, 0.50), (0.29, 0.50), (0.25, 0.42), (0.05, 0.42)]))
    studio.fill(
        view, _lamp(studio, slate), np.maximum(disc(x, y, 0.0, 0.41, 0.022), box(x, y, 0.16, 0.58, a=0.014, b=0.03))
    )
    _trees(studio, 0.5, (0.36, 0.55, 0.27), base=0.68, period=0.7, tall=0.12)
    studio.hills(0.55, (0.48, 0.62, 0.30), top=0.665, swell=0.012, pitch=4.0)
    _houses(studio)
    studio.ground((0.56, 0.64, 0.32), top=0.745, patch=(0.74, 0.62, 0.42), grain=0.8)


def _houses(studio: Studio) -> None:
    light, view = studio.light, studio.view(0.68)
    index, x = tile(view.x, 0.62, studio.rng.uniform(0, 1))
    tall, y = studio.table(0.07, 0.11)[index % 16], view.y
    top = 0.75 - 2 * tall
    red = 0.85 + 0.15 * (index % 3)
    wall = light.tone((0.93, 0.86, 0.70), 0.9)
    studio.fill(view, light.tone((0.45, 0.32, 0.28), 0.9), box(x, y, 0.07, top - 0.09, a=0.02, b=0.07))
    studio.fill(view, wall, box(x, y, 0.0, 0.75 - tall, a=0.13, b=tall))
    studio.fill(view, light.tone((0.36, 0.22, 0.16), 0.9), box(x, y, 0.0, 0.75 - tall, a=0.012, b=tall))
    roof = convex(x, y, [(-0.17, top), (0.17, top), (0.0, top - 0.17)])
    studio.fill(view, scale(light.tone((0.74, 0.27, 0.17), 0.9), red), roof)
    lit = _lamp(studio, (0.4, 0.4, 0.45))
    for cx in (-0.065, 0.065):
        studio.fill(view, lit, box(x, y, cx, 0.75 - tall * 1.1, a=0.026, b=0.03))
    studio.glow(LAMP, x, y - 0.68, radius=0.13, strength=0.35 * light.lamps)
    for puff in range(3):
        age = np.mod(studio.seconds * 0.3 + puff / 3.0 + index * 0.37, 1.0)
        smoke = disc(x, y, 0.07 + 0.06 * age, top - 0.16 - 0.17 * age, 0.018 + 0.026 * age)
        studio.fill(view, mix(light.horizon, (0.9, 0.9, 0.92), 0.25), smoke, 0.6 * (1.0 - age))


def monastery(studio: Studio) -> None:
    """White walls and gold roofs stacked on a cliff, blue peaks, mist, pines, strings of flags."""
    studio.sky(clouds=0.35)
    studio.peaks(0.12, (0.42, 0.46, 0.68), base=0.66, height=0.42, snow=0.35)
    light, view = studio.light, studio.view(0.4)
    _, x = tile(view.x, 2.2, studio.rng.uniform(-0.4, 0.4))
    y = view.y
    rock = light.tone((0.44, 0.38, 0.42), 0.7)
    cliff = convex(x, y, [(-0.52, 0.72), (0.55, 0.72), (0.30, 0.44), (-0.24, 0.44)])
    studio.fill(view, rock, np.maximum(cliff, convex(x, y, [(-0.24, 0.5), (-0.36, 0.72), (0.1, 0.72), (0.1, 0.42)])))
    studio.fill(view, scale(rock, 0.78), np.minimum(cliff, x - 0.06 - 0.05 * np.sin(y * 30.0)))
    white, gold, red = (light.tone(c, 0.8) for c in ((0.96, 0.93, 0.88), (0.95, 0.70, 0.20), (0.62, 0.16, 0.15)))
    lamp = _lamp(studio, red)
    for cx, cy, half, tall in ((0.03, 0.40, 0.235, 0.055), (0.03, 0.29, 0.15, 0.055), (0.03, 0.185, 0.075, 0.05)):
        studio.fill(view, white, box(x, y, cx, cy, a=half, b=tall))
        studio.fill(view, red, box(x, y, cx, cy - tall * 0.78, a=half, b=0.012))
        eaves = [(cx - half - 0.05, cy - tall), (cx + half + 0.05, cy - tall), (cx + half * 0.6, cy - tall - 0.05)]
        studio.fill(view, gold, convex(x, y, [*eaves, (cx - half * 0.6, cy - tall - 0.05)]))
        for step in np.arange(-half + 0.045, half - 0.02, 0.085):
            studio.fill(view, lamp, box(x, y, cx + step, cy + 0.012, a=0.014, b=0.018))
    studio.glow(LAMP, x - 0.03, y - 0.33, radius=0.24, strength=0.3 * light.lamps)
    drift = 0.03 * studio.seconds
    _, x = tile(studio.view(0.5).x - drift, 0.9, studio.rng.uniform(0, 1))
    mist = np.exp(-((studio.view(0.5).y - 0.63) ** 2) * 700.0) * (0.55 + 0.35 * np.cos(x * 6.98))
    studio.canvas.over(mix(light.horizon, scale((1.0, 1.0, 1.0), light.ambient[1]), 0.4), mist)
    _pines(studio, 0.62, (0.20, 0.40, 0.34), base=0.74, period=0.34, tall=0.22)
    _pines(studio, 0.78, (0.15, 0.32, 0.26), base=0.76, period=0.75, tall=0.27)
    studio.ground((0.56, 0.58, 0.44), top=0.74, patch=(0.46, 0.46, 0.40), grain=0.7)
