"""`cinetune train` as a person types it: forced on after a kill, watched over HTTP, started from an adapter."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import time
import urllib.error
import urllib.request
import warnings
from contextlib import redirect_stdout
from dataclasses import replace
from pathlib import Path

import pytest

from cinetune.artifacts import Look
from cinetune.cli import main
from cinetune.models.adapters.export import read_adapter
from cinetune.runtime import Quiet
from cinetune.stages import cache
from cinetune.store import Project
from small_project import make_project, provenance_of

SETTINGS = {
    "train.steps": "3", "train.batch": "1", "train.accumulate": "1", "train.rank": "2", "train.alpha": "2",
    "train.lr": "0.01", "train.validate_every": "3", "train.validation_steps": "1", "train.validation_seeds": "1",
    "train.checkpoint_every": "1",
}  # fmt: skip


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three cached windows, one of them held out; `start.safetensors` is an adapter that does something."""
    root = make_project(tmp_path_factory.mktemp("verb") / "p", film=3)
    project = Project(root)
    look = project.store.need_stage("train").groups["looks"][0]
    shutil.copy(project.store.path(look.weights), root / "start.safetensors")
    (root / "work" / "stages" / "train.json").unlink()
    windows = project.store.need_stage("prepare").groups["windows"]
    windows = [*windows[:2], replace(windows[2], split="held")]
    project.store.save_stage("prepare", "test", {"windows": windows}, made=provenance_of())
    cache.run(project, Quiet())
    return root


@pytest.fixture
def root(template: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(template, tmp_path / "p"))


def words(root: Path, *more: str, **settings: str) -> list[str]:
    """The command; a setting is written `train__lr="0.1"` here."""
    asked = SETTINGS | {key.replace("__", "."): value for key, value in settings.items()}
    return ["train", "-C", str(root), *more, *(w for key, value in asked.items() for w in ("--set", f"{key}={value}"))]


def begin(command: list[str], out: Path) -> int:
    """The command in a process of its own, which says into the file `out`."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.12 warns of any fork beside threads
        child = os.fork()
    if child == 0:
        try:
            with out.open("w") as file, redirect_stdout(file):
                os._exit(main(command))
        finally:
            os._exit(1)
    return child


def log_of(root: Path) -> list[dict]:
    path = root / "work" / "train" / "look" / "log.jsonl"
    text = path.read_text(encoding="utf-8") if path.is_file() else ""
    return [json.loads(line) for line in text.splitlines() if line.endswith("}")]


def look_of(root: Path) -> Look:
    return Project(root).store.need_stage("train").groups["looks"][0]


def test_a_killed_run_of_another_recipe_goes_on_when_forced(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    child = begin(words(root, train__steps="500"), tmp_path / "out.txt")
    until = time.monotonic() + 60
    while sum(line["kind"] == "step" for line in log_of(root)) < 2:
        assert os.waitpid(child, os.WNOHANG)[0] == 0 and time.monotonic() < until, (tmp_path / "out.txt").read_text()
        time.sleep(0.01)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)

    assert main(words(root, train__lr="0.02")) == 3
    err = capsys.readouterr().err
    assert "recipe: lr 0.01 -> 0.02" in err and "recipe: steps 500 -> 3" in err
    assert "go on all the same with `cinetune train --force`" in err and "Traceback" not in err
    assert not any(line["kind"] == "forced" for line in log_of(root))

    assert main(words(root, "--force", train__lr="0.02")) == 0
    out = capsys.readouterr().out
    assert re.search(r"look: going on from step [1-9]", out)
    assert "forced at step" in out and "recipe: lr 0.01 -> 0.02" in out
    assert any(line.endswith("recipe: lr 0.01 -> 0.02") for line in look_of(root).forced)
    (forced,) = [line for line in log_of(root) if line["kind"] == "forced"]
    assert "recipe: steps 500 -> 3" in forced["changes"]
    # it had gone further than it is now asked to: it ends with the next step
    assert log_of(root)[-1]["kind"] == "end" and log_of(root)[-1]["step"] == max(3, forced["step"] + 1)


def test_a_watched_run_serves_its_page_until_it_ends(root: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.txt"
    child = begin(words(root, "--watch", train__steps="12", train__validate_every="3"), out)
    until, pages, gone = time.monotonic() + 90, [], False
    while not gone:
        assert time.monotonic() < until, "the page outlives the run"
        time.sleep(0.05)
        address = re.search(r"watch  (http://127\.0\.0\.1:\d+/)", out.read_text() if out.is_file() else "")
        if address is None:
            continue
        try:
            with urllib.request.urlopen(address[1], timeout=10) as answer:
                pages.append(answer.read().decode())
        except (urllib.error.URLError, ConnectionError):
            gone = True
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0, out.read_text()
    steps = [int(found[1]) for page in pages if (found := re.search(r">step (\d+) of 12<", page))]
    assert steps == sorted(steps) and len(set(steps)) > 2, "it did not grow"
    assert 'data-ended="0"' in pages[0] and 'data-ended="1"' in pages[-1]
    assert (root / "work" / "train" / "index.html").read_text().count('data-ended="1"') == 1
    assert look_of(root).stopped == "reached 12 steps"


def test_training_starts_from_the_adapter_it_is_given(
    root: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(root)  # on the command line a path is relative to where one stands
    assert main(words(Path(), "--init-from", "gone.safetensors")) != 0
    err = capsys.readouterr().err
    assert "no such adapter file" in err and "Traceback" not in err
    assert main(words(Path(), "--init-from", "start.safetensors")) == 0
    assert "look starts from start.safetensors" in capsys.readouterr().out
    first = next(line for line in log_of(root) if line["kind"] == "evaluation")
    tensors = read_adapter(root / "start.safetensors").values()
    length = sum(float(tensor.double().square().sum()) for tensor in tensors) ** 0.5
    assert first["step"] == 0 and first["adapter_norm"] == pytest.approx(length, rel=1e-6)
    assert first["effect"] > 0
