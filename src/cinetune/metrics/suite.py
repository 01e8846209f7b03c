"""What is measured on every generated shot: one literal table, and the evidence its rows read.

A new metric is one pure function elsewhere in this package and one row here. Rows whose needs are not met give None and a reason.
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

__all__ = ["FRAME_STEP", "METRICS", "SET_METRICS", "Evidence", "Metric", "Semantics", "cloud", "embed", "embed_text", "measure"]

FRAME_STEP = 4
"""Feature metrics read every fourth frame, the given frame 0 left out: neighbouring frames hold almost the same features."""
CLOUD_PIXELS = 4000
# Speeds this small (% of the short side per frame) are one speed: a ratio to a still truth would have no meaning.
STILL_SPEED = 0.05

Needs = Literal["film", "truth", "clip"]
Frames = NDArray[np.floating]


@dataclass(frozen=True, slots=True, kw_only=True)
class Semantics:
    """CLIP features: `frames_TD` of the shot, `text_D` of its prompt, `film_ND` of the film, and a network for perceptual distance."""

    frames_TD: Array
    text_D: Array
    film_ND: Array
    net: PerceptualNet


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """One shot and what it is held against. Frames `THWC` in [0, 1]; `cloud_N3` and `film_N3` from `cloud`; None = not known."""

    frames_THWC: Frames
    cloud_N3: Array
    film_N3: Array | None = None
    truth_THWC: Frames | None = None
    clip: Semantics | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """A row: `measure` may rely on what `needs` names. `better="none"` is a fact about the shot, not a merit."""

    name: str
    measure: Callable[[Evidence], float]
    unit: str
    better: Literal["lower", "higher", "none"]
    needs: tuple[Needs, ...] = ()
    version: str = "1"


def cloud(frames_THWC: Frames) -> Array:
    """Lab pixels `[N, 3]` of a clip for the grade metrics."""
    return lab_cloud(frames_THWC, pixels=CLOUD_PIXELS)


def embed(model: Any, frames_THWC: Frames) -> Array:
    """CLIP features `[T', D]` of every `FRAME_STEP`-th frame after the first (of the first alone if there is no other)."""
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
        "truth": "" if evidence.truth_THWC is not None else "no truth is known for this shot",
        "clip": "" if evidence.clip is not None else "the CLIP features are not installed",
    }
    found: dict[str, tuple[float | None, str]] = {}
    for row in METRICS:
        why = next((missing[need] for need in row.needs if missing[need]), "")
        try:
            found[row.name] = (None, why) if why else (row.measure(evidence), "")
        except ScoreError as error:
            found[row.name] = (None, error.what)
    return found


def _film(e: Evidence) -> Array:
    assert e.film_N3 is not None
    return e.film_N3


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


def _motion_error(e: Evidence) -> float:
    shot, truth = (motion(film).speed + STILL_SPEED for film in _pair(e))
    return float(abs(np.log(shot / truth)))


def _perceptual(e: Evidence) -> float:
    shot, truth = _pair(e)
    return float(lpips_curve(_clip(e).net, _signed(shot[1:]), _signed(truth[1:])).mean())


def _tlp(e: Evidence) -> float:
    shot, truth = _pair(e)
    return tlp(_clip(e).net, _signed(shot), _signed(truth))


METRICS: tuple[Metric, ...] = (
    Metric(name="tone_w1", unit="L*", better="lower", needs=("film",), measure=lambda e: tone_distance(e.cloud_N3, _film(e))),
    Metric(name="lab_frechet", unit="Lab", better="lower", needs=("film",), measure=lambda e: lab_frechet(e.cloud_N3, _film(e))),
    Metric(name="split_tone", unit="dE2000", better="lower", needs=("film",), measure=lambda e: split_tone(e.cloud_N3, _film(e)).mean),
    Metric(name="palette", unit="dE2000", better="lower", needs=("film",), measure=lambda e: palette_distance(e.cloud_N3, _film(e))),
    Metric(name="colour_error", unit="dE2000", better="lower", needs=("truth",), measure=lambda e: colour_error(*_pair(e))),
    Metric(name="perceptual", unit="pocket distance", better="lower", needs=("truth", "clip"), measure=_perceptual),
    Metric(name="tlp", unit="pocket distance", better="lower", needs=("truth", "clip"), measure=_tlp),
    Metric(name="motion_error", unit="|log ratio|", better="lower", needs=("truth",), measure=_motion_error),
    Metric(name="motion", unit="% of short side per frame", better="none", measure=lambda e: motion(e.frames_THWC).speed),
    Metric(name="flicker", unit="L*", better="none", measure=lambda e: luma_flicker(e.frames_THWC).frame),
    Metric(name="frozen", unit="share of steps", better="none", measure=lambda e: stillness(e.frames_THWC).share),
    Metric(name="clip_text", unit="cosine", better="higher", needs=("clip",), measure=lambda e: text_similarity(_clip(e).frames_TD, _clip(e).text_D)),
    Metric(name="clip_frame", unit="cosine", better="none", needs=("clip",), measure=lambda e: frame_similarity(_clip(e).frames_TD)),
    Metric(name="clip_reference", unit="cosine", better="higher", needs=("film", "clip"),
           measure=lambda e: reference_similarity(_clip(e).frames_TD, _clip(e).film_ND).mean),
)  # fmt: skip
SET_METRICS = ("clip_kid",)
"""Metrics of all shots of an arm together; they need `kid` tables and have no value for one shot."""
