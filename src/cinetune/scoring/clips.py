"""Real and generated clips as things to measure: each named by its content, read at most once, its features kept.

Kept arrays lie in the store under the hash of their bytes, found again by what was read and by which network.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cinetune.artifacts import FootageClip, Kept, PlannedShot, Window
from cinetune.artifacts import Sequence as FilmSequence
from cinetune.errors import ConfigError, FootageError
from cinetune.files import read_master
from cinetune.store import Project, content_key

if TYPE_CHECKING:
    import numpy as np

    from cinetune.scoring.nets import Net

__all__ = [
    "MOST_PIECES", "Source", "film_source", "kept", "kept_cloud", "kept_features", "kept_first", "reference_sources",
    "shot_source", "truth_source",
]  # fmt: skip

MOVIES = (".mp4", ".mov", ".mxf", ".mkv", ".webm", ".avi", ".m4v")
MOST_PIECES = 48
"""A whole film as reference is read in at most so many pieces, at even distances."""
# Part of the key of kept arrays: raise it when the same clip would give other features.
VERSION = 1


@dataclass
class Source:
    """One clip: `key` names its pixels, `read` gives them as `THWC` in [0, 1], `label` is for people."""

    key: str
    label: str
    read: Callable[[], np.ndarray]
    _frames: Any = None

    def frames(self) -> np.ndarray:
        """The pixels, read once while they are held."""
        if self._frames is None:
            self._frames = self.read()
        return self._frames

    def let_go(self) -> None:
        """Forget the pixels: memory stays that of one clip."""
        self._frames = None


def kept(project: Project, key: str, make: Callable[[], np.ndarray]) -> np.ndarray:
    """An array from the store, or made and put there."""
    import numpy as np

    def fresh() -> Kept:
        with project.store.new_object(".npy") as (temporary, done), temporary.open("wb") as file:
            np.save(file, make(), allow_pickle=False)
        return Kept(file=done[0])

    record = project.store.unit("score", key, Kept, fresh)
    return np.load(project.store.path(record.file), allow_pickle=False)


def kept_features(project: Project, source: Source, net: Net) -> np.ndarray:
    """Features of a clip by one network: of the frames of `suite.picked`, or of its pieces for a video network."""
    from cinetune.metrics.suite import FRAME_STEP, picked, signed

    def make() -> np.ndarray:
        frames = source.frames()
        return net.net.frames(signed(picked(frames))) if net.per == "frame" else net.net.clips(signed(frames))

    return kept(project, content_key("features", VERSION, FRAME_STEP, source.key, net.identity), make)


def kept_first(project: Project, source: Source, net: Net) -> np.ndarray:
    """Features `1D` of a clip's first picture, which those of its frames leave out."""
    from cinetune.metrics.suite import signed

    key = content_key("first picture", VERSION, source.key, net.identity)
    return kept(project, key, lambda: net.net.frames(signed(source.frames()[:1])))


def kept_cloud(project: Project, source: Source) -> np.ndarray:
    """Lab pixels of a clip for the measures of grade."""
    from cinetune.metrics.suite import CLOUD_PIXELS, cloud

    key = content_key("cloud", VERSION, CLOUD_PIXELS, source.key)
    return kept(project, key, lambda: cloud(source.frames()))


def shot_source(project: Project, sequence: FilmSequence) -> Source:
    """A generated shot, from its lossless master."""

    def read() -> np.ndarray:
        return read_master(project.store.path(sequence.video))

    return Source(sequence.video.sha256, f"{sequence.shot} {sequence.arm} {sequence.seed}", read)


def film_source(project: Project, clip: FootageClip, window: Window) -> Source:
    """A training window as training saw it."""

    def read() -> np.ndarray:
        from cinetune.footage.video import read_window

        return read_window(project.root, clip, window)

    return Source(content_key("window", clip, window), window.id, read)


def truth_source(project: Project, shot: PlannedShot, like: FilmSequence) -> Source | None:
    """The shot as the film would show it, at the rate and size of the generated one; shorter if the file is."""
    if shot.truth is None:
        return None
    return _movie(project, project.root / shot.truth, like, start=Fraction(0), label=f"truth of {shot.id}")


def _movie(project: Project, path: Path, like: FilmSequence, *, start: Fraction, label: str) -> Source:
    """`like.frames` pictures of a movie from `start` seconds on, by time, its centre at the size of `like`."""

    def read() -> np.ndarray:
        from cinetune.footage.video import probe, read_frames
        from cinetune.generation import centre_box

        facts = probe(path)
        times = (start + frame / like.rate for frame in range(like.frames))
        wanted = [int(time * facts.rate + Fraction(1, 2)) for time in times]
        return read_frames(
            facts.path, [index for index in wanted if index < facts.frames], colour=facts.colour,
            crop=centre_box((facts.height, facts.width), height=like.height, width=like.width),
            size=(like.width, like.height), rate=facts.rate, reading=facts.reading,
        )  # fmt: skip

    shape = [like.frames, str(like.rate), like.height, like.width, str(start)]
    return Source(content_key("movie", project.store.sha256(path), shape), label, read)


def reference_sources(project: Project, named: str, like: FilmSequence) -> list[Source]:
    """The clips of `score.reference`: the middle of every movie in a folder, or one movie in pieces at even distances.

    Raises `ConfigError` when there is no such path or a folder without movies, `FootageError` for one that is no movie.
    """
    path = project.root / Path(named).expanduser()
    if path.is_dir():
        files = sorted(file for file in path.iterdir() if file.suffix.lower() in MOVIES)
        if not files:
            remedy = f"put clips there ({', '.join(MOVIES)})"
            raise ConfigError(f"score.reference names {named}, which holds no movie", where=str(path), remedy=remedy)
        return [
            _movie(project, file, like, start=start, label=file.name)
            for file in files
            for start in _starts(file, like, 1)
        ]
    if not path.is_file():
        remedy = "a folder of clips, or one movie, relative to the project"
        raise ConfigError(f"score.reference names {named}, which is not there", where=str(path), remedy=remedy)
    return [_movie(project, path, like, start=start, label=f"{path.name} at {float(start):.1f} s")
            for start in _starts(path, like, MOST_PIECES)]  # fmt: skip


def _starts(path: Path, like: FilmSequence, most: int) -> Iterator[Fraction]:
    """Where pieces of a shot's length begin, in seconds, none over another."""
    from cinetune.footage.video import probe

    facts = probe(path)
    length, piece = facts.frames / facts.rate, like.frames / like.rate
    if length < piece / 2:
        raise FootageError(
            f"a reference clip of {float(length):.2f} s is too short, shots have {float(piece):.2f} s", where=str(path),
            remedy="take it out of the folder, or give longer clips",
        )  # fmt: skip
    count = max(1, min(most, int(length / piece)))
    gap = max(Fraction(0), (length - count * piece) / (count + 1))
    yield from (gap + number * (piece + gap) for number in range(count))


def empty(project: Project, source: Source) -> bool:
    """Whether a clip shows nothing: black, white or one tone from end to end."""
    import numpy as np

    cloud = kept_cloud(project, source)
    return bool(np.ptp(cloud[:, 0]) < 1.0)
