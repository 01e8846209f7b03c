"""Which pieces of a film are shots to learn from: what was seen while it was decoded, put together."""

from __future__ import annotations

from cinetune.footage.cut.burnins import find_burn_in, without
from cinetune.footage.cut.cuts import Piece, Signals, find_pieces, shared_bars
from cinetune.footage.cut.slates import Samples
from cinetune.footage.read.reading import Probe
from cinetune.sections import FootageSection

__all__ = ["usable_pieces"]


def usable_pieces(
    facts: Probe,
    signals: Signals,
    samples: Samples,
    settings: FootageSection,
    spans: list[tuple[int, int]] | None,
) -> tuple[list[Piece], tuple[int, int, int, int], tuple[str, ...], list[str]]:
    """The shots that stay, the picture inside their bars, what there is to say of the bars, and what was left out."""
    pieces, left_out = find_pieces(
        signals,
        rate=facts.rate,
        min_seconds=settings.min_shot_seconds,
        spans=spans,
        steady_bars=settings.crop_bars,
        unfit=samples.slate if settings.slates == "drop" else None,
    )
    bars, said = (0, 0, facts.width, facts.height), ()
    if settings.crop_bars and pieces:
        bars, said = shared_bars(signals, pieces, turn=facts.reading.turn)
    burn_in = find_burn_in(samples.views(), turn=facts.reading.turn, size=(facts.width, facts.height), bars=bars)
    clean, covered = without(samples.noted(pieces), burn_in, most=settings.max_burn_in)
    return clean, bars, said, left_out + covered
