"""Adapter files of any origin, read into one form: diffusers' layer names, float32, alpha applied.

    file                                          layer names       strength
    diffusers, .safetensors or its folder         diffusers         header `lora_adapter_metadata`
    ComfyUI, ai-toolkit, DiffSynth, VideoX-Fun    original          `.alpha` beside a layer; without it alpha = rank
    kohya, musubi-tuner                           lora_unet_...     `.alpha` beside a layer
    PEFT, diffusion-pipe folder                   any of the two    `adapter_config.json`

The strength is part of the adapter: a reader that forgets alpha plays it at half or at twice its strength. What cannot
be carried exactly (DoRA, LoHa, LoKr, OFT, differences, biases) is refused by name, and so are pickles.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from cinetune.errors import WeightsError
from cinetune.models.adapters.names import bare_name, layer_name, module_name, original_name
from cinetune.models.files.weights import adapter_file, adapter_settings
from cinetune.outside import parse_json, read_table
from cinetune.patterns import Pattern

__all__ = ["adapter_metadata", "read_adapter", "read_distilled"]

_PART = re.compile(r"(.+?)\.lora_(A|B|down|up)(?:\.(?!weight$|bias$)\w+)?(?:\.weight)?")
_DIFFERENCE = re.compile(r"(.+)\.diff(|_b|_m)")
_DIFFERS = {"": "weight", "_b": "bias", "_m": "scale_shift_table"}
_MOST_PATTERNS = 5000
_MOST_LETTERS = 100_000  # of all rows of `alpha_pattern`; one for each of 400 layers has 16,000
_OTHER_MODEL = "it was made for another model, or is of another kind"
_SIDE = {"A": "A", "down": "A", "B": "B", "up": "B"}
_OTHER_KINDS = (
    (r"dora_scale$|lora_magnitude_vector", "a DoRA: its magnitudes"),
    (r"[._]hada_", "a LoHa: its Hadamard factors"),
    (r"[._]lokr_", "a LoKr: its Kronecker factors"),
    (r"[._]b?oft_", "an OFT: its rotations"),
    (r"lora_mid", "a LoCon in Tucker form: its middle factors"),
    (r"\.diff(_b|_m)?$|\.set_weight$", "full differences beside or in place of a LoRA: they"),
    (r"lora_bias|\.lora_[AB](\.\w+)?\.bias$|\.bias$", "a LoRA with biases: they"),
    (r"^(base_model\.model\.)?transformer_2\.", "for the second expert of Wan2.2: its layers"),
)
"""Parts of a name that tell another kind of adapter, and what of it cannot be carried."""


@dataclass(frozen=True, slots=True)
class _Declared:
    """What a file says about itself beside its tensors: PEFT's settings."""

    settings: dict[str, Any]
    alphas: tuple[tuple[Pattern, Any], ...]
    """`alpha_pattern`: PEFT's settings for single layers."""

    def scale(self, names: tuple[str, ...], rank: int, path: Path) -> float:
        """Strength of one layer, by any of its `names`, the file's own first: alpha / rank (or over its root); 1 where
        nothing is said, as all readers agree.
        """
        settings = self.settings
        try:
            fitting = (value for name in names for pattern, value in self.alphas if _fits(pattern, name))
            alpha = next(fitting, None)
            alpha = alpha if alpha is not None else settings.get("lora_alpha")
            if alpha is None:
                return 1.0
            if isinstance(alpha, bool) or float(alpha) == 0:
                raise ValueError(f"an alpha of {alpha!r} is no strength")
            scale = float(alpha) / (math.sqrt(rank) if settings.get("use_rslora") else rank)
        except (TypeError, ValueError, OverflowError) as error:
            raise WeightsError(f"the adapter's header is damaged: {error}", where=str(path)) from error
        return scale


def adapter_metadata(path: Path) -> dict[str, str]:
    """The header that `save_adapter` wrote, without the `cinetune.` prefix; empty for files made elsewhere. Raises
    `WeightsError`.
    """
    header = _open(adapter_file(path))[1]
    return {key.removeprefix("cinetune."): value for key, value in header.items() if key.startswith("cinetune.")}


def read_adapter(path: Path) -> dict[str, Tensor]:
    """A LoRA of any origin, file or folder, by `blocks.0.attn2.to_q.lora_A.weight` and so on.

    Float32, with alpha applied (alpha = rank from now on) and layers of zeros left out. Raises `WeightsError` for
    pickles, damaged files, other kinds of adapters, and names that are not a LoRA of a Wan transformer.
    """
    file = adapter_file(path)
    tensors, header = _open(file)
    return _pairs(file, tensors, header, layer_name)


def read_distilled(path: Path) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """A step-distilled adapter as such are published: the low-rank pairs of `read_adapter`, of layers outside the
    blocks as well, and whole differences by parameter name: `.diff` of a weight, `.diff_b` of a bias, `.diff_m` of a
    modulation table, float32, zeros left out. Raises as `read_adapter`.
    """
    file = adapter_file(path)
    tensors, header = _open(file)
    pairs: dict[str, Tensor] = {}
    differences: dict[str, Tensor] = {}
    for key, kept in tensors.items():
        found = _DIFFERENCE.fullmatch(key)
        if found is None:
            pairs[key] = kept
            continue
        place = found[1] if found[2] == "_m" else module_name(found[1])
        name = None if place is None else f"{bare_name(place)}.{_DIFFERS[found[2]]}".removeprefix("head.")
        if name is None:
            raise WeightsError(f"{key!r} is no part of a Wan denoiser", where=str(file), remedy=_OTHER_MODEL)
        if name in differences or not kept.is_floating_point() or not bool(torch.isfinite(kept).all()):
            raise WeightsError(f"the adapter is damaged: {key!r} is there twice, or no finite number", where=str(file))
        differences[name] = kept.float()
    used = {name: value for name, value in differences.items() if bool(value.any())}
    return _pairs(file, pairs, header, module_name), used


def _pairs(
    file: Path, tensors: dict[str, Tensor], header: dict[str, str], known: Callable[[str], str | None]
) -> dict[str, Tensor]:
    """The low-rank pairs of the layers that `known` knows."""
    _refuse_other_kinds(tensors, file)
    declared = _declared(file, header, tensors)
    alphas = _alphas(tensors, file, known)
    state: dict[str, Tensor] = {}
    for key, kept in tensors.items():
        if key.endswith(".alpha"):
            continue
        found = _PART.fullmatch(key)
        module = known(found[1]) if found else None
        if found is None or module is None or kept.ndim != 2:
            raise WeightsError(
                f"{key!r} is not a layer of a Wan LoRA",
                where=str(file),
                remedy=_OTHER_MODEL,
            )
        side, value = _SIDE[found[2]], kept.float()
        name = f"{module}.lora_{side}.weight"
        if value.numel() == 0 or name in state or not kept.is_floating_point():
            what = f"{key!r} is {str(kept.dtype).removeprefix('torch.')} of the shape {tuple(kept.shape)}"
            what = f"{module} is in it twice" if name in state else what
            raise WeightsError(f"the adapter is damaged: {what}", where=str(file))
        if side == "B":
            rank = value.shape[1]
            own = alphas.get(module)
            value = value * (own / rank if own is not None else declared.scale(_names(found[1], module), rank, file))
        state[name] = value
    return _complete(state, file)


def _alphas(tensors: dict[str, Tensor], file: Path, known: Callable[[str], str | None]) -> dict[str, float]:
    """The strengths that stand beside their layers, by diffusers' name: a file need not spell both alike."""
    alphas: dict[str, float] = {}
    for key, value in tensors.items():
        if key.endswith(".alpha"):
            if value.numel() != 1 or not bool(value):
                raise WeightsError(f"the adapter is damaged: {key!r} is no number, or 0", where=str(file))
            spelling = key.removesuffix(".alpha")
            alphas[known(spelling) or spelling] = float(value)
    return alphas


def _names(spelling: str, module: str) -> tuple[str, ...]:
    """What a layer is called in its file, by diffusers and by the original release: settings may use any of them."""
    original = original_name(f"{module}.weight").removesuffix(".weight")
    return tuple(dict.fromkeys((bare_name(spelling), module, original)))


def _complete(state: dict[str, Tensor], file: Path) -> dict[str, Tensor]:
    """Without the layers that do nothing and hold nothing. Raises `WeightsError` for halves, NaN, and no layer left."""
    modules = {key.rpartition(".lora_")[0] for key in state}
    for module in sorted(modules):
        down, up = state.get(f"{module}.lora_A.weight"), state.get(f"{module}.lora_B.weight")
        if down is None or up is None or len(down) != up.shape[1]:
            raise WeightsError(f"the adapter is incomplete at {module}", where=str(file))
        if not bool(torch.isfinite(down).all() and torch.isfinite(up).all()):
            raise WeightsError(f"the adapter holds NaN or infinite values at {module}", where=str(file))
    used = {m for m in modules if bool(state[f"{m}.lora_A.weight"].any()) or bool(state[f"{m}.lora_B.weight"].any())}
    if not used:
        raise WeightsError("the adapter is empty", where=str(file))
    return {key: value for key, value in state.items() if key.rpartition(".lora_")[0] in used}


def _open(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            return {key: file.get_tensor(key) for key in file.keys()}, dict(file.metadata() or {})  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise WeightsError(
            f"not readable as safetensors: {error}", where=str(path), remedy="download or export it again"
        ) from error


def _refuse_other_kinds(tensors: dict[str, Tensor], file: Path) -> None:
    for key in sorted(tensors):
        for pattern, kind in _OTHER_KINDS:
            if re.search(pattern, key):
                raise WeightsError(
                    f"the adapter is {kind} cannot be carried over ({key})",
                    where=str(file),
                    remedy="save it as a plain LoRA, or merge it with the program that made it",
                )


def _declared(file: Path, header: dict[str, str], tensors: dict[str, Tensor]) -> _Declared:
    """PEFT's settings from `adapter_config.json` beside the file, else from diffusers' header.

    Raises `WeightsError` when they are damaged, ask for DoRA, or are missing where alpha can be nowhere else.
    """
    beside = adapter_settings(file)
    try:
        if beside is not None:
            settings = read_table(beside, refuse=WeightsError)
        else:
            text = header.get("lora_adapter_metadata", "{}")
            listed = parse_json(text, where="lora_adapter_metadata", refuse=WeightsError)
            settings = {key.removeprefix("transformer."): value for key, value in listed.items()}
    except (AttributeError, WeightsError) as error:
        said = error.what if isinstance(error, WeightsError) else error
        raise WeightsError(f"the adapter's header is damaged: {said}", where=str(file)) from error
    if settings.get("use_dora"):
        raise WeightsError(
            "the adapter is a DoRA by its settings, and cannot be carried over", where=str(file),
            remedy="save it as a plain LoRA, or merge it with the program that made it",
        )  # fmt: skip
    alone = not settings and not any(key.endswith(".alpha") for key in tensors)
    if alone and any(key.startswith("base_model.model.") for key in tensors):
        raise WeightsError(
            "the strength of this PEFT adapter is not known: adapter_config.json is missing",
            where=str(file),
            remedy="put adapter_config.json beside adapter_model.safetensors",
        )
    try:
        return _Declared(settings, _patterns(settings.get("alpha_pattern")))
    except ValueError as error:
        raise WeightsError(f"the adapter's header is damaged: {error}", where=str(file)) from error


def _patterns(table: Any) -> tuple[tuple[Pattern, Any], ...]:
    """The rows of `alpha_pattern`. Raises `ValueError`."""
    if table is None:
        return ()
    if not isinstance(table, dict) or len(table) > _MOST_PATTERNS or sum(map(len, table)) > _MOST_LETTERS:
        raise ValueError(f"alpha_pattern is no table of at most {_MOST_PATTERNS} rows and {_MOST_LETTERS} letters")
    taken = [0]
    return tuple((Pattern(key, taken=taken), value) for key, value in table.items())


def _fits(pattern: Pattern, module: str) -> bool:
    """Whether it fits the module's name, or the end of it from a dot on, as PEFT has it."""
    starts = [0, *(place + 1 for place, letter in enumerate(module) if letter == ".")]
    return any(pattern.matches(module, start) for start in starts)
