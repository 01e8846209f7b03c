"""Film in and out: files, colour, shots, captions, edits, deliveries. Knows no model and no stage."""

from cinetune.footage.color import decide_colour, resize
from cinetune.footage.cuts import Watcher, find_bars, find_pieces
from cinetune.footage.stills import read_image, write_png16
from cinetune.footage.timeline import TimelineEntry, read_edl, write_otio
from cinetune.footage.video import Probe, iterate, probe, read_at_rate, read_frames, read_window, write_video

__all__ = [
    "Probe",
    "TimelineEntry",
    "Watcher",
    "decide_colour",
    "find_bars",
    "find_pieces",
    "iterate",
    "probe",
    "read_at_rate",
    "read_edl",
    "read_frames",
    "read_image",
    "read_window",
    "resize",
    "write_otio",
    "write_png16",
    "write_video",
]
