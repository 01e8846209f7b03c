"""Deliveries: conform in exact counts, readable again, tagged, and saying what they are."""

from __future__ import annotations

import shutil
import subprocess
from fractions import Fraction

import av
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cinetune.footage.read.libav import exact
from cinetune.footage.read.stills import read_image
from cinetune.footage.video import MOVIES, probe, read_frames, write_video
from cinetune.footage.write.formats import DELIVERIES, Picture, SlateCard, conform_indices
from films import FILM, counted, counter, drift

CARD = SlateCard(film="film", shot="SQ010 SH0010", version=3, look="look", conform="hold from 16 fps")


def _picture(frames=9, height=0):
    master = np.stack([np.rint(counted(k, 64, 96) * 65535) for k in range(frames)]).astype(np.uint16)
    shown, rate = conform_indices(frames, Fraction(16), Fraction(24), "hold")
    return Picture(frames_THWC=master, shown=shown, rate=rate, height=height)


def test_conform_modes():
    assert conform_indices(5, Fraction(16), Fraction(24), "none") == ([0, 1, 2, 3, 4], Fraction(16))
    assert conform_indices(5, Fraction(16), Fraction(24), "retime") == ([0, 1, 2, 3, 4], Fraction(24))
    assert conform_indices(5, Fraction(16), Fraction(24), "hold") == ([0, 0, 1, 2, 2, 3, 4, 4], Fraction(24))
    assert len(conform_indices(33, Fraction(16), Fraction(24), "hold")[0]) == 50


@given(st.integers(1, 200), st.sampled_from([FILM, Fraction(24), Fraction(25), Fraction(30), Fraction(12)]))
def test_hold_shows_what_is_on_screen_at_that_time(frames, rate):
    shown, _ = conform_indices(frames, Fraction(16), rate, "hold")
    for k, index in enumerate(shown):
        assert Fraction(index, 16) <= Fraction(k) / rate < Fraction(index + 1, 16)
    assert Fraction(len(shown)) / rate >= Fraction(frames, 16) > Fraction(len(shown) - 1) / rate
    if rate >= 16:
        assert sorted(set(shown)) == list(range(frames))


def test_prores_is_clean_counted_and_labelled(tmp_path):
    picture = _picture()
    (path,) = DELIVERIES["prores_hq"].write(tmp_path / "SH_v003", picture, CARD)
    facts = probe(path)
    assert (path.name, facts.frames, facts.rate, facts.timecode) == ("SH_v003.mov", 14, Fraction(24), "01:00:00:00")
    assert (facts.width, facts.height, facts.colour.decided) == (96, 64, "tagged bt709, limited range")
    assert [counter(frame) for frame in read_frames(path, range(facts.frames))] == picture.shown


def test_height_is_kept_even(tmp_path):
    (path,) = DELIVERIES["prores_hq"].write(tmp_path / "a", _picture(2, height=101), CARD)
    assert (probe(path).width, probe(path).height) == (152, 102)


def test_proxy_has_a_second_of_slate_and_a_burn_in(tmp_path):
    master = np.rint(drift(1, 4, 64, 96) * 65535).astype(np.uint16)
    picture = Picture(frames_THWC=master, shown=[0, 1, 2, 3], rate=Fraction(24))
    (path,) = DELIVERIES["proxy"].write(tmp_path / "SH_v003", picture, CARD)
    facts = probe(path)
    assert (facts.frames, facts.timecode, facts.width, facts.height) == (24 + 4, "00:59:59:00", 540, 360)
    slate, first, last = read_frames(path, [0, 24, 27])
    assert slate.mean() < 0.25 and slate.max() > 0.8
    middle = slice(60, 300)
    assert first[middle].mean() == pytest.approx(float(master[0].mean() / 65535), abs=0.05)
    strips = [frame[340:, :200] for frame in (first, last)]
    assert strips[0].max() > 0.7 and np.abs(strips[0] - strips[1]).max() > 0.3, "the timecode must change"


def test_png16_holds_the_masters_values(tmp_path):
    picture = _picture(3)
    paths = DELIVERIES["png16"].write(tmp_path / "SH_v003", picture, CARD)
    assert [path.name for path in paths] == [f"SH_v003.{1001 + k}.png" for k in range(5)]
    for path, index in zip(paths, picture.shown, strict=True):
        assert np.array_equal(np.rint(read_image(path) * 65535), picture.frames_THWC[index])
    assert [path.name for path in tmp_path.iterdir()] == ["SH_v003_png16"]


@pytest.mark.parametrize("codec", MOVIES)
def test_movies_say_that_they_are_progressive_and_of_square_pixels(tmp_path, codec):
    """In the boxes of the file where the codec's own stream does not say it, so that no player has to guess."""
    movie = MOVIES[codec]
    path = tmp_path / f"a{movie.suffix}"
    write_video(path, np.full((2, 128, 256, 3), 0.5, np.float32), rate=Fraction(24), codec=codec)
    with av.open(str(path)) as container:
        assert exact(container.streams.video[0].sample_aspect_ratio) == 1
        assert not next(container.decode(video=0)).interlaced_frame
    data = path.read_bytes()
    if movie.suffix != ".mxf":
        assert data.count(b"pasp" + bytes([0, 0, 0, 1, 0, 0, 0, 1])) == 1
    if movie.encoder != "libx264" and movie.suffix != ".mxf":  # H.264 and MXF say it themselves
        assert data.count(b"fiel" + bytes([1, 0])) == 1


@pytest.mark.parametrize("codec", ["prores_hq", "dnxhr_hqx", "h264"])
def test_another_reader_says_progressive(tmp_path, codec):
    """By ffprobe, where it is installed; the pictures are those that were written."""
    path = tmp_path / f"a{MOVIES[codec].suffix}"
    write_video(path, [counted(k, 128, 256) for k in range(3)], rate=Fraction(24), codec=codec, timecode="01:00:00:00")
    facts = probe(path)
    assert (facts.frames, facts.timecode, facts.pixel_aspect) == (3, "01:00:00:00", 1)
    assert [counter(frame) for frame in read_frames(path, range(facts.frames))] == [0, 1, 2]
    if shutil.which("ffprobe") is None:
        pytest.skip("ffprobe is not installed")
    asked = ["ffprobe", "-v", "error", "-select_streams", "v", "-show_entries", "stream=field_order", "-of", "csv=p=0"]
    said = subprocess.run([*asked, str(path)], capture_output=True, text=True, check=True)
    assert said.stdout.strip() == "progressive"
