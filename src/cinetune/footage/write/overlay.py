"""What is drawn on pictures for people: the slate before a proxy and the burn-in over it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Literal

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from cinetune.footage.read.color import resize

__all__ = ["SlateCard", "burn_in", "slate"]

Array = np.ndarray
Size = tuple[int, int]
_BACKGROUND, _RULE, _LABEL, _VALUE, _ACCENT = (
    (22, 22, 24),
    (70, 70, 74),
    (140, 140, 146),
    (232, 232, 232),
    (224, 176, 80),
)
_STRIP = 1 / 14  # height of a burn-in strip as a share of the picture's
_SMALLEST = 10  # pixels of type; smaller cannot be read
_RAMP = 11
# 75 % bars: a wrong matrix or range shows in them at a glance.
_BARS = [(191, 191, 191), (191, 191, 0), (0, 191, 191), (0, 191, 0), (191, 0, 191), (191, 0, 0), (0, 0, 191)]


@dataclass(frozen=True, slots=True, kw_only=True)
class SlateCard:
    """What the slate and the burn-in say, and whether they are there: `slate` for a second, one frame, or not at
    all.
    """

    film: str
    shot: str
    version: int
    look: str
    conform: str
    made: str = ""
    slate: Literal["second", "frame", "none"] = "second"
    burn_in: bool = True


@cache
def _font(pixels: int) -> ImageFont.FreeTypeFont:
    """Pillow's own font: sans serif, digits of one width, ASCII only (names in a project are)."""
    font = ImageFont.load_default(max(_SMALLEST, pixels))
    assert isinstance(font, ImageFont.FreeTypeFont), "Pillow was built without FreeType"
    return font


def _fitted(text: str, pixels: int, width: float) -> tuple[str, ImageFont.FreeTypeFont]:
    """`text` and the font, at `pixels` or smaller, with which it is no wider than `width`; cut where it must be."""
    length = _font(pixels).getlength(text)
    font = _font(pixels if length <= width else int(pixels * width / length))
    if font.getlength(text) > width:
        while text and font.getlength(f"{text}...") > width:
            text = text[:-1]
        text += "..."
    return text, font


def slate(size: Size, card: SlateCard, facts: Mapping[str, str], still: Array) -> Array:
    """The card before a shot, [H, W, 3] float32 in [0, 1]: film and version, `facts` as a table, a `still` of the shot
    [h, w, 3], and at the foot a grey ramp (0 to 100 % in steps of 10) over 75 % colour bars.
    """
    width, height = size
    image = Image.new("RGB", size, _BACKGROUND)
    draw = ImageDraw.Draw(image)
    left, right = round(width * 0.06), round(width * 0.94)
    rows = {"Shot": card.shot, "Look": card.look, **facts, "Conform": card.conform}
    if card.made:
        rows["Made"] = card.made
    version = f"v{card.version:03d}"
    title, font = _fitted(card.film, round(height * 0.085), (right - left) * 0.75)
    draw.text((left, height * 0.13), title, fill=_VALUE, font=font, anchor="ls")
    draw.text((right, height * 0.13), version, fill=_ACCENT, font=_font(round(height * 0.085)), anchor="rs")
    draw.line([(left, height * 0.165), (right, height * 0.165)], fill=_RULE, width=max(1, height // 360))
    window = _paste_still(image, still, right)
    step = height * 0.61 / max(8, len(rows))
    column = left + round(max(_font(round(step * 0.56)).getlength(label) for label in rows) + width * 0.025)
    for number, (label, value) in enumerate(rows.items()):
        y = height * 0.2 + step * (number + 0.5)
        draw.text((left, y), label, fill=_LABEL, font=_font(round(step * 0.56)), anchor="lm")
        value, font = _fitted(value, round(step * 0.66), window - column - width * 0.02)
        draw.text((column, y), value, fill=_VALUE, font=font, anchor="lm")
    note = "Generated pictures"
    draw.text((right, height * 0.79), note, fill=_ACCENT, font=_font(round(height * 0.036)), anchor="rs")
    _draw_chart(draw, left, right, height)
    return np.asarray(image, np.float32) * np.float32(1.0 / 255.0)


def _paste_still(image: Image.Image, still: Array, right: int) -> int:
    """Put a small picture at the right of the table; its left edge."""
    width, height = image.size
    high, wide = still.shape[:2]
    room = max(width * 0.2, min(width * 0.4, width - height * 0.95))  # the table needs its width on narrow pictures too
    scale = min(room / wide, height * 0.50 / high)
    size = (max(2, round(wide * scale)), max(2, round(high * scale)))
    levels = np.rint(resize(still, size) * 255.0).astype(np.uint8)
    corner = (right - size[0], round(height * 0.21))
    image.paste(Image.fromarray(levels), corner)
    ImageDraw.Draw(image).rectangle(
        (corner[0] - 1, corner[1] - 1, right, corner[1] + size[1]), outline=_RULE, width=max(1, height // 720)
    )
    return corner[0]


def _draw_chart(draw: ImageDraw.ImageDraw, left: int, right: int, height: int) -> None:
    grey = [(level, level, level) for level in (round(255 * k / (_RAMP - 1)) for k in range(_RAMP))]
    for colours, top, bottom in ((grey, 0.83, 0.89), (_BARS, 0.89, 0.95)):
        edges = [round(left + (right - left) * k / len(colours)) for k in range(len(colours) + 1)]
        for colour, start, end in zip(colours, edges, edges[1:], strict=False):
            draw.rectangle((start, round(height * top), end - 1, round(height * bottom) - 1), fill=colour)


def burn_in(rgb: Array, card: SlateCard, timecode: str, number: int) -> Array:
    """A copy of the picture with shot, version, look and film on a darkened strip above, and timecode and frame number
    below.
    """
    height, width = rgb.shape[:2]
    strip = max(14, round(height * _STRIP))
    rgb = rgb.copy()
    upper = (f"{card.shot}  v{card.version:03d}", card.look)
    for rows, (left, right) in ((slice(0, strip), upper), (slice(height - strip, height), (timecode, str(number)))):
        text = _strip(width, strip, left, right)
        rgb[rows] = rgb[rows] * np.float32(0.35) * (1.0 - text) + text
    return rgb


def _strip(width: int, strip: int, left: str, right: str) -> Array:
    """The text of one strip as light to add, [strip, width, 1]."""
    mask = Image.new("L", (width, strip))
    draw = ImageDraw.Draw(mask)
    pixels, margin = round(strip * 0.68), strip * 0.45
    for text, x, anchor in ((left, margin, "lm"), (right, width - margin, "rm")):
        text, font = _fitted(text, pixels, width * 0.46)
        draw.text((x, strip * 0.5), text, fill=255, font=font, anchor=anchor)
    return np.asarray(mask, np.float32)[..., None] * np.float32(0.9 / 255.0)
