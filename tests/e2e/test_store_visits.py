"""How often the way of one window (file to gradient) and of one shot (list to delivery) opens the records of the store.

A record is one JSON file: of a finished stage, or of one piece of it. What is counted is every time the store reads or
writes one, in the real `Store`, while the whole story runs on the smallest film.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from cinetune.pipeline import run
from cinetune.runtime import Quiet
from cinetune.store import Project, Store
from e2e.mini import make_tiny

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
STAGES = ("ingest", "prepare", "cache", "train", "keyframes", "expand", "deliver")
LEAST = ("keyframes.method=as-is", "train.steps=1", "train.validate_every=1", "shoot.workers=1")


@pytest.fixture(scope="module")
def visits(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Counter[tuple[str, str]]]:
    """By stage that was running: how often each record was read or written."""
    root = make_tiny(tmp_path_factory.mktemp("visits") / "film")
    shots = (root / "shots.toml").read_text(encoding="utf-8")
    (root / "shots.toml").write_text("[[shot]]" + shots.split("[[shot]]")[1], encoding="utf-8")
    counts: dict[str, Counter[tuple[str, str]]] = {}
    read_bytes, write_text = Path.read_bytes, Store.write_text

    def seen(kind: str, path: Path) -> None:
        if path.suffix == ".json" and path.parts[len(root.parts) : len(root.parts) + 2] in (
            ("work", "stages"), ("work", "units"),
        ):  # fmt: skip
            counts[running][kind, path.relative_to(root / "work").as_posix()] += 1

    def reading(path: Path) -> bytes:
        seen("read", path)
        return read_bytes(path)

    def writing(store: Store, path: Path, text: str) -> None:
        seen("write", path)
        write_text(store, path, text)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(Path, "read_bytes", reading)
        patched.setattr(Store, "write_text", writing)
        for running in STAGES:
            counts[running] = Counter()
            run(Project(root, overrides=LEAST), Quiet(), only=running)
    return counts


def test_a_stage_opens_the_record_of_each_stage_before_it_once(visits: dict[str, Counter[tuple[str, str]]]) -> None:
    often = {
        (stage, *what): count
        for stage, seen in visits.items()
        for what, count in seen.items()
        if what[1].startswith("stages/") and count > 1
    }
    assert often == {}


@pytest.mark.parametrize("stage", ["cache", "train", "keyframes", "expand"])
def test_a_piece_is_written_once_and_read_once_at_most(visits: dict[str, Counter[tuple[str, str]]], stage: str) -> None:
    pieces = {what: count for what, count in visits[stage].items() if what[1].startswith(f"units/{stage}/")}
    written = {name for kind, name in pieces if kind == "write"}
    assert written == {name for _, name in pieces} and set(pieces.values()) == {1}
