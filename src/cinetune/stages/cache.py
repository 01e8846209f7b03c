"""cache: everything about a training window that does not depend on the training step, computed once.

Reads the windows; writes `LatentEntry` records, each with one safetensors file, and one file that all share
(`cinetune.files` says what is in them). Variants are first frames re-graded by reference augmentation, when that is on.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from cinetune.artifacts import FileRef, FootageClip, LatentEntry, ModelRef, Window
from cinetune.config import Config
from cinetune.errors import ModelError, StoreError
from cinetune.files import EMPTY, LATENTS, TEXT, full_caption, given, save_tensors
from cinetune.processes import join_group
from cinetune.results import Cached, Ingested, Prepared
from cinetune.runtime import Reporter, choose_device
from cinetune.stage import Made, Stage
from cinetune.store import Project, content_key

if TYPE_CHECKING:
    from torch import Tensor

    from cinetune.models.family import VideoModel

__all__ = ["STAGE", "inputs", "make", "run"]

NAME = "cache"
VERSION = 2


def inputs(project: Project) -> dict[str, str]:
    """The settings of other sections that end up in the files: trigger and re-grades. Other training settings leave
    the cache alone.
    """
    return {"trigger": project.config.prepare.trigger, "augment": content_key(_regrades(project.config))}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Task:
    """One window to encode; without one, the empty prompt that all share."""

    key: str
    window: Window | None = None
    clip: FootageClip | None = None

    @property
    def kind(self) -> Any:
        """Of its record."""
        return LatentEntry if self.window else FileRef

    @property
    def label(self) -> str:
        return self.window.id if self.window else "empty prompt"


def make(project: Project, report: Reporter) -> Made[Cached]:
    """Encode the missing windows; workers of `shoot.workers` or the processes of `torchrun` share them out. Raises
    `StoreError` if a parent stage is missing, `ModelError` when a window comes out as NaN.
    """
    store, config = project.store, project.config
    tasks = _tasks(project)
    processes = join_group(config.model, config.parallel)
    found = {task.key: store.find_unit(NAME, task.key, task.kind) for task in tasks}
    missing = processes.same([task for task in _once(tasks) if found[task.key] is None])
    mine = missing[processes.rank :: processes.size]  # each piece is made by one process, and by it alone

    def encode() -> None:
        if not mine:
            return
        from cinetune.generation import Work, run_tasks

        device = choose_device(config.model.device, config.model.dtype)
        report.say(f"encoding on {device.name} ({device.reason})")
        with report.progress(NAME, len(mine)) as bar:
            work = Work(
                tasks=mine, open_maker=partial(_open, project), say=report.warn,
                done=lambda task, _: bar.advance(1, task.label),
            )  # fmt: skip
            run_tasks(work, workers=config.shoot.workers if processes.size == 1 else 1)

    processes.together(encode)
    shared, *windows = tasks
    entries = tuple(found[task.key] or store.made_unit(NAME, task.key, LatentEntry) for task in windows)
    empty = found[shared.key] or store.made_unit(NAME, shared.key, FileRef)
    return Made(result=Cached(entries=entries, shared=(empty,)), seed=config.train.seed)


def _tasks(project: Project) -> list[_Task]:
    """The empty prompt, and every window."""
    from cinetune.models import model_identity, model_ref

    store, config = project.store, project.config
    clips, windows = store.need(Ingested).by_id, store.need(Prepared).windows
    if not windows:
        raise StoreError(
            "there are no windows to cache",
            where=str(project.root),
            remedy="see why in the table of `cinetune prepare`",
        )
    base = [NAME, VERSION, model_ref(config.model).family, model_identity(config.model)]
    own = inputs(project)
    tasks = [_Task(key=content_key(*base, "shared"))]
    for window in windows:
        clip = clips[window.clip]
        key = content_key(*base, window, clip.sha256, clip.colour, clip.reading, own)
        tasks.append(_Task(key=key, window=window, clip=clip))
    return tasks


def _once(tasks: Sequence[_Task]) -> list[_Task]:
    return list({task.key: task for task in tasks}.values())


def _open(project: Project) -> Callable[[_Task], None]:
    """What a worker does first: load the encoders. Returns the function that encodes one window and keeps it."""
    from cinetune.models import load_model, model_ref

    model, ref = load_model(project.config.model, parts="encoders"), model_ref(project.config.model)

    def keep(task: _Task) -> None:
        window, clip = task.window, task.clip
        if window is None or clip is None:
            project.store.unit(NAME, task.key, FileRef, lambda: _encode_empty(project, model))
        else:
            project.store.unit(NAME, task.key, LatentEntry, lambda: _encode(project, model, ref, clip, window))

    return keep


STAGE = Stage(
    result=Cached,
    make=make,
    inputs=inputs,
    parents=(Ingested, Prepared),
    sections=("model",),
    model=True,
    together=True,
)
run = STAGE.run


def _regrades(config: Config) -> dict[str, Any]:
    """What decides the re-graded variants; empty when augmentation is off."""
    augment = config.train.augment
    if augment.probability == 0:
        return {}
    return augment.model_dump(mode="json", exclude={"probability", "single_frame"}) | {"seed": config.train.seed}


def _encode(project: Project, model: VideoModel, ref: ModelRef, clip: FootageClip, window: Window) -> LatentEntry:
    """One window. Its batches are its own pictures and nothing else, so its bytes do not depend on what else is
    encoded in this run.
    """
    import torch

    from cinetune.footage.video import read_window
    from cinetune.training.augment import regrade

    train = project.config.train
    frames_THWC = read_window(project.root, clip, window)
    firsts = [frames_THWC[0]]
    for variant in range(1, train.augment.variants + 1 if _regrades(project.config) else 1):
        firsts.append(regrade(frames_THWC[0], train.augment, seed=train.seed, window=window.id, variant=variant))
    caption = full_caption(project.config.prepare.trigger, window.caption)

    pictures_BCHW = torch.stack([torch.from_numpy(first).permute(2, 0, 1) for first in firsts]) * 2 - 1
    latents = model.encode_video(torch.from_numpy(frames_THWC).permute(3, 0, 1, 2)[None] * 2 - 1)[0]
    cond = model.condition([caption] * len(firsts), pictures_BCHW, len(frames_THWC))
    tensors = {LATENTS: latents, TEXT: _unpadded(cond.text_BLD[0])}
    for variant in range(len(firsts)):
        tensors |= dict(zip(given(variant), (cond.latent_BCfhw[variant], cond.image_BLD[variant]), strict=True))
    if broken := [name for name, tensor in tensors.items() if not torch.isfinite(tensor).all()]:
        raise ModelError(
            f"window {window.id} cannot be encoded: {', '.join(broken)} would not be finite",
            where=f"{clip.path}, by {ref.location}",
            remedy='look at that clip; if it is sound, the weights are damaged, or model.dtype = "float32" is needed',
        )
    channels, frames, rows, columns = latents.shape
    return LatentEntry(
        window=window.id,
        split=window.split,
        scene=window.scene,
        model=ref,
        file=_keep(project, tensors),
        latent_shape=(channels, frames, rows, columns),
    )


def _encode_empty(project: Project, model: VideoModel) -> FileRef:
    import torch

    grey = torch.zeros(1, 3, model.info.multiple, model.info.multiple)
    return _keep(project, {EMPTY: _unpadded(model.condition([""], grey, 1).text_BLD[0])})


def _unpadded(text_LD: Tensor) -> Tensor:
    """The rows up to the last that is not all zero; padding with zeros gives the same tensor back."""
    used = text_LD.any(dim=1).nonzero()
    return text_LD[: int(used.max()) + 1 if len(used) else 1]


def _keep(project: Project, tensors: dict[str, Tensor]) -> FileRef:
    with project.store.new_object(".safetensors") as (temporary, done):
        save_tensors(temporary, tensors)
    return done[0]
