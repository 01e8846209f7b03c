"""`cinetune sweep`: the look trained with several settings, side by side in one table.

Each row is a real training of the look arm on the cached windows, in a process of its own so that its peak memory is
its own. Rows are kept by what they were made from: a sweep that was killed goes on, a second one does nothing. The
project's own look is not touched.
"""

from __future__ import annotations

import itertools
import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from cinetune.artifacts import Look, Trial
from cinetune.config import flatten, preset_table
from cinetune.errors import ConfigError, ModelError
from cinetune.pages import charts
from cinetune.pages.kit import render
from cinetune.records import read_log
from cinetune.runtime import Relay, Reporter, relay
from cinetune.sections import TrainSection
from cinetune.stages import train
from cinetune.store import Project, content_key

__all__ = ["COLUMNS", "Swept", "run"]

AXES = ("rank", "lr", "targets")
RECIPE = (
    "rank", "alpha", "targets", "lr", "betas", "weight_decay", "warmup", "schedule", "steps", "batch", "accumulate",
    "max_grad_norm", "ema", "timesteps", "shift", "caption_dropout", "augment.probability", "augment.single_frame",
)  # fmt: skip
"""What a trial takes from a preset; how it is judged and where it runs stays the project's, so that rows compare."""
COLUMNS = {
    "parameters": ("parameters", "{:,}"),
    "memory_gib": ("memory GiB", "{:.2f}"),
    "seconds_per_step": ("s/step", "{:.3f}"),
    "v_loss": ("held-out loss", "{:.4f}"),
    "v_loss_regraded": ("re-graded", "{:.4f}"),
    "distance": ("LPIPS distance", "{:.4f}"),
    "colour": ("look: colour dE", "{:.2f}"),
}
"""What a row shows of a trial, and how; lower is better in every one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Swept:
    """A finished sweep: its trials in the order asked, the preset of each (empty = the project's own recipe), the place
    of the best one (None if all failed), the rows of the table (the first is its head), the JSON as text, and where
    the page lies.
    """

    trials: tuple[Trial, ...]
    presets: tuple[str, ...]
    best: int | None
    rows: list[tuple[str, ...]]
    json: str
    page: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class _Asked:
    """One trial that was asked for: the project with its settings, and the preset they come from. `judge` is the
    project's own recipe: all trials are looked at with its noise levels and its sampler, whatever they train with.
    """

    project: Project
    preset: str
    judge: TrainSection

    def key(self) -> str:
        recipe, judge = self.project.config.train, self.judge
        own = train.trial_key(self.project)
        same = (recipe.timesteps, recipe.shift) == (judge.timesteps, judge.shift)
        return own if same else content_key(own, judge.timesteps, judge.shift)

    def named(self) -> str:
        recipe = self.project.config.train
        own = f"rank {recipe.rank}, lr {recipe.lr:g}, {recipe.targets}"
        return f"{self.preset}: {own}" if self.preset else own


def run(project: Project, asked: Mapping[str, str], report: Reporter, *, apart: bool = True) -> Swept:
    """Train every combination of the lists in `asked` (`preset`, `rank`, `lr`, `targets`; comma-separated, empty = the
    project's own value) and compare. `apart`: each in a process of its own.

    Raises `ConfigError` for values the settings do not allow or when nothing is asked for, `StoreError` before `cache`.
    """
    wanted = _combinations(project, asked)
    trials: list[Trial] = []
    with project.store.lock():
        for number, one in enumerate(wanted, 1):
            key = one.key()
            if not project.store.has_unit("sweep", key):
                report.say(f"trial {number} of {len(wanted)}: {one.named()}")
            trials.append(project.store.unit("sweep", key, Trial, _maker(one, key, report, apart=apart)))
        return _compare(project, trials, [one.preset for one in wanted])


def _combinations(project: Project, asked: Mapping[str, str]) -> list[_Asked]:
    """The trials. alpha goes with rank, so that only the rank differs and not the adapter's scale."""
    lists = {axis: _words(asked.get(axis, "")) for axis in AXES}
    presets = _words(asked.get("preset", ""))
    if not presets and not any(lists.values()):
        raise ConfigError("nothing to sweep over", remedy="give lists, e.g. --rank 4,8,16 --lr 1e-3,2e-3")
    found: dict[tuple[str, ...], _Asked] = {}
    for preset in presets or [""]:
        # Settings of the command line win over a preset's, as everywhere.
        first = (*(_recipe(preset) if preset else ()), *project.overrides, "train.plain_arm=false", "train.workers=1")
        own = Project(project.root, overrides=first).config.train
        for rank, lr, targets in itertools.product(*(lists[axis] or [str(getattr(own, axis))] for axis in AXES)):
            if not rank.isdecimal() or int(rank) < 1:
                remedy = "whole numbers from 1, e.g. --rank 4,8,16"
                raise ConfigError(f"a rank of {rank!r}", where="--rank", remedy=remedy)
            alpha = own.alpha / own.rank * int(rank)
            axes = (f"train.rank={rank}", f"train.alpha={alpha!r}", f"train.lr={lr}", f"train.targets={targets}")
            made = (*first, *axes)
            found[(preset, *made)] = _asked(project, made, preset)
    return list(found.values())


def _asked(project: Project, overrides: tuple[str, ...], preset: str) -> _Asked:
    return _Asked(project=Project(project.root, overrides=overrides), preset=preset, judge=project.config.train)


def _words(text: str) -> list[str]:
    return [word.strip() for word in text.split(",") if word.strip()]


def _recipe(preset: str) -> tuple[str, ...]:
    """A preset's recipe as settings. What it does not name is the default's, not the project's: the row is the preset.

    Raises `ConfigError` for an unknown preset.
    """
    values = flatten(TrainSection().model_dump(mode="json")) | flatten(preset_table(preset, where="--preset")["train"])
    return tuple(f"train.{key}={json.dumps(values[key])}" for key in RECIPE)


def _maker(asked: _Asked, key: str, report: Reporter, *, apart: bool) -> Any:
    project = asked.project

    def make() -> Trial:
        if not apart:
            return _trial(asked, key, report)
        from cinetune.generation.crew import run_apart

        with relay(report, "sweep", project.config.train.steps) as far:
            return run_apart(partial(_elsewhere, project.root, project.overrides, key, asked.judge, far))

    return make


def _elsewhere(root: Path, overrides: tuple[str, ...], key: str, judge: TrainSection, far: Relay) -> Trial:
    return _trial(_Asked(project=Project(root, overrides=overrides), preset="", judge=judge), key, far)


def _trial(one: _Asked, key: str, report: Reporter) -> Trial:
    """Train and measure; a training that breaks down (NaN) is a row too."""
    project = one.project
    recipe = project.config.train
    asked: dict[str, Any] = {"rank": recipe.rank, "lr": recipe.lr, "targets": recipe.targets}
    folder = project.store.work / "sweep" / key
    try:
        look = train.trial(project, report, folder, one.judge)
    except ModelError as error:
        return Trial(**asked, why=error.what)
    return Trial(**asked, **_measured(project, look, folder))


def _measured(project: Project, look: Look, folder: Path) -> dict[str, Any]:
    from cinetune.models.adapters.export import read_adapter

    log = read_log(project.store.path(look.log))
    judged = {line["step"]: line for line in log if line["kind"] == "evaluation"}
    kept, marks = judged[look.step], read_log(folder / "speed.jsonl")
    memory = [mark["host_gib"] if mark["device_gib"] is None else mark["device_gib"] for mark in marks]
    steps = [mark["seconds"] for mark in marks if mark["kind"] == "step"]
    return {
        "parameters": sum(tensor.numel() for tensor in read_adapter(project.store.path(look.weights)).values()),
        "memory_gib": max(memory, default=None),
        "seconds_per_step": statistics.median(steps) if steps else None,
        **{name: kept[name] for name in ("v_loss", "v_loss_regraded", "distance", "colour")},
        "noise": judged[0]["noise"],
        "step": look.step,
        "alarms": tuple(log[-1]["alarms"]),
        "log": look.log,
        "weights": look.weights,
    }


def _compare(project: Project, trials: Sequence[Trial], presets: Sequence[str]) -> Swept:
    """Table, JSON and page. The best has the lowest distance; those within A/A noise of it are named as equals."""
    ranked = [index for index, trial in enumerate(trials) if trial.distance is not None]
    best = min(ranked, key=lambda index: (trials[index].distance, index), default=None)
    rows = _rows(trials, best, presets)
    named = zip(trials, presets, strict=True)
    body = {"best": best, "trials": [{"preset": preset} | asdict(trial) for trial, preset in named]}
    text = json.dumps(body, indent=1)
    folder = project.store.work / "sweep"
    project.store.write_text(folder / "sweep.json", text + "\n")
    page = folder / "index.html"
    context = {
        "film": project.config.name.replace("-", " ").replace("_", " ").title(),
        "head": rows[0],
        "rows": rows[1:],
        "best": best,
        "charts": _charts(project, trials),
    }
    project.store.write_text(page, render(context, "sweep.html.j2"))
    return Swept(trials=tuple(trials), presets=tuple(presets), best=best, rows=rows, json=text, page=page)


def _rows(trials: Sequence[Trial], best: int | None, presets: Sequence[str]) -> list[tuple[str, ...]]:
    """The table as words; `*` is the lowest of its column. Presets have a column when there are any."""
    shown = [name for name in COLUMNS if any(getattr(trial, name) is not None for trial in trials)]
    values = {
        name: {_as_shown(name, value) for one in trials if (value := getattr(one, name)) is not None} for name in shown
    }
    lowest = {name: min(found) for name, found in values.items() if len(found) > 1}
    head = ("rank", "lr", "targets", *(COLUMNS[name][0] for name in shown), "kept at", "")
    rows: list[tuple[str, ...]] = [("preset", *head) if any(presets) else head]
    for index, trial in enumerate(trials):
        cells = []
        for name in shown:
            value = getattr(trial, name)
            mark = "*" if value is not None and _as_shown(name, value) == lowest.get(name) else ""
            cells.append("-" if value is None else COLUMNS[name][1].format(value) + mark)
        kept = "-" if trial.step is None else f"step {trial.step}"
        first = (presets[index],) if any(presets) else ()
        own = (str(trial.rank), f"{trial.lr:g}", trial.targets)
        rows.append((*first, *own, *cells, kept, _said(trials, index, best)))
    return rows


def _as_shown(name: str, value: float) -> float:
    """As the table rounds it: figures that look alike are not ranked."""
    return float(COLUMNS[name][1].format(value).replace(",", ""))


def _said(trials: Sequence[Trial], index: int, best: int | None) -> str:
    trial = trials[index]
    if trial.why:
        return f"failed: {trial.why}"
    words = []
    if best is not None and trial.distance is not None:
        top = trials[best]
        assert top.distance is not None, "the best is one that was measured"
        if index == best:
            words.append("best")
        elif top.noise and trial.distance - top.distance < top.noise:
            words.append("as good within noise")
    words += [alarm.partition(":")[0] for alarm in trial.alarms]
    return ", ".join(words)


def _charts(project: Project, trials: Sequence[Trial]) -> list[tuple[str, Any]]:
    """The curves of all trials over each other; the marked one is the best."""
    titles = {"distance": "LPIPS distance to scenes it never saw", "colour": "Colour error of samples, ΔE2000",
              "v_loss_regraded": "Held-out loss from re-graded first frames", "v_loss": "Held-out loss"}  # fmt: skip
    best = min((trial.distance for trial in trials if trial.distance is not None), default=None)
    name = next((f"rank {one.rank}, lr {one.lr:g}, {one.targets}" for one in trials if one.distance == best), "")
    drawn: list[tuple[str, Any]] = []
    for key, title in titles.items():
        lines: list[charts.Curve] = []
        for trial in trials:
            rows = read_log(project.store.path(trial.log)) if trial.log else []
            judged = [row for row in rows if row["kind"] == "evaluation" and row[key] is not None]
            points = tuple((row["step"], row[key]) for row in judged)
            top = trial.distance == best
            if points:
                lines.append(charts.Curve(points, "look" if top else "other", "", marks=top))
        lines.sort(key=lambda line: line.kind == "look")
        if chart := charts.line_chart(lines, title=f"{title}, over training steps"):
            drawn.append((f"{title} (marked: {name})" if best is not None else title, chart))
    return drawn
