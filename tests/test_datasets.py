"""Datasets in and out: what another trainer had becomes a project, and what is prepared here can be read elsewhere."""

from __future__ import annotations

import csv
import json
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from cinetune.cli import main
from cinetune.config import load_config
from cinetune.footage.video import probe, read_frames, read_window, write_video
from cinetune.runtime import Quiet
from cinetune.stages import ingest, prepare
from cinetune.store import Project
from films import FILM, drift
from killed import left_by_a_killed_run

MUSUBI = """
[general]
resolution = [48, 32]
[[datasets]]
video_directory = "{folder}"
target_frames = [5]
frame_extraction = "slide"
frame_stride = 4
num_repeats = 2
"""


def _clips(folder: Path) -> None:
    folder.mkdir()
    for number in range(3):
        write_video(folder / f"c{number}.mp4", drift(number, 24), rate=FILM, timecode=f"0{number}:00:00:00")
        (folder / f"c{number}.txt").write_text(f"caption {number}")


def test_a_musubi_dataset_becomes_a_project_that_prepares(tmp_path, capsys):
    _clips(tmp_path / "clips")
    (tmp_path / "set.toml").write_text(MUSUBI.format(folder=(tmp_path / "clips").as_posix()))
    root = tmp_path / "film"
    assert main(["new", str(root), "--from", str(tmp_path / "set.toml")]) == 0
    out = capsys.readouterr().out
    assert "3 films of a musubi-tuner dataset linked, 3 with captions" in out
    assert "num_repeats = 2 is left behind" in out and f"kept   {root / 'cinetune.toml'}" in out
    config, origins = load_config(root / "cinetune.toml")
    section = config.prepare
    assert (config.preset, section.windows, section.stride, section.frames) == ("wan21", "slide", 4, 5)
    assert (section.width, section.height, origins["prepare.width"]) == (48, 32, "cinetune.toml")
    assert "# datasets[0]: num_repeats = 2 is left behind" in (root / "cinetune.toml").read_text()
    ingest.run(Project(root), Quiet())
    windows = prepare.run(Project(root), Quiet()).groups["windows"]
    assert {w.caption for w in windows} == {f"caption {k}" for k in range(3)}
    assert len(windows) == 9
    assert all((root / "footage" / "clips" / f"c{k}.mp4").is_symlink() for k in range(3))


def test_taking_over_a_dataset_goes_on_after_it_was_stopped(tmp_path):
    _clips(tmp_path / "clips")
    source = tmp_path / "set.toml"
    source.write_text(MUSUBI.format(folder=(tmp_path / "clips").as_posix()))
    whole, half = tmp_path / "whole", tmp_path / "half"
    assert main(["new", str(whole), "--from", str(source)]) == 0
    first = min(path for path in whole.rglob("*") if path.is_symlink())
    link = half / first.relative_to(whole)
    link.parent.mkdir(parents=True)
    link.symlink_to(first.readlink())
    assert main(["new", str(half), "--from", str(source)]) == 0
    names = {path.relative_to(whole) for path in whole.rglob("*")}
    assert names == {path.relative_to(half) for path in half.rglob("*")}
    # stopped between the settings, which are written last of the dataset's, and the files of every new project
    (half / "shots.toml").unlink()
    left = left_by_a_killed_run(half / "references" / "README.txt")
    captions = half / "footage" / "metadata.jsonl"
    captions.write_text(captions.read_text().replace("caption", "my own words"))
    mine = captions.read_text()
    assert main(["new", str(half), "--from", str(source)]) == 0
    assert names == {path.relative_to(half) for path in half.rglob("*")} and not left.exists()
    assert captions.read_text() == mine, "what a person wrote since stays"


def test_captions_that_are_there_already_are_not_written_over(tmp_path, capsys):
    _clips(tmp_path / "clips")
    source = tmp_path / "set.toml"
    source.write_text(MUSUBI.format(folder=(tmp_path / "clips").as_posix()))
    mine = tmp_path / "film" / "footage" / "metadata.jsonl"
    mine.parent.mkdir(parents=True)
    mine.write_text('{"file_name": "x.mp4", "text": "mine"}\n')
    assert main(["new", str(tmp_path / "film"), "--from", str(source)]) == 2
    assert "is there already" in capsys.readouterr().err and "mine" in mine.read_text()
    assert not (tmp_path / "film" / "cinetune.toml").exists()


def test_nothing_is_overwritten_by_a_dataset(tmp_path, capsys):
    _clips(tmp_path / "clips")
    (tmp_path / "set.toml").write_text('[[directory]]\npath = "clips"\n')
    root = tmp_path / "film"
    assert main(["new", str(root)]) == 0
    before = (root / "cinetune.toml").read_text()
    assert main(["new", str(root), "--from", str(tmp_path / "set.toml")]) == 2
    assert "there is a project already" in capsys.readouterr().err
    assert (root / "cinetune.toml").read_text() == before and not (root / "footage" / "clips").exists()
    assert main(["new", str(tmp_path / "other"), "--from", str(tmp_path / "gone.toml")]) == 2
    assert "Traceback" not in capsys.readouterr().err and not (tmp_path / "other").exists()


@pytest.fixture
def prepared(tmp_path):
    """Three captioned clips, prepared with a trigger."""
    root = tmp_path / "film"
    root.mkdir()
    _clips(root / "footage")
    rows = [
        {"file_name": f"c{k}.mp4", "text": f"caption {k}", "scene": f"sc{k}", "owner": "me", "licence": "CC0-1.0"}
        for k in range(3)
    ]
    (root / "footage" / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (root / "cinetune.toml").write_text('[prepare]\nframes = 9\nheight = 32\nwidth = 48\ntrigger = "old film"\n')
    ingest.run(Project(root), Quiet())
    prepare.run(Project(root), Quiet())
    return Project(root)


def test_prepared_windows_are_a_video_folder(prepared, tmp_path, capsys):
    out = tmp_path / "dataset"
    assert main(["export", str(out), "--to", "dataset", "-C", str(prepared.root)]) == 0
    windows = prepared.store.need_stage("prepare").groups["windows"]
    clips = {clip.id: clip for clip in prepared.store.need_stage("ingest").groups["clips"]}
    seen = 0
    for split, folder in (("train", "train"), ("held", "validation")):
        rows = [json.loads(line) for line in (out / folder / "metadata.jsonl").read_text().splitlines()]
        mine = {f"{w.id}.mp4": w for w in windows if w.split == split}
        assert {row["file_name"] for row in rows} == set(mine) == {p.name for p in (out / folder).glob("*.mp4")}
        for row in rows:
            window = mine[row["file_name"]]
            assert (row["text"], row["scene"]) == (f"old film, {window.caption}", window.scene)
            assert row["source"] == f"{window.clip}.mp4" and row["timecode"].startswith(f"0{window.clip[1]}:00:00:0")
            path = out / folder / row["file_name"]
            facts = probe(path)
            assert (facts.rate, facts.frames, facts.width, facts.height) == (Fraction(16), 9, 48, 32)
            assert facts.colour.decided == "tagged bt709, limited range"
            error = np.abs(read_frames(path, range(9)) - read_window(prepared.root, clips[window.clip], window))
            assert error.max() < 2 / 255
            seen += 1
    assert seen == len(windows)
    with (out / "rights.csv").open(newline="") as file:
        assert {(row["owner"], row["licence"]) for row in csv.DictReader(file)} == {("me", "CC0-1.0")}
    assert main(["export", str(out), "--to", "dataset", "-C", str(prepared.root)]) == 2
    assert "is there already" in capsys.readouterr().err


def test_an_exported_dataset_can_be_prepared_again(prepared, tmp_path):
    """`file_name` and `text` of a Hugging Face VideoFolder are what we read, too."""
    out = tmp_path / "again" / "footage"
    assert main(["export", str(out), "--to", "dataset", "-C", str(prepared.root)]) == 0
    (out.parent / "cinetune.toml").write_text("[prepare]\nframes = 9\nheight = 32\nwidth = 48\n")
    again = Project(out.parent)
    ingest.run(again, Quiet())
    windows = prepare.run(again, Quiet()).groups["windows"]
    before = prepared.store.need_stage("prepare").groups["windows"]
    assert sorted(w.caption for w in windows) == sorted(f"old film, {w.caption}" for w in before)
    assert all(w.source_frames == tuple(range(9)) for w in windows)


def test_an_export_that_stops_half_way_leaves_no_half_dataset(prepared, tmp_path, capsys):
    last = prepared.store.need_stage("prepare").groups["windows"][-1].clip
    (prepared.root / "footage" / f"{last}.mp4").unlink()
    out = tmp_path / "out"
    assert main(["export", str(out), "--to", "dataset", "-C", str(prepared.root)]) == 2
    assert f"{last}.mp4" in capsys.readouterr().err
    assert not out.exists() and not list(tmp_path.glob(".partial-*"))


def test_a_dataset_needs_prepare_first(project, tmp_path, capsys):
    assert main(["export", str(tmp_path / "out"), "--to", "dataset", "-C", str(project.root)]) == 3
    assert "has not been run yet" in capsys.readouterr().err and not (tmp_path / "out").exists()


@pytest.mark.parametrize("letter", ["\\n", "\\r", "\\u2028", "\\u0085"])
def test_a_key_of_a_dataset_file_stays_a_comment(tmp_path, capsys, letter):
    """A line break in somebody's key would make its second line a setting of the new project."""
    _clips(tmp_path / "clips")
    key = f'"x{letter}[caption]{letter}backend=\\"http\\"{letter}base_url=\\"http://evil.example/v1\\"{letter}#" = 1\n'
    source = tmp_path / "set.toml"
    source.write_text(MUSUBI.format(folder=(tmp_path / "clips").as_posix()) + key)
    root = tmp_path / "film"
    assert main(["new", str(root), "--from", str(source)]) == 0
    _, origins = load_config(root / "cinetune.toml")
    assert (origins["caption.backend"], origins["caption.base_url"]) == ("default", "default")
    assert "evil.example" in (root / "cinetune.toml").read_text()  # it is said, in a comment
    assert all(line.isprintable() for line in capsys.readouterr().out.split("\n"))


def test_a_dataset_file_whose_own_name_has_a_line_break(tmp_path):
    _clips(tmp_path / "clips")
    source = tmp_path / "set\n[train]\nrank = 64\n#.toml"
    source.write_text(MUSUBI.format(folder=(tmp_path / "clips").as_posix()))
    assert main(["new", str(tmp_path / "film"), "--from", str(source)]) == 0
    assert load_config(tmp_path / "film" / "cinetune.toml")[0].train.rank == 8
