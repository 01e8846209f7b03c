"""The film as the measures see it, and the real clips that each domain's shots are held against."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from cinetune.artifacts import Domain, PlannedShot
from cinetune.artifacts import Sequence as FilmSequence
from cinetune.metrics.cards import DOMAINS
from cinetune.results import Ingested, Prepared
from cinetune.runtime import Reporter
from cinetune.scoring.clips import (
    Source,
    empty,
    film_source,
    kept_cloud,
    kept_features,
    reference_sources,
    truth_source,
)
from cinetune.scoring.nets import Nets
from cinetune.store import Project, content_key

if TYPE_CHECKING:
    import numpy as np

__all__ = ["Film", "References", "read_film", "read_references"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Film:
    """Lab pixels by scene, and for each network the features of each scene's windows; a scene's windows are pooled, as
    they are not independent. `windows` has each training window, its scene and its features for the search for copies.
    """

    key: str
    clouds: tuple[np.ndarray, ...]
    features: Mapping[str, tuple[np.ndarray, ...]]
    windows: tuple[tuple[Source, str], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class References:
    """Real clips by domain: the shot each shows ("" = none of ours) and its features by network. `said` describes them,
    `why_not` gives the reason where there are none, `warnings` what was left out.
    """

    clips: Mapping[Domain, tuple[tuple[str, Mapping[str, np.ndarray]], ...]] = field(default_factory=dict)
    said: Mapping[Domain, str] = field(default_factory=dict)
    why_not: Mapping[Domain, str] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()


def read_film(project: Project, nets: Nets, report: Reporter) -> Film:
    """Every training window once."""
    import numpy as np

    by_id, train = project.store.need(Ingested).by_id, project.store.need(Prepared).training
    sources = [film_source(project, by_id[window.clip], window) for window in train]
    clouds: dict[str, list[np.ndarray]] = {}
    features: dict[str, dict[str, list[np.ndarray]]] = {net.name: {} for net in nets}
    with report.progress("reading the film", len(train)) as bar:
        for window, source in zip(train, sources, strict=True):
            clouds.setdefault(window.scene, []).append(kept_cloud(project, source))
            for net in nets:
                features[net.name].setdefault(window.scene, []).append(kept_features(project, source, net))
            source.let_go()
            bar.advance(1, window.id)
    return Film(
        key=content_key("film", [source.key for source in sources]),
        clouds=tuple(np.concatenate(parts) for parts in clouds.values()),
        features={name: tuple(np.concatenate(parts) for parts in scenes.values()) for name, scenes in features.items()},
        windows=tuple((source, window.scene) for source, window in zip(sources, train, strict=True)),
    )


def read_references(
    project: Project, planned: Sequence[PlannedShot], sequences: Sequence[FilmSequence], nets: Nets, report: Reporter
) -> References:
    """What `score.reference` names for each domain, or else the truths of that domain's shots.

    Raises `ConfigError` for a path that is not there, `FootageError` for a file that is no film.
    """
    clips: dict[Domain, tuple[tuple[str, Mapping[str, np.ndarray]], ...]] = {}
    said: dict[Domain, str] = {}
    why_not: dict[Domain, str] = {}
    warnings: list[str] = []
    for domain in DOMAINS:
        own = [shot for shot in planned if shot.domain == domain]
        like = next((s for s in sequences if s.domain == domain), None)
        if like is None:
            continue
        named = project.config.score.reference.get(domain, "")
        if named:
            found = [("", source) for source in reference_sources(project, named, like)]
            said[domain] = f"{len(found)} clips of {named}"
        else:
            found = [(shot.id, source) for shot in own if (source := truth_source(project, shot, like)) is not None]
            said[domain] = f"{len(found)} truths of the shots; no shot is held against its own (but in FID)"
        if not found:
            why_not[domain] = f"no real clips are known for domain `{domain}`: set score.reference.{domain}"
            said[domain] = "none"
            continue
        with report.progress(f"reading the reference of `{domain}`", len(found)) as bar:
            read: list[tuple[str, Mapping[str, np.ndarray]]] = []
            for shot_id, source in found:
                if empty(project, source):
                    warnings.append(f"{source.label} is black or of one tone and was left out of the reference.")
                else:
                    read.append((shot_id, {net.name: kept_features(project, source, net) for net in nets}))
                source.let_go()
                bar.advance(1, source.label)
        clips[domain] = tuple(read)
    return References(clips=clips, said=said, why_not=why_not, warnings=tuple(warnings))
