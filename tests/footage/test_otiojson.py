"""OTIO timelines as the library writes them, and damaged ones, on which its own reader crashes."""

from __future__ import annotations

import json
from fractions import Fraction

import opentimelineio as otio
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cinetune.errors import FootageError
from cinetune.footage.edit.cutlists import read_cut_list, spans_of
from cinetune.footage.edit.otiojson import parse_otio
from films import FILM

RATE = 24000 / 1001
schema, time = otio.schema, otio.opentime


def span(start, frames, rate=RATE):
    return time.TimeRange(time.RationalTime(start, rate), time.RationalTime(frames, rate))


def clip(start, frames, *, url="rushes/castle.mov", available=(86400, 1000), rate=RATE, name="castle"):
    media = schema.ExternalReference(
        target_url=url, available_range=span(available[0], available[1], rate) if available else None
    )
    return schema.Clip(name=name, media_reference=media, source_range=span(start, frames, rate))


def edit(*items):
    timeline = schema.Timeline(name="cut")
    timeline.tracks.append(schema.Track(name="V1", kind=schema.TrackKind.Video, children=list(items)))
    timeline.tracks.append(schema.Track(name="A1", kind=schema.TrackKind.Audio, children=[clip(86400, 9)]))
    return otio.adapters.write_to_string(timeline, adapter_name="otio_json")


def spans(text: str, *, rate: Fraction = FILM, frames: int = 1000, timecode: str | None = "01:00:00:00"):
    events = [event for event in parse_otio(text, edit="cut.otio") if not event.skip]
    return spans_of(events, rate=rate, frames=frames, timecode=timecode)


def test_clips_name_their_file_and_their_frames():
    text = edit(clip(86410, 48), schema.Gap(source_range=span(0, 5)), clip(86500, 24, url="file:///x/lake%201.mov"))
    one, two = parse_otio(text, edit="cut.otio")
    assert (one.files, one.clips, one.label) == (("rushes/castle.mov",), ("castle",), "1 'castle'")
    assert two.files == ("file:///x/lake 1.mov",)
    assert spans(text)[0] == [(10, 58), (100, 124)]


def test_time_is_timecode_unless_the_list_counts_from_the_files_start():
    assert spans(edit(clip(86410, 48, available=None)))[0] == [(10, 58)]
    assert spans(edit(clip(86410, 48)), timecode="01:00:00:05")[0] == [(5, 53)]
    assert spans(edit(clip(86410, 48)), timecode=None)[0] == [(10, 58)]
    assert spans(edit(clip(10, 48, available=(0, 1000))))[0] == [(10, 58)]
    assert "outside the file" in spans(edit(clip(86410, 48, available=None)), timecode=None)[1][0]


def test_drop_frame_timecode_counts_real_frames():
    ntsc = 30000 / 1001
    start = time.from_timecode("01:10:00;00", ntsc).to_frames()
    text = edit(clip(start, 60, available=None, rate=ntsc))
    assert spans(text, rate=Fraction(30000, 1001), frames=30 * 3600, timecode="01:00:00;00")[0] == [(17982, 18042)]


def test_transitions_are_cut_away_on_both_sides():
    cross = schema.Transition("cross", in_offset=time.RationalTime(7, RATE), out_offset=time.RationalTime(5, RATE))
    found, notes = spans(edit(clip(86400, 48), cross, clip(86600, 48)))
    assert found == [(0, 41), (205, 248)]
    assert "12 frames left out under transitions" in notes


@pytest.mark.parametrize(
    ("effects", "reason"),
    [
        ([schema.LinearTimeWarp(time_scalar=2.0)], "speed change"),
        ([schema.FreezeFrame()], "still or freeze frame"),
        ([schema.LinearTimeWarp(time_scalar=1.0)], ""),
    ],
)
def test_speed_changes_are_marked(effects, reason):
    item = clip(86400, 48)
    item.effects.extend(effects)
    assert [event.skip for event in parse_otio(edit(item), edit="cut.otio")] == [reason]


def test_what_no_file_can_serve_is_marked():
    disabled = clip(86400, 48)
    disabled.enabled = False
    bars = schema.Clip(name="bars", source_range=span(0, 24))
    bars.media_reference = schema.GeneratorReference(name="bars", generator_kind="SMPTEBars")
    items = [disabled, bars, schema.Stack(name="nest"), schema.Clip(name="lost")]
    skips = [event.skip for event in parse_otio(edit(*items), edit="cut.otio")]
    assert skips == ["disabled", "generator or title", "nested composition", "no source time"]


def test_rates_that_agree_by_time_are_converted_exactly_and_others_refused():
    text = edit(clip(90010, 50, available=None, rate=25))
    assert spans(text, rate=Fraction(50))[0] == [(20, 120)]
    found, notes = spans(text, rate=Fraction(24))
    assert found == [] and "the list counts at 25 fps, the file runs at 24" in notes[0]


@pytest.mark.parametrize(
    "text",
    [
        "", "{}", "[]", "7", '{"OTIO_SCHEMA": "Nonsense.1"}', "[" * 100_000, '{"a":' * 100_000,
        '{"OTIO_SCHEMA": "Timeline.1", "tracks": 5}', '{"OTIO_SCHEMA": "Timeline.1"}',
    ],
)  # fmt: skip
def test_what_is_no_timeline_is_refused(tmp_path, text):
    path = tmp_path / "a.otio"
    path.write_text(text)
    with pytest.raises(FootageError, match="OTIO file") as caught:
        read_cut_list(path)
    assert caught.value.where == str(path)


WHOLE = edit(
    clip(86400, 48),
    schema.Transition("x", in_offset=time.RationalTime(7, RATE), out_offset=time.RationalTime(5, RATE)),
    clip(86600, 48),
)


def places(node, path=()):
    yield path
    if isinstance(node, (dict, list)):
        for key, inner in node.items() if isinstance(node, dict) else enumerate(node):
            yield from places(inner, (*path, key))


PLACES = [path for path in places(json.loads(WHOLE)) if path]


@settings(max_examples=200, deadline=None)
@given(
    st.sampled_from(PLACES),
    st.sampled_from([None, 0, -1, 1.5, 1e300, float("nan"), float("inf"), "", "x", [], {}, True, "Clip.1", "Gap.1"]),
)
def test_damaged_timelines_are_read_or_refused(path, value):
    body = json.loads(WHOLE)
    node = body
    for key in path[:-1]:
        node = node[key]
    node[path[-1]] = value
    try:
        events = parse_otio(json.dumps(body), edit="cut.otio")
    except FootageError:
        return
    for start, end in spans_of([e for e in events if not e.skip], rate=FILM, frames=999, timecode="01:00:00:00")[0]:
        assert 0 <= start < end <= 999


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_torn_text_is_read_or_refused(data):
    at = data.draw(st.integers(0, len(WHOLE)))
    text = WHOLE[:at] + data.draw(st.text(max_size=4)) + WHOLE[at + data.draw(st.integers(0, 5)) :]
    try:
        parse_otio(text, edit="cut.otio")
    except FootageError:
        return


@pytest.mark.parametrize("kind", [{"kind": "Video"}, {}])
def test_tracks_by_their_old_name(kind):
    """Files from before OTIO's first release call a track `Sequence`."""
    body = json.loads(edit(clip(86410, 48), clip(86500, 24)))
    for track in body["tracks"]["children"]:
        if track["kind"] == "Video":
            track.pop("kind")
            track |= {"OTIO_SCHEMA": "Sequence.1", **kind}
    assert spans(json.dumps(body))[0] == [(10, 58), (100, 124)]
