"""How much velocity loss can an adapter win on the pocket model? The base model's loss on unseen historical scenes.

    python benchmarks/velocity_loss.py

For each look: ungraded clips from ungraded first frames, graded from graded, and graded from ungraded ones. The same
scenes, noise and noise levels each time.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from cinetune.backlot.looks import LOOKS, grade
from cinetune.backlot.scenes import Scene, caption, render, sample_scene
from cinetune.metrics.checks import Array
from cinetune.models.family import Batch
from cinetune.models.wan import pocket
from cinetune.models.wan.wan21 import WanVideo
from cinetune.training.step import flow_loss
from cinetune.training.validate import quantile_sigmas

SCENES, BATCH = 8, 4


def _pixels(films: list[Array]) -> Tensor:
    """`NCTHW` in [-1, 1]."""
    return torch.from_numpy(np.stack(films)).float().permute(0, 4, 1, 2, 3) * 2 - 1


@torch.no_grad()
def _loss(model: WanVideo, scenes: list[Scene], clips: Tensor, first: Tensor) -> float:
    found: list[Tensor] = []
    for i in range(0, len(scenes), BATCH):
        part = slice(i, i + BATCH)
        latents = model.encode_video(clips[part])
        cond = model.condition([caption(scene) for scene in scenes[part]], first[part, :, 0], pocket.FRAMES)
        noise = torch.randn(latents.shape, generator=torch.Generator().manual_seed(i))
        for sigma in quantile_sigmas("logit-normal", pocket.SHIFT):
            batch = Batch(latents_BCfhw=latents, cond=cond)
            found.append(flow_loss(model, batch, sigma.expand(len(latents)), noise).mean())
    return torch.stack(found).mean().item()


def main() -> None:
    model = WanVideo.from_folder(pocket.weights_folder(), family="pocket")
    random = np.random.default_rng(99)
    scenes = [sample_scene(random, domain="historical") for _ in range(SCENES)]
    films = [render(scene) for scene in scenes]
    neutral = _pixels(films)
    plain = _loss(model, scenes, neutral, neutral)
    print("| look | ungraded from ungraded | graded from graded | graded from ungraded |\n|---|---|---|---|")
    for look in LOOKS.values():
        graded = _pixels([grade(film, look) for film in films])
        copied, developed = (_loss(model, scenes, graded, first) for first in (graded, neutral))
        print(f"| {look.name} | {plain:.3f} | {copied:.3f} | {developed:.3f} |", flush=True)


if __name__ == "__main__":
    main()
