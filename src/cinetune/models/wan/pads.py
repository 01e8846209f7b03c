"""Cross-attention to a text that is mostly padding, with the padding as one key.

Wan pads every text with zeros to 512 tokens and lets the denoiser see them. All pads of a text have one key and one
value, and in a softmax m equal keys weigh as one key with log m added to its score:

    sum_j exp(q k) over m pads = exp(q k + log m)

so most of the work of cross-attention, in a small model a fifth of all, gives what one column gives. Exact but for
rounding. It needs scores with something added, which fast kernels of GPUs do not take, and there cross-attention is a
hundredth of the work; so it is for models on a CPU.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from diffusers.models.attention_dispatch import dispatch_attention_fn
from diffusers.models.transformers.transformer_wan import WanAttnProcessor
from torch import Tensor

__all__ = ["FoldedPads", "fold_pads", "folded_text"]


@dataclass(slots=True)
class FoldedPads:
    """What is added to the scores of each text token in the pass that runs, `[B, 1, 1, tokens]`; None = nothing is
    folded in it.
    """

    added: Tensor | None = None


def folded_text(text_BLD: Tensor) -> tuple[Tensor, Tensor]:
    """The text with as few pads (rows of zeros at its end) as can stand for all, and what to add to the scores of each
    row, `[B, 1, 1, rows]`. The pads of a shorter text in a batch share the weight of all its pads.
    """
    length = text_BLD.shape[1]
    used = (text_BLD != 0).any(dim=2)
    places = torch.arange(1, length + 1, device=text_BLD.device)
    real_B = (used * places).amax(dim=1)
    rows = min(int(real_B.max()) + 1, length)
    pads_B = (length - real_B).clamp(min=1).double() / (rows - real_B).clamp(min=1).double()
    padding = torch.arange(rows, device=text_BLD.device)[None] >= real_B[:, None]
    added = torch.where(padding, pads_B.log()[:, None], 0.0).to(text_BLD.dtype)
    return text_BLD[:, :rows], added[:, None, None, :]


class _CrossAttention(WanAttnProcessor):
    """diffusers' own, but for the number of text tokens and what is added to their scores."""

    def __init__(self, folded: FoldedPads) -> None:
        super().__init__()
        self.folded = folded

    def __call__(
        self,
        attn: Any,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        rotary_emb: tuple[Tensor, Tensor] | None = None,
    ) -> Tensor:
        added = self.folded.added
        if added is None or encoder_hidden_states is None:
            return super().__call__(attn, hidden_states, encoder_hidden_states, attention_mask, rotary_emb)
        image, text = encoder_hidden_states.split(
            [encoder_hidden_states.shape[1] - added.shape[-1], added.shape[-1]], dim=1
        )
        query = attn.norm_q(attn.to_q(hidden_states))
        out = self._attend(attn, query, attn.norm_k(attn.to_k(text)), attn.to_v(text), added)
        if attn.add_k_proj is not None:
            out = out + self._attend(
                attn, query, attn.norm_added_k(attn.add_k_proj(image)), attn.add_v_proj(image), None
            )
        return attn.to_out[1](attn.to_out[0](out))

    def _attend(self, attn: Any, query: Tensor, key: Tensor, value: Tensor, added: Tensor | None) -> Tensor:
        q, k, v = (part.unflatten(2, (attn.heads, -1)) for part in (query, key, value))
        out = dispatch_attention_fn(q, k, v, attn_mask=added, backend=self._attention_backend)  # pyright: ignore[reportArgumentType]
        return out.flatten(2, 3).type_as(query)


def fold_pads(denoiser: Any) -> FoldedPads:
    """Make the cross-attention of every block of a Wan denoiser able to fold; the result switches it pass by pass."""
    folded = FoldedPads()
    for block in denoiser.blocks:
        block.attn2.set_processor(_CrossAttention(folded))
    return folded
