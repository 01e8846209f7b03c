"""How much of the film's picture the shape of a model keeps, and which size that the model can take would keep more.

A shape is width over height as shown, pixel aspect included; what lies outside the bars is no picture.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Literal

import numpy as np

from cinetune.artifacts import FootageClip, Reading
from cinetune.catalogue import Release
from cinetune.footage.cut.cuts import find_bars
from cinetune.footage.read.decode import opened, picked
from cinetune.footage.read.libav import exact
from cinetune.footage.read.planes import frame_colour, frame_rgb, quarter_turns, turned
from cinetune.footage.read.stills import image_size
from cinetune.footage.read.timing import claimed_rates

__all__ = ["Glance", "crop_notes", "cut", "fitting_size", "glance", "lost", "picture_notes", "shape_of", "size_for"]

WORTH_SAYING = Fraction(3, 100)
"""Share of a side that may be cut without a word; a size in whole multiples can rarely do better."""
_GLANCED = 8  # pictures that a first look reads of a film
_APART = 12  # frames between them


@dataclass(frozen=True, slots=True, kw_only=True)
class Glance:
    """What a first look at a film gives: its exact rate, and the shape of the picture inside its bars."""

    rate: Fraction
    shape: Fraction


def shape_of(clip: FootageClip) -> Fraction:
    """Width over height, as shown, of the picture inside the bars."""
    _, _, across, down = clip.bars
    return Fraction(across, down) * clip.pixel_aspect


def lost(shape: Fraction, *, height: int, width: int) -> tuple[Literal["width", "height"], Fraction]:
    """Which side a centred crop of a picture to `width` x `height` shortens, and the share of it that goes."""
    wanted = Fraction(width, height)
    return ("width", 1 - wanted / shape) if shape > wanted else ("height", 1 - shape / wanted)


def fitting_size(shape: Fraction, own: Release, *, height: int, width: int) -> tuple[int, int]:
    """(height, width) of the largest picture no side of which is longer than now, in multiples the model takes, that
    comes nearest to `shape`."""

    def near(side: Fraction) -> int:
        return max(own.multiple, round(side / own.multiple) * own.multiple)

    if shape > Fraction(width, height):
        return min(height, near(width / shape)), width
    return height, min(width, near(height * shape))


def size_for(shapes: Sequence[Fraction], own: Release) -> tuple[int, int]:
    """(height, width) for clips of these shapes: the model's own where a crop to it is not worth a word, else the
    fitting size of one of them that cuts least of all. A small model knows no size but its own."""
    sizes = [(own.height, own.width)]
    if not own.small and cut(shapes, *sizes[0]) > WORTH_SAYING:
        sizes += [fitting_size(shape, own, height=own.height, width=own.width) for shape in shapes]
    return min(sizes, key=lambda size: cut(shapes, *size))


def cut(shapes: Sequence[Fraction], height: int, width: int) -> Fraction:
    """The mean share of a side that a crop takes from pictures of these shapes."""
    return sum((lost(shape, height=height, width=width)[1] for shape in shapes), Fraction(0)) / max(1, len(shapes))


def crop_notes(clips: Sequence[FootageClip], own: Release, *, height: int, width: int) -> list[str]:
    """In words, what a crop to `width` x `height` takes from these clips, each kind of picture once, the most frequent
    first, and the size that would keep it. Empty where that is not worth a word."""
    notes: list[str] = []
    kinds = Counter(shape_of(clip) for clip in clips)
    for shape, count in kinds.most_common():
        side, share = lost(shape, height=height, width=width)
        if share <= WORTH_SAYING:
            continue
        tall, wide = fitting_size(shape, own, height=height, width=width)
        _, left = lost(shape, height=tall, width=wide)
        some = "1 clip" if count == 1 else f"{count} clips"
        better = (
            f"; prepare.height={tall} prepare.width={wide}, and the same under [shoot], would cut {float(left):.0%}"
        )
        said = f"{some} of {float(shape):.2f}:1: {float(share):.0%} of the {side} is cut for {width}x{height}"
        notes.append(said + (better if left < share and not own.small else ""))
    return notes


def picture_notes(pictures: Sequence[tuple[str, Path, tuple[int, int]]]) -> list[str]:
    """In words, what pictures that shots start from lose when they are cut to the shot's (height, width): one line for
    every kind of cut. `pictures` are the name of a shot, its picture, its size. Raises `FootageError` for what is no
    picture."""
    kinds: dict[str, list[str]] = {}
    for name, path, (height, width) in pictures:
        tall, wide = image_size(path)
        side, share = lost(Fraction(wide, tall), height=height, width=width)
        if share > WORTH_SAYING:
            kinds.setdefault(f"{float(share):.0%} of the {side} is cut for {width}x{height}", []).append(name)
    return [
        f"the first {'picture' if len(names) == 1 else 'pictures'} of {', '.join(names[:5])}"
        f"{f' and {len(names) - 5} more' if len(names) > 5 else ''}: {kind}"
        for kind, names in kinds.items()
    ]


def glance(path: Path) -> Glance | None:
    """A first look at a film, some pictures of its first seconds; None where no rate is stated. Raises `FootageError`
    for what is not a film."""
    with opened(path) as (container, stream):
        rate = next(iter(claimed_rates(stream.guessed_rate, stream.average_rate)), None)
        if rate is None:
            return None
        frames = stream.frames or _GLANCED * _APART
        wanted = range(0, min(frames, _GLANCED * _APART), _APART)
        seen = [frame for _, frame in picked(container, stream, wanted, rate=rate, reading=Reading())]
        if not seen:
            return None
        colour, turn = frame_colour(seen[0]), quarter_turns(seen[0])
        aspect = exact(stream.sample_aspect_ratio) or Fraction(1)
        _, _, across, down = find_bars(np.stack([turned(frame_rgb(frame, colour), turn) for frame in seen]))
    return Glance(rate=rate, shape=Fraction(across, down) * (1 / aspect if turn % 2 else aspect))
