"""Would the library's reader of CMX3600 do? Every list that the tests of our own reader give it, read by both.

    python benchmarks/edl_reader.py

A list counts as the same when both find picture events with the same source starts, at the rate that suits the library
best; what ours also says (reels, file names, why an event is left out) is not compared.
"""

from __future__ import annotations

import os
import re
import sys
import warnings
from collections import Counter
from pathlib import Path
from typing import Any

import opentimelineio as otio
import otio_cmx3600_adapter.cmx_3600 as adapter
import pytest

from cinetune.footage.edit import edl

RATES = (24, 25, 29.97, 30, 50, 59.94, 60, 23.976)
REFUSALS = (ValueError, TypeError, AttributeError, IndexError, KeyError, ZeroDivisionError, adapter.EDLParseError)


def by_library(text: str, rate: float) -> set[str]:
    """Source starts of the picture events, as timecode with colons."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        timeline = adapter.read_from_string(text, rate=rate)  # pyright: ignore[reportArgumentType]
    clips = [
        clip for track in timeline.tracks if track.kind == otio.schema.TrackKind.Video for clip in track.find_clips()
    ]
    starts = [clip.source_range.start_time for clip in clips if clip.source_range is not None]
    return {otio.opentime.to_timecode(start, rate=rate).replace(";", ":") for start in starts}


def compared(text: str, found: list[Any]) -> str:
    """`same`, `differs`, or the name of the error that the library raises at every rate."""
    mine = {re.sub("[;.]", ":", event.source.start) for event in found if not event.skip and event.source is not None}
    said = ""
    for rate in RATES:
        try:
            if by_library(text, rate) == mine:
                return "same"
            said = "differs"
        except REFUSALS as error:
            said = said or type(error).__name__
    return said


class Listener:
    """Stands beside our reader while its tests run."""

    def __init__(self) -> None:
        self.counts: dict[str, Counter[str]] = {}
        self.read = edl.parse_edl

    def __call__(self, text: str, **how: Any) -> list[Any]:
        found = self.read(text, **how)
        test = re.split(r"[\[ ]", os.environ["PYTEST_CURRENT_TEST"].split("::")[-1])[0]
        self.counts.setdefault(test, Counter())[compared(text, found)] += 1
        return found


def main() -> int:
    listener = Listener()
    edl.parse_edl = listener  # pyright: ignore[reportAttributeAccessIssue]
    code = pytest.main(["-q", str(Path(__file__).parents[1] / "tests" / "footage" / "test_edl.py")])
    alike = [test for test, counts in listener.counts.items() if set(counts) == {"same"}]
    for test, counts in listener.counts.items():
        print(f"{test:75} {', '.join(f'{word} {count}' for word, count in counts.most_common())}")
    print(f"all lists read alike in {len(alike)} of {len(listener.counts)} tests")
    return int(code)


if __name__ == "__main__":
    sys.exit(main())
