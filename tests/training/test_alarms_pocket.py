"""Frozen motion, the first-frame jump and divergence on the pocket model: a random one has nothing to lose.

The loop is the real one on real pictures of the backlot; what it is given to learn from decides which alarm is due.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from transformers import CLIPVisionModel

from cinetune.backlot.scenes import caption, render, sample_scene
from cinetune.metrics import ClipMaps
from cinetune.models import load_model, model_folder
from cinetune.models.adapters.lora import lora_names
from cinetune.models.family import VideoModel
from cinetune.runtime import Quiet
from cinetune.sections import ModelSection, TrainSection
from cinetune.training import HeldShot, Validator, WindowFile, train, window_file
from support import remove_lora

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
FRAMES = 9
Spoil = Callable[[np.ndarray], np.ndarray]


@pytest.fixture(scope="module")
def pocket() -> VideoModel:
    return load_model(ModelSection(family="pocket"))


@pytest.fixture(scope="module")
def maps() -> ClipMaps:
    encoder = CLIPVisionModel.from_pretrained(
        model_folder(ModelSection(family="pocket")), subfolder="image_encoder", local_files_only=True
    )
    return ClipMaps(encoder.eval().requires_grad_(False))


def sound(film_THWC: np.ndarray) -> np.ndarray:
    return film_THWC


def still(film_THWC: np.ndarray) -> np.ndarray:
    return np.repeat(film_THWC[:1], len(film_THWC), axis=0)


def flash(film_THWC: np.ndarray) -> np.ndarray:
    """All but the first frame lose their light and their blue."""
    spoilt = film_THWC.copy()
    spoilt[1:] *= np.array([0.7, 0.5, 0.3], np.float32)
    return spoilt


def windows(
    model: VideoModel, folder: Path, spoil: Spoil, numbers: Iterable[int], *, pace: int = 1
) -> list[tuple[WindowFile, np.ndarray]]:
    """Cached windows of backlot scenes, `pace` times as fast, whose frames went through `spoil`, and the frames."""
    made = []
    for number in numbers:
        scene = sample_scene(np.random.default_rng(number), domain="historical")
        film_THWC = spoil(render(scene, frames=FRAMES * pace, start=0.2)[::pace])
        video = torch.from_numpy(film_THWC).permute(3, 0, 1, 2)[None] * 2 - 1
        with torch.no_grad():
            cond = model.condition([caption(scene)], video[:, :, 0], FRAMES)
            tensors = {
                "latents_Cfhw": model.encode_video(video)[0].contiguous().clone(),
                "text_LD": cond.text_BLD[0, :32].contiguous().clone(),
                "cond_Cfhw": cond.latent_BCfhw[0].contiguous().clone(),
                "image_LD": cond.image_BLD[0].contiguous().clone(),
            }
        path = folder / f"{spoil.__name__}{number}.safetensors"
        save_file(tensors, path)
        made.append((window_file(path.stem, path), film_THWC))
    return made


@pytest.fixture(scope="module")
def alarms(pocket: VideoModel, maps: ClipMaps, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., list[str]]:
    """`alarms(spoil, setting=)` trains on spoilt windows, judges by sound ones, and names the alarms raised."""
    folder = tmp_path_factory.mktemp("pocket")
    # Two scenes that move more than most, at double speed: the film then moves 7 times as much as the untrained model's
    # samples of it, and 16 times as much as a still one seems to by its noise. The threshold, 10, lies well between.
    held = windows(pocket, folder, sound, (125, 163), pace=2)
    recipe = TrainSection(
        rank=8, alpha=16.0, targets="all-linear", lr=4e-3, steps=24, batch=1, accumulate=1, caption_dropout=0.0,
        checkpointing="none", validate_every=24, validation_steps=6, validation_seeds=1, patience=9,
    )  # fmt: skip

    def go(spoil: Spoil, **changes: float) -> list[str]:
        asked = recipe.model_copy(update=changes)
        for name in lora_names(pocket):
            remove_lora(pocket, name)
        run = folder / f"run_{spoil.__name__}_{asked.lr}"
        seen = [file for file, _ in windows(pocket, folder, spoil, range(4))]
        truths = [torch.from_numpy(film).permute(0, 3, 1, 2) * 2 - 1 for _, film in held]
        validator = Validator(
            pocket,
            [file for file, _ in held],
            [HeldShot(file=file, truth_TCHW=truth) for (file, _), truth in zip(held[:1], truths, strict=False)],
            net=maps,
            net_name="pocket maps",
            recipe=asked,
            folder=run / "samples",
        )
        empty = pocket.condition([""], torch.zeros(1, 3, 16, 16), 1).text_BLD
        train(pocket, seen, empty, validator=validator, recipe=asked, arm="look", folder=run, fingerprint={},
              report=Quiet())  # fmt: skip
        log = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
        return [line["name"] for line in log if line["kind"] == "alarm"]

    return go


def test_sound_clips_raise_neither(alarms: Callable[..., list[str]]) -> None:
    assert not {"frozen motion", "first-frame jump", "diverged"} & set(alarms(sound))


def test_still_clips_freeze_the_motion(alarms: Callable[..., list[str]]) -> None:
    assert "frozen motion" in alarms(still)


def test_clips_that_change_after_their_first_frame_make_it_jump(alarms: Callable[..., list[str]]) -> None:
    assert "first-frame jump" in alarms(flash)


def test_a_rate_far_too_high_diverges(alarms: Callable[..., list[str]]) -> None:
    assert "diverged" in alarms(sound, lr=0.3, steps=6, validate_every=6)
