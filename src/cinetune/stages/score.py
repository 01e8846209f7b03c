"""score: does the look bring new shots closer to the film, and what does it cost?

Reads the shots, the training windows (the film) and, where the shot list names them, truth videos; writes one
`Scorecard` for each pair of arms and domain. The unit is the shot; seeds are averaged inside it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Any

from cinetune.artifacts import Design, PlannedShot
from cinetune.artifacts import Sequence as FilmSequence
from cinetune.errors import StoreError
from cinetune.files import read_master
from cinetune.results import Expanded, Ingested, Prepared, Scored
from cinetune.runtime import Reporter
from cinetune.stage import Made, Stage
from cinetune.store import Project, content_key, sha256_file

if TYPE_CHECKING:
    import numpy as np

    from cinetune.metrics.cards import Measured, SetEffect
    from cinetune.metrics.suite import Semantics
    from cinetune.models.family import VideoModel

__all__ = ["STAGE", "inputs", "make", "run"]

# Part of the stage's key: raise it when the same shots would be measured or judged otherwise.
VERSION = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class _Clip:
    """The CLIP that features come from, and what it is called in the protocol."""

    model: Any
    tokenizer: Any
    label: str


@dataclass(frozen=True, slots=True, kw_only=True)
class _Film:
    """The film as the metrics see it: Lab pixels by scene, CLIP features by scene if there is a CLIP."""

    clip: _Clip | None
    clouds: tuple[np.ndarray, ...]
    features: tuple[np.ndarray, ...]
    windows: int


def inputs(project: Project) -> dict[str, str]:
    """Hashes of the shot list and of the truth videos it names, and the version of the measures."""
    truths = [shot.truth for shot in project.shots().shots if shot.truth is not None]
    found = {"shots.toml": sha256_file(project.root / "shots.toml"), "measures": f"version {VERSION}"}
    return found | {truth: project.store.sha256(project.root / truth) for truth in truths}


def make(project: Project, report: Reporter) -> Made[Scored]:
    """Measure every shot and compare the arms.

    Raises `StoreError` if a parent stage is missing, `ConfigError` for a claim on a measure that does not exist.
    """
    from cinetune.metrics.cards import Results, Rules, scorecards
    from cinetune.metrics.design import declared

    design = declared(project)
    planned = {shot.id: shot for shot in project.shots().shots}
    sequences = tuple(each for each in project.store.need(Expanded).sequences if each.shot in planned)
    _check_made_alike(sequences)
    film = _read_film(project, _load_clip(), report)
    clips = _measure_all(project, sequences, planned, film, report=report)
    results = Results(
        clips=tuple(clips),
        domains={shot.id: shot.domain for shot in planned.values()},
        spread=_spread(film),
        sets=_sets(clips, planned, film),
    )
    rules = Rules(
        design=design,
        protocol=_protocol(design, sequences, film),
        warnings=_warnings(design, sequences, film),
    )
    cards = scorecards(results, rules)
    result = Scored(scorecards=tuple(cards), design=(design,), vetoes=tuple(results.vetoes))
    return Made(result=result, notes=_notes(cards))


STAGE = Stage(
    result=Scored, make=make, inputs=inputs, parents=(Ingested, Prepared, Expanded), sections=("model", "score"),
    model=True,
)  # fmt: skip
run = STAGE.run


def _check_made_alike(sequences: Sequence[FilmSequence]) -> None:
    """Raise `StoreError` for shots of two different base models: their difference would be called the look's."""
    first = sequences[0].made_by if sequences else {}
    for sequence in sequences:
        if sequence.made_by != first:
            names = [name for name in first | sequence.made_by if first.get(name) != sequence.made_by.get(name)]
            raise StoreError(
                f"shots were made by different base models: they differ in {', '.join(names)}",
                where=f"{sequences[0].shot} ({sequences[0].arm}) and {sequence.shot} ({sequence.arm})",
                remedy="run `cinetune expand`: it makes again what is of another model",
            )


def _sets(clips: Sequence[Measured], planned: Mapping[str, PlannedShot], film: _Film) -> tuple[SetEffect, ...]:
    """The set metrics, against the film."""
    from cinetune.metrics.cards import PAIRS
    from cinetune.metrics.sets import SetClip, SetInput, set_effects

    arms = {arm for pair in PAIRS for arm in pair}
    seen = tuple(
        SetClip(arm=clip.arm, shot=clip.shot, seed=clip.seed, features_TD=clip.features_TD)
        for clip in clips
        if clip.arm in arms and clip.features_TD is not None
    )
    domains = {shot.id: shot.domain for shot in planned.values()}
    given = SetInput(
        network="pocket", per="frame", clips=seen, domains=domains, references={}, film=film.features,
        why_not=dict.fromkeys(("in", "out"), "no reference clips of this domain"),
    )  # fmt: skip
    return tuple(set_effects(given, PAIRS)) if seen else ()


def _load_clip() -> _Clip | None:
    """The pocket's CLIP; None when the package came without its weights."""
    from cinetune.models.wan import pocket

    folder = pocket.weights_folder() / "clip"
    if not folder.is_dir():
        return None
    model, tokenizer = pocket.load_clip()
    digest = sha256_file(folder / "model.safetensors")
    return _Clip(model=model, tokenizer=tokenizer, label=f"pocket CLIP {digest[:12]}")


def _read_film(project: Project, clip: _Clip | None, report: Reporter) -> _Film:
    """Every training window once; a scene's windows are pooled, as they are not independent."""
    import numpy as np

    from cinetune.footage.video import read_window
    from cinetune.metrics.suite import cloud, embed

    windows, clips = project.store.need(Prepared).training, project.store.need(Ingested).by_id
    clouds: dict[str, list[np.ndarray]] = {}
    features: dict[str, list[np.ndarray]] = {}
    with report.progress("reading the film", len(windows)) as bar:
        for window in windows:
            frames = read_window(project.root, clips[window.clip], window)
            clouds.setdefault(window.scene, []).append(cloud(frames))
            if clip is not None:
                features.setdefault(window.scene, []).append(embed(clip.model, frames))
            bar.advance(1, window.id)
    scenes = tuple(np.concatenate(parts) for parts in clouds.values())
    return _Film(
        clip=clip,
        clouds=scenes,
        features=tuple(np.concatenate(parts) for parts in features.values()),
        windows=len(windows),
    )


def _spread(film: _Film) -> dict[str, float]:
    """What the film's own scenes read against the scenes nearest to them: the median, by metric."""
    import numpy as np

    from cinetune.metrics import film_spread
    from cinetune.metrics.suite import METRICS

    if len(film.clouds) < 2:
        return {}
    return {
        row.name: float(np.median(film_spread(row.spread, film.clouds))) for row in METRICS if row.spread is not None
    }


def _measure_all(
    project: Project,
    sequences: Sequence[FilmSequence],
    planned: Mapping[str, PlannedShot],
    film: _Film,
    *,
    report: Reporter,
) -> list[Measured]:
    """Every shot of every arm and seed, and for shots with a truth its anchors; one truth is in memory at a time."""
    from cinetune.models import load_model

    found: list[Measured] = []
    model: VideoModel | None = None
    with report.progress("measuring", len(sequences)) as bar:
        for shot in planned.values():
            own = [sequence for sequence in sequences if sequence.shot == shot.id]
            truth = _read_truth(project, shot, own[0]) if own else None
            for sequence in own:
                found.append(_measure(project, sequence, shot, film, truth))
                bar.advance(1, f"{shot.id} {sequence.arm}")
            if truth is not None:
                model = model or load_model(project.config.model, parts="encoders")
                found += _anchors(model, shot, film, truth)
    return found


def _measure(
    project: Project, sequence: FilmSequence, shot: PlannedShot, film: _Film, truth_THWC: np.ndarray | None
) -> Measured:
    from cinetune.metrics import nearest_scenes
    from cinetune.metrics.cards import Measured
    from cinetune.metrics.suite import Evidence, cloud, measure

    frames = read_master(project.store.path(sequence.video))
    semantics = _semantics(film, shot, frames)
    pixels = cloud(frames)
    evidence = Evidence(
        frames_THWC=frames,
        cloud_N3=pixels,
        film_N3=nearest_scenes(pixels, film.clouds) if film.clouds else None,
        truth_THWC=truth_THWC,
        clip=semantics,
        drift=sequence.drift,
        seam_ratio=sequence.seam_ratio,
    )
    return Measured(
        arm=sequence.arm,
        shot=sequence.shot,
        seed=sequence.seed,
        values=measure(evidence),
        features_TD=None if semantics is None else semantics.frames_TD,
    )


def _read_truth(project: Project, shot: PlannedShot, like: FilmSequence) -> np.ndarray | None:
    """The shot as the film would show it, `THWC`, at the rate and size of the generated one; shorter if the file is."""
    if shot.truth is None:
        return None
    from cinetune.footage.video import probe, read_frames
    from cinetune.generation import centre_box

    facts = probe(project.root / shot.truth)
    wanted = [int(frame * facts.rate / like.rate + Fraction(1, 2)) for frame in range(like.frames)]
    return read_frames(
        facts.path,
        [index for index in wanted if index < facts.frames],
        colour=facts.colour,
        crop=centre_box((facts.height, facts.width), height=like.height, width=like.width),
        size=(like.width, like.height),
        rate=facts.rate,
        reading=facts.reading,
    )


def _semantics(film: _Film, shot: PlannedShot, frames_THWC: np.ndarray) -> Semantics | None:
    """CLIP features of a shot; the prompt without the trigger phrase, which no CLIP knows."""
    if film.clip is None or not film.features:
        return None
    import numpy as np

    from cinetune.metrics import ClipMaps
    from cinetune.metrics.suite import Semantics, embed, embed_text

    clip = film.clip
    return Semantics(
        frames_TD=embed(clip.model, frames_THWC),
        text_D=embed_text(clip.model, clip.tokenizer, [shot.prompt])[0],
        film_ND=np.concatenate(film.features),
        net=ClipMaps(clip.model),
    )


def _anchors(model: VideoModel, shot: PlannedShot, film: _Film, truth_THWC: np.ndarray) -> list[Measured]:
    """What the numbers read without a generator: `truth` itself, `floor` (the truth through the VAE and back), and
    `ceiling` (its first frame, frozen).
    """
    import numpy as np

    from cinetune.metrics import nearest_scenes
    from cinetune.metrics.cards import Measured
    from cinetune.metrics.suite import METRICS, Evidence, cloud, measure

    against = {row.name for row in METRICS if "truth" in row.needs}
    frozen = np.repeat(truth_THWC[:1], len(truth_THWC), axis=0)
    cases = {"truth": truth_THWC, "floor": _through_vae(model, truth_THWC), "ceiling": frozen}
    found: list[Measured] = []
    for name, frames in cases.items():
        pixels = cloud(frames)
        evidence = Evidence(
            frames_THWC=frames,
            cloud_N3=pixels,
            film_N3=nearest_scenes(pixels, film.clouds) if name == "truth" and film.clouds else None,
            truth_THWC=None if name == "truth" else truth_THWC,
            clip=_semantics(film, shot, frames),
        )
        kept = {
            metric: value for metric, value in measure(evidence).items() if (metric in against) == (name != "truth")
        }
        found.append(Measured(arm=name, shot=shot.id, seed=0, values=kept))
    return found


def _through_vae(model: VideoModel, frames_THWC: np.ndarray) -> np.ndarray:
    """The clip encoded and decoded, cut to the model's frame rule: the best any generator with this VAE could do."""
    import torch

    from cinetune.generation import pictures
    from cinetune.timecode import nearest_legal_frames

    legal = nearest_legal_frames(len(frames_THWC), model.info.stride_time)[0]
    video = torch.from_numpy(frames_THWC[:legal].copy()).permute(3, 0, 1, 2)[None] * 2 - 1
    return torch.stack(list(pictures(model, model.encode_video(video)))).numpy()


def _protocol(design: Design, sequences: Sequence[FilmSequence], film: _Film) -> dict[str, str]:
    from cinetune.metrics.grade import NEAREST
    from cinetune.metrics.stats import LEAST_FOR_WORDS
    from cinetune.metrics.suite import CLOUD_PIXELS, FRAME_STEP, METRICS

    protocol = {
        "model": "; ".join(f"{name} {value}" for name, value in sequences[0].made_by.items()) if sequences else "none",
        "unit": "shot; seeds averaged inside a shot",
        "design": f"{design.sha}: arms {', '.join(design.arms)}; {design.seeds} seeds; alpha {design.alpha:g}; "
        f"{len(design.claims)} claims, judged as one family; every other row is exploratory",
        "frames": ", ".join(sorted({f"{s.frames} at {s.rate} fps, {s.width}x{s.height}" for s in sequences})),
        "film": f"{film.windows} training windows, {len(film.clouds)} scenes; a shot is held against the "
        f"{NEAREST} nearest in colour; `film` = median scene, held so against the others",
        "grade": f"CIE Lab D65, sRGB curve, {CLOUD_PIXELS} pixels a clip",
        "features": f"{film.clip.label}: never compare with published figures" if film.clip else "none",
        "feature_frames": f"every {FRAME_STEP}th, frame 0 left out",
        "test": "whole shots change sign, in all measures at once; step-down on the largest (Westfall & Young)",
        "interval": "95 %, the wider of Student's t and Hall's for skewed effects",
        "words": f"from {LEAST_FOR_WORDS} shots on; the 95 % interval must clear zero or the margin; none for a "
        "measure on which the truth reads worse than base",
        "noise": "base against base with other seeds, a band and no margin"
        if len({s.seed for s in sequences}) > 1
        else "not measured",
        "metrics": ", ".join(f"{row.name}/{row.version}" for row in METRICS),
    }
    return protocol | {"hash": content_key(protocol), "declared": design.declared_utc}


def _warnings(design: Design, sequences: Sequence[FilmSequence], film: _Film) -> tuple[str, ...]:
    found: list[str] = []
    early = sum(sequence.provenance.created_utc < design.declared_utc for sequence in sequences)
    if early:
        found.append(
            f"The design was declared after {early} of {len(sequences)} shots had been made: its words are as good as "
            "your word that nobody had looked."
        )
    lacking = [arm for arm in design.arms if not any(sequence.arm == arm for sequence in sequences)]
    if lacking:
        found.append(f"Declared but not rendered: arm {', '.join(lacking)}. Claims on it could not be tested.")
    if len({sequence.seed for sequence in sequences}) < 2:
        found.append(
            "One seed: the noise of base against base is not known. Set shoot.seeds = 3 where a verdict is wanted."
        )
    if len(film.clouds) < 2:
        found.append("The film has fewer than two training scenes, so its own spread is not known.")
    if film.clip is None:
        found.append("The pocket CLIP is not installed: no CLIP metric was measured.")
    elif not film.features:
        found.append("The film has no training windows: nothing could be compared with it.")
    return tuple(found)


def _notes(cards: Sequence[Any]) -> list[str]:
    return [
        f"{card.arm} against {card.versus}, domain {card.domain}: {score.metric} {score.verdict or 'not measured'}"
        for card in cards
        for score in card.effects
        if score.claim
    ]
