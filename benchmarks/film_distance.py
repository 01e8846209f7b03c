"""Which film should a shot be compared with: all of it, or the scenes nearest to it?

    python benchmarks/film_distance.py

Renders the demo film and in-domain shots it does not hold, ungraded and with the film's own grade, in every look of the
backlot. A distance to the film is of use if graded shots are nearer than ungraded ones: the table gives the mean of the
paired difference and its t value for the whole film pooled and for the one to four scenes nearest by `lab_frechet`.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from cinetune.backlot.looks import LOOKS, FilmLook, grade
from cinetune.backlot.scenes import Scene, render
from cinetune.demo import FILM_SCENES, SHOTS_PER_SCENE, locations, shots_at
from cinetune.metrics import lab_frechet, nearest_scenes, palette_distance, split_tone, tone_distance
from cinetune.metrics.checks import Array
from cinetune.metrics.suite import cloud

SHOTS = 12
EVERY = 8
DISTANCES: dict[str, Callable[[Array, Array], float]] = {
    "tone_w1": tone_distance,
    "lab_frechet": lab_frechet,
    "split_tone": lambda x, y: split_tone(x, y).mean,
    "palette": palette_distance,
}


def _pictures(scenes: list[Scene]) -> list[Array]:
    return [render(scene)[::EVERY] for scene in scenes]


def _film(scenes: list[Scene], pictures: list[Array], look: FilmLook) -> list[Array]:
    """Lab clouds of the graded film, one for each place and time of day."""
    clouds: dict[tuple[str, str], list[Array]] = {}
    for scene, picture in zip(scenes, pictures, strict=True):
        clouds.setdefault((scene.place, scene.time), []).append(cloud(grade(picture, look)))
    return [np.concatenate(parts) for parts in clouds.values()]


def _t(differences: Array) -> float:
    return float(differences.mean() / (differences.std(ddof=1) / len(differences) ** 0.5))


def main() -> None:
    places = locations("historical")
    scenes = shots_at(places[:FILM_SCENES], "historical", SHOTS_PER_SCENE)
    filmed, shots = _pictures(scenes), _pictures(shots_at(places[FILM_SCENES:][:SHOTS], "historical", 1))
    print("| look | distance | whole film | nearest 1 | nearest 2 | nearest 3 | nearest 4 |")
    print("|---|---|---|---|---|---|---|")
    for look in LOOKS.values():
        film = _film(scenes, filmed, look)
        pairs = [(cloud(neutral), cloud(grade(neutral, look))) for neutral in shots]
        for name, distance in DISTANCES.items():
            cells: list[str] = []
            for count in (len(film), 1, 2, 3, 4):
                gaps = np.asarray(
                    [
                        distance(graded, nearest_scenes(graded, film, count=count))
                        - distance(neutral, nearest_scenes(neutral, film, count=count))
                        for neutral, graded in pairs
                    ]
                )
                cells.append(f"{gaps.mean():+.2f} (t {_t(gaps):+.1f})")
            print(f"| {look.name} | {name} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
