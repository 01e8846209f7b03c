"""The experiment as declared: claims, margins, power. Nothing here looks at a picture."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from functools import cache
from typing import Literal

from scipy import optimize
from scipy import stats as scipy_stats

from cinetune.artifacts import Claim, Design, Domain, Keyframe
from cinetune.artifacts import Sequence as FilmSequence
from cinetune.config import Config
from cinetune.errors import ConfigError
from cinetune.metrics.sets import FILM, SETS
from cinetune.metrics.stats import least_shots, maybe_missed, too_few
from cinetune.metrics.suite import METRICS, NO_TRUTH
from cinetune.store import Project, content_key

__all__ = ["MARGINS", "claims_of", "declare", "declared", "detectable", "planned", "shared"]

MARGINS: dict[str, float] = {
    "tone_w1": 1.0,
    "lab_frechet": 2.0,
    "split_tone": 1.0,
    "palette": 1.0,
    "colour_error": 1.0,
    "lpips": 0.02,
    "tlp": 0.01,
    "structure": 0.02,
    "structure_kept": 0.02,
    "gradients": 0.02,
    "content": 0.02,
    "motion_error": 0.05,
    "luma_flicker": 0.1,
    "flicker_error": 0.05,
    "warp_error": 0.05,
    "still": 0.05,
    "drift": 1.0,
    "seam_ratio": 0.2,
    "clip_text": 0.02,
    "clip_reference": 0.02,
}
"""How much worse still counts as no worse, in the unit of each measure. Colours: 1 dE2000 and 1 L* are about what a
careful person sees side by side. Speed, flicker and warp error against the truth: 5 %, which is .05 in |ln ratio|.
SSIM, correlations and cosines: .02. They are conventions: change them in `[score.design.margins]` before shots are
made.
"""


def declared(project: Project) -> Design:
    """The project's design, with the time at which it was first seen here; that is written down once.

    Raises `ConfigError` as `declare` does.
    """
    found = planned(project)
    first = project.store.unit("design", found.sha, Design, lambda: found)
    return replace(found, declared_utc=first.declared_utc)


def planned(project: Project) -> Design:
    """The design as it would be declared now; nothing is written down. Raises `ConfigError` as `declare` does."""
    shots = project.shots().shots
    truths = {shot.domain for shot in shots if shot.truth is not None}
    counts: Counter[Domain] = Counter(shot.domain for shot in shots)
    by_domain = {str(domain): count for domain, count in counts.items()}
    return declare(project.config, shots=by_domain, no_truth=[domain for domain in counts if domain not in truths])


def declare(config: Config, *, shots: Mapping[str, int], no_truth: Collection[Domain] = ()) -> Design:
    """The design that a project's settings declare, for so many shots by domain; `no_truth` names domains in which no
    shot has one, see `suite.NO_TRUTH`.

    Raises `ConfigError` for a measure that does not exist, claimed or given a margin.
    """
    section = config.score.design
    sets = [f"{row.name}{end}" for row in SETS for end in ("", FILM)]
    known = {*MARGINS, *sets, *(row.name for row in METRICS)}
    for name in (*section.closer, *section.guards, *section.interaction, *section.control, *section.margins):
        if name.partition("@")[0] not in known:
            raise ConfigError(
                f"score.design names {name!r}, which is not measured", remedy=f"one of {', '.join(sorted(known))}"
            )
    arms, claims = config.arms(), claims_of(config, no_truth)
    plain = [
        list(arms), list(section.domains), config.shoot.seeds, config.score.alpha,
        [[c.kind, c.metric, c.arm, c.versus, c.domain, c.margin] for c in claims], section.rarest,
    ]  # fmt: skip
    return Design(
        arms=arms,
        seeds=config.shoot.seeds,
        alpha=config.score.alpha,
        claims=claims,
        shots=dict(shots),
        power=_power(shots, len(claims), config.score.alpha, least_shots(section.rarest)),
        rarest=section.rarest,
        sha=content_key("design", plain),
        declared_utc=datetime.now(UTC).isoformat(timespec="seconds"),
    )


def claims_of(config: Config, no_truth: Collection[Domain] = ()) -> tuple[Claim, ...]:
    """Every declared claim of the look against `Config.claimed_against`, and of it against the plain control."""
    section, arms = config.score.design, config.arms()
    margins = MARGINS | section.margins
    versus = config.claimed_against()
    kinds: tuple[tuple[Literal["closer", "guard"], tuple[str, ...]], ...] = (
        ("closer", section.closer),
        ("guard", section.guards),
    )
    claims = [
        Claim(kind=kind, metric=name, arm="look", versus=versus, domain=domain, margin=margins.get(name))
        for kind, names in kinds
        for domain in section.domains
        for name in (NO_TRUTH.get(name, name) if domain in no_truth else name for name in names)
    ]
    if {"in", "out"} <= set(section.domains):
        claims += [
            Claim(kind="interaction", metric=name, arm="look", versus=versus, domain="both")
            for name in section.interaction
        ]
    if "plain" in arms and "in" in section.domains:
        claims += [
            Claim(kind="closer", metric=name, arm="look", versus="plain", domain="in", margin=margins.get(name))
            for name in section.control
        ]
    return tuple(claims)


def shared(keyframes: Sequence[Keyframe], sequences: Sequence[FilmSequence], trigger: str) -> str:
    """What the arms of a shot share, and what they do not, for the protocol."""
    apart = []
    if methods := sorted({keyframe.method for keyframe in keyframes} - {"as-is"}):
        apart.append(f"the first picture ({', '.join(methods)}: each arm makes its own of the shared reference)")
    if "late" in methods:
        apart.append("which late frame that is (chosen by its colours)")
    seeds: dict[tuple[str, int], set[tuple[int, ...]]] = {}
    for one in sequences:
        seeds.setdefault((one.shot, one.seed), set()).add(tuple(segment.seed for segment in one.segments))
    if retried := sum(len(found) > 1 for found in seeds.values()):
        apart.append(f"the noise of {retried} of {len(seeds)} shots, of which some arm was shot again by the gate")
    picks: dict[tuple[str, int], set[int]] = {}
    for keyframe in keyframes:
        picks.setdefault((keyframe.shot, keyframe.seed), set()).add(keyframe.picked)
    if other := sum(len(found) > 1 for found in picks.values()):
        apart.append(f"the candidate of {other} shots")
    if trigger:
        apart.append(f"the prompt (`{trigger}` stands before it in every arm but base)")
    both = "arms share reference, seed, candidate, scenes of the film and settings"
    return both + (f"; they do not share {'; '.join(apart)}" if apart else "")


@cache
def detectable(n: int, *, alpha: float = 0.05, power: float = 0.8) -> float:
    """Smallest effect, in standard deviations of the per-shot differences, that a two-sided paired t test on `n` shots
    finds with this power.
    """
    bound = float(scipy_stats.t.ppf(1 - alpha / 2, n - 1))

    def lacking(d: float) -> float:
        # The other tail does not matter at 80 % power; far out the distribution has no number, and the power is 1.
        found = float(scipy_stats.nct.sf(bound, n - 1, d * n**0.5))
        return (found if math.isfinite(found) else 1.0) - power

    root = optimize.brentq(lacking, 1e-3, 100.0)
    assert isinstance(root, float)
    return root


def _power(shots: Mapping[str, int], claims: int, alpha: float, least: int) -> tuple[str, ...]:
    """What so many shots can show, a line for each domain."""
    lines = []
    for domain, n in shots.items():
        if n < least:
            lines.append(too_few(n, domain, least))
            continue
        alone, all_apart = detectable(n, alpha=alpha), detectable(n, alpha=alpha / max(1, claims))
        lines.append(
            f"{n} shots in domain `{domain}`: an effect of d >= {alone:.2f} is found four times in five by one test "
            f"alone, d >= {all_apart:.2f} among {claims} claims that have nothing to do with each other; "
            f"{maybe_missed(n)}"
        )
    if shots and min(shots.values()) > 1:
        more = 2 * min(shots.values())
        found = f"{more} shots a domain would show d >= {detectable(more, alpha=alpha):.2f}"
        lines.append(f"{found}; d is the mean change over its standard deviation from shot to shot")
    return tuple(lines)
