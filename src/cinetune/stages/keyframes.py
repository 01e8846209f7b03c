"""keyframes: the first picture of every planned shot, for every arm and seed.

Reads `shots.toml`, the reference pictures and the trained looks; writes `Keyframe` records. All arms get the same
treatment: the same method, seeds, noise and number of candidate; only the adapter and the trigger phrase differ. The
arm `trigger` has the phrase without the adapter.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cinetune.artifacts import DEVELOPS, Arm, FileRef, FootageClip, Keyframe, Look, Method, PlannedShot, Window
from cinetune.config import Config
from cinetune.durable import atomic_write
from cinetune.errors import ConfigError
from cinetune.files import OPENING, full_caption, save_tensors, trigger_of
from cinetune.footage.cut.framing import picture_notes
from cinetune.results import Ingested, Keyframed, Prepared, Trained
from cinetune.runtime import Reporter
from cinetune.shotlist import spoken
from cinetune.stage import Made, Stage, make_pieces
from cinetune.store import Project, Store, content_key
from cinetune.timecode import exact_rate

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from cinetune.generation import ArmModel, Partition

__all__ = ["STAGE", "inputs", "make", "run"]

NAME = "keyframes"
# Part of every unit key: raise it when the same inputs would give another picture.
VERSION = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class _Task:
    """One keyframe to make; `prompt` is complete, trigger included."""

    key: str
    shot: PlannedShot
    arm: Arm
    seed: int
    method: Method
    prompt: str

    @property
    def label(self) -> str:
        return f"{self.shot.id} {self.arm}"


def inputs(project: Project) -> dict[str, str]:
    """Hashes of the shot list, of each picture that shots start from, and of a preview's distilled adapter."""
    from cinetune.models.files.weights import adapter_input

    adapter = project.config.preview_adapter(project.root)
    found = {"shots.toml": project.shots_sha256(), **adapter_input("shoot.preview_adapter", adapter)}
    pictures = {_start(shot) for shot in project.shots().shots}
    found |= {"arms": ", ".join(project.config.arms())}
    return found | {picture: project.store.sha256(project.root / picture) for picture in sorted(pictures)}


def _start(shot: PlannedShot) -> str:
    """The picture file a shot starts from: a painted keyframe, else the reference."""
    return shot.keyframe or shot.reference


def make(project: Project, report: Reporter) -> Made[Keyframed]:
    """Make the missing keyframes. Raises `ConfigError` for an empty shot list or a size the model cannot take, and what
    `checked_preview_adapter` raises.
    """
    store, config = project.store, project.config
    looks, clips, windows = store.need(Trained).by_arm, store.need(Ingested).by_id, store.need(Prepared).training
    adapters: dict[Arm, Path] = {arm: store.path(look.weights) for arm, look in looks.items()}
    for note in picture_notes(
        [(shot.id, project.root / _start(shot), _size(config, shot)) for shot in project.shots().shots]
    ):
        report.warn(note)
    tasks = _tasks(project, looks, film=content_key(*windows, *sorted(clip.sha256 for clip in clips.values())))

    def open_for(missing: Sequence[_Task]) -> Callable[[Store], Callable[[_Task], Keyframe]]:
        _declare(project, report)
        film = _film(project, windows, clips) if any(task.method == "late" for task in missing) else None
        return partial(_open, config, adapters, film)

    made = make_pieces(project, report, NAME, Keyframe, tasks, open_for=open_for, called="keyframes")
    shared = _shared(made)
    keyframes = [
        _as_asked(keyframe, shared[keyframe.shot, keyframe.seed] if task.shot.pick is None else task.shot.pick)
        for keyframe, task in zip(made, tasks, strict=True)
    ]
    return Made(result=Keyframed(keyframes=tuple(keyframes)), notes=_ranking(project, report, keyframes))


STAGE = Stage(
    result=Keyframed, make=make, inputs=inputs, parents=(Ingested, Prepared, Trained),
    sections=("model", "keyframes", "shoot"), model=True, together=True,
)  # fmt: skip
run = STAGE.run


def _declare(project: Project, report: Reporter) -> None:
    """Write down what is claimed before anything is shot, and say what so many shots can show."""
    from cinetune.metrics.design import declared

    design = declared(project)
    report.say(f"design {design.sha[:12]}: {len(design.claims)} claims on arms {', '.join(design.arms)}")
    for line in design.power:
        report.say(f"power  {line}")


def _shared(made: Sequence[Keyframe]) -> dict[tuple[str, int], int]:
    """One candidate for all arms of a shot and seed: the number whose quality, averaged over the arms, is best. Were it
    chosen arm by arm, each arm would show its own best luck.
    """
    found: dict[tuple[str, int], int] = {}
    for place in dict.fromkeys((keyframe.shot, keyframe.seed) for keyframe in made):
        scores = [keyframe.scores for keyframe in made if (keyframe.shot, keyframe.seed) == place]
        means = [sum(by_arm) / len(by_arm) for by_arm in zip(*scores, strict=True)]
        found[place] = means.index(max(means)) if means else 0
    return found


def _ranking(project: Project, report: Reporter, keyframes: Sequence[Keyframe]) -> list[str]:
    """Why each shot has its candidate, in words, and a contact sheet of them all."""
    ranked = [keyframe for keyframe in keyframes if len(keyframe.candidates) > 1]
    if not ranked:
        return []
    from cinetune.pages.media import open_picture
    from cinetune.pages.sheets import Cell, candidates_sheet

    asked = {shot.id: shot.pick for shot in project.shots().shots}
    notes: list[str] = []
    for shot, seed in dict.fromkeys((keyframe.shot, keyframe.seed) for keyframe in ranked):
        arms = [keyframe for keyframe in ranked if (keyframe.shot, keyframe.seed) == (shot, seed)]
        means = [sum(by_arm) / len(by_arm) for by_arm in zip(*(keyframe.scores for keyframe in arms), strict=True)]
        order = sorted(range(len(means)), key=lambda number: -means[number])
        why = "picked in the shot list" if asked[shot] is not None else "keeps most of the reference's edges"
        rest = ", ".join(f"{number} ({means[number]:.2f})" for number in order)
        notes.append(f"{shot} seed {seed}: candidate {arms[0].picked}, {why}; mean over the arms: {rest}")
    rows = [
        (
            f"{keyframe.shot} {keyframe.arm} seed {keyframe.seed}",
            [
                Cell(open_picture(project.store.path(ref)), f"{number}: {score:.2f}", picked=number == keyframe.picked)
                for number, (ref, score) in enumerate(zip(keyframe.candidates, keyframe.scores, strict=True))
            ],
        )
        for keyframe in ranked
    ]
    path = project.store.work / NAME / "candidates.png"
    with atomic_write(path) as temporary:
        candidates_sheet(rows).save(temporary, "PNG")
    report.say(f"sheet  {path}: `cinetune keyframes --pick SHOT=NUMBER` overrules the ranking")
    return notes


def _as_asked(made: Keyframe, pick: int) -> Keyframe:
    """The keyframe with the candidate that all arms share or a person asked for. Candidates are made before one is
    chosen, so another choice costs no new ones; `develop` and `lead` must make the segment again that came with it.
    """
    if pick == made.picked:
        return made
    image = made.candidates[pick]
    condition = made.condition if made.method in DEVELOPS else image
    return replace(made, image=image, condition=condition, picked=pick, opening=None)


def _count(config: Config, shot: PlannedShot, method: Method) -> int:
    """How many candidates are made. Raises `ConfigError` when the shot asks for one past the last."""
    count = 1 if method == "as-is" else shot.candidates or config.keyframes.candidates
    if shot.pick is not None and shot.pick >= count:
        raise ConfigError(
            f"shot {shot.id!r}: pick = {shot.pick}, but its candidates are numbered 0 to {count - 1}",
            where="shots.toml",
            remedy=f"pick one of those, or set keyframes.candidates = {shot.pick + 1}",
        )
    return count


def _size(config: Config, shot: PlannedShot) -> tuple[int, int]:
    """Picture (height, width) of a shot. Raises `ConfigError` for one the base model cannot take."""
    base = config.model.base()
    try:
        size = config.shoot_size(base, shot)
    except ConfigError as error:
        raise ConfigError(f"shot {shot.id!r}: {error.what}", where="shots.toml", remedy=error.remedy) from error
    if not config.shoot.preview:
        return size
    from cinetune.generation import preview_size

    return preview_size(size, config.shoot.preview_share, base.multiple)


def _check_asked(config: Config, shots: Sequence[PlannedShot]) -> None:
    """Raises `ConfigError` for what the base model cannot do, all of it named, before anything runs."""
    base, found = config.model.base(), list[str]()
    for shot in shots:
        if shot.last is not None:
            found.append(f"shot {shot.id!r}: {base.name} was not taught to arrive at a picture (last)")
        if shot.rate and exact_rate(shot.rate) != base.rate:
            found.append(
                f"shot {shot.id!r}: {base.name} makes {base.rate} frames a second, not {shot.rate}; other rates are "
                "made at delivery (deliver.rate, deliver.conform)"
            )
    if found:
        raise ConfigError("\n  ".join(found), where="shots.toml")


def _tasks(project: Project, looks: Mapping[Arm, Look], *, film: str) -> list[_Task]:
    """Every shot x arm x seed, arm by arm so that adapters are switched rarely."""
    from cinetune.generation import as_run, checked_preview_adapter
    from cinetune.models import model_identity

    config, shots = project.config, project.shots().shots
    if not shots:
        raise ConfigError(
            "the shot list is empty", where=str(project.root / "shots.toml"), remedy="add a [[shot]] table"
        )
    base = model_identity(config.model)
    _check_asked(config, shots)
    distilled = checked_preview_adapter(config, project.root)
    pictures = {_start(shot): project.store.sha256(project.root / _start(shot)) for shot in shots}
    arms: list[Arm] = [arm for arm in config.arms() if arm in ("base", "trigger") or arm in looks]
    tasks: list[_Task] = []
    for arm in arms:
        for shot in shots:
            method: Method = "as-is" if shot.keyframe else shot.method or config.keyframes.method
            _count(config, shot, method)
            prompt = full_caption(trigger_of(looks, arm), spoken(shot))
            for seed in range(config.shoot.seeds):
                key = content_key(
                    NAME,
                    VERSION,
                    as_run(base, distilled, shot),
                    *([looks[arm].weights.sha256, shot.look_strength] if arm in looks else [""]),
                    arm,
                    shot.id,
                    method,
                    pictures[_start(shot)],
                    prompt,
                    shot.negative,
                    [shot.seed, seed],
                    _settings(config, shot, method),
                    film if method == "late" else "",
                )
                tasks.append(_Task(key=key, shot=shot, arm=arm, seed=seed, method=method, prompt=prompt))
    return tasks


def _settings(config: Config, shot: PlannedShot, method: Method) -> dict[str, Any]:
    """The settings a keyframe depends on; fewer for `as-is`, which computes nothing."""
    shoot = config.shooting()
    settings: dict[str, Any] = {"size": _size(config, shot)}
    if method != "as-is":
        settings |= {
            "frames": shoot.segment_frames,
            "steps": shoot.steps,
            "guidance": shoot.guidance,
            "shift": shoot.shift,
            "candidates": _count(config, shot, method),
        }
        settings |= shoot.moves_last_digits
    return settings | ({"strength": config.keyframes.strength} if method == "restyle" else {})


def _film(project: Project, windows: Sequence[Window], clips: Mapping[str, FootageClip]) -> list[np.ndarray]:
    """Lab pixels of the first frame of each training window. Raises `ConfigError` when there is none to rank
    against.
    """
    if not windows:
        raise ConfigError(
            "keyframes cannot be ranked: the film has no training windows",
            where="keyframes",
            remedy='lower prepare.held_fraction, or set keyframes.method = "develop" and keyframes.candidates = 1',
        )
    from cinetune.footage.video import read_window
    from cinetune.generation import film_clouds

    stills = [
        read_window(project.root, clips[window.clip], replace(window, source_frames=window.source_frames[:1]))[0]
        for window in windows
    ]
    return film_clouds(stills)


def _open(
    config: Config,
    adapters: Mapping[Arm, Path],
    film: list[np.ndarray] | None,
    store: Store,
    part: Partition | None = None,
) -> Callable[[_Task], Keyframe]:
    """What a worker process does first: load the model once. Returns the function that makes one keyframe."""
    from cinetune.generation import ArmModel

    arms = ArmModel(config, adapters, part, distilled=config.preview_adapter(store.root))
    return lambda task: _make(store, config, arms, film, task)


def _make(store: Store, config: Config, arms: ArmModel, film: list[np.ndarray] | None, task: _Task) -> Keyframe:
    import torch

    from cinetune.footage.read.stills import read_image
    from cinetune.generation import Recipe, candidate_quality, candidate_seed, fit_picture, make_candidate

    shoot, strength, distilled = config.shooting(), task.shot.look_strength, task.shot.preview_strength
    model = arms.activate(task.arm, strength=strength, distilled=distilled)
    height, width = _size(config, task.shot)
    start = read_image(store.root / _start(task.shot))
    reference = _picture(store, fit_picture(start, height=height, width=width))
    # The model sees exactly what the file holds, so that a shot made later from the file is the same shot.
    given = torch.from_numpy(read_image(store.path(reference)))
    recipe = Recipe(
        prompt=task.prompt,
        negative=task.shot.negative,
        frames=shoot.segment_frames,
        steps=shoot.steps,
        guidance=shoot.guidance,
        shift=shoot.shift,
    )
    candidates = [
        make_candidate(
            task.method,
            model,
            given,
            recipe,
            seed=candidate_seed(task.shot.seed, task.seed, number),
            strength=config.keyframes.strength,
            film=film,
        )
        for number in range(_count(config, task.shot, task.method))
    ]
    scores = tuple(candidate_quality(candidate.picture_HWC, given) for candidate in candidates)
    picked = scores.index(max(scores))
    images = tuple(_picture(store, candidate.picture_HWC) for candidate in candidates)
    opening = candidates[picked].opening
    return Keyframe(
        shot=task.shot.id,
        arm=task.arm,
        seed=task.seed,
        method=task.method,
        image=images[picked],
        condition=reference if task.method in ("as-is", *DEVELOPS) else images[picked],
        opening=None if opening is None else _latents(store, opening),
        candidates=images,
        scores=scores,
        picked=picked,
    )


def _picture(store: Store, picture_HWC: Tensor) -> FileRef:
    from cinetune.footage.read.stills import write_png16

    with store.new_object(".png") as (path, done):
        write_png16(path, picture_HWC.numpy())
    return done[0]


def _latents(store: Store, latents: Tensor) -> FileRef:
    with store.new_object(".safetensors") as (path, done):
        save_tensors(path, {OPENING: latents.float()})
    return done[0]
