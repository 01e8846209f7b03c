"""Numbered pictures as one clip: EXR and DPX through OpenImageIO, PNG and TIFF through libav.

A sequence goes by one path whose file name holds the place of the number, `A001.%04d.exr`. Picture 0 is the lowest
number; a number that is missing is a black picture, so that time stays right and no shot holds it.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import av
import numpy as np

from cinetune.artifacts import Colour
from cinetune.errors import FootageError
from cinetune.footage.notes.sidecars import members
from cinetune.footage.read.color import decide_colour
from cinetune.footage.read.decode import opened
from cinetune.footage.read.libav import MOST_PIXELS, exact
from cinetune.footage.read.planes import frame_colour, frame_rgb, has_alpha
from cinetune.footage.read.spaces import to_display
from cinetune.sections import ColourRule, FootageSection
from cinetune.timecode import exact_rate, frames_to_timecode

__all__ = ["SHOWN", "PictureRun", "first_look", "picture", "shown_frame"]

Array = np.ndarray
_OIIO = (".exr", ".dpx")
_LOG_DPX = ("Printing density", "Logarithmic")
_MOST_MISSING = 20  # numbers per picture; beyond, the numbers count something else than frames
_DROPPING = Fraction(30000, 1001)
_PLACES = ((24, 3), (16, 7), (8, 7), (0, 3))
"""(place, bits of the tens) of hours, minutes, seconds and frames in a packed label; other bits are flags."""
_AP1 = (0.713, 0.293, 0.165, 0.830, 0.128, 0.044)
_AP0 = (0.7347, 0.2653, 0.0, 1.0, 0.0001, -0.077)
SHOWN = Colour(matrix="rgb", primaries="bt709", transfer="bt709", full_range=True, decided="as shown")
"""The colour of `shown_frame`: nothing is left to convert."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PictureRun:
    """What numbered pictures are: `numbers` of the files that are there, ascending."""

    numbers: tuple[int, ...]
    codec: str
    rate: Fraction
    width: int
    height: int
    pixel_aspect: Fraction
    colour: Colour
    timecode: str
    timecode_base: Fraction | None
    notes: tuple[str, ...]

    @property
    def pictures(self) -> int:
        return self.numbers[-1] - self.numbers[0] + 1


def first_look(path: Path, settings: FootageSection, rule: ColourRule | None) -> PictureRun:
    """What the first picture and the file names of a sequence say. Raises `FootageError` for missing or unreadable
    files, colour that nothing explains, and a missing OpenImageIO.
    """
    files = members(path)
    if not files:
        raise FootageError("no such pictures", where=str(path))
    numbers = tuple(sorted(files))
    head = files[numbers[0]]
    looked = _look_oiio(head, settings, rule) if head.suffix.lower() in _OIIO else _look_libav(head, settings, rule)
    rate, notes = looked.rate, [f"{len(numbers)} pictures numbered {numbers[0]}..{numbers[-1]}", *looked.notes]
    if rate is None:
        rate = exact_rate(settings.sequence_rate)
        notes.append(f"no rate in the header: {rate} fps by footage.sequence_rate")
    if numbers[-1] - numbers[0] >= _MOST_MISSING * len(numbers):
        raise FootageError(
            f"{len(numbers)} pictures are numbered {numbers[0]}..{numbers[-1]}: no film, or most of it is missing",
            where=str(path),
            remedy="number them one by one; dates and takes go before the number, with a letter between",
        )
    gaps = [(a + 1, b - 1) for a, b in pairwise(numbers) if b - a > 1]
    if gaps:
        notes.append("missing: " + ", ".join(str(a) if a == b else f"{a}..{b}" for a, b in gaps))
    timecode = looked.timecode
    if not timecode:
        timecode = frames_to_timecode(numbers[0], rate)
        notes.append(f"timecode {timecode} from the first number")
    base = _header_base(rate) if looked.timecode else None
    if (base or rate) != _DROPPING:
        timecode = timecode.replace(";", ":")
    return PictureRun(
        numbers=numbers,
        codec=head.suffix.lower().lstrip("."),
        rate=rate,
        width=looked.width,
        height=looked.height,
        pixel_aspect=looked.aspect,
        colour=looked.colour,
        timecode=timecode,
        timecode_base=base,
        notes=tuple(notes),
    )


def picture(files: Mapping[int, Path], number: int, colour: Colour, *, size: tuple[int, int] | None = None) -> Array:
    """Picture `number` (0 = the first) of the `members` of a sequence as display R'G'B' [H, W, 3] float32 in [0, 1];
    black for a missing one. `size` = (width, height) is what it must have. Raises `FootageError`, also past the end.
    """
    if not files or number > max(files) - min(files):
        raise FootageError(
            f"the sequence has no picture {number}", remedy="it changed since it was ingested: run `cinetune ingest`"
        )
    file = files.get(min(files) + number)
    if file is None:
        width, height = size or picture(files, 0, colour).shape[1::-1]
        return np.zeros((height, width, 3), np.float32)
    if file.suffix.lower() in _OIIO:
        rgb = to_display(_read_oiio(file), colour)
    else:
        with opened(file) as (container, stream):
            frame = next(container.decode(stream), None)
            if frame is None:
                raise FootageError("no picture can be decoded", where=str(file), remedy="export it again")
            rgb = frame_rgb(frame, colour)
    if size is not None and rgb.shape[1::-1] != size:
        raise FootageError(
            f"{file.name} is {rgb.shape[1]}x{rgb.shape[0]}, the first picture {size[0]}x{size[1]}",
            where=str(file),
            remedy="export all at one size",
        )
    return rgb


def shown_frame(rgb: Array) -> av.VideoFrame:
    """Display R'G'B' [H, W, 3] as a 16-bit frame of colour `SHOWN`, for what looks at frames."""
    levels = np.rint(np.clip(rgb, 0.0, 1.0) * 65535.0).astype(np.uint16)
    return av.VideoFrame.from_ndarray(np.ascontiguousarray(levels), format="rgb48le")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Look:
    width: int
    height: int
    aspect: Fraction
    rate: Fraction | None
    timecode: str
    colour: Colour
    notes: Sequence[str]


def _look_libav(file: Path, settings: FootageSection, rule: ColourRule | None) -> _Look:
    with opened(file) as (container, stream):
        frame = next(container.decode(stream), None)
        if frame is None:
            raise FootageError("no picture can be decoded", where=str(file), remedy="export it again")
        if has_alpha(frame) and settings.alpha == "refuse":
            raise FootageError("it has an alpha channel", remedy='set footage.alpha = "black", or flatten it')
        return _Look(
            width=frame.width,
            height=frame.height,
            aspect=exact(stream.sample_aspect_ratio) or Fraction(1),
            rate=None,  # libav's rate of a picture file is its own invention
            timecode="",
            colour=frame_colour(frame, rule),
            notes=["alpha: laid over black"] if has_alpha(frame) else [],
        )


def _oiio() -> Any:
    """The module. Raises `FootageError` when it is not installed."""
    try:
        return importlib.import_module("OpenImageIO")
    except ImportError as error:
        raise FootageError(
            "reading EXR and DPX needs OpenImageIO, which is not installed", remedy='pip install "cinetune[color]"'
        ) from error


def _open_oiio(file: Path) -> Any:
    """An OpenImageIO.ImageInput. Raises `FootageError`."""
    oiio = _oiio()
    image = oiio.ImageInput.open(str(file))
    if image is None:
        raise FootageError(
            f"{file.name} cannot be read ({_complaint(oiio)})", where=str(file), remedy="export it again"
        )
    return image


def _complaint(source: Any) -> str:
    """What OpenImageIO says went wrong; it quotes damaged headers byte for byte, which need not be text."""
    try:
        return " ".join(str(source.geterror()).split())
    except UnicodeDecodeError:
        return "its header is damaged"


@contextmanager
def _readable(file: Path) -> Iterator[None]:
    """Header values that are no text, or no numbers of their kind, become a `FootageError`."""
    try:
        yield
    except (OverflowError, TypeError, ValueError, ZeroDivisionError) as error:
        raise FootageError(
            f"the header of {file.name} is damaged", where=str(file), remedy="export it again"
        ) from error


def _look_oiio(file: Path, settings: FootageSection, rule: ColourRule | None) -> _Look:
    with _readable(file):
        spec = _open_oiio(file).spec()
        if spec.alpha_channel >= 0 and settings.alpha == "refuse":
            raise FootageError("it has an alpha channel", remedy='set footage.alpha = "black", or flatten it')
        rational, plain = spec.getattribute("FramesPerSecond"), spec.get_float_attribute("dpx:FrameRate", 0.0)
        _check_size(file, spec)
        rate = Fraction(*rational) if rational else exact_rate(plain) if 1 <= plain <= 1000 else None
        aspect = Fraction(spec.get_float_attribute("PixelAspectRatio", 1.0)).limit_denominator(1000)
        if rate is not None and not 1 <= rate <= 1000:
            rate = None
        return _Look(
            width=spec.full_width,
            height=spec.full_height,
            aspect=aspect if aspect > 0 else Fraction(1),
            rate=rate,
            timecode=_header_label(spec.getattribute("smpte:TimeCode")),
            colour=_file_colour(file, spec, rule),
            notes=["alpha: laid over black"] if spec.alpha_channel >= 0 else [],
        )


def _check_size(file: Path, spec: Any) -> None:
    """Refuses by its header what would unpack to gigabytes: a window of data may be larger than the one shown."""
    sizes = ((spec.full_width, spec.full_height), (spec.width, spec.height))
    channels = max(1, spec.nchannels)
    if any(width * height * max(3, channels) > 3 * MOST_PIXELS or min(width, height) < 1 for width, height in sizes):
        what = f"{file.name} says it is {spec.full_width}x{spec.full_height} with {channels} channels"
        raise FootageError(what, where=str(file), remedy="export it again, R, G and B alone, smaller than 8192x8192")


def _header_label(packed: Any) -> str:
    """The label of a header as SMPTE 12M packs it, two digits to a byte, with its drop-frame flag; "" for none."""
    if not isinstance(packed, tuple) or len(packed) != 2:
        return ""
    word = int(packed[0])
    hours, minutes, seconds, frames = (
        10 * ((word >> (shift + 4)) & tens) + ((word >> shift) & 15) for shift, tens in _PLACES
    )
    return f"{hours:02d}:{minutes:02d}:{seconds:02d}{';' if (word >> 6) & 1 else ':'}{frames:02d}"


def _header_base(rate: Fraction) -> Fraction | None:
    """What a header's label counts a second: it has two bits for the tens of frames, so that pictures faster than 30 a
    second share a label by twos or more. None where it is the rate.
    """
    share = -(-round(rate) // 30)
    return rate / share if share > 1 else None


def _file_colour(file: Path, spec: Any, rule: ColourRule | None) -> Colour:
    """The colour of an EXR (scene-linear, of its chromaticities) or DPX (display, unless tagged log)."""
    stated = rule if rule is not None and (rule.space or rule.lut) else None
    why = ""
    if stated is None and file.suffix.lower() == ".exr":
        given = tuple(spec.getattribute("chromaticities") or ())[:6]
        names = (("ACEScg", _AP1), ("ACES2065-1", _AP0))
        fits = [name for name, points in names if given and np.allclose(given, points, atol=2e-3)]
        space = fits[0] if fits else "linear"
        why = f", EXR: scene-linear {'BT.709 (no other chromaticities said)' if not fits else space}"
        stated = ColourRule.model_validate({"match": "", "space": space})
    transfer = spec.get_string_attribute("dpx:Transfer")
    if stated is None and transfer in _LOG_DPX:
        raise FootageError(
            f"its transfer is tagged {transfer.lower()}, but not whose",
            remedy="state its space or LUT in [[footage.colour]] of cinetune.toml",
        )
    colour = decide_colour(
        matrix=0, primaries=2, transfer=2, code_range=2, height=spec.full_height, rgb=True, rule=stated
    )
    if not why:
        return colour
    return Colour(
        matrix="rgb",
        primaries=colour.primaries,
        transfer="linear",
        full_range=True,
        decided=f"RGB pixels{why}",
        space=colour.space,
    )


def _read_oiio(file: Path) -> Array:
    """R, G and B of the first part, [H, W, 3] float32 over the display window; alpha is associated, so over black."""
    image = _open_oiio(file)
    spec = image.spec()
    _check_size(file, spec)
    with _readable(file):
        leaves = [name.rsplit(".", 1)[-1].upper() for name in spec.channelnames]
    if {"R", "G", "B"} <= set(leaves):
        picks = [leaves.index(name) for name in "RGB"]
    elif spec.nchannels in (1, 2):
        picks = [0, 0, 0]
    else:
        raise FootageError(f"{file.name} has no R, G and B channels", where=str(file), remedy="export RGB")
    pixels = image.read_image(0, 0, 0, spec.nchannels, "float")
    if pixels is None:
        raise FootageError(f"{file.name} is damaged ({_complaint(image)})", where=str(file), remedy="export it again")
    pixels = np.nan_to_num(pixels.reshape(spec.height, spec.width, -1)[..., picks], nan=0.0, posinf=65504.0, neginf=0.0)
    left, top = spec.x - spec.full_x, spec.y - spec.full_y
    if (left, top, spec.width, spec.height) == (0, 0, spec.full_width, spec.full_height):
        return pixels.astype(np.float32, copy=False)
    whole = np.zeros((spec.full_height, spec.full_width, 3), np.float32)
    x0, y0 = max(left, 0), max(top, 0)
    x1, y1 = min(left + spec.width, spec.full_width), min(top + spec.height, spec.full_height)
    if x1 > x0 and y1 > y0:
        whole[y0:y1, x0:x1] = pixels[y0 - top : y1 - top, x0 - left : x1 - left]
    return whole
