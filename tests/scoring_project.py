"""A small wan21 project with shots of two worlds already made by hand, and real clips of each."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from cinetune.artifacts import FileRef, Segment, Sequence, Timing
from cinetune.footage.video import write_video
from cinetune.store import Project
from small_project import HEIGHT, RATE, WIDTH, make_project, moving_picture, provenance_of

__all__ = ["REFERENCES", "SHOTS", "graded", "make_scored_project", "movies", "shoot_by_hand"]

SHOTS, FILM = 8, 8
REFERENCES = ('score.reference.in="history"', 'score.reference.out="future"')


def graded(arm: str, number: int) -> np.ndarray:
    """Shots that no film window shows; the look warms them as the film is."""
    return moving_picture(number, warmth=0.12 if arm == "look" else 0.0)


def movies(folder: Path, count: int, *, first: int = 300, warmth: float = 0.1) -> Path:
    """A folder of real clips."""
    folder.mkdir()
    for number in range(count):
        write_video(folder / f"r{number}.mp4", moving_picture(first + number, warmth=warmth), rate=RATE)
    return folder


def shoot_by_hand(project: Project, picture: Callable[[str, int], np.ndarray] = graded) -> None:
    """Masters of base and look: `picture(arm, shot number)`."""
    made = []
    for arm in ("base", "look"):
        for number, shot in enumerate(project.shots().shots):
            film = picture(arm, number)
            with project.store.new_object(".safetensors") as (path, done):
                save_file({"frames_THWC": np.rint(film * 65535).astype(np.uint16)}, path)
            made.append(
                Sequence(
                    shot=shot.id, arm=arm, seed=0, domain=shot.domain, rate=RATE, frames=len(film), width=WIDTH,
                    height=HEIGHT, segments=(Segment(first_frame=0, frames=9, seed=0),), seam_ratio=None,
                    drift=1.0, video=done[0], proxy=FileRef(path="none", sha256=""), keyframe="",
                    timing=Timing(devices=1, wall_seconds=0, peak_gib=None), provenance=provenance_of(),
                )
            )  # fmt: skip
    project.store.save_stage("expand", "test", {"sequences": made}, made=provenance_of())


def make_scored_project(root: Path) -> Path:
    """Sixteen shots, half of them in the film's domain, ready for `score`."""
    made = make_project(root, shots=2 * SHOTS, film=FILM)
    movies(made / "history", 6)
    movies(made / "future", 6, first=400, warmth=-0.1)
    shoot_by_hand(Project(made))
    return made
