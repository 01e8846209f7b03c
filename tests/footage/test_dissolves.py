"""Dissolves are found to the frame in moving shots; moves, light and subjects alone are none."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter, zoom

from cinetune.footage.cut.dissolves import find_dissolves

HEIGHT, WIDTH = 18, 32


def shot(seed: int, frames: int, *, speed: float = 0.0) -> np.ndarray:
    """A walk over a random landscape, `speed` cells a frame, [T, 18, 32] in 8-bit levels."""
    wide = gaussian_filter(np.random.default_rng(seed).normal(size=(4 * HEIGHT, 24 * WIDTH)), 6)
    wide = 120 + 45 * wide / wide.std()
    made = []
    for k in range(frames):
        at = 40 + round(4 * speed * k)
        made.append(wide[:, at : at + 4 * WIDTH].reshape(HEIGHT, 4, WIDTH, 4).mean(axis=(1, 3)))
    return np.stack(made)


def dissolve(one: np.ndarray, two: np.ndarray, start: int, steps: int) -> np.ndarray:
    share = np.clip((np.arange(len(one)) - start + 1) / (steps + 1), 0, 1)[:, None, None]
    return one * (1 - share) + two * share


def found(planes: np.ndarray, cuts: tuple[int, ...] = ()) -> list[tuple[int, int]]:
    return find_dissolves(planes.astype(np.float16), cuts=cuts, longest=96)


@pytest.mark.parametrize("steps", [4, 12, 24, 48])
@pytest.mark.parametrize("speed", [0.0, 0.1, 0.25])
def test_a_dissolve_is_found_to_the_frame(steps, speed):
    """Or, from 16 frames on, with a sixteenth of its length on both sides. Grain leaves half a level in a cell."""
    film = dissolve(shot(1, 90, speed=speed), shot(2, 90, speed=speed / 2), 20, steps)
    film += np.random.default_rng(0).normal(0, 0.5, film.shape)
    ((start, end),) = found(film)
    spare = steps // 16
    assert -1 <= 20 - start <= spare + 1 and -1 <= end - 20 - steps <= spare + 1


def test_two_dissolves_and_a_cut_between_them():
    first = dissolve(shot(1, 60), shot(2, 60), 20, 12)
    second = dissolve(shot(3, 60), shot(4, 60), 30, 12)
    assert found(np.concatenate([first, second]), cuts=(60,)) == [(20, 32), (90, 102)]


def moving_subject() -> np.ndarray:
    film = shot(5, 80)
    for k in range(80):
        film[k, 4:16, k // 4 : k // 4 + 9] = 230
    return film


def slow_zoom() -> np.ndarray:
    wide = np.repeat(np.repeat(shot(6, 1)[0], 4, axis=0), 4, axis=1)
    film = []
    for k in range(80):
        big = np.asarray(zoom(wide, 1 + 0.006 * k, order=1))
        top, left = (big.shape[0] - 72) // 2, (big.shape[1] - 128) // 2
        film.append(big[top : top + 72, left : left + 128].reshape(HEIGHT, 4, WIDTH, 4).mean(axis=(1, 3)))
    return np.stack(film)


def whip() -> np.ndarray:
    """Still, 40 cells to the side in ten frames, still: every frame between is smeared."""
    wide = shot(7, 200, speed=0.25)
    where = np.clip(np.arange(80) - 35, 0, 10) * 16
    return np.stack([wide[max(0, at - 8) : at + 9].mean(axis=0) if 0 < at < 160 else wide[at] for at in where])


BREATH = np.sin(np.arange(80) / 12)[:, None, None]
QUIET = {
    "still": shot(8, 80),
    "slow pan": shot(8, 80, speed=0.1),
    "pan": shot(8, 80, speed=0.5),
    "fast pan": shot(8, 80, speed=1.5),
    "light": shot(8, 80) * (0.7 + 0.3 * BREATH),
    "flash": shot(8, 80) + 100 * (np.arange(80) == 40)[:, None, None],
    "cut": np.concatenate([shot(8, 40, speed=0.25), shot(9, 40, speed=0.25)]),
    "focus": np.stack([gaussian_filter(frame, 3 * np.sin(np.pi * k / 80)) for k, frame in enumerate(shot(8, 80))]),
    "subject": moving_subject(),
    "zoom": slow_zoom(),
    "whip": whip(),
}


@pytest.mark.parametrize("kind", list(QUIET))
def test_what_is_no_dissolve(kind):
    assert found(QUIET[kind], cuts=(40,) if kind == "cut" else ()) == []


def passing(seed: int, near: float, far: float) -> np.ndarray:
    """Two layers that slide past each other, each with its own texture."""
    behind, before = shot(seed, 80, speed=far), shot(seed + 500, 80, speed=near)
    where = shot(seed + 900, 80, speed=near) > 120
    return np.where(where, before, behind)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(("near", "far"), [(0.1, 0.0), (0.3, 0.1), (0.8, 0.2), (1.4, 0.4)])
def test_things_that_pass_are_no_dissolve(seed, near, far):
    assert found(passing(seed, near, far)) == []


def test_a_dissolve_of_two_moving_shots_with_depth_is_found():
    film = dissolve(passing(1, 0.2, 0.05), passing(2, 0.2, 0.05), 30, 12)
    ((start, end),) = found(film)
    assert abs(start - 30) <= 1 and abs(end - 42) <= 1


def test_a_blank_film_and_a_short_one():
    assert found(np.zeros((50, HEIGHT, WIDTH))) == [] and found(shot(1, 3)) == []
