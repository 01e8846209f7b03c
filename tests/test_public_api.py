"""What `import cinetune` offers, and what it costs."""

import subprocess
import sys
from importlib import resources

import pytest

import cinetune

NAMES = [
    "STAGES", "CinetuneError", "Config", "Look", "Project", "Quiet", "Reporter", "Scorecard", "Sequence", "VideoModel",
    "__version__", "load_config", "load_model", "probe", "run", "status", "write_video",
]  # fmt: skip


def test_the_public_names_are_these() -> None:
    """Changing this list is a decision: it needs a line in the changelog."""
    assert cinetune.__all__ == NAMES
    assert set(NAMES) <= set(dir(cinetune))


@pytest.mark.parametrize("name", NAMES)
def test_every_public_name_is_there(name: str) -> None:
    assert getattr(cinetune, name) is not None


def test_another_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'shoot'"):
        _ = cinetune.shoot  # pyright: ignore[reportAttributeAccessIssue]


def test_importing_the_package_imports_nothing_else() -> None:
    code = "import sys, cinetune; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = {name.split(".")[0] for name in done.stdout.split()}
    assert loaded & {"torch", "numpy", "av", "pydantic", "typer", "rich"} == set()


def test_its_types_are_for_others_too() -> None:
    """PEP 561: without the marker a type checker takes everything here for Any."""
    assert resources.files("cinetune").joinpath("py.typed").is_file()
