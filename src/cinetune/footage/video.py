"""Film files in and out, through PyAV: reading is `cinetune.footage.reading`, writing `cinetune.footage.movies`. No
ffmpeg program is needed.

Rates are exact fractions, and colour is converted by `cinetune.footage.color` alone. `size` is always (width, height).
"""

from __future__ import annotations

from cinetune.footage.movies import MOVIES, Movie, write_video
from cinetune.footage.reading import Probe, iterate, probe, read_at_rate, read_clip, read_frames, read_window

__all__ = [
    "MOVIES",
    "Movie",
    "Probe",
    "iterate",
    "probe",
    "read_at_rate",
    "read_clip",
    "read_frames",
    "read_window",
    "write_video",
]
