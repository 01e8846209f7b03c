"""What a caption must say, and what it must leave to the adapter: the question put to a vision-language model, and the
checks on its answer.

A caption names everything that is *not* the look: subject, action, direction, set, light, the camera's motion. What it
leaves out, training has to put into the adapter; a look that is named in every caption comes back only when it is asked
for by that name.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from cinetune.timecode import Span

__all__ = ["LOOK_WORDS", "PROMPT", "ask_again", "complaints", "frames_to_show", "question", "tidy"]

PROMPT = """\
These {frames} pictures are moments of one film shot, in order, {step} seconds apart; the shot lasts {seconds} seconds.
Write one caption for the shot: one paragraph of plain English in the present tense, {low} to {high} words.
Say who or what is seen; what they do, and in which direction they move or face (left, right, towards the camera, away);
where it is, with the things that stand in the foreground and in the background; where the light comes from and the time
of day or the weather; how near the camera is; and how it moves from the first picture to the last (static, pan left or
right, tilt, push in, pull out, tracking, handheld).
State only what can be seen, without guessing at names, feelings or story.
Leave out the look: no word on colour grade, tones, contrast, saturation, grain, film stock, lens flaws, mood or style.
Do not mention pictures, frames, images or a video. Answer with the caption and nothing else."""
"""The question where `caption.prompt` is empty. The names in braces are filled in for each shot."""

LOOK_WORDS = (
    "35mm", "4k", "8k", "aesthetic", "analog", "analogue", "atmospheric", "black and white", "bleach bypass", "bokeh",
    "chiaroscuro", "cinematic", "cinematography", "color grade", "color grading", "color palette", "color scheme",
    "colour grade", "colour grading", "colour palette", "colour scheme", "cool tones", "desaturated", "dreamlike",
    "dreamy", "earth tones", "earthy tones", "film grain", "film look", "film noir", "film stock", "filmic", "grainy",
    "halation", "hdr", "high contrast", "high quality", "hyperrealistic", "in the style of", "kodachrome", "lens flare",
    "lens flares", "low contrast", "masterpiece", "monochromatic", "monochrome", "moody", "muted colors",
    "muted colours", "muted palette", "muted tones", "noir", "nostalgic", "painterly", "pastel", "photorealistic",
    "retro", "saturated", "sepia", "soft focus", "stylised", "stylized", "surreal", "teal and orange", "technicolor",
    "vibrant colors", "vibrant colours", "vignette", "vignetting", "vintage", "visually stunning", "warm palette",
    "warm tones",
)  # fmt: skip
"""Words that describe how a film looks instead of what it shows; compared in lower case, whole words, plurals apart."""
_BOILERPLATE = (
    r"\b(?:this|the|these|in this|in the) (?:short )?(?:video|clip|footage|image|images|picture|pictures|frame|frames|"
    r"film|movie|sequence|series|still|stills|shot sequence)\b",
    r"\b(?:first|second|third|fourth|last|final|next|each) (?:frame|picture|image)\b",
    r"\b(?:frame|picture|image) \d",
    r"\bwe (?:can )?see\b",
    r"\bas an ai\b",
    r"\bi(?:'m| am)? (?:sorry|unable|cannot|can't)\b",
    r"\b(?:appears|seems) to (?:depict|show|portray)\b",
    r"^(?:sure|certainly|of course|here is|here's|okay)\b",
)
_CAMERA = re.compile(
    r"\b(?:camera|pans?|panning|tilts?|tilting|dolly|dollies|tracks|tracking|zooms?|zooming|handheld|crane|static|"
    r"push(?:es)? in|pull(?:s)? (?:out|back))\b"
)
_LIGHT = re.compile(
    r"\b(?:light\w*|lit|sun\w*|daylight|moon\w*|dusk|dawn|twilight|nights?|nighttime|day|daytime|mornings?|noon|midday|"
    r"afternoons?|evenings?|overcast|cloud\w*|fog\w*|mist\w*|rain\w*|snow\w*|storm\w*|lamps?|candles?|candlelight|"
    r"torch\w*|fire\w*|neon|shadow\w*|backlit|glow\w*|darkness)\b"
)
_ENGLISH = frozenset(
    ("the", "of", "and", "with", "is", "to", "in", "at", "from", "as", "while", "on", "by", "his", "her")
)
_WORD = re.compile(r"[^\W_]+(?:['’-][^\W_]+)*")


def frames_to_show(span: Span, count: int) -> tuple[int, ...]:
    """Up to `count` source frame numbers of a shot, in order, evenly spaced from its first frame to its last."""
    most = min(count, span.frames)
    if most == 1:
        return (span.start,)
    return tuple(span.start + (2 * k * (span.frames - 1) + most - 1) // (2 * (most - 1)) for k in range(most))


def question(template: str, span: Span, shown: Sequence[int], *, words: tuple[int, int]) -> str:
    """The prompt for one shot: `{frames}`, `{step}`, `{seconds}`, `{low}`, `{high}` filled in, all else left alone."""
    step = (shown[-1] - shown[0]) / span.rate / max(1, len(shown) - 1)
    values = {
        "frames": str(len(shown)), "step": f"{float(step):.2f}", "seconds": f"{float(span.seconds):.1f}",
        "low": str(words[0]), "high": str(words[1]),
    }  # fmt: skip
    text = template or PROMPT
    for name, value in values.items():
        text = text.replace("{" + name + "}", value)
    return text


def ask_again(found: Sequence[str]) -> str:
    """What is said to a model whose answer had faults."""
    return (
        "That caption cannot be used: " + "; ".join(found) + ". Write it again, mended. Answer with the caption only."
    )


def tidy(answer: str) -> str:
    """The caption in a model's answer: without a thinking part, a label, Markdown, quotes and line breaks."""
    text = answer.rsplit("</think>", 1)[-1].strip().strip("`").strip()
    text = re.sub(r"^(?:#+\s*|\*\*)?(?:final )?caption\s*(?:\*\*)?\s*:\s*(?:\*\*)?", "", text, flags=re.IGNORECASE)
    text = " ".join(re.sub(r"[*_#`]{1,3}(?=\w)|(?<=[\w.,;])[*_`]{1,3}", "", text).split())
    for opening, closing in ('""', "“”", "''"):
        if len(text) > 1 and text[0] == opening and text[-1] == closing and opening not in text[1:-1]:
            text = text[1:-1].strip()
    return text


def complaints(text: str, *, words: tuple[int, int], language: str = "en") -> tuple[str, ...]:
    """What is wrong with a caption, in words a model or a person can act on; empty = nothing.

    `words` is the range of its length. With `language` "any" only length and look words are checked, because the other
    checks know English.
    """
    plain = " ".join(text.lower().replace("’", "'").replace("-", " ").split())
    found: list[str] = []
    count = len(_WORD.findall(text))
    if not words[0] <= count <= words[1]:
        found.append(f"it has {count} words instead of {words[0]} to {words[1]}")
    look = [word for word in LOOK_WORDS if re.search(rf"(?<!\w){re.escape(word)}(?!\w)", plain)]
    if look:
        found.append("it describes the look (" + ", ".join(f'"{word}"' for word in look) + ")")
    if language == "any":
        return tuple(found)
    if not _is_english(plain):
        return (*found, "it is not in English")
    phrases = [match.group() for pattern in _BOILERPLATE if (match := re.search(pattern, plain))]
    if phrases:
        found.append("it talks about the pictures or itself (" + ", ".join(f'"{phrase}"' for phrase in phrases) + ")")
    if not _CAMERA.search(plain):
        found.append("it does not say how the camera moves")
    if not _LIGHT.search(plain):
        found.append("it names neither the light nor the time of day")
    return tuple(found)


def _is_english(plain: str) -> bool:
    """Latin letters, and a tenth at least of English's commonest small words; short texts get the benefit of doubt."""
    letters = [letter for letter in plain if letter.isalpha()]
    if not letters or sum(letter.isascii() for letter in letters) < 0.9 * len(letters):
        return False
    words = _WORD.findall(plain)
    return len(words) < 20 or sum(word in _ENGLISH for word in words) >= 0.1 * len(words)
