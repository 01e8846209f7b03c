"""How long a run takes and what it holds in memory: a line per step and evaluation in `speed.jsonl`.

It lies beside the log and is no part of the result, whose bytes must not depend on the clock.
"""

from __future__ import annotations

import time
from pathlib import Path

import torch

from cinetune.records import log_line
from cinetune.runtime import peak_memory_gib

__all__ = ["Meter"]


class Meter:
    """Appends to a file. `fresh` forgets what an earlier run left there; a resumed run writes some steps again.
    `writes` is False in the processes that do not lead.
    """

    def __init__(self, path: Path, *, fresh: bool, writes: bool = True) -> None:
        self._path, self._writes = path, writes
        if fresh and writes:
            path.unlink(missing_ok=True)
        self._since = time.monotonic()

    def mark(self, kind: str, step: int) -> None:
        """One line: what has just ended, `seconds` since the mark before, the time of day `at` (s since 1970), and the
        peak memory of this process, `host_gib`, and of the GPU, `device_gib` (None without one).
        """
        if not self._writes:
            return
        now = time.monotonic()
        device = torch.cuda.max_memory_allocated() / 2**30 if torch.cuda.is_available() else None
        record = {
            "kind": kind,
            "step": step,
            "seconds": round(now - self._since, 4),
            "at": round(time.time(), 3),
            "host_gib": round(peak_memory_gib(), 4),
            "device_gib": None if device is None else round(device, 4),
        }
        self._since = now
        with self._path.open("a", encoding="utf-8") as file:
            file.write(log_line(record))
