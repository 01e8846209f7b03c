"""All numbers of the score stage: each shot by the table of measures, sets of shots, anchors, copies of the film.

One clip's pixels are in memory at a time. What was worked out before, for the same pixels, networks and film, is read.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from cinetune.artifacts import ClipMeasures, CopySheet, Domain, PlannedShot, SceneSubject, Veto
from cinetune.artifacts import Sequence as FilmSequence
from cinetune.runtime import Quiet, Reporter, choose_device
from cinetune.scoring.clips import Source, kept_cloud, kept_features, shot_source, truth_source
from cinetune.scoring.copies import Copies, ShotFeatures, find_copies
from cinetune.scoring.film import Film, References, read_film, read_references
from cinetune.scoring.nets import Net, Nets, choose_nets, missing_needs
from cinetune.scoring.scenes import scene_subjects
from cinetune.store import Project, content_key

if TYPE_CHECKING:
    import numpy as np

    from cinetune.metrics.cards import Measured, SetEffect
    from cinetune.metrics.suite import ClipReading, Evidence, Semantics

__all__ = ["Taken", "take"]

# Part of the key of every clip's measures: raise it when the same clip would be measured otherwise.
VERSION = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Taken:
    """Everything that was measured, and how, in the words of the protocol."""

    clips: tuple[Measured, ...]
    sets: tuple[SetEffect, ...]
    vetoes: tuple[Veto, ...]
    copies: tuple[CopySheet, ...]
    subjects: tuple[SceneSubject, ...]
    spread: dict[str, float]
    protocol: dict[str, str]
    warnings: tuple[str, ...]


@dataclass(slots=True, kw_only=True)
class _Bench:
    """What every shot is measured against."""

    project: Project
    nets: Nets
    film: Film
    missing: Mapping[str, str]
    versus: str
    """The arm that claims hold the look against."""
    model: Any = None
    _truth: tuple[str, ClipReading] | None = None
    _words: tuple[str, np.ndarray] | None = None
    _near: tuple[str, np.ndarray] | None = None

    def truth_of(self, source: Source) -> ClipReading:
        """The truth that all arms of a shot are held against, read once for all of them."""
        from cinetune.metrics.suite import ClipReading

        if self._truth is None or self._truth[0] != source.key:
            self._truth = source.key, ClipReading(source.frames())
        return self._truth[1]

    def scenes_near(self, home: Source) -> np.ndarray:
        """Lab pixels of the scenes nearest in colour to the clip that chooses for all arms of a shot."""
        from cinetune.metrics import nearest_scenes

        if self._near is None or self._near[0] != home.key:
            self._near = home.key, nearest_scenes(kept_cloud(self.project, home), self.film.clouds)
        return self._near[1]

    def words_of(self, net: Net, prompt: str) -> np.ndarray:
        """The prompt as the network knows it; all arms of a shot have the same one."""
        if self._words is None or self._words[0] != prompt:
            known = net.net.text([prompt])
            assert known is not None, f"{net.name} knows words"
            self._words = prompt, known[0]
        return self._words[1]

    def encoders(self) -> Any:
        """The base model for the anchors, loaded when the first anchor has not been measured before."""
        from cinetune.models import load_model

        self.model = self.model or load_model(self.project.config.model, parts="encoders")
        return self.model


def take(project: Project, sequences: Sequence[FilmSequence], report: Reporter) -> Taken:
    """Measure the shots of the list.

    Raises `ConfigError` for networks or references that do not exist, `WeightsError` for a damaged network,
    `FootageError` for reference clips that cannot be read, `ScoreError` for features that cannot be compared.
    """
    bench = _bench(project, report)
    nets = bench.nets
    planned = {shot.id: shot for shot in project.shots().shots}
    references = read_references(project, list(planned.values()), sequences, nets, report)
    measured = _measure_all(bench, sequences, planned, report)
    sets, warnings = _sets(bench, sequences, planned, references)
    copies = _copies(bench, sequences, planned, [effect.metric for effect in sets])
    subjects = scene_subjects(project, sequences, nets, bench.film, bench.missing.get("clip", ""))
    return Taken(
        clips=tuple(measured), sets=tuple(sets), vetoes=copies.vetoes, copies=copies.sheets,
        subjects=tuple(subjects), spread=_spread(bench.film),
        protocol=_protocol(bench, references, copies),
        warnings=(*references.warnings, *warnings, *copies.warnings, *_notes(bench)),
    )  # fmt: skip


def _bench(project: Project, report: Reporter) -> _Bench:
    device = choose_device(project.config.model.device, project.config.model.dtype)
    nets = choose_nets(project, device=device.name)
    return _Bench(
        project=project, nets=nets, film=read_film(project, nets, report),
        missing=missing_needs(nets, project.config.score.features),
        versus=project.config.claimed_against(),
    )  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class _Task:
    """A planned shot and all that was generated of it."""

    shot: PlannedShot
    own: tuple[FilmSequence, ...]

    @property
    def label(self) -> str:
        return self.shot.id


def _measure_all(
    bench: _Bench, sequences: Sequence[FilmSequence], planned: Mapping[str, PlannedShot], report: Reporter
) -> list[Measured]:
    """Every shot and what it is held against. Those that were not measured before are measured by worker processes,
    each on one thread, so that no number depends on how many there are.
    """
    from cinetune.generation import Work, run_tasks

    made = [_Task(shot=shot, own=tuple(s for s in sequences if s.shot == shot.id)) for shot in planned.values()]
    tasks = [task for task in made if task.own]
    fresh = [task for task in tasks if _is_new(bench, task)]
    with report.progress("measuring", len(fresh)) as bar:
        work = Work(tasks=fresh, open_maker=partial(_open, bench.project), say=report.warn,
                    done=lambda task, _: bar.advance(1, task.label))  # fmt: skip
        run_tasks(work, workers=bench.project.config.shoot.workers)
    return [measured for task in tasks for measured in _measure_shot(bench, task)]


def _open(project: Project) -> Callable[[_Task], int]:
    """What a worker does first; the function that measures one shot and keeps its numbers in the store."""
    bench = _bench(project, Quiet())
    return lambda task: len(_measure_shot(bench, task))


def _is_new(bench: _Bench, task: _Task) -> bool:
    truth, home = _home(bench, task)
    given = _all_given(bench, task, truth, home)
    keys = (_key(bench, one, "", sequence) for one, sequence in zip(given, task.own, strict=True))
    return not all(bench.project.store.has_unit("score", key) for key in keys)


def _home(bench: _Bench, task: _Task) -> tuple[Source | None, Source]:
    """The truth of a shot, and the clip that chooses the scenes it is held against: the truth or the base arm, once,
    never per arm.
    """
    truth = truth_source(bench.project, task.shot, task.own[0])
    return truth, truth or shot_source(bench.project, next((s for s in task.own if s.arm == "base"), task.own[0]))


def _all_given(bench: _Bench, task: _Task, truth: Source | None, home: Source) -> list[_Given]:
    """Every generated clip of a shot, with what it is held against."""
    own = [shot_source(bench.project, sequence) for sequence in task.own]
    twins = {} if truth else {s.seed: source for s, source in zip(task.own, own, strict=True) if s.arm == bench.versus}
    return [
        _Given(shot=task.shot, source=source, truth=truth, home=home, twin=twins.get(sequence.seed))
        for sequence, source in zip(task.own, own, strict=True)
    ]


def _measure_shot(bench: _Bench, task: _Task) -> list[Measured]:
    truth, home = _home(bench, task)
    found: list[Measured] = []
    for sequence, given in zip(task.own, _all_given(bench, task, truth, home), strict=True):
        found.append(_measured(bench, given, arm=sequence.arm, seed=sequence.seed, made=sequence))
        for one in (given.source, given.twin):
            if one is not None:
                one.let_go()
    if truth is not None:
        found += _anchors(bench, task.shot, truth)
        truth.let_go()
    home.let_go()
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class _Given:
    """A clip to measure and what it is held against; `home` is the clip that chooses the scenes of the film, None =
    it is not held against the film. `twin` is the same shot and seed without the look, where there is no truth.
    """

    shot: PlannedShot
    source: Source
    truth: Source | None
    home: Source | None
    twin: Source | None = None


def _key(bench: _Bench, given: _Given, arm: str, made: FilmSequence | None) -> str:
    """What the measures of a clip depend on; `arm` counts where it is no generated shot."""
    from cinetune.metrics.suite import METRICS

    drift, seam = (made.drift, made.seam_ratio) if made else (None, None)
    near = given.home is not None and bool(bench.film.clouds)
    return content_key(
        "measures", VERSION, [f"{row.name}/{row.version}" for row in METRICS], given.source.key,
        given.truth.key if given.truth else "", given.home.key if given.home and near else "", bench.film.key,
        [net.identity for net in bench.nets], bench.nets.perceptual[1], given.shot.prompt, dict(bench.missing),
        [arm if made is None else "", drift, seam, given.twin.key if given.twin else ""],
    )  # fmt: skip


def _measured(bench: _Bench, given: _Given, *, arm: str, seed: int, made: FilmSequence | None = None) -> Measured:
    """One clip by the whole table; read if it was measured before."""
    from cinetune.metrics.cards import Measured
    from cinetune.metrics.suite import curve, measure

    drift, seam = (made.drift, made.seam_ratio) if made else (None, None)

    def make() -> ClipMeasures:
        evidence = replace(_evidence(bench, given), seam_ratio=seam, drift=drift if made else _own_drift(given, arm))
        values = measure(evidence)
        return ClipMeasures(
            values={name: value for name, (value, _) in values.items()},
            why={name: why for name, (_, why) in values.items() if why},
            curve=curve(evidence),
        )

    record = bench.project.store.unit("score", _key(bench, given, arm, made), ClipMeasures, make)
    values = {name: (value, record.why.get(name, "")) for name, value in record.values.items()}
    return Measured(arm=arm, shot=given.shot.id, seed=seed, values=values, curve=record.curve)


def _own_drift(given: _Given, arm: str) -> float | None:
    """How far the truth itself drifts from its first frame: without that level nobody can read a drift."""
    from cinetune.metrics.temporal import colour_drift

    return float(colour_drift(given.source.frames())[-1]) if arm == "truth" else None


def _evidence(bench: _Bench, given: _Given) -> Evidence:
    from cinetune.metrics.suite import ClipReading, Evidence

    return Evidence(
        shot=ClipReading(given.source.frames()),
        cloud_N3=kept_cloud(bench.project, given.source),
        film_N3=bench.scenes_near(given.home) if given.home and bench.film.clouds else None,
        truth=bench.truth_of(given.truth) if given.truth else None,
        twin_THWC=given.twin.frames() if given.twin else None,
        clip=_semantics(bench, given),
        net=bench.nets.perceptual_net(),
        missing={**bench.missing, **({"twin": "the shot has a truth to be held against"} if given.truth else {})},
    )


def _semantics(bench: _Bench, given: _Given) -> Semantics | None:
    """Features by the first frame network, and by the first that knows words; the prompt without the trigger phrase,
    which no CLIP knows.
    """
    import numpy as np

    from cinetune.metrics.suite import Semantics

    if not bench.nets.frames:
        return None
    first, words = bench.nets.frames[0], bench.nets.text
    scenes = bench.film.features[first.name]
    return Semantics(
        frames_TD=kept_features(bench.project, given.source, first),
        film_ND=np.concatenate(scenes) if scenes else None,
        truth_TD=kept_features(bench.project, given.truth, first) if given.truth else None,
        text_D=bench.words_of(words, given.shot.prompt) if words else None,
        worded_TD=kept_features(bench.project, given.source, words) if words and words is not first else None,
    )


def _anchors(bench: _Bench, shot: PlannedShot, truth: Source) -> list[Measured]:
    """What the numbers read without a generator: `truth` itself, `floor` (the truth through the VAE and back), and
    `ceiling` (its first frame, frozen).
    """
    import numpy as np

    from cinetune.metrics.suite import METRICS
    from cinetune.models import model_identity

    model = model_identity(bench.project.config.model)
    cases = {
        "truth": Source(truth.key, f"truth of {shot.id}", truth.frames),
        "floor": Source(
            content_key("vae", model, truth.key), "floor", lambda: _through_vae(bench.encoders(), truth.frames())
        ),
        "ceiling": Source(
            content_key("frozen", truth.key), "ceiling",
            lambda: np.repeat(truth.frames()[:1], len(truth.frames()), axis=0),
        ),
    }  # fmt: skip
    against = {row.name for row in METRICS if "truth" in row.needs}
    found: list[Measured] = []
    for name, source in cases.items():
        own = name == "truth"
        given = _Given(shot=shot, source=source, truth=None if own else truth, home=truth if own else None)
        measured = _measured(bench, given, arm=name, seed=0)
        kept = {metric: value for metric, value in measured.values.items() if (metric in against) != own}
        found.append(replace(measured, values=kept))
        source.let_go()
    return found


def _through_vae(model: Any, frames_THWC: np.ndarray) -> np.ndarray:
    """The clip encoded and decoded, cut to the model's frame rule: the best any generator with this VAE could do."""
    import torch

    from cinetune.generation import pictures
    from cinetune.timecode import nearest_legal_frames

    legal = nearest_legal_frames(len(frames_THWC), model.info.stride_time)[0]
    video = torch.from_numpy(frames_THWC[:legal].copy()).permute(3, 0, 1, 2)[None] * 2 - 1
    return torch.stack(list(pictures(model, model.encode_video(video)))).numpy()


def _spread(film: Film) -> dict[str, float]:
    """What the film's own scenes read against the scenes nearest to them: the median, by metric."""
    import numpy as np

    from cinetune.metrics import film_spread
    from cinetune.metrics.suite import METRICS

    if len(film.clouds) < 2:
        return {}
    return {
        row.name: float(np.median(film_spread(row.spread, film.clouds))) for row in METRICS if row.spread is not None
    }


def _sets(
    bench: _Bench, sequences: Sequence[FilmSequence], planned: Mapping[str, PlannedShot], references: References
) -> tuple[list[SetEffect], list[str]]:
    """Set metrics by every network; names of all networks but the first of their kind carry `@network`."""
    from cinetune.metrics.cards import PAIRS
    from cinetune.metrics.sets import SetClip, SetInput, set_effects, wrong_domain
    from cinetune.metrics.suite import apart

    domains: dict[str, Domain] = {shot.id: shot.domain for shot in planned.values()}
    found: list[SetEffect] = []
    warnings: list[str] = []
    for net in bench.nets:
        thin = apart if net.per == "frame" else _all_of
        clips = []
        for sequence in sequences:
            source = shot_source(bench.project, sequence)
            rows = thin(kept_features(bench.project, source, net))
            clips.append(SetClip(arm=sequence.arm, shot=sequence.shot, seed=sequence.seed, features_TD=rows))
            source.let_go()
        given = SetInput(
            network=net.name, per="frame" if net.per == "frame" else "clip", clips=tuple(clips), domains=domains,
            references={
                domain: [(shot, thin(features[net.name])) for shot, features in items]
                for domain, items in references.clips.items()
            },
            film=[thin(rows) for rows in bench.film.features[net.name]], why_not=references.why_not,
        )  # fmt: skip
        first = net in (bench.nets.frames[:1] if net.per == "frame" else bench.nets.clips[:1])
        found += set_effects(given, PAIRS, suffix="" if first else f"@{net.name}")
        warnings += wrong_domain(given) if first and net.per == "frame" else []
    return found, warnings


def _all_of(rows: np.ndarray) -> np.ndarray:
    return rows


def _copies(
    bench: _Bench, sequences: Sequence[FilmSequence], planned: Mapping[str, PlannedShot], measures: Sequence[str]
) -> Copies:
    if not bench.nets.frames:
        return Copies(said="not measured: no network for frames is here")
    net = bench.nets.frames[0]
    probes = []
    for sequence in sequences:
        source = shot_source(bench.project, sequence)
        rows = kept_features(bench.project, source, net)
        probes.append(
            ShotFeatures(
                arm=sequence.arm, shot=sequence.shot, seed=sequence.seed, source=source, features_TD=rows,
                domain=planned[sequence.shot].domain,
            )
        )  # fmt: skip
    film = [kept_features(bench.project, source, net) for source, _ in bench.film.windows]
    names = (*dict.fromkeys(measures), "clip_reference")
    return find_copies(bench.project, probes, bench.film, film, measures=names, title=net.label)


def _protocol(bench: _Bench, references: References, copies: Copies) -> dict[str, str]:
    from cinetune.metrics.grade import NEAREST
    from cinetune.metrics.suite import CLOUD_PIXELS, FRAME_STEP, METRICS, SET_STEP

    film = bench.film
    absent = "; ".join(f"{name}: {why}" for name, why in bench.nets.missing.items())
    return {
        "film": f"{len(film.windows)} training windows, {len(film.clouds)} scenes; a shot is held against the "
        f"{NEAREST} nearest in colour to its truth, or else to its base arm, the same for every arm; `film` = median "
        "scene, held so against the others",
        "grade": f"CIE Lab D65, sRGB curve, {CLOUD_PIXELS} pixels a clip",
        "features": "; ".join(net.label for net in bench.nets) or "none",
        "features_missing": absent or "none",
        "perceptual": bench.nets.perceptual[0] or "none",
        "feature_frames": f"every {FRAME_STEP}th, frame 0 left out; set metrics every {SET_STEP}th; whole frame "
        "squashed, bicubic antialiased",
        "references": "; ".join(f"{domain}: {said}" for domain, said in references.said.items()) or "none",
        "memorisation": copies.said,
        "metrics": ", ".join(f"{row.name}/{row.version}" for row in METRICS),
    }


def _notes(bench: _Bench) -> list[str]:
    found = [
        f"The feature network {name} was named and is not here: {why}." for name, why in bench.nets.missing.items()
    ]
    if len(bench.film.clouds) < 2:
        found.append("The film has fewer than two training scenes, so its own spread is not known.")
    return found
