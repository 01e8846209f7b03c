"""The science-fiction sets. Each function paints everything behind the subject; `*_front` what stands before it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from cinetune.backlot.light import Light
from cinetune.backlot.paint import Array, Color, box, capsule, convex, disc, ellipse, mix, scale, tile, union
from cinetune.backlot.studio import Studio

__all__ = [
    "canyon",
    "canyon_front",
    "crystal_forest",
    "crystal_forest_front",
    "ice_plain",
    "moonbase",
    "neon_city",
    "orbital_dock",
]

CYAN: Color = (0.25, 0.92, 1.0)
MAGENTA: Color = (1.0, 0.25, 0.72)
AMBER: Color = (1.0, 0.72, 0.28)


def _planet(studio: Studio, color: Color, *, at: tuple[float, float], radius: float, ring: Color | None = None) -> None:
    """A shaded planet with cloud bands; the night side fades into the sky."""
    view = studio.view(0.08)
    dx, dy = view.x - np.float32(at[0]), view.y - np.float32(at[1])
    shape = disc(dx, dy, 0.0, 0.0, radius)
    bright = 0.55 + 0.45 * max(studio.light.ambient)
    side = np.clip(0.62 - (dx * 0.75 + dy * 0.4) / radius * 0.55, 0.12, 1.0)
    bands = 1.0 + 0.12 * np.sin(dy * (14.0 / radius) * 0.5 + np.sin(dx * 9.0) * 0.6)
    tone = mix(studio.light.middle, scale(color, bright), np.clip(side * 1.1, 0.0, 1.0))
    studio.fill(view, scale(tone, bands), shape)
    if ring is not None:
        wide = ellipse(dx, dy + dx * 0.25, 0.0, 0.0, a=radius * 1.75, b=radius * 0.42)
        hole = ellipse(dx, dy + dx * 0.25, 0.0, 0.0, a=radius * 1.3, b=radius * 0.27)
        band = np.minimum(wide, -hole)
        behind = np.minimum(shape, -(dy + dx * 0.25))
        studio.fill(view, scale(ring, bright), np.minimum(band, -behind), 0.85)


def neon_city(studio: Studio) -> None:
    """Tall towers, lit windows, pink and cyan signs, flying traffic, a wet street."""
    studio.light = studio.light.tinted((0.95, 0.80, 1.35), 0.45)
    studio.sky(clouds=0.25)
    for depth, period, low, high, color in (
        (0.2, 0.21, 0.22, 0.42, (0.42, 0.40, 0.58)),
        (0.45, 0.33, 0.12, 0.46, (0.30, 0.28, 0.46)),
    ):
        _towers(studio, depth, period, tall=(low, high), color=color)
    view, light = studio.view(0.3), studio.light
    for row, speed, color in ((0.20, 0.22, AMBER), (0.32, -0.28, CYAN)):
        index, x = tile(view.x - speed * studio.seconds, 0.47, studio.rng.uniform(0, 1))
        y = view.y - row - 0.02 * np.sin(index)
        studio.fill(
            view, mix((0.2, 0.2, 0.3), color, 0.35 + 0.65 * light.lamps), ellipse(x, y, 0.0, 0.0, a=0.035, b=0.011)
        )
    _signs(studio)
    studio.ground((0.34, 0.33, 0.46), top=0.72, patch=(0.24, 0.24, 0.36), grain=0.5)
    near = studio.view(1.0)
    wet = np.clip((near.y - 0.72) * 8.0, 0.0, 1.0) * (0.14 + 0.34 * light.lamps)
    for cx, color in ((0.0, MAGENTA), (0.38, CYAN), (0.74, AMBER)):
        _, x = tile(near.x, 1.1, cx)
        studio.canvas.light(color, np.exp(-(x * x) * 160.0) * wet)
    studio.fill(
        near, mix(light.tone((0.5, 0.5, 0.6), 1.0), CYAN, 0.25 + 0.5 * light.lamps), 0.008 - np.abs(near.y - 0.735)
    )


def _towers(studio: Studio, depth: float, period: float, *, tall: tuple[float, float], color: Color) -> None:
    view, light = studio.view(depth), studio.light
    index, x = tile(view.x, period, studio.rng.uniform(0, 1))
    top = 0.66 - studio.table(*tall)[index % 16]
    half = period * studio.table(0.36, 0.47)[(index * 3) % 16]
    body = np.minimum(half - np.abs(x), view.y - top)
    body = np.maximum(body, np.minimum(half * 0.45 - np.abs(x), view.y - top + 0.05 * (index % 2)))
    studio.fill(view, light.tone(color, depth + 0.3), body)
    studio.fill(view, light.tone(scale(color, 0.72), depth + 0.3), np.minimum(body, x - half * 0.35))
    lit = studio.table(0.0, 1.0)
    _, wx = tile(x, 0.068)
    floor, wy = tile(view.y, 0.062)
    on = np.asarray(lit[(index * 7 + floor * 5) % 16] > 0.42, np.float32)
    hue = mix(AMBER, CYAN, np.asarray(lit[index % 16] > 0.6, np.float32))
    pane = np.minimum(np.minimum(0.020 - np.abs(wx), 0.018 - np.abs(wy)), body - 0.012)
    studio.fill(
        view, hue, np.minimum(pane, view.y - top - 0.02), on * (0.16 + 0.62 * light.lamps) * (0.6 + 0.6 * depth)
    )


def _signs(studio: Studio) -> None:
    view, light = studio.view(0.6), studio.light
    index, x = tile(view.x, 0.74, studio.rng.uniform(0, 1))
    tall = studio.table(0.14, 0.26)[index % 16]
    studio.fill(view, light.tone((0.20, 0.18, 0.32), 0.95), box(x, view.y, 0.0, 0.74, a=0.15, b=tall))
    pink = np.asarray(index % 2, np.float32)
    power = 0.5 + 0.5 * light.lamps
    flick = power * (0.88 + 0.12 * np.sin(studio.seconds * 9.0 + index))
    hue = mix(MAGENTA, CYAN, pink)
    center = 0.74 - tall + 0.09
    for shape in (
        box(x, view.y, -0.09, center, a=0.024, b=0.06),
        box(x, view.y, 0.05, center - 0.02, a=0.065, b=0.022),
    ):
        studio.fill(view, hue, shape, flick)
    door = np.minimum(box(x, view.y, 0.05, 0.71, a=0.06, b=0.035), 0.73 - view.y)
    studio.fill(view, mix(light.tone((0.3, 0.3, 0.4), 1.0), AMBER, light.lamps * 0.9), door)
    studio.canvas.light(
        hue, np.exp(-((x + 0.03) ** 2) * 40.0) * np.exp(-((view.y - center) ** 2) * 60.0) * (0.5 * light.lamps)
    )


def moonbase(studio: Studio) -> None:
    """Grey craters, white domes with yellow windows, a dish, and the blue Earth in a dark sky."""
    studio.light = studio.light.tinted((0.9, 0.95, 1.2), 0.5)
    studio.light = _dimmed(studio, 0.42)
    studio.sky(clouds=0.0, stars=max(0.7, studio.light.stars))
    _planet(studio, (0.30, 0.58, 0.92), at=(studio.rng.uniform(-0.5, 0.5), 0.24), radius=0.14)
    studio.hills(0.25, (0.62, 0.62, 0.66), top=0.60, swell=0.04, pitch=6.0)
    light, view = studio.light, studio.view(0.55)
    index, x = tile(view.x, 0.92, studio.rng.uniform(0, 1))
    size = studio.table(0.85, 1.1)[index % 16]
    x, y = x / size, (view.y - 0.71) / size
    shell = light.tone((0.93, 0.94, 0.97), 0.95)
    dome = np.minimum(ellipse(x, y, -0.06, 0.0, a=0.19, b=0.185), 0.02 - y)
    studio.fill(view, shell, dome)
    studio.fill(view, scale(shell, 0.72), np.minimum(dome, ellipse(x, y, 0.06, 0.03, a=0.19, b=0.2)))
    studio.fill(view, shell, box(x, y, 0.24, -0.03, a=0.12, b=0.045))
    studio.fill(view, light.tone((0.90, 0.42, 0.16), 0.95), np.minimum(0.011 - np.abs(y + 0.02), dome))
    lamp = mix(light.tone((0.35, 0.55, 0.75), 1.0), AMBER, light.lamps)
    for cx, cy in ((-0.15, -0.07), (-0.06, -0.10), (0.03, -0.07), (0.19, -0.035), (0.29, -0.035)):
        studio.fill(view, lamp, disc(x, y, cx, cy, 0.024))
    mast = capsule(x, y, (0.34, -0.05), (0.34, -0.19), r=0.009)
    dish = np.minimum(disc(x, y, 0.34, -0.24, 0.075), (x - 0.34) * 0.6 + (y + 0.225) * 0.8)
    studio.fill(view, scale(shell, 0.9), np.maximum(mast, dish))
    blink = 0.5 + 0.5 * np.sign(np.sin(studio.seconds * 5.0 + index))
    studio.fill(view, (1.0, 0.2, 0.15), disc(x, y, -0.06, -0.20, 0.016), blink)
    studio.glow(AMBER, x, y + 0.05, radius=0.2, strength=0.3 * light.lamps)
    studio.ground((0.70, 0.70, 0.72), top=0.70, patch=(0.58, 0.58, 0.62))
    _craters(studio)


def _dimmed(studio: Studio, amount: float) -> Light:
    """The light under a thin or missing atmosphere: the sky goes dark from the top, the ground stays lit."""
    light = studio.light
    return replace(
        light,
        zenith=scale(light.zenith, amount * 0.6),
        middle=scale(light.middle, amount),
        horizon=mix(scale(light.horizon, amount), light.horizon, 0.35),
    )


def _craters(studio: Studio) -> None:
    view, light = studio.view(0.95), studio.light
    index, x = tile(view.x, 0.66, studio.rng.uniform(0, 1))
    row = 0.80 + 0.13 * (index % 2)
    studio.fill(view, light.tone((0.82, 0.82, 0.84), 1.0), ellipse(x, view.y, 0.0, row + 0.008, a=0.13, b=0.032))
    studio.fill(view, light.tone((0.44, 0.44, 0.50), 1.0), ellipse(x, view.y, 0.0, row, a=0.115, b=0.024))


def canyon(studio: Studio) -> None:
    """Red banded mesas, a rock arch, two moons, blowing dust."""
    studio.light = studio.light.tinted((1.55, 0.82, 0.62), 0.55)
    studio.sky(clouds=0.2)
    _planet(studio, (0.90, 0.78, 0.66), at=(studio.rng.uniform(-0.6, 0.0), 0.17), radius=0.075)
    _planet(studio, (0.70, 0.62, 0.74), at=(studio.rng.uniform(0.1, 0.6), 0.30), radius=0.04)
    for depth, period, low, high, color in (
        (0.2, 0.72, 0.12, 0.24, (0.80, 0.46, 0.34)),
        (0.45, 1.06, 0.14, 0.36, (0.74, 0.34, 0.22)),
    ):
        view = studio.view(depth)
        index, x = tile(view.x, period, studio.rng.uniform(0, 1))
        tall = studio.table(low, high)[index % 16]
        half = period * studio.table(0.26, 0.40)[(index * 5) % 16]
        y = view.y - 0.68
        mesa = np.minimum(y + tall, half - np.abs(x) + y * 0.42 + 0.03 + 0.006 * np.sin(y * 60.0))
        strata = 1.0 + 0.16 * np.sin(y * 62.0 + index)
        studio.fill(view, scale(studio.light.tone(color, depth + 0.25), strata), mesa)
        studio.fill(
            view, scale(studio.light.tone(scale(color, 0.66), depth + 0.25), strata), np.minimum(mesa, x - half * 0.25)
        )
    _arch(studio)
    studio.ground((0.84, 0.45, 0.27), top=0.70, patch=(0.68, 0.33, 0.20), grain=0.8)
    index, x = tile(studio.view(0.9).x - 0.5 * studio.seconds, 0.9, studio.rng.uniform(0, 1))
    puff = np.exp(-(x * x) * 30.0) * np.exp(-((studio.view(0.9).y - 0.73) ** 2) * 1400.0)
    studio.canvas.over(studio.light.tone((1.0, 0.72, 0.5), 0.8), puff * 0.45)


def _arch(studio: Studio) -> None:
    view = studio.view(0.62)
    _, x = tile(view.x, 1.9, studio.rng.uniform(-0.6, 0.6))
    y = view.y - 0.72
    solid = np.maximum(ellipse(x, y, 0.0, 0.0, a=0.30, b=0.34), box(x, y, 0.24, 0.0, a=0.09, b=0.2))
    hole = ellipse(x, y, -0.03, 0.0, a=0.17, b=0.24)
    rock = np.minimum(np.minimum(solid, -hole), 0.04 - y)
    strata = 1.0 + 0.14 * np.sin(y * 55.0)
    studio.fill(view, scale(studio.light.tone((0.66, 0.28, 0.19), 0.9), strata), rock)


def canyon_front(studio: Studio) -> None:
    """Boulders near the lens."""
    view, light = studio.view(1.35), studio.light
    _, x = tile(view.x, 1.6, studio.rng.uniform(0.4, 1.3))
    rock = np.maximum(ellipse(x, view.y, 0.0, 1.03, a=0.17, b=0.10), ellipse(x, view.y, 0.13, 1.04, a=0.11, b=0.06))
    studio.fill(view, light.tone((0.40, 0.18, 0.14), 1.0), rock)


def orbital_dock(studio: Studio) -> None:
    """Space, a huge planet below, a turning ring station, a steel deck with guide lights."""
    studio.light = studio.light.tinted((0.85, 0.95, 1.3), 0.4)
    horizon = studio.light.horizon
    studio.light = _dimmed(studio, 0.22)
    studio.sky(clouds=0.0, stars=0.9, sun=studio.light.stars < 1.0)
    view, light = studio.view(0.12), studio.light
    dx, dy = view.x + 0.15, view.y - 1.55
    globe = disc(dx, dy, 0.0, 0.0, 1.05)
    studio.canvas.light(horizon, np.exp(-((np.minimum(globe, 0.0)) ** 2) * 300.0) * 0.75)
    sea = mix(
        scale((0.12, 0.34, 0.62), (*light.ambient,)[1]), scale(horizon, 0.9), np.exp(-np.maximum(globe, 0.0) * 22.0)
    )
    studio.fill(view, sea, globe)
    swirl = np.sin(dx * 9.0 + np.sin(dy * 16.0) * 1.3) * np.sin(dy * 24.0)
    studio.fill(
        view,
        mix(horizon, (0.95, 0.97, 1.0), 0.5),
        np.minimum((swirl - 0.35) * 0.06, globe - 0.03),
        0.55 * light.ambient[0],
    )
    if light.lamps > 0.5:
        towns = np.minimum((0.25 - np.abs(np.sin(dx * 21.0 + 1.0)) - np.abs(np.sin(dy * 33.0))) * 0.03, globe - 0.04)
        studio.fill(view, AMBER, towns, 0.9 * light.lamps)
    _ring_station(studio)
    _gantry(studio)


def _ring_station(studio: Studio) -> None:
    view, light = studio.view(0.25), studio.light
    dx, dy = view.x - np.float32(studio.rng.uniform(-0.42, 0.42)), view.y - 0.26
    shell = light.subject((0.80, 0.84, 0.92))
    ring = 0.022 - np.abs(np.sqrt(dx * dx + (dy * 1.5) ** 2) - 0.19)
    turn = studio.seconds * 0.55
    spokes: list[Array] = [ellipse(dx, dy, 0.0, 0.0, a=0.05, b=0.045)]
    for arm in range(2):
        c, s = np.cos(turn + arm * 1.571) * 0.19, np.sin(turn + arm * 1.571) * 0.127
        spokes.append(capsule(dx, dy, (-c, -s), (c, s), r=0.009))
    studio.fill(view, scale(shell, 0.85), union(*spokes))
    studio.fill(view, shell, ring)
    for lamp in range(6):
        c, s = np.cos(turn + lamp * 1.047) * 0.19, np.sin(turn + lamp * 1.047) * 0.127
        studio.fill(view, AMBER, disc(dx, dy, c, s, 0.016))


def _gantry(studio: Studio) -> None:
    view, light = studio.view(0.75), studio.light
    index, x = tile(view.x, 1.25, studio.rng.uniform(0, 1))
    steel = light.subject((0.42, 0.46, 0.56))
    frame = np.maximum(box(x, view.y, -0.36, 0.52, a=0.030, b=0.30), box(x, view.y, -0.22, 0.245, a=0.19, b=0.026))
    frame = np.maximum(frame, capsule(x, view.y, (-0.36, 0.42), (-0.16, 0.25), r=0.014))
    studio.fill(view, steel, frame)
    studio.fill(view, light.subject((0.95, 0.62, 0.12)), box(x, view.y, -0.36, 0.60, a=0.031, b=0.02))
    blink = 0.55 + 0.45 * np.sin(studio.seconds * 5.0 + index)
    studio.fill(view, (1.0, 0.25, 0.2), disc(x, view.y, -0.04, 0.285, 0.02), blink)
    studio.ground((0.50, 0.54, 0.62), top=0.76, patch=(0.44, 0.48, 0.57), grain=0.4)
    view = studio.view(1.0)
    _, x = tile(view.x, 0.5, studio.rng.uniform(0, 1))
    studio.fill(
        view, light.tone((0.28, 0.30, 0.38), 1.0), np.minimum(0.014 - np.abs(x + (view.y - 0.85) * 0.6), view.y - 0.77)
    )
    studio.fill(view, light.tone((0.66, 0.70, 0.78), 1.0), 0.012 - np.abs(view.y - 0.765) + 0.0 * view.x)
    chase = 0.45 + 0.55 * np.cos(studio.seconds * 6.0 - view.x * 4.0) ** 2
    studio.fill(view, CYAN, ellipse(x, view.y, 0.22, 0.80, a=0.035, b=0.014), chase)


def ice_plain(studio: Studio) -> None:
    """Blue-white ice, sharp bergs, aurora, a red station on stilts, falling snow."""
    studio.light = studio.light.tinted((0.78, 1.05, 1.15), 0.35)
    studio.sky(clouds=0.3)
    light, view = studio.light, studio.view(0.07)
    veil = (
        0.25 + 0.06 * np.sin(view.x * 4.0 + studio.seconds * 0.5) + 0.03 * np.sin(view.x * 9.0 - studio.seconds * 0.7)
    )
    rise = np.clip((view.y - veil + 0.24) * 4.2, 0.0, 1.0) * np.clip((veil - view.y) * 14.0, 0.0, 1.0)
    strength = (0.12 + 0.6 * light.stars) * (0.75 + 0.25 * np.sin(view.x * 15.0 + studio.seconds))
    studio.canvas.light((0.25, 1.0, 0.66), (rise * strength).astype(np.float32))
    studio.peaks(0.25, (0.62, 0.80, 0.92), base=0.64, height=0.2, snow=0.5)
    _bergs(studio, 0.5)
    _station(studio)
    studio.ground((0.86, 0.94, 0.98), top=0.70, patch=(0.66, 0.82, 0.92), grain=0.9)
    view = studio.view(0.95)
    index, x = tile(view.x, 0.78, studio.rng.uniform(0, 1))
    crack = capsule(x, view.y, (-0.2, 0.90), (0.16, 0.78 + 0.05 * (index % 2)), r=0.010)
    studio.fill(view, light.tone((0.30, 0.62, 0.80), 1.0), crack, 0.8)
    _snow(studio)


def _bergs(studio: Studio, depth: float) -> None:
    view, light = studio.view(depth), studio.light
    index, x = tile(view.x, 0.64, studio.rng.uniform(0, 1))
    tall = studio.table(0.12, 0.30)[index % 16]
    lean = studio.table(-0.09, 0.09)[(index * 3) % 16]
    shape = convex(x, view.y, [(-0.21, 0.74), (0.21, 0.74), (lean + 0.03, 0.72 - tall), (lean - 0.05, 0.74 - tall)])
    studio.fill(view, light.tone((0.80, 0.95, 1.0), 0.85), shape)
    edge = x - lean - (view.y - 0.74 + tall) * 0.2
    studio.fill(view, light.tone((0.40, 0.70, 0.88), 0.85), np.minimum(shape, edge))


def _station(studio: Studio) -> None:
    view, light = studio.view(0.66), studio.light
    _, x = tile(view.x, 1.7, studio.rng.uniform(-0.5, 0.5))
    y = view.y - 0.61
    legs = np.maximum(
        capsule(x, y, (-0.1, 0.0), (-0.13, 0.13), r=0.011), capsule(x, y, (0.1, 0.0), (0.13, 0.13), r=0.011)
    )
    studio.fill(view, light.tone((0.30, 0.32, 0.38), 0.9), np.maximum(legs, box(x, y, 0.12, -0.13, a=0.007, b=0.10)))
    studio.fill(view, light.tone((0.84, 0.22, 0.16), 0.95), capsule(x, y, (-0.11, -0.01), (0.11, -0.01), r=0.058))
    studio.fill(view, light.tone((0.95, 0.95, 0.95), 0.95), box(x, y, 0.0, 0.028, a=0.15, b=0.010))
    for cx in (-0.09, 0.0, 0.09):
        studio.fill(view, mix(light.tone((0.3, 0.5, 0.6), 1.0), AMBER, light.lamps), disc(x, y, cx, -0.02, 0.022))
    studio.glow(AMBER, x, y, radius=0.2, strength=0.35 * light.lamps)


def _snow(studio: Studio) -> None:
    view = studio.view(0.8)
    for period, speed, radius in ((0.31, 0.10, 0.010), (0.43, 0.15, 0.013)):
        index, x = tile(view.x + 0.05 * studio.seconds, period, studio.rng.uniform(0, 1))
        offset = studio.table(0.0, 1.0)[index % 16]
        _, y = tile(view.y - studio.seconds * speed - offset, 0.38)
        studio.fill(
            view, (0.97, 0.99, 1.0), disc(x, y, 0.02 * np.sin(index), 0.0, radius), 0.35 + 0.4 * studio.light.ambient[0]
        )


def crystal_forest(studio: Studio) -> None:
    """Leaning violet, pink and cyan crystals over dark teal ground, floating motes, a ringed planet."""
    studio.light = studio.light.tinted((1.12, 0.78, 1.4), 0.5)
    studio.sky(clouds=0.15)
    _planet(studio, (0.96, 0.76, 0.62), at=(studio.rng.uniform(-0.5, 0.5), 0.2), radius=0.085, ring=(0.92, 0.82, 0.78))
    studio.hills(0.2, (0.40, 0.40, 0.62), top=0.57, swell=0.03, pitch=5.0)
    _crystals(studio, 0.35, period=0.37, tall=(0.16, 0.30), base=0.70)
    _crystals(studio, 0.65, period=0.62, tall=(0.22, 0.46), base=0.76)
    studio.ground((0.20, 0.42, 0.46), top=0.73, patch=(0.30, 0.54, 0.52), grain=0.8)
    view = studio.view(0.85)
    for row, period in ((0.35, 0.53), (0.6, 0.71)):
        index, x = tile(view.x - 0.02 * studio.seconds, period, studio.rng.uniform(0, 1))
        y = view.y - row - 0.05 * np.sin(studio.seconds * 0.9 + index * 2.1)
        studio.fill(view, (0.85, 1.0, 0.8), disc(x, y, 0.0, 0.0, 0.013), 0.35 + 0.6 * studio.light.lamps)
        studio.glow((0.6, 1.0, 0.7), x, y, radius=0.045, strength=0.15 + 0.3 * studio.light.lamps)


CRYSTALS: tuple[Color, ...] = ((0.62, 0.36, 0.92), (0.96, 0.44, 0.74), (0.30, 0.78, 0.92))


def _crystals(studio: Studio, depth: float, *, period: float, tall: tuple[float, float], base: float) -> None:
    view, light = studio.view(depth), studio.light
    index, x = tile(view.x, period, studio.rng.uniform(0, 1))
    high = studio.table(*tall)[index % 16]
    lean = high * studio.table(-0.3, 0.3)[(index * 3) % 16]
    hues = np.asarray(CRYSTALS, np.float32)[(index + int(depth * 10)) % 3]
    glowing = 0.42 * light.lamps
    wide = period * 0.17
    up = np.clip((base - view.y) / high, 0.0, 1.2)
    hue = tuple(
        mix(
            light.tone(tuple(hues[..., k] for k in range(3)), depth + 0.25),
            tuple(hues[..., k] for k in range(3)),
            glowing,
        )
    )
    for side, share in ((-1.0, 0.55), (1.0, 0.45), (0.0, 1.0)):
        cx = side * period * 0.2
        tip = (cx + lean * share + side * 0.05, base - high * share)
        half = wide * (0.7 if side else 1.0)
        mid = (cx + (tip[0] - cx) * 0.72, base - high * share * 0.72)
        points = [
            (cx - half * 0.8, base + 0.02),
            (cx + half * 0.8, base + 0.02),
            (mid[0] + half, mid[1]),
            tip,
            (mid[0] - half, mid[1]),
        ]
        shape = convex(x, view.y, points)
        studio.fill(view, scale(hue, 0.8 + 0.25 * up), shape)
        studio.fill(view, mix(hue, (1.0, 1.0, 1.0), 0.38), np.minimum(shape, cx + (tip[0] - cx) * up - x))
    studio.glow((0.7, 0.5, 1.0), x, view.y - base + 0.12, radius=period * 0.4, strength=0.32 * light.lamps)


def crystal_forest_front(studio: Studio) -> None:
    """Small dark shards near the lens."""
    view, light = studio.view(1.35), studio.light
    _, x = tile(view.x, 1.5, studio.rng.uniform(0.4, 1.2))
    shards = [
        convex(x, view.y, [(cx - 0.05, 1.05), (cx + 0.05, 1.05), (tip, 1.0 - tall)])
        for cx, tip, tall in ((-0.08, -0.15, 0.07), (0.0, 0.01, 0.14), (0.08, 0.14, 0.05))
    ]
    studio.fill(view, mix(light.tone((0.30, 0.16, 0.46), 1.0), (0.5, 0.3, 0.8), 0.3 * light.lamps), union(*shards))
