"""What was measured on cards with the real sizes of Wan2.1 14B and random weights, beside what the plan says of it.

    PYTHONPATH=src:tests python -m cost.measured      the table of docs/numerics.md

Rows of one H200 (143,771 MiB), torch 2.11, batch 1, LoRA r8 on `cross`, 33 frames. `memory` is the most that torch's
allocator had out, in 1e9 bytes; None where it was not written down, or, for
the row with 10 blocks kept, where that number was inferred from the memory (134.7).
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass, field

from cinetune.cost.cards import CARDS, elementwise_bytes, step_seconds, work_seconds
from cinetune.cost.memory import Setting, training_memory
from cinetune.cost.operations import Operations, forward, video_decoding, video_encoding
from cinetune.cost.shape import WAN21, WAN21_ENCODERS
from cinetune.cost.shooting import decoding_bytes, encoding_bytes, with_workspaces

__all__ = ["ROWS", "Row", "table"]

H200 = next(card for card in CARDS if card.name == "H200")
SMALL, LARGE = (480, 832), (720, 1280)


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One measurement: `kind` is what ran, over 33 frames of `size` (rows, columns)."""

    kind: str
    size: tuple[int, int]
    what: str
    seconds: float
    memory: float | None = None
    setting: Setting = field(default_factory=Setting)

    def planned(self) -> tuple[float, float]:
        """Seconds and 1e9 bytes by the plan."""
        frames, tokens = 33, WAN21.tokens(33, *self.size)
        match self.kind:
            case "step":
                seconds = step_seconds(WAN21, tokens, H200, rank=8, targets="cross", setting=self.setting)
                memory = training_memory(WAN21, tokens, rank=8, targets="cross", setting=self.setting).total
            case "forward":
                moved = elementwise_bytes(WAN21, tokens, self.setting, 1)
                seconds, memory = work_seconds(forward(WAN21, tokens), H200, moved=moved), 0
            case "encode":
                seconds = work_seconds(Operations(convolution=video_encoding(WAN21_ENCODERS, frames, *self.size)), H200)
                memory = with_workspaces(encoding_bytes(WAN21_ENCODERS, frames, *self.size))
            case _:
                seconds = work_seconds(Operations(convolution=video_decoding(WAN21_ENCODERS, frames, *self.size)), H200)
                memory = with_workspaces(decoding_bytes(WAN21_ENCODERS, *self.size))
        return seconds, memory / 1e9


def _step(size: tuple[int, int], what: str, seconds: float, memory: float | None, **setting: object) -> Row:
    return Row(kind="step", size=size, what=what, seconds=seconds, memory=memory, setting=Setting(**setting))  # type: ignore[arg-type]


ROWS = (
    _step(SMALL, "plain diffusers + peft, bf16 adapter, full", 3.72, 43.9),
    _step(SMALL, "full, float32 products, native", 3.93, 44.3, products="float32"),
    _step(SMALL, "full, float32 products, `_native_cudnn`", 4.03, 44.5, products="float32"),
    _step(SMALL, "full, layer's products", 3.71, None),
    _step(SMALL, "selective, float32 products", 3.72, 61.6, checkpointing="selective", products="float32"),
    _step(SMALL, "selective, float32 products, compiled", 2.78, 59.6, checkpointing="selective", products="float32",
          compiled=True),
    _step(SMALL, "full, float32 products, fp8 storage", 4.23, 28.3, products="float32", storage="fp8"),
    _step(SMALL, "the same, 20 blocks offloaded", 4.23, 21.0, products="float32", storage="fp8", offload_blocks=20),
    _step(LARGE, "plain diffusers + peft, bf16 adapter, full", 12.38, 57.2),
    _step(LARGE, "full, float32 products", 13.04, 58.4, products="float32"),
    _step(LARGE, "selective, float32 products", 11.51, 97.8, checkpointing="selective", products="float32"),
    _step(LARGE, "selective, float32 products, compiled", 9.33, 93.3, checkpointing="selective", products="float32",
          compiled=True),
    _step(LARGE, "auto (10 blocks kept, the rest selective), compiled", 8.91, None, checkpointing="selective",
          kept_blocks=10, compiled=True),
    Row(kind="forward", size=LARGE, what="no adapter", seconds=3.20),
    Row(kind="forward", size=LARGE, what="no adapter, compiled", seconds=2.75, setting=Setting(compiled=True)),
    Row(kind="encode", size=LARGE, what="VAE, float32", seconds=1.67, memory=15.8),
    Row(kind="decode", size=LARGE, what="VAE, float32, streaming", seconds=2.89, memory=20.9),
)  # fmt: skip


def table() -> Iterator[str]:
    """Plan beside measurement, as Markdown."""
    yield "| | size | setting | s, measured | s, plan | | GB, measured | GB, plan | |"
    yield "|---|---|---|---|---|---|---|---|---|"
    for row in ROWS:
        seconds, memory = row.planned()
        size = f"{row.size[0]}×{row.size[1]}"
        off, known = seconds / row.seconds - 1, row.memory
        line = f"| {row.kind} | {size} | {row.what} | {row.seconds:.2f} | {seconds:.2f} | {off:+.1%} | "
        yield line + (f"{known:.1f} | {memory:.1f} | {memory / known - 1:+.1%} |" if known else "– | – | |")


if __name__ == "__main__":
    sys.stdout.write("\n".join(table()) + "\n")
