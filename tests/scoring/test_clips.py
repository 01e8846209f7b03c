"""Kept features: one reading of a clip for all networks, and never those of other weights."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from cinetune.scoring.clips import Source, kept_features
from cinetune.scoring.nets import Net
from cinetune.store import Project


@pytest.fixture
def project(tmp_path: Path) -> Project:
    (tmp_path / "cinetune.toml").write_text('preset = "pocket"\n', encoding="utf-8")
    return Project(tmp_path)


def net(weights: str, calls: list[str]) -> Net:
    def frames(frames_TCHW: torch.Tensor) -> np.ndarray:
        calls.append(weights)
        return frames_TCHW.mean((2, 3)).double().numpy() * len(weights)

    loaded = SimpleNamespace(frames=frames)
    return Net(name="clip-b", per="frame", identity=weights, label="", knows_words=False, _load=lambda: loaded)


def test_a_clip_is_read_once_and_embedded_once_by_each_network(project: Project) -> None:
    calls: list[str] = []
    reads: list[int] = []

    def read() -> np.ndarray:
        reads.append(1)
        return np.full((9, 4, 4, 3), 0.5, np.float32)

    source = Source("pixels", "", read)
    old, new = net("old", calls), net("newer", calls)
    first = kept_features(project, source, old)
    assert len(kept_features(project, source, new)) == len(first) == 2
    assert reads == [1]
    source.let_go()
    np.testing.assert_array_equal(kept_features(project, source, old), first)
    assert (calls, reads) == (["old", "newer"], [1]), "nothing is read or embedded again"


def test_features_of_other_weights_or_another_clip_are_never_taken(project: Project) -> None:
    calls: list[str] = []
    grey = Source("grey", "", lambda: np.full((9, 4, 4, 3), 0.75, np.float32))
    dark = Source("dark", "", lambda: np.full((9, 4, 4, 3), 0.25, np.float32))
    old = kept_features(project, grey, net("old", calls))
    assert not np.allclose(kept_features(project, grey, net("newer", calls)), old)
    assert not np.allclose(kept_features(project, dark, net("old", calls)), old)
    assert calls == ["old", "newer", "old"]
