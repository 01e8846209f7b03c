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
from pocket_training import bars, denoiser, pictures
from pocket_training.common import Run, load_checkpoint, pixels, psnr
from pocket_training.film_set import Clips, held_clips

IMAGES = Path(__file__).resolve().parents[2] / "docs" / "images"
STEPS, GUIDANCE = 8, 2.0
PICTURED = 20


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


@torch.no_grad()
def generate(
    model: WanVideo, first_frames: np.ndarray, captions: list[str], *, steps: int = STEPS, guidance: float = GUIDANCE
) -> Tensor:
    """Clips `NCTHW` in [-1, 1] generated from each first frame (uint8 `NHWC`) and caption."""
    clips: list[Tensor] = []
    for i in range(0, len(first_frames), 4):
        first = pixels(first_frames[i : i + 4, None])[:, :, 0]
        cond = model.condition(captions[i : i + 4], first, pocket.FRAMES, negative=[""] * len(first))
        shape = (len(first), model.info.latent_channels, *cond.latent_BCfhw.shape[2:])
        noise = torch.randn(shape, generator=generator(0, "card", i))
        latents = sample(model, cond, noise, steps=steps, guidance=guidance, shift=model.info.release.shift)
        clips.append(torch.cat(list(model.decode(latents)), 2).float().cpu())
    return torch.cat(clips)


def readers(run: Run) -> list[bars.Reader]:
    """The readers of the card, taught by true training clips."""
    clips = Clips(run)
    count = min(run.reader_clips, len(clips))
    true = np.stack([clips[i] for i in range(count)])
    taught = bars.teach(true, clips.captions()[:count], seed=run.seed, device=run.device, steps=run.reader_steps)
    return [reader.cpu() for reader in taught]


def measured(numbers: dict[str, float]) -> str:
    """The rows of a table: what, value, bar, whether it holds."""
    rows: list[str] = []
    for name, value in numbers.items():
        bar = bars.BARS.get(name)
        verdict = "" if bar is None else "holds" if bar.holds(value) else "**does not hold**"
        rows.append(f"| {name} | {value:.4g} | {bar or ''} | {verdict} |")
    return "\n".join(rows)


CARD = """# pocket: a Wan2.1-I2V in miniature

The default model of cinetune. It is made of the same diffusers and transformers classes as Wan2.1-I2V-14B and was
pre-trained from nothing on cinetune's own procedural film set (`cinetune.backlot`) in neutral grade, so that all of
cinetune runs on a laptop without a download. It knows that film set and nothing else.

| part | class | parameters |
|---|---|---|
{parts}

Made by

    {command}

{begun}, {where}: seed {run.seed}, {clips} clips of 33 frames at 64x96;
{vae_steps} steps of the autoencoder{kept}, {run.clip_steps} of CLIP, {denoiser_steps:.0f} of the denoiser.

Measured on {run.held} held-out scenes ({steps} UniPC steps, guidance {guidance}, one seed) by
`python tools/measure_pocket.py`. A frozen first frame is what a model that ignores motion would score. Subject, place
and time are read off the last frame, direction and camera off the clip, by a small classifier that has learnt from true
frames alone.

| what | value | bar | |
|---|---|---|---|
{numbers}

{worst}

Licence: Apache-2.0. All training pictures are drawn by code in this repository.
"""


def _last(run: Run, part: str, key: str) -> float:
    return json.loads((run.work / f"{part}.jsonl").read_text(encoding="utf-8").splitlines()[-1])[key]


def _worst(found: dict[str, str]) -> str:
    if not found:
        return "Every class was read off every generated clip."
    return "Worst read, of each kind: " + "; ".join(f"{fact}: {what}" for fact, what in found.items()) + "."


def measure(model: WanVideo, run: Run) -> tuple[dict[str, float], dict[str, str], Tensor]:
    """Figures, worst classes, and the generated clips of the held-out scenes."""
    held, captions = held_clips(run)
    clips, truth = generate(model, held[:, 0], captions), pixels(held)
    taught = readers(run)
    numbers = _autoencoder_numbers(model, held) | bars.figures(taught, clips, truth, captions)
    return numbers, bars.worst_classes(taught, clips, captions), clips


def write(run: Run, *, command: str) -> None:
    """Weights, `README.md` and `numbers.json` into `run.out`; sheet and curves into `run.images`."""
    parts = denoiser.assemble(run)
    folder = run.out
    if folder == pocket.weights_folder():
        shutil.rmtree(folder, ignore_errors=True)
    pocket.save(parts, folder)
    device = "cuda:0" if run.device == "cuda" else "cpu"
    model = WanVideo.from_folder(folder, family="pocket", device=device)
    found, worst, clips = measure(model, run)
    numbers = found | {"denoiser v-loss": _last(run, "denoiser", "held")}
    if run.clip_steps or not run.start:
        numbers[f"CLIP: true caption among the first 5 of {run.held}"] = _last(run, "clip", "held_top5")
    held, captions = held_clips(run)
    pictures.sheet(clips[:PICTURED], pixels(held[:PICTURED]), captions[:PICTURED], run.images / "pocket.jpg")
    pictures.curves(run, run.images / "pocket-curves.svg")
    modules = {"vae": parts.vae, "denoiser": parts.denoiser, "text_encoder": parts.text_encoder, "clip": parts.clip}
    sizes = {name: sum(p.numel() for p in module.parameters()) for name, module in modules.items()}
    text = CARD.format(
        run=run,
        command=command,
        begun="continued from trained weights" if run.start else "from nothing",
        clips=len(Clips(run)),
        vae_steps=(load_checkpoint(run.work / "vae.ckpt") or {"step": 0})["step"],
        kept=" (its encoder kept)" if run.keep_encoder else "",
        denoiser_steps=_last(run, "denoiser", "step") + 1,
        where=f"on one {torch.cuda.get_device_name()}" if run.device == "cuda" else f"in {run.ranks} CPU processes",
        steps=STEPS,
        guidance=GUIDANCE,
        parts="\n".join(f"| {name} | {type(module).__name__} | {sizes[name]:,} |" for name, module in modules.items()),
        numbers=measured(numbers),
        worst=_worst(worst),
    )
    (folder / "README.md").write_text(text, encoding="utf-8")
    (folder / "numbers.json").write_text(json.dumps(numbers | {"worst": worst}, indent=1), encoding="utf-8")
