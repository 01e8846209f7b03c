"""A shot on disk while it is made: one file for each finished segment, so that a killed run goes on inside a shot."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from cinetune.artifacts import Segment
from cinetune.durable import atomic_write
from cinetune.generation.chain import Take
from cinetune.records import from_json, to_json

__all__ = ["Reel"]

FRAMES = "frames_THWC"


class Reel:
    """The finished segments of one shot that is being made, in a folder of their own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def keep(self, number: int, take: Take) -> None:
        """Keep a finished segment. Raises `StoreError` when the disk refuses."""
        tensors = {FRAMES: torch.from_numpy(take.frames_THWC), "given_THWC": take.given_THWC.contiguous()}
        with atomic_write(self._path(number)) as temporary:
            save_file(tensors, temporary, metadata={"segment": to_json(take.segment)})

    def finished(self, planned: Sequence[Segment]) -> Iterator[Take]:
        """The segments that are there, from the first on, as far as they are those that are planned."""
        for number, segment in enumerate(planned):
            path = self._path(number)
            try:
                with safe_open(path, framework="pt") as file:
                    made = from_json(Segment, (file.metadata() or {})["segment"], where=str(path))
                    frames, given = file.get_tensor(FRAMES).numpy(), file.get_tensor("given_THWC")
            except (FileNotFoundError, SafetensorError, KeyError):
                return
            if replace(made, seed=segment.seed, tries=()) != segment:
                return
            yield Take(segment=made, frames_THWC=frames, given_THWC=given)

    def clear(self) -> None:
        """The shot is whole: its segments are no longer needed."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _path(self, number: int) -> Path:
        return self.folder / f"segment_{number:03d}.safetensors"
