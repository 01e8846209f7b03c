"""What PyAV says of a file, in one form for all its releases.

Up to 18 a rate is a `Fraction`, or None where there is none, and metadata is decoded as `open` is told. From 19 on a
rate is a pair of 32-bit integers whose products are rounded, 0 where there is none, and bytes that are no UTF-8 arrive
as lone surrogates, which cannot be written to a file again.
"""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import av.container
import av.video.stream

__all__ = ["MOST_PIXELS", "appears", "bounded", "exact", "metadata", "open_to_read"]

_ASKED = {"metadata_errors": "replace"} if int(av.__version__.partition(".")[0]) < 19 else {}


MOST_PIXELS = 8192 * 8192
"""Of one picture of a film; 8K has half as many. A file of a megabyte can claim gigabytes."""
_BOUND = {"max_pixels": str(MOST_PIXELS)}


def open_to_read(path: Path) -> av.container.InputContainer:
    """The container of a file, whatever bytes its metadata has. Raises libav's errors."""
    options: dict[str, Any] = {"options": _BOUND, **_ASKED}
    return av.open(str(path), **options)


def bounded(stream: av.video.stream.VideoStream) -> None:
    """Have a stream that was just opened refuse pictures of more than `MOST_PIXELS` before they are unpacked. Libav
    passes the bound of the container to those who look for streams, but not to those who decode.
    """
    stream.codec_context.options = dict(_BOUND)


def exact(rational: Any) -> Fraction | None:
    """A rate, time base or aspect as a `Fraction`; None where libav says nothing (None, 0, or n/0)."""
    if not rational:
        return None
    return Fraction(rational.numerator, rational.denominator)


def appears(frame: av.VideoFrame) -> Fraction | None:
    """The time stamp of a frame in seconds; None where it has none."""
    tick = exact(frame.time_base)
    return None if frame.pts is None or tick is None else frame.pts * tick


def metadata(holder: Any) -> dict[str, str]:
    """The metadata of a container, stream or frame as text that can be written: foreign bytes become U+FFFD."""
    said: Mapping[str, str] = holder.metadata
    return {_clean(key): _clean(value) for key, value in said.items()}


def _clean(text: str) -> str:
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
