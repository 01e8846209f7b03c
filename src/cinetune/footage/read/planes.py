"""Between decoded frames of libav and numpy planes: no colour decision is made here."""

from __future__ import annotations

import re

import av
import numpy as np
from av.video.reformatter import VideoReformatter

from cinetune.artifacts import Colour
from cinetune.errors import FootageError
from cinetune.footage.read.color import (
    decide_colour,
    luma_levels,
    rgb_to_yuv,
    subsample_chroma,
    upsample_chroma,
    yuv_to_rgb,
)
from cinetune.footage.read.spaces import to_display
from cinetune.sections import ColourRule

__all__ = ["frame_colour", "frame_luma", "frame_rgb", "has_alpha", "quarter_turns", "rgb_frame", "thumbnail", "turned"]

Array = np.ndarray
_PLANAR = re.compile(r"^(yuva?j?4(10|11|20|22|40|44)p|gray|gbra?p)(\d+)?(le)?$")
# Interleaved and big-endian layouts that reorder into a planar one without touching a value.
_REORDER = {
    "nv12": "yuv420p",
    "nv21": "yuv420p",
    "nv16": "yuv422p",
    "nv24": "yuv444p",
    "yuyv422": "yuv422p",
    "uyvy422": "yuv422p",
    "p010le": "yuv420p10le",
    "p210le": "yuv422p10le",
    "y210le": "yuv422p10le",
    "yuv420p10be": "yuv420p10le",
    "yuv422p10be": "yuv422p10le",
    "ayuv64le": "yuva444p16le",
    "vuya": "yuva444p",
    "ya8": "gbrap",
    "pal8": "gbrap",
}
BT709_LIMITED = {"colorspace": 1, "color_primaries": 1, "color_trc": 1, "color_range": 1}
"""H.273 code points of BT.709 and the limited range, by the names libav gives them."""


def frame_colour(frame: av.VideoFrame, rule: ColourRule | None = None) -> Colour:
    """The colour of a decoded frame by its own tags and the project's `rule`. Raises `FootageError` as
    `decide_colour` does.
    """
    jpeg_range = frame.format.name.startswith("yuvj")
    return decide_colour(
        matrix=int(frame.colorspace),
        primaries=int(frame.color_primaries),
        transfer=int(frame.color_trc),
        code_range=2 if jpeg_range else int(frame.color_range),
        height=frame.height,
        rgb=frame.format.is_rgb or frame.format.name in ("pal8", "ya8"),
        rule=rule,
    )


def has_alpha(frame: av.VideoFrame) -> bool:
    """Whether its pixels can be transparent."""
    return any(part.is_alpha for part in frame.format.components) or frame.format.name == "pal8"


def quarter_turns(frame: av.VideoFrame) -> int:
    """Quarter turns anticlockwise (0..3) that its display matrix asks for. Raises `FootageError` for other angles."""
    if frame.rotation % 90:
        raise FootageError(f"it is to be shown rotated by {frame.rotation} degrees", remedy="export it upright")
    return frame.rotation // 90 % 4


def turned(picture: Array, turns: int) -> Array:
    """[H, W, ...] by quarter turns anticlockwise."""
    return np.ascontiguousarray(np.rot90(picture, turns)) if turns else picture


def _plane(frame: av.VideoFrame, index: int, bits: int, width: int) -> Array:
    plane = frame.planes[index]
    kind = np.dtype("<u2") if bits > 8 else np.dtype("u1")
    rows = np.frombuffer(plane, kind).reshape(-1, plane.line_size // kind.itemsize)  # type: ignore[arg-type]
    return rows[: plane.height, :width]


def _planar(frame: av.VideoFrame) -> av.VideoFrame:
    name = frame.format.name
    if _PLANAR.match(name):
        return frame
    if name in _REORDER:
        return frame.reformat(format=_REORDER[name])
    if frame.format.is_rgb and not name.startswith(("gbrpf", "gbrapf", "bayer")):
        deep = max(part.bits for part in frame.format.components) > 8
        return frame.reformat(format=("gbrap" if has_alpha(frame) else "gbrp") + ("16le" if deep else ""))
    raise FootageError(f"pixel format {name} is not supported", remedy="export it as ProRes 422 or H.264")


def frame_luma(frame: av.VideoFrame, colour: Colour) -> Array:
    """Luma [H, W] as shown, float32 with black 0 and white 1; the BT.709 luma where colour must be converted first."""
    if frame.format.is_rgb or colour.space or colour.lut or has_alpha(frame):
        return frame_rgb(frame, colour) @ np.array([0.2126, 0.7152, 0.0722], np.float32)
    frame = _planar(frame)
    part = frame.format.components[0]
    return luma_levels(_plane(frame, 0, part.bits, part.width), bits=part.bits, full_range=colour.full_range)


def frame_rgb(frame: av.VideoFrame, colour: Colour) -> Array:
    """A decoded frame as display R'G'B' [H, W, 3] float32 in [0, 1], by `colour`; 10 and 12 bit keep their precision,
    and what is transparent lies over black.

    Raises `FootageError` for pixel layouts we do not know, and as `to_display` does.
    """
    frame = _planar(frame)
    parts = frame.format.components
    shown = to_display(_code_values(frame, colour), colour)
    if not any(part.is_alpha for part in parts):
        return shown
    bits = parts[-1].bits
    cover = _plane(frame, len(parts) - 1, bits, frame.width)
    return shown * (cover.astype(np.float32) * np.float32(1.0 / (2**bits - 1)))[..., None]


def _code_values(frame: av.VideoFrame, colour: Colour) -> Array:
    """A planar frame as R'G'B' of its own space; in [0, 1] unless the space has room above."""
    parts = frame.format.components
    bits, height, width = parts[0].bits, frame.height, frame.width
    clip = not colour.space
    if frame.format.is_rgb:
        planes = [_plane(frame, k, bits, width) for k in (2, 0, 1)]  # libav stores green, blue, red
        rgb = np.stack([luma_levels(plane, bits=bits, full_range=colour.full_range) for plane in planes], axis=-1)
        return np.clip(rgb, 0.0, 1.0) if clip else rgb
    luma = _plane(frame, 0, bits, width)
    if len(parts) == 1:
        grey = luma_levels(luma, bits=bits, full_range=colour.full_range)
        return np.repeat((np.clip(grey, 0.0, 1.0) if clip else grey)[..., None], 3, axis=2)
    cb, cr = (upsample_chroma(_plane(frame, k, bits, parts[k].width), height, width) for k in (1, 2))
    return yuv_to_rgb(luma, cb, cr, matrix=colour.matrix, full_range=colour.full_range, bits=bits, clip=clip)


def rgb_frame(rgb: Array, pixel_format: str) -> av.VideoFrame:
    """R'G'B' [H, W, 3] in [0, 1] as a BT.709 limited frame of a planar Y'CbCr format, tagged.

    ProRes keeps the tags of each frame, not of the stream, so every frame carries them.
    """
    height, width = rgb.shape[:2]
    frame = av.VideoFrame(width, height, pixel_format)
    parts = frame.format.components
    bits = parts[0].bits
    luma, cb, cr = rgb_to_yuv(np.clip(rgb, 0.0, 1.0), matrix="bt709", full_range=False, bits=bits)
    halve = {"columns": parts[1].width < width, "rows": parts[1].height < height}
    for index, plane in enumerate((luma, subsample_chroma(cb, **halve), subsample_chroma(cr, **halve))):
        target = _plane(frame, index, bits, plane.shape[1])
        target[...] = np.rint(plane).astype(target.dtype)
    for name, code in BT709_LIMITED.items():
        setattr(frame, name, code)
    return frame


def thumbnail(frame: av.VideoFrame, width: int, colour: Colour, *, scaler: VideoReformatter) -> Array:
    """A small BGR uint8 picture [h, width, 3] as shown, for shot detection only; SDR colour is approximate. `scaler` is
    kept from frame to frame: a new one prepares its filters and threads anew.
    """
    height = max(2, round(frame.height * width / frame.width))
    small = scaler.reformat(frame, width=width, height=height, format="bgr24").to_ndarray()
    if not (colour.space or colour.lut):
        return small
    shown = to_display(small[..., ::-1].astype(np.float32) * np.float32(1.0 / 255.0), colour)
    return np.ascontiguousarray(np.rint(shown[..., ::-1] * 255.0).astype(np.uint8))
