"""Files are whole or not there, the sweep takes nothing of others, and no link leads out of a project."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from cinetune.artifacts import FileRef
from cinetune.durable import PARTIAL, atomic_write, growing, inside, sweep, unfinished, whole_folder
from cinetune.errors import StoreError
from cinetune.store import Store
from killed import left_by_a_killed_run


@contextmanager
def writing_elsewhere(target: Path) -> Iterator[Path]:
    """Another living process that is in the middle of writing `target`: the folder it grows in."""
    code = f"""
        import sys
        from pathlib import Path
        from cinetune.durable import growing
        with growing(Path({str(target)!r})) as temporary:
            temporary.write_bytes(b"half")
            print(temporary.parent, flush=True)
            sys.stdin.read()
    """
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, "-c", textwrap.dedent(code)], stdin=pipe, stdout=pipe, text=True) as writer:
        assert writer.stdout is not None and writer.stdin is not None
        yield Path(writer.stdout.readline().strip())
        writer.stdin.close()
        assert writer.wait(30) == 0


# ---------------------------------------------------------------- the sweep


def test_what_a_killed_process_left_goes_and_what_a_living_one_writes_stays(tmp_path: Path) -> None:
    dead = left_by_a_killed_run(tmp_path / "deliveries" / "a")
    with writing_elsewhere(tmp_path / "deliveries" / "b") as alive, Store(tmp_path).lock():
        assert not dead.exists() and (alive / "file").read_bytes() == b"half"
    assert not alive.exists()


@pytest.mark.parametrize("place", ["work/objects", "work/units/cache", "deliveries", "report", "."])
def test_a_writer_sweeps_every_place_it_writes_to(tmp_path: Path, place: str) -> None:
    dead = left_by_a_killed_run(tmp_path / place / "a.bin")
    with Store(tmp_path).lock():
        assert not dead.exists()


def test_folders_of_others_stay_whatever_their_name(tmp_path: Path) -> None:
    def make(name: str) -> Path:
        folder = tmp_path / f"{PARTIAL}{name}"
        folder.mkdir()
        return folder

    (make("download") / "film.mp4").write_bytes(b"of another program")
    (make("theirs") / "claim").write_bytes(b"42")
    (tmp_path / f"{PARTIAL}file").write_bytes(b"a file")
    (make("linked") / "claim").symlink_to(tmp_path / "ours")
    (tmp_path / "ours").write_bytes(b"cinetune\n")
    os.mkfifo(make("pipe") / "claim")
    shutil.copytree(left_by_a_killed_run(tmp_path / "a"), tmp_path / "elsewhere")
    (tmp_path / f"{PARTIAL}link").symlink_to(tmp_path / "elsewhere")
    sweep(tmp_path)
    left = {path.name.removeprefix(PARTIAL) for path in tmp_path.iterdir()}
    assert left == {"download", "theirs", "file", "linked", "ours", "pipe", "elsewhere", "link"}
    assert (tmp_path / "elsewhere" / "file").read_bytes() == b"half"


def test_links_in_what_is_swept_are_not_followed(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "precious.txt").write_text("precious", encoding="utf-8")
    dead = left_by_a_killed_run(tmp_path / "project" / "work" / "a")
    (dead / "folder" / "away").symlink_to(tmp_path / "mine")
    (dead / "away").symlink_to(tmp_path / "mine" / "precious.txt")
    with Store(tmp_path / "project").lock():
        assert not dead.exists()
    assert (tmp_path / "mine" / "precious.txt").read_text(encoding="utf-8") == "precious"


def test_a_folder_killed_before_it_was_claimed_goes_only_if_empty(tmp_path: Path) -> None:
    (tmp_path / f"{PARTIAL}empty").mkdir()
    (tmp_path / f"{PARTIAL}full").mkdir()
    (tmp_path / f"{PARTIAL}full" / "x").write_bytes(b"x")
    sweep(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [f"{PARTIAL}full"]


def test_sweeps_and_writers_that_meet_lose_nothing(tmp_path: Path) -> None:
    """A sweep may come between making a folder and claiming it: then the writer makes another one."""
    code = f"""
        import sys
        from pathlib import Path
        from cinetune.durable import atomic_write, sweep
        folder = Path({str(tmp_path)!r})
        for turn in range(400):
            if sys.argv[1] == "sweep":
                sweep(folder)
            else:
                with atomic_write(folder / f"{{sys.argv[1]}}-{{turn}}") as temporary:
                    temporary.write_text("whole")
    """
    command = [sys.executable, "-c", textwrap.dedent(code)]
    crew = [subprocess.Popen([*command, name]) for name in ("a", "sweep", "sweep")]
    assert [one.wait(60) for one in crew] == [0, 0, 0]
    assert {path.read_text() for path in tmp_path.iterdir()} == {"whole"} and len(list(tmp_path.iterdir())) == 400


# ---------------------------------------------------------------- whole folders


def test_a_folder_gets_its_name_when_it_is_whole(tmp_path: Path) -> None:
    dead, out = left_by_a_killed_run(tmp_path / "ds"), tmp_path / "ds"
    with pytest.raises(ValueError, match="half way"), whole_folder(out) as folder:
        (folder / "a").write_text("a")
        assert not out.exists() and not dead.exists()
        raise ValueError("half way")
    assert list(tmp_path.iterdir()) == []
    with whole_folder(out) as folder:
        (folder / "a").write_text("a")
    assert [path.name for path in tmp_path.rglob("*")] == ["ds", "a"]
    with pytest.raises(StoreError, match="cannot write"), whole_folder(out) as folder:
        (folder / "b").write_text("b")
    assert [path.name for path in tmp_path.rglob("*")] == ["ds", "a"]


def test_two_writers_of_one_file_each_write_a_whole_one(tmp_path: Path) -> None:
    target = tmp_path / "record.json"
    with atomic_write(target) as one, atomic_write(target) as other:
        one.write_text("one")
        other.write_text("other")
        assert one != other
    assert target.read_text() == "one" and list(tmp_path.iterdir()) == [target]


# ---------------------------------------------------------------- a project from elsewhere


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    """A file of the reader's that a project has no business with."""
    (tmp_path / "home").mkdir()
    path = tmp_path / "home" / "mine.txt"
    path.write_text("precious", encoding="utf-8")
    return path


def link_lock(film: Path, mine: Path) -> None:
    (film / "work").mkdir()
    (film / "work" / "lock").symlink_to(mine)


def link_lock_relatively(film: Path, mine: Path) -> None:
    (film / "work").mkdir()
    (film / "work" / "lock").symlink_to(os.path.relpath(mine, film / "work"))


def hard_link_lock(film: Path, mine: Path) -> None:
    (film / "work").mkdir()
    os.link(mine, film / "work" / "lock")


def link_work(film: Path, mine: Path) -> None:
    (film / "work").symlink_to(mine.parent)


def link_deliveries(film: Path, mine: Path) -> None:
    (film / "deliveries").symlink_to(mine.parent)


def link_deep(film: Path, mine: Path) -> None:
    (film / "work" / "units").mkdir(parents=True)
    (film / "work" / "units" / "cache").symlink_to(mine.parent)


def link_log(film: Path, mine: Path) -> None:
    (film / "work" / "train" / "look").mkdir(parents=True)
    (film / "work" / "train" / "look" / "log.jsonl").symlink_to(mine)


def link_twice(film: Path, mine: Path) -> None:
    (film / "work").mkdir()
    (film / "work" / "a").symlink_to("b")
    (film / "work" / "b").symlink_to(mine.parent)


def pipe_lock(film: Path, mine: Path) -> None:
    (film / "work").mkdir()
    os.mkfifo(film / "work" / "lock")


def text_lock(film: Path, mine: Path) -> None:
    (film / "work").mkdir()
    (film / "work" / "lock").write_text("notes on locks", encoding="utf-8")


TRAPS = [link_lock, link_lock_relatively, hard_link_lock, link_work, link_deliveries, link_deep, link_log, link_twice,
         pipe_lock, text_lock]  # fmt: skip


@pytest.mark.parametrize("trap", TRAPS)
def test_a_trap_in_a_project_is_refused_before_anything_is_written(tmp_path: Path, mine: Path, trap) -> None:
    film = tmp_path / "film"
    film.mkdir()
    trap(film, mine)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(StoreError) as caught, Store(film).lock():
        pass
    assert caught.value.where and caught.value.remedy
    assert mine.read_text(encoding="utf-8") == "precious" and sorted(tmp_path.rglob("*")) == before


def test_a_broken_link_to_elsewhere_makes_no_file_there(tmp_path: Path, mine: Path) -> None:
    film = tmp_path / "film"
    (film / "work").mkdir(parents=True)
    (film / "work" / "lock").symlink_to(mine.with_name("new"))
    with pytest.raises(StoreError, match="link"), Store(film).lock():
        pass
    assert not mine.with_name("new").exists()


def test_links_inside_the_project_and_to_the_project_are_fine(tmp_path: Path) -> None:
    (tmp_path / "film" / "disk").mkdir(parents=True)
    (tmp_path / "film" / "work").symlink_to("disk")
    (tmp_path / "here").symlink_to("film")
    store = Store(tmp_path / "here")
    with store.lock():
        store.write_text(store.work / "units" / "a" / "b.json", "{}")
    assert (tmp_path / "film" / "disk" / "units" / "a" / "b.json").read_text() == "{}"


def test_no_verb_without_the_lock_writes_or_reads_through_a_link(tmp_path: Path, mine: Path) -> None:
    film = tmp_path / "film"
    film.mkdir()
    (film / "report").symlink_to(mine.parent)
    link_deep(film, mine)
    store = Store(film)
    for write in (
        lambda: store.write_text(film / "report" / "index.html", "x"),
        lambda: store.unit("cache", "k", FileRef, lambda: FileRef(path="a", sha256="b")),
        lambda: store.path(FileRef(path="report/mine.txt", sha256="x")),
    ):
        with pytest.raises(StoreError, match="out of the project"):
            write()
    assert [path.name for path in mine.parent.iterdir()] == ["mine.txt"]


def test_names_that_no_disk_can_hold_are_missing_not_a_crash(tmp_path: Path) -> None:
    store = Store(tmp_path)
    for name in ("x" * 5000, "a\0b", "a/" * 3000):
        assert store.missing([FileRef(path=name, sha256="x")]) == name
        with pytest.raises(StoreError):
            store.path(FileRef(path=name, sha256="x"))
        with pytest.raises(StoreError):
            inside(tmp_path, tmp_path / "a\0b")


def test_the_way_to_the_left_overs_is_found_once(tmp_path: Path) -> None:
    left_by_a_killed_run(tmp_path / "work" / "a" / "x")
    left_by_a_killed_run(tmp_path / "work" / "a" / "y")
    (tmp_path / "work" / "b").mkdir()
    assert unfinished(tmp_path, tmp_path / "work") == [tmp_path / "work" / "a"]
    assert unfinished(tmp_path, tmp_path / "report") == []


def test_a_temporary_file_has_the_suffix_and_the_disk_of_its_target(tmp_path: Path) -> None:
    with growing(tmp_path / "deep" / "film.mov") as temporary:
        assert temporary.suffix == ".mov" and temporary.parent.parent == tmp_path / "deep"
        assert temporary.parent.stat().st_dev == tmp_path.stat().st_dev
    assert list((tmp_path / "deep").iterdir()) == []
