"""What a run would cost, worked out before anything is downloaded or started, and what to change when memory runs out.

The arithmetic is `cinetune.cost`'s; here it meets the project. The numbers are calculated, not measured.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from cinetune.artifacts import PlannedShot
from cinetune.cost.cards import CORES, CPU, MARGIN, Card, step_seconds
from cinetune.cost.operations import training
from cinetune.errors import CinetuneError
from cinetune.files import full_caption
from cinetune.pipeline import StageStatus, status
from cinetune.plan.bill import ASSUMED_SHOT, Bill, bills, caching_work, cheapest_card, segments_of, windows_of
from cinetune.plan.run import PlannedRun, shapes_of
from cinetune.plan.shortage import GB, SIZES, amount, explain_shortage, fit_rows, memory_rows
from cinetune.plan.together import shared_facts
from cinetune.results import Prepared
from cinetune.store import Project

__all__ = ["SIZES", "Plan", "explain_shortage", "make_plan"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What `cinetune plan` shows. `answer` and `facts` are (what, how much) pairs in words, the
    answer first of all: card, hours, disk, money; `memory` the parts of training in
    GB; `cards` and `fits` tables whose first row names the columns; `power` what so many shots can show; `warnings`
    what stands in the way."""

    answer: tuple[tuple[str, str], ...]
    stages: tuple[StageStatus, ...]
    settings: dict[str, tuple[Any, str]]
    facts: tuple[tuple[str, str], ...]
    memory: tuple[tuple[str, float], ...]
    cards: tuple[tuple[str, ...], ...]
    fits: tuple[tuple[str, ...], ...]
    power: tuple[str, ...]
    warnings: tuple[str, ...]


def make_plan(project: Project, *, price: float | None = None) -> Plan:
    """The plan of a project; reads small files only, and needs neither weights nor footage. `price` of an hour of the
    card, in any currency."""
    config = project.config
    run, warnings = shapes_of(project)
    try:
        planned = project.shots().shots
        shots, warnings = [shot.seconds for shot in planned], [*warnings, *_cut_prompts(project, planned)]
    except CinetuneError as error:
        shots, warnings = [], [*warnings, f"shots.toml: {error.what}"]
    power, said = _power(project) if shots else ((), [])
    facts: list[tuple[str, str]] = []
    if run is not None:
        facts = [*_model_facts(run), *_training_facts(run), *_shooting_facts(run, shots), *shared_facts(run)]
    values = config.model_dump(mode="json")
    chosen: dict[str, tuple[Any, str]] = {}
    for key, origin in project.origins.items():
        value = values
        for part in key.split("."):
            value = value[part]
        chosen[key] = (value, origin)
    return Plan(
        answer=_answer(run, shots, price) if run else (),
        stages=tuple(status(project)), settings=chosen, facts=tuple(facts), power=power,
        warnings=(*warnings, *said),
        memory=memory_rows(run.memory(run.setting)) if run else (), cards=_card_rows(run, shots) if run else (),
        fits=fit_rows(run) if run else (),
    )  # fmt: skip


def _power(project: Project) -> tuple[tuple[str, ...], list[str]]:
    """What the declared design can show with these shots, said before any is rendered; or what is wrong with it."""
    from cinetune.metrics.design import planned

    try:
        design = planned(project)
    except CinetuneError as error:
        return (), [str(error)]
    seeds = f"{design.seeds} seed{'' if design.seeds == 1 else 's'}"
    asked = f"{len(design.claims)} claims in one family at {design.alpha:g}: arms {', '.join(design.arms)}, {seeds}"
    return (asked, *design.power), []


def _cut_prompts(project: Project, shots: Sequence[PlannedShot]) -> list[str]:
    """What the text encoder will not read of prompts and captions, a line each."""
    from cinetune.models.prompts import cut_notes

    trigger = project.config.prepare.trigger
    prepared = project.store.find(Prepared)
    texts = {f"prompt of shot {shot.id}": full_caption(trigger, shot.prompt) for shot in shots}
    texts |= {f"negative prompt of shot {shot.id}": shot.negative for shot in shots}
    for window in prepared.windows if prepared else ():
        texts[f"caption of {window.id}"] = full_caption(trigger, window.caption)
    return cut_notes(project.config.model, texts)


def _answer(run: PlannedRun, shots: Sequence[float], price: float | None) -> tuple[tuple[str, str], ...]:
    """Which card, how long, how much room, how much money: the whole of it, for the smallest card that fits."""
    found = bills(run, shots)
    best = cheapest_card(found)
    prepared = run.project.store.find(Prepared) is not None
    height, width = run.train_size
    shown = f"{len(shots)} shots, {sum(shots):.0f} s" if shots else f"a {ASSUMED_SHOT:.0f} s shot as none is listed"
    windows = f"{windows_of(run)} windows{'' if prepared else ' assumed'}"
    one = next(bill for bill in bills(run, ()) if bill.card == best.card).seconds
    more = f"; {ASSUMED_SHOT:.0f} s of shot more: {_time(one['keyframes'] + one['shoot'])}" if shots else ""
    rows = [
        ("model", f"{run.base.name}, {width}x{height}, {run.config.prepare.frames} frames a window"),
        ("for", f"{windows}, {shown}, {run.arms} arms x {_seeds(run)}"),
        ("card", _card_said(best)),
        ("stages", ", ".join(f"{name} {_time(seconds)}" for name, seconds in best.seconds.items() if seconds)),
        ("total", f"{_time(3600 * best.hours)} at most, evaluations included{more}"),
    ]
    others = [f"{bill.card} {_time(3600 * bill.hours)}" for bill in found if bill.fits and bill is not best]
    rows += [("others", ", ".join(others))] if others else []
    rows += [("disk", _disk_said(run, shots))]
    rows += [] if price is None else [("price", f"{best.hours * price:,.2f} at {price:g} an hour")]
    return tuple(rows)


def _seeds(run: PlannedRun) -> str:
    count = run.config.shoot.seeds
    return f"{count} seed{'' if count == 1 else 's'}"


def _card_said(bill: Bill) -> str:
    if not bill.fits:
        return f"none of those known: the table below says what each lacks; the times are for {bill.card}"
    if bill.card == CPU.name:
        return f"none: {CORES} CPU cores with no other work"
    return f"{bill.card}, the smallest that fits" + (f": {bill.how}" if bill.how else "")


def _disk_said(run: PlannedRun, shots: Sequence[float]) -> str:
    height, width = run.shoot_size
    frames = sum(segments_of(run, shots or (ASSUMED_SHOT,))[1])
    masters = frames * run.arms * run.config.shoot.seeds * height * width * 6
    weights = f"weights {run.base.gib:.0f} GiB, " if run.base.repository else ""
    return f"{weights}cache {amount(_window_bytes(run) * windows_of(run))}, masters {amount(masters)}"


def _model_facts(run: PlannedRun) -> list[tuple[str, str]]:
    facts = [("model", f"{run.config.model.family}, denoiser of {_count(run.denoiser.parameters())} parameters")]
    if run.base.repository:
        facts.append(("weights on disk", f"about {run.base.gib:.0f} GiB ({run.base.licence})"))
    return facts


def _training_facts(run: PlannedRun) -> list[tuple[str, str]]:
    train, shape = run.config.train, run.denoiser
    frames, (height, width) = run.config.prepare.frames, run.train_size
    prepared = run.project.store.find(Prepared)
    windows = len(prepared.windows) if prepared else 0
    kind = run.setting.checkpointing
    step = training(shape, run.tokens, rank=train.rank, targets=train.targets, checkpointing=kind).total
    trained = shape.adapter_parameters(train.rank, train.targets)
    looks = run.looks
    side_by_side = min(train.workers, looks)
    each = f", for each of {side_by_side} workers" if side_by_side > 1 else ""
    return [
        ("training window", f"{frames} frames of {width}x{height} = {run.tokens:,} tokens"),
        ("windows", f"{windows}" if prepared else "known after `cinetune prepare`"),
        (
            "cache on disk",
            _disk(_window_bytes(run) * windows) if prepared else f"{_window_bytes(run) / 1e6:.1f} MB each",
        ),
        ("caching, a window", _ops(caching_work(run).total)),
        ("memory in caching", f"about {amount(run.caching().total)}"),
        ("adapter", f"rank {train.rank} on {train.targets}: {_count(trained)} parameters"),
        (
            "a training step",
            f"{_ops(step * train.accumulate * train.batch)} ({train.accumulate} x batch {train.batch})",
        ),
        ("training, at most", f"{train.steps} steps" + (f" for each of {looks} adapters" if looks > 1 else "")),
        ("memory in training", f"about {amount(run.memory(run.setting).total)}{each}"),
        ("checkpoints on disk", _disk(looks * 16 * trained)),
        *_compile_facts(run),
    ]


def _compile_facts(run: PlannedRun) -> list[tuple[str, str]]:
    """What compiling the blocks saves of a step, on the card where it is most."""
    if run.base.small:
        return []
    train = run.config.train

    def saved(card: Card) -> float:
        plain, compiled = (
            step_seconds(run.denoiser, run.tokens, card, rank=train.rank, targets=train.targets, setting=setting)
            for setting in (
                replace(run.setting, batch=1, storage="plain", offload_blocks=0, compiled=on) for on in (False, True)
            )
        )
        return 1 - compiled / plain

    best = max(run.cards, key=saved)
    said = "on" if train.compile else "off"
    return [("train.compile", f"{said}; saves about {saved(best):.0%} of a step ({best.name})")]


def _window_bytes(run: PlannedRun) -> int:
    """Latents and condition of one window in float32, its picture's tokens, and a caption of full length at most."""
    height, width = run.train_size
    area = height * width // (run.denoiser.multiple // 2) ** 2
    frames = 1 + (run.config.prepare.frames - 1) // run.denoiser.stride_time
    conditions = run.denoiser.channels_in - run.denoiser.channels_out
    cells = area * frames * (run.denoiser.channels_out + run.firsts * conditions)
    image = run.firsts * run.denoiser.image_tokens * run.denoiser.image_width
    return 4 * (cells + image) + run.setting.bytes_each * run.denoiser.text_tokens * run.denoiser.text_width


def _shooting_facts(run: PlannedRun, seconds: Sequence[float]) -> list[tuple[str, str]]:
    shoot, (height, width) = run.config.shoot, run.shoot_size
    memory = run.shooting(run.setting, shoot.segment_frames).total
    each = f", for each of {shoot.at_once} workers" if shoot.at_once > 1 else ""
    facts = [("memory in shooting", f"about {amount(memory)}{each}")]
    if not seconds:
        return [*facts, ("shooting", "known once shots.toml names shots")]
    segments, lengths = segments_of(run, seconds)
    forwards, segment = run.segment(shoot.segment_frames)
    masters = sum(lengths) * run.arms * shoot.seeds * height * width * 6
    return [
        *facts,
        ("a segment", f"{shoot.segment_frames} frames of {width}x{height} in {forwards} passes: {_ops(segment.total)}"),
        ("shots", f"{len(seconds)} in {run.arms} arms x {_seeds(run)} = {segments} segments"),
        ("masters on disk", _disk(masters)),
    ]


def _card_rows(run: PlannedRun, seconds: Sequence[float]) -> tuple[tuple[str, ...], ...]:
    """Seconds a step and hours on every card, with the settings as they are. Workers have a core each, and share a
    card."""
    shoot, train = run.config.shoot, run.config.train
    what = "shooting" if seconds else f"{ASSUMED_SHOT:.0f} s of shot"
    rows: list[tuple[str, ...]] = [("card", "a step", "training, at most", what, "rates")]
    segments = segments_of(run, seconds or (ASSUMED_SHOT,))[0]
    shooting_needs = run.shooting(run.setting, shoot.segment_frames).total
    for card in run.cards:
        limit, cores = (card.gigabytes * GB * MARGIN, 1) if card is not CPU else (math.inf, CORES)
        step, looks = run.step(card), run.looks
        training_needs = run.memory(run.on(card)).total
        times = f"{step:.2f} s", _time(step * train.steps * looks / min(train.workers, looks, cores))
        each = run.segment_seconds(card, run.setting, shoot.segment_frames) / min(shoot.at_once, cores)
        shot = _time(segments * each)
        rows.append((
            card.name, *(times if training_needs <= limit else ("does not fit", "-")),
            shot if shooting_needs <= limit else "does not fit", card.source,
        ))  # fmt: skip
    return tuple(rows)


def _disk(size: float) -> str:
    return f"about {amount(size)}"


def _time(seconds: float) -> str:
    if seconds < 6:
        return f"{seconds:.1f} s"
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.1f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _count(value: float) -> str:
    return f"{value / 1e9:.2f} billion" if value >= 1e9 else f"{value / 1e6:.2f} million"


def _ops(flops: float) -> str:
    for unit, size in (("EFLOP", 1e18), ("PFLOP", 1e15), ("TFLOP", 1e12)):
        if flops >= size:
            return f"{flops / size:.2f} {unit}"
    return f"{flops / 1e9:.1f} GFLOP"
