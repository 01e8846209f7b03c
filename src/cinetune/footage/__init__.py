"""Film in and out: files, colour, shots, captions, edits, deliveries. Knows no model and no stage."""

from cinetune.footage.cut.cuts import Watcher, find_bars, find_pieces
from cinetune.footage.edit.cutlists import plan_cuts, read_cut_list, spans_of
from cinetune.footage.edit.timeline import TimelineEntry, write_edit
from cinetune.footage.read.color import decide_colour, resize
from cinetune.footage.read.stills import read_image, write_png16
from cinetune.footage.video import Probe, probe, read_frames, read_window, write_video

__all__ = [
    "Probe",
    "TimelineEntry",
    "Watcher",
    "decide_colour",
    "find_bars",
    "find_pieces",
    "plan_cuts",
    "probe",
    "read_cut_list",
    "read_frames",
    "read_image",
    "read_window",
    "resize",
    "spans_of",
    "write_edit",
    "write_png16",
    "write_video",
]
