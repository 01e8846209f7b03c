"""Order of windows, choice of variants, and what a batch holds."""

from __future__ import annotations

from collections import Counter

import pytest
import torch
from safetensors.torch import load_file, save_file

from cinetune.errors import ModelError
from cinetune.sections import AugmentSection
from cinetune.training.data import WindowFile, load_batch, pick, window_file

OFF = AugmentSection()


def test_every_pass_shows_every_window_once() -> None:
    seen = [
        index for step in range(7) for index in pick(step, count=3, windows=7, available=0, augment=OFF, seed=0).windows
    ]
    passes = [seen[0:7], seen[7:14], seen[14:21]]
    assert all(sorted(one) == list(range(7)) for one in passes)
    assert passes[0] != passes[1]


def test_variants_follow_the_probability() -> None:
    augment = AugmentSection(probability=0.25, single_frame=0.5)
    picks = [pick(step, count=4, windows=9, available=3, augment=augment, seed=1) for step in range(250)]
    counts = Counter(variant for one in picks for variant in one.variants)
    assert 0.7 < counts[0] / 1000 < 0.8
    assert set(counts) == {0, 1, 2, 3}
    assert 0.4 < sum(one.single_frame for one in picks) / 250 < 0.6
    assert pick(3, count=4, windows=9, available=3, augment=augment, seed=1) == picks[3]


def test_without_augmentation_only_the_original_is_used() -> None:
    one = pick(0, count=64, windows=9, available=3, augment=OFF, seed=1)
    assert set(one.variants) == {0}
    assert not one.single_frame


def test_batch_holds_the_chosen_variant_and_padded_text(files: list[WindowFile]) -> None:
    batch = load_batch(files[:2], [0, 2])
    tensors = load_file(files[1].path)
    assert torch.equal(batch.cond.latent_BCfhw[1], tensors["cond_Cfhw.2"])
    assert torch.equal(batch.cond.image_BLD[1], tensors["image_LD.2"])
    assert torch.equal(batch.latents_BCfhw[1], tensors["latents_Cfhw"])
    assert batch.cond.text_BLD.shape == (2, 512, 32)
    assert torch.equal(batch.cond.text_BLD[1, :4], tensors["text_LD"])
    assert not batch.cond.text_BLD[1, 4:].any()


def test_one_frame_batch_is_the_first_latent_frame(files: list[WindowFile]) -> None:
    whole, single = load_batch(files[:2], [1, 0]), load_batch(files[:2], [1, 0], single_frame=True)
    assert torch.equal(single.latents_BCfhw, whole.latents_BCfhw[:, :, :1])
    assert torch.equal(single.cond.latent_BCfhw, whole.cond.latent_BCfhw[:, :, :1])


def test_windows_of_two_sizes_are_refused(files: list[WindowFile], tmp_path) -> None:
    tensors = load_file(files[0].path)
    save_file(
        {name: t[..., :10].contiguous() if name.endswith("fhw") else t for name, t in tensors.items()},
        tmp_path / "w.safetensors",
    )
    with pytest.raises(ModelError, match="different shapes"):
        load_batch([files[0], window_file("narrow", tmp_path / "w.safetensors")], [0, 0])
