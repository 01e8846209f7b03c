"""Shots end exactly where the cut is; black, fades and frozen frames are no shots; bars are found to the pixel."""

from __future__ import annotations

import numpy as np
import pytest

from cinetune.footage.cut.cuts import Signals, Watcher, find_bars, find_pieces, shared_bars
from cinetune.footage.video import probe, write_video
from films import FILM, drift
from reels.spoiled import barred, cut, pan


def watch(path, film, codec="h264"):
    write_video(path, film, rate=FILM, codec=codec)
    watcher = Watcher()
    probe(path, on_frame=watcher.see)
    return watcher.signals()


def spans(signals, **options):
    pieces, left_out = find_pieces(signals, rate=FILM, min_seconds=0.5, **options)
    return [(piece.start, piece.start + piece.frames) for piece in pieces], left_out


@pytest.mark.parametrize(("codec", "suffix"), [("h264", ".mp4"), ("prores_hq", ".mov")])
def test_hard_cuts_fades_black_and_frozen_pieces(tmp_path, codec, suffix):
    """40 | 23 clean + 12 fading out | 6 black | 12 fading in + 38 clean | 5 too short | 24 frozen."""
    one, two, three = drift(1, 40), drift(2, 35), drift(3, 50)
    two[-12:] *= (1 - np.arange(1, 13, dtype=np.float32) / 12)[:, None, None, None]
    three[:12] *= (np.arange(12, dtype=np.float32) / 12)[:, None, None, None]
    film = np.concatenate([one, two, np.zeros_like(one[:6]), three, drift(4, 5), drift(5, 1).repeat(24, axis=0)])
    found, left_out = spans(watch(tmp_path / f"a{suffix}", film, codec))
    assert found == [(0, 40), (40, 63), (93, 131)]
    assert left_out[0].endswith("black frames") and left_out[1].endswith("fade frames")
    assert "frozen piece 136..159" in left_out and "1 piece under 0.5 s" in left_out


def test_two_cuts_five_frames_apart_are_both_found(tmp_path):
    film = np.concatenate([drift(1, 30), drift(2, 5), drift(3, 30)])
    assert watch(tmp_path / "a.mp4", film).cuts == (30, 35)


def test_one_shot_is_one_piece_even_when_it_moves_fast(tmp_path):
    film = drift(7, 60)
    fast = np.stack([np.roll(frame, 3 * k, axis=1) for k, frame in enumerate(film)])
    assert spans(watch(tmp_path / "a.mp4", fast))[0] == [(0, 60)]


def test_an_edit_list_replaces_detection_but_not_the_checks(tmp_path):
    film = np.concatenate([drift(1, 40), drift(2, 40)])
    film[:4] = 0
    found, _ = spans(watch(tmp_path / "a.mp4", film), spans=[(0, 30), (40, 80)])
    assert found == [(4, 30), (40, 80)]


def test_repeated_frames_are_noted():
    change = np.full(100, 40)
    change[0], change[5::5] = 255, 0
    flat = np.full(100, 0.5)
    cells = np.random.default_rng(0).uniform(0, 255, (100, 18, 32)).astype(np.float16)
    lines = np.ones((20, 4)), np.ones((20, 6))
    signals = Signals((), flat, flat, change, cells, *lines, *lines)
    pieces, _ = find_pieces(signals, rate=FILM, min_seconds=0.5)
    assert "19% of frames repeat" in pieces[0].notes[0]


def framed(top: int, bottom: int, left: int, right: int) -> np.ndarray:
    film = drift(3, 12, 96, 128)
    film[:, :top], film[:, 96 - bottom :] = 0.01, 0.0
    film[:, :, :left], film[:, :, 128 - right :] = 0.0, 0.01
    return film


@pytest.mark.parametrize(
    ("bars", "picture"),
    [
        ((12, 12, 0, 0), (0, 12, 128, 72)),
        ((0, 0, 16, 16), (16, 0, 96, 96)),
        ((10, 10, 8, 8), (8, 10, 112, 76)),
        ((11, 11, 0, 0), (0, 12, 128, 72)),
        ((0, 0, 0, 0), (0, 0, 128, 96)),
        ((0, 20, 0, 0), (0, 0, 128, 96)),
    ],
    ids=["letterbox", "pillarbox", "both", "odd edges go inward", "none", "a dark floor is no bar"],
)
def test_bars_are_exact(bars, picture):
    assert find_bars(framed(*bars)) == picture


def test_dark_frames_make_no_bars_and_hide_none():
    film = framed(12, 12, 0, 0)
    film[:-1] *= 0.02
    assert find_bars(film) == (0, 12, 128, 72)
    assert find_bars(film[:-1]) == (0, 0, 128, 96)


def bars_of(signals, *, turn=0):
    pieces, _ = find_pieces(signals, rate=FILM, min_seconds=0.4)
    return shared_bars(signals, pieces, turn=turn)


def test_bars_survive_the_codec(tmp_path):
    signals = watch(tmp_path / "a.mp4", framed(12, 12, 0, 0))
    assert bars_of(signals) == ((0, 12, 128, 72), ())
    assert bars_of(signals, turn=1) == ((12, 0, 72, 128), ())


@pytest.mark.parametrize("turn", range(4))
def test_uneven_bars_turn_with_the_picture(tmp_path, turn):
    """12 above, 14 below: the side tells which way the picture was turned."""
    signals = watch(tmp_path / "a.mp4", framed(12, 14, 0, 0))
    expected = find_bars(np.rot90(framed(12, 14, 0, 0), turn, axes=(1, 2)))
    assert bars_of(signals, turn=turn)[0] == expected


@pytest.mark.parametrize("bars", [(12, 12, 0, 0), (0, 0, 16, 16), (10, 10, 8, 8)], ids=["letter", "pillar", "window"])
@pytest.mark.parametrize("light", [1.0, 0.25], ids=["bright", "dark"])
def test_grain_hides_no_bars_even_in_the_dark(bars, light):
    """Grain of 2 % over the whole raster, bars included, through 60 frames."""
    film = np.concatenate([framed(*bars)] * 5) * np.float32(light)
    film += np.random.default_rng(0).normal(0.01, 0.02, (*film.shape[:3], 1)).astype(np.float32)
    top, bottom, left, right = bars
    assert find_bars(film) == (left, top, 128 - left - right, 96 - top - bottom)


def test_a_shot_whose_bars_change_is_left_out_and_a_dark_moment_is_no_bar(tmp_path):
    steady, dark = drift(3, 50, 96, 128), drift(3, 50, 96, 128)
    changing = steady.copy()
    changing[25:, :12] = changing[25:, -12:] = 0
    dark[25:, :30] *= 0.1
    dark[25:, -20:] *= 0.1
    for film, kept in ((steady, 1), (changing, 0), (dark, 1)):
        signals = watch(tmp_path / "a.mp4", film)
        pieces, left_out = find_pieces(signals, rate=FILM, min_seconds=0.5, spans=[(0, 50)], steady_bars=True)
        assert len(pieces) == kept
        assert ("piece 0..49, whose bars change" in left_out) == (not kept)


def test_shots_of_two_shapes_share_what_both_show(tmp_path):
    wide, open_matte = drift(3, 30, 96, 128), drift(4, 40, 96, 128)
    wide[:, :12] = wide[:, -12:] = 0
    box, notes = bars_of(watch(tmp_path / "a.mp4", np.concatenate([wide, open_matte])))
    assert box == (0, 12, 128, 72)
    assert notes == ("bars differ between shots (2 kinds): cropped to what all share",)


NIGHTS = [0.08, 0.12, 0.18]


@pytest.mark.parametrize("gain", NIGHTS)
@pytest.mark.parametrize("grain", [0.0, 0.005])
def test_a_night_between_bars_is_no_black_and_loses_only_its_bars(tmp_path, gain, grain):
    """Nothing is brighter than `gain`, less than the bars of a bright film may be."""
    night = cut(24, 24)
    for film, box in ((barred(night, 0, 12, gain=gain, grain=grain), (0, 12, 64, 48)), (night * gain, (0, 0, 64, 48))):
        signals = watch(tmp_path / "a.mp4", film)
        assert spans(signals)[0] == [(0, 24), (24, 48)]
        assert bars_of(signals) == (box, ())
        assert find_bars(film) == box


@pytest.mark.parametrize("number", range(6))
@pytest.mark.parametrize("gain", NIGHTS)
def test_a_night_without_bars_loses_no_line(number, gain):
    """Nor one whose edges lie in the dark, as under a lamp."""
    film = pan(number, 12, height=96, width=128) * np.float32(gain)
    assert find_bars(film) == (0, 0, 128, 96)
    y, x = np.mgrid[-1:1:96j, -1:1:128j]
    assert find_bars(film * np.exp(-4 * (x**2 + y**2)).astype(np.float32)[..., None]) == (0, 0, 128, 96)


@pytest.mark.parametrize("frames", [20, 60])
@pytest.mark.parametrize("number", range(3))
def test_a_grainy_still_is_frozen_however_the_codec_refines_it(tmp_path, number, frames):
    still = np.repeat(pan(number, 1), frames, axis=0)
    found, left_out = spans(watch(tmp_path / "a.mp4", still))
    assert found == [] and left_out == [f"frozen piece 0..{frames - 1}"]


def mover() -> np.ndarray:
    """A locked-off shot in which a patch of 4 by 4 pixels in 80 by 48 crosses slowly."""
    film = np.repeat(drift(5, 1), 60, axis=0)
    for k in range(60):
        film[k, 30:34, 10 + k // 2 : 14 + k // 2] = 0.95
    return film


@pytest.mark.parametrize("codec", ["h264", "prores_hq"])
@pytest.mark.parametrize("kind", ["mover", "twos", "threes", "grain"])
def test_what_moves_a_little_or_seldom_is_not_frozen(tmp_path, kind, codec):
    film = {
        "mover": mover,
        "twos": lambda: np.repeat(pan(0, 30), 2, axis=0),
        "threes": lambda: np.repeat(pan(0, 20), 3, axis=0),
        "grain": lambda: pan(0, 1) + np.random.default_rng(0).normal(0, 0.03, (60, 48, 64, 1)).astype(np.float32),
    }[kind]()
    path = tmp_path / ("a.mp4" if codec == "h264" else "a.mov")
    assert spans(watch(path, np.clip(film, 0, 1), codec))[0] == [(0, 60)]
