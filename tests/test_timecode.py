"""Exact time: rates, spans, the frame rule, and SMPTE labels against counting them one by one."""

from fractions import Fraction
from itertools import islice

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cinetune.errors import ConfigError
from cinetune.timecode import (
    NTSC_NOMINAL,
    Span,
    exact_rate,
    frames_to_latent,
    frames_to_timecode,
    nearest_legal_frames,
    resample_indices,
    timecode_to_frames,
)

FILM = Fraction(24000, 1001)
NTSC = Fraction(30000, 1001)
RATES = [Fraction(24), Fraction(25), FILM, NTSC, Fraction(50), Fraction(60000, 1001), Fraction(16)]
rates = st.sampled_from(RATES)


@pytest.mark.parametrize(
    ("given_rate", "exact"),
    [
        (23.976, FILM), (23.98, FILM), ("23.976", FILM), ("24000/1001", FILM), (29.97, NTSC),
        (59.94, Fraction(60000, 1001)),
        (Fraction(2997, 100), NTSC),
        (24.0, Fraction(24)), ("24", Fraction(24)), (25.0, Fraction(25)), (12.5, Fraction(25, 2)),
    ],
)  # fmt: skip
def test_exact_rate(given_rate: float | str | Fraction, exact: Fraction) -> None:
    assert exact_rate(given_rate) == exact


@pytest.mark.parametrize("bad", ["fast", "", "24/0", 0.0, -24.0, float("nan"), float("inf"), "0"])
def test_a_rate_that_is_no_rate_is_refused(bad: float | str) -> None:
    with pytest.raises(ConfigError, match="rate"):
        exact_rate(bad)


@given(st.sampled_from(NTSC_NOMINAL), st.integers(2, 6))
def test_every_rounding_of_an_ntsc_rate_snaps_to_it(nominal: int, digits: int) -> None:
    exact = Fraction(nominal * 1000, 1001)
    assert exact_rate(round(float(exact), digits)) == exact


def test_span_in_seconds_is_exact() -> None:
    span = Span(start=24, frames=48, rate=FILM)
    assert (span.end, span.seconds, span.start_seconds) == (72, Fraction(2002, 1000), Fraction(1001, 1000))


@given(rates, rates, st.integers(1, 40), st.integers(0, 500), st.integers(0, 8))
def test_resampled_frames_are_the_nearest_in_time(
    source: Fraction, target: Fraction, frames: int, start: int, offset: int
) -> None:
    span = Span(start=start, frames=200 * 4, rate=source)
    picked = resample_indices(span, target, frames, offset=offset)
    for k, index in enumerate(picked):
        wanted = (k + offset) / target
        assert abs((index - start) / source - wanted) <= 1 / (2 * source)
    assert picked == sorted(picked)


def test_resampling_24_to_16_takes_two_of_three_frames() -> None:
    span = Span(start=100, frames=50, rate=Fraction(24))
    assert resample_indices(span, Fraction(16), 7) == [100, 102, 103, 105, 106, 108, 109]


@pytest.mark.parametrize(("frames", "fits"), [(49, True), (48, False)])
def test_a_span_too_short_is_refused(frames: int, fits: bool) -> None:
    span = Span(start=0, frames=frames, rate=Fraction(24))
    if fits:
        assert resample_indices(span, Fraction(16), 33)[-1] == 48
    else:
        with pytest.raises(ConfigError, match=r"33 frames at 16 fps need 2\.000 s"):
            resample_indices(span, Fraction(16), 33)


@given(st.integers(1, 400), st.sampled_from([1, 4, 8]))
def test_latent_frames_are_those_of_the_frame_rule(latent: int, stride: int) -> None:
    assert frames_to_latent(1 + (latent - 1) * stride, stride) == latent


@given(st.integers(-5, 2000), st.sampled_from([1, 4, 8]))
def test_legal_counts_bracket_any_count(frames: int, stride: int) -> None:
    low, high = nearest_legal_frames(frames, stride)
    assert (low - 1) % stride == (high - 1) % stride == 0
    assert low >= 1
    assert low <= max(frames, 1) <= high < low + 2 * stride
    assert (low == high) == (frames == low)


def test_an_illegal_count_names_its_neighbours() -> None:
    with pytest.raises(ConfigError, match="use 29 or 33"):
        frames_to_latent(32)


def every_label(rate: Fraction, *, drop_frame: bool):
    """The labels of a day in order, by the rule itself: skip the first few of each minute but every tenth."""
    nominal = round(rate)
    dropped = nominal // 15 if drop_frame else 0
    mark = ";" if drop_frame else ":"
    for minute in range(24 * 60):
        for second in range(60):
            skip = dropped if second == 0 and minute % 10 else 0
            for frame in range(skip, nominal):
                yield f"{minute // 60:02d}:{minute % 60:02d}:{second:02d}{mark}{frame:02d}"


@pytest.mark.parametrize(
    ("rate", "drop_frame"), [(NTSC, True), (Fraction(60000, 1001), True), (FILM, False), (Fraction(25), False)]
)
def test_labels_of_the_first_twelve_minutes_are_the_counted_ones(rate: Fraction, drop_frame: bool) -> None:
    count = round(rate) * 60 * 12
    for frame, label in enumerate(islice(every_label(rate, drop_frame=drop_frame), count)):
        assert frames_to_timecode(frame, rate, drop_frame=drop_frame) == label
        assert timecode_to_frames(label, rate) == frame


@given(rates, st.integers(0, 24 * 3600 * 16 - 1))
def test_labels_round_trip(rate: Fraction, frame: int) -> None:
    assert timecode_to_frames(frames_to_timecode(frame, rate), rate) == frame


@given(st.sampled_from([NTSC, Fraction(60000, 1001)]), st.integers(0, 2589407))
def test_drop_frame_labels_round_trip_and_keep_clock_time(rate: Fraction, frame: int) -> None:
    label = frames_to_timecode(frame, rate, drop_frame=True)
    assert timecode_to_frames(label, rate) == frame
    hours, minutes, rest = label.split(":")
    seconds, frames = rest.split(";")
    shown = int(hours) * 3600 + int(minutes) * 60 + int(seconds) + int(frames) / float(rate)
    # Two (four) labels are skipped at once, 0.067 s, and a day of drop-frame is still 0.0864 s off the clock.
    assert shown == pytest.approx(frame / float(rate), abs=0.16)


def test_a_day_wraps() -> None:
    assert frames_to_timecode(24 * 3600 * 25, Fraction(25)) == "00:00:00:00"


@pytest.mark.parametrize(
    ("label", "rate", "reason"),
    [
        ("1:2:3", Fraction(24), "not a timecode"),
        ("aa:00:00:00", Fraction(24), "not a timecode"),
        ("²0:00:00:00", Fraction(24), "not a timecode"),
        ("", Fraction(24), "not a timecode"),
        ("00:00:00:24", Fraction(24), "does not exist"),
        ("00:60:00:00", Fraction(24), "does not exist"),
        ("24:00:00:00", Fraction(24), "does not exist"),
        ("00:01:00;00", NTSC, "skipped"),
        ("00:01:00;03", Fraction(60000, 1001), "skipped"),
        ("00:00:01;00", Fraction(25), "no drop-frame"),
    ],
)
def test_a_label_that_cannot_be_is_refused(label: str, rate: Fraction, reason: str) -> None:
    with pytest.raises(ConfigError, match=reason):
        timecode_to_frames(label, rate)


def test_drop_frame_is_refused_where_it_does_not_exist() -> None:
    with pytest.raises(ConfigError, match="no drop-frame"):
        frames_to_timecode(0, FILM, drop_frame=True)


CLOCKS = [
    *((Fraction(rate), False) for rate in (24, 25, 30, 50, 60)),
    *((Fraction(rate * 1000, 1001), False) for rate in (24, 30, 60)),
    (NTSC, True), (Fraction(60000, 1001), True),
]  # fmt: skip


def frames_of_day(rate: Fraction, *, drop_frame: bool) -> int:
    """Frames between midnights: the rule leaves out labels in 9 of 10 minutes."""
    return 24 * 3600 * round(rate) - (round(rate) // 15 * 9 * 6 * 24 if drop_frame else 0)


@given(st.sampled_from(CLOCKS), st.data())
def test_every_frame_of_a_day_has_a_label_of_its_own(clock: tuple[Fraction, bool], data: st.DataObject) -> None:
    rate, drop = clock
    day = frames_of_day(rate, drop_frame=drop)
    frame = data.draw(st.one_of(st.integers(0, day - 1), st.sampled_from([0, 1799, 1800, 17981, 17982, day - 1])))
    label = frames_to_timecode(frame, rate, drop_frame=drop)
    assert timecode_to_frames(label, rate) == frame
    assert (";" in label) == drop
    assert timecode_to_frames(frames_to_timecode((frame + 1) % day, rate, drop_frame=drop), rate) == (frame + 1) % day


@given(st.sampled_from(CLOCKS), st.integers(0, 23), st.integers(0, 59), st.integers(0, 59), st.integers(0, 59))
def test_every_label_that_exists_comes_back(
    clock: tuple[Fraction, bool], hours: int, minutes: int, seconds: int, frames: int
) -> None:
    rate, drop = clock
    nominal = round(rate)
    skipped = drop and seconds == 0 and minutes % 10 and frames < nominal // 15
    label = f"{hours:02d}:{minutes:02d}:{seconds:02d}{';' if drop else ':'}{frames:02d}"
    if frames >= nominal or skipped:
        with pytest.raises(ConfigError):
            timecode_to_frames(label, rate)
    else:
        assert frames_to_timecode(timecode_to_frames(label, rate), rate, drop_frame=drop) == label
