"""Likeness of frames: CLIP cosine scores from features, LPIPS-style distances from a network's maps."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from cinetune.errors import ScoreError
from cinetune.metrics.checks import Array, feature_rows, same_shape, same_width, unit_rows

__all__ = [
    "PerceptualCurves",
    "PerceptualNet",
    "ReferenceSimilarity",
    "frame_similarity",
    "lpips_curve",
    "perceptual_curves",
    "perceptual_distance",
    "reference_similarity",
    "text_similarity",
    "tlp",
]


class PerceptualNet(Protocol):
    """A frozen network: frames `TCHW` in [-1, 1] to a list of maps `[T, C_l, h_l, w_l]`, with its channel weights."""

    @property
    def channel_weights(self) -> Sequence[Tensor] | None:
        """Per layer a non-negative `[C_l]` vector, or None for weight 1 on every channel."""
        ...

    def __call__(self, frames_TCHW: Tensor) -> list[Tensor]: ...


def text_similarity(frames_TD: ArrayLike, text_D: ArrayLike) -> float:
    """CLIP-SIM text: mean cosine of frames and prompt (CLIPSIM, Wu et al. 2021). Range [-1, 1]."""
    frames = unit_rows(frames_TD, name="frame features")
    text = unit_rows(np.asarray(text_D, dtype=np.float64).reshape(1, -1), name="text features")
    same_width(frames, text)
    return float((frames @ text[0]).mean())


def frame_similarity(frames_TD: ArrayLike) -> float:
    """CLIP-SIM frame: mean cosine of neighbouring frames. Range [-1, 1]; a frozen clip scores 1: show motion too."""
    frames = unit_rows(feature_rows(frames_TD, name="frame features", least=2), name="frame features")
    return float((frames[1:] * frames[:-1]).sum(1).mean())


@dataclass(frozen=True, slots=True, kw_only=True)
class ReferenceSimilarity:
    """Mean over frames of the mean, and of the highest, cosine to a reference set; both in [-1, 1]."""

    mean: float
    highest: float


def reference_similarity(frames_TD: ArrayLike, reference_ND: ArrayLike) -> ReferenceSimilarity:
    """CLIP-SIM reference: cosine of generated frames to reference frames (CLIP-I of DreamBooth, Ruiz et al. 2023).

    Leave the conditioning frame out of `frames_TD`: it is given, not generated.
    """
    frames, reference = unit_rows(frames_TD, name="frame features"), unit_rows(reference_ND, name="reference features")
    same_width(frames, reference)
    cosine = frames @ reference.T
    return ReferenceSimilarity(mean=float(cosine.mean()), highest=float(cosine.max(1).mean()))


def perceptual_distance(
    features_x: Sequence[Tensor], features_y: Sequence[Tensor], weights: Sequence[Tensor] | None = None
) -> Tensor:
    """LPIPS formula (Zhang et al. 2018) on two lists of maps `[T, C_l, h_l, w_l]`; returns `[T]`.

    `sum_l mean_hw sum_c w_lc (x_lc / |x_l| - y_lc / |y_l|)^2`, lengths over channels per position. Without `weights`
    every channel has weight 1 and each layer lies in [0, 4]. 0 only for maps equal up to scale. Raises `ScoreError`
    on a mismatch.
    """
    if len(features_x) == 0 or len(features_x) != len(features_y):
        raise ScoreError(f"{len(features_x)} and {len(features_y)} feature maps cannot be compared", where="LPIPS")
    if weights is not None and len(weights) != len(features_x):
        raise ScoreError(f"{len(weights)} channel weights for {len(features_x)} layers", where="LPIPS")
    return _between([_unit_channels(x) for x in features_x], [_unit_channels(y) for y in features_y], weights)


def _between(unit_x: Sequence[Tensor], unit_y: Sequence[Tensor], weights: Sequence[Tensor] | None) -> Tensor:
    """`perceptual_distance` of maps whose channels have length 1 already."""
    total = torch.zeros(unit_x[0].shape[0], device=unit_x[0].device)
    for layer, (x, y) in enumerate(zip(unit_x, unit_y, strict=True)):
        same_shape(x.shape, y.shape)
        square = (x - y).square()
        if weights is not None:
            if weights[layer].numel() != x.shape[1]:
                raise ScoreError(
                    f"{weights[layer].numel()} weights for {x.shape[1]} channels", where=f"LPIPS layer {layer}"
                )
            square = square * weights[layer].to(square).reshape(1, -1, 1, 1)
        total = total + square.sum(1).mean((1, 2))
    return total


def lpips_curve(net: PerceptualNet, x_TCHW: Tensor, y_TCHW: Tensor, *, chunk: int = 8) -> Array:
    """Perceptual distance of each frame pair, `[T]`, frames in [-1, 1], `chunk` frames at a time to bound memory.

    Frame 0 of an image-to-video clip is its input; averages should start at index 1.
    """
    _same_clips(x_TCHW, y_TCHW)
    parts = []
    with torch.no_grad():
        for x, y in zip(x_TCHW.split(chunk), y_TCHW.split(chunk), strict=True):
            parts.append(perceptual_distance(net(x), net(y), net.channel_weights))
    return torch.cat(parts).double().cpu().numpy()


@dataclass(frozen=True, slots=True, kw_only=True)
class PerceptualCurves:
    """Perceptual distances of two clips of T frames: `between` them frame by frame `[T]`, and of neighbouring frames
    inside each, `x` and `y` `[T - 1]`.
    """

    between: Array
    x: Array
    y: Array

    @property
    def tlp(self) -> float:
        """`mean_t |d(x_t, x_t+1) - d(y_t, y_t+1)|` (tLP, Chu et al. 2020, not x100). 0 when the clip changes from frame
        to frame exactly as much as the real one; both freezing and flicker raise it. Raises `ScoreError` for one frame.
        """
        if len(self.x) == 0:
            raise ScoreError("one frame has no neighbour to differ from", where="tLP")
        return float(np.abs(self.x - self.y).mean())


def perceptual_curves(net: PerceptualNet, x_TCHW: Tensor, y_TCHW: Tensor, *, chunk: int = 8) -> PerceptualCurves:
    """Every frame of both clips once through the network, `chunk` frames at a time to bound memory."""
    _same_clips(x_TCHW, y_TCHW)
    found: tuple[list[Tensor], list[Tensor], list[Tensor]] = ([], [], [])
    before: list[list[Tensor]] = []
    weights = net.channel_weights
    with torch.no_grad():
        for parts in zip(x_TCHW.split(chunk), y_TCHW.split(chunk), strict=True):
            maps = [[_unit_channels(layer) for layer in net(part)] for part in parts]
            found[0].append(_between(maps[0], maps[1], weights))
            for curve, own, last in zip(found[1:], maps, before or [[], []], strict=True):
                joined = [torch.cat([a, b]) for a, b in zip(last, own, strict=True)] if last else own
                curve.append(_between([m[:-1] for m in joined], [m[1:] for m in joined], weights))
            before = [[layer[-1:] for layer in own] for own in maps]
    between, x, y = (torch.cat(parts).double().cpu().numpy() for parts in found)
    return PerceptualCurves(between=between, x=x, y=y)


def _same_clips(x_TCHW: Tensor, y_TCHW: Tensor) -> None:
    same_shape(x_TCHW.shape, y_TCHW.shape)
    if x_TCHW.ndim != 4 or x_TCHW.shape[0] == 0:
        raise ScoreError(f"frames must be [T, C, H, W], got {list(x_TCHW.shape)}", where="LPIPS")


def tlp(net: PerceptualNet, x_TCHW: Tensor, y_TCHW: Tensor, *, chunk: int = 8) -> float:
    """`PerceptualCurves.tlp` of two clips in [-1, 1]."""
    return perceptual_curves(net, x_TCHW, y_TCHW, chunk=chunk).tlp


def _unit_channels(x_TCHW: Tensor) -> Tensor:
    # The small constant sits outside the root, as in the published LPIPS code: values then agree to float precision.
    return x_TCHW / (x_TCHW.square().sum(1, keepdim=True).sqrt() + 1e-10)
