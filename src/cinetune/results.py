"""What each stage hands on: its records by name, with their types. `Store.need` and `Store.find` read them.

A field is a group of records in the stage's file; a field that an older file lacks is empty.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Protocol, TypeVar

from cinetune.artifacts import (
    Arm,
    CopySheet,
    Delivery,
    Design,
    FileRef,
    FootageClip,
    Keyframe,
    LatentEntry,
    Look,
    Measures,
    Rejected,
    SceneMatch,
    SceneSubject,
    Scorecard,
    Sequence,
    Shot,
    Veto,
    Window,
)
from cinetune.errors import StoreError

__all__ = [
    "ById",
    "Cached",
    "Delivered",
    "Expanded",
    "Ingested",
    "Keyframed",
    "Prepared",
    "Reported",
    "Result",
    "Scored",
    "Trained",
]


V = TypeVar("V")


class ById(dict[str, V]):
    """Records by their id. Asking for one that is not there raises `StoreError`: two stages' files do not fit."""

    def __missing__(self, name: str) -> V:
        remedy = "run `cinetune run`; if it says nothing is stale, `cinetune ingest --again`"
        raise StoreError(f"the project's records do not fit together: none is called {name[:80]!r}", remedy=remedy)


class Result(Protocol):
    """A frozen dataclass of tuples of artifacts; `stage` is the verb that makes it."""

    stage: ClassVar[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Ingested:
    stage: ClassVar[str] = "ingest"
    clips: tuple[FootageClip, ...] = ()
    shots: tuple[Shot, ...] = ()
    rejected: tuple[Rejected, ...] = ()

    @property
    def by_id(self) -> ById[FootageClip]:
        """The clips by their id."""
        return ById({clip.id: clip for clip in self.clips})

    def __post_init__(self) -> None:
        clips = self.by_id
        for shot in self.shots:
            _ = clips[shot.clip]


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    stage: ClassVar[str] = "prepare"
    windows: tuple[Window, ...] = ()
    measures: tuple[Measures, ...] = ()

    @property
    def by_id(self) -> ById[Window]:
        """The windows by their id."""
        return ById({window.id: window for window in self.windows})

    @property
    def training(self) -> tuple[Window, ...]:
        """The windows that are not held out."""
        return tuple(window for window in self.windows if window.split == "train")


@dataclass(frozen=True, slots=True, kw_only=True)
class Cached:
    """`shared` is one file: the embedding of the empty prompt."""

    stage: ClassVar[str] = "cache"
    entries: tuple[LatentEntry, ...] = ()
    shared: tuple[FileRef, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Trained:
    stage: ClassVar[str] = "train"
    looks: tuple[Look, ...] = ()

    @property
    def by_arm(self) -> dict[Arm, Look]:
        return {look.arm: look for look in self.looks}


@dataclass(frozen=True, slots=True, kw_only=True)
class Keyframed:
    stage: ClassVar[str] = "keyframes"
    keyframes: tuple[Keyframe, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Expanded:
    stage: ClassVar[str] = "expand"
    sequences: tuple[Sequence, ...] = ()
    scenes: tuple[SceneMatch, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivered:
    stage: ClassVar[str] = "deliver"
    deliveries: tuple[Delivery, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Scored:
    stage: ClassVar[str] = "score"
    scorecards: tuple[Scorecard, ...] = ()
    design: tuple[Design, ...] = ()
    vetoes: tuple[Veto, ...] = ()
    copies: tuple[CopySheet, ...] = ()
    subjects: tuple[SceneSubject, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Reported:
    stage: ClassVar[str] = "report"
    page: tuple[FileRef, ...] = ()
