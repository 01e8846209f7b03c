"""`cinetune prepare`: choose the windows to train on. Reads `ingest` and the caption sidecars, writes `windows`.

A window is a fixed number of frames at the model's own rate, picked from one shot *by time*: 24 fps film is never
played as 16. The picture inside the bars is centre-cropped to the model's shape. Scenes, never windows, are kept out
for validation.
"""

from __future__ import annotations

import hashlib
import os
import time
from pathlib import Path

from cinetune.artifacts import FootageClip, Shot, Window
from cinetune.config import MODEL_GEOMETRY, Config, Geometry, section_sha
from cinetune.errors import ConfigError, FootageError
from cinetune.footage.sidecars import GENERATED, Row, captions_of, sidecar_files
from cinetune.footage.windows import centre_crop, window_frames
from cinetune.runtime import Reporter, provenance
from cinetune.store import Project, StageRecord, sha256_file

__all__ = ["NAME", "PARENTS", "SECTIONS", "inputs", "run"]

NAME = "prepare"
PARENTS = ("ingest",)
SECTIONS = ("prepare",)


def _geometry(config: Config) -> Geometry:
    """The model's geometry with the project's own size. Raises `ConfigError` for half a size or one the model cannot
    take.
    """
    own = MODEL_GEOMETRY[config.model.family]
    height, width = config.prepare.height, config.prepare.width
    if not height and not width:
        return own
    if not height or not width:
        raise ConfigError("prepare.height and prepare.width go together", remedy="give both, or neither")
    if height % own.multiple or width % own.multiple:
        near = [max(own.multiple, round(side / own.multiple) * own.multiple) for side in (height, width)]
        raise ConfigError(
            f"{config.model.family} needs sides that are multiples of {own.multiple}, not {height}x{width}",
            remedy=f"set prepare.height = {near[0]} and prepare.width = {near[1]}",
        )
    return own._replace(height=height, width=width)


def inputs(project: Project) -> dict[str, str]:
    """sha256 of the caption sidecars, and the model's geometry."""
    folder = project.root / project.config.footage.folder
    files = [*sidecar_files(folder), *folder.glob(GENERATED)] if folder.is_dir() else []
    hashes = {Path(os.path.relpath(path, project.root)).as_posix(): sha256_file(path) for path in files}
    return hashes | {"geometry": str(MODEL_GEOMETRY[project.config.model.family])}


def run(project: Project, report: Reporter) -> StageRecord:
    """Lay windows into shots, caption and split them.

    Raises `ConfigError` when captions are missing or do not fit, `FootageError` when no shot is long enough for one
    window.
    """
    started = time.monotonic()
    config = project.config
    parent = project.store.need_stage("ingest")
    clips: dict[str, FootageClip] = {clip.id: clip for clip in parent.groups["clips"]}
    shots: tuple[Shot, ...] = parent.groups["shots"]
    geometry = _geometry(config)
    rows = _captions(project, clips, shots)
    most = config.prepare.max_windows_per_shot
    spans = [window_frames(shot.span, geometry.rate, config.prepare.frames, most=most) for shot in shots]
    short = [shot.id for shot, mine in zip(shots, spans, strict=True) if not mine]
    scenes = [row.scene or shot.clip for shot, row in zip(shots, rows, strict=True)]
    held = _held_scenes(
        {scene for scene, mine in zip(scenes, spans, strict=True) if mine}, config.prepare.held_fraction
    )
    windows: list[Window] = []
    for shot, row, mine, scene in zip(shots, rows, spans, scenes, strict=True):
        for number, frames in enumerate(mine):
            windows.append(
                Window(
                    id=f"{shot.id}_w{number:02d}",
                    shot=shot.id,
                    clip=shot.clip,
                    scene=scene,
                    split="held" if scene in held else "train",
                    source_frames=tuple(frames),
                    rate=geometry.rate,
                    crop=centre_crop(clips[shot.clip], geometry.width, geometry.height),
                    width=geometry.width,
                    height=geometry.height,
                    caption=row.text,
                    caption_source=row.source,
                )
            )
    seconds = float((config.prepare.frames - 1) / geometry.rate)
    if not windows:
        raise FootageError(
            f"no shot is long enough: {config.prepare.frames} frames at {geometry.rate} fps need {seconds:.2f} s",
            where=str(project.root),
            remedy="use longer shots, or lower prepare.frames",
        )
    if short:
        report.warn(
            f"{len(short)} of {len(shots)} shots are shorter than a window ({seconds:.2f} s), not used: {_some(short)}"
        )
    _tell(report, config, geometry, clips, windows)
    made = provenance(
        seed=None,
        config_sha=section_sha(config, SECTIONS),
        parents=(parent.output_sha,),
        device="cpu",
        wall_seconds=time.monotonic() - started,
    )
    key = project.input_key(NAME, parents=PARENTS, sections=SECTIONS, inputs=inputs(project))
    return project.store.save_stage(NAME, key, {"windows": windows}, made=made)


def _captions(project: Project, clips: dict[str, FootageClip], shots: tuple[Shot, ...]) -> list[Row]:
    """One row per shot. Raises `ConfigError` listing every shot without a caption."""
    folder = project.root / project.config.footage.folder
    rows = captions_of(project.root, folder, clips, shots)
    missing = [
        f"{clips[shot.clip].path} ({shot.id}, from frame {shot.span.start})"
        for shot, row in zip(shots, rows, strict=True)
        if not row.text
    ]
    if missing and project.config.prepare.require_captions:
        listed = "\n  ".join(missing)
        raise ConfigError(
            f"{len(missing)} shots have no caption:\n  {listed}",
            where=str(folder),
            remedy="write clip.txt beside each clip, or a metadata.jsonl; or let a model do it: `cinetune caption`; "
            "or set prepare.require_captions = false",
        )
    return rows


def _held_scenes(scenes: set[str], fraction: float) -> set[str]:
    """The scenes kept for validation: the first by sha256 of their names, so that adding a scene moves few others. One
    at least of three or more.
    """
    order = sorted(scenes, key=lambda scene: hashlib.sha256(scene.encode()).hexdigest())
    count = min(round(fraction * len(order)), len(order) - 1)
    if fraction > 0 and len(order) >= 3:
        count = max(1, count)
    return set(order[:count])


def _some(names: list[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")


def _tell(
    report: Reporter, config: Config, geometry: Geometry, clips: dict[str, FootageClip], windows: list[Window]
) -> None:
    for rate in sorted({clips[window.clip].rate for window in windows}):
        mine = next(window for window in windows if clips[window.clip].rate == rate)
        covered = mine.source_frames[-1] - mine.source_frames[0] + 1
        report.say(
            f"{rate} fps resampled by time to {geometry.rate}: "
            f"a window of {config.prepare.frames} frames spans {covered} source frames"
        )
    small = sorted({window.clip for window in windows if window.crop[3] < geometry.height})
    if small:
        report.warn(
            f"{len(small)} clips are enlarged to the model's {geometry.width}x{geometry.height}: {_some(small)}"
        )
    without = sum(not window.caption for window in windows)
    if without:
        report.warn(f"{without} windows have no caption")
    generated = sum(window.caption_source.startswith("generated (") for window in windows)
    if generated:
        report.say(f"{generated} captions were written by a model; `cinetune caption --review` shows them")
    scenes = {
        split: sorted({window.scene for window in windows if window.split == split}) for split in ("train", "held")
    }
    counts = {split: sum(window.split == split for window in windows) for split in scenes}
    report.say(
        f"{counts['train']} windows of {len(scenes['train'])} scenes to train on, "
        f"{counts['held']} of {len(scenes['held'])} held out"
        + (f" ({_some(scenes['held'])})" if scenes["held"] else "")
    )
    if not scenes["held"] and config.prepare.held_fraction > 0:
        report.warn("fewer than three scenes: nothing is held out, so training cannot be validated")
