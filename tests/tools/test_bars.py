"""The figures of pocket's card against what is known of them."""

from __future__ import annotations

import math
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from cinetune.backlot.scenes import caption, sample_scene

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tools"))
from pocket_training import bars


def test_every_caption_names_each_fact_once() -> None:
    scenes = [sample_scene(np.random.default_rng(seed)) for seed in range(60)]
    found = bars.labels([caption(scene) for scene in scenes])
    for scene, time, direction in zip(scenes, found["time"], found["direction"], strict=True):
        assert scene.time in bars.FACTS["time"][time]
        assert scene.direction in bars.FACTS["direction"][direction]
    assert len(set(found["subject"].tolist())) > 8 and len(set(found["place"].tolist())) > 6
    assert len({(scene.subject, int(n)) for scene, n in zip(scenes, found["subject"], strict=True)}) == len(
        set(found["subject"].tolist())
    )


def test_a_caption_of_another_world_is_refused() -> None:
    with pytest.raises(ValueError, match="no subject"):
        bars.labels(["a submarine dives to the left past the moonbase at dusk, static camera"])


def test_sharpness_of_a_ramp_is_its_slope_squared() -> None:
    ramp = (torch.arange(24.0) * 0.03).expand(2, 3, 16, 24)
    assert bars.sharpness(ramp) == pytest.approx(0.03**2, rel=1e-4)
    assert bars.sharpness(ramp * 0.5) == pytest.approx(0.25 * 0.03**2, rel=1e-4)


def test_speckle_is_colour_noise_and_neither_grey_noise_nor_smooth_colour() -> None:
    noise = torch.randn(2, 1, 64, 96, generator=torch.Generator().manual_seed(0)) * 0.1
    grey = noise.expand(-1, 3, -1, -1)
    red = torch.cat([noise, torch.zeros_like(noise), torch.zeros_like(noise)], 1)
    smooth = torch.linspace(-1, 1, 96).expand(2, 3, 64, 96) * torch.tensor([1.0, 0.0, -1.0]).view(1, 3, 1, 1)
    assert bars.speckle(grey) < 1e-9
    assert bars.speckle(smooth) < 1e-3
    # R-Y is .7874 and B-Y -.2126 of red; a unit Gaussian blur leaves white noise 1 - 2 k(0,0) + sum k^2 of its variance
    taps = np.exp(-0.5 * np.arange(-3, 4) ** 2.0)
    kernel = np.outer(taps, taps) / taps.sum() ** 2
    left = 1 - 2 * kernel[3, 3] + (kernel**2).sum()
    assert bars.speckle(red) == pytest.approx(0.01 * left * (0.7874**2 + 0.2126**2) / 2, rel=0.05)


def test_a_reader_that_has_learnt_reads_its_clips_and_not_noise() -> None:
    """Six clips by heart: the machinery from clips and captions to accuracy, worst class included."""
    from cinetune.backlot.scenes import render

    scenes = [sample_scene(np.random.default_rng(seed)) for seed in range(6)]
    clips = np.stack([np.round(render(scene) * 255).astype(np.uint8) for scene in scenes])
    texts = [caption(scene) for scene in scenes]
    readers = bars.teach(clips, texts, seed=0, device="cpu", steps=50, batch=6)
    truth = bars.pixels(clips)
    found = bars.figures(readers, truth, truth, texts)
    assert found["place read off true clips"] == 1 and found["place read off generated clips over true ones"] == 1
    assert found["motion of generated clips over motion of true ones"] == pytest.approx(1)
    assert found["mean colour error of the last generated frame (0 to 1)"] == 0
    assert bars.worst_classes(readers, truth, texts).get("place") is None
    noise = torch.rand(truth.shape, generator=torch.Generator().manual_seed(1)) * 2 - 1
    worse = bars.figures(readers, noise, truth, texts)
    assert worse["place read off generated clips over true ones"] < 0.7
    assert worse["colour speckle of the last frame over the true one's"] > 2
    assert "(" in next(iter(bars.worst_classes(readers, noise, texts).values()))


def test_bars_hold_within_their_range_and_say_it() -> None:
    sharp = bars.BARS["sharpness of the last frame over the true one's"]
    assert sharp.holds(0.7) and sharp.holds(1.2) and not sharp.holds(0.69) and not sharp.holds(1.21)
    assert not sharp.holds(math.nan)
    assert [str(bar) for bar in bars.BARS.values()][-5:] == ["0.7 to 1.2", "≤ 1.5", "≥ 24", "0.9 to 1.1", "≤ 0.0075"]
