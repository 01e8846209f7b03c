"""Frozen weights kept in fewer bits than they compute in: float8, int8 or 4-bit NormalFloat.

Only the linear layers inside the denoiser's blocks are stored this way (98.5 % of Wan2.1's parameters). Norms,
embeddings, modulation tables and every adapter stay as they are. A weight is decoded for the one product it is needed
in, forward and backward, and never kept decoded.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cinetune.errors import ModelError

__all__ = ["FORMATS", "NF4_BLOCK", "Format", "StoredLinear", "store_linears", "stored_bytes"]

NF4_BLOCK = 64
"""Values that share one scale in 4-bit NormalFloat."""
_NF4_OFFSET = 0.9677083  # the outermost quantile of Dettmers et al., arXiv 2305.14314


def _encode_fp8(weight_OI: Tensor) -> tuple[Tensor, Tensor]:
    """float8_e4m3fn (seen as bytes) and a power of two per row, which brings the row's largest value below 448."""
    largest = weight_OI.detach().float().abs().amax(1, keepdim=True).clamp(min=2.0**-100)
    scale = torch.exp2(torch.ceil(torch.log2(largest / 448)))
    return (weight_OI.float() / scale).to(torch.float8_e4m3fn).view(torch.uint8), scale


def _decode_fp8(code: Tensor, scale: Tensor, _: torch.Size, dtype: torch.dtype) -> Tensor:
    return (code.view(torch.float8_e4m3fn).to(dtype) * scale.to(dtype)).to(dtype)


def _encode_int8(weight_OI: Tensor) -> tuple[Tensor, Tensor]:
    """Whole numbers from -127 to 127 and one scale per row."""
    weight = weight_OI.detach().float()
    scale = weight.abs().amax(1, keepdim=True).clamp(min=2.0**-100) / 127
    return (weight / scale).round().to(torch.int8), scale


def _decode_int8(code: Tensor, scale: Tensor, _: torch.Size, dtype: torch.dtype) -> Tensor:
    return (code.float() * scale).to(dtype)


def _nf4_levels() -> list[float]:
    """The 16 levels of NormalFloat4: quantiles of a normal distribution, 8 above zero, 7 below, scaled to [-1, 1]
    (Dettmers et al., arXiv 2305.14314, appendix E).
    """

    def quantiles(count: int) -> list[float]:
        p = torch.linspace(_NF4_OFFSET, 0.5, count, dtype=torch.float64)[:-1]
        return (math.sqrt(2) * torch.erfinv(2 * p - 1)).tolist()

    above, below = quantiles(9), quantiles(8)
    return sorted([0.0, *(value / above[0] for value in above), *(-value / above[0] for value in below)])


_NF4 = torch.tensor(_nf4_levels(), dtype=torch.float32)


def _encode_nf4(weight_OI: Tensor) -> tuple[Tensor, Tensor]:
    """Two 4-bit codes to a byte (the first in the high half) and the largest magnitude of every 64 values."""
    flat = weight_OI.detach().float().flatten()
    blocks = F.pad(flat, (0, -flat.numel() % NF4_BLOCK)).view(-1, NF4_BLOCK)
    largest = blocks.abs().amax(1, keepdim=True).clamp(min=2.0**-100)
    levels = _NF4.to(blocks.device)
    code = torch.bucketize(blocks / largest, (levels[1:] + levels[:-1]) / 2).to(torch.uint8)
    return (code[:, ::2] << 4) | code[:, 1::2], largest


def _decode_nf4(code: Tensor, scale: Tensor, shape: torch.Size, dtype: torch.dtype) -> Tensor:
    levels = _NF4.to(code.device)
    halves = torch.stack([code >> 4, code & 15], dim=2).flatten(1)
    values = levels[halves.long()] * scale
    return values.flatten()[: shape.numel()].view(shape).to(dtype)


@dataclass(frozen=True, slots=True, kw_only=True)
class Format:
    """How a weight `[out, in]` becomes (code, scale) and comes back, and how many bits each parameter takes."""

    encode: Callable[[Tensor], tuple[Tensor, Tensor]]
    decode: Callable[[Tensor, Tensor, torch.Size, torch.dtype], Tensor]
    bits: float


FORMATS = {
    "fp8": Format(encode=_encode_fp8, decode=_decode_fp8, bits=8),
    "int8": Format(encode=_encode_int8, decode=_decode_int8, bits=8),
    "nf4": Format(encode=_encode_nf4, decode=_decode_nf4, bits=4.5),
}
"""Values of `model.storage` other than `plain`."""


class _Product(torch.autograd.Function):
    """`x W^T + b` with a stored W. Autograd's own would keep the decoded W of every layer until the backward."""

    @staticmethod
    def forward(x: Tensor, code: Tensor, scale: Tensor, bias: Tensor | None, kind: Format, shape: torch.Size) -> Tensor:
        return F.linear(x, kind.decode(code, scale, shape, x.dtype), bias)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:  # noqa: ARG004
        _, code, scale, _, ctx.kind, ctx.shape = inputs
        ctx.save_for_backward(code, scale)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> Any:
        (grad,) = grad_outputs
        weight = ctx.kind.decode(*ctx.saved_tensors, ctx.shape, grad.dtype)
        return grad @ weight, None, None, None, None, None


class _Float8Product(torch.autograd.Function):
    """`x W^T + b` with W in float8 and x rounded to float8 row by row, multiplied as they are; likewise the gradient.
    Results are bfloat16.
    """

    @staticmethod
    def forward(x: Tensor, code: Tensor, scale_O1: Tensor, bias: Tensor | None) -> Tensor:
        rows, scale = _float8_rows(x.flatten(0, -2))
        weight = code.view(torch.float8_e4m3fn)
        product = torch._scaled_mm(rows, weight.t(), scale, scale_O1.t().contiguous(), out_dtype=torch.bfloat16)
        product = product.view(*x.shape[:-1], -1).to(x.dtype)
        return product if bias is None else product + bias.to(x.dtype)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:  # noqa: ARG004
        _, code, scale_O1, _ = inputs
        ctx.save_for_backward(code, scale_O1)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> Any:
        (grad,) = grad_outputs
        code, scale_O1 = ctx.saved_tensors
        # W's scales stand in the direction that is summed over here, so they are taken into the gradient first
        rows, scale = _float8_rows(grad.flatten(0, -2) * scale_O1.t().to(grad.dtype))
        weight = code.t().contiguous().t().view(torch.float8_e4m3fn)  # column by column, as the kernel wants it
        one = torch.ones(1, code.shape[1], device=grad.device)
        product = torch._scaled_mm(rows, weight, scale, one, out_dtype=torch.bfloat16)
        return product.view(*grad.shape[:-1], -1).to(grad.dtype), None, None, None


def _float8_rows(x_NI: Tensor) -> tuple[Tensor, Tensor]:
    """Rows rounded to float8_e4m3fn, each scaled so that its largest value is 448, and the scales `[N, 1]`."""
    scale = x_NI.float().abs().amax(1, keepdim=True).clamp(min=2.0**-100) / 448
    return (x_NI.float() / scale).to(torch.float8_e4m3fn), scale


class StoredLinear(nn.Linear):
    """A frozen linear layer in one of `FORMATS`; an adapter can be attached to it as to any other. With `multiplies` a
    weight in float8 is multiplied as it is, which is faster on cards that can and rounds what goes in.

    `weight` holds the code as bytes, so that no conversion of the whole model to another float type touches it.
    """

    def __init__(self, linear: nn.Linear, name: str, *, multiplies: bool = False) -> None:
        nn.Module.__init__(self)
        self.in_features, self.out_features = linear.in_features, linear.out_features
        self.kind = FORMATS[name]
        self.multiplies = multiplies and name == "fp8" and not (self.in_features % 16 or self.out_features % 16)
        code, scale = self.kind.encode(linear.weight)
        self.weight = nn.Parameter(code, requires_grad=False)
        self.scale = nn.Parameter(scale, requires_grad=False)
        self.bias = linear.bias

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002  (nn.Linear's own name)
        if self.multiplies:
            return _Float8Product.apply(input, self.weight, self.scale, self.bias)  # pyright: ignore[reportReturnType]
        shape = torch.Size((self.out_features, self.in_features))
        return _Product.apply(input, self.weight, self.scale, self.bias, self.kind, shape)  # pyright: ignore[reportReturnType]

    def decoded(self, dtype: torch.dtype = torch.float32) -> Tensor:
        """The weight `[out, in]` that it computes with."""
        shape = torch.Size((self.out_features, self.in_features))
        return self.kind.decode(self.weight, self.scale, shape, dtype)


@torch.no_grad()
def store_linears(block: nn.Module, name: str, *, multiplies: bool = False) -> None:
    """Put every linear layer of a block into the format `name`, in place; `multiplies` as for `StoredLinear`.

    Raises `ModelError` when a weight is not finite: no format could hold it.
    """
    for key, module in list(block.named_modules()):
        if type(module) is not nn.Linear:
            continue
        if module.weight.device.type != "meta" and not bool(torch.isfinite(module.weight).all()):
            raise ModelError(f"the weight {key} is not finite", remedy="download the weights again")
        parent, _, last = key.rpartition(".")
        setattr(block.get_submodule(parent), last, StoredLinear(module, name, multiplies=multiplies))


def stored_bytes(denoiser: nn.Module) -> int:
    """Bytes of all parameters as they are stored now."""
    return sum(parameter.numel() * parameter.element_size() for parameter in denoiser.parameters())
