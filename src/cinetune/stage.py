"""The frame that every stage runs in: what it is valid for, its clock, its record, and pieces that are made once.

A stage module declares one `Stage` and writes `inputs` and `make`; the frame does the rest. `make` reads the stages
before it by type (`project.store.need(Prepared)`), and returns a `Made` with its own result.
"""

from __future__ import annotations

import os
import platform
import re
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

from cinetune.config import section_sha
from cinetune.durable import append
from cinetune.errors import CinetuneError, ModelError, WeightsError
from cinetune.processes import Processes, join_group
from cinetune.records import log_line, read_log
from cinetune.results import Result
from cinetune.runtime import Reporter, choose_device, provenance
from cinetune.store import Project, StageRecord, Store

__all__ = ["Made", "Stage", "Task", "divided", "make_pieces"]

R = TypeVar("R", bound=Result)
T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Made(Generic[R]):
    """What `make` hands to the frame; `inputs` only where a stage hashes its files as it reads them."""

    result: R
    notes: Sequence[str] = ()
    seed: int | None = None
    inputs: Mapping[str, str] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage(Generic[R]):
    """One verb of the story. `parents` are the results it reads, `sections` the settings that shape its own, `inputs`
    content hashes of what it depends on outside the store. `model`: it runs the base model, so the weights count too,
    and the device is recorded. `together`: several processes, started by `torchrun`, do it together; all of them call
    `make`, and all must return the same. `hashes_late`: `Made.inputs` takes the place of `inputs`.
    """

    result: type[R]
    make: Callable[[Project, Reporter], Made[R]]
    inputs: Callable[[Project], dict[str, str]] | None = None
    parents: tuple[type[Result], ...] = ()
    sections: tuple[str, ...] = ()
    model: bool = False
    together: bool = False
    hashes_late: bool = False

    @property
    def name(self) -> str:
        return self.result.stage

    @property
    def reads(self) -> tuple[str, ...]:
        """Names of the stages whose results it reads."""
        return tuple(parent.stage for parent in self.parents)

    def key(self, project: Project, inputs: Mapping[str, str] | None = None) -> str:
        """What a result of today would be valid for."""
        if inputs is None:
            inputs = self.inputs(project) if self.inputs else {}
        found = dict(inputs) | self._weights(project)
        return project.input_key(self.name, parents=self.reads, sections=self.sections, inputs=found)

    def _weights(self, project: Project) -> dict[str, str]:
        """The base model's bytes. A project may be looked at where they are not: then the last known ones count."""
        if not self.model:
            return {}
        from cinetune.models import model_ref

        try:
            return {"base model": model_ref(project.config.model).weights_sha256}
        except WeightsError:
            record = project.store.load_stage(self.name)
            before = record.inputs.get("inputs", {}).get("base model", "") if record else ""
            return {"base model": before}

    def run(self, project: Project, report: Reporter) -> StageRecord:
        """Make the result and save it; what was finished before is not made again. Raises what `make` raises, and
        `StoreError` naming the verb to run when a stage before it is missing.
        """
        started = time.monotonic()
        config = project.config
        processes = join_group(config.model, config.parallel)
        key = "" if self.hashes_late else processes.lead(lambda: self.key(project))
        made = self.make(project, report)

        def record() -> StageRecord:
            outputs = (project.store.load_stage(name) for name in self.reads)
            written = provenance(
                seed=made.seed,
                config_sha=section_sha(config, self.sections),
                parents=tuple(parent.output_sha for parent in outputs if parent is not None),
                device=choose_device(config.model.device, config.model.dtype).name if self.model else "cpu",
                wall_seconds=time.monotonic() - started,
            )
            groups = {part.name: getattr(made.result, part.name) for part in fields(made.result)}  # pyright: ignore[reportArgumentType]
            valid = self.key(project, made.inputs) if self.hashes_late else key
            return project.store.save_stage(self.name, valid, groups, made=written, notes=made.notes)

        return processes.lead(record)


class Task(Protocol):
    """One piece to make; `key` names its unit, `label` is for people. It must pickle."""

    @property
    def key(self) -> str: ...
    @property
    def label(self) -> str: ...


def make_pieces(
    project: Project,
    report: Reporter,
    stage: str,
    kind: Callable[..., T],
    tasks: Sequence[Any],
    *,
    open_for: Callable[[Sequence[Any]], Callable[..., Callable[[Any], T]]],
    called: str,
) -> list[T]:
    """The record of every `Task`, those that were made before read from the store.

    `open_for(missing)` prepares the work on those that are missing. What it returns is called once in each worker of
    `shoot.executor` (it must pickle; here the model is loaded) and gives the function that makes one record. `called`
    is what the pieces are to a person. What cannot be made does not stop the rest: at the end its error is raised, or
    one that lists all; the finished ones stay.

    Several processes that `torchrun` started share the pieces out, each to a group of them (`shoot.split_guidance`,
    `shoot.ulysses`, `shoot.shard`); all of them must call this.
    """
    processes = join_group(project.config.model, project.config.parallel)
    if processes.size > 1:
        return _make_together(project, report, stage, kind, tasks, processes=processes, open_for=open_for)
    store, shoot = project.store, project.config.shoot
    found = {task.key: store.find_unit(stage, task.key, kind) for task in tasks}
    missing = [task for task in tasks if found[task.key] is None]
    if missing:
        from cinetune.generation import Work, run_tasks

        if len(missing) < len(tasks):
            report.say(f"{len(tasks) - len(missing)} of {len(tasks)} {called} are there already")
        wait = shoot.executor != "slurm"
        opener = partial(_keeper, project.root, stage, kind, open_for(missing), wait=wait)
        own: dict[str, Any] = {}
        if shoot.executor == "slurm":
            own = {"folder": store.work / "logs" / "slurm", "there": lambda task: store.has_unit(stage, task.key)}
        with report.progress(stage, len(missing)) as bar:
            work = Work(
                tasks=missing, open_maker=opener, say=report.warn, done=lambda task, _: bar.advance(1, task.label)
            )
            run_tasks(work, workers=shoot.workers, executor=shoot.executor, options={**shoot.options, **own})
    return [found[task.key] or store.made_unit(stage, task.key, kind) for task in tasks]


def _make_together(
    project: Project,
    report: Reporter,
    stage: str,
    kind: Callable[..., T],
    tasks: Sequence[Any],
    *,
    processes: Processes,
    open_for: Callable[[Sequence[Any]], Callable[..., Callable[[Any], T]]],
) -> list[T]:
    """Every process of a group makes all its pieces, step by step with the others; one of them keeps them."""
    from cinetune.generation import partition_for

    store, config, failed = project.store, project.config, list[CinetuneError]()
    missing = processes.same([task for task in tasks if not store.has_unit(stage, task.key)])
    if missing:
        device = choose_device(config.model.device, config.model.dtype)
        part = partition_for(processes, config.shoot, device.name.partition(":")[0])
        report.say(part.describe())
        make = open_for(missing)(store, part=part)
        with report.progress(stage, len(part.mine(missing))) as bar:
            for task in part.mine(missing):
                try:
                    if part.keeps():
                        with _logged(store, stage, task):
                            store.unit(stage, task.key, kind, lambda task=task: make(task))
                    else:
                        make(task)
                except ModelError as error:  # of this piece, and alike in all processes of the group
                    failed.append(error)
                bar.advance(1, task.label)
    for error in processes.gather(failed[0] if failed else None):
        if error is not None:
            raise error
    return [store.made_unit(stage, task.key, kind) for task in tasks]


def divided(store: Store, stage: str, kind: Callable[..., T], pieces: Mapping[str, Callable[[], T]]) -> list[T]:
    """The record of every piece, by key, worked out by whichever of several processes comes to it first: what all of
    them need, each makes a part of.
    """
    found: dict[str, T] = {}
    for wait in (False, True):  # first what nobody is at, then what another one is at
        for key, make in pieces.items():
            if key in found:
                continue
            with store.claim(stage, key, wait=wait) as ours:
                if ours:
                    found[key] = store.unit(stage, key, kind, make)
    return [found[key] for key in pieces]


def _keeper(
    root: Path, stage: str, kind: Callable[..., T], opener: Callable[[Store], Callable[[Any], T]], *, wait: bool
) -> Callable[[Any], bool]:
    """Makes one piece and keeps it, in whatever process this is called, under a claim: nobody else makes it meanwhile.
    The value is whether it is there; without `wait` it is not while another one makes it.
    """
    store = Store(root)
    make = opener(store)

    def logged(task: Any) -> T:
        with _logged(store, stage, task):
            return make(task)

    def keep(task: Any) -> bool:
        with store.claim(stage, task.key, wait=wait) as ours:
            if ours:
                store.unit(stage, task.key, kind, lambda: logged(task))
            return ours

    return keep


@contextmanager
def _logged(store: Store, stage: str, task: Task) -> Iterator[None]:
    """The log of one piece: where it was made, how long it took, what went wrong. A begin without an end was killed."""
    path = store.work / "logs" / stage / f"{re.sub(r'[^A-Za-z0-9._-]+', '_', task.label)[:80]}-{task.key[:8]}.jsonl"
    here = {"host": platform.node(), "process": os.getpid(), "cards": os.environ.get("CUDA_VISIBLE_DEVICES", "")}
    step = sum(line["kind"] == "begin" for line in read_log(path)) + 1

    def write(kind: str, **more: Any) -> None:
        at = datetime.now(UTC).isoformat(timespec="seconds")
        append(path, log_line({"kind": kind, "step": step, "at": at, **more}), root=store.root)

    started, said = time.monotonic(), {}
    write("begin", **here)
    try:
        yield
        said = {"kind": "made"}
    finally:
        error = sys.exc_info()[1]
        said = said or {"kind": "failed", "why": f"{type(error).__name__}: {error}"[:2000]}
        write(**said, seconds=round(time.monotonic() - started, 3))
