"""How much faster do two workers make many shots than one?

    python benchmarks/many_shots.py PROJECT --shots 50 --workers 1 2

Takes a project with a trained look (`benchmarks/shooting.py` makes one), copies it, and shoots `--shots` short shots in
two arms, twice as many pieces, once with each number of workers: wall time of `expand`, loading included, the ratio to
the first, and how much of it passes inside shots. The pieces must be the same bytes. Needs a machine with as many free
cores as workers.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from cinetune import pipeline
from cinetune.backlot.scenes import caption, render, sample_scene
from cinetune.console import Lines
from cinetune.footage.read.stills import write_png16
from cinetune.store import Project

SHOT = """[[shot]]
id = "sh{n:03d}"
prompt = "{text}"
domain = "in"
reference = "many/{n:03d}.png"
seconds = 1.0
seed = {n}

"""


def listed(root: Path, count: int) -> None:
    """A shot list with its references."""
    rng = np.random.default_rng(11)
    scenes = [sample_scene(rng, domain="historical") for _ in range(count)]
    for number, scene in enumerate(scenes):
        write_png16(root / "many" / f"{number:03d}.png", render(scene, frames=1)[0])
    text = "".join(SHOT.format(n=number, text=caption(scene)) for number, scene in enumerate(scenes))
    (root / "shots.toml").write_text(text, encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("project", type=Path)
    parser.add_argument("--shots", type=int, default=50)
    parser.add_argument("--workers", type=int, nargs="*", default=[1, 2])
    parser.add_argument("--steps", type=int, default=4)
    options = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    first, made = 0.0, set[str]()
    with tempfile.TemporaryDirectory(dir=options.project.parent) as folder:
        root = Path(shutil.copytree(options.project, Path(folder) / "p"))
        shutil.rmtree(root / "many", ignore_errors=True)
        listed(root, options.shots)
        asked = (
            f"shoot.steps={options.steps}", 'keyframes.method="as-is"', "train.plain_arm=false",
            'score.design.arms=["base","look"]',
        )  # fmt: skip
        pipeline.run(Project(root, overrides=(*asked, "shoot.workers=1")), Lines(sys.stderr), only="keyframes")
        for workers in options.workers:
            for name in ("units/expand", "units/limits", "stages/expand.json"):
                path = root / "work" / name
                shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)
            project = Project(root, overrides=(*asked, f"shoot.workers={workers}"))
            started = time.monotonic()
            (record,) = pipeline.run(project, Lines(sys.stderr), only="expand", again=True)
            seconds = time.monotonic() - started
            first = first or seconds
            made.add(record.output_sha)
            inside = [sequence.timing.wall_seconds for sequence in record.groups["sequences"]]
            each, rest = sum(inside) / len(inside), seconds - sum(inside) / workers
            line = f"{workers} workers: {len(inside)} shots in {seconds:.1f} s, {first / seconds:.2f}x"
            print(f"{line}; {each:.2f} s a shot inside its worker, {rest:.1f} s besides", flush=True)
    assert len(made) == 1, "workers make other bytes"


if __name__ == "__main__":
    main()
