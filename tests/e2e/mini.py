"""A whole project in miniature on the shipped pocket model: real reels, a shot list, and settings that take seconds."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np

from cinetune.backlot.looks import LOOKS, grade
from cinetune.backlot.reels import shoot_reels
from cinetune.backlot.scenes import caption, render, sample_scene
from cinetune.footage.read.stills import write_png16
from cinetune.footage.video import write_video

SETTINGS = """
preset = "pocket"
name = "mini"
[prepare]
trigger = "silver film"
held_fraction = 0.34
[train]
steps = 6
batch = 1
validate_every = 3
validation_shots = 1
validation_steps = 2
checkpoint_every = 2
[train.augment]
variants = 1
[shoot]
steps = 2
workers = 1
[deliver]
formats = ["proxy"]
"""


def make_mini(root: Path, *, film: int = 4, shots: int = 1) -> Path:
    """Reels of two shots, `film` shots in all; `shots` to make in the film's domain and as many outside it."""
    rng = np.random.default_rng(5)
    look = LOOKS["silver"]
    scenes = [sample_scene(rng, domain="historical") for _ in range(film)]
    shoot_reels(root / "footage", scenes, look, per_reel=2, seconds=2.2, height=64, width=96, letterbox=8)
    text = ""
    for number, (name, domain) in enumerate((("historical", "in"), ("sci-fi", "out")) * shots):
        scene = sample_scene(rng, domain=name)
        neutral = render(scene)
        write_png16(root / "references" / f"sh{number}.png", neutral[0])
        truth = root / "references" / f"sh{number}.mov"
        write_video(truth, grade(neutral, look), rate=Fraction(16), codec="prores_hq")
        text += (
            f'[[shot]]\nid = "sh{number}"\nprompt = "{caption(scene)}"\ndomain = "{domain}"\nseed = {number}\n'
            f'reference = "references/sh{number}.png"\ntruth = "references/sh{number}.mov"\n\n'
        )
    (root / "shots.toml").write_text(text, encoding="utf-8")
    (root / "cinetune.toml").write_text(SETTINGS, encoding="utf-8")
    return root


TINY = """
preset = "pocket"
name = "tiny"
[prepare]
trigger = "silver film"
held_fraction = 0.25
frames = 5
[train]
steps = 4
batch = 1
validate_every = 2
validation_seeds = 1
validation_shots = 1
validation_windows = 1
validation_steps = 1
checkpoint_every = 1
plain_arm = false
workers = 1
[train.augment]
variants = 1
[shoot]
steps = 1
segment_frames = 5
overlap = 1
workers = 1
[deliver]
formats = ["proxy", "png16"]
"""


def make_tiny(root: Path) -> Path:
    """The least of everything: four clips of one second, one window each, two shots of a third of a second."""
    rng, look = np.random.default_rng(5), LOOKS["silver"]
    (root / "footage").mkdir(parents=True)
    (root / "references").mkdir()
    for number in range(4):
        scene = sample_scene(rng, domain="historical")
        write_video(root / "footage" / f"c{number}.mp4", grade(render(scene), look)[:16], rate=Fraction(16))
        (root / "footage" / f"c{number}.txt").write_text(caption(scene), encoding="utf-8")
    text = ""
    for number, (name, domain) in enumerate((("historical", "in"), ("sci-fi", "out"))):
        scene = sample_scene(rng, domain=name)
        neutral = render(scene)
        write_png16(root / "references" / f"sh{number}.png", neutral[0])
        truth = root / "references" / f"sh{number}.mov"
        write_video(truth, grade(neutral, look)[:9], rate=Fraction(16), codec="prores_hq")
        text += (
            f'[[shot]]\nid = "sh{number}"\nprompt = "{caption(scene)}"\ndomain = "{domain}"\nseed = {number}\n'
            f'seconds = 0.3\nreference = "references/sh{number}.png"\ntruth = "references/sh{number}.mov"\n\n'
        )
    (root / "shots.toml").write_text(text, encoding="utf-8")
    (root / "cinetune.toml").write_text(TINY, encoding="utf-8")
    return root
