"""The gate: its measures are where the fault is, and its limits are those of true shots."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from cinetune.backlot.scenes import render, sample_scene
from cinetune.errors import ScoreError
from cinetune.generation import measured, true_limits
from cinetune.generation.gate import excess
from cinetune.metrics import colour_drift, luma_flicker, seam_ratios


@pytest.fixture(scope="module")
def films() -> list[np.ndarray]:
    rng = np.random.default_rng(3)
    return [render(sample_scene(rng), frames=21, height=32, width=48) for _ in range(24)]


def test_true_shots_are_inside_their_own_limits_but_for_one_in_twenty(films: list[np.ndarray]) -> None:
    limits = true_limits(films)
    assert limits.clips == 24
    for name in ("jump", "drift", "flicker"):
        values = [getattr(measured(film, None, seed=0), name) for film in films]
        assert sum(value > getattr(limits, name) for value in values) == 1  # 24 values, 95th percentile
    others = [measured(film[10:], film[:10], seed=0, limits=limits) for film in films]
    assert sum("seam" in one.over for one in others) <= 4


def test_measures_are_those_of_the_metrics(films: list[np.ndarray]) -> None:
    film = films[0]
    one = measured(film[8:], film[:8], seed=7)
    assert one.seed == 7 and one.over == ()
    assert one.seam == pytest.approx(seam_ratios(film, [9])[0])
    assert one.drift == pytest.approx(colour_drift(film[8:])[-1])
    assert one.jump == pytest.approx(colour_drift(film[8:13])[1:].mean())
    assert one.flicker == pytest.approx(luma_flicker(film[8:]).frame)
    assert measured(film, None, seed=0).seam is None


@pytest.mark.parametrize(
    ("fault", "names"),
    [
        ("pop", {"seam"}),
        ("under-graded start", {"jump"}),
        ("slow fade", {"drift"}),
        ("pulsing", {"flicker"}),
        ("none", set()),
    ],
)
def test_each_fault_is_caught_by_its_measure(films: list[np.ndarray], fault: str, names: set[str]) -> None:
    limits = true_limits(films)
    film = next(f for f in films if not measured(f[8:], f[:8], seed=0, limits=limits).over).copy()
    light = np.zeros(len(film))
    match fault:
        case "pop":
            film[9:] = np.roll(film[9:], 12, axis=2)
        case "under-graded start":
            light[9:] = 0.15
        case "slow fade":
            light[9:] = np.linspace(0, -0.25, len(film) - 9)
        case "pulsing":
            light[10::2] = 0.04
    broken = np.clip(film + light[:, None, None, None], 0, 1)
    one = measured(broken[8:], broken[:8], seed=0, limits=limits)
    assert names <= set(one.over) and bool(one.over) == bool(names)
    assert (excess(one, limits) > 0) == bool(names)


def test_short_ends_are_measured_as_far_as_they_go(films: list[np.ndarray]) -> None:
    limits = true_limits(films)
    one = measured(films[0][:1], None, seed=0, limits=limits)
    assert (one.seam, one.jump, one.drift, one.flicker, one.over) == (None, 0, 0, 0, ())
    two = measured(films[0][4:6], films[0][:4], seed=0, limits=limits)
    assert two.seam is not None and two.flicker == 0


def test_excess_grows_with_the_fault_and_limits_need_a_film(films: list[np.ndarray]) -> None:
    limits = true_limits(films)
    one = measured(films[0], None, seed=0)
    bad = replace(one, jump=limits.jump * 3, drift=limits.drift / 2, flicker=limits.flicker / 2)
    assert excess(bad, limits) == pytest.approx(2)
    with pytest.raises(ScoreError, match="no true shot"):
        true_limits([])
