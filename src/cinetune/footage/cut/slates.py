"""Pictures that were drawn for people who handle film, not shot for those who watch it: colour bars, countdown leaders,
slates and title cards, charts, plain cards. And the sampling of a film on which they, and burn-ins, are found.

Everything is told from single small pictures and from how little changes between them; no model is needed. Pictures are
BGR uint8 [h, w, 3] as `thumbnail` makes them, in the file's own orientation.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import av
import numpy as np
from av.video.reformatter import VideoReformatter
from scipy.ndimage import gaussian_filter, maximum_filter

from cinetune.artifacts import Colour
from cinetune.footage.cut.cuts import Piece
from cinetune.footage.read.planes import thumbnail

__all__ = ["DistinctView", "Samples", "Slate", "drawn"]

Array = np.ndarray
Slate = Literal["", "colour bars", "countdown leader", "plain card", "slate, title or chart"]
_WIDTH = 256  # pixels; small type is grey at this size, but its place stays empty of picture
_EVERY = 6  # frames: two looks at the shortest shot that is kept
_VIEWS = 48  # pictures kept for burn-ins; when there are more, every other one goes
_ALIKE = 0.7  # correlation of two pictures above which the second is the same view again
_GREY = np.array([0.0722, 0.7152, 0.2126], np.float32)  # BT.709 luma of B'G'R'
_BARS = (60.0, 180.0, 120.0, 300.0, 0.0, 240.0)  # hue in degrees of yellow, cyan, green, magenta, red, blue
_HUE_OFF = 25.0  # degrees that a wrong matrix, an old tape or a grade may have turned a bar
_BUSY = 0.45  # share of a picture near edges above which circles and lines are found in anything
_DRAWN = 0.35  # share of exactly flat areas; backlot scenes reach 0.22, a slate with type and a picture has 0.42
_CONTRAST = 80.0  # levels between type and its ground; a night may be as flat, and has less
_SURE = 0.8  # share of a piece's pictures that must show the same kind


@dataclass(frozen=True, slots=True)
class DistinctView:
    """A picture of the film that is unlike all other views: its frame number and its luma [h, w] uint8."""

    index: int
    luma: Array


@dataclass(frozen=True, slots=True)
class _Look:
    """One sampled picture: what it seems to be, and the rows it changed in against the sample before ([first, end),
    none: equal)."""

    index: int
    kind: Slate
    moved: tuple[int, int]
    height: int


class Samples:
    """Every sixth picture of a film, looked at once while it is decoded; pass `see` to `probe(on_frame=...)`."""

    def __init__(self) -> None:
        self._looks: list[_Look] = []
        self._scaler = VideoReformatter()
        self._before: Array | None = None
        self._views: list[DistinctView] = []
        self._shapes: list[Array] = []
        self._apart = 0

    def see(self, index: int, frame: av.VideoFrame, colour: Colour) -> None:
        """Take in picture `index` (all of them, in order). Number 0 again starts anew."""
        if index == 0 and self._looks:
            self.__init__()
        if index % _EVERY:
            return
        small = thumbnail(frame, min(_WIDTH, frame.width), colour, scaler=self._scaler)
        kind = drawn(small)
        self._looks.append(_Look(index, kind, _moved(self._before, small), len(small)))
        self._before = small
        if not kind:
            self._keep(index, small)

    def _keep(self, index: int, small: Array) -> None:
        """Remember the picture if it is a new view."""
        if self._views and index - self._views[-1].index < self._apart:
            return
        luma = small @ _GREY
        shape = _means(luma, 8)
        spread = float(shape.std())
        if spread < 2.0:
            return
        shape = ((shape - shape.mean()) / spread).ravel()
        if self._shapes and float((np.stack(self._shapes) @ shape).max()) > _ALIKE * len(shape):
            return
        self._views.append(DistinctView(index, np.rint(luma).astype(np.uint8)))
        self._shapes.append(shape)
        if len(self._views) > _VIEWS:
            del self._views[1::2], self._shapes[1::2]
            self._apart = max(2 * self._apart, self._views[-1].index // _VIEWS)

    def views(self) -> list[DistinctView]:
        """Pictures of the film that are all unlike each other, spread over its length."""
        return list(self._views)

    def noted(self, pieces: Sequence[Piece]) -> list[Piece]:
        """The pieces, slates among them with a note that they are."""
        kinds = [self.slate(piece.start, piece.start + piece.frames) for piece in pieces]
        return [
            replace(piece, notes=(*piece.notes, kind)) if kind else piece
            for piece, kind in zip(pieces, kinds, strict=True)
        ]

    def slate(self, start: int, end: int) -> Slate:
        """What frames [start, end) are, if they are no picture of the film."""
        looks = [look for look in self._looks if start <= look.index < end]
        kinds: list[Slate] = [look.kind for look in looks if look.kind]
        if not looks or len(kinds) < _SURE * len(looks):
            return ""
        kind: Slate = max(kinds, key=kinds.count)
        return "" if kind == "slate, title or chart" and not _stands(looks[1:]) else kind


def _stands(looks: list[_Look]) -> bool:
    """Whether nothing moved but one line of running figures."""
    rows = [look.moved for look in looks if look.moved[1] > look.moved[0]]
    if not looks or not rows:
        return bool(looks)
    return max(end for _, end in rows) - min(start for start, _ in rows) <= max(6, looks[0].height // 8)


def _moved(before: Array | None, small: Array) -> tuple[int, int]:
    if before is None or before.shape != small.shape:
        return 0, len(small)
    change = np.maximum(small, before) - np.minimum(small, before)
    rows = np.flatnonzero((change.max(axis=2) > 12).any(axis=1))
    return (int(rows[0]), int(rows[-1]) + 1) if rows.size else (0, 0)


def _means(luma: Array, cell: int) -> Array:
    height, width = (max(1, side // cell) for side in luma.shape)
    cells = luma[: height * (luma.shape[0] // height), : width * (luma.shape[1] // width)]
    return cells.astype(np.float32).reshape(height, cells.shape[0] // height, width, -1).mean(axis=(1, 3))


def drawn(small: Array) -> Slate:
    """What one picture looks like, by itself: BGR uint8 [h, w, 3]. A slate is one only if it also stands still."""
    cells = np.stack([_means(small[..., k], 8) for k in range(3)], axis=-1).reshape(-1, 3)  # free of grain
    if (np.abs(cells - np.median(cells, axis=0)).max(axis=1) <= 3.0).mean() >= 0.97:
        return "plain card"
    if _colour_bars(small):
        return "colour bars"
    luma = small @ _GREY
    if _countdown(luma):
        return "countdown leader"
    low, high = np.quantile(luma[::2, ::2], (0.002, 0.998))
    contrast = float(high - low)
    return "slate, title or chart" if contrast >= _CONTRAST and _flat_share(luma) >= _DRAWN else ""


def _colour_bars(small: Array) -> bool:
    """Whether yellow, cyan, green, magenta, red and blue stand side by side in this order (SMPTE EG 1 and RP 219, EBU),
    each of one colour down at least 40 % of the picture, all about as wide."""
    height = len(small)
    band = small[round(height * 0.15) : round(height * 0.55)].astype(np.float32)
    columns = band.mean(axis=0)[:, ::-1]
    high, low = columns.max(axis=1), columns.min(axis=1)
    vivid = (high - low > 0.35 * high) & (high > 40) & (band.std(axis=0).max(axis=1) < 16)
    hue = _hue(columns)
    token = np.full(len(columns), -1)
    for number, wanted in enumerate(_BARS):
        off = np.abs((hue - wanted + 180.0) % 360.0 - 180.0)
        token[vivid & (off <= _HUE_OFF)] = number
    widths = [int((token == number).sum()) for number in range(len(_BARS))]
    if min(widths) < max(3, len(columns) // 25) or max(widths) > 2 * min(widths):
        return False
    seen = token[token >= 0]
    return bool((np.diff(seen) >= 0).all())


def _hue(rgb: Array) -> Array:
    """Degrees, red 0 and green 120, of [N, 3]."""
    red, green, blue = rgb.T
    return np.degrees(np.arctan2(np.sqrt(3.0) * (green - blue), 2.0 * red - green - blue)) % 360.0


def _countdown(luma: Array) -> bool:
    """Whether a cross and a circle stand in the very middle of a picture with little else, as on an academy or SMPTE
    universal leader."""
    height, width = luma.shape
    if not (_line(luma) and _line(luma.T)):
        return False
    down, across = np.gradient(gaussian_filter(luma, 1.0))
    edge = maximum_filter(np.hypot(down, across) > 4.0, 3)
    if edge.mean() > _BUSY:
        return False
    y, x, least = (height - 1) / 2, (width - 1) / 2, min(height, width)
    angles = np.linspace(0.0, 2.0 * np.pi, 180, endpoint=False)
    radii = np.arange(0.2 * least, 0.49 * least)[:, None]
    down, across = y + radii * np.sin(angles), x + radii * np.cos(angles)
    return bool(edge[np.rint(down).astype(int), np.rint(across).astype(int)].mean(axis=1).max() >= 0.85)


def _line(luma: Array) -> bool:
    """Whether a thin line runs from edge to edge down the middle; the figure and the circles may hide its inner
    part."""
    height, middle = len(luma), luma.shape[1] // 2
    strip = np.asarray(gaussian_filter(luma[:, max(0, middle - 8) : middle + 8], 1.0))
    slope, half, side = np.gradient(strip, axis=1), strip.shape[1] // 2, height // 6
    left, right = slope[:, half - 4 : half + 1], slope[:, half - 1 : half + 4]
    if not left.size or not right.size:
        return False
    dark = np.minimum(-left.min(axis=1), right.max(axis=1))
    light = np.minimum(left.max(axis=1), -right.min(axis=1))
    return any(min((line[:side] > 3.0).mean(), (line[-side:] > 3.0).mean()) > 0.8 for line in (dark, light))


def _flat_share(luma: Array) -> float:
    """Share of the picture in areas of one exact value, without grain or shading: where the histogram of what is
    locally flat stands in lone peaks, not in slopes."""
    levels = np.rint(luma).astype(np.int16)
    down, across = np.abs(np.diff(levels, axis=0)) <= 1, np.abs(np.diff(levels, axis=1)) <= 1
    flat = down[:-1, 1:-1] & down[1:, 1:-1] & across[1:-1, :-1] & across[1:-1, 1:]
    counts = np.bincount(levels[1:-1, 1:-1][flat], minlength=256)[:256] / luma.size
    padded = np.pad(counts, 5)
    near = sum((padded[5 + k : 261 + k] for k in (-1, 0, 1)), np.zeros(256))
    beside = sum((padded[5 + k : 261 + k] for k in (-5, -4, -3, -2, 2, 3, 4, 5)), np.zeros(256))
    inside = np.convolve((near >= 0.004) & (beside <= 0.15 * near), np.ones(3), "same") > 0
    return float(counts[inside].sum())
