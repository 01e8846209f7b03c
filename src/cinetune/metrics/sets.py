"""Set metrics: how far all shots of an arm are, together, from real clips of their own domain and from the film.

One literal table. Each measure is worked out for every pair of arms and domain as one number a shot (jackknife
pseudo-values, see `stats.pseudo_values`), so that tests, intervals and the difference of the domains treat it like any
other measure. The error that the choice of reference clips adds is carried beside it.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import numpy as np

from cinetune.artifacts import Arm, Domain
from cinetune.metrics.cards import DOMAINS, SetEffect
from cinetune.metrics.checks import Array, same_width
from cinetune.metrics.distances import FrechetTable, KernelTable, cubic, gaussian, split_level
from cinetune.metrics.stats import pseudo_values

__all__ = ["LEAST_CLIPS", "SETS", "SetClip", "SetInput", "SetMeasure", "set_effects", "wrong_domain"]

LEAST_CLIPS = 6
"""A reference of fewer clips (or a film of fewer scenes) says too little about itself to be held against."""
FILM = "_film"
"""Ends the name of a measure against the film; without it the reference of the shots' own domain is meant."""


class _Table(Protocol):
    def distance(self, xs: Sequence[int], ys: Sequence[int]) -> float: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class SetMeasure:
    """A row: `table` takes clips of features and the scene each shows; `per` says whose features it reads."""

    name: str
    unit: str
    per: Literal["frame", "clip"]
    table: Callable[[Sequence[Array], Sequence[str]], _Table]
    only: tuple[str, ...] = ()
    version: str = "2"


def _kernel(kernel: Callable[[Array, Array], Array]) -> Callable[[Sequence[Array], Sequence[str]], _Table]:
    def build(clips: Sequence[Array], shots: Sequence[str]) -> _Table:
        return KernelTable.of(clips, kernel=kernel, shots=shots)

    return build


def _frechet(clips: Sequence[Array], _shots: Sequence[str]) -> _Table:
    return FrechetTable.of(clips)


SETS: tuple[SetMeasure, ...] = (
    SetMeasure(name="clip_kid", unit="squared MMD", per="frame", table=_kernel(cubic)),
    SetMeasure(name="clip_fid", unit="squared feature units", per="frame", table=_frechet),
    SetMeasure(name="cmmd", unit="1000 x squared MMD", per="frame", table=_kernel(gaussian)),
    SetMeasure(name="kvd", unit="squared MMD", per="clip", table=_kernel(cubic)),
    SetMeasure(name="fvd", unit="squared logits; not comparable", per="clip", table=_frechet, only=("i3d",)),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class SetClip:
    """Features `[T, D]` of one shot of one arm and seed."""

    arm: Arm
    shot: str
    seed: int
    features_TD: Array


@dataclass(frozen=True, slots=True, kw_only=True)
class SetInput:
    """Everything one network saw: the shots, the real clips of each domain by the shot they show ("" = none of ours),
    and the film, one array a scene. `why_not` says why a domain has no reference.
    """

    network: str
    per: Literal["frame", "clip"]
    clips: tuple[SetClip, ...]
    domains: Mapping[str, Domain]
    references: Mapping[Domain, Sequence[tuple[str, Array]]]
    film: Sequence[Array]
    why_not: Mapping[Domain, str] = field(default_factory=dict)


def set_effects(given: SetInput, pairs: Sequence[tuple[Arm, Arm]], *, suffix: str = "") -> list[SetEffect]:
    """Every measure of the network's kind, for each pair of arms and domain, against the domain's reference and against
    the film. `suffix` (such as `@dinov2`) follows the names of all networks but the first.

    Out of the film's domain, closeness to the film is no merit (`better` is none): a negative effect there is content
    of the film that bleeds into other worlds. Raises `ScoreError` when features have different widths, that is, come
    from different networks.
    """
    widths = [clip.features_TD for clip in given.clips] + [rows for _, rows in _all_references(given)] + [*given.film]
    for rows in widths[1:]:
        same_width(widths[0], rows)
    found: list[SetEffect] = []
    for measure in SETS:
        if measure.per != given.per or (measure.only and given.network not in measure.only):
            continue
        for domain in DOMAINS:
            if domain in given.domains.values():
                found += _of_domain(given, measure, domain, pairs, suffix)
    return found


def _all_references(given: SetInput) -> list[tuple[str, Array]]:
    return [item for items in given.references.values() for item in items]


@dataclass(slots=True)
class _Pool:
    """Clips in the order of a table, with the number of each."""

    rows: list[Array] = field(default_factory=list)
    shots: list[str] = field(default_factory=list)

    def add(self, rows: Array, shot: str = "") -> int:
        self.rows.append(rows)
        self.shots.append(shot)
        return len(self.rows) - 1


def _of_domain(
    given: SetInput, measure: SetMeasure, domain: Domain, pairs: Sequence[tuple[Arm, Arm]], suffix: str
) -> list[SetEffect]:
    pool = _Pool()
    shots: dict[tuple[str, str], int] = {}
    seeds: dict[int, dict[str, int]] = {}
    own = [clip for clip in given.clips if given.domains[clip.shot] == domain]
    for arm, shot in dict.fromkeys((clip.arm, clip.shot) for clip in own):
        # All seeds of a shot are one block: they are alike.
        rows = [clip.features_TD for clip in own if (clip.arm, clip.shot) == (arm, shot)]
        shots[arm, shot] = pool.add(np.concatenate(rows), shot)
    for clip in own:
        if clip.arm == "base":
            seeds.setdefault(clip.seed, {})[clip.shot] = pool.add(clip.features_TD, clip.shot)
    targets = {
        "": [pool.add(rows, shot) for shot, rows in given.references.get(domain, ())],
        FILM: [pool.add(rows) for rows in given.film],
    }
    table = measure.table(pool.rows, pool.shots)
    found: list[SetEffect] = []
    for (arm, versus), (end, target) in itertools.product(pairs, targets.items()):
        both = [shot for name, shot in shots if name == arm and (versus, shot) in shots]
        if not both:
            continue
        numbers = [[shots[name, shot] for shot in both] for name in (arm, versus)]
        found.append(
            SetEffect(
                metric=f"{measure.name}{end}{suffix}", version=measure.version, unit=measure.unit, arm=arm,
                versus=versus, domain=domain, shots=tuple(both), **_worked_out(table, numbers, target),
                better="none" if end and domain == "out" else "lower",
                why=_missing(given, domain, end, len(both), len(target)),
                levels=_levels(measure, table, numbers, target, seeds, arms=(arm, versus)),
            )
        )  # fmt: skip
    return found


def _missing(given: SetInput, domain: Domain, end: str, shots: int, clips: int) -> str:
    if clips < LEAST_CLIPS:
        what = (
            f"the film has {clips} training scenes" if end else f"the reference of domain `{domain}` has {clips} clips"
        )
        why = "" if end else given.why_not.get(domain, "")
        return why or f"{what}, at least {LEAST_CLIPS} are needed"
    return "" if shots >= 3 else f"a set metric needs three shots or more, domain `{domain}` has {shots}"


def _worked_out(table: _Table, numbers: Sequence[Sequence[int]], target: Sequence[int]) -> dict[str, Any]:
    if len(target) < LEAST_CLIPS or len(numbers[0]) < 3:
        return {}
    effects, error = pseudo_values(table.distance, numbers[1], numbers[0], reference=target)
    return {"effects": tuple(float(value) for value in effects), "reference_error": float(error)}


def _levels(
    measure: SetMeasure,
    table: _Table,
    numbers: Sequence[Sequence[int]],
    target: Sequence[int],
    seeds: Mapping[int, Mapping[str, int]],
    *,
    arms: tuple[Arm, Arm],
) -> dict[str, float | None]:
    """Each arm's distance; `real` and `real_sd`: halves of the target against each other; `null` and `null_sd`: for
    Fréchet distances, what the two sets read when they are dealt out anew, which at this N is mostly bias; `a_a`: base
    against base with other seeds.
    """
    if len(target) < LEAST_CLIPS or len(numbers[0]) < 2:
        return {}
    found: dict[str, float | None] = {
        arm: table.distance(own, target) for arm, own in zip(arms, numbers, strict=True)
    }  # fmt: skip
    found["real"], found["real_sd"] = split_level(table.distance, target)
    if measure.table is _frechet:
        sizes = (len(numbers[0]), len(target))
        found["null"], found["null_sd"] = split_level(table.distance, [*numbers[0], *target], sizes=sizes)
    gaps = []
    for one, other in itertools.combinations(seeds.values(), 2):
        same = sorted(one.keys() & other.keys())
        if len(same) >= 2:
            ends = [table.distance([side[shot] for shot in same], target) for side in (one, other)]
            gaps.append(abs(ends[0] - ends[1]))
    if gaps:
        found["a_a"] = float(np.mean(gaps))
    return found


def wrong_domain(given: SetInput) -> list[str]:
    """Warnings about reference clips that are nearer to the other domain's shots than to their own.

    By clip-blocked KID to the base arm's shots. A folder of the wrong world gives numbers that look right.
    """
    base = {
        domain: [c.features_TD for c in given.clips if c.arm == "base" and given.domains[c.shot] == domain]
        for domain in DOMAINS
    }
    if any(len(rows) < 2 for rows in base.values()):
        return []
    found = []
    for domain, other in zip(DOMAINS, reversed(DOMAINS), strict=True):
        own = [rows for _, rows in given.references.get(domain, ())]
        if len(own) < LEAST_CLIPS:
            continue
        table = KernelTable.of([*own, *base[domain], *base[other]])
        first, second = len(own), len(own) + len(base[domain])
        near = table.distance(range(first), range(first, second))
        far = table.distance(range(first), range(second, second + len(base[other])))
        if far < near:
            found.append(
                f"The reference clips of domain `{domain}` are nearer to the shots of domain `{other}` (KID {far:.3g} "
                f"against {near:.3g}, {given.network}): is it the right folder?"
            )
    return found
