"""How fast and in how much memory footage is ingested and prepared, beside plain decoding of the same files.

    python benchmarks/ingest_speed.py build/ingest --clips 40 --seconds 24

Writes ProRes 422 HQ clips of 1920x1080 at 24000/1001 fps with a cut in their middle (they are kept for the next run),
then in one process decodes them all with PyAV, ingests them and prepares windows of the pocket model. Prints a row for
each: seconds, times real time, and the peak memory of the process so far in GiB.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from cinetune.footage.video import write_video
from cinetune.runtime import Quiet, peak_memory_gib
from cinetune.stages import ingest, prepare
from cinetune.store import Project

RATE, WIDTH, HEIGHT = Fraction(24000, 1001), 1920, 1080


def _pictures(number: int, frames: int) -> Iterator[np.ndarray]:
    """Two soft, grainy shots that pan: nothing that a codec gets for free."""
    random = np.random.default_rng(number)
    grain = random.normal(0, 0.02, (HEIGHT, WIDTH, 3)).astype(np.float32)
    wides = [np.kron(random.uniform(0.1, 0.9, (18, 64, 3)), np.ones((60, 60, 1))).astype(np.float32) for _ in range(2)]
    for k in range(frames):
        wide = wides[2 * k // frames]
        yield np.clip(wide[:, 4 * k % 1900 :][:, :WIDTH] + np.roll(grain, 37 * k, axis=1), 0, 1)


def _decode(files: list[Path]) -> None:
    for path in files:
        with av.open(str(path)) as container:
            container.streams.video[0].thread_type = "AUTO"
            for _ in container.decode(video=0):
                pass


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--clips", type=int, default=40)
    parser.add_argument("--seconds", type=float, default=24.0)
    options = parser.parse_args()
    footage = options.folder / "footage"
    footage.mkdir(parents=True, exist_ok=True)
    files = [footage / f"c{number:02d}.mov" for number in range(options.clips)]
    frames = round(options.seconds * RATE)
    for number, path in enumerate(files):
        if not path.is_file():
            write_video(path, _pictures(number, frames), rate=RATE, codec="prores_hq")
            path.with_suffix(".txt").write_text(f"clip {number}")
    (options.folder / "cinetune.toml").write_text('preset = "pocket"\n')
    project = Project(options.folder)
    steps: dict[str, Callable[[], object]] = {
        "plain decoding": lambda: _decode(files),
        "ingest": lambda: ingest.run(project, Quiet()),
        "prepare": lambda: prepare.run(project, Quiet()),
    }
    film, results = float(len(files) * frames / RATE), {}
    print(f"{len(files)} clips, {film:.0f} s of film, {sum(path.stat().st_size for path in files) / 2**30:.1f} GiB\n")
    print("| step | seconds | times real time | peak GiB |\n|---|---|---|---|")
    for name, step in steps.items():
        started = time.perf_counter()
        step()
        took, peak = time.perf_counter() - started, peak_memory_gib()
        results[name] = {"seconds": took, "real_time": film / took, "peak_gib": peak}
        print(f"| {name} | {took:.1f} | {film / took:.2f} | {peak:.2f} |", flush=True)
    (options.folder / "results.json").write_text(json.dumps(results, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
