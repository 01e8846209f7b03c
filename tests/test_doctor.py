"""The checks of the machine, on projects that are well and projects that are not."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from cinetune.doctor import Check, examine, weights_table
from cinetune.footage.video import MOVIES


def found(root: Path) -> dict[str, Check]:
    return {check.name: check for check in examine(root)}


@pytest.fixture(scope="module")
def without_project(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Check]:
    return found(tmp_path_factory.mktemp("empty"))


def test_this_machine_can_run_the_tests(without_project: dict[str, Check]) -> None:
    well = ["python", "torch", "torchvision", "folder", *MOVIES]
    assert {name: without_project[name].state for name in well} == dict.fromkeys(well, "ok")


def test_a_codec_that_is_not_there_fails_and_the_others_are_tried(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(MOVIES, "h264", replace(MOVIES["h264"], encoder="no_such_encoder"))
    checks = found(tmp_path)
    assert (checks["h264"].state, checks["prores_hq"].state) == ("fail", "ok")
    assert "PyAV" in checks["h264"].found and checks["h264"].remedy


def test_a_codec_that_writes_other_pictures_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(MOVIES, "h264", replace(MOVIES["h264"], options={"qp": "51"}))
    monkeypatch.setattr("cinetune.doctor._OFF", 1e-6)
    check = found(tmp_path)["h264"]
    assert check.state == "fail" and "levels off by" in check.found


def test_a_machine_without_torch_is_told_so(tmp_path: Path) -> None:
    """A plain install that got no torch: every other line is still there."""
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "from pathlib import Path; from cinetune.doctor import examine\n"
        f"print(*(f'{{c.name}}={{c.state}}' for c in examine(Path({str(tmp_path)!r}))))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert {"torch=fail", "GPU=warn", "prores_hq=ok"} <= set(done.stdout.split())


def test_what_is_not_well_has_a_remedy(without_project: dict[str, Check], tmp_path: Path) -> None:
    (tmp_path / "cinetune.toml").write_text('preset = "wan21"\n[model]\npath = "nowhere"\n')
    for check in [*without_project.values(), *examine(tmp_path)]:
        assert bool(check.remedy) == (check.state != "ok"), check


def test_missing_weights_fail_with_the_command_to_get_them(tmp_path: Path) -> None:
    (tmp_path / "cinetune.toml").write_text('preset = "wan21"\n[model]\npath = "nowhere"\n')
    check = found(tmp_path)["weights"]
    assert check.state == "fail"
    assert "hf download Wan-AI/" in check.remedy


def test_a_broken_project_file_fails_and_the_rest_is_still_checked(tmp_path: Path) -> None:
    (tmp_path / "cinetune.toml").write_text("[train]\nlrr = 1\n")
    checks = found(tmp_path)
    assert checks["project"].state == "fail"
    assert "train.lr" in checks["project"].found
    assert "torch" in checks


def test_a_folder_that_does_not_exist_is_a_warning(tmp_path: Path) -> None:
    assert found(tmp_path / "film")["folder"].state == "warn"
    assert not (tmp_path / "film").exists()


def test_the_check_leaves_nothing_behind(tmp_path: Path) -> None:
    examine(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_the_list_of_weights(tmp_path: Path) -> None:
    rows = weights_table(tmp_path)
    assert rows[0]["name"] == "pocket (embedded)"
    assert all(row["licence"] or row["state"] == "not offered" for row in rows)
    networks = {row["name"].split(" ")[0]: row for row in rows}
    assert "weights pull clip-l" in networks["clip-l"]["remedy"] and "blind to" in networks["clip-l"]["remedy"]
    assert networks["inception"]["state"] == "to bring" and networks["sscd"]["state"] == "not offered"
    (tmp_path / "cinetune.toml").write_text('preset = "paper"\n[model]\npath = "nowhere"\n')
    mine = weights_table(tmp_path)[0]
    assert (mine["name"], mine["state"]) == ("this project", "not usable")
    assert mine["remedy"]
