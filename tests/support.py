"""Helpers that tests share: a tiny Wan2.1-I2V of the real diffusers and transformers classes, with random weights."""

from __future__ import annotations

import importlib.util
import json
import os
import string
import tempfile
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from diffusers import AutoencoderKLWan, UniPCMultistepScheduler, WanImageToVideoPipeline, WanTransformer3DModel
from diffusers.utils import logging as diffusers_logging
from transformers import (
    CLIPImageProcessorPil,
    CLIPVisionConfig,
    CLIPVisionModel,
    T5Tokenizer,
    UMT5Config,
    UMT5EncoderModel,
)
from transformers.utils import logging as transformers_logging

from cinetune.models.adapters.lora import lora_names
from cinetune.models.family import VideoModel
from cinetune.models.wan.wan21 import WanVideo

__all__ = [
    "TINY_WORDS",
    "benchmark",
    "remove_lora",
    "save_tiny",
    "tiny_pipeline",
    "tiny_tokenizer",
    "tiny_wan",
    "wan21_meta",
]

_NOUNS = ("street", "car", "man", "woman", "hill", "barn", "rain", "dusk", "dawn", "film")
TINY_WORDS = (
    *_NOUNS,
    "the",
    "of",
    "in",
    "on",
    "at",
    "and",
    "with",
    "warm",
    "cold",
    "slow",
    "wide",
    "close",
    "dolly",
    "pan",
)


def tiny_tokenizer() -> T5Tokenizer:
    """A T5 tokenizer over `TINY_WORDS` and single characters: no download, no training."""
    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -2.0)]
    pieces += [(f"▁{word}", -3.0) for word in TINY_WORDS]
    pieces += [(char, -6.0) for char in string.ascii_lowercase + string.digits + ",.'&;"]
    return T5Tokenizer(vocab=pieces, extra_ids=0, model_max_length=512)


def tiny_pipeline(*, seed: int = 0, heads: int = 2) -> WanImageToVideoPipeline:
    """The stock pipeline over tiny random parts, image branch included, in eval mode."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        tokenizer = tiny_tokenizer()
        text = UMT5EncoderModel(
            UMT5Config(
                vocab_size=len(tokenizer),
                d_model=32,
                d_kv=8,
                d_ff=64,
                num_layers=2,
                num_heads=4,
                feed_forward_proj="gated-gelu",
            )
        )
        image = CLIPVisionModel(
            CLIPVisionConfig(
                hidden_size=32,
                intermediate_size=64,
                num_hidden_layers=3,
                num_attention_heads=4,
                image_size=32,
                patch_size=8,
            )
        )
        vae = AutoencoderKLWan(
            base_dim=8,
            z_dim=16,
            dim_mult=[1, 2, 2],
            num_res_blocks=1,
            temperal_downsample=[True, True],
            scale_factor_spatial=4,
        )
        transformer = WanTransformer3DModel(
            num_attention_heads=heads,
            attention_head_dim=48 // heads,
            in_channels=36,
            out_channels=16,
            text_dim=32,
            freq_dim=32,
            ffn_dim=96,
            num_layers=2,
            image_dim=32,
            added_kv_proj_dim=48,
            rope_max_seq_len=1024,
        )
    for part in (text, image, vae, transformer):
        part.eval()
    scheduler = UniPCMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0)
    processor = CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})
    # The annotations of diffusers name wider and older classes than it accepts.
    components: dict[str, Any] = {
        "tokenizer": tokenizer,
        "text_encoder": text,
        "vae": vae,
        "scheduler": scheduler,
        "image_processor": processor,
        "image_encoder": image,
        "transformer": transformer,
    }
    pipeline = WanImageToVideoPipeline(**components)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def save_tiny(folder: Path, *, seed: int = 0, heads: int = 2) -> None:
    """Write the tiny model in diffusers layout; `WanImageToVideoPipeline.from_pretrained(folder)` reads it."""
    os.environ.setdefault("TQDM_DISABLE", "1")
    diffusers_logging.disable_progress_bar()
    transformers_logging.disable_progress_bar()
    tiny_pipeline(seed=seed, heads=heads).save_pretrained(folder)
    facts = {
        "name": "tiny",
        "rate": "16",
        "frames": 9,
        "height": 32,
        "width": 48,
        "shift": 3.0,
        "licence": "none (random weights)",
    }
    (folder / "cinetune.json").write_text(json.dumps(facts), encoding="utf-8")


def tiny_wan(folder: Path | None = None, seed: int = 0, heads: int = 2) -> WanVideo:
    """A tiny random model on the CPU in eval mode; saved under `folder` in diffusers layout when one is given."""
    with tempfile.TemporaryDirectory() as temporary:
        target = folder or Path(temporary)
        save_tiny(target, seed=seed, heads=heads)
        return WanVideo.from_folder(target, family="pocket")


def wan21_meta() -> WanTransformer3DModel:
    """The 14B denoiser on the `meta` device: its names and shapes without its memory (for counting and planning)."""
    with torch.device("meta"):
        return WanTransformer3DModel(
            patch_size=(1, 2, 2),
            num_attention_heads=40,
            attention_head_dim=128,
            in_channels=36,
            out_channels=16,
            text_dim=4096,
            freq_dim=256,
            ffn_dim=13824,
            num_layers=40,
            cross_attn_norm=True,
            qk_norm="rms_norm_across_heads",
            eps=1e-6,
            image_dim=1280,
            added_kv_proj_dim=5120,
            rope_max_seq_len=1024,
        )


def remove_lora(model: VideoModel, name: str) -> None:
    """Take an adapter off, so that a model of many tests is as it was."""
    denoiser: Any = model.denoiser
    if len(lora_names(model)) == 1:
        denoiser.unload_lora()
    else:
        denoiser.delete_adapters(name)


def benchmark(name: str) -> ModuleType:
    """A script of `benchmarks/`, which is no package, as a module."""
    path = Path(__file__).resolve().parents[1] / "benchmarks" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
