"""The denoiser and its text encoder, by flow matching on cached latents: some frames of each window, then all."""

from __future__ import annotations

import copy
import shutil
import time
from functools import partial
from typing import Any, cast

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
    Pace,
    Run,
    average_gradients,
    cosine,
    load_checkpoint,
    mixed_precision,
    pixels,
    save_checkpoint,
    save_every,
    spawn,
)
from pocket_training.contrast import clip_pixels
from pocket_training.film_set import BLOCK, Clips, held_clips

MATRIX_RATE, RATE = 1.2e-2, 2e-3
SPARSE_SHARE, SPARSE_LATENTS = 0.6, 5  # of the steps; of the nine latent frames
CAPTION_DROPOUT = 0.1
IMAGE_TOKENS = 65
EMA_DECAY = 0.998
LOW_NOISE_SHARE = 0.25  # of the batch drawn uniformly over sigma, or fine detail is never learnt under shift 3


def _cache_rank(run: Run, rank: int) -> None:
    """Latents and first-frame tokens of every block, in float16; blocks that exist are kept."""
    parts = pocket.fresh(_words(run), seed=run.seed)
    contrast.finish(run, parts)
    vae = autoencoder.finish(run).to(run.device)  # pyright: ignore[reportArgumentType]
    parts.clip.to(run.device)  # pyright: ignore[reportArgumentType]
    mean = torch.tensor(vae.config["latents_mean"], device=run.device).view(1, -1, 1, 1, 1)
    std = torch.tensor(vae.config["latents_std"], device=run.device).view(1, -1, 1, 1, 1)
    on_card = run.device != "cpu"
    size = BLOCK if on_card else 4
    for number, path in enumerate(sorted((run.work / "clips").glob("*.npy"))):
        target = run.work / "latents" / path.with_suffix(".pt").name
        if number % run.ranks != rank or target.exists():
            continue
        target.parent.mkdir(exist_ok=True)
        rows: dict[str, list[Tensor]] = {"latents": [], "cond": [], "image": []}
        clips = np.load(path, mmap_mode="r")
        for block in np.array_split(clips, max(1, len(clips) // size)):
            x = pixels(block).to(run.device)
            grey = torch.zeros_like(x)
            grey[:, :, 0] = x[:, :, 0]
            with torch.no_grad():
                with torch.autocast(run.device, torch.bfloat16, enabled=on_card):
                    encoded = [autoencoder.encode(vae, clip).float() for clip in (x, grey)]
                for name, z in zip(("latents", "cond"), encoded, strict=True):
                    rows[name].append(((z - mean) / std).half().cpu())
                seen = parts.clip.vision_model(pixel_values=clip_pixels(x[:, :, 0]), output_hidden_states=True)
                rows["image"].append(seen.hidden_states[-2].half().cpu())
        save_checkpoint(target, 0, **{name: torch.cat(items) for name, items in rows.items()})


def _words(run: Run) -> list[str]:
    return (run.work / "words.txt").read_text(encoding="utf-8").split("\n")


def cache(run: Run) -> None:
    spawn(run, _cache_rank)


def _load(run: Run, pattern: str) -> dict[str, Tensor]:
    blocks = [load_checkpoint(path) for path in sorted((run.work / "latents").glob(pattern))]
    return {
        name: torch.cat([block[name] for block in blocks if block]).to(run.device)
        for name in ("latents", "cond", "image")
    }


class Words:
    """Tokens of captions, made once; the last row is the empty caption."""

    def __init__(self, parts: pocket.Parts, captions: list[str], device: str) -> None:
        tokens = parts.tokenizer([*captions, ""], padding=True, return_tensors="pt")
        self.ids_NL, self.mask_NL = tokens.input_ids.to(device), tokens.attention_mask.to(device)

    def states(self, parts: pocket.Parts, index_B: Tensor, keep_B: Tensor) -> Tensor:
        """umT5 states `BLD`, zero beyond each caption, with one place for the pads (see `short_text`); differentiable.
        Where `keep_B` is false the caption is the empty one.
        """
        rows = torch.where(keep_B, index_B, len(self.ids_NL) - 1)
        ids, mask = self.ids_NL[rows], self.mask_NL[rows]
        hidden = parts.text_encoder(input_ids=ids, attention_mask=mask).last_hidden_state
        hidden = F.pad(hidden * mask[..., None], (0, 0, 0, 1))
        short_text.set_lengths(parts.denoiser, mask.sum(1), hidden.shape[1])
        return hidden


def v_loss(
    parts: pocket.Parts,
    data: dict[str, Tensor],
    words: Words,
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
    size, device = len(index), x0.device
    mask = torch.zeros(size, 4, *cond.shape[2:], device=device)
    mask[:, :, 0] = 1
    draw = partial(torch.rand, size, generator=generator, device=device)
    u = (torch.arange(size, device=device) + draw()) / size  # stratified
    logit = torch.sigmoid(torch.special.ndtri(u.clamp(1e-4, 1 - 1e-4)))
    flat = draw()
    u = torch.where(draw() < LOW_NOISE_SHARE, flat, logit)
    sigma = (pocket.SHIFT * u / (1 + (pocket.SHIFT - 1) * u))[torch.randperm(size, generator=generator, device=device)]
    noise = torch.randn(x0.shape, generator=generator, device=device)
    s = sigma.view(-1, 1, 1, 1, 1)
    v = parts.denoiser(
        hidden_states=torch.cat([(1 - s) * x0 + s * noise, mask, cond], 1),
        timestep=sigma * 1000,
        encoder_hidden_states=words.states(parts, index, draw() >= dropout),
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
def held_loss(parts: pocket.Parts, data: dict[str, Tensor], words: Words, *, count: int = 16) -> float:
    """v-loss over held-out clips, the same noise at every call."""
    device = data["latents"].device
    generator = torch.Generator(device).manual_seed(11)
    with mixed_precision(device.type):
        fours = torch.arange(min(count, len(data["latents"])), device=device).split(4)
        parts_of = [v_loss(parts, data, words, four, generator=generator, dropout=0.0) for four in fours]
    return torch.cat(parts_of).mean().item()


def _some_frames(count: int, generator: torch.Generator) -> Tensor:
    """The first latent frame, which the reference gives, and others at random, in order."""
    device = generator.device
    others = torch.randperm(count - 1, generator=generator, device=device)[: SPARSE_LATENTS - 1] + 1
    return torch.cat([torch.zeros(1, dtype=torch.long, device=device), others.sort().values])


def _modules(parts: pocket.Parts) -> nn.ModuleDict:
    return nn.ModuleDict({"denoiser": parts.denoiser, "text_encoder": parts.text_encoder})


def _begin(run: Run) -> tuple[pocket.Parts, nn.ModuleDict, nn.ModuleDict]:
    """The parts, those that are trained, and their average, on the device."""
    parts = pocket.fresh(_words(run), seed=run.seed)
    modules = _modules(parts).train()
    if run.start:
        trained = WanTransformer3DModel.from_pretrained(run.start / "transformer", torch_dtype=torch.float32)
        parts.denoiser.load_state_dict(trained.state_dict())
        parts.text_encoder.load_state_dict(UMT5EncoderModel.from_pretrained(run.start / "text_encoder").state_dict())
    short_text.install(parts.denoiser, IMAGE_TOKENS)
    self_attention.install(parts.denoiser)
    modules.to(run.device)
    average = copy.deepcopy(modules).requires_grad_(False)
    if run.compiler:
        for block in cast(Any, parts.denoiser).blocks:
            block.compile(backend=run.compiler)
    return parts, modules, average


def _remaining(run: Run) -> float | None:
    """Seconds for the denoiser: what earlier parts left of the whole, less the time of the card."""
    if run.minutes is None:
        return None
    return max(1.0, run.minutes * 60 - run.card_seconds - (time.monotonic() - run.began))


def _train(run: Run, rank: int) -> None:
    log = Log(run.work / "denoiser.jsonl", rank)
    parts, modules, average = _begin(run)
    parameters = list(modules.parameters())
    optimiser = _optimiser(parts)
    path = run.work / "denoiser.ckpt"
    state = load_checkpoint(path)
    step, begun = 0, 0.0
    if state:
        modules.load_state_dict(state["modules"])
        average.load_state_dict(state["average"])
        optimiser.load_state_dict(state["optimiser"])
        step, begun = state["step"], state["share"]
    pace = Pace(run.denoiser_steps, seconds=_remaining(run), begun=begun)
    data, held = _load(run, "train-*.pt"), _load(run, "held.pt")
    words, held_words = (Words(parts, texts, run.device) for texts in (Clips(run).captions(), held_clips(run)[1]))
    view = copy.copy(parts)
    view.denoiser, view.text_encoder = average["denoiser"], average["text_encoder"]  # pyright: ignore[reportAttributeAccessIssue]
    saved, share = time.time(), pace.share(step)
    while share < 1:
        generator = torch.Generator(run.device).manual_seed((run.seed * 1_000_003 + step) * 64 + rank)
        sparse = share < SPARSE_SHARE
        index = torch.randint(
            len(data["latents"]), (run.batch * (2 if sparse else 1),), generator=generator, device=run.device
        )
        frames = _some_frames(data["latents"].shape[2], generator) if sparse else None
        with mixed_precision(run.device):
            each = v_loss(parts, data, words, index, frames=frames, generator=generator, dropout=CAPTION_DROPOUT)
        loss = each.mean()
        modules.zero_grad()
        loss.backward()
        average_gradients(parameters)
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimiser.step(run.rate * cosine(share, step, warmup=100))
        decay = min(EMA_DECAY, (step + 1) / (step + 10))
        with torch.no_grad():
            slow, fast = list[Tensor](average.parameters()), list[Tensor](parameters)
            torch._foreach_lerp_(slow, fast, 1 - decay)
        step += 1
        share = pace.share(step)
        if rank == 0 and (step % 100 == 1 or share >= 1):
            log.write(step=step - 1, loss=loss.item(), held=held_loss(view, held, held_words))
        if time.time() - saved > save_every(run) or share >= 1:
            saved = time.time()
            save_checkpoint(
                path,
                rank,
                modules=modules.state_dict(),
                average=average.state_dict(),
                optimiser=optimiser.state_dict(),
                step=step,
                share=share,
            )
            if rank == 0 and run.minutes is not None:
                snapshot(run)


def train(run: Run) -> None:
    state = load_checkpoint(run.work / "denoiser.ckpt")
    if state is None or state["share"] < 1:
        spawn(run, _train)


def assemble(run: Run) -> pocket.Parts:
    """The whole model from the checkpoints of its parts, on the CPU, with the averaged denoiser."""
    state = load_checkpoint(run.work / "denoiser.ckpt")
    assert state is not None
    parts = pocket.fresh(_words(run), seed=run.seed)
    parts.vae = autoencoder.finish(run)
    contrast.finish(run, parts)
    _modules(parts).load_state_dict(state["average"])
    parts.denoiser.eval().requires_grad_(False)
    parts.text_encoder.eval().requires_grad_(False)
    return parts


def snapshot(run: Run) -> None:
    """The model as it is now, whole, beside the results: what a machine that is taken away leaves to `--start` from."""
    partial, latest = run.out / "latest.partial", run.out / "latest"
    shutil.rmtree(partial, ignore_errors=True)
    pocket.save(assemble(run), partial)
    shutil.rmtree(latest, ignore_errors=True)
    partial.rename(latest)
