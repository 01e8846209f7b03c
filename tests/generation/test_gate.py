"""The gate: its measures are where the fault is, and its limits are those of true shots."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch

from cinetune.artifacts import Limits
from cinetune.backlot.scenes import render, sample_scene
from cinetune.errors import ScoreError
from cinetune.generation import coded, limits_of, measured, true_reading
from cinetune.generation.gate import excess
from cinetune.metrics import colour_drift, luma_flicker, seam_ratios
from support import tiny_wan


@pytest.fixture(scope="module")
def films() -> list[np.ndarray]:
    rng = np.random.default_rng(3)
    return [render(sample_scene(rng), frames=21, height=32, width=48) for _ in range(24)]


def untouched(film: np.ndarray) -> np.ndarray:
    return film


def true_limits(films: list[np.ndarray], through: Callable[[np.ndarray], np.ndarray], *, stride: int) -> Limits:
    readings = [true_reading(film, through, stride=stride) for film in films]
    return limits_of([one for one in readings if one is not None])


@pytest.fixture(scope="module")
def limits(films: list[np.ndarray]) -> Limits:
    return true_limits(films, untouched, stride=4)


def test_true_shots_are_inside_their_own_limits_but_for_one_in_twenty(films: list[np.ndarray], limits: Limits) -> None:
    assert limits.clips == 24
    for name in ("jump", "drift", "flicker"):
        values = [getattr(measured(film, None, seed=0), name) for film in films]
        assert sum(value > getattr(limits, name) for value in values) == 1  # 24 values, 95th percentile
    joins = [measured(film[8:], film[1:8], seed=0, limits=limits) for film in films]
    assert sum("seam" in one.over for one in joins) == 1


def test_limits_allow_for_what_the_autoencoder_does_and_for_no_more(films: list[np.ndarray], limits: Limits) -> None:
    """A codec whose first picture is darker than the rest: shots begin with a jump, and at a join the light changes."""

    def darker_start(film: np.ndarray) -> np.ndarray:
        return np.concatenate([film[:1] * 0.9, film[1:]])

    through = true_limits(films, darker_start, stride=4)
    jumps = [colour_drift(darker_start(film))[1:5].mean() for film in films]
    assert through.jump == pytest.approx(np.quantile(jumps, 0.95, method="higher")) and through.jump > limits.jump
    # The dark picture of the second part is the one that a chain leaves out, so nothing shows at the join.
    assert through.seam == pytest.approx(limits.seam)

    def darker_by_length(film: np.ndarray) -> np.ndarray:
        return film * (0.8 if len(film) < 21 else 1)

    split = true_limits(films, darker_by_length, stride=4)
    films_joined = [np.concatenate([film[1:9], film[9:] * 0.8]) for film in films]
    seams = [float(seam_ratios(film, [8])[0]) for film in films_joined]
    assert split.seam == pytest.approx(np.quantile(seams, 0.95, method="higher"), rel=1e-5)
    assert split.jump == pytest.approx(limits.jump)


@torch.no_grad()
def test_a_real_autoencoder_raises_the_limit_of_the_jump(films: list[np.ndarray], limits: Limits) -> None:
    model = tiny_wan()
    short = films[:3]
    through = true_limits(short, partial(coded, model), stride=model.info.stride_time)
    clips = [coded(model, film) for film in short]
    assert all(clip.shape == film.shape and clip.dtype == np.float32 for clip, film in zip(clips, short, strict=True))
    assert through.jump == pytest.approx(max(colour_drift(clip)[1:5].mean() for clip in clips))
    # Decoding is causal: a part coded alone is the beginning of the whole.
    np.testing.assert_allclose(coded(model, short[0][:9]), clips[0][:9], atol=1e-5)


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
def test_each_fault_is_caught_by_its_measure(
    films: list[np.ndarray], limits: Limits, fault: str, names: set[str]
) -> None:
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


def test_short_ends_are_measured_as_far_as_they_go(films: list[np.ndarray], limits: Limits) -> None:
    one = measured(films[0][:1], None, seed=0, limits=limits)
    assert (one.seam, one.jump, one.drift, one.flicker, one.over) == (None, 0, 0, 0, ())
    two = measured(films[0][4:6], films[0][:4], seed=0, limits=limits)
    assert two.seam is not None and two.flicker == 0


def test_excess_grows_with_the_fault_and_limits_need_a_film(films: list[np.ndarray], limits: Limits) -> None:
    one = measured(films[0], None, seed=0)
    bad = replace(one, jump=limits.jump * 3, drift=limits.drift / 2, flicker=limits.flicker / 2)
    assert excess(bad, limits) == pytest.approx(2)
    with pytest.raises(ScoreError, match="no true shot"):
        true_limits([films[0][:7]], untouched, stride=4)
