"""The denoising loop beside its parity with diffusers: part of a schedule, guidance, refusals."""

from __future__ import annotations

import pytest
import torch

from cinetune.errors import ModelError
from cinetune.models.family import Conditioning
from cinetune.models.wan.sample import sample
from cinetune.models.wan.wan21 import WanVideo


@pytest.fixture
def cond(model: WanVideo) -> Conditioning:
    picture = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1
    return model.condition(["a man in the rain"], picture, 5, negative=["dusk"])


NOISE = torch.randn(1, 16, 2, 8, 8, generator=torch.Generator().manual_seed(1))
START = torch.randn(1, 16, 2, 8, 8, generator=torch.Generator().manual_seed(2))


def test_strength_moves_away_from_the_start_step_by_step(model: WanVideo, cond: Conditioning) -> None:
    moved: list[float] = []
    for strength, steps in ((0.0, 0), (0.25, 1), (0.5, 2), (1.0, 4)):
        seen: list[tuple[int, int]] = []
        made = sample(
            model,
            cond,
            NOISE,
            steps=4,
            guidance=1.0,
            shift=3.0,
            start_latents=START,
            strength=strength,
            on_step=lambda done, total, seen=seen: seen.append((done, total)),
        )
        assert seen == [(k, steps) for k in range(1, steps + 1)]
        moved.append((made - START).norm().item())
    assert moved[0] == 0 and moved == sorted(moved) and moved[1] > 1
    assert torch.equal(made, sample(model, cond, NOISE, steps=4, guidance=1.0, shift=3.0))


def test_guidance_needs_negative_text(model: WanVideo, cond: Conditioning, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[torch.Tensor] = []
    real = model.velocity
    monkeypatch.setattr(model, "velocity", lambda x, sigma, c: calls.append(c.text_BLD) or real(x, sigma, c))
    plain = sample(model, cond, NOISE, steps=2, guidance=1.0, shift=3.0)
    assert len(calls) == 2
    guided = sample(model, cond, NOISE, steps=2, guidance=4.0, shift=3.0)
    assert len(calls) == 6 and not torch.equal(calls[2], calls[3])
    assert not torch.equal(plain, guided)


def test_a_batch_is_its_items(model: WanVideo, cond: Conditioning) -> None:
    double = Conditioning(
        text_BLD=cond.text_BLD.repeat(2, 1, 1),
        image_BLD=cond.image_BLD.repeat(2, 1, 1),
        latent_BCfhw=cond.latent_BCfhw.repeat(2, 1, 1, 1, 1),
    )
    both = sample(model, double, torch.cat([NOISE, START]), steps=3, guidance=1.0, shift=3.0)
    alone = sample(model, cond, START, steps=3, guidance=1.0, shift=3.0)
    torch.testing.assert_close(both[1:], alone, atol=1e-4, rtol=1e-4)


def test_held_latents_are_reached_on_a_straight_way_and_move_the_rest(
    model: WanVideo, cond: Conditioning, monkeypatch: pytest.MonkeyPatch
) -> None:
    held, seen = START[:, :, :1], list[tuple[float, torch.Tensor]]()
    velocity = WanVideo.velocity

    def watched(self: WanVideo, x: torch.Tensor, sigma: torch.Tensor, given: Conditioning) -> torch.Tensor:
        seen.append((float(sigma[0]), x[:, :, :1].clone()))
        return velocity(self, x, sigma, given)

    free = sample(model, cond, NOISE, steps=4, guidance=1.0, shift=3.0)
    monkeypatch.setattr(WanVideo, "velocity", watched)
    made = sample(model, cond, NOISE, steps=4, guidance=1.0, shift=3.0, held_BCfhw=held)
    torch.testing.assert_close(made[:, :, :1], held, atol=1e-4, rtol=0)
    assert len(seen) == 4
    for sigma, x in seen:  # what the model sees there is the held frame at the noise level of the step
        torch.testing.assert_close(x, (1 - sigma) * held + sigma * NOISE[:, :, :1], atol=1e-2, rtol=0)
    assert not torch.allclose(made[:, :, 1:], free[:, :, 1:], atol=1e-3)


def test_sampling_leaves_its_inputs_alone(model: WanVideo, cond: Conditioning) -> None:
    noise, start = NOISE.clone(), START.clone()
    sample(model, cond, noise, steps=2, guidance=1.0, shift=3.0, start_latents=start, strength=0.5)
    assert torch.equal(noise, NOISE) and torch.equal(start, START)


def test_what_does_not_fit_is_refused(model: WanVideo, cond: Conditioning) -> None:
    for noise in (NOISE[:, :, :1], NOISE[:, :8], NOISE.repeat(2, 1, 1, 1, 1)):
        with pytest.raises(ModelError, match="does not fit"):
            sample(model, cond, noise, steps=1, guidance=1.0, shift=3.0)
    with pytest.raises(ModelError, match="strength"):
        sample(model, cond, NOISE, steps=1, guidance=1.0, shift=3.0, strength=0.5)
    with pytest.raises(ModelError, match="NaN"):
        sample(model, cond, NOISE * torch.nan, steps=1, guidance=1.0, shift=3.0)
