"""The training loop. Read `train` from top to bottom: there is nothing else."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from cinetune.errors import ModelError
from cinetune.models.family import Batch, VideoModel
from cinetune.models.lora import add_lora, set_lora_state
from cinetune.runtime import Reporter, derive, generator
from cinetune.sections import TrainSection
from cinetune.training.checkpoint import Log, TrainState, load_checkpoint, save_checkpoint
from cinetune.training.data import Picked, WindowFile, load_batch, pick
from cinetune.training.step import Draws, draw, split, step_loss
from cinetune.training.validate import Evaluation, Plateau, Validator

__all__ = ["Finished", "learning_rate", "train"]


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
    fingerprint: Mapping[str, str],
    report: Reporter,
) -> Finished:
    """Train the adapter `arm` on cached windows until the plateau or the last step; resumes from
    `folder/checkpoint.safetensors`.

    `empty_1LD` is the padded embedding of the empty prompt. Events go to `folder/log.jsonl`. All randomness is seeded
    by its purpose and step, so a run that was killed ends with the same bytes as one that was not (on one device,
    with one thread count).

    Raises `ModelError` before the optimiser moves when loss or gradient is not finite, `StoreError` when an
    unfinished run used other data or settings (`fingerprint`).
    """
    assert files, "training needs at least one window"
    device = next(model.denoiser.parameters()).device
    empty_1LD = empty_1LD.to(device)
    available = min(file.variants for file in files)
    elements = recipe.batch * recipe.accumulate

    parameters = _adapter(model, recipe, arm)
    trained = list(parameters.values())
    optimiser = torch.optim.AdamW(trained, lr=recipe.lr, betas=recipe.betas, weight_decay=recipe.weight_decay)
    state = TrainState(plateau=Plateau(patience=recipe.patience, min_delta=recipe.min_delta))
    log = Log(folder / "log.jsonl")
    checkpoint = folder / "checkpoint.safetensors"

    resumed = load_checkpoint(checkpoint, state, parameters, optimiser, fingerprint=fingerprint)
    log.rewind(state.step if resumed else -1)
    if not resumed:
        validator.clear()
        log.write("start", 0, arm=arm, fingerprint=dict(fingerprint), **_asked(recipe, validator))

    with report.progress(f"train {arm}", recipe.steps) as bar:
        if resumed:
            report.say(f"{arm}: going on from step {state.step}")
            bar.advance(state.step)
        else:
            _evaluate(validator, state, parameters, log=log, report=report, arm=arm)
            save_checkpoint(checkpoint, state, parameters, optimiser, fingerprint=fingerprint)

        while not state.stopped:
            step = state.step  # optimiser steps done so far

            # What this step sees: windows, condition variants, noise levels, noise, dropped captions.
            picked = pick(
                step, count=elements, windows=len(files), available=available, augment=recipe.augment, seed=recipe.seed
            )
            chosen = [files[index] for index in picked.windows]
            batch = _to(load_batch(chosen, picked.variants, single_frame=picked.single_frame), device)
            draws = draw(batch.latents_BCfhw, generator(recipe.seed, "train/noise", step), recipe)

            # Gradients, one micro-batch at a time.
            losses: list[Tensor] = []
            for part, piece in split(batch, draws, recipe.batch):
                loss_B = step_loss(model, part, piece, empty_1LD=empty_1LD)
                (loss_B.sum() / elements).backward()
                losses.append(loss_B.detach())
            loss_B = torch.cat(losses)
            norm = torch.nn.utils.clip_grad_norm_(trained, recipe.max_grad_norm)

            # Nothing that is not finite reaches the adapter.
            _check_finite(loss_B, norm, draws, [file.id for file in chosen], step=step + 1)

            rate = learning_rate(step, recipe)
            for group in optimiser.param_groups:
                group["lr"] = rate
            optimiser.step()
            optimiser.zero_grad(set_to_none=True)
            state.step = step + 1

            loss = float(loss_B.mean())
            log.write("step", state.step, loss=loss, grad_norm=float(norm), lr=rate, **_seen(picked, chosen, draws))
            bar.advance(1, f"loss {loss:.4f}")

            # Look at it now and then, always at the end.
            last = state.step == recipe.steps
            evaluated = last or state.step % recipe.validate_every == 0
            if evaluated:
                _evaluate(validator, state, parameters, log=log, report=report, arm=arm)
                if state.plateau.stalled:
                    gains = f"no gain of {recipe.min_delta} in {recipe.patience} evaluations"
                    state.stopped = f"lpips plateau at step {state.step}: {gains}"
                elif last:
                    state.stopped = f"reached {recipe.steps} steps"

            # The best adapter is the result; what is wrong with it is said before it is used.
            if state.stopped:
                set_lora_state(model, arm, state.best)
                state.alarms = validator.alarms(arm, *_first_and_best(state))
                log.write("end", state.step, stopped=state.stopped, best_step=state.best_step, alarms=state.alarms)
            if evaluated or state.step % recipe.checkpoint_every == 0:
                log.sync()
                save_checkpoint(checkpoint, state, parameters, optimiser, fingerprint=fingerprint)

    set_lora_state(model, arm, state.best)
    first, best = _first_and_best(state)
    return Finished(
        step=state.best_step,
        last_step=state.step,
        stopped=state.stopped,
        first=first,
        best=best,
        alarms=tuple(state.alarms),
    )


def _adapter(model: VideoModel, recipe: TrainSection, arm: str) -> dict[str, nn.Parameter]:
    """A fresh adapter, the same start in every arm."""
    seed = derive(recipe.seed, "train/adapter")
    return dict(add_lora(model, rank=recipe.rank, alpha=recipe.alpha, targets=recipe.targets, name=arm, seed=seed))


def _asked(recipe: TrainSection, validator: Validator) -> dict[str, Any]:
    return {"recipe": recipe.model_dump(mode="json"), "validation": validator.describe()}


def _first_and_best(state: TrainState) -> tuple[Evaluation, Evaluation]:
    assert state.first is not None and state.best_evaluation is not None, "step 0 and the last are always evaluated"
    return state.first, state.best_evaluation


def _seen(picked: Picked, files: Sequence[WindowFile], draws: Draws) -> dict[str, Any]:
    """What one step saw, for its line in the log."""
    return {
        "windows": [file.id for file in files],
        "variants": list(picked.variants),
        "single_frame": picked.single_frame,
        "sigmas": [round(value, 6) for value in draws.sigma_B.tolist()],
        "dropped": int(draws.drop_B.sum()),
    }


def _evaluate(
    validator: Validator, state: TrainState, parameters: Mapping[str, Tensor], *, log: Log, report: Reporter, arm: str
) -> None:
    """Evaluate, log, say, and keep the adapter when it is the best yet. The untrained adapter of step 0 does not
    compete.
    """
    found = validator(state.step)
    length = math.sqrt(sum(float(tensor.detach().double().square().sum()) for tensor in parameters.values()))
    log.write("evaluation", state.step, adapter_norm=length, **asdict(found))
    regraded = "" if found.v_loss_regraded is None else f" ({found.v_loss_regraded:.4f} re-graded)"
    report.say(
        f"{arm} step {state.step}: held-out v-loss {found.v_loss:.4f}{regraded}, distance to the film "
        f"{found.distance:.4f} (VAE alone {validator.levels.floor:.4f}, frozen frame {validator.levels.ceiling:.4f})"
    )
    state.plateau = state.plateau.seen(state.step, found.distance)
    if state.step == 0:
        state.first = found
    elif state.best_evaluation is None or found.distance < state.best_evaluation.distance:
        state.best_evaluation, state.best_step = found, state.step
        state.best = {name: tensor.detach().cpu().clone() for name, tensor in parameters.items()}


def _to(batch: Batch, device: torch.device) -> Batch:
    return Batch(latents_BCfhw=batch.latents_BCfhw.to(device), cond=batch.cond.to(device, batch.cond.text_BLD.dtype))


def _check_finite(loss_B: Tensor, norm: Tensor, draws: Draws, windows: Sequence[str], *, step: int) -> None:
    """Raise `ModelError` naming step, noise level and window of the first loss that is not finite, or of all when
    only the gradient is not.
    """
    bad = (~torch.isfinite(loss_B)).nonzero().flatten().tolist()
    if not bad and bool(torch.isfinite(norm)):
        return
    sigmas = [round(value, 4) for value in draws.sigma_B.tolist()]
    what = "the loss" if bad else "the gradient"
    which = bad[:1] or range(len(windows))
    places = ", ".join(f"window {windows[index]} at sigma {sigmas[index]}" for index in which)
    raise ModelError(
        f"{what} is not finite at training step {step}",
        where=places,
        remedy='look at that clip; if it is sound, lower train.lr or set model.dtype = "float32", and run again',
    )
