"""Film files in: what a file is after decoding all of it, and its pictures by number, exact and upright.

Pictures are counted by decoding, rates are exact fractions, and colour is converted by `cinetune.footage.read.color`
and `cinetune.footage.read.spaces` alone. `size` is always (width, height) and `crop` (x, y, width, height), both in
pixels of the picture the right way up.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import cache
from pathlib import Path

import av
import av.container
import av.error
import av.video.stream
import numpy as np

from cinetune.artifacts import Colour, FootageClip, Reading, Window
from cinetune.errors import FootageError
from cinetune.footage.notes.sidecars import is_sequence, members, source_sha256
from cinetune.footage.read.boxes import read_boxes, timecode_base
from cinetune.footage.read.color import resize
from cinetune.footage.read.decode import opened, picked, pictures
from cinetune.footage.read.fields import CYCLE, FieldVote, refuse
from cinetune.footage.read.libav import exact, metadata
from cinetune.footage.read.planes import frame_colour, frame_rgb, has_alpha, quarter_turns, turned
from cinetune.footage.read.sequences import SHOWN, first_look, picture, shown_frame
from cinetune.footage.read.timing import Clock, claimed_rates, set_clock
from cinetune.sections import ColourRule, FootageSection
from cinetune.store import Store

__all__ = ["Probe", "probe", "read_clip", "read_frames", "read_window", "require_original"]

Array = np.ndarray
Crop = tuple[int, int, int, int]
Size = tuple[int, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe:
    """What a film file is, after decoding all of it: `frames` pictures at `rate`, sizes the right way up. The timecode
    counts `timecode_base` frames a second where that is not `rate`.
    """

    path: Path
    codec: str
    rate: Fraction
    frames: int
    width: int
    height: int
    pixel_aspect: Fraction
    colour: Colour
    timecode: str | None
    timecode_base: Fraction | None
    reading: Reading
    notes: tuple[str, ...]


OnFrame = Callable[[int, av.VideoFrame, Colour], None]


def probe(
    path: Path,
    *,
    min_seconds: float | None = None,
    on_frame: OnFrame | None = None,
    settings: FootageSection | None = None,
    rule: ColourRule | None = None,
) -> Probe:
    """Decode the whole file once and say what it is; `on_frame(number, frame, colour)` sees every picture on the way.
    A file whose pictures are not its frames (varying rate, fields) is decoded twice, and `on_frame` starts again at 0.

    `settings` says what is refused; `rule` states the colour. Raises `FootageError` with the reason for: empty or
    missing files, no video, damage or truncation at any frame, a varying frame size, colour that nothing explains, less
    than `min_seconds` of film (not given: as the settings say, 0 without settings), and what the settings refuse.
    """
    if min_seconds is None:
        min_seconds = settings.min_shot_seconds if settings else 0.0
    settings = settings or FootageSection()
    if is_sequence(path):
        return _long_enough(_probe_pictures(path, on_frame, settings, rule), min_seconds)
    with opened(path) as (container, stream):
        scan = _scan(container, stream, on_frame, settings, rule)
        rate, frames, reading, notes = _how(path, stream, scan, settings)
        if reading.fields or reading.by_time:
            frames = _second_look(path, rate, reading, scan.colour, on_frame)
        size, aspect = (scan.first.width, scan.first.height), exact(stream.sample_aspect_ratio) or Fraction(1)
        upright = reading.turn % 2 == 0
        timecode = metadata(stream).get("timecode") or metadata(container).get("timecode")
        coded = rate * CYCLE / (CYCLE - 1) if reading.fields == "pulldown" else rate
        facts = Probe(
            path=path,
            codec=stream.codec_context.name,
            rate=rate,
            frames=frames,
            width=size[0] if upright else size[1],
            height=size[1] if upright else size[0],
            pixel_aspect=aspect if upright else 1 / aspect,
            colour=scan.colour,
            timecode=timecode,
            timecode_base=timecode_base(path, coded) if timecode else None,
            reading=reading,
            notes=notes,
        )
        return _long_enough(facts, min_seconds)


def _long_enough(facts: Probe, min_seconds: float) -> Probe:
    seconds = facts.frames / facts.rate
    if facts.frames < 2 or seconds < min_seconds:
        raise FootageError(
            f"too short: {facts.frames} frames, {float(seconds):.2f} s of the {min_seconds:g} s needed",
            where=str(facts.path),
            remedy="use a longer clip, or lower footage.min_shot_seconds",
        )
    return facts


def _probe_pictures(path: Path, on_frame: OnFrame | None, settings: FootageSection, rule: ColourRule | None) -> Probe:
    """The same of numbered pictures: every one is read, so that a bad one is found now."""
    run, files = first_look(path, settings, rule), members(path)
    for number in range(run.pictures):
        rgb = picture(files, number, run.colour, size=(run.width, run.height))
        if on_frame is not None:
            on_frame(number, shown_frame(rgb), SHOWN)
    return Probe(
        path=path,
        codec=run.codec,
        rate=run.rate,
        frames=run.pictures,
        width=run.width,
        height=run.height,
        pixel_aspect=run.pixel_aspect,
        colour=run.colour,
        timecode=run.timecode,
        timecode_base=run.timecode_base,
        reading=Reading(),
        notes=run.notes,
    )


def _how(
    path: Path, stream: av.video.stream.VideoStream, scan: _Scan, settings: FootageSection
) -> tuple[Fraction, int, Reading, tuple[str, ...]]:
    """(rate, pictures, reading, notes) of a file that was decoded once. Raises `FootageError` for what is refused."""
    claimed = claimed_rates(stream.guessed_rate, stream.average_rate, stream.base_rate)
    clock = set_clock(scan.stamps, tick=exact(stream.time_base), claimed=claimed, lasts=scan.lasts)
    _check_complete(path, stream, len(scan.stamps), clock)
    if clock.by_time and settings.variable_rate == "refuse":
        raise FootageError(clock.notes[0].partition(":")[0], remedy="transcode it to a constant rate")
    fields, order, said = scan.vote.decide(clock.rate)
    refuse(fields, said, interlaced=settings.interlaced, pulldown=settings.pulldown)
    if fields == "bwdif" and settings.interlaced == "keep":
        fields, said = "", f"{said}: kept as it is"
    rate = clock.rate * (CYCLE - 1) / CYCLE if fields == "pulldown" else clock.rate
    turn = quarter_turns(scan.first)
    notes = list(clock.notes)
    if turn:
        notes.append(f"shown turned by {(360 - 90 * turn) % 360} degrees clockwise: turned upright")
    if (aspect := exact(stream.sample_aspect_ratio)) not in (None, 1):
        notes.append(f"anamorphic: pixels are {aspect} as wide as high, windows are unsqueezed")
    if has_alpha(scan.first):
        notes.append("alpha: laid over black")
    made = {"bwdif": ": deinterlaced with bwdif, one frame of two fields", "pulldown": f": removed, {rate} fps"}
    notes += [said + made.get(fields, "")] if said else []
    return rate, clock.pictures, Reading(by_time=clock.by_time, turn=turn, fields=fields, order=order), tuple(notes)


@dataclass(slots=True, kw_only=True)
class _Scan:
    """What one pass over a file found; `lasts` is the duration of the last frame in ticks, 0 = not said."""

    first: av.VideoFrame
    colour: Colour
    stamps: list[int | None]
    lasts: int
    vote: FieldVote


def _scan(
    container: av.container.InputContainer,
    stream: av.video.stream.VideoStream,
    on_frame: OnFrame | None,
    settings: FootageSection,
    rule: ColourRule | None,
) -> _Scan:
    scan: _Scan | None = None
    try:
        for frame in container.decode(stream):
            if scan is None:
                if has_alpha(frame) and settings.alpha == "refuse":
                    raise FootageError("it has an alpha channel", remedy='set footage.alpha = "black", or flatten it')
                vote = FieldVote(claimed_rates(stream.guessed_rate, stream.average_rate, stream.base_rate))
                scan = _Scan(first=frame, colour=frame_colour(frame, rule), stamps=[], lasts=0, vote=vote)
            number = len(scan.stamps)
            if (frame.width, frame.height) != (scan.first.width, scan.first.height):
                raise FootageError(f"the picture size changes at frame {number}", remedy="export it at one size")
            if frame.is_corrupt:
                raise FootageError(f"frame {number} is damaged", remedy="copy or export it again")
            if on_frame is not None:
                on_frame(number, frame, scan.colour)
            scan.vote.see(frame)
            scan.stamps.append(frame.pts)
            scan.lasts = frame.duration or 0
    except av.error.FFmpegError as error:
        if scan is None:
            raise
        raise FootageError(
            f"damaged after frame {len(scan.stamps) - 1} ({error.strerror})", remedy="copy or export it again"
        ) from error
    if scan is None:
        raise FootageError("no frame can be decoded", remedy="check that it plays; export it again")
    return scan


def _second_look(path: Path, rate: Fraction, reading: Reading, colour: Colour, on_frame: OnFrame | None) -> int:
    """The number of pictures when read by `reading`, each shown to `on_frame`."""
    count = 0
    with opened(path) as (container, stream):
        for number, frame in pictures(container, stream, 0, rate=rate, reading=reading):
            if on_frame is not None:
                on_frame(number, frame, colour)
            count += 1
    return count


def _check_complete(path: Path, stream: av.video.stream.VideoStream, decoded: int, clock: Clock) -> None:
    """A file cut off in transfer still opens; its header promises more than there is. Edit lists shorten both, so both
    must disagree; a trim without encoding cuts between frames, so each edit may lose one.
    """
    tick = exact(stream.time_base)
    if not stream.frames or stream.duration is None or tick is None:
        return
    promised = stream.duration * tick * clock.rate
    movie = read_boxes(path)
    slack = Fraction(1, 2) + (len(movie.edits) if movie else 0)
    ends = max((entry.pos + entry.size for entry in stream.index_entries), default=0)
    if (decoded < stream.frames and clock.pictures + slack < promised) or ends > path.stat().st_size:
        raise FootageError(
            f"truncated: its header promises {stream.frames} frames, {decoded} can be decoded",
            remedy="copy it again from its source",
        )


def _shaped(rgb: Array, turn: int, crop: Crop | None, size: Size | None) -> Array:
    rgb = turned(rgb, turn)
    if crop is not None:
        x, y, width, height = crop
        if x < 0 or y < 0 or x + width > rgb.shape[1] or y + height > rgb.shape[0]:
            raise FootageError(f"crop {crop} lies outside a picture of {rgb.shape[1]}x{rgb.shape[0]}")
        rgb = rgb[y : y + height, x : x + width]
    return rgb if size is None else resize(rgb, size)


def read_frames(
    path: Path,
    indices: Sequence[int],
    *,
    colour: Colour | None = None,
    crop: Crop | None = None,
    size: Size | None = None,
    rate: Fraction | None = None,
    reading: Reading | None = None,
) -> Array:
    """Pictures by number, in the given order (repeats allowed), as R'G'B' [T, H, W, 3] float32 in [0, 1].

    `colour=None` decides from the file's tags; `rate` and `reading` are those of its `Probe` or `FootageClip`, None
    takes the header's rate and every frame as it is. Raises `FootageError` for unreadable files and numbers past the
    end.
    """
    assert indices and min(indices) >= 0, "read_frames needs frame numbers >= 0"
    wanted = set(indices)
    found: dict[int, Array] = {}
    how = reading or Reading()
    if is_sequence(path):
        colour = colour or first_look(path, FootageSection(), None).colour
        files = members(path)
        found = {index: _shaped(picture(files, index, colour), 0, crop, size) for index in wanted}
    else:
        with opened(path) as (container, stream):
            for index, frame in picked(container, stream, wanted, rate=rate, reading=how):
                colour = colour or frame_colour(frame)
                found[index] = _shaped(frame_rgb(frame, colour), how.turn, crop, size)
    missing = sorted(wanted - set(found))
    if missing:
        raise FootageError(
            f"the file has no frame {missing[0]}",
            where=str(path),
            remedy="it changed since it was ingested: run `cinetune ingest`",
        )
    return np.stack([found[index] for index in indices])


def read_window(root: Path, clip: FootageClip, window: Window) -> Array:
    """The pixels of a window as R'G'B' [T, H, W, 3] float32 in [0, 1]: its source frames, cropped, Lanczos-resized.
    `root` = project folder.
    """
    return read_clip(root, clip, window.source_frames, crop=window.crop, size=(window.width, window.height))


def read_clip(
    root: Path, clip: FootageClip, indices: Sequence[int], *, crop: Crop | None = None, size: Size | None = None
) -> Array:
    """`read_frames` of an ingested clip, read and coloured as `ingest` decided. Raises `FootageError` also when the
    file is not the one that was ingested, before it is read and when it changed meanwhile.
    """
    require_original(root, clip)
    colour = replace(clip.colour, lut=str(root / clip.colour.lut)) if clip.colour.lut else clip.colour
    frames = read_frames(
        root / clip.path, indices, colour=colour, crop=crop, size=size, rate=clip.rate, reading=clip.reading
    )
    require_original(root, clip)
    return frames


@cache
def _store(root: Path) -> Store:
    return Store(root)


def require_original(root: Path, clip: FootageClip) -> None:
    """Raises `FootageError` when the file of a clip is gone, or other than when it was ingested. `root` = project.

    Everything made of a clip is kept under the hash of its bytes, so whoever reads its pictures asks first, or other
    pictures would be kept under that hash for good. Bytes are read again only where size, time or place on the disk
    changed since they were hashed (`Store.sha256`).
    """
    path = root / clip.path
    remedy = "put the film back, or run `cinetune ingest`"
    parts = sorted(members(path).values()) if is_sequence(path) else [path]
    try:
        found = _store(root.absolute()).sha256(path, parts=parts, of=source_sha256)
    except OSError as error:
        raise FootageError(f"the film cannot be read: {error.strerror}", where=str(path), remedy=remedy) from error
    if found != clip.sha256:
        raise FootageError("the file is not the one that was ingested", where=str(path), remedy=remedy)
