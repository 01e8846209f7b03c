"""Still pictures that somebody brings: upright, in display R'G'B', with all their bits, or refused.

Pillow reads the header first, so that a picture that unpacks to gigabytes is never unpacked; pictures of 8 bits are its
own, deeper ones are libav's, because Pillow keeps only 8 bits of an RGB PNG or TIFF.
"""

from __future__ import annotations

import struct
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path

import av
import av.error
import numpy as np
from PIL import ExifTags, Image, UnidentifiedImageError

from cinetune.durable import atomic_write
from cinetune.errors import FootageError
from cinetune.footage.read.profiles import by_littlecms, matrix_profile
from cinetune.outside import is_file

__all__ = ["BT709_RGB", "image_size", "read_image", "write_png16"]

Array = np.ndarray
BT709_RGB = (1, 1, 0, 2)
"""H.273 code points of (primaries, transfer, matrix, range): BT.709, not Y'CbCr, full range."""
_FORMATS = ("PNG", "JPEG", "TIFF", "WEBP", "BMP", "GIF", "JPEG2000", "AVIF", "PPM", "TGA", "MPO")
"""What Pillow may try: no format that starts another program, as PostScript does."""
_MOST_BYTES = 300 << 20  # of a picture as its codec unpacks it: 100 million pixels of 8 bits, 50 of 16
_WORKING = 16_000_000  # pixels that are kept: larger pictures are halved until they fit, models see a tenth of it
_TURNS = {2: (0, 1), 3: (2, 0), 4: (2, 1), 5: (3, 1), 6: (3, 0), 7: (1, 1), 8: (1, 0)}
"""EXIF orientation: quarter turns to the left, then whether left and right change sides."""
_DAMAGED = (
    av.error.FFmpegError, UnidentifiedImageError, OSError, StopIteration, EOFError, SyntaxError, ValueError, TypeError,
    KeyError, IndexError, OverflowError, ZeroDivisionError, struct.error, zlib.error,
)  # fmt: skip
"""What Pillow's readers raise for damaged files, as it says itself nowhere."""


def read_image(path: Path) -> Array:
    """A picture file as display R'G'B' [H, W, 3] float32 in [0, 1], the right way up.

    EXIF orientation is applied, an ICC profile is led to sRGB, 16 bits stay 16 bits, what is transparent lies over
    black, CMYK and grey become R'G'B'. Pictures of more than 16 million pixels are averaged down to fewer. Raises
    `FootageError` if it is missing, no picture, damaged, or unpacks to more than 300 MiB.
    """
    if not is_file(path):
        raise FootageError("no such picture", where=str(path))
    with _readable(path), Image.open(path, formats=_FORMATS) as image:
        deep = _deep(image, path)
        size = image.width * image.height * max(3, len(image.getbands())) * (2 if deep else 1)
        if size > _MOST_BYTES:
            raise FootageError(
                f"it is {image.width}x{image.height}: more than {_MOST_BYTES >> 20} MiB unpacked", where=str(path),
                remedy="make it smaller; models see less than a million pixels",
            )  # fmt: skip
        said = image.info.get("icc_profile")
        profile = said if isinstance(said, bytes) else b""
        factor = int(np.ceil(np.sqrt(image.width * image.height / _WORKING)))
        rgba = _unpacked(path, factor) if deep else _of_pillow(image, profile, factor)
        turn = image.getexif().get(ExifTags.Base.Orientation, 1)  # Pillow turns a TIFF itself while it is unpacked
        if deep and profile:
            rgba[..., :3] = _profiled(rgba[..., :3], profile)
    rgb = rgba[..., :3] if rgba.shape[2] == 3 else rgba[..., :3] * rgba[..., 3:]
    turns, mirrored = _TURNS.get(turn, (0, 0))
    rgb = np.rot90(rgb, turns)
    return np.ascontiguousarray(rgb[:, ::-1] if mirrored else rgb, np.float32)


def image_size(path: Path) -> tuple[int, int]:
    """(rows, columns) of a picture the right way up, from its header alone. Raises `FootageError` as `read_image`."""
    if not is_file(path):
        raise FootageError("no such picture", where=str(path))
    with _readable(path), Image.open(path, formats=_FORMATS) as image:
        lying = _TURNS.get(image.getexif().get(ExifTags.Base.Orientation, 1), (0, 0))[0] % 2 == 1
        return (image.width, image.height) if lying else (image.height, image.width)


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    """Whatever is said of a damaged picture inside the block becomes a `FootageError`."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of files somebody else wrote; the size is checked here
        try:
            yield
        except Image.DecompressionBombError as error:
            raise FootageError(
                f"it is too large ({str(error).partition(',')[0]})", where=str(path), remedy="make it smaller"
            ) from error
        except _DAMAGED as error:
            raise FootageError("not a readable picture", where=str(path), remedy="give a PNG or JPEG file") from error
        except FootageError as error:
            raise FootageError(error.what, where=str(path), remedy=error.remedy) from error


def _deep(image: Image.Image, path: Path) -> bool:
    """Whether the file has more than 8 bits a channel, which Pillow's mode does not tell of RGB."""
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        return True
    if image.format == "PNG":
        with path.open("rb") as file:
            head = file.read(25)
        return len(head) == 25 and head[24] == 16
    if image.format == "TIFF":
        bits = image.tag_v2.get(258, 8)  # pyright: ignore[reportAttributeAccessIssue]
        return max(bits if isinstance(bits, tuple) else (bits,)) > 8
    return False


def _unpacked(path: Path, factor: int) -> Array:
    """[H, W, 4] float32 of a deep picture, through libav."""
    with av.open(str(path)) as container:
        frame = next(container.decode(video=0))
    if frame.format.name.startswith("grayf"):
        grey = np.clip(np.nan_to_num(frame.to_ndarray().astype(np.float32)), 0.0, 1.0)[..., None]
        return _averaged(np.concatenate([grey, grey, grey, np.ones_like(grey)], axis=-1), factor)
    levels = frame.reformat(format="rgba64le").to_ndarray()
    del frame
    return _averaged(levels, factor) / np.float32(65535)


def _averaged(levels: Array, factor: int) -> Array:
    """float32 means of squares of `factor` pixels; what is left over at the edges falls away."""
    if factor == 1:
        return levels.astype(np.float32)
    rows, columns = levels.shape[0] // factor, levels.shape[1] // factor
    small = np.zeros((rows, columns, levels.shape[2]), np.float32)
    for row in range(factor):
        for column in range(factor):
            small += levels[row : rows * factor : factor, column : columns * factor : factor]
    return np.multiply(small, np.float32(1 / factor**2), out=small)


def _of_pillow(image: Image.Image, profile: bytes, factor: int) -> Array:
    """[H, W, 3 or 4] float32 of a picture of 8 bits."""
    if factor > 1:
        image.draft(None, (image.width // factor, image.height // factor))  # JPEG unpacks to less at once
    clear = image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info
    if clear or image.mode not in ("RGB", "L", "CMYK", "LAB"):
        image = image.convert("RGBA" if clear else "RGB")
    factor = int(np.ceil(np.sqrt(image.width * image.height / _WORKING)))
    if factor > 1:
        image = image.reduce(factor)
    alpha = np.asarray(image.getchannel("A"), np.float32)[..., None] / 255 if image.mode == "RGBA" else None
    if image.mode in ("CMYK", "LAB", "L") and _fits(image.mode, profile):
        image, profile = by_littlecms(image, profile), b""
    rgb = np.asarray(image.convert("RGB"), np.float32) / np.float32(255)
    if _fits("RGB", profile):
        rgb = _profiled(rgb, profile)
    return rgb if alpha is None else np.concatenate([rgb, alpha], axis=-1)


def _fits(mode: str, profile: bytes) -> bool:
    """Whether a profile speaks of pictures of this mode; one that does not says nothing of this one."""
    return profile[16:20] == {"RGB": b"RGB ", "L": b"GRAY", "CMYK": b"CMYK", "LAB": b"Lab "}[mode]


def _profiled(rgb: Array, profile: bytes) -> Array:
    convert = matrix_profile(profile)
    if convert is not None:
        return convert(rgb)
    if not _fits("RGB", profile):
        return rgb
    levels = np.rint(np.clip(rgb, 0.0, 1.0) * 255).astype(np.uint8)
    return np.asarray(by_littlecms(Image.fromarray(levels), profile), np.float32) / np.float32(255)


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
