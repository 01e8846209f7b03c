"""Time of day: the colours of sky, sun and shade that everything on the set is painted with."""

from __future__ import annotations

from dataclasses import dataclass, replace

from cinetune.backlot.paint import Color, Number, mix

__all__ = ["TIMES", "Light"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Light:
    """Colours are display RGB in [0, 1]; `lamps` says how strongly artificial lights show, `stars` how many."""

    zenith: Color
    middle: Color
    horizon: Color
    ambient: Color
    sun: Color
    rim: Color
    sun_y: float
    sun_radius: float
    lamps: float
    stars: float

    def tinted(self, tint: Color, amount: float) -> Light:
        """The same hour under another sky: each sky colour drawn towards `tint`, keeping its brightness."""

        def bend(color: Color) -> Color:
            bright = 0.3 * color[0] + 0.55 * color[1] + 0.15 * color[2]
            return mix(color, [channel * bright for channel in tint], amount)

        return replace(self, zenith=bend(self.zenith), middle=bend(self.middle), horizon=bend(self.horizon))

    def tone(self, color: Color, depth: float) -> tuple[Number, ...]:
        """A surface colour in this light, fading into the haze of the horizon with distance."""
        lit = tuple(c * a for c, a in zip(color, self.ambient, strict=True))
        return mix(lit, self.horizon, 0.62 * max(0.0, 1.0 - depth) ** 1.5)

    def subject(self, color: Color) -> tuple[Number, ...]:
        """A subject's colour: in the same light, lifted so that it stands out from the set at any hour."""
        return tuple(c * (0.34 + 0.66 * a) for c, a in zip(color, self.ambient, strict=True))


TIMES: dict[str, Light] = {
    "dawn": Light(
        zenith=(0.40, 0.55, 0.80),
        middle=(0.84, 0.70, 0.78),
        horizon=(1.00, 0.83, 0.66),
        ambient=(0.88, 0.80, 0.86),
        sun=(1.00, 0.95, 0.78),
        rim=(0.20, 0.14, 0.22),
        sun_y=0.46,
        sun_radius=0.075,
        lamps=0.35,
        stars=0.0,
    ),
    "noon": Light(
        zenith=(0.22, 0.53, 0.88),
        middle=(0.47, 0.74, 0.95),
        horizon=(0.84, 0.93, 0.97),
        ambient=(1.0, 1.0, 0.98),
        sun=(1.00, 0.98, 0.86),
        rim=(0.10, 0.11, 0.16),
        sun_y=0.13,
        sun_radius=0.06,
        lamps=0.0,
        stars=0.0,
    ),
    "dusk": Light(
        zenith=(0.23, 0.16, 0.42),
        middle=(0.76, 0.32, 0.42),
        horizon=(1.00, 0.60, 0.28),
        ambient=(0.72, 0.50, 0.52),
        sun=(1.00, 0.76, 0.38),
        rim=(0.14, 0.06, 0.12),
        sun_y=0.49,
        sun_radius=0.095,
        lamps=0.8,
        stars=0.15,
    ),
    "night": Light(
        zenith=(0.025, 0.045, 0.14),
        middle=(0.06, 0.10, 0.26),
        horizon=(0.15, 0.22, 0.42),
        ambient=(0.24, 0.30, 0.48),
        sun=(0.93, 0.95, 0.88),
        rim=(0.42, 0.53, 0.74),
        sun_y=0.19,
        sun_radius=0.065,
        lamps=1.0,
        stars=1.0,
    ),
}
