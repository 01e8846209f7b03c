"""The expand stage: masters, proxies, seeds shared by the arms, workers, and resuming."""

from __future__ import annotations

import os
import shutil
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file
from safetensors.torch import save_file as save_torch

from cinetune.artifacts import Sequence
from cinetune.errors import GateFailed, ModelError, ScoreError, WeightsError
from cinetune.files import master_frames, stream_master
from cinetune.footage.read.stills import read_image
from cinetune.footage.video import probe
from cinetune.generation import Reel, Take, chain, plan_segments
from cinetune.metrics import colour_drift, scene_spread
from cinetune.results import Keyframed, Trained
from cinetune.runtime import Quiet
from cinetune.stages import deliver, expand, keyframes, score
from cinetune.store import Project, StageRecord
from small_project import make_project


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two shots of 13 frames, that is two segments, with their keyframes."""
    root = make_project(tmp_path_factory.mktemp("expand") / "p", shots=2, seconds=0.8)
    keyframes.run(Project(root), Quiet())
    return root


def run(template: Path, where: Path, *overrides: str) -> tuple[Project, StageRecord]:
    project = Project(Path(shutil.copytree(template, where)), overrides=overrides)
    return project, expand.run(project, Quiet())


def keyframe_of(project: Project, sequence: Sequence) -> Path:
    made = project.store.need(Keyframed).keyframes
    return next(project.store.path(k.image) for k in made if (k.arm, k.shot) == (sequence.arm, sequence.shot))


def master(project: Project, sequence: Sequence) -> np.ndarray:
    return load_file(project.store.path(sequence.video))["frames_THWC"]


@pytest.fixture(scope="module")
def serial(template: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Project, StageRecord]:
    return run(template, tmp_path_factory.mktemp("serial") / "p")


def test_each_keyframe_becomes_a_shot(serial: tuple[Project, StageRecord]) -> None:
    project, record = serial
    made: tuple[Sequence, ...] = record.groups["sequences"]
    assert [(s.arm, s.shot, s.domain) for s in made] == [
        ("base", "sh0", "in"),
        ("base", "sh1", "out"),
        ("look", "sh0", "in"),
        ("look", "sh1", "out"),
    ]
    for sequence in made:
        film = master(project, sequence)
        assert film.dtype == np.uint16 and film.shape == (13, 32, 48, 3) == (
            sequence.frames,
            sequence.height,
            sequence.width,
            3,
        )
        assert [(s.first_frame, s.frames) for s in sequence.segments] == [(0, 9), (9, 4)]
        assert sequence.seam_ratio is not None and sequence.seam_ratio > 0 and sequence.drift > 0
        facts = probe(project.store.path(sequence.proxy))
        assert (facts.frames, facts.rate, facts.height, facts.width) == (13, sequence.rate, 256, 384)
        assert sequence.limits is not None and sequence.limits.clips > 0
        assert sequence.seam_ratio == sequence.segments[1].tries[0].seam
        assert sequence.drift == pytest.approx(
            colour_drift(np.stack([read_image(keyframe_of(project, sequence)), film[-1] / 65535]))[1], abs=1e-4
        )
    assert any("worst join" in note for note in record.notes)
    assert not (project.store.work / "expand").exists() or not any((project.store.work / "expand").iterdir())


def test_a_developed_shot_opens_with_its_keyframe(serial: tuple[Project, StageRecord]) -> None:
    project, record = serial
    found = project.store.need(Keyframed).keyframes
    for keyframe, sequence in zip(found, record.groups["sequences"], strict=True):
        picture = np.rint(read_image(project.store.path(keyframe.image)) * 65535).astype(np.uint16)
        assert np.array_equal(master(project, sequence)[0], picture)
        assert sequence.keyframe == keyframe.image.sha256


def test_arms_share_seeds_and_differ_in_pictures(serial: tuple[Project, StageRecord]) -> None:
    project, record = serial
    base, look = record.groups["sequences"][0], record.groups["sequences"][2]
    assert [segment.seed for segment in base.segments] == [segment.seed for segment in look.segments]
    assert not np.array_equal(master(project, base), master(project, look))


def test_a_led_shot_opens_with_its_keyframe_and_shares_pictures(template: Path, tmp_path: Path) -> None:
    root = Path(shutil.copytree(template, tmp_path / "p"))
    project = Project(root, overrides=("keyframes.method=lead", "shoot.overlap=5"))
    keyframes.run(project, Quiet())
    record = expand.run(project, Quiet())
    found = project.store.need(Keyframed).keyframes
    for keyframe, sequence in zip(found, record.groups["sequences"], strict=True):
        picture = np.rint(read_image(project.store.path(keyframe.image)) * 65535).astype(np.uint16)
        assert keyframe.opening is not None and keyframe.condition != keyframe.image
        assert np.array_equal(master(project, sequence)[0], picture)
        assert [(s.first_frame, s.frames) for s in sequence.segments] == [(0, 5), (5, 8)]


def test_workers_make_the_same_bytes(template: Path, tmp_path: Path, serial: tuple[Project, StageRecord]) -> None:
    record = run(template, tmp_path / "p", "shoot.workers=2")[1]
    for there, here in zip(record.groups["sequences"], serial[1].groups["sequences"], strict=True):
        assert (there.video, there.proxy, there.drift) == (here.video, here.proxy, here.drift)
    assert record.output_sha == serial[1].output_sha


def test_an_opening_that_has_to_be_computed_again_is_the_same(
    template: Path, tmp_path: Path, serial: tuple[Project, StageRecord]
) -> None:
    root = Path(shutil.copytree(template, tmp_path / "p"))
    project = Project(root)
    record = project.store.need_stage("keyframes")
    bare = [replace(keyframe, opening=None) for keyframe in record.groups["keyframes"]]
    project.store.save_stage("keyframes", record.input_key, {"keyframes": bare}, made=record.provenance)
    again = expand.run(project, Quiet()).groups["sequences"]
    assert [s.video for s in again] == [s.video for s in serial[1].groups["sequences"]]


def test_finished_shots_are_not_made_again(template: Path, tmp_path: Path) -> None:
    class Stopped(Quiet):
        def advance(self, steps: int = 1, note: str = "") -> None:
            raise KeyboardInterrupt

    root = Path(shutil.copytree(template, tmp_path / "p"))
    with pytest.raises(KeyboardInterrupt):
        expand.run(Project(root), Stopped())
    (unit,) = (root / "work" / "units" / "expand").glob("*.json")
    before = unit.stat().st_mtime_ns
    report = Quiet()
    expand.run(Project(root), report)
    assert unit.stat().st_mtime_ns == before and report.lines == ["1 of 4 shots are there already"]
    prompts = (root / "shots.toml").read_text().replace("a sh1 barn", "a sh1 hill")
    (root / "shots.toml").write_text(prompts)
    report = Quiet()
    expand.run(Project(root), report)
    assert report.lines == ["2 of 4 shots are there already"]


def test_a_shot_taken_out_of_the_list_is_left_out(template: Path, tmp_path: Path) -> None:
    root = Path(shutil.copytree(template, tmp_path / "p"))
    text = (root / "shots.toml").read_text()
    (root / "shots.toml").write_text(text[: text.rindex("[[shot]]")].replace("seconds = 0.8", "seconds = 0.1"))
    made = expand.run(Project(root), Quiet()).groups["sequences"]
    assert [(s.shot, s.frames, s.seam_ratio) for s in made] == [("sh0", 5, None), ("sh0", 5, None)]


def killed(root: Path, segments: int) -> None:
    """Expand in a process that is killed once it has kept so many segments."""
    child = os.fork()
    if child == 0:
        keep, left = Reel.keep, [segments]

        def then_die(self: Reel, number: int, take: Take) -> None:
            keep(self, number, take)
            left[0] -= 1
            if not left[0]:
                os.kill(os.getpid(), signal.SIGKILL)

        Reel.keep = then_die
        expand.run(Project(root), Quiet())
        os._exit(1)
    assert os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGKILL


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_shot_that_was_killed_between_segments_goes_on_and_ends_the_same(
    template: Path, tmp_path: Path, serial: tuple[Project, StageRecord], monkeypatch: pytest.MonkeyPatch
) -> None:
    root = Path(shutil.copytree(template, tmp_path / "p"))
    killed(root, 3)  # the first shot is whole, the second has one of its two segments
    (folder,) = (root / "work" / "expand").iterdir()
    assert [path.name for path in folder.iterdir()] == ["segment_000.safetensors"]
    made: list[int] = []
    keep = Reel.keep
    monkeypatch.setattr(Reel, "keep", lambda self, number, take: made.append(number) or keep(self, number, take))
    record = expand.run(Project(root), Quiet())
    assert record.output_sha == serial[1].output_sha
    assert made == [1, 0, 1, 0, 1]
    assert not folder.exists()


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
@pytest.mark.parametrize("work", ["generate", "pictures"])
def test_a_shot_that_was_killed_inside_a_segment_ends_the_same(
    template: Path, tmp_path: Path, serial: tuple[Project, StageRecord], work: str
) -> None:
    """Killed when the second segment of the second shot is denoised, or one of its pictures is decoded."""
    root = Path(shutil.copytree(template, tmp_path / "p"))
    child = os.fork()
    if child == 0:
        real, calls = getattr(chain, work), list[int]()

        def then_die(*given: Any, **named: Any) -> Any:
            calls.append(1)
            made = real(*given, **named)
            if len(calls) < 2:
                return made
            if work == "pictures":
                next(made)
            os.kill(os.getpid(), signal.SIGKILL)

        setattr(chain, work, then_die)
        expand.run(Project(root), Quiet())
        os._exit(1)
    assert os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGKILL
    assert len(list((root / "work" / "units" / "expand").glob("*.json"))) < 4
    assert expand.run(Project(root), Quiet()).output_sha == serial[1].output_sha


def test_damaged_and_foreign_segments_are_made_again(tmp_path: Path) -> None:
    planned = plan_segments(17, 9, shot_seed=1, seed_index=0)
    reel = Reel(tmp_path / "reel")
    assert list(reel.finished(planned)) == []
    for number, segment in enumerate(planned):
        frames = np.full((segment.frames, 4, 6, 3), number, np.uint16)
        reel.keep(number, Take(segment=segment, frames_THWC=frames, given_THWC=torch.full((1, 4, 6, 3), 0.5)))
    assert [take.segment for take in reel.finished(planned)] == list(planned)
    assert len(list(reel.finished(planned[:1]))) == 1
    assert list(reel.finished([replace(planned[0], frames=5), planned[1]])) == []
    assert len(list(reel.finished([planned[0], replace(planned[1], prompt="rain")]))) == 1
    (tmp_path / "reel" / "segment_001.safetensors").write_bytes(b"half")
    assert len(list(reel.finished(planned))) == 1


def test_a_master_written_in_parts_is_the_file_written_at_once(tmp_path: Path) -> None:
    film = np.random.default_rng(0).integers(0, 65536, (7, 4, 6, 3)).astype(np.uint16)
    stream_master(tmp_path / "parts", [film[:3], film[3:4], film[4:]], (7, 4, 6, 3))
    save_file({"frames_THWC": film}, tmp_path / "whole")
    assert (tmp_path / "parts").read_bytes() == (tmp_path / "whole").read_bytes()
    np.testing.assert_array_equal(np.stack(list(master_frames(tmp_path / "parts"))), film.astype(np.float32) / 65535)
    with pytest.raises(AssertionError, match="were announced"):
        stream_master(tmp_path / "short", [film[:3]], (7, 4, 6, 3))


def test_tries_and_the_strict_gate(template: Path, tmp_path: Path) -> None:
    """Random weights make nothing like the film: every segment is outside, and is tried as often as it may be."""
    project, record = run(template, tmp_path / "p", "shoot.tries=2", "shoot.steps=1")
    segments = [segment for sequence in record.groups["sequences"] for segment in sequence.segments]
    assert all(len(segment.tries) == (2 if segment.tries[0].over else 1) for segment in segments)
    assert any(len(segment.tries) == 2 for segment in segments)
    assert any("shot again with another seed" in note for note in record.notes)
    assert any("not like true shots of the film" in note for note in record.notes)
    with pytest.raises(GateFailed, match="sh0 base seed 0 segment") as caught:
        expand.run(Project(project.root, overrides=("shoot.tries=2", "shoot.steps=1", "shoot.gate=strict")), Quiet())
    assert caught.value.exit_code == 4


def test_a_later_prompt_and_the_camera_reach_the_model(template: Path, tmp_path: Path) -> None:
    root = Path(shutil.copytree(template, tmp_path / "p"))
    text = (root / "shots.toml").read_text()
    (root / "shots.toml").write_text(text + 'camera = "slow pan"\n[[shot.prompts]]\nat = 0.5\nprompt = "rain"\n')
    keyframes.run(Project(root), Quiet())
    record = expand.run(Project(root), Quiet())
    prompts = {(s.shot, s.arm): [segment.prompt for segment in s.segments] for s in record.groups["sequences"]}
    trigger = Project(root).store.need(Trained).looks[0].trigger
    assert prompts["sh0", "base"] == ["", ""] and prompts["sh1", "base"] == ["", "rain, slow pan"]
    assert prompts["sh1", "look"][1] == ", ".join(part for part in (trigger, "rain, slow pan") if part)


def test_shots_of_one_scene_are_held_against_each_other(
    template: Path, tmp_path: Path, serial: tuple[Project, StageRecord]
) -> None:
    root = Path(shutil.copytree(serial[0].root, tmp_path / "p"))
    assert serial[1].groups["scenes"] == ()
    text = (root / "shots.toml").read_text().replace("seconds = 0.8", 'seconds = 0.8\nsequence = "SQ010"')
    (root / "shots.toml").write_text(text)
    project = Project(root)
    prepared = project.store.need_stage("prepare")
    windows = [replace(window, scene="one") for window in prepared.groups["windows"]]
    project.store.save_stage("prepare", "test", {"windows": windows}, made=prepared.provenance)
    keyframes.run(project, Quiet())
    record = expand.run(project, Quiet())
    base, look, film = record.groups["scenes"]
    assert [(one.scene, one.who, one.shots) for one in (base, look, film)] == [
        ("SQ010", "base", 2),
        ("SQ010", "look", 2),
        ("", "film", 2),
    ]
    shots = [master(project, one)[::8] / 65535 for one in record.groups["sequences"] if one.arm == "look"]
    assert look.palette == pytest.approx(scene_spread(shots).palette, rel=1e-4) and look.palette > 0
    assert look.keyframe_light == pytest.approx(scene_spread([shot[:1] for shot in shots]).light, rel=1e-4)
    assert film.light > 0 and any("scene SQ010 look" in note for note in record.notes)


def test_a_preview_is_smaller_labelled_held_against_the_full_shot_and_never_scored(
    template: Path, tmp_path: Path, serial: tuple[Project, StageRecord]
) -> None:
    root = Path(shutil.copytree(serial[0].root, tmp_path / "p"))
    project = Project(root, overrides=("shoot.preview=true", "shoot.preview_steps=1"))
    keyframes.run(project, Quiet())
    record = expand.run(project, Quiet())
    for sequence in record.groups["sequences"]:
        assert sequence.preview and (sequence.height, sequence.width) == (16, 24)
        assert master(project, sequence).shape == (13, 16, 24, 3)
        assert deliver._task(sequence).startswith("preview-")
    assert record.notes[0] == "preview: for the eye only, not scored"
    errors = [note for note in record.notes if "from the full shot" in note]
    assert len(errors) == 4 and all("dE2000" in note for note in errors)
    with pytest.raises(ScoreError, match="previews"):
        score.run(project, Quiet())


def few_steps(root: Path, path: Path) -> Path:
    """A step-distilled adapter of the project's model: a pair, and a bias as such files hold them."""
    gen = torch.Generator().manual_seed(5)
    layer = "diffusion_model.blocks.0.self_attn.q"
    save_torch(
        {
            f"{layer}.lora_down.weight": torch.randn(2, 48, generator=gen),
            f"{layer}.lora_up.weight": torch.randn(48, 2, generator=gen),
            f"{layer}.diff_b": torch.randn(48, generator=gen),
        },
        root / path,
    )
    return path


def test_a_preview_takes_a_distilled_adapter_at_the_strengths_of_the_shot_list(
    serial: tuple[Project, StageRecord], tmp_path: Path
) -> None:
    root = Path(shutil.copytree(serial[0].root, tmp_path / "p"))
    asked = ("shoot.preview=true", "shoot.preview_cache=0", "shoot.preview_share=1", "shoot.preview_guidance=1")
    settings = (*asked, f"shoot.preview_adapter={few_steps(root, Path('few.safetensors'))}")

    def films(*overrides: str, **strengths: float) -> dict[tuple[str, str], Sequence]:
        lines = "".join(f"{key} = {value}\n" for key, value in strengths.items())
        whole = (serial[0].root / "shots.toml").read_text()
        (root / "shots.toml").write_text(whole.replace("seed = 0\n", f"seed = 0\n{lines}", 1))
        project = Project(root, overrides=overrides)
        keyframes.run(project, Quiet())
        return {(one.shot, one.arm): one for one in expand.run(project, Quiet()).groups["sequences"]}

    plain, full = films(*asked), films(*settings)
    off = films(*settings, preview_strength=0.0)
    half, without_look = films(*settings, preview_strength=0.5), films(*settings, look_strength=0.0)
    for place in plain:
        assert full[place].video != plain[place].video and full[place].preview
        assert full[place].made_by["distilled"].endswith(" at 1") and "distilled" not in plain[place].made_by
        assert (off[place].video == plain[place].video) == (place[0] == "sh0"), "bit for bit, in its own shot only"
        assert (half[place].video == full[place].video) == (place[0] == "sh1")
    assert without_look["sh0", "look"].video != full["sh0", "look"].video and without_look["sh0", "look"].strength == 0
    assert without_look["sh0", "base"] == full["sh0", "base"], (
        "a look's strength is nothing to the base: not made again"
    )
    project = Project(root, overrides=settings)
    assert expand.STAGE.key(project) != expand.STAGE.key(Project(root, overrides=asked))
    before = expand.STAGE.key(project)
    (root / "few.safetensors").write_bytes((root / "few.safetensors").read_bytes() + b" ")
    assert expand.STAGE.key(Project(root, overrides=settings)) != before


@pytest.mark.parametrize(
    ("name", "error", "said"),
    [
        ("none.safetensors", WeightsError, "no such adapter"),
        ("shots.toml", WeightsError, "can run code"),
        ("other.safetensors", ModelError, "another base"),
    ],
)
def test_a_wrong_distilled_adapter_is_named_before_anything_runs(
    template: Path, tmp_path: Path, name: str, error: type[Exception], said: str
) -> None:
    root = Path(shutil.copytree(template, tmp_path / "p"))
    layer = "diffusion_model.blocks.0.self_attn.q"
    save_torch(
        {f"{layer}.lora_A.weight": torch.ones(2, 64), f"{layer}.lora_B.weight": torch.ones(64, 2)},
        root / "other.safetensors",
    )
    before = len(list((root / "work" / "units").rglob("*.json")))
    project = Project(root, overrides=("shoot.preview=true", f"shoot.preview_adapter={name}"))
    for stage in (keyframes, expand):
        with pytest.raises(error, match=said):
            stage.run(project, Quiet())
    assert len(list((root / "work" / "units").rglob("*.json"))) == before
    keyframes.run(Project(root, overrides=(f"shoot.preview_adapter={name}",)), Quiet())  # no preview, no adapter
