"""Exact film time: rational rates, frame spans, the model's frame rule, and SMPTE timecode.

Rates are `fractions.Fraction` everywhere. Floats such as 23.976 are snapped to the NTSC family (N * 1000/1001) once,
here, and never travel further. Frames are counted from 0.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction

from cinetune.errors import ConfigError

__all__ = [
    "NTSC_NOMINAL",
    "Span",
    "exact_rate",
    "frames_to_latent",
    "frames_to_timecode",
    "nearest_legal_frames",
    "resample_indices",
    "timecode_to_frames",
]

NTSC_NOMINAL = (24, 30, 48, 60, 120)


_LABEL = re.compile(r"(\d{1,2})[:;.](\d{1,2})[:;.](\d{1,2})([:;.])(\d{1,3})", re.ASCII)
_RATE = re.compile(r"\s*[+-]?\d{1,9}(\.\d{1,12}|/\d{1,9})?\s*", re.ASCII)


def exact_rate(value: float | str | Fraction) -> Fraction:
    """Frames per second as a Fraction; a float or decimal string within 0.005 of N*1000/1001 becomes that rate.

    Raises `ConfigError` for what is not a positive number.
    """
    remedy = "write it as 24, 25 or 24000/1001"
    if isinstance(value, str) and _RATE.fullmatch(value) is None:  # Fraction("1e999999999") would count for hours
        raise ConfigError(f"not a frame rate: {value[:40]!r}", remedy=remedy)
    try:
        rate = Fraction(value).limit_denominator(100_000) if isinstance(value, float) else Fraction(value)
    except (ValueError, OverflowError, ZeroDivisionError) as error:
        raise ConfigError(f"not a frame rate: {value!r}", remedy=remedy) from error
    for nominal in NTSC_NOMINAL:
        ntsc = Fraction(nominal * 1000, 1001)
        if rate != nominal and abs(rate - ntsc) < Fraction(5, 1000):
            return ntsc
    if rate <= 0:
        raise ConfigError(f"a frame rate must be positive, not {value}", remedy=remedy)
    return rate


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """`frames` frames from frame `start` at `rate` frames per second."""

    start: int
    frames: int
    rate: Fraction

    @property
    def end(self) -> int:
        """First frame after the span."""
        return self.start + self.frames

    @property
    def seconds(self) -> Fraction:
        return self.frames / self.rate

    @property
    def start_seconds(self) -> Fraction:
        return self.start / self.rate


def resample_indices(span: Span, rate: Fraction, frames: int, *, offset: int = 0) -> list[int]:
    """Source frame (absolute) nearest in time to each of `frames` frames at `rate`, the first at span start +
    offset/rate.

    Ties go to the later frame. Raises `ConfigError` when the span is too short to hold the last one.
    """
    indices: list[int] = []
    for k in range(frames):
        position = (k + offset) * span.rate / rate
        index = int(position + Fraction(1, 2))
        if index >= span.frames:
            need = (frames - 1 + offset) / rate
            raise ConfigError(
                f"{frames} frames at {rate} fps need {float(need):.3f} s, the span has {float(span.seconds):.3f} s",
                where=f"frames {span.start}..{span.end - 1} at {span.rate} fps",
            )
        indices.append(span.start + index)
    return indices


def frames_to_latent(frames: int, stride: int = 4) -> int:
    """Latent frames of a causal video VAE: `1 + (frames - 1) / stride`. Raises `ConfigError` off the rule k*stride +
    1."""
    if frames < 1 or (frames - 1) % stride:
        low, high = nearest_legal_frames(frames, stride)
        raise ConfigError(
            f"{frames} frames do not fit the model's rule {stride}n+1",
            remedy=f"use {low} or {high}" if low != high else f"use {low}",
        )
    return 1 + (frames - 1) // stride


def nearest_legal_frames(frames: int, stride: int = 4) -> tuple[int, int]:
    """The legal counts just at or below and at or above `frames`."""
    below = max(1, (max(frames, 1) - 1) // stride * stride + 1)
    return below, below if below == frames else below + stride


def _dropped(rate: Fraction) -> int:
    """Labels that drop-frame counting skips each minute: 2 at 29.97 fps, 4 at 59.94. Raises `ConfigError` elsewhere."""
    if rate not in (Fraction(30000, 1001), Fraction(60000, 1001)):
        remedy = "drop-frame exists at 30000/1001 and 60000/1001"
        raise ConfigError(f"there is no drop-frame timecode at {rate} fps", remedy=remedy)
    return round(rate) // 15


def frames_to_timecode(frame: int, rate: Fraction, *, drop_frame: bool = False) -> str:
    """SMPTE 12M label of an absolute frame count, wrapping at 24 hours; drop-frame only for 30000/1001 and 60000/1001
    (`;` before frames)."""
    assert frame >= 0, frame
    nominal = max(1, round(rate))  # slower than a frame in two seconds is time lapse; its labels count seconds
    if drop_frame:
        dropped = _dropped(rate)
        per_minute, per_ten = nominal * 60 - dropped, nominal * 600 - 9 * dropped
        tens, rest = divmod(frame, per_ten)
        frame += dropped * (9 * tens + max(0, rest - dropped) // per_minute)
    seconds, ff = divmod(frame, nominal)
    hours, rest_seconds = divmod(seconds, 3600)
    minutes, secs = divmod(rest_seconds, 60)
    separator = ";" if drop_frame else ":"
    return f"{hours % 24:02d}:{minutes:02d}:{secs:02d}{separator}{ff:02d}"


def timecode_to_frames(timecode: str, rate: Fraction) -> int:
    """Absolute frame count of a SMPTE label; `;` or `.` before the frames means drop-frame.

    Raises `ConfigError` for malformed labels and for labels that do not exist at this rate.
    """
    match = _LABEL.fullmatch(timecode)
    if match is None:
        raise ConfigError(f"not a timecode: {timecode!r}", remedy="write HH:MM:SS:FF, or HH:MM:SS;FF for drop-frame")
    hours, minutes, seconds, frames = (int(match[group]) for group in (1, 2, 3, 5))
    nominal = round(rate)
    if hours > 23 or minutes > 59 or seconds > 59 or frames >= nominal:
        raise ConfigError(f"timecode {timecode} does not exist at {rate} fps")
    total = (hours * 3600 + minutes * 60 + seconds) * nominal + frames
    if match[4] == ":":
        return total
    dropped = _dropped(rate)
    if seconds == 0 and frames < dropped and minutes % 10:
        raise ConfigError(f"timecode {timecode} is skipped by drop-frame counting")
    all_minutes = hours * 60 + minutes
    return total - dropped * (all_minutes - all_minutes // 10)
