"""The pre-training shortcut must be the real cross-attention, not something like it."""

from __future__ import annotations

import copy
import sys
from pathlib import Path

import torch

from cinetune.models.wan import pocket

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tools"))
from pocket_training import short_text


def test_short_text_equals_attention_over_all_512_tokens():
    generator = torch.Generator().manual_seed(0)
    plain = pocket.fresh(["a"], seed=0).denoiser.eval()
    with torch.no_grad():
        # an untrained Wan answers almost nothing: give its last layer weight, or any bug would pass
        plain.proj_out.weight.copy_(torch.randn(plain.proj_out.weight.shape, generator=generator) * 0.1)
    short = copy.deepcopy(plain)
    short_text.install(short, image_tokens=65)
    lengths = torch.tensor([14, 9])
    text = torch.randn(2, 512, 64, generator=generator)
    for row, length in zip(text, lengths.tolist(), strict=True):
        row[length:] = 0
    common = {
        "hidden_states": torch.randn(2, 36, 2, 16, 24, generator=generator),
        "timestep": torch.tensor([300.0, 800.0]),
        "encoder_hidden_states_image": torch.randn(2, 65, 64, generator=generator),
        "return_dict": False,
    }
    short_text.set_lengths(short, lengths, 15)
    with torch.no_grad():
        whole = plain(encoder_hidden_states=text, **common)[0]
        cut = short(encoder_hidden_states=text[:, :15], **common)[0]
        other = plain(encoder_hidden_states=text.flip(0), **common)[0]
    assert (whole - cut).abs().max() < 1e-4 * whole.abs().max()
    assert (whole - other).abs().max() > 1e-3 * whole.abs().max()  # the text is heard at all
