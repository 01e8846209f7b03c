"""From measured clips to scorecards: paired by shot, seeds averaged inside a shot, domains kept apart.

An effect is `arm - versus`. The word is `improved` or `worse` when the test and the interval say so beyond the noise of
base against base, `no worse` when a test for that says so, and `cannot tell` otherwise.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np

from cinetune.artifacts import Arm, Domain, Score, Scorecard
from cinetune.metrics.checks import Array
from cinetune.metrics.distances import KernelTable
from cinetune.metrics.stats import (
    LEAST_SHOTS,
    Estimate,
    holm,
    interaction,
    not_worse,
    paired,
    paired_set,
    tost,
    verdict,
)
from cinetune.metrics.suite import CONTENT, METRICS

__all__ = ["TOLERANCE", "Measured", "Results", "Rules", "SetEffect", "scorecards"]

PAIRS: tuple[tuple[Arm, Arm], ...] = (("look", "base"), ("plain", "base"), ("look", "plain"))
KID = "clip_kid"
TOLERANCE = 0.1
"""Margin of `no worse` as a share of the way from what the VAE alone does to a shot (`floor`) to its first frame,
frozen (`ceiling`); it is fixed before anything is measured.
"""
Better = Literal["lower", "higher", "none"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """One clip: `arm` is an arm, or `truth`, `floor`, `ceiling`; `values` as `suite.measure` gives them."""

    arm: str
    shot: str
    seed: int
    values: dict[str, tuple[float | None, str]]
    features_TD: Array | None = None


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
    """All measured clips, the domain of each shot, the film's own spread by metric, and its CLIP features, one array a
    scene.
    """

    clips: tuple[Measured, ...]
    domains: dict[str, Domain]
    spread: dict[str, float]
    film: tuple[Array, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """Decided before measuring: primary metrics (Holm over them), the level, and what a reader is told on every
    card.
    """

    primary: tuple[str, ...]
    alpha: float
    protocol: dict[str, str]
    warnings: tuple[str, ...]


def scorecards(results: Results, rules: Rules) -> list[Scorecard]:
    """A card for each pair of arms that was rendered and each domain, and one for the difference between the
    domains.
    """
    arms = {clip.arm for clip in results.clips}
    cards: list[Scorecard] = []
    for arm, versus in PAIRS:
        if not {arm, versus} <= arms:
            continue
        own = [card for domain in ("in", "out") if (card := _card(results, rules, arm, versus, domain)) is not None]
        cards += own
        if len(own) == 2:
            cards.append(_between(results, rules, own[0], own[1]))
    return cards


def _by_shot(results: Results, metric: str, arm: str, domain: Domain) -> dict[str, float]:
    """Mean over seeds for each shot of the domain that has a value."""
    found: dict[str, list[float]] = {}
    for clip in results.clips:
        value = clip.values.get(metric, (None, ""))[0]
        if clip.arm == arm and value is not None and results.domains[clip.shot] == domain:
            found.setdefault(clip.shot, []).append(value)
    return {shot: float(np.mean(values)) for shot, values in found.items()}


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


def _card(results: Results, rules: Rules, arm: Arm, versus: Arm, domain: Domain) -> Scorecard | None:
    there = {(clip.arm, clip.shot) for clip in results.clips}
    shots = [s for s, d in results.domains.items() if d == domain and (arm, s) in there and (versus, s) in there]
    if not shots:
        return None
    effects: list[Score] = []
    levels: dict[str, dict[str, float | None]] = {}
    per_shot: dict[str, dict[str, dict[str, float]]] = {}
    differences: dict[str, list[float]] = {}
    for row in METRICS:
        levels[row.name] = _levels(results, row.name, domain)
        ours, theirs = (_by_shot(results, row.name, name, domain) for name in (arm, versus))
        both = [shot for shot in shots if shot in ours and shot in theirs]
        per_shot[row.name] = {shot: {arm: ours[shot], versus: theirs[shot]} for shot in both}
        differences[row.name] = [ours[shot] - theirs[shot] for shot in both]
        better = "none" if domain == "out" and row.name in CONTENT else row.better
        score = Score(metric=row.name, version=row.version, unit=row.unit, better=better, value=None)
        effects.append(
            _estimated(score, paired(differences[row.name])) if both else replace(score, why=_reason(results, row.name))
        )
    kid, levels[KID] = _kid(results, shots, (arm, versus), domain)
    words = _words([*effects, kid], rules, levels=levels, differences=differences)
    return Scorecard(
        arm=arm,
        versus=versus,
        domain=domain,
        shots=tuple(shots),
        seeds=_seeds(results, shots),
        levels=levels,
        effects=words,
        per_shot={name: rows for name, rows in per_shot.items() if rows},
        protocol=rules.protocol,
        warnings=rules.warnings + _small({domain: len(shots)}, rules),
    )


def _between(results: Results, rules: Rules, inside: Scorecard, outside: Scorecard) -> Scorecard:
    """Domain x look: the effect inside the film's domain minus the effect outside it, metric by metric."""
    effects: list[Score] = []
    levels: dict[str, dict[str, float | None]] = {}
    for row in METRICS:
        better = "none" if row.name in CONTENT else row.better
        score = Score(metric=row.name, version=row.version, unit=row.unit, better=better, value=None)
        parts = [
            [values[card.arm] - values[card.versus] for values in card.per_shot.get(row.name, {}).values()]
            for card in (inside, outside)
        ]
        levels[row.name] = {
            name: float(np.mean(part)) if part else None for name, part in zip(("in", "out"), parts, strict=True)
        }
        if all(parts):
            effects.append(_estimated(score, interaction(*parts)))
        else:
            effects.append(
                replace(score, why="measured in one domain only" if any(parts) else _reason(results, row.name))
            )
    reading = "in minus out: with better = lower, a negative value says that the film's own world gains more"
    return Scorecard(
        arm=inside.arm,
        versus=inside.versus,
        domain="both",
        shots=inside.shots + outside.shots,
        seeds=tuple(sorted({*inside.seeds, *outside.seeds})),
        levels=levels,
        effects=_words(effects, rules, levels={}, differences={}),
        per_shot={},
        protocol=rules.protocol | {"reading": reading},
        warnings=rules.warnings + _small({"in": len(inside.shots), "out": len(outside.shots)}, rules),
    )


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


def _kid(
    results: Results, shots: Sequence[str], pair: tuple[Arm, Arm], domain: Domain
) -> tuple[Score, dict[str, float | None]]:
    """Clip-blocked CLIP-KID of each arm's shots to the film's scenes. All seeds of a shot are one block, as they are
    alike.
    """
    blank = Score(
        metric=KID, version="1", unit="squared MMD", better="none" if domain == "out" else "lower", value=None
    )
    blocks = {arm: [_features(results, arm, shot) for shot in shots] for arm in pair}
    blocked = [block for arm in pair for block in blocks[arm]]
    if any(block is None for block in blocked) or not results.film:
        return replace(blank, why="no CLIP is installed"), {}
    if len(shots) < 2 or len(results.film) < 2:
        return replace(blank, why="a set metric needs two shots and two scenes of the film"), {}
    table = KernelTable.of([*results.film, *(block for block in blocked if block is not None)])
    film = list(range(len(results.film)))
    ours, theirs = (list(range(len(film) + k * len(shots), len(film) + (k + 1) * len(shots))) for k in (0, 1))
    estimate = paired_set(table.distance, theirs, ours, reference=film)
    levels: dict[str, float | None] = {pair[0]: table.distance(ours, film), pair[1]: table.distance(theirs, film)}
    if len(film) >= 4:
        levels["film"] = table.distance(film[::2], film[1::2])
    return _estimated(blank, estimate), levels


def _features(results: Results, arm: str, shot: str) -> Array | None:
    rows = [c.features_TD for c in results.clips if c.arm == arm and c.shot == shot and c.features_TD is not None]
    return np.concatenate(rows) if rows else None


def _estimated(score: Score, estimate: Estimate) -> Score:
    return replace(
        score, value=estimate.value, low=estimate.low, high=estimate.high, p=estimate.p, n=estimate.n, why=estimate.why
    )


def _words(
    effects: Sequence[Score],
    rules: Rules,
    *,
    levels: Mapping[str, Mapping[str, float | None]],
    differences: Mapping[str, Sequence[float]],
) -> tuple[Score, ...]:
    """The scores with their verdicts. Primary metrics are judged on their Holm-adjusted p, the others on their own
    p.
    """
    adjusted = dict(zip(rules.primary, holm([_p_of(effects, name) for name in rules.primary]), strict=True))
    judged: list[Score] = []
    for score in effects:
        if score.value is None:
            judged.append(score)
            continue
        p = adjusted.get(score.metric, score.p)
        why = [score.why] if score.why else []
        if score.metric in adjusted and p is not None and p != score.p:
            why.append(f"p {p:.3g} after Holm over {len(rules.primary)} primary metrics")
        known = levels.get(score.metric, {}), differences.get(score.metric, ())
        word = _word(replace(score, p=p), rules.alpha, *known)
        judged.append(replace(score, verdict=word, why="; ".join(why)))
    return tuple(judged)


def _word(score: Score, alpha: float, levels: Mapping[str, float | None], differences: Sequence[float]) -> str:
    assert score.value is not None
    estimate = Estimate(value=score.value, low=score.low, high=score.high, p=score.p, n=score.n)
    if score.better != "none":
        word = verdict(estimate, better=score.better, margin=levels.get("a_a"), alpha=alpha)
        if word != "cannot tell":
            return word
    if len(differences) < LEAST_SHOTS:
        return "cannot tell"
    if not any(differences):
        return "no worse"
    margin = _tolerated(levels)
    if margin == 0:
        return "cannot tell"
    if score.better == "none":
        held = tost(differences, margin, alpha=alpha).p
    else:
        held = not_worse(differences, margin, better=score.better, alpha=alpha).p
    return "no worse" if held is not None and held <= alpha else "cannot tell"


def _tolerated(levels: Mapping[str, float | None]) -> float:
    """How much worse still counts as no worse: the noise of base against base, or `TOLERANCE` if that is more."""
    noise, floor, ceiling = (levels.get(name) for name in ("a_a", "floor", "ceiling"))
    share = 0.0 if floor is None or ceiling is None else TOLERANCE * abs(ceiling - floor)
    return max(noise or 0.0, share)


def _p_of(effects: Sequence[Score], metric: str) -> float | None:
    return next((score.p for score in effects if score.metric == metric), None)


def _reason(results: Results, metric: str) -> str:
    return next((why for clip in results.clips if (why := clip.values.get(metric, (None, ""))[1])), "not measured")


def _seeds(results: Results, shots: Sequence[str]) -> tuple[int, ...]:
    return tuple(sorted({clip.seed for clip in results.clips if clip.shot in shots}))


def _small(counts: Mapping[str, int], rules: Rules) -> tuple[str, ...]:
    """What to know about the number of shots: below six there is no p, below `need` Holm leaves no verdict."""
    need = LEAST_SHOTS
    while max(1, len(rules.primary)) * 2 / 2**need > rules.alpha:
        need += 1
    found = []
    for domain, count in counts.items():
        if count < LEAST_SHOTS:
            found.append(
                f"{count} shots in domain `{domain}`: no p value below {LEAST_SHOTS}; a medium effect needs 12"
            )
        elif count < need:
            primary = f"{len(rules.primary)} primary metrics"
            found.append(f"{count} shots in domain `{domain}`: a verdict on {primary} needs {need} or more")
    return tuple(found)
