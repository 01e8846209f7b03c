"""The torture reel: what `ingest` makes of every trap, row by row; what it gets wrong is listed with the reason."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from importlib.util import find_spec
from pathlib import Path

import pytest

from cinetune.artifacts import Rejected
from cinetune.footage.video import read_clip
from cinetune.runtime import Quiet
from cinetune.stages import ingest
from cinetune.store import Project
from reels.torture import SETTINGS, TRAPS, Truth, agrees, found, shoot_torture

WRONG: dict[str, str] = {}
NEEDS = {"hdr.mp4": "PyOpenColorIO"}


@pytest.fixture(scope="module")
def reel(tmp_path_factory):
    root = tmp_path_factory.mktemp("torture")
    shoot_torture(root / "footage")
    (root / "cinetune.toml").write_text(SETTINGS, encoding="utf-8")
    groups = ingest.run(Project(root), Quiet()).groups
    clips = {Path(clip.path).name: clip for clip in groups["clips"]}
    return root, clips, groups["shots"], {Path(row.path).name: row for row in groups["rejected"]}


def rows():
    for trap in TRAPS:
        marks = [pytest.mark.xfail(strict=True, reason=WRONG[trap.file])] if trap.file in WRONG else []
        if trap.file in NEEDS and find_spec(NEEDS[trap.file]) is None:
            marks.append(pytest.mark.skip(reason=f"{NEEDS[trap.file]} is not installed"))
        yield pytest.param(trap, id=trap.file, marks=marks)


@pytest.mark.parametrize("trap", list(rows()))
def test_ingest_finds_what_is_true(reel, trap):
    _, clips, shots, rejected = reel
    clip = clips.get(trap.file)
    mine = [shot for shot in shots if clip and shot.clip == clip.id]
    said = found(trap.truth, clip, mine, rejected.get(trap.file))
    assert agrees(trap.truth, said), f"true: {trap.truth}\nsaid: {said}"


def test_every_file_has_one_row_and_one_verdict(reel):
    _, clips, _, rejected = reel
    names = [trap.file for trap in TRAPS]
    assert len(set(names)) == len(names) and set(WRONG) <= set(names)
    assert sorted([*clips, *rejected]) == sorted(names)


def test_the_page_has_every_row_and_owns_up_to_the_wrong_ones():
    page = (Path(__file__).parents[2] / "docs" / "torture.md").read_text(encoding="utf-8")
    for trap in TRAPS:
        (row,) = [line for line in page.splitlines() if line.startswith(f"| {trap.trap} |")]
        assert row.endswith("| **no** |" if trap.file in WRONG else "| yes |")


def test_the_files_are_the_traps_they_say(reel):
    """Pixels of a few: alpha covers the left half only, a turned picture stands, woven lines are whole again."""
    root, clips, _, _ = reel
    alpha = read_clip(root, clips["alpha.mov"], [4])[0]
    assert alpha[:, 36:].max() < 0.01 and alpha[:, :28].mean() > 0.1
    assert read_clip(root, clips["turned_90.mov"], [0]).shape == (1, 64, 48, 3)
    scan = read_clip(root, clips["scan.%04d.png"], [14, 15, 18])
    assert scan[1].max() == 0 and scan[0].max() > 0.1 and scan[2].max() > 0.1


def test_a_wrong_verdict_is_not_agreed_with():
    truth = Truth(rate=Fraction(25), shots=((0, 10),), notes="alpha")
    said = replace(truth, notes="alpha: laid over black")
    assert agrees(truth, said)
    for wrong in (
        replace(said, rate=Fraction(24)),
        replace(said, shots=((0, 11),)),
        replace(said, notes="none"),
        found(truth, None, [], Rejected(path="a", reason="alpha", remedy="")),
    ):
        assert not agrees(truth, wrong)
    refused = found(Truth(refused="empty"), None, [], Rejected(path="a", reason="the file is empty", remedy=""))
    assert agrees(Truth(refused="empty"), refused) and not agrees(Truth(refused="truncated"), refused)
