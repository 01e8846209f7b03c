"""Adapter files for the programs that shoot with them, and merged checkpoints.

    diffusers  transformer.blocks.0.attn2.to_q.lora_A.weight             diffusers and what is built on it
    comfy      diffusion_model.blocks.0.cross_attn.q.lora_A.weight       ComfyUI, DiffSynth, musubi-tuner, diffusers
    kohya      lora_unet_blocks_0_cross_attn_q.lora_down.weight, .alpha  musubi-tuner, ComfyUI, diffusers

Alpha is baked into B (`B *= alpha / rank`) because some readers ignore it where others look for it. Kohya files name
every layer that diffusers expects, those without an adapter as zeros of rank 1: diffusers refuses the file otherwise.
Only safetensors are written: unpickling a file from a stranger can run their code. Adapters of any origin are read by
`cinetune.models.adapters.foreign`.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from huggingface_hub import save_torch_state_dict
from peft.tuners.lora import Linear, LoraLayer
from safetensors.torch import save_file
from torch import Tensor, nn

from cinetune.durable import atomic_write, whole_folder
from cinetune.errors import ModelError, WeightsError
from cinetune.models.adapters.foreign import adapter_metadata, read_adapter
from cinetune.models.adapters.names import IMAGE_LAYERS, LAYERS, original_name

if TYPE_CHECKING:
    from cinetune.models.family import VideoModel

__all__ = [
    "FORMATS",
    "Format",
    "adapter_metadata",
    "linear_shapes",
    "read_adapter",
    "save_adapter",
    "save_merged",
    "save_merged_original",
]

Format = Literal["diffusers", "comfy", "kohya"]
FORMATS: tuple[Format, ...] = ("diffusers", "comfy", "kohya")


def linear_shapes(denoiser: nn.Module) -> dict[str, tuple[int, int]]:
    """(out, in) of every layer an adapter file can name; works on a denoiser on the `meta` device too."""
    shapes: dict[str, tuple[int, int]] = {}
    for key, module in denoiser.named_modules():
        parts = key.split(".", 2)
        layer = module.get_base_layer() if isinstance(module, LoraLayer) else module
        if parts[0] == "blocks" and len(parts) == 3 and parts[2] in LAYERS and isinstance(layer, nn.Linear):
            shapes[key] = (layer.out_features, layer.in_features)
    return shapes


def save_adapter(
    path: Path,
    state: Mapping[str, Tensor],
    *,
    alpha: float,
    rank: int,
    format: Format = "diffusers",  # noqa: A002
    metadata: Mapping[str, str] | None = None,
    shapes: Mapping[str, tuple[int, int]] | None = None,
) -> None:
    """Write an adapter (`lora_state`) as one safetensors file, atomically, mode 0644.

    `metadata` (base, trigger, dataset hash...) goes into the header under `cinetune.` names. `shapes` (`linear_shapes`)
    is needed for `kohya`. Raises `WeightsError` for another suffix, `ModelError` for NaN or missing shapes.
    """
    if path.suffix != ".safetensors":
        raise WeightsError("adapters are written as .safetensors only", where=str(path))
    bad = [key for key, value in state.items() if not bool(torch.isfinite(value).all())]
    if bad:
        raise ModelError(f"the adapter holds NaN or infinite values, first in {bad[0]}", where=str(path))
    baked = {key: value * (alpha / rank) if key.endswith(".lora_B.weight") else value for key, value in state.items()}
    header = {"format": "pt"} | {f"cinetune.{key}": value for key, value in (metadata or {}).items()}
    header |= {"cinetune.rank": str(rank), "cinetune.alpha": str(alpha), "cinetune.alpha_baked": "true"}
    match format:
        case "diffusers":
            tensors = {f"transformer.{key}": value for key, value in baked.items()}
            modules = {key.rpartition(".lora_")[0] for key in state}
            # diffusers gives every adapted text key an image layer, zero if need be, and warns if it is not announced
            texts = {module.removesuffix("to_k") for module in modules if module.endswith("attn2.to_k")}
            modules |= {text + image for text in texts for image in ("add_k_proj", "add_v_proj")}
            plain = {"r": rank, "lora_alpha": rank, "target_modules": sorted(modules)}
            header["lora_adapter_metadata"] = json.dumps(
                {f"transformer.{key}": value for key, value in plain.items()}, sort_keys=True
            )
        case "comfy":
            tensors = {_comfy(key): value for key, value in baked.items()}
        case "kohya":
            if shapes is None:
                raise ModelError(
                    "the kohya format needs the shapes of all layers", remedy="pass linear_shapes(model.denoiser)"
                )
            tensors = _kohya(baked, shapes)
    with atomic_write(path) as temporary:
        save_file(
            {key: value.detach().cpu().contiguous().clone() for key, value in sorted(tensors.items())},
            temporary,
            metadata=header,
        )
        _sort_header(temporary)


def _sort_header(path: Path) -> None:
    """Put the keys of a safetensors header in order: the library writes metadata in a random one, and equal adapters
    must be equal files.
    """
    with path.open("rb+") as file:
        length = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(length))
        ordered = json.dumps(header, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
        assert len(ordered) <= length, "the same keys and values cannot need more room"
        file.seek(8)
        file.write(ordered.ljust(length))


def _comfy(key: str) -> str:
    module, _, rest = key.rpartition(".lora_")
    _, block, layer = module.split(".", 2)
    return f"diffusion_model.blocks.{block}.{LAYERS[layer]}.lora_{rest}"


def _kohya(baked: Mapping[str, Tensor], shapes: Mapping[str, tuple[int, int]]) -> dict[str, Tensor]:
    has_image = any(f".{layer}." in key for key in baked for layer in IMAGE_LAYERS)
    tensors: dict[str, Tensor] = {}
    for module, (out, inner) in shapes.items():
        _, block, layer = module.split(".", 2)
        if layer in IMAGE_LAYERS and not has_image:
            continue
        name = f"lora_unet_blocks_{block}_{LAYERS[layer].replace('.', '_')}"
        down = baked.get(f"{module}.lora_A.weight", torch.zeros(1, inner))
        up = baked.get(f"{module}.lora_B.weight", torch.zeros(out, 1))
        tensors |= {
            f"{name}.lora_down.weight": down,
            f"{name}.lora_up.weight": up,
            f"{name}.alpha": torch.tensor(float(len(down))),
        }
    return tensors


def save_merged(model: VideoModel, folder: Path, *, name: str, base: Path | None = None) -> None:
    """Write the model with one adapter merged in, in diffusers layout; the model in memory is not changed.

    Only `transformer/` is written, or a whole model when `base` (the folder of the base model) is given: its other
    files are linked, or copied where the disk cannot link. The sum is made in float32 and stored in the base's dtype.
    Raises `ModelError` for an unknown adapter or if `folder` exists.
    """
    if folder.exists():
        raise ModelError(
            "the folder for the merged model already exists", where=str(folder), remedy="choose a new folder"
        )
    state = _merged_state(model.denoiser, name)
    with whole_folder(folder) as staging:
        if base is not None:
            skip = shutil.ignore_patterns("transformer", ".*")
            shutil.copytree(base, staging, copy_function=_link, ignore=skip, dirs_exist_ok=True)
        target = staging / "transformer"
        target.mkdir(parents=True)
        model.denoiser.save_config(target)  # pyright: ignore[reportCallIssue]
        save_torch_state_dict(
            state, target, filename_pattern="diffusion_pytorch_model{suffix}.safetensors", max_shard_size="10GB"
        )
        for path in target.iterdir():
            path.chmod(0o644)


def save_merged_original(
    model: VideoModel, folder: Path, *, name: str, metadata: Mapping[str, str] | None = None
) -> None:
    """Write the denoiser with one adapter merged in by the original release's names: `config.json` and one
    `diffusion_pytorch_model.safetensors`, as the original code loads a folder; ComfyUI takes that one file.

    The numbers are those of `save_merged`, bit for bit. `metadata` goes into the header under `cinetune.` names, as in
    an adapter file: a single file travels without its folder. Raises `ModelError` for an unknown adapter, if
    `folder` exists, and for a denoiser that is not Wan2.1's.
    """
    if folder.exists():
        raise ModelError(
            "the folder for the merged model already exists", where=str(folder), remedy="choose a new folder"
        )
    state = {original_name(key): value for key, value in _merged_state(model.denoiser, name).items()}
    with whole_folder(folder) as staging:
        config = json.dumps(_original_config(model.denoiser), indent=2, sort_keys=True)
        (staging / "config.json").write_text(config, encoding="utf-8")
        header = {"format": "pt"} | {f"cinetune.{key}": value for key, value in (metadata or {}).items()}
        file = staging / "diffusion_pytorch_model.safetensors"
        save_file(state, file, metadata=header)
        _sort_header(file)
        for path in staging.iterdir():
            path.chmod(0o644)


def _original_config(denoiser: nn.Module) -> dict[str, Any]:
    """The denoiser's sizes by the original release's words."""
    config: Any = denoiser.config
    return {
        "_class_name": "WanModel",
        "model_type": "i2v",
        "dim": config.num_attention_heads * config.attention_head_dim,
        "num_heads": config.num_attention_heads,
        "num_layers": config.num_layers,
        "in_dim": config.in_channels,
        "out_dim": config.out_channels,
        "ffn_dim": config.ffn_dim,
        "freq_dim": config.freq_dim,
        "text_len": 512,
        "eps": config.eps,
    }


def _link(source: str, target: str) -> None:
    try:
        os.link(os.path.realpath(source), target)
    except OSError:
        shutil.copy2(source, target)


def _merged_state(denoiser: nn.Module, name: str) -> dict[str, Tensor]:
    layers = {key: module for key, module in denoiser.named_modules() if isinstance(module, LoraLayer)}
    if not any(name in layer.lora_A for layer in layers.values()):
        raise ModelError(f"the model has no adapter called {name!r}")
    state: dict[str, Tensor] = {}
    for key, value in denoiser.state_dict().items():
        if ".lora_" in key:
            continue
        plain = key.replace(".base_layer.", ".")
        layer = layers.get(plain.removesuffix(".weight"))
        value = value.detach()
        if isinstance(layer, Linear) and plain.endswith(".weight") and name in layer.lora_A:
            value = (value.float() + layer.get_delta_weight(name).float()).to(value.dtype)
        state[plain] = value.cpu().contiguous()
    return state
