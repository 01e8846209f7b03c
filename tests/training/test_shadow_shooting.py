"""Memory of passes without gradients: the formulas against the tensors that torch has alive."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
import torch
from diffusers import AutoencoderKLWan
from diffusers.models.autoencoders.autoencoder_kl_wan import WanCausalConv3d
from torch._subclasses.fake_tensor import FakeTensorMode
from transformers import UMT5EncoderModel

from cinetune.cost.memory import Setting, Storage
from cinetune.cost.shape import TARGET_LAYERS, WAN21, WAN21_ENCODERS, Encoders, encoders_of
from cinetune.cost.shooting import decoding_bytes, denoising_bytes, encoding_bytes
from cinetune.generation.segment import Recipe, generate, pictures
from cinetune.models import load_model
from cinetune.models.wan.pocket import VAE, weights_folder
from cinetune.sections import ModelSection
from memory_trace import Live, hollow
from shadows import POCKET, RANK, WIDE_SHAPE, denoiser, loss_of


@pytest.fixture(scope="module")
def pocket() -> Encoders:
    folder = weights_folder()
    read = [
        json.loads((folder / part / "config.json").read_text()) for part in ("vae", "text_encoder", "image_encoder")
    ]
    return encoders_of(*read)


@pytest.mark.parametrize(
    ("targets", "dtype"),
    [("cross", torch.bfloat16), *(pytest.param(name, kind, marks=pytest.mark.slow)
     for name in ("", *TARGET_LAYERS) for kind in (torch.bfloat16, torch.float32))],
)  # fmt: skip
def test_denoising_at_full_width(targets: str, dtype: torch.dtype) -> None:
    """Two blocks of 14B over 33 frames of 480x832, without its weights: the plain model and every choice of targets."""
    network, fake = denoiser(WIDE_SHAPE, targets=targets or "cross", dtype=dtype, device="meta"), FakeTensorMode()
    if not targets:
        network.disable_adapters()
    hollow(network, fake)
    with fake, torch.no_grad():
        step = loss_of(network, replace(WAN21, layers=2), (9, 60, 104), dtype=dtype)
        with Live() as live:
            step()
    setting = Setting(bytes_each=dtype.itemsize)
    predicted = denoising_bytes(WAN21, 14_040, targets=targets, rank=RANK, setting=setting)
    assert predicted == pytest.approx(live.peak, rel=0.05)


@pytest.mark.parametrize("storage", ["fp8", "int8", "nf4"])
def test_denoising_with_stored_weights(storage: Storage) -> None:
    """Few tokens, so that unpacking a weight is most of it."""
    network = denoiser(WIDE_SHAPE, targets="cross", dtype=torch.bfloat16, device="meta", storage=storage)
    fake = FakeTensorMode(allow_non_fake_inputs=True)  # the levels of nf4
    hollow(network, fake)
    with fake, torch.no_grad():
        step = loss_of(network, replace(WAN21, layers=2), (1, 32, 32), dtype=torch.bfloat16)
        with Live() as live:
            step()
    predicted = denoising_bytes(WAN21, 256, targets="cross", rank=RANK, setting=Setting(storage=storage))
    assert predicted == pytest.approx(live.peak, rel=0.1)


def _decode(vae: Any, latents: torch.Tensor) -> None:
    """As `WanVideo.decode` does."""
    history: list[Any] = [None] * sum(isinstance(module, WanCausalConv3d) for module in vae.decoder.modules())
    for index in range(latents.shape[2]):
        now = latents[:, :, index : index + 1]
        vae.decoder(now, feat_cache=history, feat_idx=[0], first_chunk=index == 0)


@pytest.mark.parametrize("full_size", [False, True])
def test_autoencoder(pocket: Encoders, full_size: bool) -> None:
    """Both ways, at pocket's size and at 14B's for 480x832."""
    with torch.device("meta"):
        vae = AutoencoderKLWan() if full_size else AutoencoderKLWan(**VAE)
    shape, (height, width) = (WAN21_ENCODERS, (480, 832)) if full_size else (pocket, (64, 96))
    fake = FakeTensorMode()
    hollow(vae, fake)
    with fake, torch.no_grad():
        with Live() as live:
            latents = vae.encode(torch.empty(2, 3, 17, height, width), return_dict=False)[0].mode()
        assert encoding_bytes(shape, 17, height, width, clips=2) == pytest.approx(live.peak, rel=0.02)
        latents = latents[:1]
        with Live() as live:
            _decode(vae, latents)
        assert decoding_bytes(shape, height, width) == pytest.approx(live.peak, rel=0.02)


def test_the_autoencoder_on_real_tensors(pocket: Encoders) -> None:
    model: Any = load_model(ModelSection(), parts="encoders")
    with Live() as live:
        latents = model.encode_video(torch.zeros(1, 3, 17, 64, 96))
    # A CPU's own ways of normalising need a little less than the plain layers that the formula counts.
    assert live.peak <= encoding_bytes(pocket, 17, 64, 96) <= 1.1 * live.peak
    with Live() as live:
        for _ in model.decode(latents):
            pass
    assert decoding_bytes(pocket, 64, 96) == pytest.approx(live.peak, rel=0.05)


def test_a_whole_segment_of_pocket_on_real_tensors(pocket: Encoders) -> None:
    """From the first picture to the last: the largest of its parts, within 10 %."""
    model: Any = load_model(ModelSection())
    recipe = Recipe(prompt="a barn", negative="", frames=33, steps=1, guidance=5.0, shift=3.0)
    picture = torch.rand(64, 96, 3)
    with Live() as live:
        for _ in pictures(model, generate(model, picture, recipe, seed=0)):
            pass
    parts = (
        denoising_bytes(POCKET, 864, targets="", rank=0, setting=Setting(bytes_each=4)),
        encoding_bytes(pocket, 33, 64, 96, repeats=True),
        decoding_bytes(pocket, 64, 96),
    )
    assert max(parts) == pytest.approx(live.peak, rel=0.1)


def test_text_needs_less_than_pictures(pocket: Encoders) -> None:
    """So the pictures alone decide how much caching needs."""
    text = UMT5EncoderModel.from_pretrained(weights_folder() / "text_encoder")
    for prompts in (1, 5):
        with torch.no_grad(), Live() as live:
            text(torch.zeros(prompts, 512, dtype=torch.long), torch.ones(prompts, 512))
        assert live.peak < encoding_bytes(pocket, 33, 64, 96, clips=prompts)
