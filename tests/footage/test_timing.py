"""Time: windows hold the frames they claim at every rate, constant or varying, read from the number in the pixels."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

from cinetune.artifacts import FootageClip, Window
from cinetune.errors import FootageError
from cinetune.footage.cut.windows import window_frames
from cinetune.footage.read.timing import set_clock
from cinetune.footage.video import probe, read_frames, read_window
from cinetune.sections import FootageSection
from cinetune.store import sha256_file
from cinetune.timecode import Span
from films import FILM, counted, counter, write_counted, write_tagged

RATES = [
    FILM,
    *map(Fraction, (24, 25)),
    Fraction(30000, 1001),
    *map(Fraction, (30, 50)),
    Fraction(60000, 1001),
    Fraction(60),
]
MODEL = Fraction(16)
TICK = Fraction(1, 90000)


def window_numbers(path, frames: int = 17) -> tuple[list[list[int]], list[list[int]], FootageClip]:
    """The numbers in the pixels of two windows and the numbers of the pictures they claim."""
    facts = probe(path)
    clip = FootageClip(
        id="a",
        path=path.name,
        sha256=sha256_file(path),
        codec=facts.codec,
        rate=facts.rate,
        frames=facts.frames,
        width=facts.width,
        height=facts.height,
        pixel_aspect=facts.pixel_aspect,
        bars=(0, 0, facts.width, facts.height),
        colour=facts.colour,
        timecode=None,
        reading=facts.reading,
    )
    spans = window_frames(Span(start=0, frames=facts.frames, rate=facts.rate), MODEL, frames, most=2)
    shown = []
    for number, source in enumerate(spans):
        window = Window(
            id=f"w{number}",
            shot="s",
            clip="a",
            scene="a",
            split="train",
            source_frames=tuple(source),
            rate=MODEL,
            crop=clip.bars,
            width=40,
            height=24,
            caption="",
            caption_source="none",
        )
        shown.append([counter(frame) for frame in read_window(path.parent, clip, window)])
    return shown, spans, clip


@pytest.mark.parametrize("rate", RATES, ids=str)
@pytest.mark.parametrize(("codec", "suffix"), [("h264", ".mp4"), ("prores_hq", ".mov")])
def test_windows_hold_the_frames_they_claim(tmp_path, rate, codec, suffix):
    write_counted(tmp_path / f"a{suffix}", int(rate * 2), rate=rate, codec=codec)
    shown, spans, clip = window_numbers(tmp_path / f"a{suffix}")
    assert (clip.rate, clip.frames, clip.reading.by_time, clip.notes) == (rate, int(rate * 2), False, ())
    assert shown == spans and len(spans) >= 1


def wobbling(rate: Fraction, frames: int) -> list[int]:
    """Time stamps of a phone: each frame up to 0.4 of a frame late."""
    late = np.random.default_rng(7).uniform(0, 0.4, frames)
    late[0] = 0
    return [int((k + Fraction(float(late[k]))) / rate / TICK) for k in range(frames)]


def on_change(rate: Fraction, frames: int) -> list[int]:
    """Time stamps of a screen capture: a new frame only when something moved, one to six steps later."""
    steps = np.random.default_rng(3).choice([1, 1, 1, 2, 3, 6], frames - 1)
    return [int(int(at) / rate / TICK) for at in np.concatenate([[0], np.cumsum(steps)])]


def seen_at(stamps: list[int], when: Fraction) -> int:
    """The frame on screen `when` seconds after the first: counted by hand."""
    return max(k for k, stamp in enumerate(stamps) if (stamp - stamps[0]) * TICK <= when)


@pytest.mark.parametrize(
    ("rate", "suffix"), [*((rate, ".mp4") for rate in RATES), (FILM, ".mkv"), (Fraction(60), ".mkv")], ids=str
)
@pytest.mark.parametrize("make", [wobbling, on_change])
def test_a_varying_rate_is_read_by_time(tmp_path, rate, make, suffix):
    """Every picture of the clip, in windows and one by one past a seek, is the frame on screen at its middle."""
    path, stamps = tmp_path / f"a{suffix}", make(rate, 110)
    write_tagged(path, (counted(k) for k in range(110)), tags=(1, 1, 1, 1), rate=rate, stamps=stamps, tick=TICK)
    shown, spans, clip = window_numbers(path)
    assert clip.reading.by_time and clip.rate in RATES
    if make is wobbling:
        assert abs(clip.rate / rate - 1) < Fraction(2, 1000)
        assert clip.frames in (110, 111)  # the last frame stays as long as the one before it, in some containers
    stamps = [stamp if suffix == ".mp4" else round(stamp * TICK * 1000) * 90 for stamp in stamps]  # Matroska: ms
    right = [seen_at(stamps, (n + Fraction(1, 2)) / clip.rate) for n in range(clip.frames)]
    assert shown == [[right[n] for n in span] for span in spans]
    late = [clip.frames - 1, 90, clip.frames - 30]
    pictures = read_frames(path, late, rate=clip.rate, reading=clip.reading)
    assert [counter(frame) for frame in pictures] == [right[n] for n in late]
    assert max(right) >= 108


def test_what_was_done_is_said_and_can_be_refused(tmp_path):
    path = tmp_path / "a.mp4"
    write_tagged(path, [counted(k) for k in range(24)], tags=(1, 1, 1, 1), stamps=[k + 2 * (k > 11) for k in range(24)])
    facts = probe(path)
    assert facts.notes == (
        "variable frame rate (41.7 to 125.1 ms between frames): read at a constant 24000/1001 fps, "
        "each picture the frame on screen at its middle; 2 repeated, 0 left out",
    )
    assert (facts.rate, facts.frames) == (FILM, 26)
    numbers = [counter(frame) for frame in read_frames(path, range(26), rate=facts.rate, reading=facts.reading)]
    assert numbers == [*range(12), 11, 11, *range(12, 24)]
    with pytest.raises(FootageError, match="variable frame rate") as caught:
        probe(path, settings=FootageSection(variable_rate="refuse"))
    assert "constant rate" in caught.value.remedy


@pytest.mark.parametrize("rate", [FILM, *map(Fraction, (24, 30)), Fraction(30000, 1001), Fraction(60)], ids=str)
def test_frames_that_stay_do_not_tip_a_rate_to_its_sibling(rate):
    """Half the frames come late, half stay two pictures: the pictures in between tell 30 from 29.97."""
    late = np.random.default_rng(7).uniform(0, 0.3, 24)
    places = [0, *(Fraction(k) + Fraction(float(late[k])) for k in range(1, 24)), *(24 + 2 * k for k in range(24))]
    clock = set_clock([int(at / rate / TICK) for at in places], tick=TICK, claimed=[Fraction(2861, 100)])
    assert (clock.rate, clock.by_time) == (rate, True)


@pytest.mark.parametrize(
    ("stamps", "words"),
    [([0, 1, 2, 2, 3, 9], "stand still at frame 3"), ([0, 1, 2, 5000, 5001], "leave gaps: 5 frames over 208")],
)
def test_impossible_time_stamps_are_refused(stamps, words):
    with pytest.raises(FootageError, match=words):
        set_clock(stamps, tick=1 / Fraction(24), claimed=[Fraction(24)])


def test_without_time_stamps_the_header_decides():
    clock = set_clock([None] * 10, tick=Fraction(1, 24), claimed=[Fraction(24)])
    assert (clock.rate, clock.pictures, clock.by_time) == (24, 10, False)
    assert "no time stamps" in clock.notes[0]
    with pytest.raises(FootageError, match="does not say its frame rate"):
        set_clock([0, 1], tick=Fraction(1, 24), claimed=[])
