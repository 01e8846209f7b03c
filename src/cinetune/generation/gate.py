"""Is a segment fit to be kept? Four measures, each held against what the film's own shots read.

    seam      change of picture at the join over the median change inside, see `cinetune.metrics.seam_ratios`
    jump      how far the mean colour moves right after the picture a segment starts from, dE2000
    drift     how far it has moved by the end of the segment, dE2000
    flicker   pulsing of the brightness, L*, see `cinetune.metrics.luma_flicker`

A true shot has some of each: light changes, cameras pan. The model's VAE adds its own, most of all in the first
pictures of a segment, which have nothing before them to lean on. So the limit of a measure is its 95th percentile over
true shots that went through the VAE as a chain does: cut in two, each part encoded and decoded alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

import numpy as np

from cinetune.artifacts import Limits, Try
from cinetune.errors import ScoreError
from cinetune.metrics import colour_drift, luma_flicker, seam_ratios
from cinetune.metrics.checks import Array

__all__ = ["BEFORE", "MEASURES", "excess", "limits_of", "measured", "true_reading"]

MEASURES = ("seam", "jump", "drift", "flicker")
SHARE = 0.95
BEFORE = 8
"""Pictures up to a join that tell how much a step inside the shot is."""
FIRST = 5
"""Pictures in which a jump shows: the first one and the four that come with the next latent frame."""


def measured(frames_THWC: Array, before_THWC: Array | None, *, seed: int, limits: Limits | None = None) -> Try:
    """What one try at a segment reads. `frames_THWC` in [0, 1] begin with the picture the segment starts from; `before`
    are the pictures up to it (itself left out), None for the first segment. Measures that need more pictures than there
    are read 0.
    """
    colour = colour_drift(frames_THWC)
    found = {
        "jump": float(colour[1:FIRST].mean()) if len(colour) > 1 else 0.0,
        "drift": float(colour[-1]),
        "flicker": luma_flicker(frames_THWC).frame if len(frames_THWC) > 2 else 0.0,
    }
    seam = None
    if before_THWC is not None and len(frames_THWC) > 1:
        # The join is between the picture handed over, the last that the segment before made, and the first new one.
        seam = float(seam_ratios(np.concatenate([before_THWC, frames_THWC]), [len(before_THWC) + 1])[0])
    one = Try(seed=seed, seam=seam, over=(), **found)
    return one if limits is None else Try(seed=seed, seam=seam, over=_over(one, limits), **found)


def true_reading(film_THWC: Array, through: Callable[[Array], Array], *, stride: int) -> Try | None:
    """What a true shot reads; None for one too short for two parts.

    `through` is a shot through the model's VAE and back, `stride` its frames per latent one. The seam is where two
    parts meet that share one picture and were coded alone.
    """
    film = film_THWC[: (len(film_THWC) - 1) // stride * stride + 1]
    half = (len(film) - 1) // 2 // stride * stride
    if half == 0:
        return None
    coded = through(film)
    before, after = coded[: half + 1][-BEFORE:], through(film[half:])[1:]  # decoding is causal: the first part is too
    joined = measured(np.concatenate([before[-1:], after]), before[:-1], seed=0)
    return replace(measured(coded, None, seed=0), seam=joined.seam)


def limits_of(readings: Sequence[Try]) -> Limits:
    """The 95th percentile of each measure over true shots; the highest reading where there are under twenty. Raises
    `ScoreError` for none.
    """
    if not readings:
        raise ScoreError("there is no true shot to take limits from", where="the film's windows")
    found = {name: _high([getattr(one, name) for one in readings]) for name in MEASURES}
    return Limits(clips=len(readings), **found)


def excess(one: Try, limits: Limits) -> float:
    """How far a try is outside the limits: the parts by which its measures exceed them, added; 0 is inside."""
    return sum(max(0.0, value / max(limit, 1e-6) - 1) for value, limit in _pairs(one, limits))


def _over(one: Try, limits: Limits) -> tuple[str, ...]:
    names = [name for name in MEASURES if getattr(one, name) is not None]
    return tuple(
        name for name, (value, limit) in zip(names, _pairs(one, limits), strict=True) if value > max(limit, 1e-6)
    )


def _pairs(one: Try, limits: Limits) -> list[tuple[float, float]]:
    return [(getattr(one, name), getattr(limits, name)) for name in MEASURES if getattr(one, name) is not None]


def _high(values: Iterable[float] | Array) -> float:
    return float(np.quantile(np.asarray(list(values)), SHARE, method="higher"))
