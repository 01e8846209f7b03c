"""Every delivery format, written and opened again by a reader that did not write it: count, exact rate, size, bit
depth, tags, timecode, and colour patches within the tolerance that docs/stages/deliver.md states.

Colour differences are CIEDE2000 as a BT.1886 display shows the pictures.
"""

from __future__ import annotations

import json
import re
from fractions import Fraction
from pathlib import Path
from typing import Any, cast, get_args

import av
import numpy as np
import OpenImageIO
import pytest
import tifffile

from cinetune.footage.read.color import from_light, resize
from cinetune.footage.read.planes import frame_colour, frame_rgb, rgb_frame
from cinetune.footage.write.formats import DELIVERIES, Picture, SlateCard, conform_indices, slate_frames
from cinetune.metrics.grade import delta_e2000, lab
from cinetune.sections import DeliveryName
from films import FILM, counted, counter, patches

CARD = SlateCard(
    film="film", shot="SQ010 SH0010", version=3, look="look", conform="hold from 16 fps", slate="frame", burn_in=False
)
HEIGHT, WIDTH = 144, 288
MOVIES = {
    # name: (suffix, codec, profile, pixel format read back, tolerance dE2000)
    "proxy": (".mp4", "h264", "High", "yuv420p", 0.6),
    "proxy_hevc": ("_hevc.mp4", "hevc", "Main", "yuv420p", 0.6),
    "proxy_hevc10": ("_hevc10.mp4", "hevc", "Main 10", "yuv420p10le", 0.2),
    "prores_hq": (".mov", "prores", "HQ", "yuv422p10le", 0.2),
    "prores_4444": ("_prores4444.mov", "prores", "4444", "yuv444p12le", 0.2),
    "dnxhr_hqx": ("_dnxhr.mov", "dnxhd", "DNXHR HQX", "yuv422p10le", 0.2),
    "dnxhr_hqx_mxf": (".mxf", "dnxhd", "DNXHR HQX", "yuv422p10le", 0.2),
}
STILLS = {
    "png16": (".png", 0.001),
    "tiff16": (".tif", 0.001),
    "exr_linear": (".exr", 0.02),
    "exr_display": (".exr", 0.02),
}
DOCS = Path(__file__).parents[2] / "docs" / "stages" / "deliver.md"


def picture(frames, *, rate=FILM, mode="hold"):
    master = np.stack([np.rint(frame * 65535) for frame in frames]).astype(np.uint16)
    shown, rate = conform_indices(len(master), Fraction(16), rate, mode)
    return Picture(frames_THWC=master, shown=shown, rate=rate, conform=mode)


def centres(rgb):
    """The middles of the patches, [24, 3]."""
    height, width = rgb.shape[:2]
    rows = [int((k + 0.5) * height / 4) for k in range(4)]
    return rgb[np.ix_(rows, [int((k + 0.5) * width / 6) for k in range(6)])].reshape(-1, 3)


def difference(found, wanted):
    return delta_e2000(lab(centres(found), transfer="bt1886"), lab(centres(wanted), transfer="bt1886"))


def movie(path):
    """(container facts, frames) by libav."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        frames = list(container.decode(stream))
        context = stream.codec_context
        facts = {
            "codec": context.name,
            "profile": context.profile,
            "rate": stream.average_rate,
            "timecode": stream.metadata.get("timecode") or container.metadata.get("timecode"),
            "tags": [context.color_primaries, context.color_trc, context.colorspace, context.color_range],
        }
    return facts, frames


def test_the_project_file_knows_every_format_and_no_other():
    assert set(get_args(DeliveryName)) == set(DELIVERIES) == set(MOVIES) | set(STILLS)


def test_the_page_has_a_row_for_every_format_with_its_tolerance():
    rows = dict(re.findall(r"^\| `(\w+)` \|.*\| ([\d.]+) \|$", DOCS.read_text(), re.MULTILINE))
    assert {name: float(rows[name]) for name in MOVIES} == {name: row[-1] for name, row in MOVIES.items()}
    assert {name: float(rows[name]) for name in STILLS} == {name: row[-1] for name, row in STILLS.items()}


@pytest.mark.parametrize(
    ("name", "rate"),
    [
        (name, rate)
        for name in MOVIES
        for rate in (FILM, Fraction(24), Fraction(25))
        if rate == FILM or "hevc" not in name
    ],
)
def test_a_movie_has_its_frames_rate_size_tags_and_timecode(tmp_path, name, rate):
    suffix, codec, profile, pixels, _ = MOVIES[name]
    shot = picture([counted(k, HEIGHT, WIDTH) for k in range(5)], rate=rate)
    (path,) = DELIVERIES[name].write(tmp_path / "SH_v003", shot, CARD)
    facts, frames = movie(path)
    lead = slate_frames("frame", rate) if "proxy" in name else 0
    size = (720, 360) if "proxy" in name else (WIDTH, HEIGHT)
    assert path.name == f"SH_v003{suffix}" and [item.name for item in tmp_path.iterdir()] == [path.name]
    assert (facts["codec"], facts["profile"], facts["rate"]) == (codec, profile, rate)
    assert facts["timecode"] == (f"00:59:59:{round(rate) - 1}" if lead else "01:00:00:00")
    assert facts["tags"] == [1, 1, 1, 1]
    times = [None if frame.pts is None or not frame.time_base else frame.pts * frame.time_base for frame in frames]
    assert times == [k / rate for k in range(lead + 8)]
    for frame in frames:
        assert (frame.width, frame.height, frame.format.name) == (*size, pixels)
        assert [frame.color_primaries, frame.color_trc, frame.colorspace, frame.color_range] == [1, 1, 1, 1]
    assert [counter(frame_rgb(frame, frame_colour(frame))) for frame in frames[lead:]] == shot.shown


@pytest.mark.parametrize("name", MOVIES)
def test_colours_of_a_movie_come_back(tmp_path, name):
    shot = picture([patches(HEIGHT, WIDTH)] * 4)
    (path,) = DELIVERIES[name].write(tmp_path / "a", shot, CARD)
    frame = movie(path)[1][-1]
    wanted = resize(patches(HEIGHT, WIDTH), (frame.width, frame.height))
    found = difference(frame_rgb(frame, frame_colour(frame)), wanted)
    assert found.max() <= MOVIES[name][-1], f"{found.max():.3f}"
    rounded = rgb_frame(wanted, MOVIES[name][3].replace("12le", "10le"))
    floor = difference(frame_rgb(rounded, frame_colour(rounded)), wanted)
    assert found.max() <= floor.max() + 0.05, "the codec adds next to nothing to what its bit depth costs"


def read_pixels(path):
    """[H, W, 3] by a library that did not write the file: libav reads EXR, OpenImageIO the rest."""
    if path.suffix == ".exr":
        with av.open(str(path)) as container:
            frame = next(container.decode(video=0))
        green, blue, red = (
            np.frombuffer(memoryview(cast(Any, p)), np.float16).reshape(p.height, -1)[:, : frame.width]
            for p in frame.planes
        )
        return np.stack([red, green, blue], axis=-1).astype(np.float32)
    levels = OpenImageIO.ImageBuf(str(path)).get_pixels(OpenImageIO.UINT16)
    assert levels is not None
    return levels.astype(np.float64) / 65535


@pytest.mark.parametrize("name", STILLS)
def test_a_sequence_has_its_frames_size_and_colours(tmp_path, name):
    suffix, tolerance = STILLS[name]
    shot = picture([patches(HEIGHT, WIDTH + k * 2)[:, :WIDTH] for k in range(5)])
    paths = DELIVERIES[name].write(tmp_path / "SH_v003", shot, CARD)
    assert [str(path.relative_to(tmp_path)) for path in paths] == [
        f"SH_v003_{name}/SH_v003.{1001 + k}{suffix}" for k in range(8)
    ]
    assert sorted(tmp_path.rglob("*.*")) == paths, "nothing else is left behind"
    worst = 0.0
    for path, wanted in zip(paths, shot, strict=True):
        values = read_pixels(path)
        assert values.shape == (HEIGHT, WIDTH, 3)
        found = difference(from_light(values) if "linear" in name else values, wanted)
        worst = max(worst, found.max())
    assert worst <= tolerance, f"{worst:.4f}"


@pytest.mark.parametrize(
    ("name", "space", "words"),
    [("exr_linear", "lin_rec709_scene", "linear"), ("exr_display", "g24_rec709_display", "display")],
)
def test_exr_headers_state_colour_rate_and_timecode(tmp_path, name, space, words):
    paths = DELIVERIES[name].write(tmp_path / "a", picture([patches(32, 48)] * 3), CARD)
    picture_in = OpenImageIO.ImageInput.open(str(paths[3]))
    assert picture_in is not None
    spec = picture_in.spec()
    assert str(spec.format) == "half" and spec.nchannels == 3
    assert spec.getattribute("oiio:ColorSpace") == space
    assert spec.getattribute("cinetune:colour").startswith(words)
    assert spec.getattribute("cinetune:shot") == "SQ010 SH0010"
    assert spec.getattribute("FramesPerSecond") == (24000, 1001)
    assert spec.getattribute("smpte:TimeCode")[0] == 0x01000003, "01:00:00:03 as SMPTE 12M packs it"
    assert spec.getattribute("chromaticities") == pytest.approx((0.64, 0.33, 0.3, 0.6, 0.15, 0.06, 0.3127, 0.329))
    grey = from_light(np.array([0.18], np.float32))
    assert float(grey[0]) == pytest.approx(0.409, abs=0.001), "an 18 % card, by the BT.709 curve"


def test_tiff_and_png_state_their_colour(tmp_path):
    (tiff, *_) = DELIVERIES["tiff16"].write(tmp_path / "a", picture([patches(32, 48)] * 2), CARD)
    with tifffile.TiffFile(tiff) as file:
        tags = file.pages.first.tags
        assert tags.valueof(319)[:2] == (6400, 10000) and tags.valueof(51044) == (24000, 1001)
        assert tags.valueof(51043)[:4] == b"\0\0\0\1", "frames, seconds, minutes, hours"
        assert "display-referred" in tags.valueof(270)
    (png, *_) = DELIVERIES["png16"].write(tmp_path / "a", picture([patches(32, 48)] * 2), CARD)
    assert b"cICP\x01\x01\x00\x01" in png.read_bytes()[:200], "BT.709, RGB, full range"


def test_a_format_says_what_its_values_mean():
    for name, row in DELIVERIES.items():
        assert ("linear light" in row.colour) == (name == "exr_linear"), json.dumps(row.colour)
