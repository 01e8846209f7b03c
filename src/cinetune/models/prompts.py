"""What the text encoder reads of a caption or prompt: its words as they are cleaned, and no more than 512 tokens.

Nothing here loads a model, and the tokenizer only where a text could be too long.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterable, Mapping
from typing import Any

import ftfy

from cinetune.errors import WeightsError
from cinetune.models import model_folder
from cinetune.sections import ModelSection

__all__ = ["TEXT_TOKENS", "clean_prompt", "cut_notes", "tokens_of"]

TEXT_TOKENS = 512
"""A prompt is always padded to exactly this many: the denoiser takes the last 512 tokens as text, others as image."""
_USUAL = 4 / 3  # tokens of a word of English, where no tokenizer is at hand


def clean_prompt(prompt: str) -> str:
    """Mend broken encodings, undo HTML escapes (twice: scraped captions often are), and collapse white space."""
    return re.sub(r"\s+", " ", html.unescape(html.unescape(ftfy.fix_text(prompt)))).strip()


def tokens_of(section: ModelSection, texts: Iterable[str]) -> list[int]:
    """How many tokens each text is to the model's text encoder, its end mark included; estimated from the number of
    words where the tokenizer's files are not there, and where the text is too short to matter.
    """
    cleaned = [clean_prompt(text) for text in texts]
    # A token is at least one byte of text.
    long = [text for text in cleaned if len(text.encode("utf-8", "replace")) >= TEXT_TOKENS]
    tokenizer = _tokenizer(section) if long else None
    if tokenizer is None:
        return [round(len(text.split()) * _USUAL) for text in cleaned]
    counted = {text: len(tokenizer(text, add_special_tokens=True).input_ids) for text in dict.fromkeys(long)}
    return [counted.get(text, round(len(text.split()) * _USUAL)) for text in cleaned]


def _tokenizer(section: ModelSection) -> Any:
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(model_folder(section) / "tokenizer", local_files_only=True)
    except (OSError, ValueError, WeightsError):
        return None


def cut_notes(section: ModelSection, texts: Mapping[str, str]) -> list[str]:
    """One line for each text, by its name, that the text encoder reads only the beginning of."""
    counts = tokens_of(section, texts.values())
    return [
        f"{name}: {count} tokens, cut off after {TEXT_TOKENS}"
        for name, count in zip(texts, counts, strict=True)
        if count > TEXT_TOKENS
    ]
