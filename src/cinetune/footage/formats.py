"""What a delivered shot looks like on disk: one writer per format, and how 16 fps becomes the rate that was asked
for.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from cinetune.footage.color import resize
from cinetune.footage.stills import write_png16
from cinetune.footage.video import write_video
from cinetune.store import PARTIAL
from cinetune.timecode import frames_to_timecode

__all__ = ["DELIVERIES", "FIRST_FRAME", "Card", "DeliveryFormat", "Picture", "conform_indices", "first_frame_number"]

Array = np.ndarray
FIRST_FRAME = 1001
"""Number of the first frame of a shot, by the custom of effects houses."""
_PROXY_MIN_HEIGHT = 360  # below this the burn-in cannot be read
_FONT_SHARE = 1 / 24


@dataclass(frozen=True, slots=True, kw_only=True)
class Card:
    """What the slate and the burn-in say."""

    film: str
    shot: str
    version: int
    look: str
    conform: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """A master `frames_THWC` (uint16, 65535 = 1.0) with the frames to show in order, at `rate`.

    `height` is the height of movies, 0 for the master's own.
    """

    frames_THWC: Array
    shown: Sequence[int]
    rate: Fraction
    height: int = 0

    def __iter__(self) -> Iterator[Array]:
        for index in self.shown:
            yield self.frames_THWC[index].astype(np.float32) * np.float32(1.0 / 65535.0)

    def size(self, *, least: int = 0) -> tuple[int, int]:
        """(width, height) of a movie, both even, `least` lines at least."""
        _, own_height, own_width, _ = self.frames_THWC.shape
        height = max(self.height or own_height, least)
        return max(2, round(own_width * height / own_height / 2) * 2), height + height % 2


@dataclass(frozen=True, slots=True, kw_only=True)
class DeliveryFormat:
    """`write(target, picture, card)` writes the files of one shot under the path `target` (no suffix) and lists
    them.
    """

    write: Callable[[Path, Picture, Card], list[Path]]
    meaning: str


def first_frame_number(rate: Fraction) -> int:
    """Frame count of timecode 01:00:00:00, where every delivered picture starts."""
    return 3600 * round(rate)


def conform_indices(frames: int, source: Fraction, rate: Fraction, mode: str) -> tuple[list[int], Fraction]:
    """(master frame shown at each delivered frame, delivered rate).

    `none`: every frame, at the master's rate. `retime`: every frame, at `rate` (faster or slower motion). `hold`: at
    each delivered frame's time, the master frame on screen then; motion keeps its speed, frames repeat or drop, and the
    last delivered frame begins before the master ends.
    """
    if mode == "none":
        return list(range(frames)), source
    if mode == "retime":
        return list(range(frames)), rate
    assert mode == "hold", f"unknown conform {mode!r}"
    count = math.ceil(frames * rate / source)
    return [int(k * source / rate) for k in range(count)], rate


def _write_proxy(target: Path, picture: Picture, card: Card) -> list[Path]:
    """H.264 with one second of slate before the picture, and a burn-in; at least 360 lines high."""
    size = picture.size(least=_PROXY_MIN_HEIGHT)
    path = target.parent / f"{target.name}.mp4"
    slate = round(picture.rate)
    first = first_frame_number(picture.rate)

    def frames() -> Iterator[Array]:
        still = _slate(size, picture, card)
        for _ in range(slate):
            yield still
        for number, rgb in enumerate(picture):
            timecode = frames_to_timecode(first + number, picture.rate)
            yield _burn_in(resize(rgb, size), card, timecode, FIRST_FRAME + number)

    write_video(path, frames(), rate=picture.rate, timecode=frames_to_timecode(first - slate, picture.rate))
    return [path]


def _write_prores(target: Path, picture: Picture, _card: Card) -> list[Path]:
    path = target.parent / f"{target.name}.mov"
    timecode = frames_to_timecode(first_frame_number(picture.rate), picture.rate)
    write_video(path, picture, rate=picture.rate, codec="prores_hq", timecode=timecode, size=picture.size())
    return [path]


def _write_png16(target: Path, picture: Picture, _card: Card) -> list[Path]:
    """A folder of numbered 16-bit PNG files, exactly the master's values."""
    folder = target.parent / f"{target.name}_png16"
    growing = target.parent / f"{PARTIAL}{folder.name}"
    names: list[str] = []
    for number, rgb in enumerate(picture):
        names.append(f"{target.name}.{FIRST_FRAME + number}.png")
        write_png16(growing / names[-1], rgb)
    growing.rename(folder)
    return [folder / name for name in names]


DELIVERIES = {
    "proxy": DeliveryFormat(write=_write_proxy, meaning="H.264 with slate and burn-in, to look at"),
    "prores_hq": DeliveryFormat(write=_write_prores, meaning="ProRes 422 HQ, clean, to cut with"),
    "png16": DeliveryFormat(write=_write_png16, meaning="16-bit PNG sequence, lossless, to composite with"),
}


def _font(height: int) -> ImageFont.ImageFont | ImageFont.FreeTypeFont:
    return ImageFont.load_default(max(11, round(height * _FONT_SHARE)))


def _slate(size: tuple[int, int], picture: Picture, card: Card) -> Array:
    width, height = size
    image = Image.new("RGB", size, (28, 28, 30))
    draw = ImageDraw.Draw(image)
    font = _font(height)
    seconds = len(picture.shown) / picture.rate
    length = f"{len(picture.shown)} frames, {float(seconds):.2f} s at {picture.rate} fps"
    lines = {
        "film": card.film,
        "shot": card.shot,
        "version": f"v{card.version:03d}",
        "look": card.look,
        "length": length,
        "conform": card.conform,
        "made": "generated pictures, BT.709",
    }
    for number, (label, value) in enumerate(lines.items()):
        y = height * (0.14 + 0.11 * number)
        draw.text((width * 0.08, y), label, fill=(150, 150, 150), font=font)
        draw.text((width * 0.28, y), value, fill=(235, 235, 235), font=font)
    return np.asarray(image, np.float32) * np.float32(1.0 / 255.0)


def _burn_in(rgb: Array, card: Card, timecode: str, number: int) -> Array:
    """Shot, version and look on a darkened strip above; timecode and frame number below."""
    height, width = rgb.shape[:2]
    font = _font(height)
    strip = round(height * _FONT_SHARE * 1.7)
    rgb = rgb.copy()
    upper = (f"{card.shot} v{card.version:03d}", card.look)
    for rows, (left, right) in ((slice(0, strip), upper), (slice(height - strip, height), (timecode, str(number)))):
        mask = Image.new("L", (width, strip))
        draw = ImageDraw.Draw(mask)
        draw.text((strip * 0.4, strip / 2), left, fill=255, font=font, anchor="lm")
        draw.text((width - strip * 0.4, strip / 2), right, fill=255, font=font, anchor="rm")
        text = np.asarray(mask, np.float32)[..., None] * np.float32(0.9 / 255.0)
        rgb[rows] = rgb[rows] * np.float32(0.35) * (1.0 - text) + text
    return rgb
