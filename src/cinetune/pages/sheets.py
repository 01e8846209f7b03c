"""Contact sheets and strips: pictures in a neutral surround, labelled small, so that colour can be judged.

The surround is a dark neutral grey (sRGB 46, L* 18) without a tint. Small pictures are enlarged with a bicubic filter
and larger ones reduced with Lanczos, always to the same cell width and with their own shape.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

__all__ = ["SURROUND", "Cell", "candidates_sheet", "film_sheet", "shot_strip", "to_image"]

SURROUND = (46, 46, 46)
_INK = (214, 214, 214)
_FAINT = (150, 150, 150)
_PICKED = (236, 190, 110)
_MARGIN, _GAP, _LINE = 22, 12, 20


@dataclass(frozen=True, slots=True)
class Cell:
    """One picture of a sheet (None leaves a gap), the caption under it, and whether it is the chosen one."""

    picture: Image.Image | None
    caption: str = ""
    picked: bool = False


def to_image(frame_HWC: NDArray[np.floating] | NDArray[np.integer]) -> Image.Image:
    """An 8-bit RGB picture of one frame: floats in [0, 1], or uint8, or uint16 over its full range."""
    frame = np.asarray(frame_HWC)
    assert frame.ndim == 3 and frame.shape[2] == 3, frame.shape
    if frame.dtype == np.uint8:
        return Image.fromarray(frame)
    scale = 255.0 / 65535.0 if frame.dtype == np.uint16 else 255.0
    return Image.fromarray((frame.astype(np.float32) * scale + 0.5).clip(0, 255).astype(np.uint8))


def film_sheet(cells: Sequence[Cell], *, columns: int = 6, cell_width: int = 208) -> Image.Image:
    """Stills of the film in reading order, captions below."""
    assert cells and columns > 0
    columns = min(columns, len(cells))
    rows = [list(cells[start : start + columns]) for start in range(0, len(cells), columns)]
    return _grid(rows, cell_width=cell_width, caption_lines=3)


def shot_strip(
    rows: Sequence[tuple[str, Sequence[Image.Image | None]]], *, columns: Sequence[str], cell_width: int = 208
) -> Image.Image:
    """One shot: a row for each arm (label, pictures), a column for the reference and each sampled frame."""
    assert rows and all(len(pictures) == len(columns) for _, pictures in rows)
    cells = [[Cell(picture) for picture in pictures] for _, pictures in rows]
    return _grid(cells, cell_width=cell_width, row_labels=[label for label, _ in rows], column_labels=columns)


def candidates_sheet(rows: Sequence[tuple[str, Sequence[Cell]]], *, cell_width: int = 208) -> Image.Image:
    """Keyframe candidates: a row for each shot and arm, the picked one framed; captions hold the ranking score."""
    assert rows
    widest = max(len(cells) for _, cells in rows)
    cells = [[*row, *[Cell(None)] * (widest - len(row))] for _, row in rows]
    return _grid(cells, cell_width=cell_width, row_labels=[label for label, _ in rows], caption_lines=1)


def _grid(
    rows: Sequence[Sequence[Cell]],
    *,
    cell_width: int,
    row_labels: Sequence[str] = (),
    column_labels: Sequence[str] = (),
    caption_lines: int = 0,
) -> Image.Image:
    font = ImageFont.load_default(size=15)
    height = _cell_height(rows, cell_width)
    left = _MARGIN + (round(max(font.getlength(label) for label in row_labels)) + 18 if row_labels else 0)
    top = _MARGIN + (_LINE + 8 if column_labels else 0)
    text_height = caption_lines * _LINE + 8 if caption_lines else 0
    columns = max(len(row) for row in rows)
    size = (
        left + columns * cell_width + (columns - 1) * _GAP + _MARGIN,
        top + len(rows) * (height + text_height) + (len(rows) - 1) * _GAP + _MARGIN,
    )
    sheet = Image.new("RGB", size, SURROUND)
    draw = ImageDraw.Draw(sheet)
    for number, label in enumerate(column_labels):
        draw.text((left + number * (cell_width + _GAP), _MARGIN), label, font=font, fill=_FAINT)
    for line, row in enumerate(rows):
        y = top + line * (height + text_height + _GAP)
        if row_labels:
            draw.text((_MARGIN, y + height // 2), row_labels[line], font=font, fill=_INK, anchor="lm")
        for number, cell in enumerate(row):
            x = left + number * (cell_width + _GAP)
            _paste(sheet, draw, cell, box=(x, y, cell_width, height))
            for index, text in enumerate(_wrap(cell.caption, font, cell_width, caption_lines)):
                colour = _PICKED if cell.picked else _FAINT
                draw.text((x, y + height + 6 + index * _LINE), text, font=font, fill=colour)
    return sheet


def _cell_height(rows: Sequence[Sequence[Cell]], width: int) -> int:
    pictures = [cell.picture for row in rows for cell in row if cell.picture is not None]
    return max((round(width * picture.height / picture.width) for picture in pictures), default=width * 9 // 16)


def _paste(sheet: Image.Image, draw: ImageDraw.ImageDraw, cell: Cell, *, box: tuple[int, int, int, int]) -> None:
    x, y, width, height = box
    if cell.picture is None:
        return
    scale = min(width / cell.picture.width, height / cell.picture.height)
    size = (max(1, round(cell.picture.width * scale)), max(1, round(cell.picture.height * scale)))
    kernel = Image.Resampling.BICUBIC if scale >= 1 else Image.Resampling.LANCZOS
    fitted = cell.picture.convert("RGB").resize(size, kernel)
    at = (x + (width - size[0]) // 2, y + (height - size[1]) // 2)
    if cell.picked:
        draw.rectangle((at[0] - 3, at[1] - 3, at[0] + size[0] + 2, at[1] + size[1] + 2), fill=_PICKED)
    sheet.paste(fitted, at)


def _wrap(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width: int, lines: int) -> list[str]:
    """`text` in at most `lines` lines of `width` pixels; what does not fit ends in an ellipsis."""
    words, wrapped = text.split(), []
    while words and len(wrapped) < lines:
        count = 1
        while count < len(words) and font.getlength(" ".join(words[: count + 1])) <= width:
            count += 1
        line, words = " ".join(words[:count]), words[count:]
        cut = bool(words) and len(wrapped) == lines - 1
        while font.getlength(line + "…" * cut) > width and len(line) > 1:
            line, cut = line[:-1].rstrip(" ,;"), True
        wrapped.append(line + "…" * cut)
    return wrapped
