"""Do the shots of one scene show one subject? By the network for frames, beside the film's own scenes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from statistics import fmean

from cinetune.artifacts import SceneSubject
from cinetune.artifacts import Sequence as FilmSequence
from cinetune.results import Prepared
from cinetune.scoring.clips import Source, kept_features, kept_first, shot_source
from cinetune.scoring.film import Film
from cinetune.scoring.nets import Net, Nets
from cinetune.shotlist import FILM_SCENES, shots_of_scenes
from cinetune.store import Project

__all__ = ["scene_subjects"]


def scene_subjects(
    project: Project, sequences: Sequence[FilmSequence], nets: Nets, film: Film, lost: str
) -> Iterator[SceneSubject]:
    """The shots of each scene of the list against each other, in every arm and seed, and the film's own scenes. `lost`
    says why there is no network for frames, where there is none.
    """
    together = shots_of_scenes(project.shots(), sequences)
    if not together:
        return
    net = nets.frames[0] if nets.frames else None
    for (scene, arm, seed), shots in together.items():
        sources = [shot_source(project, made) for made in shots]
        whole, first = _likeness(project, sources, net) if net else (None, None)
        yield SceneSubject(
            scene=scene, who=arm, seed=seed, subject=whole, keyframe_subject=first,
            network=net.label if net else "", why="" if net else lost,
        )  # fmt: skip
    own: dict[str, dict[str, Source]] = {}
    for (source, scene), window in zip(film.windows, project.store.need(Prepared).training, strict=True):
        own.setdefault(scene, {}).setdefault(window.shot, source)
    real = [list(shots.values()) for shots in own.values() if len(shots) > 1][:FILM_SCENES]
    if net and real:
        whole, first = zip(*(_likeness(project, sources, net) for sources in real), strict=True)
        yield SceneSubject(
            scene="", who="film", seed=0, subject=fmean(whole), keyframe_subject=fmean(first), network=net.label,
        )  # fmt: skip


def _likeness(project: Project, sources: Sequence[Source], net: Net) -> tuple[float, float]:
    """Of whole shots, and of their first pictures."""
    from cinetune.metrics import subject_likeness

    frames, firsts = [], []
    for source in sources:
        frames.append(kept_features(project, source, net))
        firsts.append(kept_first(project, source, net))
        source.let_go()
    return subject_likeness(frames), subject_likeness(firsts)
