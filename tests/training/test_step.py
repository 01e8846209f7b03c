"""The loss against arithmetic written out by hand, and what caption dropout touches."""

from __future__ import annotations

import pytest
import torch

from cinetune.models.adapters.lora import add_lora
from cinetune.models.wan.wan21 import WanVideo
from cinetune.sections import TrainSection
from cinetune.training.data import WindowFile, batch_shape, load_batch
from cinetune.training.step import Draws, draw, step_loss

ULPS = 64
"""How far sums in another order may lie apart: length of the difference over length of the gradient, in float32's
epsilons."""


def _draws(files: list[WindowFile], *, dropout: float, seed: int = 0) -> Draws:
    return draw(batch_shape(files), torch.Generator().manual_seed(seed), TrainSection(caption_dropout=dropout))


def test_loss_equals_the_formula(model: WanVideo, files: list[WindowFile], empty: torch.Tensor) -> None:
    pair = files[:2]
    batch = load_batch(pair, [0, 1])
    draws = _draws(pair, dropout=0.0)
    with torch.no_grad():
        loss_B = step_loss(model, batch, draws, empty_1LD=empty)
        for i in range(2):
            sigma, x0, noise = draws.sigma_B[i], batch.latents_BCfhw[i], draws.noise_BCfhw[i]
            seen = torch.cat([x0 + sigma * (noise - x0), batch.cond.latent_BCfhw[i]])[None]
            predicted = model.denoiser(
                hidden_states=seen,
                timestep=sigma[None] * 1000,
                encoder_hidden_states=batch.cond.text_BLD[i : i + 1],
                encoder_hidden_states_image=batch.cond.image_BLD[i : i + 1],
                return_dict=False,
            )[0]
            assert float(loss_B[i]) == pytest.approx(float((predicted[0] - noise + x0).pow(2).mean()), rel=1e-4)


def test_dropout_replaces_the_text_and_only_the_text(
    model: WanVideo, files: list[WindowFile], empty: torch.Tensor
) -> None:
    pair = files[:2]
    batch = load_batch(pair, [0, 0])
    kept = _draws(pair, dropout=0.0)
    one = Draws(sigma_B=kept.sigma_B, noise_BCfhw=kept.noise_BCfhw, drop_B=torch.tensor([False, True]))
    batch.cond.text_BLD[0] += 0  # the batch of the second call must be the same object, unharmed
    with torch.no_grad():
        with_text = step_loss(model, batch, kept, empty_1LD=empty)
        without = step_loss(model, batch, one, empty_1LD=empty)
        batch.cond.text_BLD[1] = empty[0]
        by_hand = step_loss(model, batch, kept, empty_1LD=empty)
    assert with_text[0] == without[0]
    assert with_text[1] != without[1]
    assert torch.equal(without, by_hand)


def test_draws_are_stratified_and_reproducible(files: list[WindowFile]) -> None:
    many = [files[0]] * 64
    draws, again = _draws(many, dropout=0.25), _draws(many, dropout=0.25)
    assert torch.equal(draws.noise_BCfhw, again.noise_BCfhw)
    assert torch.equal(draws.sigma_B, again.sigma_B)
    assert 0.05 < draws.drop_B.float().mean() < 0.5
    plain = draws.sigma_B / (3 - 2 * draws.sigma_B)  # the shift undone
    strata = (torch.special.ndtr(torch.logit(plain.double())) * 64).floor().long()
    assert sorted(strata.tolist()) == list(range(64))


def test_parts_of_a_step_are_the_step(files: list[WindowFile]) -> None:
    draws = _draws(files[:3], dropout=0.5)
    parts = [draws.part(rows) for rows in (slice(0, 2), slice(2, 4))]
    assert [len(part.sigma_B) for part in parts] == [2, 1]
    for name in ("sigma_B", "noise_BCfhw", "drop_B"):
        assert torch.equal(torch.cat([getattr(part, name) for part in parts]), getattr(draws, name))


def test_accumulated_gradients_are_those_of_the_larger_batch(
    model: WanVideo, files: list[WindowFile], empty: torch.Tensor
) -> None:
    """Four micro-batches of one, two of two, one of four: sums of the same numbers in another order."""
    parameters = dict(add_lora(model, rank=2, alpha=4, targets="cross", seed=0))
    with torch.no_grad():
        for number, parameter in enumerate(parameters.values()):
            parameter.copy_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(number)) * 0.1)
    four, variants = files[:4], (0, 1, 2, 0)
    draws = _draws(four, dropout=0.3)
    gradients: dict[int, dict[str, torch.Tensor]] = {}
    for size in (4, 2, 1):
        for start in range(0, 4, size):
            rows = slice(start, start + size)
            part, piece = load_batch(four[rows], variants[rows]), draws.part(rows)
            (step_loss(model, part, piece, empty_1LD=empty).sum() / 4).backward()
        gradients[size] = {name: parameter.grad.clone() for name, parameter in parameters.items()}  # type: ignore[union-attr]
        model.denoiser.zero_grad()
    whole = torch.cat([gradient.flatten() for gradient in gradients[4].values()])
    for size in (2, 1):
        parts = torch.cat([gradient.flatten() for gradient in gradients[size].values()])
        apart = float((parts - whole).norm() / whole.norm()) / torch.finfo(torch.float32).eps
        assert apart < ULPS, (size, apart)
