"""The one place where pixels change meaning: Y'CbCr to R'G'B' and back, code values to [0, 1], and size.

Everything downstream is display-referred R'G'B' with BT.709 primaries in float32, 1.0 = reference white; camera logs,
HDR and LUTs are led there by `cinetune.footage.read.spaces`. Matrices are
exact (luma weights from ITU-R BT.601, BT.709, BT.2020 and SMPTE 240M); limited code ranges are those of BT.709 (8 bit:
16..235 and 16..240, times 2^(bits - 8)). Chroma is taken as sited at the left, midway between rows, which is what
MPEG-2 and H.264 mean when they say nothing.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from cinetune.artifacts import Colour
from cinetune.errors import FootageError
from cinetune.sections import ColourRule

__all__ = [
    "LUMA_WEIGHTS",
    "camera_curve",
    "decide_colour",
    "from_light",
    "luma_levels",
    "resize",
    "rgb_to_yuv",
    "subsample_chroma",
    "to_light",
    "upsample_chroma",
    "yuv_to_rgb",
]

Array = np.ndarray

LUMA_WEIGHTS = {
    "bt709": (0.2126, 0.0722),
    "bt601": (0.299, 0.114),
    "bt2020": (0.2627, 0.0593),
    "smpte240m": (0.212, 0.087),
}
"""(Kr, Kb) of each matrix; Kg = 1 - Kr - Kb."""

# Code points of ITU-T H.273, as containers carry them.
_MATRIX = {0: "rgb", 1: "bt709", 5: "bt601", 6: "bt601", 7: "smpte240m", 9: "bt2020"}
_PRIMARIES = {1: "bt709", 5: "bt470bg", 6: "smpte170m", 7: "smpte240m", 9: "bt2020", 12: "p3-d65"}
_TRANSFER = {
    1: "bt709",
    4: "gamma22",
    5: "gamma28",
    6: "smpte170m",
    7: "smpte240m",
    11: "xvycc",
    13: "srgb",
    14: "bt709",
    15: "bt709",
    16: "pq",
    18: "hlg",
}
_PRIMARIES_SPACE = {9: "Rec2020", 12: "P3-D65"}
_TRANSFER_SPACE = {16: "PQ", 18: "HLG"}
_NOT_DISPLAY = {8: "linear light", 9: "a log curve", 10: "a log curve"}
# BT.709's 1.099 and 0.018 as ITU-T H.273 spells them out: with the rounded ones the curve jumps where its parts meet,
# and code values from 0.0808 to 0.0812 have no way back.
_ALPHA, _BETA = 1.09929682680944, 0.018053968510807
_UNSPECIFIED = 2
_HD_HEIGHT = 720


def decide_colour(
    *,
    matrix: int,
    primaries: int,
    transfer: int,
    code_range: int,
    height: int,
    rgb: bool = False,
    rule: ColourRule | None = None,
) -> Colour:
    """Read a stream's colour tags (H.273 code points; `code_range` 0 = not said, 1 = limited, 2 = full) and fill what
    is missing. What a `rule` of the project states goes before any tag.

    Untagged pictures of 720 lines or more are taken as BT.709, smaller ones as BT.601, and `decided` says so. Raises
    `FootageError` for colour that no tag and no rule explains (linear, a nameless log, unknown primaries or matrix):
    it would be trained wrong in silence.
    """
    rule = rule or ColourRule(match="")
    space, meaning = _space(primaries, transfer, rule)
    if rgb:
        name, how = "rgb", "RGB pixels"
    elif rule.matrix:
        name, how = rule.matrix, f"stated {rule.matrix}"
    elif matrix in _MATRIX and matrix != 0:
        name, how = _MATRIX[matrix], f"tagged {_MATRIX[matrix]}"
    elif matrix in (0, _UNSPECIFIED):
        name = "bt709" if height >= _HD_HEIGHT else "bt601"
        sign = ">=" if height >= _HD_HEIGHT else "<"
        how = f"untagged, height {height} {sign} {_HD_HEIGHT}: taken as {name}"
        if space in ("PQ", "HLG", "Rec2020"):
            name, how = "bt2020", f"untagged matrix, {space}: taken as bt2020"
    else:
        raise FootageError(f"its colour matrix (code {matrix}) is not one we know", remedy="export it as Rec.709")
    full = rule.levels == "full" or (not rule.levels and (code_range == 2 or (rgb and code_range == 0)))
    said = " (stated)" if rule.levels else "" if code_range or rgb else " (not said, assumed)"
    how += (", full range" if full else ", limited range") + said + meaning
    return Colour(
        matrix=name,
        primaries=_PRIMARIES.get(primaries, "bt709"),
        transfer=_TRANSFER.get(transfer, "bt709"),
        full_range=full,
        decided=how,
        space=space,
        lut=rule.lut,
    )


def _space(primaries: int, transfer: int, rule: ColourRule) -> tuple[str, str]:
    """The coded space ("" = BT.709 display) and the words for it, by the rule or else by the tags."""
    if rule.lut:
        return "", f", through the LUT {Path(rule.lut).name} (stated)"
    if rule.space:
        return ("", ", Rec709 (stated)") if rule.space == "Rec709" else (rule.space, f", {rule.space} (stated)")
    if transfer in _NOT_DISPLAY:
        raise FootageError(
            f"its transfer is tagged {_NOT_DISPLAY[transfer]}, but not whose",
            remedy="state its space or LUT in [[footage.colour]] of cinetune.toml",
        )
    if transfer in _TRANSFER_SPACE and primaries in (9, 0, _UNSPECIFIED):
        return _TRANSFER_SPACE[transfer], f", tagged {_TRANSFER_SPACE[transfer]}: tone-mapped to SDR"
    if transfer not in _TRANSFER_SPACE and primaries in _PRIMARIES_SPACE:
        name = _PRIMARIES_SPACE[primaries]
        return name, f", tagged {name} primaries: converted to BT.709"
    if transfer in _TRANSFER_SPACE or primaries not in (0, _UNSPECIFIED, *_PRIMARIES):
        raise FootageError(
            f"its primaries (code {primaries}) are not ones we convert",
            remedy="state its space in [[footage.colour]], or convert it to Rec.709 first",
        )
    return "", ""


def _scales(bits: int, full_range: bool) -> tuple[float, float, float, float]:
    """(luma scale, luma offset, chroma scale, chroma offset) of code values."""
    if full_range:
        top = float(2**bits - 1)
        return top, 0.0, top, float(2 ** (bits - 1))
    unit = 2.0 ** (bits - 8)
    return 219.0 * unit, 16.0 * unit, 224.0 * unit, 128.0 * unit


def to_light(rgb: Array) -> Array:
    """R'G'B' in [0, 1] to linear light in [0, 1], float32: the inverse of `camera_curve`."""
    code = np.clip(rgb.astype(np.float32, copy=False), 0.0, 1.0)
    power = ((code + np.float32(_ALPHA - 1)) * np.float32(1 / _ALPHA)) ** np.float32(1 / 0.45)
    return np.where(code < np.float32(4.5 * _BETA), code * np.float32(1 / 4.5), power)


def from_light(light: Array) -> Array:
    """The inverse of `to_light`."""
    return camera_curve(np.clip(light.astype(np.float32, copy=False), 0.0, 1.0))


def camera_curve(light: Array) -> Array:
    """Camera curve of ITU-R BT.709: scene light >= 0 (float32, may exceed 1) to R'G'B'."""
    power = np.float32(_ALPHA) * light ** np.float32(0.45) - np.float32(_ALPHA - 1)
    return np.where(light < np.float32(_BETA), light * np.float32(4.5), power)


def luma_levels(y: Array, *, bits: int, full_range: bool) -> Array:
    """Luma code values as float32 with black 0 and white 1 (not clipped)."""
    scale, offset, _, _ = _scales(bits, full_range)
    return (y.astype(np.float32) - np.float32(offset)) * np.float32(1.0 / scale)


def yuv_to_rgb(y: Array, cb: Array, cr: Array, *, matrix: str, full_range: bool, bits: int, clip: bool = True) -> Array:
    """Code-value planes [H, W] of equal size to R'G'B' [H, W, 3] float32, clipped to [0, 1] unless told otherwise."""
    kr, kb = LUMA_WEIGHTS[matrix]
    kg = 1.0 - kr - kb
    _, _, scale, offset = _scales(bits, full_range)
    luma = luma_levels(y, bits=bits, full_range=full_range)
    blue = (cb.astype(np.float32) - np.float32(offset)) * np.float32(2.0 * (1.0 - kb) / scale)
    red = (cr.astype(np.float32) - np.float32(offset)) * np.float32(2.0 * (1.0 - kr) / scale)
    rgb = np.empty((*luma.shape, 3), np.float32)
    np.add(luma, red, out=rgb[..., 0])
    np.add(luma, blue, out=rgb[..., 2])
    np.subtract(luma, red * np.float32(kr / kg) + blue * np.float32(kb / kg), out=rgb[..., 1])
    return np.clip(rgb, 0.0, 1.0, out=rgb) if clip else rgb


def rgb_to_yuv(rgb: Array, *, matrix: str, full_range: bool, bits: int) -> tuple[Array, Array, Array]:
    """R'G'B' [H, W, 3] in [0, 1] to float32 code-value planes (not rounded, so that chroma can be subsampled first)."""
    kr, kb = LUMA_WEIGHTS[matrix]
    scale_y, offset_y, scale_c, offset_c = _scales(bits, full_range)
    red, green, blue = (rgb[..., k].astype(np.float32) for k in range(3))
    luma = np.float32(kr) * red + np.float32(1.0 - kr - kb) * green + np.float32(kb) * blue
    cb = (blue - luma) * np.float32(scale_c / (2.0 * (1.0 - kb))) + np.float32(offset_c)
    cr = (red - luma) * np.float32(scale_c / (2.0 * (1.0 - kr))) + np.float32(offset_c)
    return luma * np.float32(scale_y) + np.float32(offset_y), cb, cr


def _double_columns(plane: Array) -> Array:
    """Twice as wide: samples stay on even columns, odd columns are the mean of their neighbours."""
    after = np.concatenate([plane[:, 1:], plane[:, -1:]], axis=1)
    wide = np.empty((plane.shape[0], plane.shape[1] * 2), np.float32)
    wide[:, 0::2] = plane
    wide[:, 1::2] = (plane + after) * np.float32(0.5)
    return wide


def _double_rows(plane: Array) -> Array:
    """Twice as tall: each sample sits midway between two rows, so rows are 3/4 the near and 1/4 the far sample."""
    before = np.concatenate([plane[:1], plane[:-1]])
    after = np.concatenate([plane[1:], plane[-1:]])
    tall = np.empty((plane.shape[0] * 2, plane.shape[1]), np.float32)
    tall[0::2] = plane * np.float32(0.75) + before * np.float32(0.25)
    tall[1::2] = plane * np.float32(0.75) + after * np.float32(0.25)
    return tall


def upsample_chroma(plane: Array, height: int, width: int) -> Array:
    """A subsampled chroma plane at luma size, float32, linear between its sample sites; 1:1, 1:2 and 1:4 on each
    axis.
    """
    full = plane.astype(np.float32)
    while full.shape[1] < width:
        full = _double_columns(full)[:, :width]
    while full.shape[0] < height:
        full = _double_rows(full)[:height]
    return full


def subsample_chroma(plane: Array, *, columns: bool, rows: bool) -> Array:
    """Halve a float chroma plane of even size: 1-2-1 at even columns, mean of row pairs (the adjoint siting of
    `upsample_chroma`).
    """
    if columns:
        before = np.concatenate([plane[:, :1], plane[:, 1:-1:2]], axis=1)
        plane = (before + 2.0 * plane[:, 0::2] + plane[:, 1::2]) * np.float32(0.25)
    if rows:
        plane = (plane[0::2] + plane[1::2]) * np.float32(0.5)
    return plane


def resize(image: Array, size: tuple[int, int]) -> Array:
    """[H, W, 3] float32 to `size` = (width, height): antialiased Lanczos-3 in float, clipped to [0, 1]."""
    width, height = size
    if image.shape[:2] == (height, width):
        return image.astype(np.float32, copy=False)
    channels = [
        np.asarray(
            Image.fromarray(np.ascontiguousarray(image[..., k], np.float32)).resize(
                (width, height), Image.Resampling.LANCZOS
            )
        )
        for k in range(image.shape[2])
    ]
    return np.clip(np.stack(channels, axis=-1), 0.0, 1.0)
