"""How `ingest` decided about one clip, as a page to look at: frames around every cut, each shot, what was left out, the
bars, and the notes in words.
"""

from __future__ import annotations

import base64
import difflib
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from cinetune.artifacts import FootageClip, Rejected, Shot
from cinetune.errors import ConfigError
from cinetune.footage.read.reading import read_clip, require_original
from cinetune.pages.kit import render
from cinetune.pages.sheet import start_label, strip
from cinetune.results import Ingested
from cinetune.store import Project

__all__ = ["write_explanation"]

Array = np.ndarray
_WIDTH = 208  # pixels of a small picture, as on the contact sheet
_AT_ONCE = 64  # pictures that are read in one go
_FRAME = (1.0, 0.69, 0.13)  # R'G'B' of the line around the picture inside its bars
_BLACK = 0.02  # mean of R'G'B'
_SOURCES = {
    "adaptive": "cuts detected in the picture",
    "edl": "cut by an EDL",
    "otio": "cut by an OTIO file",
    "whole": "taken whole: footage.detector is none",
    "xml": "cut by a Final Cut Pro 7 XML",
}


def write_explanation(project: Project, name: str) -> Path:
    """Write `work/ingest/explain_NAME.html` about the clip of this id and return its path.

    Raises `ConfigError` for an unknown clip, naming the nearest or why it was refused, `StoreError` before the first
    `ingest`, `FootageError` if the file changed since.
    """
    film = project.store.need(Ingested)
    clip = _clip(name, film.clips, film.rejected)
    require_original(project.root, clip)
    parts = _parts(clip, [shot for shot in film.shots if shot.clip == clip.id])
    pictures = _pictures(project.root, clip, [number for part in parts for number in part["shown"]])
    for part in parts:
        if part["kind"] == "out":
            least = project.config.footage.min_shot_seconds
            part["notes"] = _why(clip, part, [pictures[number] for number in part["shown"]], least)
    if clip.bars[2:] != (clip.width, clip.height):
        for picture in pictures.values():
            _outline(picture, clip)
    for part in parts:
        part["strip"] = _inline([pictures[number] for number in part["shown"]])
    x, y, width, height = clip.bars
    context = {
        "clip": clip,
        "parts": parts,
        "facts": _facts(clip, parts),
        "left_out": [note.removeprefix("left out: ") for note in clip.notes if note.startswith("left out: ")],
        "notes": [note for note in clip.notes if not note.startswith("left out: ")],
        "barred": (width, height) != (clip.width, clip.height),
        "bars": f"{width}×{height} at {x}, {y}",
        "length": clip.frames,
    }
    page = project.root / "work" / "ingest" / f"explain_{clip.id[:100]}.html"
    project.store.write_text(page, render(context, "explain.html.j2"))
    return page


def _clip(name: str, clips: Sequence[FootageClip], rejected: Sequence[Rejected]) -> FootageClip:
    for clip in clips:
        if name in (clip.id, clip.path):
            return clip
    for row in rejected:
        if name in (row.path, Path(row.path).name, Path(row.path).stem):
            raise ConfigError(f"{row.path} is no clip: {row.reason}", remedy=row.remedy)
    known = [clip.id for clip in clips]
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.0)
    raise ConfigError(f"there is no clip {name!r}", where="--explain", remedy=f"the nearest is {near[0]!r}")


def _parts(clip: FootageClip, shots: Sequence[Shot]) -> list[dict[str, Any]]:
    """The clip from its first frame to its last: shots, what lies between them, and a cut wherever two of these meet.
    Each has its frames [start, end) and the frames to show.
    """
    parts: list[dict[str, Any]] = []
    at = 0

    def add(kind: str, start: int, end: int, shot: Shot | None = None) -> None:
        if start > 0:
            parts.append(_part(clip, "cut", start - 1, start + 1))
        parts.append(_part(clip, kind, start, end, shot))

    for shot in sorted(shots, key=lambda shot: shot.span.start):
        if shot.span.start > at:
            add("out", at, shot.span.start)
        add("shot", shot.span.start, shot.span.end, shot)
        at = shot.span.end
    if at < clip.frames:
        add("out", at, clip.frames)
    return parts


def _part(clip: FootageClip, kind: str, start: int, end: int, shot: Shot | None = None) -> dict[str, Any]:
    return {
        "kind": kind,
        "start": start,
        "end": end,
        "shown": [start, end - 1] if kind == "cut" else [start, (start + end) // 2, end - 1],
        "first": start_label(clip, start),
        "last": start_label(clip, end - 1),
        "seconds": float((end - start) / clip.rate),
        "name": shot.id if shot else "",
        "source": _SOURCES.get(shot.source, shot.source) if shot else "",
        "notes": shot.notes if shot else (),
    }


def _pictures(root: Path, clip: FootageClip, wanted: Sequence[int]) -> dict[int, Array]:
    """Small pictures [h, w, 3] by number, in one pass over the film."""
    width = min(_WIDTH, clip.width)
    size = width, max(2, round(width * clip.height / (clip.width * clip.pixel_aspect)))
    numbers = sorted(set(wanted))
    found: dict[int, Array] = {}
    for first in range(0, len(numbers), _AT_ONCE):
        some = numbers[first : first + _AT_ONCE]
        found |= zip(some, read_clip(root, clip, some, size=size), strict=True)
    return found


def _why(clip: FootageClip, part: dict[str, Any], shown: Sequence[Array], least: float) -> list[str]:
    """Why these frames are in no shot, as far as it can be told: the note that names them, or what they plainly are."""
    place = f"{part['start']}..{part['end'] - 1}"
    named = [note.removeprefix("left out: ") for note in clip.notes if re.search(rf"\b{re.escape(place)}\b", note)]
    if named:
        return named
    if max(float(picture.mean()) for picture in shown) < _BLACK:
        return ["black"]
    return [f"under {least:g} s (footage.min_shot_seconds)"] if part["seconds"] < least else []


def _outline(picture: Array, clip: FootageClip) -> None:
    """Draw the edge of `clip.bars` into a small picture, one pixel wide, just outside of what is kept."""
    height, width = picture.shape[:2]
    x, y, across, down = clip.bars
    left, right = (round(place * width / clip.width) for place in (x, x + across))
    top, bottom = (round(place * height / clip.height) for place in (y, y + down))
    left, right, top, bottom = max(left - 1, 0), min(right, width - 1), max(top - 1, 0), min(bottom, height - 1)
    picture[[top, bottom], left : right + 1] = _FRAME
    picture[top : bottom + 1, [left, right]] = _FRAME


def _inline(pictures: Sequence[Array]) -> str:
    return "data:image/webp;base64," + base64.b64encode(strip(np.stack(pictures))).decode("ascii")


def _facts(clip: FootageClip, parts: Sequence[dict[str, Any]]) -> list[tuple[str, str]]:
    """What was decided about the whole file, a word and a sentence each."""
    reading = clip.reading
    made = {
        "": "progressive: every frame is a picture",
        "bwdif": f"interlaced ({reading.order}): deinterlaced with bwdif",
    }
    made["pulldown"] = f"3:2 pulldown ({reading.order}): removed"
    read = (
        "one picture a frame" if not reading.by_time else "varying rate: the frame on screen at each picture's middle"
    )
    if reading.turn:
        read += f"; turned {90 * reading.turn} degrees anticlockwise"
    start = f"starts at {clip.timecode}" if clip.timecode else "no timecode in the file: + counts from its start"
    whole = float(clip.frames / clip.rate)
    colour = clip.colour
    coded = [f"matrix {colour.matrix}", f"primaries {colour.primaries}", f"curve {colour.transfer}"]
    coded.append("full range" if colour.full_range else "limited range")
    coded += [f"{word} {value}" for word, value in (("space", colour.space), ("LUT", colour.lut)) if value]
    kept = sum(part["end"] - part["start"] for part in parts if part["kind"] == "shot")
    sources = dict.fromkeys(part["source"] for part in parts if part["kind"] == "shot")
    return [
        ("file", f"{clip.path}, {clip.codec}, {clip.width}×{clip.height}, pixels {clip.pixel_aspect} as wide as high"),
        ("rate", f"{clip.rate} fps, exact; {clip.frames} pictures counted by decoding, {whole:.2f} s; {start}"),
        ("reading", read),
        ("fields", made[reading.fields]),
        ("colour", f"{colour.decided}: {', '.join(coded)}"),
        ("shots", f"{'; '.join(sources)}; {kept} of {clip.frames} pictures are in shots"),
    ]  # fmt: skip
