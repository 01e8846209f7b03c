"""The end of pre-training: assemble the parts, measure them on held-out clips, write weights, card, curves."""

from __future__ import annotations

from .common import Run


def write(run: Run, words: list[str], *, command: str) -> None:
    raise NotImplementedError
