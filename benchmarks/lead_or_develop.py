"""What does `lead` change in shots that were developed?

    python benchmarks/lead_or_develop.py demo

Takes a project whose keyframes were made by `develop` or `lead` (both keep the same latents) and whose shots have
truths, decodes the first segment of every shot of the arms base and look, and measures it both ways: drift, first-frame
jump, colour error and tone distance to the truth, and the colour error of the first five pictures. Means over shots by
domain, and the change look - base with its 95 % interval.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file
from scipy import stats

from cinetune.files import OPENING
from cinetune.generation import led, pictures
from cinetune.metrics import colour_drift, colour_error, lab_cloud, tone_distance
from cinetune.metrics.checks import Array
from cinetune.models import load_model
from cinetune.results import Expanded, Keyframed
from cinetune.scoring.clips import truth_source
from cinetune.store import Project

FIRST = 5


def readings(clip: Array, truth: Array) -> dict[str, float]:
    drift = colour_drift(clip)
    return {
        "drift": float(drift[-1]),
        "jump": float(drift[1:FIRST].mean()),
        "colour error": colour_error(clip, truth),
        "of the first five": colour_error(clip[:FIRST], truth[:FIRST]),
        "tone": tone_distance(lab_cloud(clip), lab_cloud(truth)),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("project", type=Path)
    project = Project(parser.parse_args().project)
    torch.set_num_threads(1)
    model, store = load_model(project.config.model), project.store
    shots = {shot.id: shot for shot in project.shots().shots}
    like = {(made.shot, made.arm, made.seed): made for made in store.need(Expanded).sequences}
    found: dict[tuple[str, str, str], dict[str, float]] = {}
    for keyframe in store.need(Keyframed).keyframes:
        source = truth_source(project, shots[keyframe.shot], like[keyframe.shot, keyframe.arm, keyframe.seed])
        if keyframe.arm not in ("base", "look") or keyframe.seed or keyframe.opening is None or source is None:
            continue
        frames = list(pictures(model, load_file(store.path(keyframe.opening))[OPENING]))
        truth = source.read()[: len(frames)]
        ways = {"develop": frames, "lead": list(led(frames, model.info.stride_time))}
        for way, clip in ways.items():
            found[keyframe.shot, keyframe.arm, way] = readings(torch.stack(clip).numpy(), truth)
    for domain in ("in", "out"):
        own = [name for name, shot in shots.items() if shot.domain == domain and (name, "look", "lead") in found]
        for name in next(iter(found.values())) if len(own) > 1 else ():
            for way in ("develop", "lead"):
                base, look = (np.array([found[shot, arm, way][name] for shot in own]) for arm in ("base", "look"))
                change = look - base
                error = change.std(ddof=1) / len(own) ** 0.5 * float(stats.t.ppf(0.975, len(own) - 1))
                low, high = change.mean() - error, change.mean() + error
                print(
                    f"{domain:4}{name:18}{way:8} base {base.mean():5.2f}  look {look.mean():5.2f}  "
                    f"change {change.mean():+.2f} ({low:+.2f} to {high:+.2f})"
                )


if __name__ == "__main__":
    main()
