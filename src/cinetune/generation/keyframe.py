"""The first picture of a shot.

An image-to-video model needs a first picture and then clings to it, so the look must be in that picture. Six ways to
get one from a reference (a location still, a previs frame, a painting), the same way for every arm:

    as-is     the reference itself
    late      generate a segment from the reference and keep a late picture, when the adapter has had time to act
    restyle   SDEdit (Meng et al. 2022): noise the reference part of the way and denoise it with the adapter
    develop   generate the shot's first segment from the reference; an adapter trained with reference augmentation
              grades it, frame 0 less than the rest; frame 0 is the keyframe and the segment is kept
    lead      develop, and give the first pictures of that segment, geometry untouched, the grade of those right behind
              them, where the look has settled; frame 0 is the keyframe and the segment is kept
    settle    develop a short window and give the reference, geometry untouched, the grade its later frames settle at
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from cinetune.artifacts import Method
from cinetune.errors import ModelError
from cinetune.generation.segment import Recipe, conditioning, generate, pictures, starting_noise
from cinetune.generation.settle import led, regraded, settled_pixels
from cinetune.metrics import lab_cloud, lab_frechet, nearest_scenes
from cinetune.metrics.checks import Array
from cinetune.models.family import Conditioning, VideoModel
from cinetune.models.wan.sample import sample
from cinetune.runtime import derive

__all__ = ["Candidate", "candidate_quality", "candidate_seed", "film_clouds", "look_distance", "make_candidate"]

RESTYLE_FRAMES = 9
"""Long enough to be film to the model, short enough to be cheap."""
LATE_SHARE = 1 / 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A possible keyframe; `opening` holds the latents `1Cfhw` of the first segment where it came with one."""

    picture_HWC: Tensor
    opening: Tensor | None


def candidate_seed(shot_seed: int, seed_index: int, candidate: int) -> int:
    """Noise seed of a candidate. Candidate 0 has the seed of the shot's first segment, so that `develop` makes that
    segment.
    """
    if candidate == 0:
        return derive(shot_seed, "shoot", seed_index, 0)
    return derive(shot_seed, "shoot", seed_index, "candidate", candidate)


def film_clouds(stills: Sequence[Array]) -> list[Array]:
    """Lab pixels `[N, 3]` of each of the film's stills (`HWC` in [0, 1])."""
    return [lab_cloud(still[None], pixels=2000) for still in stills]


def look_distance(picture_HWC: Tensor, film: Sequence[Array]) -> float:
    """How far the picture's colours are from those of the film's nearest stills (`film_clouds`): Lab Fréchet distance,
    Lab units, 0 = the same colours.
    """
    cloud = lab_cloud(picture_HWC.numpy()[None])
    return lab_frechet(cloud, nearest_scenes(cloud, film))


def make_candidate(
    method: Method,
    model: VideoModel,
    reference_HWC: Tensor,
    recipe: Recipe,
    *,
    seed: int,
    strength: float,
    film: Sequence[Array] | None,
) -> Candidate:
    """One candidate by one method. `strength` (0, 1] is used by `restyle`, `film` (from `film_clouds`) by `late`.

    Raises `ModelError` for sizes and frame counts the model cannot take, or when it yields NaN.
    """
    match method:
        case "as-is":
            return Candidate(picture_HWC=reference_HWC, opening=None)
        case "late":
            assert film is not None, "late keyframes are chosen by their distance to the film"
            latents = generate(model, reference_HWC, recipe, seed=seed)
            return Candidate(picture_HWC=_late_picture(list(pictures(model, latents)), film), opening=None)
        case "restyle":
            return Candidate(
                picture_HWC=_restyle(model, reference_HWC, recipe, seed=seed, strength=strength), opening=None
            )
        case "develop":
            latents = generate(model, reference_HWC, recipe, seed=seed)
            return Candidate(picture_HWC=next(pictures(model, latents)), opening=latents)
        case "lead":
            latents = generate(model, reference_HWC, recipe, seed=seed)
            shown = led(pictures(model, latents), model.info.stride_time)
            return Candidate(picture_HWC=next(shown), opening=latents)
        case "settle":
            latents = generate(model, reference_HWC, recipe, seed=seed)
            settled = settled_pixels(list(pictures(model, latents)))
            return Candidate(picture_HWC=regraded(reference_HWC, settled), opening=None)


def candidate_quality(picture_HWC: Tensor, reference_HWC: Tensor) -> float:
    """How much of the reference a candidate keeps, apart from its grade: the correlation of their edges times the
    smaller over the larger of their sharpness, both on luma of unit variance. [-1, 1], higher is better.
    """
    ours, theirs = _standard_luma(picture_HWC), _standard_luma(reference_HWC)
    edges = [torch.cat([luma.diff(dim=0).flatten(), luma.diff(dim=1).flatten()]) for luma in (ours, theirs)]
    lengths = edges[0].norm() * edges[1].norm()
    if lengths == 0:
        return 0.0
    sharp = sorted(float(edge.square().mean()) for edge in edges)
    return float(edges[0] @ edges[1] / lengths) * (sharp[0] / sharp[1]) ** 0.5


def _standard_luma(picture_HWC: Tensor) -> Tensor:
    luma = picture_HWC.double() @ picture_HWC.new_tensor([0.2126, 0.7152, 0.0722]).double()
    return (luma - luma.mean()) / luma.std().clamp(min=1e-6)


def _late_picture(shot: Sequence[Tensor], film: Sequence[Array]) -> Tensor:
    """Of the last third, the half that is sharpest; of those, the picture nearest to the film in colour."""
    late = shot[len(shot) - max(1, round(len(shot) * LATE_SHARE)) :]
    sharp = [_sharpness(picture) for picture in late]
    least = float(np.median(sharp)) * (1 - 1e-4)  # a pure grade moves it by rounding alone
    kept = [picture for picture, value in zip(late, sharp, strict=True) if value >= least]
    return min(kept, key=lambda picture: look_distance(picture, film))


def _sharpness(picture_HWC: Tensor) -> float:
    """Variance of the Laplacian of luma: only ever compared inside one shot."""
    luma = picture_HWC @ picture_HWC.new_tensor([0.2126, 0.7152, 0.0722])
    centre = luma[1:-1, 1:-1]
    around = luma[:-2, 1:-1] + luma[2:, 1:-1] + luma[1:-1, :-2] + luma[1:-1, 2:]
    return float((around - 4 * centre).var())


@torch.no_grad()
def _restyle(model: VideoModel, reference_HWC: Tensor, recipe: Recipe, *, seed: int, strength: float) -> Tensor:
    short = replace(recipe, frames=min(recipe.frames, RESTYLE_FRAMES))
    height, width = reference_HWC.shape[:2]
    still = (reference_HWC.permute(2, 0, 1)[None, :, None] * 2 - 1).expand(-1, -1, short.frames, -1, -1)
    latents = sample(
        model,
        _unpinned(model, reference_HWC, short),
        starting_noise(model.info, short.frames, height=height, width=width, seed=seed),
        steps=short.steps,
        guidance=short.guidance,
        shift=short.shift,
        start_latents=model.encode_video(still.contiguous()),
        strength=strength,
    )
    return next(pictures(model, latents))


def _unpinned(model: VideoModel, reference_HWC: Tensor, recipe: Recipe) -> Conditioning:
    """Conditioning in which no frame is given: mask 0 and the latents of grey everywhere, text and CLIP image kept.

    With the mask at 1 on frame 0 the model would paint the unstyled reference back.
    """
    cond = conditioning(model, reference_HWC, recipe)
    grey = conditioning(model, torch.full_like(reference_HWC, 0.5), recipe)
    masks = cond.latent_BCfhw.shape[1] - model.info.latent_channels
    if masks < 1:
        raise ModelError(f"{model.info.name} has no mask channels", remedy="use another keyframes.method than restyle")
    latent = grey.latent_BCfhw.clone()
    latent[:, :masks] = 0
    return replace(cond, latent_BCfhw=latent)
