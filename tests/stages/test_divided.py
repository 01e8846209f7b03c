"""What several processes need, each makes a part of: every piece once, and everybody has all."""

from __future__ import annotations

import os
import time
import traceback
from collections import Counter
from functools import partial
from pathlib import Path

import pytest

from cinetune.artifacts import Numbers
from cinetune.errors import ModelError
from cinetune.stage import divided
from cinetune.store import Store

PIECES = 6


def pieces(root: Path) -> dict[str, partial[Numbers]]:
    return {f"k{number}": partial(make, root, number) for number in range(PIECES)}


def make(root: Path, number: int) -> Numbers:
    with (root / "made").open("a") as file:
        file.write(f"{number} {os.getpid()}\n")
    time.sleep(0.1)
    return Numbers(values=(number / 3,))


def test_two_processes_make_every_piece_once_and_have_all(tmp_path: Path) -> None:
    child = os.fork()
    if child == 0:
        code = 1
        try:
            found = divided(Store(tmp_path), "train", Numbers, pieces(tmp_path))
            code = 0 if [one.values[0] for one in found] == [number / 3 for number in range(PIECES)] else 2
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    found = divided(Store(tmp_path), "train", Numbers, pieces(tmp_path))
    _, status = os.waitpid(child, 0)
    assert status == 0 and [one.values[0] for one in found] == [number / 3 for number in range(PIECES)]
    lines = [line.split() for line in (tmp_path / "made").read_text().splitlines()]
    assert sorted(number for number, _ in lines) == [str(number) for number in range(PIECES)]
    assert len(Counter(pid for _, pid in lines)) == 2, "both had a part"
    assert divided(Store(tmp_path), "train", Numbers, pieces(tmp_path)) == found
    assert len((tmp_path / "made").read_text().splitlines()) == PIECES


def test_a_piece_that_cannot_be_made_is_an_error_and_the_others_stay(tmp_path: Path) -> None:
    def broken() -> Numbers:
        raise ModelError("not finite")

    asked = {"good": partial(make, tmp_path, 1), "bad": broken}
    with pytest.raises(ModelError, match="not finite"):
        divided(Store(tmp_path), "train", Numbers, asked)
    assert Store(tmp_path).has_unit("train", "good") and not Store(tmp_path).has_unit("train", "bad")
