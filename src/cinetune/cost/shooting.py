"""Memory of passes without gradients, in bytes: denoising, and the autoencoder on both ways. Each is the moment at
which most tensors live, listed by what they are; the tracer finds the same (tests/training/test_shadow_shooting.py).

Workspaces of convolution kernels are the library's choice: on a GPU `with_workspaces` adds what was measured.
"""

from __future__ import annotations

from itertools import pairwise

from cinetune.cost.memory import FLOAT32, Setting, unpacking
from cinetune.cost.shape import Denoiser, Encoders

__all__ = ["clips_at_once", "decoding_bytes", "denoising_bytes", "encoding_bytes", "with_workspaces"]

HISTORY = 2
"""Frames that a causal convolution remembers of its input."""
_AT_ONCE = 1 << 24
_WORKSPACES = 1.173
"""Measured on an H200 over what the tracer finds: 1.179 for encoding and 1.168 for decoding 33 frames of 720x1280."""


def clips_at_once(frames: int, height: int, width: int) -> int:
    """How many clips the autoencoder is given together: 17 million pixels of them. A batch makes convolutions of small
    clips faster; one clip of 33 frames at 480p keeps any card busy, and five at 720p would need 81 GB.
    """
    return max(1, _AT_ONCE // (frames * height * width))


def denoising_bytes(shape: Denoiser, tokens: int, *, targets: str, rank: int, setting: Setting) -> int:
    """The most that one pass over one clip has alive beside the weights. Guidance runs its two passes in turn.

    Each moment is so many tensors of the model's width: `same` in its dtype and `wide` in float32.
    """
    each, d, f = setting.bytes_each, shape.width, shape.ffn
    mixed, product = each != FLOAT32, setting.product_bytes
    trained = shape.trained_layers(targets)

    def moment(same: int, wide: int, ffn: float = 0) -> float:
        return (same * each + wide * FLOAT32) * d + ffn * f

    wide = product == FLOAT32
    copy = 1 if wide and mixed else 0  # an adapted layer's input in float32
    own = 0 if wide else 2  # the adapter's result before and after scaling, in the layer's type or in float32
    # entrance, attn1's result, their sum, normed, query; its norm computes in float32
    moments = [moment(5, 3 if mixed else 2)]
    # entrance, attn2's result, their sum, normed; both sides of the activation
    moments.append(moment(4, 0, 2 * each))
    if "attn1.o" in trained:
        # entrance, normed, query, key, value, attention's result, the layer's; the adapter's before and after scaling
        moments.append(moment(7 + own, 2 - own + copy))
    if "attn2.o" in trained:
        # entrance, attn1's result, their sum, normed, query, both attentions and their sum's layer; the adapter's
        moments.append(moment(8 + own, 2 - own + copy))
    if "ffn.up" in trained:
        moments.append(moment(4, copy, each + 2 * product))
    if "ffn.down" in trained:
        moments.append(moment(5 + own, 2 - own, each + copy * FLOAT32))
    shared = (shape.text_tokens + shape.image_tokens) * d * each + 2 * FLOAT32 * tokens * (d // shape.heads)
    factors = product * tokens * rank if trained else 0
    return round(tokens * max(moments)) + shared + factors + unpacking(shape, setting)


def encoding_bytes(
    vae: Encoders, frames: int, height: int, width: int, clips: int = 1, *, repeats: bool = False
) -> int:
    """The most that is alive while clips are encoded, their pixels and latents included; four frames at a time. With
    `repeats` every layer on the way down also keeps what it was asked last and what it answered.
    """
    widths = [vae.vae_base * mult for mult in (1, *vae.vae_mult)]
    time, rows, columns = 4, height, width
    history, moments = HISTORY * 3 * rows * columns, list[int]()
    kept = time * widths[0] * rows * columns - history  # the way in remembers nothing beyond its history
    for level, (first, size_out) in enumerate(pairwise(widths)):
        for size_in in (first, *[size_out] * (vae.vae_blocks - 1)):
            moments.append(_residual(size_in, size_out, time, rows, columns))
            history += HISTORY * (size_in + size_out) * rows * columns
            kept += time * size_out * rows * columns
        if level < len(vae.vae_down):
            rows, columns = rows // 2, columns // 2
            if vae.vae_down[level]:
                time //= 2
                history += size_out * rows * columns
            kept += time * size_out * rows * columns
    kept = kept + history if repeats else 0
    history += (4 + 1) * HISTORY * widths[-1] * rows * columns  # two residual blocks and the way out
    latents = 2 * vae.vae_latent * (1 + (frames - 1) // 4) * rows * columns
    return FLOAT32 * clips * (3 * frames * height * width + latents + history + kept + max(moments))


def decoding_bytes(vae: Encoders, height: int, width: int) -> int:
    """The most that is alive while one clip of any length is decoded, one latent frame at a time."""
    widths = [vae.vae_base * mult for mult in (vae.vae_mult[-1], *reversed(vae.vae_mult))]
    time, steps = 1, len(vae.vae_down)
    rows, columns = height // 2**steps, width // 2**steps
    history = HISTORY * (vae.vae_latent + 4 * widths[0]) * rows * columns  # the way in and two residual blocks
    moments = list[int]()
    for level, (size_in, size_out) in enumerate(pairwise(widths)):
        entrance = size_in // 2 if level else size_in
        for index, inside in enumerate((entrance, *[size_out] * vae.vae_blocks)):
            held = entrance * time * rows * columns if index else 0
            moments.append(_residual(inside, size_out, time, rows, columns) + held)
            history += HISTORY * (inside + size_out) * rows * columns
        if level < steps:
            if vae.vae_down[::-1][level]:
                history += HISTORY * size_out * rows * columns
                time *= 2
            rows, columns = 2 * rows, 2 * columns
    return FLOAT32 * (history + HISTORY * widths[-1] * rows * columns + max(moments))


def _residual(size_in: int, size_out: int, time: int, rows: int, columns: int) -> int:
    """Values alive before a 3x3x3 convolution of a residual block: its input, what is added at the end where that is
    another, the activated tensor, the same with its history in front, padded too, and the history to remember."""
    beside = time * (size_in + (size_out if size_in != size_out else 0)) * rows * columns
    return beside + max(_before_convolution(size, time, rows, columns) for size in (size_in, size_out))


def _before_convolution(size: int, time: int, rows: int, columns: int) -> int:
    longer = time + HISTORY
    return size * longer * (2 * rows * columns + (rows + 2) * (columns + 2))


def with_workspaces(size: int) -> int:
    """What encoding or decoding needs on a GPU, where cuDNN's convolutions ask for workspaces."""
    return round(size * _WORKSPACES)
