"""Render the pre-training clips once: uint8 `NTHWC` in .npy files and their captions, in neutral grade."""

from __future__ import annotations

import json
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

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


def render_all(run: Run) -> None:
    """Blocks that exist are kept, so a stopped run goes on."""
    folder = run.work / "clips"
    folder.mkdir(parents=True, exist_ok=True)
    jobs = [(folder / f"train-{i:04d}.npy", run.seed * 100_000 + i, BLOCK) for i in range(run.clips // BLOCK)]
    jobs.append((folder / "held.npy", run.held_scenes_seed, run.held))
    missing = [job for job in jobs if not job[0].exists()]
    with ProcessPoolExecutor(run.ranks) as pool:
        for done in [pool.submit(_render_block, *job) for job in missing]:
            done.result()


def training_clips(run: Run) -> tuple[np.ndarray, list[str]]:
    """All training clips (memory-mapped blocks joined) and captions."""
    paths = sorted((run.work / "clips").glob("train-????.npy"))
    clips = np.concatenate([np.load(path) for path in paths])
    return clips, [text for path in paths for text in json.loads(path.with_suffix(".json").read_text())]


def held_clips(run: Run) -> tuple[np.ndarray, list[str]]:
    path = run.work / "clips" / "held.npy"
    return np.load(path), json.loads(path.with_suffix(".json").read_text())
