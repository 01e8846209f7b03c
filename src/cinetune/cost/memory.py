"""Memory of a LoRA training step and of a sampling pass, part by part, in bytes.

What autograd keeps of a block is not one number per token: it is listed here tensor by tensor, and equals what
`saved_tensors_hooks` sees on a block of fake tensors (tests/training/test_shadow.py). The norms, the time embedding and
the adapter compute in float32 in every model, so a bfloat16 one keeps float32 copies of their inputs.
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
    "training_memory",
]

Storage = Literal["plain", "fp8", "int8", "nf4"]
STORAGE_BITS = {"fp8": 8.0, "int8": 8.0, "nf4": 4.5}
"""Bits of one weight of a block's linear layers; `nf4` with a float32 scale for 64 weights. `plain` is the dtype's."""

FLOAT32 = 4
IMAGE_KEYS = ("attn2.k_img", "attn2.v_img")
BESIDE = 2
"""Offloaded blocks that are on the card at a time: the one at work, and the next one on its way."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """The choices that trade memory for time. `batch` is clips at a time, `bytes_each` of a value of the base model."""

    checkpointing: Checkpointing = "full"
    storage: Storage = "plain"
    offload_blocks: int = 0
    batch: int = 1
    bytes_each: int = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """Bytes on the card, by what they are. `kept` is what waits for the backward, `live` what one block needs at a time
    on top of it; `adapter` counts parameters, gradients and both AdamW moments."""

    weights: int
    adapter: int = 0
    kept: int = 0
    live: int = 0
    encoders: int = 0

    @property
    def total(self) -> int:
        return self.weights + self.adapter + self.kept + self.live + self.encoders


def base_weights(shape: Denoiser, setting: Setting) -> int:
    """Weights of the denoiser that stay on the card."""
    wide = shape.float32_parameters()
    plain = (shape.parameters() - wide) * setting.bytes_each + wide * FLOAT32
    small = shape.block_linears() * setting.bytes_each
    if setting.storage != "plain":
        stored = int(shape.block_linears() * STORAGE_BITS[setting.storage] / 8)
        plain -= shape.layers * (small - stored)
        small = stored
    return plain - max(0, setting.offload_blocks - BESIDE) * small


def kept_by_block(
    shape: Denoiser, tokens: int, *, targets: str, rank: int, bytes_each: int, first: bool = False, alone: bool = True
) -> int:
    """Bytes that autograd keeps of one block for one clip, without what all blocks share (`shared_by_blocks`).

    Text and picture are cut from one tensor; with more than one clip in a batch (not `alone`) every adapted layer makes
    a copy of its part.
    """
    trained = shape.trained_layers(targets)
    layers = {layer.name: layer for layer in block_layers(shape, tokens, targets=targets, first=first)}
    d, f, mixed = shape.width, shape.ffn, bytes_each != FLOAT32
    text, image = shape.text_tokens, shape.image_tokens

    def inputs(names: tuple[str, ...], rows: int, width: int, *, free: bool = False, copied: bool = False) -> int:
        """Inputs of adapted layers and of their second factors: the first in float32 one tensor they share (`free`:
        that is kept anyway), else a float32 copy for each."""
        count = len(trained.intersection(names))
        copies = count if mixed or copied else 0 if free else min(1, count)
        return FLOAT32 * rows * (copies * width + count * rank)

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
    return total + FLOAT32 * 6 * d


def shared_by_blocks(shape: Denoiser, tokens: int, *, bytes_each: int) -> int:
    """What all blocks keep together for one clip: text and picture, and the two tables of rotary positions."""
    context = (shape.text_tokens + shape.image_tokens) * shape.width * bytes_each
    return context + 2 * FLOAT32 * tokens * (shape.width // shape.heads)


def training_memory(shape: Denoiser, tokens: int, *, rank: int, targets: str, setting: Setting) -> Memory:
    """Peak of one forward and backward of `setting.batch` clips of `tokens` tokens."""
    each, batch = setting.bytes_each, setting.batch

    def block(first: bool) -> int:
        return kept_by_block(
            shape, tokens, targets=targets, rank=rank, bytes_each=each, first=first, alone=batch == 1
        )  # fmt: skip

    entrance = each * tokens * shape.width
    live = _transient(shape, tokens, each)
    if setting.checkpointing == "none":
        kept = block(True) + (shape.layers - 1) * block(False)
    else:
        results = 3 * (entrance + FLOAT32 * tokens * shape.heads) if setting.checkpointing == "selective" else 0
        kept = shape.layers * (entrance + results)
        # In float32 the block's own list begins with the entrance that is kept already.
        live += block(False) - results - (entrance if each == FLOAT32 else 0)
    kept += shared_by_blocks(shape, tokens, bytes_each=each)
    unpacked = shape.block_linears() * each if setting.storage != "plain" else 0
    return Memory(
        weights=base_weights(shape, setting), adapter=4 * FLOAT32 * shape.adapter_parameters(rank, targets),
        kept=batch * kept, live=batch * live + unpacked,
    )  # fmt: skip


def _transient(shape: Denoiser, tokens: int, each: int) -> int:
    """Tensors that come and go at the top of the backward of a feed-forward: the gradients on both sides of its
    activation, and the block's own in float32. In bfloat16 the float32 gradients around the norms of a narrow
    feed-forward outweigh them: 20 bytes for each unit of width, as traced (tests/training/test_shadow.py).
    """
    around = 0 if each == FLOAT32 else 20 * shape.width
    return tokens * max(2 * each * shape.ffn + FLOAT32 * shape.width, around)


def block_bytes(shape: Denoiser, setting: Setting) -> float:
    """The linear weights of one block as they are stored."""
    bits = STORAGE_BITS.get(setting.storage, 8.0 * setting.bytes_each)
    return shape.block_linears() * bits / 8


def encoder_bytes(shape: Encoders, bytes_each: int, vae_parameters: int) -> int:
    """Weights of text encoder (in the model's dtype), image encoder and autoencoder (in float32)."""
    return shape.text_parameters() * bytes_each + FLOAT32 * (shape.eye_parameters() + vae_parameters)
