"""How much faster do several processes make one segment than one? Time relative to one, speed-up, efficiency.

    python benchmarks/shared_segment.py --ways none guidance ulysses both

The pocket model with guidance, `--frames` pictures of `--height` x `--width`, `--steps` sampler steps, by gloo on this
machine: guidance in two processes, the tokens of a pass in two, both in four; one thread each. The time is from the
picture and prompt to latents, that of the slowest process, the least of `--rounds`; latents are held against those of
one process. With fewer free cores than processes nothing can be won, and what is read is the cost of the exchange.
"""

from __future__ import annotations

import argparse
import os
import socket
import time
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from cinetune.generation import Recipe, generate, partition
from cinetune.models import load_model
from cinetune.processes import join_group, leave_group
from cinetune.sections import ModelSection, ParallelSection

WAYS = {"none": (1, {}), "guidance": (2, {"guidance": 2}), "ulysses": (2, {"ulysses": 2}),
        "both": (4, {"guidance": 2, "ulysses": 2})}  # fmt: skip
MODEL = ModelSection(family="pocket", device="cpu", dtype="float32")


def work(rank: int, way: str, port: int, options: argparse.Namespace, folder: Path) -> None:
    size, settings = WAYS[way]
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(size),
                   "LOCAL_WORLD_SIZE": str(size), "RANK": str(rank), "LOCAL_RANK": str(rank)}  # fmt: skip
    torch.set_num_threads(1)
    model = load_model(MODEL)
    part = partition(join_group(MODEL, ParallelSection()), **settings)
    stride = model.info.stride_space
    shape = (1 + (options.frames - 1) // model.info.stride_time, options.height // stride, options.width // stride)
    shared = part.spread(model, [shape])
    picture = torch.rand(options.height, options.width, 3, generator=torch.Generator().manual_seed(1))
    recipe = Recipe(
        prompt="a rider crosses the square", negative="rain", frames=options.frames, steps=options.steps,
        guidance=4.0, shift=3.0,
    )  # fmt: skip
    times, latents = [], torch.zeros(0)
    for _ in range(options.rounds):
        started = time.perf_counter()
        latents = generate(shared, picture, recipe, seed=1)
        times.append(time.perf_counter() - started)
    torch.save((min(times), latents), folder / f"{way}-{rank}.pt")
    leave_group()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ways", nargs="*", default=list(WAYS), choices=WAYS)
    parser.add_argument("--frames", type=int, default=33)
    parser.add_argument("--height", type=int, default=64)
    parser.add_argument("--width", type=int, default=96)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    print("| way | processes | seconds | relative to one | speed-up | efficiency | latents away |\n" + "|---" * 7 + "|")
    with TemporaryDirectory() as folder:
        alone, one = 0.0, torch.zeros(0)
        for way in options.ways:
            size = WAYS[way][0]
            with socket.socket() as probe:
                probe.bind(("127.0.0.1", 0))
                port = probe.getsockname()[1]
            context = get_context("spawn")
            crew = [context.Process(target=work, args=(n, way, port, options, Path(folder))) for n in range(size)]
            for process in crew:
                process.start()
            for process in crew:
                process.join()
                assert process.exitcode == 0
            made = [torch.load(Path(folder) / f"{way}-{rank}.pt") for rank in range(size)]
            seconds, latents = max(time for time, _ in made), made[0][1]
            alone, one = (alone, one) if alone else (seconds, latents)
            away = float((latents - one).norm() / one.norm())
            row = f"{seconds:.2f} | {seconds / alone:.2f}x | {alone / seconds:.2f} | {alone / seconds / size:.0%}"
            print(f"| {way} | {size} | {row} | {away:.0e} |", flush=True)


if __name__ == "__main__":
    main()
