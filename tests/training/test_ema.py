"""The moving average: its closed form, and parameters that come back bit for bit."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from cinetune.training.ema import ema_applied, ema_update


def test_it_is_the_closed_form() -> None:
    """a_t = d^t p_0 + (1 - d) sum_k d^(t-k) p_k, in float64 from the whole history."""
    decay, gen = 0.9, torch.Generator().manual_seed(0)
    history = [torch.randn(4, 3, generator=gen) for _ in range(31)]
    average: dict[str, Tensor] = {}
    for value in history:
        ema_update(average, {"a": value}, decay)
    last = len(history) - 1
    expected = decay**last * history[0].double()
    for step, value in enumerate(history[1:], 1):
        expected += (1 - decay) * decay ** (last - step) * value.double()
    torch.testing.assert_close(average["a"].double(), expected, rtol=0, atol=1e-6)
    assert not torch.allclose(average["a"], history[-1])


def test_off_keeps_nothing() -> None:
    average: dict[str, Tensor] = {}
    ema_update(average, {"a": torch.ones(2)}, 0.0)
    assert average == {}


def test_worn_inside_and_as_before_after() -> None:
    parameter = torch.nn.Parameter(torch.tensor([0.1, 0.2]))
    before = parameter.detach().clone()
    with pytest.raises(RuntimeError), ema_applied({"a": torch.tensor([5.0, 6.0])}, {"a": parameter}):
        assert parameter.tolist() == [5.0, 6.0]
        raise RuntimeError
    assert torch.equal(parameter.detach(), before)
