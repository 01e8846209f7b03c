"""What a reader sees before any number: one shot at its middle, tone curves, palettes, and distance over the frames."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from markupsafe import Markup, escape
from PIL import Image

from cinetune.artifacts import Scorecard
from cinetune.pages import charts
from cinetune.report import verdicts

__all__ = ["colours", "distance_curves", "gains", "middle_shot", "worst_first"]

_PIXELS = 6000
_NAMES = {"film": "Film", "truth": "Truth", "base": "Base", "trigger": "Trigger", "look": "Look", "plain": "Plain"}


def gains(cards: Sequence[Scorecard]) -> dict[str, dict[str, Any]]:
    """Each shot's effect in the first declared measure of closeness that was taken in its domain: `gain` (larger is
    better), `text`, `lost` when it moved the wrong way.
    """
    found: dict[str, dict[str, Any]] = {}
    for card in cards:
        if card.domain == "both" or card.versus == "plain":
            continue
        for score in card.effects:
            rows = card.per_shot.get(score.metric, {})
            if score.claim != "closer" or not rows or any(shot in found for shot in rows):
                continue
            for shot, by_arm in rows.items():
                change = by_arm[card.arm] - by_arm[card.versus]
                gain = -change if score.better == "lower" else change
                unit = f" {score.unit}" if 0 < len(score.unit) <= 8 else ""
                text = f"{verdicts.title_of(score.metric)} {verdicts.signed(change)}{unit}"
                found[shot] = {"gain": gain, "text": text, "lost": gain < 0}
    return found


def worst_first(shots: Sequence[str], found: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """The shots by their gain, smallest first; those without a number last, in the order of the list."""
    return sorted(shots, key=lambda shot: (shot not in found, found[shot]["gain"] if shot in found else 0.0))


def middle_shot(shots: Sequence[str], found: Mapping[str, Mapping[str, Any]]) -> str | None:
    """The shot whose gain is the median one: neither the best nor the worst that could be shown."""
    ranked = [shot for shot in worst_first(shots, found) if shot in found]
    return ranked[len(ranked) // 2] if ranked else next(iter(shots), None)


def colours(pictures: Mapping[str, Sequence[Image.Image]], *, where: str) -> dict[str, Any] | None:
    """Tone curves and palettes of the film and the arms over the same sampled frames; None without a film to hold them
    against. `pictures` maps `film`, `truth` or an arm to its frames.
    """
    from cinetune.metrics import lab, palette

    if not pictures.get("film") and not pictures.get("truth"):
        return None
    lines, rows = [], []
    percents = np.arange(1, 100)
    for name, frames in pictures.items():
        if not frames:
            continue
        rgb_N3 = _pixels(frames)
        lab_N3 = lab(rgb_N3)
        curve = np.percentile(lab_N3[:, 0], percents)
        lines.append(charts.Curve(tuple(zip(percents.tolist(), curve.tolist(), strict=True)), name, _NAMES[name]))
        found = palette(lab_N3)
        owner = ((lab_N3[:, None] - found.colours_K3) ** 2).sum(-1).argmin(1)
        shown = [(rgb_N3[owner == k].mean(0), float((owner == k).mean())) for k in range(len(found.share_K))]
        rows.append((_NAMES[name], [(colour, share) for colour, share in shown if share > 0]))
    title = f"Brightness from the darkest to the lightest per cent of pixels, {where}"
    return {"tone": charts.line_chart(lines, title=title), "palette": _swatches(rows, title=f"Main colours, {where}")}


def _pixels(frames: Sequence[Image.Image]) -> np.ndarray:
    """About `_PIXELS` display R'G'B' values `[N, 3]` in [0, 1], the same number from each frame."""
    each = max(1, _PIXELS // len(frames))
    taken = []
    for frame in frames:
        flat = np.asarray(frame.convert("RGB"), dtype=np.float64).reshape(-1, 3) / 255
        taken.append(flat[np.linspace(0, len(flat) - 1, min(each, len(flat))).round().astype(int)])
    return np.concatenate(taken)


def _swatches(rows: Sequence[tuple[str, Sequence[tuple[np.ndarray, float]]]], *, title: str) -> Markup:
    """A bar for each name, its main colours from dark to light, as wide as their share."""
    label, width, height = 70, 520, 30
    size = f'viewBox="0 0 {width} {height * len(rows)}" width="{width}" height="{height * len(rows)}"'
    parts = [f'<svg class="palette" {size} role="img"><title>{escape(title)}</title>']
    for index, (name, colours_) in enumerate(rows):
        y, x = index * height, float(label)
        parts.append(f'<text class="label" x="0" y="{y + 18}">{escape(name)}</text>')
        for colour, share in colours_:
            red, green, blue = (round(float(part) * 255) for part in colour)
            span = share * (width - label)
            box = f'x="{x:.1f}" y="{y + 2}" width="{span:.1f}" height="{height - 6}"'
            parts.append(f'<rect {box} fill="rgb({red},{green},{blue})"/>')
            x += span
    return Markup("".join(parts) + "</svg>")


def distance_curves(cards: Sequence[Scorecard]) -> list[dict[str, Any]]:
    """Perceptual distance to the truth frame by frame, a chart for each domain in which it is known."""
    drawn = []
    for domain, where in (("in", "in the film's world"), ("out", "outside it")):
        lines: dict[str, charts.Curve] = {}
        for card in cards:
            if card.domain == domain:
                for arm, values in card.curves.items():
                    points = tuple((float(t), value) for t, value in enumerate(values))
                    label = {"floor": "floor: the truth through the VAE", "ceiling": "ceiling: its first frame"}
                    lines.setdefault(arm, charts.Curve(points, arm, label.get(arm, _NAMES.get(arm, arm))))
        if lines:
            title = f"Perceptual distance to the truth over the frames, {where}"
            drawn.append({"title": title, "plot": charts.line_chart(list(lines.values()), title=title)})
    return drawn
