"""Film files: round trips within stated colour error, exact rates and frames, tags on every frame, and a reason for
every refusal.
"""

from __future__ import annotations

from fractions import Fraction

import av
import numpy as np
import pytest
from skimage.color import deltaE_ciede2000, rgb2lab

from cinetune.errors import FootageError
from cinetune.footage.video import MOVIES, probe, read_frames, write_video
from films import FILM, counted, counter, patches, write_counted, write_sound, write_tagged

CODECS = [("h264", ".mp4"), ("prores_hq", ".mov")]


def colour_error(got: np.ndarray, want: np.ndarray) -> float:
    """Largest dE2000 in the middle of the patches, away from chroma-subsampled edges."""
    height, width = want.shape[:2]
    rows = [(2 * k + 1) * height // 8 for k in range(4)]
    columns = [(2 * k + 1) * width // 12 for k in range(6)]
    pick = np.ix_(rows, columns)
    return float(deltaE_ciede2000(rgb2lab(got[pick]), rgb2lab(want[pick])).max())


@pytest.mark.parametrize(("codec", "suffix", "limit"), [("h264", ".mp4", 1.5), ("prores_hq", ".mov", 0.5)])
def test_what_is_written_is_read(tmp_path, codec, suffix, limit):
    path = tmp_path / f"a{suffix}"
    write_video(path, np.stack([patches()] * 3), rate=FILM, codec=codec, timecode="01:00:00:00")
    facts = probe(path)
    assert (facts.rate, facts.frames, facts.width, facts.height, facts.timecode) == (FILM, 3, 128, 96, "01:00:00:00")
    assert facts.colour.decided == "tagged bt709, limited range"
    for frame in read_frames(path, range(3)):
        assert frame.dtype == np.float32
        assert colour_error(frame, patches()) < limit


@pytest.mark.parametrize(("codec", "suffix"), CODECS)
def test_another_reader_sees_the_same_colours(tmp_path, codec, suffix):
    """Decoded by libswscale, told what our tags say: an oracle that shares no code with our matrices."""
    path = tmp_path / f"a{suffix}"
    write_video(path, [patches()] * 2, rate=FILM, codec=codec)
    with av.open(str(path)) as container:
        for frame in container.decode(video=0):
            assert (frame.colorspace, frame.color_primaries, frame.color_trc, frame.color_range) == (1, 1, 1, 1)
            rgb = frame.to_ndarray(format="rgb24", src_colorspace="ITU709", dst_colorspace="ITU709") / 255
            assert colour_error(rgb, patches()) < 2.0


def test_movies_start_fast_and_prores_is_hq(tmp_path):
    write_video(tmp_path / "a.mp4", [patches()] * 2, rate=FILM)
    write_video(tmp_path / "a.mov", [patches()] * 2, rate=FILM, codec="prores_hq")
    data = (tmp_path / "a.mp4").read_bytes()
    assert 0 < data.index(b"moov") < data.index(b"mdat")
    with av.open(str(tmp_path / "a.mov")) as container:
        context = container.streams.video[0].codec_context
        assert (context.codec_tag, context.pix_fmt) == ("apch", "yuv422p10le")


@pytest.mark.parametrize(
    ("size", "matrix", "full", "tags"),
    [
        ((96, 128), "bt709", False, (1, 1, 1, 1)),
        ((96, 128), "bt709", True, (1, 1, 1, 2)),
        ((96, 128), "bt601", False, (6, 6, 6, 1)),
        ((96, 128), "bt601", False, (2, 2, 2, 0)),
        ((720, 96), "bt709", False, (2, 2, 2, 0)),
    ],
    ids=["709", "709-full", "601", "untagged-small", "untagged-720"],
)
def test_colour_is_decoded_by_its_tags(tmp_path, size, matrix, full, tags):
    path = tmp_path / "a.mp4"
    write_tagged(path, [patches(*size)] * 2, matrix=matrix, full_range=full, tags=tags)
    facts = probe(path)
    assert (facts.colour.matrix, facts.colour.full_range) == (matrix, full)
    got = read_frames(path, [0])[0]
    assert np.abs(got - patches(*size)).max() < 1.6 / 255
    assert colour_error(got, patches(*size)) < 0.8


def test_ten_bits_stay_ten_bits(tmp_path):
    """A slow ramp in ProRes has far more than the levels of 8 bit."""
    ramp = np.tile(np.linspace(0.4, 0.5, 256, dtype=np.float32)[None, :, None], (64, 1, 3))
    write_video(tmp_path / "a.mov", [ramp] * 2, rate=FILM, codec="prores_hq")
    got = read_frames(tmp_path / "a.mov", [0])[0]
    assert len(np.unique(got[32, :, 1])) > 60
    assert np.abs(got - ramp).mean() < 0.5 / 1023


@pytest.mark.parametrize("rate", [FILM, Fraction(30000, 1001), Fraction(24), Fraction(25), Fraction(16)])
def test_rates_are_exact(tmp_path, rate):
    for codec, suffix in CODECS:
        write_counted(tmp_path / f"a{suffix}", 5, rate=rate, codec=codec)
        assert probe(tmp_path / f"a{suffix}").rate == rate


def test_a_container_with_millisecond_stamps_still_gives_the_exact_rate(tmp_path):
    write_tagged(tmp_path / "a.mkv", [counted(k) for k in range(30)], tags=(1, 1, 1, 1))
    facts = probe(tmp_path / "a.mkv")
    assert (facts.rate, facts.frames) == (FILM, 30)


def test_frames_by_number_in_any_order(tmp_path):
    path = tmp_path / "a.mp4"
    write_counted(path, 40)
    wanted = [7, 39, 0, 7]
    assert [counter(frame) for frame in read_frames(path, wanted)] == wanted


def test_seeking_finds_the_same_frames(tmp_path):
    """Past the first group of pictures, so that reading must seek; checked against the numbers in the pixels."""
    path = tmp_path / "a.mp4"
    write_counted(path, 420)
    wanted = [300, 301, 385, 419]
    assert [counter(frame) for frame in read_frames(path, wanted)] == wanted
    with pytest.raises(FootageError, match="no frame 420"):
        read_frames(path, [410, 420])


def _damage(path, first, end):
    """Spoil the packets of frames [first, end)."""
    with av.open(str(path)) as container:
        places = [(packet.pos or 0, packet.size) for packet in container.demux(video=0) if packet.size]
    data = bytearray(path.read_bytes())
    for at, size in places[first:end]:
        data[at + 32 : at + size] = b"\x55" * (size - 32)  # of MXF, the first bytes are the container's
    path.write_bytes(bytes(data))


@pytest.mark.parametrize("codec", ["prores_hq", "dnxhr_hqx", "dnxhr_hqx_mxf"])
def test_of_pictures_coded_alone_only_the_wanted_are_decoded(tmp_path, codec):
    """Those between are spoiled, so decoding any of them would fail."""
    path = tmp_path / f"a{MOVIES[codec].suffix}"
    numbers = (np.repeat(np.repeat(counted(k), 4, 0), 4, 1) for k in range(90))
    write_video(path, numbers, rate=FILM, codec=codec)
    _damage(path, 9, 60)
    wanted = [60, 7, 88, 61, 60]
    assert [counter(frame[::4, ::4]) for frame in read_frames(path, wanted, rate=FILM)] == wanted
    with pytest.raises(FootageError):
        read_frames(path, [60, 90], rate=FILM)


def test_pictures_coded_alone_without_time_stamps_are_counted(tmp_path):
    path = tmp_path / "a.mjpeg"
    with av.open(str(path), "w", format="mjpeg") as container:
        stream = container.add_stream("mjpeg", rate=25)
        stream.width, stream.height, stream.pix_fmt = 80, 48, "yuvj420p"
        for number in range(70):
            pixels = (counted(number) * 255).astype(np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode())
    wanted = [66, 0, 52]
    assert [counter(frame) for frame in read_frames(path, wanted, rate=Fraction(25))] == wanted


def test_crop_then_size(tmp_path):
    write_video(tmp_path / "a.mov", [patches()] * 2, rate=FILM, codec="prores_hq")
    whole = read_frames(tmp_path / "a.mov", [1])
    part = read_frames(tmp_path / "a.mov", [1], crop=(10, 20, 50, 30))
    assert np.array_equal(part, whole[:, 20:50, 10:60])
    assert read_frames(tmp_path / "a.mov", [1], crop=(10, 20, 50, 30), size=(24, 16)).shape == (1, 16, 24, 3)
    with pytest.raises(FootageError, match="outside a picture of 128x96"):
        read_frames(tmp_path / "a.mov", [1], crop=(100, 0, 50, 30))


def test_writing_takes_iterators_and_sizes(tmp_path):
    write_video(tmp_path / "a.mp4", iter([patches()] * 3), rate=Fraction(24), size=(64, 48))
    assert (probe(tmp_path / "a.mp4").width, probe(tmp_path / "a.mp4").frames) == (64, 3)


@pytest.mark.parametrize(("frames", "words"), [([], "no frames"), ([np.zeros((15, 16, 3))], "even sides")])
def test_impossible_movies_leave_nothing_behind(tmp_path, frames, words):
    with pytest.raises(FootageError, match=words):
        write_video(tmp_path / "a.mp4", frames, rate=Fraction(24))
    assert list(tmp_path.iterdir()) == []


def _text(path):
    path.write_text("this is not a film\n" * 50)


def _nothing(path):
    path.write_bytes(b"")


def _cut(share):
    def make(path):
        rng = np.random.default_rng(0)
        write_video(path, (rng.random((48, 80, 3), np.float32) for _ in range(30)), rate=FILM)
        path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])

    return make


def _scarred(path):
    _cut(1.0)(path)
    data = bytearray(path.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 6000] = b"\x55" * 6000
    path.write_bytes(bytes(data))


def _short(path):
    write_counted(path, 3)


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (_text, "not a video, or a damaged one"),
        (_nothing, "empty"),
        (_cut(0.3), "truncated: its header promises 30 frames"),
        (_cut(0.999), "truncated: its header promises 30 frames, 27"),
        (_scarred, "damaged"),
        (_short, "too short: 3 frames, 0.13 s of the 0.4 s needed"),
        (write_sound, "sound but no picture"),
    ],
)
def test_every_refusal_says_why_and_where(tmp_path, make, reason):
    path = tmp_path / "bad.mp4"
    make(path)
    with pytest.raises(FootageError) as caught:
        probe(path, min_seconds=0.4)
    assert reason in caught.value.what
    assert caught.value.where == str(path)
    assert caught.value.remedy


def test_a_missing_file_is_an_error_not_a_traceback(tmp_path):
    with pytest.raises(FootageError, match="no such file"):
        probe(tmp_path / "absent.mov")
