"""A moving average of the adapter (EMA): smoother than the last step, and what is judged and kept when it is on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor

__all__ = ["ema_applied", "ema_update"]


@torch.no_grad()
def ema_update(average: dict[str, Tensor], parameters: Mapping[str, Tensor], decay: float) -> None:
    """Move the average towards the parameters: `a <- decay a + (1 - decay) p`, in place; an empty one starts as a copy.

    With `decay` 0 nothing is kept. From `a_0 = p_0`, after t steps `a_t = d^t p_0 + (1 - d) sum_k d^(t-k) p_k`.
    """
    if decay == 0:
        return
    for name, parameter in parameters.items():
        if name in average:
            average[name].lerp_(parameter, 1 - decay)
        else:
            average[name] = parameter.detach().clone()


@contextmanager
def ema_applied(average: Mapping[str, Tensor], parameters: Mapping[str, Tensor]) -> Iterator[None]:
    """The parameters hold the average inside the `with` block and have their own values, bit for bit, after it; an
    empty average changes nothing.
    """
    with torch.no_grad():
        own = {name: parameters[name].detach().clone() for name in average}
        for name, value in average.items():
            parameters[name].copy_(value)
    try:
        yield
    finally:
        with torch.no_grad():
            for name, value in own.items():
                parameters[name].copy_(value)
