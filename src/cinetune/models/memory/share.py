"""Reading one process's part of a base that lies in shards: its own rows of every weight, and no others.

What is not read stays zero, in memory that is promised and never touched, until `shard_base` cuts every weight down to
the rows that were. So no process ever reads, or holds in memory, the whole base.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import init_empty_weights
from safetensors import safe_open
from torch import Tensor, nn

from cinetune.models.files.weights import network_files, read_config
from cinetune.models.memory.storage import NF4_BLOCK

__all__ = ["Share", "read_share"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """Which of `size` equal parts of every weight a process holds, from 0: rows, as FSDP cuts them."""

    rank: int
    size: int

    def of(self, count: int) -> slice:
        """Its part of `count` things; the last processes may get fewer, or none."""
        each = math.ceil(count / self.size)
        return slice(min(each * self.rank, count), min(each * (self.rank + 1), count))

    def rows(self, shape: Sequence[int], storage: str) -> slice:
        """The rows of a weight that its part is made of. Weights in `nf4` are cut between their blocks of values, which
        may be inside a row.
        """
        if storage != "nf4":
            return self.of(shape[0])
        wide = math.prod(shape[1:])
        blocks = self.of(math.ceil(shape[0] * wide / NF4_BLOCK))
        first, end = (min(block * NF4_BLOCK, shape[0] * wide) for block in (blocks.start, blocks.stop))
        return slice(first // wide, math.ceil(end / wide))


def read_share(network: Any, part: Path, kind: torch.dtype, share: Share, storage: str) -> nn.Module:
    """The network of a folder (`config.json` and safetensors files) on the CPU, with the rows of its weights that
    `share` holds once its blocks' linear layers are kept in `storage`. Types are those of `network.from_pretrained`.

    Raises `WeightsError` for a damaged configuration, `KeyError` for weights that are not in the files.
    """
    with init_empty_weights(include_buffers=False):
        model: nn.Module = network.from_config(read_config(part, "config.json"))
    exact: Sequence[str] = getattr(network, "_keep_in_fp32_modules", None) or ()
    linear = {
        f"{name}.weight" for name, module in model.named_modules()
        if type(module) is nn.Linear and name.startswith("blocks.")
    }  # fmt: skip
    empty = {name: parameter for name, parameter in model.named_parameters() if parameter.is_meta}
    for path in network_files(part):
        with safe_open(path, "pt") as file:
            for name in empty.keys() & set(file.keys()):
                shape = empty.pop(name).shape
                dtype = torch.float32 if any(word in name.split(".") for word in exact) else kind
                rows = share.rows(shape, storage if name in linear else "plain")
                _set(model, name, _filled(file.get_slice(name), shape, rows, dtype))
    if empty:
        raise KeyError(f"{len(empty)} weights are in no file, first {min(empty)}")
    return model.eval()


def _filled(stored: Any, shape: torch.Size, rows: slice, dtype: torch.dtype) -> Tensor:
    """A tensor whose `rows` are those in the file and whose other rows are zero."""
    if tuple(stored.get_shape()) != tuple(shape):
        raise ValueError(f"a weight is {stored.get_shape()}, not {list(shape)}")
    whole = torch.zeros(shape, dtype=dtype)
    if rows.start < rows.stop:
        whole[rows] = stored[rows].to(dtype)
    return whole


def _set(model: nn.Module, name: str, value: Tensor) -> None:
    owner, _, last = name.rpartition(".")
    setattr(model.get_submodule(owner), last, nn.Parameter(value, requires_grad=False))
