"""Pieces as a Slurm job array, through submitit: every job is a worker that takes one unclaimed piece after another.

The project folder must be on a disk that all nodes see under one path. A job that is killed, preempted or never starts
costs time only: its claim dies with it and the others take its piece; what is left in the end is submitted once more.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from cinetune.errors import ClusterError, ConfigError
from cinetune.generation.executors import ATTEMPTS, FAULTS, Maker, Work, called, cards, one_thread

__all__ = ["run_on_slurm"]

_POLL = 2.0
_OWN = {"cluster", "folder", "there"}


def run_on_slurm(work: Work[Any], *, workers: int, options: Mapping[str, Any]) -> None:
    """Make the tasks in an array of `workers` jobs.

    `options`: `folder` for scripts and output of the jobs, `there(task)` whether a piece is in the store, `cluster`
    (`slurm`, or `local` to try it), and Slurm's own by submitit's names (`slurm_partition`, `timeout_min`, ...).
    Raises `ConfigError` without submitit or Slurm, `ClusterError` when all jobs end and pieces are missing.
    """
    executor = _executor(options)
    there: Callable[[Any], bool] = options["there"]
    count = min(workers or max(len(cards()), 1), len(work.tasks))
    waiting = set(range(len(work.tasks)))
    reasons: list[str] = []
    for attempt in range(1, ATTEMPTS + 1):
        left = sorted(waiting)
        size = min(count, len(left))
        jobs = executor.map_array(_take, [work.open_maker] * size, [[work.tasks[n] for n in left]] * size, range(size))
        work.say(f"{size} jobs submitted: {', '.join(job.job_id for job in jobs)}")
        try:
            reasons = _follow(work, jobs, waiting, left, there)
        finally:
            for job in jobs:
                job.cancel()  # nothing happens to one that has ended
        if not waiting or attempt == ATTEMPTS:
            break
        names = ", ".join(called(work.tasks[n]) for n in sorted(waiting)[:3])
        work.say(f"{len(waiting)} left when the jobs ended ({names}): {'; '.join(reasons)[:300]}; submitted once more")
    if waiting:
        what = f"the jobs ended and {len(waiting)} of {len(work.tasks)} are missing: {'; '.join(reasons)[:300]}"
        raise ClusterError(what, where=str(options["folder"]), remedy="look at the jobs' output there, and run again")


def _executor(options: Mapping[str, Any]) -> Any:
    try:
        import submitit
    except ImportError as error:
        remedy = 'pip install "cinetune[slurm]", or shoot.executor = "local"'
        raise ConfigError("shoot.executor is slurm, which needs submitit", remedy=remedy) from error
    try:
        executor = submitit.AutoExecutor(folder=options["folder"], cluster=options.get("cluster", "slurm"))
        executor.update_parameters(
            **{"name": "cinetune", "timeout_min": 24 * 60, **{k: v for k, v in options.items() if k not in _OWN}}
        )
    except (RuntimeError, NameError, TypeError, ValueError) as error:
        what, remedy = f"Slurm cannot be used: {error}", "see shoot.slurm, and that sbatch is on the PATH"
        raise ConfigError(what[:400], where="shoot.executor", remedy=remedy) from error
    return executor


def _follow(
    work: Work[Any], jobs: Sequence[Any], waiting: set[int], left: Sequence[int], there: Callable[[Any], bool]
) -> list[str]:
    """Tell of finished pieces until all jobs have ended; why those ended that did not end well."""
    told: set[int] = set()
    while True:
        over = [job for job in jobs if job.done()]
        for number in sorted(waiting):
            if there(work.tasks[number]):
                waiting.discard(number)
                work.finished(number, None)
        if not waiting:
            return []
        if len(over) == len(jobs):
            break
        time.sleep(_POLL)
    reasons: list[str] = []
    for job in jobs:
        try:
            failures: list[tuple[int, Exception]] = job.result()
        except (RuntimeError, OSError) as error:  # submitit's own are of the first
            lines = str(error).splitlines()
            reasons.append(f"job {job.job_id}: {lines[-1] if lines else type(error).__name__}")
            continue
        for place, error in failures:
            number = left[place]
            if number in waiting and number not in told:
                told.add(number)
                waiting.discard(number)
                work.failing(number, error)
    return reasons or ["a job ended without making them"]


def _take(open_maker: Callable[[], Maker], tasks: Sequence[Any], _seat: int) -> list[tuple[int, Exception]]:
    """What a job does: make every piece that nobody has made or claims; the ones that failed, with their errors. Pieces
    that another job is making are looked at again until that job has made them or died.
    """
    failed: list[tuple[int, Exception]] = []
    with one_thread():
        maker = open_maker()
        waiting = list(range(len(tasks)))
        while waiting:
            later: list[int] = []
            for place in waiting:
                try:
                    if maker(tasks[place]) is False:  # claimed by another
                        later.append(place)
                except FAULTS as error:
                    failed.append((place, error))
            if len(later) == len(waiting):
                time.sleep(_POLL)
            waiting = later
    return failed


def folder_of(root: Path) -> Path:
    """Where the scripts and the output of a project's jobs lie."""
    return root / "work" / "logs" / "slurm"
