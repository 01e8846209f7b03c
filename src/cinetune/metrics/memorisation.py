"""Does a generated clip repeat a training clip? Nearest neighbours, calibrated and paired with the base model."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats as scipy_stats

from cinetune.errors import ScoreError
from cinetune.metrics.checks import Array, same_width, unit_rows

__all__ = [
    "NearestTraining",
    "Neighbour",
    "conformal_p",
    "copying_limit",
    "leave_one_scene_out",
    "nearest_training",
    "training_neighbours",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Neighbour:
    """Closest pair of frames between one clip and the training clips: cosine in [-1, 1] and where it was found."""

    similarity: float
    frame: int
    clip: int
    clip_frame: int


@dataclass(frozen=True, slots=True, kw_only=True)
class NearestTraining:
    """One generated clip against the training set.

    `p` is how often real, unrelated scenes are this close, for this clip alone; `excess` is look minus base similarity
    for the same inputs (the base model cannot have memorised). `suspect` asks a person to look at the pair; it is not a
    verdict.
    """

    look: Neighbour
    base: Neighbour
    p: float
    excess: float
    suspect: bool


def nearest_training(clip_TD: ArrayLike, training: Sequence[ArrayLike]) -> Neighbour:
    """Highest cosine between any frame of `clip_TD` and any frame of the training clips `[T_i, D]`.

    Frame-wise form of video SSCD (Rahman et al. 2024). Leave the conditioning frame out of `clip_TD`.
    """
    if not training:
        raise ScoreError("no training clips to compare with", where="memorisation")
    clip = unit_rows(clip_TD, name="clip features")
    best = Neighbour(similarity=-2.0, frame=0, clip=0, clip_frame=0)
    for number, other in enumerate(training):
        rows = unit_rows(other, name=f"training clip {number}")
        same_width(clip, rows)
        cosine = clip @ rows.T
        frame, clip_frame = np.unravel_index(int(cosine.argmax()), cosine.shape)
        if cosine[frame, clip_frame] > best.similarity:
            best = Neighbour(
                similarity=float(cosine[frame, clip_frame]), frame=int(frame), clip=number, clip_frame=int(clip_frame)
            )
    return best


def leave_one_scene_out(training: Sequence[ArrayLike], scenes: Sequence[str]) -> Array:
    """How close unrelated scenes of this film are: one similarity per scene, `[S]`, in order of first appearance.

    Each training clip is compared with the clips of all other scenes; a scene counts once, by the median of its
    clips, as clips of a scene are not independent. Raises `ScoreError` for fewer than two scenes.
    """
    if len(scenes) != len(training):
        raise ScoreError(f"{len(scenes)} scene names for {len(training)} clips", where="memorisation")
    names = list(dict.fromkeys(scenes))
    if len(names) < 2:
        raise ScoreError("calibration needs clips of two scenes or more", where="memorisation")
    values = []
    for name in names:
        others = [clip for clip, scene in zip(training, scenes, strict=True) if scene != name]
        own = [clip for clip, scene in zip(training, scenes, strict=True) if scene == name]
        values.append(float(np.median([nearest_training(clip, others).similarity for clip in own])))
    return np.asarray(values)


def conformal_p(similarity: float, calibration: ArrayLike) -> float:
    """`(1 + #{calibration >= similarity}) / (n + 1)` (Vovk et al. 2005): in (0, 1], never below 1 / (n + 1)."""
    values = np.asarray(calibration, dtype=np.float64)
    return float((1 + (values >= similarity).sum()) / (values.size + 1))


def copying_limit(calibration: ArrayLike, *, probes: int, alpha: float = 0.05) -> float:
    """Cosine that not one of `probes` unrelated clips passes, with probability 1 - `alpha`.

    A nearest neighbour is the largest of many cosines, so Fisher's `atanh` of it is taken to be Gumbel's (Gumbel 1958),
    fitted to the calibration by moments. Its quantile at level alpha / probes (Bonferroni) is moved out as Student's
    prediction bound for one more scene is beyond the normal quantile, as mean and deviation come from few scenes. A
    rank among some dozen scenes cannot go below one in a dozen, and so cannot speak for many shots at once. Raises
    `ScoreError` for fewer than three scenes.
    """
    z = np.arctanh(np.asarray(calibration, dtype=np.float64).clip(-1 + 1e-9, 1 - 1e-9))
    if len(z) < 3:
        raise ScoreError(f"{len(z)} scenes do not say how near unrelated ones are", where="memorisation")
    level = alpha / probes
    gumbel = -np.sqrt(6) / np.pi * (np.euler_gamma + np.log(-np.log1p(-level)))
    unsure = float(scipy_stats.t.isf(level, len(z) - 1) / scipy_stats.norm.isf(level)) * np.sqrt(1 + 1 / len(z))
    return float(np.tanh(z.mean() + gumbel * unsure * z.std(ddof=1)))


def training_neighbours(
    look: Sequence[ArrayLike],
    base: Sequence[ArrayLike],
    training: Sequence[ArrayLike],
    *,
    scenes: Sequence[str],
    alpha: float = 0.05,
    probes: int | None = None,
) -> list[NearestTraining]:
    """Nearest training frames for each look clip and its base twin (same input, prompt and seed), features `[T_i, D]`.

    A clip is suspect when it passes `copying_limit` for `probes` clips (those of the page; by default these) and its
    base twin, which cannot have memorised, neither does nor is closer. Probe with first frames from outside the
    training set only: an image-to-video model repeats its input.
    """
    if len(look) != len(base):
        raise ScoreError(f"{len(look)} look clips for {len(base)} base clips", where="memorisation")
    calibration = leave_one_scene_out(training, scenes)
    limit = copying_limit(calibration, probes=max(1, probes or len(look)), alpha=alpha)
    found = []
    for with_look, without in zip(look, base, strict=True):
        near, near_base = nearest_training(with_look, training), nearest_training(without, training)
        p, excess = conformal_p(near.similarity, calibration), near.similarity - near_base.similarity
        suspect = near.similarity > limit and excess > 0 and near_base.similarity <= limit
        found.append(NearestTraining(look=near, base=near_base, p=p, excess=excess, suspect=suspect))
    return found
