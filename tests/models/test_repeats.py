"""What is told of a first frame is what encoding it with all its grey gives, bit for bit, for less work."""

from __future__ import annotations

import pytest
import torch

from cinetune.models.wan.wan21 import WanVideo


@pytest.mark.parametrize("frames", [1, 5, 9, 33])
def test_the_latents_are_those_of_the_whole_clip(model: WanVideo, frames: int) -> None:
    first = torch.rand(2, 3, 32, 48, generator=torch.Generator().manual_seed(frames)) * 2 - 1
    clip = torch.zeros(2, 3, frames, 32, 48)
    clip[:, :, 0] = first
    whole = model.encode_video(clip)
    assert torch.equal(model.condition_latent(first, frames)[:, 4:], whole)
    assert torch.equal(model.encode_video(clip), whole), "nothing is remembered from one clip to the next"


def test_early_layers_work_on_grey_only_until_it_repeats(model: WanVideo) -> None:
    calls = {"first": 0, "last": 0}
    blocks = model.vae.encoder.down_blocks
    for name, block in (("first", blocks[0]), ("last", model.vae.encoder.mid_block)):
        block.register_forward_hook(lambda *_, name=name: calls.__setitem__(name, calls[name] + 1))
    model.condition_latent(torch.rand(1, 3, 32, 48), 33)
    assert calls == {"first": 4, "last": 9}, "nine chunks; from the fifth on the first block is asked the same"
