"""The kernel that is asked for by name computes what `nn.Conv3d` computes."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import nn

from cinetune.models.wan.conv import use_fast_conv3d


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(
    "shape",
    [
        {"kernel_size": 3, "padding": 1},
        {"kernel_size": (3, 1, 1), "stride": (2, 1, 1)},
        {"kernel_size": (1, 3, 3), "stride": (1, 2, 2), "padding": (0, 1, 1)},
        {"kernel_size": 3, "dilation": (1, 2, 2), "groups": 4},
        {"kernel_size": 3, "padding": "same"},
        {"kernel_size": 3, "padding": 1, "padding_mode": "replicate"},
    ],
)
def test_equals_conv3d(shape: dict[str, Any], bias: bool) -> None:
    torch.manual_seed(0)
    plain = nn.Sequential(nn.Conv3d(8, 16, bias=bias, **shape))
    fast = copy.deepcopy(plain)
    use_fast_conv3d(fast)
    for x in (torch.randn(1, 8, 5, 17, 19), torch.randn(2, 8, 9, 12, 30)[..., ::2], torch.randn(8, 5, 17, 19)):
        torch.testing.assert_close(fast(x), plain(x), atol=1e-5, rtol=0)
    torch.testing.assert_close(fast.double()(x.double()), plain.double()(x.double()))


def test_a_copy_convolves_with_its_own_weights() -> None:
    first = nn.Conv3d(1, 1, 1)
    use_fast_conv3d(first)
    second = copy.deepcopy(first)
    nn.init.zeros_(second.weight)
    assert second.bias is not None
    assert torch.equal(second(torch.ones(1, 1, 2, 2, 2)), torch.ones(1, 1, 2, 2, 2) * second.bias)
