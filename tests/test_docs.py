"""The pages name verbs, settings and files that exist."""

import ast
import re
from pathlib import Path

import pytest

from cinetune.config import Config, flatten
from cinetune.pipeline import STAGES

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted([*(ROOT / "docs").rglob("*.md"), ROOT / "README.md", ROOT / "CONTRIBUTING.md"])
VERBS = [stage.name for stage in STAGES] + [
    "caption",
    "sweep",
    "shots",
    "new",
    "doctor",
    "plan",
    "run",
    "status",
    "export",
    "weights",
    "demo",
]


def name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_a_page_with_an_example(verb: str) -> None:
    page = (ROOT / "docs" / "stages" / f"{verb}.md").read_text(encoding="utf-8")
    assert page.startswith(f"# {verb}\n")
    assert f"cinetune {verb}" in page


def test_no_page_is_about_a_verb_that_does_not_exist() -> None:
    assert sorted(path.stem for path in (ROOT / "docs" / "stages").glob("*.md")) == sorted(VERBS)


@pytest.mark.parametrize("path", PAGES, ids=name)
def test_settings_in_the_text_exist(path: Path) -> None:
    config = Config().model_dump()
    sections = [key for key, value in config.items() if isinstance(value, dict)]
    legal = {*flatten(config), *sections, "train.augment", "score.design", "score.design.margins", "score.reference"}
    found = re.findall(rf"(?:`|--set )((?:{'|'.join(sections)})\.[a-z_.]+[a-z])", path.read_text(encoding="utf-8"))
    files = {"train.log", "score.py", "train.py", "cache.py", "prepare.py"}
    assert {key for key in found if key not in legal and key not in files} == set()


@pytest.mark.parametrize("path", PAGES, ids=name)
def test_links_lead_somewhere(path: Path) -> None:
    links = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", path.read_text(encoding="utf-8"))
    assert [link for link in links if not (path.parent / link).exists()] == []


def test_each_decision_has_a_number_of_its_own() -> None:
    pages = sorted((ROOT / "docs" / "adr").glob("[0-9]*.md"))
    headings = [int(path.read_text(encoding="utf-8").split(".")[0].removeprefix("# ")) for path in pages]
    assert headings == [int(path.name[:4]) for path in pages]
    assert len(set(headings)) == len(headings)


def test_the_page_of_train_names_every_setting_with_its_default() -> None:
    page = (ROOT / "docs" / "stages" / "train.md").read_text(encoding="utf-8")
    rows = [line.split("|")[1:4] for line in page[page.index("## Settings") :].splitlines() if line.startswith("| `")]
    told: dict[str, str] = {}
    for names, defaults, _ in rows:
        keys = re.findall(r"`([a-z_.]+)`", names)
        values = [defaults.strip()] if len(keys) == 1 else re.findall(r"\([^)]*\)|[^,]+", defaults.strip())
        told |= {key: value.strip(" `") for key, value in zip(keys, values, strict=True)}
    config = Config().model_dump()
    fields = {f"{name}.{key}": value for name in ("train", "parallel") for key, value in config[name].items()}
    assert set(fields) == {key for key in told if not key.startswith("model.")}
    plain = {key: value for key, value in fields.items() if not isinstance(value, dict)}
    words = {"none": (), "true": True, "false": False}
    for key, value in plain.items():
        if isinstance(value, str):
            assert told[key] == value, key
        else:
            assert (words[told[key]] if told[key] in words else ast.literal_eval(told[key])) == value, key
