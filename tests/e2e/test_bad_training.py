"""What cannot be trained on: every verb says what, where and how to mend it, and leaves no half-made look."""

from __future__ import annotations

import shutil
import socket
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from cinetune.artifacts import LatentEntry
from cinetune.cli import main
from cinetune.models.adapters.export import save_adapter
from cinetune.store import Project
from cinetune.training import Validator
from small_project import make_project, provenance_of
from support import save_tiny

RECIPE = """
[train]
rank = 2
alpha = 4
steps = 2
batch = 1
accumulate = 1
validate_every = 1
validation_steps = 1
validation_seeds = 1
checkpoint_every = 1
checkpointing = "none"
"""
Refused = Callable[..., str]


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three windows, one of them held out, cached by the verb."""
    root = make_project(tmp_path_factory.mktemp("bad") / "p", film=3)
    (root / "work" / "stages" / "train.json").unlink()
    with (root / "cinetune.toml").open("a", encoding="utf-8") as file:
        file.write(RECIPE)
    _prepared(Project(root), held=1)
    assert main(["cache", "-C", str(root)]) == 0
    return root


@pytest.fixture
def film(template: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(template, tmp_path / "p"))


@pytest.fixture
def refused(capsys: pytest.CaptureFixture[str]) -> Refused:
    """`refused(film, 2, "train", ...)` runs a verb that must fail with that exit code, and returns what it said."""

    def run(film: Path, exit_code: int, *words: str) -> str:
        capsys.readouterr()
        code = main([*words, "-C", str(film)])
        out, err = capsys.readouterr()
        assert code == exit_code, err
        assert "Traceback" not in out + err and "This is a bug" not in err
        assert "\n  where: " in err and "\n  fix:   " in err
        assert Project(film).store.load_stage("train") is None
        assert not list(film.rglob(".partial-*"))
        return err

    return run


def _prepared(project: Project, *, held: int, left: int = 3) -> None:
    """The first `left` windows, the last `held` of them kept out of training."""
    windows = project.store.need_stage("prepare").groups["windows"][:left]
    kept = [replace(one, split="held" if number >= left - held else "train") for number, one in enumerate(windows)]
    project.store.save_stage("prepare", "test", {"windows": kept}, made=provenance_of())


def _entries(film: Path) -> tuple[LatentEntry, ...]:
    return Project(film).store.need_stage("cache").groups["entries"]


def test_targets_that_match_no_layer(film: Path, refused: Refused) -> None:
    said = refused(film, 2, "train", "--set", r"train.targets=regex:blocks\.\d+\.attn3\.to_q")
    assert "no layer of" in said and "attn3" in said
    assert "use one of all-linear, attention, cross, cross-text" in said


@pytest.mark.parametrize("number", [0, 2], ids=["train", "held"])
def test_a_cached_window_with_nan_in_it(film: Path, refused: Refused, number: int) -> None:
    store, cached = Project(film).store, Project(film).store.need_stage("cache")
    entries: list[LatentEntry] = list(cached.groups["entries"])
    tensors = load_file(store.path(entries[number].file))
    tensors["latents_Cfhw"][0, 0, 0, 0] = float("nan")
    with store.new_object(".safetensors") as (path, done):
        save_file(tensors, path)
    entries[number] = replace(entries[number], file=done[0])
    store.save_stage(
        "cache", cached.input_key, {"entries": entries, "shared": cached.groups["shared"]}, made=provenance_of()
    )
    said = refused(film, 2, "train")
    assert f"window {entries[number].window} holds values that are not finite (latents_Cfhw)" in said
    assert done[0].path in said and "cinetune cache" in said


def test_weights_that_encode_to_nan(film: Path, refused: Refused) -> None:
    path = film / "model" / "vae" / "diffusion_pytorch_model.safetensors"
    broken = load_file(path)
    broken["quant_conv.bias"][:] = float("nan")
    save_file(broken, path)
    project = f"model.path={film / 'model'}"
    said = refused(film, 2, "cache", "--set", project)
    assert "window w0 cannot be encoded: latents_Cfhw, cond_Cfhw would not be finite" in said
    assert "footage/c0.mp4" in said


def test_a_cache_of_another_model(film: Path, refused: Refused) -> None:
    save_tiny(film / "other", seed=7)
    said = refused(film, 3, "train", "--set", f"model.path={film / 'other'}")
    assert f"the cache was made with another model than {film / 'other'}" in said
    assert _entries(film)[0].model.weights_sha256[:12] in said and "cinetune cache" in said


def test_a_cached_window_that_is_gone(film: Path, refused: Refused) -> None:
    gone = _entries(film)[1].file.path
    (film / gone).unlink()
    said = refused(film, 3, "train")
    assert "missing" in said and gone in said
    assert main(["cache", "-C", str(film)]) == 0  # the remedy works
    assert (film / gone).is_file()


def test_fewer_windows_than_when_the_run_began(film: Path, refused: Refused, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = Validator.__call__

    def dies(self: Validator, step: int):
        if step == 2:
            raise KeyboardInterrupt
        return plain(self, step)

    with monkeypatch.context() as patch:
        patch.setattr(Validator, "__call__", dies)
        assert main(["train", "-C", str(film)]) == 130
    _prepared(Project(film), held=1, left=2)
    assert main(["cache", "-C", str(film)]) == 0
    said = refused(film, 3, "train")
    assert "the training that stopped at step 1 had another data set" in said
    assert "window w2 is gone" in said and "--force" in said


def test_an_adapter_of_another_base(film: Path, refused: Refused) -> None:
    path = film / "wan.safetensors"
    pair = {"lora_A.weight": torch.ones(2, 5120), "lora_B.weight": torch.ones(5120, 2)}
    save_adapter(path, {f"blocks.0.attn2.to_q.{key}": value for key, value in pair.items()}, alpha=2, rank=2)
    said = refused(film, 2, "train", "--init-from", str(path))
    assert "of another base" in said and "5120x5120" in said and str(path) in said
    assert "use the model it was made for" in said


def test_a_pickled_adapter(film: Path, refused: Refused) -> None:
    path = film / "adapter_model.bin"
    torch.save({"blocks.0.attn2.to_q.lora_A.weight": torch.zeros(2, 48)}, path)
    said = refused(film, 3, "train", "--init-from", str(path))
    assert "can run code" in said and str(path) in said


def test_pickled_weights(film: Path, refused: Refused) -> None:
    folder = film / "pickled"
    shutil.copytree(film / "model", folder)
    weights = folder / "vae" / "diffusion_pytorch_model.safetensors"
    torch.save(load_file(weights), weights.with_suffix(".bin"))
    weights.unlink()
    said = refused(film, 3, "cache", "--set", f"model.path={folder}")
    assert "pickle" in said and str(folder) in said


def test_processes_that_do_not_divide(film: Path, refused: Refused) -> None:
    said = refused(film, 2, "train", "--set", "parallel.ulysses=2")
    assert "world size of 1 does not divide by parallel.ulysses = 2" in said


def test_a_meeting_point_that_is_taken(film: Path, refused: Refused, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        for name, value in {"RANK": 0, "WORLD_SIZE": 2, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}.items():
            monkeypatch.setenv(name, str(value))
        said = refused(film, 3, "train")
    assert "the 2 processes of this run cannot meet" in said and f"127.0.0.1:{port}" in said
    assert "--standalone" in said


def test_a_page_whose_port_is_taken(film: Path, refused: Refused) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        said = refused(film, 2, "train", "--watch", "--port", port)
    assert f"port {port} cannot be used" in said
