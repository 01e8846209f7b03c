"""score: does the look bring new shots closer to the film, and what does it cost?

Reads the shots, the training windows (the film) and, where the shot list names them, truth videos; writes one
`Scorecard` for each pair of arms and domain. The unit is the shot; seeds are averaged inside it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cinetune.artifacts import Design
from cinetune.artifacts import Sequence as FilmSequence
from cinetune.errors import ScoreError, StoreError
from cinetune.results import Expanded, Ingested, Keyframed, Prepared, Scored
from cinetune.runtime import Reporter
from cinetune.scoring.nets import network_folder
from cinetune.stage import Made, Stage
from cinetune.store import Project, content_key

__all__ = ["STAGE", "inputs", "make", "run"]

# Part of the stage's key: raise it when the same shots would be measured or judged otherwise.
VERSION = 6


def inputs(project: Project) -> dict[str, str]:
    """Hashes of the shot list, of the truth videos it names, of reference clips and feature networks, and the version
    of the measures.
    """
    truths = [shot.truth for shot in project.shots().shots if shot.truth is not None]
    found = {"shots.toml": project.shots_sha256(), "measures": f"version {VERSION}"}
    found |= {truth: project.store.sha256(project.root / truth) for truth in truths}
    named = {name for name in project.config.score.reference.values() if name}
    named |= {str(network_folder(project, name)) for name in project.config.score.features if name != "own"}
    return found | {f"files of {name}": _hashed(project, project.root / name) for name in sorted(named)}


def _hashed(project: Project, path: Path) -> str:
    """Content of a folder's files, or of one file; empty if there is no such path."""
    files = sorted(path.rglob("*")) if path.is_dir() else [path]
    digests = {file.relative_to(path).as_posix(): project.store.sha256(file) for file in files if file.is_file()}
    return content_key(digests) if digests else ""


def make(project: Project, report: Reporter) -> Made[Scored]:
    """Measure every shot and compare the arms.

    Raises `StoreError` if a parent stage is missing, `ConfigError` for a claim on a measure that does not exist.
    """
    from cinetune.metrics.cards import Results, Rules, scorecards
    from cinetune.metrics.design import declared, shared
    from cinetune.scoring.measure import take

    design, config = declared(project), project.config
    keyframes = (project.store.find(Keyframed) or Keyframed()).keyframes
    planned = {shot.id: shot for shot in project.shots().shots}
    sequences = tuple(each for each in project.store.need(Expanded).sequences if each.shot in planned)
    _check_made_alike(sequences)
    taken = take(project, sequences, report)
    results = Results(
        clips=taken.clips,
        domains={shot.id: shot.domain for shot in planned.values()},
        spread=taken.spread,
        sets=taken.sets,
        vetoes=taken.vetoes,
    )
    rules = Rules(
        design=design,
        protocol=_protocol(design, sequences, taken.protocol, shared(keyframes, sequences, config.prepare.trigger)),
        warnings=_warnings(design, sequences) + taken.warnings,
    )
    cards = scorecards(results, rules)
    result = Scored(
        scorecards=tuple(cards), design=(design,), vetoes=tuple(results.vetoes), copies=taken.copies,
        subjects=taken.subjects,
    )  # fmt: skip
    return Made(result=result, notes=_notes(cards))


STAGE = Stage(
    result=Scored, make=make, inputs=inputs, parents=(Ingested, Prepared, Expanded), sections=("model", "score"),
    model=True,
)  # fmt: skip
run = STAGE.run


def _check_made_alike(sequences: Sequence[FilmSequence]) -> None:
    """Raise `StoreError` for shots of two different base models: their difference would be called the look's; and
    `ScoreError` for previews.
    """
    if any(sequence.preview for sequence in sequences):
        remedy = "set shoot.preview = false and run `cinetune expand`"
        raise ScoreError("the shots are previews, which are not scored", where="shoot.preview", remedy=remedy)
    first = sequences[0].made_by if sequences else {}
    for sequence in sequences:
        if sequence.made_by != first:
            names = [name for name in first | sequence.made_by if first.get(name) != sequence.made_by.get(name)]
            raise StoreError(
                f"shots were made by different base models: they differ in {', '.join(names)}",
                where=f"{sequences[0].shot} ({sequences[0].arm}) and {sequence.shot} ({sequence.arm})",
                remedy="run `cinetune expand`: it makes again what is of another model",
            )


def _protocol(
    design: Design, sequences: Sequence[FilmSequence], measured: Mapping[str, str], unshared: str
) -> dict[str, str]:
    from cinetune.metrics.stats import least_shots

    protocol = {
        "model": "; ".join(f"{name} {value}" for name, value in sequences[0].made_by.items()) if sequences else "none",
        "unit": f"shot; seeds averaged inside a shot; {unshared}",
        "design": f"{design.sha}: arms {', '.join(design.arms)}; {design.seeds} seeds; alpha {design.alpha:g}; "
        f"{len(design.claims)} claims, judged as one family; every other row is exploratory",
        "frames": ", ".join(sorted({f"{s.frames} at {s.rate} fps, {s.width}x{s.height}" for s in sequences})),
        "test": "whole shots change sign, in all measures at once; step-down on the largest (Westfall & Young)",
        "interval": "95 %, the wider of Student's t and Hall's for skewed effects",
        "words": f"from {least_shots(design.rarest)} shots on, for kinds of shots that one in {design.rarest} is of; "
        "the 95 % interval must clear zero or the margin; none for a measure on which the truth reads worse than base",
        "noise": "base against base with other seeds, a band and no margin"
        if len({s.seed for s in sequences}) > 1
        else "not measured",
        **measured,
    }
    return protocol | {"hash": content_key(protocol), "declared": design.declared_utc}


def _warnings(design: Design, sequences: Sequence[FilmSequence]) -> tuple[str, ...]:
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
    scaled = {sequence.shot for sequence in sequences if sequence.strength != 1}
    if scaled:
        found.append(
            f"{len(scaled)} shots have a look_strength in the shot list: the page speaks of the look as it was shot, "
            "not as it was trained."
        )
    if len({sequence.seed for sequence in sequences}) < 2:
        found.append(
            "One seed: the noise of base against base is not known. Set shoot.seeds = 3 where a verdict is wanted."
        )
    return tuple(found)


def _notes(cards: Sequence[Any]) -> list[str]:
    return [
        f"{card.arm} against {card.versus}, domain {card.domain}: {score.metric} {score.verdict or 'not measured'}"
        for card in cards
        for score in card.effects
        if score.claim
    ]
