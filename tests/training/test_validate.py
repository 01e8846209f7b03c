"""Evaluations: the same noise every time, a scale from floor to ceiling, and a plateau that is pure arithmetic."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import torch

from cinetune.footage.video import probe
from cinetune.metrics import delta_e2000, lab, lpips_curve
from cinetune.models.adapters.lora import add_lora
from cinetune.models.wan.wan21 import WanVideo
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
def test_sigmas_sit_at_quantiles_of_training(timesteps: Literal["logit-normal", "uniform"]) -> None:
    from cinetune.models.wan.flow import sample_sigmas

    drawn = sample_sigmas(20_000, torch.Generator().manual_seed(0), scheme=timesteps, shift=3.0)
    for sigma, share in zip(quantile_sigmas(timesteps, 3.0), (0.125, 0.375, 0.625, 0.875), strict=True):
        assert float((drawn < sigma).float().mean()) == pytest.approx(share, abs=1e-3)


def test_evaluation_repeats_and_leaves_random_state_alone(judge: Judge, recipe: TrainSection, tmp_path: Path) -> None:
    validator = judge(recipe, tmp_path)
    state = torch.get_rng_state()
    first, second = validator(3), validator(7)
    assert first == second
    assert torch.equal(state, torch.get_rng_state())
    assert first.distance_film is not None and first.distance_regraded is not None
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
    passes: list[int] = []
    model.denoiser.register_forward_pre_hook(lambda *_: passes.append(1))
    effect = validator.effect("look")
    assert effect > 0.01
    assert len(passes) == len(validator.held), "the base's velocities are those of the first time"
    assert judge(recipe, tmp_path).effect("look") == effect


def test_noise_is_the_spread_over_sampling_seeds(judge: Judge, recipe: TrainSection, tmp_path: Path) -> None:
    """Against the same clips sampled here, one seed after the other."""
    validator = judge(recipe, tmp_path)
    found = validator(0)
    shot = validator.shots[0]
    distances = []
    for seed in range(recipe.validation_seeds):
        clips = [validator._generate(shot, variant, seed=seed) for variant in validator.variants]
        distances.append(np.mean([lpips_curve(validator.net, clip, shot.truth_TCHW)[1:].mean() for clip in clips]))
    assert found.distance == pytest.approx(distances[0])
    assert found.noise == pytest.approx(statistics.stdev(distances))
    assert found.noise is not None and found.noise > 0
    assert validator(3).noise is None
    single = judge(recipe.model_copy(update={"validation_seeds": 1}), tmp_path)(0)
    assert single.noise is None


def test_losses_are_told_by_level_by_window_and_for_what_is_trained_on(
    judge: Judge, recipe: TrainSection, tmp_path: Path
) -> None:
    validator = judge(recipe, tmp_path)
    found = validator(3)
    assert found.v_loss_seen is None and found.v_loss_regraded_at is not None
    assert found.v_loss_regraded == pytest.approx(sum(found.v_loss_regraded_at.values()) / 4)
    both = (found.v_loss + (found.v_loss_regraded or 0)) / 2
    assert sum(found.v_loss_windows) / len(found.v_loss_windows) == pytest.approx(both)
    same = judge(recipe, tmp_path, seen=validator.held)(3)
    assert same.v_loss_seen == pytest.approx(both)  # the same windows, the same noise: the same loss


def test_colour_and_jump_read_the_clips(judge: Judge, recipe: TrainSection, tmp_path: Path, model: WanVideo) -> None:
    still = torch.full((9, 3, 32, 48), -0.2)
    flash = still.clone()
    flash[1:] += 0.6
    shot = judge(recipe, tmp_path).shots[0]

    def levels(truth: torch.Tensor) -> float:
        one = replace(shot, truth_TCHW=truth)
        return judge(recipe, tmp_path, shots=[one]).levels.jump

    assert levels(still) == 0
    grey = [lab(np.full(3, value)) for value in (0.4, 0.7)]
    assert levels(flash) == pytest.approx(float(delta_e2000(*grey)), abs=0.05)


def test_the_jump_is_that_of_clips_from_the_films_own_first_frames(
    judge: Judge, recipe: TrainSection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    still = torch.full((9, 3, 32, 48), -0.2)
    flash = still.clone()
    flash[1:] += 0.6
    validator = judge(recipe, tmp_path)
    seen = {}
    for name, row in {"re-graded": [still, flash], "own": [flash, still]}.items():
        monkeypatch.setattr(validator, "_clips", lambda seed=0, row=row: [row for _ in validator.shots])
        seen[name] = validator(3)
    grey = float(delta_e2000(*(lab(np.full(3, value)) for value in (0.4, 0.7))))
    for name, own, other in (("re-graded", 0, grey), ("own", grey, 0)):
        assert (seen[name].jump, seen[name].jump_regraded) == pytest.approx((own, other), abs=0.05)
