"""The VAE in tiles: how they are laid, that they join without a gap, and how far the result is from a whole pass."""

from __future__ import annotations

import itertools
from fractions import Fraction

import numpy as np
import pytest
import torch

from cinetune.backlot.scenes import render, sample_scene
from cinetune.models import load_model, model_identity
from cinetune.models.wan.tiles import OVERLAP, in_tiles, spans
from cinetune.models.wan.wan21 import WanVideo
from cinetune.sections import ModelSection


@pytest.mark.parametrize(("length", "tile"), [(90, 32), (160, 32), (32, 32), (31, 32), (33, 32), (100, 7)])
def test_tiles_cover_a_side_and_overlap_by_a_quarter(length: int, tile: int) -> None:
    laid = spans(length, tile)
    assert laid[0][0] == 0 and laid[-1][1] == length
    assert all(stop - start == min(tile, length) for start, stop in laid)
    for (_, stop), (start, _) in itertools.pairwise(laid):
        assert stop - start >= int(tile * OVERLAP)
    if len(laid) > 1:  # one fewer would not do
        assert (len(laid) - 2) * (tile - int(tile * OVERLAP)) + tile < length


@pytest.mark.parametrize("scale", [Fraction(1), Fraction(2), Fraction(1, 2)])
def test_what_needs_no_neighbours_comes_out_as_it_would_whole(scale: Fraction) -> None:
    x = torch.rand(1, 2, 3, 40, 56, generator=torch.Generator().manual_seed(0))

    def work(part: torch.Tensor) -> torch.Tensor:
        if scale < 1:
            return part[..., ::2, ::2]
        return part.repeat_interleave(int(scale), -1).repeat_interleave(int(scale), -2)

    torch.testing.assert_close(in_tiles(x, 16, scale, work), work(x))


@pytest.fixture(scope="module")
def film() -> torch.Tensor:
    scene = sample_scene(np.random.default_rng(5))
    return torch.from_numpy(render(scene, frames=5, height=192, width=320)).permute(3, 0, 1, 2)[None] * 2 - 1


def psnr(a: torch.Tensor, b: torch.Tensor) -> float:
    return float(10 * torch.log10(4 / (a - b).square().mean()))


def test_the_shipped_autoencoder_in_tiles_is_near_to_a_whole_pass(film: torch.Tensor) -> None:
    model = load_model(ModelSection(vae_tile=128))
    assert isinstance(model, WanVideo) and model.tile == 128
    tiled_latents = model.encode_video(film)
    tiled = torch.cat(list(model.decode(tiled_latents)), dim=2)
    model.tile = 0
    latents = model.encode_video(film)
    whole = torch.cat(list(model.decode(latents)), dim=2)
    assert tiled.shape == whole.shape == film.shape and tiled_latents.shape == latents.shape
    assert psnr(tiled, whole) > 50
    # and as near to the film as a whole pass is
    assert psnr(tiled, film) > psnr(whole, film) - 0.05
    # a picture that is one tile takes no other way
    model.tile = 320
    assert torch.equal(torch.cat(list(model.decode(latents)), dim=2), whole)


def test_tiles_are_part_of_what_makes_two_runs_differ() -> None:
    whole, tiled = (model_identity(ModelSection(vae_tile=tile)) for tile in (0, 128))
    assert "vae_tile" not in whole and tiled["vae_tile"] == "128"
    with pytest.raises(ValueError, match="at least 128"):
        ModelSection(vae_tile=64)
