"""Rotary positions on a CPU: pairs of channels turned as complex numbers, one multiplication in place of four and six
passes over memory. Exact but for rounding.
"""

from __future__ import annotations

from typing import Any

import torch
from diffusers.models.attention_dispatch import dispatch_attention_fn
from diffusers.models.transformers.transformer_wan import WanAttnProcessor
from torch import Tensor

__all__ = ["turn_as_complex"]

Tables = tuple[Tensor, Tensor]


class _Turns:
    """The last tables of cosines and sines as complex numbers; all blocks of a pass are given the same ones."""

    def __init__(self) -> None:
        self.known: tuple[Tables | None, Tensor] = (None, torch.zeros(0))

    def of(self, tables: Tables) -> Tensor:
        if torch.compiler.is_compiling():  # a program has no memory of other passes
            return _as_complex(tables)
        if self.known[0] is not tables:
            self.known = tables, _as_complex(tables)
        return self.known[1]


def _as_complex(tables: Tables) -> Tensor:
    cosines, sines = tables
    return torch.complex(cosines[..., 0::2].contiguous(), sines[..., 1::2].contiguous())


class _SelfAttention(WanAttnProcessor):
    """diffusers' own, but for how queries and keys are turned."""

    def __init__(self, turns: _Turns) -> None:
        super().__init__()
        self.turns = turns

    def __call__(
        self,
        attn: Any,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        rotary_emb: Tables | None = None,
    ) -> Tensor:
        # shared out over several processes, or in half precision, which complex numbers do not have: diffusers' way
        if self._parallel_config is not None or rotary_emb is None or hidden_states.dtype != torch.float32:
            return super().__call__(attn, hidden_states, encoder_hidden_states, attention_mask, rotary_emb)
        turn = self.turns.of(rotary_emb)
        query, key = attn.norm_q(attn.to_q(hidden_states)), attn.norm_k(attn.to_k(hidden_states))
        q, k = (_turned(part.unflatten(2, (attn.heads, -1)), turn) for part in (query, key))
        v = attn.to_v(hidden_states).unflatten(2, (attn.heads, -1))
        out = dispatch_attention_fn(q, k, v, backend=self._attention_backend)  # pyright: ignore[reportArgumentType]
        return attn.to_out[1](attn.to_out[0](out.flatten(2, 3)))


def _turned(x_BLHD: Tensor, turn: Tensor) -> Tensor:
    pairs = torch.view_as_complex(x_BLHD.unflatten(-1, (-1, 2)))
    return torch.view_as_real(pairs * turn).flatten(-2)


def turn_as_complex(denoiser: Any) -> None:
    """Make the self-attention of every block of a Wan denoiser turn queries and keys as complex numbers."""
    turns = _Turns()
    for block in denoiser.blocks:
        block.attn1.set_processor(_SelfAttention(turns))
