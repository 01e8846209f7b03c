"""The training log in a tracker the user knows: TensorBoard, Weights & Biases, trackio or MLflow.

`log.jsonl` is always written; a tracker is a copy of its numbers for people who compare runs elsewhere. All of them
write to local files: W&B stays offline unless WANDB_MODE says otherwise (`wandb sync` sends a run later), MLflow
follows MLFLOW_TRACKING_URI where that is set. A tracker that fails is dropped with a warning: training goes on.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal, Protocol

from cinetune.errors import ConfigError
from cinetune.runtime import Reporter

__all__ = ["TRACKERS", "Tracker", "TrackerName", "Trackers", "numbers"]

TrackerName = Literal["tensorboard", "wandb", "trackio", "mlflow"]
_PREFIX = {"step": "train", "evaluation": "held"}
"""Kinds of log lines that hold curves, and the group their numbers get."""


class Tracker(Protocol):
    """One run in one tracker."""

    def log(self, values: Mapping[str, float], step: int) -> None: ...

    def close(self) -> None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class TrackedRun:
    """What a tracker is told about a run. `after`: the step it goes on from, 0 for a new one."""

    folder: Path
    project: str
    name: str
    config: Mapping[str, Any]
    after: int


class _TensorBoard:
    def __init__(self, run: TrackedRun) -> None:
        from torch.utils.tensorboard import SummaryWriter

        # What a killed run wrote after its checkpoint is hidden, as the log forgets it.
        self.writer = SummaryWriter(str(run.folder), purge_step=run.after + 1)
        if run.after == 0:
            self.writer.add_text("recipe", "\n".join(f"    {key} = {value}" for key, value in run.config.items()))

    def log(self, values: Mapping[str, float], step: int) -> None:
        for name, value in values.items():
            self.writer.add_scalar(name, value, step)

    def close(self) -> None:
        self.writer.close()


class _Wandb:
    def __init__(self, run: TrackedRun) -> None:
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
        import wandb

        run.folder.mkdir(parents=True, exist_ok=True)
        quiet = wandb.Settings(silent=True, console="off", disable_git=True, x_disable_stats=True, x_disable_meta=True)
        self.run = wandb.init(
            project=run.project, name=run.name, dir=str(run.folder), config=dict(run.config), settings=quiet,
            mode="online" if os.environ.get("WANDB_MODE") == "online" else "offline",
        )  # fmt: skip

    def log(self, values: Mapping[str, float], step: int) -> None:
        self.run.log(dict(values), step=step)

    def close(self) -> None:
        self.run.finish()


class _Trackio:
    def __init__(self, run: TrackedRun) -> None:
        os.environ.setdefault("TRACKIO_DIR", str(run.folder))  # read when the package is first imported
        import trackio

        self.run = trackio.init(
            project=run.project, name=run.name, config=dict(run.config), resume="allow", embed=False,
            auto_log_gpu=False, auto_log_cpu=False,
        )  # fmt: skip

    def log(self, values: Mapping[str, float], step: int) -> None:
        self.run.log(dict(values), step=step)

    def close(self) -> None:
        self.run.finish()


class _Mlflow:
    def __init__(self, run: TrackedRun) -> None:
        # The store of plain files needs no database; MLflow 3 asks to be told that it is wanted.
        os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")
        from mlflow.tracking import MlflowClient

        self.client = MlflowClient(tracking_uri=os.environ.get("MLFLOW_TRACKING_URI") or run.folder.absolute().as_uri())
        known = self.client.get_experiment_by_name(run.project)
        experiment = known.experiment_id if known else self.client.create_experiment(run.project)
        self.id = self.client.create_run(experiment, run_name=run.name).info.run_id
        for key, value in run.config.items():
            self.client.log_param(self.id, key, value)

    def log(self, values: Mapping[str, float], step: int) -> None:
        for name, value in values.items():
            self.client.log_metric(self.id, name, value, step=step)

    def close(self) -> None:
        self.client.set_terminated(self.id)


TRACKERS: dict[TrackerName, tuple[str, Callable[[TrackedRun], Tracker]]] = {
    "tensorboard": ("tensorboard", _TensorBoard),
    "wandb": ("wandb", _Wandb),
    "trackio": ("trackio", _Trackio),
    "mlflow": ("mlflow", _Mlflow),
}
"""The package each one needs, and how a run is opened in it."""


def numbers(record: Mapping[str, Any]) -> dict[str, float]:
    """The curves in one line of the log: `{"kind": "step", "loss": ...}` gives `train/loss`; lists, words and nested
    tables but one deep are left out. Empty for other kinds.
    """
    prefix = _PREFIX.get(record["kind"])
    found: dict[str, float] = {}
    for key, value in record.items() if prefix else ():
        inner = value.items() if isinstance(value, dict) else [("", value)]
        for name, number in inner:
            if key not in {"kind", "step"} and isinstance(number, int | float) and not isinstance(number, bool):
                found["/".join(filter(None, (prefix, key, name)))] = float(number)
    return found


@dataclass(slots=True, kw_only=True)
class Trackers:
    """The trackers of one run, opened when it is known where the run goes on from.

    `folder` gets a folder for each; `project` and `run` are the names shown. Raises `ConfigError` at once when a
    package is missing: not after an hour of training.
    """

    names: Sequence[TrackerName]
    folder: Path
    project: str
    run: str
    config: Mapping[str, Any]
    report: Reporter
    _open: dict[str, Tracker] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in self.names:
            if find_spec(TRACKERS[name][0]) is None:
                raise ConfigError(
                    f"{TRACKERS[name][0]} is not installed",
                    where="train.trackers",
                    remedy='pip install "cinetune[track]", or leave it out: log.jsonl is always written',
                )

    def start(self, after: int) -> None:
        """Open all for a run that goes on after this step, 0 for a new one."""
        for name in self.names:
            run = TrackedRun(
                folder=self.folder / name, project=self.project, name=self.run, config=self.config, after=after
            )
            self._try(name, lambda name=name, run=run: self._open.update({name: TRACKERS[name][1](run)}))

    def log(self, record: Mapping[str, Any]) -> None:
        """Pass the numbers of one log line on."""
        values = numbers(record)
        for name, tracker in tuple(self._open.items()) if values else ():
            self._try(name, lambda tracker=tracker: tracker.log(values, record["step"]))

    def close(self) -> None:
        """Finish every run."""
        for name, tracker in tuple(self._open.items()):
            self._try(name, tracker.close)
        self._open.clear()

    def _try(self, name: str, act: Callable[[], None]) -> None:
        try:
            act()
        except (OSError, RuntimeError, ValueError, TypeError, *_own_errors()) as error:
            self._open.pop(name, None)
            self.report.warn(f"{name} fails and gets no more of this run ({error}); log.jsonl has everything")


def _own_errors() -> tuple[type[Exception], ...]:
    """The error classes of the trackers that are loaded: none of them is an OSError or the like."""
    import sys

    found: list[type[Exception]] = []
    if "wandb" in sys.modules:
        found.append(sys.modules["wandb"].errors.Error)
    if "mlflow" in sys.modules:
        found.append(sys.modules["mlflow"].exceptions.MlflowException)
    return tuple(found)
