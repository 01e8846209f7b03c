"""What people look at: generated clips beside true ones, and the training curves."""

from __future__ import annotations

import json
import math
from pathlib import Path

import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from pocket_training.common import Run

SHOWN_FRAMES = (0, 8, 16, 24, 32)
SURROUND, INK = (46, 46, 46), (225, 225, 225)


def _strip(clip_CTHW: Tensor, scale: int = 2) -> Image.Image:
    row = torch.cat([clip_CTHW[:, t] for t in SHOWN_FRAMES], dim=2)
    array = ((row.clamp(-1, 1) + 1) * 127.5).round().byte().permute(1, 2, 0).numpy()
    image = Image.fromarray(array)
    return image.resize((image.width * scale, image.height * scale), Image.Resampling.BICUBIC)


def sheet(clips_NCTHW: Tensor, truth_NCTHW: Tensor, captions: list[str], path: Path) -> None:
    """For each clip its caption, the generated frames, and below them the true ones."""
    font = ImageFont.load_default(size=15)
    rows: list[Image.Image] = []
    for clip, real, text in zip(clips_NCTHW, truth_NCTHW, captions, strict=True):
        made, shot = _strip(clip), _strip(real)
        tile = Image.new("RGB", (made.width, made.height * 2 + 30), SURROUND)
        tile.paste(made, (0, 24))
        tile.paste(shot, (0, 27 + made.height))
        ImageDraw.Draw(tile).text((4, 3), text, fill=INK, font=font)
        rows.append(tile)
    page = Image.new("RGB", (rows[0].width + 24, sum(row.height + 12 for row in rows) + 12), SURROUND)
    y = 12
    for row in rows:
        page.paste(row, (12, y))
        y += row.height + 12
    path.parent.mkdir(parents=True, exist_ok=True)
    page.save(path, quality=90)


def _plot(points: list[tuple[float, float]], *, title: str, left: int, log_scale: bool) -> str:
    """One small SVG plot of (step, value)."""
    steps = [step for step, _ in points]
    values = [math.log10(value) if log_scale else value for _, value in points]
    low, high, last = min(values), max(values), max(steps)
    xs = [left + 50 + 250 * step / max(1, last) for step in steps]
    ys = [190 - 140 * (value - low) / max(1e-9, high - low) for value in values]
    line = " ".join(f"{x:.1f},{y:.1f}" for x, y in zip(xs, ys, strict=True))
    bottom, top = (10**low, 10**high) if log_scale else (low, high)
    return "".join(
        (
            f'<text x="{left + 50}" y="28" font-weight="600">{title}</text>',
            f'<polyline points="{line}" fill="none" stroke="#c8682d" stroke-width="2"/>',
            f'<path d="M{left + 50} 45V190H{left + 300}" fill="none" stroke="#888"/>',
            f'<text x="{left + 46}" y="194" text-anchor="end">{bottom:.3g}</text>',
            f'<text x="{left + 46}" y="55" text-anchor="end">{top:.3g}</text>',
            f'<text x="{left + 300}" y="208" text-anchor="end">{last:.0f} steps</text>',
        )
    )


def curves(run: Run, path: Path) -> None:
    """Held-out numbers of the three parts over their training, as one SVG."""
    plots = (
        ("vae", "psnr", "autoencoder: held-out PSNR, dB", False),
        ("clip", "held_top5", "CLIP: held-out top-5 of 40", False),
        ("denoiser", "held", "denoiser: held-out v-loss (log)", True),
    )
    body = ""
    trained = [plot for plot in plots if (run.work / f"{plot[0]}.jsonl").exists()]  # a part can be kept as it was
    for number, (part, key, title, log_scale) in enumerate(trained):
        rows = [json.loads(line) for line in (run.work / f"{part}.jsonl").read_text(encoding="utf-8").splitlines()]
        points = [(row["step"], row[key]) for row in rows if key in row]
        body += _plot(points, title=title, left=320 * number, log_scale=log_scale)
    head = '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 960 220" font-family="sans-serif" font-size="12">'
    path.write_text(f'{head}<rect width="960" height="220" fill="#fff"/>{body}</svg>', encoding="utf-8")
