"""Edit lists over a finished film: shots by record time, exact in real pictures, or a refusal that says why."""

from __future__ import annotations

from fractions import Fraction

import opentimelineio as otio
import pytest

from cinetune.footage.edit.cutlists import plan_cuts, spans_of
from cinetune.footage.notes.sidecars import footage_files
from cinetune.footage.video import probe, read_frames
from films import counter, write_counted

NTSC = Fraction(30000, 1001)
EDL = """TITLE: film
FCM: NON-DROP FRAME
001  A001C003 V     C        13:00:01:00 13:00:02:00 01:00:00:00 01:00:01:00
002  A001C007 V     C        07:10:00:12 07:10:00:12 01:00:01:00 01:00:01:00
002  B002C001 V     D    008 09:30:00:00 09:30:01:06 01:00:01:00 01:00:02:06
003  AX       V     C        00:00:00:00 00:00:01:00 01:00:02:06 01:00:03:06
004  A001C003 V     C        13:00:09:00 13:00:09:18 01:00:03:06 01:00:04:00
"""


@pytest.fixture(scope="module")
def master(tmp_path_factory):
    """96 frames from 01:00:00:00."""
    path = tmp_path_factory.mktemp("master") / "final_v7.mov"
    write_counted(path, 96, codec="prores_hq", timecode="01:00:00:00")
    return path


@pytest.fixture
def footage(master, tmp_path):
    (tmp_path / "final_v7.mov").write_bytes(master.read_bytes())
    return tmp_path


def laid(folder, **options):
    """Spans of each file and the words of spans and plan."""
    plan = plan_cuts(folder, footage_files(folder), **options)
    found, words = {}, [*plan.notes.values(), *(error.what for error in plan.refused.values())]
    for path, events in plan.events.items():
        facts = probe(path)
        spans, notes = spans_of(events, rate=facts.rate, frames=facts.frames, timecode=facts.timecode)
        found[path.name] = spans
        words += notes
        for start, end in spans:
            assert [counter(frame) for frame in read_frames(path, [start, end - 1])] == [start, end - 1]
    return found, " | ".join(words), plan


def test_a_list_of_absent_sources_is_laid_over_the_film_that_holds_its_record_time(footage):
    """The dissolve's eight frames are left out; an AX event without a name has its place all the same."""
    (footage / "cut.edl").write_text(EDL)
    found, words, _ = laid(footage)
    assert found == {"final_v7.mov": [(0, 24), (32, 54), (54, 78), (78, 96)]}
    assert "4 events, laid over final_v7.mov by record time: no file is named by its sources" in words
    assert "cut by cut.edl, laid over it by record time: 4 events; 8 frames left out" in words


def test_drop_frame_record_time(tmp_path):
    """From 00:00:58;00 the sixtieth frame is 00:01:00;02. The sources count without drop."""
    write_counted(tmp_path / "air.mov", 90, rate=NTSC, codec="prores_hq", timecode="00:00:58;00")
    (tmp_path / "cut.edl").write_text(
        "001  TAPE1  V  C  11:00:00:00 11:00:02:00 00:00:58;00 00:01:00;02\n"
        "002  TAPE2  V  C  12:00:00:00 12:00:01:00 00:01:00;02 00:01:01;02\n"
    )
    assert laid(tmp_path)[0] == {"air.mov": [(0, 60), (60, 90)]}
    (tmp_path / "cut.edl").write_text(
        "FCM: DROP FRAME\n"
        "001  TAPE1  V  C  11:00:00:00 11:00:02:00 00:00:58:00 00:01:00:02\n"
        "002  TAPE2  V  C  12:00:00:00 12:00:01:00 00:01:00:02 00:01:01:02\n"
    )
    assert laid(tmp_path)[0] == {"air.mov": [(0, 60), (60, 90)]}


def timeline(start: int) -> otio.schema.Timeline:
    """24 frames | 36 with a dissolve of 4 + 4 into | 36, under a title of 10 on a second track."""
    rate = 24000 / 1001

    def time(value: int) -> otio.opentime.RationalTime:
        return otio.opentime.RationalTime(value, rate)

    first = otio.schema.Track(kind=otio.schema.TrackKind.Video)
    for name, source, frames in (("a", 500_000, 24), ("b", 600_000, 36), ("c", 700_000, 36)):
        media = otio.schema.ExternalReference(target_url=f"file:///gone/{name}.mxf")
        span = otio.opentime.TimeRange(time(source), time(frames))
        first.append(otio.schema.Clip(name=name, media_reference=media, source_range=span))
    first.insert(2, otio.schema.Transition(transition_type="SMPTE_Dissolve", in_offset=time(4), out_offset=time(4)))
    titles = otio.schema.Track(kind=otio.schema.TrackKind.Video)
    titles.append(otio.schema.Gap(source_range=otio.opentime.TimeRange(time(0), time(70))))
    title = otio.schema.GeneratorReference(generator_kind="title")
    titles.append(otio.schema.Clip("t", title, otio.opentime.TimeRange(time(0), time(10))))
    made = otio.schema.Timeline(name="t", global_start_time=time(start) if start else None)
    made.tracks.extend([first, titles])
    return made


def test_otio_with_a_dissolve_and_a_title(footage):
    otio.adapters.write_to_file(timeline(86400), str(footage / "cut.otio"))
    found, words, _ = laid(footage)
    assert found == {"final_v7.mov": [(0, 24), (24, 56), (64, 70), (80, 96)]}
    assert "left out 4 't': generator or title" in words


def test_a_list_without_a_start_timecode_needs_to_be_told(footage):
    otio.adapters.write_to_file(timeline(0), str(footage / "cut.otio"))
    found, words, plan = laid(footage)
    assert found == {} and "the list does not state its start timecode" in words
    assert "footage.edit_list_time" in plan.refused[footage / "cut.otio"].remedy
    found, words, _ = laid(footage, time="record")
    assert found == {"final_v7.mov": [(0, 24), (24, 56), (64, 70), (80, 96)]} and "footage.edit_list_time" in words


def test_xml_says_the_same(footage):
    clock = "<rate><timebase>24</timebase><ntsc>TRUE</ntsc></rate>"

    def clip(name: str, start: int, end: int, source: int) -> str:
        return (
            f"<clipitem><name>{name}</name><start>{start}</start><end>{end}</end><in>{source}</in>"
            f"<out>{source + end - start}</out><file id='{name}'><pathurl>file://gone/{name}.mxf</pathurl>"
            f"{clock}</file></clipitem>"
        )

    (footage / "cut.xml").write_text(
        f"<xmeml><sequence>{clock}<timecode>{clock}<string>01:00:00:00</string></timecode><media><video><track>"
        f"{clip('a', 0, 48, 900)}{clip('b', 48, 96, 70)}</track><track>{clip('c', 60, 70, 5)}</track></video></media>"
        "</sequence></xmeml>"
    )
    found, words, _ = laid(footage)
    assert found == {"final_v7.mov": [(0, 48), (48, 60), (70, 96)]}
    assert "10 frames left out" in words


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (("01:00:0", "02:00:0"), "001 is outside the file (02:00:00:00 to 02:00:01:00; it has 96 frames"),
        (("01:00:04:00", "01:00:09:00"), "004 is outside the file (01:00:03:06 to 01:00:09:00; it has 96 frames"),
        (("003  AX ", "003  BL "), ""),
        ((EDL[EDL.index("\n003 ") :], "\n"), "its events cover less than nine tenths of it"),
    ],
    ids=["another hour", "too long", "black is covered too", "half of it"],
)
def test_a_list_that_fits_neither_way_is_refused_with_the_reason(footage, spoil, reason):
    assert spoil[0] in EDL
    (footage / "cut.edl").write_text(EDL.replace(*spoil))
    found, words, plan = laid(footage)
    assert (found == {}) == bool(reason) == bool(plan.refused)
    assert f"no file is called 'A001C003'; its record time fits no file (final_v7.mov: {reason}" in words or not reason


def test_a_film_without_timecode_says_so(tmp_path):
    write_counted(tmp_path / "film.mp4", 96)
    (tmp_path / "film.edl").write_text(EDL)
    found, words, plan = laid(tmp_path)
    assert found == {} and "the file has no timecode" in words
    assert plan.broken[tmp_path / "film.mp4"] is plan.refused[tmp_path / "film.edl"]


def test_sources_that_are_there_come_first(footage):
    write_counted(footage / "A001C003.mov", 72, codec="prores_hq", timecode="13:00:00:00")
    (footage / "cut.edl").write_text(EDL)
    assert laid(footage)[0] == {"A001C003.mov": [(24, 48)]}
    found, _, _ = laid(footage, time="record")
    assert list(found) == ["final_v7.mov"] and len(found["final_v7.mov"]) == 4


def test_two_films_are_not_guessed_between_but_a_name_decides(footage):
    (footage / "final_v8.mov").write_bytes((footage / "final_v7.mov").read_bytes())
    (footage / "cut.edl").write_text(EDL)
    found, words, _ = laid(footage)
    assert found == {} and "2 files hold its record time (final_v7.mov, final_v8.mov)" in words
    (footage / "cut.edl").rename(footage / "final_v8.edl")
    assert list(laid(footage)[0]) == ["final_v8.mov"]


def test_a_film_that_holds_both_times_is_refused_until_told(footage):
    lines = "001  XYZ  V  C  01:00:02:00 01:00:03:00 01:00:00:00 01:00:01:00\n"
    (footage / "final_v7.edl").write_text(lines)
    found, words, _ = laid(footage)
    assert found == {} and "holds both its source and its record time" in words
    assert laid(footage, time="source")[0] == {"final_v7.mov": [(48, 72)]}
    assert laid(footage, time="record")[0] == {"final_v7.mov": [(0, 24)]}


def test_a_change_of_speed_is_left_out_and_a_second_list_adds_its_cuts(footage):
    slow = EDL.replace("13:00:09:00 13:00:09:18", "13:00:09:00 13:00:09:09")
    (footage / "cut.edl").write_text(slow)
    found, words, _ = laid(footage)
    assert found == {"final_v7.mov": [(0, 24), (32, 54), (54, 78)]}
    assert "left out 004: 9 source frames in 18 frames of record time: a speed change" in words
    (footage / "other.edl").write_text("001  X9  V  C  05:00:00:00 05:00:04:00 01:00:00:00 01:00:04:00\n")
    assert laid(footage)[0] == found
    (footage / "other.edl").write_text(
        "001  X9  V  C  05:00:00:00 05:00:00:12 01:00:00:00 01:00:00:12\n"
        "002  X9  V  C  05:00:00:12 05:00:04:00 01:00:00:12 01:00:04:00\n"
    )
    assert laid(footage)[0] == {"final_v7.mov": [(0, 12), (12, 24), (32, 54), (54, 78)]}


@pytest.mark.parametrize("name", ["film", "cut"])
@pytest.mark.parametrize("reel", ["AX", "TAPE1"])
def test_a_film_without_timecode_whose_list_starts_at_zero_just_works(tmp_path, name, reel):
    """Source and record agree and start at 0, as editors write a list of one flat file."""
    write_counted(tmp_path / "film.mp4", 96)
    (tmp_path / f"{name}.edl").write_text(
        f"001  {reel}  V  C  00:00:00:00 00:00:02:00 00:00:00:00 00:00:02:00\n"
        f"002  {reel}  V  C  00:00:02:00 00:00:04:00 00:00:02:00 00:00:04:00\n"
    )
    found, words, plan = laid(tmp_path)
    assert found == {"film.mp4": [(0, 48), (48, 96)]} and not plan.refused, words


def test_a_film_without_timecode_whose_list_disagrees_is_still_refused(tmp_path):
    write_counted(tmp_path / "film.mp4", 96)
    (tmp_path / "film.edl").write_text("001  AX  V  C  00:00:01:00 00:00:03:00 00:00:00:00 00:00:02:00\n")
    assert laid(tmp_path)[2].refused
