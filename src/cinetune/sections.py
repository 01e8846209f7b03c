"""Sections of the project file that only one verb reads, and what all sections have in common."""

from __future__ import annotations

from typing import Literal

import pydantic

__all__ = ["CaptionSection", "Section"]


class Section(pydantic.BaseModel):
    """Unknown keys and NaN are refused; nothing changes once it is read."""

    model_config = pydantic.ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class CaptionSection(Section):
    """Captions by a vision-language model, for shots that have none."""

    backend: Literal["transformers", "http"] = "transformers"
    path: str = ""
    """`transformers`: the folder of a Qwen2.5-VL or Qwen3-VL model."""
    base_url: str = "http://127.0.0.1:8000/v1"
    model: str = ""
    """`http`: what the server calls the model."""
    key_env: str = ""
    """`http`: name of the environment variable with the key; empty = no key is sent."""
    frames: int = pydantic.Field(default=8, ge=1, le=64)
    size: int = pydantic.Field(default=512, ge=32)
    """Longest side of the pictures shown, in pixels."""
    words: tuple[int, int] = (80, 100)
    """Fewest and most words of a caption."""
    language: Literal["en", "any"] = "en"
    """`any` leaves out the checks that know English."""
    prompt: str = ""
    """A question of your own; empty = `cinetune.footage.captions.PROMPT`."""
    workers: int = pydantic.Field(default=2, ge=1)
    """`http`: questions asked at the same time."""
    timeout: float = pydantic.Field(default=180.0, gt=0)
    """`http`: seconds to wait for an answer."""
    retries: int = pydantic.Field(default=4, ge=0)
    """`http`: how often a busy or failing server is asked again."""

    @pydantic.field_validator("words")
    @classmethod
    def _in_order(cls, words: tuple[int, int]) -> tuple[int, int]:
        if not 1 <= words[0] <= words[1]:
            raise ValueError("the first of the two must be at least 1 and not larger than the second")
        return words
