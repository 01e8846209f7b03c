"""How often does a page claim something when the look does nothing? Whole pages, with the product's own functions.

    python benchmarks/null_pages.py                  1,000 pages a row, some minutes
    python benchmarks/null_pages.py --pages 40 --quick

A page is laid out as the demo's: base, base with the trigger phrase, look and plain control, the shots of two
domains, the default claims. Every arm, shot and seed has noise of its own, correlated .5 between measures of one
clip; shots differ by twice that. `word`: any improved, worse, more inside or more outside; `headline`: any answer of
the page that is one of these. Then pages with a planted grade (the declared colour measures gain d standard
deviations of the per-shot differences) and a planted blur (structure loses d), to see what is found.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from typing import Any

import numpy as np

from cinetune.artifacts import Claim, Score, Scorecard
from cinetune.config import Config
from cinetune.metrics.claims import Row, put_in_words
from cinetune.metrics.design import claims_of
from cinetune.metrics.stats import effect, effect_between
from cinetune.metrics.suite import METRICS
from cinetune.report.verdicts import answers

CALLED = ("improved", "worse", "more inside", "more outside")
HEADLINES = (*CALLED, "improved in part", "mixed")
DEMO = Config.model_validate({"prepare": {"trigger": "a film look"}, "train": {"plain_arm": True}})
BETTER: dict[str, Any] = {row.name: row.better for row in METRICS}


def levels(
    rng: np.random.Generator,
    claims: tuple[Claim, ...],
    shots: int,
    seeds: int,
    *,
    tails: bool,
    planted: dict[str, float],
) -> dict[tuple[str, str], dict[str, dict[str, float]]]:
    """Value of every claimed measure by (arm, domain), then measure, then shot; seeds averaged."""
    measures = sorted({claim.metric for claim in claims})
    found: dict[tuple[str, str], dict[str, dict[str, float]]] = {}

    def draw(*shape: int) -> np.ndarray:
        return rng.standard_t(3, shape) / 3**0.5 if tails else rng.normal(size=shape)

    for domain in ("in", "out"):
        level = 2 * draw(shots, len(measures))
        for arm in DEMO.arms():
            noise = (draw(shots, seeds, 1) + draw(shots, seeds, len(measures))).mean(1) / 2**0.5
            values = level + noise
            if arm == "look":
                values += np.asarray([planted.get(name, 0.0) * (2 / seeds) ** 0.5 for name in measures])
            found[arm, domain] = {
                name: {f"{domain}{k}": float(values[k, m]) for k in range(shots)} for m, name in enumerate(measures)
            }
    return found


def page(rng: np.random.Generator, shots: int, seeds: int, planted: dict[str, float], *, tails: bool = False,
         draws: int = 2000) -> list[Score]:  # fmt: skip
    """The judged scores of one page's claims. Margins are half a standard deviation of the per-shot differences."""
    claims = tuple(
        replace(claim, margin=None if claim.margin is None else 0.5 * (2 / seeds) ** 0.5) for claim in claims_of(DEMO)
    )
    values = levels(rng, claims, shots, seeds, tails=tails, planted=planted)

    def sample(claim: Claim, domain: str) -> dict[str, float]:
        ours, theirs = (values[arm, domain][claim.metric] for arm in (claim.arm, claim.versus))
        return {shot: ours[shot] - theirs[shot] for shot in ours}

    rows = []
    for claim in claims:
        both = claim.domain == "both"
        samples = tuple(sample(claim, domain) for domain in (("in", "out") if both else (claim.domain,)))
        found = effect_between(*samples) if both else effect(samples[0])
        score = Score(
            metric=claim.metric, version="1", unit="", better=BETTER[claim.metric], value=found.value, low=found.low,
            high=found.high, p=found.p, n=found.n,
        )  # fmt: skip
        rows.append(Row(arm=claim.arm, versus=claim.versus, domain=claim.domain, score=score, samples=samples))
    return put_in_words(rows, claims, alpha=DEMO.score.alpha, draws=draws)


def headlines(scores: list[Score]) -> list[str]:
    """The words of the page's answers."""
    cards = [
        Scorecard(
            arm=claim.arm, versus=claim.versus, domain=claim.domain, shots=(), seeds=(), levels={}, effects=(score,),
            per_shot={}, protocol={}, warnings=(),
        )
        for claim, score in zip(claims_of(DEMO), scores, strict=True)
    ]  # fmt: skip
    return [answer.word for answer in answers(cards)]


def rates(pages: int, shots: int, seeds: int, seed: int, *, tails: bool = False, **planted: float) -> dict[str, float]:
    """Share of pages with any called word, any called headline, and by kind of claim what was called."""
    rng = np.random.default_rng([seed, shots, seeds, tails])
    counts = dict.fromkeys(("word", "headline", "closer", "cost", "no worse"), 0.0)
    for _ in range(pages):
        scores = page(rng, shots, seeds, planted, tails=tails)
        counts["word"] += any(score.verdict in CALLED for score in scores)
        counts["headline"] += any(word in HEADLINES for word in headlines(scores))
        closer = [s for s in scores if s.claim == "closer"][:4]
        counts["closer"] += sum(score.verdict == "improved" for score in closer) / len(closer)
        guards = [s for s in scores if s.metric == "structure"]
        counts["cost"] += sum(score.verdict == "worse" for score in guards) / len(guards)
        counts["no worse"] += sum(score.verdict == "no worse" for score in guards) / len(guards)
    return {name: count / pages for name, count in counts.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pages", type=int, default=1000)
    parser.add_argument("--quick", action="store_true", help="only 8 shots a domain, one seed")
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    print("| shots a domain, seeds, noise | any word | any headline |\n|---|---|---|")
    cases = [(8, 1, False), (8, 3, False), (8, 1, True), (12, 1, False)]
    for shots, seeds, tails in cases[:1] if asked.quick else cases:
        found = rates(asked.pages, shots, seeds, asked.seed, tails=tails)
        print(
            f"| {shots}, {seeds}, {'t3' if tails else 'normal'} | {found['word']:.3f} | {found['headline']:.3f} |",
            flush=True,
        )
    print("\n| shots, d | grade called `improved` | blur called `worse` | structure `no worse` |\n|---|---|---|---|")
    for shots in (8,) if asked.quick else (8, 16):
        for d in (0.0, 1.2, 2.0, 3.0, 5.0):
            found = rates(max(20, asked.pages // 10), shots, 1, asked.seed, tone_w1=-d, colour_error=-d, structure=-d)
            print(
                f"| {shots}, {d:g} | {found['closer']:.2f} | {found['cost']:.2f} | {found['no worse']:.2f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
