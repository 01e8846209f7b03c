"""One script for a rented card, in parts that each end within nine minutes and can be run on their own.

    python tools/gpu/run.py install --wheels DIR    into the environment it runs in, from carried wheels, no network
    python tools/gpu/run.py demo                    `cinetune demo` on the card, its scores held against the CPU's
    python tools/gpu/run.py tests                   pytest -m gpu
    python tools/gpu/run.py bench                   the rows of benchmarks/card.py at 14B's size, one call for each
    python tools/gpu/run.py demo tests bench --dry-run      the same commands at small sizes on the CPU

Every part writes to --out as it goes: its output to `<part>.log`, one line to `parts.jsonl` when it ends (or is ended).
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
LIMIT = 530
"""Seconds a part may take."""
CARD = [sys.executable, str(ROOT / "benchmarks" / "card.py")]
SMALL = {
    "model.device": "cpu", "train.steps": 2, "train.validate_every": 2, "train.validation_steps": 1,
    "train.validation_seeds": 1, "train.validation_windows": 1,
    "train.validation_shots": 1, "train.augment.variants": 1, "shoot.steps": 1,
    "shoot.segment_frames": 9, "deliver.formats": '["png16"]',
}  # fmt: skip
"""The demo of a dry run: every stage, as little of each as there can be."""
ROWS = {
    "forward-480": ["--full", "--size", "480x832", "--kinds", "forward"],
    "forward-720": ["--full", "--size", "720x1280", "--kinds", "forward"],
    "step-480": ["--full", "--size", "480x832", "--kinds", "step"],
    "step-720": ["--full", "--size", "720x1280", "--kinds", "step", "--rounds", "1"],
}


def commands(part: str, out: Path, wheels: Path | None, *, dry: bool) -> list[tuple[str, list[str]]]:
    """What a part runs, in order: names and commands."""
    python, cinetune = sys.executable, [sys.executable, "-m", "cinetune"]
    match part:
        case "install":
            found = sorted(str(path) for path in wheels.glob("*.whl")) if wheels else []
            if not found:
                raise SystemExit("install needs --wheels with a folder of wheels in it")
            install = [python, "-m", "pip", "install", "--no-deps", "--no-index"]
            return [("wheels", [*install, *found]), ("cinetune", [*install, "-e", str(ROOT)]),
                    ("doctor", [*cinetune, "doctor"])]  # fmt: skip
        case "demo":
            film, scores = out / "film", out / "scores.csv"
            small = [word for key, value in SMALL.items() for word in ("--set", f"{key}={value}")] if dry else []
            shell = f'{python} -m cinetune report --format csv -C "{film}" > "{scores}"'
            held = [python, str(ROOT / "tools" / "gpu" / "compare.py"), str(scores)]
            made = [("demo", [*cinetune, "demo", str(film), *small]), ("scores", ["bash", "-c", shell])]
            if dry:  # a demo of two steps has other scores: it is held against itself
                own = str(out / "reference.csv")
                return [*made, ("reference", [*held, "--write", own]), ("compare", [*held, "--reference", own])]
            return [*made, ("compare", held)]
        case "tests":
            chosen = ["--collect-only", "-q"] if dry else ["-q", "--timeout", "300"]
            return [("gpu", [python, "-m", "pytest", "-m", "gpu", str(ROOT / "tests" / "gpu"), *chosen])]
        case _:
            if dry:
                small = ["--kinds", "forward", "--eager", "--rounds", "1", "--repeats", "1"]
                return [("small", [*CARD, *small, "--out", str(out / "small.json")])]
            return [(name, [*CARD, *row, "--out", str(out / f"{name}.json")]) for name, row in ROWS.items()]


def run(part: str, out: Path, wheels: Path | None, *, dry: bool, limit: float) -> bool:
    """Run a part within its limit; what it said and how it ended is in `out` whatever happens."""
    started, ok = time.monotonic(), True
    with (out / f"{part}.log").open("a", encoding="utf-8") as log:
        for name, command in commands(part, out, wheels, dry=dry):
            left = limit - (time.monotonic() - started)
            began = time.monotonic()
            try:
                done = subprocess.run(
                    command, stdout=log, stderr=subprocess.STDOUT, timeout=max(1.0, left), check=False, cwd=ROOT,
                    env=os.environ | {"PYTHONUNBUFFERED": "1"},
                ).returncode  # fmt: skip
            except subprocess.TimeoutExpired:
                done = 124
            line = {"part": part, "name": name, "code": done, "seconds": round(time.monotonic() - began, 1), "dry": dry}
            with (out / "parts.jsonl").open("a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")
            print(json.dumps(line), flush=True)
            ok = ok and done == 0
    return ok


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="+", choices=("install", "demo", "tests", "bench"))
    parser.add_argument("--out", type=Path, default=Path(os.environ.get("OUT", "build/gpu")))
    parser.add_argument("--wheels", type=Path)
    parser.add_argument("--dry-run", action="store_true", help="small sizes, on the CPU")
    parser.add_argument("--limit", type=float, default=LIMIT, help="seconds for each part")
    asked = parser.parse_args()
    asked.out.mkdir(parents=True, exist_ok=True)
    ended = [run(one, asked.out, asked.wheels, dry=asked.dry_run, limit=asked.limit) for one in asked.parts]
    raise SystemExit(0 if all(ended) else 1)


if __name__ == "__main__":
    main()
