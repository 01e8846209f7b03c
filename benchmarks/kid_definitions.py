"""KID of a finished project's shots to the truths of their own domain, by several definitions side by side.

    python benchmarks/kid_definitions.py demo

Which frames are read (every 4th or every 8th, the given first one left out) and whether a shot is held against its own
truth as well. The last row is the product's definition, to which `clip_kid` of `cinetune score` must be equal. Look
minus base, with the product's interval.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import numpy as np

from cinetune.metrics import KernelTable, effect, pseudo_values
from cinetune.metrics.stats import Estimate
from cinetune.metrics.suite import FRAME_STEP, SET_STEP, apart
from cinetune.results import Expanded
from cinetune.scoring.clips import kept_features, shot_source, truth_source
from cinetune.scoring.nets import choose_nets
from cinetune.store import Project

Thin = Callable[[np.ndarray], np.ndarray]


def effect_of(project: Project, domain: str, thin: Thin, *, own_truth: bool) -> Estimate:
    """Look minus base in one domain. All seeds of a shot are one block."""
    net = choose_nets(project, device="cpu").frames[0]
    made = [sequence for sequence in project.store.need(Expanded).sequences if sequence.domain == domain]
    shots = [shot for shot in project.shots().shots if shot.domain == domain and shot.truth is not None]
    rows: list[np.ndarray] = []
    for arm in ("base", "look"):
        for shot in shots:
            own = [shot_source(project, s) for s in made if (s.arm, s.shot) == (arm, shot.id)]
            rows.append(np.concatenate([thin(kept_features(project, source, net)) for source in own]))
            for source in own:
                source.let_go()
    for shot in shots:
        truth = truth_source(project, shot, made[0])
        assert truth is not None
        rows.append(thin(kept_features(project, truth, net)))
        truth.let_go()
    n = len(shots)
    names = ["" if own_truth else shot.id for shot in shots] * 3
    table = KernelTable.of(rows, shots=names)
    values, error = pseudo_values(table.distance, range(n), range(n, 2 * n), reference=range(2 * n, 3 * n))
    return effect({shot.id: float(value) for shot, value in zip(shots, values, strict=True)}, error=error)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("project", type=Path)
    project = Project(parser.parse_args().project)
    print("| frames | own truth | in | out |\n|---|---|---|---|")
    for own_truth in (True, False):
        for step, thin in ((FRAME_STEP, np.asarray), (SET_STEP, apart)):
            found = [effect_of(project, domain, thin, own_truth=own_truth) for domain in ("in", "out")]
            cells = [f"{one.value:+.2f} ({one.low:+.2f} to {one.high:+.2f})" for one in found]
            print(f"| every {step}th | {'in' if own_truth else 'left out'} |", " | ".join(cells), "|", flush=True)


if __name__ == "__main__":
    main()
