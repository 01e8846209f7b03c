"""cache: everything about a training window that does not depend on the training step, computed once.

Reads the windows; writes `LatentEntry` records, each with one safetensors file, and one file that all share
(`cinetune.files` says what is in them). Variants are first frames re-graded by reference augmentation, when that is on.
"""

from __future__ import annotations

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


def make(project: Project, report: Reporter) -> Made[Cached]:
    """Encode the missing windows; several processes share them out. Raises `StoreError` if a parent
    stage is missing, `ModelError` when a window comes out as NaN.
    """
    from cinetune.models import load_model, model_identity, model_ref

    store, config = project.store, project.config
    clips, windows = store.need(Ingested).by_id, store.need(Prepared).windows
    if not windows:
        raise StoreError(
            "there are no windows to cache",
            where=str(project.root),
            remedy="see why in the table of `cinetune prepare`",
        )
    ref = model_ref(config.model)
    base = [NAME, VERSION, ref.family, model_identity(config.model)]
    keys = [
        content_key(*base, window, clip.sha256, clip.colour, clip.reading, inputs(project))
        for window, clip in ((window, clips[window.clip]) for window in windows)
    ]
    shared_key = content_key(*base, "shared")

    processes = join_group(config.model, config.parallel)
    device = choose_device(config.model.device, config.model.dtype)
    found, shared = (
        {name: store.find_unit(NAME, name, LatentEntry) for name in keys},
        store.find_unit(NAME, shared_key, FileRef),
    )
    missing = processes.same([name for name, kept in {**found, shared_key: shared}.items() if kept is None])
    mine = set(missing[processes.rank :: processes.size])  # each piece is made by one process, and by it alone

    def encode() -> None:
        if not mine:
            return
        report.say(f"encoding on {device.name} ({device.reason})")
        model = load_model(config.model, device=device, parts="encoders")
        if shared_key in mine:
            store.unit(NAME, shared_key, FileRef, lambda: _encode_empty(project, model))
        with report.progress(NAME, len(mine - {shared_key})) as bar:
            for window, name in zip(windows, keys, strict=True):
                if name in mine:
                    clip = clips[window.clip]
                    store.unit(NAME, name, LatentEntry, lambda w=window, c=clip: _encode(project, model, ref, c, w))
                    bar.advance(1, window.id)

    processes.together(encode)
    entries = tuple(found[name] or store.made_unit(NAME, name, LatentEntry) for name in keys)
    shared = shared or store.made_unit(NAME, shared_key, FileRef)
    return Made(result=Cached(entries=entries, shared=(shared,)), seed=config.train.seed)


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
