"""Feature networks: LPIPS AlexNet from a checked file, and features or maps of a CLIP model that the caller hands in.

Frames are `TCHW` in [-1, 1], three channels. There is one resizer: torch bicubic with antialiasing, the whole frame
squashed to a square. Nothing is downloaded here.
"""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from cinetune.errors import ScoreError

__all__ = ["AlexNetLpips", "ClipMaps", "alexnet_lpips", "clip_features", "clip_frames", "clip_text", "vision_maps"]

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)

# (key of the published AlexNet, in, out, kernel, stride, padding); a max pool precedes the second and third.
_CONVS = (
    ("features.0", 3, 64, 11, 4, 2),
    ("features.3", 64, 192, 5, 1, 2),
    ("features.6", 192, 384, 3, 1, 1),
    ("features.8", 384, 256, 3, 1, 1),
    ("features.10", 256, 256, 3, 1, 1),
)
_POOL_BEFORE = (1, 2)


class AlexNetLpips(nn.Module):
    """AlexNet up to its fifth ReLU with LPIPS v0.1 channel weights: a `PerceptualNet`. Built with random weights."""

    def __init__(self) -> None:
        super().__init__()
        self.convs = nn.ModuleList(
            nn.Conv2d(wide_in, wide_out, kernel, stride, padding)
            for _, wide_in, wide_out, kernel, stride, padding in _CONVS
        )
        self.heads = nn.ParameterList(torch.rand(wide_out) for _, _, wide_out, _, _, _ in _CONVS)
        # The input scaling published with LPIPS: ImageNet statistics moved to a [-1, 1] input.
        self.register_buffer("shift", torch.tensor([-0.030, -0.088, -0.188]).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("scale", torch.tensor([0.458, 0.448, 0.450]).view(1, 3, 1, 1), persistent=False)
        self.requires_grad_(False).eval()

    @property
    def channel_weights(self) -> Sequence[Tensor]:
        """Five `[C_l]` vectors, C = 64, 192, 384, 256, 256."""
        return list(self.heads)

    def forward(self, frames_TCHW: Tensor) -> list[Tensor]:
        """Five ReLU maps of frames in [-1, 1]; sides under 63 pixels raise `ScoreError` (too small for five layers)."""
        _check_frames(frames_TCHW, least=63)
        x = (frames_TCHW - self.get_buffer("shift")) / self.get_buffer("scale")
        maps = []
        for layer, conv in enumerate(self.convs):
            if layer in _POOL_BEFORE:
                x = F.max_pool2d(x, kernel_size=3, stride=2)
            x = F.relu(conv(x))
            maps.append(x)
        return maps


def alexnet_lpips(path: Path, *, sha256: str = "") -> AlexNetLpips:
    """LPIPS-Alex (Zhang et al. 2018, v0.1) from one safetensors file that joins the two published state dicts.

    Keys: `features.{0,3,6,8,10}.{weight,bias}` of torchvision's AlexNet and `lin{0..4}.model.1.weight` of LPIPS;
    classifier keys are ignored. Raises `ScoreError` if the file is absent, has another `sha256`, lacks a tensor, has
    a wrong shape, or its head weights are not plausible: a random backbone would give numbers that look right. Without
    `sha256` the file is taken as it is; say its hash beside every number.
    """
    where = str(path)
    if not path.is_file():
        raise ScoreError("LPIPS weights are missing", where=where, remedy="pull the weights, or score without LPIPS")
    found = hashlib.sha256(path.read_bytes()).hexdigest() if sha256 else ""
    if found != sha256.lower():
        raise ScoreError(
            f"LPIPS weights have sha256 {found}, expected {sha256}", where=where, remedy="pull the weights again"
        )
    try:
        tensors = load_file(path)
    except SafetensorError as error:
        raise ScoreError(
            f"LPIPS weights cannot be read: {error}", where=where, remedy="pull the weights again"
        ) from error
    net = AlexNetLpips()
    for layer, (key, *_rest) in enumerate(_CONVS):
        conv = net.convs[layer]
        assert isinstance(conv, nn.Conv2d) and conv.bias is not None
        _copy(conv.weight, tensors, f"{key}.weight", where)
        _copy(conv.bias, tensors, f"{key}.bias", where)
        _copy(net.heads[layer], tensors, f"lin{layer}.model.1.weight", where)
        if bool((net.heads[layer] < 0).any()) or not bool((net.heads[layer] > 0).any()):
            raise ScoreError("LPIPS head weights must be non-negative and not all zero", where=f"{where}: lin{layer}")
    return net


def clip_frames(
    frames_TCHW: Tensor,
    *,
    size: int,
    mean: Sequence[float] = CLIP_MEAN,
    std: Sequence[float] = CLIP_STD,
) -> Tensor:
    """CLIP input `[T, 3, size, size]`: whole frame squashed by antialiased bicubic, clipped, normalised."""
    _check_frames(frames_TCHW, least=1)
    unit = (frames_TCHW.float() + 1) / 2
    square = F.interpolate(unit, size=(size, size), mode="bicubic", antialias=True, align_corners=False).clamp(0, 1)
    return (square - square.new_tensor(mean).view(1, 3, 1, 1)) / square.new_tensor(std).view(1, 3, 1, 1)


# A CLIP model is `Any` here: transformers declares its outputs loosely and two of its classes share no useful base.
def clip_features(
    model: Any,
    frames_TCHW: Tensor,
    *,
    mean: Sequence[float] = CLIP_MEAN,
    std: Sequence[float] = CLIP_STD,
    chunk: int = 32,
) -> Tensor:
    """Image embeddings `[T, D]` float32 on the CPU, not normalised, of frames in [-1, 1].

    `model` is a transformers `CLIPModel`, `CLIPVisionModelWithProjection` (projected) or `CLIPVisionModel` (pooled
    class token).
    """
    parts = []
    for pixels in _pixels(model, frames_TCHW, mean, std, chunk):
        with torch.no_grad():
            if hasattr(model, "get_image_features"):
                out = model.get_image_features(pixel_values=pixels)
            else:
                out = model(pixel_values=pixels)
        parts.append(_embedding(out, "image_embeds").float().cpu())
    return torch.cat(parts)


def clip_text(model: Any, ids_NL: Tensor, mask_NL: Tensor) -> Tensor:
    """Text embeddings `[N, D]` float32 on the CPU, not normalised, from token ids and attention mask.

    Truncate with the tokenizer: cutting ids drops the end token that the embedding is read from. The model decides
    which position that is from the ids.
    """
    if ids_NL.ndim != 2 or ids_NL.shape != mask_NL.shape:
        raise ScoreError(
            f"ids {list(ids_NL.shape)} and mask {list(mask_NL.shape)} must both be [N, L]", where="clip_text"
        )
    longest = _vision_or_text(model, "text_config").max_position_embeddings
    if ids_NL.shape[1] > longest:
        raise ScoreError(
            f"{ids_NL.shape[1]} tokens, the text model takes {longest}", remedy="truncate with the tokenizer"
        )
    device = next(model.parameters()).device
    with torch.no_grad():
        out = model.get_text_features(input_ids=ids_NL.to(device), attention_mask=mask_NL.to(device))
    return _embedding(out, "text_embeds").float().cpu()


def vision_maps(
    model: Any,
    frames_TCHW: Tensor,
    *,
    mean: Sequence[float] = CLIP_MEAN,
    std: Sequence[float] = CLIP_STD,
    chunk: int = 32,
) -> list[Tensor]:
    """Patch tokens after each transformer layer as maps `[T, C, h, w]`, class token dropped, of frames in [-1, 1].

    Fed to `perceptual_distance` they give an LPIPS-like number for where no LPIPS weights exist. It is not LPIPS;
    label it.
    """
    tower = getattr(model, "vision_model", model)
    per_layer: list[list[Tensor]] = []
    for pixels in _pixels(model, frames_TCHW, mean, std, chunk):
        with torch.no_grad():
            states = tower(pixel_values=pixels, output_hidden_states=True).hidden_states
        per_layer.append([_grid(tokens) for tokens in states[1:]])
    return [torch.cat(parts) for parts in zip(*per_layer, strict=True)]


class ClipMaps:
    """`vision_maps` as a `PerceptualNet`, weight 1 on every channel: the pocket model's stand-in for LPIPS."""

    def __init__(self, model: Any, *, mean: Sequence[float] = CLIP_MEAN, std: Sequence[float] = CLIP_STD) -> None:
        self.model = model
        self.mean, self.std = tuple(mean), tuple(std)

    @property
    def channel_weights(self) -> None:
        """None: every channel counts alike."""
        return None

    def __call__(self, frames_TCHW: Tensor) -> list[Tensor]:
        """Maps per layer, see `vision_maps`."""
        return vision_maps(self.model, frames_TCHW, mean=self.mean, std=self.std)


def _pixels(model: Any, frames_TCHW: Tensor, mean: Sequence[float], std: Sequence[float], chunk: int) -> list[Tensor]:
    size = int(_vision_or_text(model, "vision_config").image_size)
    weight = next(model.parameters())
    ready = clip_frames(frames_TCHW, size=size, mean=mean, std=std)
    return [part.to(weight) for part in ready.split(chunk)]


def _vision_or_text(model: Any, which: str) -> Any:
    return getattr(model.config, which, model.config)


def _embedding(out: Any, field: str) -> Tensor:
    # Releases of transformers differ: a bare tensor, an object with the embedding, or with a pooled output.
    if isinstance(out, Tensor):
        return out
    value = getattr(out, field, None)
    return out.pooler_output if value is None else value


def _grid(tokens_TLC: Tensor) -> Tensor:
    patches = tokens_TLC[:, 1:]
    side = round(patches.shape[1] ** 0.5)
    assert side * side == patches.shape[1], "CLIP towers take square input"
    return patches.transpose(1, 2).reshape(patches.shape[0], patches.shape[2], side, side)


def _copy(target: Tensor, tensors: dict[str, Tensor], key: str, where: str) -> None:
    if key not in tensors:
        raise ScoreError(f"LPIPS weights lack '{key}'", where=where, remedy="pull the weights again")
    if tensors[key].numel() != target.numel() or (target.ndim > 1 and tensors[key].shape != target.shape):
        raise ScoreError(f"'{key}' has shape {list(tensors[key].shape)}, expected {list(target.shape)}", where=where)
    with torch.no_grad():
        target.copy_(tensors[key].reshape(target.shape))


def _check_frames(frames_TCHW: Tensor, *, least: int) -> None:
    if frames_TCHW.ndim != 4 or frames_TCHW.shape[1] != 3 or frames_TCHW.shape[0] == 0:
        raise ScoreError(f"frames must be [T, 3, H, W], got {list(frames_TCHW.shape)}", where="feature network")
    if min(frames_TCHW.shape[2:]) < least:
        raise ScoreError(f"frames of {list(frames_TCHW.shape[2:])} are too small, at least {least} pixels are needed")
    low, high = float(frames_TCHW.min()), float(frames_TCHW.max())
    if not (low >= -1.01 and high <= 1.01):
        raise ScoreError(f"frames must lie in [-1, 1], these span {low:.3g} to {high:.3g}", where="feature network")
