"""The real product on shots whose answer is known: it claims what is there and nothing else."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import pytest

from cinetune.cli import main
from cinetune.runtime import Quiet
from e2e.mini import make_mini
from e2e.test_experiment import SETTINGS, shortened
from support import benchmark

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]


@pytest.fixture(scope="module")
def bench() -> ModuleType:
    return benchmark("null_product")


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight shots a domain, all arms, up to `expand`."""
    root = shortened(make_mini(tmp_path_factory.mktemp("null") / "p", film=6, shots=8))
    settings = [part for key in SETTINGS for part in ("--set", key)]
    assert main(["run", "-C", str(root), "--until", "expand", *settings]) == 0
    return root


@pytest.mark.parametrize("case", ["null", "swapped", "grade", "blur"])
def test_words_are_those_that_the_case_must_get(bench: ModuleType, finished: Path, tmp_path: Path, case: str) -> None:
    assert bench.run_case(case, finished, tmp_path, SETTINGS, Quiet())
