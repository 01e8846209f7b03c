"""The video autoencoder: from stills to short to full windows, without the decoder's clamp (it kills gradients)."""

from __future__ import annotations

import os
import shutil
import time
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import AutoencoderKLWan
from torch import Tensor

from cinetune.models.wan import pocket
from pocket_training import bars
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
    psnr,
    save_checkpoint,
    save_every,
    spawn,
)
from pocket_training.film_set import Clips, held_clips

MATRIX_RATE, RATE = 2e-2, 2e-3
LATENT_NOISE = 0.4
ROUGHNESS = 0.004
DETAIL = 0.2
# (share of the steps done, pixel frames, clips for each rank, height, width): full length matters most, or the last
# frames collapse.
CURRICULUM = (
    (0.30, 1, 16, 32, 48),
    (0.45, 9, 4, 32, 48),
    (0.85, 33, 2, 32, 48),
    (1.01, 33, 1, 64, 96),
)
FULL_LENGTH_FROM = 0.45


def encode(vae: AutoencoderKLWan, x_BCTHW: Tensor) -> Tensor:
    """Posterior mean, chunk by chunk with the causal cache, as the model does it, but with gradients."""
    vae.clear_cache()
    chunks = [x_BCTHW[:, :, :1], *x_BCTHW[:, :, 1:].split(4, dim=2)] if x_BCTHW.shape[2] > 1 else [x_BCTHW]
    out: list[Tensor] = []
    for chunk in chunks:
        vae._enc_conv_idx = [0]
        out.append(vae.encoder(chunk, feat_cache=vae._enc_feat_map, feat_idx=vae._enc_conv_idx))
    vae.clear_cache()
    return vae.quant_conv(torch.cat(out, 2))[:, : vae.config["z_dim"]]


def decode(vae: AutoencoderKLWan, z_BCfhw: Tensor) -> Tensor:
    """Unclamped pixels."""
    vae.clear_cache()
    x = vae.post_quant_conv(z_BCfhw)
    out: list[Tensor] = []
    for i in range(x.shape[2]):
        vae._conv_idx = [0]
        out.append(
            vae.decoder(x[:, :, i : i + 1], feat_cache=vae._feat_map, feat_idx=vae._conv_idx, first_chunk=(i == 0))
        )
    vae.clear_cache()
    return torch.cat(out, 2)


def _crops(clips: Clips, rng: np.random.Generator, *, frames: int, count: int, height: int, width: int) -> Tensor:
    picked = []
    for index in rng.integers(len(clips), size=count):
        clip = clips[index]
        t, y, x = (
            rng.integers(have - want + 1) for have, want in zip(clip.shape, (frames, height, width), strict=False)
        )
        crop = clip[t : t + frames, y : y + height, x : x + width]
        picked.append(crop[:, :, ::-1] if rng.random() < 0.5 else crop)
    # The condition clip of an I2V model is one frame and then grey: the autoencoder must know grey frames too.
    return pixels(np.stack(picked))


def roughness(z_BCfhw: Tensor) -> Tensor:
    """How much neighbours in time and space differ, over the variance of their channel (2 for white noise, 0 for a
    constant), averaged. Latents that vary slowly are what a denoiser can predict from few steps of training; its errors
    then decode into softness instead of coloured speckle.
    """
    variance = z_BCfhw.var((0, 2, 3, 4)).clamp(min=1e-4)
    steps = [z_BCfhw.diff(dim=axis).pow(2).mean((0, 2, 3, 4)) for axis in (2, 3, 4) if z_BCfhw.shape[axis] > 1]
    return (torch.stack(steps) / variance).mean()


def _loss(x: Tensor, y: Tensor, z: Tensor) -> Tensor:
    delta = x - y
    edges = (delta[..., 1:] - delta[..., :-1]).abs().mean() + (delta[..., 1:, :] - delta[..., :-1, :]).abs().mean()
    picture = delta.pow(2).mean() * 2 + 0.2 * delta.abs().mean() + 0.1 * edges
    return picture + 1e-4 * z.pow(2).mean() + ROUGHNESS * roughness(z) + DETAIL * lost_detail(x, y)


def _activity(x_BCTHW: Tensor, axis: int) -> Tensor:
    """How much neighbours along an axis differ in each 8x8 square of a frame: root mean square in space, where edges
    count, and mean absolute difference in time, where small flicker does.
    """
    delta = x_BCTHW.diff(dim=axis).flatten(0, 2)
    if axis == 2:
        return F.avg_pool2d(delta.abs(), 8, stride=4)
    return (F.avg_pool2d(delta.pow(2), 8, stride=4) + 1e-5).sqrt()


def lost_detail(x_BCTHW: Tensor, y_BCTHW: Tensor) -> Tensor:
    """How far the detail and the motion of `y` are from those of `x`, averaged over squares of 8x8 pixels.

    Squared error alone teaches a decoder the average of all pictures that a latent may stand for, and an average is
    soft. Detail that is given back must stay where it is, or it flickers: hence the motion.
    """
    axes = [axis for axis in (2, 3, 4) if x_BCTHW.shape[axis] > 1]
    lost = [(_activity(y_BCTHW, axis) - _activity(x_BCTHW, axis)).abs().mean() for axis in axes]
    return torch.stack(lost).sum()


def _noisy(z: Tensor, generator: torch.Generator) -> Tensor:
    """Latents with noise of up to `LATENT_NOISE` of their deviation, another amount for each clip: the decoder learns
    to pass over the small errors of a denoiser.
    """
    amount = LATENT_NOISE * torch.rand(z.shape[0], 1, 1, 1, 1, generator=generator).to(z)
    spread = z.detach().std((0, 2, 3, 4), keepdim=True)
    return z + amount * spread * torch.randn(z.shape, generator=generator).to(z)


def _window(run: Run, share: float) -> tuple[int, int, int, int]:
    """Frames, clips, height and width of the next step. A run that continues from trained weights starts with the full
    windows.
    """
    first = FULL_LENGTH_FROM if run.start else 0.0
    _, frames, count, height, width = next(row for row in CURRICULUM if first + (1 - first) * share < row[0])
    return frames, run.vae_batch or count, height, width


def channels_last(vae: AutoencoderKLWan) -> AutoencoderKLWan:
    for parameter in vae.parameters():
        if parameter.dim() == 5:
            parameter.data = parameter.data.contiguous(memory_format=torch.channels_last_3d)
    return vae


def _begin(run: Run) -> AutoencoderKLWan:
    vae = pocket.fresh([], seed=run.seed).vae
    if run.start:
        vae.load_state_dict(AutoencoderKLWan.from_pretrained(run.start / "vae").state_dict())
    if run.keep_encoder:
        vae.encoder.requires_grad_(False)
        vae.quant_conv.requires_grad_(False)
    return vae


def _train(run: Run, rank: int) -> None:
    log = Log(run.work / "vae.jsonl", rank)
    clips = Clips(run)
    held = pixels(held_clips(run)[0][:4])
    vae: Any = channels_last(_begin(run))
    vae.to(run.device)
    parameters = [p for p in vae.parameters() if p.requires_grad]
    kernels = [p for p in parameters if p.dim() >= 4 and min(p.shape[0], p[0].numel()) >= 12]
    chosen = {id(p) for p in kernels}
    optimiser = MatrixOptimiser(
        kernels, [p for p in parameters if id(p) not in chosen], matrix_rate=MATRIX_RATE, rate=RATE
    )
    path = run.work / "vae.ckpt"
    state = load_checkpoint(path)
    step, begun = 0, 0.0
    if state:
        vae.load_state_dict(state["vae"])
        optimiser.load_state_dict(state["optimiser"])
        step, begun = state["step"], state["share"]
    seconds = None if run.minutes is None else run.vae_share * run.minutes * 60 * (1 - begun)
    pace = Pace(run.vae_steps, seconds=seconds, begun=begun)
    saved, share = time.time(), pace.share(step)
    while share < 1:
        frames, count, height, width = _window(run, share)
        if run.minutes and step % 20 == 0:
            clips.refresh()
        rng = np.random.default_rng((run.seed, step, rank))
        x = _crops(clips, rng, frames=frames, count=count, height=height, width=width).to(run.device)
        noise = torch.Generator().manual_seed(step * 64 + rank)
        if frames > 1 and not run.keep_encoder and rng.random() < 0.12:
            x[:, :, 1:] = 0.0  # a condition clip
        with mixed_precision(run.device):
            with torch.set_grad_enabled(not run.keep_encoder):
                z = encode(vae, x)
            y = decode(vae, _noisy(z, noise))
        loss = _loss(x, y.float(), z.float())
        vae.zero_grad()
        loss.backward()
        average_gradients(parameters)
        torch.nn.utils.clip_grad_norm_(parameters, 2.0)
        optimiser.step((0.5 if run.start else 1.0) * cosine(share, step, warmup=50))
        if step % 100 == 0 and rank == 0:
            with torch.no_grad():
                z_held = encode(vae, held.to(run.device))
                back = decode(vae, z_held).cpu()
            log.write(
                step=step,
                frames=frames,
                loss=loss.item(),
                psnr=psnr(back, held),
                psnr_last=psnr(back[:, :, -1], held[:, :, -1]),
                sharpness=bars.sharpness(back[:, :, -1]) / bars.sharpness(held[:, :, -1]),
                motion=bars.motion(back) / bars.motion(held),
                roughness=roughness(z_held).item(),
            )
        step += 1
        share = pace.share(step)
        if time.time() - saved > save_every(run):
            saved = time.time()
            save_checkpoint(path, rank, **_state(vae, optimiser, step, share))
    save_checkpoint(path, rank, **_state(vae, optimiser, step, share))


def _state(vae: AutoencoderKLWan, optimiser: MatrixOptimiser, step: int, share: float) -> dict[str, Any]:
    return {"vae": vae.state_dict(), "optimiser": optimiser.state_dict(), "step": step, "share": share}


def _statistics(vae: AutoencoderKLWan, run: Run) -> dict[str, list[float]]:
    """Mean and deviation of each latent channel, for the config: of 64 clips, or those of an encoder that is kept."""
    if run.keep_encoder:
        assert run.start is not None
        config = AutoencoderKLWan.from_pretrained(run.start / "vae").config
        return {name: config[name] for name in ("latents_mean", "latents_std")}
    clips = Clips(run)
    some = [pixels(np.stack([clips[j] for j in range(i, i + 4)])) for i in range(0, min(64, len(clips)), 4)]
    z = torch.cat([encode(vae, x.to(run.device)).cpu() for x in some])
    return {
        "latents_mean": [round(v, 5) for v in z.mean((0, 2, 3, 4)).tolist()],
        "latents_std": [round(max(v, 1e-3), 5) for v in z.std((0, 2, 3, 4)).tolist()],
    }


@torch.no_grad()
def finish(run: Run) -> AutoencoderKLWan:
    """The trained autoencoder with the latent statistics of the training clips in its config; measured once."""
    folder = run.work / "autoencoder"
    if not (folder / "config.json").exists():
        state = load_checkpoint(run.work / "vae.ckpt")
        assert state is not None
        vae = pocket.fresh([], seed=run.seed).vae
        vae.load_state_dict(state["vae"])
        vae.eval().to(run.device)  # pyright: ignore[reportArgumentType]
        vae.register_to_config(**_statistics(vae, run))
        vae.cpu().save_pretrained(folder)
    return AutoencoderKLWan.from_pretrained(folder).eval().requires_grad_(False)


def train(run: Run) -> None:
    """With `vae_steps` 0 the autoencoder of `start` is kept as it is, and so are the latents that others hang on."""
    if run.start and run.vae_steps == 0:
        shutil.copytree(run.start / "vae", run.work / "autoencoder", dirs_exist_ok=True)
        return
    state = load_checkpoint(run.work / "vae.ckpt")
    if state is None or state["share"] < 1:
        os.environ.setdefault("OMP_NUM_THREADS", "1")
        spawn(run, _train)
