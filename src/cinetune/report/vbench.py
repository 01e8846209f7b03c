"""Shots for VBench (Huang et al. 2024) to measure in its own environment, and its results read back.

Out: a folder for each arm with its videos, `SHOT-SEED.mp4`, and `prompts.json`, which maps each file to its prompt:
what VBench's `--mode=custom_input --prompt_file` takes. In: its `*_eval_results.json` in the same folders,
`{dimension: [mean, [{"video_path": ..., "video_results": ...}]]}`. Nothing of VBench is imported.
"""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path
from typing import Any

from cinetune.artifacts import Sequence as FilmSequence
from cinetune.durable import whole_folder
from cinetune.errors import ScoreError
from cinetune.outside import parse_json, read_text
from cinetune.report import verdicts
from cinetune.results import Expanded
from cinetune.store import Project

__all__ = ["compared", "write_videos"]

_RESULTS = "*_eval_results.json"


def write_videos(project: Project, out: Path) -> int:
    """Write every arm's videos and prompts under `out`, which must not exist. Returns how many. Raises `StoreError`."""
    plan = {shot.id: shot for shot in project.shots().shots}
    sequences = [one for one in project.store.need(Expanded).sequences if one.shot in plan]
    with whole_folder(out) as folder:
        prompts: dict[str, dict[str, str]] = {}
        for one in sequences:
            (folder / one.arm).mkdir(exist_ok=True)
            shutil.copyfile(project.store.path(one.proxy), folder / one.arm / _name(one))
            prompts.setdefault(one.arm, {})[_name(one)] = plan[one.shot].prompt
        for arm, table in prompts.items():
            text = json.dumps(table, indent=1, ensure_ascii=False)
            (folder / arm / "prompts.json").write_text(text, encoding="utf-8")
    return len(sequences)


def _name(one: FilmSequence) -> str:
    return f"{one.shot}-{one.seed}.mp4"


def compared(project: Project, folder: Path) -> list[tuple[str, ...]]:
    """A head and a row for each of VBench's dimensions, pair of arms and domain: exploratory, so no word. Seeds are
    averaged inside a shot. Raises `ScoreError` where there are no results, or they are not of this project's videos.
    """
    from cinetune.metrics import effect

    sequences = project.store.need(Expanded).sequences
    levels = {arm: _levels(folder / arm, sequences, arm) for arm in dict.fromkeys(one.arm for one in sequences)}
    if not any(levels.values()):
        raise ScoreError("no VBench results", where=str(folder), remedy=f"put {_RESULTS} into its folder of each arm")
    domains = {one.shot: one.domain for one in sequences}
    rows = [("dimension", "comparison", "domain", "change", "95 % interval", "shots")]
    for arm, versus in (("look", "base"), ("look", "trigger"), ("plain", "base")):
        ours, theirs = levels.get(arm, {}), levels.get(versus, {})
        for dimension in sorted(ours.keys() & theirs.keys()):
            for domain in ("in", "out"):
                both = [s for s in ours[dimension] if s in theirs[dimension] and domains[s] == domain]
                if both:
                    found = effect({shot: ours[dimension][shot] - theirs[dimension][shot] for shot in both})
                    ends = (verdicts.signed(found.low), verdicts.signed(found.high))
                    shown = (verdicts.signed(found.value), " to ".join(ends), str(found.n))
                    rows.append((dimension, f"{arm} - {versus}", domain, *shown))
    return rows


def _levels(folder: Path, sequences: tuple[FilmSequence, ...], arm: str) -> dict[str, dict[str, float]]:
    """Value by dimension and shot, mean over seeds."""
    names = {_name(one): one.shot for one in sequences if one.arm == arm}
    found: dict[str, dict[str, list[float]]] = {}
    for path in sorted(folder.glob(_RESULTS)):
        body: Any = parse_json(read_text(path, refuse=ScoreError), where=str(path), refuse=ScoreError)
        try:
            for dimension, (_, videos) in body.items():
                for video in videos:
                    shot = names[Path(video["video_path"]).name]
                    value = float(video["video_results"])
                    if not math.isfinite(value):
                        raise ValueError(f"{dimension} of {shot} is {value}")
                    found.setdefault(dimension, {}).setdefault(shot, []).append(value)
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            remedy = "give it the videos of `report --vbench`, and take its results as they are"
            raise ScoreError(
                f"not VBench results of these videos: {error!r}", where=str(path), remedy=remedy
            ) from error
    return {
        dimension: {shot: sum(values) / len(values) for shot, values in shots.items()}
        for dimension, shots in found.items()
    }
