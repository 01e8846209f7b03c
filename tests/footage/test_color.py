"""Colour: published code values, exact inverses, honest decisions, and a resize that does not alias."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from cinetune.errors import FootageError
from cinetune.footage.read.color import (
    LUMA_WEIGHTS,
    decide_colour,
    resize,
    rgb_to_yuv,
    subsample_chroma,
    upsample_chroma,
    yuv_to_rgb,
)


def _pixel(rgb: tuple[float, float, float]) -> np.ndarray:
    return np.array(rgb, np.float32).reshape(1, 1, 3)


@pytest.mark.parametrize(
    ("matrix", "full", "bits", "rgb", "codes"),
    [
        ("bt709", False, 8, (1, 0, 0), (63, 102, 240)),
        ("bt709", False, 8, (0, 1, 0), (173, 42, 26)),
        ("bt709", False, 8, (0, 0, 1), (32, 240, 118)),
        ("bt601", False, 8, (1, 0, 0), (81, 90, 240)),
        ("bt601", False, 8, (0, 1, 0), (145, 54, 34)),
        ("bt601", True, 8, (1, 0, 0), (76, 85, 255.5)),
        ("bt709", False, 8, (1, 1, 1), (235, 128, 128)),
        ("bt709", False, 10, (1, 1, 1), (940, 512, 512)),
        ("bt709", False, 10, (0, 0, 0), (64, 512, 512)),
        ("bt2020", False, 10, (1, 0, 0), (294, 387, 960)),
        ("bt709", True, 8, (1, 1, 1), (255, 128, 128)),
    ],
)
def test_published_code_values(matrix, full, bits, rgb, codes):
    planes = rgb_to_yuv(_pixel(rgb), matrix=matrix, full_range=full, bits=bits)
    assert [float(plane[0, 0]) for plane in planes] == pytest.approx(codes, abs=0.5)


@pytest.mark.parametrize("matrix", sorted(LUMA_WEIGHTS))
@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize("bits", [8, 10, 12])
def test_matrix_inverts_exactly(matrix, full, bits):
    rgb = np.random.default_rng(0).random((16, 16, 3), np.float32)
    back = yuv_to_rgb(
        *rgb_to_yuv(rgb, matrix=matrix, full_range=full, bits=bits), matrix=matrix, full_range=full, bits=bits
    )
    assert np.abs(back - rgb).max() < 2e-6


def test_wrong_matrix_is_visible():
    """The error that silent assumptions make: 601 pixels read as 709 are far off."""
    red = _pixel((200 / 255, 40 / 255, 40 / 255))
    wrong = yuv_to_rgb(
        *rgb_to_yuv(red, matrix="bt601", full_range=False, bits=8), matrix="bt709", full_range=False, bits=8
    )
    assert np.abs(wrong - red).max() > 10 / 255


@pytest.mark.parametrize(("columns", "rows"), [(True, True), (True, False), (False, False)])
def test_chroma_sites_agree(columns, rows):
    """A linear ramp survives halving and doubling away from the edges only if both use the same sites."""
    y, x = np.mgrid[0:16, 0:24].astype(np.float32)
    ramp = 3 * x + 5 * y
    half = subsample_chroma(ramp, columns=columns, rows=rows)
    assert half.shape == (16 // (1 + rows), 24 // (1 + columns))
    assert np.abs(upsample_chroma(half, 16, 24) - ramp)[2:-2, 2:-2].max() < 1e-4


def test_odd_sizes_and_quarter_chroma_upsample():
    assert upsample_chroma(np.full((4, 6), 7, np.uint8), 7, 11).shape == (7, 11)
    assert (upsample_chroma(np.full((9, 5), 7, np.uint8), 9, 18) == 7).all()


def _decide(**tags):
    told: dict[str, Any] = {"matrix": 2, "primaries": 2, "transfer": 2, "code_range": 0, "height": 720} | tags
    return decide_colour(**told)


@pytest.mark.parametrize(
    ("tags", "matrix", "full", "words"),
    [
        ({"matrix": 1, "code_range": 1}, "bt709", False, "tagged bt709, limited range"),
        ({"matrix": 6, "code_range": 2, "height": 1080}, "bt601", True, "tagged bt601, full range"),
        ({"matrix": 9, "code_range": 1}, "bt2020", False, "tagged bt2020"),
        ({}, "bt709", False, "untagged, height 720 >= 720: taken as bt709, limited range (not said, assumed)"),
        ({"height": 719}, "bt601", False, "untagged, height 719 < 720: taken as bt601"),
        ({"rgb": True}, "rgb", True, "RGB pixels"),
        (
            {"transfer": 16},
            "bt2020",
            False,
            "untagged matrix, PQ: taken as bt2020, limited range (not said, assumed), ",
        ),
    ],
)
def test_decisions_are_said(tags, matrix, full, words):
    colour = _decide(**tags)
    assert (colour.matrix, colour.full_range) == (matrix, full)
    assert colour.decided.startswith(words)


@pytest.mark.parametrize(
    ("tags", "words"),
    [
        ({"transfer": 8}, "linear"),
        ({"transfer": 9}, "log"),
        ({"primaries": 11}, "primaries"),
        ({"transfer": 16, "primaries": 12}, "primaries"),
        ({"matrix": 14}, "matrix"),
    ],
)
def test_colour_that_nothing_explains_is_refused(tags, words):
    with pytest.raises(FootageError, match=words):
        _decide(**tags)


def test_resize_averages_what_it_cannot_show():
    checks = (np.indices((64, 96)).sum(axis=0) % 2).astype(np.float32)[..., None].repeat(3, axis=2)
    small = resize(checks, (12, 8))
    assert small.shape == (8, 12, 3)
    assert np.abs(small - 0.5).max() < 0.02


def test_resize_keeps_flat_colour_float_precision_and_range():
    flat = np.full((20, 30, 3), 0.123456, np.float32)
    assert np.abs(resize(flat, (13, 7)) - np.float32(0.123456)).max() < 1e-6
    edge = np.zeros((32, 32, 3), np.float32)
    edge[:, 16:] = 1
    assert resize(edge, (100, 100)).min() == 0 and resize(edge, (100, 100)).max() == 1
    assert resize(flat, (30, 20)) is flat
