"""What every part of the pre-training shares: ranks, the averaging of gradients, resumable checkpoints, and the log."""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import Tensor, nn

from cinetune.durable import atomic_write


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """Settings of one pre-training. A rank is one process; on CPU each uses one thread, which is faster than one
    process with many.
    """

    work: Path
    seed: int
    clips: int
    held: int
    reader_clips: int
    """True clips that teach the reader of the card."""
    reader_steps: int
    vae_steps: int
    clip_steps: int
    denoiser_steps: int
    ranks: int
    device: str
    out: Path
    """Where the weights, the card and its numbers are written."""
    images: Path
    start: Path | None = None
    """Trained weights in the diffusers layout to continue from; None begins from nothing."""
    keep_encoder: bool = False
    """Train the autoencoder's decoder alone, so that latents stay what they are."""
    minutes: float | None = None
    """Time for the whole command; None trains by steps alone, which is reproducible."""
    vae_share: float = 0.25
    """Share of `minutes` for the autoencoder."""
    card_seconds: float = 45.0
    """Part of `minutes` kept for measuring and writing."""
    vae_batch: int | None = None
    """Clips in each step of the autoencoder; None takes the counts of its curriculum."""
    batch: int = 4
    """Clips in each step of the denoiser and rank; twice as many while it sees some of the frames."""
    rate: float = 1.0
    """Factor on the denoiser's learning rates."""
    compiler: str = ""
    """Backend of torch.compile for the denoiser's blocks; empty compiles nothing."""
    renderers: int = 1
    began: float = field(default_factory=time.monotonic)

    @property
    def held_scenes_seed(self) -> int:
        return self.seed + 1_000_003


class Log:
    """JSON lines, one file for each part; only rank 0 writes."""

    def __init__(self, path: Path, rank: int) -> None:
        self.path, self.rank, self.start = path, rank, time.time()

    def write(self, **row: float | str) -> None:
        if self.rank == 0:
            line = json.dumps({"seconds": round(time.time() - self.start, 1)} | row)
            with self.path.open("a", encoding="utf-8") as file:
                file.write(line + "\n")
            print(self.path.stem, line, flush=True)


def spawn(run: Run, target: Callable[[Run, int], None]) -> None:
    """Run `target(run, rank)` in `run.ranks` processes that can average their gradients."""
    if run.ranks == 1:
        _enter(0, run, target, None)
        return
    rendezvous = run.work.resolve() / f"rendezvous-{os.getpid()}-{time.time_ns()}"
    mp.spawn(_enter, args=(run, target, rendezvous), nprocs=run.ranks)  # pyright: ignore[reportPrivateImportUsage]
    rendezvous.unlink(missing_ok=True)


def _enter(rank: int, run: Run, target: Callable[[Run, int], None], rendezvous: Path | None) -> None:
    torch.set_num_threads(1 if run.device == "cpu" and run.ranks > 1 else max(1, (os.cpu_count() or 1) // run.ranks))
    if rendezvous is not None:
        dist.init_process_group("gloo", init_method=f"file://{rendezvous}", rank=rank, world_size=run.ranks)
    target(run, rank)
    if rendezvous is not None:
        dist.destroy_process_group()


def average_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Mean of the gradients over all ranks, in one exchange."""
    if not dist.is_initialized():
        return
    grads = [p.grad for p in parameters if p.grad is not None]
    flat = torch.cat([g.flatten() for g in grads])
    dist.all_reduce(flat)
    flat /= dist.get_world_size()
    for grad, piece in zip(grads, flat.split([g.numel() for g in grads]), strict=True):
        grad.copy_(piece.view_as(grad))


class Pace:
    """How far a part of the training is, from 0 to 1: by its steps, and by its time where that is limited.

    A part that was stopped at a share goes on from there, and the time is that for the rest.
    """

    def __init__(self, steps: int, *, seconds: float | None = None, begun: float = 0.0) -> None:
        self.steps, self.seconds, self.begun = steps, seconds, begun
        self._start = time.monotonic()

    def share(self, step: int) -> float:
        """Share done when `step` steps are behind: 1 ends the part."""
        by_time = 0.0
        if self.seconds is not None:
            by_time = self.begun + (1 - self.begun) * (time.monotonic() - self._start) / max(self.seconds, 1e-9)
        return min(1.0, max(step / max(1, self.steps), by_time))


def cosine(share: float, step: int, *, warmup: int, floor: float = 0.01) -> float:
    """Learning-rate factor: linear warm-up over `warmup` steps, cosine over the share of the part that is done, down to
    `floor`.
    """
    risen = min(1.0, (step + 1) / warmup)
    return risen * (floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * share)))


def save_every(run: Run) -> float:
    """Seconds between checkpoints."""
    return 120.0 if run.minutes is None else 60.0


def fast_bfloat16(device: str) -> bool:
    """Whether bfloat16 is worth it: on a GPU, and on a CPU that multiplies it in hardware. Elsewhere it is emulated: on
    an AVX2 machine one step of the denoiser takes 15.8 s in bfloat16 and 2.5 s in float32, and an encoded clip 22 s
    instead of 0.24 s.
    """
    return device != "cpu" or torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()


def mixed_precision(device: str) -> torch.autocast:
    """bfloat16 where that is worth it, else float32."""
    return torch.autocast(device, torch.bfloat16, enabled=fast_bfloat16(device))


def orthogonal(x_NRC: Tensor, *, coefficients: tuple[float, float, float], steps: int) -> Tensor:
    """Newton-Schulz iteration of Muon for a stack of matrices, in their own dtype (torch's is bfloat16, one by one)."""
    a, b, c = coefficients
    tall = x_NRC.shape[1] > x_NRC.shape[2]
    x = x_NRC.mT if tall else x_NRC
    x = x / torch.linalg.matrix_norm(x, keepdim=True).clamp(min=1e-7)
    for _ in range(steps):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.mT if tall else x


class Muon(torch.optim.Muon):
    """torch's Muon (Jordan et al., 2024), its iteration in float32 where bfloat16 is emulated: .5 s a step, not 5 s."""

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        group = self.param_groups[0]
        if fast_bfloat16(group["params"][0].device.type):
            super().step(closure)
            return
        updates: dict[torch.Size, list[tuple[Tensor, Tensor]]] = {}
        for p in group["params"]:
            if p.grad is None:
                continue
            buffer = self.state[p].setdefault("momentum_buffer", torch.zeros_like(p.grad))
            buffer.lerp_(p.grad, 1 - group["momentum"])
            updates.setdefault(p.shape, []).append((p, p.grad.lerp(buffer, group["momentum"])))
        for shape, pairs in updates.items():
            rate = group["lr"] * 0.2 * math.sqrt(max(shape))  # adjust_lr_fn = "match_rms_adamw"
            stack = torch.stack([update for _, update in pairs])
            turned = orthogonal(stack, coefficients=group["ns_coefficients"], steps=group["ns_steps"])
            for (p, _), update in zip(pairs, turned, strict=True):
                p.mul_(1 - group["lr"] * group["weight_decay"]).add_(update, alpha=-rate)


class MatrixOptimiser:
    """Muon for weight matrices and for convolution kernels seen as matrices, AdamW for the rest.

    On this autoencoder it is worth far more than tuning: 240 steps on stills reach 25.3 dB held-out where AdamW
    reaches 20.8.
    """

    def __init__(
        self, matrices: list[nn.Parameter], rest: list[nn.Parameter], *, matrix_rate: float, rate: float
    ) -> None:
        self.pairs = [(p, nn.Parameter(p.detach().reshape(p.shape[0], -1).contiguous().clone())) for p in matrices]
        self.muon = Muon(
            [flat for _, flat in self.pairs], matrix_rate, weight_decay=1e-4, adjust_lr_fn="match_rms_adamw"
        )
        self.adamw = torch.optim.AdamW(rest, rate, betas=(0.9, 0.99), weight_decay=1e-4)
        self.rates = (matrix_rate, rate)

    def step(self, factor: float) -> None:
        """One update with both learning rates multiplied by `factor`."""
        for optimiser, rate in zip((self.muon, self.adamw), self.rates, strict=True):
            optimiser.param_groups[0]["lr"] = rate * factor
        for kernel, flat in self.pairs:
            flat.grad = None if kernel.grad is None else kernel.grad.reshape(flat.shape).contiguous()
        self.muon.step()
        self.adamw.step()
        with torch.no_grad():
            torch._foreach_copy_([p for p, _ in self.pairs], [flat.view(p.shape) for p, flat in self.pairs])

    def state_dict(self) -> dict[str, Any]:
        return {
            "muon": self.muon.state_dict(),
            "adamw": self.adamw.state_dict(),
            "flat": [flat.data for _, flat in self.pairs],
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.muon.load_state_dict(state["muon"])
        self.adamw.load_state_dict(state["adamw"])
        for (_, flat), saved in zip(self.pairs, state["flat"], strict=True):
            flat.data.copy_(saved)


def save_checkpoint(path: Path, rank: int, **state: Any) -> None:
    """Atomic; rank 0 only. Trusted files of our own, read back with `weights_only=True`."""
    if rank == 0:
        with atomic_write(path) as temporary:
            torch.save(state, temporary)


def load_checkpoint(path: Path) -> dict[str, Any] | None:
    return torch.load(path, map_location="cpu", weights_only=True) if path.is_file() else None


def pixels(clips_NTHWC: np.ndarray) -> Tensor:
    """uint8 clips `NTHWC` as a float tensor `NCTHW` in [-1, 1]."""
    return torch.from_numpy(np.ascontiguousarray(clips_NTHWC)).permute(0, 4, 1, 2, 3).float() / 127.5 - 1


def psnr(a: Tensor, b: Tensor) -> float:
    """Peak signal to noise in dB for pixels in [-1, 1] (peak 2); infinite for equal pictures."""
    error = (a.clamp(-1, 1) - b).pow(2).mean().item()
    return 10 * math.log10(4 / error) if error else math.inf
