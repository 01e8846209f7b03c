"""What is measured on every generated shot: one literal table, and the evidence its rows read.

A new metric is one pure function elsewhere in this package and one row here. Rows whose needs are not met give None and
a reason.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cinetune.errors import ScoreError
from cinetune.metrics.checks import Array
from cinetune.metrics.features import clip_features, clip_text
from cinetune.metrics.grade import colour_error, lab_cloud, lab_frechet, palette_distance, split_tone, tone_distance
from cinetune.metrics.similarity import (
    PerceptualNet,
    frame_similarity,
    lpips_curve,
    reference_similarity,
    text_similarity,
    tlp,
)
from cinetune.metrics.temporal import luma_flicker, motion, stillness

__all__ = [
    "CONTENT",
    "FRAME_STEP",
    "METRICS",
    "Evidence",
    "Metric",
    "Semantics",
    "cloud",
    "embed",
    "embed_text",
    "measure",
]

FRAME_STEP = 4
"""Feature metrics read every fourth frame, frame 0 left out: it is given, and neighbours hold almost the same
features.
"""
CLOUD_PIXELS = 4000
CONTENT = ("clip_kid", "clip_reference")
"""Metrics of what is in the picture, not of its grade: outside the film's world, closeness to the film is no merit."""
# Speeds this small (% of the short side per frame) are one speed: a ratio to a still truth would have no meaning.
STILL_SPEED = 0.05

Needs = Literal["film", "truth", "clip", "joins", "keyframe"]
Frames = NDArray[np.floating]


@dataclass(frozen=True, slots=True, kw_only=True)
class Semantics:
    """CLIP features: `frames_TD` of the shot, `text_D` of its prompt, `film_ND` of the film, and a network for
    perceptual distance.
    """

    frames_TD: Array
    text_D: Array
    film_ND: Array
    net: PerceptualNet


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """One shot and what it is held against; None = not known.

    Frames `THWC` in [0, 1]; `cloud_N3` from `cloud`, `film_N3` from `nearest_scenes`; `drift` and `seam_ratio` as
    measured when it was made.
    """

    frames_THWC: Frames
    cloud_N3: Array
    film_N3: Array | None = None
    truth_THWC: Frames | None = None
    clip: Semantics | None = None
    drift: float | None = None
    seam_ratio: float | None = None


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


def embed(model: Any, frames_THWC: Frames) -> Array:
    """CLIP features `[T', D]` of every `FRAME_STEP`-th frame after the first (of the first alone if there is no
    other).
    """
    kept = frames_THWC[FRAME_STEP::FRAME_STEP] if len(frames_THWC) > FRAME_STEP else frames_THWC[:1]
    return clip_features(model, _signed(kept)).double().numpy()


def embed_text(model: Any, tokenizer: Any, prompts: Sequence[str]) -> Array:
    """CLIP text features `[N, D]`; long prompts are cut by the tokenizer, which keeps the end token."""
    longest = model.config.text_config.max_position_embeddings
    batch = tokenizer(list(prompts), padding=True, truncation=True, max_length=longest, return_tensors="pt")
    return clip_text(model, batch.input_ids, batch.attention_mask).double().numpy()


def measure(evidence: Evidence) -> dict[str, tuple[float | None, str]]:
    """Every row of `METRICS` on one shot: its value, or None and the reason."""
    missing = {
        "film": "" if evidence.film_N3 is not None else "the film has no training windows",
        "truth": "" if evidence.truth_THWC is not None else "no truth is known for these shots",
        "clip": "" if evidence.clip is not None else "no CLIP is installed",
        "joins": "" if evidence.seam_ratio is not None else "the shots are one segment long",
        "keyframe": "" if evidence.drift is not None else "not a generated shot",
    }
    found: dict[str, tuple[float | None, str]] = {}
    for row in METRICS:
        why = next((missing[need] for need in row.needs if missing[need]), "")
        try:
            found[row.name] = (None, why) if why else (row.measure(evidence), "")
        except ScoreError as error:
            found[row.name] = (None, error.what)
    return found


def _clip(e: Evidence) -> Semantics:
    assert e.clip is not None
    return e.clip


def _pair(e: Evidence) -> tuple[Frames, Frames]:
    """The shot and its truth, both cut to the shorter."""
    assert e.truth_THWC is not None
    frames = min(len(e.frames_THWC), len(e.truth_THWC))
    return e.frames_THWC[:frames], e.truth_THWC[:frames]


def _signed(frames_THWC: Frames) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(frames_THWC, dtype=np.float32)).permute(0, 3, 1, 2) * 2 - 1


def _to_film(distance: Callable[[Array, Array], float]) -> Callable[[Evidence], float]:
    def apply(e: Evidence) -> float:
        assert e.film_N3 is not None
        return distance(e.cloud_N3, e.film_N3)

    return apply


def _tint(x_N3: Array, film_N3: Array) -> float:
    return split_tone(x_N3, film_N3).mean


def _motion_error(e: Evidence) -> float:
    shot, truth = (motion(film).speed + STILL_SPEED for film in _pair(e))
    return float(abs(np.log(shot / truth)))


def _lpips(e: Evidence) -> float:
    shot, truth = _pair(e)
    return float(lpips_curve(_clip(e).net, _signed(shot[1:]), _signed(truth[1:])).mean())


def _tlp(e: Evidence) -> float:
    shot, truth = _pair(e)
    return tlp(_clip(e).net, _signed(shot), _signed(truth))


def _known(value: float | None) -> float:
    assert value is not None
    return value


def _film_metric(name: str, unit: str, distance: Callable[[Array, Array], float]) -> Metric:
    return Metric(
        name=name, unit=unit, better="lower", needs=("film",), measure=_to_film(distance), spread=distance, version="2"
    )


# The pocket's perceptual distance has the form of LPIPS on CLIP maps; its unit says that it is not LPIPS.
METRICS: tuple[Metric, ...] = (
    _film_metric("tone_w1", "L*", tone_distance),
    _film_metric("lab_frechet", "Lab", lab_frechet),
    _film_metric("split_tone", "dE2000", _tint),
    _film_metric("palette", "dE2000", palette_distance),
    Metric(
        name="colour_error", unit="dE2000", better="lower", needs=("truth",), measure=lambda e: colour_error(*_pair(e))
    ),
    Metric(name="lpips", unit="pocket distance, not LPIPS", better="lower", needs=("truth", "clip"), measure=_lpips),
    Metric(name="tlp", unit="pocket distance, not LPIPS", better="lower", needs=("truth", "clip"), measure=_tlp),
    Metric(name="motion_error", unit="|ln ratio to truth|", better="lower", needs=("truth",), measure=_motion_error),
    Metric(
        name="motion", unit="% of short side per frame", better="none", measure=lambda e: motion(e.frames_THWC).speed
    ),
    Metric(name="luma_flicker", unit="L*", better="lower", measure=lambda e: luma_flicker(e.frames_THWC).frame),
    Metric(name="still", unit="share of steps", better="lower", measure=lambda e: stillness(e.frames_THWC).share),
    Metric(name="drift", unit="dE2000", better="lower", needs=("keyframe",), measure=lambda e: _known(e.drift)),
    Metric(name="seam_ratio", unit="ratio", better="lower", needs=("joins",), measure=lambda e: _known(e.seam_ratio)),
    Metric(
        name="clip_text",
        unit="cosine",
        better="higher",
        needs=("clip",),
        measure=lambda e: text_similarity(_clip(e).frames_TD, _clip(e).text_D),
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
        measure=lambda e: reference_similarity(_clip(e).frames_TD, _clip(e).film_ND).mean,
    ),
)
