"""Film files in and out, through PyAV: `cinetune.footage.read.reading` and `cinetune.footage.write.movies`.
No ffmpeg program is needed.

Rates are exact fractions, and colour is converted by `cinetune.footage.read.color` alone. `size` is (width, height).
"""

from __future__ import annotations

from cinetune.footage.read.reading import Probe, probe, read_clip, read_frames, read_window
from cinetune.footage.write.movies import MOVIES, MovieFormat, write_video

__all__ = [
    "MOVIES",
    "MovieFormat",
    "Probe",
    "probe",
    "read_clip",
    "read_frames",
    "read_window",
    "write_video",
]
