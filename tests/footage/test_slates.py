"""Leaders, bars, slates, charts and cards are told from shots, and shots are not taken for them."""

from __future__ import annotations

import numpy as np
import pytest
import skimage.data

from cinetune.backlot.scenes import render, sample_scene
from cinetune.footage.cut.slates import Samples, drawn
from cinetune.footage.read.color import resize
from cinetune.footage.video import probe, write_video
from cinetune.footage.write.overlay import SlateCard, slate
from films import FILM, drift
from reels import leaders

CARD = SlateCard(film="A FILM", shot="SQ010_SH0040", version=3, look="two-strip", conform="none")


def small(rgb):
    """As `thumbnail` would: BGR uint8, 256 wide at most."""
    height, width = rgb.shape[:2]
    if width > 256:
        rgb = resize(rgb.astype(np.float32), (256, round(height * 256 / width)))
    return np.ascontiguousarray(np.rint(rgb * 255).clip(0, 255).astype(np.uint8)[..., ::-1])


def watched(path, film, codec="h264"):
    samples = Samples()
    write_video(path, film, rate=FILM, codec=codec)
    probe(path, on_frame=samples.see)
    return samples


@pytest.mark.parametrize(
    ("film", "kind"),
    [
        (leaders.counted_down(), "countdown leader"),
        (leaders.counted_down(grain=0.0, weave=0.0), "countdown leader"),
        (leaders.with_bars(), "colour bars"),
        (leaders.with_bars(level=1.0, noise=0.0), "colour bars"),
        (leaders.with_bars(noise=0.06), "colour bars"),
        (leaders.carded(), "plain card"),
        (leaders.charted(), "slate, title or chart"),
    ],
)
def test_each_kind_by_one_picture_and_not_the_shot_behind_it(film, kind):
    assert drawn(small(film[7])) == kind
    assert drawn(small(film[-1])) == ""


@pytest.mark.parametrize("size", [(1280, 720), (1920, 1080), (640, 480), (480, 640)])
def test_our_own_slate_at_any_size(size):
    picture = slate(size, CARD, {"Frames": "1001-1048", "Rate": "24"}, leaders.logo(drift(1, 1, 128, 192)[0], 0))
    assert drawn(small(picture)) == "slate, title or chart"


def test_bars_in_another_order_are_no_colour_bars():
    bars = leaders.with_bars(noise=0.0)[0]
    assert drawn(small(bars)) == "colour bars"
    assert drawn(small(bars[:, ::-1])) != "colour bars"
    quarter = small(bars).copy()
    quarter[20:40] = 90  # something lies across them
    assert drawn(quarter) != "colour bars"


def test_a_disc_in_the_middle_without_a_cross_is_no_countdown():
    y, x = np.mgrid[:144, :256]
    disc = np.where(np.hypot(y - 71.5, x - 127.5) < 50, 200.0, 40.0) + np.random.default_rng(0).normal(0, 4, (144, 256))
    assert drawn(np.repeat(disc.clip(0, 255).astype(np.uint8)[..., None], 3, 2)) == ""


@pytest.mark.parametrize(
    "name",
    ["astronaut", "chelsea", "coffee", "rocket", "camera", "coins", "moon", "hubble_deep_field", "clock", "cell"],
)
def test_photographs_are_pictures(name):
    picture = np.asarray(getattr(skimage.data, name)(), np.float32) / np.float32(255)
    picture = np.repeat(picture[..., None], 3, 2) if picture.ndim == 2 else picture[..., :3]
    assert drawn(small(picture)) == "" and drawn(small(picture * np.float32(0.2))) == ""


def test_fog_is_a_picture():
    light = 0.55 + 0.12 * np.linspace(0, 1, 144)[:, None, None] * np.ones((1, 256, 3))
    assert drawn(small(light)) == ""


def test_flat_drawn_backlot_scenes_are_pictures():
    rng = np.random.default_rng(4)
    for number in range(10):
        scene = sample_scene(rng, domain=("historical", "sci-fi")[number % 2])
        assert drawn(small(render(scene, frames=1, height=128, width=192)[0])) == ""


def interview(moving: int) -> np.ndarray:
    """48 frames before one exact colour, as a keyed background is; a head of flat colours moves by `moving` pixels."""
    film = np.full((48, 144, 256, 3), (0.25, 0.3, 0.35), np.float32)
    for number, picture in enumerate(film):
        x = 110 + round(moving * np.sin(number / 4))
        picture[80:, 90:170] = (0.1, 0.1, 0.12)
        picture[36:84, x : x + 36] = (0.8, 0.6, 0.5)
        picture[70:74, x + 12 : x + 24] = (0.5, 0.2, 0.2)
    return film


def test_what_is_flat_is_a_slate_only_while_it_stands_still(tmp_path):
    """A person before a keyed background moves; the same picture without motion is told by nothing from a slate."""
    assert watched(tmp_path / "a.mp4", interview(3)).slate(0, 48) == ""
    assert watched(tmp_path / "b.mp4", interview(0)).slate(0, 48) == "slate, title or chart"


def test_running_figures_do_not_hide_a_slate_and_edges_are_exact(tmp_path):
    samples = watched(tmp_path / "a.mov", leaders.slated(), "prores_hq")
    assert samples.slate(0, 24) == "slate, title or chart"
    assert samples.slate(24, 40) == "" and samples.slate(0, 40) == ""


def test_views_are_unlike_and_spread_over_the_film(tmp_path):
    """One locked-off shot is one view; of 60 different ones, at most 48 are kept, from the first to near the last."""
    still = drift(1, 1, 96, 128).repeat(60, axis=0)
    assert len(watched(tmp_path / "a.mp4", still).views()) == 1
    cut = np.concatenate([drift(seed, 1, 96, 128).repeat(6, axis=0) for seed in range(60)])
    places = [view.index for view in watched(tmp_path / "b.mp4", cut).views()]
    assert 20 <= len(places) <= 48 and places[0] == 0 and places[-1] >= 300 and places == sorted(places)
