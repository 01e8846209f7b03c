"""One tiny model on disk per worker; every test loads its own copy, because adapters change a model."""

from __future__ import annotations

from pathlib import Path

import pytest

from cinetune.models.wan.wan21 import WanVideo
from support import save_tiny


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("weights") / "tiny"
    save_tiny(folder)
    return folder


@pytest.fixture
def model(tiny_folder: Path) -> WanVideo:
    return WanVideo.from_folder(tiny_folder, family="pocket")
