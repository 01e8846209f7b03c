"""Each alarm is raised by a real run of the loop that deserves it and not by one that does not."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from cinetune.errors import ModelError
from cinetune.models.adapters.lora import lora_names, lora_state
from cinetune.models.wan.wan21 import WanVideo
from cinetune.runtime import Quiet
from cinetune.sections import AugmentSection, TrainSection
from cinetune.training import Finished, Validator, WindowFile, train, window_file
from cinetune.training.alarms import Alarms
from cinetune.training.validate import Evaluation, Levels
from support import remove_lora

Judge = Callable[..., Validator]
Train = Callable[..., tuple[Finished, list[dict], Quiet]]


@pytest.fixture
def run(model: WanVideo, files: list[WindowFile], empty: torch.Tensor, judge: Judge) -> Train:
    """`run(recipe, folder, windows=, validator=)`: what came of it, its log, and what was said."""

    def go(
        recipe: TrainSection,
        folder: Path,
        *,
        windows: list[WindowFile] | None = None,
        validator: Validator | None = None,
    ) -> tuple[Finished, list[dict], Quiet]:
        for name in lora_names(model):
            remove_lora(model, name)
        report = Quiet()
        finished = train(
            model,
            windows or files[:3],
            empty,
            validator=validator or judge(recipe, folder),
            recipe=recipe,
            arm="look",
            folder=folder,
            fingerprint={},
            report=report,
        )
        return finished, read(folder), report

    return go


@pytest.fixture
def quick(recipe: TrainSection) -> TrainSection:
    """Plain steps, evaluated rarely, judged by one sample of one seed."""
    plain = AugmentSection(probability=0, single_frame=0)
    changes = {"augment": plain, "accumulate": 1, "caption_dropout": 0.0, "validation_steps": 1, "validation_seeds": 1}
    return recipe.model_copy(update=changes)


def read(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


def raised(log: list[dict]) -> dict[str, int]:
    """Alarms by name with the step they came at."""
    return {line["name"]: line["step"] for line in log if line["kind"] == "alarm"}


def test_no_effect(run: Train, quick: TrainSection, tmp_path: Path) -> None:
    steps = {"steps": 3, "validate_every": 1}
    timid, log, report = run(quick.model_copy(update={"lr": 1e-12, **steps}), tmp_path / "timid")
    assert raised(log)["no effect"] == 2  # the first evaluation is too early to say so; not only at the end
    assert any(alarm.startswith("no effect") for alarm in timid.alarms)
    assert any(line.startswith("look step 2: no effect") and "raise train.lr" in line for line in report.warnings)
    bold, log, report = run(quick.model_copy(update={"lr": 0.05, **steps}), tmp_path / "bold")
    assert "no effect" not in raised(log)
    assert not any("no effect" in line for line in (*report.warnings, *bold.alarms))


def test_diverged(run: Train, quick: TrainSection, tmp_path: Path) -> None:
    hasty = quick.model_copy(update={"steps": 6, "validate_every": 3, "targets": "all-linear", "warmup": 0.0})
    _, log, report = run(hasty.model_copy(update={"lr": 1.0}), tmp_path / "hasty")
    assert raised(log)["diverged"] == 3
    assert any("diverged: the adapter changes the velocity by" in line for line in report.warnings)
    assert "exploding norm" not in raised(log)  # the norm layers hide it from the gradient
    _, log, report = run(hasty.model_copy(update={"lr": 1e-3}), tmp_path / "calm")
    assert "diverged" not in raised(log) and not any("diverged" in line for line in report.warnings)


def test_a_gain_smaller_than_luck_is_none(run: Train, quick: TrainSection, tmp_path: Path) -> None:
    """The plateau waits for the larger of the setting and the A/A noise."""
    idle = quick.model_copy(
        update={"lr": 1e-12, "steps": 9, "validate_every": 1, "patience": 2, "validation_seeds": 3, "min_delta": 0.0}
    )
    finished, _, _ = run(idle, tmp_path / "luck")
    noise = finished.first.noise
    assert noise and finished.stopped == f"lpips plateau at step 2: no gain of {noise:.4g} in 2 evaluations"
    finished, _, _ = run(idle.model_copy(update={"min_delta": 2 * noise}), tmp_path / "asked")
    assert finished.stopped == f"lpips plateau at step 2: no gain of {2 * noise:.4g} in 2 evaluations"


@pytest.fixture
def shifted(files: list[WindowFile], tmp_path: Path) -> Callable[..., WindowFile]:
    """`shifted(number, add=, times=)`: a window whose latents are moved and scaled."""

    def make(number: int, *, add: float = 0.0, times: float = 1.0, name: str = "") -> WindowFile:
        tensors = load_file(files[number].path)
        tensors["latents_Cfhw"] = tensors["latents_Cfhw"] * times + add
        path = tmp_path / f"{name or number}_{add}_{times}.safetensors"
        save_file(tensors, path)
        return window_file(path.stem, path)

    return make


def test_overfit(
    run: Train, judge: Judge, shifted: Callable[..., WindowFile], quick: TrainSection, tmp_path: Path
) -> None:
    """What is trained on lies elsewhere than what is held out: the better the one is known, the worse the other."""
    seen, held = [shifted(0, add=2.0)], [shifted(number, add=-2.0) for number in (1, 2, 3, 4)]
    hard = quick.model_copy(update={"lr": 0.02, "rank": 4, "targets": "all-linear", "steps": 20, "validate_every": 10})
    validator = judge(hard, tmp_path / "hard", held=held, seen=seen)
    _, log, report = run(hard, tmp_path / "hard", windows=seen, validator=validator)
    assert raised(log)["overfit"] == 10
    assert any("overfit: the loss on scenes it never saw rose" in line for line in report.warnings)
    alike = [shifted(number, add=2.0) for number in (1, 2, 3, 4)]
    validator = judge(hard, tmp_path / "soft", held=alike, seen=seen)
    _, log, _ = run(hard, tmp_path / "soft", windows=seen, validator=validator)
    assert "overfit" not in raised(log)


def test_exploding_norm(
    run: Train, shifted: Callable[..., WindowFile], files: list[WindowFile], quick: TrainSection, tmp_path: Path
) -> None:
    """Three windows of sixteen have latents five hundred times too large. Norm layers would hide that from the gradient
    but where the noise is high, so it is kept high.
    """
    calm = quick.model_copy(update={"steps": 32, "validate_every": 32, "lr": 1e-4, "shift": 1000.0})
    sound = [shifted(number % 3, name=f"w{number}") for number in range(13)]
    broken = [shifted(number, times=500.0) for number in range(3)]
    finished, log, report = run(calm, tmp_path / "wild", windows=[*sound, *broken])
    assert raised(log)["exploding norm"] < 32  # said at the step, not at the next evaluation
    assert any(line.startswith("look step") and "exploding norm: in 3 of" in line for line in report.warnings)
    assert any(alarm.startswith("exploding norm") for alarm in finished.alarms)
    _, log, _ = run(calm, tmp_path / "tame", windows=[*sound, *files[:3]])
    assert "exploding norm" not in raised(log)


def test_not_finite_is_logged_before_it_is_raised(
    run: Train, quick: TrainSection, files: list[WindowFile], tmp_path: Path
) -> None:
    tensors = load_file(files[0].path)
    tensors["latents_Cfhw"][0, 0, 0, 0] = float("nan")
    save_file(tensors, tmp_path / "bad.safetensors")
    with pytest.raises(ModelError, match="not finite at training step 1"):
        run(quick, tmp_path / "nan", windows=[window_file("bad", tmp_path / "bad.safetensors")])
    log = read(tmp_path / "nan")
    assert raised(log) == {"not finite": 1}
    assert not any(line["kind"] == "step" for line in log)
    _, log, _ = run(quick, tmp_path / "nan")  # mended: goes on from the checkpoint, and the alarm is gone
    assert "not finite" not in raised(log)


LEVELS = Levels(floor=0.1, ceiling=1.0, motion=1.0, jump=0.5)
FIRST = Evaluation(
    v_loss=1.0, v_loss_at={}, distance=0.8, distance_film=0.8, distance_regraded=None, curve=[], motion=0.9,
    effect=0.0, jump=1.0, noise=0.02,
)  # fmt: skip


def names(*found: Evaluation) -> list[str]:
    """Alarms standing after these evaluations, from step 0 on."""
    alarms = Alarms(LEVELS)
    for step, one in enumerate(found):
        alarms.evaluated(10 * step, one)
    return sorted(alarms.standing)


WELL = replace(FIRST, effect=0.1, distance=0.6, noise=None)


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (WELL, []),
        (replace(WELL, motion=0.09), ["frozen motion"]),
        (replace(WELL, motion=0.11), []),
        (replace(WELL, jump=3.6), ["first-frame jump"]),
        (replace(WELL, jump=3.4), []),
        (replace(WELL, jump_regraded=9.0), []),  # judged where shots are made
        (replace(WELL, distance=0.79), ["no gain"]),  # a gain, but under the noise
        (replace(WELL, distance=0.77), []),
        (replace(WELL, effect=0.0), ["no effect"]),
        (replace(WELL, effect=0.81, v_loss=1.01), ["diverged"]),
        (replace(WELL, effect=0.79, v_loss=1.01), []),
        (replace(WELL, effect=1.5, v_loss=0.9), []),  # it left a base behind that knew less
    ],
)
def test_thresholds(found: Evaluation, expected: list[str]) -> None:
    assert names(FIRST, found, found) == expected


def test_an_alarm_ends_when_it_is_no_longer_so() -> None:
    alarms = Alarms(LEVELS)
    alarms.evaluated(0, FIRST)
    assert [alarm.name for alarm in alarms.evaluated(10, replace(WELL, motion=0.0))] == ["frozen motion"]
    assert alarms.evaluated(20, replace(WELL, motion=0.0)) == []  # said once
    assert alarms.evaluated(30, WELL) == [] and not alarms.standing
    assert [alarm.name for alarm in alarms.verdict(20)] == ["frozen motion"]
    assert alarms.verdict(30) == []


def held(*losses: float, seen: float) -> Evaluation:
    return replace(WELL, v_loss_windows=list(losses), v_loss_seen=seen)


@pytest.mark.parametrize(
    ("later", "expected"),
    [
        (held(1.10, 1.12, 1.11, seen=0.8), ["overfit"]),
        (held(1.10, 1.12, 1.11, seen=1.1), []),  # both rise: the learning rate, not the memory
        (held(1.60, 0.70, 1.03, seen=0.8), []),  # a rise, but within its noise over windows
        (held(1.005, 1.006, 1.005, seen=0.8), []),  # surely a rise, and too small to matter
        (held(0.90, 0.92, 0.91, seen=0.8), []),
    ],
)
def test_overfit_is_a_rise_beyond_its_noise(later: Evaluation, expected: list[str]) -> None:
    assert names(held(1.0, 1.0, 1.0, seen=1.0), later) == expected


def test_average_is_what_is_evaluated_and_kept(
    run: Train, model: WanVideo, recipe: TrainSection, tmp_path: Path
) -> None:
    """Step by step from the adapters themselves: EMA runs leave the trained adapter as it would be without."""
    every = recipe.model_copy(update={"steps": 3, "validate_every": 1, "checkpoint_every": 1})
    run(every, tmp_path / "plain")
    plain = load_file(tmp_path / "plain" / "checkpoint.safetensors")
    finished, log, _ = run(every.model_copy(update={"ema": 0.5}), tmp_path / "ema")
    smooth = load_file(tmp_path / "ema" / "checkpoint.safetensors")
    own = {name: value for name, value in plain.items() if name.startswith("adapter/")}
    assert own and all(torch.equal(value, smooth[name]) for name, value in own.items())
    name = next(name.removeprefix("adapter/") for name in own if name.endswith("lora_B.weight"))
    assert not torch.equal(smooth[f"average/{name}"], smooth[f"adapter/{name}"])
    if finished.step == 3:
        assert torch.equal(smooth[f"best/{name}"], smooth[f"average/{name}"])
    kept = lora_state(model, "look")
    assert torch.equal(kept[next(key for key in kept if key.endswith(name))], smooth[f"best/{name}"])
    norms = [line["adapter_norm"] for line in log if line["kind"] == "evaluation"]
    assert norms[3] < [line["adapter_norm"] for line in read(tmp_path / "plain") if line["kind"] == "evaluation"][3]


def test_average_survives_a_stop(run: Train, recipe: TrainSection, tmp_path: Path, monkeypatch) -> None:
    smooth = recipe.model_copy(update={"ema": 0.8, "steps": 4, "validate_every": 2, "checkpoint_every": 1})
    run(smooth, tmp_path / "whole")
    plain = Validator.__call__

    def dies(self: Validator, step: int) -> Evaluation:
        if step == 4:
            raise KeyboardInterrupt
        return plain(self, step)

    with monkeypatch.context() as patch:
        patch.setattr(Validator, "__call__", dies)
        with pytest.raises(KeyboardInterrupt):
            run(smooth, tmp_path / "broken")
    run(smooth, tmp_path / "broken")
    for name in ("log.jsonl", "checkpoint.safetensors"):
        assert (tmp_path / "broken" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
