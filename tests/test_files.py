"""Layouts that two sides must agree on: what is written is what any reader of safetensors finds."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file
from safetensors.torch import load_file as load_torch

from cinetune.files import full_caption, given, master_frames, read_master, save_tensors, stream_master, variants_in


@pytest.mark.parametrize("frames", [1, 5])
def test_a_master_written_part_by_part_is_the_file_of_the_library(tmp_path: Path, frames: int) -> None:
    film = np.random.default_rng(0).integers(0, 65536, (frames, 6, 10, 3), dtype=np.uint16)
    stream_master(tmp_path / "parts", [film[:2], film[2:]], (frames, 6, 10, 3))
    save_file({"frames_THWC": film}, tmp_path / "whole")
    assert (tmp_path / "parts").read_bytes() == (tmp_path / "whole").read_bytes()
    assert np.array_equal(load_file(tmp_path / "parts")["frames_THWC"], film)
    assert np.array_equal(read_master(tmp_path / "parts"), film.astype("float32") / 65535)
    assert np.array_equal(np.stack(list(master_frames(tmp_path / "parts"))), read_master(tmp_path / "parts"))


def test_a_master_of_another_length_than_announced_is_a_fault(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="were announced"):
        stream_master(tmp_path / "short", [np.zeros((1, 2, 2, 3), np.uint16)], (2, 2, 2, 3))


def test_variants_are_counted_by_the_names_they_are_written_under() -> None:
    names = [name for variant in range(4) for name in given(variant)]
    assert len(set(names)) == 8 and variants_in(names) == 3 and variants_in(given(0)) == 0


def test_views_of_one_tensor_are_written_as_files_of_their_own(tmp_path: Path) -> None:
    base = torch.arange(12.0).reshape(3, 4)
    save_tensors(tmp_path / "t", {"row": base[1], "column": base[:, 1]})
    found = load_torch(tmp_path / "t")
    assert torch.equal(found["row"], base[1]) and torch.equal(found["column"], base[:, 1])


def test_the_trigger_stands_before_the_caption() -> None:
    assert full_caption("silver film", "a barn") == "silver film, a barn"
    assert full_caption("", "a barn") == "a barn"
