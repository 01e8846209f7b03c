"""Still pictures: 8-bit files through Pillow, 16-bit PNG through libav (Pillow keeps only 8 bits of an RGB PNG)."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import av.error
import numpy as np
from PIL import Image, UnidentifiedImageError

from cinetune.errors import FootageError
from cinetune.store import atomic_write

__all__ = ["BT709_RGB", "read_image", "write_png16"]

BT709_RGB = (1, 1, 0, 2)
"""H.273 code points of (primaries, transfer, matrix, range): BT.709, not Y'CbCr, full range."""
_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"


def read_image(path: Path) -> np.ndarray:
    """A picture file as R'G'B' [H, W, 3] float32 in [0, 1]; 16-bit PNG keeps its 16 bits, alpha is dropped.

    Raises `FootageError` if it is missing, empty, or not a picture.
    """
    if not path.is_file():
        raise FootageError("no such picture", where=str(path))
    with path.open("rb") as file:
        head = file.read(26)
    try:
        if head.startswith(_PNG_SIGNATURE) and len(head) == 26 and head[24] == 16:
            with av.open(str(path)) as container:
                frame = next(container.decode(video=0))
            return frame.reformat(format="rgb48le").to_ndarray().astype(np.float32) / np.float32(65535.0)
        with Image.open(path) as image:
            return np.asarray(image.convert("RGB"), np.float32) / np.float32(255.0)
    except (av.error.FFmpegError, UnidentifiedImageError, OSError, StopIteration) as error:
        raise FootageError("not a readable picture", where=str(path), remedy="give a PNG or JPEG file") from error


def write_png16(path: Path, frame: np.ndarray, *, tagged: bool = False) -> None:
    """R'G'B' [H, W, 3] in [0, 1] as a 16-bit RGB PNG. Lossless to 1/131070. Atomic. Raises `StoreError` when the disk
    refuses.

    `tagged` says in the file that it is BT.709 (cICP, cHRM and gAMA chunks) with square pixels.
    """
    assert frame.ndim == 3 and frame.shape[2] == 3, f"a picture is [H, W, 3], not {frame.shape}"
    levels = np.rint(np.clip(frame, 0.0, 1.0) * 65535.0)
    encoder = av.CodecContext.create("png", "w")
    assert isinstance(encoder, av.VideoCodecContext)
    encoder.width, encoder.height = frame.shape[1], frame.shape[0]
    encoder.pix_fmt, encoder.time_base = "rgb48be", Fraction(1, 25)
    picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(levels.astype(np.uint16)), format="rgb48be")
    if tagged:
        picture.color_primaries, picture.color_trc, picture.colorspace, picture.color_range = BT709_RGB
        encoder.color_primaries, encoder.color_trc, encoder.colorspace, encoder.color_range = BT709_RGB
        encoder.sample_aspect_ratio = Fraction(1)
    packets = encoder.encode(picture) + encoder.encode(None)
    with atomic_write(path) as temporary:
        temporary.write_bytes(b"".join(bytes(packet) for packet in packets))
