"""Prepare: windows by time, the right caption on the right shot, and scenes that never cross the split."""

from __future__ import annotations

import json
import shutil
from fractions import Fraction

import numpy as np
import pytest

from cinetune.errors import ConfigError, FootageError, StoreError
from cinetune.footage.video import read_window, write_video
from cinetune.runtime import Quiet
from cinetune.stages import ingest, prepare
from cinetune.store import Project
from films import FILM, counter, drift, write_counted

SETTINGS = "[prepare]\nframes = 9\nheight = 32\nwidth = 48\n"


@pytest.fixture(scope="module")
def ingested(tmp_path_factory):
    """Three clips of two 20-frame shots each, with captions, in a project with short windows."""
    root = tmp_path_factory.mktemp("ingested")
    (root / "footage").mkdir()
    (root / "cinetune.toml").write_text(SETTINGS)
    rows = []
    for number in range(3):
        shots = np.concatenate([drift(2 * number, 20), drift(2 * number + 1, 20)])
        write_video(root / "footage" / f"c{number}.mp4", shots, rate=FILM)
        rows += [{"file_name": f"c{number}.mp4", "text": f"shot {number}.{k}", "shot": k} for k in range(2)]
    (root / "footage" / "metadata.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    ingest.run(Project(root), Quiet())
    return root


@pytest.fixture
def film(ingested, tmp_path):
    """A copy of the ingested film to work on."""
    return shutil.copytree(ingested, tmp_path / "film")


def _rows(root, *rows):
    (root / "footage" / "metadata.jsonl").write_text("\n".join(json.dumps(row) for row in rows))


def test_windows_show_the_right_moments(tmp_path, report):
    """Frame numbers are read back from the pixels of the window itself."""
    (tmp_path / "footage").mkdir()
    (tmp_path / "cinetune.toml").write_text('[footage]\ndetector = "none"\n[prepare]\nheight = 48\nwidth = 80\n')
    write_counted(tmp_path / "footage" / "a.mp4", 60)
    (tmp_path / "footage" / "a.txt").write_text("a counter")
    project = Project(tmp_path)
    clip = ingest.run(project, report).groups["clips"][0]
    (window,) = prepare.run(project, report).groups["windows"]
    assert (window.rate, window.crop, window.caption, window.caption_source) == (
        Fraction(16),
        (0, 0, 80, 48),
        "a counter",
        "a.txt",
    )
    frames = read_window(tmp_path, clip, window)
    assert frames.shape == (33, 48, 80, 3) and frames.dtype == np.float32
    offset = 3  # 40 model frames fit in 60, 7 to spare
    assert [counter(frame) for frame in frames] == [int((k + offset) * FILM / 16 + Fraction(1, 2)) for k in range(33)]
    assert any(
        "24000/1001 fps resampled by time to 16: a window of 33 frames spans 49 source frames" in x
        for x in report.lines
    )


def test_every_shot_gets_its_own_caption_and_no_window_crosses_a_cut(film, report):
    windows = prepare.run(Project(film), report).groups["windows"]
    assert [(w.shot, w.caption) for w in windows] == [
        (f"c{n}_s00{k}", f"shot {n}.{k}") for n in range(3) for k in range(2)
    ]
    for window in windows:
        half = 0 if window.shot.endswith("0") else 20
        assert all(half <= index < half + 20 for index in window.source_frames)
        assert (window.width, window.height, window.crop) == (48, 32, (4, 0, 72, 48))


def test_whole_scenes_are_held_out_always_the_same(film, report):
    windows = prepare.run(Project(film), report).groups["windows"]
    split = {w.scene: w.split for w in windows}
    assert sorted(split) == ["c0", "c1", "c2"]
    assert sorted(split.values()) == ["held", "train", "train"]
    assert all(w.split == split[w.scene] for w in windows)
    assert prepare.run(Project(film), report).groups["windows"] == windows
    rows = [{"file_name": f"c{n}.mp4", "text": "x", "scene": "one" if n else "two"} for n in range(3)]
    _rows(film, *rows)
    quiet = Quiet()
    scenes = {(w.clip, w.scene, w.split) for w in prepare.run(Project(film), quiet).groups["windows"]}
    assert scenes == {("c0", "two", "train"), ("c1", "one", "train"), ("c2", "one", "train")}
    assert any("nothing is held out" in line for line in quiet.warnings)


def test_missing_captions_are_all_named(film, report):
    _rows(film, {"file_name": "c0.mp4", "text": "both"}, {"file_name": "c1.mp4", "text": "first only", "shot": 0})
    with pytest.raises(ConfigError, match="3 shots have no caption") as caught:
        prepare.run(Project(film), report)
    for name in ("c1.mp4 (c1_s001, from frame 20)", "c2.mp4 (c2_s000", "c2.mp4 (c2_s001"):
        assert name in caught.value.what
    windows = prepare.run(Project(film, overrides=("prepare.require_captions=false",)), report).groups["windows"]
    assert sum(w.caption == "" for w in windows) == 3
    assert "3 windows have no caption" in report.warnings


def test_captions_of_shots_that_were_not_found_are_refused(film, report):
    _rows(film, *({"file_name": "c0.mp4", "text": "x", "shot": k} for k in range(3)))
    with pytest.raises(ConfigError, match="captions shot 2 of c0; 2 shots were found"):
        prepare.run(Project(film), report)


def test_shots_too_short_for_a_window_are_told(film, report):
    with pytest.raises(FootageError, match="no shot is long enough: 33 frames at 16 fps need"):
        prepare.run(Project(film, overrides=("prepare.frames=33",)), report)


@pytest.mark.parametrize(
    ("override", "remedy"),
    [("prepare.height=0", "give both"), ("prepare.height=30", "prepare.height = 32 and prepare.width = 48")],
)
def test_sizes_the_model_cannot_take(film, report, override, remedy):
    with pytest.raises(ConfigError) as caught:
        prepare.run(Project(film, overrides=(override,)), report)
    assert remedy in caught.value.remedy


def test_more_windows_of_long_shots(film, report):
    overrides = ("prepare.frames=5", "prepare.max_windows_per_shot=4")
    windows = prepare.run(Project(film, overrides=overrides), report).groups["windows"]
    assert len(windows) == 24 and len({w.id for w in windows}) == 24


def test_ingest_comes_first(project, report):
    with pytest.raises(StoreError, match="ingest"):
        prepare.run(project, report)


def test_the_key_follows_captions_and_model(film):
    keys = set()
    for text, family in (("a", "pocket"), ("b", "pocket"), ("b", "wan21")):
        (film / "footage" / "c0.txt").write_text(text)
        project = Project(film, overrides=(f"model.family={family}",))
        key = project.input_key(
            "prepare", parents=prepare.PARENTS, sections=prepare.SECTIONS, inputs=prepare.inputs(project)
        )
        keys.add(key)
    assert len(keys) == 3
