"""How the files inside the store are laid out, each by one owner: the cached window, a shot's master.

    window   safetensors: `latents_Cfhw` the clip; `text_LD` its caption, rows without padding; `cond_Cfhw` mask (4) and
             latents of its first frame, grey behind; `image_LD` CLIP tokens of its first frame; `cond_Cfhw.k` and
             `image_LD.k` for k = 1, 2, ... the same from the first frame re-graded
    empty    safetensors: `empty_LD`, the embedding of the empty prompt
    opening  safetensors: `latents_BCfhw`, the latents of a shot's first segment
    master   safetensors: `frames_THWC`, uint16, full range, display R'G'B'

A one-frame window is `[:, :1]` of latents and condition: the VAE is causal, so the slice equals encoding one frame.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from cinetune.artifacts import Arm, Look

__all__ = [
    "EMPTY",
    "LATENTS",
    "OPENING",
    "TEXT",
    "WHITE",
    "full_caption",
    "given",
    "master_frames",
    "master_slice",
    "read_master",
    "save_tensors",
    "stream_master",
    "variants_in",
]

LATENTS, TEXT, EMPTY, OPENING = "latents_Cfhw", "text_LD", "empty_LD", "latents_BCfhw"
_CONDITION, _IMAGE, _FRAMES = "cond_Cfhw", "image_LD", "frames_THWC"
WHITE = 65535
"""Code value of display white in a master."""


def full_caption(trigger: str, text: str) -> str:
    """What the model reads: a caption or prompt behind the trigger phrase, if there is one."""
    return f"{trigger}, {text}" if trigger else text


def trigger_of(looks: Mapping[Arm, Look], arm: Arm) -> str:
    """The phrase before an arm's prompts: a look's own, the look's for the arm `trigger`, none for `base`."""
    look = looks.get("look" if arm == "trigger" else arm)
    return look.trigger if look else ""


def given(variant: int) -> tuple[str, str]:
    """Names of the condition latents and of the CLIP tokens of a window's first frame; variant 0 is the film's own."""
    suffix = f".{variant}" if variant else ""
    return f"{_CONDITION}{suffix}", f"{_IMAGE}{suffix}"


def variants_in(names: Iterable[str]) -> int:
    """How many re-graded first frames a cached window holds, by the names in it."""
    return sum(name.startswith(f"{_CONDITION}.") for name in names)


def save_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write torch tensors as they are, each in memory of its own."""
    from safetensors.torch import save_file

    save_file({name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}, path)


def stream_master(path: Path, parts: Iterable[np.ndarray], shape: tuple[int, int, int, int]) -> None:
    """Write a shot of `shape` (THWC) part by part, as they come: the bytes that safetensors would write at once."""
    size = 2 * math.prod(shape)
    names = {_FRAMES: {"dtype": "U16", "shape": list(shape), "data_offsets": [0, size]}}
    head = json.dumps(names, separators=(",", ":")).encode()
    head += b" " * (-len(head) % 8)
    written = 0
    with path.open("wb") as file:
        file.write(len(head).to_bytes(8, "little") + head)
        for part in parts:
            assert str(part.dtype) == "uint16", part.dtype
            written += file.write(part.astype("<u2", copy=False).tobytes())
    assert written == size, f"{written} bytes of pictures, {size} were announced"


def master_frames(path: Path) -> Iterator[np.ndarray]:
    """The pictures of a shot one by one, `HWC` float32 in [0, 1]. They are read, not mapped: mapped, a whole long shot
    would stay in the memory of the process.
    """
    import numpy as np

    with path.open("rb") as file:
        layout = json.loads(file.read(int.from_bytes(file.read(8), "little")))[_FRAMES]
        count, *shape = layout["shape"]
        file.seek(layout["data_offsets"][0], os.SEEK_CUR)
        for _ in range(count):
            levels = np.frombuffer(file.read(2 * math.prod(shape)), "<u2").reshape(shape)
            yield levels.astype("float32") / WHITE


def read_master(path: Path) -> np.ndarray:
    """A whole shot, `THWC` float32 in [0, 1]."""
    return master_slice(path)[:].astype("float32") / WHITE


def master_slice(path: Path) -> Any:
    """A shot, `THWC` uint16, of which only the frames that are asked for (`[a:b]`) are read from disk."""
    from safetensors import safe_open

    return safe_open(path, framework="numpy").get_slice(_FRAMES)
