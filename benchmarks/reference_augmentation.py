"""Does reference augmentation teach a look to a neutral reference? An ablation where the graded truth is known.

    python benchmarks/reference_augmentation.py build/ablation

Makes the demo film in the folder (or takes the project that is there), then trains one adapter for each row of
`SETTINGS` and scores its shots against the truth, in and out of domain. What rows have in common is made once, and
rows that are finished are kept, so it can be stopped and started. Prints the table of docs/numerics.md and writes it as
JSON.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from cinetune import pipeline
from cinetune.artifacts import Scorecard
from cinetune.console import Lines
from cinetune.demo import make_demo
from cinetune.store import Project

METRICS = ("colour_error", "tone_w1", "lpips", "motion_error", "drift")
NARROW = ("saturation=[0.95,1.2]", "gain=[0.97,1.04]", "offset=[-0.04,0.02]", "gamma=[0.92,1.1]")
WIDE = ("saturation=[0.6,2.0]", "gain=[0.85,1.2]", "offset=[-0.2,0.12]", "gamma=[0.6,1.5]")
SETTINGS: dict[str, tuple[str, ...]] = {
    "plain": ("probability=0.0", "single_frame=0.0"),
    "single frames only": ("probability=0.0",),
    "preset": (),
    "p 0.4": ("probability=0.4",),
    "p 1": ("probability=1.0",),
    "narrow": NARROW,
    "wide": WIDE,
    "no single frames": ("single_frame=0.0",),
}
"""Each is the pocket preset but for what it names."""


def run_setting(folder: Path, augment: tuple[str, ...], extra: list[str]) -> list[Scorecard]:
    """Train and score one setting."""
    one = ("train.plain_arm=false", "train.workers=1")
    project = Project(folder, overrides=(*one, *(f"train.augment.{item}" for item in augment), *extra))
    report = Lines(sys.stderr)
    pipeline.run(project, report, until="expand")
    pipeline.run(project, report, only="score")
    return list(project.store.need_stage("score").groups["scorecards"])


def row(cards: list[Scorecard], domain: str) -> dict[str, dict[str, float | None]]:
    """For one domain: each metric's level in both arms and the paired effect with its interval."""
    card = next(card for card in cards if card.domain == domain and card.arm == "look" and card.versus == "base")
    effects = {score.metric: score for score in card.effects}
    table: dict[str, dict[str, float | None]] = {}
    for metric in METRICS:
        if metric in effects:
            score = effects[metric]
            levels = {arm: card.levels[metric].get(arm) for arm in ("base", "look")}
            table[metric] = levels | {"effect": score.value, "low": score.low, "high": score.high}
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--only", nargs="*", default=list(SETTINGS))
    parser.add_argument("--set", nargs="*", default=[], dest="extra")
    options = parser.parse_args()
    make_demo(options.folder, Lines(sys.stderr))
    results: dict[str, dict[str, dict[str, dict[str, float | None]]]] = {}
    for name in options.only:
        cards = run_setting(options.folder, SETTINGS[name], options.extra)
        results[name] = {domain: row(cards, domain) for domain in ("in", "out")}
        (options.folder / "results.json").write_text(json.dumps(results, indent=1), encoding="utf-8")
    print("| setting | domain | metric | base | look | look - base (95 %) |\n|---|---|---|---|---|---|")
    for name, domains in results.items():
        for domain, metrics in domains.items():
            for metric, cell in metrics.items():
                numbers = {key: "-" if value is None else f"{value:.3f}" for key, value in cell.items()}
                effect = f"{numbers['effect']} ({numbers['low']} to {numbers['high']})"
                print(f"| {name} | {domain} | {metric} | {numbers['base']} | {numbers['look']} | {effect} |")


if __name__ == "__main__":
    main()
