"""Windows by time: the nearest source frame for every model frame, inside one shot, and a crop of the right shape."""

from __future__ import annotations

from fractions import Fraction
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cinetune.artifacts import Colour, FootageClip
from cinetune.footage.cut.windows import centre_crop, window_frames
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


def _first(span, offset):
    """The source frame nearest to a model frame, by hand."""
    return span.start + int(offset * span.rate / 16 + Fraction(1, 2))


def _fits(span, offset, frames):
    return offset >= 0 and _first(span, offset + frames - 1) < span.end


spans = st.builds(
    Span, start=st.integers(0, 500), frames=st.integers(1, 400), rate=st.sampled_from([*RATES, Fraction(12)])
)


@given(spans, st.sampled_from(["head", "slide", "uniform", "all"]), st.integers(0, 6), st.integers(0, 40))
def test_every_mode_stays_in_the_shot_in_order_without_repeats(span, mode, most, stride):
    windows = window_frames(span, Fraction(16), 17, most=most, mode=mode, stride=stride)
    assert bool(windows) == _fits(span, 0, 17)
    assert all(len(w) == 17 and w[0] >= span.start and w[-1] < span.end and w == sorted(w) for w in windows)
    assert windows == sorted(windows)
    if most:
        assert len(windows) <= most
    if span.rate >= 16:
        assert len({tuple(w) for w in windows}) == len(windows)


@given(spans, st.integers(1, 40), st.integers(0, 4))
def test_slide_has_exactly_its_stride_and_reaches_the_end(span, stride, most):
    windows = window_frames(span, Fraction(16), 17, most=most, mode="slide", stride=stride)
    assert [w[0] for w in windows] == [_first(span, k * stride) for k in range(len(windows))]
    if not most and windows:
        assert not _fits(span, len(windows) * stride, 17)


@given(spans)
def test_all_is_back_to_back_and_leaves_no_room_for_one_more(span):
    windows = window_frames(span, Fraction(16), 17, most=0, mode="all")
    assert [w[0] for w in windows] == [_first(span, k * 17) for k in range(len(windows))]
    assert not _fits(span, len(windows) * 17, 17)
    if span.rate >= 16:
        frames = [index for w in windows for index in w]
        assert len(frames) == len(set(frames))


@given(spans, st.integers(2, 6))
def test_uniform_goes_from_the_very_start_to_the_very_end_evenly(span, most):
    windows = window_frames(span, Fraction(16), 17, most=most, mode="uniform")
    if not windows:
        return
    slack = max(offset for offset in range(700) if _fits(span, offset, 17))
    assert (windows[0][0], windows[-1][0]) == (_first(span, 0), _first(span, slack))
    assert len(windows) == min(most, slack + 1)
    gaps = [Fraction(b[0] - a[0]) / span.rate for a, b in pairwise(windows)]
    assert not gaps or max(gaps) - min(gaps) <= Fraction(1, 16) + 2 / span.rate


def test_head_and_the_defaults():
    span = Span(start=10, frames=100, rate=Fraction(16))
    assert window_frames(span, Fraction(16), 17, most=5, mode="head") == [list(range(10, 27))]
    assert window_frames(span, Fraction(16), 17, most=0, mode="uniform") == window_frames(
        span, Fraction(16), 17, most=1, mode="central"
    )
    assert [w[0] for w in window_frames(span, Fraction(16), 17, most=0, mode="slide")] == list(range(10, 94, 8))


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
