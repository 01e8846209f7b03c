"""Low-rank adapters (Hu et al., arXiv 2106.09685) on a model's denoiser, through PEFT.

Several adapters can be attached under different names; one of them, some at strengths of their own, or none is in use.
With none the model is its base, bit for bit. Adapters are never merged into a model in memory and never scaled through
`attention_kwargs`: the first does not come back exactly, the second gives wrong gradients under activation
checkpointing.

An adapter is float32 whatever its base is. Its two small products are computed in the type of its layer's input, with
factors rounded for them, or in float32 (`train.products`); in a float32 model that is the same.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
import torch.nn.functional as F
from peft import LoraConfig
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn

from cinetune.errors import ModelError
from cinetune.models.adapters import export
from cinetune.patterns import Pattern, PatternError

if TYPE_CHECKING:
    from cinetune.models.family import VideoModel

__all__ = [
    "add_lora",
    "attach_lora",
    "check_shapes",
    "load_lora",
    "lora_names",
    "lora_state",
    "set_lora_state",
    "start_from",
    "use_lora",
    "use_loras",
]

Products = Literal["layer", "float32"]


def add_lora(
    model: VideoModel, *, rank: int, alpha: float, targets: str, name: str = "look", seed: int,
    products: Products = "layer",
) -> list[tuple[str, nn.Parameter]]:  # fmt: skip
    """Attach a fresh trainable adapter, put it in use, and return its parameters by module name.

    `targets` is a preset of `model.info.targets` or a pattern that must match whole module names, with `regex:` before
    it or not. Parameters are float32 whatever the base is, and multiply as `products` says. The start depends on `seed`
    alone; the global random state is left as it was. Raises `ModelError` when nothing matches, when a layer matches
    that no adapter file can name, or when the name is taken.
    """
    # PEFT takes a list for the ends of names; a pattern of the whole names that were matched here means just those
    pattern: Any = "|".join(map(re.escape, _matched(model, targets)))
    scale: Any = alpha  # PEFT takes fractions too
    config = LoraConfig(r=rank, lora_alpha=scale, target_modules=pattern, lora_dropout=0.0)
    _inject(model, config, name, seed=seed, products=products)
    use_lora(model, name)
    return _parameters(model.denoiser, name)


def _matched(model: VideoModel, targets: str) -> list[str]:
    """The layers that `targets` matches. Raises `ModelError` for none and for those without a name."""
    try:
        pattern = Pattern(model.info.targets.get(targets, targets.removeprefix("regex:")))
        matched = [key for key in _linear(model.denoiser) if pattern.matches(key)]
    except PatternError as error:
        raise ModelError(f"the LoRA targets {targets!r}: {error}", where="train.targets") from error
    if not matched:
        raise ModelError(
            f"no layer of {model.info.name} matches the LoRA targets {targets!r}",
            where="train.targets",
            remedy=f"use one of {', '.join(sorted(model.info.targets))}; a pattern must match whole names, "
            r"such as regex:blocks\.\d+\.attn2\.(to_k|to_v)",
        )
    unnamed = sorted(set(matched) - export.linear_shapes(model.denoiser).keys())
    if unnamed:
        raise ModelError(
            f"the LoRA targets {targets!r} match {unnamed[0]}, which no adapter file can name",
            where="train.targets",
            remedy="adapt layers of attention and feed-forward inside the blocks only",
        )
    return matched


class _Narrow(nn.Linear):
    """A float32 factor that multiplies in the type of its input; its gradient is summed there and kept in float32."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002  (nn.Linear's own name)
        return F.linear(input, self.weight.to(input.dtype))


class _Wide(nn.Linear):
    """A float32 factor that multiplies in float32."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002  (nn.Linear's own name)
        return F.linear(input.to(self.weight.dtype), self.weight)


def _inject(model: VideoModel, config: LoraConfig, name: str, *, seed: int, products: Products = "layer") -> None:
    if name in lora_names(model):
        raise ModelError(
            f"the model already has an adapter called {name!r}", remedy="remove it first, or use another name"
        )
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Already found a `peft_config`")  # several adapters are meant to be there
            model.denoiser.add_adapter(config, adapter_name=name)  # pyright: ignore[reportCallIssue]
    for _, layer in _layers(model.denoiser):
        layer.cast_input_dtype_enabled = False  # pyright: ignore[reportAttributeAccessIssue]
        if name in layer.lora_A:
            for factor in (layer.lora_A[name], layer.lora_B[name]):
                factor.__class__ = {"layer": _Narrow, "float32": _Wide}[products]
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
    use_loras(model, {} if name is None else {name: 1.0})


def use_loras(model: VideoModel, strengths: Mapping[str, float]) -> None:
    """Put adapters in use together: a layer's weight is W + sum of strength * alpha / rank * BA. Strength 0 is the
    model without that adapter exactly. Raises `ModelError` for an unknown name.
    """
    denoiser: Any = model.denoiser
    for name in strengths:
        _need(model, name)
    used = {name: strength for name, strength in strengths.items() if strength}
    layers = _layers(denoiser)
    if used:
        denoiser.enable_adapters()
        denoiser.set_adapter(list(used))
        for _, layer in layers:
            for name, strength in used.items():
                layer.set_scale(name, strength)
    elif layers:
        denoiser.disable_adapters()


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


def start_from(model: VideoModel, path: Path, *, rank: int, alpha: float, targets: str) -> dict[str, Tensor]:
    """The state that makes a fresh adapter of this rank, alpha and targets play exactly what the file plays.

    A `lora_state`: the file's own strength is in its numbers, so B is divided by alpha / rank (exact where that is a
    power of two, else to the last bit of float32). Raises `WeightsError` for files that are no LoRA, `ModelError` for
    an adapter of another base, of another rank, or of other layers than `targets` matches.
    """
    state = export.read_adapter(path)
    ranks = check_shapes(model.denoiser, model.info.name, state, path)
    if set(ranks.values()) != {rank}:
        found = ", ".join(map(str, sorted(set(ranks.values()))))
        remedy = f"set train.rank = {found}" if len(set(ranks.values())) == 1 else "train a new one: its ranks differ"
        raise ModelError(f"the adapter to start from has rank {found}, not {rank}", where=str(path), remedy=remedy)
    wanted = set(_matched(model, targets))
    if wanted != ranks.keys():
        fits = [name for name in sorted(model.info.targets) if set(_matched(model, name)) == ranks.keys()]
        odd = sorted(wanted ^ ranks.keys())[0]
        raise ModelError(
            f"the adapter to start from has other layers than train.targets = {targets!r}: {odd} is only in "
            + ("the file" if odd in ranks else "the targets"),
            where=str(path),
            remedy=f"set train.targets = {fits[0]!r}" if fits else "give train.targets a pattern that fits: regex:...",
        )
    scale = alpha / rank
    return {key: value / scale if key.endswith(".lora_B.weight") else value for key, value in state.items()}


def check_shapes(denoiser: nn.Module, title: str, state: Mapping[str, Tensor], path: Path) -> dict[str, int]:
    """The rank of every layer; works on a denoiser on the `meta` device too. Raises `ModelError` where the model,
    called `title`, has no such layer or one of another shape.
    """
    linear = _linear(denoiser)
    ranks: dict[str, int] = {}
    for module in sorted({key.rpartition(".lora_")[0] for key in state}):
        down, up = state[f"{module}.lora_A.weight"], state[f"{module}.lora_B.weight"]
        ranks[module] = len(down)
        if linear.get(module) != (up.shape[0], down.shape[1]):
            raise ModelError(
                f"the adapter is of another base: its {module} is {up.shape[0]}x{down.shape[1]}, in {title} "
                + ("it is absent" if module not in linear else "it is {}x{}".format(*linear[module])),
                where=str(path),
                remedy="use the model it was made for",
            )
    return ranks


def load_lora(model: VideoModel, path: Path, *, name: str) -> None:
    """Attach an adapter from a file or folder of any origin (`cinetune.models.adapters.foreign`), and put it in use.

    Raises `WeightsError` for pickles and files that are no adapter, `ModelError` when it does not fit this model.
    """
    attach_lora(model, export.read_adapter(path), path, name=name)
    use_lora(model, name)


def attach_lora(model: VideoModel, state: Mapping[str, Tensor], path: Path, *, name: str) -> None:
    """Attach pairs that were read from `path`, alpha applied. Raises `ModelError` when they do not fit this model."""
    ranks = check_shapes(model.denoiser, model.info.name, state, path)
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
