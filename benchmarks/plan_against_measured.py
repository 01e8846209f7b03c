"""What `cinetune plan` says of pocket training against what is measured, each setting in a fresh process.

    python benchmarks/plan_against_measured.py

Operations: torch's counter. Allocations: the most bytes torch's allocator had out during a step, from its profiler.
Resident: how far the process grew at its peak (Linux, /proc); once as the C library does it, and once with
MALLOC_MMAP_THRESHOLD_=131072, which makes it give every large block back when it is freed. All are beyond what was
there before the step. Time: of seven optimiser steps on one thread the median by the clock and the least by the
processor, which other programs disturb less.
"""

from __future__ import annotations

import gc
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

BATCH, FRAMES, RANK, TARGETS = 2, 33, 8, "cross"
MODES = ("none", "full")


def _status(name: str) -> int:
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(name))


def measure(mode: Any) -> dict[str, float]:
    """One setting in this process."""
    import torch
    from torch.profiler import ProfilerActivity, profile

    from cinetune.models import load_model
    from cinetune.models.adapters.lora import add_lora
    from cinetune.models.family import Batch, Conditioning
    from cinetune.models.memory.fit import fit
    from cinetune.runtime import Quiet, choose_device
    from cinetune.sections import ModelSection, TrainSection
    from cinetune.training.step import flow_loss

    sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
    from memory_trace import count_operations

    torch.set_num_threads(1)
    model: Any = load_model(ModelSection(), parts="denoiser")
    trained = [parameter for _, parameter in add_lora(model, rank=RANK, alpha=16, targets=TARGETS, seed=0)]
    fit(model, ModelSection(), TrainSection(checkpointing=mode), choose_device("cpu"), Quiet())
    optimiser = torch.optim.AdamW(trained)

    def clips(frames: int) -> Batch:
        latent = (BATCH, 16, 1 + (frames - 1) // 4, 16, 24)
        cond = Conditioning(
            text_BLD=torch.randn(BATCH, 512, 64), image_BLD=torch.randn(BATCH, 65, 64),
            latent_BCfhw=torch.randn(BATCH, 20, *latent[2:]),
        )  # fmt: skip
        return Batch(latents_BCfhw=torch.randn(latent), cond=cond)

    def step(batch: Batch) -> None:
        sigma, noise = torch.full((BATCH,), 0.5), torch.randn_like(batch.latents_BCfhw)
        flow_loss(model, batch, sigma, noise).mean().backward()
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)

    batch = clips(FRAMES)
    step(clips(5))  # kernels and optimiser state are there from now on
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")
    before = _status("VmRSS")
    step(batch)
    resident = _status("VmHWM") - before
    clock, processor = [], []
    for _ in range(7):
        started = time.perf_counter(), time.process_time()
        step(batch)
        clock.append(time.perf_counter() - started[0])
        processor.append(time.process_time() - started[1])
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as seen:
        step(batch)
    now = most = 0
    for event in seen.profiler.kineto_results.events():  # pyright: ignore[reportOptionalMemberAccess]
        if event.name() == "[memory]":
            now += event.nbytes()  # pyright: ignore[reportAttributeAccessIssue]
            most = max(most, now)
    with count_operations() as counter:
        step(batch)
    return {
        "operations": counter.get_total_flops(), "allocations": most, "resident": resident,
        "seconds": statistics.median(clock), "processor seconds": min(processor),
    }  # fmt: skip


def predict(mode: Any) -> dict[str, float]:
    """The same from the formulas."""
    from cinetune.cost.cards import CPU, step_seconds
    from cinetune.cost.memory import Setting, training_memory
    from cinetune.cost.operations import training
    from cinetune.cost.shape import denoiser_of
    from cinetune.models.wan.pocket import DENOISER

    shape = denoiser_of(DENOISER, image_tokens=65, multiple=8)
    tokens = shape.tokens(FRAMES, 64, 96)
    setting = Setting(checkpointing=mode, batch=BATCH, bytes_each=4)
    memory = training_memory(shape, tokens, rank=RANK, targets=TARGETS, setting=setting)
    work = training(shape, tokens, rank=RANK, targets=TARGETS, checkpointing=mode).total * BATCH
    grown = memory.kept + memory.live
    seconds = step_seconds(shape, tokens, CPU, rank=RANK, targets=TARGETS, setting=setting)
    return {"operations": work, "allocations": grown, "resident": grown, "seconds": seconds,
            "resident, nothing held back": grown, "processor seconds": seconds}  # fmt: skip


def _fresh(mode: str, settings: dict[str, str]) -> dict[str, float]:
    """A measurement in a process of its own."""
    done = subprocess.run(
        [sys.executable, __file__, mode], capture_output=True, text=True, check=True, env=os.environ | settings
    )
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    if len(sys.argv) > 1:
        print(json.dumps(measure(sys.argv[1])))
        return
    print("| checkpointing | what | plan | measured | plan / measured |\n|---|---|---|---|---|")
    for mode in MODES:
        predicted, measured = predict(mode), _fresh(mode, {})
        held_back = _fresh(mode, {"MALLOC_MMAP_THRESHOLD_": "131072"})
        measured["resident, nothing held back"] = held_back["resident"]
        for name, found in measured.items():
            scale, unit = (1e9, "GFLOP") if name == "operations" else (1, "s") if "seconds" in name else (1e6, "MB")
            print(
                f"| {mode} | {name} | {predicted[name] / scale:.3f} {unit} | {found / scale:.3f} {unit} | "
                f"{predicted[name] / found:.3f} |"
            )


if __name__ == "__main__":
    main()
