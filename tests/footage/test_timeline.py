"""Edits of delivered shots that another tool can open."""

from __future__ import annotations

from fractions import Fraction

import opentimelineio as otio
import pytest

from cinetune.footage.edit.cutlists import spans_of
from cinetune.footage.edit.edl import parse_edl
from cinetune.footage.edit.otiojson import parse_otio
from cinetune.footage.edit.timeline import TimelineEntry, otio_text, write_edit
from films import FILM


def entry(name, *, rate=FILM, frames=50, **more):
    return TimelineEntry(name=name, media=f"{name}.mov", rate=rate, frames=frames, first=3600 * round(rate), **more)


def test_otio_opens_elsewhere_with_exact_time():
    text = otio_text([entry("one", metadata={"arm": "look"}), entry("two", frames=40, lead=24)], title="film")
    timeline = otio.adapters.read_from_string(text, adapter_name="otio_json")
    clips = list(timeline.find_clips())
    assert [(clip.name, clip.media_reference.target_url) for clip in clips] == [("one", "one.mov"), ("two", "two.mov")]
    assert timeline.duration().to_frames() == 90
    assert clips[0].source_range.start_time.to_timecode() == "01:00:00:00"
    assert clips[0].source_range.start_time.rate == pytest.approx(24000 / 1001, abs=1e-12)
    assert clips[0].metadata["cinetune"] == {"arm": "look", "rate": "24000/1001"}
    slated = clips[1].media_reference.available_range
    assert (slated.start_time.to_timecode(), slated.duration.to_frames()) == ("00:59:59:00", 64)


def test_stills_are_a_numbered_sequence():
    item = TimelineEntry(name="s", media="s_png16/s_v001.1001.png", rate=Fraction(24), frames=3, still_number=1001)
    (clip,) = otio.adapters.read_from_string(otio_text([item], title="t"), adapter_name="otio_json").find_clips()
    reference = clip.media_reference
    urls = [reference.target_url_for_image_number(k) for k in range(3)]
    assert urls == [f"s_png16/s_v001.{number}.png" for number in (1001, 1002, 1003)]


def test_the_edl_says_the_same_as_the_timeline(tmp_path):
    entries = [entry("SQ010_SH0010_look_v001", shot="SH0010"), entry("SQ010_SH0020_look_v002", shot="SH0020")]
    (timeline, edl), why = write_edit(tmp_path, "film_look_v", entries, title="film")
    assert (timeline.name, edl.name, why) == ("film_look_v001.otio", "film_look_v001.edl", "")
    lines = edl.read_text().splitlines()
    assert lines[1] == "FCM: NON-DROP FRAME"
    assert lines[3] == "001  SH0010   V     C        01:00:00:00 01:00:02:02 01:00:00:00 01:00:02:02"
    assert lines[7] == "002  SH0020   V     C        01:00:00:00 01:00:02:02 01:00:02:02 01:00:04:04"
    assert lines[4:6] == ["* FROM CLIP NAME: SQ010_SH0010_look_v001", "* SOURCE FILE: SQ010_SH0010_look_v001.mov"]
    ours = [(event.files[0], event.clips[0]) for event in parse_edl(edl.read_text(), edit="e")]
    assert ours == [(item.media, item.name) for item in entries]
    for text, parse in ((edl.read_text(), parse_edl), (timeline.read_text(), parse_otio)):
        for event in parse(text, edit="e"):
            assert spans_of([event], rate=FILM, frames=50, timecode="01:00:00:00")[0] == [(0, 50)]


def test_an_edit_is_never_overwritten(tmp_path):
    entries = [entry("one")]
    (first, edl), _ = write_edit(tmp_path, "film_v", entries, title="film")
    assert write_edit(tmp_path, "film_v", entries, title="film")[0] == [first, edl]
    edl.write_text("a hand changed this")
    (second, _), _ = write_edit(tmp_path, "film_v", entries, title="film")
    assert (second.name, edl.read_text()) == ("film_v002.otio", "a hand changed this")
    (tmp_path / "film_v007.edl").write_text("from elsewhere")
    (third, beside), _ = write_edit(tmp_path, "film_v", [entry("other")], title="film")
    assert (third.name, beside.name) == ("film_v008.otio", "film_v008.edl")


def test_shots_of_one_name_have_reels_of_their_own(tmp_path):
    entries = [entry("a_look_v001", shot="SH0010"), entry("a_look1_v001", shot="SH0010"), entry("b", shot="SH0020")]
    (_, edl), _ = write_edit(tmp_path, "v", entries, title="t")
    reels = [event.reel for event in parse_edl(edl.read_text(), edit="e")]
    assert reels[2] == "SH0020" and len(set(reels)) == 3


def test_a_rate_without_timecode_gets_no_edl(tmp_path):
    paths, why = write_edit(tmp_path, "v", [entry("one", rate=Fraction(16))], title="t")
    assert [path.suffix for path in paths] == [".otio"] and "16 fps" in why


@pytest.mark.parametrize(("rate", "first"), [(FILM, 86400), (Fraction(25), 90000), (Fraction(30000, 1001), 108000)])
def test_the_timeline_says_where_it_starts(rate, first):
    """At 01:00:00:00 as its EDL does; without it other programs begin the edit at zero, an hour from the EDL."""
    text = otio_text([entry("one", rate=rate), entry("two", rate=rate)], title="film")
    start = otio.adapters.read_from_string(text, adapter_name="otio_json").global_start_time
    assert start is not None
    assert (start.value, start.rate) == (first, pytest.approx(float(rate), abs=1e-9))
    one, two = parse_otio(text, edit="e")
    assert one.record is not None and two.record is not None
    assert (one.record.start * rate, two.record.start * rate, one.record.origin) == (first, first + 50, None)
