"""Small ICC profiles of every kind that pictures carry."""

from __future__ import annotations

import struct
from collections.abc import Sequence

from PIL import ImageCms

__all__ = ["ADOBE", "P3", "PROFILES", "SRGB_CURVE", "curv", "icc", "para", "shaper", "xyz"]


def icc(space: bytes, tags: dict[bytes, bytes], *, pcs: bytes = b"XYZ ", kind: bytes = b"mntr") -> bytes:
    """A small profile of version 2."""
    table, body, at = struct.pack(">I", len(tags)), b"", 132 + 12 * len(tags)
    for name, data in tags.items():
        data = data + bytes(-len(data) % 4)
        table += struct.pack(">4sII", name, at + len(body), len(data))
        body += data
    white = struct.pack(">3i", 63190, 65536, 54061)
    head = bytes(4) + b"lcms" + bytes.fromhex("02400000") + kind + space + pcs + bytes(12) + b"acsp" + bytes(28) + white
    head = head.ljust(128, b"\0")
    return struct.pack(">I", at + len(body)) + head[4:] + table + body


def xyz(*numbers: float) -> bytes:
    return b"XYZ " + bytes(4) + struct.pack(">3i", *(round(number * 65536) for number in numbers))


def curv(*values: int) -> bytes:
    return b"curv" + bytes(4) + struct.pack(f">I{len(values)}H", len(values), *values)


def para(kind: int, *numbers: float) -> bytes:
    fixed = (round(number * 65536) for number in numbers)
    return b"para" + bytes(4) + struct.pack(f">HH{len(numbers)}i", kind, 0, *fixed)


P3 = [(0.51512, 0.2412, -0.00105), (0.29198, 0.69225, 0.04189), (0.1571, 0.06657, 0.78407)]
ADOBE = [(0.60974, 0.31111, 0.01947), (0.20528, 0.62567, 0.06087), (0.14919, 0.06322, 0.74457)]
SRGB_CURVE = para(3, 2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045)


def shaper(columns: Sequence[Sequence[float]], curve: bytes) -> bytes:
    tags = {name: xyz(*column) for name, column in zip((b"rXYZ", b"gXYZ", b"bXYZ"), columns, strict=True)}
    tags |= dict.fromkeys((b"rTRC", b"gTRC", b"bTRC"), curve)
    return icc(b"RGB ", tags | {b"wtpt": xyz(0.9642, 1.0, 0.8249)})


PROFILES = {
    "srgb": ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes(),
    "p3": shaper(P3, SRGB_CURVE),
    "adobe": shaper(ADOBE, curv(563)),
    "linear": shaper(P3, curv()),
    "table": shaper(ADOBE, curv(*(round(65535 * (k / 63) ** 1.8) for k in range(64)))),
    "power": shaper(ADOBE, para(0, 1.8)),
}
