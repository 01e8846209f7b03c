"""Processes that meet, agree, and end together."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from cinetune.cli import main
from cinetune.errors import ClusterError, StoreError
from cinetune.processes import Processes, join_group, launched, leave_group
from cinetune.sections import ModelSection, ParallelSection
from crew import crew, free_port

CPU = ModelSection(device="cpu")
PARALLEL = ParallelSection()


def _launch(monkeypatch: pytest.MonkeyPatch, *, size: int, port: int) -> None:
    values = {"RANK": "0", "WORLD_SIZE": str(size), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    for name, value in values.items():
        monkeypatch.setenv(name, value)


def test_without_a_launcher_there_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RANK", raising=False)
    assert join_group(CPU, PARALLEL) == Processes() == launched()
    leave_group()
    one = Processes()
    assert one.main and one.gather(3) == [3] and one.lead(lambda: 4) == one.together(lambda: 4) == one.same(4)


def test_one_leads_and_all_hear_of_it(tmp_path: Path) -> None:
    def job() -> None:
        here = join_group(CPU, PARALLEL)
        assert here == join_group(CPU, PARALLEL) == Processes(rank=int(os.environ["RANK"]), size=2)
        assert here.gather(here.rank * 10) == [0, 10]
        assert here.same(here.rank) == 0
        assert here.together(lambda: here.rank) == here.rank

        def lead() -> int:
            assert here.main
            raise StoreError("the disk is full", where="work", remedy="free space")

        def second() -> None:
            if not here.main:
                raise StoreError("a file is gone", where="clip 7")

        for make, what, where in ((lead, "the disk is full", "work"), (second, "a file is gone", "clip 7")):
            with pytest.raises(StoreError, match=what) as caught:
                (here.lead if make is lead else here.together)(make)
            assert (caught.value.what, caught.value.where, caught.value.exit_code) == (what, where, 3)
        leave_group()

    crew(2, job, tmp_path)


def test_a_process_that_dies_is_no_riddle_to_the_others(tmp_path: Path) -> None:
    def job() -> None:
        here = join_group(CPU, PARALLEL)
        here.gather(0)
        if not here.main:
            os._exit(0)
        with pytest.raises(ClusterError, match="process 0 of 2 lost the others"), here.watching():
            here.gather(1)

    crew(2, job, tmp_path)


def test_other_errors_pass_the_watch() -> None:
    with pytest.raises(RuntimeError, match="shape"), Processes(size=2).watching():
        raise RuntimeError("shape mismatch")


def test_a_taken_port(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        _launch(monkeypatch, size=2, port=port)
        with pytest.raises(ClusterError, match=rf"cannot meet(?s:.*)127.0.0.1:{port}(?s:.*)--standalone") as caught:
            join_group(CPU, PARALLEL)
        assert caught.value.exit_code == 3


def test_a_process_that_does_not_come(monkeypatch: pytest.MonkeyPatch) -> None:
    _launch(monkeypatch, size=2, port=free_port())
    with pytest.raises(ClusterError, match="the 2 processes of this run cannot meet"):
        join_group(CPU, ParallelSection(timeout_minutes=0.02))


@pytest.mark.parametrize(("rank", "size"), [("x", "2"), ("0", "two"), ("-1", "2"), ("2", "2"), ("0", "0"), ("", "1")])
def test_a_launcher_that_says_no_numbers(monkeypatch: pytest.MonkeyPatch, rank: str, size: str) -> None:
    for name, value in {"RANK": rank, "WORLD_SIZE": size, "MASTER_ADDR": "y"}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ClusterError, match=r"RANK|WORLD_SIZE"):
        launched()


def test_a_launcher_that_says_no_numbers_is_an_error_and_no_traceback(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, value in {"RANK": "x", "WORLD_SIZE": "2", "MASTER_ADDR": "y"}.items():
        monkeypatch.setenv(name, value)
    (tmp_path / "cinetune.toml").write_text("")
    assert main(["status", "-C", str(tmp_path)]) == 3
    assert "error: RANK in the environment is no count: 'x'" in capsys.readouterr().err
