"""Memory of a LoRA training step and of a sampling pass, part by part, in bytes.

What autograd keeps of a block is not one number per token: it is listed here tensor by tensor, and equals what
`saved_tensors_hooks` sees on a block of fake tensors (tests/training/test_shadow.py). The norms and the time embedding
compute in float32 in every model, so a bfloat16 one keeps float32 copies of their inputs; an adapter does where
`train.products` says so.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from cinetune.cost.operations import Checkpointing, block_layers
from cinetune.cost.shape import Denoiser, Encoders

__all__ = [
    "STORAGE_BITS",
    "Memory",
    "Setting",
    "Storage",
    "base_weights",
    "block_bytes",
    "encoder_bytes",
    "kept_by_block",
    "shared_by_blocks",
    "stored_linears",
    "training_memory",
    "unpacking",
]

Storage = Literal["plain", "fp8", "int8", "nf4"]
STORAGE_BITS = {"fp8": 8, "int8": 8, "nf4": 4}
"""Bits of one weight of a block's linear layers; `plain` is the dtype's. Scales come on top: see `stored_linears`."""
NF4_GROUP = 64
"""Weights that share one scale; `fp8` and `int8` have one for each row."""

FLOAT32 = 4
IMAGE_KEYS = ("attn2.k_img", "attn2.v_img")
COMPILED = 16.75
"""Values per token and unit of width that a compiled block keeps: what the compiler's partitioner chooses for 14B's
block with an adapter on `cross` (tests/training/test_shadow.py)."""
BESIDE = 2
"""Offloaded blocks that are on the card at a time: the one at work, and the next one on its way."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """The choices that trade memory for time. `batch` is clips at a time, `bytes_each` of a value of the base model.
    The first `kept_blocks` keep everything, whatever `checkpointing` says of the others; `shards` is the number of
    cards that share the weights."""

    checkpointing: Checkpointing = "full"
    kept_blocks: int = 0
    storage: Storage = "plain"
    offload_blocks: int = 0
    batch: int = 1
    bytes_each: int = 2
    products: Literal["layer", "float32"] = "layer"
    compiled: bool = False
    shards: int = 1

    @property
    def product_bytes(self) -> int:
        """Bytes of a value that an adapter multiplies."""
        return FLOAT32 if self.products == "float32" else self.bytes_each


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """Bytes on the card, by what they are. `kept` is what waits for the backward, `live` what one block needs at a time
    on top of it; `adapter` counts parameters, in training with gradients and both AdamW moments; `encoders` are the
    weights of the networks around the denoiser."""

    weights: int
    adapter: int = 0
    kept: int = 0
    live: int = 0
    encoders: int = 0

    @property
    def total(self) -> int:
        return self.weights + self.adapter + self.kept + self.live + self.encoders


def stored_linears(shape: Denoiser, setting: Setting) -> int:
    """The linear weights of one block as they are stored, with their float32 scales."""
    count = shape.block_linears()
    if setting.storage == "plain":
        return count * setting.bytes_each
    scales = count // NF4_GROUP if setting.storage == "nf4" else 11 * shape.width + shape.ffn
    return count * STORAGE_BITS[setting.storage] // 8 + FLOAT32 * scales


def block_bytes(shape: Denoiser, setting: Setting) -> int:
    """All weights of one block: what travels when it is offloaded. Modulations and one norm are float32."""
    wide = 8 * shape.width
    rest = shape.block_parameters() - shape.block_linears() - wide
    return stored_linears(shape, setting) + rest * setting.bytes_each + wide * FLOAT32


def base_weights(shape: Denoiser, setting: Setting) -> int:
    """Weights of the denoiser that are on the card at a time."""
    wide = shape.float32_parameters()
    plain = (shape.parameters() - wide) * setting.bytes_each + wide * FLOAT32
    saved = shape.layers * (shape.block_linears() * setting.bytes_each - stored_linears(shape, setting))
    whole = plain - saved - max(0, setting.offload_blocks - BESIDE) * block_bytes(shape, setting)
    # of shards one block at a time is whole, and the next one on its way
    return whole if setting.shards == 1 else whole // setting.shards + BESIDE * block_bytes(shape, setting)


def unpacking(shape: Denoiser, setting: Setting) -> int:
    """What decoding the widest layer's weight needs at a time, in bytes: the product in the model's dtype and its
    factor (fp8); in float32, before it is rounded (int8); and for nf4 the codes as bytes, as 64-bit indices, and the
    float32 levels they stand for."""
    each = {"plain": 0, "fp8": 2 * setting.bytes_each, "int8": 2 * FLOAT32, "nf4": 1 + 8 + FLOAT32}[setting.storage]
    return each * shape.width * max(shape.width, shape.ffn)


def kept_by_block(
    shape: Denoiser, tokens: int, *, targets: str, rank: int, setting: Setting, first: bool = False
) -> int:
    """Bytes that autograd keeps of one block for one clip of `setting.batch`, without what all blocks share
    (`shared_by_blocks`).

    Text and picture are cut from one tensor; with more than one clip in a batch every adapted layer makes a copy of its
    part.
    """
    trained = shape.trained_layers(targets)
    layers = {layer.name: layer for layer in block_layers(shape, tokens, targets=targets, first=first)}
    bytes_each, product = setting.bytes_each, setting.product_bytes
    d, f, wide, alone = shape.width, shape.ffn, product != bytes_each, setting.batch == 1
    text, image = shape.text_tokens, shape.image_tokens

    def inputs(names: tuple[str, ...], rows: int, width: int, *, free: bool = False, copied: bool = False) -> int:
        """Inputs of adapted layers and of their second factors: in the layer's type one tensor they share (`free`:
        that is kept anyway), else a float32 copy for each."""
        count = len(trained.intersection(names))
        copies = count if wide or copied else 0 if free else min(1, count)
        return product * rows * (copies * width + count * rank)

    def scores(rows: int) -> int:
        """Input and scale of an RMS norm, or of a LayerNorm less its mean."""
        return FLOAT32 * rows * (d + 1)

    attention = bytes_each * tokens * d
    log_sums = FLOAT32 * tokens * shape.heads
    total = 0
    if layers["attn1.q"].alive:
        total += scores(tokens) + FLOAT32 * tokens + FLOAT32 * d
    total += inputs(("attn1.q", "attn1.k", "attn1.v"), tokens, d)
    if layers["attn1"].alive:
        normed = sum(layers[name].alive or name in trained for name in ("attn1.q", "attn1.k"))
        total += normed * scores(tokens) + 4 * attention + log_sums
    total += inputs(("attn1.o",), tokens, d, free=True)
    if layers["attn2.q"].alive:
        total += scores(tokens) + FLOAT32 * tokens
    total += inputs(("attn2.q",), tokens, d) + scores(tokens)
    total += inputs(("attn2.k", "attn2.v"), text, d, free=True, copied=not alone)
    total += inputs(IMAGE_KEYS, image, d, free=True, copied=not alone)
    total += (scores(text) if "attn2.k" in trained else 0) + (scores(image) if "attn2.k_img" in trained else 0)
    # Queries once, keys and values of text and picture, and both results.
    total += 3 * attention + bytes_each * 2 * (text + image) * d + 2 * log_sums
    total += inputs(("attn2.o",), tokens, d) + scores(tokens) + FLOAT32 * tokens + FLOAT32 * d
    total += inputs(("ffn.up",), tokens, d) + bytes_each * tokens * f + inputs(("ffn.down",), tokens, f)
    if product != FLOAT32:  # the factors themselves, in the type they multiply in
        adapted = [layer for layer in layers.values() if layer.adapted]
        total += product * rank * sum(layer.size_out + layer.size_in * layer.alive for layer in adapted)
    return total + FLOAT32 * 6 * d


def shared_by_blocks(shape: Denoiser, tokens: int, *, bytes_each: int) -> int:
    """What all blocks keep together for one clip: text and picture, and the two tables of rotary positions."""
    context = (shape.text_tokens + shape.image_tokens) * shape.width * bytes_each
    return context + 2 * FLOAT32 * tokens * (shape.width // shape.heads)


def training_memory(shape: Denoiser, tokens: int, *, rank: int, targets: str, setting: Setting) -> Memory:
    """Peak of one forward and backward of `setting.batch` clips of `tokens` tokens."""
    each, batch = setting.bytes_each, setting.batch

    def block(first: bool) -> int:
        if setting.compiled:
            return round(COMPILED * each * tokens * shape.width)
        return kept_by_block(shape, tokens, targets=targets, rank=rank, setting=setting, first=first)

    entrance = each * tokens * shape.width
    live = _transient(shape, tokens, setting)
    whole = shape.layers if setting.checkpointing == "none" else setting.kept_blocks
    kept = (block(True) if whole else 0) + max(0, whole - 1) * block(False)
    if whole < shape.layers:
        results = 3 * (entrance + FLOAT32 * tokens * shape.heads) if setting.checkpointing == "selective" else 0
        kept += (shape.layers - whole) * (entrance + results)
        # In float32 the block's own list begins with the entrance that is kept already.
        live += block(False) - results - (entrance if each == FLOAT32 else 0)
    kept += shared_by_blocks(shape, tokens, bytes_each=each)
    return Memory(
        weights=base_weights(shape, setting), adapter=4 * FLOAT32 * shape.adapter_parameters(rank, targets),
        kept=round(batch * kept), live=round(batch * live) + unpacking(shape, setting),
    )  # fmt: skip


def _transient(shape: Denoiser, tokens: int, setting: Setting) -> int:
    """The most that comes and goes beside what is kept, in one of two moments. A compiled block has the first only.

    At the top of the backward of a feed-forward: the gradients on both sides of its activation, and the block's own in
    float32. In bfloat16 also at the end of a block: both sides of the last sum and the ungated result in float32, and
    five tensors in bfloat16 that float32 copies are kept of (entrance, attention's result, what it was added to, the
    feed-forward's input and its result).
    """
    each = setting.bytes_each
    if setting.compiled:
        return tokens * 2 * each * shape.ffn
    end = 0 if each == FLOAT32 else (3 * FLOAT32 + 5 * each) * shape.width
    return tokens * max(2 * each * shape.ffn + FLOAT32 * shape.width, end)


def encoder_bytes(shape: Encoders, bytes_each: int) -> int:
    """Weights of text encoder (in the model's dtype), image encoder and autoencoder (in float32)."""
    return shape.text_parameters() * bytes_each + FLOAT32 * (shape.eye_parameters() + shape.vae_parameters())
