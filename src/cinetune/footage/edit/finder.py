"""The footage files of a project, found by what an edit list calls them and by the timecode they hold."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import av.error

from cinetune.footage.edit.events import CutEvent, frame_range, outside
from cinetune.footage.read.boxes import timecode_base
from cinetune.footage.read.libav import exact, metadata, open_to_read
from cinetune.outside import folded, name_parts
from cinetune.timecode import exact_rate

__all__ = ["FileFinder", "Header"]

_LEAST_PREFIX = 3  # letters of a reel that a longer file name must begin with
_CMX_REEL = 8  # letters that CMX3600 keeps of a reel


@dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    """What a file says of itself without decoding; `frames` may be a little off, `reel` is empty mostly. `base` is what
    the timecode counts where that is not `rate`.
    """

    rate: Fraction
    timecode: str | None
    base: Fraction | None
    frames: int | None
    reel: str


def _read_header(path: Path) -> Header | None:
    """None for what is no film; that is found and said when the file itself is judged."""
    try:
        with open_to_read(path) as container:
            if not container.streams.video:
                return None
            stream = container.streams.video[0]
            said = exact(stream.guessed_rate) or exact(stream.average_rate)
            if said is None:
                return None
            rate = exact_rate(said)
            frames = stream.frames or None
            if frames is None and container.duration:
                frames = round(Fraction(container.duration, av.time_base) * rate)
            words = metadata(container) | metadata(stream)
            for other in container.streams:
                words = metadata(other) | words
            return Header(
                rate=rate,
                timecode=words.get("timecode"),
                base=timecode_base(path, rate) if words.get("timecode") else None,
                frames=frames,
                reel=(words.get("reel_name") or words.get("reel_umid_name") or "").strip(),
            )
    except (av.error.FFmpegError, OSError, ValueError):
        return None


class FileFinder:
    """The footage files, found by what an edit list calls them. Headers are read when they are needed, once."""

    def __init__(self, files: Sequence[Path]) -> None:
        self.files = files
        self._headers: dict[Path, Header | None] = {}

    def header(self, path: Path) -> Header | None:
        if path not in self._headers:
            self._headers[path] = _read_header(path)
        return self._headers[path]

    def holds(self, path: Path, event: CutEvent) -> bool:
        """Whether the event's source time may lie in the file."""
        return not self.objection(path, event)

    def objection(self, path: Path, event: CutEvent) -> str:
        """In words why the event's source time cannot lie in the file; empty when it may."""
        header = self.header(path)
        if header is None:
            return ""
        found = frame_range(event, rate=header.rate, timecode=header.timecode, base=header.base)
        if isinstance(found, str):
            return found
        frames = max(found[1], 0) if header.frames is None else header.frames
        if found[0] >= 0 and found[1] <= frames + frames // 100 + 2:
            return ""
        return outside(event, found, rate=header.rate, frames=frames, timecode=header.timecode)

    def names(self, event: CutEvent) -> bool:
        """Whether any file answers to a name of the event."""
        return any(self._levels(event))

    def find(self, event: CutEvent) -> Path | str:
        """The file of an event, or why there is none. A name that fits several files is settled by timecode."""
        named: list[Path] = []
        fitting: list[Path] = []
        for level in self._levels(event):
            named = named or level
            held = [path for path in level if self.holds(path, event)]
            fitting = [path for path in fitting if path in held] or fitting or held
            if len(fitting) == 1:
                return fitting[0]
        if fitting:
            return f"{len(fitting)} files answer to its name and timecode ({', '.join(p.name for p in fitting[:3])})"
        if len(named) == 1:
            return named[0]
        names = ", ".join(dict.fromkeys(name for name in (event.reel, *event.clips, *event.files) if name))
        if named:
            return f"none of {len(named)} files called {names!r} holds its source time"
        return f"no file is called {names!r}"

    def _levels(self, event: CutEvent) -> Iterator[list[Path]]:
        """Files that answer to the event's names, the surest kind of name first."""
        urls = [parts for parts in map(name_parts, event.files) if parts]
        yield self._best_tail(urls)
        names = {url[-1] for url in urls} | {folded(name.strip()) for name in event.clips}
        names |= {name.rpartition(".")[0] for name in names if "." in name}
        yield [path for path in self.files if {folded(path.name), folded(path.stem)} & names]
        if event.reel:
            yield [path for path in self.files if _reel_fits(path, event.reel)]
            yield [path for path in self.files if self._reel_inside(path) == folded(event.reel)]

    def _reel_inside(self, path: Path) -> str:
        header = self.header(path)
        return "" if header is None else folded(header.reel)

    def _best_tail(self, urls: list[tuple[str, ...]]) -> list[Path]:
        """The files that share the most folders with a path of the list, counted from the file name."""
        best: dict[int, list[Path]] = defaultdict(list)
        for path in self.files:
            best[max((_common_tail(name_parts(path.as_posix()), url) for url in urls), default=0)].append(path)
        longest = max(best, default=0)
        return best[longest] if longest else []


def _common_tail(parts: Sequence[str], url: Sequence[str]) -> int:
    count = 0
    for ours, theirs in zip(reversed(parts), reversed(url), strict=False):
        if ours != theirs:
            break
        count += 1
    return count


def _reel_fits(path: Path, reel: str) -> bool:
    """Whether a reel names the file or its folder: whole, as the beginning of the name, or as CMX3600 shortens it."""
    reel, stem = folded(reel), folded(path.stem)
    if reel in (stem, folded(path.name), folded(path.parent.name)):
        return True
    if len(reel) >= _LEAST_PREFIX and stem.startswith(reel):
        # A001 begins A001_take2 and A001C003, but is another reel than A0012.
        before, after = stem[len(reel) - 1], stem[len(reel)]
        if not after.isalnum() or before.isdigit() != after.isdigit():
            return True
    plain = "".join(letter for letter in stem if letter.isalnum())
    return len(reel) == _CMX_REEL and (stem[:_CMX_REEL] == reel or plain[:_CMX_REEL] == reel)
