"""Denoisers as they are trained, with and without contents, for the tests of the cost model."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import torch
from diffusers import WanTransformer3DModel
from torch import Tensor, nn

from cinetune.catalogue import TARGETS
from cinetune.cost.memory import Storage
from cinetune.cost.operations import Checkpointing
from cinetune.cost.shape import Denoiser, denoiser_of
from cinetune.models.adapters.lora import Products, add_lora
from cinetune.models.memory.fit import fit
from cinetune.models.memory.storage import store_linears
from cinetune.models.wan.pocket import DENOISER
from cinetune.runtime import Device, Quiet
from cinetune.sections import ModelSection, TrainSection

TINY_SHAPE = {
    "num_attention_heads": 2, "attention_head_dim": 24, "in_channels": 36, "out_channels": 16, "text_dim": 32,
    "freq_dim": 32, "ffn_dim": 96, "num_layers": 3, "image_dim": 32, "added_kv_proj_dim": 48, "rope_max_seq_len": 64,
    "cross_attn_norm": True, "qk_norm": "rms_norm_across_heads",
}  # fmt: skip
WIDE_SHAPE = TINY_SHAPE | {
    "num_attention_heads": 40, "attention_head_dim": 128, "text_dim": 4096, "freq_dim": 256, "ffn_dim": 13824,
    "num_layers": 2, "image_dim": 1280, "added_kv_proj_dim": 5120, "rope_max_seq_len": 1024,
}  # fmt: skip
TINY = denoiser_of(TINY_SHAPE, image_tokens=17, multiple=8)
POCKET = denoiser_of(DENOISER, image_tokens=65, multiple=8)
MODES: tuple[Checkpointing, ...] = ("none", "selective", "full")
RANK = 8
CPU = Device("cpu", "float32", "test")


def denoiser(
    shape: dict[str, Any], *, targets: str, mode: Checkpointing = "none", device: str = "cpu",
    dtype: torch.dtype = torch.float32, storage: Storage = "plain", products: Products = "layer",
) -> WanTransformer3DModel:  # fmt: skip
    """A denoiser with a float32 adapter, fitted as it is for training."""
    with torch.device(device):
        network = WanTransformer3DModel(**shape)
    wide = set(network._keep_in_fp32_modules or [])
    network.requires_grad_(False)
    for name, parameter in network.named_parameters():
        if not wide & set(name.split(".")):
            parameter.data = parameter.data.to(dtype)
    if storage != "plain":
        for block in network.blocks:
            store_linears(block, storage)
    model: Any = SimpleNamespace(denoiser=network, info=SimpleNamespace(targets=TARGETS, name="shadow"))
    add_lora(model, rank=RANK, alpha=RANK, targets=targets, seed=0, products=products)
    fit(model, ModelSection(), TrainSection(checkpointing=mode), CPU, Quiet())
    return network.train()


def loss_of(
    network: nn.Module, shape: Denoiser, grid: tuple[int, int, int], *, batch: int = 1,
    dtype: torch.dtype = torch.float32,
) -> Callable[[], Tensor]:  # fmt: skip
    """A step over clips of `grid` latent frames, rows and columns."""

    def random(*sizes: int) -> Tensor:
        return torch.randn(batch, *sizes, dtype=dtype)

    inputs = {
        "hidden_states": random(shape.channels_in, *grid), "timestep": torch.zeros(batch),
        "encoder_hidden_states": random(shape.text_tokens, shape.text_width),
        "encoder_hidden_states_image": random(shape.image_tokens, shape.image_width),
    }  # fmt: skip
    return lambda: network(**inputs, return_dict=False)[0].float().square().mean()
