"""Measures that move with what they are called after, and fingerprints that tell copies from look-alikes."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
import skimage.data
from scipy.ndimage import gaussian_filter

from cinetune.footage.cut.measure import SAME_PICTURE, find_copies, fingerprint, measure, sampled_pairs
from cinetune.footage.read.color import resize
from cinetune.footage.video import read_frames, write_video
from films import drift

RATE = Fraction(16)
LUMA = np.array([0.2126, 0.7152, 0.0722], np.float32)


def _pan(picture, pixels, *, width=192, height=128):
    """Six frames of which each pair is one picture moved by `pixels` of a view of `width`."""
    views = [picture[20 : 20 + height, 10 + round(k * pixels) : 10 + round(k * pixels) + width] for k in (0, 1)]
    return np.stack([*views, *views, *views])


@pytest.fixture(scope="module")
def photos():
    """Photographs of a person, a cat, a cup, a launch, a man with a camera, coins, the moon and a galaxy field."""
    names = ("astronaut", "chelsea", "coffee", "rocket", "camera", "coins", "moon", "hubble_deep_field")
    pictures = []
    for name in names:
        picture = np.asarray(getattr(skimage.data, name)(), np.float32) / np.float32(255)
        picture = np.repeat(picture[..., None], 3, 2) if picture.ndim == 2 else picture[..., :3]
        height = min(picture.shape[0], picture.shape[1] * 2 // 3)
        pictures.append(resize(picture[:height, : height * 3 // 2], (416, 276)))
    return pictures


@pytest.mark.parametrize("pixels", [1, 2, 4])
def test_motion_is_the_speed_of_the_picture(photos, pixels):
    """A pan by so many pixels of 192 in every 1/16 s: right on average, and to a factor of two in a picture whose edges
    all lie one way (the launch tower)."""
    truth = 100 * pixels / 192 * 16
    found = [measure(_pan(picture, pixels), RATE, window="a").motion / truth for picture in photos]
    assert 0.8 < np.median(found) < 1.25 and min(found) > 0.5 and max(found) < 2


def test_neither_grain_nor_a_change_of_light_is_motion(photos):
    rng = np.random.default_rng(0)
    still = _pan(photos[1], 0)
    slow = measure(_pan(photos[1], 1), RATE, window="a").motion
    assert measure(still, RATE, window="a").motion == 0.0
    grain = np.clip(still + rng.normal(0, 0.02, still.shape), 0, 1).astype(np.float32)
    lit = still * 0.8 + np.array([0.0, 0.06] * 3, np.float32)[:, None, None, None]
    assert measure(grain, RATE, window="a").motion < slow / 2
    assert measure(lit, RATE, window="a").motion < slow / 20


def test_sharpness_falls_with_blur_and_with_enlarging_and_not_with_contrast(photos):
    for picture in photos[:4]:
        soft = [measure(_pan(gaussian_filter(picture, (s, s, 0)), 0), RATE, window="a").sharpness for s in (0, 1, 2, 4)]
        assert soft == sorted(soft, reverse=True) and soft[0] - soft[2] > 0.1 and 0 < soft[-1] < soft[0] < 1
        enlarged = resize(resize(picture, (104, 69)), (416, 276))
        assert measure(_pan(enlarged, 0), RATE, window="a").sharpness < soft[0] - 0.1
        dull = measure(_pan(picture * 0.5 + 0.2, 0), RATE, window="a").sharpness
        assert dull == pytest.approx(soft[0], abs=0.01)


def test_light_and_nothing_at_all():
    flat = np.zeros((6, 32, 48, 3), np.float32)
    dark = measure(flat, RATE, window="w")
    assert (dark.window, dark.motion, dark.sharpness, dark.brightness, dark.black) == ("w", 0, 0, 0, 1)
    half = flat.copy()
    half[:, :16] = 1.0
    assert measure(half, RATE, window="w").brightness == 0.5 and measure(half, RATE, window="w").black == 0.5
    assert fingerprint(flat[0]) == () and find_copies([[()], [()]], ["a", "b"]) == []


@pytest.mark.parametrize(("frames", "places"), [(33, [0, 1, 16, 17, 31, 32]), (5, [0, 1, 2, 3, 3, 4])])
def test_the_frames_that_are_looked_at(frames, places):
    assert sampled_pairs(frames) == places


def _middle(picture, share):
    height, width = (round(side * share) for side in picture.shape[:2])
    top, left = (picture.shape[0] - height) // 2, (picture.shape[1] - width) // 2
    return picture[top : top + height, left : left + width]


def _coded(picture, folder):
    """Through H.264 as a badly compressed copy: a quarter of the pixels, chroma subsampled."""
    small = resize(picture, (208, 138))
    write_video(folder / "copy.mp4", np.stack([small] * 2), rate=RATE)
    return read_frames(folder / "copy.mp4", [1])[0]


COPIES = {
    "warm": lambda f: np.clip(f * np.array([1.15, 1, 0.8], np.float32) + 0.02, 0, 1),
    "bright": lambda f: f**0.6,
    "dark": lambda f: f**1.6,
    "contrast": lambda f: np.clip(f + 0.25 * (f - 0.5), 0, 1),
    "day for night": lambda f: (f**1.5) * np.array([0.5, 0.6, 0.9], np.float32),
    "black and white": lambda f: np.repeat((f @ LUMA)[..., None], 3, 2),
    "mirrored": lambda f: f[:, ::-1],
    "3 % less": lambda f: _middle(f, 0.97),
    "7 % less": lambda f: _middle(f, 0.93),
    "12 % less": lambda f: _middle(f, 0.88),
    "22 % less": lambda f: _middle(f, 0.78),
    "graded, mirrored and closer": lambda f: _middle(np.clip(f * 1.2 - 0.05, 0, 1)[:, ::-1], 0.9),
}


def _nearest(one, other):
    """The share of differing bits, whatever it is."""
    return find_copies([[fingerprint(one)], [fingerprint(other)]], ["a", "b"], limit=1.0)[0][2]


@pytest.mark.parametrize("name", COPIES)
def test_copies_are_known(photos, name):
    assert max(_nearest(picture, COPIES[name](picture).astype(np.float32)) for picture in photos) < 0.22 < SAME_PICTURE


def test_compressed_copies_are_known(photos, tmp_path):
    assert max(_nearest(picture, _coded(picture, tmp_path)) for picture in photos) < 0.1


def test_other_pictures_are_other_pictures(photos):
    pictures = [*photos, *(drift(seed, 1, 64, 96)[0] for seed in range(12))]
    pairs = find_copies([[fingerprint(picture)] for picture in pictures], list(map(str, range(20))), limit=1.0)
    assert len(pairs) == 190 and min(share for _, _, share in pairs) > 0.28 > SAME_PICTURE


def test_copies_across_groups_only_by_their_nearest_frames(photos):
    one, two, three = (fingerprint(picture) for picture in photos[:3])
    windows = [[one, two], [three, (), one], [two], [three]]
    assert find_copies(windows, ["a", "a", "b", "b"]) == [(0, 2, 0.0), (1, 3, 0.0)]
    assert find_copies(windows, ["a", "b", "a", "b"]) == [(0, 1, 0.0)]
    assert find_copies(windows, ["a"] * 4) == [] and find_copies([], []) == []
