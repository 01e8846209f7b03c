"""Subjects of the historical domain. Each function draws with a `Brush`; `accent` is the colour chosen by the seed."""

from __future__ import annotations

import numpy as np

from cinetune.backlot.brush import Brush
from cinetune.backlot.paint import Color, Number, scale

__all__ = ["balloon", "banner_bearer", "cart", "elephant", "geese", "lantern_procession", "rider", "ship"]

SKIN: Color = (0.93, 0.70, 0.54)
WOOD: Color = (0.50, 0.31, 0.17)
FLAME: Color = (1.0, 0.80, 0.32)


def rider(brush: Brush, accent: Color) -> None:
    """A galloping horse with a caped rider."""
    horse = (0.36, 0.20, 0.11) if sum(accent) > 1.35 else (0.90, 0.86, 0.80)
    dark = scale(horse, 0.72)
    bob = 0.012 * brush.swing(2.6)
    for hip, shift in ((-0.10, 0.0), (-0.075, 0.9), (0.085, 2.3), (0.11, 3.1)):
        swing = brush.swing(2.6, shift)
        foot = (hip + 0.085 * swing, 0.018 + 0.035 * np.maximum(0.0, brush.swing(2.6, shift + 1.57)))
        brush.part(dark, brush.limb((hip, 0.15 + bob), foot, 0.0165))
    brush.part(dark, brush.limb((-0.13, 0.19 + bob), (-0.215, 0.15 + bob + 0.03 * brush.swing(2.6, 1.0)), 0.017))
    brush.part(horse, brush.ellipse(0.0, 0.175 + bob, 0.145, 0.062))
    brush.part(horse, brush.limb((0.10, 0.19 + bob), (0.165, 0.285 + bob), 0.034))
    brush.part(horse, brush.limb((0.165, 0.295 + bob), (0.22, 0.265 + bob), 0.023))
    flap = 0.02 * brush.swing(3.4)
    brush.part(
        scale(accent, 0.8),
        brush.shape((0.0, 0.34 + bob), (-0.16, 0.29 + bob + flap), (-0.15, 0.215 + bob - flap), (-0.02, 0.22 + bob)),
    )
    brush.part(accent, brush.limb((-0.005, 0.235 + bob), (0.01, 0.32 + bob), 0.036))
    brush.part(SKIN, brush.disc(0.022, 0.385 + bob, 0.034))
    brush.part(accent, brush.limb((-0.012, 0.412 + bob), (0.045, 0.412 + bob), 0.014))


def cart(brush: Brush, accent: Color) -> None:
    """A covered wagon on big wheels, drawn by an ox."""
    ox = (0.42, 0.26, 0.17)
    bob = 0.006 * brush.swing(2.0)
    for hip, shift in ((0.15, 0.0), (0.17, 3.1), (0.255, 1.6), (0.275, 4.7)):
        brush.part(scale(ox, 0.7), brush.limb((hip, 0.10), (hip + 0.03 * brush.swing(1.5, shift), 0.018), 0.0165))
    brush.part(WOOD, brush.limb((0.02, 0.10), (0.2, 0.12), 0.012))
    brush.part(ox, brush.ellipse(0.21, 0.135, 0.09, 0.052))
    brush.part(ox, brush.disc(0.295, 0.165 + bob, 0.038))
    brush.part((0.95, 0.92, 0.82), brush.limb((0.29, 0.195 + bob), (0.33, 0.235 + bob), 0.010))
    cover_top = brush.ellipse(-0.11, 0.17 + bob, 0.155, 0.165)
    brush.part(accent, np.minimum(cover_top, brush.v - 0.15))
    for cu in (-0.17, -0.05):
        brush.part(scale(accent, 0.72), np.minimum(np.minimum(cover_top, brush.v - 0.15), 0.011 - np.abs(brush.u - cu)))
    brush.part(WOOD, brush.box(-0.11, 0.135 + bob, 0.165, 0.03))
    for cu in (-0.20, -0.01):
        brush.wheel(cu, 0.072, 0.07, turns=1.0, rim=(0.24, 0.14, 0.09), hub=(0.72, 0.52, 0.32))


def _walker(brush: Brush, u: float, coat: Color, *, rate: float, shift: float) -> Number:
    """A person on foot; returns the height bob."""
    bob = 0.008 * brush.swing(rate * 2.0, shift)
    for phase in (0.0, 3.1416):
        foot = (u + 0.045 * brush.swing(rate, shift + phase), 0.015)
        brush.part((0.24, 0.17, 0.15), brush.limb((u, 0.12), foot, 0.0165))
    brush.part(
        coat,
        brush.shape((u - 0.05, 0.09 + bob), (u + 0.05, 0.09 + bob), (u + 0.028, 0.235 + bob), (u - 0.028, 0.235 + bob)),
    )
    brush.part(SKIN, brush.disc(u + 0.006, 0.265 + bob, 0.034))
    return bob


def banner_bearer(brush: Brush, accent: Color) -> None:
    """A marcher with a tall pole and a large waving banner."""
    bob = _walker(brush, 0.0, (0.82, 0.78, 0.70), rate=1.3, shift=0.0)
    brush.part((0.32, 0.22, 0.15), brush.limb((0.055, 0.06 + bob), (0.055, 0.56 + bob), 0.0125))
    left = np.clip((0.05 - brush.u) * 4.2, 0.0, 1.0)
    wave = 0.028 * np.sin(brush.u * 22.0 + brush.seconds * 11.0) * left
    cloth = np.minimum(np.minimum(0.05 - brush.u, brush.u + 0.20), 0.09 - np.abs(brush.v - 0.455 - bob - wave))
    brush.part(accent, cloth)
    brush.part((0.98, 0.94, 0.84), np.minimum(cloth, 0.024 - np.abs(brush.v - 0.455 - bob - wave)))
    brush.part((0.98, 0.82, 0.30), brush.disc(0.055, 0.575 + bob, 0.024))
    brush.part(SKIN, brush.limb((0.02, 0.2 + bob), (0.055, 0.18 + bob), 0.014))


def lantern_procession(brush: Brush, accent: Color) -> None:
    """Three walkers in a row, each with a glowing paper lantern on a pole."""
    for place, (u, coat) in enumerate(((-0.19, scale(accent, 0.85)), (0.0, accent), (0.19, scale(accent, 0.85)))):
        bob = _walker(brush, u, coat, rate=1.1, shift=2.0 * place)
        brush.part(WOOD, brush.limb((u + 0.045, 0.14 + bob), (u + 0.06, 0.375 + bob), 0.009))
        sway = 0.010 * brush.swing(1.1, 2.0 * place + 1.0)
        brush.part((1.0, 0.62, 0.22), brush.ellipse(u + 0.075 + sway, 0.365 + bob, 0.042, 0.052), lit=0.9)
        brush.part((1.0, 0.93, 0.62), brush.ellipse(u + 0.075 + sway, 0.36 + bob, 0.022, 0.030), lit=1.0)
        strength = 0.16 + 0.5 * brush.studio.light.lamps
        brush.halo((1.0, 0.62, 0.24), u + 0.075 + sway, 0.36 + bob, radius=0.12, strength=strength)


def geese(brush: Brush, accent: Color) -> None:
    """Three white geese in a wedge, wings beating."""
    del accent
    for u, v, shift in ((0.13, 0.01, 0.0), (-0.11, 0.13, 1.1), (-0.12, -0.12, 2.3)):
        v = v + 0.012 * brush.swing(0.7, shift)
        beat = brush.swing(1.7, shift)
        for lead, tone in ((0.035, (0.70, 0.73, 0.80)), (0.0, (0.86, 0.88, 0.92))):
            elbow = (u + lead - 0.025, v + 0.01 + 0.062 * beat)
            tip = (u + lead - 0.075, v + 0.015 + 0.115 * beat)
            brush.part(tone, brush.limb((u + lead, v + 0.012), elbow, 0.027))
            brush.part(tone, brush.limb(elbow, tip, 0.017))
        brush.part((0.98, 0.98, 0.96), brush.ellipse(u, v, 0.080, 0.030))
        brush.part((0.98, 0.98, 0.96), brush.limb((u + 0.06, v + 0.006), (u + 0.115, v + 0.022), 0.016))
        brush.part((0.98, 0.58, 0.12), brush.disc(u + 0.137, v + 0.022, 0.013))


def balloon(brush: Brush, accent: Color) -> None:
    """A striped hot-air balloon with a basket."""
    sway = 0.012 * brush.swing(0.4)
    pale = (0.97, 0.91, 0.76)
    brush.part((0.35, 0.24, 0.16), brush.limb((sway - 0.085, 0.04), (-0.03, -0.13), 0.007))
    brush.part((0.35, 0.24, 0.16), brush.limb((sway + 0.085, 0.04), (0.03, -0.13), 0.007))
    bag = np.maximum(
        brush.disc(sway, 0.13, 0.165),
        brush.shape((sway - 0.15, 0.06), (sway + 0.15, 0.06), (sway + 0.045, -0.065), (sway - 0.045, -0.065)),
    )
    brush.part(accent, bag)
    across = brush.u - sway
    for cu in (-0.088, 0.0, 0.088):
        bulge = cu * np.sqrt(np.clip(1.0 - ((brush.v - 0.11) * 4.8) ** 2, 0.12, 1.0))
        brush.part(pale, np.minimum(bag, 0.021 - np.abs(across - bulge)))
    brush.part((0.98, 0.80, 0.30), np.minimum(bag, 0.014 - np.abs(brush.v - 0.02)))
    brush.part((0.55, 0.34, 0.18), brush.box(0.0, -0.155, 0.042, 0.032))
    glow = (0.10 + 0.55 * brush.studio.light.lamps) * (0.8 + 0.2 * brush.swing(1.7))
    brush.part(FLAME, brush.disc(0.0, -0.085, 0.022), lit=1.0)
    brush.halo(FLAME, sway, 0.0, radius=0.13, strength=glow)


def elephant(brush: Brush, accent: Color) -> None:
    """A grey elephant with a canopied seat."""
    hide = (0.58, 0.58, 0.63)
    dark = scale(hide, 0.76)
    bob = 0.006 * brush.swing(1.8)
    for hip, shift in ((-0.12, 0.0), (-0.07, 2.9), (0.07, 1.5), (0.12, 4.4)):
        tone = dark if shift > 2.0 else hide
        brush.part(tone, brush.limb((hip, 0.15), (hip + 0.04 * brush.swing(0.9, shift), 0.03), 0.031))
    brush.part(hide, brush.ellipse(0.0, 0.205 + bob, 0.17, 0.095))
    brush.part(hide, brush.disc(0.185, 0.25 + bob, 0.07))
    curl = 0.025 * brush.swing(0.7)
    brush.part(hide, brush.limb((0.235, 0.23 + bob), (0.275 + curl * 0.5, 0.14), 0.024))
    brush.part(hide, brush.limb((0.275 + curl * 0.5, 0.14), (0.26 + curl, 0.075), 0.019))
    brush.part((0.97, 0.94, 0.86), brush.limb((0.235, 0.185 + bob), (0.30, 0.185 + bob), 0.011))
    brush.part(dark, brush.ellipse(0.14 + 0.008 * brush.swing(1.2), 0.245 + bob, 0.046, 0.062))
    brush.part(dark, brush.limb((-0.165, 0.22 + bob), (-0.20, 0.13), 0.010))
    cloth = np.minimum(
        brush.ellipse(-0.02, 0.215 + bob, 0.115, 0.105), np.minimum(brush.v - 0.2, 0.09 - np.abs(brush.u + 0.02))
    )
    brush.part(accent, cloth)
    brush.part((0.98, 0.82, 0.30), np.minimum(cloth, 0.224 - brush.v))
    brush.part(WOOD, brush.box(-0.02, 0.36 + bob, 0.058, 0.05))
    brush.part(accent, brush.shape((-0.12, 0.40 + bob), (0.08, 0.40 + bob), (-0.02, 0.49 + bob)))


def ship(brush: Brush, accent: Color) -> None:
    """A sailing ship with two square sails and a pennant."""
    roll = 0.012 * brush.swing(0.5)
    lift = 0.008 * brush.swing(0.7, 1.0)
    brush.part((0.34, 0.21, 0.13), brush.limb((-0.075, 0.05), (-0.075 + roll, 0.39 + lift), 0.0115))
    brush.part((0.34, 0.21, 0.13), brush.limb((0.085, 0.05), (0.085 + roll, 0.46 + lift), 0.0115))
    for u, low, high, half in ((-0.075, 0.14, 0.33, 0.075), (0.085, 0.14, 0.39, 0.085)):
        belly = 0.028 * np.sin((brush.v - low) * (3.1416 / (high - low)))
        across = brush.u - u - roll - belly
        sail = np.minimum(np.minimum(brush.v - low - lift, high + lift - brush.v), half - np.abs(across))
        brush.part((0.97, 0.92, 0.80), sail)
        brush.part(accent, np.minimum(sail, 0.027 - np.abs(across)))
    flutter = 0.016 * brush.swing(2.4)
    brush.part(
        accent, brush.shape((0.085 + roll, 0.47 + lift), (-0.02 + roll, 0.455 + flutter), (0.085 + roll, 0.425 + lift))
    )
    hull = [(-0.22, 0.12 + lift), (0.23, 0.105 + lift), (0.15, 0.0), (-0.16, 0.0)]
    brush.part(WOOD, brush.shape(*hull))
    brush.part((0.86, 0.66, 0.32), np.minimum(brush.shape(*hull), 0.012 - np.abs(brush.v - 0.083 - lift)))
    brush.part((0.94, 0.97, 1.0), brush.ellipse(0.17, 0.005, 0.07, 0.013), lit=0.2)
    brush.halo(FLAME, -0.2, 0.15, radius=0.06, strength=0.8 * brush.studio.light.lamps)
