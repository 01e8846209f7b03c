"""Does the look repeat training clips? Nearest neighbours, a picture of the nearest pairs, and a veto.

Closeness to the film rewards copying it. Where a shot of a trained arm lies nearer to a training frame than unrelated
scenes of the film lie to each other, and its base twin does not, "closer to the film" may not be said. How near that is
allows for the number of shots on the page.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cinetune.artifacts import Arm, CopySheet, Domain, FileRef, Kept, Veto
from cinetune.durable import atomic_write
from cinetune.metrics.cards import DOMAINS
from cinetune.metrics.memorisation import NearestTraining
from cinetune.scoring.clips import Source
from cinetune.scoring.film import Film
from cinetune.store import Project, content_key

if TYPE_CHECKING:
    import numpy as np

__all__ = ["CLOSENESS", "Copies", "ShotFeatures", "find_copies"]

CLOSENESS = ("clip_kid", "clip_fid", "cmmd", "kvd", "fvd", "clip_reference")
"""Measures that a copy improves: by the beginning of their names."""
TRAINED: tuple[Arm, ...] = ("look", "plain")
SHEET_PAIRS = 8
LEAST_SCENES = 4
# Part of the key of the drawn pairs.
VERSION = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class ShotFeatures:
    """One generated shot to look for in the film: its frames' features by the first network, and where they are."""

    arm: Arm
    shot: str
    seed: int
    domain: Domain
    source: Source
    features_TD: np.ndarray


@dataclass(frozen=True, slots=True, kw_only=True)
class Copies:
    """What the search found: vetoes, pictures, sentences for the protocol and the reader."""

    vetoes: tuple[Veto, ...] = ()
    sheets: tuple[CopySheet, ...] = ()
    said: str = "not measured"
    warnings: tuple[str, ...] = ()


def find_copies(
    project: Project,
    probes: Sequence[ShotFeatures],
    film: Film,
    features: Sequence[np.ndarray],
    *,
    measures: Sequence[str],
    title: str,
) -> Copies:
    """Search every trained arm's shots among the training windows, each beside its base twin of the same seed.

    `features` are those of `film.windows` in order. `measures` are the names of all measures of the page. The nearest
    pairs are drawn to `work/score/copies-<arm>.webp` whatever comes out, for a person to look at.
    """
    from cinetune.metrics.memorisation import training_neighbours

    scenes = [scene for _, scene in film.windows]
    if len(set(scenes)) < LEAST_SCENES:
        return Copies(said=f"not measured: {len(set(scenes))} scenes cannot say how near unrelated ones are")
    twins = {(probe.shot, probe.seed): probe for probe in probes if probe.arm == "base"}
    by_arm: dict[Arm, list[ShotFeatures]] = {
        arm: [p for p in probes if p.arm == arm and (p.shot, p.seed) in twins] for arm in TRAINED
    }
    everyone = sum(map(len, by_arm.values()))
    vetoes: list[Veto] = []
    sheets: list[CopySheet] = []
    for arm, own in by_arm.items():
        if not own:
            continue
        base = [twins[probe.shot, probe.seed].features_TD for probe in own]
        look = [probe.features_TD for probe in own]
        found = training_neighbours(look, base, list(features), scenes=scenes, probes=everyone)
        picture = _picture(project, arm, own, found, film)
        suspects = [(probe, near) for probe, near in zip(own, found, strict=True) if near.suspect]
        nearest = max(near.look.similarity for near in found)
        said = f"{arm}: {len(suspects)} of {len(own)} suspect, nearest cosine {nearest:.3f}"
        sheets.append(CopySheet(arm=arm, picture=picture, said=said))
        vetoes += _vetoes(arm, suspects, measures, picture)
    if not sheets:
        return Copies(said="no trained arm")
    calibrated = f"{title}; calibrated on {len(set(scenes))} scenes for {everyone} shots at once, beside the base twin"
    said = f"{'; '.join(sheet.said for sheet in sheets)} ({calibrated})"
    return Copies(vetoes=tuple(vetoes), sheets=tuple(sheets), said=said)


def _vetoes(
    arm: Arm, suspects: Sequence[tuple[ShotFeatures, NearestTraining]], measures: Sequence[str], picture: FileRef
) -> list[Veto]:
    found = []
    for domain in DOMAINS:
        here = [(probe, near) for probe, near in suspects if probe.domain == domain]
        if here:
            worst, near = max(here, key=lambda item: item[1].look.similarity)
            found.append(
                Veto(
                    arm=arm, domain=domain, picture=picture,
                    metrics=tuple(name for name in measures if name.startswith(CLOSENESS)),
                    why=f"{len(here)} shots are nearer to a training frame than unrelated scenes are to each other, "
                    f"and their base twins are not ({worst.shot}, seed {worst.seed}: cosine {near.look.similarity:.3f} "
                    f"against {near.base.similarity:.3f}): look at the pairs, closeness to the film may be copying",
                )
            )  # fmt: skip
    return found


def _picture(
    project: Project, arm: Arm, probes: Sequence[ShotFeatures], found: Sequence[NearestTraining], film: Film
) -> FileRef:
    """The nearest pairs as a file of the store, and under a name for people; drawn once."""
    order = sorted(range(len(found)), key=lambda i: -found[i].look.similarity)[:SHEET_PAIRS]
    pairs = [
        (probes[i].source.key, found[i].look.frame, film.windows[found[i].look.clip][0].key, found[i].look.clip_frame)
        for i in order
    ]

    def make() -> Kept:
        with project.store.new_object(".webp") as (temporary, done):
            temporary.write_bytes(_draw(order, probes, found, film))
        return Kept(file=done[0])

    record = project.store.unit("score", content_key("copies", VERSION, pairs), Kept, make)
    with atomic_write(project.store.work / "score" / f"copies-{arm}.webp") as temporary:
        temporary.write_bytes(project.store.path(record.file).read_bytes())
    return record.file


def _draw(order: Sequence[int], probes: Sequence[ShotFeatures], found: Sequence[NearestTraining], film: Film) -> bytes:
    """The nearest pairs, generated above real, nearest first."""
    import numpy as np

    from cinetune.pages.sheet import strip

    rows: list[list[np.ndarray]] = [[], []]
    for i in order:
        window = film.windows[found[i].look.clip][0]
        for row, source, number in ((0, probes[i].source, found[i].look.frame), (1, window, found[i].look.clip_frame)):
            rows[row].append(_frame(source, number))
            source.let_go()
    height, width = (min(picture.shape[axis] for row in rows for picture in row) for axis in (0, 1))
    stacked = [np.concatenate([top[:height, :width], below[:height, :width]]) for top, below in zip(*rows, strict=True)]
    return strip(np.stack(stacked))


def _frame(source: Source, number: int) -> np.ndarray:
    """The frame that row `number` of the features was made from."""
    from cinetune.metrics.suite import picked

    return picked(source.frames())[number]
