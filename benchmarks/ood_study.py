"""Does a look travel? The experiment of docs/ood.md on the backlot: looks x training seeds x sampling seeds.

    python benchmarks/ood_study.py build/ood            3 looks x 3 training x 3 sampling seeds: a night on 2 cores
    python benchmarks/ood_study.py build/ood --quick    1 look, 1 training, 1 sampling seed, short training: minutes

Each look is a demo project of its own. Stages that do not depend on the training seed are made once, and so are base
shots. What is there is not made again, so a killed study goes on. Ends in `study.json` and a table: for each look the
mean effect over training seeds, and over all trainings the mean and Student's interval with a training as the unit.
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from cinetune import pipeline
from cinetune.backlot.looks import LOOKS
from cinetune.console import reporter
from cinetune.demo import make_demo
from cinetune.durable import atomic_write
from cinetune.experiment import EXPERIMENTS, Line, announce, answer, settings_of
from cinetune.metrics.stats import effect_interval
from cinetune.results import Scored
from cinetune.store import Project

# Without a trigger phrase look and base read the same words, and no third arm is needed.
QUICK = (
    'prepare.trigger=""', "train.steps=40", "train.validate_every=40", "train.validation_seeds=1",
    "train.validation_shots=1", "train.plain_arm=false", "train.workers=1", "shoot.steps=6", "shoot.workers=1",
    'deliver.formats=["proxy"]', 'deliver.slate="none"',
)  # fmt: skip
FULL = ("train.plain_arm=false", 'deliver.formats=["proxy"]')
MEASURES = ("clip_kid", "clip_fid", "clip_kid_film", "structure", "colour_error", "drift")


def one(root: Path, seed: int, settings: Sequence[str], *, quick: bool) -> dict[str, Any]:
    """The experiment on one project and training seed; what is done already is read."""
    project = Project(root, overrides=tuple(settings_of("ood", [*settings, f"train.seed={seed}"], quick=quick)))
    speaker = reporter(sys.stderr)
    for line in announce(project, "ood"):
        speaker.say(line)
    pipeline.run(project, speaker, until="score")
    scored = project.store.need(Scored)
    found = {line.metric: effects(line) for line in answer(scored.scorecards, EXPERIMENTS["ood"].measures)}
    return {"effects": found, "vetoes": [veto.why for veto in scored.vetoes], "protocol": scored.scorecards[0].protocol}


def effects(line: Line) -> dict[str, Any]:
    parts = {"in": line.inside, "out": line.outside, "between": line.between}
    return {
        name: {"value": score.value, "low": score.low, "high": score.high, "verdict": score.verdict}
        for name, score in parts.items()
        if score is not None and score.value is not None
    }


def table(runs: dict[str, dict[str, Any]]) -> str:
    """Rows of look, measure, where: the mean over trainings and each one; then over all, with an interval."""
    lines = [f"{'look':10} {'measure':14} {'where':8} {'mean':>9}  trainings"]
    for metric, where in itertools.product(MEASURES, ("in", "out", "between")):
        everything: list[float] = []
        for look in dict.fromkeys(name.split("/")[0] for name in runs):
            values = [
                run["effects"][metric][where]["value"]
                for name, run in runs.items()
                if name.startswith(f"{look}/") and where in run["effects"].get(metric, {})
            ]
            if values:
                everything += values
                shown = ", ".join(f"{value:+.3g}" for value in values)
                lines.append(f"{look:10} {metric:14} {where:8} {np.mean(values):+9.3g}  {shown}")
        if len(everything) > 1:
            low, high = effect_interval(everything)
            interval = "" if low is None or high is None else f"{low:+.3g} to {high:+.3g}"
            lines.append(f"{'all':10} {metric:14} {where:8} {np.mean(everything):+9.3g}  {interval}")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--quick", action="store_true")
    arguments = parser.parse_args()
    looks = list(LOOKS)[-1:] if arguments.quick else list(LOOKS)
    seeds = range(1) if arguments.quick else range(3)
    file = arguments.folder / ("study-quick.json" if arguments.quick else "study.json")
    runs: dict[str, dict[str, Any]] = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    for look, seed in itertools.product(looks, seeds):
        name = f"{look}/{seed}"
        if name in runs:
            continue
        root = arguments.folder / look
        make_demo(root, reporter(sys.stderr), look=look)
        runs[name] = one(root, seed, QUICK if arguments.quick else FULL, quick=arguments.quick)
        with atomic_write(file) as temporary:
            temporary.write_text(json.dumps(runs, indent=1), encoding="utf-8")
    print(table(runs))


if __name__ == "__main__":
    main()
