"""The score stage on shots with a planted grade: it reads film, truth and masters, and says what was planted."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from cinetune.artifacts import Arm, FileRef, Scorecard, Segment, Sequence, Timing
from cinetune.errors import ConfigError
from cinetune.footage.video import write_video
from cinetune.metrics.design import declared
from cinetune.models.wan import pocket
from cinetune.runtime import Quiet
from cinetune.stages import score
from cinetune.store import Project, StageRecord
from small_project import HEIGHT, RATE, WIDTH, make_project, moving_picture, provenance_of

INSIDE = 8


def shoot(project: Project, *, look_warmth: float) -> None:
    """Masters by hand: base neutral, look warmed, both with small seed-dependent grain; two seeds of every shot."""
    made = []
    arms: tuple[tuple[Arm, float], ...] = (("base", 0.0), ("look", look_warmth))
    for arm, warmth in arms:
        for number, shot in enumerate(project.shots().shots):
            for seed in (0, 1):
                grain = np.random.default_rng([number, seed, arm == "look"]).normal(0, 0.01, (9, HEIGHT, WIDTH, 3))
                film = np.clip(moving_picture(number, warmth=warmth) + grain, 0, 1)
                with project.store.new_object(".safetensors") as (path, done):
                    save_file({"frames_THWC": np.rint(film * 65535).astype(np.uint16)}, path)
                made.append(
                    Sequence(
                        shot=shot.id,
                        arm=arm,
                        seed=seed,
                        domain=shot.domain,
                        rate=RATE,
                        frames=9,
                        width=WIDTH,
                        height=HEIGHT,
                        segments=(Segment(first_frame=0, frames=9, seed=seed),),
                        seam_ratio=None,
                        drift=1.0 + number,
                        video=done[0],
                        proxy=FileRef(path="none", sha256=""),
                        keyframe="",
                        timing=Timing(devices=1, wall_seconds=0, peak_gib=None),
                        provenance=provenance_of(),
                    )
                )
    project.store.save_stage("expand", "test", {"sequences": made}, made=provenance_of())


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight shots inside the film's domain with a warm truth, two outside without."""
    root = make_project(tmp_path_factory.mktemp("score") / "p", shots=2 * INSIDE, film=4)
    text = (root / "shots.toml").read_text()
    (root / "truth").mkdir()
    for number in range(2 * INSIDE):
        if number % 2 == 0:
            # twice the rate: the stage must pick its frames by time
            doubled = np.repeat(moving_picture(number, warmth=0.12), 2, axis=0)
            write_video(root / "truth" / f"sh{number}.mp4", doubled, rate=2 * RATE)
            text = text.replace(f'id = "sh{number}"\n', f'id = "sh{number}"\ntruth = "truth/sh{number}.mp4"\n')
    kept = text.split("[[shot]]")
    outside = [part for part in kept[1:] if 'domain = "out"' in part][:2]
    inside = [part for part in kept[1:] if 'domain = "in"' in part]
    (root / "shots.toml").write_text("".join("[[shot]]" + part for part in inside + outside))
    shoot(Project(root), look_warmth=0.12)
    return root


@pytest.fixture(scope="module")
def scored(template: Path) -> tuple[Project, StageRecord]:
    project = Project(template)
    with pytest.MonkeyPatch.context() as patch:
        # Nothing of the pocket may be read for another family.
        patch.setattr(pocket, "weights_folder", lambda: Path("/nowhere"))
        return project, score.run(project, Quiet())


def card(record: StageRecord, domain: str) -> Scorecard:
    return next(c for c in record.groups["scorecards"] if c.domain == domain)


def effect(found: Scorecard, metric: str):
    return next(s for s in found.effects if s.metric == metric)


def test_the_planted_grade_is_found(scored: tuple[Project, StageRecord]) -> None:
    inside = card(scored[1], "in")
    assert inside.shots == tuple(f"sh{n}" for n in range(0, 2 * INSIDE, 2)) and inside.seeds == (0, 1)
    assert effect(inside, "colour_error").verdict == "improved"
    for metric in ("lab_frechet", "split_tone"):
        found = effect(inside, metric)
        assert not found.verdict and found.q is not None and found.q < 0.05 and (found.high or 0) < 0, metric
    assert effect(inside, "colour_error").p == pytest.approx(2 / 256)
    assert inside.levels["colour_error"]["base"] > 2 * inside.levels["colour_error"]["look"]  # type: ignore[operator]
    assert effect(inside, "drift").value == 0
    assert effect(inside, "seam_ratio").why == "the shots are one segment long"
    assert "4 training scenes, at least 6 are needed" in effect(inside, "clip_kid_film").why
    assert "4 training scenes" in effect(inside, "clip_fid_film").why
    assert effect(inside, "clip_reference").n == INSIDE
    assert effect(inside, "clip_kid").n == INSIDE and effect(inside, "clip_fid").value is not None


def test_truth_floor_and_ceiling_stand_beside_the_arms(scored: tuple[Project, StageRecord]) -> None:
    levels = card(scored[1], "in").levels
    assert {"base", "look", "floor", "ceiling", "a_a"} <= levels["lpips"].keys()
    assert {"truth", "film"} <= levels["lab_frechet"].keys()
    assert levels["still"]["truth"] < 0.2  # type: ignore[operator]
    # frozen first frame: right colours, no motion
    assert levels["motion_error"]["ceiling"] > 0.5  # type: ignore[operator]
    assert levels["colour_error"]["ceiling"] < levels["colour_error"]["base"]  # type: ignore[operator]
    outside = card(scored[1], "out").levels
    assert "floor" not in outside["lpips"]


def test_outside_two_shots_allow_no_verdict(scored: tuple[Project, StageRecord]) -> None:
    outside, both = card(scored[1], "out"), card(scored[1], "both")
    assert {s.verdict for s in outside.effects} <= {"", "cannot tell"}
    assert effect(outside, "colour_error").why == "no truth is known for these shots"
    assert effect(both, "colour_error").why == "measured in one domain only"
    assert any("2 shots in domain `out`" in warning for warning in outside.warnings)


def test_the_protocol_says_how_and_names_the_networks(scored: tuple[Project, StageRecord]) -> None:
    project, record = scored
    protocol = card(record, "in").protocol
    assert protocol["features"].startswith("own: image encoder of wan21")
    assert protocol["references"].startswith(f"in: {INSIDE} truths of the shots")
    assert protocol["frames"] == "9 at 16 fps, 48x32" and "4 training windows" in protocol["film"]
    assert len(protocol["hash"]) == 32
    assert any("colour_error improved" in note for note in record.notes)
    assert record.input_key == score.STAGE.key(project)
    assert set(score.inputs(project)) == {
        "shots.toml",
        "measures",
        *(f"truth/sh{n}.mp4" for n in range(0, 2 * INSIDE, 2)),
    }


def test_without_clip_and_with_one_seed_it_says_what_is_missing(
    template: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = Path(shutil.copytree(template, tmp_path / "p"))
    project = Project(root)
    text = (root / "shots.toml").read_text()
    (root / "shots.toml").write_text("\n".join(line for line in text.splitlines() if not line.startswith("truth")))
    record = project.store.need_stage("expand")
    one = [s for s in record.groups["sequences"] if s.seed == 0 and s.domain == "in"]
    one += [replace(s, arm="plain") for s in one if s.arm == "base"]
    project.store.save_stage("expand", "test", {"sequences": one}, made=record.provenance)
    monkeypatch.setattr(pocket, "weights_folder", lambda: tmp_path / "nowhere")
    found = score.run(project, Quiet()).groups["scorecards"]
    assert [(c.arm, c.versus, c.domain) for c in found] == [
        ("look", "base", "in"),
        ("plain", "base", "in"),
        ("look", "plain", "in"),
    ]
    assert (effect(found[0], "lab_frechet").high or 0) < 0
    assert effect(found[1], "lab_frechet").value == 0
    assert effect(found[0], "clip_text").why == "own knows no words; add clip-l to score.features"
    assert "set score.reference.in" in effect(found[0], "clip_kid").why
    assert any("One seed" in warning for warning in found[0].warnings)
    assert "a_a" not in found[0].levels["tone_w1"]


def test_a_claim_on_a_measure_that_does_not_exist_is_refused(template: Path) -> None:
    with pytest.raises(ConfigError, match="'beauty', which is not measured"):
        score.run(Project(template, overrides=('score.design.closer=["beauty"]',)), Quiet())


def test_the_design_is_kept_with_the_time_it_was_first_seen(scored: tuple[Project, StageRecord]) -> None:
    project, record = scored
    (design,) = record.groups["design"]
    assert {claim.metric for claim in design.claims if claim.kind == "closer"} == {"tone_w1", "colour_error"}
    assert design.shots == {"in": INSIDE, "out": 2} and design.arms == ("base", "look")
    assert declared(project) == design
    other = declared(Project(project.root, overrides=("score.design.margins={colour_error=2.0}",)))
    assert other.sha != design.sha
    assert any("declared after" in warning for warning in card(record, "in").warnings)
