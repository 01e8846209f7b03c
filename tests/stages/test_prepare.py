"""Prepare: windows by time, the right caption on the right shot, scenes and pictures that never cross the split, and
pages for people.
"""

from __future__ import annotations

import csv
import json
import re
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
        key = prepare.STAGE.key(project)
        keys.add(key)
    assert len(keys) == 3


def _run(root, *overrides):
    quiet = Quiet()
    return prepare.run(Project(root, overrides=overrides), quiet), quiet


def _split(record):
    return {w.clip: w.split for w in record.groups["windows"]}


def test_every_candidate_is_measured(film):
    record, _ = _run(film)
    windows, measures = record.groups["windows"], record.groups["measures"]
    assert [one.window for one in measures] == [w.id for w in windows]
    # one pixel of 72 in every 1/24 s, seen at 1/16 s, over edges that lie upright or flat
    assert all(20 < one.motion < 90 and 0 < one.sharpness < 1 and one.left_out == "" for one in measures)
    assert all(0.2 < one.brightness < 0.9 and one.black == 0 for one in measures)
    assert record.groups == Project(film).store.need_stage("prepare").groups


def test_a_second_run_decodes_nothing(film):
    _run(film)
    for clip in (film / "footage").glob("*.mp4"):
        clip.write_bytes(b"gone")
    record, _ = _run(film, 'prepare.trigger="x"')
    assert len(record.groups["windows"]) == 6


def test_still_windows_are_left_out_and_named(film):
    still = np.repeat(drift(9, 1), 40, axis=0)
    still[:, :8, :8] = np.linspace(0.2, 0.8, 40, dtype=np.float32)[:, None, None, None]
    write_video(film / "footage" / "still.mp4", still, rate=FILM)
    (film / "footage" / "still.txt").write_text("nothing moves")
    ingest.run(Project(film), Quiet())
    record, quiet = _run(film, "prepare.min_motion=10")
    assert "still" not in _split(record)
    gone = [one for one in record.groups["measures"] if one.left_out]
    assert [one.window.split("_")[0] for one in gone] == ["still"]
    assert any(
        "1 of 7 windows are left out" in line and "is under prepare.min_motion 10" in line for line in quiet.warnings
    )
    with pytest.raises(FootageError, match="no window is left; the first one: motion"):
        _run(film, "prepare.min_motion=1000")


def test_a_scene_gives_no_more_than_it_may(film):
    windows = ("prepare.frames=5", 'prepare.windows="all"')
    record, quiet = _run(film, *windows, "prepare.max_windows_per_scene=3")
    counts = [sum(w.scene == scene for w in record.groups["windows"]) for scene in ("c0", "c1", "c2")]
    assert counts == [3, 3, 3]
    assert {w.shot for w in record.groups["windows"]} == {f"c{n}_s00{k}" for n in range(3) for k in range(2)}
    assert any(re.search(r"c0 +3 +0\.9 s +(train|held out)", line) for line in quiet.lines)
    assert any("prepare.max_windows_per_scene is 3" in line for line in quiet.warnings)


def test_one_scene_with_most_of_the_windows_is_told(film):
    rows = [{"file_name": f"c{n}.mp4", "text": "x", "scene": "few" if n == 2 else "many"} for n in range(3)]
    _rows(film, *rows)
    _, quiet = _run(film, "prepare.held_fraction=0")
    assert any("scene 'many' has 4 of 6 training windows" in line for line in quiet.warnings)


@pytest.mark.parametrize(
    ("mode", "firsts"),
    [
        ("head", [[0]] * 6),
        ("slide", [[0, 3, 6, 9, 12]] * 6),
        ("all", [[0, 7]] * 6),
        ("uniform", [[0, 6, 13]] * 6),
    ],
)
def test_every_mode_reaches_the_record(film, mode, firsts):
    """Shots of 20 frames hold 14 at 16 fps; model frame k is source frame k * 1.4985."""
    settings = ["prepare.frames=5", f'prepare.windows="{mode}"']
    settings += {"slide": ["prepare.stride=2"], "uniform": ["prepare.max_windows_per_shot=3"]}.get(mode, [])
    record, _ = _run(film, *settings)
    found: dict[str, list[int]] = {}
    for window in record.groups["windows"]:
        start = 0 if window.shot.endswith("0") else 20
        found.setdefault(window.shot, []).append(window.source_frames[0] - start)
    assert list(found.values()) == firsts


def test_a_stride_that_would_mean_nothing_is_refused(film):
    with pytest.raises(ConfigError, match=r"prepare.stride = 2 means nothing") as caught:
        _run(film, "prepare.stride=2")
    assert 'prepare.windows = "slide"' in caught.value.remedy


@pytest.fixture
def leaking(film):
    """The film, with a graded, enlarged and mirrored copy of a held-out shot as a clip of its own."""
    held = next(clip for clip, split in _split(_run(film)[0]).items() if split == "held")
    copy = drift(2 * int(held[1]), 20)[:, 2:-2, 3:-3][:, :, ::-1]
    write_video(film / "footage" / "d9.mp4", np.clip(copy**0.8 * np.float32(1.05), 0, 1), rate=FILM, size=(120, 72))
    (film / "footage" / "d9.txt").write_text("a copy")
    ingest.run(Project(film), Quiet())
    record, quiet = _run(film, 'prepare.on_leak="warn"')
    assert {_split(record)[held], _split(record)["d9"]} == {"train", "held"}, "the copy must land on the other side"
    assert any("show the same picture" in line for line in quiet.warnings)
    return film, held


def test_a_copy_on_the_other_side_is_refused_by_name(leaking):
    root, held = leaking
    (root / "work" / "stages" / "prepare.json").unlink()
    with pytest.raises(FootageError, match="show the same picture") as caught:
        _run(root)
    error = caught.value
    assert f"{held}_s000_w00 (" in error.what and "d9_s000_w00 (" in error.what
    assert f"footage/{held}.mp4 at +00:00:00:0" in error.where and "footage/d9.mp4 at +00:00:00:0" in error.where
    assert 'the same "scene"' in error.remedy and 'prepare.on_leak = "move"' in error.remedy
    assert not (root / "work" / "stages" / "prepare.json").exists()
    page = (root / "work" / "prepare" / "sheet.html").read_text()
    assert "shows the same picture as d9_s000_w00" in page


def test_move_puts_both_on_one_side(leaking):
    root, held = leaking
    record, quiet = _run(root, 'prepare.on_leak="move"')
    split = _split(record)
    assert split[held] == split["d9"] and set(split.values()) == {"train", "held"}
    assert not any("Held-out numbers" in line for line in quiet.warnings)


def test_one_scene_name_for_both_mends_it(leaking):
    root, held = leaking
    clips = ("c0", "c1", "c2", "d9")
    _rows(root, *({"file_name": f"{c}.mp4", "text": "x", "scene": "one" if c in (held, "d9") else c} for c in clips))
    record, _ = _run(root)
    assert _split(record)[held] == _split(record)["d9"]


def test_the_sheet_shows_every_window_and_its_path_is_said(film):
    record, quiet = _run(film)
    path = film / "work" / "prepare" / "sheet.html"
    page = path.read_text()
    assert page.count('alt="First, middle and last') == len(record.groups["windows"]) == page.count("<figure")
    for window in record.groups["windows"]:
        assert window.id in page and window.caption in page
    assert any(str(path) in line for line in quiet.lines)


def test_the_ledger_says_who_owns_what(film):
    rows = [{"file_name": f"c{n}.mp4", "text": "x", "owner": "A, B & co", "licence": "all rights"} for n in range(2)]
    _rows(film, *rows, {"file_name": "c2.mp4", "text": "x", "consent": "signed", "document": "d.pdf"})
    ingest.run(Project(film), Quiet())
    record, quiet = _run(film)
    with (film / "work" / "prepare" / "rights.csv").open(newline="") as file:
        table = list(csv.DictReader(file))
    assert [(row["clip"], row["owner"], row["licence"], row["consent"], row["document"]) for row in table] == [
        ("c0", "A, B & co", "all rights", "", ""),
        ("c1", "A, B & co", "all rights", "", ""),
        ("c2", "", "", "signed", "d.pdf"),
    ]
    split = _split(record)
    for row in table:
        counts = (row["train windows"], row["held windows"])
        assert counts == (("2", "0") if split[row["clip"]] == "train" else ("0", "2"))
        assert len(row["sha256"]) == 64 and row["scenes"] == row["clip"]
    assert any("owner or licence of 1 clips is not stated (c2)" in line for line in quiet.lines)


def _take(film, name, frames):
    write_video(film / "footage" / f"{name}.mp4", frames, rate=FILM)
    (film / "footage" / f"{name}.txt").write_text("another take")
    ingest.run(Project(film), Quiet())


def test_a_shot_that_was_seen_before_is_told_and_kept(film):
    """A darker second take of c1's first shot, in the same scene, so that no leak is in question."""
    _take(film, "e9", drift(2, 20) * np.float32(0.8))
    rows = [{"file_name": f"{name}.mp4", "text": "x", "scene": "one"} for name in ("c0", "c1", "c2", "e9")]
    _rows(film, *rows)
    record, quiet = _run(film)
    assert len(record.groups["windows"]) == 7
    (same,) = [one for one in record.groups["measures"] if one.same_as]
    assert same.window == "e9_s000_w00" and same.same_as.startswith("c1_s000 (") and same.left_out == ""
    assert any(
        "1 of 7 shots repeats an earlier one and counts double" in x and "e9_s000 as c1_s000 (" in x
        for x in quiet.warnings
    )
    assert "shows the same picture as c1_s000 (" in (film / "work" / "prepare" / "sheet.html").read_text()


def test_a_shot_that_was_seen_before_is_left_out_when_asked_for(film):
    """Across scenes too: what is gone cannot leak."""
    _take(film, "e9", drift(2, 20) * np.float32(0.8))
    record, quiet = _run(film, 'prepare.duplicates="drop"')
    assert {w.clip for w in record.groups["windows"]} == {"c0", "c1", "c2"}
    (gone,) = [one for one in record.groups["measures"] if one.left_out]
    assert gone.window == "e9_s000_w00" and "c1_s000 (" in gone.left_out and 'duplicates is "drop"' in gone.left_out
    assert any("1 of 7 windows are left out" in x and "e9_s000_w00: shows the same" in x for x in quiet.warnings)
    assert {one.window for one in _run(film, "prepare.held_fraction=0")[0].groups["measures"] if one.same_as} == {
        "e9_s000_w00"
    }


def test_a_crop_is_said_and_drawn_over_the_full_frame(film, report):
    """80x48 is cut to 48x32: a tenth of the width goes. The sheet draws it once a clip, the console once a shape."""
    prepare.run(Project(film), report)
    said = [line for line in report.warnings if "of the width is cut for 48x32" in line]
    assert len(said) == 1 and said[0].startswith("3 clips of 1.67:1: 10% of the width")
    sheet = (film / "work" / "prepare" / "sheet.html").read_text()
    assert sheet.count('class="framing"') == 3
    assert "10 % of the width of this 1.67:1 picture is cut for 48×32." in sheet
    assert sheet.count("left:5.00%;top:0.00%;width:90.00%;height:100.00%") == 3


def test_a_size_that_fits_the_film_cuts_nothing(film, report):
    prepare.run(Project(film, overrides=("prepare.height=48", "prepare.width=80")), report)
    assert not any("is cut for" in line for line in report.warnings)
    assert 'class="framing"' not in (film / "work" / "prepare" / "sheet.html").read_text()


def test_shots_shorter_than_a_window_get_a_remedy(film, report):
    """20 frames at 23.976 hold 13 at 16 fps: 17 do not fit, 9 do."""
    write_video(film / "footage" / "long.mp4", drift(9, 60), rate=FILM)
    (film / "footage" / "long.txt").write_text("a long one")
    project = Project(film, overrides=("prepare.frames=33",))
    ingest.run(project, report)
    prepare.run(project, report)
    (said,) = [line for line in report.warnings if "shorter than a window" in line]
    assert said.startswith("6 of 7 shots are shorter than a window (2.00 s), not used")
    assert said.endswith("; prepare.frames=9 (0.50 s) takes 6 of them")
