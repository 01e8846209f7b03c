"""Reference augmentation: the picture an image-to-video model starts from is re-graded at random, the clip it must
produce is not.

An adapter trained only on clips whose first frame already wears the look learns to copy that frame; given a neutral
first frame it does nothing. With the condition re-graded it has to produce the look from frame 0 on.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from cinetune.errors import ModelError
from cinetune.runtime import derive
from cinetune.sections import AugmentSection

__all__ = ["Grade", "apply_grade", "draw_grade", "regrade"]

BT709_LUMA = np.array((0.2126, 0.7152, 0.0722), dtype=np.float32)


@dataclass(frozen=True, slots=True, kw_only=True)
class Grade:
    """One drawn re-grade. `saturation` 1, `gain` 1, `offset` 0, `gamma` 1, `grain` 0 and `blur` 0 change nothing.

    `grain` is the standard deviation of Gaussian noise, in picture units of [0, 1]; `blur` the standard deviation of
    a Gaussian, in pixels.
    """

    saturation: float = 1.0
    gain: tuple[float, float, float] = (1.0, 1.0, 1.0)
    offset: tuple[float, float, float] = (0.0, 0.0, 0.0)
    gamma: float = 1.0
    grain: float = 0.0
    blur: float = 0.0


def draw_grade(ranges: AugmentSection, random: np.random.Generator) -> Grade:
    """Draw every value uniformly from its range; grain and blur from 0 to their maximum."""
    return Grade(
        saturation=float(random.uniform(*ranges.saturation)),
        gain=_three(random, ranges.gain),
        offset=_three(random, ranges.offset),
        gamma=float(random.uniform(*ranges.gamma)),
        grain=float(random.uniform(0, ranges.grain)),
        blur=float(random.uniform(0, ranges.blur)),
    )


def apply_grade(frame_HWC: NDArray[np.float32], grade: Grade, random: np.random.Generator) -> NDArray[np.float32]:
    """The frame (float32 RGB in [0, 1]) re-graded: saturation about BT.709 luma, gain and offset, gamma, then blur
    and grain. Stays in [0, 1].
    """
    luma = (frame_HWC @ BT709_LUMA)[..., None]
    x = luma + (frame_HWC - luma) * np.float32(grade.saturation)
    x = x * np.asarray(grade.gain, np.float32) + np.asarray(grade.offset, np.float32)
    x = np.clip(x, 0, 1) ** np.float32(grade.gamma)
    if grade.blur > 0:
        x = gaussian_filter(x, sigma=(grade.blur, grade.blur, 0), mode="nearest")
    if grade.grain > 0:
        x = x + np.float32(grade.grain) * random.standard_normal(x.shape, dtype=np.float32)
    return np.clip(x, 0, 1).astype(np.float32)


def regrade(
    frame_HWC: NDArray[np.float32], ranges: AugmentSection, *, seed: int, window: str, variant: int
) -> NDArray[np.float32]:
    """Re-graded variant number `variant` (from 1) of the first frame of `window`: the same bytes for the same seed,
    window and variant.

    Raises `ModelError` for a frame that is not float `[H, W, 3]`.
    """
    if frame_HWC.ndim != 3 or frame_HWC.shape[2] != 3:
        raise ModelError(f"a first frame must be [H, W, 3], not {list(frame_HWC.shape)}", where=f"window {window}")
    random = np.random.default_rng(derive(seed, "augment", window, variant))
    return apply_grade(frame_HWC.astype(np.float32), draw_grade(ranges, random), random)


def _three(random: np.random.Generator, limits: tuple[float, float]) -> tuple[float, float, float]:
    red, green, blue = (float(value) for value in random.uniform(*limits, size=3))
    return red, green, blue
