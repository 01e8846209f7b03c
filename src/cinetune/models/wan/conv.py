"""Convolution on a CPU, as fast as it goes there and equal but for rounding.

For one small clip torch chooses a plain kernel for 3-D convolution, three to four times slower than the one it uses for
two; so oneDNN is called by name. With the channels of a pixel side by side in memory (channels last) its kernels take
half the time, and the norms between them, which add up over channels, a ninth. The output keeps the layout, so it is
made once for a whole network.
"""

from __future__ import annotations

from types import MethodType
from typing import Any

import torch
import torch.nn.functional as F
from diffusers.models.autoencoders.autoencoder_kl_wan import WanCausalConv3d
from torch import Tensor, nn

__all__ = ["use_fast_conv3d"]

LAST = torch.channels_last_3d


def use_fast_conv3d(network: nn.Module) -> None:
    """Make every `Conv3d` of the network call oneDNN by name where its input is float32 on a CPU, in channels-last
    layout; anywhere else, and where torch was built without oneDNN, nothing changes.
    """
    if not torch.backends.mkldnn.is_available():
        return
    for module in network.modules():
        if isinstance(module, nn.Conv3d):
            module._conv_forward = MethodType(_convolve, module)  # pyright: ignore[reportPrivateUsage]
        if isinstance(module, WanCausalConv3d):
            module.forward = MethodType(_causal, module)


def _here(x: Tensor) -> bool:
    return x.device.type == "cpu" and x.dtype == torch.float32 and x.dim() == 5


def _convolve(module: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    if not _here(x) or module.padding_mode != "zeros" or isinstance(module.padding, str):
        return nn.Conv3d._conv_forward(module, x, weight, bias)  # pyright: ignore[reportPrivateUsage]
    x, weight = x.contiguous(memory_format=LAST), weight.contiguous(memory_format=LAST)
    return torch.mkldnn_convolution(x, weight, bias, module.padding, module.stride, module.dilation, module.groups)


def _causal(module: Any, x: Tensor, cache_x: Tensor | None = None) -> Tensor:
    """Wan's causal convolution, its zeros around the picture left to the kernel instead of written around it."""
    if not _here(x):
        return WanCausalConv3d.forward(module, x, cache_x)
    across, _, down, _, before, _ = module._padding
    if cache_x is not None and before > 0:
        x, before = torch.cat([cache_x, x], dim=2), before - cache_x.shape[2]
    x = F.pad(x, (0, 0, 0, 0, before, 0)) if before else x
    x, weight = x.contiguous(memory_format=LAST), module.weight.contiguous(memory_format=LAST)
    padding = (0, down, across)
    return torch.mkldnn_convolution(x, weight, module.bias, padding, module.stride, module.dilation, module.groups)
