"""Is what stands in the picture still there? Measures of structure that a new grade does not move.

Frames are display R'G'B' `[T, H, W, 3]` float in [0, 1]. Luma is standardised frame by frame, so that exposure,
contrast and saturation count for nothing; what is left is drawing.
"""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.ndimage import gaussian_filter

from cinetune.errors import ScoreError
from cinetune.metrics.checks import Array, film_frames, same_shape
from cinetune.metrics.grade import shrink

__all__ = ["gradient_correlation", "standardised_luma", "structure_similarity", "warp_error"]

LUMA = np.array([0.2126, 0.7152, 0.0722])
# Of a standardised picture: four standard deviations hold nearly all of it. It enters only SSIM's two small constants.
_RANGE = 4.0
_SIDE = 256
# A frame whose luma has less spread than half an 8-bit value shows nothing.
_FLAT = 0.5 / 255


def standardised_luma(frames: ArrayLike, *, name: str = "structure") -> Array:
    """Luma `[T, H, W]` of each frame, mean 0 and deviation 1, box-averaged to a short side near 256 pixels.

    Raises `ScoreError` for a frame without any drawing (black, white, one tone): its structure is not defined.
    """
    film = film_frames(frames, name=name)
    luma = shrink(film, max(1, min(film.shape[1:3]) // _SIDE)).astype(np.float64) @ LUMA
    spread = luma.std((1, 2), keepdims=True)
    empty = np.flatnonzero(spread.ravel() < _FLAT)
    if len(empty):
        raise ScoreError(
            f"frame {empty[0]} is black or of one tone ({len(empty)} of {len(luma)} are), it has no structure",
            where=name, remedy="look at the clip; leave it out if it is meant to be empty",
        )  # fmt: skip
    return (luma - luma.mean((1, 2), keepdims=True)) / spread


def structure_similarity(x: ArrayLike, y: ArrayLike) -> Array:
    """SSIM of standardised luma per frame, `[T]`, range [-1, 1]; 1 = the same drawing in any grade.

    Wang et al. 2004: Gaussian window of deviation 1.5 cut at 3.5 deviations, K1 = .01, K2 = .03, biased moments; the
    border of half a window is left out. Equal to scikit-image's on the same planes.
    """
    one, two = _pair(x, y)
    if min(one.shape[1:]) < 11:
        raise ScoreError(f"frames of {list(one.shape[1:])} are smaller than SSIM's window of 11 pixels")
    return np.asarray([_ssim(a, b) for a, b in zip(one, two, strict=True)])


def gradient_correlation(x: ArrayLike, y: ArrayLike) -> Array:
    """Correlation of edge strength per frame, `[T]`, range [-1, 1]: are the edges where they were?

    Gradient magnitude of standardised luma blurred by one pixel, so that grain counts little.
    """
    found = []
    for a, b in zip(*_pair(x, y), strict=True):
        found.append(float(np.corrcoef(_edges(a), _edges(b))[0, 1]))
    return np.asarray(found)


def _edges(plane: NDArray[np.float64]) -> NDArray[np.float64]:
    down, across = np.gradient(gaussian_filter(plane, 1.0, mode="nearest"))
    return np.hypot(down, across).ravel()


def warp_error(frames: ArrayLike) -> float:
    """Temporal warping error: mean squared difference of each frame and the next one carried back along the flow, over
    pixels that are seen in both (Lai et al. 2018, arXiv 1808.00449). Range [0, 1].

    Flow is dense inverse search (Kroeger et al. 2016) on 8-bit luma; a pixel is hidden where forward and backward flow
    disagree: `|f + b|^2 > .01 (|f|^2 + |b|^2) + .5`. Grain and flicker raise it too, so hold it against a real shot.
    Raises `ScoreError` for fewer than two frames or sides under 16 pixels.
    """
    import cv2

    film = film_frames(frames, name="warp_error", least=2)
    film = shrink(film, max(1, min(film.shape[1:3]) // _SIDE)).astype(np.float32)
    if min(film.shape[1:3]) < 16:
        raise ScoreError(f"frames of {list(film.shape[1:3])} are too small for optical flow, 16 pixels are needed")
    luma = (film @ LUMA.astype(np.float32)).clip(0, 1)
    grey = np.round(luma * 255).astype(np.uint8)
    search: Any = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    rows, columns = np.mgrid[: film.shape[1], : film.shape[2]].astype(np.float32)
    found = []
    for (now, after), (grey_now, grey_after) in zip(itertools.pairwise(film), itertools.pairwise(grey), strict=True):
        forward, backward = search.calc(grey_now, grey_after, None), search.calc(grey_after, grey_now, None)
        to_x, to_y = columns + forward[..., 0], rows + forward[..., 1]
        carried = cv2.remap(after, to_x, to_y, cv2.INTER_LINEAR)
        back = cv2.remap(backward, to_x, to_y, cv2.INTER_LINEAR)
        apart = ((forward + back) ** 2).sum(-1)
        seen = apart <= 0.01 * ((forward**2).sum(-1) + (back**2).sum(-1)) + 0.5
        seen &= (to_x >= 0) & (to_x <= film.shape[2] - 1) & (to_y >= 0) & (to_y <= film.shape[1] - 1)
        if seen.any():
            found.append(float(((carried - now) ** 2).mean(-1, dtype=np.float64)[seen].mean()))
    if not found:
        raise ScoreError("no pixel can be followed from one frame to the next", where="warp_error")
    return float(np.mean(found))


def _pair(x: ArrayLike, y: ArrayLike) -> tuple[Array, Array]:
    one, two = standardised_luma(x, name="structure x"), standardised_luma(y, name="structure y")
    same_shape(one.shape, two.shape)
    return one, two


def _ssim(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    def blur(plane: NDArray[np.float64]) -> NDArray[np.float64]:
        return gaussian_filter(plane, 1.5, truncate=3.5, mode="reflect")

    mean_a, mean_b = blur(a), blur(b)
    var_a, var_b = blur(a * a) - mean_a**2, blur(b * b) - mean_b**2
    both = blur(a * b) - mean_a * mean_b
    c1, c2 = (0.01 * _RANGE) ** 2, (0.03 * _RANGE) ** 2
    ssim = (2 * mean_a * mean_b + c1) * (2 * both + c2)
    ssim /= (mean_a**2 + mean_b**2 + c1) * (var_a + var_b + c2)
    return float(ssim[5:-5, 5:-5].mean())
