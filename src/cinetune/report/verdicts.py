"""From scorecards to answers: what was asked, what the numbers say, and in which words.

The words are the scorecard's own; nothing is decided again here. An answer names its clearest row and never stands
above one that says more. Rows that were not declared have an arrow and no word.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from cinetune.artifacts import Score, Scorecard

__all__ = ["Answer", "TableRow", "answers", "find", "headline", "number", "rows", "signed", "title_of", "tone_of"]

_TITLES = {
    "tone_w1": ("tone-curve distance", "How far the spread from shadows to highlights is from the film's."),
    "lab_frechet": ("colour-cloud distance", "All colours of the shot against all colours of the film."),
    "split_tone": ("split-tone difference", "Colour cast of shadows, mids and highlights against the film's."),
    "palette": ("palette distance", "Main colours of the shot against the film's main colours."),
    "colour_error": ("colour error to the truth", "Against the shot as the film itself would show it."),
    "structure": ("structure", "Edges and shapes against the truth's, whatever the grade (SSIM on standardised luma)."),
    "structure_kept": (
        "structure (no truth)",
        "Edges and shapes against the same shot and seed without the look, as no truth is known. 1: the same drawing.",
    ),
    "gradients": ("edges", "Correlation of brightness gradients with the truth's."),
    "content": ("content", "Agreement with the truth in what is in the picture."),
    "lpips": ("perceptual distance to the truth", "Frame by frame, the given first frame left out."),
    "tlp": ("change over time against the truth", "Perceptual change from frame to frame."),
    "motion_error": ("motion error", "How far the speed is from the true shot's."),
    "motion": ("motion", "How much moves from frame to frame."),
    "luma_flicker": ("flicker", "Brightness that jumps from frame to frame."),
    "flicker_error": ("flicker against the truth", "Log ratio of the shot's flicker to the true shot's."),
    "warp_error": ("warp error against the truth", "What motion does not explain, as a log ratio to the true shot's."),
    "still": ("frozen frames", "Share of frames that repeat the one before."),
    "drift": ("drift", "Colour of the last frame against the keyframe."),
    "seam_ratio": ("seams", "Jump at the joins between segments over change inside them."),
    "clip_text": ("agreement with the words", "CLIP similarity of frames and prompt."),
    "clip_frame": ("frame-to-frame agreement", "CLIP similarity of neighbours. A frozen picture has the highest."),
    "clip_reference": ("agreement with the film", "CLIP similarity of frames and the film's frames."),
    "clip_kid": ("CLIP-KID", "Distance of all shots together to real clips of their own world, in CLIP features."),
    "clip_kid_film": ("CLIP-KID to the film", "Distance of all shots together to the film, in CLIP features."),
    "clip_fid": ("CLIP-FID", "Fréchet distance to real clips of their own world. Its bias at so few clips is large."),
    "clip_fid_film": ("CLIP-FID to the film", "Fréchet distance to the film. Its bias at so few clips is large."),
    "cmmd": ("CMMD", "Kernel distance to real clips of their own world, in CLIP features."),
    "cmmd_film": ("CMMD to the film", "Kernel distance to the film, in CLIP features."),
}
_ANCHORS = {
    "film": "the film's own scenes",
    "real": "real clips against each other",
    "real_sd": "spread of that",
    "truth": "the truth itself",
    "floor": "floor, the truth through the VAE",
    "ceiling": "ceiling, its first frame frozen",
    "null": "what it reads when nothing differs",
    "a_a": "noise, base against base",
}
_TONES = {
    "improved": "good", "improved in part": "good", "mixed": "bad", "worse": "bad", "no worse": "fine",
    "more inside": "fine", "more outside": "fine", "cannot tell": "unsure", "withheld": "bad",
    "not valid here": "none", "not measured": "none",
}  # fmt: skip
_WHERE = {"in": "in the film's own world", "out": "outside the film's world", "both": "between the two worlds"}
_SILENT = {"not measured", "not valid here"}


@dataclass(frozen=True, slots=True)
class TableRow:
    """One metric of one comparison as the page shows it; numbers are text already, `score` the record.

    `context` tells what the level means: what the film itself reads, floor, ceiling, noise. `sign` is the arrow of an
    exploratory row, "" for a declared one. `harmed` counts shots in words, `least` names those that gained least, which
    a mean hides."""

    score: Score
    title: str
    help: str
    word: str
    tone: str
    sign: str
    before: str
    after: str
    context: str
    effect: str
    interval: str
    interval90: str
    margin: str
    harmed: str
    least: str
    declared: bool


@dataclass(frozen=True, slots=True)
class Answer:
    """A question a producer asks, the answer as a word and a sentence, and the declared rows behind it."""

    kind: str
    domain: str
    question: str
    word: str
    tone: str
    sentence: str
    rows: tuple[TableRow, ...]


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
    """The metric's name in a reader's words; what follows an `@` is the feature network."""
    name, _, network = metric.partition("@")
    title = _TITLES[name][0] if name in _TITLES else name.replace("_", " ")
    return f"{title} ({network})" if network else title


def tone_of(word: str) -> str:
    """Style class of a verdict word; a word we do not know is shown as unsure."""
    return _TONES.get(word, "unsure")


def find(cards: Sequence[Scorecard], arm: str, versus: str, domain: str) -> Scorecard | None:
    """The card of one comparison, if it was scored."""
    return next((card for card in cards if (card.arm, card.versus, card.domain) == (arm, versus, domain)), None)


def rows(card: Scorecard) -> list[TableRow]:
    """Every effect of a card, declared ones first, otherwise in the card's order."""
    made = [_row(card, score) for score in card.effects]
    return sorted(made, key=lambda row: not row.declared)


def _row(card: Scorecard, score: Score) -> TableRow:
    declared = bool(score.claim)
    word = "not measured" if score.value is None else score.verdict or ("cannot tell" if declared else "")
    level = {} if card.domain == "both" else card.levels.get(score.metric, {})
    before, after = level.get(card.versus), level.get(card.arm)
    places, fine = _places(before, after), _places(score.value, score.low, score.high, digits=2)
    known = {name: level[name] for name in _ANCHORS if level.get(name) is not None}
    return TableRow(
        score=score,
        title=title_of(score.metric),
        help=_TITLES.get(score.metric.partition("@")[0], ("", ""))[1],
        word=word,
        tone=tone_of(word) if word else "none",
        sign="" if declared else _arrow(score),
        before=number(before, places=places),
        after=number(after, places=places),
        context="; ".join(f"{_ANCHORS[name]} {number(value, places=places)}" for name, value in known.items()),
        effect=signed(score.value, places=fine),
        interval=_between(score.low, score.high, fine),
        interval90=_between(score.low90, score.high90, fine),
        margin="" if score.margin is None else f"{score.margin:g}",
        harmed=_harmed(score),
        least=_least(card, score, fine),
        declared=declared,
    )


def _between(low: float | None, high: float | None, places: int) -> str:
    return "" if low is None or high is None else f"{signed(low, places=places)} to {signed(high, places=places)}"


def _arrow(score: Score) -> str:
    """Where an exploratory row points: up or down, filled when its q is small, empty for a row without a number."""
    if score.value is None or score.value == 0:
        return ""
    sure = score.q is not None and score.q <= 0.05
    return ("▲" if sure else "△") if score.value > 0 else ("▼" if sure else "▽")


def _least(card: Scorecard, score: Score, places: int) -> str:
    """The two shots that gained least, with their change; "" with fewer than four shots."""
    by_shot = card.per_shot.get(score.metric, {})
    changes = {shot: arms[card.arm] - arms[card.versus] for shot, arms in by_shot.items()}
    if card.domain == "both" or score.better == "none" or len(changes) < 4:
        return ""
    worst = sorted(changes, key=lambda shot: changes[shot] if score.better == "higher" else -changes[shot])[:2]
    return "least in " + _list([f"{shot} ({signed(changes[shot], places=places)})" for shot in worst])


def _harmed(score: Score) -> str:
    """How many shots moved the wrong way, and what share of all such shots that leaves possible."""
    if score.harmed is None or not score.n:
        return ""
    said = f"{score.harmed} of {score.n} shots moved the wrong way"
    return said if score.harmed_most is None else f"{said} (of all such shots, up to {score.harmed_most:.0%} may)"


def answers(cards: Sequence[Scorecard]) -> list[Answer]:
    """The questions of the page in the order a reader asks them; one that was not declared or scored is left out."""
    found = [(card, row) for card in cards for row in rows(card) if row.declared]
    made: list[Answer] = []
    for kind in ("closer", "guard"):
        for domain in ("in", "out"):
            mine = [(c, r) for c, r in found if (r.score.claim, c.domain) == (kind, domain) and c.versus != "plain"]
            if mine:
                made.append((_closer if kind == "closer" else _cost)(mine[0][0], [row for _, row in mine]))
    between = [(c, r) for c, r in found if r.score.claim == "interaction"]
    if between:
        made.append(_interaction([row for _, row in between], between[0][0]))
    control = [row for card, row in found if card.versus == "plain"]
    if control:
        made.append(_control(control))
    return made


def headline(found: Sequence[Answer]) -> str:
    """One sentence for the whole page: at home, away, and what it costs."""
    by_place = {(one.kind, one.domain): one for one in found}
    said = {
        "improved": "yes", "improved in part": "in part", "mixed": "better in one measure and worse in another",
        "worse": "no, further from the film", "no worse": "no gain shown and no harm done", "cannot tell": "unclear",
        "withheld": "cannot be trusted", "not measured": "not measured", "not valid here": "not measured",
    }  # fmt: skip
    parts = [
        f"{said[by_place['closer', domain].word]} {where}"
        for domain, where in (("in", "at home"), ("out", "away"))
        if ("closer", domain) in by_place
    ]
    if not parts:
        return "Nothing was declared that the shots could answer."
    text = ", ".join(parts)
    guards = [one for one in found if one.kind == "guard"]
    lost = list(dict.fromkeys(row.title for one in guards for row in one.rows if row.word == "worse"))
    unsure = list(dict.fromkeys(r.title for one in guards for r in one.rows if r.word == "cannot tell"))
    if lost:
        text += f"; it costs {_list(lost)}"
    elif unsure:
        text += f"; whether it costs {_list(unsure)} is not known"
    elif any(row.word in ("no worse", "improved") for one in guards for row in one.rows):
        text += "; nothing that was guarded was lost"
    return text[0].upper() + text[1:] + "."


def _said(row: TableRow) -> str:
    """A row in half a sentence: what, by how much, how surely."""
    unit = f" {row.score.unit}" if 0 < len(row.score.unit) <= 8 else ""
    interval = f" ({row.interval})" if row.interval else ""
    return f"{row.title} {row.effect}{unit}{interval}"


def _with(found: Sequence[TableRow], *words: str) -> list[TableRow]:
    return [row for row in found if row.word in words]


def _closer_word(found: Sequence[TableRow]) -> str:
    words = [row.word for row in found if row.word not in _SILENT]
    if not words:
        return "not measured"
    for word in ("withheld",):
        if word in words:
            return word
    if "improved" in words and "worse" in words:
        return "mixed"
    if "worse" in words:
        return "worse"
    if set(words) == {"improved"}:
        return "improved"
    if "improved" in words:
        return "improved in part"
    return "no worse" if set(words) == {"no worse"} else "cannot tell"


def _closer(card: Scorecard, found: list[TableRow]) -> Answer:
    where, word = _WHERE[card.domain], _closer_word(found)
    versus = "the base model" + (" with the same trigger phrase" if card.versus == "trigger" else "")
    over = f"Over {len(card.shots)} shot{'s' * (len(card.shots) != 1)} {where}"
    gained, lost = _with(found, "improved"), _with(found, "worse")
    rest = [row.title for row in found if row.word in ("cannot tell", "no worse")]
    sentence = {
        "improved": f"{over}, the look sits closer to the film than {versus}: {_list([_said(r) for r in gained])}.",
        "improved in part": f"{over}: {_list([_said(r) for r in gained])}. Not shown for {_list(rest)}.",
        "mixed": f"{over}: better in {_list([_said(r) for r in gained])}, worse in {_list([_said(r) for r in lost])}.",
        "worse": f"{over}, the look is further from the film: {_list([_said(r) for r in lost])}.",
        "no worse": f"{over}, the look is no further from the film than {versus}, and no gain was shown.",
        "cannot tell": f"{over}, no gain over {versus} could be shown.",
        "withheld": "; ".join(dict.fromkeys(row.score.why for row in _with(found, "withheld"))) + ".",
        "not measured": f"No declared measure could be taken {where}.",
    }[word]
    question = "Closer to the film, in its own world?" if card.domain == "in" else "Closer to it, outside its world?"
    return Answer("closer", card.domain, question, word, tone_of(word), sentence, tuple(found))


def _cost(card: Scorecard, found: list[TableRow]) -> Answer:
    where = _WHERE[card.domain]
    lost, unsure = _with(found, "worse"), _with(found, "cannot tell")
    held = _with(found, "no worse", "improved")
    if lost:
        word = "worse"
        sentence = f"It costs {_list([_said(row) for row in lost])} {where}."
    elif unsure:
        word = "cannot tell"
        sentence = f"No loss was shown {where}, but more than the margin cannot be ruled out for "
        sentence += f"{_list([row.title for row in unsure])}."
    elif held:
        word, sentence = "no worse", f"Nothing that was guarded was lost by more than its margin {where}."
    else:
        word, sentence = "not measured", f"No guarded measure could be taken {where}."
    if lost and unsure:
        sentence += f" Not known for {_list([row.title for row in unsure])}."
    question = "What does it cost, in the film's own world?" if card.domain == "in" else "What does it cost outside?"
    return Answer("guard", card.domain, question, word, tone_of(word), sentence, tuple(found))


def _interaction(found: list[TableRow], card: Scorecard) -> Answer:
    """Where the effect is larger, in words that do not turn round when the effect is a loss."""
    words = {row.word for row in found if row.word not in _SILENT}
    if not words:
        word, sentence = "not measured", "The two worlds could not be compared."
    elif words == {"cannot tell"}:
        word, sentence = "cannot tell", "No difference between the two worlds could be shown."
    else:
        sure = _with(found, "more inside", "more outside")
        word = sure[0].word if len({row.word for row in sure}) == 1 else "mixed"
        sentence = " ".join(_compared(row, card) for row in sure)
    return Answer("interaction", "both", "More at home than away?", word, tone_of(word), sentence, tuple(found))


def _compared(row: TableRow, card: Scorecard) -> str:
    level = card.levels.get(row.score.metric, {})
    inside, outside = level.get("in"), level.get("out")
    more, less = ("at home", "away") if row.word == "more inside" else ("away", "at home")
    if inside is None or outside is None:
        return f"{row.title.capitalize()}: the look does more {more} than {less}."
    turn = -1 if row.score.better == "lower" else 1
    gains = {"at home": turn * inside, "away": turn * outside}
    fine = _places(inside, outside, digits=2)
    shown = f"{signed(inside, places=fine)} at home, {signed(outside, places=fine)} away"
    if gains[more] > 0 >= gains[less]:
        what = f"helps {more} and not {less}"
    elif gains[more] > 0:
        what = f"helps more {more} than {less}"
    else:
        what = f"harms less {more} than {less}"
    return f"{row.title.capitalize()}: the look {what} ({shown})."


def _control(found: list[TableRow]) -> Answer:
    word = _closer_word(found)
    gained, lost = _with(found, "improved"), _with(found, "worse")
    sentence = {
        "improved": f"Closer to the film than an ordinary adapter: {_list([_said(r) for r in gained])}.",
        "worse": f"The ordinary adapter is closer: {_list([_said(r) for r in lost])}.",
        "no worse": "The look is no worse than the ordinary adapter, and no gain over it was shown.",
        "cannot tell": "The look and the ordinary adapter could not be told apart.",
        "not measured": "The look was not compared with the ordinary adapter.",
    }.get(
        word, f"Against an adapter trained the ordinary way: {_list([_said(r) for r in [*gained, *lost]] or [word])}."
    )
    question = "Was reference augmentation needed?"
    return Answer("control", "in", question, word, tone_of(word), sentence, tuple(found))


def _list(names: Sequence[str]) -> str:
    return ", ".join(names[:-1]) + " and " + names[-1] if len(names) > 1 else "".join(names)
