"""Shared input checks: a wrong shape or range raises `ScoreError` before any number is made from it."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cinetune.errors import ScoreError

__all__ = ["Array", "feature_rows", "film_frames", "same_shape", "same_width", "unit_rows"]

Array = NDArray[np.float64]


def feature_rows(x_ND: ArrayLike, *, name: str, least: int = 1) -> Array:
    """Return `x_ND` as finite float64 `[N, D]` with `N >= least`; raises `ScoreError` otherwise."""
    rows = np.asarray(x_ND, dtype=np.float64)
    if rows.ndim != 2 or rows.shape[1] == 0:
        raise ScoreError(f"features must be [N, D], got shape {list(rows.shape)}", where=name)
    if rows.shape[0] < least:
        raise ScoreError(
            f"{rows.shape[0]} feature rows are too few, at least {least} are needed",
            where=name,
            remedy="score more shots or more frames",
        )
    if not np.isfinite(rows).all():
        raise ScoreError("features hold NaN or infinity", where=name, remedy="check the clip and the feature network")
    return rows


def unit_rows(x_ND: ArrayLike, *, name: str) -> Array:
    """Return the rows of `x_ND` scaled to length 1; a zero row raises `ScoreError` (its cosine is undefined)."""
    rows = feature_rows(x_ND, name=name)
    length = np.linalg.norm(rows, axis=1, keepdims=True)
    if (length == 0).any():
        raise ScoreError("a feature vector is all zero, its cosine is undefined", where=name)
    return rows / length


def film_frames(frames: ArrayLike, *, name: str, least: int = 1) -> NDArray[np.floating]:
    """Return `frames` as `[T, H, W, 3]` float in [0, 1] with `T >= least`; raises `ScoreError` otherwise."""
    film = np.asarray(frames)
    if film.ndim != 4 or film.shape[-1] != 3 or 0 in film.shape:
        raise ScoreError(f"frames must be [T, H, W, 3], got shape {list(film.shape)}", where=name)
    if not np.issubdtype(film.dtype, np.floating):
        raise ScoreError(f"frames must be float in [0, 1], got {film.dtype}", where=name, remedy="divide by 255 first")
    if film.shape[0] < least:
        raise ScoreError(f"{film.shape[0]} frames are too few, at least {least} are needed", where=name)
    low, high = float(film.min()), float(film.max())
    if not (low >= -1e-3 and high <= 1 + 1e-3):
        raise ScoreError(
            f"frames must lie in [0, 1], these span {low:.3g} to {high:.3g}",
            where=name,
            remedy="decode to display RGB in [0, 1]",
        )
    return film


def same_shape(x: Sequence[int], y: Sequence[int]) -> None:
    """Raise `ScoreError` unless two clips that are compared pixel by pixel have one shape."""
    if tuple(x) != tuple(y):
        raise ScoreError(
            f"clips differ in shape: {list(x)} and {list(y)}",
            remedy="compare clips of the same frames, size and rate",
        )


def same_width(a_ND: Array, b_MD: Array) -> None:
    """Raise `ScoreError` unless both feature sets have one width D, that is, come from one network."""
    if a_ND.shape[1] != b_MD.shape[1]:
        raise ScoreError(
            f"feature widths differ: {a_ND.shape[1]} and {b_MD.shape[1]}", remedy="use one feature network for both"
        )
