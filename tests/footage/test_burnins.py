"""What is burnt in is found where it is, on the shots that have it, and nothing is found in clean films."""

from __future__ import annotations

import numpy as np
import pytest

from cinetune.backlot.scenes import render, sample_scene
from cinetune.footage.cut.burnins import BurnIn, find_burn_in, without
from cinetune.footage.cut.cuts import Piece
from cinetune.footage.cut.slates import DistinctView, Samples
from cinetune.footage.video import probe, write_video
from films import FILM
from reels import leaders

SIZE = leaders.SIZE
WHOLE = (0, 0, *SIZE)


def views_of(path, film, codec="h264"):
    samples = Samples()
    write_video(path, film, rate=FILM, codec=codec)
    probe(path, on_frame=samples.see)
    return samples.views()


def inside(box, around):
    x, y, width, height = box
    return x >= around[0] and y >= around[1] and x + width <= around[2] and y + height <= around[3]


@pytest.mark.parametrize(
    ("drawn", "around", "least"),
    [
        (leaders.timecode_window, (52, 100, 142, 122), 0.02),
        (leaders.logo, (154, 2, 188, 34), 0.015),
    ],
)
def test_a_small_one_is_found_where_it_is(tmp_path, drawn, around, least):
    found = find_burn_in(views_of(tmp_path / "a.mp4", leaders.over(drawn)), turn=0, size=SIZE, bars=WHOLE)
    assert found is not None and len(found.boxes) == 1 and inside(found.boxes[0], around)
    assert least < found.share < 0.05 and all(has for _, has in found.seen)


def test_strips_of_text_are_more_than_a_little(tmp_path):
    found = find_burn_in(views_of(tmp_path / "a.mp4", leaders.over(leaders.proxy)), turn=0, size=SIZE, bars=WHOLE)
    assert found is not None and found.share > 0.08
    assert all(inside(box, (0, 0, 192, 18)) or inside(box, (0, 110, 192, 128)) for box in found.boxes)
    pieces, words = without([Piece(0, 12, ()), Piece(12, 12, ())], found, most=0.05)
    assert pieces == [] and "burnt in over" in words[0] and "in 0..11, 12..23" in words[0]
    (marked, _), words = without([Piece(0, 12, ("x",)), Piece(12, 12, ())], found, most=0.5)
    assert marked.notes == ("x", found.words()) and words == []


def test_clean_films_have_none(tmp_path):
    assert (
        find_burn_in(views_of(tmp_path / "a.mp4", leaders.over(lambda rgb, _: rgb, 16)), turn=0, size=SIZE, bars=WHOLE)
        is None
    )
    rng = np.random.default_rng(4)
    shots = [render(sample_scene(rng, domain="historical"), frames=6, height=128, width=192) for _ in range(12)]
    views = views_of(tmp_path / "b.mp4", np.concatenate(shots))
    assert len(views) >= 5 and find_burn_in(views, turn=0, size=SIZE, bars=WHOLE) is None


def test_a_locked_off_shot_proves_nothing(tmp_path):
    film = leaders.over(leaders.logo, 1).repeat(8, axis=0)
    assert find_burn_in(views_of(tmp_path / "a.mp4", film), turn=0, size=SIZE, bars=WHOLE) is None


def test_shots_without_it_stay(tmp_path):
    """Four of sixteen shots come without the strips."""
    film = leaders.over(lambda rgb, number: rgb if number < 48 else leaders.proxy(rgb, number), 16)
    found = find_burn_in(views_of(tmp_path / "a.mp4", film), turn=0, size=SIZE, bars=WHOLE)
    assert found is not None
    pieces, words = without([Piece(at, 12, ()) for at in range(0, 192, 12)], found, most=0.05)
    assert [piece.start for piece in pieces] == [0, 12, 24, 36] and "48..59" in words[0]


def test_boxes_are_those_of_the_upright_picture_inside_its_bars():
    """A square that stays, in noise; the file is shown turned by a quarter, twice as large as the views."""
    rng = np.random.default_rng(0)
    noise = rng.uniform(0, 120, (12, 60, 90))
    noise[:, 10:20, 30:50] = 250
    views = [DistinctView(k, luma.astype(np.uint8)) for k, luma in enumerate(noise)]
    found = find_burn_in(views, turn=0, size=(180, 120), bars=(0, 0, 180, 120))
    assert found is not None
    x, y, width, height = found.boxes[0]
    assert abs(x - 60) <= 6 and abs(y - 20) <= 6 and abs(width - 40) <= 10 and abs(height - 20) <= 10
    turned = find_burn_in(views, turn=1, size=(120, 180), bars=(0, 0, 120, 180))
    assert turned is not None and len(turned.boxes) == 1
    assert abs(turned.boxes[0][0] - 20) <= 6 and abs(turned.boxes[0][1] - (180 - 100)) <= 6
    assert find_burn_in(views, turn=0, size=(180, 120), bars=(0, 60, 180, 60)) is None
    assert find_burn_in(views[:7], turn=0, size=(180, 120), bars=(0, 0, 180, 120)) is None


def test_shots_that_were_not_looked_at_are_like_their_neighbours():
    found = BurnIn(((0, 0, 2, 2),), 0.2, ((0, True), (24, False), (48, False), (54, True)))
    assert found.covers(0, 12) and found.covers(12, 24) and found.covers(60, 72) and found.covers(40, 60)
    assert not found.covers(24, 36) and not found.covers(36, 48)
