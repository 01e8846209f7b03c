"""Pictures and films for the page: read from the project, sampled, and packed as data URIs."""

from __future__ import annotations

import base64
import io
import math
import re
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

from PIL import Image

from cinetune.artifacts import FileRef, FootageClip, PlannedShot, Window
from cinetune.artifacts import Sequence as FilmSequence
from cinetune.files import master_slice
from cinetune.pages.sheets import to_image
from cinetune.store import Project

__all__ = [
    "film_still",
    "first_seed",
    "master_frames",
    "nearest_windows",
    "open_picture",
    "picture_uri",
    "sampled",
    "truth_film",
    "video_uri",
]

_PLAYER_HEIGHT = 240  # small films are enlarged by a whole factor so that browsers do not blur them
_WORD = re.compile(r"[a-z]+")
_STOP = frozenset(("a", "an", "and", "as", "at", "by", "from", "in", "into", "of", "on", "over", "the", "to", "with"))


def sampled(frames: int, count: int = 5) -> tuple[int, ...]:
    """Frame numbers spread evenly from the first to the last: 0, 8, 16, 24, 32 for 33 frames."""
    return tuple(dict.fromkeys(round(index * (frames - 1) / (count - 1)) for index in range(count)))


def picture_uri(picture: Image.Image, *, quality: int = 86, width: int | None = None) -> str:
    """A WebP data URI; `width` enlarges (bicubic) or reduces (Lanczos) to that many pixels."""
    if width is not None and width != picture.width:
        kernel = Image.Resampling.BICUBIC if width > picture.width else Image.Resampling.LANCZOS
        picture = picture.resize((width, max(1, round(width * picture.height / picture.width))), kernel)
    buffer = io.BytesIO()
    picture.convert("RGB").save(buffer, "WEBP", quality=quality, method=4)
    return "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def video_uri(path: Path) -> str:
    """An mp4 file as a data URI, byte for byte."""
    return "data:video/mp4;base64," + base64.b64encode(path.read_bytes()).decode("ascii")


def open_picture(path: Path) -> Image.Image:
    """A picture file in 8-bit RGB. Raises `FootageError` if it is not one."""
    from cinetune.footage.read.stills import read_image

    return to_image(read_image(path))


def master_frames(project: Project, video: FileRef, frames: Sequence[int]) -> list[Image.Image | None]:
    """The given frames of a lossless master; None past its end. Only these frames are read from disk."""
    master_THWC = master_slice(project.store.path(video))
    total = master_THWC.get_shape()[0]
    return [to_image(master_THWC[frame : frame + 1][0]) if frame < total else None for frame in frames]


def film_still(project: Project, clip: FootageClip, window: Window) -> Image.Image:
    """The middle frame of a training window, as training saw it: cropped, display-referred. Raises `FootageError`."""
    from cinetune.footage.video import read_window

    middle = window.source_frames[len(window.source_frames) // 2]
    return to_image(read_window(project.root, clip, replace(window, source_frames=(middle,)))[0])


def truth_film(project: Project, shot: PlannedShot, *, like: FilmSequence) -> tuple[list[Image.Image], str] | None:
    """What the film itself would show at the times of a generated shot's frames, and the same as an mp4 data URI.

    Ends earlier if the file does. None where it is not known. Raises `FootageError` for an unreadable file.
    """
    from cinetune.footage.video import probe, read_frames, write_video

    if shot.truth is None:
        return None
    found = probe(project.root / shot.truth)
    wanted = [int(frame * found.rate / like.rate + Fraction(1, 2)) for frame in range(like.frames)]
    inside = [index for index in wanted if index < found.frames]
    film_THWC = read_frames(found.path, inside, colour=found.colour, rate=found.rate, reading=found.reading)
    height = like.height * math.ceil(_PLAYER_HEIGHT / like.height) // 2 * 2
    width = round(height * film_THWC.shape[2] / film_THWC.shape[1] / 2) * 2
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "truth.mp4"
        write_video(path, film_THWC, rate=like.rate, codec="h264_quick", size=(width, height))
        return [to_image(frame_HWC) for frame_HWC in film_THWC], video_uri(path)


def nearest_windows(prompt: str, windows: Sequence[Window], count: int) -> list[Window]:
    """The training windows whose captions share most words with a prompt, one for each scene, ties in film order."""
    asked = _words(prompt)

    def nearness(window: Window) -> float:
        words = _words(window.caption)
        return -len(asked & words) / (len(asked | words) or 1)

    chosen: list[Window] = []
    for window in sorted(windows, key=nearness):
        if window.scene not in {other.scene for other in chosen}:
            chosen.append(window)
    return chosen[:count]


def first_seed(sequences: Sequence[FilmSequence], shot: str, arm: str) -> FilmSequence | None:
    """The sequence of a shot and arm with the lowest seed, which is the one shown."""
    found = [sequence for sequence in sequences if (sequence.shot, sequence.arm) == (shot, arm)]
    return min(found, key=lambda sequence: sequence.seed, default=None)


def _words(text: str) -> frozenset[str]:
    return frozenset(_WORD.findall(text.lower())) - _STOP
