"""What is promised to an installer: every package that is imported is declared, and bounded where it may change."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from pathlib import Path

import cinetune
from cinetune.runtime import package_versions

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
CALENDAR = {"tifffile"}
"""Numbered by the year: no number says when an interface changes."""
NAMES = {
    "PIL": "pillow", "OpenImageIO": "openimageio", "PyOpenColorIO": "opencolorio", "c2pa": "c2pa-python",
    "cv2": "opencv-python-headless",    "mlflow": "mlflow-skinny", "scenedetect": "scenedetect-headless",
}  # fmt: skip
NOT_ASKED_FOR = {"torchvision": "only doctor looks whether one is there"}


def named(requirement: str) -> str:
    return re.split(r"[<>=!~\[; ]", requirement)[0].lower().replace("_", "-")


def test_every_import_is_declared() -> None:
    declared = {named(line) for line in PROJECT["project"]["dependencies"]}
    for lines in PROJECT["project"]["optional-dependencies"].values():
        declared |= {named(line) for line in lines}
    unknown: dict[str, str] = {}
    for path in sorted((ROOT / "src").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            match node:
                case ast.Import(names=names):
                    modules = [alias.name for alias in names]
                case ast.ImportFrom(module=str(module), level=0):
                    modules = [module]
                case _:
                    continue
            for module in modules:
                top = module.split(".")[0]
                package = NAMES.get(top, top.lower().replace("_", "-"))
                ours = top == "cinetune" or top in sys.stdlib_module_names or top == "__future__"
                if not ours and package not in declared and top not in NOT_ASKED_FOR:
                    unknown[package] = path.name
    assert unknown == {}


def test_every_dependency_has_an_upper_bound() -> None:
    free = [line for line in PROJECT["project"]["dependencies"] if "<" not in line and named(line) not in CALENDAR]
    assert free == []


def test_the_version_has_one_owner() -> None:
    assert PROJECT["project"]["dynamic"] == ["readme", "version"]
    assert PROJECT["tool"]["hatch"]["version"]["path"] == "src/cinetune/__init__.py"
    assert re.fullmatch(r"\d+\.\d+\.\d+", cinetune.__version__)


def test_a_source_tree_without_metadata_knows_its_version() -> None:
    assert package_versions(["cinetune", "no-such-package", "numpy"]) == {
        "cinetune": cinetune.__version__, "no-such-package": "unknown", "numpy": package_versions(["numpy"])["numpy"],
    }  # fmt: skip
    assert package_versions(["numpy"])["numpy"] != "unknown"


def test_no_module_asks_for_versions_on_its_own() -> None:
    """`metadata.version` raises in a source tree; `runtime.package_versions` does not."""
    asking = [p.name for p in (ROOT / "src").rglob("*.py") if "metadata.version(" in p.read_text(encoding="utf-8")]
    assert sorted(asking) == ["doctor.py", "runtime.py"]


def test_the_readme_stands_alone_on_an_index() -> None:
    """Every relative link and picture becomes a whole address under the project's own."""
    rules = PROJECT["tool"]["hatch"]["metadata"]["hooks"]["fancy-pypi-readme"]["substitutions"]
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    for rule in rules:
        text = re.sub(rule["pattern"], rule["replacement"], text)
    left = [target for target in re.findall(r"\]\(([^)]+)\)", text) if not target.startswith(("https://", "#"))]
    assert left == []
    home = PROJECT["project"]["urls"]["Homepage"].removeprefix("https://github.com/")
    assert all(f"/{home}/" in target for target in re.findall(r"\]\((https://[^)]+)\)", text))


def test_what_the_numbers_pages_name_is_in_the_source_archive() -> None:
    include = PROJECT["tool"]["hatch"]["build"]["targets"]["sdist"]["include"]
    there = {path.name for path in ROOT.iterdir()}
    assert {"/benchmarks", "/docs", "/src", "/tests", "/tools", "/.ci", "/LICENSE"} <= set(include)
    assert [path for path in include if path.removeprefix("/") not in there] == []
