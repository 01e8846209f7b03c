"""Which rate a file keeps, and which of its frames is on screen at each picture of a clip.

A clip is pictures at one exact rate. Picture n stands for the time n / rate .. (n + 1) / rate after the first frame,
and is the frame on screen in the middle of it. A file of constant rate gives each frame once; one of varying rate
(phones, screen captures) gives some twice and some not at all, so that time is always right.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import av
import numpy as np

from cinetune.errors import FootageError
from cinetune.footage.read.libav import appears, exact
from cinetune.timecode import exact_rate

__all__ = ["Clock", "claimed_rates", "first_picture", "on_screen", "set_clock"]

_RATES = tuple(
    Fraction(rate) for rate in ("24000/1001", "24", "25", "30000/1001", "30", "48", "50", "60000/1001", "60", "120")
)
_LOST = 0.02  # share of frames that may fall out between two pictures before a faster rate is taken
_MOST_HELD = 20  # pictures per frame; beyond, the time stamps are wrong or there is no motion to learn


@dataclass(frozen=True, slots=True, kw_only=True)
class Clock:
    """The rate of a clip, its pictures, whether they are picked by time (else one per frame), and what to say."""

    rate: Fraction
    pictures: int
    by_time: bool
    notes: tuple[str, ...]


def first_picture(seconds: Fraction, rate: Fraction) -> int:
    """The first picture in whose middle a frame that appears `seconds` after the first one is on screen."""
    return math.ceil(seconds * rate - Fraction(1, 2))


def _appears(frame: av.VideoFrame, origin: Fraction) -> Fraction:
    at = appears(frame)
    assert at is not None, "frames without time stamps have no time"
    return at - origin


def on_screen(
    frames: Iterable[av.VideoFrame], *, origin: Fraction, rate: Fraction
) -> Iterator[tuple[int, av.VideoFrame]]:
    """(picture number, frame) for every picture from the first frame given; `origin` is the time stamp of picture 0 in
    seconds. The last frame stays for its own duration.
    """
    held: av.VideoFrame | None = None
    at = 0
    for frame in frames:
        start = first_picture(_appears(frame, origin), rate)
        if held is not None:
            yield from ((number, held) for number in range(at, start))
        held, at = frame, start if held is None else max(at, start)
    if held is not None:
        lasts = (held.duration or 0) * (exact(held.time_base) or Fraction(0))
        end = first_picture(_appears(held, origin) + lasts, rate)
        yield from ((number, held) for number in range(at, max(end, at + 1)))


def set_clock(
    stamps: Sequence[int | None], *, tick: Fraction | None, claimed: Sequence[Fraction], lasts: int = 0
) -> Clock:
    """The clock of a file from the time stamps of its frames in ticks of `tick` seconds, the rates its header claims,
    and how many ticks its last frame `lasts` (0 = not said).

    Raises `FootageError` when nothing says a rate, or when time runs backwards or stands still.
    """
    known = [stamp for stamp in stamps if stamp is not None]
    if not claimed:
        raise FootageError("the file does not say its frame rate", remedy="wrap it in .mov or .mp4 at its true rate")
    if len(known) < len(stamps) or tick is None:
        note = f"no time stamps: taken as {claimed[0]} fps throughout"
        return Clock(rate=claimed[0], pictures=len(stamps), by_time=False, notes=(note,))
    ticks = np.array([stamp - known[0] for stamp in known], dtype=np.float64)
    seconds = ticks * float(tick)
    errors = [float(np.abs(seconds * float(rate) - np.arange(len(known))).max()) for rate in claimed]
    best = min(range(len(claimed)), key=errors.__getitem__)
    if errors[best] <= max(0.25, float(tick * claimed[best])):
        return Clock(rate=claimed[best], pictures=len(stamps), by_time=False, notes=())
    if (np.diff(seconds) <= 0).any():
        worst = int(np.diff(seconds).argmin()) + 1
        raise FootageError(f"its time stamps run backwards or stand still at frame {worst}", remedy="export it again")
    return _varying(known, seconds, tick, claimed, lasts)


def _varying(known: list[int], seconds: np.ndarray, tick: Fraction, claimed: Sequence[Fraction], lasts: int) -> Clock:
    steps = np.diff(seconds)
    rate = _nominal(seconds, claimed)
    end = (known[-1] - known[0] + lasts) * tick
    first = [first_picture((stamp - known[0]) * tick, rate) for stamp in known]
    pictures = max(first_picture(end, rate), first[-1] + 1)
    if pictures > _MOST_HELD * len(known):
        raise FootageError(
            f"its time stamps leave gaps: {len(known)} frames over {float(end):.1f} s",
            remedy="export it again at a constant rate",
        )
    dropped = len(first) - len(set(first))
    held = pictures - (len(first) - dropped)
    note = (
        f"variable frame rate ({steps.min() * 1000:.1f} to {steps.max() * 1000:.1f} ms between frames): read at a "
        f"constant {rate} fps, each picture the frame on screen at its middle; {held} repeated, {dropped} left out"
    )
    return Clock(rate=rate, pictures=pictures, by_time=True, notes=(note,))


def _nominal(seconds: np.ndarray, claimed: Sequence[Fraction]) -> Fraction:
    """Of the slowest usual rate that loses next to no frame and those just above it, the one whose pictures the time
    stamps lie nearest to; of a rate and its 1000/1001 sibling, what the header claims, else the step most frames keep,
    where a step of n pictures counts as n.
    """

    def lost(rate: Fraction) -> float:
        slots = np.ceil(seconds * float(rate) - 0.5)
        return 1.0 - len(np.unique(slots)) / len(slots)

    def off(rate: Fraction) -> float:
        places = seconds * float(rate)
        return float(np.abs(places - np.rint(places)).mean())

    slowest = next((rate for rate in _RATES if lost(rate) <= _LOST), _RATES[-1])
    rate = min((rate for rate in _RATES if slowest <= rate <= slowest * Fraction(11, 10)), key=off)
    near = [other for other in _RATES if abs(other / rate - 1) < Fraction(2, 1000)]
    said = [other for other in near if other in claimed]
    if len(said) == 1:
        return said[0]
    steps = np.diff(seconds)
    usual = float(np.median(np.maximum(1.0, np.rint(steps * float(rate))) / steps))
    return min(near, key=lambda other: abs(float(other) - usual))


def claimed_rates(*stated: Any) -> list[Fraction]:
    """The rates a header states, made exact, without what is not one."""
    rates = (exact(rate) for rate in stated)
    return [exact_rate(rate) for rate in rates if rate is not None and rate > 0]
