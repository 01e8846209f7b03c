"""What can be wrong with a shot list, its pictures and the machine while shots are made: a typed error or one failed
shot, and the rest is made. Through the real stages, on a tiny model.
"""

from __future__ import annotations

import io
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import opentimelineio as otio
import pytest
from PIL import Image, ImageCms, ImageOps

from cinetune.artifacts import Keyframe
from cinetune.cli import main
from cinetune.errors import CinetuneError, ConfigError, ModelError, StoreError
from cinetune.footage.read.stills import read_image, write_png16
from cinetune.runtime import Quiet
from cinetune.stages import keyframes
from cinetune.store import Project
from profiles import PROFILES
from small_project import HEIGHT, WIDTH, make_project, moving_picture


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_project(tmp_path_factory.mktemp("bad") / "p", shots=2, method="as-is")


@pytest.fixture
def root(template: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(template, tmp_path / "p"))


def in_list(root: Path, old: str, new: str) -> None:
    text = (root / "shots.toml").read_text()
    assert old in text
    (root / "shots.toml").write_text(text.replace(old, new, 1))


def made(root: Path, report: Quiet | None = None) -> dict[str, Keyframe]:
    """Keyframes of the base arm by shot."""
    record = keyframes.run(Project(root), report or Quiet())
    return {one.shot: one for one in record.groups["keyframes"] if one.arm == "base"}


def first_picture(root: Path) -> np.ndarray:
    """What the first shot starts from, made by the stage."""
    return read_image(Project(root).store.path(made(root)["sh0"].image))


def kept(root: Path, stage: str) -> int:
    return len(list((root / "work" / "units" / stage).glob("*.json")))


LEVELS = np.rint(moving_picture(0, frames=1, warmth=0.2)[0] * 255).astype(np.uint8)


def test_a_prompt_of_five_thousand_characters(root: Path) -> None:
    """The model would drop most of it without a word, so the list is refused; what it can read is made."""
    in_list(root, "a sh0 barn", "a very long barn " * 294)
    with pytest.raises(ConfigError, match=r"'sh0' \(line 4\): prompt has 49\d\d characters"):
        made(root)
    assert kept(root, "keyframes") == 0
    in_list(root, "a very long barn " * 294, "a very long barn " * 117)
    in_list(root, "seed = 0", 'seed = 0\nmethod = "develop"')
    assert set(made(root)) == {"sh0", "sh1"}


def test_a_missing_reference_is_named_before_anything_runs(root: Path) -> None:
    (root / "refs" / "sh0.png").unlink()
    with pytest.raises(CinetuneError, match=r"sh0\.png"):
        made(root)
    assert kept(root, "keyframes") == 0


@pytest.mark.parametrize("share", [0.0, 0.1, 0.9])
def test_a_corrupt_reference_is_named_before_anything_runs(root: Path, share: float) -> None:
    path = root / "refs" / "sh0.png"
    whole = path.read_bytes()
    path.write_bytes(whole[: round(len(whole) * share)])
    with pytest.raises(CinetuneError, match=r"sh0\.png"):
        made(root)
    assert kept(root, "keyframes") == 0
    path.write_bytes(whole)
    assert set(made(root)) == {"sh0", "sh1"} and kept(root, "keyframes") == 4


def test_a_reference_in_ink(root: Path) -> None:
    ink = Image.fromarray(LEVELS).convert("CMYK")
    ink.save(root / "refs" / "sh0.tif")
    in_list(root, "refs/sh0.png", "refs/sh0.tif")
    assert np.abs(first_picture(root) - np.asarray(ink.convert("RGB"), np.float32) / 255).max() < 0.02


def test_a_reference_of_sixteen_bits_keeps_them(root: Path) -> None:
    levels = np.random.default_rng(1).integers(0, 65536, (HEIGHT, WIDTH, 3)).astype(np.uint16)
    write_png16(root / "refs" / "sh0.png", levels / 65535)
    assert np.array_equal(np.rint(first_picture(root) * 65535), levels)


def test_a_transparent_reference_lies_over_black(root: Path) -> None:
    alpha = np.linspace(0, 255, WIDTH).astype(np.uint8)[None].repeat(HEIGHT, 0)
    Image.fromarray(np.dstack([LEVELS, alpha])).save(root / "refs" / "sh0.png")
    right = LEVELS / 255 * (alpha / 255)[..., None]
    assert np.abs(first_picture(root) - right).max() < 0.01


def test_a_reference_that_a_phone_held_sideways_stands_upright(root: Path) -> None:
    sideways = Image.fromarray(LEVELS).transpose(Image.Transpose.ROTATE_90)
    exif = Image.Exif()
    exif[0x0112] = 6
    sideways.save(root / "refs" / "sh0.png", exif=exif)
    upright = ImageOps.exif_transpose(Image.open(root / "refs" / "sh0.png"))
    assert upright.size == (WIDTH, HEIGHT)
    assert np.abs(first_picture(root) - np.asarray(upright, np.float32) / 255).max() < 0.01


def test_a_reference_with_a_profile_is_led_to_srgb(root: Path) -> None:
    Image.fromarray(LEVELS).save(root / "refs" / "sh0.png", icc_profile=PROFILES["p3"])
    tagged = Image.open(root / "refs" / "sh0.png")
    profile = ImageCms.ImageCmsProfile(io.BytesIO(tagged.info["icc_profile"]))
    right = ImageCms.profileToProfile(tagged, profile, ImageCms.createProfile("sRGB"), outputMode="RGB")
    assert right is not None and np.abs(np.asarray(right, np.float32) - LEVELS).max() > 5
    assert np.abs(first_picture(root) - np.asarray(right, np.float32) / 255).max() < 0.02


def test_a_portrait_reference_is_cropped_aloud_and_never_stretched(root: Path) -> None:
    tall = np.zeros((96, 48, 3), np.uint8)
    tall[32:64] = LEVELS[:, :48]
    tall[:20], tall[-20:] = (255, 0, 0), (255, 0, 0)
    Image.fromarray(tall).save(root / "refs" / "sh0.png")
    report = Quiet()
    picture = read_image(Project(root).store.path(made(root, report)["sh0"].image))
    assert np.abs(picture - tall[32:64].astype(np.float32) / 255).max() < 0.01
    assert any("sh0" in line and "is cut" in line for line in report.warnings)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('id = "sh1"', 'id = "sh0"', "sh0"),
        ("seconds = 0.5", "seconds = 0", "seconds"),
        ("seconds = 0.5", "seconds = nan", "seconds"),
    ],
)
def test_a_wrong_list_is_refused_before_anything_runs(root: Path, old: str, new: str, said: str) -> None:
    in_list(root, old, new)
    with pytest.raises(ConfigError, match=said):
        made(root)
    assert kept(root, "keyframes") == 0


def test_a_marker_without_media(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A timeline whose clip was never linked: named, exit code 2, and nothing is written."""
    span = otio.opentime.TimeRange(otio.opentime.RationalTime(0, 24), otio.opentime.RationalTime(24, 24))
    clip = otio.schema.Clip(name="A001", source_range=span, media_reference=otio.schema.MissingReference())
    clip.markers.append(otio.schema.Marker(name="SH010", marked_range=span, comment="a rider stops"))
    edit = otio.schema.Timeline("edit")
    edit.tracks.append(otio.schema.Track(kind=otio.schema.TrackKind.Video, children=[clip]))
    otio.adapters.write_to_file(edit, str(tmp_path / "edit.otio"))
    (tmp_path / "cinetune.toml").write_text('name = "film"\n')
    before = sorted(tmp_path.iterdir())
    assert main(["shots", str(tmp_path / "edit.otio"), "-C", str(tmp_path)]) == 2
    said = capsys.readouterr().err
    assert "marker 'SH010' on clip 'A001' lies on no media" in " ".join(said.split()) and "Traceback" not in said
    assert sorted(tmp_path.iterdir()) == before


def test_output_that_cannot_be_written(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def read_only(*_args: object, **_options: object) -> tuple[int, str]:
        raise OSError(30, "Read-only file system")

    # tests may run as root, whom permissions do not stop
    monkeypatch.setattr("cinetune.durable.tempfile.mkdtemp", read_only)
    with pytest.raises(StoreError, match="cannot be written"):
        made(root)
    monkeypatch.undo()
    assert set(made(root)) == {"sh0", "sh1"}


def failing_at(shot: int, error: Callable[[], BaseException]) -> Callable[..., np.ndarray]:
    def read(path: Path) -> np.ndarray:
        if path.name == f"sh{shot}.png":
            raise error()
        return read_image(path)

    return read


def test_a_shot_that_does_not_fit_into_memory_fails_alone(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = failing_at(0, MemoryError)
    monkeypatch.setattr("cinetune.footage.read.stills.read_image", broken)
    with pytest.raises(CinetuneError, match="2 of 4 cannot be made"):
        made(root)
    assert kept(root, "keyframes") == 2


def test_a_card_that_is_lost_is_said_and_the_rest_waits_for_the_next_run(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = failing_at(1, lambda: RuntimeError("CUDA error: unspecified launch failure\nlong advice"))
    monkeypatch.setattr("cinetune.footage.read.stills.read_image", broken)
    with pytest.raises(ModelError, match="card") as caught:
        made(root)
    assert "run" in (caught.value.remedy or "")
    assert kept(root, "keyframes") == 1
    monkeypatch.undo()
    assert set(made(root)) == {"sh0", "sh1"}


HOOK = """
import os, pathlib, sys
flag = pathlib.Path(os.environ["KILLED"])
def kill(event, args):
    if event == "open" and str(args[0]).endswith("refs/sh1.png") and not flag.exists():
        flag.touch()
        os.kill(os.getpid(), 9)
sys.addaudithook(kill)
"""
"""The first worker that opens a picture is killed, as the kernel does with who takes too much memory. Python reads it
at the start of a fresh interpreter, so the process that asks for the workers does not have it."""


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_worker_that_the_system_kills_for_memory_is_replaced(root: Path, tmp_path: Path) -> None:
    flag, hooks = tmp_path / "flag", tmp_path / "hooks"
    hooks.mkdir()
    (hooks / "sitecustomize.py").write_text(HOOK)
    child = os.fork()
    if child == 0:
        os.environ |= {"KILLED": str(flag), "PYTHONPATH": f"{hooks}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"}
        os._exit(main(["keyframes", "-C", str(root), "--set", "shoot.workers=2"]))
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert flag.exists() and kept(root, "keyframes") == 4


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_two_runs_on_one_project(root: Path) -> None:
    """The second one is told that the first is there; nothing is made twice or half."""
    project = Project(root)
    with project.store.lock():
        child = os.fork()
        if child == 0:
            os._exit(main(["keyframes", "-C", str(root)]))
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 3
    assert kept(root, "keyframes") == 0
    assert set(made(root)) == {"sh0", "sh1"}
