"""How much memory does a shot take, by its length?

    python benchmarks/shot_memory.py PROJECT --seconds 2 10 30 60

Takes a project with a trained look, copies it, and shoots one shot of each length in two arms, each length in a fresh
interpreter: the highest resident memory of the process that runs `expand` (VmHWM; Linux), the model included.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
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

EXPAND = """
import sys
from pathlib import Path
from cinetune.runtime import Quiet
from cinetune.stages import expand
from cinetune.store import Project
record = expand.run(Project(Path(sys.argv[1]), overrides=tuple(sys.argv[2:])), Quiet())
peak = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
print(peak.split()[1], record.groups["sequences"][0].frames)
"""
SHOT = 'id = "long"\nprompt = "{text}"\ndomain = "in"\nreference = "long.png"\nseconds = {seconds}\nseed = 1\n'


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("project", type=Path)
    parser.add_argument("--seconds", type=float, nargs="*", default=[2.0, 10.0, 30.0, 60.0])
    parser.add_argument("--steps", type=int, default=1)
    options = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    asked = (
        f"shoot.steps={options.steps}", 'keyframes.method="as-is"', "train.plain_arm=false",
        'score.design.arms=["base","look"]',
    )  # fmt: skip
    first = 0.0
    with tempfile.TemporaryDirectory(dir=options.project.parent) as folder:
        root = Path(shutil.copytree(options.project, Path(folder) / "p"))
        scene = sample_scene(np.random.default_rng(11), domain="historical")
        write_png16(root / "long.png", render(scene, frames=1)[0])
        for seconds in options.seconds:
            text = SHOT.format(text=caption(scene), seconds=seconds)
            (root / "shots.toml").write_text(f"[[shot]]\n{text}", encoding="utf-8")
            pipeline.run(Project(root, overrides=asked), Lines(sys.stderr), only="keyframes")
            started = time.monotonic()
            command = [sys.executable, "-c", EXPAND, str(root), *asked]
            told = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
            peak, frames = (int(word) for word in told.split())
            first = first or peak
            wall = time.monotonic() - started
            print(
                f"{seconds:g} s, {frames} frames: {peak / 1024:.0f} MiB, {peak / first:.3f}x; {wall:.0f} s", flush=True
            )


if __name__ == "__main__":
    main()
