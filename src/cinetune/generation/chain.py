"""A shot longer than the model: segments in a chain, each starting at the last picture of the one before.

The hand-over is the float32 picture itself, never a coded file. Each segment has its own seed. What two segments
share appears once: one picture, or several over which the earlier segment gives way to the later one. A segment that a
true shot could not read like (`cinetune.generation.gate`) is tried again with other seeds, and the best try is kept.
One segment is in memory at a time, so a minute takes no more of it than two seconds.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cinetune.artifacts import Cue, Limits, Segment, Try
from cinetune.generation.gate import BEFORE, excess, measured
from cinetune.generation.keyframe import candidate_seed
from cinetune.generation.segment import Recipe, generate, pictures
from cinetune.generation.settle import SETTLED, led
from cinetune.metrics import colour_drift
from cinetune.metrics.checks import Array
from cinetune.models.family import VideoModel
from cinetune.runtime import derive
from cinetune.timecode import nearest_legal_frames

__all__ = [
    "ChainRules",
    "Levels",
    "Opening",
    "State",
    "Take",
    "advanced",
    "anchored",
    "drift",
    "plan_segments",
    "prompted",
    "shoot",
    "shot_frames",
]

Levels = NDArray[np.uint16]


@dataclass(frozen=True, slots=True, kw_only=True)
class Opening:
    """How a shot begins: the picture the model is given (`HWC` in [0, 1]), and the latents `1Cfhw` of the first segment
    where they exist already. `lead`: its first pictures get the grade that the segment settles at
    (`cinetune.generation.settle.led`).
    """

    condition_HWC: Tensor
    latents: Tensor | None = None
    lead: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ChainRules:
    """`overlap`: pictures that a segment shares with the one before, `stride * n + 1`; `anchor` in [0, 1]: how strongly
    later segments are pulled to the colours of the first one; `tries`: how often a segment outside `limits` is made, at
    most.
    """

    overlap: int = 1
    anchor: float = 0.0
    limits: Limits | None = None
    tries: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Take:
    """A finished segment: what it adds to the shot (`THWC`, full range of 16 bits), and the exact pictures that the
    next one starts from.
    """

    segment: Segment
    frames_THWC: Levels
    given_THWC: Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """Where a chain stands: how many segments are `done`, the levels of the first one (mean and spread of each
    channel), the last pictures, and the exact ones that the next segment starts from.
    """

    done: int
    goal: tuple[Tensor, Tensor]
    tail_THWC: Levels
    given_THWC: Tensor


def shot_frames(seconds: float, rate: Fraction, stride: int = 4) -> int:
    """Frames of a shot: the smallest count on the model's rule `stride * n + 1` that lasts `seconds`. 2 s at 16 fps is
    33.
    """
    # An exact decimal: 0.1 s as a binary float would be a hair over and cost four frames.
    wanted = Fraction(str(seconds)) * rate
    return nearest_legal_frames(max(1, math.ceil(wanted)), stride)[1]


def plan_segments(
    frames: int, segment_frames: int, *, shot_seed: int, seed_index: int, candidate: int = 0, overlap: int = 1
) -> tuple[Segment, ...]:
    """The segments that make `frames` frames. What two of them share is counted to the later one, but
    for the picture that it starts from.

    The last segment is generated whole and cut to length: a model trained on one length is worse at others. `candidate`
    is the picked keyframe candidate where its segment is the first one (`develop`).
    """
    assert frames >= 1 and segment_frames > overlap >= 1
    segments: list[Segment] = []
    first = 0
    while first < frames:
        number = len(segments)
        most, left = segment_frames - (1 if number else 0), frames - first
        new = left if left <= most else most - (overlap - 1)
        seed = (
            derive(shot_seed, "shoot", seed_index, number)
            if number
            else candidate_seed(shot_seed, seed_index, candidate)
        )
        segments.append(Segment(first_frame=first, frames=new, seed=seed))
        first += new
    return tuple(segments)


def prompted(segments: Sequence[Segment], cues: Sequence[Cue], rate: Fraction) -> tuple[Segment, ...]:
    """The segments with later prompts: a cue holds from the segment on whose start is nearest to it (never the first,
    which the shot's own prompt makes). Of two cues for one segment the later one holds.
    """
    held = [""] * len(segments)
    for cue in cues:
        starts = [abs(segment.first_frame / float(rate) - cue.at) for segment in segments[1:]]
        if starts:
            at = 1 + int(np.argmin(starts))
            held[at:] = [cue.prompt] * (len(segments) - at)
    return tuple(replace(segment, prompt=text) for segment, text in zip(segments, held, strict=True))


def shoot(
    model: VideoModel,
    opening: Opening,
    recipe: Recipe,
    segments: Sequence[Segment],
    rules: ChainRules,
    state: State | None = None,
) -> Iterator[Take]:
    """The segments of a shot one by one. After a `state` (`advanced` over the segments that a stopped run finished)
    the rest is what it would have been. Raises `ModelError` on NaN.
    """
    for segment in segments[state.done if state else 0 :]:
        take = _best(model, opening, recipe, segment, rules, state)
        state = advanced(state, take)
        yield take


def advanced(state: State | None, take: Take) -> State:
    """Where the chain stands after one more segment."""
    return State(
        done=1 if state is None else state.done + 1,
        goal=_levels(take) if state is None else state.goal,
        tail_THWC=take.frames_THWC[-BEFORE:],
        given_THWC=take.given_THWC,
    )


def _best(
    model: VideoModel, opening: Opening, recipe: Recipe, segment: Segment, rules: ChainRules, state: State | None
) -> Take:
    """The best of the tries at one segment."""
    given = opening.condition_HWC[None] if state is None else state.given_THWC
    if segment.prompt:
        recipe = replace(recipe, prompt=segment.prompt)
    best: tuple[float, Take] | None = None
    tries: list[Try] = []
    for number in range(max(1, rules.tries)):
        seed = derive(segment.seed, "again", number) if number else segment.seed
        if state is None and number == 0 and opening.latents is not None:
            latents = opening.latents
        else:
            latents = generate(model, given[0], recipe, seed=seed, held_THWC=given if len(given) > 1 else None)
        shown = pictures(model, latents)
        if state is None and opening.lead:
            shown = led(shown, model.info.stride_time)
        last = max(1, model.info.stride_time * (latents.shape[2] - 1))
        take = _decoded(shown, last, replace(segment, seed=seed), rules, state)
        tries.append(_judged(take, state, rules.limits))
        bad = excess(tries[-1], rules.limits) if rules.limits is not None else 0.0
        if best is None or bad < best[0]:
            best = bad, take
        if not tries[-1].over:
            break
    assert best is not None
    return replace(best[1], segment=replace(best[1].segment, tries=tuple(tries)))


def _decoded(shown: Iterator[Tensor], last: int, segment: Segment, rules: ChainRules, state: State | None) -> Take:
    """The segment's own pictures out of those `shown`, 0 to `last`, pulled to the goal, faded in over what it shares
    with the one before, and quantised as they are decoded: floats never pile up.
    """
    before = () if state is None else state.given_THWC
    kept: list[Levels] = []
    given: deque[Tensor] = deque(maxlen=rules.overlap)
    for index, picture in enumerate(shown):
        if state is not None:
            picture = anchored(picture, state.goal, strength=rules.anchor * index / last)
        if index < len(before):
            picture = torch.lerp(before[index], picture, index / len(before))
        given.append(picture)
        if index == 0 and state is not None:
            continue
        if len(kept) < segment.frames:
            kept.append(np.rint(picture.numpy() * 65535).astype(np.uint16))
        if index + 1 == segment.frames + rules.overlap - (state is None):
            break
    return Take(segment=segment, frames_THWC=np.stack(kept), given_THWC=torch.stack(list(given)))


def _judged(take: Take, state: State | None, limits: Limits | None) -> Try:
    frames, seed = take.frames_THWC.astype(np.float32) / 65535, take.segment.seed
    if state is None:
        return measured(frames, None, seed=seed, limits=limits)
    tail = state.tail_THWC.astype(np.float32) / 65535
    return measured(np.concatenate([tail[-1:], frames]), tail[:-1], seed=seed, limits=limits)


def _levels(take: Take) -> tuple[Tensor, Tensor]:
    """Mean and spread of each colour channel over the settled pictures of a segment."""
    settled = take.frames_THWC[min(SETTLED, len(take.frames_THWC) - 1) :].astype(np.float32) / 65535
    means, spreads = settled.mean((1, 2)), settled.std((1, 2))
    return torch.from_numpy(means.mean(0)), torch.from_numpy(spreads.mean(0))


def anchored(picture_HWC: Tensor, goal: tuple[Tensor, Tensor], *, strength: float) -> Tensor:
    """The picture with the mean and spread of each colour channel moved towards the goal's by `strength` in [0, 1].

    0 changes nothing; at 1 mean and standard deviation are the goal's (but for clipping). `shoot` raises the strength
    from 0 at the first frame of a segment to `anchor` at its last: a constant correction at the joins would freeze the
    drift, not undo it. It also undoes changes of light that are meant.
    """
    if strength == 0:
        return picture_HWC
    mean, spread = picture_HWC.mean((0, 1)), picture_HWC.std((0, 1))
    goal_mean, goal_spread = torch.lerp(mean, goal[0], strength), torch.lerp(spread, goal[1], strength)
    return ((picture_HWC - mean) * (goal_spread / spread.clamp(min=1e-4)) + goal_mean).clamp(0, 1)


def drift(frames_THWC: Array, keyframe_HWC: Array) -> float:
    """dE2000 between the mean colours of the last frame and the keyframe."""
    return float(colour_drift(np.stack([keyframe_HWC, frames_THWC[-1]]))[1])
