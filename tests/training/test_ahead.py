"""Reading ahead changes nothing, and a step asks the card nothing until it is done."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from cinetune.errors import ModelError
from cinetune.models.adapters.lora import add_lora
from cinetune.models.wan.wan21 import WanVideo
from cinetune.runtime import Quiet
from cinetune.sections import TrainSection
from cinetune.training import Validator, WindowFile, train
from cinetune.training import loop as looping
from cinetune.training.ahead import Seen, look, looking_ahead
from cinetune.training.step import step_loss
from support import tiny_wan


def test_a_thread_sees_what_would_be_seen(files: list[WindowFile], recipe: TrainSection) -> None:
    """Also when a step is skipped, as a resumed run does at its first."""
    rows = [slice(0, 1), slice(1, 2)]
    readers: set[str] = set()

    def make(step: int) -> Seen:
        readers.add(threading.current_thread().name.rpartition("_")[0])
        return look(step, files, recipe, rows)

    with looking_ahead(make) as ahead:
        for step in (4, 5, 6, 9):
            mine, plain = ahead(step), look(step, files, recipe, rows)
            assert mine.picked == plain.picked and torch.equal(mine.draws.noise_BCfhw, plain.draws.noise_BCfhw)
            for (batch, draws), (other, theirs) in zip(mine.parts, plain.parts, strict=True):
                assert torch.equal(batch.latents_BCfhw, other.latents_BCfhw)
                assert torch.equal(batch.cond.latent_BCfhw, other.cond.latent_BCfhw)
                assert torch.equal(draws.sigma_B, theirs.sigma_B)
    assert readers == {"read-ahead"}


def test_an_error_of_reading_is_raised_where_the_step_is_asked_for() -> None:
    def make(step: int) -> Any:
        if step == 2:
            raise ModelError("gone")
        return step

    with looking_ahead(make) as ahead:
        assert [ahead(0), ahead(1)] == [0, 1]
        with pytest.raises(ModelError, match="gone"):
            ahead(2)


def test_a_step_reads_nothing_back_from_its_device(files: list[WindowFile], recipe: TrainSection) -> None:
    """On the `meta` device reading a value is an error: loss, backward, clipping and optimiser run through there."""
    model, meta = tiny_wan(), torch.device("meta")
    add_lora(model, rank=2, alpha=4, targets="cross", seed=0)
    denoiser: Any = model.denoiser
    denoiser.to(meta)
    trained = [parameter for parameter in model.denoiser.parameters() if parameter.requires_grad]
    optimiser = torch.optim.AdamW(trained)
    empty, norm = torch.zeros(1, 512, 32, device=meta), torch.zeros(())
    for step in range(2):
        for batch, draws in look(step, files, recipe, [slice(0, 1), slice(1, 2)]).parts:
            step_loss(model, batch.to(meta), draws.to(meta), empty_1LD=empty).sum().backward()
        norm = torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimiser.step()
        optimiser.zero_grad()
    with pytest.raises((RuntimeError, NotImplementedError)):
        float(norm)


def test_the_loop_waits_once_a_step(
    model: WanVideo, files: list[WindowFile], empty: Tensor, judge: Callable[..., Validator], recipe: TrainSection,
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """Between seeing a step's windows and knowing its loss, one tensor is read, and nothing else."""
    reads: list[str] = []
    watched = threading.Event()
    waits: list[int] = []

    def watch(name: str) -> None:
        plain = getattr(Tensor, name)

        def read(self: Tensor, *inputs: Any, **options: Any) -> Any:
            if watched.is_set() and threading.current_thread() is threading.main_thread():
                reads.append(name)
            return plain(self, *inputs, **options)

        monkeypatch.setattr(Tensor, name, read)

    for name in ("cpu", "item", "tolist", "numpy", "__bool__", "__float__", "__int__", "__index__"):
        watch(name)
    plain_loss, plain_check = looping.step_loss, looping._check_finite

    def loss(*inputs: Any, **options: Any) -> Tensor:
        watched.set()
        return plain_loss(*inputs, **options)

    def check(*inputs: Any, **options: Any) -> None:
        watched.clear()
        waits.append(reads.count("cpu"))
        assert set(reads) == {"cpu"}
        reads.clear()
        plain_check(*inputs, **options)

    monkeypatch.setattr(looping, "step_loss", loss)
    monkeypatch.setattr(looping, "_check_finite", check)
    train(
        model, files[:3], empty, validator=judge(recipe, tmp_path), recipe=recipe, arm="look", folder=tmp_path,
        fingerprint={}, report=Quiet(),
    )  # fmt: skip
    assert waits == [1] * recipe.steps
