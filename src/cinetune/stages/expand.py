"""expand: every keyframe becomes a shot.

Reads the keyframes and the looks; writes `Sequence` records, each with a lossless master (`frames_THWC`, uint16, full
range) and a small mp4 to look at. Segments, seeds and noise are the same in every arm.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING

from cinetune.artifacts import (
    DEVELOPS,
    Arm,
    FileRef,
    FootageClip,
    Keyframe,
    Limits,
    Look,
    PlannedShot,
    SceneMatch,
    Segment,
    Sequence,
    Timing,
    Try,
    Window,
)
from cinetune.config import Config, section_sha
from cinetune.errors import GateFailed
from cinetune.files import OPENING, WHITE, full_caption, master_frames, master_slice, stream_master, trigger_of
from cinetune.results import Expanded, Ingested, Keyframed, Prepared, Trained
from cinetune.runtime import Reporter, peak_memory_gib, provenance
from cinetune.shotlist import FILM_SCENES, shots_of_scenes, spoken
from cinetune.stage import Made, Stage, divided, make_pieces
from cinetune.store import Project, Store, content_key

if TYPE_CHECKING:
    from fractions import Fraction

    import numpy as np

    from cinetune.generation import ArmModel, Partition, Reel, Take
    from cinetune.models.family import VideoModel

__all__ = ["STAGE", "inputs", "make", "run"]

NAME = "expand"
VERSION = 4
LIMITS = "limits"
LIMITS_VERSION = 2
SHORT = 9  # pictures: two parts that share one, each of two latent frames (`cinetune.generation.gate`)
# Clips of the film that they are taken from. Each costs a pass through the VAE; the highest of so many readings stands
# for a 95th percentile.
LIMIT_CLIPS = 16
# Which pictures of the film's scenes a shot list's are held against; about so many of a shot at most.
SOME = 8
MOST = 64
# A proxy smaller than this is enlarged by a whole factor, so that a person can watch it.
PROXY_HEIGHT = 240


@dataclass(frozen=True, slots=True, kw_only=True)
class _Task:
    """One shot to make in one arm and seed; `prompt` is complete, `trigger` included."""

    key: str
    made_by: dict[str, str]
    shot: PlannedShot
    keyframe: Keyframe
    prompt: str
    trigger: str

    @property
    def label(self) -> str:
        return f"{self.shot.id} {self.keyframe.arm}"


def inputs(project: Project) -> dict[str, str]:
    """Hashes of the shot list, prompts and lengths are in it, and of a preview's distilled adapter."""
    from cinetune.models.files.weights import adapter_input

    adapter = project.config.preview_adapter(project.root)
    return {"shots.toml": project.shots_sha256(), **adapter_input("shoot.preview_adapter", adapter)}


def make(project: Project, report: Reporter) -> Made[Expanded]:
    """Make the missing shots. Raises `ModelError` on NaN, what `checked_preview_adapter` raises, and with
    `shoot.gate = "strict"` `GateFailed` when a segment is outside the limits after all its tries.
    """
    looks, keyframes = project.store.need(Trained).by_arm, project.store.need(Keyframed).keyframes
    adapters: dict[Arm, Path] = {arm: project.store.path(look.weights) for arm, look in looks.items()}
    film = _film(project, report)
    sequences = make_pieces(
        project,
        report,
        NAME,
        Sequence,
        _tasks(project, looks, keyframes, film.key if film else ""),
        open_for=lambda _: partial(_open, project.config, adapters, film),
        called="shots",
    )
    failed, notes = _outside(sequences), _previewed(project, sequences)
    if failed and project.config.shoot.gate == "strict":
        remedy = 'raise shoot.tries, choose other seeds in the shot list, or set shoot.gate = "report"'
        raise GateFailed("\n  ".join(failed), where="expand", remedy=remedy)
    scenes = tuple(_scenes(project, sequences))
    notes += _notes(sequences, failed) + [_of_scene(one) for one in scenes if one.who != "film"]
    return Made(result=Expanded(sequences=tuple(sequences), scenes=scenes), notes=notes)


STAGE = Stage(
    result=Expanded, make=make, inputs=inputs, parents=(Ingested, Prepared, Trained, Keyframed),
    sections=("model", "shoot"), model=True, together=True,
)  # fmt: skip
run = STAGE.run


def _notes(sequences: list[Sequence], failed: list[str]) -> list[str]:
    seams = [sequence.seam_ratio for sequence in sequences if sequence.seam_ratio is not None]
    lines = [
        f"colour drift from keyframe to last frame: at most dE2000 {max(sequence.drift for sequence in sequences):.1f}"
    ]
    if seams:
        lines.append(f"worst join: {max(seams):.1f} times the change inside segments")
    segments = [segment for sequence in sequences for segment in sequence.segments]
    if (again := sum(len(segment.tries) - 1 for segment in segments)) > 0:
        lines.append(f"{again} tries more than segments: shot again with another seed")
    if failed:
        lines.append(f"{len(failed)} of {len(segments)} segments are not like true shots of the film: {failed[0]}")
    return lines


def _scenes(project: Project, sequences: list[Sequence]) -> Iterator[SceneMatch]:
    """Shots of one scene against each other in each arm and seed, and what the film's own scenes read."""
    together = shots_of_scenes(project.shots(), sequences)
    if not together:
        return
    from cinetune.footage.video import read_window
    from cinetune.metrics import scene_spread

    for (scene, arm, seed), shots in together.items():
        films = [_few(project.store.path(shot.video)) for shot in shots]
        whole, first = scene_spread(films), scene_spread([film[:1] for film in films])
        yield SceneMatch(
            scene=scene, who=arm, seed=seed, shots=len(shots), light=whole.light, palette=whole.palette,
            keyframe_light=first.light, keyframe_palette=first.palette,
        )  # fmt: skip
    clips, own = project.store.need(Ingested).by_id, dict[str, dict[str, Window]]()
    for window in project.store.need(Prepared).windows:
        own.setdefault(window.scene, {}).setdefault(window.shot, window)
    spreads = []
    for shots in [list(shots.values()) for shots in own.values() if len(shots) > 1][:FILM_SCENES]:
        films = [read_window(project.root, clips[window.clip], window)[::SOME] for window in shots]
        spreads.append((len(films), scene_spread(films), scene_spread([film[:1] for film in films])))
    if spreads:
        counts, whole, first = zip(*spreads, strict=True)
        yield SceneMatch(
            scene="", who="film", seed=0, shots=sum(counts),
            light=fmean(one.light for one in whole), palette=fmean(one.palette for one in whole),
            keyframe_light=fmean(one.light for one in first), keyframe_palette=fmean(one.palette for one in first),
        )  # fmt: skip


def _few(master: Path) -> np.ndarray:
    """Every eighth picture of a shot, `THWC`, and of a long one so many at even distances."""
    levels = master_slice(master)
    step = max(SOME, levels.get_shape()[0] // MOST)
    return (levels[::step] / WHITE).astype("float32")


def _of_scene(one: SceneMatch) -> str:
    return (
        f"scene {one.scene} {one.who} seed {one.seed}, {one.shots} shots: light L* {one.light:.1f} and palette "
        f"{one.palette:.1f} apart (keyframes {one.keyframe_light:.1f}, {one.keyframe_palette:.1f})"
    )


def _previewed(project: Project, sequences: list[Sequence]) -> list[str]:
    """How far previews are from the full shots, where those were made before."""
    if not any(sequence.preview for sequence in sequences):
        return []
    from cinetune.footage.read.color import resize
    from cinetune.metrics import colour_error

    before = project.store.find(Expanded)
    full = {(s.shot, s.arm, s.seed): s for s in before.sequences if not s.preview} if before else {}
    lines = ["preview: for the eye only, not scored"]
    for made in sequences:
        other = full.get((made.shot, made.arm, made.seed))
        if other is not None and other.frames == made.frames:
            pairs = zip(*(master_frames(project.store.path(one.video)) for one in (made, other)), strict=True)
            away = [colour_error(x[None], resize(y, (made.width, made.height))[None], factor=4) for x, y in pairs]
            mean = sum(away) / len(away)
            lines.append(f"preview of {made.shot} {made.arm}: dE2000 {mean:.1f} from the full shot, seed {made.seed}")
    return lines


def _outside(sequences: list[Sequence]) -> list[str]:
    """Every kept segment that is outside the limits, in words."""
    found: list[str] = []
    for sequence in sequences:
        for number, segment in enumerate(sequence.segments):
            kept = _kept(segment)
            if kept.over and sequence.limits is not None:
                what = ", ".join(
                    f"{name} {getattr(kept, name):.2f} (limit {getattr(sequence.limits, name):.2f})"
                    for name in kept.over
                )
                found.append(f"{sequence.shot} {sequence.arm} seed {sequence.seed} segment {number + 1}: {what}")
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class _Film:
    """The film's windows that limits are taken from; `key` is what the limits depend on."""

    windows: tuple[Window, ...]
    clips: dict[str, FootageClip]
    key: str

    def limits(self, store: Store, model: VideoModel) -> Limits:
        """What true shots of the film read through the model's VAE: each measured once, by whichever worker comes to it
        first.
        """
        from cinetune.generation import limits_of

        pieces = {
            content_key(self.key, window): partial(self._reading, store, model, window) for window in self.windows
        }
        return limits_of(divided(store, LIMITS, Try, pieces))

    def _reading(self, store: Store, model: VideoModel, window: Window) -> Try:
        from cinetune.footage.video import read_window
        from cinetune.generation import coded, true_reading

        film = read_window(store.root, self.clips[window.clip], window)
        found = true_reading(film, partial(coded, model), stride=model.info.stride_time)
        assert found is not None, f"a window of {SHORT} pictures or more has two parts"
        return found


def _film(project: Project, report: Reporter) -> _Film | None:
    """None for a film without windows of some length."""
    from cinetune.models import model_identity

    clips = project.store.need(Ingested).by_id
    windows = [window for window in project.store.need(Prepared).windows if len(window.source_frames) >= SHORT]
    taken = windows[:: max(1, math.ceil(len(windows) / LIMIT_CLIPS))]
    if not taken:
        report.warn(f"the film has no windows of {SHORT} pictures or more: shots are not held against it")
        return None
    own = {window.clip: clips[window.clip] for window in taken}
    shas = sorted(clip.sha256 for clip in own.values())
    key = content_key(LIMITS, LIMITS_VERSION, model_identity(project.config.model), *taken, shas)
    return _Film(windows=tuple(taken), clips=own, key=key)


def _tasks(project: Project, looks: Mapping[Arm, Look], keyframes: tuple[Keyframe, ...], film: str) -> list[_Task]:
    from cinetune.generation import as_run, checked_preview_adapter
    from cinetune.models import model_identity

    config = project.config
    distilled = checked_preview_adapter(config, project.root)
    shots = {shot.id: shot for shot in project.shots().shots}
    base, shoot = model_identity(config.model), config.shooting()
    settings = {
        "frames": shoot.segment_frames,
        "steps": shoot.steps,
        "guidance": shoot.guidance,
        "shift": shoot.shift,
        "overlap": shoot.overlap,
        "anchor": shoot.anchor,
        "tries": shoot.tries,
        "cache": shoot.preview_cache if shoot.preview else 0,
        "preview": shoot.preview,
        **shoot.moves_last_digits,
    }
    tasks: list[_Task] = []
    for keyframe in keyframes:
        shot = shots.get(keyframe.shot)
        if shot is None:
            continue  # a shot taken out of the list after its keyframe was made
        look = looks.get(keyframe.arm)
        trigger = trigger_of(looks, keyframe.arm)
        prompt, made_by = full_caption(trigger, spoken(shot)), as_run(base, distilled, shot)
        key = content_key(
            NAME,
            VERSION,
            made_by,
            *([look.weights.sha256, shot.look_strength] if look else [""]),
            keyframe,
            prompt,
            [[cue.at, spoken(shot, cue.prompt)] for cue in shot.prompts],
            shot.negative,
            shot.seconds,
            shot.seed,
            shot.domain,
            settings,
            film,
        )
        tasks.append(_Task(key=key, made_by=made_by, shot=shot, keyframe=keyframe, prompt=prompt, trigger=trigger))
    return tasks


def _open(
    config: Config, adapters: Mapping[Arm, Path], film: _Film | None, store: Store, part: Partition | None = None
) -> Callable[[_Task], Sequence]:
    """What a worker process does first: load the model once. Returns the function that makes one shot."""
    from cinetune.generation import ArmModel

    arms = ArmModel(config, adapters, part, distilled=config.preview_adapter(store.root))
    limits = film.limits(store, arms.model) if film else None
    return lambda task: _make(store, config, arms, limits, task)


def _make(store: Store, config: Config, arms: ArmModel, limits: Limits | None, task: _Task) -> Sequence:
    from cinetune.footage.read.stills import read_image
    from cinetune.generation import Reel, drift

    started, keyframe, shot = time.monotonic(), task.keyframe, task.shot
    model = arms.activate(keyframe.arm, strength=shot.look_strength, distilled=shot.preview_strength)
    segments = _planned(config, model, task)
    frames = sum(segment.frames for segment in segments)
    picture = read_image(store.path(keyframe.image))
    height, width = picture.shape[:2]
    # Several processes make a segment together or not at all, so they do not read what one of them may be clearing.
    reel = None if arms.part else Reel(store.work / NAME / task.key)
    made, last = list[Segment](), picture

    def parts() -> Iterator[np.ndarray]:
        nonlocal last
        for take in _takes(store, config, model, limits, task, (reel, segments)):
            made.append(take.segment)
            last = take.frames_THWC[-1].astype("float32") / WHITE
            yield take.frames_THWC

    with store.new_object(".safetensors") as (path, done):
        stream_master(path, parts(), (frames, height, width, 3))
    if reel is not None:
        reel.clear()
    wall = time.monotonic() - started
    seams = [_kept(segment).seam for segment in made[1:]]
    return Sequence(
        shot=task.shot.id,
        arm=keyframe.arm,
        seed=keyframe.seed,
        domain=task.shot.domain,
        rate=model.info.rate,
        frames=frames,
        width=width,
        height=height,
        segments=tuple(made),
        seam_ratio=max((seam for seam in seams if seam is not None), default=None),
        drift=drift(last[None], picture),
        video=done[0],
        proxy=_proxy(store, done[0], model.info.rate, (height, width)),
        keyframe=keyframe.image.sha256,
        made_by=task.made_by,
        limits=limits,
        strength=1.0 if keyframe.arm in ("base", "trigger") else task.shot.look_strength,
        preview=config.shoot.preview,
        timing=Timing(
            devices=arms.part.group_size if arms.part else 1,
            wall_seconds=round(wall, 3),
            peak_gib=round(peak_memory_gib(), 3),
        ),
        provenance=provenance(
            seed=task.shot.seed,
            config_sha=section_sha(config, STAGE.sections),
            parents=(keyframe.image.sha256,),
            device=arms.device.name,
            wall_seconds=wall,
        ),
    )


def _planned(config: Config, model: VideoModel, task: _Task) -> tuple[Segment, ...]:
    """The segments of a shot, with the prompt that holds in each."""
    from cinetune.generation import plan_segments, prompted, shot_frames

    frames = shot_frames(task.shot.seconds, model.info.rate, model.info.stride_time)
    segments = plan_segments(
        frames,
        config.shoot.segment_frames,
        shot_seed=task.shot.seed,
        seed_index=task.keyframe.seed,
        candidate=task.keyframe.picked if task.keyframe.method in DEVELOPS else 0,
        overlap=config.shoot.overlap,
    )
    cues = [replace(cue, prompt=full_caption(task.trigger, spoken(task.shot, cue.prompt))) for cue in task.shot.prompts]
    return prompted(segments, cues, model.info.rate)


def _kept(segment: Segment) -> Try:
    return next(one for one in segment.tries if one.seed == segment.seed)


def _takes(
    store: Store,
    config: Config,
    model: VideoModel,
    limits: Limits | None,
    task: _Task,
    planned: tuple[Reel | None, tuple[Segment, ...]],
) -> Iterator[Take]:
    """The segments of a shot: those that a stopped run finished, then the rest, each kept as it comes."""
    import torch
    from safetensors.torch import load_file

    from cinetune.footage.read.stills import read_image
    from cinetune.generation import ChainRules, Opening, Recipe, State, StepCached, advanced, shoot

    keyframe, settings, (reel, segments) = task.keyframe, config.shooting(), planned
    opening = Opening(
        condition_HWC=torch.from_numpy(read_image(store.path(keyframe.condition))),
        latents=None if keyframe.opening is None else load_file(store.path(keyframe.opening))[OPENING],
        lead=keyframe.method == "lead",
    )
    recipe = Recipe(
        prompt=task.prompt,
        negative=task.shot.negative,
        frames=settings.segment_frames,
        steps=settings.steps,
        guidance=settings.guidance,
        shift=settings.shift,
    )
    state: State | None = None
    for take in reel.finished(segments) if reel else ():
        state = advanced(state, take)
        yield take
    rules = ChainRules(overlap=settings.overlap, anchor=settings.anchor, limits=limits, tries=settings.tries)
    caching = settings.preview and settings.preview_cache > 0
    shooter = StepCached(model, settings.preview_cache) if caching else model
    try:
        for take in shoot(shooter, opening, recipe, segments, rules, state):
            if reel is not None:
                reel.keep(state.done if state else 0, take)
            state = advanced(state, take)
            yield take
    finally:
        if isinstance(shooter, StepCached):
            shooter.release()


def _proxy(store: Store, master: FileRef, rate: Fraction, size: tuple[int, int]) -> FileRef:
    from cinetune.footage.video import write_video

    height, width = size
    factor = math.ceil(PROXY_HEIGHT / height)
    with store.new_object(".mp4") as (path, done):
        size = (width * factor, height * factor)
        write_video(path, master_frames(store.path(master)), rate=rate, codec="h264_quick", size=size)
    return done[0]
