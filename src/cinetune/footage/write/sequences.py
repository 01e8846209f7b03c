"""Numbered pictures out: 16-bit PNG (libav), 16-bit TIFF (tifffile), half-float EXR (OpenImageIO). Each file is
reopened before the next is made; libav reads the pixels of those it did not write.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal

import av
import av.error
import numpy as np
import tifffile

from cinetune.errors import ConfigError, FootageError, StoreError
from cinetune.footage.read.color import to_light
from cinetune.footage.read.stills import BT709_RGB, write_png16

__all__ = ["STILLS", "Still", "read_header", "read_values", "require_openimageio", "write_still"]

Array = np.ndarray
_CHROMATICITIES = (0.64, 0.33, 0.30, 0.60, 0.15, 0.06, 0.3127, 0.3290)  # red, green, blue, white of BT.709: x, y
_TIFF_TAGS = {"white": 318, "primaries": 319, "timecode": 51043, "rate": 51044}


@dataclass(frozen=True, slots=True, kw_only=True)
class Still:
    """One kind of picture file. `space` is its colour by the names of the Color Interop Forum, `colour` in words."""

    kind: Literal["png", "tiff", "exr"]
    suffix: str
    space: str
    colour: str

    @property
    def linear(self) -> bool:
        return self.space.startswith("lin_")


_DISPLAY = "display-referred R'G'B', BT.709, 1.0 = display white"
_LINEAR = "linear light by the inverse BT.709 camera curve, BT.709 primaries, 1.0 = display white, nothing above it"
STILLS = {
    "png16": Still(kind="png", suffix=".png", space="g24_rec709_display", colour=_DISPLAY),
    "tiff16": Still(kind="tiff", suffix=".tif", space="g24_rec709_display", colour=_DISPLAY),
    "exr_display": Still(kind="exr", suffix=".exr", space="g24_rec709_display", colour=_DISPLAY),
    "exr_linear": Still(kind="exr", suffix=".exr", space="lin_rec709_scene", colour=_LINEAR),
}


def require_openimageio() -> Any:
    """The OpenImageIO module. Raises `ConfigError` with the command that installs it."""
    try:
        import OpenImageIO
    except ImportError as error:
        raise ConfigError(
            "EXR files need OpenImageIO, which is not installed",
            where="deliver.formats",
            remedy="pip install 'cinetune[color]'",
        ) from error
    return OpenImageIO


def write_still(
    path: Path, rgb: Array, still: Still, *, rate: Fraction, timecode: str, notes: Mapping[str, str]
) -> None:
    """R'G'B' [H, W, 3] in [0, 1] as one picture file of a sequence, then reopened: every value by libav, the header by
    the format's own library.

    All files carry their colour; EXR and TIFF also rate, timecode and `notes`. Raises `FootageError` when the file does
    not read back as promised, `StoreError` when the disk refuses, `ConfigError` without OpenImageIO.
    """
    pixels = _pixels(rgb, still)
    promised: dict[str, object] = {"space": still.space}
    if still.kind != "png":
        promised |= {"rate": rate, "timecode": timecode}
    try:
        match still.kind:
            case "png":
                write_png16(path, rgb, tagged=True)
            case "tiff":
                _write_tiff(path, pixels, rate, timecode, {**notes, "colour": still.colour})
            case "exr":
                _write_exr(path, pixels, still.space, rate, timecode, {**notes, "colour": still.colour})
    except OSError as error:
        raise StoreError(f"cannot write: {error.strerror or error}", where=str(path)) from error
    broken: list[str] = []
    if not np.array_equal(read_values(path), pixels):
        broken.append("its pixels differ")
    found = read_header(path)
    broken += [f"{name} {found.get(name)}, not {told}" for name, told in promised.items() if found.get(name) != told]
    if broken:
        raise FootageError(f"what was written does not read back as promised: {'; '.join(broken)}", where=str(path))


def _pixels(rgb: Array, still: Still) -> Array:
    """The values as the file holds them: uint16 with 65535 = 1.0, or half float."""
    if still.kind == "exr":
        return (to_light(rgb) if still.linear else np.clip(rgb, 0.0, 1.0)).astype(np.float16)
    return np.rint(np.clip(rgb, 0.0, 1.0) * 65535.0).astype(np.uint16)


def read_values(path: Path) -> Array:
    """The values of a picture file [H, W, 3] as they are in it (uint16, or half float), by libav. Raises `FootageError`
    when it cannot be decoded.
    """
    try:
        with av.open(str(path)) as container:
            frame = next(container.decode(video=0))
    except (av.error.FFmpegError, StopIteration) as error:
        raise FootageError("what was written cannot be opened again", where=str(path)) from error
    if frame.format.name in ("rgb48le", "rgb48be"):  # as they are: a conversion prepares filters and threads each time
        return frame.to_ndarray()
    if frame.format.name != "gbrpf16le":
        return frame.reformat(format="rgb48le").to_ndarray()
    green, blue, red = (
        np.frombuffer(plane, np.float16).reshape(plane.height, -1)[:, : frame.width]  # type: ignore[arg-type]
        for plane in frame.planes
    )
    return np.stack([red, green, blue], axis=-1)


def read_header(path: Path) -> dict[str, object]:
    """What a picture file says of its colour (`space`), and for EXR and TIFF of its exact `rate` and `timecode`."""
    match path.suffix:
        case ".exr":
            return _exr_header(path)
        case ".tif":
            return _tiff_header(path)
        case _:
            with av.open(str(path)) as container:
                frame = next(container.decode(video=0))
            tags = (frame.color_primaries, frame.color_trc, frame.colorspace, frame.color_range)
            return {"space": "g24_rec709_display"} if tuple(int(tag) for tag in tags) == BT709_RGB else {}


def _packed(timecode: str) -> list[int]:
    """hours, minutes, seconds, frames as SMPTE 12M packs them: two decimal digits to a byte."""
    return [int(pair, 16) for pair in timecode.split(":")]


def _unpacked(numbers: Iterable[int]) -> str:
    return ":".join(f"{number:02x}" for number in numbers)


def _write_exr(path: Path, pixels: Array, space: str, rate: Fraction, timecode: str, notes: Mapping[str, str]) -> None:
    oiio = require_openimageio()
    height, width, _ = pixels.shape
    spec = oiio.ImageSpec(width, height, 3, "half")
    hours, minutes, seconds, frames = _packed(timecode)
    spec.attribute("compression", "zip")
    spec.attribute("chromaticities", oiio.TypeDesc("float[8]"), _CHROMATICITIES)
    spec.attribute("oiio:ColorSpace", space)
    spec.attribute("FramesPerSecond", oiio.TypeDesc("rational"), (rate.numerator, rate.denominator))
    label = hours << 24 | minutes << 16 | seconds << 8 | frames
    spec.attribute("smpte:TimeCode", oiio.TypeDesc("timecode"), (label, 0))
    for name, text in notes.items():
        spec.attribute(f"cinetune:{name}", text)
    file = oiio.ImageOutput.create(str(path))
    if file is None or not file.open(str(path), spec) or not file.write_image(pixels) or not file.close():
        raise OSError(file.geterror() if file else oiio.geterror())


def _exr_header(path: Path) -> dict[str, object]:
    oiio = require_openimageio()
    file = oiio.ImageInput.open(str(path))
    if file is None:
        raise FootageError("what was written cannot be opened again", where=str(path), remedy=str(oiio.geterror()))
    spec = file.spec()
    file.close()
    label = int(spec.getattribute("smpte:TimeCode")[0])
    return {
        "space": spec.getattribute("oiio:ColorSpace"),
        "rate": Fraction(*spec.getattribute("FramesPerSecond")),
        "timecode": _unpacked((label >> shift) & 255 for shift in (24, 16, 8, 0)),
        "notes": {
            item.name.removeprefix("cinetune:"): str(item.value)
            for item in spec.extra_attribs
            if item.name.startswith("cinetune:")
        },
    }


def _write_tiff(path: Path, pixels: Array, rate: Fraction, timecode: str, notes: Mapping[str, str]) -> None:
    """Deflate with horizontal prediction; the colorimetry tags of TIFF 6.0, timecode and rate as CinemaDNG has them."""
    pairs = [[round(value * 10_000), 10_000] for value in _CHROMATICITIES]
    flat = [number for pair in pairs for number in pair]
    description = "\n".join(f"{name}: {text}" for name, text in notes.items())
    tags = [
        (_TIFF_TAGS["white"], 5, 2, tuple(flat[12:]), True),
        (_TIFF_TAGS["primaries"], 5, 6, tuple(flat[:12]), True),
        (_TIFF_TAGS["timecode"], 1, 8, bytes([*reversed(_packed(timecode)), 0, 0, 0, 0]), True),
        (_TIFF_TAGS["rate"], 10, 1, (rate.numerator, rate.denominator), True),
    ]
    tifffile.imwrite(
        path,
        pixels,
        photometric="rgb",
        compression="zlib",
        predictor=True,
        description=description.encode(),
        software="cinetune",
        metadata=None,
        extratags=tags,
    )


def _tiff_header(path: Path) -> dict[str, object]:
    with tifffile.TiffFile(path) as file:
        tags: Any = file.pages.first.tags
        white, primaries, packed, rate = (tags.valueof(_TIFF_TAGS[name]) for name in _TIFF_TAGS)
        notes = dict(line.split(": ", 1) for line in str(tags.valueof(270)).splitlines())
    flat = [*primaries, *white]
    points = tuple(top / bottom for top, bottom in zip(flat[::2], flat[1::2], strict=True))
    return {
        "space": "g24_rec709_display" if points == _CHROMATICITIES else "",
        "rate": Fraction(*rate),
        "timecode": _unpacked(reversed(packed[:4])),
        "notes": notes,
    }
