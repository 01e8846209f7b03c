"""How the layers of a Wan transformer are called: diffusers' names, those of the original Wan2.1 release, kohya's."""

from __future__ import annotations

import re

from cinetune.errors import ModelError

__all__ = ["IMAGE_LAYERS", "LAYERS", "bare_name", "layer_name", "module_name", "original_name"]

LAYERS = {
    "attn1.to_q": "self_attn.q",
    "attn1.to_k": "self_attn.k",
    "attn1.to_v": "self_attn.v",
    "attn1.to_out.0": "self_attn.o",
    "attn2.to_q": "cross_attn.q",
    "attn2.to_k": "cross_attn.k",
    "attn2.to_v": "cross_attn.v",
    "attn2.to_out.0": "cross_attn.o",
    "attn2.add_k_proj": "cross_attn.k_img",
    "attn2.add_v_proj": "cross_attn.v_img",
    "ffn.net.0.proj": "ffn.0",
    "ffn.net.2": "ffn.2",
}
"""Layers inside a block that an adapter can change: diffusers' name and the original one."""
IMAGE_LAYERS = ("attn2.add_k_proj", "attn2.add_v_proj")

_IN_BLOCK = LAYERS | {
    "attn1.norm_q": "self_attn.norm_q",
    "attn1.norm_k": "self_attn.norm_k",
    "attn2.norm_q": "cross_attn.norm_q",
    "attn2.norm_k": "cross_attn.norm_k",
    "attn2.norm_added_k": "cross_attn.norm_k_img",
    "norm2": "norm3",
}
"""`norm2` of diffusers is before cross-attention; the original release counts it as the third."""
_OUTSIDE = {
    "patch_embedding": "patch_embedding",
    "condition_embedder.time_embedder.linear_1": "time_embedding.0",
    "condition_embedder.time_embedder.linear_2": "time_embedding.2",
    "condition_embedder.time_proj": "time_projection.1",
    "condition_embedder.text_embedder.linear_1": "text_embedding.0",
    "condition_embedder.text_embedder.linear_2": "text_embedding.2",
    "condition_embedder.image_embedder.norm1": "img_emb.proj.0",
    "condition_embedder.image_embedder.ff.net.0.proj": "img_emb.proj.1",
    "condition_embedder.image_embedder.ff.net.2": "img_emb.proj.3",
    "condition_embedder.image_embedder.norm2": "img_emb.proj.4",
    "proj_out": "head.head",
}
_SPELLINGS = (
    {layer: layer for layer in LAYERS}
    | {layer.replace(".", "_"): layer for layer in LAYERS}
    | {original: layer for layer, original in LAYERS.items()}
    | {original.replace(".", "_"): layer for layer, original in LAYERS.items()}
)
"""Every spelling of an adaptable layer that is found in files, to diffusers' name; none is ambiguous."""
_BY_ORIGINAL = {original: ours for table in (_IN_BLOCK, _OUTSIDE) for ours, original in table.items()}
_PREFIX = r"(?:(?:base_model\.model|model|diffusion_model|transformer)\.)*"


def original_name(key: str) -> str:
    """The original release's name of a parameter of diffusers' `WanTransformer3DModel`.

    Raises `ModelError` for a parameter that Wan2.1 image-to-video does not have.
    """
    if key == "scale_shift_table":
        return "head.modulation"
    if found := re.fullmatch(r"(blocks\.\d+)\.scale_shift_table", key, re.ASCII):
        return f"{found[1]}.modulation"
    module, _, kind = key.rpartition(".")
    if found := re.fullmatch(r"(blocks\.\d+)\.(.+)", module, re.ASCII):
        name = _IN_BLOCK.get(found[2])
        name = name and f"{found[1]}.{name}"
    else:
        name = _OUTSIDE.get(module)
    if name is None:
        raise ModelError(f"{key!r} has no name in the original Wan2.1 release", remedy="export --to merged instead")
    return f"{name}.{kind}"


def bare_name(spelling: str) -> str:
    """A layer's name in a file without what programs put before it."""
    return re.sub("^" + _PREFIX, "", spelling)


def layer_name(spelling: str) -> str | None:
    """`blocks.N.layer` in diffusers' names from a layer's name in an adapter file of any origin; None = not one."""
    found = re.fullmatch(r"lora_unet__?blocks_(\d{1,4})_(\w+)", spelling, re.ASCII)
    found = found or re.fullmatch(_PREFIX + r"blocks\.(\d{1,4})\.(.+)", spelling, re.ASCII)
    layer = _SPELLINGS.get(found[2]) if found else None
    return f"blocks.{found[1]}.{layer}" if found and layer else None


def module_name(spelling: str) -> str | None:
    """As `layer_name`, for norms and for what lies outside the blocks as well."""
    bare = bare_name(spelling)
    found = re.match(r"blocks\.\d{1,4}\.", bare, re.ASCII)
    block = found[0] if found else ""
    inner = bare.removeprefix(block)
    ours = _BY_ORIGINAL.get(inner, inner)
    return layer_name(spelling) or (block + ours if ours in (_IN_BLOCK if block else _OUTSIDE) else None)
