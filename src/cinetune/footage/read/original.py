"""Whether a film file is still the one that was ingested.

Everything made of a clip is kept under the hash of its bytes. So whoever reads its pictures asks first, or other
pictures would be kept under that hash for good. Bytes are read again only where size, time or place on the disk changed
since they were hashed (`Store.sha256`).
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

from cinetune.artifacts import FootageClip
from cinetune.errors import FootageError
from cinetune.footage.notes.sidecars import is_sequence, members, source_sha256
from cinetune.store import Store

__all__ = ["require_original"]


@cache
def _store(root: Path) -> Store:
    return Store(root)


def require_original(root: Path, clip: FootageClip) -> None:
    """Raises `FootageError` when the file of a clip is gone, or other than when it was ingested. `root` = project."""
    path = root / clip.path
    remedy = "put the film back, or run `cinetune ingest`"
    parts = sorted(members(path).values()) if is_sequence(path) else [path]
    try:
        found = _store(root.absolute()).sha256(path, parts=parts, of=source_sha256)
    except OSError as error:
        raise FootageError(f"the film cannot be read: {error.strerror}", where=str(path), remedy=remedy) from error
    if found != clip.sha256:
        raise FootageError("the file is not the one that was ingested", where=str(path), remedy=remedy)
