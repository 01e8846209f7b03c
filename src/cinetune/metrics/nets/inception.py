"""Inception-v3 as FID uses it: the network of the TensorFlow release of 2015-12-05, up to its 2048 pooled features.

Szegedy et al. 2016, arXiv 1512.00567. It is not the ImageNet model of vision libraries: its averages leave padding
out, and the pool of its last block takes the highest value. State-dict keys are those of the published port.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cinetune.errors import ScoreError

__all__ = ["InceptionFeatures"]

# (name, channels out, kernel, stride). Stride 1 keeps the size, stride 2 has no padding.
Conv = tuple[str, int, tuple[int, int], int]
_ONE, _THREE, _FIVE, _ROW, _COLUMN = (1, 1), (3, 3), (5, 5), (1, 7), (7, 1)
_DOUBLE: tuple[Conv, ...] = (
    ("branch3x3dbl_1", 64, _ONE, 1),
    ("branch3x3dbl_2", 96, _THREE, 1),
    ("branch3x3dbl_3", 96, _THREE, 1),
)


class _ConvNorm(nn.Module):
    def __init__(self, wide_in: int, wide_out: int, kernel: tuple[int, int], stride: int, *, same: bool = True) -> None:
        super().__init__()
        padding = (kernel[0] // 2, kernel[1] // 2) if same and stride == 1 else (0, 0)
        self.conv = nn.Conv2d(wide_in, wide_out, kernel, stride, padding, bias=False)
        self.bn = nn.BatchNorm2d(wide_out, eps=1e-3)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.bn(self.conv(x)))


class _Mixed(nn.Module):
    """Chains of convolutions side by side, and a pool; `forks` are the last convolutions of a chain that splits in two.

    `pool` is `avg` (followed by a 1 x 1 convolution), `max` (the same) or `shrink` (stride 2, nothing after it).
    """

    def __init__(
        self, wide_in: int, chains: tuple[tuple[Conv, ...], ...], *, pool: str, pooled: int = 0,
        forks: dict[int, tuple[Conv, Conv]] | None = None,
    ) -> None:  # fmt: skip
        super().__init__()
        self._chains, self._forks, self._pool = chains, forks or {}, pool
        self.width = pooled or wide_in
        for number, chain in enumerate(chains):
            wide = wide_in
            for name, wide_out, kernel, stride in chain:
                self.add_module(name, _ConvNorm(wide, wide_out, kernel, stride))
                wide = wide_out
            ends = self._forks.get(number, ())
            for name, wide_out, kernel, stride in ends:
                self.add_module(name, _ConvNorm(wide, wide_out, kernel, stride))
            self.width += sum(end[1] for end in ends) if ends else wide
        if pooled:
            self.branch_pool = _ConvNorm(wide_in, pooled, _ONE, 1)

    def forward(self, x: Tensor) -> Tensor:
        parts: list[Tensor] = []
        for number, chain in enumerate(self._chains):
            y = x
            for name, *_ in chain:
                y = self.get_submodule(name)(y)
            ends = self._forks.get(number, ())
            parts += [self.get_submodule(name)(y) for name, *_ in ends] if ends else [y]
        match self._pool:
            case "avg":
                y = F.avg_pool2d(x, 3, stride=1, padding=1, count_include_pad=False)
            case "max":
                y = F.max_pool2d(x, 3, stride=1, padding=1)
            case _:
                y = F.max_pool2d(x, 3, stride=2)
        parts.append(self.branch_pool(y) if self._pool != "shrink" else y)
        return torch.cat(parts, 1)


def _wide(wide_in: int, pooled: int) -> _Mixed:
    five: tuple[Conv, ...] = (("branch5x5_1", 48, _ONE, 1), ("branch5x5_2", 64, _FIVE, 1))
    return _Mixed(wide_in, ((("branch1x1", 64, _ONE, 1),), five, _DOUBLE), pool="avg", pooled=pooled)


def _seven(narrow: int) -> _Mixed:
    once: tuple[Conv, ...] = (
        ("branch7x7_1", narrow, _ONE, 1),
        ("branch7x7_2", narrow, _ROW, 1),
        ("branch7x7_3", 192, _COLUMN, 1),
    )
    twice: tuple[Conv, ...] = (
        ("branch7x7dbl_1", narrow, _ONE, 1),
        ("branch7x7dbl_2", narrow, _COLUMN, 1),
        ("branch7x7dbl_3", narrow, _ROW, 1),
        ("branch7x7dbl_4", narrow, _COLUMN, 1),
        ("branch7x7dbl_5", 192, _ROW, 1),
    )
    return _Mixed(768, ((("branch1x1", 192, _ONE, 1),), once, twice), pool="avg", pooled=192)


def _shrink_to_768() -> _Mixed:
    double: tuple[Conv, ...] = (*_DOUBLE[:2], ("branch3x3dbl_3", 96, _THREE, 2))
    return _Mixed(288, ((("branch3x3", 384, _THREE, 2),), double), pool="shrink")


def _shrink_to_1280() -> _Mixed:
    three: tuple[Conv, ...] = (("branch3x3_1", 192, _ONE, 1), ("branch3x3_2", 320, _THREE, 2))
    seven: tuple[Conv, ...] = (
        ("branch7x7x3_1", 192, _ONE, 1),
        ("branch7x7x3_2", 192, _ROW, 1),
        ("branch7x7x3_3", 192, _COLUMN, 1),
        ("branch7x7x3_4", 192, _THREE, 2),
    )
    return _Mixed(768, (three, seven), pool="shrink")


def _last(wide_in: int, pool: str) -> _Mixed:
    chains: tuple[tuple[Conv, ...], ...] = (
        (("branch1x1", 320, _ONE, 1),),
        (("branch3x3_1", 384, _ONE, 1),),
        (("branch3x3dbl_1", 448, _ONE, 1), ("branch3x3dbl_2", 384, _THREE, 1)),
    )
    forks: dict[int, tuple[Conv, Conv]] = {
        1: (("branch3x3_2a", 384, (1, 3), 1), ("branch3x3_2b", 384, (3, 1), 1)),
        2: (("branch3x3dbl_3a", 384, (1, 3), 1), ("branch3x3dbl_3b", 384, (3, 1), 1)),
    }
    return _Mixed(wide_in, chains, pool=pool, pooled=192, forks=forks)


class InceptionFeatures(nn.Module):
    """Frames `[N, 3, 299, 299]` scaled as TensorFlow's `(x - 128) / 128` to `[N, 2048]`. Built with random weights."""

    def __init__(self) -> None:
        super().__init__()
        self.Conv2d_1a_3x3 = _ConvNorm(3, 32, _THREE, 2)
        self.Conv2d_2a_3x3 = _ConvNorm(32, 32, _THREE, 1, same=False)
        self.Conv2d_2b_3x3 = _ConvNorm(32, 64, _THREE, 1)
        self.Conv2d_3b_1x1 = _ConvNorm(64, 80, _ONE, 1)
        self.Conv2d_4a_3x3 = _ConvNorm(80, 192, _THREE, 1, same=False)
        self.Mixed_5b, self.Mixed_5c, self.Mixed_5d = _wide(192, 32), _wide(256, 64), _wide(288, 64)
        self.Mixed_6a = _shrink_to_768()
        self.Mixed_6b, self.Mixed_6c, self.Mixed_6d, self.Mixed_6e = _seven(128), _seven(160), _seven(160), _seven(192)
        self.Mixed_7a = _shrink_to_1280()
        self.Mixed_7b, self.Mixed_7c = _last(1280, "avg"), _last(2048, "max")
        self.requires_grad_(False).eval()

    def forward(self, x_N3HW: Tensor) -> Tensor:
        """Pooled features `[N, 2048]`. Raises `ScoreError` for sides under 75 pixels, where nothing would be left."""
        if x_N3HW.ndim != 4 or x_N3HW.shape[1] != 3 or min(x_N3HW.shape[2:]) < 75:
            raise ScoreError(f"Inception takes [N, 3, H, W] of 75 pixels or more, got {list(x_N3HW.shape)}")
        x = self.Conv2d_2b_3x3(self.Conv2d_2a_3x3(self.Conv2d_1a_3x3(x_N3HW)))
        x = F.max_pool2d(x, 3, stride=2)
        x = self.Conv2d_4a_3x3(self.Conv2d_3b_1x1(x))
        x = F.max_pool2d(x, 3, stride=2)
        x = self.Mixed_5d(self.Mixed_5c(self.Mixed_5b(x)))
        x = self.Mixed_6e(self.Mixed_6d(self.Mixed_6c(self.Mixed_6b(self.Mixed_6a(x)))))
        x = self.Mixed_7c(self.Mixed_7b(self.Mixed_7a(x)))
        return x.mean((2, 3))
