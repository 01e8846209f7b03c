"""How many dissolves are found without an edit list, by their length, and how often one is seen where there is none.

    python benchmarks/dissolves.py [film ...]

Renders 24 shots of the backlot, every camera move four times, writes them as H.264 and looks at them as `ingest` does:
alone (every dissolve seen is a false alarm), and in pairs that dissolve into each other. Prints the table of
docs/stages/ingest.md. Films that are named are looked at as well: what is seen in them is for you to judge.
"""

from __future__ import annotations

import sys
import tempfile
import time
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np

from cinetune.backlot.camera import CAMERAS
from cinetune.backlot.scenes import Scene, render, sample_scene
from cinetune.footage.cut.cuts import Signals, Watcher
from cinetune.footage.cut.dissolves import find_dissolves
from cinetune.footage.video import probe, write_video

RATE = Fraction(24)
FRAMES, HEIGHT, WIDTH = 168, 90, 160
LENGTHS = (4, 8, 12, 24, 48, 72)
LONGEST = 96
CLEAN = 36  # frames before a dissolve


def _scenes() -> list[Scene]:
    random = np.random.default_rng(2)
    return [replace(sample_scene(random), camera=move) for _ in range(4) for move in CAMERAS]  # type: ignore[arg-type]


def _grainy(film: np.ndarray, seed: int) -> np.ndarray:
    noise = np.random.default_rng(seed).normal(0, 0.015, film.shape[:3]).astype(np.float32)
    return np.clip(film + noise[..., None], 0, 1)


def _watch(path: Path) -> Signals:
    watcher = Watcher()
    probe(path, on_frame=watcher.see)
    return watcher.signals()


def _seen(signals: Signals) -> list[tuple[int, int]]:
    return find_dissolves(signals.cells, cuts=signals.cuts, longest=LONGEST)


def _through(film: np.ndarray, folder: Path) -> Signals:
    path = folder / "film.mp4"
    write_video(path, film, rate=RATE)
    return _watch(path)


def _missed(found: tuple[int, int], start: int, end: int) -> tuple[int, int]:
    """(mixed frames left in shots, clean frames left out)."""
    return max(0, found[0] - start) + max(0, end - found[1]), max(0, start - found[0]) + max(0, found[1] - end)


def _pairs(shots: list[np.ndarray], length: int, folder: Path) -> str:
    """One row: dissolves found, and by how much their ends are wrong."""
    hits, cut, left, lost = 0, 0, [], []
    start, end = CLEAN, CLEAN + length
    pairs = range(len(shots))
    for k in pairs:
        share = np.clip((np.arange(2 * CLEAN + length) - start + 1) / (length + 1), 0, 1).astype(np.float32)
        one, two = (shots[n % len(shots)][: len(share)] for n in (k, k + 7))
        mixed = one + share[:, None, None, None] * (two - one)
        signals = _through(_grainy(mixed, k), folder)
        near = [found for found in _seen(signals) if found[0] < end and start < found[1]]
        hits += bool(near)
        cut += not near and any(start <= at <= end for at in signals.cuts)
        for found in near[:1]:
            wrong = _missed(found, start, end)
            left.append(wrong[0])
            lost.append(wrong[1])
    ends = f"{np.mean(left):.1f} (at most {max(left)}) | {np.mean(lost):.1f} (at most {max(lost)})" if left else " | "
    return f"| {length} | {hits} of {len(pairs)} | {cut} | {ends} |"


def main() -> None:
    shots = [render(scene, frames=FRAMES, height=HEIGHT, width=WIDTH, rate=RATE) for scene in _scenes()]
    with tempfile.TemporaryDirectory() as folder:
        alone = [_through(_grainy(shot, k), Path(folder)) for k, shot in enumerate(shots)]
        before = time.process_time()
        alarms = sum(len(_seen(signals)) for signals in alone)
        spent = (time.process_time() - before) / (len(alone) * FRAMES) * 1000
        print("| frames | found | taken for a cut | mixed frames left in shots | clean frames left out |")
        print("|---|---|---|---|---|")
        for length in LENGTHS:
            print(_pairs(shots, length, Path(folder)), flush=True)
    print(f"\n{alarms} seen in {len(alone)} shots of {FRAMES} frames without one; {spent:.3f} ms a frame")
    for name in sys.argv[1:]:
        signals = _watch(Path(name))
        before = time.process_time()
        found = _seen(signals)
        took = (time.process_time() - before) / len(signals.mean) * 1000
        print(f"{Path(name).name}: {len(signals.mean)} frames, cuts {signals.cuts}, dissolves {found}; {took:.3f} ms")


if __name__ == "__main__":
    main()
