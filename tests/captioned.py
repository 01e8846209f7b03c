"""A film of three clips of two shots each, cut and ready to be captioned, and a caption as it should be."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from cinetune.footage.video import write_video
from cinetune.runtime import Quiet
from cinetune.stages import ingest
from cinetune.store import Project
from films import FILM, drift

__all__ = ["GOOD", "SHOTS", "make_film", "settings"]

GOOD = (
    "A rider in a dark coat crosses a cobbled square on a brown horse from left to right, his head turned to a row "
    "of market stalls behind him. Two women with baskets stand near a stone well in the foreground and step back as he "
    "passes. Timber houses and a church tower close the square in the background. Low light falls from the left down "
    "the open street at dusk, and long shadows lie across the stones. The camera pans left with him at waist height, "
    "keeping him in the middle of a wide shot."
)
SHOTS = [f"c{clip}_s00{shot}" for clip in range(3) for shot in range(2)]
_BASE = "[prepare]\nframes = 9\nheight = 32\nwidth = 48\n[caption]\nframes = 3\nsize = 64\n"


def settings(**caption: object) -> str:
    """A project file with these keys in `[caption]`."""
    return _BASE + "".join(f"{key} = {value!r}\n" for key, value in caption.items())


def make_film(root: Path) -> Path:
    """Write and ingest the film under `root`."""
    (root / "footage").mkdir()
    (root / "cinetune.toml").write_text(settings())
    for number in range(3):
        shots = np.concatenate([drift(2 * number, 20), drift(2 * number + 1, 20)])
        write_video(root / "footage" / f"c{number}.mp4", shots, rate=FILM)
    ingest.run(Project(root), Quiet())
    return root
