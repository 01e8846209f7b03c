"""Pieces on a Ray cluster: one actor for each card (or CPU place), which loads the model once.

The project folder must be on a disk that all nodes see under one path, and cinetune installed on each. The cluster is
the one at RAY_ADDRESS or on this machine (`ray start --head`); without one, Ray runs on this machine alone.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Mapping
from typing import Any

from cinetune.errors import ClusterError, ConfigError, ModelError
from cinetune.generation.executors import FAULTS, Maker, Work, lost_device, one_thread

__all__ = ["run_on_ray"]


class _Actor:
    """What runs on a node: the maker, opened once."""

    def __init__(self, open_maker: Any) -> None:
        with one_thread():
            self._maker: Maker = open_maker()

    def make(self, task: Any) -> tuple[bool, Any]:
        """(whether it was made, its result or the error)."""
        with one_thread():
            try:
                return True, self._maker(task)
            except FAULTS as error:
                if lost_device(error):
                    os._exit(1)  # Ray sees an actor that died, and the piece goes to another
                return False, error


def run_on_ray(work: Work[Any], *, workers: int, options: Mapping[str, Any]) -> None:
    """Make the tasks in actors; `options` go to every actor (`num_cpus`, `memory`, ...). An actor or a node that
    dies gives its piece back. Raises `ConfigError` without Ray, `ModelError` when the cluster has no place.
    """
    try:
        import ray  # pyright: ignore[reportMissingImports]  # an extra that is large: not in dev
    except ImportError as error:
        remedy = 'pip install "cinetune[ray]", or shoot.executor = "local"'
        raise ConfigError("shoot.executor is ray, which is not installed", remedy=remedy) from error
    ours = not ray.is_initialized()
    if ours:
        _join(ray)
    try:
        places = int(ray.cluster_resources().get("GPU", 0))
        asked = {"num_gpus": 1 if places else 0, "num_cpus": 1, **options}
        count = min(workers or places or int(ray.cluster_resources().get("CPU", 1)), len(work.tasks))
        work.say(f"{count} actors on {sum(node['Alive'] for node in ray.nodes())} nodes of a Ray cluster")
        _run(ray, work, ray.remote(**asked)(_Actor), count)
    finally:
        if ours:
            ray.shutdown()


def _join(ray: Any) -> None:
    """The cluster there is, or a new one on this machine. Raises `ClusterError` when the named one is not there."""
    quiet = {"log_to_driver": False, "logging_level": "error"}
    named = os.environ.get("RAY_ADDRESS")
    try:
        ray.init(address=named or "auto", **quiet)
    except (ConnectionError, RuntimeError, ValueError) as error:
        if named:
            what = f"the Ray cluster cannot be reached: {str(error).splitlines()[0][:200]}"
            raise ClusterError(what, where=f"RAY_ADDRESS={named}", remedy="start it: launch/ray.sh head") from error
        ray.init(include_dashboard=False, **quiet)


def _run(ray: Any, work: Work[Any], hire: Any, count: int) -> None:
    waiting = deque(range(len(work.tasks)))
    opener = ray.put(work.open_maker)
    actors = [hire.remote(opener) for _ in range(count)]
    busy: dict[Any, tuple[int, Any]] = {}  # by the promise of a result: the piece and who makes it
    deaths = 0
    try:
        while waiting or busy:
            while waiting and actors:
                number, actor = waiting.popleft(), actors.pop()
                busy[actor.make.remote(work.tasks[number])] = (number, actor)
            for promise in ray.wait(list(busy), num_returns=1)[0]:
                number, actor = busy.pop(promise)
                try:
                    made, value = ray.get(promise)
                except ray.exceptions.ActorDiedError as error:
                    deaths += 1
                    _check_opened(error, deaths, count, work)
                    if work.lost(number, "its actor or node died"):
                        waiting.appendleft(number)
                    actors.append(hire.remote(opener))
                    continue
                except ray.exceptions.ActorUnavailableError:
                    if work.lost(number, "its node cannot be reached"):
                        waiting.appendleft(number)
                    ray.kill(actor)
                    actors.append(hire.remote(opener))
                    continue
                actors.append(actor)
                (work.finished if made else work.failing)(number, value)
    finally:
        for actor in [*actors, *(actor for _, actor in busy.values())]:
            ray.kill(actor)


def _check_opened(error: Exception, deaths: int, count: int, work: Work[Any]) -> None:
    """Raise what kept an actor from loading the model: the next one would end like it."""
    cause = getattr(error, "cause", None) or error.__cause__
    if "creation task" in str(error) or (cause is not None and not work.made and deaths > count):
        last = [line for line in str(error).splitlines() if line.strip()][-1]
        what = f"an actor cannot load the model: {last[:300]}"
        raise ModelError(what, where="Ray", remedy="see `ray logs`") from error
