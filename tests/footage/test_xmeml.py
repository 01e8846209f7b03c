"""Final Cut Pro 7 XML as editors write it, and XML that means harm."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cinetune.errors import FootageError
from cinetune.footage.edit.cutlists import read_cut_list, spans_of
from cinetune.footage.edit.events import CutEvent
from cinetune.footage.edit.xmeml import parse_xmeml

RATE = "<rate><timebase>24</timebase><ntsc>{ntsc}</ntsc></rate>"
FILE = """<file id="file-1"><name>castle.mov</name>
<pathurl>file://localhost/Volumes/Rushes/day%201/castle.mov</pathurl>{rate}
<timecode>{rate}<string>01:00:00:00</string><frame>86400</frame><displayformat>NDF</displayformat>
<reel><name>A001</name></reel></timecode></file>"""


def clip(first, last, start, end, *, inside="", file='<file id="file-1"/>', name="castle"):
    return (
        f"<clipitem><name>{name}</name><enabled>TRUE</enabled>{RATE}<start>{start}</start><end>{end}</end>"
        f"<in>{first}</in><out>{last}</out>{file}{inside}</clipitem>"
    )


def edit(*items, ntsc="TRUE", head='<?xml version="1.0" encoding="UTF-8"?>\n<!DOCTYPE xmeml>\n'):
    body = "".join(items)
    text = (
        f'{head}<xmeml version="4"><project><children><sequence><name>cut</name>{RATE}<media><video><track>'
        f"{body}</track></video><audio><track>{clip(0, 9, 0, 9)}</track></audio></media></sequence></children>"
        "</project></xmeml>"
    )
    return text.replace("{rate}", RATE).replace("{ntsc}", ntsc).encode()


def parse(data: bytes) -> list[CutEvent]:
    events = parse_xmeml(data, edit="cut.xml")
    assert events is not None
    return events


def spans(
    data: bytes, *, rate: Fraction = Fraction(24000, 1001), frames: int = 1000, timecode: str | None = "01:00:00:00"
):
    events = [event for event in parse(data) if not event.skip]
    return spans_of(events, rate=rate, frames=frames, timecode=timecode)


def test_clips_name_their_file_and_their_frames():
    data = edit(clip(10, 58, 0, 48, file=FILE), clip(100, 124, 48, 72))
    one, two = parse(data)
    assert one.files == two.files == ("file://localhost/Volumes/Rushes/day 1/castle.mov", "castle.mov")
    assert (one.clips, one.reel, one.label) == (("castle",), "A001", "1 'castle'")
    assert spans(data)[0] == [(10, 58), (100, 124)]


def test_the_files_own_timecode_decides_and_a_file_without_one_counts_from_its_start():
    """Media trimmed by 5 frames after the list was made still give the same pictures."""
    data = edit(clip(10, 58, 0, 48, file=FILE))
    assert spans(data, timecode="01:00:00:05")[0] == [(5, 53)]
    assert spans(data, timecode=None)[0] == [(10, 58)]
    bare = "<file id='file-1'><name>castle.mov</name></file>"
    assert spans(edit(clip(10, 58, 0, 48, file=bare)))[0] == [(10, 58)]


def test_transitions_are_cut_away_on_both_sides():
    """The sides given as -1 begin and end with the transition: frames 48 to 60 of the sequence are mixed."""
    cross = f"<transitionitem><start>48</start><end>60</end><alignment>center</alignment>{RATE}</transitionitem>"
    data = edit(clip(0, 60, 0, -1, file=FILE), cross, clip(200, 260, -1, 108))
    found, notes = spans(data)
    assert found == [(0, 48), (212, 260)]
    assert "24 frames left out under transitions" in notes


@pytest.mark.parametrize(
    ("item", "reason"),
    [
        (clip(0, 96, 0, 48), "96 source frames in 48 frames of the sequence: a speed change"),
        (
            clip(
                0, 48, 0, 48,
                inside="<filter><effect><effectid>timeremap</effectid><parameter><parameterid>speed</parameterid>"
                "<value>50</value></parameter></effect></filter>",
            ),
            "speed change (50 %)",
        ),
        (clip(0, 48, 0, 48).replace("TRUE</enabled>", "FALSE</enabled>"), "disabled"),
        (clip(0, 48, 0, 48, file="<sequence id='s'/>"), "nested sequence"),
        (clip("x", 48, 0, 48), "no source time"),
        (clip(0, 48, -1, 48), "no place in the sequence"),
        ("<generatoritem><name>Title</name><start>0</start><end>9</end></generatoritem>", "generator or title"),
    ],
)  # fmt: skip
def test_what_no_file_can_serve_is_marked(item, reason):
    (event,) = parse(edit(item))
    assert event.skip == reason


def test_rates_that_agree_by_time_are_converted_exactly_and_others_refused():
    data = edit(clip(10, 58, 0, 48, file=FILE), ntsc="FALSE")
    assert spans(data, rate=Fraction(24))[0] == [(10, 58)]
    assert spans(data, rate=Fraction(48))[0] == [(20, 116)]
    found, notes = spans(data, rate=Fraction(24000, 1001))
    assert found == [] and "the list counts at 24 fps, the file runs at 24000/1001" in notes[0]


LAUGHS = '<!DOCTYPE xmeml [<!ENTITY a "ha"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;">]>'


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (edit(clip(0, 9, 0, 9, name="&b;"), head=LAUGHS), "document type or entities of its own"),
        (edit(clip(0, 9, 0, 9), head='<!DOCTYPE xmeml SYSTEM "file:///etc/passwd">'), "document type or entities"),
        (edit(clip(0, 9, 0, 9, name="&b;")), "cannot be read"),
        (b"<a>" * 5000, "nested more than 200 deep"),
        (b"<xmeml>", "cannot be read"),
        (b"", "cannot be read"),
        (b"\xff\xfe\x00garbage", "cannot be read"),
        (b'<?xml version="1.0" encoding="klingon"?><xmeml/>', "cannot be read"),
        (b'<xmeml version="4"/>', "no picture"),
        (b"<fcpxml/>", "FCPXML is not read"),
    ],
)
def test_xml_that_is_damaged_or_dangerous_is_refused(tmp_path, data, reason):
    path = tmp_path / "cut.xml"
    path.write_bytes(data)
    with pytest.raises(FootageError, match=reason) as caught:
        read_cut_list(path)
    assert caught.value.where == str(path)


def test_other_xml_is_no_edit():
    assert parse_xmeml(b"<NonRealTimeMeta><Duration value='9'/></NonRealTimeMeta>", edit="C0001M01.XML") is None


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_damaged_xml_is_read_or_refused(data):
    cross = f"<transitionitem><start>48</start><end>60</end>{RATE}</transitionitem>"
    text = edit(clip(0, 60, 0, -1, file=FILE), cross, clip(200, 260, -1, 108))
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(text)))
        put = data.draw(st.sampled_from([b"", b"-1", b"9", b"</clipitem>", b"<file>", b"&", b"\xff", b"00000", b"x"]))
        text = text[:at] + put + text[at + data.draw(st.integers(0, 8)) :]
    try:
        events = parse(text)
    except FootageError:
        return
    for start, end in spans_of([e for e in events or [] if not e.skip], rate=Fraction(24), frames=99, timecode=None)[0]:
        assert 0 <= start < end <= 99


@pytest.mark.parametrize(
    ("source", "played", "rates", "good"),
    [
        ((7, 50), (0, 44), ("24", "24"), True),  # the out point one short, as Premiere writes it
        ((7, 51), (0, 43), ("24", "24"), True),
        ((7, 49), (0, 44), ("24", "24"), False),
        ((10, 58), (0, 59), ("23.976", "29.97"), True),  # 47.2 frames, rounded up
        ((10, 57), (0, 60), ("23.976", "29.97"), True),
        ((10, 58), (0, 64), ("23.976", "29.97"), False),
        ((0, 100), (0, 50), ("50", "25"), True),
        ((0, 101), (0, 50), ("50", "25"), True),
        ((0, 105), (0, 50), ("50", "25"), False),
    ],
)
def test_a_frame_of_rounding_is_no_speed_change(source, played, rates, good):
    own, sequence = (_rate_xml(name) for name in rates)
    item = (
        f"<clipitem><name>a</name>{own}<start>{played[0]}</start><end>{played[1]}</end><in>{source[0]}</in>"
        f"<out>{source[1]}</out><file id='f'><name>a.mov</name>{own}</file></clipitem>"
    )
    data = f"<xmeml><sequence>{sequence}<media><video><track>{item}</track></video></media></sequence></xmeml>"
    (event,) = parse(data.encode())
    assert ("speed change" in event.skip) is not good
    if good:
        rate = {"24": Fraction(24), "50": Fraction(50)}.get(rates[0], Fraction(24000, 1001))
        found, _ = spans_of([event], rate=rate, frames=200, timecode=None)
        assert found == [source]


def _rate_xml(name: str) -> str:
    timebase = {"23.976": "24", "29.97": "30", "59.94": "60"}.get(name, name)
    return f"<rate><timebase>{timebase}</timebase><ntsc>{'TRUE' if timebase != name else 'FALSE'}</ntsc></rate>"


def test_the_reason_is_the_true_one():
    """As many frames at either rate: played faster, or counted at the sequence's rate. The list does not say which."""
    own, sequence = _rate_xml("23.976"), _rate_xml("29.97")
    item = f"<clipitem>{own}<start>0</start><end>59</end><in>10</in><out>69</out><file id='f'/></clipitem>"
    data = f"<xmeml><sequence>{sequence}<media><video><track>{item}</track></video></media></sequence></xmeml>"
    (event,) = parse(data.encode())
    assert "59 source frames at 24000/1001 fps in 59 frames" in event.skip
    assert "or source times counted at the sequence's rate" in event.skip


@pytest.mark.parametrize("numbers", ["10.0", "10.", " 10 ", "+10", "9.98"])
@pytest.mark.parametrize(
    "rate",
    [
        "<rate><timebase>24</timebase><ntsc>true</ntsc></rate>",
        "<rate><timebase>23.98</timebase></rate>",
        "<rate><timebase>24.0</timebase><ntsc>1</ntsc></rate>",
    ],
)
def test_numbers_as_applications_write_them(numbers, rate):
    item = f"<clipitem>{rate}<start>0</start><end>48.00</end><in>{numbers}</in><out>58</out><file id='f'/></clipitem>"
    data = f"<xmeml><sequence>{rate}<media><video><track>{item}</track></video></media></sequence></xmeml>"
    assert spans(data.encode(), timecode=None)[0] == [(10, 58)]


@pytest.mark.parametrize(
    ("said", "label", "base"),
    [
        ("<string>01:00:00:15</string>", "01:00:00:15", 30),
        ("<frame>108015</frame><string>ignored</string>", "01:00:00:15", 30),
        ("<string>01:00:02:00</string><displayformat>DF</displayformat>", "01:00:02;00", 30),
        ("<string>01;00;02;00</string><displayformat>DF</displayformat>", "01:00:02;00", 30),
    ],
)
def test_the_timecode_of_a_file_counts_at_its_own_base_and_by_its_flag(said, label, base):
    """A file of 59.94 fps whose timecode counts to 30: `in` is counted at 59.94 from its first frame."""
    own = _rate_xml("59.94")
    clock = f"<rate><timebase>{base}</timebase><ntsc>TRUE</ntsc></rate>"
    file = f"<file id='f'><name>a.mov</name>{own}<timecode>{clock}{said}</timecode></file>"
    item = f"<clipitem>{own}<start>0</start><end>60</end><in>30</in><out>90</out>{file}</clipitem>"
    data = f"<xmeml><sequence>{own}<media><video><track>{item}</track></video></media></sequence></xmeml>"
    events = parse(data.encode())
    rate = Fraction(60000, 1001)
    found, notes = spans_of(events, rate=rate, frames=180, timecode=label, base=rate / 2)
    assert found == [(30, 90)], notes
