"""The end of pre-training: assemble the parts, write them into the package, measure them, write the card."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from cinetune.models.wan import pocket
from cinetune.models.wan.sample import sample
from cinetune.models.wan.wan21 import WanVideo
from cinetune.runtime import generator
from pocket_training import autoencoder, contrast, denoiser, pictures
from pocket_training.common import Run, pixels, psnr
from pocket_training.film_set import held_clips

IMAGES = Path(__file__).resolve().parents[2] / "docs" / "images"
STEPS, GUIDANCE = 20, 2.0
GENERATED, PICTURED = 16, 10


def _autoencoder_numbers(model: WanVideo, held: np.ndarray) -> dict[str, float]:
    whole: list[float] = []
    last: list[float] = []
    for i in range(0, len(held), 4):
        x = pixels(held[i : i + 4])
        back = torch.cat(list(model.decode(model.encode_video(x))), 2)
        whole += [psnr(a, b) for a, b in zip(back, x, strict=True)]
        last += [psnr(a[:, -1], b[:, -1]) for a, b in zip(back, x, strict=True)]
    return {
        "autoencoder PSNR over 33 frames, dB": float(np.mean(whole)),
        "autoencoder PSNR of the last frame, dB": float(np.mean(last)),
        "autoencoder PSNR of the worst clip, dB": min(whole),
    }


def _generate(model: WanVideo, held: np.ndarray, captions: list[str]) -> Tensor:
    """Clips `NCTHW` generated from each held-out first frame and caption."""
    clips: list[Tensor] = []
    for i in range(0, len(held), 2):
        first = pixels(held[i : i + 2, :1])[:, :, 0]
        cond = model.condition(captions[i : i + 2], first, pocket.FRAMES, negative=[""] * len(first))
        shape = (len(first), model.info.latent_channels, *cond.latent_BCfhw.shape[2:])
        noise = torch.randn(shape, generator=generator(0, "card", i))
        latents = sample(model, cond, noise, steps=STEPS, guidance=GUIDANCE, shift=model.info.release.shift)
        clips.append(torch.cat(list(model.decode(latents)), 2))
    return torch.cat(clips)


def _mean_psnr(a_NCTHW: Tensor, b_NCTHW: Tensor) -> float:
    return float(np.mean([psnr(a, b) for a, b in zip(a_NCTHW, b_NCTHW, strict=True)]))


def _motion(clips_NCTHW: Tensor) -> float:
    return (clips_NCTHW[:, :, 1:] - clips_NCTHW[:, :, :-1]).abs().mean().item()


def _generated_numbers(clips: Tensor, truth: Tensor) -> dict[str, float]:
    colour = (clips[:, :, -1].mean((-1, -2)) - truth[:, :, -1].mean((-1, -2))).abs().mean().item() / 2
    return {
        "generated clip against the true one, PSNR, dB": _mean_psnr(clips, truth),
        "frozen first frame against the true clip, PSNR, dB": _mean_psnr(truth[:, :, :1].expand_as(truth), truth),
        "mean colour error of the last generated frame (0 to 1)": colour,
        "motion of generated clips over motion of true ones": _motion(clips) / _motion(truth),
    }


CARD = """# pocket: a Wan2.1-I2V in miniature

The default model of cinetune. It is made of the same diffusers and transformers classes as Wan2.1-I2V-14B and was
pre-trained from nothing on cinetune's own procedural film set (`cinetune.backlot`) in neutral grade, so that all of
cinetune runs on a laptop without a download. It knows that film set and nothing else.

| part | class | parameters |
|---|---|---|
{parts}

Made by

    {command}

{begun}: seed {run.seed}, {run.clips} clips of 33 frames at 64x96, {run.ranks} processes of one CPU thread;
{run.vae_steps} steps of the autoencoder, {run.clip_steps} of CLIP, {run.denoiser_steps} of the denoiser.

Measured on {run.held} held-out scenes (generated clips: {generated} of them, {steps} UniPC steps, guidance {guidance},
one seed). A frozen first frame is what a model that ignores motion would score.

| what | value |
|---|---|
{numbers}

Licence: Apache-2.0. All training pictures are drawn by code in this repository.
"""


def _last(run: Run, part: str, key: str) -> float:
    return json.loads((run.work / f"{part}.jsonl").read_text(encoding="utf-8").splitlines()[-1])[key]


def write(run: Run, words: list[str], *, command: str) -> None:
    """Weights, `README.md` and `numbers.json` into the package; sheet and curves into `docs/images`."""
    parts = pocket.fresh(words, seed=run.seed)
    parts.vae = autoencoder.finish(run)
    contrast.finish(run, parts)
    denoiser.finish(run, parts)
    folder = pocket.weights_folder()
    shutil.rmtree(folder, ignore_errors=True)
    pocket.save(parts, folder)
    model = WanVideo.from_folder(folder, family="pocket")
    held, captions = held_clips(run)
    clips, truth = _generate(model, held[:GENERATED], captions[:GENERATED]), pixels(held[:GENERATED])
    numbers = _autoencoder_numbers(model, held) | {
        f"CLIP: true caption among the first 5 of {run.held}": _last(run, "clip", "held_top5"),
        "denoiser v-loss": _last(run, "denoiser", "held"),
    }
    numbers |= _generated_numbers(clips, truth)
    pictures.sheet(clips[:PICTURED], truth[:PICTURED], captions[:PICTURED], IMAGES / "pocket.jpg")
    pictures.curves(run, IMAGES / "pocket-curves.svg")
    modules = {"vae": parts.vae, "denoiser": parts.denoiser, "text_encoder": parts.text_encoder, "clip": parts.clip}
    sizes = {name: sum(p.numel() for p in module.parameters()) for name, module in modules.items()}
    text = CARD.format(
        run=run,
        command=command,
        begun="continued from trained weights" if run.start else "from nothing",
        generated=GENERATED,
        steps=STEPS,
        guidance=GUIDANCE,
        parts="\n".join(f"| {name} | {type(module).__name__} | {sizes[name]:,} |" for name, module in modules.items()),
        numbers="\n".join(f"| {name} | {value:.4g} |" for name, value in numbers.items()),
    )
    (folder / "README.md").write_text(text, encoding="utf-8")
    (folder / "numbers.json").write_text(json.dumps(numbers, indent=1), encoding="utf-8")
