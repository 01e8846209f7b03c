"""Fields: whether a clip is interlaced or carries 3:2 pulldown, by what its lines show and not by its flags, and whole
frames made of them. All filtering is libavfilter's (`idet`, `bwdif`, `fieldmatch`, `decimate`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from fractions import Fraction
from itertools import pairwise
from typing import Literal

import av
import av.error
import av.filter

from cinetune.errors import FootageError
from cinetune.footage.read.libav import exact

__all__ = ["CYCLE", "FieldVote", "refuse", "without_fields"]

CYCLE = 5
"""Frames of one turn of 3:2 pulldown: four film frames on five of video."""
_GRAPHS = {
    "idet": (("idet", ""),),
    "bwdif": (("bwdif", "mode=send_frame:deint=all"),),
    # A mixed frame at a cut: its chroma was shared between the lines of two shots when it was halved, so luma alone
    # says which fields belong together; and decimate would by default drop the picture after the cut for the
    # repeated one.
    "pulldown": (
        ("fieldmatch", "order=auto:combmatch=full:mchroma=0"),
        ("decimate", f"cycle={CYCLE}:scthresh=100"),
    ),
}
_COMBED = 0.4  # share of decided frames that makes a clip interlaced
_HINT = 0.05  # share that is worth a word
_FEWEST = 5  # decided frames, below which nothing can be said
_LEAST_LINES = 64  # of smaller pictures the lines say nothing
_FIELD_RATES = {Fraction(text) for text in ("25", "30000/1001", "30", "50", "60000/1001", "60")}
"""Video rates. No film rate was ever shot in fields, and fine still detail can look like combs to `idet`."""
_PULLDOWN_RATES = (Fraction(30000, 1001), Fraction(30))


class _Filter:
    """A chain of libavfilter filters fed frame by frame."""

    def __init__(self, name: str, frame: av.VideoFrame, order: str = "") -> None:
        self._graph = av.filter.Graph()
        pace = exact(frame.time_base) or Fraction(1, 25)
        source = self._graph.add(
            "buffer",
            video_size=f"{frame.width}x{frame.height}",
            pix_fmt=frame.format.name,
            time_base=str(pace),
            frame_rate="30000/1001",  # decimate wants to know that there is one; it only counts
        )
        chain = [source]
        for kind, options in _GRAPHS[name]:
            given = options.replace("order=auto", f"order={order}") if order else options
            given += f":parity={order}" if order and kind == "bwdif" else ""
            chain.append(self._graph.add(kind, given or None))
        chain.append(self._graph.add("buffersink"))
        for first, second in pairwise(chain):
            first.link_to(second)
        self._graph.configure()

    def push(self, frame: av.VideoFrame | None) -> Iterator[av.VideoFrame]:
        """Feed one frame (None = the end) and take what is ready."""
        self._graph.vpush(frame)
        while True:
            try:
                yield self._graph.vpull()
            except (av.error.BlockingIOError, av.error.EOFError):
                return


def without_fields(
    frames: Iterable[av.VideoFrame], fields: Literal["bwdif", "pulldown"], *, order: str
) -> Iterator[av.VideoFrame]:
    """Progressive frames made of `frames`: one for each by `bwdif`, four for five where pulldown is taken out (the
    first frame given must then begin a cycle). `order` is `tff` or `bff`.
    """
    chain: _Filter | None = None
    for frame in frames:
        chain = chain or _Filter(fields, frame, order)
        yield from chain.push(frame)
    if chain is not None:
        yield from chain.push(None)


class FieldVote:
    """Sees every decoded frame once and lets `idet` vote on it, where its flag or the `claimed` rates of the file make
    fields likely: the vote costs as much as decoding.
    """

    def __init__(self, claimed: Iterable[Fraction]) -> None:
        self._likely = not _FIELD_RATES.isdisjoint(claimed)
        self._chain: _Filter | None = None
        self._kinds: Counter[str] = Counter()
        self._repeats: list[str] = []
        self._flagged = 0
        self._frames = self._lines = 0

    def see(self, frame: av.VideoFrame) -> None:
        """Take in the next frame; RGB pictures are never interlaced and not looked at."""
        self._frames += 1
        self._lines = frame.height
        self._flagged += bool(frame.interlaced_frame)
        likely = self._likely or frame.interlaced_frame
        if likely and not frame.format.is_rgb and frame.format.name != "pal8":
            self._chain = self._chain or _Filter("idet", frame)
            self._take(self._chain.push(frame))

    def _take(self, frames: Iterator[av.VideoFrame]) -> None:
        for frame in frames:
            facts = frame.metadata
            self._kinds[facts.get("lavfi.idet.multiple.current_frame", "undetermined")] += 1
            self._repeats.append(facts.get("lavfi.idet.repeated.current_frame", "neither"))

    def decide(self, rate: Fraction) -> tuple[Literal["", "bwdif", "pulldown"], Literal["tff", "bff"], str]:
        """What must be done about fields (nothing, `bwdif`, `pulldown`), the field order, and a note ("" = none)."""
        if self._chain is not None:
            self._take(self._chain.push(None))
        top, bottom = self._kinds["tff"], self._kinds["bff"]
        decided = top + bottom + self._kinds["progressive"]
        order = "tff" if top >= bottom else "bff"
        flagged = self._flagged * 2 > self._frames
        asked = decided >= _FEWEST and self._lines >= _LEAST_LINES and (flagged or rate in _FIELD_RATES)
        share = (top + bottom) / decided if asked else 0.0
        if rate in _PULLDOWN_RATES and share > _HINT and self._turns():
            return "pulldown", order, "3:2 pulldown"
        if share >= _COMBED:
            return "bwdif", order, f"interlaced, {order} ({share:.0%} of frames by idet)"
        if share > _HINT:
            return "", order, f"{share:.0%} of frames look interlaced (idet)"
        if flagged:
            return "", order, "flagged interlaced, but its frames are whole (idet): read as they are"
        return "", order, ""

    def _turns(self) -> bool:
        """Whether one top and one bottom field repeat in every five frames, each in its own place of the five."""
        cycles = len(self._repeats) / CYCLE
        for field in ("top", "bottom"):
            places = Counter(number % CYCLE for number, kind in enumerate(self._repeats) if kind == field)
            if not places or max(places.values()) < 0.6 * cycles or sum(places.values()) > 1.6 * cycles:
                return False
        return cycles >= 2


def refuse(fields: str, note: str, *, interlaced: str, pulldown: str) -> None:
    """Raise `FootageError` when the project's settings do not want such fields made whole."""
    if fields == "bwdif" and interlaced == "refuse":
        raise FootageError(
            f"it is {note}",
            remedy='set footage.interlaced = "bwdif" (or "keep" if it is not), or export it progressive',
        )
    if fields == "pulldown" and pulldown == "refuse":
        raise FootageError(f"it has {note}", remedy='set footage.pulldown = "remove", or remove it and export it at 24')
