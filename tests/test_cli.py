"""The command line: what a person sees, exit codes, and never a traceback."""

import json
import re
import socket
import subprocess
import sys
import tempfile
import textwrap
import tomllib
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import pytest

import cinetune
from cinetune import export_look, pipeline
from cinetune.cli import main
from cinetune.cli.common import DOCS, StageName
from cinetune.cli.sharing import ExportTo
from cinetune.config import load_config
from cinetune.shotlist import load_shots
from cinetune.store import Project
from films import write_counted

ROOT = Path(__file__).resolve().parents[1]
VERBS = [
    "ingest", "caption", "prepare", "cache", "train", "sweep", "shots", "keyframes", "expand", "deliver", "score",
    "report", "new", "doctor", "plan", "run", "status", "demo", "export", "weights",
]  # fmt: skip


@pytest.fixture
def film(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    """A project as `cinetune new` makes it."""
    assert main(["new", str(tmp_path / "film")]) == 0
    capsys.readouterr()
    return tmp_path / "film"


def say(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    """Exit code, stdout, stderr of one command."""
    code = main(list(words))
    out, err = capsys.readouterr()
    return code, out, err


def test_help_names_every_verb(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = say(capsys, "--help")
    assert code == 0
    assert [verb for verb in VERBS if f" {verb} " not in out] == []
    assert "study" not in out


def test_it_says_its_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert say(capsys, "--version") == (0, f"cinetune {cinetune.__version__}\n", "")


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_explains_itself(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = say(capsys, verb, "--help")
    assert code == 0
    assert f"Example: cinetune {verb}" in out
    assert f"{DOCS}/{verb}.md" in "".join(out.split())
    assert (ROOT / "docs" / "stages" / f"{verb}.md").is_file()


def test_choices_in_the_help_are_those_of_the_program() -> None:
    assert get_args(StageName) == tuple(stage.name for stage in pipeline.STAGES)
    assert get_args(ExportTo) == (*export_look.TARGETS, "dataset")
    pages = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["urls"]["Documentation"]
    assert f"{pages.rpartition('/')[0]}/stages" == DOCS


def test_new_makes_a_project_that_can_be_read(film: Path) -> None:
    config, origins = load_config(film / "cinetune.toml")
    assert (config.model.family, origins["preset"]) == ("pocket", "cinetune.toml")
    assert load_shots(film / "shots.toml").shots == ()
    assert (film / "footage").is_dir()


def test_the_example_shot_is_right_once_its_marks_are_removed(film: Path) -> None:
    text = (film / "shots.toml").read_text()
    (film / "references" / "sh010.png").write_bytes(b"png")
    example = text[text.index("# [[shot]]") :].replace("\n# ", "\n").removeprefix("# ")
    (film / "shots.toml").write_text(example)
    assert [shot.id for shot in load_shots(film / "shots.toml").shots] == ["sh010"]


def test_new_overwrites_nothing(film: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (film / "cinetune.toml").write_text('name = "mine"\n')
    code, out, _ = say(capsys, "new", str(film))
    assert code == 0
    assert out.count("kept") == 4
    assert (film / "cinetune.toml").read_text() == 'name = "mine"\n'


def test_new_where_a_file_is_in_the_way(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "film").write_text("a file")
    code, _, err = say(capsys, "new", str(tmp_path / "film"))
    assert code == 3
    assert "Traceback" not in err


@pytest.mark.parametrize(
    ("words", "exit_code", "said"),
    [
        (["status", "-C", "nowhere"], 2, "`cinetune new DIR` makes a project"),
        (["shoot"], 2, "shoot"),
        (["train", "--fast"], 2, "--fast"),
        (["train", "--set", "train.lrr=1"], 2, "did you mean 'train.lr'?"),
        (["train", "--set", "train.lr"], 2, "has no '='"),
        (["run", "--until", "shoot"], 2, "'ingest', 'prepare'"),
        (["train"], 3, "has not been run yet"),
        (["prepare"], 3, "`ingest` has not been run yet"),
        (["export", "a.safetensors"], 3, "`train` has not been run yet"),
        (["export", "a.safetensors", "--to", "pickle"], 2, "'diffusers', 'comfy', 'kohya', 'merged'"),
        (["ingest"], 2, "footage"),
    ],
)
def test_a_mistake_is_explained(
    film: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    words: list[str],
    exit_code: int,
    said: str,
) -> None:
    monkeypatch.chdir(film)
    code, _, err = say(capsys, *words)
    assert (code, "Traceback" in err) == (exit_code, False)
    assert said in err


def test_a_taken_port_is_explained(film: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        code, out, err = say(capsys, "train", "-C", str(film), "--watch", "--port", port)
    assert (code, "Traceback" in err) == (2, False)
    assert f"port {port} cannot be used" in err
    assert out == ""


def test_the_page_of_a_run_stops_with_it(film: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = say(capsys, "train", "-C", str(film), "--watch")
    assert code == 3 and "has not been run yet" in err
    address = re.search(r"watch  (http://127.0.0.1:\d+/)", out)
    assert address is not None
    with pytest.raises(urllib.error.URLError):
        urllib.request.urlopen(address[1], timeout=2)


def test_a_wrong_key_in_the_project_file_is_explained(film: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with (film / "cinetune.toml").open("a") as file:
        file.write("[score]\nlearning_rate = 1\n")
    code, _, err = say(capsys, "plan", "-C", str(film))
    assert code == 2
    assert "unknown key 'score.learning_rate'" in err


@pytest.mark.parametrize(
    ("error", "exit_code", "said"),
    [
        (RuntimeError("the numbers are odd"), 1, "unexpected RuntimeError: the numbers are odd"),
        (MemoryError(), 3, "memory ran out"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"), 3, "cinetune plan"),
        (RuntimeError("I/O error: No space left on device (os error 28)"), 3, "the disk is full"),
        (KeyboardInterrupt(), 130, "the same command continues"),
    ],
)
def test_what_nobody_expected_is_short_and_has_no_traceback(
    film: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    error: BaseException,
    exit_code: int,
    said: str,
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(pipeline, "status", fail)
    code, _, err = say(capsys, "status", "-C", str(film))
    assert code == exit_code
    assert said in err
    assert "Traceback" not in err
    if exit_code == 1:
        assert "where: test_cli.py:" in err
        assert "--debug" in err
        assert "Traceback" in say(capsys, "status", "-C", str(film), "--debug")[2]


def test_status_in_words_and_as_json(film: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = say(capsys, "status", "-C", str(film))
    assert code == 0
    first = [line.split()[0] for line in out.splitlines() if not line.startswith("   ")]  # others go on a reason
    assert first == ["stage", *(stage.name for stage in pipeline.STAGES)]
    code, out, _ = say(capsys, "status", "-C", str(film), "--json")
    assert [row["state"] for row in json.loads(out)][:2] == ["missing", "missing"]
    assert not (film / "work").exists()


def test_a_run_with_other_settings_is_remembered_and_can_be_kept(
    film: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_counted(film / "footage" / "a.mp4", 60)
    (film / "footage" / "a.txt").write_text("a counter")
    asked = ("--set", "footage.min_shot_seconds=0.25")
    code, out, _ = say(capsys, "run", "-C", str(film), "--until", "ingest", *asked)
    assert code == 0
    assert f"cinetune run -C {film} --keep --set footage.min_shot_seconds=0.25" in out
    code, out, _ = say(capsys, "status", "-C", str(film))
    assert "footage.min_shot_seconds: 0.25 -> 0.5" in " ".join(out.split())
    assert "Some stages were made with settings that cinetune.toml does not have" in out
    assert f"cinetune run -C {film} --keep --set footage.min_shot_seconds=0.25" in out
    assert say(capsys, "run", "-C", str(film), "--until", "ingest", "--keep", *asked)[0] == 0
    code, out, _ = say(capsys, "status", "-C", str(film))
    assert "Some stages were made" not in out
    assert out.splitlines()[1].split()[:2] == ["ingest", "done"]


def test_plan_shows_every_setting_with_its_origin(film: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = say(capsys, "plan", "-C", str(film), "--set", "train.rank=4", "--json")
    settings = json.loads(out)["settings"]
    assert code == 0
    assert set(settings) == set(Project(film).origins)
    assert settings["train.rank"] == [4, "--set"]
    assert settings["name"] == ["film", "cinetune.toml"]
    code, out, _ = say(capsys, "plan", "-C", str(film))
    assert code == 0
    assert "calculated, not measured" in out


def test_plan_for_a_model_that_is_not_there_yet(film: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = say(capsys, "plan", "-C", str(film), "--set", "preset=wan21")
    assert code == 0
    assert "16.39 billion" in out
    assert "model.path is empty" in out


def test_memory_that_runs_out_in_a_verb_prints_what_needs_less(
    film: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    def fail(*_: object, **__: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    monkeypatch.setattr(type(pipeline.stage_named("train")), "run", fail)
    code, _, err = say(capsys, "train", "-C", str(film), "--set", "train.batch=2")
    assert code == 3
    assert "kept for the backward" in err
    assert "train.checkpointing=selective" in err
    assert "train.batch=1" in err


def test_doctor_as_json(film: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = say(capsys, "doctor", "-C", str(film), "--json")
    checks = {check["name"]: check for check in json.loads(out)}
    assert {"python", "torch", "GPU", "memory", "disk", "h264", "prores_hq", "weights", "folder"} <= set(checks)
    assert code == (3 if any(check["state"] == "fail" for check in checks.values()) else 0)


def test_doctor_fails_with_a_remedy(film: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (film / "cinetune.toml").write_text('preset = "wan21"\n[model]\npath = "nowhere"\n')
    code, out, _ = say(capsys, "doctor", "-C", str(film))
    assert code == 3
    assert "hf download" in out


def test_weights_are_listed_without_network(film: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = say(capsys, "weights", "-C", str(film), "--json")
    assert code == 0
    assert any("Wan2.1-I2V-14B" in row["name"] and row["licence"] == "Apache-2.0" for row in json.loads(out))


@pytest.fixture
def read_only(film: Path) -> Iterator[Path]:
    """A whole project nobody but root may write, in a place everybody may enter."""
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        (film / "cinetune.toml").write_text('name = "film"\n')
        for path in film.rglob("*"):
            target = root / path.relative_to(film)
            target.mkdir(exist_ok=True) if path.is_dir() else target.write_bytes(path.read_bytes())
        for path in (root, *root.rglob("*")):
            path.chmod(0o555 if path.is_dir() else 0o444)
        yield root
        root.chmod(0o755)
        (root / "footage").chmod(0o755)


def test_a_read_only_project_is_explained(read_only: Path) -> None:
    code = f"""
        import os, sys
        import cinetune.console, cinetune.pipeline
        from cinetune.cli import main
        if os.getuid() == 0:
            os.setuid(65534)
        sys.exit(main(["ingest", "-C", {str(read_only)!r}]))
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=False)
    assert done.returncode == 3
    assert "the project folder cannot be written" in done.stderr
    assert "Traceback" not in done.stderr
    assert sorted(path.name for path in read_only.iterdir()) == ["cinetune.toml", "footage", "references", "shots.toml"]
