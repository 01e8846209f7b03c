"""3-D convolution on a CPU: for one small clip torch chooses a plain kernel that is three to four times slower than the
one it uses for two.
"""

from __future__ import annotations

from types import MethodType
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["use_fast_conv3d"]


def use_fast_conv3d(network: nn.Module) -> None:
    """Make every `Conv3d` of the network call oneDNN by name where its input is float32 on a CPU; anywhere else, and
    where torch was built without oneDNN, nothing changes.
    """
    if not torch.backends.mkldnn.is_available():
        return
    for module in network.modules():
        if isinstance(module, nn.Conv3d):
            module._conv_forward = MethodType(_convolve, module)  # pyright: ignore[reportPrivateUsage]


def _convolve(module: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    here = x.device.type == "cpu" and x.dtype == torch.float32 and x.dim() == 5
    if not here or module.padding_mode != "zeros" or isinstance(module.padding, str):
        return nn.Conv3d._conv_forward(module, x, weight, bias)  # pyright: ignore[reportPrivateUsage]
    return torch.mkldnn_convolution(x, weight, bias, module.padding, module.stride, module.dilation, module.groups)
