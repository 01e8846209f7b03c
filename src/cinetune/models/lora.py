"""Low-rank adapters (Hu et al., arXiv 2106.09685) on a model's denoiser, through PEFT.

Several adapters can be attached under different names; one of them, or none, is in use. With none the model is its
base, bit for bit. Adapters are never merged into a model in memory and never scaled through `attention_kwargs`: the
first does not come back exactly, the second gives wrong gradients under activation checkpointing.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from peft import LoraConfig
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn

from cinetune.errors import ModelError
from cinetune.models import export

if TYPE_CHECKING:
    from cinetune.models.family import VideoModel

__all__ = ["TARGETS", "add_lora", "load_lora", "lora_names", "lora_state", "remove_lora", "set_lora_state", "use_lora"]

_BLOCK = r"blocks\.\d+\."
TARGETS = {
    "cross": _BLOCK + r"attn2\.(to_q|to_k|to_v|to_out\.0|add_k_proj|add_v_proj)",
    "cross-text": _BLOCK + r"attn2\.(to_q|to_k|to_v|to_out\.0)",
    "attention": _BLOCK + r"attn[12]\.(to_q|to_k|to_v|to_out\.0)",
    "all-linear": _BLOCK + r"(attn[12]\.(to_q|to_k|to_v|to_out\.0|add_k_proj|add_v_proj)|ffn\.net\.(0\.proj|2))",
}
"""Full-match patterns over module names. A list of suffixes would not do: `to_q` is also in self-attention."""


def add_lora(
    model: VideoModel, *, rank: int, alpha: float, targets: str, name: str = "look", seed: int
) -> list[tuple[str, nn.Parameter]]:
    """Attach a fresh trainable adapter, put it in use, and return its parameters by module name.

    `targets` is a preset of `model.info.targets` or a pattern that must match whole module names. Parameters are
    float32 whatever the base is. The start depends on `seed` alone and the global random state is left as it was.
    Raises `ModelError` when nothing matches or the name is taken.
    """
    pattern = model.info.targets.get(targets, targets)
    if not any(re.fullmatch(pattern, key) for key in _linear(model.denoiser)):
        raise ModelError(
            f"no layer of {model.info.name} matches the LoRA targets {targets!r}",
            remedy=f"use one of {', '.join(sorted(model.info.targets))}",
        )
    _inject(model, LoraConfig(r=rank, lora_alpha=alpha, target_modules=pattern, lora_dropout=0.0), name, seed=seed)  # pyright: ignore[reportArgumentType]
    use_lora(model, name)
    return _parameters(model.denoiser, name)


def _inject(model: VideoModel, config: LoraConfig, name: str, *, seed: int) -> None:
    if name in lora_names(model):
        raise ModelError(
            f"the model already has an adapter called {name!r}", remedy="remove it first, or use another name"
        )
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Already found a `peft_config`")  # several adapters are meant to be there
            model.denoiser.add_adapter(config, adapter_name=name)  # pyright: ignore[reportCallIssue]
    for _, parameter in _parameters(model.denoiser, name):
        # PEFT puts it where the layer's weight is, which may be host memory; the device is where the denoiser's own is
        parameter.data = parameter.data.to(next(model.denoiser.parameters()).device, torch.float32)


def _linear(denoiser: nn.Module) -> dict[str, tuple[int, int]]:
    """(out, in) of every layer that can carry an adapter, also where one is already attached."""
    found: dict[str, tuple[int, int]] = {}
    for key, module in denoiser.named_modules():
        layer = module.get_base_layer() if isinstance(module, LoraLayer) else module
        if isinstance(layer, nn.Linear):
            found[key] = (layer.out_features, layer.in_features)
    return found


def _layers(denoiser: nn.Module) -> list[tuple[str, LoraLayer]]:
    return [(key, module) for key, module in denoiser.named_modules() if isinstance(module, LoraLayer)]


def _parameters(denoiser: nn.Module, name: str) -> list[tuple[str, nn.Parameter]]:
    """Adapter parameters in module order, named `blocks.0.attn2.to_q.lora_A.weight`."""
    found: list[tuple[str, nn.Parameter]] = []
    for key, layer in _layers(denoiser):
        if name in layer.lora_A:
            found.append((f"{key}.lora_A.weight", layer.lora_A[name].weight))  # pyright: ignore[reportArgumentType]
            found.append((f"{key}.lora_B.weight", layer.lora_B[name].weight))  # pyright: ignore[reportArgumentType]
    return found


def lora_names(model: VideoModel) -> list[str]:
    """Names of the attached adapters, sorted."""
    return sorted({name for _, layer in _layers(model.denoiser) for name in layer.lora_A})


def _need(model: VideoModel, name: str) -> None:
    names = lora_names(model)
    if name not in names:
        raise ModelError(f"the model has no adapter called {name!r}", remedy=f"attached: {', '.join(names) or 'none'}")


def use_lora(model: VideoModel, name: str | None) -> None:
    """Put one adapter in use, or none, which is the base model exactly. Raises `ModelError` for an unknown name."""
    denoiser: Any = model.denoiser
    if name is not None:
        _need(model, name)
        denoiser.enable_adapters()
        denoiser.set_adapter(name)
    elif _layers(denoiser):
        denoiser.disable_adapters()


def remove_lora(model: VideoModel, name: str) -> None:
    """Take an adapter off. Raises `ModelError` for an unknown name."""
    _need(model, name)
    denoiser: Any = model.denoiser
    if len(lora_names(model)) == 1:
        denoiser.unload_lora()
    else:
        denoiser.delete_adapters(name)


def lora_state(model: VideoModel, name: str) -> dict[str, Tensor]:
    """A copy of an adapter as trained (alpha not applied), float32 on the CPU, in module order.

    Keys are `blocks.0.attn2.to_q.lora_A.weight` and so on. Raises `ModelError` for an unknown name.
    """
    _need(model, name)
    return {
        key: parameter.detach().to("cpu", torch.float32, copy=True).contiguous()
        for key, parameter in _parameters(model.denoiser, name)
    }


def set_lora_state(model: VideoModel, name: str, state: Mapping[str, Tensor]) -> None:
    """Put values from `lora_state` back, in place. Raises `ModelError` unless names and shapes are the same."""
    _need(model, name)
    parameters = dict(_parameters(model.denoiser, name))
    wrong = sorted(set(parameters) ^ set(state)) or [
        key for key in parameters if parameters[key].shape != state[key].shape
    ]
    if wrong:
        raise ModelError(
            f"the adapter does not fit this model: {wrong[0]} differs",
            remedy="was it trained with another rank, targets or model?",
        )
    with torch.no_grad():
        for key, parameter in parameters.items():
            parameter.copy_(state[key])


def load_lora(model: VideoModel, path: Path, *, name: str) -> None:
    """Attach an adapter from a file in any of the formats `cinetune.models.export` writes, and put it in use.

    Raises `WeightsError` for pickles and files that are no adapter, `ModelError` when it does not fit this model.
    """
    state = export.read_adapter(path)
    linear = _linear(model.denoiser)
    ranks: dict[str, int] = {}
    for module in sorted({key.rpartition(".lora_")[0] for key in state}):
        down, up = state[f"{module}.lora_A.weight"], state[f"{module}.lora_B.weight"]
        ranks[module] = len(down)
        if linear.get(module) != (up.shape[0], down.shape[1]):
            raise ModelError(
                f"{module} of the adapter is {up.shape[0]}x{down.shape[1]}, in {model.info.name} it is "
                + ("absent" if module not in linear else "{}x{}".format(*linear[module])),
                where=str(path),
                remedy="it was made for another model",
            )
    rank = max(ranks.values())
    others = {f"^{re.escape(module)}": other for module, other in ranks.items() if other != rank}
    # read_adapter has applied alpha, so alpha = rank here in every layer
    config = LoraConfig(
        r=rank,
        lora_alpha=rank,
        target_modules="|".join(re.escape(module) for module in ranks),
        rank_pattern=others,
        alpha_pattern=others,
    )
    _inject(model, config, name, seed=0)
    set_lora_state(model, name, state)
    use_lora(model, name)
