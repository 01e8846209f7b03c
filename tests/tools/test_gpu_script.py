"""The script for a rented card, dry-run: what it would start starts, and says how it ended."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "tools" / "gpu" / "run.py"


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_every_part_starts_at_small_sizes(tmp_path: Path) -> None:
    command = [sys.executable, str(SCRIPT), "demo", "tests", "bench", "--dry-run", "--out", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=550)
    lines = [json.loads(line) for line in (tmp_path / "parts.jsonl").read_text().splitlines()]
    assert [(line["part"], line["code"]) for line in lines] == [("demo", 0), ("tests", 0), ("bench", 0)], done.stdout
    assert done.returncode == 0
    collected = (tmp_path / "tests.log").read_text()
    assert "test_a_shot_is_the_cpus" in collected and "error" not in collected.lower()
    rows = json.loads((tmp_path / "small.json").read_text())["rows"]
    assert all(row["cosine"] > 0.99999 and row["seconds"] for row in rows)


def test_a_part_that_takes_too_long_is_ended_and_said(tmp_path: Path) -> None:
    command = [sys.executable, str(SCRIPT), "bench", "--dry-run", "--out", str(tmp_path), "--limit", "1"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    (line,) = (json.loads(line) for line in (tmp_path / "parts.jsonl").read_text().splitlines())
    assert (line["code"], done.returncode) == (124, 1)
