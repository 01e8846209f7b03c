"""A full disk in every stage: a typed error, and `run` goes on when there is room."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from cinetune.metrics import design
from e2e.mini import make_tiny
from e2e.test_kills import STAGES, OneMoment, outputs, page, start, tree


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own in memory, 64 MiB."""
    place = tmp_path / "disk"
    place.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", str(place)], check=False, capture_output=True
    )
    if mounted.returncode:
        pytest.skip("mounting needs root")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


def code_of(*words: str) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(start(*words), 0)[1])


def fill(place: Path, *, left: int) -> Path:
    """A file that leaves `left` bytes of the disk."""
    path = place / "ballast"
    with path.open("wb") as file:
        room = max(0, shutil.disk_usage(place).free - left)
        for size in [65536] * (room // 65536) + [4096] * (room % 65536 // 4096):
            file.write(b"\0" * size)
    return path


@pytest.mark.slow
@pytest.mark.timeout(3000)
def test_every_stage_says_that_the_disk_is_full_and_goes_on_when_it_is_not(
    tmp_path: Path, small_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(design, "datetime", OneMoment)
    whole, project = make_tiny(tmp_path / "whole"), make_tiny(small_disk / "film")
    assert code_of("run", "-C", str(whole)) == 0
    user = tree(project, "work")
    for name in STAGES:
        for left in (0, 20_000):  # nothing at all, and too little for what is to be written
            ballast = fill(small_disk, left=left)
            code = code_of(name, "-C", str(project))
            ballast.unlink()
            assert code in (0, 3), (name, left, code)
            assert code == 3 or left, f"{name} wrote nothing and said it was done"
            assert not list(project.rglob(".partial-*")), (name, left)
        assert code_of(name, "-C", str(project)) == 0, name
    kept = tree(project, "work", "deliveries", "report")
    assert kept == {name: digest for name, digest in user.items() if not name.startswith(("deliveries", "report"))}
    assert {name for name in STAGES if outputs(project)[name] != outputs(whole)[name]} <= {"report"}
    assert page(project) == page(whole)
