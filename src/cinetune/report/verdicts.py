"""From scorecards to words: what was asked, what the numbers answer, and in which words.

The words are the scorecard's own (`improved`, `worse`, `cannot tell`); nothing is decided again here. A claim over
several metrics is only `improved` when every metric that could be measured says so, and `worse` as soon as one does.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from cinetune.artifacts import Score, Scorecard

__all__ = ["Claim", "Row", "claims", "find", "number", "rows", "signed", "title_of", "tone_of"]

_TITLES = {
    "tone_w1": ("tone-curve distance", "How far the spread from shadows to highlights is from the film's."),
    "lab_frechet": ("colour-cloud distance", "All colours of the shot against all colours of the film."),
    "split_tone": ("split-tone difference", "Colour cast of shadows, mids and highlights against the film's."),
    "palette": ("palette distance", "Main colours of the shot against the film's main colours."),
    "colour_error": ("colour error to the truth", "Against the shot as the film itself would show it."),
    "lpips": ("perceptual distance to the truth", "Frame by frame, the given first frame left out."),
    "tlp": ("change over time against the truth", "Perceptual change from frame to frame."),
    "motion_error": ("motion error", "How far the speed is from the true shot's."),
    "motion": ("motion", "How much moves from frame to frame."),
    "luma_flicker": ("flicker", "Brightness that jumps from frame to frame."),
    "still": ("frozen frames", "Share of frames that repeat the one before."),
    "drift": ("drift", "Colour of the last frame against the keyframe."),
    "seam_ratio": ("seams", "Jump at the joins between segments over change inside them."),
    "clip_text": ("agreement with the words", "CLIP similarity of frames and prompt."),
    "clip_frame": ("frame-to-frame agreement", "CLIP similarity of neighbours. A frozen picture has the highest."),
    "clip_reference": ("agreement with the film", "CLIP similarity of frames and the film's frames."),
    "clip_kid": ("CLIP-KID to the film", "Distance of all shots together to the film, in CLIP features."),
}
_STABILITY = ("lpips", "tlp", "motion_error", "motion", "luma_flicker", "still", "drift", "seam_ratio")
_ANCHORS = {
    "film": "the film's own scenes",
    "truth": "the truth itself",
    "floor": "floor, the truth through the VAE",
    "ceiling": "ceiling, its first frame frozen",
    "a_a": "noise, base against base",
}
_TONES = {"improved": "good", "worse": "bad", "no worse": "fine", "cannot tell": "unsure", "not measured": "none"}
_WHERE = {"in": "in the film's own world", "out": "outside the film's world"}


@dataclass(frozen=True, slots=True)
class Row:
    """One metric of one comparison as the page shows it; numbers are text already, `score` the record.

    `context` tells what the level means: what the film itself reads, floor, ceiling, noise."""

    score: Score
    title: str
    help: str
    word: str
    tone: str
    before: str
    after: str
    context: str
    effect: str
    interval: str
    primary: bool


@dataclass(frozen=True, slots=True)
class Claim:
    """A question a producer asks, the answer as a word and a sentence, and the numbers behind it."""

    question: str
    word: str
    tone: str
    sentence: str
    rows: tuple[Row, ...]


def number(value: float | None, *, places: int | None = None) -> str:
    """`places` decimals (three significant digits if None) with a true minus sign; an em dash for None."""
    if value is None:
        return "\N{EM DASH}"
    shown = _places(value) if places is None else places
    return f"{value:.{shown}f}".replace("-", "\N{MINUS SIGN}")


def signed(value: float | None, *, places: int | None = None) -> str:
    """As `number`, with a plus sign before what is above zero."""
    text = number(value, places=places)
    return text if value is None or value <= 0 else "+" + text


def _places(*values: float | None, digits: int = 3) -> int:
    """Decimals that show the largest value to `digits` digits, so that a row's numbers line up."""
    largest = max((abs(value) for value in values if value), default=1.0)
    return min(6, max(0, digits - 1 - math.floor(math.log10(largest))))


def title_of(metric: str) -> str:
    """The metric's name in a reader's words."""
    return _TITLES[metric][0] if metric in _TITLES else metric.replace("_", " ")


def tone_of(word: str) -> str:
    """Style class of a verdict word; a word we do not know is shown as unsure."""
    return _TONES.get(word, "unsure")


def find(cards: Sequence[Scorecard], arm: str, versus: str, domain: str) -> Scorecard | None:
    """The card of one comparison, if it was scored."""
    return next((card for card in cards if (card.arm, card.versus, card.domain) == (arm, versus, domain)), None)


def rows(card: Scorecard, primary: Sequence[str]) -> list[Row]:
    """Every effect of a card, primary metrics first, otherwise in the card's order."""
    made = [_row(card, score, score.metric in primary) for score in card.effects]
    return sorted(made, key=lambda row: not row.primary)


def _row(card: Scorecard, score: Score, primary: bool) -> Row:
    word = "not measured" if score.value is None else score.verdict or "cannot tell"
    level = {} if card.domain == "both" else card.levels.get(score.metric, {})
    before, after = level.get(card.versus), level.get(card.arm)
    places, fine = _places(before, after), _places(score.value, score.low, score.high, digits=2)
    interval = ""
    if score.low is not None and score.high is not None:
        interval = f"{signed(score.low, places=fine)} to {signed(score.high, places=fine)}"
    title, explained = _TITLES.get(score.metric, (title_of(score.metric), ""))
    known = {name: level[name] for name in _ANCHORS if level.get(name) is not None}
    context = "; ".join(f"{_ANCHORS[name]} {number(value, places=places)}" for name, value in known.items())
    return Row(
        score=score,
        title=title,
        help=explained,
        word=word,
        tone=tone_of(word),
        before=number(before, places=places),
        after=number(after, places=places),
        context=context,
        effect=signed(score.value, places=fine),
        interval=interval,
        primary=primary,
    )


def claims(cards: Sequence[Scorecard], primary: Sequence[str]) -> list[Claim]:
    """The questions of the page in the order a reader asks them; one whose comparison was not scored is left out."""
    made = [_closer(cards, primary, domain) for domain in ("in", "out")]
    made += [_stable(cards), _interaction(cards, primary), _control(cards, primary)]
    return [claim for claim in made if claim is not None]


def _overall(found: Sequence[Row]) -> str:
    words = [row.word for row in found if row.word != "not measured"]
    if not words:
        return "not measured"
    if "worse" in words:
        return "worse"
    if set(words) == {"improved"}:
        return "improved"
    return "no worse" if set(words) <= {"improved", "no worse"} else "cannot tell"


def _closer(cards: Sequence[Scorecard], primary: Sequence[str], domain: str) -> Claim | None:
    card = find(cards, "look", "base", domain)
    if card is None:
        return None
    found = [row for row in rows(card, primary) if row.primary]
    where, word = _WHERE[domain], _overall(found)
    count = f"{len(card.shots)} shot{'s' * (len(card.shots) != 1)}"
    sentence = {
        "improved": f"Yes. Over {count} {where}, the look sits closer to the film than the base model does.",
        "worse": f"No. Over {count} {where}, the look is further from the film in at least one primary measure.",
        "no worse": f"Not closer everywhere, but no further from the film either, over {count} {where}.",
        "cannot tell": f"Not shown. Over {count} {where}, the difference is not large or steady enough to call.",
        "not measured": f"No primary measure could be taken {where}.",
    }[word]
    question = "Closer to the film, in its own world?" if domain == "in" else "Closer to the film, outside its world?"
    return Claim(question, word, tone_of(word), sentence, tuple(found))


def _stable(cards: Sequence[Scorecard]) -> Claim | None:
    card = find(cards, "look", "base", "in")
    found = [row for row in rows(card, ()) if row.score.metric in _STABILITY] if card else []
    if not found:
        return None
    found = [row for row in found if row.score.value is not None] or found
    words = {row.word for row in found} - {"not measured"}
    bad = [row.title for row in found if row.word == "worse"]
    if bad:
        word, sentence = "worse", f"Something was lost in the film's own world: {_list(bad)}."
    elif words and words <= {"improved", "no worse"}:
        word, sentence = "no worse", "Motion and steadiness held up: no measure of them is worse than the base model's."
    elif words:
        word = "cannot tell"
        unsure = [row.title for row in found if row.word == "cannot tell"]
        sentence = f"Nothing was found to be worse, but the sample cannot rule it out for {_list(unsure)}."
    else:
        word, sentence = "not measured", "Steadiness could not be measured."
    return Claim("Steady, and still moving?", word, tone_of(word), sentence, tuple(found))


def _interaction(cards: Sequence[Scorecard], primary: Sequence[str]) -> Claim | None:
    card = find(cards, "look", "base", "both")
    if card is None:
        return None
    found = [row for row in rows(card, primary) if row.primary]
    word = _overall(found)
    sentence = {
        "improved": "The gain is larger inside the film's world than outside it.",
        "worse": "The gain is larger outside the film's world than inside it.",
        "no worse": "The gain is the same inside the film's world and outside it.",
        "cannot tell": "No difference between the two could be shown.",
        "not measured": "The two could not be compared.",
    }[word]
    return Claim("More help at home than away?", word, tone_of(word), sentence, tuple(found))


def _control(cards: Sequence[Scorecard], primary: Sequence[str]) -> Claim | None:
    against = find(cards, "look", "plain", "in")
    alone = find(cards, "plain", "base", "in")
    if against is None and alone is None:
        return None
    found = [row for card in (against, alone) if card for row in rows(card, primary) if row.primary]
    shown = [row for row in rows(against, primary) if row.primary] if against else []
    word = _overall(shown)
    sentence = {
        "improved": "Yes. The look sits closer to the film than an adapter trained the ordinary way on the same clips.",
        "worse": "No. The ordinary adapter does better on at least one primary measure.",
        "no worse": "Not shown. The look is no worse than the ordinary adapter, but not better throughout.",
        "cannot tell": "Not shown. The two adapters could not be told apart on every primary measure.",
        "not measured": "The look was not compared with the ordinary adapter.",
    }[word]
    if alone:
        plain = _overall([row for row in rows(alone, primary) if row.primary])
        sentence += f" Ordinary training alone, against base: {plain}."
    return Claim(
        "Was reference augmentation needed?", word, tone_of(word), sentence, tuple(found[: len(shown)] or found)
    )


def _list(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else ", ".join(names[:-1]) + " and " + names[-1]
