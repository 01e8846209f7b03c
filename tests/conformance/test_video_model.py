"""What every video model must do. A new family joins by one line in `MODELS`."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from cinetune.errors import ModelError
from cinetune.models.adapters import lora
from cinetune.models.family import Conditioning, VideoModel
from cinetune.models.wan import pocket
from cinetune.models.wan.wan21 import WanVideo
from support import remove_lora, tiny_wan

MODELS: dict[str, Callable[[], VideoModel]] = {"tiny": tiny_wan}
if pocket.weights_folder().exists():
    MODELS["pocket"] = lambda: WanVideo.from_folder(pocket.weights_folder(), family="pocket")


@pytest.fixture(scope="module", params=sorted(MODELS))
def model(request: pytest.FixtureRequest) -> VideoModel:
    return MODELS[request.param]()


def clip(model: VideoModel, frames: int, *, batch: int = 1) -> Tensor:
    side = 4 * model.info.multiple
    return torch.rand(batch, 3, frames, side, side, generator=torch.Generator().manual_seed(0)) * 2 - 1


def conditioned(model: VideoModel, *, batch: int = 1, latent_frames: int = 2) -> tuple[Tensor, Conditioning]:
    video = clip(model, 1 + model.info.stride_time * (latent_frames - 1), batch=batch)
    cond = model.condition(["a man", "rain"][:batch], video[:, :, 0], video.shape[2], negative=[""] * batch)
    shape = (batch, model.info.latent_channels, *cond.latent_BCfhw.shape[2:])
    return torch.randn(shape, generator=torch.Generator().manual_seed(1)), cond


def test_latents_have_the_promised_shape(model: VideoModel) -> None:
    info, video = model.info, clip(model, 1 + 2 * model.info.stride_time)
    side = video.shape[-1] // info.stride_space
    assert model.encode_video(video).shape == (1, info.latent_channels, 3, side, side)


def test_frames_off_the_rule_are_refused(model: VideoModel) -> None:
    with pytest.raises(ModelError):
        model.encode_video(clip(model, 2))


def test_the_first_latents_do_not_see_later_frames(model: VideoModel) -> None:
    video = clip(model, 1 + 2 * model.info.stride_time)
    whole, opening = model.encode_video(video), model.encode_video(video[:, :, :1])
    torch.testing.assert_close(whole[:, :, :1], opening, atol=1e-5, rtol=1e-5)


def test_encoding_and_conditioning_are_repeatable(model: VideoModel) -> None:
    video = clip(model, 1)
    assert torch.equal(model.encode_video(video), model.encode_video(video))
    _, first = conditioned(model)
    _, again = conditioned(model)
    assert torch.equal(first.text_BLD, again.text_BLD) and torch.equal(first.image_BLD, again.image_BLD)


def test_conditioning_hears_prompt_and_picture(model: VideoModel) -> None:
    picture = clip(model, 1)[:, :, 0]
    first, said, seen = (
        model.condition([p], x, 1) for p, x in (("a man", picture), ("rain", picture), ("a man", -picture))
    )
    assert first.negative_BLD is None
    assert not torch.equal(first.text_BLD, said.text_BLD) and torch.equal(first.latent_BCfhw, said.latent_BCfhw)
    assert not torch.equal(first.image_BLD, seen.image_BLD) and not torch.equal(first.latent_BCfhw, seen.latent_BCfhw)


@torch.no_grad()
def test_velocity_is_finite_float32_and_feels_every_input(model: VideoModel) -> None:
    x, cond = conditioned(model)
    out = model.velocity(x, torch.tensor([0.5]), cond)
    assert out.shape == x.shape and out.dtype == torch.float32 and bool(torch.isfinite(out).all())
    assert not torch.equal(out, model.velocity(x, torch.tensor([0.9]), cond))
    assert cond.negative_BLD is not None
    changes = {"text_BLD": cond.negative_BLD, "image_BLD": -cond.image_BLD, "latent_BCfhw": -cond.latent_BCfhw}
    for name, value in changes.items():
        parts = {"text_BLD": cond.text_BLD, "image_BLD": cond.image_BLD, "latent_BCfhw": cond.latent_BCfhw} | {
            name: value
        }
        assert not torch.equal(out, model.velocity(x, torch.tensor([0.5]), Conditioning(**parts))), name


@torch.no_grad()
def test_items_of_a_batch_do_not_meet(model: VideoModel) -> None:
    x, cond = conditioned(model, batch=2)
    sigma = torch.tensor([0.3, 0.8])
    both = model.velocity(x, sigma, cond)
    second = Conditioning(text_BLD=cond.text_BLD[1:], image_BLD=cond.image_BLD[1:], latent_BCfhw=cond.latent_BCfhw[1:])
    torch.testing.assert_close(both[1:], model.velocity(x[1:], sigma[1:], second), atol=1e-4, rtol=1e-4)


def test_streamed_decoding_is_one_stream(model: VideoModel) -> None:
    z = torch.randn(1, model.info.latent_channels, 3, 4, 4, generator=torch.Generator().manual_seed(2))
    chunks = list(model.decode(z))
    assert [chunk.shape[2] for chunk in chunks] == [1, model.info.stride_time, model.info.stride_time]
    frames = torch.cat(chunks, dim=2)
    assert frames.shape[-1] == 4 * model.info.stride_space and frames.abs().max() <= 1
    assert torch.equal(torch.cat(list(model.decode(z[:, :, :2])), dim=2), frames[:, :, : 1 + model.info.stride_time])


def test_decoding_may_be_interleaved_and_abandoned(model: VideoModel) -> None:
    z = torch.randn(1, model.info.latent_channels, 2, 4, 4, generator=torch.Generator().manual_seed(2))
    want = list(model.decode(z))
    stream = model.decode(z)
    got = [next(stream)]
    next(model.decode(-z))
    model.encode_video(clip(model, 1))
    got += stream
    assert all(torch.equal(a, b) for a, b in zip(got, want, strict=True))


def test_every_target_preset_trains_and_comes_off(model: VideoModel) -> None:
    x, cond = conditioned(model)
    sigma = torch.tensor([0.5])
    with torch.no_grad():
        base = model.velocity(x, sigma, cond)
    counts: list[int] = []
    for targets in sorted(model.info.targets):
        added = lora.add_lora(model, rank=2, alpha=2, targets=targets, seed=0)
        counts.append(sum(p.numel() for _, p in added))
        model.velocity(x, sigma, cond).square().mean().backward()
        assert all(p.grad is not None and bool(p.grad.any()) for name, p in added if ".lora_B." in name)
        remove_lora(model, "look")
    assert len(set(counts)) == len(counts)
    with torch.no_grad():
        assert torch.equal(model.velocity(x, sigma, cond), base)


def test_training_size_fits_the_models_own_rules(model: VideoModel) -> None:
    info = model.info
    assert (info.release.frames - 1) % info.stride_time == 0
    assert info.release.height % info.multiple == 0 and info.release.width % info.multiple == 0
    assert len(info.weights_sha256) == 64 and info.rate > 0
