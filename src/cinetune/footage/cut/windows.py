"""Which frames and which part of the picture a training window is made of."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Literal

from cinetune.artifacts import FootageClip
from cinetune.timecode import Span, resample_indices

__all__ = ["WindowMode", "centre_crop", "window_frames"]

WindowMode = Literal["central", "head", "slide", "uniform", "all"]


def window_frames(
    span: Span, rate: Fraction, frames: int, *, most: int, mode: WindowMode = "central", stride: int = 0
) -> list[list[int]]:
    """The windows of a shot as lists of source frame numbers; empty if none fits. `most` limits them; 0 = one for
    `central` and `uniform`, no limit for the others.

    `central`: evenly spaced, the most central first; neighbours overlap by half at most. `head`: the first `frames`.
    `slide`: one every `stride` frames at `rate` (0 = half a window), from the start. `uniform`: `most` from the very
    start to the very end, however much they overlap. `all`: back to back. All but `central` come in order of time.
    """
    fitting = math.ceil(
        (span.frames - Fraction(1, 2)) * rate / span.rate
    )  # model frames whose nearest source frame is in the shot
    offsets = _offsets(fitting - frames, frames, most=most, mode=mode, stride=stride)
    return [resample_indices(span, rate, frames, offset=offset) for offset in offsets]


def _offsets(slack: int, frames: int, *, most: int, mode: WindowMode, stride: int) -> list[int]:
    """First model frame of each window in a shot that holds `frames + slack` of them."""
    if slack < 0:
        return []
    match mode:
        case "head":
            return [0]
        case "slide":
            return list(range(0, slack + 1, stride or max(1, frames // 2)))[: most or None]
        case "all":
            return list(range(0, slack + 1, frames))[: most or None]
        case "uniform" if most > 1:
            return sorted({round(Fraction(k * slack, most - 1)) for k in range(most)})
        case "central" | "uniform":
            count = max(1, min(most or 1, slack // max(1, frames // 2)))
            offsets = [(2 * k + 1) * slack // (2 * count) for k in range(count)]
            return sorted(offsets, key=lambda offset: (abs(2 * offset - slack), offset))


def centre_crop(clip: FootageClip, width: int, height: int) -> tuple[int, int, int, int]:
    """(x, y, width, height) in source pixels: the largest part of the picture inside the bars that has the shape of
    `width` x `height` when shown (pixel aspect taken into account), from its middle."""
    x, y, across, down = clip.bars
    shape = Fraction(width, height) / clip.pixel_aspect
    if Fraction(across, down) > shape:
        kept = max(1, round(down * shape))
        return x + (across - kept) // 2, y, kept, down
    kept = max(1, round(across / shape))
    return x, y + (down - kept) // 2, across, kept
