"""Loss curves of an adapter on pocket with the frozen base in float32, stored in float8, and multiplied in float8.

    cinetune run -C demo --until cache          (or a finished demo)
    python benchmarks/fp8_curve.py demo --steps 60

The same windows, noise levels, noise and first adapter in each run; only `model.storage` and `model.compute` differ.
Float8 products are torch's own kernel, on a CPU as on a card: rounded rows times rounded rows, added up in float32.
Prints the mean loss of each stretch of steps, the held-out loss before and after, and how far each curve is from the
first: the root mean square of the differences step by step, over that of the first curve's own scatter.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import torch

from cinetune.models import load_model
from cinetune.models.adapters.lora import add_lora
from cinetune.models.family import VideoModel
from cinetune.results import Cached
from cinetune.runtime import Device, generator
from cinetune.sections import ModelSection, TrainSection
from cinetune.store import Project
from cinetune.training import WindowFile, load_empty, window_file
from cinetune.training.ahead import look
from cinetune.training.data import load_batch
from cinetune.training.loop import learning_rate
from cinetune.training.step import flow_loss, step_loss
from cinetune.training.validate import quantile_sigmas

CPU = Device("cpu", "float32", "benchmark")
SETTINGS = {
    "float32": ModelSection(),
    "stored in float8": ModelSection(storage="fp8"),
    "multiplied in float8": ModelSection(storage="fp8", compute="fp8"),
}
STRETCHES = 4


def held_loss(model: VideoModel, files: Sequence[WindowFile], recipe: TrainSection) -> float:
    """Velocity loss of windows that are not trained on, from re-graded first frames, over four noise levels."""
    found: list[float] = []
    with torch.no_grad():
        for file in files:
            batch = load_batch([file], [min(1, file.variants)])
            for number, sigma in enumerate(quantile_sigmas(recipe.timesteps, recipe.shift)):
                noise = torch.randn(batch.latents_BCfhw.shape, generator=generator(0, "held", file.id, number))
                found.append(float(flow_loss(model, batch, sigma.view(1), noise)))
    return sum(found) / len(found)


def curve(
    section: ModelSection, recipe: TrainSection, files: dict[str, list[WindowFile]], empty: torch.Tensor
) -> tuple[list[float], float, float]:
    """Losses of all steps, and the held-out loss before and after."""
    model = load_model(section, device=CPU, parts="denoiser")
    named = add_lora(model, rank=recipe.rank, alpha=recipe.alpha, targets=recipe.targets, seed=0)
    trained = [parameter for _, parameter in named]
    optimiser = torch.optim.AdamW(trained, lr=recipe.lr, betas=recipe.betas, weight_decay=recipe.weight_decay)
    losses, before = list[float](), held_loss(model, files["held"][::2], recipe)
    for step in range(recipe.steps):
        ((batch, draws),) = look(step, files["train"], recipe, [slice(0, recipe.batch)]).parts
        loss = step_loss(model, batch, draws, empty_1LD=empty).mean()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, recipe.max_grad_norm)
        for group in optimiser.param_groups:
            group["lr"] = learning_rate(step, recipe)
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
        losses.append(float(loss.detach()))
    return losses, before, held_loss(model, files["held"][::2], recipe)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("project", type=Path)
    parser.add_argument("--steps", type=int, default=60)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    project = Project(asked.project)
    cached = project.store.need(Cached)
    files = {
        split: [window_file(e.window, project.store.path(e.file)) for e in cached.entries if e.split == split]
        for split in ("train", "held")
    }
    empty = load_empty(project.store.path(cached.shared[0]))
    recipe = project.config.train.model_copy(update={"steps": asked.steps, "accumulate": 1})
    each = -(-asked.steps // STRETCHES)
    heads = [f"steps {n + 1}-{min(n + each, asked.steps)}" for n in range(0, asked.steps, each)]
    print(f"| base | {' | '.join(heads)} | held out, before | after | curve off |")
    print("|---" * (len(heads) + 4) + "|")
    first: torch.Tensor | None = None
    for name, section in SETTINGS.items():
        losses, before, after = curve(section, recipe, files, empty)
        values = torch.tensor(losses)
        first = values if first is None else first
        off = float((values - first).square().mean().sqrt() / first.std())
        means = " | ".join(f"{float(part.mean()):.4f}" for part in values.split(each))
        print(f"| {name} | {means} | {before:.4f} | {after:.4f} | {off:.1%} |", flush=True)


if __name__ == "__main__":
    main()
