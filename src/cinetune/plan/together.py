"""One shot on several cards, predicted: the paper's table for hardware that is not at hand.

Guidance first: each of two groups makes one of its two passes, and a step exchanges one set of latents, a trifle.
Then Ulysses: `u` cards share the tokens of a pass, and at each self-attention four tensors (query, key, value, result)
are dealt anew, of which `(u - 1) / u` leaves a card. Every card decodes the whole segment: decoding is not shared.
"""

from __future__ import annotations

from collections.abc import Iterator

from cinetune.cost.cards import Card, work_seconds
from cinetune.cost.operations import Operations, video_decoding
from cinetune.plan.run import PlannedRun

__all__ = ["RANKS", "shared_facts", "shared_seconds"]

RANKS = (1, 2, 4, 8)
_LINKS = {"A100 80 GB": 240e9, "H200": 360e9}
"""Bytes per second that leave a card towards its neighbours: NVLink's nominal rate one way x 0.8."""


def shared_seconds(run: PlannedRun, card: Card, ranks: int) -> float:
    """Seconds of one segment on so many cards, denoised by all of them and decoded by each."""
    shoot = run.config.shoot
    whole = run.segment_seconds(card, run.setting, shoot.segment_frames)
    decoding = work_seconds(
        Operations(convolution=video_decoding(run.encoders, shoot.segment_frames, *run.shoot_size)), card
    )
    if ranks == 1:
        return whole
    halves = 2 if shoot.guidance > 1 else 1
    ulysses = ranks // halves
    tokens = run.denoiser.tokens(shoot.segment_frames, *run.shoot_size)
    passes = run.segment(shoot.segment_frames)[0] / halves
    dealt = 4 * (tokens / ulysses) * run.denoiser.width * run.setting.bytes_each * (ulysses - 1) / ulysses
    return (whole - decoding) / ranks + decoding + passes * run.denoiser.layers * dealt / _LINKS[card.name]


def shared_facts(run: PlannedRun) -> Iterator[tuple[str, str]]:
    """A line for each kind of card: time of a segment, and speed-up and efficiency on more of them."""
    for card in run.cards:
        if card.name in _LINKS:
            alone = shared_seconds(run, card, 1)
            ways = [
                f"{ranks}: {alone / seconds:.2f}x ({alone / seconds / ranks:.0%})"
                for ranks in RANKS[1:]
                for seconds in (shared_seconds(run, card, ranks),)
            ]
            yield f"a shot on n {card.name}", f"1: {alone:.0f} s a segment, {', '.join(ways)}; predicted"
