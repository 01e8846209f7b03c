"""What is particular to Wan2.1: sizes of the full model, conditioning layout, loading."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from cinetune.errors import ModelError, WeightsError
from cinetune.models.adapters.lora import add_lora
from cinetune.models.prompts import clean_prompt
from cinetune.models.wan.wan21 import WanVideo, pad_text
from support import tiny_wan, wan21_meta


def test_the_full_model_has_its_published_size() -> None:
    model = wan21_meta()
    assert sum(p.numel() for p in model.parameters()) == 16_394_878_784
    assert {p.device.type for p in model.parameters()} == {"meta"}


@pytest.mark.parametrize("frames", [1, 5, 9])
def test_the_mask_marks_the_first_latent_frame_only(model: WanVideo, frames: int) -> None:
    latent = model.condition_latent(torch.zeros(2, 3, 32, 48), frames)
    mask = latent[:, :4]
    assert latent.shape == (2, 20, 1 + (frames - 1) // 4, 8, 12)
    assert bool((mask[:, :, 0] == 1).all()) and not bool(mask[:, :, 1:].any())


def test_frames_after_the_first_are_encoded_grey(model: WanVideo) -> None:
    latent = model.condition_latent(torch.ones(1, 3, 32, 48), 5)
    grey = model.encode_video(torch.cat([torch.ones(1, 3, 1, 32, 48), torch.zeros(1, 3, 4, 32, 48)], dim=2))
    assert torch.equal(latent[:, 4:], grey)
    assert grey[:, :, 1].abs().mean() > 0.1  # zeroed latents would be another condition


@pytest.mark.parametrize("frames", [2, 8, 30, 32])
def test_frames_off_the_rule_are_refused(model: WanVideo, frames: int) -> None:
    with pytest.raises(ModelError, match=r"4n\+1"):
        model.encode_video(torch.zeros(1, 3, frames, 32, 48))


def test_sizes_off_the_grid_are_refused(model: WanVideo) -> None:
    with pytest.raises(ModelError, match="multiples of 8"):
        model.condition(["a hill"], torch.zeros(1, 3, 36, 48), 9)


@pytest.mark.parametrize(("frames", "width"), [(1, 8200), (4097, 8)])
def test_pictures_without_a_position_for_every_patch_are_refused(model: WanVideo, frames: int, width: int) -> None:
    with pytest.raises(ModelError, match="more than tiny has positions for") as caught:
        model.encode_video(torch.zeros(1, 3, frames, 8, width))
    assert caught.value.remedy == "sides up to 8192 pixels and 4093 frames can be made"


def test_a_last_keyframe_is_refused(model: WanVideo) -> None:
    picture = torch.zeros(1, 3, 32, 48)
    with pytest.raises(ModelError, match="last keyframe"):
        model.condition(["a hill"], picture, 9, last_BCHW=picture)


def test_prompts_and_pictures_must_be_as_many(model: WanVideo) -> None:
    with pytest.raises(ModelError, match="2 prompts for 1"):
        model.condition(["a", "b"], torch.zeros(1, 3, 32, 48), 9)


def test_squash_sees_the_borders_and_crop_does_not(tiny_folder: Path) -> None:
    plain = torch.zeros(1, 3, 32, 96)
    framed = plain.clone()
    framed[..., :16] = 1
    changes: dict[str, float] = {}
    for how in ("squash", "crop"):
        model = WanVideo.from_folder(tiny_folder, family="pocket", clip_preprocess=how)
        changes[how] = (model.image_tokens(framed) - model.image_tokens(plain)).abs().max().item()
    assert changes["crop"] == 0 and changes["squash"] > 1e-3


def test_prompts_are_cleaned_as_the_original_does() -> None:
    assert clean_prompt("  a &amp;amp; b\n\tdon\u2019t  ") == "a & b don't"


def test_text_is_unpadded_and_pads_with_zeros(model: WanVideo) -> None:
    rows = model.text(["the car in the rain", ""])
    assert [len(row) for row in rows] == [6, 1]
    padded = pad_text(rows)
    assert padded.shape == (2, 512, 32)
    assert torch.equal(padded[0, :6], rows[0]) and not bool(padded[0, 6:].any()) and not bool(padded[1, 1:].any())


def test_a_long_prompt_is_cut_to_512_tokens(model: WanVideo) -> None:
    assert len(model.text(["rain " * 600])[0]) == 512


def test_parts_load_alone(tiny_folder: Path) -> None:
    encoders = WanVideo.from_folder(tiny_folder, family="pocket", parts="encoders")
    with pytest.raises(ModelError, match="without its denoiser"):
        _ = encoders.denoiser
    denoiser = WanVideo.from_folder(tiny_folder, family="pocket", parts="denoiser")
    cond = encoders.condition(["a hill"], torch.zeros(1, 3, 32, 48), 5)
    assert denoiser.velocity(torch.zeros(1, 16, 2, 8, 12), torch.tensor([0.5]), cond).shape == (1, 16, 2, 8, 12)


def test_bfloat16_keeps_vae_and_clip_in_float32(tiny_folder: Path) -> None:
    model = WanVideo.from_folder(tiny_folder, family="pocket", dtype="bfloat16")
    assert model.denoiser.patch_embedding.weight.dtype == torch.bfloat16
    assert model.denoiser.scale_shift_table.dtype == torch.float32  # diffusers keeps these few in float32
    cond = model.condition(["a hill"], torch.zeros(1, 3, 32, 48), 5)
    assert cond.image_BLD.dtype == cond.latent_BCfhw.dtype == torch.float32
    exact = WanVideo.from_folder(tiny_folder, family="pocket")
    x, sigma = torch.randn(1, 16, 2, 8, 12, generator=torch.Generator().manual_seed(0)), torch.tensor([0.7])
    with torch.no_grad():
        rough, fine = model.velocity(x, sigma, cond), exact.velocity(x, sigma, cond)
    assert rough.dtype == torch.float32 and (rough - fine).norm() / fine.norm() < 0.05


def test_building_a_model_leaves_the_random_state_alone() -> None:
    torch.manual_seed(5)
    want = torch.rand(3)
    torch.manual_seed(5)
    tiny_wan()
    assert torch.equal(torch.rand(3), want)


def test_equal_seeds_give_equal_weights() -> None:
    first, again, other = tiny_wan(seed=1), tiny_wan(seed=1), tiny_wan(seed=2)
    assert first.info.weights_sha256 == again.info.weights_sha256 != other.info.weights_sha256


def test_an_empty_word_table_is_refused(tiny_folder: Path, tmp_path: Path) -> None:
    folder = tmp_path / "broken"
    shutil.copytree(tiny_folder, folder)
    path = folder / "text_encoder" / "model.safetensors"
    tensors = load_file(path)
    words = [key for key in tensors if key.endswith(("shared.weight", "embed_tokens.weight"))]
    save_file(tensors | {key: torch.zeros_like(tensors[key]) for key in words}, path, metadata={"format": "pt"})
    with pytest.raises(WeightsError, match="all zeros"):
        WanVideo.from_folder(folder, family="pocket")


def test_pocket_facts_come_without_a_card(tiny_folder: Path, tmp_path: Path) -> None:
    folder = tmp_path / "pocket"
    shutil.copytree(tiny_folder, folder)
    (folder / "cinetune.json").unlink()
    info = WanVideo.from_folder(folder, family="pocket", parts="denoiser").info
    release = info.release
    assert (release.frames, release.height, release.width, release.name) == (33, 64, 96, "pocket")
    assert (
        info.multiple == 8
        and json.loads((folder / "vae" / "config.json").read_text())["scale_factor_spatial"] == info.stride_space
    )


def test_streamed_decoding_is_the_whole_decode_bit_for_bit(model: WanVideo) -> None:
    z = torch.randn(2, 16, 4, 4, 6, generator=torch.Generator().manual_seed(0))
    mean, std = (torch.tensor(model.vae.config[name]).view(1, 16, 1, 1, 1) for name in ("latents_mean", "latents_std"))
    with torch.no_grad():
        want = model.vae.decode(z / (1 / std) + mean, return_dict=False)[0]
    assert torch.equal(torch.cat(list(model.decode(z)), dim=2), want)


def test_activation_checkpointing_changes_nothing(model: WanVideo) -> None:
    gradients: list[list[torch.Tensor]] = []
    cond = model.condition(["a hill"], torch.zeros(1, 3, 32, 32), 5)
    x = torch.randn(1, 16, 2, 8, 8, generator=torch.Generator().manual_seed(0))
    added = add_lora(model, rank=2, alpha=4, targets="cross", seed=0)
    for checkpointing in (False, True):
        if checkpointing:
            model.denoiser.enable_gradient_checkpointing()
        model.velocity(x, torch.tensor([0.4]), cond).square().mean().backward()
        gradients.append([p.grad.clone() for _, p in added if p.grad is not None])
        model.denoiser.zero_grad()
    assert len(gradients[0]) == len(added) and all(torch.equal(a, b) for a, b in zip(*gradients, strict=True))


def test_encoders_come_to_the_device_only_when_they_are_called(
    tiny_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Beside a denoiser; and the text encoder once for one prompt, however many segments are told it."""
    model = WanVideo.from_folder(tiny_folder, family="wan21")
    moves: list[str] = []

    def moved(name: str, part: Any) -> None:
        plain = part.to

        def to(place: Any) -> Any:
            moves.append(f"{name} {'home' if place == 'cpu' else 'called'}")
            return plain(place)

        monkeypatch.setattr(part, "to", to)

    moved("text", model._text_encoder)
    moved("eye", model._image_encoder)
    picture = torch.rand(1, 3, 32, 48) * 2 - 1
    first = model.condition(["a man"], picture, 5, negative=["rain"])
    assert moves == ["text called", "text home", "eye called", "eye home", "text called", "text home"]
    moves.clear()
    again = model.condition(["a man"], picture, 5, negative=["rain"])
    assert moves == ["eye called", "eye home"]
    assert torch.equal(first.text_BLD, again.text_BLD)
    model.text(["a", "man"])
    assert moves[2:] == ["text called", "text home"]


def test_encoders_that_are_alone_stay_where_they_are(tiny_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = WanVideo.from_folder(tiny_folder, family="wan21", parts="encoders")
    monkeypatch.setattr(model._text_encoder, "to", lambda _: pytest.fail("it was moved"))
    assert len(model.text(["a man"])) == 1
