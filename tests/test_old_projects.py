"""A project that an earlier version worked on is refused with the way out, and nothing in it is touched."""

from __future__ import annotations

import shutil
import tarfile
from pathlib import Path

import pytest

from cinetune.cli import main
from cinetune.errors import StoreError
from cinetune.models.adapters.export import read_adapter
from cinetune.models.files.weights import adapter_sha256
from cinetune.pipeline import run, status
from cinetune.results import Trained
from cinetune.runtime import Quiet
from cinetune.store import Project

MADE = Path(__file__).parent / "golden" / "project_schema_1.tar.gz"
"""Ingested to cached and shot to keyframes by the last version with records of schema 1 (commit 9f605d4): its own
`tests/small_project.py`, then `keyframes` and `cache`; of the objects only the look's adapter."""


@pytest.fixture
def old(tmp_path: Path) -> Project:
    with tarfile.open(MADE) as archive:
        archive.extractall(tmp_path, filter="data")
    return Project(tmp_path / "film")


def files(project: Project) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in project.root.rglob("*") if path.is_file() and path.name != "lock"}


def test_it_is_refused_and_left_as_it_was(old: Project, capsys: pytest.CaptureFixture[str]) -> None:
    before = files(old)
    with pytest.raises(StoreError, match="another version of cinetune worked on this project") as caught:
        run(old, Quiet())
    assert "move the folder `work` aside" in caught.value.remedy and "train.init_from" in caught.value.remedy
    with pytest.raises(StoreError, match="another version"):
        old.store.need(Trained)
    assert {row.state for row in status(old)} <= {"blocked", "missing"}
    assert main(["run", "-C", str(old.root)]) == 3
    assert "Traceback" not in capsys.readouterr().err
    assert files(old) == before


def test_the_way_out_leads_out(old: Project) -> None:
    look = next((old.root / "work" / "objects").rglob("*.safetensors"))
    shutil.move(old.root / "work", old.root / "work-old")
    moved = old.root / "work-old" / look.relative_to(old.root / "work")
    again = Project(old.root, overrides=(f"train.init_from={moved.relative_to(old.root)}",))
    assert {row.state for row in status(again)} == {"missing"}
    again.store.check_version()
    assert read_adapter(moved) and len(adapter_sha256(moved)) == 64
