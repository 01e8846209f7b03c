"""Footage folders that nobody tidied, or that somebody means harm with: every file gets its row, the others go on, and
nothing hangs, crashes, or is half written.
"""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cinetune.cli import main
from cinetune.errors import ConfigError, FootageError
from cinetune.footage.notes import sidecars
from cinetune.footage.read import decode
from cinetune.footage.read.sequences import first_look
from cinetune.footage.read.stills import write_png16
from cinetune.footage.video import write_video
from cinetune.runtime import Quiet
from cinetune.sections import FootageSection
from cinetune.stages import ingest
from cinetune.store import Project, StageRecord
from films import FILM, drift, write_counted

SCRIPTS = {
    "list.mov": (b"ffconcat version 1.0\nfile good.mp4\n", "a list of other files"),
    "hls.m3u8": (b"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1.0,\ngood.mp4\n#EXT-X-ENDLIST\n", "a playlist"),
    "release.nfo": (b"\x1b[31mwelcome\n" * 50, "text"),
}


@pytest.fixture(scope="module")
def reels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One good file of every kind that is damaged below."""
    folder = tmp_path_factory.mktemp("reels")
    film = drift(1, 16)
    write_video(folder / "h264.mp4", film, rate=FILM, timecode="01:00:00:00")
    write_video(folder / "h264.mkv", film, rate=FILM)
    write_video(folder / "prores.mov", film, rate=FILM, codec="prores_hq", timecode="01:00:00:00")
    write_video(folder / "dnx.mxf", drift(1, 3, 120, 256), rate=FILM, codec="dnxhr_hqx_mxf")
    for number in range(12):
        write_png16(folder / f"png.{number:04d}.png", film[number], tagged=True)
    oiio = pytest.importorskip("OpenImageIO")
    for suffix, kind in (("exr", "half"), ("dpx", "uint16"), ("tif", "uint16")):
        for number in range(12):
            path = folder / f"{suffix}.{number:04d}.{suffix}"
            image = oiio.ImageOutput.create(str(path))
            assert image.open(str(path), oiio.ImageSpec(80, 48, 3, kind))
            assert image.write_image(film[number])
            image.close()
    return folder


@pytest.fixture
def good(project: Project) -> Path:
    """A film that must come through whatever lies beside it."""
    path = project.root / "footage" / "good.mp4"
    write_counted(path, 24)
    return path


def nothing_half_written(root: Path) -> None:
    left = [path for path in root.rglob("*") if ".partial-" in path.name]
    assert left == []


def rows(project: Project) -> tuple[StageRecord, dict[str, str]]:
    """The record of an ingest, and the reason of every refused file by name. The good film always comes through, and
    every file has one row of the table; what is said of it stands indented below.
    """
    report = Quiet()
    record = ingest.run(project, report)
    assert "good" in [clip.id for clip in record.groups["clips"]]
    files = [line for line in report.lines[0].splitlines() if not line.startswith(" ")]
    assert len(files) == 1 + len(record.groups["clips"]) + len(record.groups["rejected"])
    assert report.lines[0].encode("utf-8")
    nothing_half_written(project.root)
    assert project.store.load_stage("ingest") == record
    return record, {row.path.removeprefix("footage/"): row.reason for row in record.groups["rejected"]}


def damaged(data: bytes, random_: random.Random) -> bytes:
    """Cut off anywhere, or with some bytes of its first kilobytes replaced."""
    if random_.randrange(4) == 0:
        return data[: random_.randrange(len(data))]
    broken = bytearray(data)
    head = min(random_.choice([64, 512, 4096]), len(data))
    for _ in range(random_.choice([1, 4, 32])):
        broken[random_.randrange(head)] = random_.choice([0, 255, random_.randrange(256)])
    return bytes(broken)


def copies(reels: Path, folder: Path, random_: random.Random) -> Iterator[str]:
    """Every reel into `folder` with one file of it damaged; the names ingest will give them."""
    for path in sorted(reels.iterdir()):
        bad = ".0000." in path.name or path.suffix in (".mp4", ".mkv", ".mov", ".mxf")
        data = path.read_bytes()
        (folder / path.name).write_bytes(damaged(data, random_) if bad else data)
        if bad:
            yield path.name.replace(".0000.", ".%04d.")


@pytest.mark.parametrize("seed", range(5))
def test_damaged_headers_and_cut_off_files(project: Project, good: Path, reels: Path, seed: int):
    """Eight kinds of file a seed. A flipped byte may hit what nobody reads, so a file may also be taken."""
    names = set(copies(reels, good.parent, random.Random(seed)))
    record, refused = rows(project)
    taken = {clip.path.removeprefix("footage/") for clip in record.groups["clips"]} - {"good.mp4"}
    assert taken | set(refused) == names
    assert not taken & set(refused)
    assert len(refused) >= 3
    for path in good.parent.iterdir():
        if path != good:
            path.unlink()
    assert rows(project)[1] == {}


@pytest.mark.parametrize("share", [0.001, 0.01, 0.1, 0.5, 0.9, 0.99])
def test_files_cut_off_anywhere(project: Project, good: Path, reels: Path, share: float):
    for name in ("h264.mp4", "prores.mov", "dnx.mxf"):
        data = (reels / name).read_bytes()
        (good.parent / name).write_bytes(data[: max(1, int(share * len(data)))])
    assert set(rows(project)[1]) == {"h264.mp4", "prores.mov", "dnx.mxf"}


def test_wrong_endings(project: Project, good: Path, reels: Path):
    folder = good.parent
    (folder / "letter.mov").write_text("dear editor")
    shutil.copy(reels / "h264.mp4", folder / "film.txt")
    shutil.copy(reels / "png.0000.png", folder / "still.exr")
    for number in range(3):
        shutil.copy(reels / f"png.{number:04d}.png", folder / f"run.{number:04d}.exr")
    record, refused = rows(project)
    assert "not a video" in refused["letter.mov"]
    assert "too short" in refused["still.exr"]
    assert "film.txt" not in refused, "captions and notes of any content are not footage"
    assert [clip.id for clip in record.groups["clips"]] == ["good"] and "run.%04d.exr" in refused


@pytest.mark.parametrize("name", SCRIPTS)
def test_text_that_libav_takes_for_a_film(project: Project, good: Path, name: str):
    data, words = SCRIPTS[name]
    (good.parent / name).write_bytes(data)
    assert words in rows(project)[1][name]


def test_words_in_a_header_that_are_not_utf8(project: Project, good: Path):
    data = good.read_bytes()
    assert b"Lavf" in data
    (good.parent / "latin.mp4").write_bytes(data.replace(b"Lavf", b"\xff\xfe\xfd\xfc"))
    record, refused = rows(project)
    assert refused == {} and {clip.id for clip in record.groups["clips"]} == {"good", "latin"}


def test_names_of_every_kind(project: Project, good: Path):
    folder = good.parent
    names = [
        "-rf.mp4", "--help.mp4", "two words.mp4", "line\nbreak.mp4", "quote'\"`$(x).mp4", "ünï 映画 \u202etxt.mp4",
        "%s%d.mp4", "%04d.mp4", "file:x.mp4", "a|b;c&d.mp4", "no_ending", "x" * 251 + ".mp4", "y" * 252 + ".ts",
    ]  # fmt: skip
    for number, name in enumerate(names):
        (folder / name).write_bytes(good.read_bytes() + bytes([0, 0, 0, 8]) + b"free" * 1 + bytes([number]))
    (folder / ".hidden.mp4").write_bytes(b"hidden")
    (folder / ".Trash").mkdir()
    (folder / ".Trash" / "old.mp4").write_bytes(b"old")
    bad_name = Path(os.fsdecode(os.fsencode(folder) + b"/caf\xe9.mp4"))
    bad_name.write_bytes(good.read_bytes() + b"x")
    record, refused = rows(project)
    assert refused == {"caf\\udce9.mp4": "its name is not UTF-8"}
    kept = [clip.path.removeprefix("footage/") for clip in record.groups["clips"]]
    assert sorted(kept) == sorted(["good.mp4", *names])
    assert len({clip.id for clip in record.groups["clips"]}) == len(kept)


def test_links_pipes_and_folders_called_like_films(
    project: Project, good: Path, tmp_path_factory: pytest.TempPathFactory
):
    folder, outside = good.parent, tmp_path_factory.mktemp("server")
    write_counted(outside / "served.mp4", 30)
    (folder / "linked.mp4").symlink_to(outside / "served.mp4")
    (folder / "twin.mp4").symlink_to(good)
    (folder / "gone.mp4").symlink_to(outside / "not mounted.mp4")
    (folder / "gone too.mp4").symlink_to(outside / "not mounted.mp4")
    (folder / "loop.mp4").symlink_to(folder / "pool.mp4")
    (folder / "pool.mp4").symlink_to(folder / "loop.mp4")
    (folder / "around").symlink_to(folder, target_is_directory=True)
    (folder / "folder.mov").mkdir()
    os.mkfifo(folder / "pipe.mov")
    os.mkfifo(folder / "captions.txt")
    os.mkfifo(folder / "edit.edl")
    record, refused = rows(project)
    assert {clip.id for clip in record.groups["clips"]} == {"good", "linked"}
    for name in ("gone.mp4", "gone too.mp4", "loop.mp4", "pool.mp4"):
        assert "a link to a file that is not there" in refused.pop(name)
    assert refused == {"pipe.mov": "a pipe or a device, no file", "twin.mp4": "the same bytes as footage/good.mp4"}
    write_counted(outside / "not mounted.mp4", 40)
    record, refused = rows(project)
    assert "linked" in {clip.id for clip in record.groups["clips"]}
    assert refused["gone.mp4"] == "the same bytes as footage/gone too.mp4", "once its disk is mounted, it is a film"


def test_a_pipe_or_a_broken_link_among_numbered_pictures(project: Project, good: Path, reels: Path):
    for number in range(12):
        shutil.copy(reels / f"png.{number:04d}.png", good.parent)
        shutil.copy(reels / f"png.{number:04d}.png", good.parent / f"other.{number:04d}.png")
    (good.parent / "png.0005.png").unlink()
    os.mkfifo(good.parent / "png.0005.png")
    (good.parent / "other.0005.png").unlink()
    (good.parent / "other.0005.png").symlink_to("nowhere.png")
    assert set(rows(project)[1]) == {"png.%04d.png", "other.%04d.png"}


def test_numbers_that_are_dates(project: Project, good: Path, reels: Path):
    for number in (1, 20240101, 20240301):
        shutil.copy(reels / "exr.0000.exr", good.parent / f"x{number:08d}.exr")
    assert "no film, or most of it is missing" in rows(project)[1]["x%08d.exr"]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("FramesPerSecond", (24, 0)),
        ("FramesPerSecond", (0, 1)),
        ("FramesPerSecond", (-24, 1)),
        ("FramesPerSecond", (1, 9)),
        ("FramesPerSecond", "often"),
        ("chromaticities", "no"),
    ],
)
def test_numbers_in_an_exr_header_that_are_none(tmp_path: Path, name: str, value: object):
    oiio = pytest.importorskip("OpenImageIO")
    for number in range(2):
        path = tmp_path / f"a.{number:04d}.exr"
        spec = oiio.ImageSpec(16, 16, 3, "half")
        spec.attribute(name, "rational", value) if isinstance(value, tuple) else spec.attribute(name, value)
        image = oiio.ImageOutput.create(str(path))
        assert image.open(str(path), spec), image.geterror()
        assert image.write_image(np.full((16, 16, 3), 0.5, np.float32))
        image.close()
    with suppress(FootageError):
        run = first_look(tmp_path / "a.%04d.exr", FootageSection(), None)
        assert run.rate >= 1 and run.pixel_aspect > 0


def test_two_gigabytes_of_nothing(project: Project, good: Path):
    """Refused after one pass over its bytes for the hash."""
    path = good.parent / "sparse.mov"
    path.touch()
    os.truncate(path, 2 << 30)
    if path.stat().st_blocks * 512 > 1 << 20:
        pytest.skip("this disk has no sparse files")
    assert "not a video" in rows(project)[1]["sparse.mov"]


@pytest.mark.parametrize("replace", [False, True])
def test_a_file_that_goes_away_or_changes_before_it_is_hashed(
    project: Project, good: Path, monkeypatch: pytest.MonkeyPatch, replace: bool
):
    bad = good.parent / "bad.mp4"
    write_counted(bad, 30)
    hash_file = sidecars.sha256_file

    def meddle(path: Path) -> str:
        if path == bad and bad.exists():
            bad.unlink()
            if replace:
                write_counted(bad, 40)
        return hash_file(path)

    monkeypatch.setattr(sidecars, "sha256_file", meddle)
    assert rows(project)[1] == {"bad.mp4": "it changed while it was read"}
    monkeypatch.undo()
    record, refused = rows(project)
    assert refused == {}
    assert [(clip.id, clip.frames) for clip in record.groups["clips"]] == [("bad", 40)] * replace + [("good", 24)]


@pytest.mark.parametrize("replace", [False, True])
def test_a_file_that_goes_away_or_changes_before_it_is_decoded(
    project: Project, good: Path, monkeypatch: pytest.MonkeyPatch, replace: bool
):
    """The verdict on the new bytes must not be kept for the old ones: put back, they are judged anew."""
    bad = good.parent / "bad.mp4"
    write_counted(bad, 30)
    old = bad.read_bytes()
    open_film = decode.av.open
    meddled: list[Path] = []

    def meddle(name: str, *words: Any, **options: Any) -> object:
        if Path(name) == bad and not meddled:
            meddled.append(bad)
            bad.unlink()
            if replace:
                write_counted(bad, 40)
        return open_film(name, *words, **options)

    monkeypatch.setattr(decode.av, "open", meddle)
    assert rows(project)[1] == {"bad.mp4": "it changed while it was read"}
    monkeypatch.undo()
    bad.write_bytes(old)
    assert [clip.frames for clip in rows(project)[0].groups["clips"]] == [30, 24]


@pytest.mark.parametrize("table", [b'file_name,text\n"' + b"x" * 200_000 + b'",y', b"\xff\xfex"])
def test_a_table_that_is_none(project: Project, good: Path, table: bytes):
    (good.parent / "metadata.csv").write_bytes(table)
    with pytest.raises(ConfigError, match=r"metadata\.csv"):
        rows(project)
    nothing_half_written(project.root)
    (good.parent / "metadata.csv").unlink()
    assert rows(project)[1] == {}


def test_the_command_line_says_it_in_words(project: Project, good: Path, capsys: pytest.CaptureFixture[str]):
    os.mkfifo(good.parent / "pipe\n.mov")
    (good.parent / "gone.mp4").symlink_to("nowhere")
    assert main(["ingest", "-C", str(project.root)]) == 0
    out, err = capsys.readouterr()
    assert "Traceback" not in out + err and out.count("REFUSED") == 2 and "pipe\\n.mov" in out
    good.unlink()
    assert main(["ingest", "-C", str(project.root)]) == 2
    assert "no film file can be used" in capsys.readouterr().err
