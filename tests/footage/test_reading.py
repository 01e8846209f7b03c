"""Geometry: pictures stand upright, keep their shape, and lie over black."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import av
import numpy as np
import pytest

from cinetune.errors import FootageError
from cinetune.footage.cut.windows import centre_crop
from cinetune.footage.video import probe, read_frames, read_window, write_video
from cinetune.sections import FootageSection
from cinetune.stages import ingest, prepare
from cinetune.store import Project
from films import FILM, drift, patches

MATRICES = {
    90: (0, 65536, 0, 0xFFFF0000, 0, 0, 0, 0, 1 << 30),
    180: (0xFFFF0000, 0, 0, 0, 0xFFFF0000, 0, 0, 0, 1 << 30),
    270: (0, 0xFFFF0000, 0, 65536, 0, 0, 0, 0, 1 << 30),
}
"""Of a track header, by the degrees clockwise that a player turns the picture."""


def turn_header(path, degrees: int) -> None:
    data = path.read_bytes()
    upright = b"".join(value.to_bytes(4, "big") for value in (65536, 0, 0, 0, 65536, 0, 0, 0, 1 << 30))
    turned = b"".join(value.to_bytes(4, "big") for value in MATRICES[degrees])
    at = data.index(upright, data.index(b"tkhd"))
    path.write_bytes(data[:at] + turned + data[at + 36 :])


@pytest.mark.parametrize("degrees", [0, 90, 180, 270])
def test_a_turned_picture_stands_upright(tmp_path, degrees):
    """Stored lying down, with the header that a phone writes."""
    upright = patches(96, 128)
    stored = np.rot90(upright, degrees // 90)
    path = tmp_path / "a.mov"
    write_video(path, np.stack([stored] * 3), rate=FILM, codec="prores_hq")
    if degrees:
        turn_header(path, degrees)
    facts = probe(path)
    assert (facts.width, facts.height) == (128, 96)
    assert facts.notes == ((f"shown turned by {degrees} degrees clockwise: turned upright",) if degrees else ())
    got = read_frames(path, [1], colour=facts.colour, reading=facts.reading)[0]
    assert np.abs(got - upright)[12::24, 10::21].max() < 0.02
    part = read_frames(path, [1], colour=facts.colour, reading=facts.reading, crop=(64, 0, 64, 48))[0]
    assert np.array_equal(part, got[:48, 64:])


def test_an_odd_angle_is_refused(tmp_path):
    path = tmp_path / "a.mp4"
    write_video(path, drift(1, 12), rate=FILM)
    MATRICES[45] = (46341, 46341, 0, 0xFFFF0000 - 46341 + 65536, 46341, 0, 0, 0, 1 << 30)
    turn_header(path, 45)
    with pytest.raises(FootageError, match="rotated by"):
        probe(path)


def circle(height: int, width: int, squeeze: float) -> np.ndarray:
    """A white disc on grey, round when pixels are `squeeze` as wide as high; black bars above and below."""
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    inside = np.hypot((x - width / 2 + 0.5) * squeeze, y - height / 2 + 0.5) < height / 4
    frame = np.repeat(np.where(inside, 0.9, 0.3).astype(np.float32)[..., None], 3, axis=2)
    frame[: height // 8] = frame[-(height // 8) :] = 0
    return frame


def write_squeezed(path, aspect: Fraction) -> None:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=24)
        stream.width, stream.height, stream.pix_fmt = 96, 128, "yuv444p"
        stream.options = {"qp": "0"}
        stream.codec_context.sample_aspect_ratio = aspect
        for number in range(60):
            rgb = np.roll(circle(128, 96, float(aspect)), 0, axis=1)
            rgb[20:30, number % 90 : number % 90 + 6] = 0.7  # something moves
            frame = av.VideoFrame.from_ndarray(np.rint(rgb * 255).astype(np.uint8), format="rgb24").reformat(
                format="yuv444p"
            )
            frame.pts, frame.time_base = number, Fraction(1, 24)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


@pytest.mark.parametrize("degrees", [0, 90])
def test_a_window_of_anamorphic_film_shows_round_things_round(project, report, degrees):
    """From the file through ingest and prepare: bars cropped, turned, unsqueezed."""
    path = project.root / "footage" / "a.mp4"
    write_squeezed(path, Fraction(2))
    path.with_suffix(".txt").write_text("a disc")
    if degrees:
        turn_header(path, degrees)
    project = Project(project.root, overrides=("footage.slates=keep",))  # a flat disc is a chart
    record = ingest.run(project, report)
    (clip,) = record.groups["clips"]
    assert (clip.width, clip.height) == ((96, 128) if not degrees else (128, 96))
    assert clip.pixel_aspect == (Fraction(2) if not degrees else Fraction(1, 2))
    assert clip.bars == ((0, 16, 96, 96) if not degrees else (16, 0, 96, 96))
    assert any(note.startswith("anamorphic: pixels are 2") for note in clip.notes)
    window = prepare.run(project, report).groups["windows"][0]
    assert window.crop == centre_crop(clip, window.width, window.height)
    wide = replace(window, crop=clip.bars, width=192 if not degrees else 96, height=96 if not degrees else 192)
    disc = read_window(project.root, clip, wide)[0, ..., 1] > 0.6
    disc[:15] = disc[:, -15:] = False  # where something moves
    across, down = disc.any(axis=0).sum(), disc.any(axis=1).sum()
    assert abs(int(across) - int(down)) <= 2 and 40 < across < 80


def write_alpha(path, codec: str, pixels: str, cover: np.ndarray) -> None:
    """Flat light grey under an alpha channel `cover` [H, W] in [0, 1]."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=24)
        assert isinstance(stream, av.VideoStream)
        stream.height, stream.width = cover.shape
        stream.pix_fmt, stream.options = pixels, {"profile": "4"} if codec == "prores_ks" else {}
        for number in range(12):
            rgba = np.full((*cover.shape, 4), 200, np.uint8)
            rgba[..., 3] = np.rint(cover * 255)
            frame = av.VideoFrame.from_ndarray(rgba, format="rgba").reformat(format=pixels)
            frame.pts, frame.time_base = number, Fraction(1, 24)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


@pytest.mark.parametrize(("codec", "pixels"), [("prores_ks", "yuva444p10le"), ("png", "rgba"), ("qtrle", "argb")])
def test_alpha_lies_over_black_or_is_refused(tmp_path, codec, pixels):
    path = tmp_path / "a.mov"
    cover = np.repeat(np.repeat([[1.0, 0.5], [0.25, 0.0]], 32, axis=0), 32, axis=1)
    write_alpha(path, codec, pixels, cover)
    facts = probe(path)
    assert "alpha: laid over black" in facts.notes
    got = read_frames(path, [3], colour=facts.colour)[0]
    for y, x in ((16, 16), (16, 48), (48, 16), (48, 48)):
        assert got[y, x] == pytest.approx(cover[y, x] * 200 / 255, abs=0.01)
    with pytest.raises(FootageError, match="alpha") as caught:
        probe(path, settings=FootageSection(alpha="refuse"))
    assert "footage.alpha" in caught.value.remedy
