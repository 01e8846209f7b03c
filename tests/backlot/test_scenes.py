"""The backlot keeps its promises: closed words, same motion at any rate, everything on its mark."""

from __future__ import annotations

import re
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest

from cinetune.backlot import (
    HISTORICAL,
    LOOKS,
    SCIFI,
    Scene,
    apply_look,
    caption,
    grade,
    paint,
    render,
    sample_scene,
    vocabulary,
)

TIMES = ("dawn", "noon", "dusk", "night")
CAMERAS = ("static", "pan left", "pan right", "tilt up", "push in", "track")
LOTS = (("historical", HISTORICAL), ("sci-fi", SCIFI))
RIDER = Scene(
    domain="historical", place="steppe", subject="rider", direction="right", time="noon", camera="static", seed=3
)
BIKE = Scene(
    domain="sci-fi", place="ice plain", subject="hover bike", direction="right", time="noon", camera="static", seed=5
)


def subject_x(scene: Scene, frame: int) -> float:
    """Picture x in [0, 1] of the subject: what differs from the scene with its subject far outside the picture."""
    clip = render(scene, frames=33)
    away = render(scene, frames=33, start=40.0)
    change = np.abs(clip[frame] - away[frame])[14:56].sum(axis=(0, 2))
    change[change < 0.3 * change.max()] = 0.0
    return float((change * (np.arange(96) + 0.5)).sum() / change.sum() / 96)


def redness(frame: np.ndarray) -> float:
    """Picture x in [0, 1] of the crimson rider."""
    red = np.clip(frame[30:56, :, 0] - 1.6 * frame[30:56, :, 1:].max(axis=-1) - 0.1, 0.0, None).sum(axis=0)
    return float((red * (np.arange(96) + 0.5)).sum() / red.sum() / 96)


def shift_of(first: np.ndarray, last: np.ndarray, reach: int = 34) -> int:
    """How many columns the picture content moved to the right."""
    costs = {}
    for shift in range(-reach, reach + 1):
        a = first[:, max(0, -shift) : 96 - max(0, shift)]
        b = last[:, max(0, shift) : 96 - max(0, -shift)]
        costs[shift] = float(np.abs(a - b).mean())
    return min(costs, key=lambda shift: costs[shift])


def test_size_of_the_lots() -> None:
    for _, lot in LOTS:
        assert len(lot.places) >= 6
        assert len(lot.subjects) >= 6


@pytest.mark.parametrize("scene", [RIDER, replace(BIKE, camera="track", time="night")])
def test_same_scene_is_the_same_array(scene: Scene) -> None:
    first, second = render(scene, frames=5), render(scene, frames=5)
    assert first.dtype == np.float32
    assert first.shape == (5, 64, 96, 3)
    assert np.array_equal(first, second)
    assert not np.array_equal(first, render(replace(scene, seed=scene.seed + 1), frames=5))


def test_every_combination_is_finite_and_in_range() -> None:
    count = 0
    for domain, lot in LOTS:
        for place in lot.places:
            for subject in lot.subjects:
                for time in TIMES:
                    camera = CAMERAS[count % len(CAMERAS)]
                    count += 1 + (time == "night")
                    scene = Scene(
                        domain="historical" if domain == "historical" else "sci-fi",
                        place=place,
                        subject=subject,
                        direction=("left", "right")[count % 2],
                        time=time,  # type: ignore[arg-type]
                        camera=camera,  # type: ignore[arg-type]
                        seed=count,
                    )
                    clip = render(scene, frames=2, height=20, width=30, rate=Fraction(2))
                    assert np.isfinite(clip).all(), scene
                    assert clip.min() >= 0.0
                    assert clip.max() <= 1.0
                    assert clip.std() > 0.03, scene


@pytest.mark.parametrize("scene", [RIDER, BIKE, replace(RIDER, place="dunes", subject="elephant")])
def test_subject_crosses_a_third_of_the_picture(scene: Scene) -> None:
    right = subject_x(scene, 32) - subject_x(scene, 0)
    assert 0.22 < right < 0.46
    left = subject_x(replace(scene, direction="left"), 32) - subject_x(replace(scene, direction="left"), 0)
    assert -0.46 < left < -0.22


def test_tracked_subject_stays_and_the_world_goes() -> None:
    scene = replace(RIDER, camera="track", place="castle", seed=11)
    clip = render(scene, frames=33)
    assert shift_of(clip[0, 14:30], clip[32, 14:30]) <= -10
    assert all(redness(frame) == pytest.approx(redness(clip[0]), abs=0.05) for frame in clip)


@pytest.mark.parametrize(("camera", "sign"), [("pan right", -1), ("pan left", 1)])
def test_pan_moves_the_background_the_other_way(camera: str, sign: int) -> None:
    scene = replace(RIDER, place="castle", subject="balloon", camera=camera)  # type: ignore[arg-type]
    clip = render(scene, frames=33)
    assert sign * shift_of(clip[0, 28:38], clip[32, 28:38]) >= 4


def test_tilt_up_lowers_the_scenery() -> None:
    clip = render(replace(RIDER, place="dunes", camera="tilt up"), frames=33)
    dark_to_light = [int(np.argmax(np.diff(frame[:, 4].sum(axis=-1)) < -0.25)) for frame in (clip[0], clip[32])]
    assert dark_to_light[1] - dark_to_light[0] >= 4


def test_push_in_enlarges_the_subject() -> None:
    still = render(replace(RIDER, place="village"), frames=33)
    push = render(replace(RIDER, place="village", camera="push in"), frames=33)
    assert np.array_equal(push[0].shape, still[0].shape)
    assert float(np.abs(push[32] - push[0]).mean()) > 1.5 * float(np.abs(still[32] - still[0]).mean())


@pytest.mark.parametrize("place", [*HISTORICAL.places, *SCIFI.places])
def test_night_is_darker_than_noon(place: str) -> None:
    base = RIDER if place in HISTORICAL.places else BIKE
    means = {
        time: float(render(replace(base, place=place, time=time), frames=1).mean())  # type: ignore[arg-type]
        for time in TIMES
    }
    assert means["night"] < 0.62 * means["noon"]
    assert means["night"] < means["dusk"] < means["noon"]


@pytest.mark.parametrize("camera", ["static", "pan left", "push in", "track", "tilt up"])
def test_motion_is_a_function_of_seconds(camera: str) -> None:
    scene = replace(BIKE, place="neon city", camera=camera)  # type: ignore[arg-type]
    slow = render(scene, frames=17)
    film = render(scene, frames=25, rate=Fraction(24))
    assert np.allclose(slow[16], film[24], atol=1e-6)
    assert np.allclose(slow[16], render(scene, frames=1, start=1.0)[0], atol=1e-6)
    ntsc = render(scene, frames=25, rate=Fraction(24000, 1001))
    assert float(np.abs(ntsc[24] - film[24]).mean()) < 0.01


def test_geometry_does_not_depend_on_resolution() -> None:
    small = render(RIDER, frames=2)
    large = render(RIDER, frames=2, height=192, width=288)
    pooled = large.reshape(2, 64, 3, 96, 3, 3).mean(axis=(2, 4))
    assert float(np.abs(pooled - small).mean()) < 0.02


def test_captions_state_the_scene_in_a_closed_vocabulary() -> None:
    assert caption(replace(RIDER, direction="left", time="dusk", place="dunes", camera="pan right")) == (
        "a rider gallops to the left across the dunes at dusk, the camera pans right"
    )
    words = vocabulary()
    assert len(words) < 120
    assert list(words) == sorted(set(words))
    rng = np.random.default_rng(0)
    seen = set()
    for _ in range(400):
        text = caption(sample_scene(rng))
        assert text == text.lower()
        seen |= set(re.findall(r"[a-z]+|,", text))
    assert seen == set(words)


def test_one_caption_for_one_set_of_facts() -> None:
    captions = set()
    for domain, lot in LOTS:
        for place in lot.places:
            for subject in lot.subjects:
                base = RIDER if domain == "historical" else BIKE
                captions.add(caption(replace(base, place=place, subject=subject)))
    assert len(captions) == sum(len(lot.places) * len(lot.subjects) for _, lot in LOTS)


def test_sampling_keeps_to_the_domain_and_ships_to_water() -> None:
    rng = np.random.default_rng(1)
    for _ in range(300):
        scene = sample_scene(rng, domain="historical")
        assert scene.domain == "historical"
        assert scene.subject != "ship" or scene.place in {"harbour", "castle"}
        assert sample_scene(rng, domain="sci-fi").place in SCIFI.places
    again = [sample_scene(np.random.default_rng(9)) for _ in range(2)]
    assert again[0] == again[1]


def test_frames_painted_a_few_at_a_time_are_the_frames_painted_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    def shoot(scene: Scene) -> tuple[np.ndarray, ...]:
        film = render(scene, frames=19, rate=Fraction(24000, 1001), start=-0.3)
        return film, apply_look(film, LOOKS["ember"], seed=3), grade(film, LOOKS["silver"])

    rng = np.random.default_rng(11)
    scenes = [sample_scene(rng) for _ in range(12)]
    few = [shoot(scene) for scene in scenes]
    monkeypatch.setattr(paint, "AT_ONCE", 100)
    for scene, parts in zip(scenes, few, strict=True):
        for part, whole in zip(parts, shoot(scene), strict=True):
            np.testing.assert_array_equal(part, whole)
