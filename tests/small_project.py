"""A project folder in miniature, ready to shoot: tiny random model, two random adapters, a little film, and the stage
records before `keyframes`.
"""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np
import torch

from cinetune.artifacts import Arm, FootageClip, Look, ModelRef, Provenance, Window
from cinetune.footage.read.stills import write_png16
from cinetune.footage.video import probe, write_video
from cinetune.models.adapters.export import save_adapter
from cinetune.models.adapters.lora import add_lora, lora_state
from cinetune.models.wan.wan21 import WanVideo
from cinetune.store import Project, sha256_file
from support import remove_lora, save_tiny

__all__ = ["FRAMES", "HEIGHT", "RATE", "WIDTH", "make_project", "moving_picture", "provenance_of"]

FRAMES, HEIGHT, WIDTH, RATE = 9, 32, 48, Fraction(16)

SETTINGS = """
name = "small"
[model]
family = "wan21"
path = "{model}"
[keyframes]
method = "{method}"
[shoot]
segment_frames = 9
steps = 2
guidance = 2.0
"""
SHOT = """
[[shot]]
id = "{id}"
prompt = "a {id} barn"
domain = "{domain}"
reference = "refs/{id}.png"
seconds = {seconds}
seed = {seed}
"""


def moving_picture(seed: int, *, frames: int = FRAMES, warmth: float = 0.0) -> np.ndarray:
    """Soft blobs that drift, `THWC` float32 in [0, 1]; `warmth` moves red up and blue down."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[0:HEIGHT, 0:WIDTH].astype(np.float32)
    centre, speed, tint = rng.uniform(8, 28, 2), rng.uniform(-0.8, 0.8, 2), rng.uniform(0.2, 0.8, 3)
    film = []
    for t in range(frames):
        y, x = centre + speed * t
        blob = np.exp(-((rows - y) ** 2 + (columns - x) ** 2) / 120)[..., None]
        film.append(0.25 + 0.5 * blob * tint + 0.15 * (columns / WIDTH)[..., None])
    return np.clip(np.stack(film) + warmth * np.array([1, 0, -1]), 0, 1).astype(np.float32)


def provenance_of() -> Provenance:
    """A fixed provenance for hand-made records."""
    return Provenance(
        tool="test",
        commit=None,
        dirty=None,
        packages={},
        device="cpu",
        seed=None,
        config_sha="",
        parents=(),
        created_utc="2024-01-01T00:00:00+00:00",
        wall_seconds=0.0,
    )


def _film(root: Path, count: int) -> tuple[list[FootageClip], list[Window]]:
    clips, windows = [], []
    for number in range(count):
        path = root / "footage" / f"c{number}.mp4"
        path.parent.mkdir(exist_ok=True)
        write_video(path, moving_picture(100 + number, warmth=0.12), rate=RATE)
        facts = probe(path)
        clips.append(
            FootageClip(
                id=f"c{number}",
                path=f"footage/c{number}.mp4",
                sha256=sha256_file(path),
                codec=facts.codec,
                rate=facts.rate,
                frames=facts.frames,
                width=facts.width,
                height=facts.height,
                pixel_aspect=facts.pixel_aspect,
                bars=(0, 0, WIDTH, HEIGHT),
                colour=facts.colour,
                timecode=None,
            )
        )
        windows.append(
            Window(
                id=f"w{number}",
                shot=f"s{number}",
                clip=f"c{number}",
                scene=f"scene{number}",
                split="train",
                source_frames=tuple(range(FRAMES)),
                rate=RATE,
                crop=(0, 0, WIDTH, HEIGHT),
                width=WIDTH,
                height=HEIGHT,
                caption="a barn",
                caption_source="test",
            )
        )
    return clips, windows


def _looks(project: Project, model_folder: Path, arms: tuple[Arm, ...]) -> list[Look]:
    model = WanVideo.from_folder(model_folder, family="wan21")
    looks = []
    for number, arm in enumerate(arms):
        parameters = add_lora(model, rank=2, alpha=2, targets="cross", name=arm, seed=number)
        noise = torch.Generator().manual_seed(number)
        for key, parameter in parameters:
            if "lora_B" in key:
                parameter.data = torch.randn(parameter.shape, generator=noise)
        with project.store.new_object(".safetensors") as (path, done):
            save_adapter(path, lora_state(model, arm), alpha=2, rank=2)
        remove_lora(model, arm)
        looks.append(
            Look(
                name="small",
                arm=arm,
                model=ModelRef(family="wan21", location=str(model_folder), weights_sha256=""),
                rank=2,
                alpha=2.0,
                targets="cross",
                step=1,
                stopped="test",
                trigger="warm film",
                dataset_sha="",
                recipe_sha="",
                weights=done[0],
                log=done[0],
                licence="",
                provenance=provenance_of(),
            )
        )
    return looks


def make_project(
    root: Path,
    *,
    shots: int = 1,
    seconds: float = 0.5,
    method: str = "develop",
    arms: tuple[Arm, ...] = ("look",),
    film: int = 2,
) -> Path:
    """Write the project under `root` and return it; every second shot is out of the film's domain. Open it with
    `Project(root)`.
    """
    (root / "refs").mkdir(parents=True)
    save_tiny(root / "model")
    (root / "cinetune.toml").write_text(SETTINGS.format(model=(root / "model").as_posix(), method=method))
    if "plain" in arms:
        with (root / "cinetune.toml").open("a", encoding="utf-8") as file:
            file.write("[train]\nplain_arm = true\n[train.augment]\nprobability = 0.5\n")
    text = ""
    for number in range(shots):
        name = f"sh{number}"
        write_png16(root / "refs" / f"{name}.png", moving_picture(number, frames=1)[0])
        text += SHOT.format(id=name, domain=("in", "out")[number % 2], seconds=seconds, seed=number)
    (root / "shots.toml").write_text(text)
    project = Project(root)
    clips, windows = _film(root, film)
    for stage, groups in (
        ("ingest", {"clips": clips, "shots": [], "rejected": []}),
        ("prepare", {"windows": windows}),
        ("train", {"looks": _looks(project, root / "model", arms)}),
    ):
        project.store.save_stage(stage, "test", groups, made=provenance_of())
    return root
