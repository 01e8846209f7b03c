"""EfficientNet-Lite0 (Tan & Le 2019, arXiv 1905.11946, in the Lite form): a small ImageNet network, 1280 features.

Here because its trained weights come as an ordinary package of 17 MB under Apache-2.0, so that set metrics can be seen
at work without a download from a hub. State-dict keys are those of the published weights.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from cinetune.errors import ScoreError

__all__ = ["EfficientNetLite0"]

# (repeats, kernel, stride of the first, widening, channels in, channels out)
_STAGES = (
    (1, 3, 1, 1, 32, 16),
    (2, 3, 2, 6, 16, 24),
    (2, 5, 2, 6, 24, 40),
    (3, 3, 2, 6, 40, 80),
    (3, 5, 1, 6, 80, 112),
    (4, 5, 2, 6, 112, 192),
    (1, 3, 1, 6, 192, 320),
)
_EPS = 1e-3


class _SameConv(nn.Conv2d):
    """TensorFlow's "same" padding: as much as the size needs, the odd one behind."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - the name that torch gives it
        pads: list[int] = []
        for size, k, s in zip(
            reversed(input.shape[2:]), reversed(self.kernel_size), reversed(self.stride), strict=True
        ):
            need = max(k - (size % s or s), 0)
            pads += [need // 2, need - need // 2]
        return super().forward(F.pad(input, pads))


class _Block(nn.Module):
    def __init__(self, wide_in: int, wide_out: int, *, kernel: int, stride: int, widen: int) -> None:
        super().__init__()
        wide = wide_in * widen
        self._adds, self._widens = stride == 1 and wide_in == wide_out, widen > 1
        if self._widens:
            self._expand_conv = _SameConv(wide_in, wide, 1, bias=False)
            self._bn0 = nn.BatchNorm2d(wide, eps=_EPS)
        self._depthwise_conv = _SameConv(wide, wide, kernel, stride, groups=wide, bias=False)
        self._bn1 = nn.BatchNorm2d(wide, eps=_EPS)
        self._project_conv = _SameConv(wide, wide_out, 1, bias=False)
        self._bn2 = nn.BatchNorm2d(wide_out, eps=_EPS)

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu6(self._bn0(self._expand_conv(x))) if self._widens else x
        y = F.relu6(self._bn1(self._depthwise_conv(y)))
        y = self._bn2(self._project_conv(y))
        return x + y if self._adds else y


class EfficientNetLite0(nn.Module):
    """Frames `[N, 3, 224, 224]` scaled by ImageNet's mean and deviation to `[N, 1280]`. Built with random weights."""

    def __init__(self) -> None:
        super().__init__()
        self._conv_stem = _SameConv(3, 32, 3, 2, bias=False)
        self._bn0 = nn.BatchNorm2d(32, eps=_EPS)
        self._blocks = nn.ModuleList(
            _Block(out if again else into, out, kernel=kernel, stride=1 if again else stride, widen=widen)
            for repeats, kernel, stride, widen, into, out in _STAGES
            for again in range(repeats)
        )
        self._conv_head = _SameConv(320, 1280, 1, bias=False)
        self._bn1 = nn.BatchNorm2d(1280, eps=_EPS)
        self.requires_grad_(False).eval()

    def forward(self, x_N3HW: Tensor) -> Tensor:
        """Pooled features `[N, 1280]`."""
        if x_N3HW.ndim != 4 or x_N3HW.shape[1] != 3:
            raise ScoreError(f"EfficientNet takes [N, 3, H, W], got {list(x_N3HW.shape)}")
        x = F.relu6(self._bn0(self._conv_stem(x_N3HW)))
        for block in self._blocks:
            x = block(x)
        return F.relu6(self._bn1(self._conv_head(x))).mean((2, 3))
