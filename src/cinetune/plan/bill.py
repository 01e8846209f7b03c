"""The whole bill of a run on one card: hours of every stage that computes with the model, disk, and what an hour costs.

Counted are training with all its evaluations, caching, keyframes, shooting, and the score's own networks. Not counted:
reading and cutting the film, writing deliveries and pages; they are minutes of CPU. Early stopping can only shorten it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from cinetune.artifacts import DEVELOPS
from cinetune.cost.cards import CORES, CPU, MARGIN, Card, cheapest, elementwise_bytes, work_seconds
from cinetune.cost.memory import Setting
from cinetune.cost.operations import Operations, forward, image_encoding, text_encoding, video_decoding, video_encoding
from cinetune.plan.run import PlannedRun, in_words
from cinetune.results import Prepared

__all__ = ["ASSUMED_SHOT", "ASSUMED_WINDOWS", "Bill", "bills", "cheapest_card"]

ASSUMED_WINDOWS = 40
"""Windows of a film that is not prepared yet: about forty clips, one of each."""
ASSUMED_SHOT = 5.0
"""Seconds of the shot that is named where there is no shot list."""
GB = 1e9
_LEVELS = 4  # noise levels of the held-out loss


@dataclass(frozen=True, slots=True, kw_only=True)
class Bill:
    """Seconds by stage on one card, with the settings as they are or, where those do not fit, the fastest that do
    (`how`, as options). `hours` is their sum; it says nothing where nothing fits (`fits` False)."""

    card: str
    source: str
    fits: bool
    how: str
    seconds: dict[str, float]

    @property
    def hours(self) -> float:
        return sum(self.seconds.values()) / 3600


def bills(run: PlannedRun, shots: Sequence[float]) -> tuple[Bill, ...]:
    """The bill on every card for shots of some seconds, in the order of the cards."""
    return tuple(_bill(run, card, shots or (ASSUMED_SHOT,)) for card in run.cards)


def cheapest_card(found: Sequence[Bill]) -> Bill:
    """The smallest card that everything fits on; the last where nothing fits."""
    return next((bill for bill in found if bill.fits), found[-1])


def windows_of(run: PlannedRun) -> int:
    """Windows that were prepared, or how many a film has by custom."""
    prepared = run.project.store.find(Prepared)
    return len(prepared.windows) if prepared else ASSUMED_WINDOWS


def segments_of(run: PlannedRun, shots: Sequence[float]) -> tuple[int, list[int]]:
    """Segments of all arms and seeds, and the frames of every shot."""
    shoot = run.config.shoot
    lengths = [max(1, math.ceil(second * run.base.rate)) for second in shots]
    joined = [
        max(1, math.ceil((length - shoot.overlap) / (shoot.segment_frames - shoot.overlap))) for length in lengths
    ]
    return sum(joined) * run.arms * shoot.seeds, lengths


def _bill(run: PlannedRun, card: Card, shots: Sequence[float]) -> Bill:
    limit = math.inf if card is CPU else card.gigabytes * GB * MARGIN
    frames = run.config.shoot.segment_frames
    asked, shoot = run.on(card), run.setting
    learn = asked
    if run.memory(learn).total > limit:
        best = cheapest(run.choices(card), limit)
        learn = best.setting if best else learn
    if run.shooting(shoot, frames).total > limit:
        best = cheapest(run.shooting_choices(card, frames), limit)
        shoot = best.setting if best else shoot
    needs = (run.caching().total, run.memory(learn).total, run.shooting(shoot, frames).total)
    ways = {
        "train": in_words(learn, run.config) if learn != asked else "",
        "shoot": in_words(shoot, run.config, training=False) if shoot != run.setting else "",
    }
    words = [f"{way} to {what}" for what, way in ways.items() if way]
    if ways["train"] == ways["shoot"]:
        words = [way for way in (ways["train"],) if way]
    return Bill(
        card=card.name, source=card.source, fits=max(needs) <= limit, how="; ".join(words),
        seconds={
            "cache": windows_of(run) * work_seconds(caching_work(run), card),
            "train": _training(run, card, learn),
            **_shooting(run, card, shoot, shots),
            "score": _scoring(run, card, shots),
        },
    )  # fmt: skip


def caching_work(run: PlannedRun) -> Operations:
    """One window: the clip, each first frame with grey behind it, its picture's tokens, its caption."""
    clips = (1 + run.firsts) * video_encoding(run.encoders, run.config.prepare.frames, *run.train_size)
    told = run.firsts * (image_encoding(run.encoders) + text_encoding(run.encoders))
    return Operations(convolution=clips, linear=told)


def _training(run: PlannedRun, card: Card, setting: Setting) -> float:
    """All steps and evaluations of every adapter; workers have a core each, and share a card."""
    train, looks = run.config.train, run.looks
    cores = CORES if card is CPU else 1
    steps = run.step(card, setting) * train.steps
    return (steps + _evaluations(run, card)) * looks / min(train.workers, looks, cores)


def _evaluations(run: PlannedRun, card: Card) -> float:
    """Step 0 with its A/A noise, then one every `validate_every` steps and at the end, as `training.validate` does:
    the loss on held-out windows and as many seen ones at each noise level, the adapter's effect, clips of a few shots.
    All from the film's own first frame and, where first frames are re-graded, from one of those."""
    train = run.config.train
    kinds = 2 if train.augment.probability > 0 else 1
    windows = min(train.validation_windows, windows_of(run))
    clips = train.validation_shots * kinds
    passes = 2 * windows * _LEVELS * kinds + 2 * windows
    every = _passes(run, card, passes) + clips * _clip(run, card)
    noise = (train.validation_seeds - 1) * clips * _clip(run, card)
    return (1 + math.ceil(train.steps / train.validate_every)) * every + noise


def _clip(run: PlannedRun, card: Card) -> float:
    decoding = Operations(convolution=video_decoding(run.encoders, run.config.prepare.frames, *run.train_size))
    return _passes(run, card, run.config.train.validation_steps) + work_seconds(decoding, card)


def _passes(run: PlannedRun, card: Card, count: int) -> float:
    train = run.config.train
    work = forward(run.denoiser, run.tokens, rank=train.rank, targets=train.targets) * count
    moved = elementwise_bytes(run.denoiser, run.tokens, run.setting, count)
    return work_seconds(work, card, moved=moved)


def _shooting(run: PlannedRun, card: Card, setting: Setting, shots: Sequence[float]) -> dict[str, float]:
    """Keyframes and the segments after them. `develop` and `lead` make a shot's first segment with its keyframe."""
    shoot, keyframes = run.config.shoot, run.config.keyframes
    takes = len(shots) * run.arms * shoot.seeds
    tried = 0 if keyframes.method == "as-is" else takes * keyframes.candidates
    left = segments_of(run, shots)[0] - (takes if keyframes.method in DEVELOPS else 0)
    cores = CORES if card is CPU else 1
    each = run.segment_seconds(card, setting, shoot.segment_frames) / min(shoot.at_once, cores)
    return {"keyframes": tried * each, "shoot": left * each}


def _scoring(run: PlannedRun, card: Card, shots: Sequence[float]) -> float:
    """The image encoder on every frame of every take, and the truth through the autoencoder and back once a shot."""
    frames = sum(segments_of(run, shots)[1])
    seen = frames * (run.arms * run.config.shoot.seeds + 2)
    there_and_back = sum(
        video_encoding(run.encoders, 4 * (length // 4) + 1, *run.shoot_size)
        + video_decoding(run.encoders, 4 * (length // 4) + 1, *run.shoot_size)
        for length in segments_of(run, shots)[1]
    )
    return work_seconds(Operations(linear=seen * image_encoding(run.encoders), convolution=there_and_back), card)
