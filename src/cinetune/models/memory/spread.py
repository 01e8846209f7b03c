"""One denoiser over several processes: its tokens by Ulysses (Jacobs et al., arXiv 2309.14509), its frozen weights by
FSDP. Training and shooting share these.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence, Set
from typing import Any

import torch
from torch import nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import fully_shard

from cinetune.errors import ConfigError
from cinetune.models.family import VideoModel
from cinetune.models.wan.ulysses import exchange_heads, first_block_takes_its_part

__all__ = ["check_shares", "shard_base", "share_tokens"]


def check_shares(model: VideoModel, ulysses: int, shapes: Sequence[Sequence[int]]) -> None:
    """Raises `ConfigError` when heads, or the tokens of latents of `shapes` `(.., f, h, w)`, do not divide."""
    heads = getattr(getattr(model.denoiser, "config", None), "num_attention_heads", 0)
    patch = model.info.patch_space
    odd = sorted({f * (h // patch) * (w // patch) for *_, f, h, w in shapes})
    odd = [tokens for tokens in odd if tokens % ulysses]
    if not heads or heads % ulysses or odd:
        what = f"{odd[0]} tokens of a window" if heads and heads % ulysses == 0 else f"{heads} attention heads"
        raise ConfigError(
            f"{what} cannot be shared by {ulysses} cards",
            where="parallel.ulysses",
            remedy="choose a number that divides both; for one-frame steps the tokens of one latent frame count",
        )


def share_tokens(denoiser: Any, grid: DeviceMesh, *, ulysses: int, rank: int, size: int) -> None:
    """Ulysses attention over the grid's `ulysses` dimension; for diffusers it must have a `ring` of one too. No ring:
    its gradients are wrong for three processes and more (diffusers 0.42.1). `rank` of `size` is this process.
    """
    from diffusers.models._modeling_parallel import ContextParallelConfig, ParallelConfig

    # diffusers 0.42 calls torch by a name that torch 2.13 is about to drop, in every step
    warnings.filterwarnings("ignore", ".*all_gather_tensor.* is deprecated", FutureWarning)
    config = ParallelConfig(context_parallel_config=ContextParallelConfig(ulysses_degree=ulysses, mesh=grid))
    cut = {place: how for place, how in denoiser._cp_plan.items() if place != "blocks.0"}
    group = grid.get_group("ulysses")

    def resolved(_: ParallelConfig) -> ParallelConfig:
        config.setup(rank, size, torch.device("cpu"), mesh=grid)
        denoiser._parallel_config = config
        return config

    if not torch.accelerator.is_available():
        # diffusers takes the rank modulo the number of accelerators to name its device, and here there are none
        denoiser._resolve_parallel_config = resolved
    denoiser.enable_parallelism(config=config, cp_plan=cut)
    denoiser.__dict__.pop("_resolve_parallel_config", None)
    exchange_heads(denoiser, group)
    first_block_takes_its_part(denoiser, group)


def shard_base(denoiser: Any, mesh: DeviceMesh, *, but: Set[nn.Parameter] = frozenset()) -> None:
    """Every block's weights in shards over a mesh, whole only while the block runs; those in `but` stay whole.
    Blocks may wait on the CPU: each comes to the mesh's device whole, and leaves its shard there.
    """
    ignored = set(but)
    device = torch.device(mesh.device_type, torch.cuda.current_device()) if mesh.device_type == "cuda" else "cpu"
    denoiser.register_forward_hook(_own)
    for block in denoiser.blocks:
        block.to(device)
        fully_shard(block, mesh=mesh, ignored_params=ignored)
    fully_shard(denoiser, mesh=mesh, ignored_params=ignored)


def _own(_: nn.Module, __: Any, output: Any) -> Any:
    """The output as tensors of their own: Wan returns a view, through which a sharded module could lose its hook."""
    return tuple(one.clone() for one in output) if isinstance(output, tuple) else output
