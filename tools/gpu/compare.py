"""The scores of a demo made on a card against those of the CPU.

    cinetune report --format csv -C film > scores.csv
    python tools/gpu/compare.py scores.csv                          against tools/gpu/demo-cpu.csv; exit 1 if one is off
    python tools/gpu/compare.py scores.csv --write tools/gpu/demo-cpu.csv       on the CPU: what others are held to

Kernels round otherwise on a card, and a hundred and fifty training steps make something of it, so the numbers are not
equal. An effect is as it should be when it lies within a quarter of the width of the CPU's 95 % interval from the
CPU's value: then it says the same about the film. One without an interval may be 2 % off.
"""

from __future__ import annotations

import argparse
import csv
import math
import sys
from pathlib import Path

REFERENCE = Path(__file__).with_name("demo-cpu.csv")
COLUMNS = ("arm", "versus", "domain", "metric", "value", "low", "high")
SHARE, RELATIVE = 0.25, 0.02
Key = tuple[str, ...]
Row = dict[str, str]


def read(path: Path) -> dict[Key, Row]:
    """The look against the base: by domain and measure."""
    with path.open(newline="", encoding="utf-8") as file:
        rows = [{name: row[name] for name in COLUMNS} for row in csv.DictReader(file)]
    return {tuple(row[name] for name in COLUMNS[:4]): row for row in rows
            if (row["arm"], row["versus"]) == ("look", "base")}  # fmt: skip


def off(row: Row, reference: Row) -> str:
    """What is wrong with an effect; empty when nothing is."""
    if not row["value"] or not reference["value"]:
        return "" if row["value"] == reference["value"] else "measured on one side only"
    here, there = float(row["value"]), float(reference["value"])
    wide = float(reference["high"]) - float(reference["low"]) if reference["low"] and reference["high"] else 0.0
    allowed = SHARE * wide if wide else RELATIVE * abs(there)
    distance = abs(here - there)
    if math.isfinite(distance) and distance <= allowed + 1e-9:
        return ""
    return f"{here:.4g} here, {there:.4g} on the CPU: {distance:.2g} apart, {allowed:.2g} allowed"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scores", type=Path)
    parser.add_argument("--reference", type=Path, default=REFERENCE)
    parser.add_argument("--write", type=Path, metavar="FILE", help="make these the reference")
    asked = parser.parse_args()
    found = read(asked.scores)
    if asked.write:
        with asked.write.open("w", newline="", encoding="utf-8") as file:
            writer: csv.DictWriter[str] = csv.DictWriter(file, COLUMNS, lineterminator="\n")
            writer.writeheader()
            writer.writerows(found.values())
        return
    known = read(asked.reference)
    wrong = dict.fromkeys(known.keys() - found.keys(), "not measured here")
    wrong |= {key: why for key in known.keys() & found.keys() if (why := off(found[key], known[key]))}
    for key, why in sorted(wrong.items()):
        print(" ".join(key), "-", why)
    print(f"{len(known) - len(wrong)} of {len(known)} effects as on the CPU")
    sys.exit(1 if wrong or not known else 0)


if __name__ == "__main__":
    main()
