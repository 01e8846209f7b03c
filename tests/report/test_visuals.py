"""What stands before the numbers: the order of the shots, the one in the middle, curves and palettes."""

from __future__ import annotations

from typing import Literal

import numpy as np
from PIL import Image

from cinetune.artifacts import Score, Scorecard
from cinetune.report.visuals import colours, distance_curves, gains, middle_shot, worst_first


def card(
    changes: dict[str, float],
    *,
    better: Literal["lower", "higher"] = "lower",
    curves: dict[str, tuple[float, ...]] | None = None,
) -> Scorecard:
    score = Score(metric="tone_w1", version="1", unit="L*", better=better, value=0.0, claim="closer")
    rows = {shot: {"base": 10.0, "look": 10.0 + change} for shot, change in changes.items()}
    return Scorecard(
        arm="look", versus="base", domain="in", shots=tuple(changes), seeds=(0,), levels={}, effects=(score,),
        per_shot={"tone_w1": rows}, protocol={}, warnings=(), curves=curves or {},
    )  # fmt: skip


def test_shots_are_ranked_by_what_they_gained_and_unknown_ones_come_last() -> None:
    found = gains([card({"a": -2.0, "b": 1.0, "c": -5.0})])
    assert found["b"]["lost"] and not found["a"]["lost"] and "+1" in found["b"]["text"]
    assert worst_first(["z", "a", "b", "c"], found) == ["b", "a", "c", "z"]
    assert middle_shot(["a", "b", "c", "z"], found) == "a"
    assert middle_shot(["z"], found) == "z" and middle_shot([], {}) is None
    turned = gains([card({"a": -2.0, "b": 1.0}, better="higher")])
    assert worst_first(["a", "b"], turned) == ["a", "b"] and turned["a"]["lost"]


def test_distance_over_the_frames_is_drawn_where_it_is_known() -> None:
    assert distance_curves([card({"a": 1.0})]) == []
    (drawn,) = distance_curves([card({"a": 1.0}, curves={"look": (0.1, 0.2), "base": (0.2, 0.3), "floor": (0.0, 0.0)})])
    assert drawn["plot"].count("<polyline") == 3 and "floor: the truth through the VAE" in drawn["plot"]


def test_palettes_show_the_pictures_own_colours_by_their_share() -> None:
    pixels = np.zeros((40, 40, 3), np.uint8)
    pixels[:10] = (200, 40, 40)
    drawn = colours({"film": [Image.fromarray(pixels)], "look": []}, where="here")
    assert drawn is not None
    assert 'fill="rgb(200,40,40)"' in drawn["palette"] and 'fill="rgb(0,0,0)"' in drawn["palette"]
    assert 'width="112.5"' in drawn["palette"], "a quarter of the bar"
    assert drawn["tone"].count("<polyline") == 1
    assert colours({"film": [], "look": [Image.fromarray(pixels)]}, where="here") is None
