"""What can be wrong with a run, said in words as soon as it shows, with what to do about it.

Everything here is arithmetic on what the log holds, so that a resumed run raises the same alarms at the same steps.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from typing import Any

from cinetune.training.validate import Evaluation, Levels

__all__ = ["Alarm", "Alarms"]

NO_EFFECT = 1e-3
"""Relative change of velocity under which an adapter does nothing a person could see (an untrained adapter gives
exactly 0).
"""

DIVERGED = 0.8
"""Relative change of velocity over which nothing of the base model is left: an output of nothing is 1 away from it, an
unrelated one as long as it 1.4. On the pocket model a sound run was at 0.25, one on falsely coloured clips
at 0.69 (it learns them), and one at seventy-five times the rate at 1.0.
"""

FROZEN = 0.1
"""Share of the real clips' motion under which generated clips count as frozen."""

JUMP = 3.0
"""dE2000 by which the picture's mean colour may move after the first frame, beyond what the film itself does: side by
side about 1 is seen, and few-step samples are a little unsteady.
"""

EXPLODING = 10.0
"""Gradient norms this many times their median so far; `_TIMES` of them in `_LATELY` steps are not the odd hard clip."""
_TIMES, _LATELY, _SETTLED, _REMEMBERED = 3, 20, 8, 100

RISE = 0.01
"""Relative rise of the held-out loss that counts, if it is also beyond its noise over windows."""
_ERRORS = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Alarm:
    """`name` says which, `what` what was seen, with its figures, `remedy` what to change."""

    name: str
    what: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.name}: {self.what}. What to do: {self.remedy}"


class Alarms:
    """The alarms of one run. Give it every gradient norm and every evaluation in order; each call returns what it has
    newly raised. An alarm about evaluations ends when a later one no longer shows it.
    """

    def __init__(self, levels: Levels) -> None:
        self.levels = levels
        self.standing: dict[str, Alarm] = {}
        self.history: list[tuple[int, Evaluation]] = []
        self._norms: list[float] = []
        self._long: list[float] = []

    def replay(self, lines: Iterable[dict[str, Any]]) -> None:
        """Take in what an interrupted run logged."""
        names = {item.name for item in fields(Evaluation)}
        for line in lines:
            if line["kind"] == "step":
                self.stepped(line["grad_norm"])
            elif line["kind"] == "evaluation":
                self.evaluated(line["step"], Evaluation(**{key: line[key] for key in line.keys() & names}))

    def stepped(self, norm: float) -> list[Alarm]:
        """After a training step: gradient `norm` before it was clipped."""
        usual = statistics.median(self._norms[-_REMEMBERED:]) if len(self._norms) >= _SETTLED else math.inf
        self._norms.append(norm)
        self._long = [*self._long, norm / max(usual, 1e-30)][-_LATELY:]
        times = [ratio for ratio in self._long if ratio > EXPLODING]
        if len(times) < _TIMES or "exploding norm" in self.standing:
            return []
        return self._raise(
            Alarm(
                name="exploding norm",
                what=f"in {len(times)} of the last {len(self._long)} steps the gradient was {min(times):.0f} to "
                f"{max(times):.0f} times as long as usual ({usual:.2g})",
                remedy="look at the clips of those steps in the log; if they are sound, lower train.lr or "
                "train.max_grad_norm",
            )
        )

    def evaluated(self, step: int, found: Evaluation) -> list[Alarm]:
        """After an evaluation; step 0 is the untrained model the others are compared with."""
        self.history.append((step, found))
        early = len(self.history) < 3  # an adapter starts as nothing: one evaluation later it may still be next to it
        now = [alarm for alarm in self._about(found, early=early) if alarm is not None] if step else []
        if (heart := _overfit(self.history)) is not None:
            now.append(heart)
        self.standing = {
            name: alarm
            for name, alarm in self.standing.items()
            if name == "exploding norm" or name in {one.name for one in now}
        }
        return self._raise(*now)

    def verdict(self, kept: int) -> list[Alarm]:
        """What a person must know before using the adapter of step `kept`; empty when all is well."""
        until = [(step, found) for step, found in self.history if step <= kept]
        found = until[-1][1]
        about = [*self._about(found, early=False), _overfit(until), self.standing.get("exploding norm")]
        return [alarm for alarm in about if alarm is not None]

    def _raise(self, *found: Alarm) -> list[Alarm]:
        new = [alarm for alarm in found if alarm.name not in self.standing]
        self.standing |= {alarm.name: alarm for alarm in found}
        return new

    def _about(self, found: Evaluation, *, early: bool) -> list[Alarm | None]:
        first = self.history[0][1]
        judged = [one for step, one in self.history if step]
        return [
            None if early else _no_effect(found),
            _diverged(first, found),
            _frozen(first, found),
            _jump(first, found, self.levels),
            None if early else _no_gain(first, min((one.distance for one in judged), default=found.distance)),
        ]


def _no_effect(found: Evaluation) -> Alarm | None:
    if found.effect >= NO_EFFECT:
        return None
    return Alarm(
        name="no effect",
        what=f"the adapter changes the velocity by {found.effect:.1e} of its length (under {NO_EFFECT:.0e})",
        remedy="raise train.lr or train.steps",
    )


def _diverged(first: Evaluation, found: Evaluation) -> Alarm | None:
    # A base that knows nothing yet (random weights) may well be left behind: then the loss falls.
    if found.effect < DIVERGED or found.v_loss <= first.v_loss:
        return None
    return Alarm(
        name="diverged",
        what=f"the adapter changes the velocity by {found.effect:.2f} of its length (over {DIVERGED}), and the loss on "
        f"scenes it never saw is {found.v_loss:.4f}, {first.v_loss:.4f} before training: little of the model is left",
        remedy="lower train.lr, to a tenth at first, and train again from the start",
    )


def _frozen(first: Evaluation, found: Evaluation) -> Alarm | None:
    if not found.motion < FROZEN <= first.motion:
        return None
    return Alarm(
        name="frozen motion",
        what=f"samples move {found.motion:.2f} as much as the film, {first.motion:.2f} before training",
        remedy="keep an earlier step, lower train.lr, train on clips that move more, or use fewer one-frame steps "
        "(train.augment.single_frame)",
    )


def _jump(first: Evaluation, found: Evaluation, levels: Levels) -> Alarm | None:
    allowed = levels.jump + JUMP
    # A base model that jumps by itself does so in every sample: then the alarm is for what training adds.
    if found.jump <= max(allowed, first.jump + JUMP / 2):
        return None
    return Alarm(
        name="first-frame jump",
        what=f"the colour moves by {found.jump:.1f} dE2000 right after a first frame that wears the look already; the "
        f"film's by {levels.jump:.1f}, samples before training by {first.jump:.1f}",
        remedy="look for clips whose first frames are not like the rest (fades, flashes, cuts), lower train.lr, or "
        "train more one-frame steps (train.augment.single_frame)",
    )


def _no_gain(first: Evaluation, best: float) -> Alarm | None:
    noise = first.noise or 0.0
    if best < first.distance - noise:
        return None
    margin = f" (A/A noise {noise:.4f})" if noise else ""
    return Alarm(
        name="no gain",
        what=f"distance to the film is {best:.4f}, {first.distance:.4f} before training{margin}",
        remedy="train longer, with a larger train.rank or another train.lr (`cinetune sweep` compares them), or judge "
        "by more clips (train.validation_shots)",
    )


def _overfit(history: Sequence[tuple[int, Evaluation]]) -> Alarm | None:
    """Held-out loss above its lowest by more than its noise, while the loss on trained windows went on falling.

    Window for window the noise is the same at every evaluation, so the rise is a paired difference; its noise is the
    standard error over windows. Under three windows there is none, and no alarm.
    """
    step, now = history[-1]
    if now.v_loss_seen is None or len(now.v_loss_windows) < 3:
        return None
    low_step, low = min(history, key=lambda pair: sum(pair[1].v_loss_windows))
    rises = [after - before for after, before in zip(now.v_loss_windows, low.v_loss_windows, strict=True)]
    rise, level = statistics.fmean(rises), statistics.fmean(low.v_loss_windows)
    error = statistics.stdev(rises) / len(rises) ** 0.5
    fell = low.v_loss_seen is not None and now.v_loss_seen < low.v_loss_seen
    if low_step == step or not fell or rise <= max(_ERRORS * error, RISE * level):
        return None
    return Alarm(
        name="overfit",
        what=f"the loss on scenes it never saw rose from {level:.4f} at step {low_step} to {level + rise:.4f} "
        f"(noise {error:.4f}), while that on scenes it trains on fell from {low.v_loss_seen:.4f} to "
        f"{now.v_loss_seen:.4f}",
        remedy=f"keep a step near {low_step}, add footage, or lower train.rank or train.lr",
    )
