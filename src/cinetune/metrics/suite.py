"""What is measured on every generated shot: one literal table, and the evidence its rows read.

A new metric is one pure function elsewhere in this package and one row here. Rows whose needs are not met give None and
a reason.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cinetune.errors import ScoreError
from cinetune.metrics.checks import Array, same_shape, unit_rows
from cinetune.metrics.grade import colour_error, lab_cloud, lab_frechet, palette_distance, split_tone, tone_distance
from cinetune.metrics.similarity import (
    PerceptualCurves,
    PerceptualNet,
    frame_similarity,
    perceptual_curves,
    reference_similarity,
    text_similarity,
)
from cinetune.metrics.structure import gradient_correlation, structure_similarity, warp_error
from cinetune.metrics.temporal import luma_flicker, motion, stillness

__all__ = [
    "CONTENT",
    "FRAME_STEP",
    "METRICS",
    "NO_TRUTH",
    "SET_STEP",
    "ClipReading",
    "Evidence",
    "Metric",
    "Semantics",
    "apart",
    "cloud",
    "curve",
    "measure",
    "picked",
    "signed",
]

FRAME_STEP = 4
"""Feature metrics read every fourth frame, frame 0 left out: it is given, and neighbours hold almost the same
features.
"""
SET_STEP = 8
"""Set metrics read every eighth: nearer frames of a clip add almost no new picture."""
CLOUD_PIXELS = 4000
CONTENT = ("clip_kid", "clip_reference")
"""Metrics of what is in the picture, not of its grade: outside the film's world, closeness to the film is no merit."""
NO_TRUTH = {"structure": "structure_kept"}
"""Where no truth is known, what is held against the same shot without the look. A difference from that is a change, for
better or worse, never a loss.
"""
# Speeds this small (% of the short side per frame) are one speed: a ratio to a still truth would have no meaning.
STILL_SPEED = 0.05
# Likewise for pulsing (L*) and warp error: half an 8-bit value of each.
STEADY_FLICKER = 0.2
STEADY_WARP = (0.5 / 255) ** 2

Needs = Literal["film", "truth", "twin", "clip", "text", "perceptual", "joins", "keyframe"]
Frames = NDArray[np.floating]


@dataclass(frozen=True, slots=True, kw_only=True)
class Semantics:
    """Features by the first frame network of `score.features`: `frames_TD` of the shot, `film_ND` of the film,
    `truth_TD` of the truth at the same frames, `text_D` of the prompt by a network that knows words; None = not known.
    """

    frames_TD: Array
    film_ND: Array | None = None
    truth_TD: Array | None = None
    text_D: Array | None = None
    worded_TD: Array | None = None


@dataclass(frozen=True)
class ClipReading:
    """Frames `THWC` in [0, 1], and what several measures read off them, each worked out once: one object for one
    clip.
    """

    frames_THWC: Frames

    @cached_property
    def speed(self) -> float:
        return motion(self.frames_THWC).speed

    @cached_property
    def flicker(self) -> float:
        return luma_flicker(self.frames_THWC).frame

    @cached_property
    def warp(self) -> float:
        return warp_error(self.frames_THWC)


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """One shot and what it is held against; None = not known. `truth` may be shared by all arms of a shot.

    `cloud_N3` from `cloud`, `film_N3` from `nearest_scenes` of the truth or of the base arm,
    the same for every arm; `twin_THWC` is the same shot and seed without the look, given where there is no truth; `net`
    for perceptual distance; `drift` and `seam_ratio` as measured when it was made.
    `missing` gives reasons that the caller knows better, by need.
    """

    shot: ClipReading
    cloud_N3: Array
    film_N3: Array | None = None
    truth: ClipReading | None = None
    twin_THWC: Frames | None = None
    clip: Semantics | None = None
    net: PerceptualNet | None = None
    missing: Mapping[str, str] = field(default_factory=dict)
    drift: float | None = None
    seam_ratio: float | None = None

    @cached_property
    def perceptual(self) -> PerceptualCurves:
        """Distances of the shot to its truth and of neighbours in each, in one pass through the network. Raises
        `ScoreError` for clips of two sizes.
        """
        assert self.net is not None
        shot, truth = _pair(self)
        return perceptual_curves(self.net, signed(shot.frames_THWC), signed(truth.frames_THWC))


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """A row. `measure` may rely on what `needs` names; `better="none"` is a fact about the shot, not a merit; `spread`
    is the distance between two Lab clouds that tells how far the film's own scenes lie apart.
    """

    name: str
    measure: Callable[[Evidence], float]
    unit: str
    better: Literal["lower", "higher", "none"]
    needs: tuple[Needs, ...] = ()
    spread: Callable[[Array, Array], float] | None = None
    version: str = "1"


def cloud(frames_THWC: Frames) -> Array:
    """Lab pixels `[N, 3]` of a clip for the grade metrics."""
    return lab_cloud(frames_THWC, pixels=CLOUD_PIXELS)


def picked(frames_THWC: Frames) -> Frames:
    """The frames that feature networks see: every `FRAME_STEP`-th after the first (the first alone if there is no
    other).
    """
    return frames_THWC[FRAME_STEP::FRAME_STEP] if len(frames_THWC) > FRAME_STEP else frames_THWC[:1]


def apart(features_TD: Array) -> Array:
    """Of the features of `picked` frames those `SET_STEP` frames apart, for set metrics; all if there are too few."""
    every = SET_STEP // FRAME_STEP
    return features_TD[every - 1 :: every] if len(features_TD) >= every else features_TD


def measure(evidence: Evidence) -> dict[str, tuple[float | None, str]]:
    """Every row of `METRICS` on one shot: its value, or None and the reason."""
    missing = {
        "film": "" if evidence.film_N3 is not None else "the film has no training windows",
        "truth": "" if evidence.truth is not None else "no truth is known for these shots",
        "twin": "" if evidence.twin_THWC is not None else "the shot without the look is not known",
        "clip": "" if evidence.clip is not None else "no feature network is here",
        "text": "" if evidence.clip is not None and evidence.clip.text_D is not None else "no network knows words",
        "perceptual": "" if evidence.net is not None else "no network for perceptual distance is here",
        "joins": "" if evidence.seam_ratio is not None else "the shots are one segment long",
        "keyframe": "" if evidence.drift is not None else "not a generated shot",
    }
    missing |= {need: why for need, why in evidence.missing.items() if missing[need]}
    found: dict[str, tuple[float | None, str]] = {}
    for row in METRICS:
        why = next((missing[need] for need in row.needs if missing[need]), "")
        try:
            found[row.name] = (None, why) if why else (row.measure(evidence), "")
        except ScoreError as error:
            found[row.name] = (None, error.what)
    return found


def curve(evidence: Evidence) -> tuple[float, ...]:
    """Perceptual distance to the truth frame by frame, the given first frame left out; empty if it cannot be had."""
    if evidence.truth is None or evidence.net is None:
        return ()
    try:
        return tuple(float(x) for x in evidence.perceptual.between[1:])
    except ScoreError:
        return ()


def _clip(e: Evidence) -> Semantics:
    assert e.clip is not None
    return e.clip


def _pair(e: Evidence) -> tuple[ClipReading, ClipReading]:
    """The shot and its truth. A truth that ends early cuts both; one of another size raises `ScoreError`."""
    assert e.truth is not None
    shot, truth = e.shot.frames_THWC, e.truth.frames_THWC
    same_shape(shot.shape[1:], truth.shape[1:])
    if len(shot) == len(truth):
        return e.shot, e.truth
    frames = min(len(shot), len(truth))
    return ClipReading(shot[:frames]), ClipReading(truth[:frames])


def _frames(e: Evidence) -> tuple[Frames, Frames]:
    shot, truth = _pair(e)
    return shot.frames_THWC, truth.frames_THWC


def signed(frames_THWC: Frames) -> Tensor:
    """Frames in [0, 1] as the networks take them: `TCHW` float32 in [-1, 1]."""
    return torch.from_numpy(np.ascontiguousarray(frames_THWC, dtype=np.float32)).permute(0, 3, 1, 2) * 2 - 1


def _to_film(distance: Callable[[Array, Array], float]) -> Callable[[Evidence], float]:
    def apply(e: Evidence) -> float:
        assert e.film_N3 is not None
        return distance(e.cloud_N3, e.film_N3)

    return apply


def _tint(x_N3: Array, film_N3: Array) -> float:
    return split_tone(x_N3, film_N3).mean


def _lpips(e: Evidence) -> float:
    return float(e.perceptual.between[1:].mean())


def _tlp(e: Evidence) -> float:
    return e.perceptual.tlp


def _colour(e: Evidence) -> float:
    return colour_error(*_frames(e))


def _structure(e: Evidence) -> float:
    shot, truth = _frames(e)
    return float(structure_similarity(shot[1:], truth[1:]).mean())


def _kept(e: Evidence) -> float:
    assert e.twin_THWC is not None
    shot, twin = e.shot.frames_THWC, e.twin_THWC
    same_shape(shot.shape[1:], twin.shape[1:])
    frames = min(len(shot), len(twin))
    return float(structure_similarity(shot[1:frames], twin[1:frames]).mean())


def _gradients(e: Evidence) -> float:
    shot, truth = _frames(e)
    return float(gradient_correlation(shot[1:], truth[1:]).mean())


def _content(e: Evidence) -> float:
    shown = _clip(e).truth_TD
    if shown is None:
        raise ScoreError("no truth is known for these shots")
    shot, truth = unit_rows(_clip(e).frames_TD, name="content"), unit_rows(shown, name="content truth")
    both = min(len(shot), len(truth))
    return float((shot[:both] * truth[:both]).sum(1).mean())


def _ratio_error(read: Callable[[ClipReading], float], floor: float) -> Callable[[Evidence], float]:
    """|ln| of a measure of the shot over that of its truth; `floor` keeps two still clips alike."""

    def apply(e: Evidence) -> float:
        shot, truth = (read(film) + floor for film in _pair(e))
        return float(abs(np.log(shot / truth)))

    return apply


def _text(e: Evidence) -> float:
    clip = _clip(e)
    assert clip.text_D is not None
    return text_similarity(clip.frames_TD if clip.worded_TD is None else clip.worded_TD, clip.text_D)


def _reference(e: Evidence) -> float:
    film = _clip(e).film_ND
    if film is None:
        raise ScoreError("the film has no training windows")
    return reference_similarity(_clip(e).frames_TD, film).mean


def _known(value: float | None) -> float:
    assert value is not None
    return value


def _film_metric(name: str, unit: str, distance: Callable[[Array, Array], float]) -> Metric:
    return Metric(
        name=name, unit=unit, better="lower", needs=("film",), measure=_to_film(distance), spread=distance, version="2"
    )


_LOG_RATIO = "|ln ratio to truth|"
_BY_NETWORK = "distance by the network of the protocol"
METRICS: tuple[Metric, ...] = (
    _film_metric("tone_w1", "L*", tone_distance),
    _film_metric("lab_frechet", "Lab", lab_frechet),
    _film_metric("split_tone", "dE2000", _tint),
    _film_metric("palette", "dE2000", palette_distance),
    Metric(name="colour_error", unit="dE2000", better="lower", needs=("truth",), measure=_colour),
    Metric(name="structure", unit="SSIM, luma alone", better="higher", needs=("truth",), measure=_structure),
    Metric(name="structure_kept", unit="SSIM, luma alone", better="higher", needs=("twin",), measure=_kept),
    Metric(name="gradients", unit="correlation", better="higher", needs=("truth",), measure=_gradients),
    Metric(name="content", unit="cosine to truth", better="higher", needs=("truth", "clip"), measure=_content),
    # The protocol names the network: LPIPS where its weights are, else the maps of the model's own encoder.
    Metric(name="lpips", unit=_BY_NETWORK, better="lower", needs=("truth", "perceptual"), measure=_lpips, version="2"),
    Metric(name="tlp", unit=_BY_NETWORK, better="lower", needs=("truth", "perceptual"), measure=_tlp, version="2"),
    Metric(
        name="motion_error",
        unit=_LOG_RATIO,
        better="lower",
        needs=("truth",),
        measure=_ratio_error(lambda clip: clip.speed, STILL_SPEED),
    ),
    Metric(
        name="warp_error",
        unit=_LOG_RATIO,
        better="lower",
        needs=("truth",),
        measure=_ratio_error(lambda clip: clip.warp, STEADY_WARP),
    ),
    Metric(
        name="flicker_error",
        unit=_LOG_RATIO,
        better="lower",
        needs=("truth",),
        measure=_ratio_error(lambda clip: clip.flicker, STEADY_FLICKER),
    ),
    Metric(name="motion", unit="% of short side per frame", better="none", measure=lambda e: e.shot.speed),
    Metric(name="luma_flicker", unit="L*", better="lower", measure=lambda e: e.shot.flicker),
    Metric(name="still", unit="share of steps", better="lower", measure=lambda e: stillness(e.shot.frames_THWC).share),
    Metric(name="drift", unit="dE2000", better="lower", needs=("keyframe",), measure=lambda e: _known(e.drift)),
    Metric(name="seam_ratio", unit="ratio", better="lower", needs=("joins",), measure=lambda e: _known(e.seam_ratio)),
    Metric(
        name="clip_text",
        unit="cosine",
        better="higher",
        needs=("clip", "text"),
        measure=_text,
    ),
    Metric(
        name="clip_frame",
        unit="cosine",
        better="none",
        needs=("clip",),
        measure=lambda e: frame_similarity(_clip(e).frames_TD),
    ),
    Metric(
        name="clip_reference",
        unit="cosine",
        better="higher",
        needs=("clip",),
        measure=_reference,
    ),
)
