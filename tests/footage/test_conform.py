"""16 fps to the rates of post: exact counts, and pictures in between that are where they should be."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from cinetune.footage.read.color import from_light, to_light
from cinetune.footage.write.conform import conform_indices, conformed
from films import FILM

SOURCE = Fraction(16)
RATES = [FILM, Fraction(24), Fraction(25)]


def bar(frames=9, step=4, height=64, width=96):
    """A master with a bright bar that moves `step` pixels a frame."""
    master = np.full((frames, height, width, 3), 8000, np.uint16)
    for k in range(frames):
        master[k, :, 10 + step * k : 30 + step * k] = 50000
    return master


def position(frame):
    """Centre of the bar, in master frames."""
    weight = frame[frame.shape[0] // 2, :, 1] - frame.min()
    return float(weight @ np.arange(weight.size) / weight.sum() - 19.5) / 4


def delivered(master, rate, mode):
    shown, out = conform_indices(len(master), SOURCE, rate, mode)
    return shown, list(conformed(master, shown, source=SOURCE, rate=out, mode=mode))


@pytest.mark.parametrize("mode", ["hold", "blend", "minterpolate", "retime", "none"])
@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize("frames", [1, 2, 9])
def test_counts_are_exact(frames, rate, mode):
    count = frames if mode in ("retime", "none") else math.ceil(frames * rate / SOURCE)
    shown, pictures = delivered(bar(frames), rate, mode)
    assert len(shown) == len(pictures) == count
    assert conform_indices(frames, SOURCE, rate, mode)[1] == (SOURCE if mode == "none" else rate)
    assert all(picture.shape == (64, 96, 3) and picture.dtype == np.float32 for picture in pictures)


@pytest.mark.parametrize("mode", ["hold", "blend", "minterpolate"])
@pytest.mark.parametrize("rate", RATES)
def test_a_frame_at_a_masters_time_is_the_master(rate, mode):
    master = bar()
    shown, pictures = delivered(master, rate, mode)
    exact = [k for k, index in enumerate(shown) if k * SOURCE / rate == index or index == len(master) - 1]
    assert 0 in exact and (rate != 24 or len(exact) >= 5)
    for k in exact:
        assert np.array_equal(np.rint(pictures[k] * 65535), master[shown[k]])


@pytest.mark.parametrize("rate", RATES)
def test_minterpolate_moves_the_picture(rate):
    _, pictures = delivered(bar(), rate, "minterpolate")
    wanted = [min(k * SOURCE / rate, 8) for k in range(len(pictures))]
    assert [position(picture) for picture in pictures] == pytest.approx([float(w) for w in wanted], abs=0.3)
    held = [position(picture) for picture in delivered(bar(), rate, "hold")[1]]
    assert max(abs(a - float(b)) for a, b in zip(held, wanted, strict=True)) > 0.6, "hold does not"


@pytest.mark.parametrize("size", [(34, 50), (48, 80)])
def test_minterpolate_takes_any_size(size):
    shown, pictures = delivered(bar(5, height=size[0], width=size[1]), Fraction(24), "minterpolate")
    assert len(pictures) == len(shown) and pictures[1].shape == (*size, 3)


def test_blend_adds_light():
    master = np.zeros((2, 2, 2, 3), np.uint16)
    master[1] = 65535
    _, pictures = delivered(master, Fraction(32), "blend")
    assert [float(to_light(picture).mean()) for picture in pictures] == pytest.approx([0, 0.5, 1, 1], abs=1e-4)
    assert float(pictures[1].mean()) == pytest.approx(0.705, abs=0.001), "half the light, not half the code value"


@given(st.floats(0, 1))
@example(0.081)  # where the rounded figures of BT.709 leave a gap
@example(0.0812)
def test_light_and_back(value):
    code = np.array([value], np.float32)
    assert float(from_light(to_light(code))[0]) == pytest.approx(value, abs=2e-5)


def test_a_master_is_read_frame_by_frame():
    """Streaming: no conform looks further ahead than it must."""
    master, seen = bar(60), []

    class Watched:
        shape = master.shape

        def __getitem__(self, index):
            seen.append(index)
            return master[index]

    for mode, ahead in (("hold", 0), ("blend", 1), ("minterpolate", 8)):
        seen.clear()
        shown, rate = conform_indices(60, SOURCE, Fraction(24), mode)
        for index, _ in zip(shown, conformed(Watched(), shown, source=SOURCE, rate=rate, mode=mode), strict=True):
            assert max(seen) <= index + ahead, mode
