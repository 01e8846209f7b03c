"""Which attention kernels run: what this machine has, a rule for when nothing is timed, and a short timing at the real
shape, because which one is fastest depends on the card, torch and the number of tokens.
"""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
import torch.nn.attention as torch_attention
from diffusers.models.attention_dispatch import (
    AttentionBackendName,
    _check_attention_backend_requirements,
    dispatch_attention_fn,
)
from diffusers.utils import logging as diffusers_logging
from torch import Tensor, nn

from cinetune.errors import ConfigError
from cinetune.outside import read_table
from cinetune.runtime import Device

__all__ = [
    "ATTENTION", "Attention", "choose_attention", "fastest", "pick", "remembered", "set_attention", "time_attention",
    "usable_attention",
]  # fmt: skip

ATTENTION = {
    "native": {"cpu", "cuda", "mps", "trains", "keeps", "compiles"},
    "_native_cudnn": {"cuda", "trains", "keeps"},
    "_native_flash": {"cuda", "trains", "keeps", "compiles"},
    "_native_flash_3": {"cuda", "trains", "keeps", "compiles"},
    "_native_efficient": {"cuda", "trains", "keeps", "compiles"},
    "_native_math": {"cpu", "cuda", "mps", "trains", "compiles"},
    "flash": {"cuda", "trains"},
    "_flash_3": {"cuda"},
    "xformers": {"cuda", "trains"},
    "flex": {"cuda", "trains", "compiles"},
    "sage": {"cuda"},
}
"""diffusers' attention backends, and `_native_flash_3`: torch's flash with the kernels of FlashAttention-3. Of each the
devices it runs on, whether it has a backward (`trains`), whether selective checkpointing can keep its output (`keeps`),
and whether it may stand in a compiled block (`compiles`). diffusers' way to cuDNN may not: it needs its inputs
contiguous, and compiled it gave wrong gradients (docs/adr/0020-compiled-blocks.md). Those that download their kernels
are left out."""

_AUTO = ("native", "_native_cudnn", "_native_flash", "_native_flash_3", "flash")
"""What `auto` lets compete."""
SAME = 0.98
"""A kernel must be this much faster than torch's own choice to be taken: less is noise."""
TOLERANCE = 0.02
"""Relative distance, forward and backward, at which a kernel is not another rounding but another result."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Attention:
    """A choice and why; `seconds` of each kernel that was timed, forward and backward."""

    name: str
    reason: str
    seconds: Mapping[str, float]


def choose_attention(asked: str, device: Device) -> tuple[str, str]:
    """The attention backend for a device where nothing is timed, and why."""
    if asked != "auto":
        return asked, "asked for in cinetune.toml"
    return "native", "torch's own choice" if device.name.startswith("cuda") else "no CUDA GPU"


def usable_attention(device: Device) -> list[str]:
    """The backends that are installed and run on a device."""
    kind = device.name.partition(":")[0]
    return [name for name, can in ATTENTION.items() if kind in can and not _missing(name)]


def _missing(name: str) -> str:
    """What is missing for a backend; empty when it can be used."""
    if name == "_native_flash_3":
        known = hasattr(torch_attention, "activate_flash_attention_impl")
        installed = known and find_spec("flash_attn_interface") is not None
        return "" if installed else "it needs torch 2.11 or newer and the package of FlashAttention-3"
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
        denoiser.set_attention_backend(_route(name))
    finally:
        diffusers_logging.set_verbosity(before)


def _route(name: str) -> str:
    """diffusers' name of the way to a kernel, with torch's flash kernels switched to the right generation."""
    third = name == "_native_flash_3"
    if hasattr(torch_attention, "current_flash_attention_impl"):
        active = torch_attention.current_flash_attention_impl() == "FA3"
        if third and not active:
            torch_attention.activate_flash_attention_impl("FA3")
        elif active and not third:
            torch_attention.restore_flash_attention_impl()
    return "_native_flash" if third else name


def time_attention(
    names: Sequence[str], tokens: int, heads: int, width: int, *, device: torch.device, dtype: torch.dtype,
    trains: bool = True, repeats: int = 3,
) -> dict[str, float]:  # fmt: skip
    """Median seconds of self-attention over `tokens` tokens with `heads` heads of `width` values, one clip, for each
    backend: forward, and backward where it `trains`. After one run that is not counted.

    A backend that cannot run this shape is left out, and so is one whose results are not those of the first name.
    """
    gen = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(1, tokens, heads, width, generator=gen).to(device, dtype) for _ in range(3))
    for one in (q, k, v):
        one.requires_grad_(trains)
    found: dict[str, float] = {}
    wanted: list[Tensor] | None = None
    for name in names:
        route = AttentionBackendName(_route(name))
        try:
            result = _attend(route, q, k, v)
        except (RuntimeError, ValueError):  # it does not take this shape, type or card
            continue
        wanted = wanted or result
        if any(_distance(one, other) > TOLERANCE for one, other in zip(result, wanted, strict=True)):
            continue
        times: list[float] = []
        for _ in range(repeats):
            _wait(device)
            started = time.perf_counter()
            _attend(route, q, k, v)
            _wait(device)
            times.append(time.perf_counter() - started)
        found[name] = statistics.median(times)
    return found


def _attend(route: AttentionBackendName, q: Tensor, k: Tensor, v: Tensor) -> list[Tensor]:
    """The output, and the gradients of its sum of squares."""
    out = dispatch_attention_fn(q, k, v, backend=route)
    if not q.requires_grad:
        return [out]
    return [out.detach(), *torch.autograd.grad(out, (q, k, v), out.detach())]


def _distance(one: Tensor, other: Tensor) -> float:
    return float((one.float() - other.float()).norm() / other.float().norm().clamp(min=1e-20))


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def fastest(
    denoiser: nn.Module, device: Device, tokens: int, *, needs: Set[str], shared: int = 1, memory: Path | None = None
) -> Attention:
    """Time what may stand here and take the fastest; torch's own choice unless another is clearly faster.

    `needs` are abilities of `ATTENTION` that it must have. With `shared` > 1 cards for one clip each has that part of
    the heads, and diffusers' way over cards must know the kernel. `memory` is a file that keeps the choice, so that a
    run that goes on goes on with it. On the CPU nothing is timed: which kernel runs must not depend on the clock there,
    and there is only one.
    """
    if not device.name.startswith("cuda"):
        name, reason = choose_attention("auto", device)
        return Attention(name=name, reason=reason, seconds={})
    names = [name for name in usable_attention(device) if name in _AUTO and needs <= ATTENTION[name]]
    names = [name for name in names if shared == 1 or name != "_native_flash_3"]
    config: Any = denoiser.config
    heads, width = config.num_attention_heads // shared, config.attention_head_dim

    def measure() -> dict[str, float]:
        place = torch.device(device.name)
        kind = getattr(torch, device.dtype)
        return time_attention(names, tokens, heads, width, device=place, dtype=kind, trains="trains" in needs)

    key = [torch.cuda.get_device_name(device.name), torch.__version__, device.dtype, tokens, heads, width, *names]
    return pick(remembered(memory, key, measure), tokens)


def remembered(memory: Path | None, key: Sequence[Any], measure: Callable[[], dict[str, float]]) -> dict[str, float]:
    """The timings of a `key` from a JSON file; measured and written there when it holds none, or those of another."""
    if memory is not None and memory.is_file():
        try:
            found = read_table(memory)
            if found["key"] == list(key):
                return {str(name): float(value) for name, value in found["seconds"].items()}
        except (ConfigError, ValueError, TypeError, KeyError, AttributeError):
            pass  # a torn or foreign file: measure again
    seconds = measure()
    if memory is not None:
        memory.parent.mkdir(parents=True, exist_ok=True)
        memory.write_text(json.dumps({"key": list(key), "seconds": seconds}, indent=1) + "\n", encoding="utf-8")
    return seconds


def pick(seconds: Mapping[str, float], tokens: int) -> Attention:
    """The fastest of some timings, with the reason in words."""
    best = min(seconds, key=seconds.__getitem__, default="native")
    if "native" in seconds and seconds[best] > SAME * seconds["native"]:
        best = "native"
    told = ", ".join(f"{name} {value * 1e3:.1f}" for name, value in sorted(seconds.items(), key=lambda pair: pair[1]))
    reason = f"the fastest here at {tokens} tokens, in ms: {told}" if seconds else "torch's own choice"
    return Attention(name=best, reason=reason, seconds=dict(seconds))
