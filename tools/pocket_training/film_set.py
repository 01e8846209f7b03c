"""Render the pre-training clips once: uint8 `NTHWC` in .npy files and their captions, in neutral grade."""

from __future__ import annotations

import json
import multiprocessing
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from cinetune.backlot.scenes import caption, render, sample_scene
from cinetune.models.wan.pocket import FRAMES, HEIGHT, WIDTH
from pocket_training.common import Run

BLOCK = 40


def _render_block(path: Path, seed: int, count: int) -> None:
    """One file of `count` clips; its scenes depend on `seed` alone."""
    rng = np.random.default_rng(seed)
    clips = np.empty((count, FRAMES, HEIGHT, WIDTH, 3), np.uint8)
    captions: list[str] = []
    for clip in clips:
        scene = sample_scene(rng)
        clip[:] = np.round(render(scene, frames=FRAMES, height=HEIGHT, width=WIDTH) * 255).astype(np.uint8)
        captions.append(caption(scene))
    path.with_suffix(".json").write_text(json.dumps(captions), encoding="utf-8")
    partial = path.with_suffix(".partial.npy")
    np.save(partial, clips)
    partial.replace(path)


def _jobs(run: Run) -> list[tuple[Path, int, int]]:
    folder = run.work / "clips"
    folder.mkdir(parents=True, exist_ok=True)
    jobs = [(folder / "held.npy", run.held_scenes_seed, run.held)]
    jobs += [(folder / f"train-{i:04d}.npy", run.seed * 100_000 + i, BLOCK) for i in range(run.clips // BLOCK)]
    return [job for job in jobs if not job[0].exists()]


@contextmanager
def rendering(run: Run) -> Iterator[None]:
    """Renders the clips in other processes while the block runs; what is not done at its end is left out.

    Blocks that exist are kept, so a stopped run goes on. Entered once the first blocks and the held-out clips are
    there. A failure of a renderer is raised at the end.
    """
    jobs = _jobs(run)
    with ProcessPoolExecutor(run.renderers, mp_context=multiprocessing.get_context("spawn")) as pool:
        made = [pool.submit(_render_block, *job) for job in jobs]
        for future in made[: 1 + run.renderers]:
            future.result()
        try:
            yield
        finally:
            for future in made:
                future.cancel()
    for future in made:
        if not future.cancelled():
            future.result()


def render_all(run: Run) -> None:
    """Every clip, before anything else. Blocks that exist are kept."""
    with ProcessPoolExecutor(run.ranks) as pool:
        for done in [pool.submit(_render_block, *job) for job in _jobs(run)]:
            done.result()


class Clips:
    """The training clips that are there, uint8 `THWC` each, read from disk as they are asked for."""

    def __init__(self, run: Run) -> None:
        self._folder = run.work / "clips"
        self.paths: list[Path] = []
        self._blocks: list[np.ndarray] = []
        self.refresh()

    def refresh(self) -> None:
        """Take in the blocks that were rendered since."""
        for path in sorted(self._folder.glob("train-????.npy")):
            if path not in self.paths:
                self.paths.append(path)
                self._blocks.append(np.load(path, mmap_mode="r"))

    def __len__(self) -> int:
        return BLOCK * len(self._blocks)

    def __getitem__(self, index: Any) -> np.ndarray:
        block, place = divmod(int(index), BLOCK)
        return self._blocks[block][place]

    def captions(self) -> list[str]:
        return [text for path in self.paths for text in json.loads(path.with_suffix(".json").read_text())]


def held_clips(run: Run) -> tuple[np.ndarray, list[str]]:
    """The held-out clips, uint8 `NTHWC`, and their captions."""
    path = run.work / "clips" / "held.npy"
    return np.load(path), json.loads(path.with_suffix(".json").read_text())
