"""Our step and forward against what a user would run instead, in one call, with the outputs checked.

    python benchmarks/card.py                               a small model on the CPU: `make bench`
    python benchmarks/card.py --full --size 480x832         Wan2.1 14B with random weights on a CUDA card
    python benchmarks/card.py --full --size 720x1280 --eager --rounds 2

Each round builds every contestant anew and times it, one after the other, so that a machine that slows down slows all
of them; a row is the median over all rounds with its spread. `plain` is diffusers + peft with full checkpointing, as in
most scripts; `plain compiled` adds diffusers' `compile_repeated_blocks`. Every row names the attention that ran; the
gradient's cosine is to the first row of its kind. Rows are appended to the JSON file as they come.
"""

from __future__ import annotations

import argparse
import gc
import json
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import diffusers
import torch
from diffusers import WanTransformer3DModel
from peft import LoraConfig
from torch import Tensor

from cinetune.catalogue import TARGETS
from cinetune.cost.operations import forward, training
from cinetune.cost.shape import Denoiser, denoiser_of
from cinetune.models.adapters.lora import add_lora
from cinetune.models.memory.attention import usable_attention
from cinetune.models.memory.fit import Load, fit, prove
from cinetune.runtime import Device, Quiet, peak_memory_gib
from cinetune.sections import ModelSection, TrainSection

FULL = {
    "num_attention_heads": 40, "attention_head_dim": 128, "in_channels": 36, "out_channels": 16, "text_dim": 4096,
    "freq_dim": 256, "ffn_dim": 13824, "num_layers": 40, "image_dim": 1280, "added_kv_proj_dim": 5120,
    "rope_max_seq_len": 1024, "cross_attn_norm": True, "qk_norm": "rms_norm_across_heads",
}  # fmt: skip
SMALL = FULL | {
    "num_attention_heads": 4, "attention_head_dim": 32, "text_dim": 64, "freq_dim": 64, "ffn_dim": 384, "num_layers": 6,
    "image_dim": 64, "added_kv_proj_dim": 128,
}  # fmt: skip
RANK, ALPHA, FRAMES, WARM_UP = 8, 16, 33, 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Bench:
    """What is common to all rows of a call."""

    shape: dict[str, Any]
    size: tuple[int, int]
    device: torch.device
    dtype: torch.dtype
    repeats: int

    @property
    def where(self) -> Device:
        return Device(self.device.type, str(self.dtype).removeprefix("torch."), "benchmark")

    @property
    def grid(self) -> tuple[int, int, int]:
        return 1 + (FRAMES - 1) // 4, self.size[0] // 8, self.size[1] // 8

    @property
    def counted(self) -> Denoiser:
        return denoiser_of(self.shape, image_tokens=257, multiple=16)


@dataclass(slots=True, kw_only=True)
class Row:
    """One contestant in one kind of work, over all rounds."""

    kind: str
    who: str
    attention: str
    operations: int
    seconds: list[float] = field(default_factory=list[float])
    peak_gb: float = 0.0
    cosine: float | None = None
    note: str = ""


def build(bench: Bench) -> WanTransformer3DModel:
    """Random weights made where they live, in the types of a loaded model."""
    with torch.device("meta"):
        network = WanTransformer3DModel(**bench.shape)
    wide = set(network._keep_in_fp32_modules or [])
    gen = torch.Generator(bench.device).manual_seed(0)
    network.to_empty(device=bench.device)
    for name, parameter in network.named_parameters():
        kind = torch.float32 if wide & set(name.split(".")) else bench.dtype
        made = torch.empty(parameter.shape, device=bench.device, dtype=kind)
        if parameter.dim() > 1:
            made.normal_(std=0.02, generator=gen)
        else:
            made.fill_(0.0 if name.endswith("bias") else 1.0)
        parameter.data = made
    network.rope = type(network.rope)(bench.shape["attention_head_dim"], (1, 2, 2), bench.shape["rope_max_seq_len"])
    network.rope.to(bench.device)
    return network.eval().requires_grad_(False)


def stir(network: Any) -> list[Tensor]:
    """The adapter's parameters in the order of their names, its second factors random: with zeros A has no gradient."""
    gen = torch.Generator().manual_seed(1)
    named = sorted((name, parameter) for name, parameter in network.named_parameters() if parameter.requires_grad)
    with torch.no_grad():
        for name, parameter in named:
            factor = torch.randn(parameter.shape, generator=gen) * 0.02
            parameter.copy_(factor.to(parameter.device, parameter.dtype))
            if "lora_A" in name:
                parameter.mul_(5)
    return [parameter for _, parameter in named]


def inputs(bench: Bench) -> dict[str, Tensor]:
    gen = torch.Generator().manual_seed(2)

    def random(*sizes: int) -> Tensor:
        return torch.randn(1, *sizes, generator=gen).to(bench.device, bench.dtype)

    return {
        "hidden_states": random(36, *bench.grid), "timestep": torch.full((1,), 500.0, device=bench.device),
        "encoder_hidden_states": random(512, bench.shape["text_dim"]),
        "encoder_hidden_states_image": random(257, bench.shape["image_dim"]),
    }  # fmt: skip


def plain(bench: Bench, *, attention: str, compiled: bool, trains: bool) -> tuple[Any, str]:
    """diffusers + peft as most scripts have it."""
    network: Any = build(bench)
    network.set_attention_backend(attention)
    if trains:
        network.add_adapter(LoraConfig(r=RANK, lora_alpha=ALPHA, target_modules=TARGETS["cross"]))
        network.enable_gradient_checkpointing()
    if compiled:
        network.compile_repeated_blocks(fullgraph=True)
    return network, attention


def ours(bench: Bench, *, trains: bool, **settings: Any) -> tuple[Any, str]:
    """As `cinetune train` sets a model up, attention timed and compiled blocks proved."""
    network: Any = build(bench)
    model: Any = SimpleNamespace(denoiser=network, info=SimpleNamespace(targets=TARGETS, name="benchmark"))
    recipe = TrainSection(rank=RANK, alpha=ALPHA, targets="cross", **settings)
    load = Load(shape=(1, 36, *bench.grid), image_tokens=257)
    if trains:
        add_lora(model, rank=RANK, alpha=ALPHA, targets="cross", seed=0, products=recipe.products)
    fitted = fit(model, ModelSection(), recipe, bench.where, Quiet(), load=load)
    if recipe.compile:
        prove(network, load)
    first = f", first {fitted.kept} blocks kept" if fitted.kept else ""
    return network, f"{fitted.attention.name}; {fitted.rest}{first}"


def contestants(bench: Bench, kind: str) -> Iterator[tuple[str, Callable[[], tuple[Any, str]]]]:
    """Who takes part in a kind of work, the reference first."""
    trains = kind == "step"
    usable = usable_attention(bench.where)
    kernels = [name for name in ("native", "_native_cudnn", "_native_flash", "flash") if name in usable]
    for name in kernels:
        yield f"plain, {name}", lambda name=name: plain(bench, attention=name, compiled=False, trains=trains)
    yield "plain, compiled", lambda: plain(bench, attention="native", compiled=True, trains=trains)
    modes = ("full", "selective", "auto") if trains else ("none",)
    for mode in modes:
        yield f"ours, {mode}", lambda mode=mode: ours(bench, trains=trains, checkpointing=mode)
        yield f"ours, {mode}, compiled", lambda mode=mode: ours(bench, trains=trains, checkpointing=mode, compile=True)


def wait(bench: Bench) -> None:
    if bench.device.type == "cuda":
        torch.cuda.synchronize()


def measure(bench: Bench, kind: str, network: Any, row: Row) -> Tensor:
    """Time one contestant; returns what it computed, as one vector."""
    given = inputs(bench)
    trained = stir(network) if kind == "step" else []
    optimiser = torch.optim.AdamW(trained, lr=0.0) if trained else None
    found = torch.zeros(0)
    if bench.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    for number in range(WARM_UP + bench.repeats):
        wait(bench)
        started = time.perf_counter()
        if optimiser is None:
            with torch.no_grad():
                found = network(**given, return_dict=False)[0]
        else:
            network(**given, return_dict=False)[0].float().square().mean().backward()
            if number == 0:
                found = torch.cat([one.grad.flatten().float() for one in trained if one.grad is not None])
            torch.nn.utils.clip_grad_norm_(trained, 1.0)
            optimiser.step()
            optimiser.zero_grad()
        wait(bench)
        if number >= WARM_UP:
            row.seconds.append(time.perf_counter() - started)
    peak = torch.cuda.max_memory_allocated() / 1e9 if bench.device.type == "cuda" else peak_memory_gib() * 1.0737
    row.peak_gb = max(row.peak_gb, peak)
    return found.float().flatten().cpu()


def run(bench: Bench, kinds: Sequence[str], rounds: int, out: Path | None, *, only: str, eager: bool) -> list[Row]:
    shape, tokens = bench.counted, bench.counted.tokens(FRAMES, *bench.size)
    step = training(shape, tokens, rank=RANK, targets="cross", checkpointing="none").total
    operations = {"step": step, "forward": forward(shape, tokens).total}
    rows: dict[tuple[str, str], Row] = {}
    reference: dict[str, Tensor] = {}
    for _ in range(rounds):
        for kind in kinds:
            for who, make in contestants(bench, kind):
                if only not in who or (eager and "compiled" in who):
                    continue
                row = rows.setdefault((kind, who), Row(kind=kind, who=who, attention="", operations=operations[kind]))
                network = None
                try:
                    network, row.attention = make()
                    found = measure(bench, kind, network, row)
                    true = reference.setdefault(kind, found)
                    row.cosine = float(torch.nn.functional.cosine_similarity(found.double(), true.double(), dim=0))
                except torch.OutOfMemoryError:
                    row.note = "out of memory"
                del network
                torch._dynamo.reset()
                gc.collect()
                if bench.device.type == "cuda":
                    torch.cuda.empty_cache()
                if out is not None:
                    facts = {"size": bench.size, "frames": FRAMES, "shape": bench.shape, "device": name_of(bench),
                             "dtype": str(bench.dtype), "torch": torch.__version__, "warm_up": WARM_UP,
                             "diffusers": diffusers.__version__}  # fmt: skip
                    out.write_text(json.dumps(facts | {"rows": [asdict(one) for one in rows.values()]}, indent=1))
    return list(rows.values())


def name_of(bench: Bench) -> str:
    return torch.cuda.get_device_name() if bench.device.type == "cuda" else f"CPU, {torch.get_num_threads()} threads"


def table(rows: Sequence[Row]) -> Iterator[str]:
    """Markdown; `x plain` is how many times faster than the first row of its kind."""
    yield "| | who | attention | s, median | spread | x plain | TFLOP/s | peak GB | cosine |"
    yield "|---|---|---|---|---|---|---|---|---|"
    first: dict[str, float] = {}
    for row in rows:
        if not row.seconds:
            yield f"| {row.kind} | {row.who} | {row.attention} | {row.note} | | | | | |"
            continue
        middle = statistics.median(row.seconds)
        base = first.setdefault(row.kind, middle)
        spread = (max(row.seconds) - min(row.seconds)) / middle
        yield (f"| {row.kind} | {row.who} | {row.attention} | {middle:.3f} | {spread:.0%} | {base / middle:.2f} | "
               f"{row.operations / middle / 1e12:.3f} | {row.peak_gb:.1f} | {row.cosine:.5f} |")  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--full", action="store_true", help="Wan2.1 14B's size on a CUDA card")
    parser.add_argument("--size", default="", help="rows x columns of the picture")
    parser.add_argument("--kinds", default="step,forward")
    parser.add_argument("--only", default="", help="contestants whose name holds this")
    parser.add_argument("--eager", action="store_true", help="leave compiled contestants out")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--out", type=Path, help="JSON, written after every row")
    asked = parser.parse_args()
    device, dtype = ("cuda", torch.bfloat16) if asked.full else ("cpu", torch.float32)
    size = tuple(int(side) for side in (asked.size or ("480x832" if asked.full else "64x96")).split("x"))
    bench = Bench(shape=FULL if asked.full else SMALL, size=(size[0], size[1]), device=torch.device(device),
                  dtype=dtype, repeats=asked.repeats)  # fmt: skip
    print(
        "\n".join(
            table(run(bench, asked.kinds.split(","), asked.rounds, asked.out, only=asked.only, eager=asked.eager))
        )
    )


if __name__ == "__main__":
    main()
