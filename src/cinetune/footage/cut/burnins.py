"""What is burnt into a film: timecode windows, subtitle boxes, logos and watermarks, which stay where they are while
the pictures under them change.

The idea is that of watermark removal (Dekel and others, On the Effectiveness of Visible Watermarks, 2017): the median
over unlike pictures of the gradient keeps what they share. Here it only has to be found, so a pixel also counts how
many pictures agree with the median, and a chance agreement of that many must be rare.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy.ndimage import find_objects, label, maximum_filter
from scipy.stats import binom

from cinetune.footage.cut.cuts import Piece
from cinetune.footage.cut.slates import DistinctView
from cinetune.footage.read.planes import turned

__all__ = ["BurnIn", "find_burn_in", "without"]

Array = np.ndarray
Box = tuple[int, int, int, int]
_SLOPE = 5.0  # levels a pixel; fainter than that, codecs make edges of their own
_CHANCE, _RARE = 0.2, 1e-5  # that an unrelated picture has the same slope there; that so many of them have
_FEWEST = 12  # pixels of one find, at the size of the views: a single letter has more
_REACH = (5, 13)  # rows and columns between letters of one line


@dataclass(frozen=True, slots=True)
class BurnIn:
    """Boxes (x, y, width, height) in pixels of the upright file, the share of the picture (inside its bars) that they
    cover, and for the views it was found on (frame number, whether it is there)."""

    boxes: tuple[Box, ...]
    share: float
    seen: tuple[tuple[int, bool], ...]

    def covers(self, start: int, end: int) -> bool:
        """Whether frames [start, end) have it; without a view of them, whether the view before or after has it."""
        there = [has for index, has in self.seen if start <= index < end]
        if not there:
            there = [has for index, has in self.seen if index < start][-1:]
            there += [has for index, has in self.seen if index >= end][:1]
        return 2 * sum(there) >= len(there)

    def words(self) -> str:
        places = ", ".join(f"{width}x{height}+{x}+{y}" for x, y, width, height in self.boxes)
        return f"burnt in over {self.share:.1%} of the picture: {places}"


def find_burn_in(views: Sequence[DistinctView], *, turn: int, size: tuple[int, int], bars: Box) -> BurnIn | None:
    """What stays in all `views` (of `Samples`), which `turn` quarter turns anticlockwise set upright; `size` (width,
    height) and `bars` are the upright file's. None = nothing, or too few unlike views to tell (under eight).
    """
    needed = int(binom.isf(_RARE, len(views), _CHANCE)) + 1
    if needed > len(views):
        return None
    luma = np.stack([turned(view.luma, turn) for view in views]).astype(np.float32)
    scale = size[0] / luma.shape[2], size[1] / luma.shape[1]
    left, top = round(bars[0] / scale[0]), round(bars[1] / scale[1])
    right, bottom = round((bars[0] + bars[2]) / scale[0]), round((bars[1] + bars[3]) / scale[1])
    inside = luma[:, top:bottom, left:right]
    slopes = np.stack([np.gradient(inside, axis=1), np.gradient(inside, axis=2)])
    middle = np.median(slopes, axis=1)
    steep = np.hypot(*middle)
    agree = _agree(slopes, middle, steep)
    stays = (steep >= _SLOPE) & (agree.sum(axis=0) >= needed)
    stays[:2], stays[-2:], stays[:, :2], stays[:, -2:] = False, False, False, False  # edges of bars that were cropped
    found, covered = _boxes(stays)
    if not found:
        return None
    kept = np.zeros_like(stays)
    for rows, columns in found:
        kept[rows, columns] = stays[rows, columns]
    there = [bool(one[kept].mean() >= 0.5) for one in agree]
    boxes = [_scaled(rows, columns, left=left, top=top, scale=scale) for rows, columns in found]
    seen = tuple((view.index, has) for view, has in zip(views, there, strict=True))
    return BurnIn(tuple(boxes), float(covered.mean()), seen)


def _agree(slopes: Array, middle: Array, steep: Array) -> Array:
    """Which pictures [N, h, w] have the slope of the median there: its direction within 30 degrees, and 0.4 of it or
    more, for how steep the edge of something opaque is depends on what lies under it."""
    along = (slopes * middle[:, None]).sum(axis=0)
    length = np.hypot(slopes[0], slopes[1])
    return (along >= 0.4 * steep**2) & (along >= 0.866 * steep * length)


def _boxes(stays: Array) -> tuple[list[tuple[slice, slice]], Array]:
    """Rows and columns of each cluster of pixels that stay, and the picture with them all filled."""
    spots = np.zeros(stays.shape, np.int32)
    label(maximum_filter(stays, _REACH), output=spots)
    clusters = np.where(stays, spots, 0)
    found: list[tuple[slice, slice]] = []
    covered = np.zeros(stays.shape, bool)
    for number, place in enumerate(find_objects(clusters), start=1):
        if place is None or (clusters[place] == number).sum() < _FEWEST:
            continue
        rows, columns = (slice(max(0, part.start - 1), part.stop + 1) for part in place)
        found.append((rows, columns))
        covered[rows, columns] = True
    return found, covered


def _scaled(rows: slice, columns: slice, *, left: int, top: int, scale: tuple[float, float]) -> Box:
    x, y = round((left + columns.start) * scale[0]), round((top + rows.start) * scale[1])
    return x, y, round((columns.stop - columns.start) * scale[0]), round((rows.stop - rows.start) * scale[1])


def without(pieces: Sequence[Piece], found: BurnIn | None, *, most: float) -> tuple[list[Piece], list[str]]:
    """The pieces that may stay, those with a burn-in of up to `most` of the picture with a note; and in words what was
    left out for more of it.
    """
    if found is None:
        return list(pieces), []
    has = [found.covers(piece.start, piece.start + piece.frames) for piece in pieces]
    pairs = list(zip(pieces, has, strict=True))
    if found.share <= most:
        words = found.words()
        return [replace(piece, notes=(*piece.notes, words)) if mine else piece for piece, mine in pairs], []
    places = [f"{piece.start}..{piece.start + piece.frames - 1}" for piece, mine in pairs if mine]
    gone = [f"{found.words()}, in {', '.join(places)}"] if places else []
    return [piece for piece, mine in pairs if not mine], gone
