"""Our training step against a plain diffusers + peft loop: the same model, adapter, cached windows and step count.

    python benchmarks/step_time.py                  times, interleaved in one process, and peak memory of each alone
    python benchmarks/step_time.py --json build/step_time.json

The windows have the shapes of the demo's (33 frames of 64 x 96, the pocket model's own) and random contents. Ours reads
them from disk at every step, checks, logs and clips; the plain loop keeps them in memory. A plain
step is timed between every two of ours, so a busy machine slows both alike.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from diffusers import WanTransformer3DModel
from peft import LoraConfig
from safetensors.torch import save_file

from cinetune.catalogue import TARGETS
from cinetune.models import load_model, model_folder
from cinetune.models.wan.pocket import FRAMES, HEIGHT, WIDTH
from cinetune.runtime import Device, peak_memory_gib
from cinetune.sections import ModelSection, TrainSection
from cinetune.training import WindowFile, train, window_file
from cinetune.training.parallel import World
from cinetune.training.validate import Evaluation, Levels

RANK, ALPHA, BATCH, WINDOWS, WARM_UP = 8, 16, 2, 8, 3
CPU = Device("cpu", "float32", "benchmark")


def make_windows(folder: Path) -> list[WindowFile]:
    """Cached windows of the demo's shapes."""
    gen = torch.Generator().manual_seed(0)
    shape = (16, 1 + (FRAMES - 1) // 4, HEIGHT // 4, WIDTH // 4)
    made: list[WindowFile] = []
    for number in range(WINDOWS):
        tensors = {
            "latents_Cfhw": torch.randn(shape, generator=gen),
            "cond_Cfhw": torch.randn(20, *shape[1:], generator=gen),
            "image_LD": torch.randn(65, 64, generator=gen),
            "text_LD": torch.randn(20, 64, generator=gen),
        }
        path = folder / f"w{number}.safetensors"
        save_file(tensors, path)
        made.append(window_file(path.stem, path))
    return made


class Still:
    """In place of a validator: judges nothing and takes no time."""

    levels, world, held = Levels(floor=0.0, ceiling=1.0, motion=1.0, jump=0.0), World(), ()

    def __call__(self, step: int) -> Evaluation:
        return Evaluation(
            v_loss=0.5, v_loss_at={}, distance=0.5, distance_film=0.5, distance_regraded=None, curve=[], motion=1.0
        )

    def clear(self) -> None: ...

    def describe(self) -> dict[str, Any]:
        return {}

    def effect(self, _: str) -> float:
        return 1.0


class Clock:
    """A reporter whose progress bar takes the time of every step, and lets `between` run before the next one."""

    def __init__(self, between: Callable[[], None]) -> None:
        self.between, self.seconds, self.started = between, [], 0.0

    def say(self, text: str) -> None: ...

    def warn(self, text: str) -> None: ...

    @contextmanager
    def progress(self, label: str, total: int) -> Iterator[Clock]:
        self.between()
        self.started = time.perf_counter()
        yield self

    def advance(self, steps: int = 1, note: str = "") -> None:
        self.seconds.append(time.perf_counter() - self.started)
        self.between()
        self.started = time.perf_counter()


def ours(files: list[WindowFile], folder: Path, steps: int, between: Callable[[], None]) -> list[float]:
    """Seconds of every step of `cinetune.training.train`."""
    recipe = TrainSection(
        rank=RANK, alpha=ALPHA, lr=1e-3, steps=steps, batch=BATCH, accumulate=1, checkpointing="none",
        validate_every=steps, checkpoint_every=steps,
    )  # fmt: skip
    model = load_model(ModelSection(), device=CPU, parts="denoiser")
    clock = Clock(between)
    train(
        model, files, torch.zeros(1, 512, 64), validator=Still(), recipe=recipe, arm="look", folder=folder,  # pyright: ignore[reportArgumentType]
        fingerprint={}, report=clock,
    )  # fmt: skip
    return clock.seconds


class Plain:
    """The loop most scripts have: everything in memory, no checks, no log."""

    def __init__(self, files: list[WindowFile]) -> None:
        from cinetune.training.data import load_batch

        self.batches = [load_batch([one, other], [0, 0]) for one, other in zip(files[::2], files[1::2], strict=True)]
        folder = model_folder(ModelSection())
        self.model: Any = WanTransformer3DModel.from_pretrained(folder, subfolder="transformer", local_files_only=True)
        self.model.requires_grad_(False)
        self.model.add_adapter(LoraConfig(r=RANK, lora_alpha=ALPHA, target_modules=TARGETS["cross"]))
        trained = [parameter for parameter in self.model.parameters() if parameter.requires_grad]
        self.optimiser = torch.optim.AdamW(trained, lr=1e-3)
        self.seconds: list[float] = []

    def step(self) -> None:
        """One step, timed."""
        started = time.perf_counter()
        batch = self.batches[len(self.seconds) % len(self.batches)]
        x, cond = batch.latents_BCfhw, batch.cond
        noise, sigma = torch.randn_like(x), torch.rand(len(x))
        mix = sigma.view(-1, 1, 1, 1, 1)
        predicted = self.model(
            hidden_states=torch.cat([(1 - mix) * x + mix * noise, cond.latent_BCfhw], dim=1),
            timestep=sigma * 1000,
            encoder_hidden_states=cond.text_BLD,
            encoder_hidden_states_image=cond.image_BLD,
            return_dict=False,
        )[0]
        torch.nn.functional.mse_loss(predicted, noise - x).backward()
        self.optimiser.step()
        self.optimiser.zero_grad()
        self.seconds.append(time.perf_counter() - started)


def peak(which: str, steps: int) -> float:
    """Peak resident memory (GiB) of one of the two in a fresh process."""
    command = [sys.executable, __file__, "--alone", which, "--steps", str(steps)]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()[-1])


def peak_gib() -> float:
    """Peak resident memory of this process. Linux's `ru_maxrss` would count the parent it was forked from."""
    status = Path("/proc/self/status")
    if not status.is_file():
        return peak_memory_gib()
    line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) / 2**20


def alone(which: str, steps: int, folder: Path) -> None:
    files = make_windows(folder)
    if which == "ours":
        ours(files, folder / "run", steps, lambda: None)
    else:
        plain = Plain(files)
        for _ in range(steps):
            plain.step()
    print(peak_gib())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--alone", choices=("ours", "plain"), help="only this one, and print its peak memory")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if asked.alone:
            return alone(asked.alone, asked.steps, folder)
        files = make_windows(folder)
        plain = Plain(files)
        mine = ours(files, folder / "run", asked.steps, plain.step)
    pairs = list(zip(mine, plain.seconds, strict=False))[WARM_UP:]
    found = {
        "steps": len(pairs),
        "ours_seconds": statistics.median(one for one, _ in pairs),
        "plain_seconds": statistics.median(other for _, other in pairs),
        "ratio_of_medians": statistics.median(one for one, _ in pairs) / statistics.median(other for _, other in pairs),
        "median_of_ratios": statistics.median(one / other for one, other in pairs),
        "ours_peak_gib": peak("ours", 4),
        "plain_peak_gib": peak("plain", 4),
        "threads": torch.get_num_threads(),
    }
    print(json.dumps(found, indent=1))
    if asked.json:
        asked.json.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
