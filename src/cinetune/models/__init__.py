"""Video models: one `case` per family, imported only when it is used."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from cinetune.artifacts import ModelRef
from cinetune.errors import WeightsError
from cinetune.runtime import Device, choose_device, package_versions
from cinetune.sections import ModelSection

if TYPE_CHECKING:
    from torch import nn

    from cinetune.models.family import VideoModel
    from cinetune.models.memory.share import Share

__all__ = ["empty_denoiser", "load_model", "model_folder", "model_identity", "model_ref"]

_COMPUTES = ("torch", "diffusers", "transformers")
_REVISION = 2
"""Raise it when the same settings and libraries would give other numbers."""


def model_folder(section: ModelSection) -> Path:
    """Where the weights are: `model.path`, or the folder inside the package for the pocket model.

    Raises `WeightsError` for another family without a path.
    """
    if section.path:
        return Path(section.path).expanduser()
    if section.family != "pocket":
        remedy = "`cinetune weights` says what to download; then set model.path to that folder"
        raise WeightsError(f"model.family is {section.family} but model.path is empty", remedy=remedy)
    return Path(__file__).parent / "pocket_weights"


def load_model(
    section: ModelSection, *, device: Device | None = None, parts: Literal["all", "encoders", "denoiser"] = "all",
    share: Share | None = None,
) -> VideoModel:  # fmt: skip
    """The model of `[model]` on `device` (default: as the section says), its weights stored, its blocks placed and its
    attention chosen by that section. `parts` leaves out what a stage does not need. With a `share` only that part of
    the denoiser is read, and it does nothing until `shard_base` has joined the processes.

    Raises `WeightsError` with what to download when the weights are not there, `ConfigError` for settings that cannot
    be had here.
    """
    place = device or choose_device(section.device, section.dtype)
    folder = model_folder(section)
    match section.family:
        case "wan21" | "pocket":
            from cinetune.models.memory.fit import place_on_device
            from cinetune.models.wan.wan21 import WanVideo

            return WanVideo.from_folder(
                folder,
                family=section.family,
                release=section.release,
                device=place.name,
                dtype=place.dtype,
                clip_preprocess=section.clip_preprocess,
                parts=parts,
                tile=section.vae_tile,
                place=partial(place_on_device, section=section, device=place, shared=share is not None),
                short_ways=_short_ways(place),
                share=share,
                storage=section.storage,
            )
        case family:
            raise AssertionError(f"the family {family} has a row in the catalogue and no case here")


def empty_denoiser(section: ModelSection) -> nn.Module:
    """The base model's denoiser without its weights, on the `meta` device: names and shapes only. Raises
    `WeightsError`.
    """
    import torch
    from diffusers import WanTransformer3DModel

    from cinetune.models.files import weights

    folder = model_folder(section)
    weights.need_folder(folder)
    config = weights.read_config(folder, "transformer/config.json")
    with weights.built_from(folder), torch.device("meta"):
        denoiser = WanTransformer3DModel.from_config(config)
    assert isinstance(denoiser, WanTransformer3DModel)
    return denoiser


def _short_ways(device: Device) -> bool:
    """Whether attention is computed in ways that are faster on a CPU, and equal but for rounding."""
    return device.name == "cpu"


def model_ref(section: ModelSection) -> ModelRef:
    """The base model by the hash of its weights, without loading them.

    Raises `WeightsError` when they are not usable.
    """
    from cinetune.models.files import weights

    folder = model_folder(section)
    weights.need_folder(folder)
    return ModelRef(
        family=section.family,
        location=section.path or "builtin",
        weights_sha256=weights.weights_sha256(folder),
        release=section.base().key,
    )


def model_identity(section: ModelSection, *, device: Device | None = None) -> dict[str, str]:
    """What makes two runs of one base model differ, by name: its weights, how they are stored, the type they compute in
    and the attention kernels as they are chosen on this machine, CLIP's preprocessing, and the first two numbers of the
    versions of the libraries that compute. Part of the key of every piece that a model made, so that base and look
    always come from the same one.

    Raises `WeightsError` when the weights are not usable, `ConfigError` when the device is not there.
    """
    from cinetune.models.memory.fit import choose_attention

    place = device or choose_device(section.device, section.dtype)
    installed = package_versions(_COMPUTES).items()
    versions = (f"{name} {'.'.join(version.split('.')[:2])}" for name, version in installed)
    return {
        "weights": model_ref(section).weights_sha256,
        "dtype": place.dtype,
        "storage": section.storage if section.compute == "dtype" else f"{section.storage}, multiplied as stored",
        "attention": choose_attention(section.attention, place)[0],
        "blocks": "short ways" if _short_ways(place) else "diffusers",
        "clip_preprocess": section.clip_preprocess,
        "computed by": ", ".join((*versions, f"revision {_REVISION}")),
        **({"vae_tile": str(section.vae_tile)} if section.vae_tile else {}),
    }
