"""The loop: resumes exactly, refuses NaN, accumulates as it batches, stops for a stated reason."""

from __future__ import annotations

import json
import os
import random
import signal
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from cinetune.errors import ModelError, StoreError
from cinetune.models.adapters.lora import lora_names, lora_state
from cinetune.models.wan.wan21 import WanVideo
from cinetune.runtime import Quiet
from cinetune.sections import AugmentSection, TrainSection
from cinetune.training import Finished, Validator, WindowFile, checkpoint, train, window_file
from cinetune.training.loop import learning_rate
from support import remove_lora

GOLDEN = Path(__file__).parents[1] / "golden" / "loss_trace.json"
Judge = Callable[..., Validator]
Train = Callable[..., Finished]


@pytest.fixture
def run(model: WanVideo, files: list[WindowFile], empty: torch.Tensor, judge: Judge) -> Train:
    """`run(recipe, folder)` trains the arm `look` from a base model without adapters."""

    def go(
        recipe: TrainSection,
        folder: Path,
        *,
        windows: list[WindowFile] | None = None,
        data: str = "d",
        table: dict[str, float] | None = None,
        force: bool = False,
    ) -> Finished:
        for name in lora_names(model):
            remove_lora(model, name)
        return train(
            model,
            windows or files[:3],
            empty,
            validator=judge(recipe, folder),
            recipe=recipe,
            arm="look",
            folder=folder,
            fingerprint={"data set": data, **({"recipe": table} if table else {})},
            force=force,
            report=Quiet(),
        )

    return go


def _log(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


def _killed(run: Train, recipe: TrainSection, folder: Path, *, lines: int) -> None:
    """Train in a forked process and kill it with SIGKILL once its log has `lines` lines."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.12 warns of any fork beside threads
        child = os.fork()
    if child == 0:
        try:
            run(recipe, folder)
        finally:
            os._exit(0)
    path = folder / "log.jsonl"
    while not (path.is_file() and path.read_text().count("\n") >= lines):
        done, _ = os.waitpid(child, os.WNOHANG)
        assert done == 0, "the run ended before it could be killed"
        time.sleep(0.002)
    time.sleep(random.random() * 0.05)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)


def test_killed_run_ends_with_the_same_bytes(run: Train, model: WanVideo, recipe: TrainSection, tmp_path: Path) -> None:
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    expected = run(recipe, whole)
    state = lora_state(model, "look")
    for lines in (2, 7):
        _killed(run, recipe, broken, lines=lines)
    with (broken / "log.jsonl").open("a") as log:
        log.write('{"kind": "st')  # what a process killed in the middle of a line leaves
    assert run(recipe, broken) == expected
    assert (broken / "log.jsonl").read_bytes() == (whole / "log.jsonl").read_bytes()
    assert (broken / "checkpoint.safetensors").read_bytes() == (whole / "checkpoint.safetensors").read_bytes()
    again = lora_state(model, "look")
    assert all(torch.equal(state[name], again[name]) for name in state)


def test_a_finished_run_is_not_run_again(run: Train, recipe: TrainSection, tmp_path: Path) -> None:
    first = run(recipe, tmp_path)
    before = (tmp_path / "log.jsonl").read_bytes()
    started = (tmp_path / "checkpoint.safetensors").stat().st_mtime_ns
    assert run(recipe, tmp_path) == first
    assert (tmp_path / "log.jsonl").read_bytes() == before
    assert (tmp_path / "checkpoint.safetensors").stat().st_mtime_ns == started


def test_log_tells_the_whole_story(run: Train, recipe: TrainSection, tmp_path: Path) -> None:
    finished = run(recipe, tmp_path)
    log = _log(tmp_path)
    assert [(line["kind"], line["step"]) for line in log if not line["kind"].startswith("alarm")] == [
        ("start", 0),
        ("evaluation", 0),
        ("step", 1),
        ("step", 2),
        ("step", 3),
        ("evaluation", 3),
        ("step", 4),
        ("step", 5),
        ("step", 6),
        ("evaluation", 6),
        ("end", 6),
    ]
    assert log[0]["validation"]["distance"].endswith("random maps")
    assert finished.stopped == log[-1]["stopped"] == "reached 6 steps"
    distances = {line["step"]: line["distance"] for line in log if line["kind"] == "evaluation" and line["step"]}
    assert finished.step == min(distances, key=distances.__getitem__)
    assert sorted(path.name for path in (tmp_path / "samples").iterdir()) == [f"step_{n:06d}.mp4" for n in (0, 3, 6)]
    assert any(line["variants"] != [0, 0] for line in log if line["kind"] == "step")
    assert any(line["single_frame"] for line in log if line["kind"] == "step")


def test_the_kept_adapter_is_the_best_one(
    run: Train, model: WanVideo, recipe: TrainSection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: dict[int, dict[str, torch.Tensor]] = {}
    plain = Validator.__call__

    def scripted(self: Validator, step: int):
        from dataclasses import replace

        if step:
            seen[step] = lora_state(model, "look")
        return replace(plain(self, step), distance={0: 0.1, 2: 0.5, 4: 0.3, 6: 0.4}[step])

    monkeypatch.setattr(Validator, "__call__", scripted)
    finished = run(recipe.model_copy(update={"validate_every": 2}), tmp_path)
    assert finished.step == 4  # step 0 is no candidate, although nothing was better
    assert finished.last_step == 6
    state = lora_state(model, "look")
    assert all(torch.equal(state[name], seen[4][name]) for name in state)
    assert any("no gain" in alarm for alarm in finished.alarms)


def test_plateau_stops_the_run_and_says_so(run: Train, recipe: TrainSection, tmp_path: Path) -> None:
    finished = run(
        recipe.model_copy(update={"validate_every": 1, "patience": 2, "min_delta": 100.0, "steps": 50}), tmp_path
    )
    assert finished.last_step == 2
    assert finished.stopped == "lpips plateau at step 2: no gain of 100 in 2 evaluations"


def test_nan_latents_stop_before_the_optimiser_moves(
    run: Train, recipe: TrainSection, files: list[WindowFile], tmp_path: Path
) -> None:
    tensors = load_file(files[0].path)
    tensors["latents_Cfhw"][0, 0, 0, 0] = float("nan")
    save_file(tensors, tmp_path / "bad.safetensors")
    bad = window_file("bad window", tmp_path / "bad.safetensors")
    with pytest.raises(ModelError, match=r"loss is not finite at training step 1(?s:.*)bad window at sigma 0\.\d+"):
        run(recipe, tmp_path, windows=[bad])
    kept = load_file(tmp_path / "checkpoint.safetensors")
    assert all(not tensor.any() for name, tensor in kept.items() if name.endswith("lora_B.weight"))
    assert not any(name.startswith("optimiser/") for name in kept)


def test_other_data_cannot_continue_an_unfinished_run(run: Train, recipe: TrainSection, tmp_path: Path) -> None:
    _killed(run, recipe, tmp_path, lines=5)
    with pytest.raises(StoreError, match="another data set"):
        run(recipe, tmp_path, data="other")


def test_a_forced_run_goes_on_and_puts_it_on_record(
    run: Train, model: WanVideo, recipe: TrainSection, tmp_path: Path
) -> None:
    table = {"lr": 0.01, "rank": 2}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if child == 0:
        try:
            run(recipe.model_copy(update={"steps": 10**6}), tmp_path, table=table)
        finally:
            os._exit(0)
    while not (tmp_path / "log.jsonl").is_file() or (tmp_path / "log.jsonl").read_text().count("\n") < 6:
        time.sleep(0.002)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)

    changed, table = (
        recipe.model_copy(update={"lr": 0.001, "steps": 30, "validate_every": 30}),
        {"lr": 0.001, "rank": 2},
    )
    with pytest.raises(StoreError, match=r"another recipe\n +recipe: lr 0.01 -> 0.001\n(?s:.*)cinetune train --force"):
        run(changed, tmp_path, table=table)
    finished = run(changed, tmp_path, table=table, force=True)
    forced = [line for line in _log(tmp_path) if line["kind"] == "forced"]
    assert [line["changes"] for line in forced] == [["recipe: lr 0.01 -> 0.001"]]
    assert finished.forced == (f"step {forced[0]['step']}: recipe: lr 0.01 -> 0.001",) and finished.last_step == 30
    steps = [line["step"] for line in _log(tmp_path) if line["kind"] == "step"]
    assert steps == list(range(1, 31)) and forced[0]["step"] > 0
    assert forced[0]["recipe"]["lr"] == 0.001
    # the record stays when the run is read again, and nothing more is forced
    assert run(changed, tmp_path, table=table) == finished

    kept = load_file(tmp_path / "checkpoint.safetensors")
    text = json.loads(_metadata(tmp_path)) | {"stopped": ""}
    del text["digest"]
    text["digest"] = checkpoint._digest(text, kept)
    save_file(kept, tmp_path / "checkpoint.safetensors", metadata={"cinetune": json.dumps(text)})
    with pytest.raises(StoreError, match="other layers or another rank"):
        run(changed.model_copy(update={"rank": 4}), tmp_path, table={"lr": 0.001, "rank": 4}, force=True)


def _metadata(folder: Path) -> str:
    with safe_open(folder / "checkpoint.safetensors", framework="pt") as file:
        return file.metadata()["cinetune"]


def test_a_flipped_bit_of_an_unfinished_run_is_refused(run: Train, recipe: TrainSection, tmp_path: Path) -> None:
    """Wherever it flips, in numbers or in facts, and whether or not the file can still be read."""
    _killed(run, recipe, tmp_path, lines=7)
    path = tmp_path / "checkpoint.safetensors"
    whole = path.read_bytes()
    start, chance = 8 + int.from_bytes(whole[:8], "little"), random.Random(3)
    for place in (*chance.sample(range(start), 6), *chance.sample(range(start, len(whole)), 6), 3, len(whole) - 1):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1 << place % 8]) + whole[place + 1 :])
        with pytest.raises(StoreError) as caught:
            run(recipe, tmp_path)
        assert str(tmp_path) in caught.value.remedy
    path.write_bytes(whole[:-100])
    with pytest.raises(StoreError, match="damaged"):
        run(recipe, tmp_path)
    path.write_bytes(whole)
    run(recipe, tmp_path)


def test_a_log_that_lost_what_the_checkpoint_has_seen_is_refused(
    run: Train, recipe: TrainSection, tmp_path: Path
) -> None:
    _killed(run, recipe, tmp_path, lines=7)
    path = tmp_path / "log.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:2]))
    with pytest.raises(StoreError, match="log is damaged: it should hold step"):
        run(recipe, tmp_path)
    path.write_bytes(b"".join([*lines[:2], lines[2].replace(b'"step": ', b'"step": 1', 1), *lines[3:]]))
    with pytest.raises(StoreError, match="line 3 of a log is damaged"):
        run(recipe, tmp_path)


def test_other_data_replace_a_finished_run(run: Train, recipe: TrainSection, tmp_path: Path) -> None:
    short = recipe.model_copy(update={"steps": 1, "validate_every": 1})
    run(short, tmp_path)
    (tmp_path / "samples" / "step_000999.mp4").touch()
    run(short, tmp_path, data="other")
    assert _log(tmp_path)[0]["fingerprint"] == {"data set": "other"}
    assert not (tmp_path / "samples" / "step_000999.mp4").exists()


def test_accumulating_equals_a_larger_batch(run: Train, model: WanVideo, recipe: TrainSection, tmp_path: Path) -> None:
    quiet = recipe.model_copy(update={"steps": 2, "validate_every": 2})
    run(quiet, tmp_path / "accumulated")
    split = lora_state(model, "look")
    run(quiet.model_copy(update={"batch": 2, "accumulate": 1}), tmp_path / "batched")
    whole = lora_state(model, "look")
    for (
        name
    ) in split:  # Adam divides by the gradient's length, so rounding of tiny gradients shows: 2 % of one step of 0.01
        torch.testing.assert_close(split[name], whole[name], rtol=0, atol=2e-4)
    steps = [[line for line in _log(tmp_path / name) if line["kind"] == "step"] for name in ("accumulated", "batched")]
    for one, other in zip(*steps, strict=True):
        assert one["windows"] == other["windows"]
        assert one["grad_norm"] == pytest.approx(other["grad_norm"], rel=1e-3)


def test_no_effect_is_an_alarm(run: Train, recipe: TrainSection, tmp_path: Path) -> None:
    finished = run(recipe.model_copy(update={"lr": 1e-12, "steps": 1}), tmp_path)
    assert any(alarm.startswith("no effect") for alarm in finished.alarms)


def test_learning_rate_warms_up_and_reaches_zero() -> None:
    recipe = TrainSection(steps=100, warmup=0.1, lr=1.0)
    rates = [learning_rate(step, recipe) for step in range(100)]
    assert rates[:3] == pytest.approx([0.1, 0.2, 0.3])
    assert rates[9] == rates[10] == 1.0
    assert rates[55] == pytest.approx(0.5)
    assert 0 < rates[99] < 1e-3
    flat = recipe.model_copy(update={"schedule": "constant"})
    assert [learning_rate(step, flat) for step in range(100)] == pytest.approx([*rates[:10], *[1.0] * 90])


def test_golden_loss_trace(run: Train, tmp_path: Path) -> None:
    """Twenty steps give the recorded losses within the tolerance of the file, which also holds the command that made
    them, for use after a deliberate change.
    """
    recipe = TrainSection(
        rank=4,
        alpha=8,
        lr=0.005,
        steps=20,
        batch=2,
        accumulate=1,
        checkpointing="none",
        validate_every=20,
        validation_steps=1,
        validation_shots=1,
        checkpoint_every=20,
        seed=1,
        augment=AugmentSection(probability=0.5, variants=2, single_frame=0.2),
    )
    run(recipe, tmp_path)
    losses = [line["loss"] for line in _log(tmp_path) if line["kind"] == "step"]
    golden = json.loads(GOLDEN.read_text())
    if os.environ.get("CINETUNE_RECORD"):
        GOLDEN.write_text(json.dumps(golden | {"losses": losses}, indent=1) + "\n")
    assert losses == pytest.approx(golden["losses"], rel=golden["relative_tolerance"])
