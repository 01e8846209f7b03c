"""Feature networks: LPIPS AlexNet against the published layout and formula, CLIP features from a small real
CLIPModel."""

import hashlib
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.torch import save_file
from transformers import CLIPConfig, CLIPModel, CLIPVisionModel, CLIPVisionModelWithProjection

from cinetune.errors import ScoreError
from cinetune.metrics import (
    ClipMaps,
    alexnet_lpips,
    clip_features,
    clip_frames,
    clip_text,
    lpips_curve,
    vision_maps,
)

SHAPES = {
    "features.0": (64, 3, 11, 11),
    "features.3": (192, 64, 5, 5),
    "features.6": (384, 192, 3, 3),
    "features.8": (256, 384, 3, 3),
    "features.10": (256, 256, 3, 3),
}


def random_weights() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    tensors = {"classifier.1.weight": torch.zeros(1)}
    for layer, (key, shape) in enumerate(SHAPES.items()):
        fan_in = shape[1] * shape[2] * shape[3]
        tensors[f"{key}.weight"] = torch.randn(shape, generator=generator) * (2 / fan_in) ** 0.5
        tensors[f"{key}.bias"] = torch.randn(shape[0], generator=generator) * 0.01
        tensors[f"lin{layer}.model.1.weight"] = torch.rand((1, shape[0], 1, 1), generator=generator)
    return tensors


def write(folder: Path, tensors: dict[str, torch.Tensor]) -> tuple[Path, str]:
    path = folder / "lpips.safetensors"
    save_file(tensors, path)
    return path, hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture(scope="module")
def clip() -> CLIPModel:
    torch.manual_seed(0)
    text = {
        "vocab_size": 50, "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2,
        "max_position_embeddings": 8, "bos_token_id": 0, "eos_token_id": 49, "pad_token_id": 49,
    }  # fmt: skip
    vision = {
        "hidden_size": 24, "intermediate_size": 32, "num_hidden_layers": 3, "num_attention_heads": 2, "image_size": 32,
        "patch_size": 8,
    }  # fmt: skip
    return CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=12)).eval()


def test_lpips_equals_the_formula_written_out(tmp_path):
    tensors = random_weights()
    path, sha256 = write(tmp_path, tensors)
    net = alexnet_lpips(path, sha256=sha256)
    torch.manual_seed(1)
    x, y = torch.rand(2, 3, 64, 80) * 2 - 1, torch.rand(2, 3, 64, 80) * 2 - 1

    def maps(z: torch.Tensor) -> list[torch.Tensor]:
        z = (z - torch.tensor([-0.030, -0.088, -0.188]).view(1, 3, 1, 1)) / torch.tensor([0.458, 0.448, 0.450]).view(
            1, 3, 1, 1
        )
        w = tensors
        one = F.relu(F.conv2d(z, w["features.0.weight"], w["features.0.bias"], stride=4, padding=2))
        two = F.relu(F.conv2d(F.max_pool2d(one, 3, 2), w["features.3.weight"], w["features.3.bias"], padding=2))
        three = F.relu(F.conv2d(F.max_pool2d(two, 3, 2), w["features.6.weight"], w["features.6.bias"], padding=1))
        four = F.relu(F.conv2d(three, w["features.8.weight"], w["features.8.bias"], padding=1))
        five = F.relu(F.conv2d(four, w["features.10.weight"], w["features.10.bias"], padding=1))
        return [one, two, three, four, five]

    expected = torch.zeros(2)
    for layer, (a, b) in enumerate(zip(maps(x), maps(y), strict=True)):
        difference = F.normalize(a, dim=1) - F.normalize(b, dim=1)
        expected += F.conv2d(difference**2, tensors[f"lin{layer}.model.1.weight"]).mean((1, 2, 3))
    np.testing.assert_allclose(lpips_curve(net, x, y), expected.numpy(), rtol=1e-5)
    assert np.abs(lpips_curve(net, x, x)).max() == 0
    assert not any(p.requires_grad for p in net.parameters())


def test_lpips_refuses_anything_but_the_pinned_weights(tmp_path):
    tensors = random_weights()
    path, sha256 = write(tmp_path, tensors)
    with pytest.raises(ScoreError, match="sha256"):
        alexnet_lpips(path, sha256="0" * 64)
    with pytest.raises(ScoreError, match="missing"):
        alexnet_lpips(tmp_path / "absent.safetensors", sha256=sha256)
    damaged = {
        r"lack 'features.8.bias'": {k: v for k, v in tensors.items() if k != "features.8.bias"},
        "shape": tensors | {"features.0.weight": torch.zeros(64, 3, 3, 3)},
        "non-negative": tensors | {"lin2.model.1.weight": -tensors["lin2.model.1.weight"]},
    }
    for message, wrong in damaged.items():
        path, sha256 = write(tmp_path, wrong)
        with pytest.raises(ScoreError, match=message):
            alexnet_lpips(path, sha256=sha256)
    path.write_bytes(b"not safetensors")
    with pytest.raises(ScoreError, match="cannot be read"):
        alexnet_lpips(path, sha256=hashlib.sha256(b"not safetensors").hexdigest())


def test_lpips_refuses_small_frames_and_wrong_ranges(tmp_path):
    path, sha256 = write(tmp_path, random_weights())
    net = alexnet_lpips(path, sha256=sha256)
    with pytest.raises(ScoreError, match="too small"):
        net(torch.zeros(1, 3, 32, 32))
    with pytest.raises(ScoreError, match=r"\[-1, 1\]"):
        net(torch.full((1, 3, 64, 64), 255.0))


def test_clip_frames_match_the_antialiased_bicubic_of_pillow():
    rng = np.random.default_rng(0)
    coarse = Image.fromarray(rng.integers(0, 256, (9, 16, 3), dtype=np.uint8)).resize(
        (320, 180), Image.Resampling.BICUBIC
    )
    image = np.asarray(coarse)
    frames = torch.from_numpy(image.copy()).permute(2, 0, 1)[None].float() / 127.5 - 1
    ours = clip_frames(frames, size=64, mean=(0, 0, 0), std=(1, 1, 1))
    pillow = np.asarray(coarse.resize((64, 64), Image.Resampling.BICUBIC))
    assert np.abs(ours[0].permute(1, 2, 0).numpy() * 255 - pillow).max() <= 1.01
    black = clip_frames(-torch.ones(1, 3, 8, 8), size=4)
    np.testing.assert_allclose(black[0, :, 0, 0], [-1.7923, -1.7521, -1.4802], atol=1e-4)


def test_clip_features_equal_the_model_called_by_hand(clip):
    torch.manual_seed(2)
    frames = torch.rand(5, 3, 40, 60) * 2 - 1
    features = clip_features(clip, frames, chunk=2)
    with torch.no_grad():
        pooled = clip.vision_model(pixel_values=clip_frames(frames, size=32)).pooler_output
        expected = clip.visual_projection(pooled)
    assert features.shape == (5, 12)
    torch.testing.assert_close(features, expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(features, clip_features(clip, frames), rtol=1e-5, atol=1e-5)


def test_clip_features_of_the_two_vision_only_classes(clip):
    frames = torch.linspace(-1, 1, 3 * 32 * 32).reshape(1, 3, 32, 32)
    projected = CLIPVisionModelWithProjection(clip.config.vision_config).eval()
    assert clip_features(projected, frames).shape == (1, projected.config.projection_dim)
    pooled = CLIPVisionModel(clip.config.vision_config).eval()
    assert clip_features(pooled, frames).shape == (1, 24)
    assert [m.shape for m in vision_maps(pooled, frames)] == [(1, 24, 4, 4)] * 3


def test_clip_text_reads_the_end_token_and_refuses_overlong_prompts(clip):
    ids = torch.tensor([[0, 5, 6, 49, 49, 49], [0, 5, 7, 49, 49, 49]])
    text = clip_text(clip, ids, torch.ones_like(ids))
    assert text.shape == (2, 12) and not torch.allclose(text[0], text[1])
    padded = torch.tensor([[1, 1, 1, 1, 0, 0]]).expand(2, -1)
    torch.testing.assert_close(clip_text(clip, ids, padded), text, rtol=1e-4, atol=1e-5)
    with pytest.raises(ScoreError, match="truncate"):
        clip_text(clip, torch.zeros(1, 9, dtype=torch.long), torch.ones(1, 9, dtype=torch.long))


def test_vision_maps_keep_the_place_of_each_patch(clip):
    torch.manual_seed(3)
    frames = torch.rand(3, 3, 32, 32) * 2 - 1
    maps = vision_maps(clip, frames, chunk=2)
    assert [m.shape for m in maps] == [(3, 24, 4, 4)] * 3
    changed = frames.clone()
    changed[:, :, 8:16, 24:] = 0
    # Only attention carries a change elsewhere, so its own patch (row 1, column 3) must move most.
    moved = (vision_maps(clip, changed)[0] - maps[0]).square().sum(1)
    assert (moved.flatten(1).argmax(1) == 1 * 4 + 3).all()
    assert (moved > 0).all()


def test_clip_maps_serve_as_a_perceptual_net(clip):
    torch.manual_seed(4)
    x = torch.rand(4, 3, 32, 32) * 1.6 - 0.8
    noise = torch.randn_like(x)
    net = ClipMaps(clip)
    assert lpips_curve(net, x, x).max() == 0
    means = [lpips_curve(net, x, (x + s * noise).clamp(-1, 1)).mean() for s in (0.02, 0.1, 0.5)]
    assert means == sorted(means) and means[0] > 0
