"""The story in order: which stages there are, which of them are still true, and running those that are not.

A stage is `done` when its record was made from exactly today's settings, parents and files, `stale` when one of them
changed since, `missing` when it never finished, `blocked` when not even that can be told (a broken shot list).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, Literal

from cinetune.config import flatten
from cinetune.errors import CinetuneError, ConfigError
from cinetune.processes import join_group
from cinetune.runtime import Reporter
from cinetune.stage import Stage
from cinetune.stages import cache, deliver, expand, ingest, keyframes, prepare, report, score, train
from cinetune.store import Inputs, Project, StageRecord

__all__ = ["STAGES", "StageStatus", "made_otherwise", "run", "stage_named", "status"]


STAGES: tuple[Stage[Any], ...] = tuple(
    module.STAGE for module in (ingest, prepare, cache, train, keyframes, expand, deliver, score, report)
)


@dataclass(frozen=True, slots=True, kw_only=True)
class StageStatus:
    """One line of `cinetune status`."""

    stage: str
    state: Literal["done", "stale", "missing", "blocked"]
    why: str
    created_utc: str = ""
    wall_seconds: float | None = None


def stage_named(name: str, stages: Sequence[Stage[Any]] = STAGES) -> Stage[Any]:
    """The stage of that name. Raises `ConfigError`."""
    for stage in stages:
        if name == stage.name:
            return stage
    raise ConfigError(f"no stage {name!r}", remedy=f"one of {', '.join(stage.name for stage in stages)}")


def status(project: Project, stages: Sequence[Stage[Any]] = STAGES) -> list[StageStatus]:
    """The state of every stage, in order. Reads only."""
    rows: list[StageStatus] = []
    for stage in stages:
        waiting = [row.stage for row in rows if row.stage in stage.reads and row.state != "done"]
        rows.append(_row(project, stage, waiting))
    return rows


def _row(project: Project, stage: Stage[Any], waiting: Sequence[str]) -> StageStatus:
    try:
        record = project.store.load_stage(stage.name)
        reasons = [] if record is None else _reasons(project, stage, record)
    except CinetuneError as error:
        return StageStatus(stage=stage.name, state="blocked", why=error.what)
    if waiting:
        reasons.append(f"after {', '.join(waiting)}")
    if record is None:
        return StageStatus(stage=stage.name, state="missing", why="; ".join(reasons) or "not run yet")
    return StageStatus(
        stage=stage.name, state="stale" if reasons else "done", why="; ".join(reasons),
        created_utc=record.provenance.created_utc, wall_seconds=record.provenance.wall_seconds,
    )  # fmt: skip


def _reasons(project: Project, stage: Stage[Any], record: StageRecord) -> list[str]:
    """Why a finished stage is no longer true; empty = it is."""
    key = stage.key(project)
    reasons: list[str] = []
    if key != record.input_key:
        changes = list(_changes(record.inputs, project.store.inputs[key])) or ["made by another version of cinetune"]
        more = [f"and {len(changes) - 3} more changes"] if len(changes) > 3 else []
        reasons += changes[:3] + more
    if gone := project.store.missing(list(record.groups.values())):
        reasons.append(f"{gone} is gone")
    return reasons


def _changes(before: Inputs, now: Inputs) -> Iterator[str]:
    """Every named part that differs, in words."""
    for group, parts in now.items():
        old = before.get(group, {})
        for name in sorted(parts.keys() | old.keys()):
            if name not in parts:
                yield f"{name} is gone"
            elif name not in old:
                yield f"{name} is new"
            elif parts[name] != old[name]:
                yield f"{name}: {old[name]!r} -> {parts[name]!r}" if group == "settings" else f"{name} changed"


def made_otherwise(project: Project, stages: Sequence[Stage[Any]] = STAGES) -> dict[str, Any]:
    """Settings that finished stages were made with and that the project does not have now, by dotted key: what an
    earlier `--set` asked for. Of several values the last stage's."""
    found: dict[str, Any] = {}
    for stage in stages:
        record = project.store.load_stage(stage.name)
        if record is None:
            continue
        now = flatten(project.config.model_dump(mode="json", include=set(stage.sections)))
        before = record.inputs.get("settings", {})
        found |= {key: value for key, value in before.items() if key in now and now[key] != value}
    return found


def run(
    project: Project,
    reporter: Reporter,
    *,
    until: str | None = None,
    only: str | None = None,
    again: bool = False,
    stages: Sequence[Stage[Any]] = STAGES,
) -> list[StageRecord]:
    """Run every stage that is not done, in order, up to and with `until` (or just `only`); those already done are left,
    unless `again`.

    Returns the records of the stages that ran: none when there was nothing to do. Raises what a stage raises; what was
    finished before stays finished, and a second call goes on from there.
    """
    wanted = list(stages)
    if only is not None:
        wanted = [stage_named(only, stages)]
    elif until is not None:
        wanted = wanted[: wanted.index(stage_named(until, stages)) + 1]
    ran: list[StageRecord] = []
    processes = join_group(project.config.model, project.config.parallel)
    with ExitStack() as held, processes.watching():
        processes.lead(lambda: held.enter_context(project.store.lock()))
        processes.lead(project.store.check_version)
        for stage in wanted:
            row = processes.lead(lambda stage=stage: _row(project, stage, ()))
            if row.state == "done" and not again:
                continue
            if processes.size > 1 and not stage.together:
                able = " and ".join(each.name for each in stages if each.together)
                raise ConfigError(
                    f"{processes.size} processes cannot work on `{stage.name}` together",
                    where="torchrun",
                    remedy=f"start {able} with torchrun, the other stages without",
                )
            reporter.say(f"[{stage.name}] {row.why or 'once more'}")
            ran.append(stage.run(project, reporter))
    return ran
