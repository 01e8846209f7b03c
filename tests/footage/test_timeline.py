"""EDLs in exact frames at 24000/1001, and OTIO timelines another tool can open."""

from __future__ import annotations

from fractions import Fraction
from itertools import pairwise

import opentimelineio as otio
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cinetune.errors import FootageError
from cinetune.footage.timeline import Event, TimelineEntry, read_edl, write_edl, write_otio
from films import FILM

EDL = """TITLE: reel
FCM: NON-DROP FRAME

001  A001     V     C        01:00:02:02 01:00:04:00 01:00:00:00 01:00:01:22
* FROM CLIP NAME: castle
002  A001     V     C        01:00:00:00 01:00:02:02 01:00:01:22 01:00:04:00
003  A001     V     C        01:00:00:00 01:00:02:02 01:00:04:00 01:00:06:02
"""


def test_source_timecodes_count_from_the_clips_own_start(tmp_path):
    """2 s 2 f at 23.976 is frame 50; order is the source's, repeats count once."""
    path = tmp_path / "a.edl"
    path.write_text(EDL)
    assert read_edl(path, rate=FILM, frames=96, start_timecode="01:00:00:00") == [(0, 50), (50, 96)]


@pytest.mark.parametrize(
    ("text", "start", "reason"),
    [
        (EDL, "00:00:00:00", "covers frames"),
        (EDL, "02:00:00:00", "covers frames"),
        ("TITLE: nothing\n", "01:00:00:00", "no events"),
        ("hello\n001 nonsense", "01:00:00:00", "cannot be read"),
        (EDL.replace("01:00:04:00 01:00:00:00", "01:00:77:00 01:00:00:00"), "01:00:00:00", "cannot be read"),
    ],
)
def test_edit_lists_that_do_not_fit_are_refused(tmp_path, text, start, reason):
    path = tmp_path / "a.edl"
    path.write_text(text)
    with pytest.raises(FootageError, match=reason) as caught:
        read_edl(path, rate=FILM, frames=96, start_timecode=start)
    assert caught.value.where == str(path)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(1, 200), min_size=1, max_size=6), st.sampled_from([FILM, Fraction(24), Fraction(25)]))
def test_what_we_write_we_read(tmp_path_factory, lengths, rate):
    path = tmp_path_factory.mktemp("edl") / "a.edl"
    marks = [sum(lengths[:k]) for k in range(len(lengths) + 1)]
    events = [Event(name=f"s{k}", start=a, end=b) for k, (a, b) in enumerate(pairwise(marks))]
    write_edl(path, title="t", reel="REEL01", events=events, rate=rate, start_timecode="01:00:00:00")
    assert read_edl(path, rate=rate, frames=marks[-1], start_timecode="01:00:00:00") == [
        (e.start, e.end) for e in events
    ]


def test_otio_opens_elsewhere_with_exact_time(tmp_path):
    entries = [
        TimelineEntry(name="one", media="one.mov", rate=FILM, frames=50, first=86400, metadata={"arm": "look"}),
        TimelineEntry(name="two", media="two.mov", rate=FILM, frames=40, first=86400),
    ]
    write_otio(tmp_path / "a.otio", entries, name="film")
    timeline = otio.adapters.read_from_file(str(tmp_path / "a.otio"))
    clips = list(timeline.find_clips())
    assert [(clip.name, clip.media_reference.target_url) for clip in clips] == [("one", "one.mov"), ("two", "two.mov")]
    assert timeline.duration().to_frames() == 90
    assert clips[0].source_range.start_time.to_timecode() == "01:00:00:00"
    assert clips[0].source_range.start_time.rate == pytest.approx(24000 / 1001, abs=1e-12)
    assert clips[0].metadata["cinetune"] == {"arm": "look", "rate": "24000/1001"}
