"""What a person brings that cannot work: each gets its reason and its exit code, never a traceback or half a file."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path

import pytest

from cinetune.cli import main
from films import write_counted, write_sound

Say = Callable[..., tuple[int, str]]


@pytest.fixture
def film(tmp_path: Path) -> Path:
    assert main(["new", str(tmp_path)]) == 0
    return tmp_path


@pytest.fixture
def say(capsys: pytest.CaptureFixture[str]) -> Say:
    def run(film: Path, *words: str) -> tuple[int, str]:
        capsys.readouterr()
        code = main([*words, "-C", str(film)])
        out, err = capsys.readouterr()
        assert "Traceback" not in out + err
        assert not list(film.rglob(".partial-*"))
        return code, out + err

    return run


def good_clip(film: Path, name: str = "good.mp4") -> Path:
    path = film / "footage" / name
    write_counted(path, 72)
    return path


def refused(say: Say, film: Path, name: str) -> str:
    """The only file of the film is bad: the verb fails; beside a good one it is a row and the batch goes on."""
    code, alone = say(film, "ingest")
    assert code == 2
    good_clip(film)
    code, text = say(film, "ingest")
    assert code == 0
    assert "good.mp4" in text
    lines = text.splitlines()
    start = next(number for number, line in enumerate(lines) if name in line and not line.startswith(" "))
    below = itertools.takewhile(lambda line: line.startswith(" "), lines[start + 1 :])
    row = " ".join(" ".join(below).split())
    assert "REFUSED" in row
    assert name in alone
    return row


def test_an_empty_folder(film: Path, say: Say):
    for path in (film / "footage").iterdir():
        path.unlink()
    code, text = say(film, "ingest")
    assert code == 2
    assert "empty" in text


def test_a_text_file_called_mp4(film: Path, say: Say):
    (film / "footage" / "notes.mp4").write_text("these are my notes")
    assert "not a" in refused(say, film, "notes.mp4")


def test_a_truncated_mp4(film: Path, say: Say):
    whole = good_clip(film, "whole.mp4")
    half = whole.read_bytes()[: -whole.stat().st_size // 3]
    whole.unlink()
    (film / "footage" / "half.mp4").write_bytes(half)
    assert "truncated" in refused(say, film, "half.mp4")


def test_a_file_of_no_bytes(film: Path, say: Say):
    (film / "footage" / "nothing.mov").write_bytes(b"")
    assert "empty" in refused(say, film, "nothing.mov")


def test_a_clip_of_three_frames(film: Path, say: Say):
    write_counted(film / "footage" / "short.mp4", 3)
    assert "too short" in refused(say, film, "short.mp4")


def test_sound_without_a_picture(film: Path, say: Say):
    write_sound(film / "footage" / "voice.m4a")
    assert "no picture" in refused(say, film, "voice.m4a")


def test_a_misspelt_setting_names_the_nearest(film: Path, say: Say):
    (film / "cinetune.toml").write_text('preset = "pocket"\n[train]\nrnk = 4\n')
    code, text = say(film, "plan")
    assert code == 2
    assert "train.rank" in text


def test_a_clip_without_a_caption(film: Path, say: Say):
    good_clip(film)
    assert say(film, "ingest")[0] == 0
    code, text = say(film, "prepare")
    assert code == 2
    assert "good.mp4" in text
    assert "caption" in text


def test_a_shot_whose_reference_is_missing(film: Path, say: Say):
    (film / "shots.toml").write_text(
        '[[shot]]\nid = "sh010"\nprompt = "a hill"\ndomain = "in"\nreference = "references/gone.png"\n'
    )
    code, text = say(film, "keyframes")
    assert code == 2
    assert "references/gone.png" in text


def test_a_read_only_project(film: Path, say: Say, monkeypatch: pytest.MonkeyPatch):
    good_clip(film)

    def read_only(*_args: object, **_options: object) -> tuple[int, str]:
        raise OSError(30, "Read-only file system")

    # tests may run as root, whom permissions do not stop
    monkeypatch.setattr("cinetune.durable.tempfile.mkdtemp", read_only)
    code, text = say(film, "ingest")
    assert code == 3
    assert "cannot be written" in text
