"""What lies on reels before and over the film: countdown leaders, colour bars, slates, charts, cards, burn-ins.

Pictures are [T, H, W, 3] float32 R'G'B' in [0, 1], as in `reels.spoiled`; each film ends with a real shot,
so that only the junk may go.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from fractions import Fraction

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from cinetune.footage.write.overlay import SlateCard, burn_in, slate
from cinetune.timecode import frames_to_timecode
from reels.spoiled import cut, pan

__all__ = [
    "SIZE",
    "carded",
    "charted",
    "counted_down",
    "logo",
    "over",
    "proxy",
    "slated",
    "timecode_window",
    "with_bars",
]

Array = np.ndarray
Size = tuple[int, int]
SIZE = (192, 128)
_SHOT = 16
_CARD = SlateCard(
    film="THE LONG WAY", shot="SQ010_SH0040", version=3, look="two-strip", conform="none", made="2026-01-31"
)
_UPPER = [(1, 1, 1), (1, 1, 0), (0, 1, 1), (0, 1, 0), (1, 0, 1), (1, 0, 0), (0, 0, 1)]
_LOWER = [(0, 0, 1), (0, 0, 0), (1, 0, 1), (0, 0, 0), (0, 1, 1), (0, 0, 0), (1, 1, 1)]


def _shot(number: int, frames: int = _SHOT) -> Array:
    return pan(number, frames, height=SIZE[1], width=SIZE[0], speed=2.0)


def _floats(image: Image.Image) -> Array:
    return np.asarray(image, np.float32) * np.float32(1 / 255)


def _grain(film: Array, sigma: float, seed: int = 3) -> Array:
    noise = np.random.default_rng(seed).normal(0, sigma, film.shape[:3]).astype(np.float32)
    return np.clip(film + noise[..., None], 0.0, 1.0)


def counted_down(*, grain: float = 0.03, weave: float = 1.0) -> Array:
    """A countdown leader of 72 frames, 5 to 3: two circles, a cross, a hand that sweeps once a second; it weaves in the
    gate by up to `weave` pixels and has grain. Then a shot of 16."""
    rng = np.random.default_rng(11)
    frames = [_leader(5 - k // 24, k % 24 / 24, rng.uniform(-weave, weave, 2)) for k in range(72)]
    return np.concatenate([_grain(np.stack(frames), grain), _shot(0)])


def _leader(digit: int, turn: float, off: Array) -> Array:
    width, height = SIZE
    image = Image.new("RGB", SIZE, (150, 150, 146))
    draw = ImageDraw.Draw(image)
    x, y = width / 2 + off[0], height / 2 + off[1]
    draw.pieslice((x - width, y - width, x + width, y + width), -90, -90 + 360 * turn, fill=(104, 104, 102))
    draw.line((0, y, width, y), fill=(30, 30, 30), width=2)
    draw.line((x, 0, x, height), fill=(30, 30, 30), width=2)
    for radius in (0.44 * height, 0.38 * height):
        draw.ellipse((x - radius, y - radius, x + radius, y + radius), outline=(240, 240, 236), width=2)
    draw.text((x, y), str(digit), fill=(20, 20, 20), font=ImageFont.load_default(round(height * 0.55)), anchor="mm")
    return _floats(image)


def with_bars(*, noise: float = 0.02, level: float = 0.75) -> Array:
    """SMPTE colour bars (EG 1) for 24 frames under the noise of a tape, then a shot of 16."""
    width, height = SIZE
    picture = np.zeros((height, width, 3), np.float32)
    edges = np.linspace(0, width, 8).round().astype(int)
    for k, (start, end) in enumerate(itertools.pairwise(edges)):
        picture[:, start:end] = np.multiply(_UPPER[k], level)
        picture[round(height * 0.67) : round(height * 0.75), start:end] = np.multiply(_LOWER[k], level)
    picture[round(height * 0.75) :] = 0.06
    picture[round(height * 0.75) :, width // 6 : width // 3] = 1.0
    return np.concatenate([_grain(np.repeat(picture[None], 24, axis=0), noise), _shot(0)])


def slated() -> Array:
    """The digital slate that our own proxies begin with, for 24 frames, with running figures; then a shot of 16."""
    shot = _shot(0)
    size = (2 * SIZE[0], 2 * SIZE[1])
    facts = {"Frames": "1001-1048", "Rate": "24", "Timecode": "01:00:00:00"}
    card = slate(size, _CARD, facts, shot[0])
    frames = []
    for number in range(24):
        image = Image.fromarray((card * 255 + 0.5).astype(np.uint8)).resize(SIZE, Image.Resampling.LANCZOS)
        draw = ImageDraw.Draw(image)
        draw.text(
            (SIZE[0] - 12, 4), f"{number:02d}", fill=(230, 230, 230), font=ImageFont.load_default(10), anchor="rt"
        )
        frames.append(_floats(image))
    return np.concatenate([np.stack(frames), shot])


def charted() -> Array:
    """A grey chart with steps, a border and a circle, still, for 24 frames; then a shot of 16."""
    width, height = SIZE
    image = Image.new("RGB", SIZE, (118, 118, 118))
    draw = ImageDraw.Draw(image)
    for k in range(11):
        grey = (round(25.5 * k),) * 3
        draw.rectangle((8 + 16 * k, height // 2 - 12, 23 + 16 * k, height // 2 + 12), fill=grey)
    draw.rectangle((2, 2, width - 3, height - 3), outline=(235, 235, 235))
    draw.ellipse((width // 2 - 56, height // 2 - 56, width // 2 + 56, height // 2 + 56), outline=(235, 235, 235))
    return np.concatenate([np.repeat(_floats(image)[None], 24, axis=0), _shot(0)])


def carded() -> Array:
    """A plain grey card under grain for 24 frames, then a shot of 16."""
    card = np.full((24, SIZE[1], SIZE[0], 3), (0.42, 0.41, 0.40), np.float32)
    return np.concatenate([_grain(card, 0.03), _shot(0)])


def over(drawn: Callable[[Array, int], Array], shots: int = 10) -> Array:
    """Shots of 12 frames, every frame with what `drawn(picture, frame number)` burns into it."""
    film = cut(*[12] * shots, height=SIZE[1], width=SIZE[0], speed=2.0)
    return np.stack([drawn(rgb, k) for k, rgb in enumerate(film)])


def proxy(rgb: Array, number: int) -> Array:
    """Strips with text above and below, as our own proxies have them."""
    return burn_in(rgb, _CARD, frames_to_timecode(86400 + number, Fraction(24)), number)


def timecode_window(rgb: Array, number: int) -> Array:
    """Running timecode in a black window at the foot, 3 % of the picture."""
    width, height = SIZE
    image = Image.fromarray((rgb * 255 + 0.5).astype(np.uint8))
    draw = ImageDraw.Draw(image)
    box = (width // 2 - 32, height - 22, width // 2 + 31, height - 11)
    draw.rectangle(box, fill=(0, 0, 0))
    label = frames_to_timecode(86400 + number, Fraction(24))
    draw.text((width / 2, height - 16.5), label, fill=(235, 235, 235), font=ImageFont.load_default(9), anchor="mm")
    return _floats(image)


def logo(rgb: Array, _: int) -> Array:
    """A channel's ring and letter in the corner, half transparent."""
    mask = Image.new("L", SIZE)
    draw = ImageDraw.Draw(mask)
    x, y = SIZE[0] - 22, 18
    draw.ellipse((x - 12, y - 12, x + 12, y + 12), outline=255, width=3)
    draw.text((x, y), "B", fill=255, font=ImageFont.load_default(15), anchor="mm")
    share = np.asarray(mask, np.float32)[..., None] * np.float32(0.5 / 255)
    return rgb * (1 - share) + share
