"""Time on a card, and the cheapest setting that fits it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from cinetune.cost.memory import Memory, Setting, Storage, block_bytes, training_memory
from cinetune.cost.operations import Checkpointing, Operations, training
from cinetune.cost.shape import Denoiser

__all__ = [
    "CARDS",
    "CORES",
    "CPU",
    "MARGIN",
    "Card",
    "Choices",
    "Fit",
    "cheapest",
    "elementwise_bytes",
    "fits",
    "least_recomputation",
    "settings",
    "step_seconds",
    "with_weights",
    "work_seconds",
]

MARGIN = 0.94
"""Share of a card's memory that a plan may fill: the rest goes to the driver, kernels' workspaces and gaps."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Card:
    """Effective rates, in operations and bytes per second: linear layers in the base model's dtype, attention forward
    and backward, memory, the bus to the host, and the autoencoder's convolutions in float32. `gigabytes` (1e9 bytes) is
    its memory; `source` says where the rates come from."""

    name: str
    gigabytes: float
    linear: float
    attention: float
    attention_backward: float
    memory: float
    bus: float
    convolution: float
    source: str


MEASURED = "measured: every row of docs/numerics.md within 10 %"
SAME_CHIP = "rates measured on an H200, which has the same chip, with this card's memory"
PUBLISHED = "set so that forward passes come within 15 % of published timings"
VENDOR = "the maker's dense bfloat16 peak x 0.7 (linear), x 0.5 (attention), memory x 0.85; no timing known"

CARDS = (
    Card(name="RTX 4090", gigabytes=24, linear=115e12, attention=82e12, attention_backward=82e12, memory=0.86e12,
         bus=20e9, convolution=15e12, source=VENDOR),
    Card(name="RTX 6000 Ada", gigabytes=48, linear=255e12, attention=182e12, attention_backward=182e12,
         memory=0.82e12, bus=20e9, convolution=33e12, source=VENDOR),
    Card(name="L40S", gigabytes=48, linear=253e12, attention=181e12, attention_backward=181e12, memory=0.73e12,
         bus=20e9, convolution=32e12, source=VENDOR),
    Card(name="A100 80 GB", gigabytes=80, linear=260e12, attention=200e12, attention_backward=150e12, memory=1.7e12,
         bus=20e9, convolution=33e12, source=PUBLISHED),
    Card(name="H100 80 GB", gigabytes=80, linear=719e12, attention=577e12, attention_backward=565e12, memory=2.9e12,
         bus=40e9, convolution=92e12, source=SAME_CHIP),
    Card(name="H200", gigabytes=141, linear=719e12, attention=577e12, attention_backward=565e12, memory=4.23e12,
         bus=40e9, convolution=92e12, source=MEASURED),
)  # fmt: skip
"""Rates with the attention that torch chooses by itself; on Hopper those of torch 2.11, whose choice is cuDNN's kernel.
Convolutions were measured on the H200 alone; elsewhere they are taken to be the same share of the linear rate."""

CPU = Card(
    name="one CPU core", gigabytes=0, linear=80e9, attention=80e9, attention_backward=80e9, memory=math.inf,
    bus=math.inf, convolution=80e9,
    source="processor time of a pocket step (benchmarks/plan_against_measured.py), all kinds of work",
)  # fmt: skip
"""A busy machine takes longer by the clock."""

CORES = 2
"""Cores of the machine that pocket is meant for."""

ELEMENTWISE = 184
"""Values per token and unit of width that elementwise kernels of a block read and write, forward, not compiled."""
COMPILED = 0.265
"""Share of those that is left in a compiled block: fitted to the rows measured on an H200, as are the rates."""
FLOAT32_PRODUCTS = 53.5
"""Values more where a float32 adapter on two of a block's wide layers multiplies in float32: fitted likewise."""

UNPACKING = {"plain": 0, "fp8": 7, "int8": 19, "nf4": 39}
"""Bytes read and written to decode one weight to bfloat16 for one product, kernel by kernel of
models/memory/storage.py: storage saves memory and costs time."""
STORAGES = tuple(UNPACKING)
SAME = 1.05
"""Times within this factor of each other count as equal: the rates are known no better."""


def work_seconds(work: Operations, card: Card, *, moved: float = 0.0) -> float:
    """Time of some operations, and of `moved` bytes that elementwise kernels read and write between them."""
    time = work.linear / card.linear + work.attention / card.attention + work.convolution / card.convolution
    return time + work.attention_backward / card.attention_backward + moved / card.memory


def elementwise_bytes(shape: Denoiser, tokens: int, setting: Setting, passes: float) -> float:
    """Bytes that elementwise kernels move in some passes over all blocks."""
    wide = FLOAT32_PRODUCTS if setting.product_bytes > setting.bytes_each else 0.0
    values = (ELEMENTWISE + wide) * (COMPILED if setting.compiled else 1.0)
    return values * shape.width * setting.bytes_each * tokens * shape.layers * passes


def step_seconds(shape: Denoiser, tokens: int, card: Card, *, rank: int, targets: str, setting: Setting) -> float:
    """One forward and backward of `setting.batch` clips."""
    again = 1 - setting.kept_blocks / shape.layers if setting.checkpointing != "none" else 0.0
    least = training(shape, tokens, rank=rank, targets=targets, checkpointing="none") * setting.batch
    most = training(shape, tokens, rank=rank, targets=targets, checkpointing=setting.checkpointing) * setting.batch
    passes = 2 + again
    # the backward moves about twice what a forward does
    moved = elementwise_bytes(shape, tokens * setting.batch, setting, passes + 1)
    computing = (1 - again) * work_seconds(least, card) + again * work_seconds(most, card) + moved / card.memory
    return with_weights(computing, shape, card, setting=setting, passes=passes)


def with_weights(computing: float, shape: Denoiser, card: Card, *, setting: Setting, passes: float) -> float:
    """Seconds of some passes over all blocks, with the time their weights take: quantised ones are decoded for every
    product; those of offloaded blocks come over the bus while others compute, so the slower of the two counts."""
    computing += shape.layers * shape.block_linears() * UNPACKING[setting.storage] * passes / card.memory
    return max(computing, setting.offload_blocks * block_bytes(shape, setting) * passes / card.bus)


@dataclass(frozen=True, slots=True, kw_only=True)
class Choices:
    """What may be chosen: values of `train.checkpointing` and `model.storage`, and whether blocks can be offloaded."""

    checkpointing: Sequence[Checkpointing] = ("none", "selective", "full")
    storage: Sequence[Storage] = ("plain", "fp8", "int8", "nf4")
    offload: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Fit:
    """A setting with its memory and its time: of one optimiser step, or of one segment."""

    setting: Setting
    memory: Memory
    seconds: float


def settings(shape: Denoiser, choices: Choices, *, batches: Sequence[int], like: Setting) -> Iterator[Setting]:
    """Every combination that is allowed, in all else as `like`: without checkpointing the backward keeps the weights of
    every block, so offloading would win nothing."""
    for batch in batches:
        for checkpointing in choices.checkpointing:
            for storage in choices.storage:
                quarters = range(5) if choices.offload and checkpointing != "none" else range(1)
                for quarter in quarters:
                    away = shape.layers * quarter // 4
                    yield replace(
                        like, checkpointing=checkpointing, storage=storage, offload_blocks=away, batch=batch,
                        compiled=like.compiled and not away,
                    )  # fmt: skip


def fits(
    choices: Iterable[Setting], memory: Callable[[Setting], Memory], seconds: Callable[[Setting], float]
) -> list[Fit]:
    """Every choice with its cost, fastest first, then the plainest."""
    found = [Fit(setting=setting, memory=memory(setting), seconds=seconds(setting)) for setting in choices]
    return sorted(found, key=lambda fit: (fit.seconds, _plainness(fit)))


def least_recomputation(
    shape: Denoiser, tokens: int, *, rank: int, targets: str, setting: Setting, limit: float
) -> Setting:
    """The setting with the least to compute again that needs at most `limit` bytes: as many of the first blocks as fit
    keep everything and the others all but their attention recompute; where not even that fits, all is computed again.
    Offloaded blocks always are, as the backward would keep their weights."""

    def needs(one: Setting) -> int:
        return training_memory(shape, tokens, rank=rank, targets=targets, setting=one).total

    for kept in range(0 if setting.offload_blocks else shape.layers, -1, -1):
        kind: Checkpointing = "none" if kept == shape.layers else "selective"
        one = replace(setting, checkpointing=kind, kept_blocks=0 if kind == "none" else kept)
        if needs(one) <= limit:
            return one
    return replace(setting, checkpointing="full", kept_blocks=0)


def _plainness(fit: Fit) -> tuple[int, int, int, int]:
    setting = fit.setting
    return STORAGES.index(setting.storage), setting.offload_blocks, -setting.batch, fit.memory.total


def cheapest(found: Sequence[Fit], limit: float) -> Fit | None:
    """Of the fastest that need no more than `limit` bytes the plainest: plain weights before quantised ones,
    then the fewest offloaded blocks."""
    fitting = [fit for fit in found if fit.memory.total <= limit]
    best = min((fit.seconds for fit in fitting), default=0.0)
    return min((fit for fit in fitting if fit.seconds <= best * SAME), key=_plainness, default=None)
