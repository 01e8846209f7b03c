"""The denoiser and its text encoder, by flow matching on cached latents: some frames of each window, then all."""

from __future__ import annotations

import copy
import time

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import WanTransformer3DModel
from torch import Tensor, nn
from transformers import UMT5EncoderModel

from cinetune.models.wan import pocket
from pocket_training import autoencoder, contrast, self_attention, short_text
from pocket_training.common import (
    Log,
    MatrixOptimiser,
    Run,
    average_gradients,
    cosine,
    load_checkpoint,
    pixels,
    save_checkpoint,
    spawn,
)
from pocket_training.contrast import clip_pixels
from pocket_training.film_set import held_clips, training_clips

MATRIX_RATE, RATE = 1.2e-2, 2e-3
BATCH = 4  # for each rank
SPARSE_SHARE, SPARSE_LATENTS = 0.6, 5  # of the steps; of the nine latent frames
CAPTION_DROPOUT = 0.1
IMAGE_TOKENS = 65
EMA_DECAY = 0.998
LOW_NOISE_SHARE = 0.25  # of the batch drawn uniformly over sigma, or fine detail is never learnt under shift 3


def _cache_rank(run: Run, rank: int) -> None:
    """Latents and first-frame tokens of every block, in float16; blocks that exist are kept."""
    parts = pocket.fresh(_words(run), seed=run.seed)
    contrast.finish(run, parts)
    vae = autoencoder.finish(run)
    mean = torch.tensor(vae.config["latents_mean"]).view(1, -1, 1, 1, 1)
    std = torch.tensor(vae.config["latents_std"]).view(1, -1, 1, 1, 1)
    for number, path in enumerate(sorted((run.work / "clips").glob("*.npy"))):
        target = run.work / "latents" / path.with_suffix(".pt").name
        if number % run.ranks != rank or target.exists():
            continue
        target.parent.mkdir(exist_ok=True)
        rows: dict[str, list[Tensor]] = {"latents": [], "cond": [], "image": []}
        for block in np.array_split(np.load(path), max(1, len(np.load(path, mmap_mode="r")) // 4)):
            x = pixels(block)
            grey = torch.zeros_like(x)
            grey[:, :, 0] = x[:, :, 0]
            with torch.no_grad():
                for name, clip in (("latents", x), ("cond", grey)):
                    rows[name].append(((autoencoder.encode(vae, clip) - mean) / std).half())
                seen = parts.clip.vision_model(pixel_values=clip_pixels(x[:, :, 0]), output_hidden_states=True)
                rows["image"].append(seen.hidden_states[-2].half())
        save_checkpoint(target, 0, **{name: torch.cat(items) for name, items in rows.items()})


def _words(run: Run) -> list[str]:
    return (run.work / "words.txt").read_text(encoding="utf-8").split("\n")


def cache(run: Run) -> None:
    spawn(run, _cache_rank)


def _load(run: Run, pattern: str) -> dict[str, Tensor]:
    blocks = [load_checkpoint(path) for path in sorted((run.work / "latents").glob(pattern))]
    return {name: torch.cat([block[name] for block in blocks if block]) for name in ("latents", "cond", "image")}


def text_tokens(parts: pocket.Parts, captions: list[str]) -> Tensor:
    """umT5 states, zero beyond each caption, with one place for the pads (see `short_text`); differentiable."""
    tokens = parts.tokenizer(captions, padding=True, return_tensors="pt")
    hidden = parts.text_encoder(input_ids=tokens.input_ids, attention_mask=tokens.attention_mask).last_hidden_state
    hidden = F.pad(hidden * tokens.attention_mask[..., None], (0, 0, 0, 1))
    short_text.set_lengths(parts.denoiser, tokens.attention_mask.sum(1), hidden.shape[1])
    return hidden


def v_loss(
    parts: pocket.Parts,
    data: dict[str, Tensor],
    captions: list[str],
    index: Tensor,
    *,
    frames: Tensor | None = None,
    generator: torch.Generator,
    dropout: float,
) -> Tensor:
    """Mean squared velocity error for each clip of `index`, `B`, on the chosen latent frames (None: all)."""
    x0, cond = data["latents"][index].float(), data["cond"][index].float()
    if frames is not None:
        x0, cond = x0[:, :, frames], cond[:, :, frames]
    self_attention.choose_frames(parts.denoiser, frames)
    mask = torch.zeros(len(index), 4, *cond.shape[2:])
    mask[:, :, 0] = 1
    size = len(index)
    u = (torch.arange(size) + torch.rand(size, generator=generator)) / size  # stratified
    logit = torch.sigmoid(torch.special.ndtri(u.clamp(1e-4, 1 - 1e-4)))
    flat = torch.rand(size, generator=generator)
    u = torch.where(torch.rand(size, generator=generator) < LOW_NOISE_SHARE, flat, logit)
    sigma = (pocket.SHIFT * u / (1 + (pocket.SHIFT - 1) * u))[torch.randperm(size, generator=generator)]
    noise = torch.randn(x0.shape, generator=generator)
    s = sigma.view(-1, 1, 1, 1, 1)
    keep = torch.rand(size, generator=generator) >= dropout
    text = text_tokens(parts, [captions[i] if k else "" for i, k in zip(index.tolist(), keep.tolist(), strict=True)])
    v = parts.denoiser(
        hidden_states=torch.cat([(1 - s) * x0 + s * noise, mask, cond], 1),
        timestep=sigma * 1000,
        encoder_hidden_states=text,
        encoder_hidden_states_image=data["image"][index].float(),
        return_dict=False,
    )[0]
    return (v.float() - (noise - x0)).pow(2).mean((1, 2, 3, 4))


def _optimiser(parts: pocket.Parts) -> MatrixOptimiser:
    """Muon for the weight matrices of the blocks, AdamW for the rest."""
    named = list(parts.denoiser.named_parameters())
    matrices = [p for n, p in named if p.dim() == 2 and n.startswith("blocks.")]
    chosen = {id(p) for p in matrices}
    rest = [p for _, p in named if id(p) not in chosen] + list(parts.text_encoder.parameters())
    return MatrixOptimiser(matrices, rest, matrix_rate=MATRIX_RATE, rate=RATE)


@torch.no_grad()
def held_loss(parts: pocket.Parts, data: dict[str, Tensor], captions: list[str], *, count: int = 16) -> float:
    """v-loss over held-out clips, the same noise at every call."""
    generator = torch.Generator().manual_seed(11)
    with torch.autocast("cpu", torch.bfloat16):
        parts_of = [
            v_loss(parts, data, captions, torch.arange(i, i + 4), generator=generator, dropout=0.0).mean()
            for i in range(0, min(count, len(captions)), 4)
        ]
    return torch.stack(parts_of).mean().item()


def _some_frames(count: int, generator: torch.Generator) -> Tensor:
    """The first latent frame, which the reference gives, and others at random, in order."""
    others = torch.randperm(count - 1, generator=generator)[: SPARSE_LATENTS - 1] + 1
    return torch.cat([torch.zeros(1, dtype=torch.long), others.sort().values])


def _modules(parts: pocket.Parts) -> nn.ModuleDict:
    return nn.ModuleDict({"denoiser": parts.denoiser, "text_encoder": parts.text_encoder})


def _train(run: Run, rank: int) -> None:
    log = Log(run.work / "denoiser.jsonl", rank)
    parts = pocket.fresh(_words(run), seed=run.seed)
    modules = _modules(parts).train()
    if run.start:
        trained = WanTransformer3DModel.from_pretrained(run.start / "transformer", torch_dtype=torch.float32)
        parts.denoiser.load_state_dict(trained.state_dict())
        parts.text_encoder.load_state_dict(UMT5EncoderModel.from_pretrained(run.start / "text_encoder").state_dict())
    short_text.install(parts.denoiser, IMAGE_TOKENS)
    self_attention.install(parts.denoiser)
    average = copy.deepcopy(modules).requires_grad_(False)
    parameters = list(modules.parameters())
    optimiser = _optimiser(parts)
    path = run.work / "denoiser.ckpt"
    state = load_checkpoint(path)
    done = 0
    if state:
        modules.load_state_dict(state["modules"])
        average.load_state_dict(state["average"])
        optimiser.load_state_dict(state["optimiser"])
        done = state["step"]
    data, held = _load(run, "train-*.pt"), _load(run, "held.pt")
    captions, held_captions = training_clips_captions(run), held_clips(run)[1]
    saved = time.time()
    for step in range(done, run.denoiser_steps):
        generator = torch.Generator().manual_seed((run.seed * 1_000_003 + step) * 64 + rank)
        sparse = step / run.denoiser_steps < SPARSE_SHARE
        index = torch.randint(len(captions), (BATCH * (2 if sparse else 1),), generator=generator)
        frames = _some_frames(data["latents"].shape[2], generator) if sparse else None
        with torch.autocast("cpu", torch.bfloat16):
            each = v_loss(parts, data, captions, index, frames=frames, generator=generator, dropout=CAPTION_DROPOUT)
        loss = each.mean()
        modules.zero_grad()
        loss.backward()
        average_gradients(parameters)
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimiser.step(cosine(step, run.denoiser_steps, warmup=100))
        decay = min(EMA_DECAY, (step + 1) / (step + 10))
        with torch.no_grad():
            for slow, fast in zip(average.parameters(), modules.parameters(), strict=True):
                slow.lerp_(fast, 1 - decay)
        if rank == 0 and (step % 100 == 0 or step + 1 == run.denoiser_steps):
            view = copy.copy(parts)
            view.denoiser, view.text_encoder = average["denoiser"], average["text_encoder"]  # pyright: ignore[reportAttributeAccessIssue]
            log.write(step=step, loss=loss.item(), held=held_loss(view, held, held_captions))
        if time.time() - saved > 120 or step + 1 == run.denoiser_steps:
            saved = time.time()
            save_checkpoint(
                path,
                rank,
                modules=modules.state_dict(),
                average=average.state_dict(),
                optimiser=optimiser.state_dict(),
                step=step + 1,
            )


def training_clips_captions(run: Run) -> list[str]:
    return training_clips(run)[1]


def train(run: Run) -> None:
    state = load_checkpoint(run.work / "denoiser.ckpt")
    if state is None or state["step"] < run.denoiser_steps:
        spawn(run, _train)


def finish(run: Run, parts: pocket.Parts) -> None:
    """Put the averaged weights into `parts`."""
    state = load_checkpoint(run.work / "denoiser.ckpt")
    assert state is not None
    _modules(parts).load_state_dict(state["average"])
    parts.denoiser.eval().requires_grad_(False)
    parts.text_encoder.eval().requires_grad_(False)
