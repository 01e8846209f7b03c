"""A pipe, a device, a folder, a link to itself or to nothing where a file is expected: a typed error, or read without
it; never a wait, never a crash, and nothing written through a link.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from cinetune.cli import main

KINDS = ("pipe", "device", "folder", "loop", "dangling", "missing")
READ = {
    "cinetune.toml": ("status", "plan"),
    "shots.toml": ("plan", "keyframes"),
    "footage/c0.mp4": ("ingest",),
    "footage/c0.txt": ("prepare",),
    "footage/metadata.jsonl": ("ingest", "prepare"),
    "footage/captions.generated.jsonl": ("prepare",),
    "footage/cut.edl": ("ingest",),
    "references/sh0.png": ("plan", "keyframes"),
    "film.cube": ("ingest",),
    "work/stages/ingest.json": ("status", "prepare"),
    "work/hashes.json": ("ingest", "status"),
    "work/lock": ("ingest",),
}


def put(path: Path, kind: str) -> None:
    path.unlink(missing_ok=True)
    match kind:
        case "pipe":
            os.mkfifo(path)
        case "device":
            path.symlink_to("/dev/zero")
        case "folder":
            path.mkdir()
        case "loop":
            path.symlink_to(path.name)
        case "dangling":
            path.symlink_to("gone")


@pytest.mark.timeout(60)
@pytest.mark.parametrize("name", READ)
def test_what_is_no_file_is_not_waited_for(
    prepared: Path, tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    for kind in KINDS:
        root = tmp_path / kind
        shutil.copytree(prepared, root)
        put(root / name, kind)
        for verb in READ[name]:
            code = main([verb, "-C", str(root)])
            said = capsys.readouterr()
            assert code in (0, 2, 3), (kind, verb, said.err)
            assert "bug in cinetune" not in said.err, (kind, verb, said.err)


@pytest.mark.parametrize("name", ["work", "work/stages", "work/units", "work/objects", "deliveries", "report"])
def test_a_folder_of_the_project_that_is_a_link_elsewhere_is_not_written_through(
    prepared: Path, tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    root, outside = tmp_path / "film", tmp_path / "outside"
    shutil.copytree(prepared, root)
    outside.mkdir()
    (outside / "mine.txt").write_text("precious")
    shutil.rmtree(root / name, ignore_errors=True)
    (root / name).symlink_to(outside)
    assert main(["ingest", "--again", "-C", str(root)]) == 3
    assert "a link leads out of the project folder" in capsys.readouterr().err
    assert [path.name for path in outside.rglob("*")] == ["mine.txt"]
