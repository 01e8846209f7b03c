"""The tiny CLIP: pictures against captions, contrastively, with re-graded pictures so that it sees colour but is not
fooled by it.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import CLIPModel

from cinetune.models.wan import pocket
from pocket_training.common import Log, Pace, Run, cosine, load_checkpoint, pixels, save_checkpoint
from pocket_training.film_set import Clips, held_clips

PEAK_RATE = 1e-3
BATCH = 96
CONTEXT = 48


def clip_pixels(frames_BCHW: Tensor) -> Tensor:
    """Frames in [-1, 1] as the vision tower takes them: squashed to the square, CLIP's mean and deviation."""
    side = pocket.CLIP_VISION["image_size"]
    small = F.interpolate(frames_BCHW, size=(side, side), mode="bicubic", antialias=True).clamp(-1, 1)
    mean = torch.tensor(pocket.CLIP_MEAN).view(1, 3, 1, 1)
    std = torch.tensor(pocket.CLIP_STD).view(1, 3, 1, 1)
    return ((small + 1) / 2 - mean) / std


def _frames(clips: Clips, index: np.ndarray, rng: np.random.Generator) -> Tensor:
    times = rng.integers(pocket.FRAMES, size=len(index))
    x = pixels(np.stack([clips[i][t] for i, t in zip(index, times, strict=True)])[:, None])[:, :, 0]
    gain = torch.from_numpy(rng.uniform(0.85, 1.15, (len(index), 3, 1, 1)).astype(np.float32))
    return ((x + 1) * gain - 1).clamp(-1, 1)


def _logits(clip: CLIPModel, parts: pocket.Parts, frames: Tensor, captions: list[str]) -> Tensor:
    tokens = parts.tokenizer(captions, padding="max_length", max_length=CONTEXT, truncation=True, return_tensors="pt")
    out = clip(input_ids=tokens.input_ids, attention_mask=tokens.attention_mask, pixel_values=clip_pixels(frames))
    return out.logits_per_image


@torch.no_grad()
def _top5(clip: CLIPModel, parts: pocket.Parts, held: np.ndarray, captions: list[str]) -> float:
    """Share of the held-out frames whose own caption is among the five nearest."""
    logits = _logits(clip, parts, pixels(held[:, 8:9])[:, :, 0], captions)
    return (logits.topk(5).indices == torch.arange(len(held))[:, None]).any(1).float().mean().item()


def train(run: Run, words: list[str]) -> None:
    """Single process, CPU or GPU alike; a few minutes."""
    path = run.work / "clip.ckpt"
    state = load_checkpoint(path)
    done = state["step"] if state else 0
    if state and done >= run.clip_steps:
        return
    log = Log(run.work / "clip.jsonl", 0)
    parts = pocket.fresh(words, seed=run.seed)
    clip = parts.clip.train()
    if run.start:
        clip.load_state_dict(CLIPModel.from_pretrained(run.start / "clip").state_dict())
    optimiser = torch.optim.AdamW(clip.parameters(), PEAK_RATE, betas=(0.9, 0.98), weight_decay=0.05)
    if state:
        clip.load_state_dict(state["clip"])
        optimiser.load_state_dict(state["optimiser"])
    clips = Clips(run)
    captions, pace = clips.captions(), Pace(run.clip_steps)
    held, held_captions = held_clips(run)
    for step in range(done, run.clip_steps):
        rng = np.random.default_rng((run.seed, 7, step))
        index = rng.choice(len(clips), BATCH, replace=False)
        optimiser.param_groups[0]["lr"] = PEAK_RATE * cosine(pace.share(step), step, warmup=50)
        logits = _logits(clip, parts, _frames(clips, index, rng), [captions[i] for i in index])
        goal = torch.arange(BATCH)
        loss = (F.cross_entropy(logits, goal) + F.cross_entropy(logits.T, goal)) / 2
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(clip.parameters(), 1.0)
        optimiser.step()
        with torch.no_grad():
            clip.logit_scale.clamp_(max=4.6052)
        if step % 50 == 0:
            log.write(step=step, loss=loss.item(), held_top5=_top5(clip, parts, held, held_captions))
        if step % 200 == 199:
            save_checkpoint(path, 0, clip=clip.state_dict(), optimiser=optimiser.state_dict(), step=step + 1)
    log.write(step=run.clip_steps, held_top5=_top5(clip, parts, held, held_captions))
    save_checkpoint(path, 0, clip=clip.state_dict(), optimiser=optimiser.state_dict(), step=run.clip_steps)


def finish(run: Run, parts: pocket.Parts) -> None:
    """Put the trained towers into `parts`."""
    state = load_checkpoint(run.work / "clip.ckpt")
    assert state is not None
    parts.clip.load_state_dict(state["clip"])
    parts.clip.eval().requires_grad_(False)
