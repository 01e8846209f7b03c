"""The table of feature networks: real classes at small sizes, read from folders as a user would have them."""

import dataclasses
import io
import pickle
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    CLIPConfig,
    CLIPModel,
    CLIPVisionConfig,
    CLIPVisionModel,
    Dinov2Config,
    Dinov2Model,
    VJEPA2Config,
    VJEPA2Model,
)

from cinetune.errors import ScoreError, WeightsError
from cinetune.metrics.features import AlexNetLpips
from cinetune.metrics.nets.efficientnet import EfficientNetLite0
from cinetune.metrics.nets.i3d import I3dLogits
from cinetune.metrics.nets.inception import InceptionFeatures
from cinetune.metrics.networks import (
    FILE,
    LEFT_OUT,
    NETWORKS,
    Network,
    convert,
    load_network,
    problems,
    row_of,
    wrap_clip,
)
from cinetune.store import sha256_file
from killed import left_by_a_killed_run
from support import tiny_tokenizer

SIZE = {"clip-l": 32, "clip-b": 32, "dinov2": 28, "vjepa2": 32}


def small(name: str) -> Network:
    """The row of a network whose folder holds the same class at a small size."""
    return dataclasses.replace(row_of(name), size=SIZE.get(name, row_of(name).size))


def put(name: str, folder: Path) -> Path:
    torch.manual_seed(0)
    width: dict[str, Any] = {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2}
    match row_of(name).kind:
        case "clip":
            tokens = tiny_tokenizer()
            text = width | {"vocab_size": len(tokens), "intermediate_size": 32, "max_position_embeddings": 8}
            text |= {"eos_token_id": 1, "bos_token_id": None, "pad_token_id": 0}
            vision = width | {"intermediate_size": 32, "image_size": 32, "patch_size": 8}
            CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=12)).save_pretrained(folder)
            tokens.save_pretrained(folder)
        case "dinov2":
            Dinov2Model(Dinov2Config(**width, image_size=28, patch_size=14)).save_pretrained(folder)
        case "vjepa2":
            config = VJEPA2Config(
                **width, patch_size=16, crop_size=32, frames_per_clip=4, mlp_ratio=2, pred_hidden_size=24,
                pred_num_attention_heads=2, pred_num_hidden_layers=1,
            )  # fmt: skip
            VJEPA2Model(config).save_pretrained(folder)
        case kind:
            own = {"inception": InceptionFeatures, "efficientnet": EfficientNetLite0, "i3d": I3dLogits}
            folder.mkdir()
            save_file(own[kind]().state_dict(), folder / FILE)
    return folder


def clip_of(frames: int, size: int = 40, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand((frames, 3, size, size + 8), generator=generator) * 2 - 1


def test_the_table_says_what_a_reader_must_know() -> None:
    names = [row.name for row in NETWORKS]
    assert len(set(names)) == len(names)
    for row in NETWORKS:
        assert row.licence and row.sees and row.blind and row.title
        assert bool(row.repository) != bool(row.source), f"{row.name} is pulled or brought, one of both"
        assert all(set(part) <= set("0123456789abcdef") for part in row.sha256)
    assert not set(LEFT_OUT) & set(names)


@pytest.mark.parametrize("name", ["clip-l", "clip-b", "dinov2", "efficientnet"])
def test_frame_networks_give_one_feature_a_frame_whatever_the_chunk(name: str, tmp_path: Path) -> None:
    net = load_network(small(name), put(name, tmp_path / name))
    frames = clip_of(5)
    features = net.frames(frames)
    assert features.shape[0] == 5 and np.isfinite(features).all()
    # The loader must not touch the caller's random numbers, and twice is the same.
    np.testing.assert_array_equal(net.frames(frames), features)
    np.testing.assert_allclose(net.frames(frames, chunk=2), features, rtol=0, atol=2e-6 * np.abs(features).max())
    assert np.abs(features[0] - features[1]).max() > 1e-3 * np.abs(features).max()


def test_features_equal_the_model_called_by_hand(tmp_path: Path) -> None:
    net = load_network(small("dinov2"), put("dinov2", tmp_path / "d"))
    frames = torch.rand(2, 3, 28, 28) * 2 - 1  # already its size, so the resizer changes nothing
    mean, std = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1), torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)
    with torch.no_grad():
        want = net.model(pixel_values=((frames + 1) / 2 - mean) / std).pooler_output
    np.testing.assert_allclose(net.frames(frames), want.numpy(), atol=1e-6)


def test_text_and_picture_of_a_clip_share_a_space_and_long_prompts_keep_their_end(tmp_path: Path) -> None:
    net = load_network(small("clip-l"), put("clip-l", tmp_path / "c"))
    text = net.text(["warm street", "the " * 40 + "man"])
    assert text is not None and text.shape == (2, net.frames(clip_of(1)).shape[1])
    batch = net.tokenizer(["the " * 40 + "man"], truncation=True, max_length=8, return_tensors="pt")
    assert batch.input_ids[0, -1] == net.tokenizer.eos_token_id


def test_the_models_own_tower_has_no_text() -> None:
    config = CLIPVisionConfig(
        hidden_size=24, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32, image_size=32, patch_size=8
    )
    net = wrap_clip(CLIPVisionModel(config).eval(), tokenizer=None, sha256="0" * 64, title="small Wan")
    assert net.text(["a man"]) is None
    features = net.frames(clip_of(2))
    assert features.shape == (2, 24) == (2, net.row.width)
    assert net.label.startswith("own: small Wan")


def test_video_networks_give_one_feature_a_piece(tmp_path: Path) -> None:
    net = load_network(small("vjepa2"), put("vjepa2", tmp_path / "v"))
    features = net.clips(clip_of(33))
    assert features.shape == (2, 24)
    np.testing.assert_allclose(net.clips(clip_of(33)[:16]), features[:1], atol=1e-6)
    assert net.clips(clip_of(6)).shape == (1, 24), "a shot shorter than a piece is one piece"


def test_i3d_takes_sixteen_frames_and_refuses_nine() -> None:
    row = row_of("i3d")
    net = dataclasses.replace(
        wrap_clip(CLIPVisionModel(CLIPVisionConfig(hidden_size=8, num_hidden_layers=1, num_attention_heads=1,
                                                   intermediate_size=8, image_size=16, patch_size=8)),
                  tokenizer=None, sha256="0", title=""),
        row=row, model=I3dLogits(), size=224, scaling=row.scaling,
    )  # fmt: skip
    assert net.clips(clip_of(16)).shape == (1, 400)
    with pytest.raises(ScoreError, match="needs 10 frames"):
        net.clips(clip_of(9))


def test_inception_has_the_parameters_of_the_published_network() -> None:
    net = InceptionFeatures()
    # torchvision counts 27,161,264 with two classifiers; without them the trunk of FID's release is this large.
    assert sum(parameter.numel() for parameter in net.parameters()) == 21_785_568
    assert net(torch.rand(1, 3, 299, 299)).shape == (1, 2048)
    with pytest.raises(ScoreError, match="75 pixels"):
        net(torch.rand(1, 3, 64, 64))


def test_i3d_has_the_parameters_of_the_published_network() -> None:
    assert sum(parameter.numel() for parameter in I3dLogits().parameters()) == 12_697_264


def test_what_is_not_there_says_how_it_comes(tmp_path: Path) -> None:
    assert "weights pull clip-l" in problems(row_of("clip-l"), tmp_path)
    assert "weights take inception" in problems(row_of("inception"), tmp_path)
    with pytest.raises(WeightsError, match="weights take i3d"):
        load_network(row_of("i3d"), tmp_path)
    with pytest.raises(ScoreError, match="TorchScript"):
        row_of("sscd")
    with pytest.raises(ScoreError, match="no feature network"):
        row_of("vgg")


def test_published_checkpoints_are_converted_once_and_checked(tmp_path: Path) -> None:
    net = EfficientNetLite0()
    source = tmp_path / "eff.pth"
    torch.save(net.state_dict() | {"_fc.weight": torch.zeros(3, 4)}, source)
    row = dataclasses.replace(row_of("efficientnet"), sha256=(sha256_file(source)[:8],))
    left = left_by_a_killed_run(tmp_path / "net" / FILE)
    made = convert(row, [source], tmp_path / "net")
    assert not left.exists()
    assert "_fc.weight" not in load_file(made)
    loaded = load_network(row, tmp_path / "net")
    frames = clip_of(2, size=64)
    again = dataclasses.replace(loaded, model=net)
    np.testing.assert_array_equal(loaded.frames(frames), again.frames(frames))
    with pytest.raises(WeightsError, match="published file's begins with 57934424"):
        convert(row_of("efficientnet"), [source], tmp_path / "other")
    assert not (tmp_path / "other" / FILE).exists()


def test_lpips_is_joined_from_its_two_published_files(tmp_path: Path) -> None:
    torch.manual_seed(0)
    net = AlexNetLpips()
    keys = ("features.0", "features.3", "features.6", "features.8", "features.10")
    alexnet = {}
    for key, conv in zip(keys, net.convs, strict=True):
        alexnet |= {f"{key}.weight": conv.weight.data, f"{key}.bias": conv.bias.data}
    heads = {f"lin{i}.model.1.weight": head.data.reshape(1, -1, 1, 1) for i, head in enumerate(net.heads)}
    torch.save(alexnet | {"classifier.1.weight": torch.zeros(2, 2)}, tmp_path / "alexnet.pth")
    torch.save(heads, tmp_path / "alex.pth")
    row = dataclasses.replace(row_of("lpips"), sha256=())
    convert(row, [tmp_path / "alexnet.pth", tmp_path / "alex.pth"], tmp_path / "net")
    loaded = load_network(row, tmp_path / "net")
    x = torch.rand(1, 3, 64, 64) * 2 - 1
    for ours, theirs in zip(loaded.model(x), net(x), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=0)
    with pytest.raises(WeightsError, match="takes 2 files"):
        convert(row, [tmp_path / "alexnet.pth"], tmp_path / "half")


def damaged(kind: str, folder: Path) -> Path:
    path = folder / f"{kind}.pth"
    good = EfficientNetLite0().state_dict()
    match kind:
        case "empty":
            path.write_bytes(b"")
        case "noise":
            path.write_bytes(bytes(range(256)) * 40)
        case "cut":
            torch.save(good, path)
            path.write_bytes(path.read_bytes()[:50_000])
        case "other":
            torch.save(InceptionFeatures().state_dict(), path)
        case "nan":
            good["_bn1.weight"][0] = float("nan")
            torch.save(good, path)
        case "code":
            path.write_bytes(pickle.dumps({"run": print}, protocol=2))
        case "numbered":
            torch.save({1: torch.zeros(1)}, path)
        case "sparse":
            torch.save(good | {"_fc.weight": torch.zeros(3, 3).to_sparse()}, path)
        case "list":
            torch.save([torch.zeros(1)], path)
        case "zip":
            buffer = io.BytesIO()
            with zipfile.ZipFile(buffer, "w") as archive:
                archive.writestr("hello.txt", "no weights")
            path.write_bytes(buffer.getvalue())
        case "shape":
            good["_conv_head.weight"] = torch.zeros(1280, 321, 1, 1)
            torch.save(good, path)
    return path


@pytest.mark.parametrize(
    "kind", ["empty", "noise", "cut", "other", "nan", "code", "numbered", "sparse", "list", "zip", "shape", "absent"]
)
def test_a_damaged_checkpoint_is_refused_and_leaves_nothing(kind: str, tmp_path: Path) -> None:
    row = dataclasses.replace(row_of("efficientnet"), sha256=())
    with pytest.raises(WeightsError):
        convert(row, [damaged(kind, tmp_path)], tmp_path / "net")
    assert not list((tmp_path / "net").glob("*")) if (tmp_path / "net").exists() else True


def test_weights_of_another_network_in_the_folder_are_refused(tmp_path: Path) -> None:
    put("efficientnet", tmp_path / "e")
    with pytest.raises(WeightsError, match="it is not I3D of FVD"):
        load_network(row_of("i3d"), tmp_path / "e")


def test_settings_can_name_exactly_the_networks_of_the_table() -> None:
    """`sections` must not import this package, so it repeats the names."""
    from typing import get_args

    from cinetune.sections import FeatureName

    assert get_args(FeatureName) == tuple(row.name for row in NETWORKS)
