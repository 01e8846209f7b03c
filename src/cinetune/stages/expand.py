"""expand: every keyframe becomes a shot.

Reads the keyframes and the looks; writes `Sequence` records, each with a lossless master (`frames_THWC`, uint16, full
range) and a small mp4 to look at. Segments, seeds and noise are the same in every arm.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from cinetune.artifacts import Arm, FileRef, Keyframe, Look, PlannedShot, Segment, Sequence, Timing
from cinetune.config import Config, section_sha
from cinetune.files import OPENING, WHITE, full_caption, write_master
from cinetune.results import Expanded, Keyframed, Trained
from cinetune.runtime import Reporter, peak_memory_gib, provenance
from cinetune.stage import Made, Stage, make_pieces
from cinetune.store import Project, Store, content_key, sha256_file

if TYPE_CHECKING:
    from fractions import Fraction

    import numpy as np

    from cinetune.generation import Cast
    from cinetune.models.family import VideoModel

__all__ = ["STAGE", "inputs", "make", "run"]

NAME = "expand"
VERSION = 2
# A proxy smaller than this is enlarged by a whole factor, so that a person can watch it.
PROXY_HEIGHT = 240


@dataclass(frozen=True, slots=True, kw_only=True)
class _Task:
    """One shot to make in one arm and seed; `prompt` is complete, trigger included."""

    key: str
    made_by: dict[str, str]
    shot: PlannedShot
    keyframe: Keyframe
    prompt: str

    @property
    def label(self) -> str:
        return f"{self.shot.id} {self.keyframe.arm}"


def inputs(project: Project) -> dict[str, str]:
    """Hash of the shot list: prompts and lengths are in it."""
    return {"shots.toml": sha256_file(project.root / "shots.toml")}


def make(project: Project, report: Reporter) -> Made[Expanded]:
    """Make the missing shots. Raises `ModelError` on NaN."""
    looks, keyframes = project.store.need(Trained).by_arm, project.store.need(Keyframed).keyframes
    adapters: dict[Arm, Path] = {arm: project.store.path(look.weights) for arm, look in looks.items()}
    sequences = make_pieces(
        project,
        report,
        NAME,
        Sequence,
        _tasks(project, looks, keyframes),
        open_for=lambda _: partial(_open, project.config, adapters),
        workers=project.config.shoot.workers,
        called="shots",
    )
    return Made(result=Expanded(sequences=tuple(sequences)), notes=_notes(sequences))


STAGE = Stage(
    result=Expanded, make=make, inputs=inputs, parents=(Trained, Keyframed), sections=("model", "shoot"), model=True
)
run = STAGE.run


def _notes(sequences: list[Sequence]) -> list[str]:
    seams = [sequence.seam_ratio for sequence in sequences if sequence.seam_ratio is not None]
    lines = [
        f"colour drift from keyframe to last frame: at most dE2000 {max(sequence.drift for sequence in sequences):.1f}"
    ]
    return lines + ([f"worst join: {max(seams):.1f} times the change inside segments"] if seams else [])


def _tasks(project: Project, looks: Mapping[Arm, Look], keyframes: tuple[Keyframe, ...]) -> list[_Task]:
    from cinetune.models import model_identity

    config = project.config
    shots = {shot.id: shot for shot in project.shots().shots}
    made_by, shoot = model_identity(config.model), config.shoot
    settings = {
        "frames": shoot.segment_frames,
        "steps": shoot.steps,
        "guidance": shoot.guidance,
        "shift": shoot.shift,
        "anchor": shoot.anchor,
    }
    tasks: list[_Task] = []
    for keyframe in keyframes:
        shot = shots.get(keyframe.shot)
        if shot is None:
            continue  # a shot taken out of the list after its keyframe was made
        look = looks.get(keyframe.arm)
        prompt = full_caption(look.trigger if look else "", shot.prompt)
        key = content_key(
            NAME,
            VERSION,
            made_by,
            look.weights.sha256 if look else "",
            keyframe,
            prompt,
            shot.negative,
            shot.seconds,
            shot.seed,
            shot.domain,
            settings,
        )
        tasks.append(_Task(key=key, made_by=made_by, shot=shot, keyframe=keyframe, prompt=prompt))
    return tasks


def _open(config: Config, adapters: Mapping[Arm, Path], store: Store) -> Callable[[_Task], Sequence]:
    """What a worker process does first: load the model once. Returns the function that makes one shot."""
    from cinetune.generation import Cast

    cast = Cast(config.model, adapters)
    return lambda task: _make(store, config, cast, task)


def _make(store: Store, config: Config, cast: Cast, task: _Task) -> Sequence:
    from cinetune.footage.read.stills import read_image
    from cinetune.generation import drift, plan_segments, shot_frames, worst_seam

    started, keyframe, model = time.monotonic(), task.keyframe, cast.wear(task.keyframe.arm)
    frames = shot_frames(task.shot.seconds, model.info.rate, model.info.stride_time)
    segments = plan_segments(
        frames,
        config.shoot.segment_frames,
        shot_seed=task.shot.seed,
        seed_index=keyframe.seed,
        candidate=keyframe.picked if keyframe.method == "develop" else 0,
    )
    master = _render(store, config, model, task, segments)
    film = master.astype("float32") / WHITE
    video, proxy = _master(store, master), _proxy(store, film, model.info.rate)
    wall = time.monotonic() - started
    return Sequence(
        shot=task.shot.id,
        arm=keyframe.arm,
        seed=keyframe.seed,
        domain=task.shot.domain,
        rate=model.info.rate,
        frames=frames,
        width=film.shape[2],
        height=film.shape[1],
        segments=segments,
        seam_ratio=worst_seam(film, segments),
        drift=drift(film, read_image(store.path(keyframe.image))),
        video=video,
        proxy=proxy,
        keyframe=keyframe.image.sha256,
        made_by=task.made_by,
        timing=Timing(devices=1, wall_seconds=round(wall, 3), peak_gib=round(peak_memory_gib(), 3)),
        provenance=provenance(
            seed=task.shot.seed,
            config_sha=section_sha(config, STAGE.sections),
            parents=(keyframe.image.sha256,),
            device=cast.device.name,
            wall_seconds=wall,
        ),
    )


def _render(store: Store, config: Config, model: VideoModel, task: _Task, segments: tuple[Segment, ...]) -> np.ndarray:
    """The whole shot `THWC` uint16, each picture quantised as it is decoded so that float frames never pile up."""
    import numpy as np
    import torch
    from safetensors.torch import load_file

    from cinetune.footage.read.stills import read_image
    from cinetune.generation import Opening, Recipe, chain

    keyframe, shoot = task.keyframe, config.shoot
    condition = torch.from_numpy(read_image(store.path(keyframe.condition)))
    opening = Opening(
        condition_HWC=condition,
        keyframe_HWC=torch.from_numpy(read_image(store.path(keyframe.image))),
        latents=None if keyframe.opening is None else load_file(store.path(keyframe.opening))[OPENING],
    )
    recipe = Recipe(
        prompt=task.prompt,
        negative=task.shot.negative,
        frames=shoot.segment_frames,
        steps=shoot.steps,
        guidance=shoot.guidance,
        shift=shoot.shift,
    )
    last = segments[-1]
    master = np.empty((last.first_frame + last.frames, *condition.shape), dtype=np.uint16)
    for index, picture in enumerate(chain(model, opening, recipe, segments, anchor=shoot.anchor)):
        master[index] = np.rint(picture.numpy() * WHITE).astype(np.uint16)
    return master


def _master(store: Store, frames_THWC: np.ndarray) -> FileRef:
    with store.new_object(".safetensors") as (path, done):
        write_master(path, frames_THWC)
    return done[0]


def _proxy(store: Store, film_THWC: np.ndarray, rate: Fraction) -> FileRef:
    from cinetune.footage.video import write_video

    height, width = film_THWC.shape[1:3]
    factor = math.ceil(PROXY_HEIGHT / height)
    with store.new_object(".mp4") as (path, done):
        write_video(path, film_THWC, rate=rate, size=(width * factor, height * factor))
    return done[0]
