"""The script for a rented card, dry-run: what it would start starts, and says how it ended."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "tools" / "gpu" / "run.py"


HEAD = "arm,versus,domain,metric,value,low,high"


def compared(folder: Path, here: str, there: str) -> subprocess.CompletedProcess[str]:
    for name, row in (("here.csv", here), ("there.csv", there)):
        (folder / name).write_text(f"{HEAD}\nlook,base,in,lpips,{row}\nplain,base,in,lpips,9,9,9\n")
    command = [sys.executable, str(SCRIPT.with_name("compare.py")), str(folder / "here.csv")]
    return subprocess.run(
        [*command, "--reference", str(folder / "there.csv")], capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize(
    ("here", "there", "code"),
    [
        ("-0.9,-1.5,-0.3", "-1.0,-1.5,-0.5", 0),
        ("-0.7,-1.5,-0.3", "-1.0,-1.5,-0.5", 1),
        ("0.5,,", "0.505,,", 0),
        ("0.5,,", "0.6,,", 1),
        (",,", "0.6,,", 1),
        (",,", ",,", 0),
        ("nan,,", "0.6,,", 1),
    ],
)
def test_an_effect_on_the_card_is_held_to_the_cpus(tmp_path: Path, here: str, there: str, code: int) -> None:
    done = compared(tmp_path, here, there)
    assert done.returncode == code, done.stdout
    assert done.stdout.splitlines()[-1] == f"{1 - code} of 1 effects as on the CPU"


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_every_part_starts_at_small_sizes(tmp_path: Path) -> None:
    command = [sys.executable, str(SCRIPT), "demo", "tests", "bench", "--dry-run", "--out", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=550)
    lines = [json.loads(line) for line in (tmp_path / "parts.jsonl").read_text().splitlines()]
    assert list(dict.fromkeys(line["part"] for line in lines)) == ["demo", "tests", "bench"], done.stdout
    assert not any(line["code"] for line in lines), done.stdout
    assert done.returncode == 0
    collected = (tmp_path / "tests.log").read_text()
    assert (tmp_path / "demo.log").read_text().splitlines()[-1].endswith("effects as on the CPU")
    assert "test_a_shot_is_the_cpus" in collected and "error" not in collected.lower()
    rows = json.loads((tmp_path / "small.json").read_text())["rows"]
    assert all(row["cosine"] > 0.99999 and row["seconds"] for row in rows)


def test_a_part_that_takes_too_long_is_ended_and_said(tmp_path: Path) -> None:
    command = [sys.executable, str(SCRIPT), "bench", "--dry-run", "--out", str(tmp_path), "--limit", "1"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    (line,) = (json.loads(line) for line in (tmp_path / "parts.jsonl").read_text().splitlines())
    assert (line["code"], done.returncode) == (124, 1)
