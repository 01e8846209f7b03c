"""Numbered pictures are one clip: exact numbers, headers read, gaps said, colour right, a missing reader a reason."""

from __future__ import annotations

import struct
import sys
import zlib
from fractions import Fraction

import numpy as np
import pytest
from PIL import Image

from cinetune.errors import FootageError
from cinetune.footage.notes.sidecars import clip_stem, footage_files, is_sequence, members
from cinetune.footage.read.stills import write_png16
from cinetune.footage.video import probe, read_frames
from cinetune.sections import ColourRule, FootageSection
from cinetune.stages import ingest
from films import FILM, counted, counter, drift, patches

oiio = pytest.importorskip("OpenImageIO")
RATE = FootageSection(sequence_rate="25")


def write_oiio(path, rgb, *, kind="half", **facts):
    spec = oiio.ImageSpec(rgb.shape[1], rgb.shape[0], rgb.shape[2], kind)
    for name, value in facts.items():
        spec.attribute(name.replace("__", ":"), *value)
    out = oiio.ImageOutput.create(str(path))
    assert out.open(str(path), spec) and out.write_image(np.ascontiguousarray(rgb, np.float32))
    out.close()


def write(folder, suffix, numbers, *, digits=4, first=0, **facts):
    """Counted pictures `A001.0001.exr`, scene-linear in EXR so that they show as themselves."""
    folder.mkdir(exist_ok=True, parents=True)
    for number in numbers:
        path = folder / f"A001.{number:0{digits}d}{suffix}"
        rgb = counted(number - first)
        if suffix == ".png":
            write_png16(path, rgb)
        elif suffix == ".tif":
            Image.fromarray(np.rint(rgb * 255).astype(np.uint8)).save(path)
        else:
            write_oiio(path, rgb, kind="half" if suffix == ".exr" else "uint16", **facts)
    return folder / f"A001.%0{digits}d{suffix}"


@pytest.mark.parametrize("suffix", [".exr", ".dpx", ".png", ".tif"])
def test_numbered_pictures_are_one_clip_of_exact_frames(tmp_path, suffix):
    path = write(tmp_path, suffix, range(1001, 1031), first=1001)
    (tmp_path / "A001.txt").write_text("a caption")
    assert footage_files(tmp_path) == [path] and is_sequence(path) and clip_stem(path) == "A001"
    facts = probe(path, settings=RATE)
    assert (facts.frames, facts.rate, facts.width, facts.height) == (30, 25, 80, 48)
    assert facts.codec == suffix[1:] and facts.notes[0] == "30 pictures numbered 1001..1030"
    assert facts.timecode == "00:00:40:01"
    wanted = [29, 3, 17, 3]
    assert [counter(frame) for frame in read_frames(path, wanted, colour=facts.colour)] == wanted
    assert [counter(frame) for frame in read_frames(path, range(30), colour=facts.colour)] == list(range(30))
    with pytest.raises(FootageError, match="no picture 30"):
        read_frames(path, [30], colour=facts.colour)


def test_the_header_goes_before_the_settings(tmp_path):
    rate = {"FramesPerSecond": (oiio.TypeRational, (24000, 1001))}
    code = {"smpte__TimeCode": (oiio.TypeTimeCode, (0x01020304, 0)), "PixelAspectRatio": (2.0,)}
    facts = probe(write(tmp_path, ".exr", range(20), **rate, **code), settings=RATE)
    assert (facts.rate, facts.timecode, facts.pixel_aspect) == (FILM, "01:02:03:04", 2)
    facts = probe(write(tmp_path, ".dpx", range(20), dpx__FrameRate=(23.976,)), settings=RATE)
    assert facts.rate == FILM


def test_gaps_are_said_and_time_stays_right(tmp_path):
    path = write(tmp_path, ".exr", [*range(10, 20), *range(23, 40), 41], first=10)
    facts = probe(path)
    assert facts.frames == 32 and "missing: 20..22, 40" in facts.notes
    got = read_frames(path, [9, 10, 13, 31], colour=facts.colour)
    assert [counter(got[k]) for k in (0, 2, 3)] == [9, 13, 31] and got[1].max() == 0


@pytest.mark.parametrize(
    ("names", "found"),
    [
        (["a1.exr", "a2.exr", "a10.exr"], ["a%01d.exr"]),
        (["a.0999.dpx", "a.1000.dpx", "a.10000.dpx"], ["a.%04d.dpx"]),
        (["1.tif", "2.tif"], ["%01d.tif"]),
        (["a1.png", "a2.png"], []),
        ([f"b_{k:02d}.png" for k in range(12)], ["b_%02d.png"]),
        (["a1.exr", "b1.exr"], ["a1.exr", "b1.exr"]),
        (["A001C002.mov", "A001C003.mov"], ["A001C002.mov", "A001C003.mov"]),
    ],
)
def test_what_makes_a_sequence(tmp_path, names, found):
    folder = tmp_path / "reel"
    folder.mkdir()
    for name in names:
        (folder / name).write_bytes(b"x")
    paths = footage_files(tmp_path)
    assert [path.name for path in paths] == found
    runs = [path for path in paths if is_sequence(path)]
    assert sum(len(members(path)) for path in runs) == (len(names) if runs else 0)
    if found == ["%01d.tif"]:
        assert clip_stem(paths[0]) == "reel"


def test_exr_is_scene_linear_and_png_is_display(tmp_path):
    """The view of scene light is the BT.709 camera curve, bent above 0.8; display pictures come through untouched."""
    for number in range(12):
        write_oiio(tmp_path / f"e.{number}.exr", np.full((16, 16, 3), 0.18, np.float32))
        write_png16(tmp_path / f"p.{number:02d}.png", patches(48, 72))
    linear, display = tmp_path / "e.%01d.exr", tmp_path / "p.%02d.png"
    facts = probe(linear)
    assert facts.colour.space == "linear" and "scene-linear BT.709" in facts.colour.decided
    assert read_frames(linear, [5], colour=facts.colour)[0, 8, 8] == pytest.approx([0.409] * 3, abs=5e-4)
    assert np.abs(read_frames(display, [5], colour=probe(display).colour)[0] - patches(48, 72)).max() < 1e-4
    stated = probe(linear, rule=ColourRule(match="*", space="LogC3"))
    assert stated.colour.space == "LogC3"


@pytest.mark.parametrize(
    ("points", "space"),
    [
        ((0.713, 0.293, 0.165, 0.83, 0.128, 0.044, 0.32168, 0.33767), "ACEScg"),
        ((0.7347, 0.2653, 0.0, 1.0, 0.0001, -0.077, 0.32168, 0.33767), "ACES2065-1"),
        ((0.64, 0.33, 0.3, 0.6, 0.15, 0.06, 0.3127, 0.329), "linear"),
    ],
)
def test_the_chromaticities_of_an_exr_are_honoured(tmp_path, points, space):
    path = write(tmp_path, ".exr", range(2), chromaticities=(oiio.TypeDesc("float[8]"), points))
    facts = probe(path)
    assert facts.colour.space == space
    grey = read_frames(path, [0], colour=facts.colour)[0, 40]
    assert np.ptp(grey, axis=1).max() < 3e-3  # neutral stays neutral under any white


def test_log_dpx_is_refused_until_its_space_is_stated(tmp_path):
    path = write(tmp_path, ".dpx", range(12), dpx__Transfer=("Logarithmic",))
    with pytest.raises(FootageError, match="tagged logarithmic") as caught:
        probe(path)
    assert "[[footage.colour]]" in caught.value.remedy
    assert probe(path, rule=ColourRule(match="*", space="V-Log")).colour.space == "V-Log"


def test_pictures_of_two_sizes_and_damaged_ones_are_refused(tmp_path):
    path = write(tmp_path, ".exr", range(12))
    write_oiio(tmp_path / "A001.0005.exr", np.zeros((8, 8, 3)))
    with pytest.raises(FootageError, match=r"A001\.0005\.exr is 8x8, the first picture 80x48"):
        probe(path)
    (tmp_path / "A001.0005.exr").write_bytes(b"no picture")
    with pytest.raises(FootageError, match="cannot be read"):
        probe(path)


def test_overscan_and_alpha_of_an_exr(tmp_path):
    """The display window is the picture; alpha is associated, so the colours already lie over black."""
    for number in range(2):
        spec = oiio.ImageSpec(20, 20, 4, "half")
        spec.x, spec.y, spec.full_x, spec.full_y, spec.full_width, spec.full_height = -2, -2, 0, 0, 32, 16
        out = oiio.ImageOutput.create("a.exr")
        assert out.open(str(tmp_path / f"a{number}.exr"), spec)
        out.write_image(np.full((20, 20, 4), 0.18, np.float32))
        out.close()
    path = tmp_path / "a%01d.exr"
    facts = probe(path)
    assert (facts.width, facts.height) == (32, 16) and "alpha: laid over black" in facts.notes
    got = read_frames(path, [0], colour=facts.colour)[0]
    assert got[:, :18].min() > 0.4 and got[:, 18:].max() == 0
    with pytest.raises(FootageError, match="alpha"):
        probe(path, settings=FootageSection(alpha="refuse"))


def test_a_missing_reader_is_a_row_and_the_batch_goes_on(project, report, monkeypatch):
    folder = project.root / "footage"
    write(folder / "day1", ".exr", range(16))
    for number, frame in enumerate(drift(1, 24)):
        write_png16(folder / f"walk_{number:03d}.png", frame)
    (folder / "walk_.txt").write_text("not its caption")
    (folder / "walk.txt").write_text("a walk")
    monkeypatch.setitem(sys.modules, "OpenImageIO", None)
    monkeypatch.setattr(ingest, "find_spec", lambda name: None)
    record = ingest.run(project, report)
    (row,) = record.groups["rejected"]
    assert (row.path, row.remedy) == ("footage/day1/A001.%04d.exr", 'pip install "cinetune[color]"')
    (clip,) = record.groups["clips"]
    assert (clip.id, clip.path, clip.frames, clip.rate) == ("walk", "footage/walk_%03d.png", 24, Fraction(24))
    monkeypatch.undo()
    again = ingest.run(project, report)  # the reader was installed meanwhile
    assert [clip.id for clip in again.groups["clips"]] == ["A001", "walk"] and not again.groups["rejected"]
    before = ingest.inputs(project)["footage/walk_%03d.png"]
    write_png16(folder / "walk_007.png", drift(2, 1)[0])
    assert ingest.inputs(project)["footage/walk_%03d.png"] != before


@pytest.mark.parametrize(
    ("rate", "packed", "label", "base"),
    [
        ((24, 1), 0x01000012, "01:00:00:12", None),
        ((30000, 1001), 0x01010042, "01:01:00;02", None),  # the drop-frame flag
        ((24, 1), 0x01000052, "01:00:00:12", None),  # a flag that this rate cannot have
        ((60, 1), 0x01000015, "01:00:00:15", 30),
        ((60000, 1001), 0x01010042, "01:01:00;02", Fraction(30000, 1001)),
        ((48, 1), 0x81800092, "01:00:00:12", 24),  # other flags are no digits
    ],
)
def test_timecode_of_a_header_keeps_its_flag_and_its_base(tmp_path, rate, packed, label, base):
    clock, code = (oiio.TypeDesc("rational"), rate), (oiio.TypeDesc("timecode"), (packed, 0))
    path = write(tmp_path, ".exr", range(1, 4), first=1, FramesPerSecond=clock, smpte__TimeCode=code)
    facts = probe(path, settings=RATE, min_seconds=0)
    assert (facts.timecode, facts.timecode_base) == (label, base)


def test_pictures_of_films_that_unpack_to_gigabytes_are_refused_by_their_header(tmp_path):
    spec = oiio.ImageSpec(16, 16, 3, "half")
    spec.full_width = spec.full_height = 20_000
    for number in range(1, 4):
        out = oiio.ImageOutput.create(str(tmp_path / "x.exr"))
        assert out.open(str(tmp_path / f"B001.{number:04d}.exr"), spec)
        out.write_image(np.zeros((16, 16, 3), np.float32))
        out.close()
    with pytest.raises(FootageError, match="20000x20000"):
        probe(tmp_path / "B001.%04d.exr", settings=RATE)


def test_a_film_of_pictures_that_are_too_large(tmp_path):
    """A PNG header that claims 20,000 x 20,000: libav unpacks none of it."""
    whole = tmp_path / "a.png"
    write_png16(whole, counted(1))
    data = bytearray(whole.read_bytes())
    data[16:24] = struct.pack(">II", 20_000, 20_000)
    data[29:33] = struct.pack(">I", zlib.crc32(bytes(data[12:29])))
    for number in range(1, 13):
        (tmp_path / f"C001.{number:04d}.png").write_bytes(data)
    with pytest.raises(FootageError, match="67 million pixels"):
        probe(tmp_path / "C001.%04d.png", settings=RATE)
