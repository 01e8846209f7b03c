"""The question, the checks on the answer, and which frames are shown."""

from __future__ import annotations

from fractions import Fraction
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from captioned import GOOD
from cinetune.footage.notes.captions import LOOK_WORDS, PROMPT, ask_again, complaints, frames_to_show, question, tidy
from cinetune.timecode import Span

WORDS = (80, 100)
SPAN = Span(start=100, frames=49, rate=Fraction(24))


def test_a_good_caption_has_no_faults():
    assert complaints(GOOD, words=WORDS) == ()


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        (GOOD + " " + GOOD, "words instead of 80 to 100"),
        ("A barn.", "it has 2 words"),
        (GOOD.replace("A rider", "A cinematic rider"), '"cinematic"'),
        (GOOD.replace("A rider", "A Film-Grain rider"), '"film grain"'),
        (GOOD.replace("A rider", "In teal and orange, a rider"), '"teal and orange"'),
        ("This video shows " + GOOD, '"this video"'),
        ("Sure! " + GOOD, '"sure"'),
        (GOOD.replace("A rider", "In the first frame a rider"), '"first frame"'),
        ("I’m sorry, " + GOOD, "\"i'm sorry\""),
        (GOOD.replace("The camera pans left with him", "He keeps going on and on"), "how the camera moves"),
        (GOOD.replace("dusk", "speed").replace("light", "hay").replace("shadows", "ropes"), "neither the light nor"),
        ("Ein Reiter überquert den Platz, und die Kamera schwenkt mit ihm durch den Abend. " * 5, "not in English"),
        ("骑手穿过广场 摄像机随他移动 " * 10, "not in English"),
        ("", "it has 0 words"),
    ],
)  # fmt: skip
def test_every_fault_is_found(text, fault):
    assert fault in "; ".join(complaints(text, words=WORDS))


def test_words_of_the_set_are_not_words_of_the_look():
    """What only sounds like a look: whole words and phrases count, not their parts."""
    text = GOOD.replace("A rider", "A rider with grain sacks, a dog black as coal, a contrasting scarf")
    assert complaints(text, words=(60, 120)) == ()


def test_another_language_is_checked_for_length_and_look_only():
    assert complaints("骑手 穿过 广场 cinematic", words=(3, 5), language="any") == (
        'it describes the look ("cinematic")',
    )


def test_the_look_words_are_clean():
    assert list(LOOK_WORDS) == sorted(set(LOOK_WORDS))
    assert all(word == word.lower() and "-" not in word for word in LOOK_WORDS)


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        ('"A barn."', "A barn."),
        ("Caption: A barn.", "A barn."),
        ("**Caption:** A *red* barn.", "A red barn."),
        ("<think>\nIs it a barn?\n</think>\n\nA barn.", "A barn."),
        ("```\nA barn\n\nat dusk.\n```", "A barn at dusk."),
        ('"Barn" and "shed"', '"Barn" and "shed"'),
        ("  ", ""),
    ],
)
def test_the_caption_in_an_answer(answer, text):
    assert tidy(answer) == text


def test_the_question_says_what_is_shown():
    shown = frames_to_show(SPAN, 5)
    assert shown == (100, 112, 124, 136, 148)
    text = question("", SPAN, shown, words=WORDS)
    assert "These 5 pictures" in text and "0.50 seconds apart" in text and "lasts 2.0 seconds" in text
    assert "80 to 100 words" in text
    assert "{" not in text and "{" in PROMPT
    assert question("{frames} of {this}", SPAN, shown, words=WORDS) == "5 of {this}"
    assert question("{step}", SPAN, (100,), words=WORDS) == "0.00"
    assert "it is dull" in ask_again(["it is dull"])


@given(st.integers(0, 1000), st.integers(1, 500), st.integers(1, 64))
def test_frames_are_spread_from_the_first_to_the_last(start, frames, count):
    shown = frames_to_show(Span(start=start, frames=frames, rate=Fraction(24)), count)
    assert len(shown) == min(frames, count) == len(set(shown))
    assert shown[0] == start
    assert len(shown) == 1 or shown[-1] == start + frames - 1
    steps = [after - before for before, after in pairwise(shown)]
    assert not steps or max(steps) - min(steps) <= 1
