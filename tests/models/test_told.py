"""What does not change from step to step is worked out once: counted on the real classes."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch

from cinetune.models.wan.sample import sample
from cinetune.models.wan.told import Remembered
from cinetune.models.wan.wan21 import WanVideo

STEPS = 5


@pytest.fixture(params=[False, True], ids=["all pads", "folded pads"])
def counted(tiny_folder: Path, request: pytest.FixtureRequest) -> tuple[WanVideo, Counter[str]]:
    """A model, and how often its parts worked."""
    model = WanVideo.from_folder(tiny_folder, family="pocket", short_ways=request.param)
    counts: Counter[str] = Counter()
    embedder, rope = model.denoiser.condition_embedder, model.denoiser.rope
    assert embedder.image_embedder is not None
    for name, part in (("text", embedder.text_embedder.linear_1), ("picture", embedder.image_embedder.norm1)):
        part.register_forward_hook(lambda *_, name=name: counts.update([name]))
    for name, part in (("time", embedder.time_embedder), ("pass", model.denoiser)):
        part.register_forward_hook(lambda *_, name=name: counts.update([name]))
    tables: Any = rope.forward
    real = tables.call
    tables.call = lambda x: (counts.update(["tables"]), real(x))[1]
    return model, counts


@pytest.mark.parametrize("guidance", [1.0, 3.0])
def test_sampling_tells_the_denoiser_once_whatever_the_number_of_steps(
    counted: tuple[WanVideo, Counter[str]], guidance: float
) -> None:
    model, counts = counted
    negative = ["rain"] if guidance > 1 else None
    cond = model.condition(["the car"], torch.zeros(1, 3, 32, 48), 5, negative=negative)
    sample(model, cond, torch.randn(1, 16, 2, 8, 12), steps=STEPS, guidance=guidance, shift=3.0)
    passes = STEPS * (2 if negative else 1)
    texts = 2 if negative else 1
    assert counts["pass"] == counts["time"] == passes
    assert counts["text"] == texts and counts["picture"] <= texts and counts["tables"] == 1


def test_another_text_or_a_changed_one_is_told_again(counted: tuple[WanVideo, Counter[str]]) -> None:
    model, counts = counted
    cond = model.condition(["the car"], torch.zeros(1, 3, 32, 48), 5)
    x, sigma = torch.randn(1, 16, 2, 8, 12), torch.tensor([0.5])
    with torch.no_grad():
        first = model.velocity(x, sigma, cond)
        assert torch.equal(model.velocity(x, sigma, cond), first) and counts["text"] == 1
        cond.text_BLD.mul_(2.0)
        changed = model.velocity(x, sigma, cond)
        assert counts["text"] == 2 and not torch.equal(changed, first)
        other = model.condition(["a hill"], torch.zeros(1, 3, 32, 48), 5)
        assert not torch.equal(model.velocity(x, sigma, other), changed) and counts["text"] == 3
        wide = model.condition(["a hill"], torch.zeros(1, 3, 48, 48), 5)
        model.velocity(torch.randn(1, 16, 2, 12, 12), sigma, wide)
        assert counts["tables"] == 2


def test_only_the_last_answers_are_kept() -> None:
    calls: list[Any] = []
    half = Remembered(lambda x: calls.append(x) or x / 2)
    a, b, c = (torch.ones(1) * n for n in (1, 2, 3))
    for asked in (a, b, a, b):
        assert float(half(asked)) == float(asked) / 2
    assert len(calls) == 2
    half(c)
    half(a)
    assert len(calls) == 4 and len(half.known) == 2
