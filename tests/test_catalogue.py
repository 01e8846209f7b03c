"""One table of base models: every stage reads the same size from it, whatever a folder is called."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from cinetune.artifacts import PlannedShot
from cinetune.catalogue import FACTS, RELEASES, find_release, picture_size
from cinetune.cli import main
from cinetune.config import load_config
from cinetune.errors import ConfigError, WeightsError
from cinetune.footage.read.stills import read_image
from cinetune.models import load_model, model_ref
from cinetune.plan import make_plan
from cinetune.runtime import Quiet
from cinetune.stages import keyframes, prepare
from cinetune.store import Project
from small_project import make_project
from support import save_tiny

SHOT = PlannedShot(id="a", prompt="p", domain="in", reference="r.png", seconds=2.0)
SIZES = {"wan21-480p": (480, 832), "wan21-720p": (720, 1280)}


@pytest.fixture(scope="module")
def nameless(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights of a tiny Wan2.1 as another tool would leave them: nothing says which release they are."""
    folder = tmp_path_factory.mktemp("weights") / "plain"
    save_tiny(folder)
    (folder / FACTS).unlink()
    return folder


def project(tmp_path: Path, folder: Path, release: str = "") -> Project:
    settings = f'[model]\nfamily = "wan21"\npath = "{folder}"\nrelease = "{release}"\n[prepare]\nframes = 5\n'
    (tmp_path / "cinetune.toml").write_text(settings)
    return Project(tmp_path)


@pytest.mark.parametrize("called", ["Wan2.1-I2V-14B-720P-Diffusers", "mine"])
@pytest.mark.parametrize("how", ["recorded", "said"])
@pytest.mark.parametrize("release", SIZES)
def test_every_stage_reads_the_same_size(nameless: Path, tmp_path: Path, release: str, how: str, called: str) -> None:
    folder = Path(shutil.copytree(nameless, tmp_path / called))
    if how == "recorded":
        (folder / FACTS).write_text(json.dumps({"release": release}))
    height, width = SIZES[release]
    made = project(tmp_path, folder, release if how == "said" else "")
    facts = dict(make_plan(made).facts)
    assert f"frames of {width}x{height} = " in facts["training window"]
    assert prepare.inputs(made)["geometry"].startswith(f"{width}x{height}, 16 fps")
    assert made.config.train_size() == made.config.shoot_size() == (height, width)
    assert keyframes._settings(made.config, SHOT, "develop")["size"] == (height, width)
    info = load_model(made.config.model, parts="denoiser").info
    assert (info.release.height, info.release.width, info.release.key) == (height, width, release)
    assert info.release.shift == RELEASES[release].shift and info.name == RELEASES[release].name
    assert model_ref(made.config.model).release == release


def test_the_size_of_a_shot_is_the_size_of_the_plan(tmp_path: Path) -> None:
    """Down to the pictures themselves, at a size of its own."""
    root = make_project(tmp_path / "p", shots=1)
    made = Project(root, overrides=("shoot.height=40", "shoot.width=64", "keyframes.method='as-is'"))
    keyframe = keyframes.run(made, Quiet()).groups["keyframes"][0]
    assert read_image(made.store.path(keyframe.image)).shape == (40, 64, 3) == (*made.config.shoot_size(), 3)
    assert dict(make_plan(made).facts)["a segment"].startswith("9 frames of 64x40 ")


def test_weights_that_do_not_say_what_they_are_are_asked_about(nameless: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(nameless, tmp_path / "Wan2.1-I2V-14B-720P-Diffusers"))
    made = project(tmp_path, folder)
    for attempt in (made.config.model.base, lambda: load_model(made.config.model), lambda: prepare.inputs(made)):
        with pytest.raises(ConfigError, match="which release of wan21") as caught:
            attempt()
        assert 'model.release = "wan21-480p" (832x480) or "wan21-720p" (1280x720)' in str(caught.value)
    assert any("which release" in warning for warning in make_plan(made).warnings)
    assert main(["doctor", str(tmp_path)]) != 0


def test_a_record_and_a_setting_that_differ_are_refused(nameless: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(nameless, tmp_path / "w"))
    (folder / FACTS).write_text('{"release": "wan21-480p"}')
    with pytest.raises(ConfigError, match=r"model.release is wan21-720p, but these weights are wan21-480p"):
        project(tmp_path, folder, "wan21-720p").config.model.base()
    with pytest.raises(ConfigError, match="no release of pocket"):
        find_release("pocket", folder=folder)
    for damage in ("{", "[]", '{"release": 1}', '{"height": "tall"}', '{"else": 1}'):
        (folder / FACTS).write_text(damage)
        with pytest.raises(WeightsError, match=r"cinetune.json cannot be read"):
            find_release("wan21", folder=folder)


def test_without_weights_the_first_release_is_planned_with(tmp_path: Path) -> None:
    assert project(tmp_path, tmp_path / "nowhere").config.train_size() == SIZES["wan21-480p"]
    assert project(tmp_path, tmp_path / "nowhere", "wan21-720p").config.train_size() == SIZES["wan21-720p"]
    with pytest.raises(ConfigError, match="one of wan21-480p, wan21-720p"):
        project(tmp_path, tmp_path / "nowhere", "wan22")


@pytest.mark.parametrize("section", ["prepare", "shoot"])
@pytest.mark.parametrize("side", ["height", "width"])
def test_half_a_size_is_refused(tmp_path: Path, section: str, side: str) -> None:
    (tmp_path / "cinetune.toml").write_text(f"[{section}]\n{side} = 64\n")
    with pytest.raises(ConfigError, match=f"{section}.height and {section}.width go together"):
        load_config(tmp_path / "cinetune.toml")


def test_a_size_off_the_grid_names_the_nearest() -> None:
    own = RELEASES["wan21-480p"]
    assert picture_size(own, 0, 0, section="shoot") == (480, 832)
    assert picture_size(own, 720, 1280, section="shoot") == (720, 1280)
    with pytest.raises(ConfigError, match="multiples of 16") as caught:
        picture_size(own, 719, 1280, section="shoot")
    assert caught.value.remedy == "set shoot.height = 720 and shoot.width = 1280"


def test_the_table_is_sound() -> None:
    assert len({row.name for row in RELEASES.values()}) == len(RELEASES)
    for key, row in RELEASES.items():
        assert row.key == key and row.height % row.multiple == row.width % row.multiple == 0
        assert bool(row.repository) == bool(row.components_gib)
