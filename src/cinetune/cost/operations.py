"""Operations of a denoiser and of the networks around it, two for each multiply-add: what torch's `FlopCounterMode`
counts, to the last one (elementwise work is not counted).

For N tokens and width d a linear layer in -> out costs `2 N in out`, attention of N queries on M keys `4 N M d`. In the
backward of a LoRA step a frozen layer costs one forward (no gradient of its
weight) and nothing where its input carries no gradient: text, picture, and all that comes before the first adapter.
Attention's backward is five matrix products against two forward (Dao, arXiv 2307.08691). An adapted layer adds
`2 N r (in + out)` forward and twice that backward, less the input's share where the input carries no gradient.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

from cinetune.cost.shape import Denoiser, Encoders

__all__ = [
    "Checkpointing",
    "Layer",
    "Operations",
    "block_layers",
    "forward",
    "image_encoding",
    "text_encoding",
    "training",
    "video_decoding",
    "video_encoding",
]

Checkpointing = Literal["none", "selective", "full"]
"""What is computed twice: nothing; all of a block but its attention; all of a block."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Operations:
    """Operations by the kernel that does them; `convolution` is the autoencoder's, which computes in float32."""

    linear: int = 0
    attention: int = 0
    attention_backward: int = 0
    convolution: int = 0

    @property
    def total(self) -> int:
        return self.linear + self.attention + self.attention_backward + self.convolution

    def __add__(self, other: Operations) -> Operations:
        return Operations(
            linear=self.linear + other.linear, attention=self.attention + other.attention,
            attention_backward=self.attention_backward + other.attention_backward,
            convolution=self.convolution + other.convolution,
        )  # fmt: skip

    def __mul__(self, times: int) -> Operations:
        return Operations(
            linear=self.linear * times, attention=self.attention * times,
            attention_backward=self.attention_backward * times, convolution=self.convolution * times,
        )  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """One step of a block: a linear layer (`keys` = 0) of `rows` inputs, or attention of `rows` queries on `keys` keys.
    `alive`: its input (for attention any of its inputs) carries a gradient; `adapted`: it has a LoRA."""

    name: str
    rows: int
    size_in: int
    size_out: int
    keys: int = 0
    alive: bool
    adapted: bool = False

    def forward(self, rank: int) -> int:
        if self.keys:
            return 4 * self.rows * self.keys * self.size_in
        lora = rank * (self.size_in + self.size_out) if self.adapted else 0
        return 2 * self.rows * (self.size_in * self.size_out + lora)

    def backward(self, rank: int) -> int:
        if self.keys:
            return 10 * self.rows * self.keys * self.size_in if self.alive else 0
        base = self.size_in * self.size_out if self.alive else 0
        lora = rank * (2 * self.size_out + self.size_in * (2 if self.alive else 1)) if self.adapted else 0
        return 2 * self.rows * (base + lora)


def block_layers(shape: Denoiser, tokens: int, *, targets: str = "", first: bool = False) -> Iterator[Layer]:
    """The linear layers and attentions of one block in their order, for one clip; `first`: nothing before it is
    trained. Without `targets` nothing is adapted."""
    trained = shape.trained_layers(targets)
    text, image, d = shape.text_tokens, shape.image_tokens, shape.width

    def linear(name: str, rows: int, alive: bool) -> Layer:
        size_in, size_out = shape.layer_sizes(name)
        return Layer(
            name=name, rows=rows, size_in=size_in, size_out=size_out, alive=alive, adapted=name in trained
        )  # fmt: skip

    def attention(name: str, keys: int, alive: bool) -> Layer:
        return Layer(name=name, rows=tokens, size_in=d, size_out=d, keys=keys, alive=alive)

    alive = bool(targets) and not first
    for name in ("attn1.q", "attn1.k", "attn1.v"):
        yield linear(name, tokens, alive)
    alive = alive or bool(trained & {"attn1.q", "attn1.k", "attn1.v"})
    yield attention("attn1", tokens, alive)
    yield linear("attn1.o", tokens, alive)
    alive = alive or "attn1.o" in trained
    yield linear("attn2.q", tokens, alive)
    for name, rows in (("attn2.k", text), ("attn2.v", text), ("attn2.k_img", image), ("attn2.v_img", image)):
        yield linear(name, rows, alive=False)
    asked = alive or "attn2.q" in trained
    yield attention("attn2.img", image, asked or bool(trained & {"attn2.k_img", "attn2.v_img"}))
    yield attention("attn2", text, asked or bool(trained & {"attn2.k", "attn2.v"}))
    alive = asked or bool(trained & {"attn2.k", "attn2.v", "attn2.k_img", "attn2.v_img"})
    yield linear("attn2.o", tokens, alive)
    alive = alive or "attn2.o" in trained
    yield linear("ffn.up", tokens, alive)
    yield linear("ffn.down", tokens, alive or "ffn.up" in trained)


def _embeddings(shape: Denoiser, tokens: int) -> int:
    """Patches in and out, text, picture and time."""
    d = shape.width
    patches = 8 * tokens * d * (shape.channels_in + shape.channels_out)
    prompt = 2 * shape.text_tokens * d * (shape.text_width + d)
    picture = 2 * shape.image_tokens * shape.image_width * (shape.image_width + d)
    return patches + prompt + picture + 2 * d * (shape.frequencies + 7 * d)


def forward(shape: Denoiser, tokens: int, *, rank: int = 0, targets: str = "") -> Operations:
    """One pass of one clip, with an adapter when `targets` names one."""
    layers = list(block_layers(shape, tokens, targets=targets))
    block = Operations(
        linear=sum(layer.forward(rank) for layer in layers if not layer.keys),
        attention=sum(layer.forward(rank) for layer in layers if layer.keys),
    )
    return block * shape.layers + Operations(linear=_embeddings(shape, tokens))


def training(shape: Denoiser, tokens: int, *, rank: int, targets: str, checkpointing: Checkpointing) -> Operations:
    """Forward and backward of one clip with a LoRA on `targets`."""
    total = forward(shape, tokens, rank=rank, targets=targets)
    for first, count in ((True, 1), (False, shape.layers - 1)):
        linear = attention = again = 0
        for layer in block_layers(shape, tokens, targets=targets, first=first):
            if layer.keys:
                attention += layer.backward(rank)
                again += layer.forward(rank) if checkpointing == "full" else 0
            else:
                linear += layer.backward(rank) + (0 if checkpointing == "none" else layer.forward(rank))
        total += Operations(linear=linear, attention=again, attention_backward=attention) * count
    return total + Operations(linear=8 * tokens * shape.width * shape.channels_out)


def _conv(rows: int, size_in: int, size_out: int, taps: int) -> int:
    return 2 * rows * size_in * size_out * taps


def _residual(rows: int, size_in: int, size_out: int) -> int:
    """Two 3x3x3 convolutions and, where the width changes, a 1x1x1 beside them."""
    beside = _conv(rows, size_in, size_out, 1) if size_in != size_out else 0
    return _conv(rows, size_in, size_out, 27) + _conv(rows, size_out, size_out, 27) + beside


def _middle(width: int, frames: int, area: int) -> int:
    """Two residual blocks around attention inside each frame."""
    rows = frames * area
    attention = 4 * frames * area * area * width
    return 2 * _residual(rows, width, width) + 4 * _conv(rows, width, width, 1) + attention


def video_encoding(vae: Encoders, frames: int, height: int, width: int) -> int:
    """Encoding a clip of 4n+1 frames: the first alone, then four at a time. Each step down in time lets the first
    frame through as it is."""
    widths = [vae.vae_base * mult for mult in (1, *vae.vae_mult)]
    later, area = frames - 1, height * width
    total = _conv((later + 1) * area, 3, widths[0], 27)
    for level, (size_in, size_out) in enumerate(pairwise(widths)):
        rows = (later + 1) * area
        total += _residual(rows, size_in, size_out) + (vae.vae_blocks - 1) * _residual(rows, size_out, size_out)
        if level < len(vae.vae_down):
            area //= 4
            total += _conv((later + 1) * area, size_out, size_out, 9)
            if vae.vae_down[level]:
                later //= 2
                total += _conv(later * area, size_out, size_out, 3)
    rows = (later + 1) * area
    total += _middle(widths[-1], later + 1, area)
    return (
        total + _conv(rows, widths[-1], 2 * vae.vae_latent, 27) + _conv(rows, 2 * vae.vae_latent, 2 * vae.vae_latent, 1)
    )


def video_decoding(vae: Encoders, frames: int, height: int, width: int) -> int:
    """Decoding to a clip of 4n+1 frames, one latent frame at a time."""
    widths = [vae.vae_base * mult for mult in (vae.vae_mult[-1], *reversed(vae.vae_mult))]
    later = (frames - 1) // 2 ** sum(vae.vae_down)
    area = height * width // 4 ** len(vae.vae_down)
    rows = (later + 1) * area
    total = _conv(rows, vae.vae_latent, vae.vae_latent, 1) + _conv(rows, vae.vae_latent, widths[0], 27)
    total += _middle(widths[0], later + 1, area)
    for level, (size_in, size_out) in enumerate(pairwise(widths)):
        start = size_in // 2 if level else size_in
        rows = (later + 1) * area
        total += _residual(rows, start, size_out) + vae.vae_blocks * _residual(rows, size_out, size_out)
        if level < len(vae.vae_down):
            if vae.vae_down[::-1][level]:
                total += _conv(later * area, size_out, 2 * size_out, 3)
                later *= 2
            area *= 4
            total += _conv((later + 1) * area, size_out, size_out // 2, 9)
    return total + _conv((later + 1) * area, widths[-1], 3, 27)


def text_encoding(text: Encoders) -> int:
    """umT5 on one prompt of `text_tokens` tokens."""
    rows, d = text.text_tokens, text.text_width
    each = 2 * rows * (4 * d * text.text_inner + 3 * d * text.text_ffn) + 4 * rows * rows * text.text_inner
    return text.text_layers * each


def image_encoding(eye: Encoders) -> int:
    """CLIP's vision tower on one picture."""
    rows, d = eye.eye_tokens, eye.eye_width
    each = 2 * rows * (4 * d * d + 2 * d * eye.eye_ffn) + 4 * rows * rows * d
    return eye.eye_layers * each + _conv(rows - 1, 3, d, eye.eye_patch**2)
