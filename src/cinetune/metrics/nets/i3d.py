"""I3D, the network of FVD: Inception inflated to three dimensions, its 400 Kinetics logits.

Carreira & Zisserman 2017, arXiv 1705.07750. FVD (Unterthiner et al. 2019) takes the logits, not the softmax. State-dict
keys are those of the published PyTorch port.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cinetune.errors import ScoreError

__all__ = ["LEAST_FRAMES", "I3dLogits"]

LEAST_FRAMES = 10
"""Fewer leave one frame before the last average, which spans two."""

# Channels of the six convolutions of a block: 1x1; narrow, 3x3; narrow, 3x3; after the pool.
_BLOCKS: tuple[tuple[str, int, tuple[int, int, int, int, int, int]], ...] = (
    ("Mixed_3b", 192, (64, 96, 128, 16, 32, 32)),
    ("Mixed_3c", 256, (128, 128, 192, 32, 96, 64)),
    ("Mixed_4b", 480, (192, 96, 208, 16, 48, 64)),
    ("Mixed_4c", 512, (160, 112, 224, 24, 64, 64)),
    ("Mixed_4d", 512, (128, 128, 256, 24, 64, 64)),
    ("Mixed_4e", 512, (112, 144, 288, 32, 64, 64)),
    ("Mixed_4f", 528, (256, 160, 320, 32, 128, 128)),
    ("Mixed_5b", 832, (256, 160, 320, 32, 128, 128)),
    ("Mixed_5c", 832, (384, 192, 384, 48, 128, 128)),
)
_POOL_BEFORE = {"Mixed_4b": ((3, 3, 3), (2, 2, 2)), "Mixed_5b": ((2, 2, 2), (2, 2, 2))}


def _same(x: Tensor, kernel: Sequence[int], stride: Sequence[int]) -> Tensor:
    """TensorFlow's "same" padding by zeros: as much as the size needs, the odd one behind."""
    pads: list[int] = []
    for size, k, s in zip(reversed(x.shape[2:]), reversed(kernel), reversed(stride), strict=True):
        need = max(k - (size % s or s), 0)
        pads += [need // 2, need - need // 2]
    return F.pad(x, pads)


def _pool(x: Tensor, kernel: tuple[int, int, int], stride: tuple[int, int, int]) -> Tensor:
    # Zeros never win over a ReLU's output, so padding by zeros is padding by nothing.
    return F.max_pool3d(_same(x, kernel, stride), kernel, stride)


class _Unit(nn.Module):
    def __init__(self, wide_in: int, wide_out: int, kernel: int = 1, stride: int = 1, *, bare: bool = False) -> None:
        super().__init__()
        self.conv3d = nn.Conv3d(wide_in, wide_out, kernel, stride, bias=bare)
        self.bn = None if bare else nn.BatchNorm3d(wide_out, eps=1e-3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv3d(_same(x, self.conv3d.kernel_size, self.conv3d.stride))
        return x if self.bn is None else F.relu(self.bn(x))


class _Mixed(nn.Module):
    def __init__(self, wide_in: int, wide: tuple[int, int, int, int, int, int]) -> None:
        super().__init__()
        self.b0 = _Unit(wide_in, wide[0])
        self.b1a, self.b1b = _Unit(wide_in, wide[1]), _Unit(wide[1], wide[2], 3)
        self.b2a, self.b2b = _Unit(wide_in, wide[3]), _Unit(wide[3], wide[4], 3)
        self.b3b = _Unit(wide_in, wide[5])

    def forward(self, x: Tensor) -> Tensor:
        pooled = self.b3b(_pool(x, (3, 3, 3), (1, 1, 1)))
        return torch.cat([self.b0(x), self.b1b(self.b1a(x)), self.b2b(self.b2a(x)), pooled], 1)


class I3dLogits(nn.Module):
    """Clips `[N, 3, T, 224, 224]` in [-1, 1] to logits `[N, 400]`, averaged over time. Built with random weights."""

    def __init__(self) -> None:
        super().__init__()
        self.Conv3d_1a_7x7 = _Unit(3, 64, 7, 2)
        self.Conv3d_2b_1x1 = _Unit(64, 64)
        self.Conv3d_2c_3x3 = _Unit(64, 192, 3)
        for name, wide_in, wide in _BLOCKS:
            self.add_module(name, _Mixed(wide_in, wide))
        self.logits = _Unit(1024, 400, bare=True)
        self.requires_grad_(False).eval()

    def forward(self, x_N3THW: Tensor) -> Tensor:
        """Logits `[N, 400]`. Raises `ScoreError` for fewer than `LEAST_FRAMES` frames or sides that are not 224."""
        if x_N3THW.ndim != 5 or x_N3THW.shape[2] < LEAST_FRAMES or tuple(x_N3THW.shape[3:]) != (224, 224):
            raise ScoreError(
                f"I3D takes [N, 3, T, 224, 224] with {LEAST_FRAMES} frames or more, got {list(x_N3THW.shape)}",
                remedy="score longer shots, or leave i3d out of score.features",
            )
        x = _pool(self.Conv3d_1a_7x7(x_N3THW), (1, 3, 3), (1, 2, 2))
        x = _pool(self.Conv3d_2c_3x3(self.Conv3d_2b_1x1(x)), (1, 3, 3), (1, 2, 2))
        for name, *_ in _BLOCKS:
            if name in _POOL_BEFORE:
                x = _pool(x, *_POOL_BEFORE[name])
            x = self.get_submodule(name)(x)
        x = F.avg_pool3d(x, (2, 7, 7), stride=1)
        return self.logits(x).mean((2, 3, 4))
