"""Film reels shot on the backlot: several scenes cut into one file, with the marks of real footage.

A reel has hard cuts, one fade to black and back, letterbox bars, a start timecode, BT.709 tags, and an EDL beside it;
`metadata.jsonl` gives caption, scene and start frame of each shot. Reels alternate between H.264 and ProRes. The same
arguments write the same files.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from pathlib import Path

import numpy as np

from cinetune.backlot.looks import FilmLook, apply_look
from cinetune.backlot.scenes import Scene, caption, render
from cinetune.durable import atomic_write
from cinetune.footage.edit.edl import EdlCut, write_edl
from cinetune.footage.video import MOVIES, write_video
from cinetune.timecode import timecode_to_frames

__all__ = ["ReelShot", "WrittenReel", "scene_id", "shoot_reels"]

Array = np.ndarray
NTSC_FILM = Fraction(24000, 1001)
_FADE_SECONDS = Fraction(1, 3)
_BLACK_FRAMES = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class ReelShot:
    """Where a scene lies in its reel: frames [start, end) including fades, and [clean_start, clean_end) without
    them.
    """

    scene: Scene
    scene_id: str
    caption: str
    start: int
    end: int
    clean_start: int
    clean_end: int


@dataclass(frozen=True, slots=True, kw_only=True)
class WrittenReel:
    """One reel. `bars` is the picture inside the letterbox as (x, y, width, height), `first` the number of its first
    scene among all scenes.
    """

    path: Path
    codec: str
    rate: Fraction
    timecode: str
    bars: tuple[int, int, int, int]
    frames: int
    shots: tuple[ReelShot, ...]
    first: int


def scene_id(scene: Scene) -> str:
    """The film scene a shot belongs to: everything at one place and time of day."""
    return f"{scene.place}-{scene.time}".replace(" ", "_")


def shoot_reels(
    folder: Path,
    scenes: Sequence[Scene],
    look: FilmLook | None,
    *,
    per_reel: int = 4,
    seconds: float = 2.5,
    height: int = 128,
    width: int = 192,
    letterbox: int = 0,
    rate: Fraction = NTSC_FILM,
    first_hour: int = 1,
    mapped: Callable[[Callable[[WrittenReel], None], Sequence[WrittenReel]], Iterable[None]] = map,
) -> list[WrittenReel]:
    """Render every scene for `seconds`, give it `look` (None = neutral), and write the reels with EDLs and metadata.

    `height` x `width` is the picture; `letterbox` black lines are added above and below it (even). Reel n starts at
    hour `first_hour` + n. In reels of two shots or more, the cut in the middle is a fade to black and back. `mapped`
    calls a function for each reel, which may be in other processes: no reel depends on another.
    """
    assert letterbox % 2 == 0 and height % 2 == 0 and width % 2 == 0, "reels need even sides"
    reels: list[WrittenReel] = []
    rows: list[dict[str, str | int]] = []
    for number, first in enumerate(range(0, len(scenes), per_reel)):
        plan = _plan(scenes[first : first + per_reel], round(seconds * rate), round(_FADE_SECONDS * rate))
        codec = ("h264", "prores_hq")[number % 2]
        name = f"reel{number + 1:02d}"
        reel = WrittenReel(
            path=folder / f"{name}{MOVIES[codec].suffix}",
            codec=codec,
            rate=rate,
            timecode=f"{(first_hour + number) % 24:02d}:00:00:00",
            bars=(0, letterbox, width, height),
            frames=plan[-1].end,
            shots=plan,
            first=first,
        )
        rows += [
            {
                "file_name": reel.path.name,
                "text": shot.caption,
                "scene": shot.scene_id,
                "start_frame": shot.start,
                "owner": "cinetune",
                "licence": "CC0-1.0",
            }
            for shot in plan
        ]
        reels.append(reel)
    for _ in mapped(partial(_shoot, look), reels):
        pass
    with atomic_write(folder / "metadata.jsonl") as temporary:
        temporary.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return reels


def _shoot(look: FilmLook | None, reel: WrittenReel) -> None:
    frames = _frames(reel, look, grain_seed=reel.first)
    write_video(reel.path, frames, rate=reel.rate, codec=reel.codec, timecode=reel.timecode)
    _write_edl(reel, reel.path.stem)


def _plan(scenes: Sequence[Scene], length: int, fade: int) -> tuple[ReelShot, ...]:
    """Lay scenes end to end; around the middle cut, `fade` frames darken, a few are black, `fade` frames brighten."""
    middle = len(scenes) // 2
    shots: list[ReelShot] = []
    at = 0
    for index, scene in enumerate(scenes):
        fades_out, fades_in = index == middle - 1, index == middle and middle > 0
        end = at + length + (fade if fades_out else 0) + (fade if fades_in else 0)
        shots.append(
            ReelShot(
                scene=scene,
                scene_id=scene_id(scene),
                caption=caption(scene),
                start=at,
                end=end,
                clean_start=at + (fade if fades_in else 0),
                clean_end=end - (fade if fades_out else 0),
            )
        )
        at = end + (_BLACK_FRAMES if fades_out else 0)
    return tuple(shots)


def _frames(reel: WrittenReel, look: FilmLook | None, *, grain_seed: int) -> Iterator[Array]:
    """The reel's frames [H + 2 * letterbox, W, 3], one shot in memory at a time."""
    _, above, width, height = reel.bars
    black = np.zeros((height + 2 * above, width, 3), np.float32)
    at = 0
    for number, shot in enumerate(reel.shots):
        for _ in range(at, shot.start):
            yield black
        lead = float((shot.clean_start - shot.start) / reel.rate)
        film = render(shot.scene, frames=shot.end - shot.start, height=height, width=width, rate=reel.rate, start=-lead)
        if look is not None:
            film = apply_look(film, look, seed=grain_seed + number)
        level = _levels(shot)
        for frame, gain in zip(film, level, strict=True):
            yield np.pad(frame * gain, ((above, above), (0, 0), (0, 0)))
        at = shot.end


def _levels(shot: ReelShot) -> Array:
    """Brightness of each frame of a shot: 1, with linear ramps where it fades."""
    level = np.ones(shot.end - shot.start, np.float32)
    rising, falling = shot.clean_start - shot.start, shot.end - shot.clean_end
    if rising:
        level[:rising] = np.arange(rising) / rising
    if falling:
        level[-falling:] = 1.0 - np.arange(1, falling + 1) / falling
    return level


def _write_edl(reel: WrittenReel, name: str) -> None:
    """The EDL lists the shots without their fades, record time equal to source time."""
    origin = timecode_to_frames(reel.timecode, reel.rate)
    cuts = [
        EdlCut(
            name=shot.scene_id,
            reel=name.upper(),
            source=origin + shot.clean_start,
            record=origin + shot.clean_start,
            frames=shot.clean_end - shot.clean_start,
        )
        for shot in reel.shots
    ]
    write_edl(reel.path.with_suffix(".edl"), cuts, title=name, rate=reel.rate)
