"""A small film to try cinetune on: reels shot on the backlot in one look, and a shot list with neutral references.

The film is historical. Half of the shots to make are historical too (`in`), in places and at times of day the film
never shows together; the other half is science fiction (`out`). Each reference is an ungraded still; because the
backlot can render the same shot with the film's grade, the truth is known too.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from cinetune.artifacts import Domain
from cinetune.backlot.looks import LOOKS, grade
from cinetune.backlot.reels import shoot_reels
from cinetune.backlot.scenes import HISTORICAL, SCIFI, Scene, caption, render, sample_scene
from cinetune.durable import atomic_write
from cinetune.footage.read.stills import write_png16
from cinetune.footage.video import write_video
from cinetune.nursery import open_nursery
from cinetune.runtime import Reporter, derive

__all__ = ["FILM_SCENES", "LOOK", "SHOTS_PER_DOMAIN", "SHOTS_PER_SCENE", "locations", "make_demo", "shots_at"]

LOOK = "gouache"
SEED = 7
FILM_SCENES, SHOTS_PER_SCENE, SHOTS_PER_DOMAIN = 10, 4, 8
PICTURE_HEIGHT, PICTURE_WIDTH, LETTERBOX = 128, 192, 16
TIMES = ("dawn", "noon", "dusk", "night")

CONFIG = """# A film of {scenes} scenes in the look "{look}", made by `cinetune demo`.
# `cinetune plan` lists every key.
preset = "pocket"
name = "demo"

[prepare]
trigger = "{look} film look"
"""

SHOT = """[[shot]]
id = "{id}"
prompt = "{prompt}"
domain = "{domain}"
reference = "references/{id}.png"
truth = "references/{id}_truth.mov"
seed = {seed}

"""


def locations(domain: str) -> list[tuple[str, str]]:
    """Every (place, time of day) of a domain, in an order that depends on the seed alone."""
    lot = HISTORICAL if domain == "historical" else SCIFI
    pairs = [(place, time) for place in lot.places for time in TIMES]
    order = np.random.default_rng(derive(SEED, "locations", domain)).permutation(len(pairs))
    return [pairs[i] for i in order]


def shots_at(locations: Sequence[tuple[str, str]], domain: str, each: int) -> list[Scene]:
    """`each` scenes at every location: subject, direction and camera are drawn, no subject twice at one location."""
    rng = np.random.default_rng(derive(SEED, "shots", domain, len(locations), each))
    scenes: list[Scene] = []
    for place, time in locations:
        subjects: set[str] = set()
        while len(subjects) < each:
            scene = sample_scene(rng, domain=domain)
            if (scene.place, scene.time) == (place, time) and scene.subject not in subjects:
                subjects.add(scene.subject)
                scenes.append(scene)
    return scenes


def _shoot_list(root: Path, look: str, report: Reporter) -> None:
    """References (neutral stills), truths (the same shots with the film's grade), and `shots.toml`."""
    plan: list[tuple[str, Domain, Scene]] = []
    domains: tuple[tuple[Domain, str, str, int], ...] = (
        ("in", "historical", "hist", FILM_SCENES),
        ("out", "sci-fi", "scifi", 0),
    )
    for domain, name, prefix, skip in domains:
        scenes = shots_at(locations(name)[skip : skip + SHOTS_PER_DOMAIN], name, 1)
        for number, scene in enumerate(scenes, start=1):
            plan.append((f"{prefix}{number:02d}", domain, scene))
    text = "# Shots to make. `truth` is what the film itself would show; a real film has none.\n\n"
    for number, (name, domain, scene) in enumerate(plan):
        text += SHOT.format(id=name, prompt=caption(scene), domain=domain, seed=number)
    with report.progress("references and truths", len(plan)) as bar:
        _apart(
            partial(_render_shot, root / "references", look), [(name, scene) for name, _, scene in plan], bar.advance
        )
    with atomic_write(root / "shots.toml") as temporary:
        temporary.write_text(text, encoding="utf-8")


def _render_shot(folder: Path, look: str, shot: tuple[str, Scene]) -> None:
    """The reference and the truth of one planned shot."""
    name, scene = shot
    neutral = render(scene)
    write_png16(folder / f"{name}.png", neutral[0])
    write_video(folder / f"{name}_truth.mov", grade(neutral, LOOKS[look]), rate=Fraction(16), codec="prores_hq")


def _apart(
    call: Callable[[Any], None], items: Sequence[Any], done: Callable[[], None] = lambda: None
) -> Iterable[None]:
    """The call for each item, in as many processes as there are cores."""
    from cinetune.generation import Work, run_tasks

    work = Work(tasks=items, open_maker=partial(_caller, call), done=lambda *_: done())
    run_tasks(work, workers=min(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1, len(items)))
    return [None] * len(items)


def _caller(call: Callable[[Any], None]) -> Callable[[Any], None]:
    return call


def make_demo(root: Path, report: Reporter, *, look: str = LOOK) -> None:
    """Write the demo project into `root`, or leave it alone if it is there already; a killed call can be repeated.
    `look` is one of the backlot's.
    """
    if (root / "cinetune.toml").is_file():
        return
    open_nursery()
    report.say(
        f"shooting a film of {FILM_SCENES} scenes on the backlot, in the look {look!r}: {LOOKS[look].description}"
    )
    scenes = shots_at(locations("historical")[:FILM_SCENES], "historical", SHOTS_PER_SCENE)
    shoot_reels(
        root / "footage",
        scenes,
        LOOKS[look],
        per_reel=SHOTS_PER_SCENE,
        height=PICTURE_HEIGHT,
        width=PICTURE_WIDTH,
        letterbox=LETTERBOX,
        mapped=_apart,
    )
    _shoot_list(root, look, report)
    with atomic_write(root / "cinetune.toml") as temporary:
        temporary.write_text(CONFIG.format(scenes=FILM_SCENES, look=look), encoding="utf-8")
