"""A caption or prompt that the text encoder cuts is said, and only such a one."""

from __future__ import annotations

from pathlib import Path

import pytest

from cinetune.models.prompts import TEXT_TOKENS, clean_prompt, cut_notes, tokens_of
from cinetune.models.wan.pocket import tokenizer
from cinetune.sections import ModelSection

POCKET = ModelSection(family="pocket")


@pytest.mark.parametrize("text", ["a rider", "x" * 600, "the sky is red " * 200, "&amp; " * 400, "é映画 " * 300, ""])
def test_what_is_counted_is_what_the_encoder_is_given(tmp_path: Path, text: str) -> None:
    """Against the tokenizer's own truncation: a text is cut where the truncated one has other tokens."""
    words = tokenizer(["sky", "red", "the", "is"])
    words.save_pretrained(tmp_path / "tokenizer")
    section = ModelSection(family="pocket", path=str(tmp_path))
    whole = words(clean_prompt(text)).input_ids
    read = words(clean_prompt(text), max_length=TEXT_TOKENS, truncation=True).input_ids
    (count,) = tokens_of(section, [text])
    assert (count > TEXT_TOKENS) == (whole != read) == bool(cut_notes(section, {"a": text}))
    assert count == len(whole) or len(text) < TEXT_TOKENS


def test_the_line_names_what_is_cut() -> None:
    texts = {"w1": "a rider crosses the square", "w2": "a rider crosses the square " * 150}
    (line,) = cut_notes(POCKET, texts)
    assert line.startswith("w2: ") and line.endswith("tokens, cut off after 512")


def test_without_a_tokenizer_the_words_are_counted() -> None:
    nowhere = ModelSection(family="wan21", path="/nowhere")
    assert tokens_of(nowhere, ["one two three " * 200, "one"]) == [800, 1]
