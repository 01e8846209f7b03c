"""Self-attention of a Wan denoiser over processes that share its tokens (Ulysses, Jacobs et al., arXiv 2309.14509).

Each process holds some tokens with all heads. Before attention they exchange parts, so that each holds all tokens with
some heads, and afterwards they exchange back. Written with collectives that autograd and the compiler can see through:
diffusers' own, an autograd function, breaks the graph of every block, and a compiled block ran uncompiled.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from diffusers.models.attention_dispatch import dispatch_attention_fn
from diffusers.models.transformers.transformer_wan import WanAttnProcessor
from torch import Tensor, distributed, stack
from torch.distributed import _functional_collectives as collectives

__all__ = ["exchange_heads", "first_block_takes_its_part"]


class _SharedAttention(WanAttnProcessor):
    """diffusers' own for self-attention, but for the exchange around it."""

    def __init__(self, backend: Any, group: distributed.ProcessGroup) -> None:
        super().__init__()
        self._attention_backend = backend
        self.group, self.size = group, group.size()

    def __call__(
        self,
        attn: Any,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        rotary_emb: tuple[Tensor, Tensor] | None = None,
    ) -> Tensor:
        assert encoder_hidden_states is None and attention_mask is None and rotary_emb is not None
        query, key, value = attn.to_q(hidden_states), attn.to_k(hidden_states), attn.to_v(hidden_states)
        q, k, v = (part.unflatten(2, (attn.heads, -1)) for part in (attn.norm_q(query), attn.norm_k(key), value))
        q, k, v = (self._to_heads(part) for part in (_turned(q, *rotary_emb), _turned(k, *rotary_emb), v))
        out = dispatch_attention_fn(q, k, v, backend=self._attention_backend)  # pyright: ignore[reportArgumentType]
        return attn.to_out[1](attn.to_out[0](self._to_tokens(out).flatten(2, 3).type_as(query)))

    def _to_heads(self, x_BLHD: Tensor) -> Tensor:
        """[B, own tokens, all heads, D] to [B, all tokens, own heads, D]."""
        parts = x_BLHD.unflatten(2, (self.size, -1)).permute(2, 1, 0, 3, 4).contiguous()
        return self._exchanged(parts).flatten(0, 1).transpose(0, 1).contiguous()

    def _to_tokens(self, x_BLHD: Tensor) -> Tensor:
        """And back."""
        parts = x_BLHD.unflatten(1, (self.size, -1)).permute(1, 3, 0, 2, 4).contiguous()
        return self._exchanged(parts).flatten(0, 1).permute(1, 2, 0, 3).contiguous()

    def _exchanged(self, parts: Tensor) -> Tensor:
        """Part n to process n, and the part of each of them in its place."""
        flat = collectives.all_to_all_single_autograd(parts.flatten(), None, None, self.group)
        return collectives.wait_tensor(flat).view(parts.shape)


def _turned(x_BLHD: Tensor, cosines: Tensor, sines: Tensor) -> Tensor:
    """Rotary positions: pairs of channels turned by the angle of their token."""
    one, other = x_BLHD.unflatten(-1, (-1, 2)).unbind(-1)
    cos, sin = cosines[..., 0::2], sines[..., 1::2]
    return stack([one * cos - other * sin, one * sin + other * cos], dim=-1).flatten(-2).type_as(x_BLHD)


def exchange_heads(denoiser: Any, group: distributed.ProcessGroup) -> None:
    """Make the self-attention of every block exchange heads for tokens among the processes of `group`."""
    for block in denoiser.blocks:
        block.attn1.set_processor(_SharedAttention(block.attn1.processor._attention_backend, group))


def first_block_takes_its_part(denoiser: Any, group: distributed.ProcessGroup) -> None:
    """Cut the tokens of the first block down to this process's. Around its call, compiled or not: a hook would stand in
    its graph, which would then be another than that of all other blocks.
    """
    first, size, rank = denoiser.blocks[0], group.size(), group.rank()
    call: Callable[..., Tensor] = first._compiled_call_impl or first._call_impl

    def with_own_tokens(hidden_states: Tensor, *others: Any, **named: Any) -> Tensor:
        return call(hidden_states.chunk(size, dim=1)[rank], *others, **named)

    first._compiled_call_impl = with_own_tokens
