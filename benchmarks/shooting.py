"""Which way to a keyframe opens a shot without a jump, and which way to chain segments keeps it from drifting?

    python benchmarks/shooting.py build/shooting --shots 12 --seeds 3 --steps 16

Makes a film on the backlot in another look, of other scenes and with other seeds than the demo's, trains its look (or
takes the project that is there), and shoots places and hours that the film does not have, whose graded truth is
rendered. `keyframes` compares ways to the first picture over one segment, `chains` ways to join `--segments` of them,
all from the same first segment. Every way shares noise with the others. `autoencoder` is the truth through the model's
VAE and back. Prints the tables of docs/numerics.md and writes every reading as JSON, shot by shot, so that it can be
stopped.
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import torch
from scipy import stats
from torch import Tensor

from cinetune import pipeline
from cinetune.artifacts import Limits
from cinetune.backlot.looks import LOOKS, grade
from cinetune.backlot.reels import shoot_reels
from cinetune.backlot.scenes import HISTORICAL, Scene, caption, render, sample_scene
from cinetune.console import Lines
from cinetune.generation import (
    Cast,
    Recipe,
    anchored,
    generate,
    make_candidate,
    measured,
    pictures,
    regraded,
    settled_pixels,
    starting_noise,
    true_limits,
)
from cinetune.generation.gate import MEASURES
from cinetune.generation.segment import conditioning
from cinetune.generation.settle import SETTLED
from cinetune.metrics import colour_drift, colour_error, lab_cloud, tone_distance
from cinetune.metrics.checks import Array
from cinetune.models.family import VideoModel
from cinetune.models.wan.sample import sample
from cinetune.results import Trained
from cinetune.runtime import derive
from cinetune.store import Project

FRAMES, FILM_SCENES, SHOTS_PER_SCENE = 33, 10, 4
KEYFRAMES = ("develop", "as-is", "film's own", "settle", "settle 9", "one frame", "late")
CHAINS = ("naive", "same seed", "offset", "anchor keyframe 1", "anchor settled 0.5", "anchor settled 1", "overlap 5")
Row = dict[str, float | str | int | None]


def film(folder: Path, look: str, seed: int) -> list[Scene]:
    """Make the film unless it is there; the shots to make are at the places and hours it leaves out."""
    rng = np.random.default_rng(seed)
    pairs = [(place, time) for place in HISTORICAL.places for time in ("dawn", "noon", "dusk", "night")]
    order = [pairs[i] for i in rng.permutation(len(pairs))]
    scenes = [scene for pair in order[:FILM_SCENES] for scene in at(rng, pair, SHOTS_PER_SCENE)]
    if not (folder / "cinetune.toml").exists():
        shoot_reels(folder / "footage", scenes, LOOKS[look], per_reel=SHOTS_PER_SCENE, letterbox=16)
        (folder / "shots.toml").write_text("", encoding="utf-8")
        text = f'preset = "pocket"\nname = "{look}"\n\n[prepare]\ntrigger = "{look} film look"\n'
        (folder / "cinetune.toml").write_text(text, encoding="utf-8")
    return [scene for pair in order[FILM_SCENES:] for scene in at(rng, pair, 1)]


def at(rng: np.random.Generator, pair: tuple[str, str], count: int) -> Iterator[Scene]:
    subjects: set[str] = set()
    while len(subjects) < count:
        scene = sample_scene(rng, domain="historical")
        if (scene.place, scene.time) == pair and scene.subject not in subjects:
            subjects.add(scene.subject)
            yield scene


def keyframe(way: str, model: VideoModel, reference: Tensor, recipe: Recipe, seed: int, truth: Array) -> Tensor:
    """The picture the segment starts from, by one way; `develop` starts from the reference."""
    match way:
        case "develop" | "as-is":
            return reference
        case "film's own":
            return torch.from_numpy(truth[0].copy())
        case "settle" | "settle 9":
            short = replace(recipe, frames=9) if way == "settle 9" else recipe
            segment = list(pictures(model, generate(model, reference, short, seed=seed)))
            return regraded(reference, settled_pixels(segment))
        case "one frame":
            return next(pictures(model, generate(model, reference, replace(recipe, frames=1), seed=seed)))
    clouds = [lab_cloud(truth[:1])]
    return make_candidate("late", model, reference, recipe, seed=seed, strength=1, film=clouds).picture_HWC


def chain(way: str, model: VideoModel, first: Array, recipe: Recipe, seeds: list[int]) -> list[Array]:
    """The new pictures of each segment after the first."""
    parts, kind = [first], way.split()
    settled = torch.from_numpy(first[SETTLED:])
    goals = {
        "keyframe": (settled.new_tensor(first[0].mean((0, 1))), settled.new_tensor(first[0].std((0, 1)))),
        "settled": (settled.mean((0, 1, 2)), settled.std((1, 2)).mean(0)),
    }
    for seed in seeds:
        used = seeds[0] if way == "same seed" else seed
        tail = torch.from_numpy(np.concatenate(parts)[-(int(kind[1]) if kind[0] == "overlap" else 1) :])
        made = overlapped(model, tail, recipe, used)
        if kind[0] == "anchor":
            steps = range(len(made))
            made = [anchored(made[i], goals[kind[1]], strength=float(kind[2]) * (i + 1) / len(made)) for i in steps]
        new = torch.stack(made).numpy()
        if way == "offset":
            new = np.clip(new - new[:4].mean((0, 1, 2)) + parts[-1][-4:].mean((0, 1, 2)), 0, 1).astype(np.float32)
        parts.append(new)
    return parts[1:]


def overlapped(model: VideoModel, tail_THWC: Tensor, recipe: Recipe, seed: int) -> list[Tensor]:
    """What follows the tail: one picture, as the model was taught, or several given as its first latents."""
    given, (height, width) = len(tail_THWC), tail_THWC.shape[1:3]
    cond = conditioning(model, tail_THWC[0], recipe)
    if given > 1:
        video = torch.zeros(1, 3, recipe.frames, height, width)
        video[0, :, :given] = tail_THWC.permute(3, 0, 1, 2) * 2 - 1
        latents = model.encode_video(video)
        mask = torch.zeros(1, model.info.stride_time, *latents.shape[2:])
        mask[:, :, : (given - 1) // model.info.stride_time + 1] = 1
        cond = replace(cond, latent_BCfhw=torch.cat([mask, latents], dim=1))
    noise = starting_noise(model.info, recipe.frames, height=height, width=width, seed=seed)
    found = sample(model, cond, noise, steps=recipe.steps, guidance=recipe.guidance, shift=recipe.shift)
    return list(pictures(model, found))[given:]


def opening_row(clip: Array, start: Array, truth: Array, limits: Limits) -> Row:
    one = measured(clip, None, seed=0, limits=limits)
    return {
        "jump": one.jump,
        "drift": one.drift,
        "from keyframe": float(colour_drift(np.stack([start, clip[-1]]))[1]),
        "flicker": one.flicker,
        "colour error": colour_error(clip, truth),
        "of frame 0": colour_error(clip[:1], truth[:1]),
        "tone": tone_distance(lab_cloud(clip), lab_cloud(truth)),
        "structure": structure(clip, truth),
        "inside": float(not one.over),
    }


def chain_row(parts: list[Array], truth: Array, limits: Limits, keyframe_HWC: Array) -> Row:
    joins = []
    for before, new in itertools.pairwise(parts):
        joins.append(measured(np.concatenate([before[-1:], new]), before[-8:-1], seed=0, limits=limits))
    whole = np.concatenate(parts)
    found: Row = {name: float(np.mean([getattr(one, name) for one in joins])) for name in MEASURES}
    return found | {
        "whole drift": float(colour_drift(np.stack([keyframe_HWC, whole[-1]]))[1]),
        "last error": colour_error(parts[-1], truth[-len(parts[-1]) :]),
        "inside": float(np.mean([not one.over for one in joins])),
    }


def structure(x: Array, y: Array) -> float:
    """Correlation of luma, each frame with mean 0 and variance 1."""

    def standard(clip: Array) -> Array:
        luma = clip @ np.array([0.2126, 0.7152, 0.0722])
        return (luma - luma.mean((1, 2), keepdims=True)) / (luma.std((1, 2), keepdims=True) + 1e-6)

    return float((standard(x) * standard(y)).mean())


def table(rows: list[Row], first: str) -> str:
    """Means by way, and the paired change against the first way with its 95 % interval over shots."""
    names = [name for name in rows[0] if name not in ("way", "shot", "seed")]
    lines = [f"| way | {' | '.join(names)} |", "|---" * (len(names) + 1) + "|"]
    ways = list(dict.fromkeys(row["way"] for row in rows))

    def by_shot(way: object, name: str) -> dict[object, float]:
        own = [row for row in rows if row["way"] == way]
        return {
            shot: float(np.mean([float(r[name] or 0) for r in own if r["shot"] == shot]))
            for shot in {r["shot"] for r in own}
        }

    for way in ways:
        cells = []
        for name in names:
            values, base = by_shot(way, name), by_shot(first, name)
            cell = f"{np.mean(list(values.values())):.2f}"
            changes = np.array([values[shot] - base[shot] for shot in values if shot in base])
            if way not in (first, "truth", "autoencoder") and len(changes) > 2:
                error = changes.std(ddof=1) / len(changes) ** 0.5 * float(stats.t.ppf(0.975, len(changes) - 1))
                low, high = changes.mean() - error, changes.mean() + error
                cell += f" ({low:+.2f} to {high:+.2f})"
            cells.append(cell)
        lines.append(f"| {way} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--look", default="silver", choices=sorted(LOOKS))
    parser.add_argument("--film-seed", type=int, default=31)
    parser.add_argument("--shots", type=int, default=12)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=16)
    parser.add_argument("--segments", type=int, default=3)
    parser.add_argument("--part", nargs="*", default=["keyframes", "chains"])
    parser.add_argument("--ways", nargs="*", default=[])
    parser.add_argument("--adapter", type=Path, default=None, help="a look trained before, instead of training")
    parser.add_argument("--set", nargs="*", default=[], dest="extra")
    options = parser.parse_args()
    torch.set_num_threads(1)
    scenes = film(options.folder, options.look, options.film_seed)[: options.shots]
    project = Project(options.folder, overrides=("train.plain_arm=false", "train.workers=1", *options.extra))
    model = Cast(project.config.model, {"look": options.adapter or trained(project)}).wear("look")
    frames = 1 + (FRAMES - 1) * options.segments
    truths = [grade(render(scene, frames=frames, rate=Fraction(16)), LOOKS[options.look]) for scene in scenes]
    limits = true_limits(
        truth[start : start + FRAMES] for truth in truths for start in range(0, frames - 1, FRAMES - 1)
    )
    print(f"limits: {limits}", flush=True)
    for part in options.part:
        work: Callable[..., Iterator[Row]] = {"keyframes": openings, "chains": chains}[part]
        rows: list[Row] = []
        for number, scene in enumerate(scenes):
            prompt = f"{options.look} film look, {caption(scene)}"
            recipe = Recipe(prompt=prompt, negative="", frames=FRAMES, steps=options.steps, guidance=1.0, shift=3.0)
            given = torch.from_numpy(render(scene, frames=1)[0].copy())
            for row in work(model, given, recipe, truths[number], limits, options):
                rows.append({"shot": number, **row})
            (options.folder / f"{part}.json").write_text(json.dumps(rows, indent=1), encoding="utf-8")
            first = KEYFRAMES[0] if part == "keyframes" else CHAINS[0]
            print(f"\n{part}, {number + 1} shots\n{table(rows, first)}", flush=True)


def through(model: VideoModel, clip: Array) -> Array:
    video = torch.from_numpy(clip.copy()).permute(3, 0, 1, 2)[None] * 2 - 1
    return torch.stack(list(pictures(model, model.encode_video(video)))).numpy()


def trained(project: Project) -> Path:
    if project.store.find(Trained) is None:
        pipeline.run(project, Lines(sys.stderr), until="train")
    return project.store.path(project.store.need(Trained).by_arm["look"].weights)


def openings(
    model: VideoModel, given: Tensor, recipe: Recipe, truth: Array, limits: Limits, options: argparse.Namespace
) -> Iterator[Row]:
    truth = truth[:FRAMES]
    yield {"way": "truth", "seed": 0, **opening_row(truth, truth[0], truth, limits)}
    coded = through(model, truth)
    yield {"way": "autoencoder", "seed": 0, **opening_row(coded, coded[0], truth, limits)}
    for index in range(options.seeds):
        seed = derive(options.film_seed, recipe.prompt, index)
        for way in options.ways or KEYFRAMES:
            start = keyframe(way, model, given, recipe, seed, truth)
            clip = torch.stack(list(pictures(model, generate(model, start, recipe, seed=seed)))).numpy()
            shown = clip[0] if way == "develop" else start.numpy()
            yield {"way": way, "seed": index, **opening_row(clip, shown, truth, limits)}


def chains(
    model: VideoModel, given: Tensor, recipe: Recipe, truth: Array, limits: Limits, options: argparse.Namespace
) -> Iterator[Row]:
    cuts = [1 + (FRAMES - 1) * number for number in range(1, options.segments)]
    yield {"way": "truth", "seed": 0, **chain_row(np.split(truth, cuts), truth, limits, truth[0])}
    coded = through(model, truth)
    yield {"way": "autoencoder", "seed": 0, **chain_row(np.split(coded, cuts), truth, limits, coded[0])}
    for index in range(options.seeds):
        seed = derive(options.film_seed, recipe.prompt, index)
        start = keyframe("settle 9", model, given, recipe, seed, truth)
        first = torch.stack(list(pictures(model, generate(model, start, recipe, seed=seed)))).numpy()
        seeds = [derive(seed, number) for number in range(1, options.segments)]
        for way in options.ways or CHAINS:
            parts = [first, *chain(way, model, first, recipe, seeds)]
            lengths = [min(len(part), FRAMES - 1) for part in parts[1:]]
            parts = [first, *(part[:length] for part, length in zip(parts[1:], lengths, strict=True))]
            shown = truth[: sum(len(part) for part in parts)]
            yield {"way": way, "seed": index, **chain_row(parts, shown, limits, start.numpy())}


if __name__ == "__main__":
    main()
