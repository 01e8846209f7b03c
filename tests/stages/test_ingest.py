"""Ingest: every file gets a verdict, shots are exact, and a second run decodes nothing."""

from __future__ import annotations

import json
import os
import unicodedata
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest

from cinetune import pipeline
from cinetune.artifacts import Window
from cinetune.errors import ConfigError, FootageError
from cinetune.footage import video
from cinetune.footage.edit.edl import EdlCut, write_edl
from cinetune.footage.read import decode
from cinetune.footage.video import read_frames, write_video
from cinetune.runtime import Quiet
from cinetune.stages import ingest
from cinetune.store import Project, sha256_file
from films import FILM, counter, drift, write_counted, write_sound, write_tagged
from reels import leaders


def write_two_shots(path, *, timecode="01:00:00:00"):
    """30 + 30 frames, 80x48 inside a letterbox of 80x64."""
    film = np.concatenate([drift(1, 30), drift(2, 30)])
    write_video(path, np.pad(film, ((0, 0), (8, 8), (0, 0), (0, 0))), rate=FILM, timecode=timecode)


def test_a_clip_is_cut_measured_and_told(project, report):
    write_two_shots(project.root / "footage" / "castle.mp4")
    record = ingest.run(project, report)
    (clip,) = record.groups["clips"]
    assert (clip.id, clip.path, clip.rate, clip.frames) == ("castle", "footage/castle.mp4", FILM, 60)
    assert (clip.bars, clip.timecode) == ((0, 8, 80, 48), "01:00:00:00")
    shots = [(s.id, s.clip, s.span.start, s.span.frames, s.span.rate, s.source) for s in record.groups["shots"]]
    assert shots == [
        ("castle_s000", "castle", 0, 30, FILM, "adaptive"),
        ("castle_s001", "castle", 30, 30, FILM, "adaptive"),
    ]
    table = report.lines[0]
    for word in ("footage/castle.mp4", "80x64", "24000/1001", "60", "80x48+0+8", "tagged bt709, limited range"):
        assert word in table
    assert project.store.load_stage("ingest") == record


def test_what_speaks_of_no_film_is_said(project, report):
    write_two_shots(project.root / "footage" / unicodedata.normalize("NFC", "bürg.mp4"))
    table = project.root / "footage" / "metadata.csv"
    table.write_text("file_name,text\nbürg.mp4,a castle\nbrüg.mp4,a typing error\n")
    rules = [
        f'[[footage.colour]]\nmatch = "{name}"\nlevels = "full"\n'
        for name in (unicodedata.normalize("NFD", "bürg*"), "*.mxf")
    ]
    record = ingest.run(write_settings(project, "".join(rules)), report)
    (words,) = [text for text in report.warnings if "answers to" in text]
    assert words.splitlines()[1:] == [
        "  metadata.csv, line 3: 'brüg.mp4' is no film here",
        '  cinetune.toml, footage.colour: match = "*.mxf" fits no file',
    ]
    assert record.groups["clips"][0].colour.full_range, "a pattern is compared in one Unicode form"


def test_bad_files_are_listed_and_the_batch_goes_on(project, report):
    folder = project.root / "footage"
    write_two_shots(folder / "good.mp4")
    (folder / "text.mp4").write_text("not a film")
    (folder / "empty.mov").write_bytes(b"")
    write_counted(folder / "three.mp4", 3)
    (folder / "half.mp4").write_bytes((folder / "good.mp4").read_bytes()[:-2000])
    (folder / "twin.mp4").write_bytes((folder / "good.mp4").read_bytes())
    write_sound(folder / "sound.m4a")
    write_tagged(folder / "black.mp4", [np.zeros((48, 80, 3), np.float32)] * 24, tags=(1, 1, 1, 1))
    (folder / "notes.txt").write_text("a caption is not footage")
    record = ingest.run(project, report)
    reasons = {row.path.removeprefix("footage/"): row.reason for row in record.groups["rejected"]}
    assert [clip.id for clip in record.groups["clips"]] == ["good"]
    assert sorted(reasons) == ["black.mp4", "empty.mov", "half.mp4", "sound.m4a", "text.mp4", "three.mp4", "twin.mp4"]
    assert "no usable shot (24 black frames)" in reasons["black.mp4"]
    assert "too short: 3 frames, 0.13 s of the 0.5 s" in reasons["three.mp4"]
    assert "truncated" in reasons["half.mp4"]
    assert reasons["twin.mp4"] == "the same bytes as footage/good.mp4"
    assert report.lines[0].count("REFUSED") == 7


@pytest.mark.parametrize(("make", "words"), [(False, "does not exist"), (True, "is empty")])
def test_no_footage_at_all(project, report, make, words):
    (project.root / "footage").rmdir()
    if make:
        (project.root / "footage").mkdir()
        (project.root / "footage" / "readme.txt").write_text("later")
    with pytest.raises(FootageError, match=words):
        ingest.run(project, report)
    assert project.store.load_stage("ingest") is None


def test_nothing_usable_says_every_reason(project, report):
    (project.root / "footage" / "a.mp4").write_text("x")
    (project.root / "footage" / "b.mov").write_bytes(b"")
    with pytest.raises(FootageError, match=r"(?s)a\.mp4: not a video.*b\.mov: the file is empty"):
        ingest.run(project, report)


def cut_at(*spans, rate=FILM, hour=10, reel="R"):
    """Events of an EDL over [start, end) frames from HOUR:00:00:00."""
    origin = hour * 3600 * round(rate)
    return [
        EdlCut(name=f"s{start}", reel=reel, source=origin + start, record=origin + start, frames=end - start)
        for start, end in spans
    ]


def test_an_edl_beside_the_clip_decides_the_shots(project, report):
    path = project.root / "footage" / "reel.mp4"
    write_two_shots(path, timecode="10:00:00:00")
    write_edl(path.with_suffix(".edl"), cut_at((2, 28), (32, 58), (50, 90)), title="t", rate=FILM)
    record = ingest.run(project, report)
    shots = record.groups["shots"]
    assert [(s.span.start, s.span.end, s.source) for s in shots] == [(2, 28, "edl"), (32, 58, "edl")]
    (clip,) = record.groups["clips"]
    assert "cut by reel.edl: 2 events; left out 003: outside the file" in clip.notes[0]
    assert "footage/reel.edl" in report.lines[0] and "3 events, 3 matched to 1 files" in record.notes[0]
    path.with_suffix(".edl").write_text("broken\n001 x")
    with pytest.raises(FootageError, match="EDL"):
        ingest.run(project, report)


def test_a_list_is_laid_over_the_finished_film_or_refused(project, report):
    """Source hour 7 is nowhere; the film runs from hour 10, as the list's record time does."""
    path = project.root / "footage" / "final.mp4"
    write_two_shots(path, timecode="10:00:00:00")
    edits = [replace(edit, source=7 * 86400 + k) for k, edit in enumerate(cut_at((0, 12), (12, 40), (40, 60)))]
    write_edl(path.with_name("conform.edl"), edits, title="t", rate=FILM)
    record = ingest.run(project, report)
    assert [(s.span.start, s.span.end, s.source) for s in record.groups["shots"]] == [
        (0, 12, "edl"), (12, 40, "edl"), (40, 60, "edl"),
    ]  # fmt: skip
    assert "laid over final.mp4 by record time" in record.notes[0]
    off = [replace(edit, record=edit.record - 86400) for edit in edits]
    write_edl(path.with_name("conform.edl"), off, title="t", rate=FILM)
    record = ingest.run(project, report)
    (refused,) = record.groups["rejected"]
    assert refused.path == "footage/conform.edl" and "final.mp4: 001 is outside the file (09:00:00:00" in refused.reason
    assert {shot.source for shot in record.groups["shots"]} == {"adaptive"}


def test_one_edl_cuts_many_files_and_the_others_are_detected(project, report):
    folder = project.root / "footage"
    for hour, name in ((1, "day1/A001.mp4"), (2, "day2/A002.mp4")):
        (folder / name).parent.mkdir()
        write_counted(folder / name, 60, timecode=f"{hour:02d}:00:00:00")
    write_two_shots(folder / "castle.mp4")
    cuts = [*cut_at((3, 33), hour=1, reel="A001"), *cut_at((5, 20), (10, 40), hour=2, reel="A002")]
    cuts += cut_at((0, 30), hour=9, reel="A002")
    write_edl(folder / "edit.edl", cuts, title="t", rate=FILM)
    (folder / "broken.otio").write_text("{}")
    first = ingest.run(project, report)
    found = [(shot.clip, shot.span.start, shot.span.end, shot.source) for shot in first.groups["shots"]]
    assert found == [
        ("castle", 0, 30, "adaptive"), ("castle", 30, 60, "adaptive"), ("A001", 3, 33, "edl"), ("A002", 5, 40, "edl"),
    ]  # fmt: skip
    for clip, start, end, _ in found[2:]:
        path = next(item.path for item in first.groups["clips"] if item.id == clip)
        frames = read_frames(project.root / path, [start, end - 1])
        assert [counter(frame) for frame in frames] == [start, end - 1]
    notes = {clip.id: " | ".join(clip.notes) for clip in first.groups["clips"]}
    assert "1 events repeat or overlap others" in notes["A002"]
    assert "left out 004: outside the file (09:00:00:00" in notes["A002"]
    assert [row.path for row in first.groups["rejected"]] == ["footage/broken.otio"]
    assert {"footage/edit.edl", "footage/broken.otio"} <= ingest.inputs(project).keys()
    write_edl(folder / "edit.edl", cuts[:1], title="t", rate=FILM)
    again = ingest.run(project, Quiet())
    assert again.input_key != first.input_key
    assert [shot.source for shot in again.groups["shots"] if shot.clip == "A002"] == ["adaptive"] * sum(
        shot.clip == "A002" for shot in again.groups["shots"]
    )


def test_settings_matter(tmp_path, report):
    (tmp_path / "footage").mkdir()
    (tmp_path / "cinetune.toml").write_text('[footage]\ndetector = "none"\ncrop_bars = false\n')
    write_two_shots(tmp_path / "footage" / "a.mp4")
    record = ingest.run(Project(tmp_path), report)
    assert [(s.span.start, s.span.end, s.source) for s in record.groups["shots"]] == [(0, 60, "whole")]
    assert record.groups["clips"][0].bars == (0, 0, 80, 64)


def test_strict_rights_refuse_what_nobody_owns(tmp_path, report):
    (tmp_path / "footage").mkdir()
    (tmp_path / "cinetune.toml").write_text("[footage]\nstrict_rights = true\n")
    for number, name in enumerate(("mine", "found")):
        write_video(tmp_path / "footage" / f"{name}.mp4", drift(number, 14), rate=FILM)
    row = {"file_name": "mine.mp4", "text": "x", "owner": "Studio", "licence": "all rights reserved"}
    (tmp_path / "footage" / "metadata.jsonl").write_text(json.dumps(row))
    record = ingest.run(Project(tmp_path), report)
    assert [(clip.id, clip.rights.owner) for clip in record.groups["clips"]] == [("mine", "Studio")]
    assert record.groups["rejected"][0].reason == "its owner and licence are not stated"


def test_names_are_unique_and_safe(project, report):
    for number, name in enumerate(("a/x y.mp4", "b/x y.mp4", "x.mp4", "x.mov")):
        path = project.root / "footage" / name
        path.parent.mkdir(exist_ok=True)
        write_video(path, drift(number, 14), rate=FILM)
    ids = {clip.path.removeprefix("footage/"): clip.id for clip in ingest.run(project, report).groups["clips"]}
    assert ids == {"a/x y.mp4": "a_x_y", "b/x y.mp4": "b_x_y", "x.mov": "x.mov", "x.mp4": "x.mp4"}


def test_a_second_run_decodes_nothing_and_finds_the_same(project, monkeypatch):
    write_two_shots(project.root / "footage" / "a.mp4")
    first = ingest.run(project, Quiet())

    def refuse(*arguments, **options):
        raise AssertionError("a file was opened again")

    monkeypatch.setattr(decode.av, "open", refuse)
    again = ingest.run(project, Quiet())
    assert (again.output_sha, again.input_key) == (first.output_sha, first.input_key)
    monkeypatch.undo()
    write_two_shots(project.root / "footage" / "b.mp4", timecode="02:00:00:00")
    assert ingest.inputs(project).keys() == {"footage/a.mp4", "footage/b.mp4"}
    assert ingest.run(project, Quiet()).input_key != first.input_key


def test_bytes_are_read_again_only_where_something_was_written(project, monkeypatch):
    """`status` and `plan` ask what changed; a film of some hours must not be read for that."""
    film = project.root / "footage" / "a.mp4"
    write_two_shots(film, timecode="01:00:00:00")
    monkeypatch.setattr("cinetune.store._CLOCK_GRAIN", -(10**15))  # as if it had been written long ago
    first = ingest.run(project, Quiet())
    read = []
    monkeypatch.setattr(ingest, "source_sha256", lambda path: read.append(path) or sha256_file(path))

    def row():
        return pipeline.status(Project(project.root))[0].state

    assert row() == "done" and read == []
    assert ingest.run(Project(project.root), Quiet()).input_key == first.input_key
    assert read == [film], "what is ingested is always read"
    stat = film.stat()
    film.write_bytes(film.read_bytes()[:-1] + b"x")
    os.utime(film, ns=(stat.st_atime_ns, stat.st_mtime_ns))  # same size, same time of change as told
    assert row() == "stale" and read == [film, film]
    (project.root / "work" / "hashes.json").write_text("[[")
    assert row() == "stale" and len(read) == 3, "a damaged table is none"


def test_what_was_written_a_moment_ago_is_not_trusted_by_its_time(project, monkeypatch):
    write_two_shots(project.root / "footage" / "a.mp4", timecode="01:00:00:00")
    monkeypatch.setattr("cinetune.store._CLOCK_GRAIN", 10**15)
    ingest.run(project, Quiet())
    read = []
    monkeypatch.setattr(ingest, "source_sha256", lambda path: read.append(path) or sha256_file(path))
    assert pipeline.status(Project(project.root))[0].state == "done" and len(read) == 1


def write_settings(project, text):
    (project.root / "cinetune.toml").write_text(f'[footage]\nsequence_rate = "25"\n{text}', encoding="utf-8")
    return Project(project.root)


def test_colour_is_stated_per_clip_or_folder_and_told(project, report):
    """A log clip, a folder through a LUT, an HDR clip by its tags, and a plain one; the windows show the difference."""
    pytest.importorskip("PyOpenColorIO")
    folder = project.root / "footage"
    (folder / "reel").mkdir()
    for number, name in enumerate(("A001.mp4", "reel/b.mp4", "hdr.mp4", "plain.mp4")):
        tags = (9, 9, 16, 1) if name == "hdr.mp4" else (1, 1, 1, 1)
        write_tagged(folder / name, drift(number, 24), tags=tags)
    swapped = "\n".join(f"{b} {g} {r}" for b in (0, 1) for g in (0, 1) for r in (0, 1))
    (project.root / "film.cube").write_text(f"LUT_3D_SIZE 2\n{swapped}\n")
    log = '[[footage.colour]]\nmatch = "A*.mp4"\nspace = "LogC3"\n'
    reel = '[[footage.colour]]\nmatch = "reel/*"\nlut = "film.cube"\n'
    project = write_settings(project, log + reel)
    record = ingest.run(project, report)
    clips = {clip.id: clip for clip in record.groups["clips"]}
    assert {name: (clip.colour.space, clip.colour.lut) for name, clip in clips.items()} == {
        "A001": ("LogC3", ""),
        "b": ("", "film.cube"),
        "hdr": ("PQ", ""),
        "plain": ("", ""),
    }
    table = report.lines[0]
    for words in ("LogC3 (stated)", "through the LUT film.cube (stated)", "tagged PQ: tone-mapped to SDR"):
        assert words in table
    shot = next(shot for shot in record.groups["shots"] if shot.clip == "b")
    window = Window(
        id="w",
        shot=shot.id,
        clip="b",
        scene="b",
        split="train",
        source_frames=(3,),
        rate=FILM,
        crop=(0, 0, 80, 48),
        width=80,
        height=48,
        caption="",
        caption_source="none",
    )
    got = video.read_window(project.root, clips["b"], window)[0]
    assert np.abs(got - drift(1, 24)[3][..., ::-1])[4:-4, 4:-4].max() < 0.02
    before = ingest.inputs(project)
    digest = sha256_file(project.root / "film.cube")[:8]
    assert clips["b"].colour.decided.endswith(f"film.cube (stated), sha256 {digest}")  # what caches are keyed by
    (project.root / "film.cube").write_text("LUT_3D_SIZE 2\n" + "0.5 0.5 0.5\n" * 8)
    assert ingest.inputs(project) != before
    again = ingest.run(project, report)
    assert "b" not in {clip.id for clip in again.groups["clips"]}  # one grey: a frozen shot now


def test_traps_are_notes_and_one_refusal_does_not_stop_the_rest(project, report):
    """Varying rate, a LUT that is not there, interlace: each its row."""
    folder = project.root / "footage"
    frames = drift(1, 40)
    write_tagged(folder / "phone.mp4", frames, tags=(1, 1, 1, 1), stamps=[k + (k > 20) for k in range(40)])
    write_tagged(folder / "graded.mp4", drift(2, 30), tags=(1, 1, 1, 1))
    moving = np.stack([np.roll(frame, 3 * k, axis=1) for k, frame in enumerate(np.repeat(drift(3, 40), 2, axis=0))])
    moving = np.repeat(moving, 2, axis=1)  # enough lines to tell
    woven = moving[::2].copy()
    woven[:, 1::2] = moving[1::2, 1::2]
    write_tagged(folder / "tape.mp4", woven, tags=(1, 1, 1, 1), rate=Fraction(25))
    project = write_settings(project, '[[footage.colour]]\nmatch = "graded.mp4"\nlut = "gone.cube"\n')
    record = ingest.run(project, report)
    (clip,) = record.groups["clips"]
    assert clip.id == "phone" and clip.reading.by_time and clip.frames == 41
    assert "read at a constant 24000/1001 fps" in clip.notes[0] and clip.notes[0] in " ".join(report.lines[0].split())
    reasons = {row.path: row.reason for row in record.groups["rejected"]}
    assert "gone.cube is not there" in reasons["footage/graded.mp4"]
    assert reasons["footage/tape.mp4"].startswith("it is interlaced")
    project = write_settings(project, 'interlaced = "bwdif"\n')
    clips = {clip.id: clip for clip in ingest.run(project, report).groups["clips"]}
    assert clips["tape"].reading.fields == "bwdif" and "deinterlaced with bwdif" in clips["tape"].notes[0]


def test_a_wrong_colour_rule_is_told_before_anything_is_read(project):
    for text, words in (
        ('spce = "PQ"', "spce"),
        ('space = "SLog9"', "footage.colour"),
        ('levels = "video"', "limited"),
    ):
        with pytest.raises(ConfigError, match=words):
            write_settings(project, f'[[footage.colour]]\nmatch = "*"\n{text}\n')


def test_a_slate_goes_with_its_name_or_stays_with_a_note(project, report):
    write_video(project.root / "footage" / "reel.mp4", leaders.with_bars(), rate=FILM)
    record = ingest.run(project, report)
    assert [(s.span.start, s.span.end, s.notes) for s in record.groups["shots"]] == [(24, 40, ())]
    assert record.groups["clips"][0].notes == ("left out: colour bars 0..23",)
    assert "left out: colour bars 0..23" in report.lines[0]
    kept = ingest.run(Project(project.root, overrides=('footage.slates="keep"',)), report).groups
    assert [(s.span.start, s.notes) for s in kept["shots"]] == [(0, ("colour bars",)), (24, ())]


def test_a_burn_in_is_measured_against_the_setting(project, report):
    film = leaders.over(leaders.timecode_window)
    write_video(project.root / "footage" / "rush.mp4", film, rate=FILM)
    loose = "footage.min_shot_seconds=0.3"
    noted = ingest.run(Project(project.root, overrides=(loose,)), report).groups
    assert len(noted["shots"]) == 10
    assert all("burnt in over" in shot.notes[0] and "% of the picture" in shot.notes[0] for shot in noted["shots"])
    assert report.lines[-2].count("burnt in over") == 1
    with pytest.raises(FootageError, match="burnt in over") as caught:
        ingest.run(Project(project.root, overrides=(loose, "footage.max_burn_in=0.01")), report)
    assert "footage.max_burn_in" in caught.value.remedy


def test_a_guessed_colour_comes_with_the_lines_that_say_it(project, report):
    """What is printed can be pasted as it is, and then nothing is guessed."""
    write_tagged(project.root / "footage" / "bare.mp4", drift(1, 40), tags=(2, 2, 2, 0))
    write_tagged(project.root / "footage" / "said.mp4", drift(2, 40), tags=(1, 1, 1, 1))
    ingest.run(project, report)
    (said,) = [line for line in report.warnings if "do not say their colour" in line]
    assert said.startswith("1 of 2 clips")
    project = write_settings(project, "\n".join(line.strip() for line in said.splitlines()[1:]))
    quiet = Quiet()
    ingest.run(project, quiet)
    assert not any("do not say their colour" in line for line in quiet.warnings)
