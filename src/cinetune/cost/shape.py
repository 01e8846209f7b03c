"""Shapes of a Wan2.1 image-to-video model, and what follows from them alone: parameters, tokens, sizes of adapters."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

from cinetune.patterns import Pattern

__all__ = ["TARGET_LAYERS", "WAN21", "WAN21_ENCODERS", "Denoiser", "Encoders", "denoiser_of", "encoders_of"]

SELF = ("attn1.q", "attn1.k", "attn1.v", "attn1.o")
TEXT = ("attn2.q", "attn2.k", "attn2.v", "attn2.o")
IMAGE = ("attn2.k_img", "attn2.v_img")
FEED = ("ffn.up", "ffn.down")

TARGET_LAYERS = {
    "cross": frozenset(TEXT + IMAGE),
    "cross-text": frozenset(TEXT),
    "attention": frozenset(SELF + TEXT),
    "all-linear": frozenset(SELF + TEXT + IMAGE + FEED),
}
"""Adapted layers of a block for each named value of `train.targets`."""
_MODULES = dict(
    zip(
        SELF + TEXT + IMAGE + FEED,
        (*(f"{part}.{name}" for part in ("attn1", "attn2") for name in ("to_q", "to_k", "to_v", "to_out.0")),
         "attn2.add_k_proj", "attn2.add_v_proj", "ffn.net.0.proj", "ffn.net.2"),
        strict=True,
    )
)  # fmt: skip
"""What diffusers calls them, which is what a pattern is written for."""


def adapted_layers(targets: str, layers: int = 1) -> list[frozenset[str]]:
    """Adapted layers of each of `layers` blocks. `regex:` patterns may choose other ones in every block."""
    if not targets.startswith("regex:"):
        return [TARGET_LAYERS[targets] if targets else frozenset()] * layers
    pattern = Pattern(targets.removeprefix("regex:"))
    return [
        frozenset(name for name, module in _MODULES.items() if pattern.matches(f"blocks.{block}.{module}"))
        for block in range(layers)
    ]


@dataclass(frozen=True, slots=True, kw_only=True)
class Denoiser:
    """Shape of a Wan2.1 image-to-video denoiser. `multiple`: pixels per side of a token; `stride_time`: frames of a
    latent one."""

    layers: int
    width: int
    heads: int
    ffn: int
    channels_in: int
    channels_out: int
    text_width: int
    image_width: int
    frequencies: int
    text_tokens: int = 512
    image_tokens: int = 257
    multiple: int = 16
    stride_time: int = 4

    def block_linears(self) -> int:
        """Weights of the linear layers of one block, biases left out: what is quantised."""
        return 10 * self.width**2 + 2 * self.width * self.ffn

    def block_parameters(self) -> int:
        """Linear layers with biases, five norms over the width and a bias, and the six modulations."""
        return self.block_linears() + 10 * self.width + self.ffn + self.width + 5 * self.width + 2 * self.width + (
            6 * self.width
        )  # fmt: skip

    def parameters(self) -> int:
        """Parameters of the whole denoiser, norms and embeddings included."""
        d, square = self.width, self.width * (self.width + 1)
        patch = self.channels_in * 4 * d + d
        clock = self.frequencies * d + d + square + 6 * square
        text = self.text_width * d + d + square
        image = 2 * self.image_width + self.image_width * (self.image_width + 1) + self.image_width * d + d + 2 * d
        out = self.channels_out * 4 * (d + 1) + 2 * d
        return self.layers * self.block_parameters() + patch + clock + text + image + out

    def float32_parameters(self) -> int:
        """Those that stay in float32 in every model: time embedding, modulations, the affine norm of each block and the
        two of the image embedding."""
        d = self.width
        return self.layers * 8 * d + 2 * d + self.frequencies * d + d + d * (d + 1) + 2 * self.image_width + 2 * d

    def layer_sizes(self, name: str) -> tuple[int, int]:
        """(in, out) of one linear layer of a block."""
        d, f = self.width, self.ffn
        return {"ffn.up": (d, f), "ffn.down": (f, d)}.get(name, (d, d))

    def adapter_parameters(self, rank: int, targets: str) -> int:
        """Trained parameters of a LoRA: `rank * (in + out)` for each adapted layer."""
        blocks = adapted_layers(targets, self.layers)
        return rank * sum(sum(self.layer_sizes(name)) for block in blocks for name in block)

    def trained_layers(self, targets: str) -> frozenset[str]:
        """Layers adapted in any block: what a block is taken to train where blocks are counted alike."""
        return frozenset().union(*adapted_layers(targets, self.layers))

    def tokens(self, frames: int, height: int, width: int) -> int:
        """Tokens of a clip of `frames` = 4n+1 frames."""
        latent_frames = 1 + (frames - 1) // self.stride_time
        return latent_frames * (height // self.multiple) * (width // self.multiple)


@dataclass(frozen=True, slots=True, kw_only=True)
class Encoders:
    """Shapes of the networks around the denoiser: causal video autoencoder (`vae_*`), umT5 (`text_*`) and CLIP's vision
    tower (`eye_*`). `vae_down` says for each step down in space whether time is halved too."""

    vae_base: int
    vae_latent: int
    vae_mult: tuple[int, ...]
    vae_blocks: int
    vae_down: tuple[bool, ...]
    text_layers: int
    text_width: int
    text_inner: int
    text_ffn: int
    text_words: int
    text_tokens: int = 512
    text_heads: int
    eye_layers: int
    eye_width: int
    eye_ffn: int
    eye_side: int
    eye_patch: int

    @property
    def eye_tokens(self) -> int:
        """Patches of a picture and the class token."""
        return (self.eye_side // self.eye_patch) ** 2 + 1

    def text_parameters(self) -> int:
        """umT5 has a table of relative positions (32 buckets) in every layer, gated feed-forward and no biases."""
        each = 4 * self.text_width * self.text_inner + 3 * self.text_width * self.text_ffn
        each += 2 * self.text_width + 32 * self.text_heads
        return self.text_words * self.text_width + self.text_layers * each + self.text_width

    def vae_parameters(self) -> int:
        """The autoencoder's: kernels and biases of its convolutions, one scale a channel in its norms."""
        base, latent, down = self.vae_base, self.vae_latent, self.vae_down
        inward = [base * mult for mult in (1, *self.vae_mult)]
        outward = [base * mult for mult in (self.vae_mult[-1], *reversed(self.vae_mult))]
        total = _conv(3, inward[0], 27) + _conv(inward[-1], 2 * latent, 27) + _conv(2 * latent, 2 * latent, 1)
        total += _conv(latent, latent, 1) + _conv(latent, outward[0], 27) + _conv(outward[-1], 3, 27)
        total += _middle(inward[-1]) + _middle(outward[0]) + inward[-1] + outward[-1]
        for level, (size_in, size_out) in enumerate(pairwise(inward)):
            total += _residual(size_in, size_out) + (self.vae_blocks - 1) * _residual(size_out, size_out)
            if level < len(down):
                total += _conv(size_out, size_out, 9) + (_conv(size_out, size_out, 3) if down[level] else 0)
        for level, (size_in, size_out) in enumerate(pairwise(outward)):
            start = size_in // 2 if level else size_in
            total += _residual(start, size_out) + self.vae_blocks * _residual(size_out, size_out)
            if level < len(down):
                total += _conv(size_out, size_out // 2, 9)
                total += _conv(size_out, 2 * size_out, 3) if down[::-1][level] else 0
        return total

    def eye_parameters(self) -> int:
        """CLIP's vision tower without its projection."""
        d, f = self.eye_width, self.eye_ffn
        each = 4 * d * (d + 1) + 2 * d * f + f + d + 4 * d
        return self.eye_layers * each + 3 * self.eye_patch**2 * d + d + self.eye_tokens * d + 4 * d


def _conv(size_in: int, size_out: int, taps: int) -> int:
    return size_out * (size_in * taps + 1)


def _residual(size_in: int, size_out: int) -> int:
    """Two norms, two 3x3x3 convolutions and, where the width changes, a 1x1x1 beside them."""
    beside = _conv(size_in, size_out, 1) if size_in != size_out else 0
    return size_in + size_out + _conv(size_in, size_out, 27) + _conv(size_out, size_out, 27) + beside


def _middle(width: int) -> int:
    """Two residual blocks around attention with its norm."""
    return 2 * _residual(width, width) + width + 4 * _conv(width, width, 1)


WAN21 = Denoiser(
    layers=40, width=5120, heads=40, ffn=13824, channels_in=36, channels_out=16, text_width=4096, image_width=1280,
    frequencies=256,
)  # fmt: skip

WAN21_ENCODERS = Encoders(
    vae_base=96, vae_latent=16, vae_mult=(1, 2, 4, 4), vae_blocks=2, vae_down=(False, True, True), text_layers=24,
    text_width=4096, text_inner=4096, text_ffn=10240, text_words=256384, text_heads=64, eye_layers=32, eye_width=1280,
    eye_ffn=5120, eye_side=224, eye_patch=14,
)  # fmt: skip


_MOST = 10_000_000  # of anything that a configuration counts


def denoiser_of(shape: Mapping[str, Any], *, image_tokens: int, multiple: int) -> Denoiser:
    """The shape in a denoiser's `config.json`. Raises `ValueError` for one that is none."""
    known = Denoiser(
        layers=_count(shape, "num_layers"),
        width=_count(shape, "num_attention_heads") * _count(shape, "attention_head_dim"),
        heads=_count(shape, "num_attention_heads"),
        ffn=_count(shape, "ffn_dim"),
        channels_in=_count(shape, "in_channels"),
        channels_out=_count(shape, "out_channels"),
        text_width=_count(shape, "text_dim"),
        image_width=_count(shape, "image_dim"),
        frequencies=_count(shape, "freq_dim"),
    )
    return replace(known, image_tokens=image_tokens, multiple=multiple)


def encoders_of(vae: Mapping[str, Any], text: Mapping[str, Any], eye: Mapping[str, Any]) -> Encoders:
    """The shapes in the `config.json` of autoencoder, text encoder and image encoder. Raises `ValueError` likewise."""
    return Encoders(
        vae_base=_count(vae, "base_dim"),
        vae_latent=_count(vae, "z_dim"),
        vae_mult=_counts(vae, "dim_mult"),
        vae_blocks=_count(vae, "num_res_blocks"),
        vae_down=_flags(vae, "temperal_downsample"),
        text_layers=_count(text, "num_layers"),
        text_width=_count(text, "d_model"),
        text_inner=_count(text, "num_heads") * _count(text, "d_kv"),
        text_ffn=_count(text, "d_ff"),
        text_words=_count(text, "vocab_size"),
        text_heads=_count(text, "num_heads"),
        eye_layers=_count(eye, "num_hidden_layers"),
        eye_width=_count(eye, "hidden_size"),
        eye_ffn=_count(eye, "intermediate_size"),
        eye_side=_count(eye, "image_size"),
        eye_patch=_count(eye, "patch_size"),
    )


def _count(table: Mapping[str, Any], key: str) -> int:
    """Raises `ValueError` for what is no number of layers, channels or words."""
    value = table.get(key)
    if type(value) is not int or not 0 < value <= _MOST:
        raise ValueError(f"{key} = {value!r:.60} is no count")
    return value


def _counts(table: Mapping[str, Any], key: str) -> tuple[int, ...]:
    value = table.get(key)
    return tuple(_count({key: each}, key) for each in (value if isinstance(value, list) else [None]))


def _flags(table: Mapping[str, Any], key: str) -> tuple[bool, ...]:
    value = table.get(key)
    if not isinstance(value, list) or not all(type(each) is bool for each in value):
        raise ValueError(f"{key} = {value!r:.60} is no list of true and false")
    return tuple(value)
