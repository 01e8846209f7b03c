"""Scenes of the backlot: what is shot, how it is described in words, and how it is rendered.

A `Scene` is seven plain facts. `caption` says them in a closed vocabulary of lower-case words, `render` paints them as
film frames. Motion is a function of seconds, never of frame numbers, so one scene can be rendered at any rate and size.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal, get_args

import numpy as np

from cinetune.backlot import sets_future, sets_history, subjects_future, subjects_history
from cinetune.backlot.brush import Brush
from cinetune.backlot.camera import CAMERAS, Camera
from cinetune.backlot.light import TIMES
from cinetune.backlot.paint import Array, Canvas, Color, in_turn
from cinetune.backlot.studio import Studio

__all__ = ["HISTORICAL", "SCIFI", "Scene", "caption", "render", "sample_scene", "vocabulary"]

Domain = Literal["historical", "sci-fi"]
Direction = Literal["left", "right"]
Time = Literal["dawn", "noon", "dusk", "night"]
Move = Literal["static", "pan left", "pan right", "tilt up", "push in", "track"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """One shot: where, who, which way, when, the camera move, and the seed of everything left open."""

    domain: Domain
    place: str
    subject: str
    direction: Direction
    time: Time
    camera: Move
    seed: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """A set: its words, how it is painted, where feet and keels stand, and the subject colours that read on it."""

    phrase: str
    paint: Callable[[Studio], None]
    front: Callable[[Studio], None] | None = None
    ground: float = 0.87
    sea: float | None = None
    accents: tuple[str, ...] = ("crimson", "azure", "ivory", "saffron")


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """A subject: its words, how it is painted, `height` above the ground if it flies, half the size of its window."""

    noun: str
    verb: str
    paint: Callable[[Brush, Color], None]
    height: float = 0.0
    shadow: float = 0.2
    reach: float = 0.36
    afloat: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Lot:
    """All sets and subjects of one domain, by name."""

    places: dict[str, Place]
    subjects: dict[str, Subject]


ACCENTS: dict[str, Color] = {
    "crimson": (0.86, 0.13, 0.16),
    "azure": (0.13, 0.40, 0.86),
    "emerald": (0.08, 0.60, 0.36),
    "ivory": (0.97, 0.94, 0.85),
    "saffron": (1.00, 0.72, 0.10),
    "violet": (0.50, 0.22, 0.72),
}

HISTORICAL = Lot(
    places={
        "dunes": Place(
            phrase="across the dunes", paint=sets_history.dunes, accents=("crimson", "azure", "emerald", "violet")
        ),
        "castle": Place(
            phrase="below the castle", paint=sets_history.castle, front=sets_history.castle_front, sea=0.745
        ),
        "steppe": Place(
            phrase="over the steppe",
            paint=sets_history.steppe,
            front=sets_history.steppe_front,
            accents=("crimson", "azure", "ivory", "violet"),
        ),
        "harbour": Place(
            phrase="along the harbour",
            paint=sets_history.harbour,
            front=sets_history.harbour_front,
            ground=0.90,
            sea=0.79,
            accents=("crimson", "saffron", "emerald", "violet"),
        ),
        "village": Place(phrase="past the village", paint=sets_history.village, accents=("azure", "ivory", "violet")),
        "monastery": Place(
            phrase="under the monastery", paint=sets_history.monastery, accents=("crimson", "saffron", "azure")
        ),
    },
    subjects={
        "rider": Subject(noun="a rider", verb="gallops", paint=subjects_history.rider),
        "cart": Subject(noun="a cart", verb="rolls", paint=subjects_history.cart, shadow=0.26),
        "banner bearer": Subject(
            noun="a banner bearer", verb="marches", paint=subjects_history.banner_bearer, shadow=0.1, reach=0.42
        ),
        "lantern procession": Subject(
            noun="a lantern procession", verb="walks", paint=subjects_history.lantern_procession, shadow=0.25
        ),
        "geese": Subject(
            noun="a flock of geese", verb="flies", paint=subjects_history.geese, height=0.52, shadow=0.0, reach=0.32
        ),
        "balloon": Subject(
            noun="a balloon", verb="drifts", paint=subjects_history.balloon, height=0.52, shadow=0.0, reach=0.36
        ),
        "elephant": Subject(noun="an elephant", verb="strides", paint=subjects_history.elephant, shadow=0.24),
        "ship": Subject(noun="a ship", verb="sails", paint=subjects_history.ship, shadow=0.22, reach=0.38, afloat=True),
    },
)

SCIFI = Lot(
    places={
        "neon city": Place(
            phrase="through the neon city", paint=sets_future.neon_city, accents=("saffron", "ivory", "crimson")
        ),
        "moonbase": Place(
            phrase="past the moonbase", paint=sets_future.moonbase, accents=("crimson", "azure", "saffron", "emerald")
        ),
        "canyon": Place(
            phrase="through the canyon",
            paint=sets_future.canyon,
            front=sets_future.canyon_front,
            accents=("azure", "ivory", "emerald", "violet"),
        ),
        "orbital dock": Place(
            phrase="over the orbital dock", paint=sets_future.orbital_dock, accents=("crimson", "saffron", "ivory")
        ),
        "ice plain": Place(
            phrase="across the ice plain",
            paint=sets_future.ice_plain,
            accents=("crimson", "violet", "saffron", "emerald"),
        ),
        "crystal forest": Place(
            phrase="through the crystal forest",
            paint=sets_future.crystal_forest,
            front=sets_future.crystal_forest_front,
            accents=("saffron", "ivory", "crimson"),
        ),
    },
    subjects={
        "rover": Subject(noun="a rover", verb="drives", paint=subjects_future.rover, shadow=0.24, reach=0.42),
        "saucer": Subject(noun="a saucer", verb="hovers", paint=subjects_future.saucer, height=0.44, reach=0.38),
        "drone": Subject(noun="a drone", verb="buzzes", paint=subjects_future.drone, height=0.44, reach=0.34),
        "walker": Subject(noun="a robot", verb="strides", paint=subjects_future.walker, shadow=0.15, reach=0.38),
        "rocket": Subject(
            noun="a rocket", verb="flies", paint=subjects_future.rocket, height=0.50, shadow=0.0, reach=0.38
        ),
        "hover bike": Subject(noun="a hover bike", verb="races", paint=subjects_future.hover_bike),
        "probe": Subject(noun="a probe", verb="drifts", paint=subjects_future.probe, height=0.50, shadow=0.0),
    },
)

LOTS: dict[str, Lot] = {"historical": HISTORICAL, "sci-fi": SCIFI}


def sample_scene(rng: np.random.Generator, *, domain: str | None = None) -> Scene:
    """Draw a scene, all choices equally likely; a ship is only sent where there is water.

    `domain` is "historical", "sci-fi" or None for either.
    """
    names = tuple(LOTS) if domain is None else (domain,)
    name = names[rng.integers(len(names))]
    lot = LOTS[name]
    places = tuple(lot.places)
    place = places[rng.integers(len(places))]
    subjects = tuple(key for key, it in lot.subjects.items() if not it.afloat or lot.places[place].sea is not None)
    directions: tuple[Direction, ...] = ("left", "right")
    times, cameras = get_args(Time), get_args(Move)
    return Scene(
        domain="historical" if name == "historical" else "sci-fi",
        place=place,
        subject=subjects[rng.integers(len(subjects))],
        direction=directions[rng.integers(2)],
        time=times[rng.integers(len(times))],
        camera=cameras[rng.integers(len(cameras))],
        seed=int(rng.integers(2**31)),
    )


def caption(scene: Scene) -> str:
    """One sentence: subject, verb, direction, set, time of day, camera."""
    lot = LOTS[scene.domain]
    subject, place = lot.subjects[scene.subject], lot.places[scene.place]
    action = f"{subject.noun} {subject.verb} to the {scene.direction} {place.phrase}"
    return f"{action} at {scene.time}, {CAMERAS[scene.camera]}"


def vocabulary() -> tuple[str, ...]:
    """All words any caption can hold, sorted; the comma counts as a word."""
    phrases = ["to the left right at ,", *TIMES, *CAMERAS.values()]
    for lot in LOTS.values():
        phrases += [place.phrase for place in lot.places.values()]
        phrases += [f"{subject.noun} {subject.verb}" for subject in lot.subjects.values()]
    return tuple(sorted({word for phrase in phrases for word in phrase.split()}))


def render(
    scene: Scene,
    *,
    frames: int = 33,
    height: int = 64,
    width: int = 96,
    rate: Fraction = Fraction(16),
    start: float = 0.0,
) -> Array:
    """Paint a scene: float32 [T, H, W, 3], display RGB in [0, 1], in a neutral grade.

    Frame k shows the moment `start + k / rate` seconds, so the same scene at another rate shows the same motion.
    """
    times = [start + float(k / Fraction(rate)) for k in range(frames)]
    seconds = np.asarray(times, np.float32)[:, None, None]
    # nothing but the seconds differs from frame to frame, and a few frames at a time fit the processor's cache
    return np.concatenate([_paint(scene, some, height, width) for some in in_turn(seconds)])


def _paint(scene: Scene, seconds: Array, height: int, width: int) -> Array:
    """The frames `THWC` at `seconds` `[T, 1, 1]`."""
    lot = LOTS[scene.domain]
    place, subject = lot.places[scene.place], lot.subjects[scene.subject]
    rng = np.random.default_rng(scene.seed)
    facing = 1.0 if scene.direction == "right" else -1.0
    camera = Camera(scene.camera, facing, seconds=seconds, height=height, width=width)
    studio = Studio(Canvas(len(seconds), height, width), camera, TIMES[scene.time], rng=rng, seconds=seconds)
    accent = ACCENTS[place.accents[rng.integers(len(place.accents))]]
    pace, size, lift = rng.uniform(0.0, 1.0), rng.uniform(0.95, 1.15), rng.uniform(-0.03, 0.03)
    place.paint(studio)
    path_start, speed = camera.subject_path(scene.camera, facing, pace)
    base = place.sea if subject.afloat and place.sea is not None else place.ground
    altitude = subject.height + (lift if subject.height else 0.0)
    at = (path_start + speed * seconds, np.full_like(seconds, base - altitude))
    brush = Brush(studio, at=at, facing=facing, size=size, reach=subject.reach)
    subject.paint(brush, accent)
    brush.finish(shadow=subject.shadow, ground=-altitude / size)
    if place.front is not None:
        place.front(studio)
    studio.canvas.unfold()
    return np.ascontiguousarray(np.clip(studio.canvas.rgb, 0.0, 1.0).transpose(1, 2, 3, 0), dtype=np.float32)
