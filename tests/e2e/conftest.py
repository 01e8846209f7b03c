"""A small film that was prepared, made once; tests work on copies of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from cinetune.cli import main
from e2e.mini import make_tiny


@pytest.fixture(scope="session")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = make_tiny(tmp_path_factory.mktemp("odd") / "film")
    with (root / "cinetune.toml").open("a", encoding="utf-8") as file:
        file.write('\n[[footage.colour]]\nmatch = "c3.*"\nlut = "film.cube"\n')
    cube = "".join(f"{r} {g} {b}\n" for b in (0, 1) for g in (0, 1) for r in (0, 1))
    (root / "film.cube").write_text(f"LUT_3D_SIZE 2\n{cube}", encoding="utf-8")
    assert main(["run", "--until", "prepare", "-C", str(root)]) == 0
    return root
