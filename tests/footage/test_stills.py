"""Stills: sixteen bits in, sixteen bits out, checked by another reader."""

from __future__ import annotations

import io
import struct
import zlib
from contextlib import suppress
from fractions import Fraction

import av
import numpy as np
import pytest
from PIL import Image, ImageCms, ImageOps
from skimage.io import imread

from cinetune.errors import FootageError
from cinetune.footage.read import stills
from cinetune.footage.read.stills import read_image, write_png16
from profiles import PROFILES, curv, icc, xyz


def test_png16_is_lossless_and_others_can_read_it(tmp_path):
    levels = np.random.default_rng(0).integers(0, 65536, (21, 33, 3), dtype=np.uint16)
    write_png16(tmp_path / "a.png", levels / 65535)
    shown = read_image(tmp_path / "a.png")
    assert np.array_equal(shown, (levels / 65535).astype(np.float32)), "the nearest float32, not a rounding off"
    data = (tmp_path / "a.png").read_bytes()
    assert (data[24], data[25]) == (16, 2)
    assert imread(tmp_path / "a.png").shape == (21, 33, 3)


def test_eight_bit_pictures(tmp_path):
    levels = np.random.default_rng(1).integers(0, 256, (9, 7, 4), dtype=np.uint8)
    Image.fromarray(levels[..., :3]).save(tmp_path / "a.png")
    assert np.array_equal(np.rint(read_image(tmp_path / "a.png") * 255), levels[..., :3])
    Image.new("L", (5, 4), 51).save(tmp_path / "grey.jpg")
    assert np.abs(read_image(tmp_path / "grey.jpg") - 0.2).max() < 0.01


@pytest.mark.parametrize("data", [b"", b"hello", b"\x89PNG\r\n\x1a\n" + b"\0" * 16 + b"\x10\x02"])
def test_what_is_no_picture_is_refused(tmp_path, data):
    (tmp_path / "a.png").write_bytes(data)
    with pytest.raises(FootageError, match="not a readable picture"):
        read_image(tmp_path / "a.png")
    with pytest.raises(FootageError, match="no such picture"):
        read_image(tmp_path / "b.png")


UP = np.zeros((48, 32, 3), np.uint8)
UP[:24], UP[24:], UP[:8, :8] = (200, 60, 40), (40, 60, 200), (20, 220, 90)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["jpg", "png", "tif", "webp", "png16"])
def test_pictures_stand_upright(tmp_path, orientation, kind):
    """Against Pillow's own reading of the tag."""
    path = tmp_path / f"a.{kind[:3] if kind != 'webp' else kind}"
    exif = Image.Exif()
    exif[0x0112] = orientation
    more = {"jpg": {"quality": 95, "subsampling": 0}, "webp": {"lossless": True}}.get(kind, {})
    if kind == "png16":
        write_png16(path, UP / 255)
        path.write_bytes(with_chunk(path.read_bytes(), b"eXIf", exif.tobytes().removeprefix(b"Exif\0\0")))
        right = ImageOps.exif_transpose(Image.open(path)).convert("RGB")
    else:
        Image.fromarray(UP).save(path, exif=exif, **more)
        right = ImageOps.exif_transpose(Image.open(path))
    got = read_image(path)
    assert got.shape == (*right.size[::-1], 3) and got.flags.c_contiguous
    assert np.abs(got - np.asarray(right, np.float32) / 255).max() < 1e-2


def with_chunk(png: bytes, name: bytes, data: bytes) -> bytes:
    chunk = struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
    return png[:33] + chunk + png[33:]


@pytest.mark.parametrize("name", PROFILES)
@pytest.mark.parametrize("kind", ["png", "jpg", "tif"])
def test_a_profile_is_led_to_srgb_as_littlecms_does(tmp_path, name, kind):
    levels = np.random.default_rng(2).integers(0, 256, (40, 50, 3), dtype=np.uint8)
    path = tmp_path / f"a.{kind}"
    Image.fromarray(levels).save(path, icc_profile=PROFILES[name])
    with Image.open(path) as image:
        right = ImageCms.profileToProfile(
            image, ImageCms.ImageCmsProfile(io.BytesIO(PROFILES[name])), ImageCms.createProfile("sRGB"),
            renderingIntent=ImageCms.Intent.RELATIVE_COLORIMETRIC, outputMode="RGB",
        )  # fmt: skip
    off = np.abs(read_image(path) * 255 - np.asarray(right, np.float32))
    assert off.mean() < 0.4 and np.percentile(off, 99) <= 1.6, (off.mean(), off.max())


def test_sixteen_bits_stay_sixteen_bits_through_a_profile(tmp_path):
    """A ramp in steps that eight bits do not tell apart is still a ramp, and means what its eight-bit copy means."""
    ramp = np.tile(np.linspace(0.30, 0.32, 200, dtype=np.float32)[None, :, None], (4, 1, 3))
    write_png16(tmp_path / "a.png", ramp)
    data = (tmp_path / "a.png").read_bytes()
    compressed = b"icc\0\0" + zlib.compress(PROFILES["adobe"])
    (tmp_path / "a.png").write_bytes(with_chunk(data, b"iCCP", compressed))
    got = read_image(tmp_path / "a.png")
    assert len(np.unique(got[0, :, 0])) == 200 and (np.diff(got[0, :, 0]) > 0).all()
    Image.fromarray(np.rint(ramp * 255).astype(np.uint8)).save(tmp_path / "b.png", icc_profile=PROFILES["adobe"])
    assert np.abs(got - read_image(tmp_path / "b.png")).max() < 2 / 255
    assert np.abs(got - ramp).max() > 1 / 255


def cmyk_profile() -> bytes:
    """A table of two points an axis, CMYK to Lab: ink takes lightness away, black most."""
    grid = bytearray()
    for c in (0, 1):
        for m in (0, 1):
            for y in (0, 1):
                for k in (0, 1):
                    light = 255 * (1 - 0.25 * c) * (1 - 0.3 * m) * (1 - 0.1 * y) * (1 - 0.9 * k)
                    colour = (128 - 40 * c + 60 * m - 5 * y, 128 - 45 * c - 5 * m + 80 * y)
                    grid += bytes([round(light), *(round(128 + (each - 128) * (1 - 0.9 * k)) for each in colour)])
    ramp = bytes(range(256))
    one = struct.pack(">9i", *(65536 if k % 4 == 0 else 0 for k in range(9)))
    table = b"mft1" + bytes(4) + bytes([4, 3, 2, 0]) + one + ramp * 4 + bytes(grid) + ramp * 3
    return icc(b"CMYK", {b"A2B0": table, b"wtpt": xyz(0.9642, 1.0, 0.8249)}, pcs=b"Lab ", kind=b"prtr")


@pytest.mark.parametrize("mode", ["CMYK", "L"])
@pytest.mark.parametrize("named", [True, False])
def test_ink_and_grey(tmp_path, mode, named):
    profile = cmyk_profile() if mode == "CMYK" else icc(b"GRAY", {b"kTRC": curv(256), b"wtpt": xyz(0.9642, 1, 0.8249)})
    rng = np.random.default_rng(3)
    shape = (30, 20, 4) if mode == "CMYK" else (30, 20)
    path = tmp_path / "a.tif"
    Image.fromarray(rng.integers(0, 256, shape, dtype=np.uint8), mode).save(
        path, icc_profile=profile if named else None
    )
    with Image.open(path) as image:
        right = image.convert("RGB")
        if named:
            right = ImageCms.profileToProfile(
                image, ImageCms.ImageCmsProfile(io.BytesIO(profile)), ImageCms.createProfile("sRGB"),
                renderingIntent=ImageCms.Intent.RELATIVE_COLORIMETRIC, outputMode="RGB",
                flags=ImageCms.Flags.BLACKPOINTCOMPENSATION,
            )  # fmt: skip
            assert right is not None
            apart = np.asarray(right, np.int16) - np.asarray(image.convert("RGB"), np.int16)
            assert np.abs(apart).max() > 10
    assert np.abs(read_image(path) * 255 - np.asarray(right, np.float32)).max() <= 1


def test_a_profile_of_another_kind_of_picture_says_nothing(tmp_path):
    levels = np.random.default_rng(4).integers(0, 256, (9, 7, 3), dtype=np.uint8)
    for profile in (cmyk_profile(), b"", b"garbage"):
        Image.fromarray(levels).save(tmp_path / "a.png", icc_profile=profile)
        assert np.array_equal(np.rint(read_image(tmp_path / "a.png") * 255), levels)


@pytest.mark.parametrize("kind", ["png", "webp", "tif", "png16", "palette", "grey"])
def test_what_is_transparent_lies_over_black(tmp_path, kind):
    levels = np.random.default_rng(5).integers(0, 256, (16, 24, 4), dtype=np.uint8)
    picture = Image.fromarray(levels)
    path = tmp_path / ("a.webp" if kind == "webp" else "a.tif" if kind == "tif" else "a.png")
    if kind == "png16":
        encoder = av.CodecContext.create("png", "w")
        encoder.width, encoder.height, encoder.pix_fmt, encoder.time_base = 24, 16, "rgba64be", Fraction(1, 25)
        deep = av.VideoFrame.from_ndarray(np.ascontiguousarray(levels.astype(np.uint16) * 257), format="rgba64be")
        path.write_bytes(b"".join(map(bytes, encoder.encode(deep) + encoder.encode(None))))
    else:
        picture = {"palette": picture.quantize(16), "grey": picture.convert("LA")}.get(kind, picture)
        picture.save(path, lossless=kind == "webp", exact=kind == "webp")
    rgba = np.asarray(Image.open(path).convert("RGBA") if kind != "png16" else picture, np.float32) / 255
    assert np.abs(read_image(path) - rgba[..., :3] * rgba[..., 3:]).max() < 1 / 255


@pytest.mark.parametrize("kind", ["png", "tif"])
@pytest.mark.parametrize("grey", [True, False])
def test_deep_pictures_keep_their_bits(tmp_path, kind, grey):
    levels = np.random.default_rng(6).integers(0, 65536, (12, 10) if grey else (12, 10, 3), dtype=np.uint16)
    path = tmp_path / f"a.{kind}"
    if kind == "tif":
        import tifffile

        tifffile.imwrite(path, levels, photometric="minisblack" if grey else "rgb")
    elif grey:
        Image.fromarray(levels).save(path)
    else:
        write_png16(path, levels / 65535)
    wanted = np.repeat(levels[..., None], 3, axis=-1) if grey else levels
    assert np.abs(read_image(path) * 65535 - wanted).max() <= 0.51


def png(path, width: int, height: int, *, depth: int, colour: int) -> None:
    """A black PNG, packed row by row."""
    packer, row = zlib.compressobj(9), bytes(1 + width * {0: 1, 2: 3}[colour] * depth // 8)
    data = b"".join(packer.compress(row) for _ in range(height)) + packer.flush()
    head = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    chunks = [(b"IHDR", head), (b"IDAT", data), (b"IEND", b"")]
    body = b"".join(struct.pack(">I", len(b)) + n + b + struct.pack(">I", zlib.crc32(n + b)) for n, b in chunks)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + body)


@pytest.mark.parametrize(
    ("size", "depth", "colour"),
    [((20_000, 20_000), 8, 0), ((9_000, 9_000), 16, 2), ((2**31 - 1, 2**31 - 1), 8, 2), ((60_000, 3_000), 8, 2)],
)
def test_pictures_that_unpack_to_gigabytes_are_refused_by_their_header(tmp_path, size, depth, colour):
    """Nothing is unpacked: these files end after the first row."""
    png(tmp_path / "a.png", size[0] if size[0] < 2**20 else 8, 1, depth=depth, colour=colour)
    data = bytearray((tmp_path / "a.png").read_bytes())
    data[16:24] = struct.pack(">II", *size)
    data[29:33] = struct.pack(">I", zlib.crc32(bytes(data[12:29])))
    (tmp_path / "a.png").write_bytes(data)
    with pytest.raises(FootageError, match=r"MiB unpacked|too large"):
        read_image(tmp_path / "a.png")


@pytest.mark.parametrize(("depth", "colour"), [(8, 0), (8, 2), (16, 2)])
def test_large_pictures_are_averaged_down(tmp_path, monkeypatch, depth, colour):
    monkeypatch.setattr(stills, "_WORKING", 10_000)
    levels = np.random.default_rng(8).integers(0, 2**depth, (300, 420, 3), dtype=np.uint16 if depth == 16 else np.uint8)
    if colour == 0:
        Image.fromarray(levels[..., 0]).save(tmp_path / "a.png")
        levels = np.repeat(levels[..., :1], 3, axis=-1)
    elif depth == 8:
        Image.fromarray(levels).save(tmp_path / "a.png")
    else:
        write_png16(tmp_path / "a.png", levels / 65535)
    wanted = levels.reshape(75, 4, 105, 4, 3).mean(axis=(1, 3)) / (2**depth - 1)
    got = read_image(tmp_path / "a.png")
    assert got.shape == (75, 105, 3) and np.abs(got - wanted).max() < 1 / 255


def test_a_large_photograph_keeps_its_shape_and_colours(tmp_path, monkeypatch):
    monkeypatch.setattr(stills, "_WORKING", 100_000)
    columns = np.linspace(0, 255, 900).astype(np.uint8)
    Image.fromarray(np.repeat(np.tile(columns, (600, 1))[..., None], 3, axis=-1)).save(tmp_path / "a.jpg", quality=90)
    got = read_image(tmp_path / "a.jpg")
    assert got.shape[0] * got.shape[1] <= 100_000 and abs(got.shape[1] / got.shape[0] - 1.5) < 0.02
    wanted = np.interp(np.linspace(0, 1, got.shape[1]), np.linspace(0, 1, 900), columns)
    assert np.abs(got[100, :, 1] * 255 - wanted).max() < 4


def test_no_picture_starts_another_program(tmp_path):
    (tmp_path / "a.eps").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n")
    with pytest.raises(FootageError, match="not a readable picture"):
        read_image(tmp_path / "a.eps")


def test_damaged_pictures_of_every_kind_are_read_or_refused(tmp_path):
    rng = np.random.default_rng(7)
    picture = Image.fromarray(rng.integers(0, 256, (24, 32, 3), dtype=np.uint8))
    exif = Image.Exif()
    exif[0x0112] = 6
    more = {"exif": exif, "icc_profile": PROFILES["p3"]}
    for name in ("a.png", "a.jpg", "a.tif", "a.webp", "a.gif", "a.bmp"):
        picture.save(tmp_path / name, **(more if name[2:] not in ("gif", "bmp") else {}))
        whole = (tmp_path / name).read_bytes()
        for _ in range(25):
            broken = bytearray(whole[: rng.integers(len(whole) // 2, len(whole) + 1)])
            for _ in range(rng.integers(1, 6)):
                broken[rng.integers(min(len(broken), 400))] = rng.integers(256)
            (tmp_path / name).write_bytes(broken)
            with suppress(FootageError):
                assert np.isfinite(read_image(tmp_path / name)).all()
