"""A tiny model, random cached windows and a validator to train it with."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from transformers import CLIPVisionConfig, CLIPVisionModel

from cinetune.metrics import ClipMaps
from cinetune.models.adapters.lora import lora_names
from cinetune.models.wan.wan21 import WanVideo
from cinetune.sections import AugmentSection, TrainSection
from cinetune.training import HeldShot, Validator, WindowFile, window_file
from support import remove_lora, tiny_wan

VARIANTS = 2


@pytest.fixture(scope="session")
def _tiny() -> WanVideo:
    return tiny_wan()


@pytest.fixture
def model(_tiny: WanVideo) -> Iterator[WanVideo]:
    """A tiny random model without adapters."""
    yield _tiny
    for name in lora_names(_tiny):
        remove_lora(_tiny, name)


@pytest.fixture(scope="session")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[WindowFile]:
    """Five cached windows of random latents: 9 frames of 32 x 48, two re-graded conditions each."""
    folder = tmp_path_factory.mktemp("windows")
    gen = torch.Generator().manual_seed(11)
    made: list[WindowFile] = []
    for number in range(5):
        tensors = {
            "latents_Cfhw": torch.randn(16, 3, 8, 12, generator=gen),
            "text_LD": torch.randn(3 + number, 32, generator=gen),
        }
        for suffix in ("", *(f".{variant}" for variant in range(1, VARIANTS + 1))):
            tensors[f"cond_Cfhw{suffix}"] = torch.randn(20, 3, 8, 12, generator=gen)
            tensors[f"image_LD{suffix}"] = torch.randn(17, 32, generator=gen)
        save_file(tensors, folder / f"w{number}.safetensors")
        made.append(window_file(f"w{number}", folder / f"w{number}.safetensors"))
    return made


@pytest.fixture(scope="session")
def empty() -> torch.Tensor:
    """A padded embedding of the empty prompt, one row long."""
    empty = torch.zeros(1, 512, 32)
    empty[:, 0] = torch.randn(32, generator=torch.Generator().manual_seed(3))
    return empty


@pytest.fixture
def recipe() -> TrainSection:
    """Six steps with everything on: accumulation, dropped captions, re-graded conditions, one-frame steps."""
    return TrainSection(
        rank=2,
        alpha=4,
        lr=0.01,
        steps=6,
        batch=1,
        accumulate=2,
        caption_dropout=0.3,
        checkpointing="none",
        validate_every=3,
        validation_steps=2,
        validation_seeds=2,
        validation_shots=1,
        checkpoint_every=2,
        patience=9,
        min_delta=0.0,
        seed=5,
        augment=AugmentSection(probability=0.5, variants=VARIANTS, single_frame=0.3),
    )


@pytest.fixture(scope="session")
def net() -> ClipMaps:
    """A random CLIP vision tower as the perceptual network."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        config = CLIPVisionConfig(
            hidden_size=16,
            intermediate_size=32,
            num_hidden_layers=2,
            num_attention_heads=2,
            image_size=16,
            patch_size=8,
        )
        return ClipMaps(CLIPVisionModel(config).eval().requires_grad_(False))


@pytest.fixture
def judge(model: WanVideo, files: list[WindowFile], net: ClipMaps) -> Callable[..., Validator]:
    """`judge(recipe, folder)` makes a validator over two held-out windows, one of them generated."""
    truth = torch.rand(9, 3, 32, 48, generator=torch.Generator().manual_seed(2)) * 2 - 1

    def make(recipe: TrainSection, folder: Path, **changes: Any) -> Validator:
        arguments: dict[str, Any] = {
            "held": files[3:],
            "shots": [HeldShot(file=files[3], truth_TCHW=truth)],
            "net": net,
            "net_name": "random maps",
            "recipe": recipe,
            "folder": folder / "samples",
        }
        return Validator(model, **(arguments | changes))

    return make
