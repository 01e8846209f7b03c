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


_PATIENCE = 60.0
"""Seconds after which it is said that nobody has a place."""


class _Actor:
    """What runs on a node: the maker, opened once."""

    def __init__(self, open_maker: Any) -> None:
        with one_thread():
            self._maker: Maker = open_maker()

    def ready(self) -> None:
        """Answers once the model is loaded."""

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
    """Pieces go to actors that have loaded the model: one that waits for a place, as after the loss of a node, would
    keep its piece from those that are there.
    """
    waiting = deque(range(len(work.tasks)))
    opener = ray.put(work.open_maker)
    joining: dict[Any, Any] = {}  # by the promise to be ready
    idle: list[Any] = []
    busy: dict[Any, tuple[int, Any]] = {}  # by the promise of a result: the piece and who makes it
    deaths = 0

    def hire_one() -> None:
        actor = hire.remote(opener)
        joining[actor.ready.remote()] = actor

    for _ in range(count):
        hire_one()
    try:
        while waiting or busy:
            while waiting and idle:
                number, actor = waiting.popleft(), idle.pop()
                busy[actor.make.remote(work.tasks[number])] = (number, actor)
            ended = ray.wait([*busy, *joining], num_returns=1, timeout=_PATIENCE)[0]
            if not ended and not busy:
                work.say(
                    f"no actor has a place on the cluster for {_PATIENCE:.0f} s; `ray status` says what is missing"
                )
            for promise in ended:
                number, actor = busy.pop(promise) if promise in busy else (None, joining.pop(promise))
                value, why = _heard(ray, promise)
                if not why:
                    idle.append(actor)
                    if number is not None:
                        (work.finished if value[0] else work.failing)(number, value[1])
                    continue
                if number is None:
                    deaths += 1
                    _check_opened(value, deaths, count)
                elif work.lost(number, why):
                    waiting.appendleft(number)
                ray.kill(actor)
                hire_one()
    finally:
        for actor in [*idle, *joining.values(), *(actor for _, actor in busy.values())]:
            ray.kill(actor)


def _heard(ray: Any, promise: Any) -> tuple[Any, str]:
    """What was promised, or the error and why the actor is lost."""
    try:
        return ray.get(promise), ""
    except ray.exceptions.ActorDiedError as error:
        return error, "its actor or node died"
    except ray.exceptions.ActorUnavailableError as error:
        return error, "its node cannot be reached"


def _check_opened(error: Exception, deaths: int, count: int) -> None:
    """Raise what kept an actor from loading the model: the next one would end like it. One whose node died while it
    loaded is replaced, as often as there are actors.
    """
    if "creation task" in str(error) or deaths > count:
        last = [line for line in str(error).splitlines() if line.strip()][-1]
        what = f"an actor cannot load the model: {last[:300]}"
        raise ModelError(what, where="Ray", remedy="see `ray logs`") from error
