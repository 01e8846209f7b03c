"""The preview's step cache: what it leaves out, and that it leaves the model as it was."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from cinetune.generation import Recipe, StepCached, generate, preview_size
from cinetune.models.wan.wan21 import WanVideo
from small_project import moving_picture
from support import tiny_wan

RECIPE = Recipe(prompt="a barn at dusk", negative="", frames=9, steps=6, guidance=2.0, shift=3.0)


@pytest.fixture
def model() -> WanVideo:
    return tiny_wan()


def calls(model: WanVideo) -> list[int]:
    """Counts how often the last block computes."""
    count = [0]
    denoiser: Any = model.denoiser
    denoiser.blocks[-1].attn1.register_forward_hook(lambda *_: count.__setitem__(0, count[0] + 1))
    return count


def test_without_a_threshold_it_is_the_model_and_with_one_blocks_are_left_out(model: WanVideo) -> None:
    picture = torch.from_numpy(moving_picture(3, frames=1)[0])
    count = calls(model)
    plain = generate(model, picture, RECIPE, seed=1)
    assert count[0] == 12  # six steps, text and negative text
    exact = StepCached(model, 0.0)
    assert torch.equal(generate(exact, picture, RECIPE, seed=1), plain)
    exact.release()
    count[0] = 0
    eager = StepCached(model, 10.0)
    first = generate(eager, picture, RECIPE, seed=1)
    assert count[0] == 2  # only the first step of each text is computed whole
    assert not torch.equal(first, plain)
    # the next segment begins anew: the same segment again is the same
    assert torch.equal(generate(eager, picture, RECIPE, seed=1), first)
    eager.release()
    assert torch.equal(generate(model, picture, RECIPE, seed=1), plain)


@pytest.mark.parametrize(
    ("size", "share", "expected"), [((480, 832), 0.5, (240, 416)), ((64, 96), 0.5, (32, 48)), ((16, 16), 0.1, (16, 16))]
)
def test_a_preview_is_on_the_models_grid(size: tuple[int, int], share: float, expected: tuple[int, int]) -> None:
    assert preview_size(size, share, 16) == expected
