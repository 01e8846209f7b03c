"""What a killed process leaves behind, made by one that really ends without cleaning up."""

from __future__ import annotations

import os
from pathlib import Path

from cinetune.durable import growing

__all__ = ["left_by_a_killed_run"]


def left_by_a_killed_run(target: Path) -> Path:
    """The folder in which a dead process was writing `target`."""
    before = set(target.parent.glob("*")) if target.parent.is_dir() else set()
    child = os.fork()
    if child == 0:
        try:
            with growing(target) as temporary:
                temporary.write_bytes(b"half")
                (temporary.parent / "folder").mkdir()
                (temporary.parent / "folder" / "a.1009.tif").write_bytes(b"old")
                os._exit(0)
        finally:
            os._exit(1)
    assert os.waitpid(child, 0)[1] == 0
    (left,) = set(target.parent.glob("*")) - before
    return left
