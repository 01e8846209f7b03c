"""kill -9 at 24 random points, over every stage, `sweep`, `export` and `new --from`: the same bytes in the end, nothing
left over, nothing of others touched.
"""

from __future__ import annotations

import datetime
import hashlib
import json
import os
import random
import re
import signal
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest

from cinetune.cli import main
from cinetune.durable import PARTIAL
from cinetune.metrics import design
from e2e.mini import make_tiny

STAGES = ("ingest", "prepare", "cache", "train", "keyframes", "expand", "deliver", "score", "report")
KILLS_EACH = 2
SWEEP = ("sweep", "--rank", "1,2", "--lr", "1e-3")


def start(*words: str) -> int:
    """The command line in a forked process: what is imported here need not be there again."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.12 warns of any fork beside threads
        child = os.fork()
    if child == 0:
        try:
            os.setsid()
            with Path(os.devnull).open("w") as nowhere:
                os.dup2(nowhere.fileno(), 1)
                os._exit(main(list(words)))
        finally:
            os._exit(99)
    return child


def finish(*words: str) -> float:
    began = time.monotonic()
    assert os.waitstatus_to_exitcode(os.waitpid(start(*words), 0)[1]) == 0, words
    return time.monotonic() - began


def killed(chance: random.Random, span: float, begun: Callable[[], bool], *words: str) -> bool:
    """Start a command, wait until `begun`, and kill it at a random point of the `span` seconds after. Whether it was
    still running."""
    child = start(*words)
    while not begun():
        if os.waitpid(child, os.WNOHANG)[0]:
            return False
        time.sleep(0.005)
    time.sleep(chance.random() * span)
    if os.waitpid(child, os.WNOHANG)[0]:
        return False
    try:
        os.killpg(child, signal.SIGKILL)
    except ProcessLookupError:  # killed before it led a group of its own
        os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return True


def tree(root: Path, *but: str) -> dict[str, str]:
    """sha256 of every file below, but those in folders called `but`."""
    return {
        path.relative_to(root).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(root.rglob("*"))
        if path.is_file() and not set(but) & set(path.relative_to(root).parts)
    }


def outputs(root: Path) -> dict[str, str]:
    return {name: json.loads((root / f"work/stages/{name}.json").read_text())["output_sha"] for name in STAGES}


def page(root: Path) -> str:
    """The report without the times and the seconds of each stage, which it tells in its table of provenance."""
    text = (root / "report" / "index.html").read_text(encoding="utf-8")
    return re.sub(r">(20\d\d-\d\d-\d\dT[\d:+]+|\d+\.\d)</td>", "></td>", text)


def spans(root: Path) -> dict[str, float]:
    """How long each stage took."""
    records = {name: json.loads((root / f"work/stages/{name}.json").read_text()) for name in STAGES}
    return {name: record["provenance"]["wall_seconds"] for name, record in records.items()}


def plant(*folders: Path) -> list[Path]:
    """What other programs keep under names like ours."""
    made: list[Path] = []
    for folder in folders:
        made += [folder / f"{PARTIAL}download" / "film.mp4", folder / f"{PARTIAL}theirs.tmp"]
        for path in made[-2:]:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(b"of another program")
    return made


class OneMoment(datetime.datetime):
    """A clock that stands: the day on which a project's claims were declared is part of its scores."""

    @classmethod
    def now(cls, tz: datetime.tzinfo | None = None) -> datetime.datetime:
        return datetime.datetime(2026, 1, 1, tzinfo=tz)


@pytest.mark.slow
@pytest.mark.timeout(3000)
def test_kills_everywhere_change_no_byte(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(design, "datetime", OneMoment)
    whole, broken, outside = make_tiny(tmp_path / "whole"), make_tiny(tmp_path / "broken"), tmp_path / "outside"
    outside.mkdir()
    mine = plant(broken / "deliveries", broken / "footage", broken / "report", outside)
    before, chance, hits = tree(broken, "work"), random.Random(24), 0
    finish("run", "-C", str(whole))
    took = spans(whole)
    for place, name in enumerate(STAGES):
        before_it = broken / "work" / "stages" / f"{STAGES[place - 1]}.json" if place else broken
        for _ in range(KILLS_EACH):
            hits += killed(chance, took[name], before_it.exists, "run", "--until", name, "-C", str(broken))
    finish("run", "-C", str(broken))

    for words in (
        SWEEP,
        ("export", str(outside / "ds"), "--to", "dataset"),
        ("report", "--vbench", str(outside / "vbench")),
        ("new", str(outside / "next"), "--from", str(outside / "d.toml")),
    ):
        where = () if words[0] == "new" else ("-C", str(broken))
        if words[0] == "new":
            text = '[[datasets]]\nvideo_directory = "{}"\ntarget_frames = [5]\n'.format(whole / "footage")
            (outside / "d.toml").write_text(text, encoding="utf-8")
            elsewhere = [("new", str(tmp_path / "next"), "--from", str(outside / "d.toml"))]
        elif words[0] == "export":
            elsewhere = [("export", str(tmp_path / "ds"), "--to", "dataset", "-C", str(whole))]
        elif words[0] == "report":
            elsewhere = [("report", "--vbench", str(tmp_path / "vbench"), "-C", str(whole))]
        else:
            elsewhere = [(*words, "-C", str(whole))]
        span = finish(*elsewhere[0])
        for _ in range(KILLS_EACH):
            hits += killed(chance, span, lambda: True, *words, *where)
        whole_or_not = {"export": outside / "ds", "report": outside / "vbench"}.get(words[0])
        if whole_or_not is None or not whole_or_not.exists():
            finish(*words, *where)
    assert hits >= 15, "most kills came too late"

    assert all(path.read_bytes() == b"of another program" for path in mine)
    for path in mine:
        path.unlink()
        if path.parent.name.startswith(PARTIAL):
            path.parent.rmdir()
    assert not list(tmp_path.rglob(f"{PARTIAL}*"))
    after = tree(broken, "work")
    assert {name: after.get(name) for name in before if PARTIAL not in name} == {
        name: digest for name, digest in before.items() if PARTIAL not in name
    }
    ours, theirs = outputs(broken), outputs(whole)
    assert {name for name in STAGES if ours[name] != theirs[name]} <= {"report"}
    assert page(broken) == page(whole)
    films = [tree(root / "deliveries") for root in (broken, whole)]  # the notes beside them hold the time of each run
    assert films[0].keys() == films[1].keys()
    assert {name for name in films[0] if not name.endswith(".json") and films[0][name] != films[1][name]} == set()
    assert tree(tmp_path / "ds") == tree(outside / "ds")
    assert tree(tmp_path / "vbench") == tree(outside / "vbench")
    assert tree(tmp_path / "next", "footage") == tree(outside / "next", "footage")
