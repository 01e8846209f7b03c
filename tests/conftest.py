"""One thread per worker, no network, and a small project to start from."""

from __future__ import annotations

import os

for _name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(_name, "1")
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"

import socket
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from cinetune.artifacts import Provenance
from cinetune.runtime import Quiet, provenance
from cinetune.store import Project

if TYPE_CHECKING:
    from torch._dynamo.testing import CompileCounterWithBackend


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """A test that reaches for another machine fails and says so."""
    connect = socket.socket.connect

    def guarded(self: socket.socket, address: Any) -> None:
        host = address[0] if isinstance(address, tuple) else "local"
        assert host in ("local", "localhost", "127.0.0.1", "::1"), f"a test tried to reach {address}"
        connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", guarded)


@pytest.fixture
def graphs(monkeypatch: pytest.MonkeyPatch) -> Iterator[CompileCounterWithBackend]:
    """A compiler backend for blocks that traces and differentiates as inductor does, and counts programs."""
    import torch
    from torch._dynamo.testing import CompileCounterWithBackend
    from torch._dynamo.utils import counters

    from cinetune.models.memory import fit

    torch._dynamo.reset()
    counters.clear()
    counter = CompileCounterWithBackend("aot_eager")
    monkeypatch.setattr(fit, "BACKEND", counter)
    yield counter
    torch._dynamo.reset()


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """An empty project with default settings."""
    (tmp_path / "cinetune.toml").write_text('name = "film"\n', encoding="utf-8")
    (tmp_path / "footage").mkdir()
    return Project(tmp_path)


@pytest.fixture
def report() -> Quiet:
    return Quiet()


@pytest.fixture
def made() -> Provenance:
    """Provenance of something made in a test."""
    return provenance(seed=0, config_sha="0" * 64, parents=(), device="cpu", wall_seconds=0.0)
