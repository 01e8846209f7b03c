"""A shot longer than the model: segments in a chain, each starting at the last picture of the one before.

The hand-over is the float32 picture itself, never a coded file. Each segment has its own seed. The shared picture
appears once.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import torch
from torch import Tensor

from cinetune.artifacts import Segment
from cinetune.generation.keyframe import candidate_seed
from cinetune.generation.segment import Recipe, generate, pictures
from cinetune.metrics import colour_drift, seam_ratios
from cinetune.metrics.checks import Array
from cinetune.models.family import VideoModel
from cinetune.runtime import derive
from cinetune.timecode import nearest_legal_frames

__all__ = ["Opening", "anchored", "chain", "drift", "plan_segments", "shot_frames", "worst_seam"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Opening:
    """How a shot begins: the picture the model is given, the keyframe (`HWC` in [0, 1]), and the latents `1Cfhw` of the
    first segment where they exist already.
    """

    condition_HWC: Tensor
    keyframe_HWC: Tensor
    latents: Tensor | None = None


def shot_frames(seconds: float, rate: Fraction, stride: int = 4) -> int:
    """Frames of a shot: the smallest count on the model's rule `stride * n + 1` that lasts `seconds`. 2 s at 16 fps is
    33.
    """
    # An exact decimal: 0.1 s as a binary float would be a hair over and cost four frames.
    wanted = Fraction(str(seconds)) * rate
    return nearest_legal_frames(max(1, math.ceil(wanted)), stride)[1]


def plan_segments(
    frames: int, segment_frames: int, *, shot_seed: int, seed_index: int, candidate: int = 0
) -> tuple[Segment, ...]:
    """The segments that make `frames` frames. Each adds `segment_frames - 1` new frames (the first one more).

    The last segment is generated whole and cut to length: a model trained on one length is worse at others. `candidate`
    is the picked keyframe candidate where its segment is the first one (`develop`).
    """
    assert frames >= 1 and segment_frames >= 2
    segments: list[Segment] = []
    first = 0
    while first < frames:
        number = len(segments)
        new = min(segment_frames - (1 if number else 0), frames - first)
        seed = (
            derive(shot_seed, "shoot", seed_index, number)
            if number
            else candidate_seed(shot_seed, seed_index, candidate)
        )
        segments.append(Segment(first_frame=first, frames=new, seed=seed))
        first += new
    return tuple(segments)


def chain(
    model: VideoModel, opening: Opening, recipe: Recipe, segments: Sequence[Segment], *, anchor: float = 0.0
) -> Iterator[Tensor]:
    """The pictures of a shot, `HWC` in [0, 1], one by one as they are decoded.

    `anchor` in [0, 1] pulls the colours of each segment back to the keyframe, see `anchored`. Raises `ModelError` on
    NaN.
    """
    given = opening.condition_HWC
    for number, segment in enumerate(segments):
        if number == 0 and opening.latents is not None:
            latents = opening.latents
        else:
            latents = generate(model, given, recipe, seed=segment.seed)
        skip = 1 if number else 0
        for index, picture in enumerate(pictures(model, latents)):
            if index < skip:
                continue
            given = anchored(picture, opening.keyframe_HWC, strength=anchor * index / (recipe.frames - 1))
            yield given
            if index + 1 == skip + segment.frames:
                break


def anchored(picture_HWC: Tensor, keyframe_HWC: Tensor, *, strength: float) -> Tensor:
    """The picture with the mean and spread of each colour channel moved towards the keyframe's by `strength` in [0, 1].

    0 changes nothing; at 1 mean and standard deviation are the keyframe's (but for clipping). `chain` raises the
    strength from 0 at the first frame of a segment to `anchor` at its last: a constant correction at the joins would
    freeze the drift, not undo it. It also undoes changes of light that are meant.
    """
    if strength == 0:
        return picture_HWC
    mean, spread = picture_HWC.mean((0, 1)), picture_HWC.std((0, 1))
    goal_mean = torch.lerp(mean, keyframe_HWC.mean((0, 1)), strength)
    goal_spread = torch.lerp(spread, keyframe_HWC.std((0, 1)), strength)
    return ((picture_HWC - mean) * (goal_spread / spread.clamp(min=1e-4)) + goal_mean).clamp(0, 1)


def worst_seam(frames_THWC: Array, segments: Sequence[Segment]) -> float | None:
    """The highest ratio of |dF| at a join to the median |dF| inside segments; None without joins. Above about 2 it
    shows.
    """
    seams = [segment.first_frame for segment in segments[1:]]
    return float(seam_ratios(frames_THWC, seams).max()) if seams and len(frames_THWC) > len(seams) + 1 else None


def drift(frames_THWC: Array, keyframe_HWC: Array) -> float:
    """dE2000 between the mean colours of the last frame and the keyframe."""
    return float(colour_drift(np.stack([keyframe_HWC, frames_THWC[-1]]))[1])
