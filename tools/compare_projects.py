"""Compare what two projects made, content by content: caches, logs of training, adapters, keyframes and shots.

    cinetune run -C old --until expand      with one version of cinetune, settings and footage the same
    cinetune run -C new --until expand      with another
    python tools/compare_projects.py old new

Reads the stores as JSON and safetensors alone, so that either may be of any version.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file

Records = dict[tuple[Any, ...], dict[str, Any]]


def records(root: Path, stage: str, group: str, *names: str) -> Records:
    """The records of a group of a finished stage, by some of their fields."""
    groups = json.loads((root / "work" / "stages" / f"{stage}.json").read_text(encoding="utf-8"))["groups"]
    return {tuple(item[name] for name in names): item for item in groups[group]["items"]}


def tensors(root: Path, ref: Mapping[str, str]) -> dict[str, np.ndarray]:
    return load_file(root / ref["path"])


def difference(one: Mapping[str, np.ndarray], other: Mapping[str, np.ndarray]) -> str:
    """How many tensors are equal to the last bit, and how far the others are apart."""
    equal = {name for name in one.keys() & other.keys() if np.array_equal(one[name], other[name])}
    apart = [
        float(np.abs(one[name].astype(np.float64) - other[name].astype(np.float64)).max())
        for name in (one.keys() & other.keys()) - equal
        if one[name].shape == other[name].shape
    ]
    said = f"{len(equal)} of {len(one.keys() | other.keys())} tensors equal"
    return f"{said}, the others at most {max(apart):.3g} apart" if apart else said


def lines(root: Path, look: Mapping[str, Any], kind: str) -> list[dict[str, Any]]:
    rows = (json.loads(line) for line in (root / look["log"]["path"]).read_text(encoding="utf-8").splitlines())
    return [row for row in rows if row["kind"] == kind]


def compare_training(old: Path, new: Path, arm: tuple[Any, ...], one: dict[str, Any], other: dict[str, Any]) -> None:
    print(f"adapter {arm[0]}: {difference(tensors(old, one['weights']), tensors(new, other['weights']))}")
    for kind in ("step", "evaluation"):
        before, after = lines(old, one, kind), lines(new, other, kind)
        shared = {name for row in before[:1] for name in row} & {name for row in after[:1] for name in row}
        differ = {name for x, y in zip(before, after, strict=False) for name in shared if x[name] != y[name]}
        print(
            f"  {kind}: {len(before)} and {len(after)} lines, {len(shared)} shared fields, differing: {sorted(differ)}"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("old", type=Path)
    parser.add_argument("new", type=Path)
    asked = parser.parse_args()
    old, new = asked.old, asked.new
    before, after = (records(root, "cache", "entries", "window") for root in (old, new))
    for key in before.keys() & after.keys():
        print(f"cache {key[0]}: {difference(*(tensors(r, m[key]['file']) for r, m in ((old, before), (new, after))))}")
    before, after = (records(root, "train", "looks", "arm") for root in (old, new))
    for arm in before.keys() & after.keys():
        compare_training(old, new, arm, before[arm], after[arm])
    before, after = (records(root, "keyframes", "keyframes", "shot", "arm", "seed") for root in (old, new))
    for key in before.keys() & after.keys():
        same = before[key]["image"]["sha256"] == after[key]["image"]["sha256"]
        picked = before[key]["picked"], after[key]["picked"]
        print(f"keyframe {key}: candidates {picked}, {'same' if same else 'differs'}")
    before, after = (records(root, "expand", "sequences", "shot", "arm", "seed") for root in (old, new))
    for key in before.keys() & after.keys():
        print(f"shot {key}: {difference(*(tensors(r, m[key]['video']) for r, m in ((old, before), (new, after))))}")


if __name__ == "__main__":
    main()
