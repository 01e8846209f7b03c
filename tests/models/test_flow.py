"""The arithmetic of rectified flow against its closed forms and diffusers' scheduler."""

from __future__ import annotations

import math

import pytest
import torch
from diffusers import UniPCMultistepScheduler
from hypothesis import given
from hypothesis import strategies as st

from cinetune.models.wan.flow import add_noise, sample_sigmas, schedule, shift_sigma, target


@pytest.mark.parametrize(
    ("sigma", "shift", "want"), [(0.5, 3.0, 0.75), (0.5, 5.0, 5 / 6), (0.2, 1.0, 0.2), (0.0, 3.0, 0), (1.0, 3.0, 1)]
)
def test_shift_table(sigma: float, shift: float, want: float) -> None:
    assert shift_sigma(torch.tensor(sigma, dtype=torch.float64), shift).item() == pytest.approx(want)


@pytest.mark.parametrize("shift", [1.0, 3.0, 5.0])
@pytest.mark.parametrize("steps", [1, 8, 40, 50])
def test_schedule_is_the_schedulers(steps: int, shift: float) -> None:
    scheduler = UniPCMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=shift)
    scheduler.set_timesteps(steps)
    assert torch.equal(schedule(steps, shift), scheduler.sigmas)


def test_schedule_falls_to_zero() -> None:
    sigmas = schedule(40, 3.0)
    assert len(sigmas) == 41 and sigmas[-1] == 0 and bool((sigmas.diff() < 0).all())


@given(st.floats(0, 1))
def test_a_step_along_the_target_reaches_the_picture(level: float) -> None:
    gen = torch.Generator().manual_seed(1)
    x0, noise = torch.randn(2, 4, 1, 2, 2, generator=gen), torch.randn(2, 4, 1, 2, 2, generator=gen)
    sigma = torch.tensor([level, 1 - level])
    back = add_noise(x0, noise, sigma) - sigma.view(2, 1, 1, 1, 1) * target(x0, noise)
    torch.testing.assert_close(back, x0, atol=1e-5, rtol=0)


def test_each_item_gets_its_own_noise_level() -> None:
    x0, noise = torch.zeros(2, 1, 1, 1, 1), torch.ones(2, 1, 1, 1, 1)
    assert add_noise(x0, noise, torch.tensor([0.25, 1.0])).flatten().tolist() == [0.25, 1.0]


def test_logit_normal_has_its_quantiles() -> None:
    sigmas = sample_sigmas(4000, torch.Generator().manual_seed(0), scheme="logit-normal", shift=1.0).double()
    want = torch.sigmoid(torch.special.ndtri(torch.tensor([0.1, 0.5, 0.9], dtype=torch.float64)))
    torch.testing.assert_close(
        sigmas.quantile(torch.tensor([0.1, 0.5, 0.9], dtype=torch.float64)), want, atol=2e-3, rtol=0
    )


def test_stratified_draws_cover_every_stratum() -> None:
    sigmas = sample_sigmas(16, torch.Generator().manual_seed(3), scheme="uniform", shift=1.0)
    assert sorted((sigmas * 16).int().tolist()) == list(range(16))
    assert sigmas.tolist() != sorted(sigmas.tolist())


def test_shift_moves_training_levels_up() -> None:
    plain = sample_sigmas(64, torch.Generator().manual_seed(0), scheme="logit-normal", shift=1.0)
    moved = sample_sigmas(64, torch.Generator().manual_seed(0), scheme="logit-normal", shift=3.0)
    torch.testing.assert_close(moved, shift_sigma(plain, 3.0))
    assert math.isclose(moved.min().item(), shift_sigma(plain.min(), 3.0).item(), rel_tol=1e-6)


def test_draws_are_repeatable() -> None:
    draws = [
        sample_sigmas(5, torch.Generator().manual_seed(9), scheme="uniform", shift=2.0, stratified=False)
        for _ in range(2)
    ]
    assert torch.equal(*draws)
