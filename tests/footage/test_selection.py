"""Which windows and scenes are taken: pure choices, checked as such."""

from __future__ import annotations

from collections import Counter
from fractions import Fraction

from hypothesis import given
from hypothesis import strategies as st

from cinetune.artifacts import Measures, Split, Window
from cinetune.config import PrepareSection
from cinetune.footage.cut.selection import connected, crowded, fair_share, held_scenes, left_out, repeats, scene_table

NAMES = st.sampled_from("abcdefgh")


def _windows(*scenes: str, split: Split = "train") -> list[Window]:
    return [
        Window(
            id=f"w{k}", shot=f"s{k}", clip="c", scene=scene, split=split, source_frames=(0, 1), rate=Fraction(16),
            crop=(0, 0, 8, 8), width=8, height=8, caption="", caption_source="",
        )
        for k, scene in enumerate(scenes)
    ]  # fmt: skip


def _measures(*pairs):
    return [
        Measures(window=f"w{k}", motion=motion, sharpness=sharpness, brightness=0.5, black=0.0)
        for k, (motion, sharpness) in enumerate(pairs)
    ]


@given(st.lists(NAMES, max_size=30), st.integers(1, 12))
def test_shots_share_what_a_scene_may_have(shots, most):
    kept = fair_share(shots, most)
    assert kept == sorted(set(kept)) and len(kept) == min(most, len(shots))
    counts, all_counts = Counter(shots[k] for k in kept), Counter(shots)
    for one in counts:
        for other in all_counts:
            assert counts[one] <= counts[other] + 1 or counts[other] == all_counts[other]


@given(st.sets(NAMES, min_size=1), st.lists(st.tuples(NAMES, NAMES), max_size=8))
def test_linked_names_have_one_leader(names, links):
    links = [(a, b) for a, b in links if a in names and b in names]
    leader = connected(names, links)
    assert set(leader) == names and all(leader[leader[name]] == leader[name] <= name for name in names)
    assert all(leader[a] == leader[b] for a, b in links)
    assert len(set(leader.values())) >= len(names) - len({frozenset(link) for link in links if link[0] != link[1]})


@given(st.sets(NAMES, min_size=3), st.lists(st.tuples(NAMES, NAMES), max_size=4))
def test_linked_scenes_go_to_one_side(scenes, links):
    links = [(a, b) for a, b in links if a in scenes and b in scenes]
    held = held_scenes(PrepareSection(on_leak="move"), sorted(scenes), links)
    assert held < scenes
    assert all((a in held) == (b in held) for a, b in links)
    assert held_scenes(PrepareSection(), sorted(scenes), links) == held_scenes(PrepareSection(), sorted(scenes), [])


def test_what_is_left_out_and_why():
    windows = _windows("a", "a", "a", "b")
    measures = _measures((0.5, 0.9), (3, 0.1), (3, 0.9), (3, 0.9))
    assert left_out(PrepareSection(), windows, measures) == [""] * 4
    reasons = left_out(PrepareSection(min_motion=1, min_sharpness=0.2), windows, measures)
    assert reasons == [
        "motion 0.50 is under prepare.min_motion 1", "sharpness 0.100 is under prepare.min_sharpness 0.2", "", "",
    ]  # fmt: skip
    capped = left_out(PrepareSection(max_windows_per_scene=2), windows, measures)
    assert capped == ["", "", "its scene has 3 windows, prepare.max_windows_per_scene is 2", ""]
    # a window that is left out anyway does not use up its scene's share
    assert left_out(PrepareSection(max_windows_per_scene=2, min_motion=1), windows, measures)[1:] == [""] * 3


def test_a_scene_with_more_than_half_is_told_with_the_number_that_helps():
    assert crowded(_windows("a", "a", "b", "b")) == ""
    assert crowded(_windows("a", "a")) == ""
    warning = crowded(_windows("a", "a", "a", "b", "c"))
    assert "'a' has 3 of 5 training windows" in warning and "max_windows_per_scene = 1 " in warning


def test_the_table_of_scenes():
    text = scene_table([*_windows("castle", "castle"), *_windows("sea", split="held")])
    assert text.splitlines() == [
        "scene   windows  length  split", "castle  2        0.2 s   train", "sea     1        0.1 s   held out",
    ]  # fmt: skip


def test_a_repeat_is_named_after_the_nearest_shot_that_is_none_itself():
    shots = ["a", "a", "b", "c", "d"]
    copies = [(0, 2, 0.2), (1, 2, 0.1), (2, 3, 0.05), (1, 4, 0.2), (3, 4, 0.15)]
    # b repeats a, so c, which is like b alone, stays; d is like both that stay, and nearer to c
    assert repeats(shots, copies) == {"b": ("a", 0.1), "d": ("c", 0.15)}
    assert repeats(shots, []) == {} and repeats(shots, [(4, 3, 0.2)]) == {"d": ("c", 0.2)}
