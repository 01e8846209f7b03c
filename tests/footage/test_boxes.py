"""What QuickTime boxes say that libav does not pass on, and damaged ones."""

from __future__ import annotations

import shutil
import struct
from fractions import Fraction

import av
import pytest

from cinetune.errors import FootageError
from cinetune.footage.edit.cutlists import plan_cuts
from cinetune.footage.read.boxes import read_boxes, timecode_base
from cinetune.footage.video import probe, read_frames, write_video
from films import counted, counter, write_counted


@pytest.fixture(scope="module")
def fast(tmp_path_factory):
    """60 fps with a timecode track."""
    path = tmp_path_factory.mktemp("fast") / "A001.mov"
    write_counted(path, 60, rate=Fraction(60), codec="prores_hq", timecode="01:00:00:00")
    return path


def recount(path, *, base: tuple[int, int], first: int, flags: int | None = None):
    """Give the timecode track another base (ticks a second, ticks a frame) and first frame number."""
    data = bytearray(path.read_bytes())
    entry = data.find(b"tmcd", data.find(b"stsd", data.find(b"gmhd"))) + 4
    struct.pack_into(">IIB", data, entry + 16, *base, round(base[0] / base[1]))
    if flags is not None:
        struct.pack_into(">I", data, entry + 12, flags)
    table = data.find(b"stco", entry)
    struct.pack_into(">I", data, struct.unpack_from(">I", data, table + 12)[0], first)
    path.write_bytes(data)


def test_timecode_keeps_the_base_of_its_track(fast, tmp_path):
    path = shutil.copy(fast, tmp_path / "A001.mov")
    assert timecode_base(path, Fraction(60)) is None and probe(path).timecode_base is None
    recount(path, base=(30, 1), first=108015)
    facts = probe(path)
    assert (facts.rate, facts.timecode, facts.timecode_base) == (60, "01:00:00:15", 30)
    assert timecode_base(path, Fraction(60000, 1001)) == Fraction(30000, 1001)  # the clock is the picture's
    (tmp_path / "cut.edl").write_text("001  A001 V C 01:00:00:20 01:00:01:00 00:00:00:00 00:00:00:10\n")
    plan = plan_cuts(tmp_path, [path])
    assert list(plan.events) == [path], plan
    recount(path, base=(30, 1), first=108015, flags=8)  # a counter, no time
    assert timecode_base(path, Fraction(60)) is None


@pytest.mark.parametrize("kind", ["mkv", "text", "empty", "loop", "deep"])
def test_files_without_such_boxes(tmp_path, kind):
    path = tmp_path / "a.mov"
    if kind == "mkv":
        with av.open(str(path), "w", format="matroska") as box:
            stream = box.add_stream("libx264", rate=24)
            stream.width = stream.height = 64
            box.mux(stream.encode(av.VideoFrame(64, 64, "yuv420p")))
            box.mux(stream.encode())
    box = struct.pack(">I4s", 8, b"free")
    data = {
        "text": b"hello world, no box",
        "empty": b"",
        "loop": box * 200_000,
        "deep": struct.pack(">I4s", 0, b"moov"),
    }
    if kind in data:
        path.write_bytes(data[kind])
    assert read_boxes(path) is None


def test_every_damaged_byte_of_the_header_is_survived(fast, tmp_path):
    data = fast.read_bytes()
    at = data.rfind(b"moov")
    for place in range(at - 4, len(data), 7):
        for value in (0, 255):
            broken = bytearray(data)
            broken[place] = value
            (tmp_path / "a.mov").write_bytes(broken)
            read_boxes(tmp_path / "a.mov")


def trim(path, *, scale: int, first: int, length: int) -> None:
    """An edit list that shows `length` ticks of the movie's clock from `first` ticks of the picture's: what a trim
    without encoding writes.
    """
    data = bytearray(path.read_bytes())
    edit = data.find(b"elst") + 12
    assert struct.unpack_from(">I", data, edit - 4)[0] == 1 and scale
    struct.pack_into(">Ii", data, edit, length, first)
    path.write_bytes(data)


@pytest.mark.parametrize("share", [0.0, 0.4, 0.9])
@pytest.mark.parametrize("more", [0, 30])
def test_a_lossless_trim_is_not_truncation(tmp_path, share, more):
    path = tmp_path / "trim.mp4"
    write_video(path, (counted(number) for number in range(96)), rate=Fraction(24))
    movie = read_boxes(path)
    assert movie is not None and movie.edits
    offset = movie.edits[0][1]
    tick = movie.own_scale // 24
    first = offset + round((14 + share) * tick)
    length = round(movie.scale * (60 + more / 41) / 24)
    trim(path, scale=movie.scale, first=first, length=length)
    facts = probe(path)
    assert 59 <= facts.frames <= 62
    shown = [counter(frame) for frame in read_frames(path, range(facts.frames), rate=facts.rate)]
    assert shown == list(range(shown[0], shown[0] + facts.frames)) and shown[0] in (14, 15)


def test_a_trim_that_was_cut_off_in_transfer_is_still_truncated(tmp_path):
    path = tmp_path / "trim.mp4"
    write_video(path, (counted(number) for number in range(96)), rate=Fraction(24))
    with (
        av.open(str(path)) as source,
        av.open(str(tmp_path / "fast.mp4"), "w", options={"movflags": "faststart"}) as out,
    ):
        stream = out.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.dts is not None:
                packet.stream = stream
                out.mux(packet)
    whole = tmp_path / "fast.mp4"
    probe(whole)
    whole.write_bytes(whole.read_bytes()[:-40])
    with pytest.raises(FootageError, match=r"truncated|damaged"):
        probe(whole)
