"""Whoever reads a film's pictures is sure that they are those that were ingested."""

from __future__ import annotations

import os
import shutil
from dataclasses import replace

import numpy as np
import pytest

from cinetune.artifacts import Colour, FootageClip
from cinetune.errors import FootageError
from cinetune.footage.notes.sidecars import source_sha256
from cinetune.footage.read.reading import require_original
from cinetune.footage.read.stills import write_png16
from cinetune.footage.video import probe, read_clip
from films import counted, counter, write_counted


def ingested(root, name: str) -> FootageClip:
    facts = probe(root / name)
    return FootageClip(
        id="a", path=name, sha256=source_sha256(root / name), codec=facts.codec, rate=facts.rate, frames=facts.frames,
        width=facts.width, height=facts.height, pixel_aspect=facts.pixel_aspect, bars=(0, 0, facts.width, facts.height),
        colour=facts.colour, timecode=None, reading=facts.reading,
    )  # fmt: skip


def test_a_film_that_was_replaced_is_not_read(tmp_path):
    write_counted(tmp_path / "a.mp4", 30)
    write_counted(tmp_path / "b.mp4", 40)
    clip = ingested(tmp_path, "a.mp4")
    assert [counter(frame) for frame in read_clip(tmp_path, clip, [3, 7])] == [3, 7]
    shutil.copy(tmp_path / "a.mp4", tmp_path / "keep.mp4")
    shutil.copy(tmp_path / "b.mp4", tmp_path / "a.mp4")
    with pytest.raises(FootageError, match="not the one that was ingested") as caught:
        read_clip(tmp_path, clip, [3])
    assert caught.value.where == str(tmp_path / "a.mp4") and "ingest" in caught.value.remedy
    shutil.copy(tmp_path / "keep.mp4", tmp_path / "a.mp4")  # other time, the same bytes
    assert counter(read_clip(tmp_path, clip, [5])[0]) == 5
    (tmp_path / "a.mp4").unlink()
    with pytest.raises(FootageError, match="cannot be read"):
        read_clip(tmp_path, clip, [3])


def test_one_other_picture_of_a_sequence_is_noticed(tmp_path):
    for number in range(1, 14):
        write_png16(tmp_path / f"A.{number:04d}.png", counted(number))
    clip = ingested(tmp_path, "A.%04d.png")
    read_clip(tmp_path, clip, [0])
    write_png16(tmp_path / "A.0007.png", np.zeros((48, 80, 3)))
    with pytest.raises(FootageError, match="not the one that was ingested"):
        read_clip(tmp_path, clip, [0])
    (tmp_path / "A.0007.png").unlink()
    with pytest.raises(FootageError, match="not the one that was ingested"):
        read_clip(tmp_path, clip, [0])


def test_bytes_are_read_again_only_when_the_file_changed(tmp_path, monkeypatch):
    write_counted(tmp_path / "a.mp4", 10)
    clip = ingested(tmp_path, "a.mp4")
    read = []
    monkeypatch.setattr(
        "cinetune.footage.read.reading.source_sha256", lambda path: read.append(path) or source_sha256(path)
    )
    for _ in range(3):
        read_clip(tmp_path, clip, [1])
    assert len(read) == 1
    stat = (tmp_path / "a.mp4").stat()
    os.utime(tmp_path / "a.mp4", ns=(stat.st_atime_ns, stat.st_mtime_ns + 5_000_000_000))
    read_clip(tmp_path, clip, [1])
    assert len(read) == 2


def test_a_clip_of_other_bytes_was_never_ingested(tmp_path):
    write_counted(tmp_path / "a.mp4", 10)
    clip = replace(ingested(tmp_path, "a.mp4"), sha256="0" * 64)
    assert isinstance(clip.colour, Colour)
    with pytest.raises(FootageError, match="not the one that was ingested"):
        require_original(tmp_path, clip)
