"""What a delivered shot looks like on disk: one row per format. Every file is reopened before it gets its name."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from cinetune.durable import atomic_write, whole_folder
from cinetune.footage.read.color import resize
from cinetune.footage.write.conform import Master, conform_indices, conformed
from cinetune.footage.write.movies import MOVIES, encode_movie
from cinetune.footage.write.overlay import SlateCard, burn_in, slate
from cinetune.footage.write.readback import check_movie
from cinetune.footage.write.sequences import STILLS, require_openimageio, write_still
from cinetune.timecode import frames_to_timecode

__all__ = [
    "DELIVERIES",
    "FIRST_FRAME",
    "DeliveryFormat",
    "Picture",
    "SlateCard",
    "conform_indices",
    "first_frame_number",
    "slate_frames",
    "with_bars",
]

Array = np.ndarray
FIRST_FRAME = 1001
"""Number of the first frame of a shot, by the custom of effects houses."""
_PROXY_MIN_HEIGHT = 360  # below this the burn-in cannot be read
_BT709 = "display-referred, BT.709 primaries, transfer and matrix, limited range"


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """A master `frames_THWC` (uint16, 65535 = 1.0) with the frames on screen in order, at `rate`.

    `height` is the height of movies, 0 for the master's own. `conform` is the mode that made `shown` from a master at
    the rate `source`; `blend` and `minterpolate` make pictures in between. `bars` is the aspect ratio outside of which
    the picture is black.
    """

    frames_THWC: Master
    shown: Sequence[int]
    rate: Fraction
    height: int = 0
    source: Fraction = Fraction(16)
    conform: str = "hold"
    bars: Fraction | None = None

    def __iter__(self) -> Iterator[Array]:
        _, height, width, _ = self.frames_THWC.shape
        return self.at((width, height))

    def at(self, size: tuple[int, int]) -> Iterator[Array]:
        """The delivered frames at `size` = (width, height), [H, W, 3] float32 in [0, 1], one at a time."""
        frames = conformed(self.frames_THWC, self.shown, source=self.source, rate=self.rate, mode=self.conform)
        for rgb in frames:
            yield with_bars(resize(rgb, size), self.bars)

    def size(self, *, least: int = 0) -> tuple[int, int]:
        """(width, height) of a movie, both even, `least` lines at least."""
        _, own_height, own_width, _ = self.frames_THWC.shape
        height = max(self.height or own_height, least)
        return max(2, round(own_width * height / own_height / 2) * 2), height + height % 2


@dataclass(frozen=True, slots=True, kw_only=True)
class DeliveryFormat:
    """`write(target, picture, card)` writes the files of one shot at the path `target` + `suffix` and lists them.

    `colour` says what the values mean, `meaning` what the format is for. `check()` raises `ConfigError` when something
    that the format needs is not installed.
    """

    write: Callable[[Path, Picture, SlateCard], list[Path]]
    suffix: str
    meaning: str
    colour: str = _BT709
    check: Callable[[], object] = bool


def first_frame_number(rate: Fraction) -> int:
    """Frame count of timecode 01:00:00:00, where every delivered picture starts."""
    return 3600 * round(rate)


def slate_frames(slate: str, rate: Fraction) -> int:
    """Frames before the picture of a proxy, by `deliver.slate`."""
    return {"second": round(rate), "frame": 1, "none": 0}[slate]


def with_bars(rgb: Array, aspect: Fraction | None) -> Array:
    """The picture with black bars above and below, or at the sides, so that `aspect` (width by height) is left."""
    if aspect is None:
        return rgb
    height, width = rgb.shape[:2]
    rows, columns = min(height, round(width / aspect)), min(width, round(height * aspect))
    top, left = (height - rows) // 2, (width - columns) // 2
    barred = np.zeros_like(rgb)
    barred[top : top + rows, left : left + columns] = rgb[top : top + rows, left : left + columns]
    return barred


def _movie(codec: str, suffix: str, meaning: str, *, dressed: bool = False) -> DeliveryFormat:
    """A row for a movie: `dressed` ones have slate and burn-in, and at least 360 lines to read them."""

    def write(target: Path, picture: Picture, card: SlateCard) -> list[Path]:
        path = target.with_name(target.name + suffix)
        size = picture.size(least=_PROXY_MIN_HEIGHT if dressed else 0)
        lead = slate_frames(card.slate, picture.rate) if dressed else 0
        timecode = frames_to_timecode(first_frame_number(picture.rate) - lead, picture.rate)
        frames = _dressed(picture, card, size, lead) if dressed else picture.at(size)
        with atomic_write(path) as temporary:
            encode_movie(temporary, frames, MOVIES[codec], rate=picture.rate, timecode=timecode)
            check_movie(
                temporary,
                frames=lead + len(picture.shown),
                rate=picture.rate,
                size=size,
                bits=av.VideoFormat(MOVIES[codec].pixels).components[0].bits,
                timecode=timecode,
            )
        return [path]

    return DeliveryFormat(write=write, suffix=suffix, meaning=meaning)


def _stills(name: str, meaning: str) -> DeliveryFormat:
    """A row for a folder of numbered pictures of the master's size, made whole before it gets its name."""
    still = STILLS[name]

    def write(target: Path, picture: Picture, card: SlateCard) -> list[Path]:
        folder = target.with_name(f"{target.name}_{name}")
        notes = {"shot": card.shot, "version": f"v{card.version:03d}", "look": card.look, "conform": card.conform}
        names: list[str] = []
        with whole_folder(folder) as growing:
            for number, rgb in enumerate(picture):
                names.append(f"{target.name}.{FIRST_FRAME + number}{still.suffix}")
                timecode = frames_to_timecode(first_frame_number(picture.rate) + number, picture.rate)
                write_still(growing / names[-1], rgb, still, rate=picture.rate, timecode=timecode, notes=notes)
        return [folder / name for name in names]

    check = require_openimageio if still.kind == "exr" else bool
    return DeliveryFormat(write=write, suffix=f"_{name}", meaning=meaning, colour=still.colour, check=check)


DELIVERIES = {
    "proxy": _movie("h264_quick", ".mp4", "H.264 8 bit with slate and burn-in, to look at", dressed=True),
    "proxy_hevc": _movie("hevc", "_hevc.mp4", "HEVC 8 bit with slate and burn-in", dressed=True),
    "proxy_hevc10": _movie("hevc10", "_hevc10.mp4", "HEVC 10 bit with slate and burn-in", dressed=True),
    "prores_hq": _movie("prores_hq", ".mov", "ProRes 422 HQ, clean, to cut with"),
    "prores_4444": _movie("prores_4444", "_prores4444.mov", "ProRes 4444, clean, full chroma"),
    "dnxhr_hqx": _movie("dnxhr_hqx", "_dnxhr.mov", "DNxHR HQX in QuickTime, clean, to cut with"),
    "dnxhr_hqx_mxf": _movie("dnxhr_hqx_mxf", ".mxf", "DNxHR HQX in MXF OP1a, clean, to cut with"),
    "png16": _stills("png16", "16-bit PNG sequence, lossless, to composite with"),
    "tiff16": _stills("tiff16", "16-bit TIFF sequence, lossless"),
    "exr_linear": _stills("exr_linear", "half-float EXR sequence in linear light, to composite with"),
    "exr_display": _stills("exr_display", "half-float EXR sequence of the display values"),
}


def _dressed(picture: Picture, card: SlateCard, size: tuple[int, int], lead: int) -> Iterator[Array]:
    first, rate = first_frame_number(picture.rate), picture.rate
    if lead:
        still = _slate(picture, card, size)
        for _ in range(lead):
            yield still
    for number, rgb in enumerate(picture.at(size)):
        timecode = frames_to_timecode(first + number, rate)
        yield burn_in(rgb, card, timecode, FIRST_FRAME + number) if card.burn_in else rgb


def _slate(picture: Picture, card: SlateCard, size: tuple[int, int]) -> Array:
    count, rate, first = len(picture.shown), picture.rate, first_frame_number(picture.rate)
    fps = str(rate) if rate.denominator == 1 else f"{float(rate):.3f} ({rate})"
    ends = [frames_to_timecode(number, rate) for number in (first, first + count - 1)]
    facts = {
        "Frames": f"{FIRST_FRAME} - {FIRST_FRAME + count - 1}, {count} in {float(count / rate):.2f} s",
        "Timecode": " - ".join(ends),
        "Rate": f"{fps} fps",
        "Size": f"{size[0]} x {size[1]}" + (f", bars {float(picture.bars):.2f}" if picture.bars else ""),
        "Colour": "BT.709, limited range",
    }
    middle = picture.frames_THWC[picture.shown[count // 2]].astype(np.float32) * np.float32(1.0 / 65535.0)
    return slate(size, card, facts, with_bars(middle, picture.bars))
