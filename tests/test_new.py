"""A new project takes what the film itself can answer, and keeps what is there."""

from __future__ import annotations

import tomllib
from fractions import Fraction
from pathlib import Path

import pytest

from cinetune.config import load_config
from cinetune.errors import ConfigError
from cinetune.footage.video import write_video
from cinetune.new import make_project, project_name
from cinetune.presets import PRESETS, Preset
from cinetune.runtime import Quiet
from films import FILM, drift


@pytest.mark.parametrize(
    ("folder", "name"),
    [("my-film", "my-film"), ("Mein Film (2)", "Mein-Film-2"), ("\u6620\u753b", "film"), ("a" * 90, "a" * 60),
     ('x"\n[model]\npath="y', "x-model-path-y")],
)  # fmt: skip
def test_the_name_comes_from_the_folder(tmp_path: Path, folder: str, name: str) -> None:
    assert project_name(tmp_path / folder) == name
    make_project(tmp_path / folder, Quiet(), preset="pocket")
    assert load_config(tmp_path / folder / "cinetune.toml")[0].name == name


def test_a_folder_of_here_has_its_own_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "lantern").mkdir()
    monkeypatch.chdir(tmp_path / "lantern")
    assert project_name(Path()) == "lantern"


@pytest.mark.parametrize("preset", PRESETS)
def test_every_preset_makes_a_project_that_can_be_read(tmp_path: Path, preset: Preset) -> None:
    make_project(tmp_path, Quiet(), preset=preset)
    config, origins = load_config(tmp_path / "cinetune.toml")
    assert (config.preset, origins["preset"]) == (preset, "cinetune.toml")
    assert (tmp_path / "references").is_dir() and (tmp_path / "footage").is_dir()


def test_an_unknown_preset_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no preset 'wan'"):
        make_project(tmp_path / "film", Quiet(), preset="wan")
    assert not (tmp_path / "film").exists()


def test_the_first_clips_choose_the_size(tmp_path: Path) -> None:
    """A 2.35 film under wan21: 832x352 keeps it, in training and in shooting alike."""
    (tmp_path / "footage").mkdir()
    frames = drift(1, 24, 96, 160)
    frames[:, :14] = frames[:, 82:] = 0.0
    write_video(tmp_path / "footage" / "scope.mov", frames, rate=FILM, codec="prores_hq")
    (tmp_path / "footage" / "broken.mov").write_bytes(b"no film")
    report = Quiet()
    make_project(tmp_path, report, preset="wan21")
    config = load_config(tmp_path / "cinetune.toml")[0]
    assert (config.prepare.height, config.prepare.width) == (352, 832) == (config.shoot.height, config.shoot.width)
    assert any(
        "2.35:1: 832x352 is set and cuts 0% of a side" in line and "832x480 would cut 26%" in line
        for line in report.lines
    )
    assert any("broken.mov" in line for line in report.warnings)


def test_a_film_of_the_models_shape_leaves_the_size_alone(tmp_path: Path) -> None:
    (tmp_path / "footage").mkdir()
    write_video(tmp_path / "footage" / "a.mp4", drift(1, 10, 64, 96), rate=Fraction(25))
    make_project(tmp_path, Quiet(), preset="pocket")
    text = tomllib.loads((tmp_path / "cinetune.toml").read_text())
    assert "height" not in text["prepare"] and "height" not in text["shoot"]


def test_a_project_that_is_there_is_not_looked_at_again(tmp_path: Path) -> None:
    (tmp_path / "cinetune.toml").write_text('name = "mine"\n')
    (tmp_path / "footage").mkdir()
    (tmp_path / "footage" / "broken.mov").write_bytes(b"no film")
    report = Quiet()
    make_project(tmp_path, report, preset="wan21")
    assert report.warnings == []
    assert (tmp_path / "cinetune.toml").read_text() == 'name = "mine"\n'
