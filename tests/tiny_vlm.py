"""Vision-language models of the real classes with tiny random weights, as folders in the layout of a download, without
torchvision."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    PreTrainedTokenizerFast,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2VLImageProcessorPil,
    Qwen3VLConfig,
    Qwen3VLForConditionalGeneration,
)
from transformers.utils import logging

__all__ = ["FAMILIES", "TEMPLATE", "save_vlm"]

FAMILIES = ("qwen2_5_vl", "qwen3_vl")
SPECIAL = ("<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>")
TEMPLATE = """\
{%- for message in messages %}<|im_start|>{{ message.role }}
{% for part in message.content %}
{%- if part.type == "image" %}<|vision_start|><|image_pad|><|vision_end|>{% else %}{{ part.text }}{% endif %}
{%- endfor %}<|im_end|>
{% endfor %}
{%- if add_generation_prompt %}<|im_start|>assistant
{% endif %}"""
TEXT = {
    "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2,
    "num_key_value_heads": 1, "max_position_embeddings": 4096,
}  # fmt: skip
VISION = {"depth": 2, "hidden_size": 32, "intermediate_size": 48, "num_heads": 2, "out_hidden_size": 32}


def _tokenizer() -> PreTrainedTokenizerFast:
    """Bytes, and the special tokens of the family."""
    core = Tokenizer(
        models.BPE(vocab={c: k for k, c in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}, merges=[])
    )
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(
        tokenizer_object=core, eos_token="<|im_end|>", pad_token="<|endoftext|>",
        additional_special_tokens=[word for word in SPECIAL if word != "<|im_end|>"],
    )  # fmt: skip


def save_vlm(folder: Path, family: str, *, seed: int = 0, template_file: str = "chat_template.json") -> Path:
    """Write the folder; `template_file` is where the chat template goes, "" for nowhere."""
    logging.disable_progress_bar()
    words = _tokenizer()
    code = words.convert_tokens_to_ids
    special: dict[str, Any] = {
        "image_token_id": code("<|image_pad|>"), "video_token_id": code("<|video_pad|>"),
        "vision_start_token_id": code("<|vision_start|>"), "vision_end_token_id": code("<|vision_end|>"),
    }  # fmt: skip
    ends = {"bos_token_id": None, "eos_token_id": code("<|im_end|>"), "pad_token_id": code("<|endoftext|>")}
    rope = {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [2, 3, 3]}
    text = TEXT | ends | {"vocab_size": len(words)}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if family == "qwen2_5_vl":
            patch = 14
            config = Qwen2_5_VLConfig(
                text_config=text | {"rope_parameters": rope},
                vision_config=VISION | {"patch_size": patch, "window_size": 56, "fullatt_block_indexes": [1]},
                **special,
            )
            model = Qwen2_5_VLForConditionalGeneration(config)
        else:
            patch = 16
            config = Qwen3VLConfig(
                text_config=text | {"head_dim": 16, "rope_parameters": rope | {"mrope_interleaved": True}},
                vision_config=VISION
                | {"patch_size": patch, "num_position_embeddings": 16, "deepstack_visual_indexes": [0]},
                **special,
            )
            model = Qwen3VLForConditionalGeneration(config)
    model.save_pretrained(folder)
    words.save_pretrained(folder)
    side = 2 * patch
    Qwen2VLImageProcessorPil(
        patch_size=patch, size={"shortest_edge": side * side, "longest_edge": 6 * side * side}
    ).save_pretrained(folder)
    if template_file == "chat_template.json":
        (folder / template_file).write_text(json.dumps({"chat_template": TEMPLATE}), encoding="utf-8")
    elif template_file:
        (folder / template_file).write_text(TEMPLATE, encoding="utf-8")
    return folder
