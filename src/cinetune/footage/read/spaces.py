"""From what cameras, HDR and scene-linear files hold to what the model sees: display R'G'B' of BT.709.

    code values --curve--> linear light of the file's primaries --matrix--> linear BT.709 --view--> R'G'B' in [0, 1]

The curves are those of OpenColorIO's built-in studio config. All primaries have the white point D65, so one 3 x 3
matrix leads straight to BT.709. The view of *scene* light (camera logs, scene-linear) is the camera curve of BT.709.
The view of *display* light (PQ, HLG) is the inverse of a 2.4 power, with HDR reference white (203 cd/m2, ITU-R BT.2408)
as 1. Both end in one shoulder: code values v up to 0.8 stay, what is brighter becomes 0.8 + 0.2 (1 - exp(4 - 5 v)).
Wide-gamut SDR keeps its curve (power 2.4), loses what BT.709 cannot show, and gets no shoulder.
"""

from __future__ import annotations

import importlib
import re
import tempfile
import unicodedata
from collections.abc import Callable, Sequence
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

from cinetune.artifacts import Colour
from cinetune.errors import FootageError
from cinetune.footage.read.color import camera_curve
from cinetune.outside import one_line, read_text
from cinetune.sections import ColourRule

__all__ = ["SPACES", "in_project", "rule_for", "to_display"]

Array = np.ndarray
_CONFIG = "studio-config-v2.2.0_aces-v1.3_ocio-v2.4"
_SDR_POWER = 2.4
_HDR_WHITE = 2.03  # linear value of 203 cd/m2, in the hundreds of cd/m2 that OpenColorIO's display space counts
_KNEE = 0.8
_NO_NUMBER = re.compile(
    r"^[ \t]*(?:[-+.\de]{1,40}[ \t]+){0,2}[-+]?(?:nan|inf|infinity)\b", re.IGNORECASE | re.MULTILINE
)
_XYZ = "xyz"

_D65 = (0.3127, 0.3290)
_PRIMARIES = {
    "bt709": ((0.640, 0.330), (0.300, 0.600), (0.150, 0.060)),
    "bt2020": ((0.708, 0.292), (0.170, 0.797), (0.131, 0.046)),
    "p3": ((0.680, 0.320), (0.265, 0.690), (0.150, 0.060)),
    "awg3": ((0.6840, 0.3130), (0.2210, 0.8480), (0.0861, -0.1020)),
    "awg4": ((0.7347, 0.2653), (0.1424, 0.8576), (0.0991, -0.0308)),
    "sgamut3cine": ((0.766, 0.275), (0.225, 0.800), (0.089, -0.087)),
    "vgamut": ((0.730, 0.280), (0.165, 0.840), (0.100, -0.030)),
    "rwg": ((0.780308, 0.304253), (0.121595, 1.493994), (0.095612, -0.084589)),
}
"""Chromaticities (x, y) of red, green and blue, as their makers publish them; white is D65 for all."""


class _Space(NamedTuple):
    """`source` -> `linear` are the OpenColorIO names of the coded space and of its linear light ("" = no curve but the
    SDR power, or none for scene light); `light` says which view follows."""

    source: str
    linear: str
    primaries: str
    light: Literal["scene", "hdr", "sdr"]


_DISPLAY = "CIE XYZ-D65 - Display-referred"
_LINEAR_709 = "Linear Rec.709 (sRGB)"
SPACES = {
    "Rec2020": _Space("", "", "bt2020", "sdr"),
    "P3-D65": _Space("", "", "p3", "sdr"),
    "PQ": _Space("Rec.2100-PQ - Display", _DISPLAY, _XYZ, "hdr"),
    "HLG": _Space("Rec.2100-HLG - Display", _DISPLAY, _XYZ, "hdr"),
    "LogC3": _Space("ARRI LogC3 (EI800)", "Linear ARRI Wide Gamut 3", "awg3", "scene"),
    "LogC4": _Space("ARRI LogC4", "Linear ARRI Wide Gamut 4", "awg4", "scene"),
    "S-Log3": _Space("S-Log3 S-Gamut3.Cine", "Linear S-Gamut3.Cine", "sgamut3cine", "scene"),
    "V-Log": _Space("V-Log V-Gamut", "Linear V-Gamut", "vgamut", "scene"),
    "Log3G10": _Space("Log3G10 REDWideGamutRGB", "Linear REDWideGamutRGB", "rwg", "scene"),
    "linear": _Space("", "", "bt709", "scene"),
    "ACEScg": _Space("ACEScg", _LINEAR_709, "bt709", "scene"),
    "ACES2065-1": _Space("ACES2065-1", _LINEAR_709, "bt709", "scene"),
}
"""Every coded space but BT.709 display itself; the names are those of `space` in `[[footage.colour]]`."""


def rule_for(rules: Sequence[ColourRule], name: str) -> ColourRule | None:
    """The first rule that fits a file by its path `name` (POSIX, relative to the footage folder) or its file name;
    in any Unicode form.
    """
    names = [unicodedata.normalize("NFC", each) for each in (name, name.rpartition("/")[2])]
    patterns = [unicodedata.normalize("NFC", rule.match) for rule in rules]
    fitting = (any(fnmatchcase(each, pattern) for each in names) for pattern in patterns)
    return next((rule for rule, fits in zip(rules, fitting, strict=True) if fits), None)


def in_project(rule: ColourRule | None, root: Path) -> ColourRule | None:
    """The rule with its LUT found from the project folder `root`."""
    return rule.model_copy(update={"lut": str(root / rule.lut)}) if rule is not None and rule.lut else rule


def _to_xyz(primaries: str) -> Array:
    if primaries == _XYZ:
        return np.eye(3)
    columns = np.array([(x / y, 1.0, (1.0 - x - y) / y) for x, y in _PRIMARIES[primaries]]).T
    x, y = _D65
    white = np.array([x / y, 1.0, (1.0 - x - y) / y])
    return columns * np.linalg.solve(columns, white)


@cache
def _matrix(primaries: str) -> Array:
    """Linear light of `primaries` (rows of pixels times this) to linear BT.709."""
    return np.linalg.solve(_to_xyz("bt709"), _to_xyz(primaries)).T.astype(np.float32)


def _ocio(what: str) -> Any:
    try:
        return importlib.import_module("PyOpenColorIO")
    except ImportError as error:
        raise FootageError(
            f"{what} needs OpenColorIO, which is not installed", remedy='pip install "cinetune[color]"'
        ) from error


@cache
def _curve(source: str, linear: str) -> Callable[[Array], None]:
    """In-place transform of contiguous float32 pixels by the built-in config. Raises `FootageError` without OCIO."""
    ocio = _ocio(f"reading {source}")
    config = ocio.Config.CreateFromBuiltinConfig(_CONFIG)
    return config.getProcessor(source, linear).getDefaultCPUProcessor().applyRGB


@cache
def _lut(path: str, _changed: int) -> Callable[[Array], None]:
    ocio = _ocio("reading a LUT")
    text = read_text(Path(path), refuse=FootageError, eight_bit=True)  # its title is in any 8-bit set
    if _NO_NUMBER.search(text):
        raise FootageError(f"the LUT {path} holds a value that is no number", remedy="export it again")
    with tempfile.TemporaryDirectory(prefix="cinetune-lut-") as folder:  # OpenColorIO reads plain UTF-8, from a file
        plain = Path(folder) / f"lut{Path(path).suffix}"
        plain.write_text(text.replace("\r\n", "\n").replace("\r", "\n"), encoding="utf-8")
        ocio.ClearAllCaches()  # or a LUT that was changed on disk would come from memory
        transform = ocio.FileTransform(src=str(plain), interpolation=ocio.INTERP_BEST)
        try:
            processor = ocio.Config.CreateRaw().getProcessor(transform)
            return processor.getDefaultCPUProcessor().applyRGB
        except UnicodeDecodeError as error:  # the library cuts what it quotes, in the middle of a letter too
            raise FootageError(f"the LUT {path} cannot be read", remedy="give a .cube file") from error
        except ocio.Exception as error:
            said = one_line(str(error)).replace(str(plain), path)
            raise FootageError(f"the LUT {path} cannot be read ({said})", remedy="give a .cube file") from error


def to_display(rgb: Array, colour: Colour) -> Array:
    """R'G'B' code values [H, W, 3] float32 (0 black, 1 the top code; may exceed it) as display R'G'B' in [0, 1].

    Raises `FootageError` when the space or LUT needs OpenColorIO and it is not there, or the LUT cannot be read.
    """
    if colour.lut:
        path = Path(colour.lut)
        if not path.is_file():
            raise FootageError(f"the LUT {path} is not there", remedy="check lut in [[footage.colour]]")
        rgb = np.array(np.clip(rgb, 0.0, 1.0), np.float32, order="C")
        _lut(str(path), path.stat().st_mtime_ns)(rgb)
        return np.clip(rgb, 0.0, 1.0, out=rgb)
    if not colour.space:
        return rgb
    space = SPACES[colour.space]
    rgb = np.array(rgb, np.float32, order="C")
    if space.source:
        _curve(space.source, space.linear)(rgb)
    elif space.light == "sdr":
        rgb = np.clip(rgb, 0.0, 1.0, out=rgb) ** np.float32(_SDR_POWER)
    light = np.clip(rgb @ _matrix(space.primaries), 0.0, 1000.0)
    if space.light == "scene":
        return _shoulder(camera_curve(light))
    if space.light == "hdr":
        return _shoulder((light * np.float32(1.0 / _HDR_WHITE)) ** np.float32(1.0 / _SDR_POWER))
    return np.clip(light ** np.float32(1.0 / _SDR_POWER), 0.0, 1.0)


def _shoulder(code: Array) -> Array:
    over = np.maximum(code - np.float32(_KNEE), 0.0) * np.float32(1.0 / (1.0 - _KNEE))
    return np.minimum(code, np.float32(_KNEE)) + np.float32(1.0 - _KNEE) * -np.expm1(-over)
