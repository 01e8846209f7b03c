"""The training loop. Read `train` from top to bottom: there is nothing else."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from cinetune.errors import ModelError
from cinetune.models.adapters.lora import add_lora, set_lora_state
from cinetune.models.family import VideoModel
from cinetune.models.memory.fit import Load, prove
from cinetune.runtime import Reporter, derive
from cinetune.sections import TrainSection
from cinetune.training.ahead import Seen, look, looking_ahead
from cinetune.training.checkpoint import Log, TrainState, load_checkpoint, save_checkpoint
from cinetune.training.data import WindowFile, batch_shape
from cinetune.training.ema import ema_update
from cinetune.training.fingerprint import Fingerprint, summary
from cinetune.training.judge import Judge
from cinetune.training.meter import Meter
from cinetune.training.parallel import GradientSum, World, alone
from cinetune.training.step import step_loss
from cinetune.training.trackers import Trackers
from cinetune.training.validate import Evaluation, Plateau, Validator

__all__ = ["Finished", "learning_rate", "load_of", "train"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Finished:
    """How a run ended. The model carries the adapter of `step`, the best evaluation; `last_step` is where it stopped,
    `stopped` says why.
    """

    step: int
    last_step: int
    stopped: str
    first: Evaluation
    best: Evaluation
    alarms: tuple[str, ...]
    forced: tuple[str, ...] = ()


def learning_rate(step: int, recipe: TrainSection) -> float:
    """Rate of optimiser step `step` (from 0): linear warm-up over `warmup * steps`, then by `schedule` a half cosine to
    zero at the last step, or no change.
    """
    rising = math.ceil(recipe.warmup * recipe.steps)
    if step < rising:
        return recipe.lr * (step + 1) / rising
    if recipe.schedule == "constant":
        return recipe.lr
    return recipe.lr * 0.5 * (1 + math.cos(math.pi * (step - rising) / max(1, recipe.steps - rising)))


def train(
    model: VideoModel,
    files: Sequence[WindowFile],
    empty_1LD: Tensor,
    *,
    validator: Validator,
    recipe: TrainSection,
    arm: str,
    folder: Path,
    fingerprint: Fingerprint,
    force: bool = False,
    report: Reporter,
    start: Mapping[str, Tensor] | None = None,
    world: World | None = None,
    trackers: Trackers | None = None,
) -> Finished:
    """Train the adapter `arm` on cached windows until the plateau or the last step; resumes from
    `folder/checkpoint.safetensors`.

    `empty_1LD` is the padded embedding of the empty prompt; `start` the state of an adapter to begin with (default: a
    fresh one). Events go to `folder/log.jsonl` and `trackers`. All randomness is seeded by its purpose and step: a
    killed run, or one by other numbers of processes (`world`, alone by default), ends with the same bytes.

    Raises `ModelError` before the optimiser moves when loss or gradient is not finite, `StoreError` when an unfinished
    run had another `fingerprint`, unless `force` makes it go on and puts the changes on record, `ConfigError` when the
    work does not divide.
    """
    assert files, "training needs at least one window"
    world, device = world or alone(), next(model.denoiser.parameters()).device
    empty_1LD = empty_1LD.to(device)
    elements = recipe.batch * recipe.accumulate
    mine = world.micro_batches(recipe.batch, recipe.accumulate)
    parameters = _adapter(model, recipe, arm, start)
    trained = list(parameters.values())
    if recipe.compile:
        prove(model.denoiser, load_of(files, recipe, world))
    world.parallelise(model, parameters, _shapes([*files, *validator.held], recipe))
    optimiser = torch.optim.AdamW(trained, lr=recipe.lr, betas=recipe.betas, weight_decay=recipe.weight_decay)
    state = TrainState(plateau=Plateau(patience=recipe.patience, min_delta=recipe.min_delta))
    log = Log(folder / "log.jsonl", writes=world.main, trackers=trackers)
    checkpoint = folder / "checkpoint.safetensors"
    keep = partial(save_checkpoint, checkpoint, state, parameters, optimiser, fingerprint=fingerprint, world=world)

    resumed, changes = load_checkpoint(
        checkpoint, state, parameters, optimiser, fingerprint=fingerprint, force=force, world=world
    )
    log.rewind(state.step if resumed else -1)
    meter = Meter(folder / "speed.jsonl", fresh=not resumed, writes=world.main)
    judge = Judge(validator, state, parameters, arm=arm, log=log, report=report)
    if not resumed:
        validator.clear()
        log.write("start", 0, arm=arm, fingerprint=summary(fingerprint), **_asked(recipe, validator))

    pin = device.type == "cuda"
    with (
        report.progress(f"train {arm}", recipe.steps) as bar,
        looking_ahead(partial(look, files=files, recipe=recipe, rows=mine, pin=pin)) as ahead,
    ):
        if resumed:
            report.say(f"{arm}: going on from step {state.step}")
            bar.advance(state.step)
            if changes:
                log.write("forced", state.step, changes=changes, **_asked(recipe, validator))
        else:
            ema_update(state.average, parameters, recipe.ema)
            judge.evaluate()
            meter.mark("evaluation", 0)
        if changes or not resumed:
            log.sync()
            keep()

        while not state.stopped:
            step = state.step  # optimiser steps done so far

            # What this step sees: windows, condition variants, noise levels, noise, dropped captions.
            seen = ahead(step)

            # Gradients, one micro-batch at a time; other processes do the others.
            losses: list[Tensor] = []
            total = GradientSum(world, trained)
            for batch, draws in seen.parts:
                loss_B = step_loss(model, batch.to(device), draws.to(device), empty_1LD=empty_1LD)
                (loss_B.sum() / elements).backward()
                losses.append(loss_B.detach())
                total.add()
            total.finish()
            norm = torch.nn.utils.clip_grad_norm_(trained, recipe.max_grad_norm)

            # The only time that the host waits for the card. Nothing that is not finite reaches the adapter.
            numbers = torch.cat([world.gather_losses(losses), norm.view(1)]).cpu()
            loss_B, norm = numbers[:-1], numbers[-1]
            _check_finite(loss_B, norm, seen, step=step + 1, log=log)

            rate = learning_rate(step, recipe)
            for group in optimiser.param_groups:
                group["lr"] = rate
            optimiser.step()
            optimiser.zero_grad(set_to_none=True)
            ema_update(state.average, parameters, recipe.ema)
            state.step = step + 1

            loss = float(loss_B.mean())
            log.write("step", state.step, loss=loss, grad_norm=float(norm), lr=rate, **_said(seen))
            judge.stepped(float(norm))
            meter.mark("step", state.step)
            bar.advance(1, f"loss {loss:.4f}")

            # Look at it now and then, always at the end: the judge says when to stop, and what is kept.
            last = state.step >= recipe.steps  # a forced run may have gone further than it is now asked to
            evaluated = last or state.step % recipe.validate_every == 0
            if evaluated:
                judge.evaluate(last=last)
                meter.mark("evaluation", state.step)
            if evaluated or state.step % recipe.checkpoint_every == 0:
                log.sync()
                keep()

    log.close()
    set_lora_state(model, arm, state.best)
    return _finished(state)


def _finished(state: TrainState) -> Finished:
    first, best = _first_and_best(state)
    return Finished(
        step=state.best_step,
        last_step=state.step,
        stopped=state.stopped,
        first=first,
        best=best,
        alarms=tuple(state.alarms),
        forced=tuple(state.forced),
    )


def _adapter(
    model: VideoModel, recipe: TrainSection, arm: str, start: Mapping[str, Tensor] | None
) -> dict[str, nn.Parameter]:
    """A fresh adapter, or the one to start from: the same in every arm."""
    seed = derive(recipe.seed, "train/adapter")
    added = add_lora(
        model, rank=recipe.rank, alpha=recipe.alpha, targets=recipe.targets, name=arm, seed=seed,
        products=recipe.products,
    )  # fmt: skip
    if start is not None:
        set_lora_state(model, arm, start)
    return dict(added)


def _shapes(files: Sequence[WindowFile], recipe: TrainSection) -> list[tuple[int, ...]]:
    """Every shape of latents that the model will see."""
    kinds = (False, True) if recipe.augment.single_frame else (False,)
    return sorted({batch_shape([file], single_frame=kind) for file in files for kind in kinds})


def load_of(files: Sequence[WindowFile], recipe: TrainSection, world: World) -> Load:
    """The largest micro-batch of this process."""
    rows = world.micro_batches(recipe.batch, recipe.accumulate)[0]
    largest = max(files, key=lambda file: math.prod(file.shape))
    return Load(
        shape=(rows.stop - rows.start, *largest.shape), image_tokens=largest.image_tokens, shards=world.shards,
        ulysses=world.ulysses,
    )  # fmt: skip


def _asked(recipe: TrainSection, validator: Validator) -> dict[str, Any]:
    return {"recipe": recipe.model_dump(mode="json"), "validation": validator.describe()}


def _first_and_best(state: TrainState) -> tuple[Evaluation, Evaluation]:
    assert state.first is not None and state.best_evaluation is not None, "step 0 and the last are always evaluated"
    return state.first, state.best_evaluation


def _said(seen: Seen) -> dict[str, Any]:
    """What one step saw, for its line in the log."""
    return {
        "windows": [file.id for file in seen.files],
        "variants": list(seen.picked.variants),
        "single_frame": seen.picked.single_frame,
        "sigmas": [round(value, 6) for value in seen.draws.sigma_B.tolist()],
        "dropped": int(seen.draws.drop_B.sum()),
    }


def _check_finite(loss_B: Tensor, norm: Tensor, seen: Seen, *, step: int, log: Log) -> None:
    """Log an alarm and raise `ModelError` naming step, noise level and window of the first loss that is not finite, or
    of all when only the gradient is not.
    """
    bad = (~torch.isfinite(loss_B)).nonzero().flatten().tolist()
    if not bad and bool(torch.isfinite(norm)):
        return
    sigmas = [round(value, 4) for value in seen.draws.sigma_B.tolist()]
    windows = [file.id for file in seen.files]
    what = "the loss" if bad else "the gradient"
    which = bad[:1] or range(len(windows))
    places = ", ".join(f"window {windows[index]} at sigma {sigmas[index]}" for index in which)
    what = f"{what} is not finite at training step {step}"
    remedy = 'look at that clip; if it is sound, lower train.lr or set model.dtype = "float32", and run again'
    log.write("alarm", step, name="not finite", what=f"{what}: {places}", remedy=remedy)
    raise ModelError(what, where=places, remedy=remedy)
