"""From measured clips to scorecards: paired by shot, seeds averaged inside a shot, domains kept apart.

An effect is `arm - versus`. `claims` puts the declared ones in words; every other row is exploratory.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np

from cinetune.artifacts import Arm, Design, Domain, Score, Scorecard, Veto
from cinetune.metrics.claims import Row, put_in_words
from cinetune.metrics.stats import Estimate, effect, effect_between, harmed_at_most, least_shots, too_few
from cinetune.metrics.suite import CONTENT, METRICS

__all__ = ["Measured", "Results", "Rules", "SetEffect", "scorecards"]

PAIRS: tuple[tuple[Arm, Arm], ...] = (
    ("look", "base"),
    ("look", "trigger"),
    ("trigger", "base"),
    ("plain", "base"),
    ("look", "plain"),
)
Better = Literal["lower", "higher", "none"]
DOMAINS: tuple[Domain, ...] = ("in", "out")


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """One clip: `arm` is an arm, or `truth`, `floor`, `ceiling`; `values` as `suite.measure` gives them; `curve` is its
    perceptual distance to the truth frame by frame, where that is known.
    """

    arm: str
    shot: str
    seed: int
    values: dict[str, tuple[float | None, str]]
    curve: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class SetEffect:
    """A set metric of `arm` against `versus` in one domain. `effects` holds one number for each of `shots`, as
    `stats.pseudo_values` makes them; their mean is the effect. `reference_error` is the standard error that the
    choice of reference clips adds. Where it could not be measured `effects` is empty and `why` says so.
    """

    metric: str
    version: str
    unit: str
    better: Better
    arm: Arm
    versus: Arm
    domain: Domain
    shots: tuple[str, ...] = ()
    effects: tuple[float, ...] = ()
    reference_error: float = 0.0
    levels: Mapping[str, float | None] = field(default_factory=dict)
    why: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Results:
    """All measured clips, the domain of each shot, the film's own spread by metric, the set metrics, and what forbids a
    good word.
    """

    clips: tuple[Measured, ...]
    domains: dict[str, Domain]
    spread: dict[str, float]
    sets: tuple[SetEffect, ...] = ()
    vetoes: tuple[Veto, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """Decided before measuring: the design with its claims, and what a reader is told on every card."""

    design: Design
    protocol: dict[str, str]
    warnings: tuple[str, ...]


def scorecards(results: Results, rules: Rules) -> list[Scorecard]:
    """A card for each pair of arms that was rendered and each domain, and one for the difference between the domains.

    The words of all cards are found together, as one family.
    """
    arms = {clip.arm for clip in results.clips}
    cards: list[Scorecard] = []
    rows: list[Row] = []
    for arm, versus in PAIRS:
        if not {arm, versus} <= arms:
            continue
        made = [(card, own) for domain in DOMAINS for card, own in _card(results, rules, arm, versus, domain)]
        if len(made) == 2:
            made.append(_between(rules, made[0], made[1]))
        for card, own in made:
            cards.append(card)
            rows += own
    design = rules.design
    words = iter(put_in_words(rows, design.claims, alpha=design.alpha, vetoes=results.vetoes, rarest=design.rarest))
    return [replace(card, effects=tuple(itertools.islice(words, len(card.effects)))) for card in cards]


def _by_shot(results: Results, metric: str, arm: str, domain: Domain) -> dict[str, float]:
    """Mean over seeds for each shot of the domain that has a value; a shot with a seed that gave no finite number has
    none, as the arms would differ in their seeds.
    """
    found: dict[str, list[float]] = {}
    for clip in results.clips:
        value = clip.values.get(metric, (None, ""))[0]
        if clip.arm == arm and value is not None and results.domains[clip.shot] == domain:
            found.setdefault(clip.shot, []).append(value)
    return {shot: float(np.mean(values)) for shot, values in found.items() if np.isfinite(values).all()}


def _noise(results: Results, metric: str, domain: Domain) -> float | None:
    """Base against base: |mean difference over shots| between two seeds, averaged over pairs of seeds. None with one
    seed.
    """
    by_seed: dict[int, dict[str, float]] = {}
    for clip in results.clips:
        value = clip.values.get(metric, (None, ""))[0]
        if clip.arm == "base" and value is not None and results.domains[clip.shot] == domain:
            by_seed.setdefault(clip.seed, {})[clip.shot] = value
    gaps = []
    for one, other in itertools.combinations(by_seed.values(), 2):
        both = one.keys() & other.keys()
        if both:
            gaps.append(abs(float(np.mean([one[shot] - other[shot] for shot in sorted(both)]))))
    return float(np.mean(gaps)) if gaps else None


def _card(results: Results, rules: Rules, arm: Arm, versus: Arm, domain: Domain) -> list[tuple[Scorecard, list[Row]]]:
    """The card of one comparison and its rows; nothing where no shot has both arms."""
    there = {(clip.arm, clip.shot) for clip in results.clips}
    shots = [s for s, d in results.domains.items() if d == domain and (arm, s) in there and (versus, s) in there]
    if not shots:
        return []
    rows: list[Row] = []
    levels: dict[str, dict[str, float | None]] = {}
    per_shot: dict[str, dict[str, dict[str, float]]] = {}
    for metric in METRICS:
        name = metric.name
        level = levels[name] = _levels(results, name, domain)
        ours, theirs = (_by_shot(results, name, one, domain) for one in (arm, versus))
        both = [shot for shot in shots if shot in ours and shot in theirs]
        if both:
            per_shot[name] = {shot: {arm: ours[shot], versus: theirs[shot]} for shot in both}
        better: Better = "none" if domain == "out" and name in CONTENT else metric.better
        score = Score(metric=name, version=metric.version, unit=metric.unit, better=better, value=None)
        sample = {shot: ours[shot] - theirs[shot] for shot in both}
        made = _estimated(score, effect(sample), sample) if both else replace(score, why=_reason(results, name))
        if left_out := [shot for shot in shots if shot not in both] if both else ():
            made = replace(made, why="; ".join(filter(None, (made.why, f"without {', '.join(left_out)}: no number"))))
        rows.append(
            Row(
                arm=arm, versus=versus, domain=domain, score=made, samples=(sample,) if both else (),
                versus_level=level.get(versus), truth_level=level.get("truth"),
            )
        )  # fmt: skip
    for found in results.sets:
        if (found.arm, found.versus, found.domain) == (arm, versus, domain):
            rows.append(_set_row(found))
            levels[found.metric] = dict(found.levels)
    card = Scorecard(
        arm=arm,
        versus=versus,
        domain=domain,
        shots=tuple(shots),
        seeds=tuple(sorted({clip.seed for clip in results.clips if clip.shot in shots})),
        levels=levels,
        effects=tuple(row.score for row in rows),
        per_shot=per_shot,
        protocol=rules.protocol,
        warnings=rules.warnings + _small({domain: len(shots)}, rules.design),
        curves=_curves(results, shots, (arm, versus, "floor", "ceiling")),
    )
    return [(card, rows)]


def _set_row(found: SetEffect) -> Row:
    score = Score(metric=found.metric, version=found.version, unit=found.unit, better=found.better, value=None)
    if not found.effects or not np.isfinite([*found.effects, found.reference_error]).all():
        why = found.why or ("no finite number came of it" if found.effects else "not measured")
        made, samples = replace(score, why=why), ()
    else:
        sample = dict(zip(found.shots, found.effects, strict=True))
        made, samples = _estimated(score, effect(sample, error=found.reference_error), sample), (sample,)
    return Row(
        arm=found.arm, versus=found.versus, domain=found.domain, score=made, samples=samples,
        error=found.reference_error, versus_level=found.levels.get(found.versus), truth_level=found.levels.get("truth"),
    )  # fmt: skip


def _between(
    rules: Rules, inside: tuple[Scorecard, list[Row]], outside: tuple[Scorecard, list[Row]]
) -> tuple[Scorecard, list[Row]]:
    """Domain x look: the effect inside the film's domain minus the effect outside it, metric by metric."""
    (card, own), (other, theirs) = inside, outside
    away = {row.score.metric: row for row in theirs}
    rows: list[Row] = []
    levels: dict[str, dict[str, float | None]] = {}
    for row in own:
        name, far = row.score.metric, away.get(row.score.metric)
        blank = Score(
            metric=name, version=row.score.version, unit=row.score.unit, value=None,
            better=row.score.better if far is not None and far.score.better != "none" else "none",
        )  # fmt: skip
        levels[name] = {"in": row.score.value, "out": None if far is None else far.score.value}
        if far is None or not row.samples or not far.samples:
            known = row.samples or (far is not None and far.samples)
            score = replace(blank, why="measured in one domain only" if known else row.score.why)
            rows.append(Row(arm=row.arm, versus=row.versus, domain="both", score=score))
            continue
        error = float(np.hypot(row.error, far.error))
        samples = (row.samples[0], far.samples[0])
        score = _estimated(blank, effect_between(*samples, error=error), {})
        rows.append(Row(arm=row.arm, versus=row.versus, domain="both", score=score, samples=samples, error=error))
    reading = "in minus out: with better = lower, a negative value says that the film's own world gains more"
    made = Scorecard(
        arm=card.arm,
        versus=card.versus,
        domain="both",
        shots=card.shots + other.shots,
        seeds=tuple(sorted({*card.seeds, *other.seeds})),
        levels=levels,
        effects=tuple(row.score for row in rows),
        per_shot={},
        protocol=rules.protocol | {"reading": reading},
        warnings=rules.warnings + _small({"in": len(card.shots), "out": len(other.shots)}, rules.design),
    )
    return made, rows


def _levels(results: Results, metric: str, domain: Domain) -> dict[str, float | None]:
    """Mean of each arm and anchor over the domain's shots, the film's own spread, and the base-against-base noise."""
    found: dict[str, float | None] = {}
    for arm in dict.fromkeys(clip.arm for clip in results.clips):
        values = _by_shot(results, metric, arm, domain)
        if values:
            found[arm] = float(np.mean(list(values.values())))
    if metric in results.spread:
        found["film"] = results.spread[metric]
    noise = _noise(results, metric, domain)
    return found | ({"a_a": noise} if noise is not None else {})


def _curves(results: Results, shots: Sequence[str], arms: Sequence[str]) -> dict[str, tuple[float, ...]]:
    """Mean curve of each arm and anchor over all its clips of these shots, as long as the shortest."""
    found: dict[str, tuple[float, ...]] = {}
    for arm in arms:
        curves = [clip.curve for clip in results.clips if clip.arm == arm and clip.shot in shots and clip.curve]
        if curves:
            frames = min(map(len, curves))
            found[arm] = tuple(np.mean([curve[:frames] for curve in curves], axis=0).tolist())
    return found


def _estimated(score: Score, estimate: Estimate, sample: Mapping[str, float]) -> Score:
    """The score with its numbers; `harmed` counts the shots of `sample` that moved the wrong way."""
    harmed, most = None, None
    if sample and score.better != "none":
        harmed = sum(value > 0 if score.better == "lower" else value < 0 for value in sample.values())
        most = harmed_at_most(harmed, len(sample))
    return replace(
        score, value=estimate.value, low=estimate.low, high=estimate.high, low90=estimate.low90, high90=estimate.high90,
        p=estimate.p, n=estimate.n, harmed=harmed, harmed_most=most, why=estimate.why,
    )  # fmt: skip


def _reason(results: Results, metric: str) -> str:
    found = [clip.values.get(metric, (None, "")) for clip in results.clips]
    if why := next((why for _, why in found if why), ""):
        return why
    return "no finite number came of it" if any(value is not None for value, _ in found) else "not measured"


def _small(counts: Mapping[str, int], design: Design) -> tuple[str, ...]:
    """What to know about the number of shots."""
    least = least_shots(design.rarest)
    return tuple(
        f"{too_few(count, domain, least)}; a medium effect needs 12"
        for domain, count in counts.items()
        if count < least
    )
