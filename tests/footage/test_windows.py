"""Windows by time: the nearest source frame for every model frame, inside one shot, and a crop of the right shape."""

from __future__ import annotations

from fractions import Fraction
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cinetune.artifacts import Colour, FootageClip
from cinetune.footage.windows import centre_crop, window_frames
from cinetune.timecode import Span
from films import FILM

RATES = [FILM, Fraction(24), Fraction(25), Fraction(30000, 1001), Fraction(16), Fraction(60)]


@given(st.integers(0, 500), st.integers(1, 400), st.sampled_from(RATES), st.integers(1, 6))
def test_windows_keep_time_and_stay_inside(start, frames, rate, most):
    span = Span(start=start, frames=frames, rate=rate)
    windows = window_frames(span, Fraction(16), 33, most=most)
    needed = int(32 * rate / 16 + Fraction(1, 2)) + 1
    assert (len(windows) > 0) == (frames >= needed)
    assert len(windows) <= most
    for window in windows:
        assert len(window) == 33 and window[0] >= start and window[-1] < start + frames
        for k, index in enumerate(window):
            assert abs(Fraction(index - window[0]) / rate - Fraction(k, 16)) <= 1 / rate
    firsts = sorted(window[0] for window in windows)
    assert all(Fraction(b - a) / rate >= Fraction(14, 16) for a, b in pairwise(firsts))


def test_the_first_window_is_central_and_exact():
    (window,) = window_frames(Span(start=100, frames=61, rate=FILM), Fraction(16), 33, most=1)
    offset = 4  # 41 model frames fit, 8 to spare
    assert window == [100 + int((k + offset) * FILM / 16 + Fraction(1, 2)) for k in range(33)]
    first, *others = window_frames(Span(start=0, frames=240, rate=Fraction(24)), Fraction(16), 33, most=3)
    assert abs((first[0] + first[-1]) / 2 - 120) <= 2
    assert len(others) == 2


def _clip(size, bars, aspect=Fraction(1)):
    return FootageClip(
        id="a", path="a", sha256="", codec="", rate=FILM, frames=1, width=size[0], height=size[1],
        pixel_aspect=aspect, bars=bars,
        colour=Colour(matrix="bt709", primaries="bt709", transfer="bt709", full_range=False, decided=""), timecode=None,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("clip", "crop"),
    [
        (_clip((1920, 1080), (0, 0, 1920, 1080)), (150, 0, 1620, 1080)),
        (_clip((1920, 1080), (0, 138, 1920, 804)), (357, 138, 1206, 804)),
        (_clip((1080, 1920), (0, 0, 1080, 1920)), (0, 600, 1080, 720)),
        (_clip((1440, 1080), (0, 0, 1440, 1080), Fraction(4, 3)), (112, 0, 1215, 1080)),
        (_clip((96, 64), (0, 0, 96, 64)), (0, 0, 96, 64)),
    ],
    ids=["16:9", "letterboxed", "upright", "anamorphic", "exact"],
)
def test_crop_has_the_models_shape_when_shown(clip, crop):
    assert centre_crop(clip, 96, 64) == crop
