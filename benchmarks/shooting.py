"""Which way to a keyframe opens a shot without a jump, and which way to chain segments keeps it from drifting?

    python benchmarks/shooting.py build/shooting --shots 12 --seeds 3 --steps 8

Makes a film on the backlot in another look, of other scenes and with other seeds than the demo's, trains its look (or
takes the project that is there), and shoots places and hours that the film does not have, whose graded truth is
rendered. `keyframes` compares ways to the first picture over one segment, `chains` ways to join `--segments` of them,
all from the same first segment (`--opening`). Every way shares noise with the others. `autoencoder` is the truth
through the model's VAE and back, each segment of a chain alone. Limits are those that the film's own windows set
(`cinetune.generation.gate`). Every reading goes to a file as it is made, so a run that was stopped goes on; prints the
tables of docs/numerics.md.
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any

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
from cinetune.durable import append
from cinetune.footage.video import read_window
from cinetune.generation import (
    SETTLED,
    ArmModel,
    Recipe,
    anchored,
    coded,
    colour_map,
    generate,
    led,
    limits_of,
    make_candidate,
    measured,
    pictures,
    regraded,
    settled_pixels,
    starting_noise,
    true_reading,
)
from cinetune.generation.gate import BEFORE, MEASURES
from cinetune.generation.segment import conditioning
from cinetune.metrics import colour_drift, colour_error, lab_cloud, tone_distance
from cinetune.metrics.checks import Array
from cinetune.models.family import VideoModel
from cinetune.models.wan.sample import sample
from cinetune.results import Ingested, Prepared, Trained
from cinetune.runtime import derive
from cinetune.store import Project

FRAMES, FILM_SCENES, SHOTS_PER_SCENE, LIMIT_CLIPS = 33, 10, 4, 16
KEYFRAMES = ("develop", "lead", "settle", "settle lead", "settle 9", "settle 9 lead", "twice", "one frame", "late")
CHAINS = (
    "naive", "offset", "anchor keyframe 1", "anchor settled 0.5", "anchor settled 1", "given 5", "held 5", "held 9",
    "held 5 anchor settled 0.5", "held 5 offset", "fade 5", "fade 9", "fade 5 anchor settled 0.5",
    "fade 9 anchor settled 0.25", "fade 9 anchor settled 0.5", "fade 9 anchor settled 1",
)  # fmt: skip
Row = dict[str, float | str | int | None]


@dataclass(slots=True)
class Shot:
    """One planned shot in one seed. What the model makes of the same pictures and noise is made once for all ways."""

    model: VideoModel
    recipe: Recipe
    given: Tensor
    truth: Array
    seed: int
    first: bool
    made: dict[tuple[bytes, int, int, str], Array] = field(default_factory=dict)

    def clip(self, given_THWC: Tensor, seed: int, how: str = "held", frames: int = FRAMES) -> Array:
        """All pictures of a segment that starts at those given: one, or several `held` (see `sample`) or `given` as the
        model's first latents, which it was not taught.
        """
        key = given_THWC.numpy().tobytes(), seed, frames, how if len(given_THWC) > 1 else ""
        if key not in self.made:
            recipe = replace(self.recipe, frames=frames)
            if how == "given" and len(given_THWC) > 1:
                latents = from_latents(self.model, given_THWC, recipe, seed)
            else:
                held = given_THWC if len(given_THWC) > 1 else None
                latents = generate(self.model, given_THWC[0], recipe, seed=seed, held_THWC=held)
            self.made[key] = torch.stack(list(pictures(self.model, latents))).numpy()
        return self.made[key]


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


def opening(way: str, shot: Shot) -> tuple[Array, Array]:
    """The first segment and the keyframe it is said to start from, by one way."""
    name, lead = way.removesuffix(" lead"), way.endswith("lead")
    start = shot.given if way == "lead" else first_picture(name, shot)
    clip = shot.clip(start[None], shot.seed)
    if lead:
        clip = torch.stack(list(led(map(torch.from_numpy, clip), shot.model.info.stride_time))).numpy()
    return clip, clip[0] if lead or name == "develop" else start.numpy()


def first_picture(way: str, shot: Shot) -> Tensor:
    """The picture that the segment is made from; `develop` starts from the reference."""
    match way:
        case "develop":
            return shot.given
        case "settle" | "settle 9":
            segment = shot.clip(shot.given[None], shot.seed, frames=9 if way == "settle 9" else FRAMES)
            return regraded(shot.given, settled_pixels(list(map(torch.from_numpy, segment))))
        case "twice":
            return torch.from_numpy(shot.clip(shot.given[None], shot.seed)[0].copy())
        case "one frame":
            return torch.from_numpy(shot.clip(shot.given[None], shot.seed, frames=1)[0].copy())
    clouds = [lab_cloud(shot.truth[:1])]
    made = make_candidate("late", shot.model, shot.given, shot.recipe, seed=shot.seed, strength=1, film=clouds)
    return made.picture_HWC


def chain(way: str, shot: Shot, first: Array, seeds: list[int]) -> list[Array]:
    """What each segment shows. `held` and `given` share so many pictures, `fade` shows those of both."""
    parts, words = [first], way.split()
    count = int(words[1]) if words[0] in ("held", "given", "fade") else 1
    settled = torch.from_numpy(first[SETTLED:])
    goals: dict[str, Any] = {
        "keyframe": (torch.from_numpy(first[0].mean((0, 1))), torch.from_numpy(first[0].std((0, 1)))),
        "settled": (settled.mean((0, 1, 2)), settled.std((1, 2)).mean(0)),
        "whole": settled_pixels(list(map(torch.from_numpy, first))),
    }
    for seed in seeds:
        whole = np.concatenate(parts)
        tail = torch.from_numpy(whole[-count:])
        made = shot.clip(tail, seed, "given" if words[0] == "given" else "held")
        new: Any = made[count:]  # float32
        if words[-1] == "offset":  # what both segments show, in the grade of the earlier one
            new = np.clip(new - made[:count].mean((0, 1, 2)) + tail.numpy().mean((0, 1, 2)), 0, 1).astype(np.float32)
        if words[0] == "fade":
            new = made[1:]
        if "anchor" in words:
            goal, strength = goals[words[-2]], float(words[-1])
            ramp = [strength * (i + 1) / len(new) for i in range(len(new))]
            pull = partial(recoloured, goal_N3=goal) if words[-2] == "whole" else partial(anchored, goal=goal)
            new = np.stack([pull(torch.from_numpy(p), strength=s).numpy() for p, s in zip(new, ramp, strict=True)])
        if words[0] == "fade":  # the earlier segment gives way to the later one while both show the same
            weight = (np.arange(1, count) / count)[:, None, None, None]
            faded = (1 - weight) * tail.numpy()[1:] + weight * new[: count - 1]
            new = np.concatenate([faded.astype(np.float32), new[count - 1 :]])
            parts[-1] = parts[-1][: len(parts[-1]) - count + 1]
        parts.append(new)
    return parts


def recoloured(picture_HWC: Tensor, goal_N3: Array, *, strength: float) -> Tensor:
    """`anchored` by the whole covariance of the goal's colours, and not each channel's own spread."""
    matrix, offset = colour_map(picture_HWC.double().reshape(-1, 3).numpy(), goal_N3)
    pulled = torch.from_numpy((picture_HWC.double().numpy() @ matrix + offset).astype(np.float32))
    return torch.lerp(picture_HWC, pulled, strength).clamp(0, 1)


def from_latents(model: VideoModel, tail_THWC: Tensor, recipe: Recipe, seed: int) -> Tensor:
    """Latents of what follows the tail where all of it is given as the model's first latents."""
    count, (height, width) = len(tail_THWC), tail_THWC.shape[1:3]
    video = torch.zeros(1, 3, recipe.frames, height, width)
    video[0, :, :count] = tail_THWC.permute(3, 0, 1, 2) * 2 - 1
    latents = model.encode_video(video)
    mask = torch.zeros(1, model.info.stride_time, *latents.shape[2:])
    mask[:, :, : (count - 1) // model.info.stride_time + 1] = 1
    cond = replace(conditioning(model, tail_THWC[0], recipe), latent_BCfhw=torch.cat([mask, latents], dim=1))
    noise = starting_noise(model.info, recipe.frames, height=height, width=width, seed=seed)
    return sample(model, cond, noise, steps=recipe.steps, guidance=recipe.guidance, shift=recipe.shift)


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
        "sharp": sharpness(clip[-1:]) / sharpness(truth[-1:]),
        "inside": float(not one.over),
    }


def chain_row(parts: list[Array], truth: Array, limits: Limits, keyframe_HWC: Array) -> Row:
    """Means over the joins; how often each measure is outside its limit."""
    joins = []
    for number, new in enumerate(parts[1:], start=1):
        before = np.concatenate(parts[:number])[-BEFORE:]
        joins.append(measured(np.concatenate([before[-1:], new]), before[:-1], seed=0, limits=limits))
    whole = np.concatenate(parts)
    found: Row = {name: float(np.mean([getattr(one, name) for one in joins])) for name in MEASURES}
    out: Row = {f"{name} out": float(np.mean([name in one.over for one in joins])) for name in MEASURES}
    return found | {
        "whole drift": float(colour_drift(np.stack([keyframe_HWC, whole[-1]]))[1]),
        "last error": colour_error(parts[-1], truth[len(whole) - len(parts[-1]) : len(whole)]),
        "chroma": chroma(parts[-1]) / chroma(parts[0][SETTLED:]),
        "sharp": sharpness(parts[-1]) / sharpness(parts[0]),
        "inside": float(np.mean([not one.over for one in joins])),
        **out,
    }


def chroma(clip: Array) -> float:
    """Mean chroma in Lab: falls as colours fade."""
    return float(np.hypot(*lab_cloud(clip)[:, 1:].T).mean())


def sharpness(clip: Array) -> float:
    """Mean of the luma gradient, which blur and noise that pile up move."""
    luma = clip @ np.array([0.2126, 0.7152, 0.0722])
    return float(np.abs(np.diff(luma, axis=2)).mean())


def structure(x: Array, y: Array) -> float:
    """Correlation of luma, each frame with mean 0 and variance 1."""

    def standard(clip: Array) -> Array:
        luma = clip @ np.array([0.2126, 0.7152, 0.0722])
        return (luma - luma.mean((1, 2), keepdims=True)) / (luma.std((1, 2), keepdims=True) + 1e-6)

    return float((standard(x) * standard(y)).mean())


def table(rows: list[Row], first: str) -> str:
    """Means by way, and the paired change against the first way with its 95 % interval over shots."""
    names = [name for name in rows[0] if name not in ("part", "way", "shot", "seed")]
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
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--guidance", type=float, default=1.0)
    parser.add_argument("--segments", type=int, default=2)
    parser.add_argument("--part", nargs="*", default=["keyframes", "chains"])
    parser.add_argument("--keyframes", nargs="*", default=KEYFRAMES)
    parser.add_argument("--chains", nargs="*", default=CHAINS)
    parser.add_argument("--opening", default="lead", choices=KEYFRAMES, help="the way to the first segment of chains")
    parser.add_argument("--rows", type=Path, default=None, help="readings of this run; FOLDER/rows.jsonl")
    parser.add_argument("--adapter", type=Path, default=None, help="a look trained before, instead of training")
    parser.add_argument("--set", nargs="*", default=[], dest="extra")
    options = parser.parse_args()
    torch.set_num_threads(1)
    scenes = film(options.folder, options.look, options.film_seed)[: options.shots]
    project = Project(options.folder, overrides=("train.plain_arm=false", "train.workers=1", *options.extra))
    if options.adapter and project.store.find(Prepared) is None:
        pipeline.run(project, Lines(sys.stderr), until="prepare")
    model = ArmModel(project.config, {"look": options.adapter or trained(project)}).activate("look")
    if not options.part:
        return
    limits = film_limits(project, model)
    print(f"limits: {limits}", flush=True)
    path = options.rows or options.folder / "rows.jsonl"
    for seed, (number, scene) in itertools.product(range(options.seeds), enumerate(scenes)):
        done = {(row["part"], row["shot"], row["seed"]) for row in readings(path)}
        left = [part for part in options.part if (part, number, seed) not in done]
        if left:
            shot = planned(model, scene, options, seed)
            for part in left:
                work: Callable[..., Iterator[Row]] = {"keyframes": openings, "chains": chains}[part]
                rows = [{"part": part, "shot": number, "seed": seed, **row} for row in work(shot, limits, options)]
                append(path, "".join(json.dumps(row) + "\n" for row in rows), root=path.parent)
            print(f"seed {seed}, shot {number}", flush=True)
    for part in options.part:
        rows = [row for row in readings(path) if row["part"] == part]
        print(f"\n{part}\n{table(rows, options.keyframes[0] if part == 'keyframes' else options.chains[0])}")


def readings(path: Path) -> list[Row]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []


def planned(model: VideoModel, scene: Scene, options: argparse.Namespace, seed: int) -> Shot:
    frames = 1 + (FRAMES - 1) * options.segments
    prompt = f"{options.look} film look, {caption(scene)}"
    return Shot(
        model=model,
        recipe=Recipe(
            prompt=prompt, negative="", frames=FRAMES, steps=options.steps, guidance=options.guidance, shift=3.0
        ),
        given=torch.from_numpy(render(scene, frames=1)[0].copy()),
        truth=grade(render(scene, frames=frames, rate=Fraction(16)), LOOKS[options.look]),
        seed=derive(options.film_seed, prompt, seed),
        first=seed == 0,
    )


def film_limits(project: Project, model: VideoModel) -> Limits:
    clips, windows = project.store.need(Ingested).by_id, project.store.need(Prepared).windows
    taken = windows[:: max(1, -(-len(windows) // LIMIT_CLIPS))]
    films = (read_window(project.root, clips[window.clip], window) for window in taken)
    readings = [true_reading(film, partial(coded, model), stride=model.info.stride_time) for film in films]
    return limits_of([one for one in readings if one is not None])


def trained(project: Project) -> Path:
    if project.store.find(Trained) is None:
        pipeline.run(project, Lines(sys.stderr), until="train")
    return project.store.path(project.store.need(Trained).by_arm["look"].weights)


def openings(shot: Shot, limits: Limits, options: argparse.Namespace) -> Iterator[Row]:
    truth = shot.truth[:FRAMES]
    if shot.first:  # no seed has a part in these
        yield {"way": "truth", **opening_row(truth, truth[0], truth, limits)}
        through = coded(shot.model, truth)
        yield {"way": "autoencoder", **opening_row(through, through[0], truth, limits)}
    for way in options.keyframes:
        clip, start = opening(way, shot)
        yield {"way": way, **opening_row(clip, start, truth, limits)}


def chains(shot: Shot, limits: Limits, options: argparse.Namespace) -> Iterator[Row]:
    if shot.first:
        cuts = [1 + (FRAMES - 1) * number for number in range(1, options.segments)]
        yield {"way": "truth", **chain_row(np.split(shot.truth, cuts), shot.truth, limits, shot.truth[0])}
        alone = [coded(shot.model, shot.truth[start : start + FRAMES]) for start in (0, *(cut - 1 for cut in cuts))]
        joined = [alone[0], *(part[1:] for part in alone[1:])]
        yield {"way": "autoencoder", **chain_row(joined, shot.truth, limits, joined[0][0])}
    first, start = opening(options.opening, shot)
    seeds = [derive(shot.seed, number) for number in range(1, options.segments)]
    for way in options.chains:
        yield {"way": way, **chain_row(chain(way, shot, first, seeds), shot.truth, limits, start)}


if __name__ == "__main__":
    main()
