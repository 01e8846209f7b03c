"""A small project as the stages before the report leave it: real files, painted pictures, made-up scores."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Literal

import numpy as np
import pytest

from cinetune.artifacts import (
    Arm,
    Colour,
    CopySheet,
    Delivery,
    FileRef,
    FootageClip,
    Keyframe,
    Look,
    ModelRef,
    PlannedShot,
    Provenance,
    Rejected,
    SceneMatch,
    SceneSubject,
    Score,
    Scorecard,
    Segment,
    Sequence,
    Shot,
    Timing,
    Window,
)
from cinetune.footage.read.stills import write_png16
from cinetune.footage.video import write_video
from cinetune.metrics import harmed_at_most
from cinetune.records import log_line
from cinetune.store import Project
from cinetune.timecode import Span

HEIGHT, WIDTH, FRAMES, RATE = 64, 96, 33, Fraction(16)
MADE = Provenance(
    tool="cinetune 0.1.0", commit="0123456789abcdef", dirty=False, packages={"torch": "2.13.0", "python": "3.12"},
    device="cpu", seed=0, config_sha="c" * 64, parents=(), created_utc="2026-03-01T09:30:00+00:00",
    wall_seconds=41.5,
)  # fmt: skip
TIMES = ("at dawn", "at noon", "at dusk", "by night")
INSIDE = ("A rider crosses", "A caravan climbs", "A monk walks along", "A cart rolls through")
OUTSIDE = ("A rover crosses", "A probe drifts over", "A walker strides through", "A shuttle lands on")
PLACES = ("the salt flats", "a pass in the hills", "the ruined aqueduct", "the red dunes")
MARKUP = '<script>alert("x")</script> & "quotes"'


def paint(seed: int, frame: int, *, graded: float) -> np.ndarray:
    """A landscape with something moving in it, `[64, 96, 3]`; `graded` from 0 (neutral) to 1 (the film's warm look)."""
    draw = np.random.default_rng(seed)
    y, x = np.mgrid[0:1:64j, 0:1.5:96j]
    top, low = draw.uniform(0.2, 0.5, 3), draw.uniform(0.55, 0.9, 3)
    picture = top + (low - top) * y[..., None]
    sun = np.exp(-(((x - draw.uniform(0.3, 1.2)) ** 2 + (y - draw.uniform(0.15, 0.4)) ** 2) / 0.006))
    picture += 0.5 * sun[..., None]
    for layer in range(3):
        drift = frame * 0.002 * (layer + 1)
        waves = sum(math.sin(k) * np.sin((x + drift) * k * 2.2 + draw.uniform(0, 6)) / k for k in range(1, 6))
        ridge = 0.45 + 0.16 * layer + 0.06 * waves
        picture[y > ridge] = draw.uniform(0.15, 0.45, 3) * (1 - 0.25 * layer)
    at = 0.3 + frame * 0.02
    picture[(np.abs(x - at) < 0.035) & (np.abs(y - 0.72) < 0.07)] = (0.08, 0.07, 0.09)
    picture = picture.clip(0, 1)
    curve = picture**0.85 * (0.92, 0.84, 0.7) + np.array((0.05, 0.04, 0.07)) * (1 - picture)
    return ((1 - graded) * picture + graded * curve).clip(0, 1).astype(np.float32)


def film(seed: int, *, graded: float, frames: int = FRAMES) -> np.ndarray:
    return np.stack([paint(seed, frame, graded=graded) for frame in range(frames)])


def keep(project: Project, suffix: str, write: Callable[[Path], object]) -> FileRef:
    with project.store.new_object(suffix) as (path, done):
        write(path)
    return done[0]


def prompt(index: int, domain: str) -> str:
    words = INSIDE if domain == "in" else OUTSIDE
    return f"{words[index % 4]} {PLACES[index * 3 % 4]} {TIMES[index % 4]}, slow pan to the right"


def build(root: Path, *, inside: int = 2, outside: int = 1, scenes: int = 3, frames: int = FRAMES) -> Project:
    """A project with every stage up to `score` finished."""
    (root / "footage").mkdir(parents=True)
    (root / "references").mkdir()
    (root / "cinetune.toml").write_text(
        'name = "the-salt-road"\n[train]\nplain_arm = true\n[train.augment]\nprobability = 0.8\n'
    )
    shots = [("in", index) for index in range(inside)] + [("out", index) for index in range(outside)]
    plan = [_planned(root, domain, index, frames=frames) for domain, index in shots]
    (root / "shots.toml").write_text("\n".join(_toml(shot) for shot in plan))
    project = Project(root)
    _film(project, scenes)
    _looks(project)
    _sequences(project, plan, frames=frames)
    _scores(project, plan)
    return project


def _planned(root: Path, domain: str, index: int, *, frames: int) -> PlannedShot:
    name = f"{domain}-{index + 1:02d}"
    seed = 100 + index + 50 * (domain == "out")
    write_png16(root / "references" / f"{name}.png", paint(seed, 0, graded=0))
    truth = None
    if domain == "in":
        truth = f"references/{name}-truth.mp4"
        write_video(root / truth, film(seed, graded=1, frames=frames), rate=RATE)
    words = prompt(index, domain) + (f" {MARKUP}" if (domain, index) == ("in", 0) else "")
    return PlannedShot(
        id=name,
        prompt=words,
        domain="in" if domain == "in" else "out",
        reference=f"references/{name}.png",
        truth=truth,
        seed=seed,
    )


def _toml(shot: PlannedShot) -> str:
    lines = {
        "id": shot.id,
        "prompt": shot.prompt,
        "domain": shot.domain,
        "reference": shot.reference,
        "truth": shot.truth,
    }
    text = "\n".join(f"{key} = {json.dumps(value)}" for key, value in lines.items() if value is not None)
    return f"[[shot]]\n{text}\nseed = {shot.seed}\n"


def _film(project: Project, scenes: int) -> None:
    long, span = 6, Fraction(24000, 1001)
    reel = np.concatenate([film(scene, graded=1, frames=long) for scene in range(scenes)])
    path = project.root / "footage" / "reel_01.mp4"
    write_video(path, reel, rate=span)
    colour = Colour(matrix="bt709", primaries="bt709", transfer="bt709", full_range=False, decided="tagged bt709")
    clip = FootageClip(
        id="reel_01", path="footage/reel_01.mp4", sha256=hashlib.sha256(path.read_bytes()).hexdigest(),
        codec="h264", rate=span, frames=len(reel), width=WIDTH, height=HEIGHT, pixel_aspect=Fraction(1),
        bars=(0, 4, WIDTH, HEIGHT - 8), colour=colour, timecode="01:00:00:00",
    )  # fmt: skip
    shots = [
        Shot(
            id=f"reel_01.{scene:02d}",
            clip="reel_01",
            span=Span(start=scene * long, frames=long, rate=span),
            source="adaptive",
        )
        for scene in range(scenes)
    ]
    windows = [
        Window(
            id=f"{shot.id}.w0",
            shot=shot.id,
            clip="reel_01",
            scene=f"scene {scene}",
            split="held" if scene == 0 else "train",
            source_frames=tuple(range(shot.span.start, shot.span.end)),
            rate=RATE,
            crop=clip.bars,
            width=WIDTH,
            height=HEIGHT,
            caption=prompt(scene, "in"),
            caption_source="sidecar",
        )
        for scene, shot in enumerate(shots)
    ]
    rejected = [
        Rejected(
            path="footage/notes.mp4", reason="not a video: a text file", remedy="remove it from the footage folder"
        )
    ]
    project.store.save_stage("ingest", "k1", {"clips": [clip], "shots": shots, "rejected": rejected}, made=MADE)
    project.store.save_stage("prepare", "k2", {"windows": windows}, made=MADE)


def _looks(project: Project) -> None:
    looks = []
    runs: tuple[tuple[Arm, int, float], ...] = (("look", 180, 0.07), ("plain", 60, 0.01))
    for arm, best, gain in runs:
        draw = np.random.default_rng(best)
        scale = {"floor": 0.03, "ceiling": 0.21}
        lines: list[dict[str, object]] = [{"kind": "start", "step": 0, "arm": arm, "validation": scale}]
        for step in range(241):
            fade = math.exp(-step / 70)
            if step:
                lines.append(
                    {"kind": "step", "step": step, "loss": 0.16 + 0.05 * fade + draw.normal(0, 0.02), "lr": 3e-4}
                )
            if step % 20 == 0:
                distance = 0.15 - gain * (1 - fade) + 0.0001 * max(0, step - best)
                lines.append(
                    {
                        "kind": "evaluation",
                        "step": step,
                        "v_loss": 0.19 - gain / 3 * (1 - fade),
                        "v_loss_regraded": 0.31 - gain * (1 - fade),
                        "distance": distance,
                        "motion": 0.8 + 0.1 * fade,
                    }
                )
        stopped = "lpips plateau at step 240: no gain of 0.001 in 3 evaluations"
        alarms = [] if arm == "look" else ["no gain: distance to the film is 0.1490, 0.1480 before training"]
        lines.append({"kind": "end", "step": 240, "stopped": stopped, "best_step": best, "alarms": alarms})
        text = "".join(map(log_line, lines))
        looks.append(
            Look(
                name="salt-road",
                arm=arm,
                model=ModelRef(family="pocket", location="builtin", weights_sha256="a" * 64),
                rank=8,
                alpha=16.0,
                targets="cross",
                step=best,
                stopped=stopped,
                trigger="",
                dataset_sha="d" * 64,
                recipe_sha="e" * 64,
                weights=keep(project, ".safetensors", lambda path: path.write_bytes(b"adapter")),
                log=keep(project, ".jsonl", lambda path, text=text: path.write_text(text)),
                licence="Apache-2.0",
                provenance=MADE,
            )
        )
    project.store.save_stage("train", "k3", {"looks": looks}, made=MADE)


def _sequences(project: Project, plan: list[PlannedShot], *, frames: int) -> None:
    from safetensors.numpy import save_file

    grades: dict[Arm, float] = {"base": 0.0, "look": 0.8, "plain": 0.1}
    keyframes, sequences, deliveries = [], [], []
    size = (384, 256) if frames == FRAMES else None
    for shot in plan:
        for arm, graded in grades.items():
            movie = film(shot.seed, graded=graded, frames=frames)
            image = keep(project, ".png", lambda path, movie=movie: write_png16(path, movie[0]))
            other = keep(project, ".png", lambda path, movie=movie: write_png16(path, movie[-1]))
            master = (movie * 65535 + 0.5).astype(np.uint16)
            video = keep(project, ".safetensors", lambda path, master=master: save_file({"frames_THWC": master}, path))
            proxy = keep(project, ".mp4", lambda path, movie=movie: write_video(path, movie, rate=RATE, size=size))
            keyframes.append(
                Keyframe(
                    shot=shot.id,
                    arm=arm,
                    seed=0,
                    method="develop",
                    image=image,
                    condition=image,
                    opening=None,
                    candidates=(image, other),
                    scores=(4.25, 5.5),
                    picked=0,
                )
            )
            sequences.append(
                Sequence(
                    shot=shot.id,
                    arm=arm,
                    seed=0,
                    domain=shot.domain,
                    rate=RATE,
                    frames=frames,
                    width=WIDTH,
                    height=HEIGHT,
                    segments=(Segment(first_frame=0, frames=frames, seed=7),),
                    seam_ratio=None,
                    drift=2.375,
                    video=video,
                    proxy=proxy,
                    keyframe=image.sha256,
                    timing=Timing(devices=1, wall_seconds=3.1, peak_gib=1.2),
                    provenance=MADE,
                )
            )
        deliveries.append(
            Delivery(
                shot=shot.id,
                arm="look",
                format="prores_hq",
                version=1,
                files=(sequences[-1].proxy,),
                rate=Fraction(24),
                frames=49,
                conform="hold",
            )
        )
    scenes = [
        SceneMatch(
            scene=scene, who=who, seed=seed, shots=2, light=light, palette=2 * light, keyframe_light=1.0,
            keyframe_palette=2.0,
        )
        for scene, who, seed, light in (("", "film", 0, 1.5), ("s1", "base", 0, 4.0), ("s1", "base", 1, 5.0))
    ]  # fmt: skip
    project.store.save_stage("keyframes", "k4", {"keyframes": keyframes}, made=MADE)
    project.store.save_stage("expand", "k5", {"sequences": sequences, "scenes": scenes}, made=MADE)
    project.store.save_stage("deliver", "k6", {"deliveries": deliveries}, made=MADE)


def _score(
    metric: str,
    value: float | None,
    half: float,
    verdict: str = "",
    *,
    unit: str = "",
    better: Literal["lower", "higher", "none"] = "lower",
    n: int = 8,
    why: str = "",
    claim: Literal["", "closer", "guard", "interaction"] = "",
    margin: float | None = None,
) -> Score:
    low, high = (None, None) if value is None else (value - half, value + half)
    low90, high90 = (None, None) if value is None else (value - 0.8 * half, value + 0.8 * half)
    p = None if value is None or n < 6 else 0.0078 if abs(value) > half else 0.4
    harmed = (
        None
        if value is None or better == "none" or claim == "interaction"
        else 0
        if (value < 0) == (better == "lower")
        else n
    )
    return Score(
        metric=metric,
        version="1",
        unit=unit,
        better=better,
        value=value,
        low=low,
        high=high,
        low90=low90,
        high90=high90,
        p=p,
        adjusted=p if claim else None,
        q=None if claim else p,
        n=n,
        harmed=harmed,
        harmed_most=None if harmed is None else harmed_at_most(harmed, n),
        claim=claim,
        margin=margin,
        verdict=verdict,
        why=why,
    )


def _scores(project: Project, plan: list[PlannedShot]) -> None:
    inside = tuple(shot.id for shot in plan if shot.domain == "in")
    outside = tuple(shot.id for shot in plan if shot.domain == "out")
    levels: dict[str, dict[str, float | None]] = {
        "tone_w1": {"base": 9.41, "look": 3.62, "plain": 9.2, "film": 4.1, "a_a": 0.21},
        "colour_error": {"base": 11.8, "look": 4.9, "plain": 11.6, "floor": 1.31},
        "lpips": {"base": 0.152, "look": 0.121, "plain": 0.15, "floor": 0.031, "ceiling": 0.214},
        "structure": {"base": 0.531, "look": 0.464, "plain": 0.52},
        "motion_error": {"base": 0.11, "look": 0.12, "plain": 0.11, "floor": 0.01, "ceiling": 2.1},
        "luma_flicker": {"base": 0.41, "look": 0.43, "plain": 0.42},
        "motion": {"base": 1.21, "look": 1.19, "plain": 1.2},
        "clip_text": {"base": 0.312, "look": 0.305, "plain": 0.31},
    }
    draw = np.random.default_rng(4)
    per_shot = {
        metric: {
            shot: {
                arm: float(value) + float(draw.normal(0, 0.8))
                for arm, value in levels[metric].items()
                if value is not None
            }
            for shot in (*inside, *outside)
        }
        for metric in ("tone_w1", "colour_error")
    }
    effects: dict[tuple[Arm, Arm, Literal["in", "out", "both"]], tuple[Score, ...]] = {
        ("look", "base", "in"): (
            _score("tone_w1", -5.79, 1.3, unit="L*", verdict="improved", claim="closer", margin=1.0),
            _score("colour_error", -6.9, 1.1, unit="dE2000", verdict="improved", claim="closer", margin=1.0),
            _score("structure", -0.067, 0.013, better="higher", verdict="worse", claim="guard", margin=0.02),
            _score("motion_error", 0.01, 0.02, verdict="no worse", claim="guard", margin=0.05),
            _score("lpips", -0.031, 0.012, unit="pocket distance, not LPIPS"),
            _score("luma_flicker", 0.02, 0.05, unit="L*"),
            _score("motion", -0.02, 0.09, better="none"),
            _score("clip_text", -0.007, 0.011, better="higher"),
        ),
        ("look", "base", "out"): (
            _score("tone_w1", -1.1, 2.4, unit="L*", verdict="cannot tell", claim="closer", margin=1.0),
            _score("colour_error", None, 0, unit="dE2000", n=0, why="no graded truth for these shots", claim="closer"),
            _score("seam_ratio", None, 0, n=0, why="the shots are one segment long"),
            _score("clip_text", -0.031, 0.012, better="higher"),
        ),
        ("look", "base", "both"): (
            _score("tone_w1", -4.7, 2.6, unit="L*", verdict="more inside", claim="interaction"),
        ),
        ("plain", "base", "in"): (_score("tone_w1", -0.2, 0.5, unit="L*"),),
        ("look", "plain", "in"): (_score("tone_w1", -5.6, 1.2, unit="L*", verdict="improved", claim="closer"),),
    }
    ids = {"in": inside, "out": outside, "both": inside + outside}
    cards = [
        Scorecard(
            arm=arm,
            versus=versus,
            domain=domain,
            shots=ids[domain],
            seeds=(0,),
            levels=levels,
            effects=scores,
            per_shot={
                metric: {shot: row for shot, row in rows.items() if shot in ids[domain]}
                for metric, rows in per_shot.items()
            },
            protocol={
                "frames": "33 at 16 fps",
                "features": "pocket CLIP 0123456789ab: never compare with published figures",
            },
            warnings=("One seed: the noise of base against base is not known.",),
        )
        for (arm, versus, domain), scores in effects.items()
    ]
    pairs = keep(project, ".png", lambda path: write_png16(path, np.concatenate([paint(1, 0, graded=1)] * 2)))
    sheet = CopySheet(arm="look", picture=pairs, said="look: 0 of 3 suspect, nearest cosine 0.812")
    subjects = [
        SceneSubject(
            scene=scene, who=who, seed=seed, subject=alike, keyframe_subject=None, network="own: an encoder",
        )
        for scene, who, seed, alike in (("", "film", 0, 0.9), ("s1", "base", 0, 0.7), ("s1", "base", 1, 0.8))
    ]  # fmt: skip
    groups = {"scorecards": cards, "copies": [sheet], "subjects": subjects}
    project.store.save_stage("score", "k7", groups, made=MADE)


@pytest.fixture(scope="session")
def salt_road(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """The finished project, for tests that only read it (and write `report/`)."""
    return build(tmp_path_factory.mktemp("film") / "salt-road", frames=9)
