"""Subjects of the science-fiction domain. Each function draws with a `Brush`; `accent` is chosen by the seed."""

from __future__ import annotations

import numpy as np

from cinetune.backlot.brush import Brush
from cinetune.backlot.paint import Color, scale

__all__ = ["drone", "hover_bike", "probe", "rocket", "rover", "saucer", "walker"]

GLASS: Color = (0.30, 0.62, 0.78)
STEEL: Color = (0.78, 0.80, 0.85)
DARK: Color = (0.17, 0.18, 0.23)
CYAN: Color = (0.40, 0.95, 1.0)
HOT: Color = (1.0, 0.62, 0.20)


def _night(brush: Brush) -> float:
    return brush.studio.light.lamps


def rover(brush: Brush, accent: Color) -> None:
    """A six-wheeled rover with a glass cabin, a mast and headlights."""
    bob = 0.007 * brush.swing(2.7)
    brush.part(STEEL, brush.limb((-0.15, 0.15 + bob), (-0.17, 0.33 + bob), 0.010))
    brush.part(accent, brush.disc(-0.17, 0.335 + bob, 0.024))
    brush.part(
        accent, brush.shape((-0.22, 0.085 + bob), (0.22, 0.085 + bob), (0.19, 0.165 + bob), (-0.20, 0.165 + bob))
    )
    brush.part(scale(accent, 0.7), brush.box(0.0, 0.095 + bob, 0.21, 0.016))
    cabin = brush.shape((-0.06, 0.16 + bob), (0.19, 0.16 + bob), (0.11, 0.275 + bob), (-0.03, 0.275 + bob))
    brush.part(STEEL, cabin)
    brush.part(
        GLASS,
        brush.shape((0.02, 0.175 + bob), (0.16, 0.175 + bob), (0.098, 0.255 + bob), (0.02, 0.255 + bob)),
        lit=0.25 + 0.5 * _night(brush),
    )
    for u in (-0.155, 0.0, 0.155):
        brush.wheel(u, 0.058, 0.06, turns=1.3, rim=DARK, hub=(0.62, 0.63, 0.68))
    brush.part((1.0, 0.95, 0.7), brush.disc(0.215, 0.13 + bob, 0.018), lit=1.0)
    brush.beam((1.0, 0.93, 0.66), [(0.22, 0.145), (0.22, 0.115), (0.44, 0.0), (0.44, 0.2)], 0.12 + 0.58 * _night(brush))


def saucer(brush: Brush, accent: Color) -> None:
    """A flying saucer: dome, rim lights that chase, a beam below."""
    tip = 0.02 * brush.swing(0.6)
    brush.beam(
        (0.55, 1.0, 0.75), [(-0.07, -0.03), (0.07, -0.03), (0.17, -0.40), (-0.17, -0.40)], 0.34 + 0.36 * _night(brush)
    )
    brush.part(
        GLASS,
        np.minimum(brush.ellipse(0.0, 0.035 + tip, 0.095, 0.10), brush.v - 0.02 - tip),
        lit=0.3 + 0.4 * _night(brush),
    )
    brush.part((0.80, 0.96, 1.0), brush.ellipse(0.03, 0.09 + tip, 0.022, 0.018), lit=0.5)
    brush.part(accent, brush.ellipse(0.0, 0.015 + tip, 0.225, 0.058))
    brush.part(scale(accent, 0.62), np.minimum(brush.ellipse(0.0, 0.005 + tip, 0.20, 0.055), -0.006 + tip - brush.v))
    for place, u in enumerate((-0.155, -0.08, 0.0, 0.08, 0.155)):
        on = 0.55 + 0.45 * brush.swing(1.2, -1.25 * place)
        brush.part((1.0, 0.93, 0.55), brush.disc(u, 0.012 + tip, 0.019 * on + 0.004), lit=1.0)
    brush.halo((0.5, 1.0, 0.75), 0.0, -0.05, radius=0.12, strength=0.25 + 0.2 * _night(brush))


def drone(brush: Brush, accent: Color) -> None:
    """A quadcopter with blurred rotors, skids and a camera eye."""
    bob = 0.014 * brush.swing(0.9)
    for u in (-0.19, 0.19):
        brush.part(DARK, brush.limb((0.0, 0.01 + bob), (u, 0.055 + bob), 0.017))
        brush.part(STEEL, brush.box(u, 0.075 + bob, 0.018, 0.030))
        wide = 0.085 + 0.03 * brush.swing(5.3, u * 9)
        brush.part((0.90, 0.93, 0.96), np.minimum(brush.box(u, 0.112 + bob, wide, 0.010), 0.12 - np.abs(brush.u - u)))
        brush.clear((0.9, 0.95, 1.0), brush.ellipse(u, 0.112 + bob, 0.12, 0.026), 0.4)
        brush.part(DARK, brush.limb((u * 0.35, -0.04 + bob), (u * 0.62, -0.115 + bob), 0.010))
        brush.part(DARK, brush.limb((u * 0.35, -0.115 + bob), (u * 0.85, -0.115 + bob), 0.010))
    brush.part(accent, brush.ellipse(0.0, 0.01 + bob, 0.105, 0.062))
    brush.part(scale(accent, 0.66), np.minimum(brush.ellipse(0.0, 0.01 + bob, 0.105, 0.062), -0.005 + bob - brush.v))
    brush.part(DARK, brush.disc(0.055, -0.025 + bob, 0.038))
    brush.part((1.0, 0.30, 0.22), brush.disc(0.062, -0.025 + bob, 0.019), lit=1.0)
    brush.halo((1.0, 0.3, 0.2), 0.062, -0.025 + bob, radius=0.07, strength=0.25 + 0.35 * _night(brush))


def walker(brush: Brush, accent: Color) -> None:
    """A two-legged robot with reverse knees, stepping."""
    bob = 0.012 * brush.swing(2.0)
    for shift, tone in ((3.1416, scale(STEEL, 0.62)), (0.0, STEEL)):
        swing = brush.swing(1.0, shift)
        lift = np.maximum(0.0, brush.swing(1.0, shift + 1.571))
        foot = (0.105 * swing, 0.024 + 0.05 * lift)
        knee = (0.055 * swing - 0.075, 0.15 + 0.03 * lift)
        brush.part(tone, brush.limb((-0.01, 0.26 + bob), knee, 0.022))
        brush.part(tone, brush.limb(knee, foot, 0.018))
        brush.part(DARK, brush.box(foot[0] + 0.02, foot[1] - 0.004, 0.048, 0.018))
    brush.part(
        accent,
        brush.shape(
            (-0.13, 0.27 + bob), (0.11, 0.255 + bob), (0.13, 0.36 + bob), (0.05, 0.435 + bob), (-0.12, 0.42 + bob)
        ),
    )
    brush.part(
        scale(accent, 0.66),
        brush.shape((-0.13, 0.27 + bob), (0.11, 0.255 + bob), (0.12, 0.30 + bob), (-0.13, 0.31 + bob)),
    )
    brush.part(DARK, brush.limb((0.09, 0.285 + bob), (0.20, 0.285 + bob), 0.017))
    brush.part(CYAN, brush.limb((0.045, 0.365 + bob), (0.105, 0.358 + bob), 0.021), lit=0.9)
    brush.part(STEEL, brush.limb((-0.09, 0.42 + bob), (-0.12, 0.51 + bob), 0.009))
    brush.halo(CYAN, 0.09, 0.36 + bob, radius=0.09, strength=0.12 + 0.35 * _night(brush))


def rocket(brush: Brush, accent: Color) -> None:
    """A finned rocket flying flat, with a flickering flame."""
    rise = 0.010 * brush.swing(0.8)
    flick = 0.03 * brush.swing(7.0)
    brush.part(
        (1.0, 0.50, 0.14), brush.shape((-0.17, 0.045 + rise), (-0.17, -0.045 + rise), (-0.34 - flick, rise)), lit=1.0
    )
    brush.part(
        (1.0, 0.92, 0.55),
        brush.shape((-0.17, 0.025 + rise), (-0.17, -0.025 + rise), (-0.25 - flick * 0.6, rise)),
        lit=1.0,
    )
    brush.part(
        accent, brush.shape((-0.05, 0.03 + rise), (-0.16, 0.03 + rise), (-0.21, 0.135 + rise), (-0.15, 0.135 + rise))
    )
    brush.part(
        scale(accent, 0.72),
        brush.shape((-0.05, -0.03 + rise), (-0.16, -0.03 + rise), (-0.21, -0.135 + rise), (-0.15, -0.135 + rise)),
    )
    body = np.maximum(brush.ellipse(0.03, rise, 0.20, 0.066), brush.box(-0.09, rise, 0.085, 0.056))
    brush.part((0.94, 0.94, 0.96), body)
    brush.part((0.70, 0.73, 0.80), np.minimum(body, -0.018 + rise - brush.v))
    brush.part(accent, np.minimum(body, brush.u - 0.125))
    brush.part(accent, np.minimum(body, 0.016 - np.abs(brush.u + 0.115)))
    brush.part(GLASS, brush.disc(0.05, 0.012 + rise, 0.030), lit=0.3 + 0.5 * _night(brush))
    brush.halo(HOT, -0.21, rise, radius=0.10, strength=0.35 + 0.35 * _night(brush))


def hover_bike(brush: Brush, accent: Color) -> None:
    """A crouched rider on a floating bike with glowing pads."""
    float_ = 0.085 + 0.014 * brush.swing(1.1)
    for u in (-0.13, 0.14):
        brush.part(DARK, brush.limb((u - 0.045, float_), (u + 0.045, float_), 0.026))
        brush.part(CYAN, brush.limb((u - 0.04, float_ - 0.03), (u + 0.04, float_ - 0.03), 0.012), lit=1.0)
        brush.halo(CYAN, u, float_ - 0.05, radius=0.075, strength=0.35 + 0.3 * _night(brush))
    brush.part(
        accent,
        brush.shape(
            (-0.22, float_ + 0.075),
            (-0.17, float_ + 0.015),
            (0.18, float_ + 0.01),
            (0.26, float_ + 0.045),
            (0.10, float_ + 0.10),
        ),
    )
    brush.part(
        scale(accent, 0.65),
        brush.shape((-0.17, float_ + 0.015), (0.18, float_ + 0.01), (0.22, float_ + 0.035), (-0.19, float_ + 0.04)),
    )
    brush.part(STEEL, brush.limb((0.11, float_ + 0.09), (0.085, float_ + 0.15), 0.012))
    brush.part((0.30, 0.30, 0.38), brush.limb((-0.06, float_ + 0.085), (0.04, float_ + 0.055), 0.026))
    brush.part((0.36, 0.36, 0.45), brush.limb((-0.06, float_ + 0.10), (0.0, float_ + 0.185), 0.038))
    brush.part((0.36, 0.36, 0.45), brush.limb((0.0, float_ + 0.18), (0.085, float_ + 0.145), 0.017))
    brush.part(accent, brush.disc(0.028, float_ + 0.245, 0.046))
    brush.part(CYAN, brush.limb((0.045, float_ + 0.245), (0.065, float_ + 0.24), 0.016), lit=0.8)
    brush.part(
        HOT, brush.limb((-0.245, float_ + 0.05), (-0.275 - 0.02 * brush.swing(6.0), float_ + 0.05), 0.018), lit=1.0
    )
    brush.halo(HOT, -0.26, float_ + 0.05, radius=0.08, strength=0.35 + 0.3 * _night(brush))


def probe(brush: Brush, accent: Color) -> None:
    """A round satellite with two blue solar wings, a dish and a blinking lamp."""
    tip = 0.02 * brush.swing(0.5)
    for side in (-1.0, 1.0):
        brush.part(STEEL, brush.limb((0.0, 0.0), (side * 0.13, side * tip * 0.5), 0.010))
        wing = [
            (side * 0.11, -0.065 + side * tip),
            (side * 0.285, -0.065 + side * tip),
            (side * 0.285, 0.065 + side * tip),
            (side * 0.11, 0.065 + side * tip),
        ]
        panel = brush.shape(*wing)
        brush.part((0.20, 0.36, 0.80), panel)
        brush.part((0.62, 0.76, 1.0), np.minimum(panel, 0.008 - np.abs(np.abs(brush.u) - 0.197)))
        brush.part((0.62, 0.76, 1.0), np.minimum(panel, 0.008 - np.abs(brush.v - side * tip)))
    brush.part(STEEL, brush.limb((0.02, 0.06), (0.055, 0.14), 0.010))
    brush.part(
        (0.95, 0.95, 0.97), np.minimum(brush.disc(0.075, 0.175, 0.062), 0.19 - brush.v + (0.075 - brush.u) * 0.6)
    )
    brush.part(accent, brush.disc(0.0, 0.0, 0.085))
    brush.part(scale(accent, 0.65), np.minimum(brush.disc(0.0, 0.0, 0.085), -0.012 - brush.v - brush.u * 0.3))
    brush.part((0.98, 0.86, 0.40), np.minimum(brush.disc(0.0, 0.0, 0.085), 0.013 - np.abs(brush.v - 0.005)))
    blink = 0.5 + 0.5 * brush.swing(1.5)
    brush.part((1.0, 0.3, 0.2), brush.disc(0.0, -0.095, 0.02), lit=1.0)
    brush.halo((1.0, 0.35, 0.25), 0.0, -0.095, radius=0.07, strength=(0.2 + 0.5 * _night(brush)) * blink)
