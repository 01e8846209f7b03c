"""What `cinetune ingest` makes of the torture reel, as the Markdown table of docs/torture.md.

python benchmarks/torture_table.py [folder]
"""

from __future__ import annotations

import sys
import tempfile
from dataclasses import fields
from pathlib import Path

from cinetune.runtime import Quiet
from cinetune.stages import ingest
from cinetune.store import Project

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
from reels.torture import SETTINGS, Truth, agrees, found, shoot_torture


def _words(truth: Truth) -> str:
    """What a truth says, in one cell."""
    said: list[str] = []
    for field in fields(Truth):
        value = getattr(truth, field.name)
        if field.name == "shots" and value is not None:
            value = " ".join(f"{start}..{end - 1}" for start, end in value)
        if value is not None:
            said.append(f"{field.name} {value}".replace("|", "/"))
    return "; ".join(said)


def table(root: Path) -> str:
    """Shoot the reel into `root`, ingest it, and say row by row whether ingest is right."""
    traps = shoot_torture(root / "footage")
    (root / "cinetune.toml").write_text(SETTINGS, encoding="utf-8")
    groups = ingest.run(Project(root), Quiet()).groups
    rejected = {Path(row.path).name: row for row in groups["rejected"]}
    clips = {Path(clip.path).name: clip for clip in groups["clips"]}
    rows = ["| trap | what is true | what ingest says | right? |", "|---|---|---|---|"]
    for trap in traps:
        clip = clips.get(trap.file)
        shots = [shot for shot in groups["shots"] if clip and shot.clip == clip.id]
        said = found(trap.truth, clip, shots, rejected.get(trap.file))
        verdict = "yes" if agrees(trap.truth, said) else "**no**"
        rows.append(f"| {trap.trap} | {_words(trap.truth)} | {_words(said)} | {verdict} |")
    return "\n".join(rows)


def main() -> None:
    if len(sys.argv) > 1:
        print(table(Path(sys.argv[1])))
        return
    with tempfile.TemporaryDirectory() as folder:
        print(table(Path(folder)))


if __name__ == "__main__":
    main()
