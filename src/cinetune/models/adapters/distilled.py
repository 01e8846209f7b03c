"""A step-distilled adapter beside a look: low-rank pairs through PEFT, and whole differences of biases, norms and
modulation tables, which such files hold too and PEFT does not. Both follow one strength.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from cinetune.errors import ModelError
from cinetune.models.adapters.foreign import read_distilled
from cinetune.models.adapters.lora import attach_lora, check_shapes
from cinetune.models.memory.fit import release
from cinetune.models.wan.told import forget_what_was_told

if TYPE_CHECKING:
    from cinetune.models.family import VideoModel

__all__ = ["DISTILLED", "Distilled", "check_distilled", "load_distilled"]

DISTILLED = "distilled"
"""Its name among the adapters of a model."""


class Distilled:
    """The attached adapter; its pairs are put in use by `use_loras` under `DISTILLED`, the rest by `set_strength`."""

    def __init__(self, denoiser: nn.Module, changed: Mapping[str, tuple[nn.Parameter, Tensor]]) -> None:
        self._denoiser = denoiser
        self._changed = [(parameter, parameter.detach().clone(), add) for parameter, add in changed.values()]
        self._strength = 0.0

    def set_strength(self, strength: float) -> None:
        """Each changed parameter becomes its own value + strength * difference; 0 gives every bit of it back."""
        if strength == self._strength:
            return
        with torch.no_grad():
            for parameter, own, add in self._changed:
                parameter.copy_(own.float() + strength * add.to(own.device) if strength else own)
        self._strength = strength
        release(self._denoiser)
        forget_what_was_told(self._denoiser)


def load_distilled(model: VideoModel, path: Path) -> Distilled:
    """Attach the adapter, not in use yet. Raises `WeightsError` as `read_distilled`, `ModelError` when it does not
    fit this model.
    """
    pairs, differences = read_distilled(path)
    changed = _places(model.denoiser, model.info.name, differences, path)
    attach_lora(model, pairs, path, name=DISTILLED)
    return Distilled(model.denoiser, changed)


def check_distilled(denoiser: Any, title: str, path: Path) -> None:
    """Raise as `load_distilled` would for a model with this denoiser, which may be on the `meta` device."""
    pairs, differences = read_distilled(path)
    check_shapes(denoiser, title, pairs, path)
    _places(denoiser, title, differences, path)


def _places(
    denoiser: nn.Module, title: str, differences: Mapping[str, Tensor], path: Path
) -> dict[str, tuple[nn.Parameter, Tensor]]:
    """Each difference with the parameter that it is added to."""
    own = {name.replace(".base_layer.", "."): parameter for name, parameter in denoiser.named_parameters()}
    found: dict[str, tuple[nn.Parameter, Tensor]] = {}
    for name, add in differences.items():
        parameter = own.get(name)
        if parameter is None or parameter.shape != add.shape:
            size = "it is absent" if parameter is None else f"it is {tuple(parameter.shape)}"
            what = f"the adapter is of another base: its {name} is {tuple(add.shape)}, in {title} {size}"
            raise ModelError(what, where=str(path), remedy="use the model it was made for")
        if not parameter.is_floating_point():
            what = f"the adapter holds a difference of {name}, which is stored in few bits"
            raise ModelError(what, where=str(path), remedy='set model.storage = "plain"')
        found[name] = parameter, add
    return found
