"""The embedded default model: a Wan2.1-I2V in miniature, of the same diffusers and transformers classes, pre-trained
on the backlot.

`fresh` builds it untrained (for `tools/train_pocket.py`); `weights_folder` is where the trained weights lie inside the
package, in the diffusers layout that `WanImageToVideoPipeline.from_pretrained` reads. `clip/` beside them holds the
whole tiny CLIP: its vision tower is the image encoder, and both towers are the pocket's metric features. Text goes
through one word-level tokenizer for umT5 and CLIP alike.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKLWan, UniPCMultistepScheduler, WanImageToVideoPipeline, WanTransformer3DModel
from diffusers.models.autoencoders.autoencoder_kl_wan import WanAttentionBlock, WanResidualBlock
from safetensors.torch import load_file, save_file
from transformers import (
    CLIPConfig,
    CLIPImageProcessorPil,
    CLIPModel,
    CLIPVisionModel,
    T5Tokenizer,
    UMT5Config,
    UMT5EncoderModel,
)

from cinetune.catalogue import FACTS, RELEASES, Recorded
from cinetune.records import to_json

__all__ = ["FRAMES", "HEIGHT", "SHIFT", "WIDTH", "Parts", "fresh", "load_clip", "save", "tokenizer", "weights_folder"]

_OWN = RELEASES["pocket"]
FRAMES, HEIGHT, WIDTH, SHIFT = _OWN.frames, _OWN.height, _OWN.width, _OWN.shift
CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)

VAE = {
    "base_dim": 16,
    "z_dim": 16,
    "dim_mult": [1, 2, 2],
    "num_res_blocks": 1,
    "temperal_downsample": [True, True],
    "scale_factor_temporal": 4,
    "scale_factor_spatial": 4,
}
DENOISER = {
    "patch_size": (1, 2, 2),
    "num_attention_heads": 8,
    "attention_head_dim": 24,
    "in_channels": 36,
    "out_channels": 16,
    "text_dim": 64,
    "freq_dim": 256,
    "ffn_dim": 640,
    "num_layers": 6,
    "cross_attn_norm": True,
    "qk_norm": "rms_norm_across_heads",
    "image_dim": 64,
    "added_kv_proj_dim": 192,
    "rope_max_seq_len": 128,
}
TEXT = {
    "d_model": 64,
    "d_kv": 16,
    "d_ff": 128,
    "num_layers": 2,
    "num_heads": 4,
    "feed_forward_proj": "gated-gelu",
    "dropout_rate": 0.0,
}
CLIP_VISION = {
    "hidden_size": 64,
    "intermediate_size": 256,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "image_size": 64,
    "patch_size": 8,
    "hidden_act": "gelu",
    "projection_dim": 64,
}
CLIP_TEXT = {
    "hidden_size": 64,
    "intermediate_size": 256,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "max_position_embeddings": 64,
    "hidden_act": "gelu",
    "projection_dim": 64,
    "eos_token_id": 1,
    "bos_token_id": None,
    "pad_token_id": 0,
}


@dataclass(slots=True, kw_only=True)
class Parts:
    """The modules of one pocket model."""

    vae: AutoencoderKLWan
    denoiser: WanTransformer3DModel
    text_encoder: UMT5EncoderModel
    clip: CLIPModel
    tokenizer: T5Tokenizer


def tokenizer(words: Sequence[str]) -> T5Tokenizer:
    """Word-level T5 tokenizer: one piece per word of `words`, single characters for every other one."""
    letters = "abcdefghijklmnopqrstuvwxyz0123456789-'.,"
    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -2.0)]
    pieces += [("▁" + word, -3.0) for word in words] + [(letter, -8.0) for letter in letters]
    return T5Tokenizer(vocab=pieces, extra_ids=0, model_max_length=512)


def fresh(words: Sequence[str], *, seed: int) -> Parts:
    """An untrained pocket model. Residual branches of the VAE start at zero, so that it begins as a plain autoencoder
    and learns fast.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        tok = tokenizer(words)
        vae = AutoencoderKLWan(**VAE)
        for module in vae.modules():
            last = module.conv2 if isinstance(module, WanResidualBlock) else getattr(module, "proj", None)
            if isinstance(module, (WanResidualBlock, WanAttentionBlock)) and last is not None:
                for parameter in last.parameters():
                    torch.nn.init.zeros_(parameter)
        size = len(tok)
        return Parts(
            vae=vae,
            denoiser=WanTransformer3DModel(**DENOISER),
            text_encoder=UMT5EncoderModel(UMT5Config(vocab_size=size, **TEXT)),
            clip=CLIPModel(
                CLIPConfig(text_config=CLIP_TEXT | {"vocab_size": size}, vision_config=CLIP_VISION, projection_dim=64)
            ),
            tokenizer=tok,
        )


def save(parts: Parts, folder: Path) -> None:
    """Write the diffusers layout plus `clip/`. The denoiser is stored in float16 (it loads as float32), the rest in
    float32.
    """
    side = CLIP_VISION["image_size"]
    vision: Any = parts.clip.config.vision_config
    image_encoder = CLIPVisionModel(vision)
    image_encoder.load_state_dict(parts.clip.vision_model.state_dict(), strict=False)
    processor = CLIPImageProcessorPil(
        size={"shortest_edge": side},
        crop_size={"height": side, "width": side},
        image_mean=list(CLIP_MEAN),
        image_std=list(CLIP_STD),
    )
    scheduler = UniPCMultistepScheduler(
        prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=SHIFT, num_train_timesteps=1000
    )
    # The annotations of diffusers name wider and older classes than it accepts.
    components: dict[str, Any] = {
        "tokenizer": parts.tokenizer,
        "text_encoder": parts.text_encoder,
        "image_encoder": image_encoder,
        "image_processor": processor,
        "transformer": parts.denoiser,
        "vae": parts.vae,
        "scheduler": scheduler,
    }
    pipeline = WanImageToVideoPipeline(**components)
    pipeline.save_pretrained(folder)
    parts.clip.save_pretrained(folder / "clip")
    (folder / FACTS).write_text(to_json(Recorded(release="pocket")), encoding="utf-8")
    for path in folder.rglob("*.json"):  # where a part was loaded from is nobody's business
        config = json.loads(path.read_text(encoding="utf-8"))
        if isinstance(config, dict) and config.pop("_name_or_path", None) is not None:
            path.write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    weights = folder / "transformer" / "diffusion_pytorch_model.safetensors"
    save_file({name: tensor.half() for name, tensor in load_file(weights).items()}, weights, metadata={"format": "pt"})
    for path in folder.rglob("*"):
        path.chmod(0o755 if path.is_dir() else 0o644)


def weights_folder() -> Path:
    """The shipped weights, in the diffusers layout."""
    return Path(__file__).parents[1] / "pocket_weights"


def load_clip() -> tuple[CLIPModel, T5Tokenizer]:
    """The shipped tiny CLIP (eval mode, float32) and its tokenizer."""
    folder = weights_folder()
    return CLIPModel.from_pretrained(folder / "clip").eval(), T5Tokenizer.from_pretrained(folder / "tokenizer")
