"""A vision-language model of the Qwen family that looks at the frames of a shot and answers in words.

The frames go in as separate pictures, in order: transformers' video processors need torchvision, which cinetune does
without, and its Pillow image processor does not. The chat template is filled here for the same reason: the families'
`Processor` classes cannot be built without their video half.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from jinja2 import TemplateError
from transformers import AutoModelForImageTextToText, AutoTokenizer, Qwen2VLImageProcessorPil

from cinetune.errors import ModelError, WeightsError
from cinetune.models.files.weights import built_from
from cinetune.outside import read_table

__all__ = ["Captioner", "LocalCaptioner"]


class Captioner(Protocol):
    """What can be asked about pictures. `turns` alternate between us and the model's earlier answers, ours first and
    last; the pictures belong to the first."""

    def ask(self, pictures: Sequence[np.ndarray], turns: Sequence[str], *, tokens: int) -> str:
        """The answer, at most `tokens` long, to pictures [H, W, 3] uint8."""
        ...


class LocalCaptioner:
    """A model folder from disk, on one device; answers greedily, so that the same frames get the same words."""

    def __init__(self, folder: Path, *, device: str = "cpu", dtype: str = "float32") -> None:
        """Raises `WeightsError` for a folder that transformers cannot read."""
        self._folder = folder
        with built_from(folder):
            self._tokenizer: Any = AutoTokenizer.from_pretrained(folder, local_files_only=True)
            self._images: Any = Qwen2VLImageProcessorPil.from_pretrained(folder, local_files_only=True)
            model: Any = AutoModelForImageTextToText.from_pretrained(
                folder, local_files_only=True, use_safetensors=True, dtype=getattr(torch, dtype)
            )
        self._model: Any = model.to(device).eval()
        self._template = _chat_template(folder, self._tokenizer)
        self._picture = self._tokenizer.convert_ids_to_tokens(self._model.config.image_token_id)

    def ask(self, pictures: Sequence[np.ndarray], turns: Sequence[str], *, tokens: int) -> str:
        """See `Captioner`. Raises `WeightsError` for a chat template without places for pictures, `ModelError` for more
        text than the model can read.
        """
        inputs = self.inputs(pictures, turns)
        asked = inputs["input_ids"].shape[1]
        limit = self._model.config.get_text_config().max_position_embeddings
        if asked + tokens > limit:
            remedy = "lower caption.frames or caption.size"
            raise ModelError(f"{asked} tokens and an answer do not fit the model's {limit}", remedy=remedy)
        inputs = {name: value.to(self._model.device) for name, value in inputs.items()}
        inputs["pixel_values"] = inputs["pixel_values"].to(self._model.dtype)
        with torch.inference_mode():
            found = self._model.generate(
                **inputs, do_sample=False, temperature=None, top_p=None, top_k=None, max_new_tokens=tokens
            )
        return self._tokenizer.decode(found[0, asked:], skip_special_tokens=True)

    def inputs(self, pictures: Sequence[np.ndarray], turns: Sequence[str]) -> dict[str, torch.Tensor]:
        """Everything the model is given but the token limit: ids and masks [1, L], patches, and grids [pictures, 3]."""
        messages: list[dict[str, Any]] = [
            {"role": ("user", "assistant")[number % 2], "content": [{"type": "text", "text": turn}]}
            for number, turn in enumerate(turns)
        ]
        messages[0]["content"] = [{"type": "image"}] * len(pictures) + messages[0]["content"]
        try:
            text = self._tokenizer.apply_chat_template(
                messages,
                chat_template=self._template,
                tokenize=False,
                add_generation_prompt=True,
                enable_thinking=False,
            )
        except (TemplateError, ValueError, TypeError) as error:
            raise WeightsError(f"the chat template fails: {error}", where=str(self._folder)) from error
        seen = self._images(images=list(pictures), return_tensors="pt")
        places = text.split(self._picture)
        if len(places) != len(pictures) + 1:
            what = f"the chat template makes {len(places) - 1} places for {len(pictures)} pictures"
            raise WeightsError(what, where=str(self._folder), remedy="use the template that came with the model")
        counts = [int(grid.prod()) // self._images.merge_size**2 for grid in seen["image_grid_thw"]]
        whole = places[0] + "".join(
            self._picture * count + place for count, place in zip(counts, places[1:], strict=True)
        )
        coded = self._tokenizer(whole, return_tensors="pt", add_special_tokens=False)
        ids = coded["input_ids"]
        return {
            "input_ids": ids, "attention_mask": coded["attention_mask"],
            "mm_token_type_ids": (ids == self._model.config.image_token_id).int(),
            "pixel_values": seen["pixel_values"], "image_grid_thw": seen["image_grid_thw"],
        }  # fmt: skip


def _chat_template(folder: Path, tokenizer: Any) -> str:
    """The template for chats with pictures, from where the families keep it. Raises `WeightsError`."""
    if (folder / "chat_template.jinja").is_file():
        return (folder / "chat_template.jinja").read_text(encoding="utf-8")
    if (folder / "chat_template.json").is_file():
        try:
            return str(read_table(folder / "chat_template.json", refuse=WeightsError)["chat_template"])
        except (WeightsError, KeyError) as error:
            raise WeightsError(
                "chat_template.json is damaged", where=str(folder), remedy="download it again"
            ) from error
    if isinstance(tokenizer.chat_template, str):
        return tokenizer.chat_template
    raise WeightsError("the model has no chat template", where=str(folder), remedy="use an Instruct model")
