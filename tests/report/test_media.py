from __future__ import annotations

import base64
import io
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from PIL import Image

from cinetune.artifacts import Window
from cinetune.pages import media
from cinetune.store import Project


def window(name: str, scene: str, caption: str) -> Window:
    return Window(
        id=name,
        shot=name,
        clip="c",
        scene=scene,
        split="train",
        source_frames=(0,),
        rate=Fraction(16),
        crop=(0, 0, 2, 2),
        width=2,
        height=2,
        caption=caption,
        caption_source="sidecar",
    )


def test_sampled_frames_are_even_and_hold_both_ends() -> None:
    assert media.sampled(33) == (0, 8, 16, 24, 32)
    assert media.sampled(65) == (0, 16, 32, 48, 64)
    assert media.sampled(3) == (0, 1, 2)


def test_the_film_stills_beside_a_shot_share_its_words_and_come_from_different_scenes() -> None:
    windows = [
        window("a", "1", "a caravan climbs the dunes at noon"),
        window("b", "2", "a rider crosses the flats by night"),
        window("c", "2", "the rider crosses the flats at dawn"),
    ]
    chosen = media.nearest_windows("A rider crosses the flats at dawn", windows, 2)
    assert [found.id for found in chosen] == ["c", "a"]


def test_master_frames_are_read_exactly_and_none_past_the_end(salt_road: Project) -> None:
    from safetensors.numpy import load_file

    sequence = salt_road.store.need_stage("expand").groups["sequences"][0]
    first, missing = media.master_frames(salt_road, sequence.video, [4, 99])
    whole = load_file(salt_road.store.path(sequence.video))["frames_THWC"]
    assert first is not None
    assert missing is None
    assert np.abs(np.asarray(first, np.float64) - whole[4] / 257).max() <= 0.51


def test_a_film_still_wears_the_grade_of_the_film(salt_road: Project) -> None:
    clip = salt_road.store.need_stage("ingest").groups["clips"][0]
    shown = salt_road.store.need_stage("prepare").groups["windows"][1]
    still = media.film_still(salt_road, clip, shown)
    assert still.size == (shown.width, shown.height)
    red, _, blue = np.asarray(still, np.float64).mean((0, 1))
    assert red > blue


def test_truth_is_there_only_where_it_is_known(salt_road: Project) -> None:
    known, _, unknown = salt_road.shots().shots
    shot = replace(salt_road.store.need_stage("expand").groups["sequences"][0], frames=20)
    found = media.truth_film(salt_road, known, like=shot)
    assert found is not None
    assert len(found[0]) == 9  # the file is shorter than the shot
    assert found[1].startswith("data:video/mp4;base64,")
    assert media.truth_film(salt_road, unknown, like=shot) is None


@pytest.mark.parametrize("width", [None, 48, 400])
def test_a_picture_uri_can_be_opened_again(width: int | None) -> None:
    uri = media.picture_uri(Image.new("RGB", (96, 64), (200, 20, 20)), width=width)
    picture = Image.open(io.BytesIO(base64.b64decode(uri.removeprefix("data:image/webp;base64,"))))
    assert picture.size == (width or 96, round((width or 96) * 64 / 96))
