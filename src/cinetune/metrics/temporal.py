"""Behaviour over time without any network: flicker, motion, frozen clips, seams and colour drift.

Frames are display R'G'B' `[T, H, W, 3]` float in [0, 1]. None of these is "higher is better": set them beside the
real shot.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy.ndimage import gaussian_filter

from cinetune.errors import ScoreError
from cinetune.metrics.checks import Array, film_frames
from cinetune.metrics.grade import delta_e2000, lab, shrink

__all__ = ["Flicker", "Motion", "Stillness", "colour_drift", "luma_flicker", "motion", "seam_ratios", "stillness"]

# Differences under a quarter of an 8-bit code value are rounding, not change.
_CHANGE_FLOOR = 0.25 / 255


@dataclass(frozen=True, slots=True, kw_only=True)
class Flicker:
    """Mean absolute second difference of mean L*: whole frame, and averaged over 4 x 4 tiles. L* units, [0, 200]."""

    frame: float
    tile: float


def luma_flicker(frames: ArrayLike) -> Flicker:
    """Exposure pulsing: `mean_t |m_{t-1} - 2 m_t + m_{t+1}|` with `m_t` the mean L* of a frame (or tile).

    The second difference ignores steady fades and, unlike mean frame difference, pans. Needs three frames
    (`ScoreError`).
    """
    light = _lightness(film_frames(frames, name="luma_flicker", least=3))
    rows, columns = (np.array_split(np.arange(n), min(4, n)) for n in light.shape[1:])
    tiles = np.stack([light[:, r[0] : r[-1] + 1, c[0] : c[-1] + 1].mean((1, 2)) for r in rows for c in columns], axis=1)
    bend = np.abs(np.diff(light.mean((1, 2)), n=2))
    return Flicker(frame=float(bend.mean()), tile=float(np.abs(np.diff(tiles, n=2, axis=0)).mean()))


@dataclass(frozen=True, slots=True, kw_only=True)
class Motion:
    """`difference`: mean |F_t+1 - F_t| in [0, 1]. `speed`: edge displacement, % of the short side per frame."""

    difference: float
    speed: float


def motion(frames: ArrayLike) -> Motion:
    """How much moves: mean frame difference, and a speed that contrast, exposure and grain hardly touch.

    Speed is the normal flow of the brightness constancy equation (Horn & Schunck 1981), `|dY/dt| / |grad Y|`, its
    median over the strongest tenth of the gradients of blurred luma, the frame-wide brightness change taken out. No
    flow is searched: it reads the motion across edges, all of it for a straight edge, 0.5 to 0.7 of it for even
    texture. It grows with motion up to about 4 % of the short side per frame and stays there, so compare it with the
    real shot and not with a ruler. Needs two frames (`ScoreError`).
    """
    film = film_frames(frames, name="motion", least=2)
    luma = shrink(film, min(film.shape[1:3]) // 96) @ np.array([0.2126, 0.7152, 0.0722])
    short = min(luma.shape[1:])
    smooth = gaussian_filter(luma, sigma=(0, short / 64, short / 64), mode="nearest")
    speeds = []
    for now, after in itertools.pairwise(smooth):
        middle = (now + after) / 2
        slope = (
            np.hypot(np.gradient(middle, axis=0), np.gradient(middle, axis=1)) if short > 1 else np.zeros_like(middle)
        )
        change = after - now
        change = np.abs(change - np.median(change))
        edge = slope >= max(np.quantile(slope, 0.9), 1e-3)
        speeds.append(float(np.median(change[edge] / slope[edge])) / short * 100 if edge.any() else 0.0)
    return Motion(difference=float(_steps(film).mean()), speed=float(np.mean(speeds)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Stillness:
    """`frozen`: nine tenths of the steps or more are still. `share` of still steps and their `longest` run."""

    frozen: bool
    share: float
    longest: int


def stillness(frames: ArrayLike, *, threshold: float = 0.5 / 255) -> Stillness:
    """Find frozen clips: a step is still when mean |F_t+1 - F_t| is under `threshold` (half an 8-bit value)."""
    still = _steps(film_frames(frames, name="stillness", least=2)) < threshold
    longest = run = 0
    for one in still:
        run = run + 1 if one else 0
        longest = max(longest, run)
    share = float(still.mean())
    return Stillness(frozen=share >= 0.9, share=share, longest=longest)


def seam_ratios(frames: ArrayLike, seams: Sequence[int]) -> Array:
    """`|F_s - F_s-1|` over the median inner |dF| for each seam s, the first frame of a new segment: `[len(seams)]`.

    1 is an invisible join, above about 2 it shows. The divisor is at least a quarter of an 8-bit code value, so still
    clips give a finite number. Raises `ScoreError` for a seam outside 1..T-1 or when no inner step is left.
    """
    film = film_frames(frames, name="seam_ratios", least=2)
    step = _steps(film)
    for seam in seams:
        if not 1 <= seam < len(film):
            raise ScoreError(f"seam {seam} is outside 1 to {len(film) - 1}", where="seam_ratios")
    at = np.asarray(seams, dtype=np.intp) - 1
    inner = np.delete(step, at)
    if len(inner) == 0:
        raise ScoreError("every step is a seam, there is nothing to compare with", where="seam_ratios")
    return step[at] / max(float(np.median(inner)), _CHANGE_FLOOR)


def colour_drift(frames: ArrayLike) -> Array:
    """dE2000 between the mean Lab colour of each frame and of the first, `[T]`; index 0 is 0. Range [0, inf)."""
    film = film_frames(frames, name="colour_drift")
    mean = lab(shrink(film, min(film.shape[1:3]) // 128)).mean((1, 2))
    return delta_e2000(mean, mean[:1])


def _lightness(film: np.ndarray) -> Array:
    return lab(shrink(film, min(film.shape[1:3]) // 128))[..., 0]


def _steps(film: np.ndarray) -> Array:
    return np.asarray([np.abs(after - now).mean(dtype=np.float64) for now, after in itertools.pairwise(film)])
