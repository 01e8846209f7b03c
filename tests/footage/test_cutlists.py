"""Edit lists against real files: the right file for every event, and the right pictures of it."""

from __future__ import annotations

import shutil
from fractions import Fraction

import opentimelineio as otio
import pytest

from cinetune.errors import FootageError
from cinetune.footage.edit.cutlists import cut_list_files, plan_cuts, read_cut_list, spans_of
from cinetune.footage.edit.edl import EdlCut, write_edl
from cinetune.footage.notes.sidecars import footage_files
from cinetune.footage.video import probe, read_frames
from cinetune.outside import MOST_TEXT
from films import FILM, counter, write_counted

NTSC = Fraction(30000, 1001)


@pytest.fixture(scope="module")
def rushes(tmp_path_factory):
    """Three files in two folders; two share a name and two share a start of name, told apart by timecode."""
    folder = tmp_path_factory.mktemp("rushes")
    write_counted(folder / "day1" / "A001C003_220101.mov", 96, codec="prores_hq", timecode="01:00:00:00")
    write_counted(folder / "day1" / "A001C004_220101.mp4", 72, timecode="01:00:10:00")
    write_counted(folder / "day2" / "A001C003_220101.mov", 60, codec="prores_hq", timecode="05:00:00:00")
    return folder


@pytest.fixture
def footage(rushes, tmp_path):
    return shutil.copytree(rushes, tmp_path / "footage")


def used(folder):
    """{file: spans}, and the notes of the lists."""
    plan = plan_cuts(folder, footage_files(folder))
    found = {}
    for path, events in plan.events.items():
        facts = probe(path)
        spans, _ = spans_of(events, rate=facts.rate, frames=facts.frames, timecode=facts.timecode)
        found[path.relative_to(folder).as_posix()] = spans
    return found, plan


def shown(path, span):
    """The numbers that the first and last frame of a span carry in their pixels."""
    return [counter(frame) for frame in read_frames(path, [span[0], span[1] - 1])]


EDL = """TITLE: cut
FCM: NON-DROP FRAME
001  A001C003 V     C        01:00:01:00 01:00:02:12 01:00:00:00 01:00:01:12
* FROM CLIP NAME: castle
002  A001C003 V     C        05:00:00:12 05:00:01:12 01:00:01:12 01:00:02:12
003  A001     V     C        01:00:10:06 01:00:12:00 01:00:02:12 01:00:04:06
004  AX       V     D    006 01:00:11:00 01:00:12:00 01:00:04:06 01:00:05:06
* TO CLIP NAME: A001C004_220101.mp4
005  B999     V     C        01:00:00:00 01:00:01:00 01:00:05:06 01:00:06:06
006  A001C003 V     C        09:00:00:00 09:00:01:00 01:00:06:06 01:00:07:06
007  BL       V     C        00:00:00:00 00:00:01:00 01:00:07:06 01:00:08:06
"""


def test_one_edl_covers_many_files_by_reel_name_and_timecode(footage):
    (footage / "cut.edl").write_text(EDL)
    found, plan = used(footage)
    assert found == {
        "day1/A001C003_220101.mov": [(24, 60)],
        "day2/A001C003_220101.mov": [(12, 36)],
        "day1/A001C004_220101.mp4": [(6, 48)],
    }
    for name, spans in found.items():
        for span in spans:
            assert shown(footage / name, span) == [span[0], span[1] - 1]
    words = plan.notes[footage / "cut.edl"]
    assert words.startswith("7 events, 4 matched to 3 files")
    assert "left out 005: no file is called 'B999'" in words
    assert "left out 006: none of 2 files called 'A001C003' holds its source time" in words
    assert "left out 007: black" in words


def test_drop_frame_pictures_are_exact(tmp_path):
    """From 00:00:58;00 the sixtieth frame is 00:01:00;02: two labels do not exist."""
    path = tmp_path / "drop.mov"
    write_counted(path, 90, rate=NTSC, codec="prores_hq", timecode="00:00:58;00")
    assert probe(path).timecode == "00:00:58;00"
    (tmp_path / "cut.edl").write_text(
        "FCM: DROP FRAME\n001  DROP  V  C  00:01:00;02 00:01:00;22 01:00:00;00 01:00:00;20\n"
    )
    found, _ = used(tmp_path)
    assert found == {"drop.mov": [(60, 80)]}
    assert shown(path, (60, 80)) == [60, 79]


@pytest.mark.parametrize("rate", [FILM, Fraction(24), Fraction(25), NTSC, Fraction(30), Fraction(50), Fraction(60)])
def test_our_own_list_finds_our_own_frames_at_every_rate(tmp_path, rate):
    path = tmp_path / "reel.mp4"
    write_counted(path, 40, rate=rate, timecode="10:00:00:00")
    origin = 36000 * round(rate)
    cuts = [EdlCut(name="a", reel="REEL", source=origin + 7, record=0, frames=20)]
    write_edl(tmp_path / "cut.edl", cuts, title="t", rate=rate)
    assert used(tmp_path)[0] == {"reel.mp4": [(7, 27)]}
    assert shown(path, (7, 27)) == [7, 26]


def test_otio_and_xml_say_the_same_as_the_edl(footage):
    path = footage / "day1" / "A001C003_220101.mov"
    rate = 24000 / 1001
    span = otio.opentime.TimeRange(otio.opentime.RationalTime(86424, rate), otio.opentime.RationalTime(36, rate))
    media = otio.schema.ExternalReference(target_url="file:///Volumes/X/day1/A001C003_220101.mov")
    track = otio.schema.Track(kind=otio.schema.TrackKind.Video)
    track.append(otio.schema.Clip(name="castle", media_reference=media, source_range=span))
    timeline = otio.schema.Timeline(name="t")
    timeline.tracks.append(track)
    otio.adapters.write_to_file(timeline, str(footage / "cut.otio"))
    assert used(footage)[0] == {"day1/A001C003_220101.mov": [(24, 60)]}
    assert shown(path, (24, 60)) == [24, 59]
    (footage / "cut.otio").unlink()
    clock = "<rate><timebase>24</timebase><ntsc>TRUE</ntsc></rate>"
    (footage / "cut.xml").write_text(
        f"<xmeml><sequence>{clock}<media><video><track><clipitem><name>x</name><start>0</start><end>36</end>"
        "<in>24</in><out>60</out><file id='f'><pathurl>file:///C%3A/rushes/day1\\A001C003_220101.mov</pathurl>"
        f"{clock}<timecode>{clock}<string>01:00:00:00</string></timecode></file></clipitem></track></video></media>"
        "</sequence></xmeml>"
    )
    assert used(footage)[0] == {"day1/A001C003_220101.mov": [(24, 60)]}


def test_a_reel_inside_the_file_is_enough(tmp_path, footage):
    """Camera files often keep the reel in their header, not in their name."""
    import av

    with (
        av.open(str(footage / "day1" / "A001C004_220101.mp4")) as source,
        av.open(str(tmp_path / "plain.mov"), "w") as target,
    ):
        stream = target.add_stream_from_template(source.streams.video[0])
        stream.metadata.update({"timecode": "03:00:00:00", "reel_name": "ROLL7"})
        for packet in source.demux(source.streams.video[0]):
            if packet.dts is not None:
                packet.stream = stream
                target.mux(packet)
    with av.open(str(tmp_path / "plain.mov")) as made:
        inside = [stream.metadata.get("reel_name") for stream in made.streams]
    if "ROLL7" not in inside:
        pytest.skip("this libav writes no reel name")
    (tmp_path / "cut.edl").write_text("001  ROLL7  V  C  03:00:01:00 03:00:02:00 01:00:00:00 01:00:01:00\n")
    plan = plan_cuts(tmp_path, [tmp_path / "plain.mov", footage / "day1" / "A001C003_220101.mov"])
    assert list(plan.events) == [tmp_path / "plain.mov"]


def test_two_files_that_answer_are_not_guessed_between(tmp_path):
    for name in ("a", "b"):
        write_counted(tmp_path / name / "castle.mp4", 48, timecode="01:00:00:00")
    line = "001  AX  V  C  01:00:00:12 01:00:01:12 01:00:00:00 01:00:01:00\n"
    (tmp_path / "cut.edl").write_text(f"{line}* FROM CLIP NAME: castle.mp4\n")
    found, plan = used(tmp_path)
    assert found == {} and "2 files answer to its name and timecode" in plan.notes[tmp_path / "cut.edl"]
    (tmp_path / "cut.edl").write_text(f"{line}* FROM CLIP NAME: castle.mp4\n* SOURCE FILE: /rushes/b/castle.mp4\n")
    assert used(tmp_path)[0] == {"b/castle.mp4": [(12, 36)]}
    (tmp_path / "cut.edl").write_text(f"{line.replace('AX', 'b')}* FROM CLIP NAME: castle.mp4\n")
    assert used(tmp_path)[0] == {"b/castle.mp4": [(12, 36)]}


def test_a_list_beside_a_file_speaks_of_it_whatever_its_reels_are_called(tmp_path):
    write_counted(tmp_path / "film.mp4", 96, timecode="01:00:00:00")
    (tmp_path / "film.edl").write_text(
        "001  XYZ  V  C  01:00:00:00 01:00:01:00 10:00:00:00 10:00:01:00\n"
        "002  XYZ  V  C  01:00:03:00 01:00:05:00 10:00:01:00 10:00:03:00\n"
    )
    plan = plan_cuts(tmp_path, [tmp_path / "film.mp4"])
    spans, notes = spans_of(plan.events[tmp_path / "film.mp4"], rate=FILM, frames=96, timecode="01:00:00:00")
    assert spans == [(0, 24)]
    assert "cut by film.edl: 1 events; left out 002: outside the file (01:00:03:00 to 01:00:05:00" in notes[0]


def test_lists_that_cannot_be_used_say_so(tmp_path):
    write_counted(tmp_path / "film.mp4", 30)
    (tmp_path / "film.edl").write_text("001  BL  V  C  01:00:00:00 01:00:01:00 01:00:00:00 01:00:01:00\n")
    (tmp_path / "other.edl").write_text("001 nonsense\n")
    (tmp_path / "C0001M01.XML").write_text("<NonRealTimeMeta/>")
    (tmp_path / "x.fcpxml").write_text("<fcpxml/>")
    (tmp_path / ".hidden.edl").write_text("001 nonsense\n")
    plan = plan_cuts(tmp_path, [tmp_path / "film.mp4"])
    assert "left out 001: black" in plan.broken[tmp_path / "film.mp4"].what
    assert list(plan.refused) == [tmp_path / "other.edl", tmp_path / "x.fcpxml"]
    assert list(plan.notes) == [tmp_path / "film.edl"]
    assert [path.name for path in cut_list_files(tmp_path)] == ["C0001M01.XML", "film.edl", "other.edl", "x.fcpxml"]


def test_a_list_of_no_sane_size_is_refused(tmp_path):
    with (tmp_path / "big.edl").open("wb") as file:
        file.truncate(MOST_TEXT + 1)
    with pytest.raises(FootageError, match="larger than"):
        read_cut_list(tmp_path / "big.edl")
