"""CMX3600 as editors write it, and what we write against what the OTIO reader of EDLs understands."""

from __future__ import annotations

import re
from fractions import Fraction

import opentimelineio as otio
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cinetune.errors import ConfigError, FootageError
from cinetune.footage.edit.cutlists import read_cut_list, spans_of
from cinetune.footage.edit.edl import EdlCut, edl_text, legal_reels, parse_edl, write_edl
from cinetune.footage.edit.events import Labelled
from cinetune.timecode import frames_to_timecode, timecode_to_frames
from films import FILM

NTSC, NTSC2 = Fraction(30000, 1001), Fraction(60000, 1001)
CLOCKS = [
    (FILM, False), (Fraction(24), False), (Fraction(25), False), (NTSC, False), (NTSC, True), (Fraction(30), False),
    (Fraction(50), False), (NTSC2, False), (NTSC2, True), (Fraction(60), False),
]  # fmt: skip
AVID = """TITLE:   R1_LOCKED
FCM: NON-DROP FRAME
001  A001     V     C        01:00:02:02 01:00:04:00 01:00:00:00 01:00:01:22
* FROM CLIP NAME:  CASTLE.NEW.01
* SOURCE FILE: A001C003_220101_R1AB
002  BL       V     C        00:00:00:00 00:00:01:00 01:00:01:22 01:00:02:22
003  A002     A     C        01:00:00:00 01:00:02:00 01:00:02:22 01:00:04:22
004  A002     V     C        01:00:05:00 01:00:05:00 01:00:04:22 01:00:04:22
004  A003     V     D    012 02:00:00:00 02:00:02:00 01:00:04:22 01:00:06:22
* FROM CLIP NAME:  OUTGOING
* TO CLIP NAME:  INCOMING
005  A004     V     C        01:00:00:00 01:00:02:00 01:00:06:22 01:00:07:22
M2   A004       048.0                01:00:00:00
006  AX       V     C        00:00:00:00 00:00:02:00 01:00:07:22 01:00:09:22
* FROM CLIP NAME:  forest road.mov
007  AX       V     C        00:00:00:00 00:00:02:00 01:00:09:22 01:00:11:22
008  A005     AA/V  C        01:00:00:00 01:00:02:00 01:00:11:22 01:00:13:22
009  A006     V     K B      01:00:00:00 01:00:02:00 01:00:13:22 01:00:15:22
010  A007     V     W001 006 01:00:00:00 01:00:02:00 01:00:15:22 01:00:17:22
011  A008     V     C        01:00:00:00 01:00:00:01 01:00:17:22 01:00:18:22
M2   A008       000.0                01:00:00:00
"""


def spans(text, *, rate=FILM, frames=24 * 3600, timecode="01:00:00:00"):
    return spans_of(parse_edl(text, edit="t.edl"), rate=rate, frames=frames, timecode=timecode)


def test_what_editors_write_is_understood():
    events = {(event.label, event.reel): event for event in parse_edl(AVID, edit="r1.edl")}
    assert [event.label for event in events.values()] == [f"{k:03d}" for k in (1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11)]
    first = events["001", "A001"]
    assert (first.clips, first.files, first.skip) == (("CASTLE.NEW.01",), ("A001C003_220101_R1AB",), "")
    assert events["004", "A003"].clips == ("INCOMING",)
    assert (events["006", ""].clips, events["006", ""].skip) == (("forest road.mov",), "")
    assert {event.label: event.skip for event in events.values() if event.skip} == {
        "002": "black",
        "003": "sound only",
        "007": "auxiliary source (AX) without a clip name",
        "009": "key: a composite of two pictures",
    }
    assert isinstance(first.source, Labelled) and first.source.drop is False


def test_transitions_and_speed_changes_are_left_out_and_said():
    found, notes = spans(AVID.replace("02:00:0", "01:10:0"))
    assert (10 * 60 * 24 + 12, 10 * 60 * 24 + 48) in found
    assert not any(start < 10 * 60 * 24 + 12 < end for start, end in found)
    (first, *rest) = notes
    assert "005: speed change (48 fps)" in first and "011: freeze frame" in first
    assert "18 frames left out under transitions" in rest


def test_a_dissolve_to_black_keeps_the_outgoing_shot_before_it():
    text = """001  A V C        01:00:00:00 01:00:02:00 01:00:00:00 01:00:02:00
002  A V C        01:00:02:00 01:00:02:00 01:00:02:00 01:00:02:00
002  BL V D    024 00:00:00:00 00:00:01:00 01:00:02:00 01:00:03:00
"""
    assert spans(text)[0] == [(0, 48)]


@pytest.mark.parametrize(
    ("fcm", "mark", "timecode", "expected"),
    [
        # Ten minutes of drop-frame skip 18 labels.
        ("DROP FRAME", ";", "01:00:00;00", (17982, 60)),
        ("DROP FRAME", ":", "01:00:00;00", (17982, 60)),
        ("NON-DROP FRAME", ":", "01:00:00:00", (18000, 60)),
        (None, ":", "01:00:00;00", (17982, 60)),
        (None, ":", "01:00:00:00", (18000, 60)),
        ("NON-DROP FRAME", ";", "01:00:00;00", (17982, 60)),
        ("NON-DROP FRAME", ":", "01:00:00;00", "the list counts non-drop, the file drop-frame"),
        ("DROP FRAME", ";", "01:00:00:00", "the list counts drop-frame, the file non-drop"),
    ],
)
def test_drop_frame_is_what_the_labels_the_fcm_line_and_the_file_say(fcm, mark, timecode, expected):
    labels = [f"01:10:00{mark}00", f"01:10:02{mark}00", f"01:00:00{mark}00", f"01:00:02{mark}00"]
    text = (f"FCM: {fcm}\n" if fcm else "") + f"001  A V C {' '.join(labels)}\n"
    found, notes = spans(text, rate=NTSC, frames=30 * 3600, timecode=timecode)
    if isinstance(expected, str):
        assert found == [] and expected in notes[0]
    else:
        assert found == [(expected[0], expected[0] + expected[1])]


def test_both_ways_of_counting_are_good_where_they_agree():
    text = "FCM: NON-DROP FRAME\n001 A V C 01:00:02:00 01:00:04:00 01:00:00:00 01:00:02:00\n"
    assert spans(text, rate=NTSC, timecode="01:00:00;00")[0] == [(60, 120)]


def test_one_list_may_change_its_way_of_counting():
    text = """FCM: DROP FRAME
001  A V C 01:10:00:00 01:10:02:00 01:00:00:00 01:00:02:00
FCM: NON-DROP FRAME
002  A V C 01:10:00:00 01:10:02:00 01:00:02:00 01:00:04:00
"""
    found, notes = spans(text, rate=NTSC, frames=30 * 3600, timecode="01:00:00;00")
    assert found == [(17982, 18042)] and "left out 002" in notes[0]


def test_a_list_of_another_rate_is_refused_with_the_reason():
    text = "001 A V C 01:00:00:28 01:00:02:00 01:00:00:00 01:00:01:02\n"
    found, notes = spans(text, rate=Fraction(24))
    assert found == [] and "01:00:00:28 does not exist at 24 fps" in notes[0]
    found, notes = spans("001 A V C 01:00:00:00 01:00:02:12 01:00:00:00 01:00:03:00\n", rate=Fraction(24))
    assert found == [] and "60 source frames in 72 frames of record time" in notes[0]
    found, notes = spans("001 A V C 01:00:00;00 01:00:02;00 01:00:00;00 01:00:02;00\n", rate=Fraction(25))
    assert found == [] and "no drop-frame timecode at 25 fps" in notes[0]


def test_events_outside_the_media_are_reported_and_midnight_is_crossed():
    text = """001 A V C 00:59:59:00 01:00:01:00 01:00:00:00 01:00:02:00
002 A V C 01:00:03:00 01:00:05:00 01:00:02:00 01:00:04:00
003 A V C 01:00:01:00 01:00:03:00 01:00:04:00 01:00:06:00
"""
    found, notes = spans(text, frames=96)
    assert found == [(24, 72)]
    assert notes[0].startswith("cut by t.edl: 1 events; left out 001: outside the file (00:59:59:00 to 01:00:01:00")
    late = "001 A V C 00:00:01:00 00:00:03:00 01:00:00:00 01:00:02:00\n"
    assert spans(late, frames=480, timecode="23:59:55:00")[0] == [(144, 192)]
    late = "001 A V C 00:00:01;00 00:00:03;00 01:00:00;00 01:00:02;00\n"
    assert spans(late, rate=NTSC, frames=480, timecode="23:59:55;00")[0] == [(180, 240)]


def test_overlapping_uses_are_one_span_and_touching_ones_stay_apart():
    text = """001 A V C 01:00:00:00 01:00:02:00 01:00:00:00 01:00:02:00
002 A V C 01:00:01:00 01:00:03:00 01:00:02:00 01:00:04:00
003 A V C 01:00:03:00 01:00:04:00 01:00:04:00 01:00:05:00
004 A V C 01:00:00:00 01:00:02:00 01:00:05:00 01:00:07:00
"""
    found, notes = spans(text)
    assert found == [(0, 72), (72, 96)]
    assert "2 events repeat or overlap others: one span each" in notes


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "no events"),
        ("TITLE: nothing\n", "no events"),
        ("hello\n001 nonsense", "line 2 is no CMX3600 event"),
        ("001 A V C 01:00:00:00 01:00:02:00 01:00:00:00\n", "line 1 is no CMX3600 event"),
        ("004  A V C 01:00:05:00 01:00:05:00 01:00:04:22 01:00:04:22\n", "no events"),
    ],
)
def test_what_is_no_edl_is_refused(tmp_path, text, reason):
    path = tmp_path / "a.edl"
    path.write_text(text)
    with pytest.raises(FootageError, match=reason) as caught:
        read_cut_list(path)
    assert caught.value.where == str(path)


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "latin-1"])
def test_old_and_new_text_files_are_read(tmp_path, encoding):
    path = tmp_path / "a.EDL"
    path.write_bytes(AVID.replace("CASTLE", "CHÂTEAU").replace("\n", "\r\n").encode(encoding))
    events = read_cut_list(path)
    assert events and events[0].clips == ("CHÂTEAU.NEW.01",)


@settings(max_examples=60, deadline=None)
@given(st.data(), st.sampled_from(CLOCKS), st.integers(0, 20 * 3600 * 24))
def test_what_we_write_we_read(data, clock, origin):
    """Separate spans of one file, anywhere in the day, come back as they went."""
    rate, drop = clock
    steps = data.draw(st.lists(st.integers(1, 500), min_size=2, max_size=12).filter(lambda items: len(items) % 2 == 0))
    marks = [sum(steps[:k]) for k in range(len(steps) + 1)]
    wanted = [(marks[k], marks[k + 1]) for k in range(0, len(steps), 2)]
    record = 3600 * round(rate)
    cuts = []
    for k, (start, end) in enumerate(wanted):
        cuts.append(EdlCut(name=f"s{k}", reel="R1", source=origin + start, record=record, frames=end - start, file="a"))
        record += end - start
    text = edl_text(cuts, title="t", rate=rate, drop_frame=drop)
    assert f"FCM: {'' if drop else 'NON-'}DROP FRAME" in text
    timecode = frames_to_timecode(origin, rate, drop_frame=drop)
    events = parse_edl(text, edit="t")
    assert spans_of(events, rate=rate, frames=marks[-1], timecode=timecode)[0] == wanted
    assert [(event.clips, event.files, event.reel) for event in events] == [((cut.name,), ("a",), "R1") for cut in cuts]


# The witness knows no timecode at 50 fps and above.
@pytest.mark.parametrize(("rate", "drop"), [clock for clock in CLOCKS if clock[0] <= 30])
def test_another_reader_finds_the_same_times(rate, drop):
    """OTIO's own EDL reader is the witness."""
    origin = 3600 * round(rate) - (108 if drop else 0)
    cuts = [
        EdlCut(name="one", reel="R1", source=origin + 17000, record=origin, frames=1200),
        EdlCut(name="two", reel="R2", source=origin, record=origin + 1200, frames=7),
    ]
    text = edl_text(cuts, title="t", rate=rate, drop_frame=drop)
    read = otio.adapters.read_from_string(text, adapter_name="cmx_3600", rate=rate.numerator / rate.denominator)
    clips = list(read.find_clips())
    assert [(c.name, c.source_range.start_time.to_frames(), c.duration().to_frames()) for c in clips] == [
        (cut.name, cut.source, cut.frames) for cut in cuts
    ]


def test_an_edl_is_strict(tmp_path):
    cut = EdlCut(name="Brücke\nTITLE: no", reel="A1234567890", source=0, record=86400, frames=24, file="b.mov")
    write_edl(tmp_path / "a.edl", [cut], title="t", rate=Fraction(24))
    lines = (tmp_path / "a.edl").read_bytes().decode("ascii").splitlines()
    assert lines[3] == "001  A1234567 V     C        00:00:00:00 00:00:01:00 01:00:00:00 01:00:01:00"
    assert lines[4:6] == ["* FROM CLIP NAME: Br?cke TITLE: no", "* SOURCE FILE: b.mov"]
    for rate, drop in ((Fraction(16), False), (Fraction(25), True)):
        with pytest.raises(ConfigError, match="timecode at"):
            edl_text([cut], title="t", rate=rate, drop_frame=drop)


@given(st.lists(st.text(max_size=20), max_size=30))
def test_reels_are_legal_and_tell_sources_apart(names):
    reels = legal_reels(names)
    assert all(re.fullmatch("[A-Z0-9]{1,8}", reel) and reel not in ("AX", "BL") for reel in reels)
    assert len(set(reels)) == len(set(names))
    assert {names.index(name): reels[k] for k, name in enumerate(names)} == {
        names.index(name): reels[names.index(name)] for name in names
    }


def readable(text: str) -> None:
    """Either events that a file can be asked about, or the typed error."""
    try:
        events = parse_edl(text, edit="t")
    except FootageError:
        return
    for rate, timecode in ((FILM, "01:00:00:00"), (NTSC, "01:00:00;00"), (Fraction(25), None)):
        for start, end in spans_of([e for e in events if not e.skip], rate=rate, frames=1000, timecode=timecode)[0]:
            assert 0 <= start < end <= 1000


@given(st.text(max_size=400))
def test_random_text_is_read_or_refused(text):
    readable(text)


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_a_damaged_list_is_read_or_refused(data):
    lines = AVID.splitlines()
    for _ in range(data.draw(st.integers(1, 4))):
        row = data.draw(st.integers(0, len(lines) - 1))
        at = data.draw(st.integers(0, len(lines[row])))
        cut = data.draw(st.integers(0, 6))
        put = data.draw(st.text(alphabet=st.sampled_from("0123456789:;. VCDWKM2A*\x00²é\n"), max_size=5))
        lines[row] = lines[row][:at] + put + lines[row][at + cut :]
        if data.draw(st.booleans()):
            lines.insert(row, lines[data.draw(st.integers(0, len(lines) - 1))])
    readable("\n".join(lines))


def test_comments_without_a_star_and_files_named_by_path():
    text = """001  KX0100pl V     C        01:00:00:00 01:00:02:00 00:00:00:00 00:00:02:00
FROM CLIP NAME:  KX_0100
* FROM CLIP: /mnt/show/KX_0100_plateB.mov
002  KX0100pl V     C        01:00:02:00 01:00:02:00 00:00:02:00 00:00:02:00
002  KX0200pl V     D    012 01:00:00:00 01:00:02:00 00:00:02:00 00:00:04:00
* TO CLIP: D:\\show\\incoming.mov
FROM CLIP: outgoing.mov
TO CLIP NAME: IN
* MEDIA FILE: third.mov
"""
    one, two = parse_edl(text, edit="e")
    assert (one.clips, one.files) == (("KX_0100",), ("/mnt/show/KX_0100_plateB.mov",))
    assert (two.clips, two.files) == (("IN",), ("D:\\show\\incoming.mov", "third.mov"))


def test_a_line_ends_where_lines_end_and_nowhere_else():
    """A line separator in a comment is a letter; lines may end as they do on any system."""
    lines = ["001  A V C 01:00:00:00 01:00:02:00 01:00:00:00 01:00:02:00", "* FROM CLIP NAME: two\u2028002 words\x85"]
    lines += ["002  A V C 01:00:02:00 01:00:04:00 01:00:02:00 01:00:04:00", "003 nonsense"]
    for end in ("\n", "\r\n", "\r"):
        events = parse_edl(end.join(lines[:3]) + end, edit="e")
        assert [event.label for event in events] == ["001", "002"]
        assert events[0].clips == ("two\u2028002 words",)
        with pytest.raises(FootageError, match="line 5 is no CMX3600 event"):
            parse_edl(end.join(["", *lines]), edit="e")


def test_a_last_block_filled_up_with_zeros(tmp_path):
    (tmp_path / "a.edl").write_bytes(AVID.encode() + bytes(512 - len(AVID) % 512))
    events = read_cut_list(tmp_path / "a.edl")
    assert events is not None and len(events) == 11


@pytest.mark.parametrize(
    "text",
    [
        "\n" * 2_000_000,
        "* FINAL CUT PRO REEL: " + " x" * 900 + "\n" * 20,
        "001  A V C 01:00:00:00 01:00:02:00 01:00:00:00 01:00:02:00\n" * 60_000,
        "001 " + " " * 5000 + "x",
        "* FROM CLIP NAME" + " " * 100_000,
    ],
    ids=["lines", "reel", "events", "letters", "comment"],
)
def test_lists_of_no_sane_length_are_refused(text):
    with pytest.raises(FootageError):
        parse_edl(text, edit="e")


@pytest.mark.parametrize(
    ("rate", "base", "timecode", "list_labels", "expected"),
    [
        # a camera at 60 that counts to 30: label :15 is half a second, 30 pictures
        (Fraction(60), Fraction(30), "01:00:00:15", ("01:00:01:00", "01:00:02:00"), (30, 90)),
        # the same file in a list that counts to 60, as a label of it tells
        (Fraction(60), Fraction(30), "01:00:00:15", ("01:00:01:00", "01:00:01:45"), (30, 75)),
        (NTSC2, NTSC, "01:00:00;00", ("01:01:00;02", "01:01:01;02"), (3600, 3660)),
        (Fraction(50), Fraction(25), "10:00:00:00", ("10:00:00:10", "10:00:01:10"), (20, 70)),
        (Fraction(48), Fraction(24), "23:59:59:00", ("00:00:00:00", "00:00:00:12"), (48, 72)),
    ],
)
def test_timecode_that_counts_at_a_base_of_its_own(rate, base, timecode, list_labels, expected):
    length = timecode_length(list_labels, rate if list_labels[1].endswith("45") else base)
    text = f"001  A V C {' '.join(list_labels)} 00:00:00:00 {length}\n"
    events = parse_edl(text, edit="e")
    found, notes = spans_of(events, rate=rate, frames=10_000, timecode=timecode, base=base)
    assert found == [expected], notes


def timecode_length(labels: tuple[str, str], rate: Fraction) -> str:
    first, last = (timecode_to_frames(label, rate) for label in labels)
    return frames_to_timecode((last - first) % (86400 * round(rate)), rate)
