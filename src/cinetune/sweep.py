"""`cinetune sweep`: the look trained with several settings, side by side in one table.

Each row is a real training of the look arm on the cached windows, in a process of its own so that its peak memory is
its own. Rows are kept by what they were made from: a sweep that was killed goes on, a second one does nothing. The
project's own look is not touched.
"""

from __future__ import annotations

import itertools
import json
import multiprocessing
import statistics
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from cinetune.artifacts import Look, Trial
from cinetune.errors import ConfigError, ModelError
from cinetune.report import charts
from cinetune.report.html import render
from cinetune.report.live import logged
from cinetune.runtime import Relay, Reporter, relay
from cinetune.stages import train
from cinetune.store import Project

__all__ = ["COLUMNS", "Swept", "run"]

AXES = ("rank", "lr", "targets")
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
    """A finished sweep: its trials in the order asked, the place of the best one (None if all failed), the rows of the
    table (the first is its head), the JSON as text, and where the page lies.
    """

    trials: tuple[Trial, ...]
    best: int | None
    rows: list[tuple[str, ...]]
    json: str
    page: Path


def run(project: Project, asked: Mapping[str, str], report: Reporter, *, apart: bool = True) -> Swept:
    """Train every combination of the lists in `asked` (`rank`, `lr`, `targets`; comma-separated, empty = the project's
    own value) and compare. `apart`: each in a process of its own.

    Raises `ConfigError` for values the settings do not allow or when nothing is asked for, `StoreError` before `cache`.
    """
    settings = _combinations(project, asked)
    projects = [Project(project.root, overrides=(*project.overrides, *one)) for one in settings]
    trials: list[Trial] = []
    with project.store.lock():
        for number, one in enumerate(projects, 1):
            key = train.trial_key(one)
            if not project.store.has_unit("sweep", key):
                report.say(f"trial {number} of {len(projects)}: {_named(one)}")
            trials.append(project.store.unit("sweep", key, Trial, _maker(one, key, report, apart=apart)))
        return _compare(project, trials)


def _combinations(project: Project, asked: Mapping[str, str]) -> list[tuple[str, ...]]:
    """The overrides of each trial. alpha goes with rank, so that only the rank differs and not the adapter's scale."""
    own = project.config.train
    lists = {axis: [word.strip() for word in asked.get(axis, "").split(",") if word.strip()] for axis in AXES}
    if not any(lists.values()):
        raise ConfigError("nothing to sweep over", remedy="give lists, e.g. --rank 4,8,16 --lr 1e-3,2e-3")
    filled = [lists[axis] or [str(getattr(own, axis))] for axis in AXES]
    found: list[tuple[str, ...]] = []
    for rank, lr, targets in itertools.product(*filled):
        if not rank.isdecimal() or int(rank) < 1:
            raise ConfigError(f"a rank of {rank!r}", where="--rank", remedy="whole numbers from 1, e.g. --rank 4,8,16")
        alpha = own.alpha / own.rank * int(rank)
        found.append(
            (f"train.rank={rank}", f"train.alpha={alpha!r}", f"train.lr={lr}", f"train.targets={targets}",
             "train.plain_arm=false", "train.workers=1")
        )  # fmt: skip
    return list(dict.fromkeys(found))


def _named(project: Project) -> str:
    recipe = project.config.train
    return f"rank {recipe.rank}, lr {recipe.lr:g}, {recipe.targets}"


def _maker(project: Project, key: str, report: Reporter, *, apart: bool) -> Any:
    def make() -> Trial:
        if not apart:
            return _trial(project, key, report)
        with relay(report, "sweep", project.config.train.steps) as far:
            spawn = multiprocessing.get_context("spawn")
            with ProcessPoolExecutor(1, mp_context=spawn, initializer=_begin, initargs=(far,)) as pool:
                try:
                    return pool.submit(_elsewhere, project.root, project.overrides, key).result()
                except BrokenProcessPool as error:
                    raise ModelError(
                        f"the process of a trial died ({_named(project)})",
                        where="cinetune sweep",
                        remedy="often too little memory: lower train.batch, and run the same command again",
                    ) from error

    return make


_far: list[Relay] = []
"""Who a trial's process speaks to; a process pool has no other place to keep it."""


def _begin(far: Relay) -> None:
    from cinetune.generation.executors import die_with_parent

    threading.Thread(target=die_with_parent, daemon=True).start()
    _far.append(far)


def _elsewhere(root: Path, overrides: tuple[str, ...], key: str) -> Trial:
    return _trial(Project(root, overrides=overrides), key, _far[0])


def _trial(project: Project, key: str, report: Reporter) -> Trial:
    """Train and measure; a training that breaks down (NaN) is a row too."""
    recipe = project.config.train
    asked: dict[str, Any] = {"rank": recipe.rank, "lr": recipe.lr, "targets": recipe.targets}
    folder = project.store.work / "sweep" / key
    try:
        look = train.trial(project, report, folder)
    except ModelError as error:
        return Trial(**asked, why=error.what)
    return Trial(**asked, **_measured(project, look, folder))


def _measured(project: Project, look: Look, folder: Path) -> dict[str, Any]:
    from cinetune.models.export import read_adapter

    log = logged(project.store.path(look.log))
    judged = {line["step"]: line for line in log if line["kind"] == "evaluation"}
    kept, marks = judged[look.step], logged(folder / "speed.jsonl")
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


def _compare(project: Project, trials: Sequence[Trial]) -> Swept:
    """Table, JSON and page. The best has the lowest distance; those less than luck from it are named as equals."""
    ranked = [index for index, trial in enumerate(trials) if trial.distance is not None]
    best = min(ranked, key=lambda index: (trials[index].distance, index), default=None)
    rows = _rows(trials, best)
    body = {"best": best, "trials": [asdict(trial) for trial in trials]}
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
    return Swept(trials=tuple(trials), best=best, rows=rows, json=text, page=page)


def _rows(trials: Sequence[Trial], best: int | None) -> list[tuple[str, ...]]:
    """The table as words; `*` is the lowest of its column."""
    shown = [name for name in COLUMNS if any(getattr(trial, name) is not None for trial in trials)]
    lowest = {name: min(value for trial in trials if (value := getattr(trial, name)) is not None) for name in shown}
    rows = [("rank", "lr", "targets", *(COLUMNS[name][0] for name in shown), "kept at", "")]
    for index, trial in enumerate(trials):
        cells = []
        for name in shown:
            value = getattr(trial, name)
            mark = "*" if value is not None and value == lowest[name] and len(trials) > 1 else ""
            cells.append("-" if value is None else COLUMNS[name][1].format(value) + mark)
        kept = "-" if trial.step is None else f"step {trial.step}"
        rows.append((str(trial.rank), f"{trial.lr:g}", trial.targets, *cells, kept, _said(trials, index, best)))
    return rows


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
            words.append("no worse than luck")
    words += [alarm.partition(":")[0] for alarm in trial.alarms]
    return ", ".join(words)


def _charts(project: Project, trials: Sequence[Trial]) -> list[tuple[str, Any]]:
    """The curves of all trials over each other; the marked one is the best."""
    titles = {"distance": "LPIPS distance to scenes it never saw", "colour": "Colour error of samples, ΔE2000",
              "v_loss_regraded": "Held-out loss from re-graded first frames", "v_loss": "Held-out loss"}  # fmt: skip
    best = min((trial.distance for trial in trials if trial.distance is not None), default=None)
    drawn: list[tuple[str, Any]] = []
    for key, title in titles.items():
        lines: list[charts.Line] = []
        for trial in trials:
            rows = logged(project.store.path(trial.log)) if trial.log else []
            judged = [row for row in rows if row["kind"] == "evaluation" and row[key] is not None]
            points = tuple((row["step"], row[key]) for row in judged)
            top = trial.distance == best
            if points:
                label = f"rank {trial.rank}, lr {trial.lr:g}, {trial.targets}" if top else ""
                lines.append(charts.Line(points, "look" if top else "other", label, marks=top))
        lines.sort(key=lambda line: line.kind == "look")
        if chart := charts.line_chart(lines, title=f"{title}, over training steps"):
            drawn.append((title, chart))
    return drawn
