"""The page about the paper, and what it says of presets, tests and commands."""

from __future__ import annotations

import ast
import re
import tomllib
from functools import cache
from pathlib import Path

import pytest
import typer

from cinetune.cli import app
from cinetune.config import PRESETS, flatten, load_config, preset_table
from cinetune.plan import make_plan
from cinetune.sections import TrainSection
from cinetune.store import Project

ROOT = Path(__file__).resolve().parents[1]
PAPER = ROOT / "docs" / "paper.md"
PAGES = (PAPER, ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))


def _config(preset: str, folder: Path) -> dict[str, object]:
    (folder / "cinetune.toml").write_text(f'preset = "{preset}"\n')
    return flatten(load_config(folder / "cinetune.toml")[0].model_dump(mode="json"))


@cache
def _tests(path: Path) -> frozenset[str]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return frozenset(node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef))


def test_every_test_the_page_names_exists() -> None:
    named = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", PAPER.read_text(encoding="utf-8"))
    assert len(named) > 25
    assert [f"{file}::{name}" for file, name in named if name not in _tests(ROOT / file)] == []


def test_the_page_and_the_preset_say_the_same(tmp_path: Path) -> None:
    said = {
        key: tomllib.loads(f"value = {value}")["value"]
        for key, value in re.findall(r"`([a-z_.]+) = ([^`]+)`", PAPER.read_text(encoding="utf-8"))
        if key != "preset"
    }
    real = _config("paper", tmp_path)
    assert {key: (value, real[key]) for key, value in said.items() if value != real[key]} == {}
    assert set(flatten(preset_table("paper", where=""))) - set(said) == set()


def test_the_calculated_times_are_those_of_the_plan(tmp_path: Path) -> None:
    """Hours of training, minutes of one segment."""
    (tmp_path / "cinetune.toml").write_text('preset = "paper"\n')
    (tmp_path / "r.png").touch()
    shot = '[[shot]]\nid = "a"\nprompt = "p"\ndomain = "in"\nreference = "r.png"\nseconds = 2.0\n'
    (tmp_path / "shots.toml").write_text(shot)
    page = PAPER.read_text(encoding="utf-8")
    cards = {row[0]: row for row in make_plan(Project(tmp_path)).cards}
    for name, title in (("A100 80 GB", "an A100"), ("H200", "an H200")):
        assert f"about {float(cards[name][2].split()[0]):.0f} h on {title}" in page
    for size in ((480, 832), (720, 1280)):
        here = Project(tmp_path, overrides=(f"shoot.height={size[0]}", f"shoot.width={size[1]}", "shoot.seeds=1"))
        minutes, unit = next(row for row in make_plan(here).cards if row[0] == "A100 80 GB")[3].split()
        assert unit == "min"
        assert f"{float(minutes) / 2:.1f} min at {size[0]}×{size[1]}" in page, "the plan counts both arms"


def test_the_table_of_recipes_is_that_of_the_presets(tmp_path: Path) -> None:
    rows = re.findall(r"^\| `([\w-]+)` \| (.+) \|$", PAPER.read_text(encoding="utf-8"), re.M)
    assert [name for name, _ in rows] == ["paper", "like-musubi", "like-diffusion-pipe", "like-ai-toolkit"]
    for name, cells in rows:
        train = TrainSection.model_validate(preset_table(name, where="")["train"])
        warm = f", {train.warmup:.0%} warm-up".replace("%", " %") if train.warmup else ""
        expected = [
            f"{train.rank}, {train.alpha:g}", train.targets, f"{train.lr:g}", train.schedule + warm, f"{train.shift:g}",
            f"{train.batch} × {train.accumulate}", f"{train.weight_decay:g}", f"{train.ema:g}" if train.ema else "none",
        ]  # fmt: skip
        assert [cell.strip() for cell in cells.split(" | ")] == expected


@pytest.mark.parametrize("page", dict.fromkeys(PAGES), ids=lambda page: page.name)
def test_every_command_has_its_verb_and_options(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    fenced = re.findall(
        r"^ *(?:torchrun .* -m )?(cinetune [a-z].*)$", "\n".join(re.findall(r"```\n(.*?)```", text, re.S)), re.M
    )
    verbs = typer.main.get_command(app)
    for command in [*fenced, *re.findall(r"`(cinetune [a-z][^`]*)`", text)]:
        word, *rest = command.split("#")[0].split()[1:]
        verb = verbs.commands[word]  # pyright: ignore[reportAttributeAccessIssue]
        if rest and rest[0] in getattr(verb, "commands", {}):
            verb = verb.commands[rest.pop(0)]
        options = {option for parameter in verb.params for option in parameter.opts}
        assert [part for part in rest if part.startswith("-") and part not in options] == [], command
        for setting in re.findall(r"--set (\S+)", command):
            if setting.startswith("preset="):
                assert setting.removeprefix("preset=") in PRESETS


@pytest.mark.parametrize("page", ["README.md", "docs/index.md"])
def test_the_lists_of_verbs_are_those_of_the_help(page: str) -> None:
    verbs = typer.main.get_command(app)
    text = (ROOT / page).read_text(encoding="utf-8").split("## Verbs")[-1]
    linked = re.findall(r"\[([a-z]+)\]\((?:docs/)?stages/\1\.md\)", text)
    assert sorted(linked) == sorted(verbs.commands)  # pyright: ignore[reportAttributeAccessIssue]


def test_the_papers_recipe_is_whole_and_exact(tmp_path: Path) -> None:
    config = _config("paper", tmp_path)
    stated = {
        "model.family": "wan21", "model.dtype": "bfloat16", "prepare.frames": 33, "train.rank": 8, "train.alpha": 16.0,
        "train.targets": "cross", "train.lr": 3e-5, "train.betas": [0.9, 0.999], "train.weight_decay": 0.01,
        "train.schedule": "cosine", "train.warmup": 0.05, "train.steps": 4000, "train.batch": 1, "train.accumulate": 4,
        "train.checkpointing": "full", "train.ema": 0.0, "train.augment.probability": 0.0,
        "train.augment.single_frame": 0.0, "shoot.height": 720, "shoot.width": 1280,
    }  # fmt: skip
    assert {key: config[key] for key in stated} == stated
    written = flatten(preset_table("paper", where=""))
    assert set(stated) <= set(written), "said in the file, not left to defaults that may change"
    sharded = load_config(tmp_path / "cinetune.toml", overrides=("parallel.data=fsdp",))[0]
    assert sharded.parallel.data == "fsdp"


@pytest.mark.parametrize("name", [name for name in PRESETS if name.startswith("like-")])
def test_recipes_of_others_differ_in_the_recipe_alone(tmp_path: Path, name: str) -> None:
    ours, theirs = (_config(preset, tmp_path) for preset in ("paper", name))
    differing = {key for key in ours if ours[key] != theirs[key]} - {"preset"}
    sides = {key.partition(".")[0] for key in differing}
    assert sides <= {"train", "keyframes", "shoot"}
    assert {"train.rank", "train.lr", "train.targets", "train.schedule", "train.caption_dropout"} <= differing
    assert theirs["train.targets"] == "all-linear" and theirs["train.accumulate"] == 1
    judging = (
        "train.patience",
        "train.validate_every",
        "train.min_delta",
        "train.seed",
        "prepare.frames",
        "train.steps",
    )
    others = [preset for preset in PRESETS if preset.startswith("like-")]
    assert all(_config(other, tmp_path)[key] == theirs[key] for other in others for key in judging)
