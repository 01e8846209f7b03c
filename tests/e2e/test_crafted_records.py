"""Records of a project from elsewhere, changed and sealed again by hand: read or refused in words, never a crash."""

from __future__ import annotations

import random
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cinetune.cli import main
from cinetune.errors import StoreError
from cinetune.records import sealed, unsealed
from cinetune.results import Ingested
from cinetune.store import Project, _output_sha

ODD: tuple[Any, ...] = (
    None, -1, 0, 10**9, 10**30, 1e300, True, "", "../../../etc/passwd", "x" * 5000, "a\0b", "\x1b]0;x\x07", [], {},
    [[]], {"a": 1}, "1/0", "0/1", "-24/1", "99999999999999999999/1", "nan",
)  # fmt: skip


def places(node: Any, before: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    pairs = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for key, value in pairs:
        yield (*before, key)
        yield from places(value, (*before, key))


def craft(path: Path, change: Any) -> None:
    body = unsealed(path.read_bytes(), where="")
    assert body is not None
    change(body["groups"])
    body["output_sha"] = _output_sha(body["groups"])
    path.write_text(sealed(body), encoding="utf-8")


@pytest.mark.timeout(120)
@pytest.mark.parametrize(
    ("stage", "verb"), [("ingest", "status"), ("ingest", "prepare"), ("prepare", "status"), ("prepare", "plan")]
)
def test_a_crafted_record_is_read_or_refused(
    prepared: Path, tmp_path: Path, stage: str, verb: str, capsys: pytest.CaptureFixture[str]
) -> None:
    root, chance = tmp_path / "film", random.Random(f"{stage} {verb} 11")
    shutil.copytree(prepared, root)
    record = root / f"work/stages/{stage}.json"
    whole = record.read_bytes()
    for _ in range(24):
        record.write_bytes(whole)

        def spoil(groups: Any) -> None:
            *way, last = chance.choice(list(places(groups)))
            for key in way:
                groups = groups[key]
            groups[last] = chance.choice(ODD)

        craft(record, spoil)
        code = main([verb, "-C", str(root), *(["--again"] if verb == "prepare" else [])])
        said = capsys.readouterr()
        assert code in (0, 2, 3), said.err
        assert "\x1b" not in said.out + said.err


def test_a_shot_of_a_clip_that_is_not_there_is_refused(prepared: Path, tmp_path: Path) -> None:
    root = tmp_path / "film"
    shutil.copytree(prepared, root)

    def rename(groups: Any) -> None:
        groups["shots"]["items"][2]["clip"] = "nobody"

    craft(root / "work/stages/ingest.json", rename)
    with pytest.raises(StoreError, match="none is called 'nobody'"):
        Project(root).store.need(Ingested)
