"""Stills: sixteen bits in, sixteen bits out, checked by another reader."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image
from skimage.io import imread

from cinetune.errors import FootageError
from cinetune.footage.read.stills import read_image, write_png16


def test_png16_is_lossless_and_others_can_read_it(tmp_path):
    levels = np.random.default_rng(0).integers(0, 65536, (21, 33, 3), dtype=np.uint16)
    write_png16(tmp_path / "a.png", levels / 65535)
    assert np.array_equal(np.rint(read_image(tmp_path / "a.png") * 65535), levels)
    data = (tmp_path / "a.png").read_bytes()
    assert (data[24], data[25]) == (16, 2)
    assert imread(tmp_path / "a.png").shape == (21, 33, 3)


def test_eight_bit_pictures(tmp_path):
    levels = np.random.default_rng(1).integers(0, 256, (9, 7, 4), dtype=np.uint8)
    Image.fromarray(levels).save(tmp_path / "a.png")
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
