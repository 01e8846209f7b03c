"""Do the shots of one scene belong together? Light, palette and subject, held pair by pair."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from cinetune.errors import ScoreError
from cinetune.metrics.checks import Array
from cinetune.metrics.grade import lab_cloud, lab_frechet

__all__ = ["SceneSpread", "scene_spread", "subject_likeness"]


@dataclass(frozen=True, slots=True, kw_only=True)
class SceneSpread:
    """Means over all pairs of a scene's shots. `light`: difference of mean L*, [0, 100]. `palette`: 2-Wasserstein
    distance of Gaussians fitted to their Lab pixels (`lab_frechet`), Lab units, [0, inf). 0 = alike.
    """

    light: float
    palette: float
    pairs: int


def scene_spread(shots: Sequence[Array]) -> SceneSpread:
    """How far the shots `THWC` of one scene are from each other; one picture each will do. None is right or wrong by
    itself, a wide shot and a close one differ: hold it against scenes of the film. Raises `ScoreError` under two.
    """
    if len(shots) < 2:
        raise ScoreError(f"{len(shots)} shots of a scene cannot be compared", where="scene_spread")
    clouds = [lab_cloud(shot) for shot in shots]
    pairs = list(itertools.combinations(clouds, 2))
    return SceneSpread(
        light=float(np.mean([abs(a[:, 0].mean() - b[:, 0].mean()) for a, b in pairs])),
        palette=float(np.mean([lab_frechet(a, b) for a, b in pairs])),
        pairs=len(pairs),
    )


def subject_likeness(shots: Sequence[Array]) -> float:
    """Mean cosine over all pairs of a scene's shots, each by the mean direction of its frames' features `TD`, in
    [-1, 1]; 1 = alike. The subject consistency of VBench (Huang et al. 2024, section 4.1), between shots in place of
    frames. Features of any network lie in a cone, so 0 is never met: hold it against scenes of the film, and never
    against another network's. Raises `ScoreError` under two shots and for features of no length.
    """
    if len(shots) < 2:
        raise ScoreError(f"{len(shots)} shots of a scene cannot be compared", where="subject_likeness")
    means = []
    for features_TD in shots:
        rows = np.asarray(features_TD, dtype=np.float64)
        lengths = np.linalg.norm(rows, axis=1, keepdims=True)
        mean = (rows / lengths).mean(0) if bool((lengths > 0).all()) else np.zeros(1)
        length = float(np.linalg.norm(mean))
        if not np.isfinite(length) or length == 0:
            raise ScoreError("the features of a shot have no direction", where="subject_likeness")
        means.append(mean / length)
    return float(np.mean([a @ b for a, b in itertools.combinations(means, 2)]))
