"""VBench's layout out, its results in: paired by shot, and refused when they are of other videos."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cinetune.errors import ScoreError
from cinetune.report.vbench import compared, write_videos
from cinetune.results import Expanded
from cinetune.store import Project


def results(out: Path, arm: str, value: float, *, name: str = "{}") -> None:
    videos = [
        {"video_path": name.format(path.as_posix()), "video_results": value + 0.1 * number}
        for number, path in enumerate(sorted((out / arm).glob("*.mp4")))
    ]
    body = {"motion_smoothness": [value, videos]}
    (out / arm / "results_1_eval_results.json").write_text(json.dumps(body))


def test_videos_and_prompts_go_out_and_results_come_back(salt_road: Project, tmp_path: Path) -> None:
    out = tmp_path / "vbench"
    count = write_videos(salt_road, out)
    sequences = salt_road.store.need(Expanded).sequences
    assert count == len(sequences) == len(list(out.rglob("*.mp4")))
    prompts = json.loads((out / "look" / "prompts.json").read_text())
    plan = {shot.id: shot.prompt for shot in salt_road.shots().shots}
    assert prompts == {f"{shot}-0.mp4": prompt for shot, prompt in plan.items()}
    with pytest.raises(ScoreError, match="no VBench results"):
        compared(salt_road, out)
    results(out, "base", 0.5)
    results(out, "look", 0.75)
    head, *rows = compared(salt_road, out)
    assert head[0] == "dimension"
    assert {(row[0], row[1], row[3]) for row in rows} == {("motion_smoothness", "look - base", "+0.250")}
    assert [row[2] for row in rows] == ["in", "out"]


def test_results_of_other_videos_are_refused(salt_road: Project, tmp_path: Path) -> None:
    out = tmp_path / "vbench"
    write_videos(salt_road, out)
    results(out, "look", 0.75, name="other.mp4{}x")
    with pytest.raises(ScoreError, match="not VBench results of these videos"):
        compared(salt_road, out)
    (out / "look" / "results_1_eval_results.json").write_text("[1, 2]")
    with pytest.raises(ScoreError):
        compared(salt_road, out)
    results(out, "look", 0.75)
    path = out / "look" / "results_1_eval_results.json"
    body = json.loads(path.read_text())
    for odd in ("nan", "-inf", None, [], "1e999", {}):
        body["motion_smoothness"][1][0]["video_results"] = odd
        path.write_text(json.dumps(body))
        with pytest.raises(ScoreError, match="not VBench results"):
            compared(salt_road, out)
