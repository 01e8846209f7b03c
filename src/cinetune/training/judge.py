"""Who watches a run: evaluates it, logs and says what was found, keeps the best adapter, and raises alarms at once."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Any

from torch import Tensor

from cinetune.errors import ModelError
from cinetune.runtime import Reporter
from cinetune.training.alarms import Alarm, Alarms
from cinetune.training.checkpoint import Log, TrainState
from cinetune.training.ema import ema_applied
from cinetune.training.validate import Evaluation, Validator

__all__ = ["Judge", "ranked"]


def ranked(history: list[tuple[int, Evaluation]]) -> list[tuple[int, Evaluation]]:
    """The evaluations after step 0, best first: by distance to the film on held-out scenes, the earlier of equals."""
    return sorted((pair for pair in history if pair[0]), key=lambda pair: (pair[1].distance, pair[0]))


class Judge:
    """Judges the arm that is being trained. `state` is updated in place; `parameters` are the adapter's."""

    def __init__(
        self,
        validator: Validator,
        state: TrainState,
        parameters: Mapping[str, Tensor],
        *,
        arm: str,
        log: Log,
        report: Reporter,
    ) -> None:
        self.validator, self.state, self.parameters = validator, state, parameters
        self.arm, self.log, self.report = arm, log, report
        self.alarms = Alarms(validator.levels)
        self.alarms.replay(validator.world.lead(log.lines))

    def stepped(self, norm: float) -> None:
        """After a training step: is the gradient still of a usual length?"""
        self._tell(self.alarms.stepped(norm))

    def evaluate(self, *, last: bool = False) -> None:
        """Evaluate (the average, where there is one), log, say, and keep the adapter when it is the best yet. Stops the
        run on a plateau, or when this is the `last` evaluation.

        The untrained adapter of step 0 does not compete; it measures the A/A noise of the distance, and the
        plateau waits for no less. Raises `ModelError` when the samples or losses are not finite.
        """
        state, step = self.state, self.state.step
        with ema_applied(state.average, self.parameters):
            found = replace(self.validator(step), effect=self.validator.effect(self.arm))
            found = self.validator.world.same(found)
            _check_finite(found, step)
            self._write(found)
            if step == 0:
                state.first = found
                least = max(state.plateau.min_delta, found.noise or 0.0)
                state.plateau = replace(state.plateau, min_delta=least)
            elif state.best_evaluation is None or found.distance < state.best_evaluation.distance:
                state.best_evaluation, state.best_step = found, step
                state.best = {name: tensor.detach().cpu().clone() for name, tensor in self.parameters.items()}
        state.plateau = state.plateau.seen(step, found.distance)
        before = self.alarms.standing
        self._tell(self.alarms.evaluated(step, found))
        for name in before.keys() - self.alarms.standing.keys():
            self.log.write("alarm over", step, name=name)
            self.report.say(f"{self.arm} step {step}: no longer: {name}")
        if state.plateau.stalled:
            gains = f"no gain of {state.plateau.min_delta:.4g} in {state.plateau.patience} evaluations"
            state.stopped = f"lpips plateau at step {step}: {gains}"
        elif last:
            state.stopped = f"reached {step} steps"
        if state.stopped:
            self._end()

    def _end(self) -> None:
        """Say which step is kept and why, and what must be known before it is used."""
        state, order = self.state, ranked(self.alarms.history)
        state.alarms = [str(alarm) for alarm in self.alarms.verdict(state.best_step)]
        noise = state.first.noise if state.first is not None else None
        rows = [{"step": step, "distance": found.distance} for step, found in order]
        near = [step for step, found in order[1:] if noise and found.distance - order[0][1].distance < noise]
        why = "the lowest distance to the film on held-out scenes"
        if near:
            steps = f"step {near[0]} is" if len(near) == 1 else f"steps {', '.join(map(str, near))} are"
            why += f"; {steps} as good within noise ({noise:.4f})"
        self.report.say(f"{self.arm}: of {len(order)} evaluations step {state.best_step} is kept, with {why}")
        self.log.write(
            "end",
            state.step,
            stopped=state.stopped,
            best_step=state.best_step,
            alarms=state.alarms,
            ranking=rows,
            why=why,
        )

    def _write(self, found: Evaluation) -> None:
        length = math.sqrt(sum(float(tensor.detach().double().square().sum()) for tensor in self.parameters.values()))
        self.log.write("evaluation", self.state.step, adapter_norm=length, **asdict(found))
        levels = self.validator.levels
        regraded = "" if found.v_loss_regraded is None else f" ({found.v_loss_regraded:.4f} re-graded)"
        noise = "" if found.noise is None else f", A/A noise {found.noise:.4f}"
        self.report.say(
            f"{self.arm} step {self.state.step}: held-out v-loss {found.v_loss:.4f}{regraded}, distance to the film "
            f"{found.distance:.4f} (VAE alone {levels.floor:.4f}, frozen frame {levels.ceiling:.4f}{noise})"
        )

    def _tell(self, raised: list[Alarm]) -> None:
        for alarm in raised:
            self.log.write("alarm", self.state.step, **asdict(alarm))
            self.report.warn(f"{self.arm} step {self.state.step}: {alarm}")


def _check_finite(found: Evaluation, step: int) -> None:
    values: dict[str, Any] = {"loss": found.v_loss, "distance": found.distance, "effect": found.effect}
    for name, value in values.items():
        if not math.isfinite(value):
            raise ModelError(
                f"the held-out {name} is not finite at step {step}",
                where="validation",
                remedy='lower train.lr or set model.dtype = "float32", delete the run\'s folder and run again',
            )
