"""What `score` measures, on small wan21 classes: networks, references, kept features, copies, and bad input."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.spatial.distance import cosine
from transformers import Dinov2Config, Dinov2Model

from cinetune.errors import ConfigError, FootageError
from cinetune.files import read_master
from cinetune.footage.video import read_window, write_video
from cinetune.metrics import networks, subject_likeness
from cinetune.metrics.suite import picked, signed
from cinetune.models.wan import pocket
from cinetune.report.verdicts import answers, headline
from cinetune.results import Expanded, Ingested, Prepared, Scored
from cinetune.runtime import Quiet
from cinetune.scoring.measure import Taken, take
from cinetune.stages import score
from cinetune.store import Project
from scoring_project import REFERENCES, SHOTS, graded, make_scored_project, movies, shoot_by_hand
from small_project import HEIGHT, RATE, WIDTH, moving_picture, provenance_of


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_scored_project(tmp_path_factory.mktemp("measure") / "p")


def taken(root: Path, *settings: str) -> Taken:
    project = Project(root, overrides=settings)
    return take(project, project.store.need(Expanded).sequences, Quiet())


@pytest.fixture
def root(template: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(template, tmp_path / "p"))


@pytest.fixture(scope="module")
def first(template: Path) -> Taken:
    with pytest.MonkeyPatch.context() as patch:
        # Nothing of the pocket may be read for another family.
        patch.setattr(pocket, "weights_folder", lambda: Path("/nowhere"))
        return taken(template, *REFERENCES)


def sets(found: Taken, metric: str, domain: str):
    return next(e for e in found.sets if (e.metric, e.domain, e.arm) == (metric, domain, "look"))


def test_wan21_is_measured_with_its_own_encoder_and_nothing_of_the_pocket(first: Taken) -> None:
    assert first.protocol["features"].startswith("own: image encoder of wan21")
    assert "pocket" not in " ".join(first.protocol.values())
    assert first.protocol["perceptual"].endswith("not LPIPS")
    clip = next(c for c in first.clips if c.arm == "look")
    assert clip.values["clip_reference"][0] is not None
    assert clip.values["clip_text"] == (None, "own knows no words; add clip-l to score.features")


def test_without_a_truth_structure_is_held_against_base_of_the_same_seed(first: Taken) -> None:
    values = {c.arm: c.values for c in first.clips if c.shot == first.clips[0].shot}
    assert values["base"]["structure_kept"][0] == pytest.approx(1, abs=1e-9)
    assert 0.5 < (values["look"]["structure_kept"][0] or 0) < 1
    assert values["look"]["structure"] == (None, "no truth is known for these shots")


def test_each_domain_has_its_own_reference_and_the_film(first: Taken) -> None:
    assert first.protocol["references"] == "in: 6 clips of history; out: 6 clips of future"
    for domain in ("in", "out"):
        for metric in ("clip_kid", "clip_fid", "cmmd", "clip_kid_film", "clip_fid_film", "cmmd_film"):
            found = sets(first, metric, domain)
            assert found.why == "" and len(found.effects) == SHOTS, (metric, domain)
            assert {"look", "base", "real", "real_sd"} <= found.levels.keys()
    assert "null" in sets(first, "clip_fid", "in").levels


def test_a_second_run_reads_no_network_and_gives_the_same(
    template: Path, first: Taken, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_: object, **__: object) -> None:
        raise AssertionError("the network was read although all features are kept")

    monkeypatch.setattr(networks, "own_tower", never)
    assert taken(template, *REFERENCES) == first


def test_a_damaged_kept_array_is_refused(root: Path, first: Taken) -> None:
    from cinetune.errors import StoreError

    for victim in (root / "work" / "objects").rglob("*.npy"):
        data = victim.read_bytes()
        victim.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    with pytest.raises(StoreError, match="damaged"):
        taken(root, *REFERENCES)


def test_without_references_or_truths_the_rows_say_what_to_set(template: Path) -> None:
    found = taken(template)
    assert "set score.reference.in" in sets(found, "clip_kid", "in").why
    assert sets(found, "clip_kid_film", "in").why == ""
    assert found.protocol["references"] == "in: none; out: none"


def test_three_clips_the_wrong_world_black_clips_and_no_folder(root: Path) -> None:
    movies(root / "few", 3)
    assert "reference of domain `in` has 3 clips" in sets(taken(root, 'score.reference.in="few"'), "clip_kid", "in").why
    for number in range(3):
        write_video(root / "few" / f"black{number}.mp4", np.zeros((9, HEIGHT, WIDTH, 3), np.float32), rate=RATE)
    found = taken(root, 'score.reference.in="few"')
    assert sum("black0.mp4 is black" in warning for warning in found.warnings) == 1
    assert "has 3 clips" in sets(found, "clip_kid", "in").why
    (root / "empty").mkdir()
    with pytest.raises(ConfigError, match="holds no movie"):
        taken(root, 'score.reference.out="empty"')
    with pytest.raises(ConfigError, match="is not there"):
        taken(root, 'score.reference.out="nowhere"')
    (root / "few" / "text.mp4").write_text("not a film")
    with pytest.raises(FootageError):
        taken(root, 'score.reference.in="few"')


def test_one_movie_is_a_reference_in_pieces(root: Path) -> None:
    film = np.concatenate([moving_picture(500 + n, warmth=0.1) for n in range(8)])
    write_video(root / "film.mp4", film, rate=RATE)
    found = taken(root, 'score.reference.in="film.mp4"')
    assert found.protocol["references"].startswith("in: 8 clips of film.mp4")
    assert sets(found, "clip_kid", "in").why == ""


def test_a_named_network_that_is_not_here_is_said_and_one_that_is_adds_its_rows(root: Path) -> None:
    torch.manual_seed(0)
    config = Dinov2Config(hidden_size=24, num_hidden_layers=1, num_attention_heads=2, image_size=224, patch_size=56)
    Dinov2Model(config).save_pretrained(root / "networks" / "dinov2")
    found = taken(root, *REFERENCES, 'score.features=["own", "dinov2", "clip-l"]')
    assert sets(found, "clip_kid@dinov2", "in").why == ""
    assert "weights pull clip-l" in found.protocol["features_missing"]
    assert any("clip-l was named and is not here" in warning for warning in found.warnings)
    text = next(c for c in found.clips if c.arm == "look").values["clip_text"]
    assert text[0] is None and "clip-l" in text[1]
    with pytest.raises(ConfigError, match="twice"):
        taken(root, 'score.features=["own", "own"]')


def test_a_planted_copy_is_vetoed_with_a_picture_and_a_mere_grade_is_not(root: Path, first: Taken) -> None:
    assert first.vetoes == ()
    assert first.protocol["memorisation"].startswith("look: 0 of 16 suspect")

    project = Project(root)
    window = project.store.need(Prepared).training[0]
    clip = project.store.need(Ingested).by_id[window.clip]

    def stolen(arm: str, number: int) -> np.ndarray:
        return read_window(root, clip, window) if (arm, number) == ("look", 0) else graded(arm, number)

    shoot_by_hand(project, stolen)
    found = taken(root, *REFERENCES)
    assert [(veto.arm, veto.domain) for veto in found.vetoes] == [("look", "in")]
    assert {"clip_kid", "clip_fid_film", "clip_reference"} <= set(found.vetoes[0].metrics)
    picture = found.vetoes[0].picture
    assert picture is not None and Project(root).store.path(picture).is_file()
    assert (root / "work" / "score" / "copies-look.webp").is_file()
    assert [(sheet.arm, sheet.picture) for sheet in found.copies] == [("look", picture)]
    assert len(first.copies) == 1, "the nearest pairs are drawn whatever comes out"


def test_a_missing_arm_leaves_no_rows_and_no_copies(root: Path) -> None:
    project = Project(root)
    alone = [s for s in project.store.need(Expanded).sequences if s.arm == "base"]
    project.store.save_stage("expand", "test", {"sequences": alone}, made=provenance_of())
    found = taken(root, *REFERENCES)
    assert found.sets == () and found.protocol["memorisation"] == "no trained arm"


@pytest.mark.parametrize("count", [0, 1])
def test_no_shot_and_one_shot_end_in_words_and_no_verdict(root: Path, count: int) -> None:
    project = Project(root, overrides=REFERENCES)
    kept = [s for s in project.store.need(Expanded).sequences if s.shot in ("sh0",)[:count]]
    project.store.save_stage("expand", "test", {"sequences": kept}, made=provenance_of())
    score.run(project, Quiet())
    cards = project.store.need(Scored).scorecards
    assert len(cards) == count
    assert all(found.verdict in ("", "cannot tell") and found.p is None for card in cards for found in card.effects)
    assert headline(answers(cards)).startswith(("Nothing was declared", "Unclear at home"))


def test_reference_folders_that_changed_places_are_asked_about(root: Path) -> None:
    """Shots as warm as their own world, held against the other world's clips."""
    shoot_by_hand(Project(root), lambda _, number: moving_picture(number, warmth=0.1 if number % 2 == 0 else -0.1))
    right, wrong = taken(root, *REFERENCES), taken(root, 'score.reference.in="future"', 'score.reference.out="history"')
    asked = [[line for line in found.warnings if "is it the right folder?" in line] for found in (right, wrong)]
    assert [len(lines) for lines in asked] == [0, 2]


def test_shots_of_different_length_and_black_shots_are_measured_as_far_as_they_go(root: Path) -> None:
    def mixed(arm: str, number: int) -> np.ndarray:
        if number == 0:
            return np.zeros((9, HEIGHT, WIDTH, 3), np.float32)
        return graded(arm, number)[:5] if number == 2 else graded(arm, number)

    shoot_by_hand(Project(root), mixed)
    found = taken(root, *REFERENCES)
    black = next(c for c in found.clips if (c.arm, c.shot) == ("look", "sh0"))
    assert all(value is None or np.isfinite(value) for value, _ in black.values.values())
    assert all(np.isfinite(effect).all() for effect in (np.asarray(e.effects) for e in found.sets))


def test_scenes_are_chosen_once_a_shot_and_not_by_the_arm(template: Path, tmp_path: Path) -> None:
    """The look's grade distance is taken to the scenes that the base arm chose."""
    from cinetune.metrics import lab_frechet, nearest_scenes
    from cinetune.metrics.suite import cloud
    from cinetune.scoring.film import read_film
    from cinetune.scoring.nets import Nets

    project = Project(template)
    film = read_film(project, Nets(), Quiet())
    found = taken(template, *REFERENCES)
    for number in (0, 1, 2):
        clips = {c.arm: c for c in found.clips if c.shot == f"sh{number}"}
        shots = {arm: cloud(np.rint(graded(arm, number) * 65535).astype("float32") / 65535) for arm in ("base", "look")}
        near = nearest_scenes(shots["base"], film.clouds)
        for arm in ("base", "look"):
            assert clips[arm].values["lab_frechet"][0] == pytest.approx(lab_frechet(shots[arm], near), rel=1e-6)


def test_shots_of_a_scene_are_held_against_each_other_and_the_films_scenes(root: Path) -> None:
    text = (root / "shots.toml").read_text()
    for number in (0, 2):
        text = text.replace(f'id = "sh{number}"', f'id = "sh{number}"\nsequence = "SQ010"')
    (root / "shots.toml").write_text(text)
    store = Project(root).store
    prepared = store.need_stage("prepare")
    windows = [replace(window, scene="one") for window in prepared.groups["windows"]]
    store.save_stage("prepare", "test", {"windows": windows}, made=provenance_of())
    found = {(one.scene, one.who): one for one in taken(root).subjects}
    assert set(found) == {("SQ010", "base"), ("SQ010", "look"), ("", "film")}
    tower = networks.own_tower(root / "model", sha256="", title="", device="cpu")
    shots = {(made.arm, made.shot): read_master(store.path(made.video)) for made in store.need(Expanded).sequences}
    for arm in ("base", "look"):
        one, two = (signed(shots[arm, name]) for name in ("sh0", "sh2"))
        first = [tower.frames(film[:1])[0] for film in (one, two)]
        assert found["SQ010", arm].keyframe_subject == pytest.approx(1 - cosine(*first), abs=1e-5)
        whole = [tower.frames(signed(picked(shots[arm, name]))) for name in ("sh0", "sh2")]
        assert found["SQ010", arm].subject == pytest.approx(subject_likeness(whole), abs=1e-6)
    assert 0 < (found["", "film"].subject or 0) < 1 and found["", "film"].network.startswith("own: image encoder")
    (lost, _) = taken(root, 'score.features=["clip-l"]').subjects
    assert lost.subject is None and "clip-l" in lost.why and lost.network == ""
