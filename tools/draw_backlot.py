"""Draw docs/images/backlot.png: every set of the backlot with a subject before it, and one scene in each look.

python tools/draw_backlot.py
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from cinetune.backlot.looks import LOOKS, apply_look
from cinetune.backlot.scenes import HISTORICAL, SCIFI, Scene, caption, render, sample_scene

TARGET = Path(__file__).resolve().parents[1] / "docs" / "images" / "backlot.png"
HEIGHT, WIDTH, GAP, LINE = 128, 192, 6, 20
SHOWN = (2, 30)
SURROUND, INK = (46, 46, 46), (215, 215, 215)


def scenes(domain: str) -> list[Scene]:
    """One scene for each set; times of day take turns, subjects do not repeat while there are others."""
    lot = HISTORICAL if domain == "historical" else SCIFI
    rng = np.random.default_rng(11)
    chosen: list[Scene] = []
    for number, place in enumerate(lot.places):
        time = ("dusk", "noon", "night", "dawn")[number % 4]
        used = {scene.subject for scene in chosen}
        while True:
            scene = sample_scene(rng, domain=domain)
            if (scene.place, scene.time) == (place, time) and scene.subject not in used:
                chosen.append(scene)
                break
    return chosen


def picture(frame: np.ndarray) -> Image.Image:
    return Image.fromarray((frame * 255).round().astype(np.uint8))


def main() -> None:
    font = ImageFont.load_default(size=10)
    tile = WIDTH * len(SHOWN) + GAP
    rows = len(HISTORICAL.places)
    looks_top = GAP + rows * (HEIGHT + LINE + GAP)
    page = Image.new("RGB", (GAP * 3 + tile * 2, looks_top + HEIGHT + LINE + GAP), SURROUND)
    pen = ImageDraw.Draw(page)
    for column, domain in enumerate(("historical", "sci-fi")):
        for row, scene in enumerate(scenes(domain)):
            x, y = GAP + column * (tile + GAP), GAP + row * (HEIGHT + LINE + GAP)
            film = render(scene, height=HEIGHT, width=WIDTH)
            for place, frame in enumerate(SHOWN):
                page.paste(picture(film[frame]), (x + place * (WIDTH + GAP), y))
            pen.text((x, y + HEIGHT + 3), caption(scene), fill=INK, font=font)
    film = render(scenes("historical")[1], frames=17, height=HEIGHT, width=WIDTH)[16:]
    for place, name in enumerate(("neutral", *LOOKS)):
        shown = film if name == "neutral" else apply_look(film, LOOKS[name])
        x = GAP + place * (WIDTH + GAP)
        page.paste(picture(shown[0]), (x, looks_top))
        pen.text((x, looks_top + HEIGHT + 3), name, fill=INK, font=font)
    TARGET.parent.mkdir(parents=True, exist_ok=True)
    page.save(TARGET)


if __name__ == "__main__":
    main()
