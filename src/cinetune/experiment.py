"""Whole experiments by name: settings that declare the claims, a check before anything is rendered, and the answer.

`ood`: does the look help in the film's own world and hurt outside it? By CLIP-KID and CLIP-FID to real clips of each
world, their difference (the interaction) with intervals, what it costs in structure, and whether it copies.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from cinetune.errors import ConfigError
from cinetune.results import Scored
from cinetune.store import Project

if TYPE_CHECKING:
    from cinetune.artifacts import Domain, Score, Scorecard

__all__ = ["EXPERIMENTS", "Experiment", "Line", "announce", "answer", "check", "concluded", "settings_of"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Experiment:
    """A row: `settings` are laid over the project's own, as `--set` would; `quick` over those."""

    question: str
    settings: Mapping[str, str]
    quick: Mapping[str, str]
    measures: tuple[str, ...]


EXPERIMENTS: dict[str, Experiment] = {
    "ood": Experiment(
        question="Does the look bring shots nearer to real clips of their world, inside the film's and outside?",
        settings={
            "shoot.seeds": "3",
            "score.design.domains": '["in", "out"]',
            "score.design.closer": '["clip_kid"]',
            "score.design.guards": '["structure", "luma_flicker"]',
            "score.design.interaction": '["clip_kid"]',
            "score.design.control": "[]",
        },
        quick={"shoot.seeds": "1"},
        measures=(
            "clip_kid", "clip_fid", "cmmd", "clip_kid_film", "clip_fid_film", "structure", "structure_kept",
            "gradients", "colour_error", "drift", "luma_flicker", "motion_error",
        ),
    )
}  # fmt: skip


def settings_of(name: str, asked: Sequence[str] = (), *, quick: bool) -> list[str]:
    """The experiment's settings as overrides, those of `asked` (`key=value`) in their place. Raises `ConfigError` for a
    name that is none.
    """
    if name not in EXPERIMENTS:
        raise ConfigError(f"no experiment {name!r}", remedy=f"one of {', '.join(EXPERIMENTS)}")
    table = dict(EXPERIMENTS[name].settings) | (dict(EXPERIMENTS[name].quick) if quick else {})
    merged = {key: f"{key}={value}" for key, value in table.items()}
    return list((merged | {text.partition("=")[0].strip(): text for text in asked}).values())


def announce(project: Project, name: str) -> list[str]:
    """What is said before anything is rendered: the question, the shots and references, the declared design.

    Raises `ConfigError` when something is missing.
    """
    from cinetune.metrics.design import declared

    notes = check(project)
    design = declared(project)
    claims = ", ".join(
        f"{claim.metric} {claim.kind} ({claim.domain})" + (f" within {claim.margin:g}" if claim.margin else "")
        for claim in design.claims
    )
    return [
        EXPERIMENTS[name].question,
        *notes,
        f"design {design.sha}, declared {design.declared_utc}: arms {', '.join(design.arms)}; {design.seeds} seeds",
        f"claims: {claims}",
        *design.power,
    ]


def concluded(project: Project, name: str) -> tuple[str, Path]:
    """The answer as Markdown, and the file in `report/` it was written to."""
    cards = project.store.need(Scored).scorecards
    lines = answer(cards, _measures(project, EXPERIMENTS[name].measures))
    text = _markdown(EXPERIMENTS[name].question, lines, cards)
    path = project.root / "report" / f"experiment-{name}.md"
    project.store.write_text(path, text)
    return text, path


def _measures(project: Project, names: Sequence[str]) -> list[str]:
    """The names, and behind each set measure the same by every further network."""
    found: list[str] = []
    for name in names:
        found += [name, *(f"{name}@{network}" for network in project.config.score.features[1:])]
    return found


def check(project: Project) -> list[str]:
    """Look before anything is rendered. Returns what a reader should know; raises `ConfigError` with everything that is
    missing at once.
    """
    from cinetune.metrics.sets import LEAST_CLIPS
    from cinetune.metrics.stats import least_shots

    shots, least = project.shots().shots, least_shots(project.config.score.design.rarest)
    problems: list[str] = []
    notes: list[str] = []
    worlds: tuple[tuple[Domain, str], ...] = (("in", "the film's own world"), ("out", "another world"))
    for domain, world in worlds:
        own = [shot for shot in shots if shot.domain == domain]
        if len(own) < least:
            problems.append(f'{len(own)} shots in {world} (domain = "{domain}"), {least} or more are needed')
        named = project.config.score.reference.get(domain, "")
        truths = sum(shot.truth is not None for shot in own)
        if named and not (project.root / named).exists():
            problems.append(f"score.reference.{domain} names {named}, which is not there")
        elif not named and truths < LEAST_CLIPS:
            problems.append(
                f"no real clips of {world}: set score.reference.{domain} to a folder with {LEAST_CLIPS} clips or more"
            )
        else:
            notes.append(f"{domain}: {len(own)} shots, against {named or f'{truths} truths of the shots'}")
        if truths < len(own):
            lacking = f"{len(own) - truths} shots have no truth"
            notes.append(f"{domain}: {lacking}: structure is held against the same shot without the look")
    if problems:
        remedy = "docs/ood.md walks through it"
        raise ConfigError("the experiment cannot be run:\n  - " + "\n  - ".join(problems), remedy=remedy)
    return notes


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One measure of the answer: levels and effects by domain, and their difference."""

    metric: str
    unit: str
    inside: Score | None
    outside: Score | None
    between: Score | None
    levels: Mapping[str, Mapping[str, float | None]]


def answer(cards: Sequence[Scorecard], measures: Sequence[str]) -> list[Line]:
    """The experiment's measures out of the score's cards: the look against what its claims are held against."""
    versus = "trigger" if any(card.versus == "trigger" for card in cards) else "base"
    own = {card.domain: card for card in cards if card.arm == "look" and card.versus == versus}
    lines: list[Line] = []
    for metric in measures:
        found = {
            domain: next((score for score in card.effects if score.metric == metric), None)
            for domain, card in own.items()
        }
        some = next((score for score in found.values() if score is not None), None)
        if some is None:
            continue
        levels = {domain: card.levels.get(metric, {}) for domain, card in own.items() if domain != "both"}
        lines.append(
            Line(
                metric=metric, unit=some.unit, inside=found.get("in"), outside=found.get("out"),
                between=found.get("both"), levels=levels,
            )
        )  # fmt: skip
    return lines


def _markdown(question: str, lines: Sequence[Line], cards: Sequence[Scorecard]) -> str:
    card = next((card for card in cards if card.arm == "look"), None)
    if card is None:
        return f"# {question}\n\nNo look was scored.\n"
    versus = "trigger" if any(other.versus == "trigger" for other in cards) else "base"
    rows = [
        f"# {question}",
        "",
        f"Effects are look minus {versus}, with 95 % intervals; `between` is in minus out.",
        "",
        f"| measure | in: {versus} | in: look | effect in | out: {versus} | out: look | effect out | between |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for line in lines:
        levels = [_number(line.levels.get(domain, {}).get(arm)) for domain in ("in", "out") for arm in (versus, "look")]
        effects = [_cell(score) for score in (line.inside, line.outside, line.between)]
        cells = [
            f"`{line.metric}` ({line.unit.replace('|', '/')})",
            *levels[:2],
            effects[0],
            *levels[2:],
            effects[1],
            effects[2],
        ]
        rows.append("| " + " | ".join(cells) + " |")
    rows += ["", "How it was measured:", ""]
    told = ("model", "design", "features", "features_missing", "references", "memorisation", "unit", "frames", "hash")
    rows += [f"- {name}: {card.protocol[name]}" for name in told if name in card.protocol]
    rows += [f"- **{warning}**" for warning in dict.fromkeys(w for one in cards for w in one.warnings)]
    return "\n".join(rows) + "\n"


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3g}"


def _cell(score: Score | None) -> str:
    """An effect: number, interval, and the word of a declared claim; or why there is none."""
    if score is None:
        return "not measured"
    if score.value is None:
        return score.why or "not measured"
    interval = "" if score.low is None or score.high is None else f" ({score.low:+.3g} to {score.high:+.3g})"
    word = f" **{score.verdict}**" if score.claim and score.verdict else ""
    return f"{score.value:+.3g}{interval}{word}"
