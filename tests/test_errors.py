"""The error tree: one root, a remedy in the text, an exit code for each kind."""

import errno
import os
from pathlib import Path

import pytest

from cinetune import errors
from cinetune.cli import main
from cinetune.errors import CinetuneError, GateFailed, StoreError, WeightsError, ran_out

EXIT_CODES = {
    "CinetuneError": 2, "ClusterError": 3, "ConfigError": 2, "FootageError": 2, "GateFailed": 4,
    "ModelError": 2, "ScoreError": 2,
    "ServiceError": 3, "StoreError": 3, "WeightsError": 3,
}  # fmt: skip


CLASSES = [name for name in errors.__all__ if name[0].isupper()]


def test_every_error_has_the_designed_exit_code() -> None:
    assert {name: getattr(errors, name).exit_code for name in CLASSES} == EXIT_CODES


@pytest.mark.parametrize("name", CLASSES)
def test_every_error_is_a_cinetune_error(name: str) -> None:
    assert issubclass(getattr(errors, name), CinetuneError)


def test_the_message_says_what_where_and_how_to_mend_it() -> None:
    error = StoreError("the disk is full", where="work/objects", remedy="free space")
    assert str(error) == "the disk is full\n  where: work/objects\n  fix:   free space"
    assert (error.what, error.where, error.remedy) == ("the disk is full", "work/objects", "free space")


def test_parts_that_are_not_given_leave_no_empty_lines() -> None:
    assert str(WeightsError("no weights")) == "no weights"
    assert str(GateFailed("no effect", remedy="train longer")) == "no effect\n  fix:   train longer"


@pytest.mark.parametrize("code", [errno.EACCES, errno.EIO, errno.EROFS, errno.ELOOP, errno.EISDIR, errno.ENAMETOOLONG])
def test_what_a_disk_refuses_is_no_bug(code: int) -> None:
    found = ran_out(OSError(code, os.strerror(code), "film/" + "x" * 5000))
    assert found is not None and found.exit_code == 3 and len(str(found)) < 400
    assert ran_out(OSError(code, os.strerror(code))) is None, "no file is named: not the disk's word on one"
    assert ran_out(FileNotFoundError(errno.ENOENT, "gone", "x")) is None, "that a file is not there is ours to know"


@pytest.mark.parametrize("words", [["status", "-C", "x" * 5000], ["new", "x" * 300], ["plan", "--price", "nan"]])
def test_absurd_words_on_the_command_line(words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "cinetune.toml").write_text("")
    more = ["-C", str(tmp_path)] if words[0] == "plan" else []
    assert main([*words, *more]) in (2, 3)
    assert "bug in cinetune" not in capsys.readouterr().err
