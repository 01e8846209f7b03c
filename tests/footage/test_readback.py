"""A movie that is not what was promised is found out, whatever the lie."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

from cinetune.errors import FootageError
from cinetune.footage.write import formats
from cinetune.footage.write.formats import DELIVERIES, Picture, SlateCard
from cinetune.footage.write.movies import MOVIES, encode_movie, write_video
from cinetune.footage.write.readback import check_movie, movie_facts
from films import FILM, drift, patches, write_tagged

PROMISE = {"frames": 5, "rate": FILM, "size": (80, 48), "bits": 8, "timecode": "01:00:00:00"}
CARD = SlateCard(film="film", shot="SQ010 SH0010", version=3, look="look", conform="hold from 16 fps")


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "a.mp4"
    write_video(path, drift(1, 5), rate=FILM, timecode="01:00:00:00")
    return path


def test_a_true_promise_holds(path):
    check_movie(path, **PROMISE)


@pytest.mark.parametrize(
    ("lie", "words"),
    [
        ({"frames": 6}, "frames 5, not 6"),
        ({"rate": Fraction(24)}, "rate 24000/1001, not 24"),
        ({"size": (80, 50)}, r"size \(80, 48\)"),
        ({"bits": 10}, "bits 8, not 10"),
        ({"timecode": "01:00:00:01"}, "timecode 01:00:00:00, not 01:00:00:01"),
        ({"frames": 6, "bits": 10}, "frames 5, not 6; bits 8, not 10"),
    ],
)
def test_every_broken_promise_is_named(path, lie, words):
    with pytest.raises(FootageError, match=words) as caught:
        check_movie(path, **PROMISE | lie)
    assert str(path) in caught.value.where and caught.value.remedy


@pytest.mark.parametrize("tags", [(2, 2, 2, 0), (1, 1, 1, 2), (5, 1, 1, 1)])
def test_wrong_tags_are_found(tmp_path, tags):
    write_tagged(tmp_path / "a.mov", [patches(48, 80)] * 3, tags=tags)
    with pytest.raises(FootageError, match="colour tags"):
        check_movie(tmp_path / "a.mov", **PROMISE | {"frames": 3, "timecode": None})


def test_one_late_frame_is_found(tmp_path):
    write_tagged(tmp_path / "a.mkv", [patches(48, 80)] * 4, tags=(1, 1, 1, 1), stamps=[0, 1, 3, 4])
    assert movie_facts(tmp_path / "a.mkv").rate is None


def test_a_truncated_file_is_found(path):
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) * 2 // 3])
    with pytest.raises(FootageError):
        check_movie(path, **PROMISE)


def test_what_does_not_read_back_is_not_delivered(tmp_path, monkeypatch):
    """An encoder that drops the last frame, caught between writing and naming."""

    def forgetful(path, frames, movie, **told):
        return encode_movie(path, list(frames)[:-1], movie, **told)

    monkeypatch.setattr(formats, "encode_movie", forgetful)
    master = np.rint(drift(1, 4) * 65535).astype(np.uint16)
    picture = Picture(frames_THWC=master, shown=[0, 1, 2, 3], rate=Fraction(24))
    with pytest.raises(FootageError, match="frames 3, not 4"):
        DELIVERIES["prores_hq"].write(tmp_path / "a", picture, CARD)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("codec", "size", "rate", "words"),
    [
        ("dnxhr_hqx", (254, 144), Fraction(24), "256x120"),
        ("dnxhr_hqx_mxf", (256, 144), Fraction(16), "16 frames per second"),
        ("prores_4444", (81, 48), Fraction(24), "even"),
    ],
)
def test_what_a_format_cannot_hold_is_said_with_a_remedy(tmp_path, codec, size, rate, words):
    frames = np.zeros((2, size[1], size[0], 3), np.float32)
    with pytest.raises(FootageError, match=words) as caught:
        write_video(tmp_path / f"a{MOVIES[codec].suffix}", frames, rate=rate, codec=codec)
    assert "deliver." in caught.value.remedy and list(tmp_path.iterdir()) == []
