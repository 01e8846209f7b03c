"""Making a denoiser fit its card: how its frozen weights are stored, where its blocks live, what is kept for the
backward, and which kernels run.

`settle` belongs to loading a model and serves training and shooting alike; `fit` is what training adds. No module is
wrapped and none changes its name, so adapters find their layers as in the plain model.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any

import torch
from diffusers.models.attention_dispatch import AttentionBackendName, _check_attention_backend_requirements
from diffusers.utils import logging as diffusers_logging
from torch import Tensor, nn
from torch.utils.checkpoint import CheckpointPolicy, checkpoint, create_selective_checkpoint_contexts

from cinetune.errors import ConfigError
from cinetune.models.family import VideoModel
from cinetune.models.memory.storage import store_linears, stored_bytes
from cinetune.runtime import Device, Reporter
from cinetune.sections import ModelSection, TrainSection

__all__ = ["ATTENTION", "Shuttle", "choose_attention", "fit", "settle", "usable_attention"]

ATTENTION = {
    "native": {"cpu", "cuda", "mps", "trains", "keeps"},
    "_native_cudnn": {"cuda", "trains", "keeps"},
    "_native_flash": {"cuda", "trains", "keeps"},
    "_native_efficient": {"cuda", "trains", "keeps"},
    "_native_math": {"cpu", "cuda", "mps", "trains"},
    "flash": {"cuda", "trains"},
    "_flash_3": {"cuda", "trains"},
    "xformers": {"cuda", "trains"},
    "flex": {"cuda", "trains"},
    "sage": {"cuda"},
}
"""diffusers' attention backends: the devices each runs on, whether it has a backward (`trains`), and whether selective
checkpointing can keep its output (`keeps`). Those that download their kernels are left out."""

_SDPA = {
    getattr(torch.ops.aten, name).default
    for name in (
        "_scaled_dot_product_flash_attention",
        "_scaled_dot_product_flash_attention_for_cpu",
        "_scaled_dot_product_efficient_attention",
        "_scaled_dot_product_cudnn_attention",
    )
}


def settle(denoiser: nn.Module, section: ModelSection, device: Device) -> nn.Module:
    """Bring a denoiser from the CPU to its device as `[model]` says: weights in `storage`, `offload_blocks` of its
    blocks left in host memory, attention by `attention`. Never more than one plain block on the device at a time.

    Raises `ConfigError` when it has fewer blocks than that, or the attention cannot run here.
    """
    set_attention(denoiser, choose_attention(section.attention, device)[0], device)
    blocks: list[nn.Module] = list(denoiser.get_submodule("blocks").children())
    if section.offload_blocks > len(blocks):
        what = f"model.offload_blocks is {section.offload_blocks}, but the model has {len(blocks)} blocks"
        raise ConfigError(what, remedy=f"use at most {len(blocks)}")
    away = _spread(len(blocks), section.offload_blocks)
    for index, block in enumerate(blocks):
        if section.storage != "plain":
            block.to(device.name)
            store_linears(block, section.storage)
        block.to("cpu" if index in away else device.name)
    for name, child in denoiser.named_children():
        if name != "blocks":
            child.to(device.name)
    for parameter in denoiser.parameters(recurse=False):
        parameter.data = parameter.data.to(device.name)
    if away:
        Shuttle([blocks[index] for index in away], torch.device(device.name)).attach()
    return denoiser


def fit(model: VideoModel, section: ModelSection, recipe: TrainSection, device: Device, report: Reporter) -> None:
    """What training adds to a settled model: activation checkpointing, and compiled blocks when asked for. Attach the
    adapter afterwards or before, it makes no difference.

    Raises `ConfigError` for settings that exclude each other or cannot run here.
    """
    attention, reason = choose_attention(section.attention, device)
    _check(section, recipe, attention, device)
    denoiser = model.denoiser
    kept = stored_bytes(denoiser) / 2**30
    away = f", {section.offload_blocks} blocks in host memory" if section.offload_blocks else ""
    report.say(f"weights {section.storage} ({kept:.2f} GiB{away}); checkpointing {recipe.checkpointing}; "
               f"attention {attention} ({reason}){'; blocks compiled' if recipe.compile else ''}")  # fmt: skip
    for block in denoiser.get_submodule("blocks").children():
        if recipe.checkpointing != "none":
            _become(block, {"full": _Full, "selective": _Selective}[recipe.checkpointing])
        if recipe.compile:
            # around the checkpoint, never inside it: selective checkpointing outside a compiled block gives wrong
            # gradients without a word
            block.compile()


def _check(section: ModelSection, recipe: TrainSection, attention: str, device: Device) -> None:
    if "trains" not in ATTENTION[attention]:
        usable = ", ".join(name for name in usable_attention(device) if "trains" in ATTENTION[name])
        raise ConfigError(f"the attention {attention!r} has no backward", remedy=f"for training use one of {usable}")
    if recipe.checkpointing == "selective" and "keeps" not in ATTENTION[attention]:
        what = f"selective checkpointing cannot keep what the attention {attention!r} computes"
        raise ConfigError(what, remedy='set train.checkpointing = "full", or model.attention = "auto"')
    if section.offload_blocks and recipe.checkpointing == "none":
        what = "model.offload_blocks saves nothing while every block's weights are kept for the backward"
        raise ConfigError(what, remedy='set train.checkpointing = "full"')
    if section.offload_blocks and recipe.compile:
        raise ConfigError("train.compile and model.offload_blocks exclude each other", remedy="choose one of them")
    if recipe.compile and device.name == "cpu" and not shutil.which(os.environ.get("CXX", "g++")):
        raise ConfigError("train.compile needs a C++ compiler on the CPU", remedy="install g++, or set CXX")


def choose_attention(asked: str, device: Device) -> tuple[str, str]:
    """The attention backend for a device, and why."""
    if asked != "auto":
        return asked, "asked for in cinetune.toml"
    if not device.name.startswith("cuda"):
        return "native", "no CUDA GPU"
    if device.dtype != "bfloat16":
        return "native", f"cuDNN's attention takes no {device.dtype}"
    if torch.cuda.get_device_capability(device.name)[0] != 9:
        return "native", "torch's own choice on this GPU"
    return "_native_cudnn", "cuDNN's kernels use what a Hopper GPU has"


def usable_attention(device: Device) -> list[str]:
    """The backends that are installed and run on a device."""
    kind = device.name.partition(":")[0]
    return [name for name, can in ATTENTION.items() if kind in can and not _missing(name)]


def _missing(name: str) -> str:
    """What diffusers says is missing for a backend; empty when it can be used."""
    try:
        _check_attention_backend_requirements(AttentionBackendName(name))
    except (RuntimeError, ValueError) as error:
        return str(error)
    return ""


def set_attention(denoiser: Any, name: str, device: Device) -> None:
    """Make a denoiser use one of `ATTENTION`. Raises `ConfigError` listing what can be used here."""
    usable = usable_attention(device)
    if name not in usable:
        why = _missing(name) or f"it does not run on {device.name}"
        remedy = f"use one of {', '.join(usable)}, or install what it needs"
        raise ConfigError(f"the attention {name!r} cannot be used: {why}", where="model.attention", remedy=remedy)
    before = diffusers_logging.get_verbosity()
    diffusers_logging.set_verbosity_error()  # it warns that the choice is experimental
    try:
        denoiser.set_attention_backend(name)
    finally:
        diffusers_logging.set_verbosity(before)


# ---------------------------------------------------------------------------------------------------- checkpointing


def _become(block: nn.Module, behaviour: type[nn.Module]) -> None:
    """Give a block another `forward` around its own. Its name, and those of its layers, stay."""
    kind = type(block)

    @wraps(kind.forward)  # the names of its inputs too: diffusers shares tokens out by name
    def forward(self: nn.Module, *inputs: Tensor) -> Tensor:
        return behaviour.forward(self, *inputs)

    block.__class__ = type(kind.__name__, (behaviour, kind), {"__module__": kind.__module__, "forward": forward})


class _Full(nn.Module):
    """Keeps only a block's inputs for the backward, which computes the block once more."""

    def forward(self, *inputs: Tensor) -> Tensor:
        return _checkpointed(super().forward, inputs)


class _Selective(nn.Module):
    """As `_Full`, but attention, which costs most and whose outputs are small, is not computed again."""

    def forward(self, *inputs: Tensor) -> Tensor:
        return _checkpointed(super().forward, inputs, context_fn=_keep_attention)


def _checkpointed(forward: Callable[..., Tensor], inputs: tuple[Tensor, ...], **options: Any) -> Tensor:
    if not torch.is_grad_enabled():
        return forward(*inputs)
    # blocks draw no random numbers, so there is no state to keep
    return checkpoint(forward, *inputs, use_reentrant=False, preserve_rng_state=False, **options)  # pyright: ignore[reportReturnType]


def _keep_attention() -> Any:
    return create_selective_checkpoint_contexts(_policy)


def _policy(_context: Any, operation: Any, *_arguments: Any, **_options: Any) -> CheckpointPolicy:
    return CheckpointPolicy.MUST_SAVE if operation in _SDPA else CheckpointPolicy.PREFER_RECOMPUTE


# ------------------------------------------------------------------------------------------------------- offloading


def _spread(total: int, count: int) -> list[int]:
    """`count` of `total` blocks at equal distances: while one that stays computes, the next one travels."""
    return [(number + 1) * total // count - 1 for number in range(count)]


class Shuttle:
    """Brings the frozen weights of some blocks to the device when they are needed, one block ahead of the computation.

    Weights at home (pinned host memory) are never changed, so nothing travels back. A copy lives as long as something
    refers to it: the running block, autograd until that block's backward is done, and the guess of what comes next.
    """

    def __init__(self, blocks: list[nn.Module], device: torch.device) -> None:
        self.blocks, self.device = blocks, device
        self.slots: list[list[tuple[nn.Module, str, Tensor]]] = [_slots(block, device) for block in blocks]
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None
        self._ahead: dict[int, tuple[list[Tensor], torch.cuda.Event | None]] = {}
        self._last, self._step = -1, 1

    def attach(self) -> None:
        """Let every block ask for its weights whenever it runs, in the forward and when it is computed again."""
        for number, block in enumerate(self.blocks):
            _become(block, _Away)
            away: Any = block
            away.shuttle, away.number = self, number

    @contextmanager
    def here(self, number: int) -> Iterator[None]:
        """Block `number` with its weights on the device."""
        copies = self._take(number)
        for (module, name, _), copy in zip(self.slots[number], copies, strict=True):
            module._parameters[name] = copy  # type: ignore[assignment]  # a setter would insist on a Parameter
        try:
            yield
        finally:
            for module, name, home in self.slots[number]:
                module._parameters[name] = home  # type: ignore[assignment]

    def copy(self, home: Tensor) -> Tensor:
        """One tensor on the device; no copy where home is the device."""
        return home.to(self.device, non_blocking=True)

    def _take(self, number: int) -> list[Tensor]:
        copies, arrived = self._ahead.pop(number, None) or self._send(number)
        if arrived is not None:
            running = torch.cuda.current_stream(self.device)
            running.wait_event(arrived)
            for tensor in copies:
                tensor.record_stream(running)
        self._ahead.clear()
        following = self._following(number)
        self._ahead[following] = (copies, None) if following == number else self._send(following)
        return copies

    def _send(self, number: int) -> tuple[list[Tensor], torch.cuda.Event | None]:
        homes = [home for _, _, home in self.slots[number]]
        if self._stream is None:
            return [self.copy(home) for home in homes], None
        with torch.cuda.stream(self._stream):
            copies = [self.copy(home) for home in homes]
            arrived = torch.cuda.Event()
            arrived.record(self._stream)
        return copies, arrived

    def _following(self, number: int) -> int:
        """The block that is needed next. Without gradients blocks run upwards, again and again; with them upwards, then
        downwards (the last and the first twice in a row). A wrong guess costs a transfer, never a result.
        """
        end = len(self.blocks) - 1
        if not torch.is_grad_enabled():
            self._last, self._step = -1, 1
            return number + 1 if number < end else 0
        if number == self._last:
            self._step = -self._step
        else:
            self._step = 1 if number > self._last else -1
        self._last = number
        following = number + self._step
        return following if 0 <= following <= end else number


def _slots(block: nn.Module, device: torch.device) -> list[tuple[nn.Module, str, Tensor]]:
    """Every frozen parameter of a block with the module that holds it, its memory pinned where that speeds it up."""
    found: list[tuple[nn.Module, str, Tensor]] = []
    for module in block.modules():
        for name, parameter in module.named_parameters(recurse=False):
            if device.type == "cuda":
                parameter.data = parameter.data.pin_memory()
            found.append((module, name, parameter))
    return found


class _Away(nn.Module):
    """A block whose weights a `Shuttle` brings."""

    shuttle: Shuttle
    number: int

    def forward(self, *inputs: Tensor) -> Tensor:
        with self.shuttle.here(self.number):
            return super().forward(*inputs)
