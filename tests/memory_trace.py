"""What one training step does, seen by torch itself on tensors without contents: operations, bytes kept for the
backward, and the most bytes alive. Nothing is downloaded or computed, so a 14B model takes seconds on any machine.

On fake CPU tensors attention is torch's fused one, as on a GPU; on `meta` it would be
plain matrix products that keep every score. `FlopCounterMode` has no formula for the fused CPU kernel and counts it as
nothing; here it is given the one of the GPU kernels.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils import flop_counter
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

__all__ = ["Live", "Trace", "count_operations", "hollow", "saved_bytes", "trace_step"]

_FLASH = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu  # pyright: ignore[reportPrivateUsage]
_FLASH_BACKWARD = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward  # pyright: ignore[reportPrivateUsage]


@dataclass(frozen=True, slots=True, kw_only=True)
class Trace:
    """Operations of a step, and the most bytes alive at once beyond those that were there before it."""

    operations: int
    peak_bytes: int


def count_operations() -> FlopCounterMode:
    """A counter that also knows attention on the CPU."""
    return FlopCounterMode(display=False, custom_mapping={_FLASH: _attention, _FLASH_BACKWARD: _attention_backward})


def _attention(*shapes: Any, **_: Any) -> int:
    return flop_counter.sdpa_flop_count(*shapes[:3])


def _attention_backward(*shapes: Any, **_: Any) -> int:
    return flop_counter.sdpa_backward_flop_count(*shapes[:4])


def hollow(network: nn.Module, mode: FakeTensorMode) -> None:
    """Put fake CPU tensors in place of all parameters and buffers, which may be on the `meta` device."""
    with mode:
        for module in network.modules():
            for name, parameter in list(module.named_parameters(recurse=False)):
                empty = torch.empty(parameter.shape, dtype=parameter.dtype)
                setattr(module, name, nn.Parameter(empty, requires_grad=parameter.requires_grad))
            for name, buffer in list(module.named_buffers(recurse=False)):
                setattr(module, name, torch.empty(buffer.shape, dtype=buffer.dtype))


class Live(TorchDispatchMode):
    """Follows every storage that is made inside it until it dies; `peak` is the most bytes alive at once."""

    def __init__(self) -> None:
        super().__init__()
        self.alive = self.peak = 0
        self._known: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = {_storage(item)._cdata for item in _tensors((args, kwargs))}  # pyright: ignore[reportPrivateUsage]
        made = func(*args, **(kwargs or {}))
        for item in _tensors(made):
            storage = _storage(item)
            key = storage._cdata  # pyright: ignore[reportPrivateUsage]
            if key not in self._known and key not in given:
                self._known.add(key)
                self.alive += storage.nbytes()
                weakref.finalize(storage, self._gone, key, storage.nbytes())
        self.peak = max(self.peak, self.alive)
        return made

    def _gone(self, key: int, size: int) -> None:
        self._known.discard(key)
        self.alive -= size


def _storage(tensor: Tensor) -> Any:
    return tensor.untyped_storage()


def _tensors(tree: Any) -> Iterator[Tensor]:
    if isinstance(tree, Tensor):
        yield tree
    elif isinstance(tree, (list, tuple)):
        for item in tree:
            yield from _tensors(item)
    elif isinstance(tree, dict):
        yield from _tensors(list(tree.values()))


def trace_step(step: Callable[[], Tensor]) -> Trace:
    """Run a forward that ends in a loss, and its backward, twice, and watch. Works on fake and on real
    tensors; gradients are added up."""
    live, counter = Live(), count_operations()
    with live:
        step().backward()
    with counter:  # apart: the counter holds on to tensors that would be gone
        step().backward()
    return Trace(operations=counter.get_total_flops(), peak_bytes=live.peak)


@dataclass(slots=True)
class _Saved:
    sizes: dict[int, int] = field(default_factory=dict[int, int])
    holds: list[Tensor] = field(default_factory=list[Tensor])

    def pack(self, tensor: Tensor) -> Tensor:
        storage = _storage(tensor)
        self.sizes[storage._cdata] = storage.nbytes()
        self.holds.append(tensor)  # a storage that died would lend its address to another
        return tensor


@contextmanager
def saved_bytes(*, but: nn.Module) -> Iterator[Callable[[], int]]:
    """Counts what autograd keeps inside the `with`, each storage once, without the parameters and buffers of `but`."""
    seen = _Saved()
    own = {_storage(t)._cdata for t in (*but.parameters(), *but.buffers())}
    with torch.autograd.graph.saved_tensors_hooks(seen.pack, lambda tensor: tensor):
        yield lambda: sum(size for key, size in seen.sizes.items() if key not in own)
