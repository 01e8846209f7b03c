"""Self-attention of the denoiser as it trains fastest: on a CPU in float32, and over some of the latent frames.

A denoiser that sees five latent frames of nine, drawn at random and with their true positions in the rotary embedding,
learns motion over the whole window for a bit more than half of the tokens. PyTorch's fused attention takes twice as
long backwards in bfloat16 as in float32 there. Both are for pre-training only.
"""

from __future__ import annotations

from typing import Any, cast

import torch
import torch.nn.functional as F
from diffusers import WanTransformer3DModel
from torch import Tensor, nn


class ChosenFrames(nn.Module):
    """Rotary embedding for a subset of the latent frames; `chosen` (ascending) is set before the forward pass."""

    def __init__(self, rope: nn.Module) -> None:
        super().__init__()
        self.rope = rope
        self.chosen: Tensor | None = None

    def forward(self, hidden_states: Tensor) -> tuple[Tensor, Tensor]:
        if self.chosen is None:
            return self.rope(hidden_states)
        count = hidden_states.shape[2]
        whole = hidden_states.new_empty(1, 1, int(self.chosen[-1]) + 1, *hidden_states.shape[3:])
        cos, sin = self.rope(whole)
        tokens = cos.shape[1] // whole.shape[2]
        picked = [t.unflatten(1, (-1, tokens))[:, self.chosen].reshape(1, count * tokens, 1, -1) for t in (cos, sin)]
        return picked[0], picked[1]


def _rotated(x_BLHD: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Pairs of channels turned by their position's angle (Su et al., 2021)."""
    even, odd = x_BLHD.float().unflatten(-1, (-1, 2)).unbind(-1)
    cos, sin = cos[..., 0::2], sin[..., 1::2]
    return torch.stack((even * cos - odd * sin, even * sin + odd * cos), -1).flatten(-2)


class SelfAttentionProcessor:
    """Attention processor of `attn1` that attends in float32 on a CPU whatever the autocast."""

    _attention_backend = None
    _parallel_config = None

    def __call__(
        self,
        attn: Any,
        hidden_states: Tensor,
        encoder_hidden_states: None = None,
        attention_mask: None = None,
        rotary_emb: tuple[Tensor, Tensor] | None = None,
    ) -> Tensor:
        assert rotary_emb is not None
        query, key = attn.norm_q(attn.to_q(hidden_states)), attn.norm_k(attn.to_k(hidden_states))
        query, key, value = (x.unflatten(2, (attn.heads, -1)) for x in (query, key, attn.to_v(hidden_states)))
        # On a GPU the fused kernels want bfloat16; on a CPU they are slow backwards in it.
        kind = value.dtype if value.is_cuda else torch.float32
        query, key = (_rotated(x, *rotary_emb).to(kind).transpose(1, 2) for x in (query, key))
        with torch.autocast(value.device.type, enabled=False):
            seen = F.scaled_dot_product_attention(query, key, value.to(kind).transpose(1, 2))
        return attn.to_out[1](attn.to_out[0](seen.transpose(1, 2).flatten(2)))


def install(denoiser: WanTransformer3DModel) -> None:
    """Give the denoiser both."""
    model = cast(Any, denoiser)
    model.rope = ChosenFrames(model.rope)
    for block in model.blocks:
        block.attn1.set_processor(SelfAttentionProcessor())


def choose_frames(denoiser: WanTransformer3DModel, chosen: Tensor | None) -> None:
    """Say which latent frames the next forward passes see; None is all."""
    cast(Any, denoiser).rope.chosen = chosen
