"""Do the tests hold their level, and do the intervals cover? Simulated, with the product's own functions.

    python benchmarks/level.py                 1,000 replicates of words and 4,000 of intervals, some minutes
    python benchmarks/level.py --replicates 60 --cover 200 --quick

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
from cinetune.metrics.stats import effect_interval, interval_between

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


def judged(*samples: Array, margin: float | None = None, rarest: int = 3) -> Score:
    """The score of one claim that is alone on its page: of one domain, or of the difference of two."""
    low, high = effect_interval(samples[0]) if len(samples) == 1 else interval_between(*samples)
    value = float(samples[0].mean()) - (float(samples[1].mean()) if len(samples) == 2 else 0.0)
    score = Score(metric="m", version="1", unit="", better="lower", value=value, low=low, high=high,
                  n=min(map(len, samples)))  # fmt: skip
    domain = "in" if len(samples) == 1 else "both"
    kind = "closer" if len(samples) == 1 else "interaction"
    values = tuple(named(sample, f"{side}-") for side, sample in enumerate(samples))
    row = Row(arm="look", versus="base", domain=domain, score=score, samples=values)
    claim = Claim(kind=kind, metric="m", arm="look", versus="base", domain=domain, margin=margin)
    return put_in_words([row], [claim], alpha=0.05, rarest=rarest, draws=2000)[0]


def covered(*ends: float | None) -> bool:
    low, high = ends
    assert low is not None and high is not None
    return low <= 0 <= high


def cell(draw: Draw, n: int, asked: argparse.Namespace, *, rarest: int) -> str:
    """One shape and count: rate of a false word, of a false `no worse`, of cover, and of refusal."""
    rng = np.random.default_rng([asked.seed, n])
    words = refused = 0
    lost = {1: 0, -1: 0}
    for _ in range(asked.replicates):
        x = draw(rng, n)
        score = judged(x, rarest=rarest)
        words += score.verdict in ("improved", "worse")
        refused += score.verdict == "cannot tell" and bool(score.why)
        # The loss is the margin itself, so `no worse` is false; turned round, the long tail lies on the other side.
        for turn in lost:
            lost[turn] += judged(turn * x + 2.0, margin=2.0, rarest=rarest).verdict in ("no worse", "improved")
    cover = sum(covered(*effect_interval(draw(rng, n))) for _ in range(asked.cover)) / asked.cover
    false, kept = words / asked.replicates, max(lost.values()) / asked.replicates
    return f"{false:.3f} / {kept:.3f} [{cover:.3f}] ({refused / asked.replicates:.2f})"


def between(draw: Draw, n: int, scale: float, asked: argparse.Namespace, *, rarest: int) -> str:
    """The same between two domains of n shots, the second `scale` times as spread."""
    rng = np.random.default_rng([asked.seed, n, int(scale)])
    words = refused = 0
    for _ in range(asked.replicates):
        score = judged(draw(rng, n), scale * draw(rng, n), rarest=rarest)
        words += score.verdict.startswith("more")
        refused += score.verdict == "cannot tell" and bool(score.why)
    pairs = ((draw(rng, n), scale * draw(rng, n)) for _ in range(asked.cover))
    cover = sum(covered(*interval_between(x, y)) for x, y in pairs) / asked.cover
    return f"{words / asked.replicates:.3f} [{cover:.3f}] ({refused / asked.replicates:.2f})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--replicates", type=int, default=1000)
    parser.add_argument("--cover", type=int, default=4000, help="replicates of intervals alone")
    parser.add_argument("--quick", action="store_true", help="only normal and lognormal effects, 8 shots")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--part", choices=("one", "between", "all"), default="all")
    asked = parser.parse_args()
    shapes = SHAPES | UNSEEN
    counts = COUNTS
    if asked.quick:
        shapes, counts = {name: SHAPES[name] for name in ("normal", "skew 6 (lognormal)")}, (8,)
    head = " | ".join(map(str, counts))
    print(f"| one domain: false word / false `no worse` [cover] (refused) | {head} |")
    for name, draw in shapes.items() if asked.part != "between" else ():
        cells = [cell(draw, n, asked, rarest=RAREST.get(name, 3)) for n in counts]
        print(f"| {name} |", " | ".join(cells), "|", flush=True)
    print(f"| between domains: false word [cover] (refused) | {head} |")
    for name, draw in shapes.items() if asked.part != "one" else ():
        for scale in (1.0, 3.0):
            cells = [between(draw, n, scale, asked, rarest=RAREST.get(name, 3)) for n in counts]
            print(f"| {name}{', sd 1:3' if scale > 1 else ''} |", " | ".join(cells), "|", flush=True)


if __name__ == "__main__":
    main()
