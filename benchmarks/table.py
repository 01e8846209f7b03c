"""Every kind of work on the CPU, ours against what a user would run instead, in one call: `make bench`.

    python benchmarks/table.py                          the table, about four minutes on one core
    python benchmarks/table.py --rows step,sample --repeats 8
    python benchmarks/table.py --scaling                also the denoiser at several sizes and lengths, and a figure
    python benchmarks/table.py --write                  also into benchmarks/results/ and docs/benchmarks.md

The model is pocket, a Wan2.1 image-to-video in miniature, of the same classes as the large one. Contestants take turns,
one call each, so that a busy machine slows all alike: what counts is the median of the ratios within a turn. Each
turn's outputs are compared with the first contestant's. Operations and kernels are those that ran, counted in the
warm-up; the peak is the resident memory of the process while the contestant runs.

stock       diffusers' WanImageToVideoPipeline, its own classes and their defaults
plain       diffusers + peft, batches in memory, nothing checked or logged; `compiled` with `compile_repeated_blocks`
PyAV        the file decoded to RGB, nothing looked for
"""

from __future__ import annotations

import argparse
import gc
import json
import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode, conv_flop_count, sdpa_flop_count

from cinetune.models import load_model, model_folder
from cinetune.models.wan.pocket import FRAMES, HEIGHT, WIDTH
from cinetune.models.wan.sample import sample
from cinetune.runtime import Device, Quiet
from cinetune.sections import ModelSection

ROOT = Path(__file__).parents[1]
CPU = Device("cpu", "float32", "benchmark")
PROMPT = "gouache film look, a rider on a hill at dusk, the camera pans left"
STEPS = 16
SCALES = ((17, 64, 96), (33, 64, 96), (49, 64, 96), (33, 96, 144), (33, 128, 192))
"""Frames, height, width of `--scaling`."""
SCALING = "at other lengths and sizes"


@dataclass(frozen=True, slots=True, kw_only=True)
class Contestant:
    """`run` does the work once and returns what it made, for comparison; None = nothing to compare."""

    who: str
    run: Callable[[], Tensor | None]


@dataclass(slots=True, kw_only=True)
class Row:
    """One contestant in one kind of work. `error` is the relative distance of its output from the first contestant's;
    `ratio` its seconds over those of the first in the same turn.
    """

    kind: str
    who: str
    model: str
    frames: int
    size: tuple[int, int]
    settings: str
    kernels: str = ""
    operations: int = 0
    warm_up: int = 1
    peak_gib: float = 0.0
    error: float | None = None
    seconds: list[float] = field(default_factory=list[float])
    ratio: list[float] = field(default_factory=list[float])


# ---------------------------------------------------------------- what is counted


class Kernels(TorchDispatchMode):
    """Counts the attention and convolution kernels that run, by name."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func._schema.name.removeprefix("aten::")
        if "attention" in name or "conv" in name:
            self.seen[name.removeprefix("_scaled_dot_product_")] += 1
        return func(*args, **(kwargs or {}))


def _convolution(x: Any, w: Any, *_: Any, out_shape: Any = None, **__: Any) -> int:
    return conv_flop_count(list(x), list(w), list(out_shape), transposed=False)


def _attention(q: Any, k: Any, v: Any, *_: Any, **__: Any) -> int:
    return sdpa_flop_count(q, k, v)


def _attention_backward(_: Any, q: Any, k: Any, v: Any, *__: Any, **___: Any) -> int:
    return sdpa_flop_count(q, k, v) * 5 // 2  # five products where the forward has two


COUNTED = {
    torch.ops.aten.mkldnn_convolution: _convolution,
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _attention,
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward: _attention_backward,
}


@contextmanager
def peak_of(row: Row) -> Iterator[None]:
    """The highest resident memory inside the block, where the system lets it be reset (Linux)."""
    status, reset = Path("/proc/self/status"), Path("/proc/self/clear_refs")
    if reset.is_file():
        reset.write_text("5")
    yield
    if status.is_file():
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        row.peak_gib = max(row.peak_gib, int(line.split()[1]) / 2**20)


def compete(rows: list[Row], contestants: list[Contestant], repeats: int) -> None:
    """Warm up and count, then take turns. One that cannot be compiled here is left out."""
    for row, one in list(zip(rows, contestants, strict=True)):
        compiled = "compiled" in one.who  # counting would look into the compiler's graphs
        if compiled:
            try:
                one.run()
            except RuntimeError as error:
                print(f"{row.kind}, {row.who}: left out, {str(error).strip().splitlines()[0][:160]}")
                rows.remove(row)
                contestants.remove(one)
        else:
            flops, kernels = FlopCounterMode(display=False, custom_mapping=COUNTED), Kernels()
            with flops, kernels:
                one.run()
            row.operations = flops.get_total_flops()
            row.kernels = ", ".join(f"{count} {name}" for name, count in kernels.seen.most_common(3))
    for _ in range(repeats):
        first: Tensor | None = None
        for number, (row, one) in enumerate(zip(rows, contestants, strict=True)):
            with peak_of(row):
                started = time.perf_counter()
                made = one.run()
                row.seconds.append(time.perf_counter() - started)
            row.ratio.append(row.seconds[-1] / rows[0].seconds[-1])
            first = made if number == 0 else first
            if made is not None and first is not None:
                row.error = float((made - first).norm() / first.norm())
    gc.collect()


# ---------------------------------------------------------------- the kinds of work


def stock_pipeline() -> Any:
    from diffusers import WanImageToVideoPipeline
    from diffusers.utils import logging

    logging.disable_progress_bar()
    pipeline = WanImageToVideoPipeline.from_pretrained(model_folder(ModelSection()), local_files_only=True)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def picture(height: int = HEIGHT, width: int = WIDTH) -> Any:
    from PIL import Image

    rough = np.random.default_rng(0).integers(0, 256, (6, 9, 3), dtype=np.uint8)
    return Image.fromarray(rough).resize((width, height), Image.Resampling.BICUBIC)


def signed(image: Any) -> Tensor:
    return torch.from_numpy(np.asarray(image).copy()).permute(2, 0, 1)[None].float() / 255 * 2 - 1


def steps_of(folder: Path) -> list[Contestant]:
    """An optimiser step on a batch of two cached windows of the demo's shapes; what is compared is the gradients."""
    from step_time import BATCH, make_windows

    from cinetune.sections import TrainSection
    from cinetune.training.ahead import look

    folder.mkdir(exist_ok=True)
    files = make_windows(folder)
    seen = look(0, files, TrainSection(batch=BATCH, accumulate=1, caption_dropout=0.0), [slice(0, BATCH)])
    batch, draws = seen.parts[0]
    return [
        Contestant(who="plain", run=plain_step(batch, draws, compiled=False)),
        Contestant(who="plain, compiled", run=plain_step(batch, draws, compiled=True)),
        Contestant(who="ours", run=our_step(files)),
    ]


def plain_step(batch: Any, draws: Any, *, compiled: bool) -> Callable[[], Tensor]:
    from diffusers import WanTransformer3DModel
    from peft import LoraConfig

    from cinetune.catalogue import TARGETS

    network: Any = WanTransformer3DModel.from_pretrained(
        model_folder(ModelSection()), subfolder="transformer", local_files_only=True, torch_dtype=torch.float32
    )
    network.requires_grad_(False)
    network.add_adapter(LoraConfig(r=8, lora_alpha=16, target_modules=TARGETS["cross"]))
    if compiled:
        network.compile_repeated_blocks(fullgraph=True)
    trained = stirred(network)
    optimiser = torch.optim.AdamW(trained, lr=0.0)
    x, cond, noise, sigma_B = batch.latents_BCfhw, batch.cond, draws.noise_BCfhw, draws.sigma_B

    def run() -> Tensor:
        mix = sigma_B.view(-1, 1, 1, 1, 1)
        predicted = network(
            hidden_states=torch.cat([(1 - mix) * x + mix * noise, cond.latent_BCfhw], dim=1), timestep=sigma_B * 1000,
            encoder_hidden_states=cond.text_BLD, encoder_hidden_states_image=cond.image_BLD, return_dict=False,
        )[0]  # fmt: skip
        torch.nn.functional.mse_loss(predicted, noise - x).backward()
        return stepped(trained, optimiser)

    return run


def our_step(files: Any) -> Callable[[], Tensor]:
    """As the training loop does it: the batch read from disk, gradients clipped, everything checked to be finite."""
    from cinetune.models.adapters.lora import add_lora
    from cinetune.sections import TrainSection
    from cinetune.training.ahead import look
    from cinetune.training.step import step_loss

    model = load_model(ModelSection(), device=CPU, parts="denoiser")
    recipe = TrainSection(batch=2, accumulate=1, caption_dropout=0.0)
    add_lora(model, rank=8, alpha=16, targets="cross", seed=0, products=recipe.products)
    trained = stirred(model.denoiser)
    optimiser = torch.optim.AdamW(trained, lr=0.0)
    empty = torch.zeros(1, 512, 64)

    def run() -> Tensor:
        batch, draws = look(0, files, recipe, [slice(0, 2)]).parts[0]
        loss_B = step_loss(model, batch, draws, empty_1LD=empty)
        (loss_B.sum() / 2).backward()
        assert bool(torch.isfinite(loss_B).all())
        return stepped(trained, optimiser)

    return run


def stirred(network: Any) -> list[Tensor]:
    """The adapter's parameters in the order of their names, made random and equal in every contestant."""
    gen = torch.Generator().manual_seed(1)
    named = sorted((name, parameter) for name, parameter in network.named_parameters() if parameter.requires_grad)
    with torch.no_grad():
        for name, parameter in named:
            parameter.copy_(torch.randn(parameter.shape, generator=gen) * (0.1 if "lora_A" in name else 0.02))
    return [parameter for _, parameter in named]


def stepped(trained: Sequence[Tensor], optimiser: Any) -> Tensor:
    found = torch.cat([one.grad.flatten() for one in trained if one.grad is not None])
    torch.nn.utils.clip_grad_norm_(trained, 1e9)
    optimiser.step()
    optimiser.zero_grad()
    return found


def forward_of(_: Path, frames: int = FRAMES, height: int = HEIGHT, width: int = WIDTH) -> list[Contestant]:
    """One pass of the denoiser, without gradients."""
    model = load_model(ModelSection(), device=CPU)
    cond = model.condition([PROMPT], signed(picture(height, width)), frames)
    x = torch.randn(1, 16, 1 + (frames - 1) // 4, height // 4, width // 4, generator=torch.Generator().manual_seed(2))
    pipeline, sigma = stock_pipeline(), torch.tensor([0.5])

    @torch.no_grad()
    def stock() -> Tensor:
        return pipeline.transformer(
            hidden_states=torch.cat([x, cond.latent_BCfhw], dim=1), timestep=sigma * 1000,
            encoder_hidden_states=cond.text_BLD, encoder_hidden_states_image=cond.image_BLD, return_dict=False,
        )[0]  # fmt: skip

    @torch.no_grad()
    def ours() -> Tensor:
        return model.velocity(x, sigma, cond)

    return [Contestant(who="stock", run=stock), Contestant(who="ours", run=ours)]


def sampling(_: Path) -> list[Contestant]:
    """A clip's latents from a picture and a prompt: encoders, condition and all steps, without guidance."""
    model = load_model(ModelSection(clip_preprocess="crop"), device=CPU)
    pipeline, image = stock_pipeline(), picture()
    shape = (1, 16, 1 + (FRAMES - 1) // 4, HEIGHT // 4, WIDTH // 4)
    noise = torch.randn(shape, generator=torch.Generator().manual_seed(3))

    def stock() -> Tensor:
        made = pipeline(
            image=image, prompt=PROMPT, height=HEIGHT, width=WIDTH, num_frames=FRAMES, num_inference_steps=STEPS,
            guidance_scale=1.0, latents=noise.clone(), output_type="latent", return_dict=False,
        )  # fmt: skip
        return made[0]

    def ours() -> Tensor:
        forget(model)
        cond = model.condition([PROMPT], signed(image), FRAMES)
        return sample(model, cond, noise, steps=STEPS, guidance=1.0, shift=pipeline.scheduler.config.flow_shift)

    return [Contestant(who="stock", run=stock), Contestant(who="ours", run=ours)]


def forget(model: Any) -> None:
    """Nothing that an earlier turn worked out is there: as for a first shot."""
    model._told.clear()


def caching(_: Path) -> list[Contestant]:
    """What the cache holds of one training window: latents, and five first frames with their conditions."""
    model = load_model(ModelSection(), device=CPU, parts="encoders")
    pipeline = stock_pipeline()
    gen = torch.Generator().manual_seed(4)
    film = torch.nn.functional.interpolate(torch.rand(1, 3, 9, 8, 12, generator=gen), (FRAMES, HEIGHT, WIDTH)) * 2 - 1
    firsts = torch.cat([film[:, :, number] for number in range(5)])

    def ours() -> Tensor:
        forget(model)
        cond = model.condition([PROMPT] * 5, firsts, FRAMES)
        return torch.cat([model.encode_video(film), cond.latent_BCfhw[:, 4:]])

    @torch.no_grad()
    def stock() -> Tensor:
        pipeline.encode_prompt(PROMPT, do_classifier_free_guidance=False)
        mean, std = statistics_of(pipeline)
        found = [(pipeline.vae.encode(film).latent_dist.mode() - mean) / std]
        for first in firsts:
            pipeline.encode_image(picture_of(first))
            _, told = pipeline.prepare_latents(first[None], 1, 16, HEIGHT, WIDTH, FRAMES, torch.float32, CPU.name)
            found.append(told[:, 4:])
        return torch.cat(found)

    return [Contestant(who="stock", run=stock), Contestant(who="ours", run=ours)]


def statistics_of(pipeline: Any) -> tuple[Tensor, Tensor]:
    """Mean and deviation of the latents."""
    config = pipeline.vae.config
    mean, std = (torch.tensor(config[name]).view(1, 16, 1, 1, 1) for name in ("latents_mean", "latents_std"))
    return mean, std


def picture_of(first_CHW: Tensor) -> Any:
    from PIL import Image

    return Image.fromarray(((first_CHW.permute(1, 2, 0) / 2 + 0.5) * 255).round().byte().numpy())


def decoding(_: Path) -> list[Contestant]:
    """Latents to pictures."""
    model, pipeline = load_model(ModelSection(), device=CPU, parts="encoders"), stock_pipeline()
    shape = (1, 16, 1 + (FRAMES - 1) // 4, HEIGHT // 4, WIDTH // 4)
    z = torch.randn(shape, generator=torch.Generator().manual_seed(5))
    mean, std = statistics_of(pipeline)

    @torch.no_grad()
    def stock() -> Tensor:
        return pipeline.vae.decode(z * std + mean, return_dict=False)[0]

    return [
        Contestant(who="stock", run=stock),
        Contestant(who="ours", run=lambda: torch.cat(list(model.decode(z)), dim=2)),
    ]


def ingesting(folder: Path) -> list[Contestant]:
    """One reel of film: probed, hashed, its cuts, bars, slates and burn-ins looked for; against decoding it."""
    import av

    from cinetune.backlot.looks import LOOKS
    from cinetune.backlot.reels import shoot_reels
    from cinetune.demo import locations, shots_at
    from cinetune.stages import ingest
    from cinetune.store import Project

    root = folder / "film"
    scenes = shots_at(locations("historical")[:1], "historical", 2)
    (reel,) = shoot_reels(root / "footage", scenes, LOOKS["gouache"], per_reel=2, letterbox=16)
    (root / "cinetune.toml").write_text('preset = "pocket"\n', encoding="utf-8")

    def ours() -> None:
        import shutil

        shutil.rmtree(root / "work", ignore_errors=True)
        ingest.run(Project(root), Quiet())

    def decode() -> None:
        with av.open(str(reel.path)) as container:
            for frame in container.decode(video=0):
                frame.to_ndarray(format="rgb24")

    return [Contestant(who="PyAV", run=decode), Contestant(who="ours", run=ours)]


def scoring(_: Path) -> list[Contestant]:
    """Every measure of one shot against its truth and the film; nobody else measures this, so there is no peer."""
    from scipy.ndimage import gaussian_filter

    from cinetune.metrics import ClipMaps
    from cinetune.metrics.networks import wrap_clip
    from cinetune.metrics.suite import ClipReading, Evidence, Semantics, cloud, measure, picked
    from cinetune.metrics.suite import signed as frames_signed
    from cinetune.models.wan import pocket

    clip, tokenizer = pocket.load_clip()
    net = wrap_clip(clip, tokenizer=tokenizer, sha256="", title="pocket")
    rough = np.random.default_rng(6).random((FRAMES + 1, HEIGHT, WIDTH, 3))
    film = gaussian_filter(rough, (2, 4, 4, 0)).astype(np.float32)
    film = (film - film.min()) / (film.max() - film.min())
    shot, truth = film[:-1], film[1:]

    words = net.text([PROMPT])
    assert words is not None

    def ours() -> None:
        seen, known = (net.frames(frames_signed(picked(frames))) for frames in (shot, truth))
        evidence = Evidence(
            shot=ClipReading(shot), truth=ClipReading(truth), cloud_N3=cloud(shot), film_N3=cloud(truth),
            net=ClipMaps(clip), drift=1.0,
            clip=Semantics(frames_TD=seen, truth_TD=known, film_ND=known, text_D=words[0]),
        )  # fmt: skip
        measure(evidence)

    return [Contestant(who="ours", run=ours)]


KINDS: dict[str, tuple[Callable[[Path], list[Contestant]], str]] = {
    "train_step": (steps_of, "batch 2, rank 8 on cross-attention, AdamW, no checkpointing"),
    "forward": (forward_of, "batch 1"),
    "sample": (sampling, f"{STEPS} steps, no guidance, encoders and condition included"),
    "cache": (caching, "one window with four re-graded first frames"),
    "decode": (decoding, "streamed against whole"),
    "ingest": (ingesting, "a reel of two shots, 128x192 with bars, H.264"),
    "score": (scoring, "every measure of one shot"),
}


# ---------------------------------------------------------------- the table


def rows_of(kind: str, repeats: int, folder: Path) -> list[Row]:
    make, settings = KINDS[kind]
    contestants = make(folder)
    rows = [
        Row(kind=kind, who=one.who, model="pocket", frames=FRAMES, size=(HEIGHT, WIDTH), settings=settings)
        for one in contestants
    ]
    compete(rows, contestants, repeats)
    return rows


def scaled(repeats: int, folder: Path) -> list[Row]:
    """The forward pass at several lengths and sizes."""
    found: list[Row] = []
    for frames, height, width in SCALES:
        contestants = forward_of(folder, frames, height, width)
        rows = [
            Row(kind="forward", who=one.who, model="pocket", frames=frames, size=(height, width), settings=SCALING)
            for one in contestants
        ]
        compete(rows, contestants, repeats)
        found += rows
    return found


def table(rows: Sequence[Row]) -> str:
    """Markdown, one line a row; `÷ first` is the median of the ratios to the first contestant of its kind."""
    lines = [
        "| work | who | frames | size | s, median (spread) | ÷ first (range) | GFLOP | peak GiB | output | kernels |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        middle = statistics.median(row.seconds)
        spread = (max(row.seconds) - min(row.seconds)) / middle
        ratio = f"**{statistics.median(row.ratio):.2f}** ({min(row.ratio):.2f}–{max(row.ratio):.2f})"
        error = "" if row.error is None else "reference" if row.error == 0 else f"{row.error:.0e} off"
        lines.append(
            f"| {row.kind} | {row.who} | {row.frames} | {row.size[0]}×{row.size[1]} | {middle:.3f} ({spread:.0%}) | "
            f"{ratio} | {row.operations / 1e9:.1f} | {row.peak_gib:.2f} | {error} | {row.kernels} |"
        )
    return "\n".join(lines)


def facts(repeats: int) -> dict[str, Any]:
    names = ("torch", "diffusers", "transformers", "peft", "av")
    return {
        "versions": {name: version(name) for name in names}, "threads": torch.get_num_threads(), "repeats": repeats,
        "dtype": "float32", "cpu": torch.backends.cpu.get_cpu_capability(),
    }  # fmt: skip


STYLE = """<style>.chart{font:12px sans-serif;background:#fff}.curve{fill:none;stroke-width:2}.tick{fill:#555}
.rule{stroke:#ddd}.look{stroke:#c2410c;fill:#c2410c}.plain{stroke:#475569;fill:#475569}polyline{fill:none!important}</style>"""


def figure(rows: Sequence[Row]) -> str:
    """Seconds of a forward pass against its tokens, ours and stock, as an SVG."""
    from cinetune.pages.charts import Curve, line_chart

    lines = []
    for who, kind in (("stock", "plain"), ("ours", "look")):
        points = sorted(
            ((1 + (row.frames - 1) // 4) * row.size[0] * row.size[1] / 64, statistics.median(row.seconds))
            for row in rows if row.who == who
        )  # fmt: skip
        if points:
            lines.append(Curve(points=tuple(points), kind=kind, label=f"{who}, s", marks=True))
    drawn = str(line_chart(lines, title="Seconds of one denoiser pass of pocket, over tokens (frames x size)"))
    head, _, rest = drawn.partition(">")
    named = head if "xmlns" in head else head.replace("<svg", '<svg xmlns="http://www.w3.org/2000/svg"', 1)
    return f"{named}>{STYLE}{rest}\n"


PAGE = """# Benchmarks

`make bench` prints the first table; this page, the figure and `benchmarks/results/cpu.json` are written by
`python benchmarks/table.py --scaling --write`. What the contestants are is said at the top of that file. One thread,
{settings}.

{rows}
"""
SCALED = """
The denoiser at other lengths and sizes:

{scaling}

![Seconds of one denoiser pass over tokens](images/benchmark-scaling.svg)
"""


def write(found: Sequence[Row], repeats: int) -> None:
    """JSON, page and figure; rows of other kinds of work that are in the JSON stay."""
    results = ROOT / "benchmarks" / "results" / "cpu.json"
    results.parent.mkdir(exist_ok=True)
    known = facts(repeats)
    kinds = {(row.kind, row.settings) for row in found}
    before = json.loads(results.read_text(encoding="utf-8"))["rows"] if results.is_file() else []
    kept = [Row(**row) for row in before if (row["kind"], row["settings"]) not in kinds]
    order = list(KINDS)
    rows = sorted([*kept, *found], key=lambda row: (row.settings == SCALING, order.index(row.kind)))
    results.write_text(json.dumps(known | {"rows": [asdict(row) for row in rows]}) + "\n", encoding="utf-8")
    wide = [row for row in rows if row.settings == SCALING]
    versions = ", ".join(f"{name} {number}" for name, number in known["versions"].items())
    settings = f"{known['cpu']}, float32, one warm-up; {versions}"
    page = PAGE.format(settings=settings, rows=table(rows[: len(rows) - len(wide)]))
    if wide:
        page += SCALED.format(scaling=table(wide))
        (ROOT / "docs" / "images" / "benchmark-scaling.svg").write_text(figure(wide), encoding="utf-8")
    (ROOT / "docs" / "benchmarks.md").write_text(page, encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", default=",".join(KINDS), help="kinds of work")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--scaling", action="store_true")
    parser.add_argument("--write", action="store_true", help="into benchmarks/results and docs")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    found: list[Row] = []
    with tempfile.TemporaryDirectory() as name:
        for kind in filter(None, asked.rows.split(",")):
            rows = rows_of(kind, asked.repeats, Path(name))
            print(table(rows) if not found else "\n".join(table(rows).splitlines()[2:]), flush=True)
            found += rows
        wide = scaled(max(3, asked.repeats // 2), Path(name)) if asked.scaling else []
    if wide:
        print("\n".join(table(wide).splitlines()[2:]))
    if asked.write:
        write([*found, *wide], asked.repeats)


if __name__ == "__main__":
    main()
