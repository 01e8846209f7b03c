"""ICC profiles of stills, to the display R'G'B' that everything here counts in.

A profile of three curves and a matrix, as cameras, phones and grading suites write them, is computed in float from what
ICC.1:2022 says of its tags, so that 16 bits stay 16 bits. Every other kind (tables, CMYK, grey) goes through LittleCMS
in 8 bits, relative colorimetric with black point compensation, as picture editors show it.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Callable

import numpy as np
from PIL import Image, ImageCms

from cinetune.errors import FootageError

__all__ = ["by_littlecms", "matrix_profile"]

Array = np.ndarray
_MOST_PROFILE = 16 << 20
_MOST_TAGS = 200
_SRGB = np.array(
    [[0.43606567, 0.38514709, 0.14306641], [0.22248840, 0.71687317, 0.06060791], [0.01391602, 0.09706116, 0.71409607]]
)
"""Columns: red, green and blue of sRGB in the connection space (XYZ, D50), as IEC 61966-2-1's profile states them."""
_PARAMETERS = (1, 3, 4, 5, 7)  # of the five kinds of parametric curves


def matrix_profile(profile: bytes) -> Callable[[Array], Array] | None:
    """R'G'B' [H, W, 3] float32 in [0, 1] by a profile of curves and a matrix, to sRGB; None for other profiles."""
    try:
        tags = _tags(profile)
        if tags is None or any(name in tags for name in (b"A2B0", b"A2B1")):
            return None
        columns = [_triple(tags[name]) for name in (b"rXYZ", b"gXYZ", b"bXYZ")]
        curves = [_curve(tags[name]) for name in (b"rTRC", b"gTRC", b"bTRC")]
    except (KeyError, IndexError, ValueError, struct.error):
        return None
    matrix = np.linalg.solve(_SRGB, np.array(columns).T).T.astype(np.float32)
    if not np.isfinite(matrix).all():
        return None

    def convert(rgb: Array) -> Array:
        light = np.stack([curve(rgb[..., k]) for k, curve in enumerate(curves)], axis=-1).astype(np.float32)
        return _srgb(np.clip(light @ matrix, 0.0, 1.0))

    return convert


def by_littlecms(image: Image.Image, profile: bytes) -> Image.Image:
    """An 8-bit picture (RGB, L, CMYK or LAB) as sRGB. Raises `FootageError` for a profile that does not fit it."""
    flags = ImageCms.Flags.BLACKPOINTCOMPENSATION
    intent = ImageCms.Intent.RELATIVE_COLORIMETRIC
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        made = ImageCms.profileToProfile(
            image, source, ImageCms.createProfile("sRGB"), renderingIntent=intent, outputMode="RGB", flags=flags
        )
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError) as error:
        raise FootageError(
            f"its ICC profile cannot be used ({error})", remedy="convert the picture to sRGB, or remove the profile"
        ) from error
    assert made is not None, "a picture that is not converted in place is returned"
    return made


def _tags(profile: bytes) -> dict[bytes, bytes] | None:
    """The tags of an RGB profile whose connection space is XYZ."""
    if not 132 <= len(profile) <= _MOST_PROFILE or profile[16:20] != b"RGB " or profile[20:24] != b"XYZ ":
        return None
    (count,) = struct.unpack_from(">I", profile, 128)
    found: dict[bytes, bytes] = {}
    for k in range(min(count, _MOST_TAGS)):
        name, start, length = struct.unpack_from(">4sII", profile, 132 + 12 * k)
        found[name] = profile[start : start + length]
    return found


def _fixed(data: bytes, at: int, count: int) -> list[float]:
    """Numbers of 16.16 bits."""
    return [number / 65536 for number in struct.unpack_from(f">{count}i", data, at)]


def _triple(tag: bytes) -> list[float]:
    if tag[:4] != b"XYZ ":
        raise ValueError("not a colour")
    return _fixed(tag, 8, 3)


def _curve(tag: bytes) -> Callable[[Array], Array]:
    """Code value to light of a `curv` (nothing, a power, or a table) or `para` tag."""
    if tag[:4] == b"para":
        (kind,) = struct.unpack_from(">H", tag, 8)
        return _parametric(kind, _fixed(tag, 12, _PARAMETERS[kind]))
    if tag[:4] != b"curv":
        raise ValueError("not a curve")
    (count,) = struct.unpack_from(">I", tag, 8)
    if count == 0:
        return lambda code: code
    table = np.array(struct.unpack_from(f">{count}H", tag, 12), np.float64)
    if count == 1:
        power = float(table[0]) / 256
        return lambda code: np.power(code, power)
    places = np.linspace(0.0, 1.0, count)
    return lambda code: np.interp(code, places, table / 65535)


def _parametric(kind: int, numbers: list[float]) -> Callable[[Array], Array]:
    """ICC.1:2022, 10.18: (a x + b)^g + e from x = d on, c x + f before it; the first kinds leave some of it out."""
    g, a, b, c, d, e, f = [*numbers, *[0.0] * (7 - len(numbers))]
    if kind == 0:
        a, d = 1.0, -1.0
    elif kind in (1, 2):
        if a == 0:
            raise ValueError("not a curve")
        d, e, f, c = -b / a, c, c, 0.0

    def light(code: Array) -> Array:
        power = np.power(np.maximum(a * code + b, 0.0), g) + e
        return np.clip(np.where(code >= d, power, c * code + f), 0.0, 1.0)

    return light


def _srgb(light: Array) -> Array:
    """IEC 61966-2-1: linear light in [0, 1] to code values."""
    power = np.float32(1.055) * np.power(light, np.float32(1 / 2.4)) - np.float32(0.055)
    return np.where(light <= 0.0031308, light * np.float32(12.92), power).astype(np.float32)
