"""Small charts as inline SVG text: curves, intervals, pairs. Colours come from the page's style sheet by class name.

Every chart carries a `<title>` that says in words what it shows, for screen readers.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

__all__ = ["Band", "Curve", "Interval", "Pair", "interval_plot", "intervals_plot", "line_chart", "pairs_plot", "smooth"]


@dataclass(frozen=True, slots=True)
class Curve:
    """A curve `(x, y)`; `kind` is its style class: `look`, `plain`, `floor`, `ceiling`, and `faint` for raw data.

    `label` is written over its right end; `marks` puts a dot on every point."""

    points: tuple[tuple[float, float], ...]
    kind: str
    label: str = ""
    marks: bool = False


@dataclass(frozen=True, slots=True)
class Band:
    """A level stretch from `low` to `high` across a chart, such as the A/A noise."""

    low: float
    high: float
    kind: str
    label: str = ""


@dataclass(frozen=True, slots=True)
class Interval:
    """An effect with its 95 % interval (None where there is none) in one style class."""

    label: str
    value: float
    low: float | None
    high: float | None
    kind: str


@dataclass(frozen=True, slots=True)
class Pair:
    """One shot: its value in the base arm and in the others, by arm name."""

    label: str
    values: dict[str, float]


def smooth(points: Sequence[tuple[float, float]], *, share: float = 0.05) -> tuple[tuple[float, float], ...]:
    """Running mean over `share` of the points (at least three) around each; near the ends over those that are there."""
    half = max(1, round(len(points) * share / 2))
    means = []
    for index, (x, _) in enumerate(points):
        near = [y for _, y in points[max(0, index - half) : index + half + 1]]
        means.append((x, sum(near) / len(near)))
    return tuple(means)


def line_chart(
    lines: Sequence[Curve],
    *,
    title: str,
    kept: Sequence[tuple[float, str]] = (),
    bands: Sequence[Band] = (),
    width: int = 520,
    height: int = 250,
) -> Markup:
    """Curves over training steps. `kept` are vertical marks (step, style class) at the kept checkpoints."""
    points = [point for line in lines for point in line.points]
    if not points:
        return Markup("")
    xs = [x for x, _ in points] + [x for x, _ in kept]
    ys = [y for _, y in points] + [end for band in bands for end in (band.low, band.high)]
    left, right, top, bottom = 46, 12, 14, 30
    x0, x1 = min(xs), max(xs) if max(xs) > min(xs) else min(xs) + 1
    ticks = _ticks(min(ys), max(ys), 4)
    y0, y1 = ticks[0], ticks[-1]

    def at(x: float, y: float) -> tuple[float, float]:
        return left + (x - x0) / (x1 - x0) * (width - left - right), top + (y1 - y) / (y1 - y0) * (
            height - top - bottom
        )

    parts = [_open(width, height, title, "chart")]
    for band in bands:
        y, low = at(x0, band.high)[1], at(x0, band.low)[1]
        box = f'x="{left}" y="{y:.1f}" width="{width - left - right}" height="{max(low - y, 1):.1f}"'
        parts.append(f'<rect class="band {band.kind}" {box}><title>{escape(band.label)}</title></rect>')
    for tick in ticks:
        y = at(x0, tick)[1]
        parts.append(f'<line class="rule" x1="{left}" x2="{width - right}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text class="tick" x="{left - 8}" y="{y + 4:.1f}" text-anchor="end">{_plain(tick)}</text>')
    for tick in _ticks(x0, x1, 4):
        if x0 <= tick <= x1:
            x = at(tick, y0)[0]
            parts.append(f'<text class="tick" x="{x:.1f}" y="{height - 8}" text-anchor="middle">{_plain(tick)}</text>')
    for step, kind in kept:
        x = at(step, y0)[0]
        parts.append(f'<line class="kept {kind}" x1="{x:.1f}" x2="{x:.1f}" y1="{top - 6}" y2="{height - bottom}"/>')
        parts.append(f'<path class="flag {kind}" d="M{x - 5:.1f} {top - 10} h10 l-5 8 z"/>')
    for line in lines:
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in (at(*point) for point in line.points))
        parts.append(f'<polyline class="curve {line.kind}" points="{path}"/>')
        if line.marks:
            spots = (at(*point) for point in line.points)
            parts += [f'<circle class="dot {line.kind}" cx="{x:.1f}" cy="{y:.1f}" r="2.6"/>' for x, y in spots]
        if line.label:
            x, y = at(*line.points[-1])
            parts.append(
                f'<text class="tick" x="{x:.1f}" y="{y - 6:.1f}" text-anchor="end">{escape(line.label)}</text>'
            )
    return Markup("".join(parts) + "</svg>")


def interval_plot(interval: Interval, *, better: str, width: int = 230, height: int = 34) -> Markup:
    """One paired effect against zero; the side that is better (`lower`, `higher` or `none`) is tinted."""
    reach = _reach([interval])
    parts = [_open(width, height, _words(interval), "interval")]
    parts.append(_better_side(better, width, height))
    parts.append(f'<line class="zero" x1="{width / 2}" x2="{width / 2}" y1="2" y2="{height - 2}"/>')
    parts.append(_whisker(interval, width=width, reach=reach, y=height / 2))
    return Markup("".join(parts) + "</svg>")


def intervals_plot(intervals: Sequence[Interval], *, better: str, title: str, width: int = 520) -> Markup:
    """Several effects on one scale, a row each with its label, zero in the middle of the plot."""
    if not intervals:
        return Markup("")
    label, row = 190, 36
    height, reach, plot = row * len(intervals) + 26, _reach(intervals), width - label
    parts = [_open(width, height, title + ": " + "; ".join(_words(item) for item in intervals), "interval")]
    parts.append(f'<g transform="translate({label} 0)">{_better_side(better, plot, height - 26)}')
    parts.append(f'<line class="zero" x1="{plot / 2}" x2="{plot / 2}" y1="0" y2="{height - 22}"/>')
    for index, item in enumerate(intervals):
        parts.append(_whisker(item, width=plot, reach=reach, y=row * index + row / 2))
    for tick in (-reach / 1.25, 0.0, reach / 1.25):
        x = plot / 2 + tick / reach * plot / 2
        parts.append(f'<text class="tick" x="{x:.1f}" y="{height - 6}" text-anchor="middle">{_signed(tick)}</text>')
    parts.append("</g>")
    for index, item in enumerate(intervals):
        parts.append(f'<text class="label" x="0" y="{row * index + row / 2 + 4}">{escape(item.label)}</text>')
    return Markup("".join(parts) + "</svg>")


def pairs_plot(pairs: Sequence[Pair], *, title: str, width: int = 520) -> Markup:
    """A row for each shot: its value in every arm as dots on one line, base hollow, joined to the look."""
    values = [value for pair in pairs for value in pair.values.values()]
    if not values:
        return Markup("")
    label, row, right = 150, 24, 14
    ticks = _ticks(min(values), max(values), 4)
    low, high = ticks[0], ticks[-1]
    height = row * len(pairs) + 28

    def at(value: float) -> float:
        return label + (value - low) / (high - low) * (width - label - right)

    parts = [_open(width, height, title, "pairs")]
    for tick in ticks:
        parts.append(f'<line class="rule" x1="{at(tick):.1f}" x2="{at(tick):.1f}" y1="0" y2="{height - 24}"/>')
        parts.append(
            f'<text class="tick" x="{at(tick):.1f}" y="{height - 8}" text-anchor="middle">{_plain(tick)}</text>'
        )
    for index, pair in enumerate(pairs):
        y = row * index + row / 2
        parts.append(f'<text class="label" x="0" y="{y + 4}">{escape(_short(pair.label, 22))}</text>')
        if "base" in pair.values and "look" in pair.values:
            ends = f'x1="{at(pair.values["base"]):.1f}" x2="{at(pair.values["look"]):.1f}"'
            parts.append(f'<line class="join" {ends} y1="{y}" y2="{y}"/>')
        for arm, value in pair.values.items():
            said = f"{escape(pair.label)}, {escape(arm)}: {_plain(value)}"
            parts.append(
                f'<circle class="spot {escape(arm)}" cx="{at(value):.1f}" cy="{y}" r="5"><title>{said}</title></circle>'
            )
    return Markup("".join(parts) + "</svg>")


def _open(width: int, height: int, title: str, kind: str) -> str:
    box = f'viewBox="0 0 {width} {height}" width="{width}" height="{height}"'
    return f'<svg class="{kind}" {box} role="img"><title>{escape(title)}</title>'


def _reach(intervals: Sequence[Interval]) -> float:
    ends = [abs(end) for item in intervals for end in (item.value, item.low, item.high) if end is not None]
    return (max(ends) or 1.0) * 1.25


def _better_side(better: str, width: float, height: float) -> str:
    if better == "none":
        return ""
    x = 0 if better == "lower" else width / 2
    return f'<rect class="better" x="{x}" y="0" width="{width / 2}" height="{height}" rx="3"/>'


def _whisker(item: Interval, *, width: float, reach: float, y: float) -> str:
    def at(value: float) -> float:
        return width / 2 + value / reach * width / 2

    parts = []
    if item.low is not None and item.high is not None:
        low, high = at(item.low), at(item.high)
        parts.append(f'<line class="whisker {item.kind}" x1="{low:.1f}" x2="{high:.1f}" y1="{y}" y2="{y}"/>')
        parts += [
            f'<line class="whisker {item.kind}" x1="{x:.1f}" x2="{x:.1f}" y1="{y - 5}" y2="{y + 5}"/>'
            for x in (low, high)
        ]
    parts.append(f'<circle class="mean {item.kind}" cx="{at(item.value):.1f}" cy="{y}" r="5"/>')
    return "".join(parts)


def _words(item: Interval) -> str:
    said = f"{item.label} {_signed(item.value)}".strip()
    if item.low is not None and item.high is not None:
        said += f", 95 % interval {_signed(item.low)} to {_signed(item.high)}"
    return said


def _ticks(low: float, high: float, count: int) -> list[float]:
    """Round numbers that reach from at or below `low` to at or above `high`."""
    span = high - low
    if span <= 0:
        span = abs(low) or 1.0
        low, high = low - span / 2, high + span / 2
    rough = span / count
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * nice for nice in (1, 2, 2.5, 5, 10) if power * nice >= rough * 0.999)
    first = math.floor(low / step + 1e-9)
    last = math.ceil(high / step - 1e-9)
    return [round(index * step, 12) for index in range(first, last + 1)]


def _plain(value: float) -> str:
    return f"{value:.4g}".replace("-", "\N{MINUS SIGN}")


def _signed(value: float) -> str:
    return f"{value:+.3g}".replace("-", "\N{MINUS SIGN}") if value else "0"


def _short(text: str, length: int) -> str:
    return text if len(text) <= length else text[: length - 1] + "…"
