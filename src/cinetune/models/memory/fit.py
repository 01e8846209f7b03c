"""Making a denoiser fit its card: how its frozen weights are stored, where its blocks live, what is kept for the
backward, and whether blocks are compiled.

`place_on_device` belongs to loading a model and serves training and shooting alike; `fit` is what training adds, and
`prove` holds compiled blocks to themselves before they are believed. No module is wrapped and none changes its name, so
adapters find their layers as in the plain model.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, wraps
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import CheckpointPolicy, checkpoint, create_selective_checkpoint_contexts

from cinetune.cost.cards import MARGIN, least_recomputation
from cinetune.cost.memory import Setting
from cinetune.cost.shape import Denoiser, denoiser_of
from cinetune.errors import ConfigError, ModelError
from cinetune.models.family import VideoModel
from cinetune.models.memory.attention import (
    ATTENTION,
    Attention,
    choose_attention,
    fastest,
    set_attention,
    usable_attention,
)
from cinetune.models.memory.storage import store_linears, stored_bytes
from cinetune.runtime import Device, Reporter
from cinetune.sections import ModelSection, TrainSection

__all__ = [
    "BACKEND", "BlockOffload", "Fitted", "Load", "compile_blocks", "compile_to_shoot", "fit", "place_on_device",
    "prove", "release",
]  # fmt: skip

BACKEND = "inductor"
"""torch.compile's backend."""
GRAPHS = 32
"""Graphs that dynamo may make of one block: first block and others, with and without gradients, for each shape (of
windows, one-frame windows, samples). More would mean that something differs from block to block, and is an error."""
COSINE = 0.999
"""Least cosine between what a compiled block gives and what it gives uncompiled."""

_SDPA = {
    getattr(torch.ops.aten, name).default
    for name in (
        "_scaled_dot_product_flash_attention",
        "_scaled_dot_product_flash_attention_for_cpu",
        "_scaled_dot_product_efficient_attention",
        "_scaled_dot_product_cudnn_attention",
    )
}


def place_on_device(denoiser: nn.Module, section: ModelSection, device: Device, *, shared: bool = False) -> nn.Module:
    """Bring a denoiser from the CPU to its device as `[model]` says: weights in `storage`, `offload_blocks` of its
    blocks left in host memory, attention by `attention`. Never more than one plain block on the device at a time. The
    blocks of a `shared` base stay on the CPU, for `shard_base` to bring each its shard.

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
            store_linears(block, section.storage, multiplies=section.compute == "fp8")
        block.to("cpu" if shared or index in away else device.name)
    for name, child in denoiser.named_children():
        if name != "blocks":
            child.to(device.name)
    for parameter in denoiser.parameters(recurse=False):
        parameter.data = parameter.data.to(device.name)
    if away:
        BlockOffload([blocks[index] for index in away], torch.device(device.name)).attach()
    return denoiser


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """What one process is given to train on: latents `BCfhw` of its largest micro-batch, the tokens of its picture, and
    the number of processes that share the weights (`shards`) and the tokens of a clip (`ulysses`).
    """

    shape: Sequence[int]
    image_tokens: int
    shards: int = 1
    ulysses: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Fitted:
    """What was chosen where a setting says `auto`: the attention, and what is computed again. The first `kept` blocks
    keep everything, the others do what `rest` says.
    """

    attention: Attention
    kept: int
    rest: str


def fit(
    model: VideoModel, section: ModelSection, recipe: TrainSection, device: Device, report: Reporter, *,
    load: Load | None = None, memory: Path | None = None, agree: Callable[[Callable[[], Any]], Any] | None = None,
) -> Fitted:  # fmt: skip
    """What training adds to a placed model: activation checkpointing, the attention that is fastest for it, and
    compiled blocks when asked for. Attach the adapter afterwards or before, it makes no difference.

    Without a `load` nothing is timed, and `checkpointing = "auto"` computes everything again. `memory` is a file that
    keeps timings; `agree` calls what may differ from process to process in one of them, for all. Raises `ConfigError`
    for settings that exclude each other or cannot run here.
    """
    denoiser: Any = model.denoiser
    agree = agree or (lambda make: make())
    kept, rest = agree(lambda: _recomputation(denoiser, section, recipe, device, load))
    if section.attention == "auto" and load is not None:
        needs = {"trains", *({"keeps"} if rest == "selective" else ()), *({"compiles"} if recipe.compile else ())}
        tokens, shared = _tokens(denoiser, load.shape), load.ulysses
        attention = agree(
            lambda: fastest(denoiser, device, tokens, needs=needs, shared=shared, memory=memory)
        )  # fmt: skip
    else:
        name, reason = choose_attention(section.attention, device)
        attention = Attention(name=name, reason=reason, seconds={})
    _check(section, recipe, attention.name, device, rest=rest, kept=kept)
    set_attention(denoiser, attention.name, device)
    blocks = list(denoiser.get_submodule("blocks").children())
    size = stored_bytes(denoiser) / 2**30
    away = f", {section.offload_blocks} blocks in host memory" if section.offload_blocks else ""
    first = f" after the first {kept} of {len(blocks)} blocks" if 0 < kept < len(blocks) else ""
    compiled = "; blocks compiled" if recipe.compile else ""
    report.say(f"weights {section.storage} ({size:.2f} GiB{away}); checkpointing {rest}{first}; "
               f"attention {attention.name} ({attention.reason}){compiled}")  # fmt: skip
    for block in blocks[0 if rest != "none" else len(blocks) :][kept:]:
        _become(block, {"full": _Full, "selective": _Selective}[rest])
    if recipe.compile:
        compile_blocks(denoiser)
    return Fitted(attention=attention, kept=kept, rest=rest)


def _shape(denoiser: Any, load: Load) -> Denoiser:
    return denoiser_of(denoiser.config, image_tokens=load.image_tokens, multiple=16)


def _tokens(denoiser: Any, shape: Sequence[int]) -> int:
    time, rows, columns = denoiser.config.patch_size
    return (shape[2] // time) * (shape[3] // rows) * (shape[4] // columns)


def _recomputation(
    denoiser: Any, section: ModelSection, recipe: TrainSection, device: Device, load: Load | None
) -> tuple[int, str]:
    """How many of the first blocks keep everything, and what the others compute again."""
    if recipe.checkpointing != "auto":
        return 0, recipe.checkpointing
    if load is None or section.attention not in ("auto", *(name for name, can in ATTENTION.items() if "keeps" in can)):
        return 0, "full"
    setting = Setting(
        storage=section.storage, offload_blocks=section.offload_blocks, batch=load.shape[0], compiled=recipe.compile,
        bytes_each=getattr(torch, device.dtype).itemsize, products=recipe.products, shards=load.shards,
    )  # fmt: skip
    tokens = _tokens(denoiser, load.shape) // load.ulysses
    found = least_recomputation(
        _shape(denoiser, load),
        tokens,
        rank=recipe.rank,
        targets=recipe.targets,
        setting=setting,
        limit=_room(denoiser, device, recipe),
    )
    return found.kept_blocks, found.checkpointing


def _room(denoiser: nn.Module, device: Device, recipe: TrainSection) -> float:
    """Bytes that the denoiser and its training may take here: what is free now and what it has already, less a margin.
    On the CPU half of the memory, shared by the workers.
    """
    if device.name.startswith("cuda"):
        free, _ = torch.cuda.mem_get_info(device.name)
        unused = torch.cuda.memory_reserved(device.name) - torch.cuda.memory_allocated(device.name)
        return (free + unused + stored_bytes(denoiser)) * MARGIN
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2 / recipe.workers


def _check(
    section: ModelSection, recipe: TrainSection, attention: str, device: Device, *, rest: str, kept: int
) -> None:
    can = ATTENTION[attention]
    if "trains" not in can:
        usable = ", ".join(name for name in usable_attention(device) if "trains" in ATTENTION[name])
        raise ConfigError(f"the attention {attention!r} has no backward", remedy=f"for training use one of {usable}")
    if rest == "selective" and "keeps" not in can:
        what = f"selective checkpointing cannot keep what the attention {attention!r} computes"
        raise ConfigError(what, remedy='set train.checkpointing = "full", or model.attention = "auto"')
    if section.offload_blocks and (rest == "none" or kept):
        what = "model.offload_blocks saves nothing while every block's weights are kept for the backward"
        raise ConfigError(what, remedy='set train.checkpointing = "full"')
    if recipe.compile:
        _check_compiled(section, attention, device, "train.compile")


def _check_compiled(section: ModelSection, attention: str, device: Device, setting: str) -> None:
    if section.offload_blocks:
        raise ConfigError(f"{setting} and model.offload_blocks exclude each other", remedy="choose one of them")
    if "compiles" not in ATTENTION[attention]:
        what = f"the attention {attention!r} may not stand in a compiled block: its gradients were wrong, or it cannot"
        raise ConfigError(what, remedy=f'set model.attention = "auto", or {setting} = false')
    if device.name == "cpu" and not shutil.which(os.environ.get("CXX", "g++")):
        raise ConfigError("compiled blocks need a C++ compiler on the CPU", remedy="install g++, or set CXX")


# -------------------------------------------------------------------------------------------------------- compiling


def compile_to_shoot(model: VideoModel, section: ModelSection, device: Device) -> None:
    """Compile the blocks of a placed model for shooting, its adapters attached: one graph for each of them, for none,
    and for each shape. Raises `ConfigError` for settings that exclude it.
    """
    _check_compiled(section, choose_attention(section.attention, device)[0], device, "shoot.compile")
    compile_blocks(model.denoiser)


def compile_blocks(denoiser: nn.Module) -> None:
    """Compile every block, as one graph for each shape and kind of pass, which all blocks share.

    Around the checkpoint, never inside it: selective checkpointing outside a compiled block gives wrong gradients
    without a word. A block then raises `ModelError` where dynamo would give up compiling and run it as it is.
    """
    dynamo: Any = torch._dynamo
    dynamo.config.recompile_limit = max(dynamo.config.recompile_limit, GRAPHS)
    for block in denoiser.get_submodule("blocks").children():
        compiled: Any = torch.compile(block._call_impl, backend=BACKEND, dynamic=False, fullgraph=True)
        block._compiled_call_impl = _guarded(compiled)


def _guarded(compiled: Callable[..., Tensor]) -> Callable[..., Tensor]:
    dynamo: Any = torch._dynamo

    def call(*inputs: Any, **options: Any) -> Tensor:
        try:
            return compiled(*inputs, **options)
        except (dynamo.exc.FailOnRecompileLimitHit, dynamo.exc.Unsupported) as error:
            raise ModelError(
                "a block of the denoiser cannot be compiled once for all",
                where=str(error).strip().splitlines()[0][:200],
                remedy="set train.compile = false and shoot.compile = false, and report this with the versions "
                "`cinetune doctor` prints",
            ) from error

    return call


def prove(denoiser: Any, load: Load, *, seed: int = 0) -> float:
    """Hold compiled blocks to themselves uncompiled, on random inputs of the shape they will see: output, gradient of
    the input and gradients of the adapter. Returns the least cosine.

    One block of each behaviour, and the first one as the model runs it, without a gradient of its input. With an
    adapter whose B is zero A would have no gradient, so B is random meanwhile. Raises `ModelError` below `COSINE`.
    """
    blocks = list(denoiser.get_submodule("blocks").children())
    cases = {(type(block), index > 0): block for index, block in enumerate(blocks)}
    worst, what = 1.0, ""
    for (_, alive), block in cases.items():
        inputs = _block_inputs(denoiser, load, seed, alive=alive)
        with _stirred(block, seed), _visiting(block, inputs[0].device):
            compiled = _results(block, inputs)
            with torch.compiler.set_stance("force_eager"):
                plain = _results(block, inputs)
        for name, value in plain.items():
            cosine = _cosine(compiled[name], value)
            if not cosine >= worst:
                worst, what = cosine, name
    if not worst >= COSINE:
        raise ModelError(
            f"compiled blocks compute something else: the cosine of their {what} to an uncompiled block's is "
            f"{worst:.5f}, below {COSINE}",
            where=f"latents {tuple(load.shape)}, attention {blocks[0].attn1.processor._attention_backend}, "
            f"{torch.__version__}",
            remedy="set train.compile = false, or another model.attention",
        )
    return worst


def _block_inputs(denoiser: Any, load: Load, seed: int, *, alive: bool) -> tuple[Any, ...]:
    """Hidden states, text and picture, modulation, and rotary tables, as the denoiser gives them to a block."""
    weight, shape = denoiser.patch_embedding.weight, load.shape
    width, gen = weight.shape[0], torch.Generator().manual_seed(seed)

    def random(*sizes: int) -> Tensor:
        return torch.randn(shape[0], *sizes, generator=gen).to(weight.device, weight.dtype)

    hidden = random(_tokens(denoiser, shape), width).requires_grad_(alive)
    places = denoiser.rope(torch.empty(tuple(shape), device=weight.device))
    modulation = torch.randn(shape[0], 6, width, generator=gen).to(weight.device, weight.dtype) * 0.1
    return hidden, random(_shape(denoiser, load).text_tokens + load.image_tokens, width), modulation, places


@contextmanager
def _visiting(block: nn.Module, device: torch.device) -> Iterator[None]:
    """A block on the device, wherever it waits to be cut into shards."""
    home = next(block.parameters()).device
    block.to(device)
    try:
        yield
    finally:
        block.to(home)


@contextmanager
def _stirred(block: nn.Module, seed: int) -> Iterator[None]:
    """A block whose adapter does something: its second factors are random inside."""
    gen = torch.Generator().manual_seed(seed + 1)
    trained = [parameter for name, parameter in block.named_parameters() if ".lora_B." in name]
    before = [parameter.detach().clone() for parameter in trained]
    with torch.no_grad():
        for parameter in trained:
            parameter.copy_(torch.randn(parameter.shape, generator=gen) * 0.02)
    yield
    with torch.no_grad():
        for parameter, value in zip(trained, before, strict=True):
            parameter.copy_(value)


def _results(block: nn.Module, inputs: tuple[Any, ...]) -> dict[str, Tensor]:
    trained = [parameter for parameter in block.parameters() if parameter.requires_grad]
    asked = [*([inputs[0]] if inputs[0].requires_grad else []), *trained]
    gradients: list[Tensor] = []
    with torch.enable_grad():
        output = block(*inputs)
        if asked:
            gradients = list(torch.autograd.grad(output, asked, torch.tanh(output.detach())))
    found = {"output": output.detach()}
    if inputs[0].requires_grad:
        found["input's gradient"] = gradients[0]
        gradients = gradients[1:]
    if gradients:
        found["adapter's gradient"] = torch.cat([one.flatten().float() for one in gradients])
    return found


def _cosine(one: Tensor, other: Tensor) -> float:
    """In float64: of equal vectors it is 1 to the last digits."""
    a, b = one.flatten().double(), other.flatten().double()
    length = float(a.norm() * b.norm())
    return float(a @ b) / length if length > 0 else float(bool(torch.equal(a, b)))


# ---------------------------------------------------------------------------------------------------- checkpointing


def _become(block: nn.Module, behaviour: type[nn.Module]) -> None:
    """Give a block another `forward` around its own. Its name, and those of its layers, stay."""
    block.__class__ = _joined(type(block), behaviour)


@cache
def _joined(kind: type[nn.Module], behaviour: type[nn.Module]) -> type[nn.Module]:
    """One class for each pair: a compiler takes blocks of different classes for different programs."""

    @wraps(kind.forward)  # the names of its inputs too: diffusers shares tokens out by name
    def forward(self: nn.Module, *inputs: Tensor) -> Tensor:
        return behaviour.forward(self, *inputs)

    return type(kind.__name__, (behaviour, kind), {"__module__": kind.__module__, "forward": forward})


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


class BlockOffload:
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
            away.offload, away.number = self, number

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

    def release(self) -> None:
        """Drop what is on its way; the next block that runs sends for its weights itself."""
        self._ahead.clear()

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


def release(denoiser: nn.Module) -> None:
    """Let go of weights that were sent ahead for a pass that does not come next."""
    for block in denoiser.get_submodule("blocks").children():
        offload = getattr(block, "offload", None)
        if isinstance(offload, BlockOffload):
            offload.release()


class _Away(nn.Module):
    """A block whose weights a `BlockOffload` brings."""

    offload: BlockOffload
    number: int

    def forward(self, *inputs: Tensor) -> Tensor:
        with self.offload.here(self.number):
            return super().forward(*inputs)
