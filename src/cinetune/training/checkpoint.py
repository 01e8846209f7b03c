"""Everything a killed training run needs to end with the same bytes: one file, replaced atomically, and the log
beside it.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from cinetune.durable import atomic_write
from cinetune.errors import StoreError
from cinetune.processes import Processes
from cinetune.records import log_line, read_log, seal_of
from cinetune.training.fingerprint import Fingerprint, differences
from cinetune.training.trackers import Trackers
from cinetune.training.validate import Evaluation, Plateau

__all__ = ["Log", "TrainState", "load_checkpoint", "save_checkpoint"]

FORMAT = 2
ALONE = Processes()
SHOWN = 12  # lines of a long list of changes


@dataclass(slots=True, kw_only=True)
class TrainState:
    """Progress of one run. `step` optimiser steps are done; `best` is the adapter of `best_step` (evaluations after
    step 0 compete), `average` its moving average, empty when there is none; `stopped` says why the run is over and is
    empty while it is not.
    """

    plateau: Plateau
    step: int = 0
    first: Evaluation | None = None
    best_evaluation: Evaluation | None = None
    best_step: int = 0
    best: dict[str, Tensor] = field(default_factory=dict)
    average: dict[str, Tensor] = field(default_factory=dict)
    alarms: list[str] = field(default_factory=list)
    stopped: str = ""
    forced: list[str] = field(default_factory=list)
    """What had changed whenever the run was forced to go on, over all its pieces."""


def save_checkpoint(
    path: Path,
    state: TrainState,
    parameters: Mapping[str, nn.Parameter],
    optimiser: torch.optim.Optimizer,
    *,
    fingerprint: Fingerprint,
    world: Processes = ALONE,
) -> None:
    """Write adapter, optimiser moments, best adapter, moving average and progress. No random state is kept: every draw
    is seeded by its step. All processes hold the same values; the leading one writes them.
    """
    if not world.main:
        return
    tensors: dict[str, Tensor] = {}
    for name, parameter in parameters.items():
        tensors[f"adapter/{name}"] = parameter.detach()
        for key, value in optimiser.state[parameter].items():
            tensors[f"optimiser/{name}/{key}"] = value
    tensors |= {f"best/{name}": tensor for name, tensor in state.best.items()}
    tensors |= {f"average/{name}": tensor for name, tensor in state.average.items()}
    facts = {
        "format": FORMAT,
        "fingerprint": dict(fingerprint),
        "step": state.step,
        "stopped": state.stopped,
        "alarms": state.alarms,
        "forced": state.forced,
        "plateau": asdict(state.plateau),
        "best_step": state.best_step,
        "first": asdict(state.first) if state.first else None,
        "best_evaluation": asdict(state.best_evaluation) if state.best_evaluation else None,
    }
    kept = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    facts["digest"] = _digest(facts, kept)
    with atomic_write(path) as temporary:
        # One metadata key: safetensors writes several in random order, and the bytes would differ from run to run.
        save_file(kept, temporary, metadata={"cinetune": json.dumps(facts, sort_keys=True)})


def load_checkpoint(
    path: Path,
    state: TrainState,
    parameters: Mapping[str, nn.Parameter],
    optimiser: torch.optim.Optimizer,
    *,
    fingerprint: Fingerprint,
    force: bool = False,
    world: Processes = ALONE,
) -> tuple[bool, list[str]]:
    """Continue an unfinished run in place. Returns whether there was one, and what differs if it was forced. The
    leading process reads the file and the others get it from there: on a shared disk each might find another one.

    A finished run of other data or settings counts as nothing. Raises `StoreError` when an *unfinished* run was made
    from other data, settings or code and is not forced, when not even force can help, and when the file is damaged.
    """
    found = world.lead(lambda: _read(path) if path.is_file() else None)
    if found is None:
        return False, []
    facts, tensors = found
    changes = differences(facts["fingerprint"], fingerprint)
    if changes and facts["stopped"]:
        return False, []
    if changes and not force:
        raise _changed(path, facts["step"], changes)
    _check_fits(path, parameters, tensors)
    state.forced = facts.get("forced", []) + [f"step {facts['step']}: {change}" for change in changes]
    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter.copy_(tensors[f"adapter/{name}"])
            prefix = f"optimiser/{name}/"
            moments = {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}
            if moments:
                # AdamW keeps its step count on the CPU and its moments beside the parameter.
                optimiser.state[parameter] = {
                    key: value if key == "step" else value.to(parameter.device) for key, value in moments.items()
                }
    state.step, state.stopped, state.alarms = facts["step"], facts["stopped"], facts["alarms"]
    state.plateau = Plateau(**facts["plateau"])
    state.first = Evaluation(**facts["first"]) if facts["first"] else None
    state.best_evaluation = Evaluation(**facts["best_evaluation"]) if facts["best_evaluation"] else None
    state.best_step = facts["best_step"]
    state.best = {key.removeprefix("best/"): value for key, value in tensors.items() if key.startswith("best/")}
    state.average = {
        name: tensors[f"average/{name}"].to(parameter.device)
        for name, parameter in parameters.items()
        if f"average/{name}" in tensors
    }
    return True, changes


def _changed(path: Path, step: int, changes: list[str]) -> StoreError:
    """The refusal of a run that was started from something else, with what differs."""
    groups = " and another ".join(dict.fromkeys(change.partition(":")[0] for change in changes))
    more = [f"and {len(changes) - SHOWN} more"] if len(changes) > SHOWN else []
    return StoreError(
        "\n    ".join([f"the training that stopped at step {step} had another {groups}", *changes[:SHOWN], *more]),
        where=str(path),
        remedy="put it back as it was; or go on all the same with `cinetune train --force`, which is put on record; "
        f"or delete {path.parent} to start over",
    )


def _check_fits(path: Path, parameters: Mapping[str, Tensor], tensors: Mapping[str, Tensor]) -> None:
    kept = {name.removeprefix("adapter/"): t.shape for name, t in tensors.items() if name.startswith("adapter/")}
    if kept != {name: parameter.shape for name, parameter in parameters.items()}:
        raise StoreError(
            "the unfinished adapter has other layers or another rank than the one asked for",
            where=str(path),
            remedy=f"put train.rank and train.targets back, or delete {path.parent} to start over",
        )


def _digest(facts: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> str:
    """sha256 over everything in a checkpoint: the facts, and each tensor's name, type, shape and bytes."""
    digest = hashlib.sha256(seal_of(facts).encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"\n{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        plain: Any = tensor.contiguous().reshape(-1).view(torch.uint8).numpy()
        digest.update(memoryview(plain))
    return digest.hexdigest()


def _read(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    remedy = f"delete {path.parent} to train from the start"

    def damaged(why: object) -> StoreError:
        return StoreError(f"the training checkpoint is damaged: {why}", where=str(path), remedy=remedy)

    try:
        with safe_open(path, framework="pt") as file:
            facts = json.loads((file.metadata() or {}).get("cinetune", "{}"))
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  (safe_open is not a dict)
    except (SafetensorError, ValueError, RecursionError, OSError) as error:
        raise damaged(error) from error
    if not isinstance(facts, dict) or facts.get("format") != FORMAT:
        raise StoreError("the training checkpoint is of another version", where=str(path), remedy=remedy)
    if facts.pop("digest", None) != _digest(facts, tensors):
        raise damaged("its contents do not match its own digest")
    return facts, tensors


class Log:
    """A JSON line per event, each with its `kind` and `step`. It holds no times, so that a resumed run ends with the
    same log.
    """

    def __init__(self, path: Path, *, writes: bool = True, trackers: Trackers | None = None) -> None:
        """`writes` is False in the processes that do not lead: all would write the same. `trackers` get the numbers of
        every line.
        """
        self.path, self.writes, self._trackers = path, writes, trackers if writes else None
        path.parent.mkdir(parents=True, exist_ok=True)

    def rewind(self, step: int) -> None:
        """Forget what was written after `step`, half-written lines included; -1 forgets everything.

        Raises `StoreError` when a line up to `step` is damaged or missing.
        """
        if not self.writes:
            return
        kept = [] if step < 0 else [line for line in self.lines() if line["step"] <= step]
        if step >= 0 and (not kept or kept[-1]["step"] != step):
            raise StoreError(
                f"the training log is damaged: it should hold step {step}, like the checkpoint",
                where=str(self.path),
                remedy=f"delete {self.path.parent} to train from the start",
            )
        with atomic_write(self.path) as temporary:
            temporary.write_text("".join(map(log_line, kept)), encoding="utf-8")
        if self._trackers is not None:
            self._trackers.start(after=max(step, 0))

    def lines(self) -> list[dict[str, Any]]:
        """Every event so far. Raises `StoreError` as `read_log` does."""
        return read_log(self.path)

    def write(self, kind: str, step: int, **values: Any) -> None:
        """Append one line."""
        if not self.writes:
            return
        record = {"kind": kind, "step": step} | values
        with self.path.open("a", encoding="utf-8") as file:
            file.write(log_line(record))
        if self._trackers is not None:
            self._trackers.log(record)

    def close(self) -> None:
        """End the runs in the trackers."""
        if self._trackers is not None:
            self._trackers.close()

    def sync(self) -> None:
        """Force the lines to disk: a checkpoint must never be ahead of its log."""
        if not self.writes:
            return
        with self.path.open("rb+") as file:
            os.fsync(file.fileno())
