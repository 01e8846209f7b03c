"""A trained look for other programs: one adapter file in their naming, or a whole model with the look merged in."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

from cinetune.artifacts import Look
from cinetune.errors import ConfigError, StoreError
from cinetune.runtime import Reporter
from cinetune.store import Project

if TYPE_CHECKING:
    from torch import nn

__all__ = ["TARGETS", "Target", "export_look"]

Target = Literal["diffusers", "comfy", "kohya", "merged"]
TARGETS: tuple[Target, ...] = get_args(Target)


def export_look(project: Project, out: Path, report: Reporter, *, to: Target, arm: str = "look") -> None:
    """Write the look of one arm to `out`: a .safetensors file, or for `merged` a new folder.

    Raises `StoreError` before training or for an arm that was not trained, `ConfigError` if `out` exists or has another
    suffix, `WeightsError` if the base weights are needed (`kohya`, `merged`) and not there.
    """
    looks: dict[str, Look] = {look.arm: look for look in project.store.need_stage("train").groups["looks"]}
    if arm not in looks:
        raise StoreError(f"no {arm!r} arm was trained", where=str(project.root), remedy=f"one of {', '.join(looks)}")
    look = looks[arm]
    if out.exists():
        raise ConfigError(f"{out} is there already", remedy="choose another name; nothing is overwritten")
    if to == "merged":
        _merge(project, look, out)
        report.say(
            f"the base model with the look merged in; prompts begin with {look.trigger!r}" if look.trigger else ""
        )
        return
    if out.suffix != ".safetensors":
        raise ConfigError(
            f"{out.name} must end in .safetensors", remedy=f"cinetune export --to {to} {out.name}.safetensors"
        )
    from cinetune.models.export import adapter_metadata, linear_shapes, read_adapter, save_adapter

    path = project.store.path(look.weights)
    shapes = linear_shapes(_empty_denoiser(project)) if to == "kohya" else None
    facts = {"base": look.model.weights_sha256, "trigger": look.trigger, "licence": look.licence, "name": look.name}
    state = read_adapter(path)
    # alpha is already in the numbers that read_adapter returns
    save_adapter(
        out, state, alpha=look.rank, rank=look.rank, format=to, metadata=adapter_metadata(path) | facts, shapes=shapes
    )


def _empty_denoiser(project: Project) -> nn.Module:
    """The base model's denoiser without its weights: names and shapes only."""
    import torch
    from diffusers import WanTransformer3DModel

    from cinetune.models import model_folder, weights

    folder = model_folder(project.config.model)
    weights.need_folder(folder)
    config = json.loads((folder / "transformer" / "config.json").read_text(encoding="utf-8"))
    with torch.device("meta"):
        denoiser = WanTransformer3DModel.from_config(config)
    assert isinstance(denoiser, WanTransformer3DModel)
    return denoiser


def _merge(project: Project, look: Look, out: Path) -> None:
    from cinetune.models import load_model, model_folder, model_ref
    from cinetune.models.export import save_merged
    from cinetune.models.lora import load_lora

    section = project.config.model
    if model_ref(section).weights_sha256 != look.model.weights_sha256:
        remedy = "set model.path to the model it was trained on"
        raise ConfigError("the look was trained on other weights than model.path holds", remedy=remedy)
    model = load_model(section, parts="denoiser")
    load_lora(model, project.store.path(look.weights), name=look.arm)
    save_merged(model, out, name=look.arm, base=model_folder(section))
