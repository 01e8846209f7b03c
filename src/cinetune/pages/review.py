"""`report/captions.html`: every shot with its sampled frames and its caption, to read and edit offline.

What is edited or accepted there is downloaded as a `metadata.jsonl`, which counts as a person's words once it lies in
the footage folder. It carries over the rows of the one that is there, so that it can take its place.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from cinetune.artifacts import FootageClip, Shot
from cinetune.footage.notes.captions import LOOK_WORDS, complaints, frames_to_show
from cinetune.footage.notes.sidecars import METADATA, CaptionRow, captions_of, table_rows
from cinetune.pages.kit import render
from cinetune.pages.media import picture_uri
from cinetune.pages.sheets import to_image
from cinetune.results import Ingested
from cinetune.runtime import Reporter
from cinetune.store import Project

__all__ = ["write_review"]

_PICTURES = 8
_WIDTH = 208  # pixels of one sampled frame on the page


def write_review(project: Project, report: Reporter) -> Path:
    """Write the page; its path. Raises `StoreError` before `ingest`, `FootageError` for film that cannot be read."""
    film = project.store.need(Ingested)
    clips, shots = film.by_id, film.shots
    folder = project.root / project.config.footage.folder
    rows = captions_of(project.root, folder, clips, shots)
    numbers: dict[str, int] = {}
    cards: list[dict[str, Any]] = []
    with report.progress("review", len(shots)) as bar:
        for shot, row in zip(shots, rows, strict=True):
            index = numbers[shot.clip] = numbers.get(shot.clip, -1) + 1
            cards.append(_card(project, folder, shot, clips[shot.clip], row, index=index))
            bar.advance(note=shot.id)
    table = folder / METADATA
    context = {
        "film": project.config.name,
        "cards": cards,
        "cards_json": [
            {key: card[key] for key in ("id", "text", "kind", "notes", "locked", "entry")} for card in cards
        ],
        "counts": {kind: sum(card["kind"] == kind for card in cards) for kind in ("generated", "human", "none")},
        "noted": sum(bool(card["notes"]) for card in cards),
        "low": project.config.caption.words[0],
        "high": project.config.caption.words[1],
        "look_words": list(LOOK_WORDS),
        "kept": list(table_rows(table)) if table.is_file() else [],
        "folder": project.config.footage.folder,
    }
    path = project.root / "report" / "captions.html"
    page = render(context, "review.html.j2")
    project.store.write_text(path, page)
    report.say(f"wrote  {path}, {len(page.encode()) / 1e6:.1f} MB: open it, edit, put its {METADATA} into {folder}")
    return path


def _card(
    project: Project, folder: Path, shot: Shot, clip: FootageClip, row: CaptionRow, *, index: int
) -> dict[str, Any]:
    """What the page shows of one shot, and the row that would make its caption a person's."""
    settings = project.config.caption
    name = Path(os.path.relpath(project.root / clip.path, folder)).as_posix()
    entry: dict[str, Any] = {"file_name": name, "shot": index, "start_frame": shot.span.start}
    if row.scene:
        entry["scene"] = row.scene
    notes = complaints(row.text, words=settings.words, language=settings.language) if row.generated else ()
    return {
        "id": shot.id,
        "file": name,
        "from": _clock(float(shot.span.start_seconds)),
        "seconds": f"{float(shot.span.seconds):.1f}",
        "pictures": _pictures(project.root, shot, clip),
        "text": row.text,
        "kind": "generated" if row.generated else "human" if row.text else "none",
        "source": row.source,
        "notes": list(notes),
        # A numbered row in a table of an inner folder comes before the downloaded one: an edit would do nothing.
        "locked": row.shot is not None and "/" in row.source,
        "entry": entry,
    }


def _clock(seconds: float) -> str:
    return f"{int(seconds) // 60}:{seconds % 60:04.1f}"


def _pictures(root: Path, shot: Shot, clip: FootageClip) -> list[str]:
    from cinetune.footage.video import read_clip

    shown = frames_to_show(shot.span, _PICTURES)
    across, down = clip.bars[2] * clip.pixel_aspect, clip.bars[3]
    size = (_WIDTH, max(1, round(_WIDTH * down / across)))
    film = read_clip(root, clip, shown, crop=clip.bars, size=size)
    return [picture_uri(to_image(frame), quality=80) for frame in film]
