"""Words for declared claims, all judged together; q values for every other row.

A word needs two things: p at most alpha after step-down over every claim of the page, and a 95 % interval that lies
wholly beyond the line (zero, or the margin for `no worse`). A change that lies wholly inside the margin is `no worse`,
whichever way it goes: nobody would see it. Rows that were not declared never get one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from cinetune.artifacts import Arm, Claim, Score, Veto
from cinetune.metrics.stats import Hypothesis, benjamini_hochberg, least_shots, maybe_missed, step_down, tied
from cinetune.metrics.suite import NO_TRUTH

__all__ = ["Row", "put_in_words"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One measure of one comparison: its score without a word yet, the per-shot effects it rests on (two samples in
    domain `both`), and the mean level of the versus arm and of the truth on the measure's scale, where known.
    """

    arm: Arm
    versus: Arm
    domain: str
    score: Score
    samples: tuple[Mapping[str, float], ...] = ()
    error: float = 0.0
    versus_level: float | None = None
    truth_level: float | None = None


def put_in_words(
    rows: Sequence[Row],
    claims: Sequence[Claim],
    *,
    alpha: float,
    vetoes: Sequence[Veto] = (),
    rarest: int = 3,
    draws: int = 10_000,
) -> list[Score]:
    """The score of each row, judged. Deterministic: the same rows give the same words. There are none where a kind of
    shot that one in `rarest` is of may not be among the shots.
    """
    found = {(row.arm, row.versus, row.domain, row.score.metric): index for index, row in enumerate(rows)}
    claimed = {
        index: claim
        for claim in claims
        if (index := found.get((claim.arm, claim.versus, claim.domain, claim.metric))) is not None
    }
    scores = [row.score for row in rows]
    open_claims: list[tuple[int, Claim]] = []
    for index, claim in claimed.items():
        scores[index] = replace(scores[index], claim=claim.kind, margin=claim.margin)
        if scores[index].value is None:
            continue
        refused = _refused(rows[index], claim, rarest)
        if refused is None:
            open_claims.append((index, claim))
        else:
            scores[index] = replace(scores[index], verdict=refused[0], why=_joined(scores[index].why, refused[1]))
    for (index, claim), (p, p_margin) in zip(open_claims, _family(rows, open_claims, draws), strict=True):
        word, why = _word(scores[index], claim, p, p_margin, alpha)
        if word == "improved" and (struck := _struck(rows[index], vetoes)):
            word, why = "withheld", struck
        scores[index] = replace(scores[index], adjusted=p, verdict=word, why=_joined(scores[index].why, why))
    exploring = [index for index in range(len(rows)) if index not in claimed]
    for index, q in zip(exploring, benjamini_hochberg([scores[i].p for i in exploring]), strict=True):
        scores[index] = replace(scores[index], q=q)
    return scores


def _refused(row: Row, claim: Claim, rarest: int) -> tuple[str, str] | None:
    """The word of a claim that needs no test, and why; None for all others."""
    score = row.score
    if score.better == "none":
        return "not valid here", "neither direction of this measure is a merit in this domain"
    if row.truth_level is not None and row.versus_level is not None:
        lost = row.truth_level - row.versus_level
        if (lost > 0) if score.better == "lower" else (lost < 0):
            levels = f"the truth itself reads {row.truth_level:.3g}, {row.versus} {row.versus_level:.3g}"
            return "not valid here", f"{levels}, which would be better"
    if score.n < (least := least_shots(rarest)):
        return "cannot tell", f"{score.n} shots; no verdict below {least}: {maybe_missed(score.n)}"
    moved = max((abs(value) for sample in row.samples for value in sample.values()), default=0.0)
    if claim.margin is not None and moved <= claim.margin / 1000:
        return "no worse", "no shot moved by more than a thousandth of the margin"
    if any(tied(list(sample.values())) for sample in row.samples):
        return "cannot tell", "too many shots have the very same effect for the test and the interval to hold"
    return None


def _family(rows: Sequence[Row], claims: Sequence[tuple[int, Claim]], draws: int) -> list[tuple[float, float | None]]:
    """p of each claim that there is an effect, and that it stays inside its margin, adjusted over all of them."""
    family: list[Hypothesis] = []
    places: list[tuple[int, int | None]] = []
    for index, claim in claims:
        row = rows[index]
        effect = Hypothesis(samples=row.samples, error=row.error)
        places.append((len(family), len(family) + 1 if claim.margin is not None else None))
        family.append(effect)
        if claim.margin is not None:
            lower = row.score.better == "lower"
            line = claim.margin if lower else -claim.margin
            family.append(replace(effect, line=line, side="below" if lower else "above"))
    adjusted = step_down(family, draws=draws) if family else []
    return [(adjusted[first], None if second is None else adjusted[second]) for first, second in places]


def _word(score: Score, claim: Claim, p: float, p_margin: float | None, alpha: float) -> tuple[str, str]:
    assert score.value is not None and score.low is not None and score.high is not None
    below, above = p <= alpha and score.high < 0, p <= alpha and score.low > 0
    if claim.kind == "interaction":
        # The effect is in minus out: a measure that is better when lower and fell further inside reads below zero.
        inside, outside = (below, above) if score.better == "lower" else (above, below)
        return ("more inside" if inside else "more outside" if outside else "cannot tell"), ""
    gained, lost = (below, above) if score.better == "lower" else (above, below)
    if gained:
        most = -score.low if score.better == "lower" else score.high
        if claim.margin is not None and most < claim.margin:
            return "no worse", f"a gain, but surely smaller than the margin of {claim.margin:g}"
        return "improved", ""
    kept = False
    if claim.margin is not None and p_margin is not None and p_margin <= alpha:
        kept = score.high < claim.margin if score.better == "lower" else score.low > -claim.margin
    if kept:
        return "no worse", f"a loss, but inside the margin of {claim.margin:g}" if lost else ""
    if lost and score.metric in NO_TRUTH.values():
        return (
            "cannot tell",
            "it differs from the shot without the look; without a truth nobody can say whether for worse",
        )
    return ("worse" if lost else "cannot tell"), ""


def _struck(row: Row, vetoes: Sequence[Veto]) -> str:
    for veto in vetoes:
        if veto.arm == row.arm and veto.domain == row.domain and row.score.metric in veto.metrics:
            return veto.why
    return ""


def _joined(*parts: str) -> str:
    return "; ".join(part for part in parts if part)
