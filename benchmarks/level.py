"""Do the tests hold their level, and do the intervals cover? Simulated, with the product's own functions.

    python benchmarks/level.py                 1,000 replicates, some minutes
    python benchmarks/level.py --replicates 60 --quick

One claim at a time: how often a word is called that is not true (level at .05: `improved` or `worse` where nothing
differs, `no worse` where the loss is exactly the margin, on the worse side of the two), and how often the 95 % interval
holds the true effect. The look that breaks one shot in eight is judged under `score.design.rarest = 8`, as who must
know of such breaks would declare. Shapes below the line had no say when the interval was chosen. Between domains: both
samples of the shape, and the second with three times the spread.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

import numpy as np

from cinetune.artifacts import Claim, Score
from cinetune.metrics.checks import Array
from cinetune.metrics.claims import Row, put_in_words
from cinetune.metrics.stats import Estimate, effect, effect_between

Draw = Callable[[np.random.Generator, int], Array]
SHAPES: dict[str, Draw] = {
    "normal": lambda rng, n: rng.normal(size=n),
    "t3": lambda rng, n: rng.standard_t(3, n),
    "tied -1, 0, 1": lambda rng, n: rng.integers(-1, 2, n).astype(float),
    "skew 2": lambda rng, n: rng.exponential(size=n) - 1,
    "skew 6 (lognormal)": lambda rng, n: np.exp(rng.normal(size=n)) - np.exp(0.5),
}
UNSEEN: dict[str, Draw] = {
    "skew 1 (gamma 4)": lambda rng, n: rng.gamma(4, size=n) - 4,
    "skew 3.5 (Weibull .7)": lambda rng, n: rng.weibull(0.7, n) - 1.2658235,
    "Laplace": lambda rng, n: rng.laplace(size=n),
    "a tenth five times wilder": lambda rng, n: rng.normal(size=n) * np.where(rng.random(n) < 0.1, 5, 1),
    "one shot in eight breaks": lambda rng, n: np.where(
        rng.random(n) < 0.125, rng.normal(3.5, 1, n), rng.normal(-0.5, 0.5, n)
    ),
}
COUNTS = (6, 8, 12, 20, 24)
RAREST = {"one shot in eight breaks": 8}


def named(values: Array, side: str) -> dict[str, float]:
    return {f"{side}{k}": float(value) for k, value in enumerate(values)}


def judged(
    found: Estimate, samples: tuple[dict[str, float], ...], *, margin: float | None = None, rarest: int = 3
) -> Score:
    """The score of one claim that is alone on its page."""
    score = Score(metric="m", version="1", unit="", better="lower", value=found.value, low=found.low, high=found.high,
                  p=found.p, n=found.n)  # fmt: skip
    domain = "in" if len(samples) == 1 else "both"
    kind = "closer" if len(samples) == 1 else "interaction"
    row = Row(arm="look", versus="base", domain=domain, score=score, samples=samples)
    claim = Claim(kind=kind, metric="m", arm="look", versus="base", domain=domain, margin=margin)
    return put_in_words([row], [claim], alpha=0.05, rarest=rarest)[0]


def cell(draw: Draw, n: int, replicates: int, seed: int, *, rarest: int) -> dict[str, float]:
    """One shape and count: rate of a false word, of a false `no worse`, of cover, and of refusal."""
    rng = np.random.default_rng([seed, n])
    counts: dict[str | int, float] = dict.fromkeys(("word", 1, -1, "covered", "refused"), 0)
    for _ in range(replicates):
        values = named(draw(rng, n), "s")
        found = effect(values)
        score = judged(found, (values,), rarest=rarest)
        counts["word"] += score.verdict in ("improved", "worse")
        counts["refused"] += score.verdict == "cannot tell" and bool(score.why)
        assert found.low is not None and found.high is not None
        counts["covered"] += found.low <= 0 <= found.high
        # The loss is the margin itself, so `no worse` is false; turned round, the long tail lies on the other side.
        for turn in (1, -1):
            lost = {shot: turn * value + 2.0 for shot, value in values.items()}
            counts[turn] += judged(effect(lost), (lost,), margin=2.0, rarest=rarest).verdict in ("no worse", "improved")
    counts["no worse"] = max(counts.pop(1), counts.pop(-1))
    return {str(name): count / replicates for name, count in counts.items()}


def between(draw: Draw, n: int, scale: float, replicates: int, seed: int, *, rarest: int) -> dict[str, float]:
    """The same between two domains of n shots, the second `scale` times as spread."""
    rng = np.random.default_rng([seed, n, int(scale)])
    counts = dict.fromkeys(("word", "covered", "refused"), 0)
    for _ in range(replicates):
        inside, outside = named(draw(rng, n), "in"), named(scale * draw(rng, n), "out")
        found = effect_between(inside, outside)
        score = judged(found, (inside, outside), rarest=rarest)
        counts["word"] += score.verdict.startswith("more")
        counts["refused"] += score.verdict == "cannot tell" and bool(score.why)
        assert found.low is not None and found.high is not None
        counts["covered"] += found.low <= 0 <= found.high
    return {name: count / replicates for name, count in counts.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--replicates", type=int, default=1000)
    parser.add_argument("--quick", action="store_true", help="only normal and lognormal effects, 8 shots")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--part", choices=("one", "between", "all"), default="all")
    asked = parser.parse_args()
    shapes = SHAPES | UNSEEN
    counts = COUNTS
    if asked.quick:
        shapes, counts = {name: SHAPES[name] for name in ("normal", "skew 6 (lognormal)")}, (8,)
    print("| one domain: false word / false `no worse` [cover] (refused) |", " | ".join(map(str, counts)), "|")
    for name, draw in shapes.items() if asked.part != "between" else ():
        rarest = RAREST.get(name, 3)
        cells = [cell(draw, n, asked.replicates, asked.seed, rarest=rarest) for n in counts]
        shown = [f"{c['word']:.3f} / {c['no worse']:.3f} [{c['covered']:.3f}] ({c['refused']:.2f})" for c in cells]
        print(f"| {name} |", " | ".join(shown), "|", flush=True)
    print("| between domains: false word [cover] (refused) |", " | ".join(map(str, counts)), "|")
    for name, draw in shapes.items() if asked.part != "one" else ():
        for scale in (1.0, 3.0):
            rarest = RAREST.get(name, 3)
            cells = [between(draw, n, scale, asked.replicates, asked.seed, rarest=rarest) for n in counts]
            shown = [f"{c['word']:.3f} [{c['covered']:.3f}] ({c['refused']:.2f})" for c in cells]
            print(f"| {name}{', sd 1:3' if scale > 1 else ''} |", " | ".join(shown), "|", flush=True)


if __name__ == "__main__":
    main()
