"""The contact sheet of what will be trained: one HTML page that needs nothing beside it.

Every window is a strip of its first, middle and last frame as training will see them, with what a person at a cutting
desk would ask: which file, at what timecode, which words, which side of the split.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import numpy as np
from PIL import Image

from cinetune.artifacts import FootageClip, Measures, Window
from cinetune.errors import ConfigError
from cinetune.footage.cut.framing import lost, shape_of
from cinetune.pages.kit import render
from cinetune.timecode import frames_to_timecode, timecode_to_frames

__all__ = ["WindowCard", "render_sheet", "start_label", "strip"]

_THUMB = 208  # pixels: a strip of three fills a third of a desktop window
_GAP = 3
_SURROUND = 46  # the neutral grey of all our sheets, so that colour can be judged
_QUALITY = 80


@dataclass(frozen=True, slots=True, kw_only=True)
class WindowCard:
    """One window on the sheet; `strip` is a WebP file's bytes, `copy_of` the window it shows the same picture as;
    `whole` a full frame of its clip, on one window of every clip that is cropped."""

    window: Window
    clip: FootageClip
    measures: Measures
    strip: bytes
    copy_of: str = ""
    whole: bytes = b""

    @property
    def state(self) -> str:
        return "out" if self.measures.left_out else self.window.split


def strip(frames_THWC: np.ndarray) -> bytes:
    """Frames [T, H, W, 3] in [0, 1] side by side in a small WebP; never enlarged."""
    _, height, width, _ = frames_THWC.shape
    size = (min(_THUMB, width), max(1, round(height * min(_THUMB, width) / width)))
    sheet = Image.new("RGB", (len(frames_THWC) * (size[0] + _GAP) - _GAP, size[1]), (_SURROUND,) * 3)
    for number, frame in enumerate(frames_THWC):
        picture = Image.fromarray((frame * 255.0 + 0.5).clip(0, 255).astype(np.uint8))
        sheet.paste(picture.resize(size, Image.Resampling.LANCZOS), (number * (size[0] + _GAP), 0))
    buffer = io.BytesIO()
    sheet.save(buffer, "WEBP", quality=_QUALITY, method=4)
    return buffer.getvalue()


def start_label(clip: FootageClip, frame: int) -> str:
    """Timecode of a frame of a clip, by the clip's own start; `+` before it if the clip has none and it counts from
    0."""
    label = clip.timecode or ""
    drop = ";" in label or label.count(".") == 1
    base = clip.timecode_base or clip.rate
    try:
        first = timecode_to_frames(label, base)
        return frames_to_timecode(first + int(frame * base / clip.rate), base, drop_frame=drop)
    except ConfigError:  # no label, or one that cannot be at this rate
        return "+" + frames_to_timecode(frame, clip.rate)


def render_sheet(film: str, cards: Sequence[WindowCard], facts: Sequence[str]) -> str:
    """The page as text: cards in scenes, scenes in the order of their first card. `facts` are sentences for its head.
    Everything written by people is escaped.
    """
    scenes = list(_scenes(cards))
    top = max((card.measures.motion for card in cards), default=0.0) or 1.0
    return render({
        "film": film, "facts": facts, "scenes": scenes,
        "most": max((scene["used"] for scene in scenes), default=1) or 1,
        "counts": {state: sum(card.state == state for card in cards) for state in ("train", "held", "out")},
        "sources": len({card.clip.id for card in cards}), "top_motion": top,
        "first": cards[0].window if cards else None,
    }, "sheet.html.j2")  # fmt: skip


def _scenes(cards: Sequence[WindowCard]) -> Iterator[dict[str, Any]]:
    order = {name: place for place, name in enumerate(dict.fromkeys(card.window.scene for card in cards))}
    in_order = sorted(cards, key=lambda card: order[card.window.scene])
    for name, group in groupby(in_order, key=lambda card: card.window.scene):
        mine = list(group)
        used = [card for card in mine if card.state != "out"]
        yield {
            "name": name, "state": used[0].state if used else "out", "used": len(used),
            "seconds": sum(float(len(card.window.source_frames) / card.window.rate) for card in used),
            "cards": [_view(card) for card in mine],
        }  # fmt: skip


def _framing(card: WindowCard) -> dict[str, Any]:
    """The full frame and, in per cent of it, the picture inside the bars and the part that the model sees."""
    clip, window = card.clip, card.window

    def box(crop: tuple[int, int, int, int]) -> dict[str, float]:
        x, y, width, height = crop
        return {
            "left": 100 * x / clip.width, "top": 100 * y / clip.height,
            "width": 100 * width / clip.width, "height": 100 * height / clip.height,
        }  # fmt: skip

    side, share = lost(shape_of(clip), height=window.height, width=window.width)
    return {
        "picture": "data:image/webp;base64," + base64.b64encode(card.whole).decode("ascii"),
        "kept": box(window.crop), "side": side, "share": float(share), "size": f"{window.width}×{window.height}",
        "shape": float(shape_of(clip)), "aspect": float(clip.pixel_aspect * clip.width / clip.height),
    }  # fmt: skip


def _view(card: WindowCard) -> dict[str, Any]:
    window, clip = card.window, card.clip
    return {
        "id": window.id, "state": card.state, "why": card.measures.left_out, "copy_of": card.copy_of,
        "caption": window.caption, "source": clip.path.rsplit("/", 1)[-1], "path": clip.path,
        "timecode": start_label(clip, window.source_frames[0]), "rate": str(clip.rate), "measures": card.measures,
        "frames": f"{window.source_frames[0]}–{window.source_frames[-1]}",
        "strip": "data:image/webp;base64," + base64.b64encode(card.strip).decode("ascii"),
        "rights": clip.rights, "framing": _framing(card) if card.whole else None,
    }  # fmt: skip
