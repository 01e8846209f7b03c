"""The networks around the denoiser: parameters and operations against torch's own counts, at pocket's and full size."""

from __future__ import annotations

import json

import pytest
import torch
from diffusers import AutoencoderKLWan
from diffusers.models.modeling_outputs import AutoencoderKLOutput
from transformers import CLIPVisionModel, UMT5EncoderModel

from cinetune.cost.operations import image_encoding, text_encoding, video_decoding, video_encoding
from cinetune.cost.shape import WAN21_ENCODERS, Encoders, encoders_of
from cinetune.models.wan.pocket import VAE, weights_folder
from memory_trace import count_operations


@pytest.fixture(scope="module")
def small() -> Encoders:
    read = [
        json.loads((weights_folder() / part / "config.json").read_text())
        for part in ("vae", "text_encoder", "image_encoder")
    ]
    return encoders_of(*read)


@pytest.mark.parametrize("frames", [1, 5, 33])
@pytest.mark.parametrize("full_size", [False, True])
def test_operations_of_the_autoencoder(small: Encoders, frames: int, full_size: bool) -> None:
    with torch.device("meta"):
        vae = AutoencoderKLWan() if full_size else AutoencoderKLWan(**VAE)
    shape = WAN21_ENCODERS if full_size else small
    assert shape.vae_parameters() == sum(parameter.numel() for parameter in vae.parameters())
    video = torch.zeros(1, 3, frames, 64, 96, device="meta")
    with torch.no_grad(), count_operations() as counter:
        encoded = vae.encode(video)
        assert isinstance(encoded, AutoencoderKLOutput)
        latents = encoded.latent_dist.mode()
    assert video_encoding(shape, frames, 64, 96) == counter.get_total_flops()
    with torch.no_grad(), count_operations() as counter:
        vae.decode(latents)
    assert video_decoding(shape, frames, 64, 96) == counter.get_total_flops()


def test_text_and_image_encoder(small: Encoders) -> None:
    text = UMT5EncoderModel.from_pretrained(weights_folder() / "text_encoder")
    eye = CLIPVisionModel.from_pretrained(weights_folder() / "image_encoder")
    assert small.text_parameters() == sum(parameter.numel() for parameter in text.parameters())
    assert small.eye_parameters() == sum(parameter.numel() for parameter in eye.parameters())
    with torch.no_grad(), count_operations() as counter:
        text(torch.zeros(1, 512, dtype=torch.long), torch.ones(1, 512))
    assert text_encoding(small) == counter.get_total_flops()
    with torch.no_grad(), count_operations() as counter:
        eye(pixel_values=torch.zeros(1, 3, 64, 64))
    assert image_encoding(small) == counter.get_total_flops()


def test_the_published_sizes_of_wan21s_encoders() -> None:
    assert WAN21_ENCODERS.text_parameters() == 5_680_910_336
    assert WAN21_ENCODERS.eye_parameters() == 630_766_080
