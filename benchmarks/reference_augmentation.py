"""Does reference augmentation teach a look to a neutral reference? An ablation where the graded truth is known.

    python benchmarks/reference_augmentation.py build/ablation

Makes the demo film once, then trains one adapter for each row of `SETTINGS` and scores its shots against the truth, in
and out of domain. Rows that are finished are kept, so it can be stopped and started. Prints the table of
docs/numerics.md and writes it as JSON.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from pathlib import Path

from cinetune import pipeline
from cinetune.artifacts import Scorecard
from cinetune.console import Lines
from cinetune.demo import make_demo
from cinetune.store import Project

METRICS = ("colour_error", "tone_w1", "lpips", "motion")
WIDE = ("saturation=[0.6,1.7]", "gain=[0.85,1.2]", "offset=[-0.12,0.12]", "gamma=[0.6,1.5]")
NARROW = ("saturation=[0.95,1.15]", "gain=[0.98,1.03]", "offset=[-0.02,0.02]", "gamma=[0.92,1.06]")
SETTINGS: dict[str, tuple[str, ...]] = {
    "plain": ("probability=0.0", "single_frame=0.0"),
    "single frames only": ("probability=0.0", "single_frame=0.1"),
    "p 0.4": ("probability=0.4",),
    "p 0.8 (preset)": ("probability=0.8",),
    "p 1.0": ("probability=1.0",),
    "p 0.8, narrow": ("probability=0.8", *NARROW),
    "p 0.8, wide": ("probability=0.8", *WIDE),
    "p 0.8, no single frames": ("probability=0.8", "single_frame=0.0"),
}


def run_setting(film: Path, folder: Path, augment: tuple[str, ...], extra: list[str]) -> list[Scorecard]:
    """Train and score one setting in its own copy of the project."""
    if not folder.exists():
        partial = folder.with_suffix(".partial")
        shutil.rmtree(partial, ignore_errors=True)
        shutil.copytree(film, partial)
        partial.rename(folder)
    overrides = [
        "train.plain_arm=false",
        'deliver.formats=["proxy"]',
        *(f"train.augment.{item}" for item in augment),
        *extra,
    ]
    project = Project(folder, overrides=tuple(overrides))
    pipeline.run(project, Lines(sys.stderr), until="score")
    return list(project.store.need_stage("score").groups["scorecards"])


def row(cards: list[Scorecard], domain: str) -> dict[str, dict[str, float | None]]:
    """For one domain: each metric's level in both arms and the paired effect with its interval."""
    card = next(card for card in cards if card.domain == domain and card.arm == "look" and card.versus == "base")
    effects = {score.metric: score for score in card.effects}
    table: dict[str, dict[str, float | None]] = {}
    for metric in METRICS:
        if metric in effects:
            score = effects[metric]
            levels = {arm: card.levels[arm].get(metric) for arm in ("base", "look")}
            table[metric] = levels | {"effect": score.value, "low": score.low, "high": score.high}
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--only", nargs="*", default=list(SETTINGS))
    parser.add_argument("--set", nargs="*", default=[], dest="extra")
    options = parser.parse_args()
    film = options.folder / "film"
    make_demo(film, Lines(sys.stderr))
    results: dict[str, dict[str, dict[str, dict[str, float | None]]]] = {}
    for name in options.only:
        slug = "".join(letter if letter.isalnum() else "-" for letter in name)
        cards = run_setting(film, options.folder / slug, SETTINGS[name], options.extra)
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
