"""The benchmark: turns are taken, outputs compared, operations counted, and rows of other work stay in its file."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))
import table as bench


def row(kind: str, who: str) -> bench.Row:
    return bench.Row(kind=kind, who=who, model="none", frames=1, size=(8, 8), settings="test")


def test_contestants_take_turns_and_are_held_to_the_first() -> None:
    turns: list[str] = []
    weight = torch.ones(16, 4)

    def work(who: str, scale: float) -> torch.Tensor:
        turns.append(who)
        return torch.ones(8, 16) @ weight * scale

    rows = [row("forward", who) for who in ("stock", "ours")]
    bench.compete(
        rows,
        [
            bench.Contestant(who=one.who, run=lambda w=one.who, s=s: work(w, s))
            for one, s in zip(rows, (1, 1.01), strict=True)
        ],
        3,
    )
    assert turns == ["stock", "ours", *["stock", "ours"] * 3]
    assert [one.operations for one in rows] == [2 * 8 * 16 * 4] * 2
    assert rows[0].ratio == [1, 1, 1] and rows[1].ratio == [
        b / a for a, b in zip(rows[0].seconds, rows[1].seconds, strict=True)
    ]
    assert rows[0].error == 0 and rows[1].error == pytest.approx(0.01, rel=1e-3)
    printed = bench.table(rows).splitlines()
    assert len(printed) == 4 and "reference" in printed[2] and "1e-02 off" in printed[3]


def test_rows_of_other_work_stay_in_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench, "ROOT", tmp_path)
    for folder in ("benchmarks", "docs/images"):
        (tmp_path / folder).mkdir(parents=True)

    def timed(kind: str, seconds: float, settings: str = "test", frames: int = 33) -> bench.Row:
        made = row(kind, "ours")
        made.seconds, made.ratio, made.settings, made.frames = [seconds], [1.0], settings, frames
        return made

    wide = [timed("forward", number, bench.SCALING, frames) for number, frames in ((1, 17), (2, 33))]
    bench.write([timed("decode", 1), timed("forward", 2), *wide], 1)
    bench.write([timed("decode", 3)], 1)
    kept = json.loads((tmp_path / "benchmarks/results/cpu.json").read_text())["rows"]
    assert [(one["kind"], one["seconds"]) for one in kept if one["settings"] == "test"] == [
        ("forward", [2]),
        ("decode", [3]),
    ]
    assert len(kept) == 4
    page = (tmp_path / "docs/benchmarks.md").read_text()
    assert page.index("| forward | ours |") < page.index("| decode | ours |")
    assert "<polyline" in (tmp_path / "docs/images/benchmark-scaling.svg").read_text()
