"""Evaluations: the same noise every time, a scale from floor to ceiling, and a plateau that is pure arithmetic."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from cinetune.footage.video import probe
from cinetune.models.lora import add_lora
from cinetune.models.wan21 import WanVideo
from cinetune.sections import TrainSection
from cinetune.training import Validator
from cinetune.training.validate import Plateau, quantile_sigmas

Judge = Callable[..., Validator]


def test_plateau_counts_evaluations_without_gain() -> None:
    plateau = Plateau(patience=2, min_delta=0.1)
    for step, value, waited in ((0, 1.0, 0), (10, 0.95, 1), (20, 0.85, 0), (30, 0.80, 1), (40, 0.76, 2)):
        plateau = plateau.seen(step, value)
        assert plateau.waited == waited
        assert plateau.stalled == (waited == 2)
    assert (plateau.best, plateau.best_step) == (0.85, 20)


def test_slow_gains_add_up_to_a_gain() -> None:
    """Each step alone is under min_delta; measured from the best value they are a gain, so training goes on."""
    plateau = Plateau(patience=3, min_delta=0.1)
    for step, value in enumerate((1.0, 0.94, 0.88, 0.82, 0.76)):
        plateau = plateau.seen(step, value)
        assert not plateau.stalled


@pytest.mark.parametrize("timesteps", ["logit-normal", "uniform"])
def test_sigmas_sit_at_quantiles_of_training(timesteps: str) -> None:
    from cinetune.models.flow import sample_sigmas

    drawn = sample_sigmas(20_000, torch.Generator().manual_seed(0), scheme=timesteps, shift=3.0)
    for sigma, share in zip(quantile_sigmas(timesteps, 3.0), (0.125, 0.375, 0.625, 0.875), strict=True):
        assert float((drawn < sigma).float().mean()) == pytest.approx(share, abs=1e-3)


def test_evaluation_repeats_and_leaves_random_state_alone(judge: Judge, recipe: TrainSection, tmp_path: Path) -> None:
    validator = judge(recipe, tmp_path)
    state = torch.get_rng_state()
    first, second = validator(0), validator(7)
    assert first == second
    assert torch.equal(state, torch.get_rng_state())
    assert first.distance == pytest.approx((first.distance_film + first.distance_regraded) / 2)
    assert len(first.curve) == 9
    assert first.v_loss == pytest.approx(sum(first.v_loss_at.values()) / 4)
    film = probe(tmp_path / "samples" / "step_000007.mp4")
    assert (film.frames, film.width, film.height) == (9, 3 * 48, 32)


def test_a_condition_changes_the_clip(judge: Judge, recipe: TrainSection, tmp_path: Path) -> None:
    validator = judge(recipe, tmp_path)
    both = validator(0)
    shots = [replace(shot, file=replace(shot.file, variants=0)) for shot in validator.shots]
    alone = Validator(
        validator.model, validator.held, shots, net=validator.net, net_name="", recipe=recipe, folder=tmp_path
    )(0)
    assert (alone.distance_film, alone.v_loss) == (both.distance_film, both.v_loss)
    assert alone.distance_regraded is None and alone.v_loss_regraded is None
    assert both.distance_regraded != both.distance_film and both.v_loss_regraded != both.v_loss


def test_levels_bracket_the_truth(judge: Judge, recipe: TrainSection, tmp_path: Path, model: WanVideo) -> None:
    validator = judge(recipe, tmp_path)
    assert validator.levels.ceiling > 0  # the truth is noise: a frozen frame is far from it
    still = validator.shots[0].truth_TCHW[:1].expand(9, 3, 32, 48)
    shot = replace(validator.shots[0], truth_TCHW=still)
    frozen = Validator(model, validator.held, [shot], net=validator.net, net_name="", recipe=recipe, folder=tmp_path)
    assert frozen.levels.ceiling == pytest.approx(0, abs=1e-6)


def test_effect_is_zero_for_a_fresh_adapter_and_grows(
    judge: Judge, model: WanVideo, recipe: TrainSection, tmp_path: Path
) -> None:
    validator = judge(recipe, tmp_path)
    parameters = add_lora(model, rank=2, alpha=2, targets="cross", name="look", seed=0)
    assert validator.effect("look") == 0
    with torch.no_grad():
        for name, parameter in parameters:
            if "lora_B" in name:
                parameter.fill_(0.1)
    assert validator.effect("look") > 0.01


def test_frozen_clips_are_an_alarm(judge: Judge, model: WanVideo, recipe: TrainSection, tmp_path: Path) -> None:
    validator = judge(recipe, tmp_path)
    add_lora(model, rank=2, alpha=2, targets="cross", name="look", seed=0)
    before = replace(validator(0), motion=0.8, distance=1.0)
    frozen = validator.alarms("look", before, replace(before, motion=0.05, distance=0.5))
    assert any(alarm.startswith("frozen motion") for alarm in frozen)
    assert not any(alarm.startswith("no gain") for alarm in frozen)
