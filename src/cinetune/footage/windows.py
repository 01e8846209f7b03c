"""Which frames and which part of the picture a training window is made of."""

from __future__ import annotations

import math
from fractions import Fraction

from cinetune.artifacts import FootageClip
from cinetune.timecode import Span, resample_indices

__all__ = ["centre_crop", "window_frames"]


def window_frames(span: Span, rate: Fraction, frames: int, *, most: int) -> list[list[int]]:
    """Up to `most` windows of a shot as lists of source frame numbers, evenly spaced, the most central first; empty if
    none fits.

    Neighbours overlap by half at most, so that a long shot gives different windows and a short one gives one.
    """
    fitting = math.ceil(
        (span.frames - Fraction(1, 2)) * rate / span.rate
    )  # model frames whose nearest source frame is in the shot
    slack = fitting - frames
    if slack < 0:
        return []
    count = max(1, min(most, slack // max(1, frames // 2)))
    offsets = [(2 * k + 1) * slack // (2 * count) for k in range(count)]
    offsets.sort(key=lambda offset: (abs(2 * offset - slack), offset))
    return [resample_indices(span, rate, frames, offset=offset) for offset in offsets]


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
