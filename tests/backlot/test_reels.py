"""Reels: real footage in small, whose cuts, bars, captions and timecode are known exactly and found by ingest."""

from __future__ import annotations

import json
from fractions import Fraction

import numpy as np
import pytest

from cinetune.backlot import LOOKS, sample_scene
from cinetune.backlot.reels import shoot_reels
from cinetune.footage.edit.cutlists import read_cut_list, spans_of
from cinetune.footage.video import probe, read_frames
from cinetune.runtime import Quiet
from cinetune.stages import ingest, prepare
from cinetune.store import Project, sha256_file

RATE = Fraction(24000, 1001)
SIZE = {"height": 48, "width": 64, "letterbox": 8, "seconds": 0.9, "per_reel": 3}


@pytest.fixture(scope="module")
def reels(tmp_path_factory):
    rng = np.random.default_rng(3)
    scenes = [sample_scene(rng) for _ in range(5)]
    folder = tmp_path_factory.mktemp("film")
    look = next(iter(LOOKS.values()))
    return folder, scenes, look, shoot_reels(folder / "footage", scenes, look, **SIZE)


def test_reels_are_what_their_records_say(reels):
    folder, scenes, _, made = reels
    assert [reel.path.name for reel in made] == ["reel01.mp4", "reel02.mov"]
    assert [shot.scene for reel in made for shot in reel.shots] == scenes
    for reel, hour in zip(made, ("01", "02"), strict=True):
        facts = probe(reel.path)
        assert (facts.rate, facts.frames, facts.timecode) == (RATE, reel.frames, f"{hour}:00:00:00")
        assert facts.colour.decided == "tagged bt709, limited range"
        events = read_cut_list(reel.path.with_suffix(".edl"))
        assert events is not None
        spans, _ = spans_of(events, rate=RATE, frames=reel.frames, timecode=reel.timecode)
        assert spans == [(shot.clean_start, shot.clean_end) for shot in reel.shots]
    rows = [json.loads(line) for line in (folder / "footage" / "metadata.jsonl").read_text().splitlines()]
    assert [row["text"] for row in rows] == [shot.caption for reel in made for shot in reel.shots]


def test_there_are_bars_and_one_fade_to_black(reels):
    _, _, _, made = reels
    first, second, third = made[0].shots
    black = read_frames(made[0].path, [first.end, first.end + 1])
    assert black.max() < 0.02 and second.start - first.end == 4
    assert third.start == second.end and first.clean_end == first.end - 8 and second.clean_start == second.start + 8
    picture = read_frames(made[0].path, [5])[0]
    assert picture[:6].max() < 0.03 and picture[-6:].max() < 0.03 and picture[8:-8].mean() > 0.05


def test_ingest_finds_the_same_shots_with_and_without_the_edl(reels):
    folder, _, _, made = reels
    (folder / "cinetune.toml").write_text("[prepare]\nframes = 9\n")
    truth = [(shot.clean_start, shot.clean_end) for reel in made for shot in reel.shots]
    for source in ("edl", "adaptive"):
        project = Project(folder)
        record = ingest.run(project, Quiet())
        assert [(shot.span.start, shot.span.end) for shot in record.groups["shots"]] == truth
        assert {shot.source for shot in record.groups["shots"]} == {source}
        assert {clip.bars for clip in record.groups["clips"]} == {(0, 8, 64, 48)}
        windows = prepare.run(project, Quiet()).groups["windows"]
        captions = sorted((shot.scene_id, shot.caption) for reel in made for shot in reel.shots)
        assert sorted((window.scene, window.caption) for window in windows) == captions
        for path in (folder / "footage").glob("*.edl"):
            path.unlink()


def test_the_same_arguments_write_the_same_files(reels, tmp_path):
    _, scenes, look, made = reels
    again = shoot_reels(tmp_path, scenes, look, **SIZE)
    assert [sha256_file(reel.path) for reel in again] == [sha256_file(reel.path) for reel in made]
    (neutral,) = shoot_reels(tmp_path / "neutral", scenes[:1], None, **SIZE)
    assert np.abs(read_frames(neutral.path, [0]) - read_frames(made[0].path, [0])).mean() > 0.01
