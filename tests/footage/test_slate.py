"""Slate, burn-in and bars: what they say changes what is drawn, in the places where people look."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest

from cinetune.footage.video import probe, read_frames
from cinetune.footage.write.formats import DELIVERIES, Picture, SlateCard, with_bars
from cinetune.footage.write.overlay import burn_in, slate
from films import drift

CARD = SlateCard(
    film="film", shot="SQ010 SH0010", version=3, look="look", conform="hold from 16 fps", made="2026-01-31"
)
FACTS = {"Frames": "1001 - 1008", "Timecode": "01:00:00:00 - 01:00:00:07", "Rate": "24 fps", "Size": "640 x 360"}
STILL = np.full((360, 640, 3), 0.5, np.float32)


@pytest.mark.parametrize("size", [(640, 360), (480, 360), (860, 360), (360, 640)])
def test_the_slate_has_black_white_grey_and_the_still(size):
    picture = slate(size, CARD, FACTS, STILL)
    height, width = picture.shape[:2]
    assert (width, height) == size and picture.min() >= 0.0 and picture.max() <= 1.0
    ramp = picture[int(height * 0.86), int(width * 0.06) + 2 : int(width * 0.94) - 2, 1]
    assert ramp[0] == 0.0 and ramp[-1] == 1.0 and (np.diff(ramp) >= 0).all() and len(np.unique(ramp)) == 11
    assert np.isclose(picture[int(height * 0.25), int(width * 0.9)], 128 / 255, atol=0.01).all(), "the still"


@pytest.mark.parametrize(
    "other", [{"film": "film2"}, {"shot": "SH0020"}, {"version": 4}, {"look": "base"}, {"conform": "none"}]
)
def test_every_fact_of_the_card_is_on_the_slate(other):
    assert not np.array_equal(
        slate((640, 360), CARD, FACTS, STILL), slate((640, 360), replace(CARD, **other), FACTS, STILL)
    )


def test_text_stays_left_of_the_still_and_inside_the_picture():
    long = dict.fromkeys(FACTS, "W" * 60)
    picture = slate((640, 360), replace(CARD, film="W" * 80), long, STILL)
    assert np.ptp(picture[80:250, 610:], axis=(0, 1)).max() < 0.2, "the right margin is empty"


def test_the_burn_in_leaves_the_middle_alone_and_says_what_it_is_told():
    rgb = drift(1, 1, 360, 640)[0]
    one = burn_in(rgb, CARD, "01:00:00:00", 1001)
    assert np.array_equal(one[30:330], rgb[30:330]) and one.min() >= 0 and one.max() <= 1
    places = {
        "timecode": (burn_in(rgb, CARD, "01:00:00:01", 1001), slice(330, 360), slice(0, 320)),
        "number": (burn_in(rgb, CARD, "01:00:00:00", 1002), slice(330, 360), slice(320, 640)),
        "version": (burn_in(rgb, replace(CARD, version=4), "01:00:00:00", 1001), slice(0, 30), slice(0, 320)),
        "look": (burn_in(rgb, replace(CARD, look="base"), "01:00:00:00", 1001), slice(0, 30), slice(320, 640)),
    }
    for name, (two, rows, columns) in places.items():
        changed = np.abs(one - two).max(axis=2) > 0.1
        assert changed[rows, columns].any() and changed.sum() == changed[rows, columns].sum(), name


@pytest.mark.parametrize(
    ("slate_", "lead", "timecode"),
    [("second", 24, "00:59:59:00"), ("frame", 1, "00:59:59:23"), ("none", 0, "01:00:00:00")],
)
def test_the_slate_is_as_long_as_asked(tmp_path, slate_, lead, timecode):
    master = np.rint(drift(1, 2, 64, 96) * 65535).astype(np.uint16)
    picture = Picture(frames_THWC=master, shown=[0, 1], rate=Fraction(24))
    card = replace(CARD, slate=slate_, burn_in=False)
    (path,) = DELIVERIES["proxy"].write(tmp_path / "a", picture, card)
    facts = probe(path)
    assert (facts.frames, facts.timecode) == (lead + 2, timecode)
    first = read_frames(path, [lead])[0]
    assert first[:20].mean() == pytest.approx(master[0][:4].mean() / 65535, abs=0.04), "no burn-in"


@pytest.mark.parametrize(
    ("aspect", "rows", "columns"),
    [
        ("2.39", slice(46, 314), slice(0, 640)),
        ("4/3", slice(0, 360), slice(80, 560)),
        ("16/9", slice(0, 360), slice(0, 640)),
    ],
)
def test_bars_leave_the_aspect_ratio(aspect, rows, columns):
    rgb = np.full((360, 640, 3), 0.7, np.float32)
    barred = with_bars(rgb, Fraction(aspect))
    assert barred[rows, columns].min() > 0.69, "the picture is untouched"
    assert barred.sum() == pytest.approx(barred[rows, columns].sum()), "all else is black"
    open_height, open_width = barred[rows, columns].shape[:2]
    assert open_width / open_height == pytest.approx(float(Fraction(aspect)), abs=0.07)
    grown = np.argwhere(barred[..., 0] > 0)
    assert (np.ptp(grown[:, 0]) + 1, np.ptp(grown[:, 1]) + 1) == (
        min(360, round(640 / Fraction(aspect))),
        min(640, round(360 * Fraction(aspect))),
    )


def test_bars_are_in_every_kind_of_file(tmp_path):
    master = np.full((2, 144, 256, 3), 40000, np.uint16)
    picture = Picture(frames_THWC=master, shown=[0, 1], rate=Fraction(24), bars=Fraction("2.39"))
    (movie,) = DELIVERIES["prores_hq"].write(tmp_path / "a", picture, CARD)
    stills = DELIVERIES["png16"].write(tmp_path / "a", picture, CARD)
    for path in (movie, stills[0]):
        frame = read_frames(path, [0])[0] if path == movie else next(iter(picture))
        assert frame[:18].max() < 0.005 and frame[-18:].max() < 0.005 and frame[22:-22].min() > 0.59
