"""How fast and in how much memory footage is ingested and prepared, beside plain decoding of the same files.

    python benchmarks/ingest_speed.py build/ingest

Shoots 40 clips of 24 s, ProRes 422 HQ, 1920x1080 at 24000/1001 fps, two panning, grainy shots each. They are kept, so
that a run that was stopped goes on and a second run starts at once; together they take about 21 GiB. Then, in one
process, all of them are decoded with PyAV, ingested, and prepared for the pocket model, from nothing each time; and in
a fresh process each, clips of 8, 24 and 96 s are ingested and prepared for their peak memory. Prints Markdown tables
and keeps them with the raw numbers beside the clips (`speed.md`, `speed.json`).

ProRes codes every picture alone, and encoding is slow. So 48 pictures are encoded for each shot, and the shot swings
through them to and fro, 4 s a turn: every picture on the way is decoded like any other.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from fractions import Fraction
from functools import wraps
from pathlib import Path
from typing import Any

import av
import numpy as np
import scenedetect
from PIL import Image

from cinetune.durable import atomic_write
from cinetune.footage.cut import cuts, slates
from cinetune.footage.read import fields, reading
from cinetune.footage.read.planes import BT709_LIMITED
from cinetune.runtime import Quiet, peak_memory_gib
from cinetune.stages import ingest, prepare
from cinetune.store import Project

RATE, WIDTH, HEIGHT = Fraction(24000, 1001), 1920, 1080
SWING = 48  # pictures of a shot that are encoded
PAN = 4  # pixels a frame
GRAIN, QUANTISER = 4.0, 4  # grain in code values of 10 bit; a second takes the 22 MB that Apple states for this format
LENGTHS = (8, 24, 96)


def _scene(random: np.random.Generator) -> list[np.ndarray]:
    """A wide still in three planes of 4:2:2, 10 bit: forms from the size of a wall down to that of a twig."""
    planes: list[np.ndarray] = []
    for across, middle, spread in ((1, 480, 260), (2, 512, 60), (2, 512, 60)):
        wide, plane = (WIDTH + PAN * SWING) // across, np.full((HEIGHT, 1), middle, np.float32)
        for rows, share in ((4, 0.6), (24, 0.3), (180, 0.1)):
            forms = random.uniform(-1, 1, (rows, rows * 2)).astype(np.float32)
            plane = plane + np.float32(spread * share) * np.asarray(Image.fromarray(forms).resize((wide, HEIGHT)))
        planes.append(plane.astype(np.int16))
    return planes


def _pictures(random: np.random.Generator) -> Iterator[av.VideoFrame]:
    """The `SWING` pictures of one shot: a pan over a still, with other grain on every picture."""
    scene = _scene(random)
    grain = random.normal(0, GRAIN, (HEIGHT + 64, WIDTH + 256)).astype(np.int16)
    for number in range(SWING):
        frame = av.VideoFrame(WIDTH, HEIGHT, "yuv422p10le")
        for plane, still in zip(frame.planes, scene, strict=True):
            rows = np.frombuffer(plane, np.int16).reshape(-1, plane.line_size // 2)[:HEIGHT, : plane.width]  # type: ignore[arg-type]
            left = number * PAN * plane.width // WIDTH
            down, right = random.integers(0, 64), random.integers(0, 256)
            noise = grain[down : down + HEIGHT, right : right + plane.width]
            np.add(still[:, left : left + plane.width], noise, out=rows)
        for name, code in BT709_LIMITED.items():
            setattr(frame, name, code)
        frame.pts, frame.time_base = number, 1 / RATE
        yield frame


def _mux(path: Path, like: av.VideoStream, packets: Iterator[bytes]) -> None:
    with atomic_write(path) as temporary, av.open(str(temporary), "w", format="mov") as out:
        stream = out.add_stream_from_template(like)
        for number, data in enumerate(packets):
            packet = av.Packet(data)
            packet.stream, packet.time_base, packet.is_keyframe = stream, 1 / RATE, True
            packet.pts = packet.dts = number
            packet.duration = 1
            out.mux(packet)


def _shoot(path: Path, number: int, frames: int) -> None:
    """Write clip `number`: two shots, the cut in the middle."""
    random = np.random.default_rng(number)
    with av.open(os.devnull, "w", format="mov") as nowhere:
        stream = nowhere.add_stream("prores_ks", rate=RATE)
        assert isinstance(stream, av.VideoStream)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv422p10le"
        # One quantiser for all slices: to search one for each takes the encoder ten times as long.
        stream.options = {"profile": "3", "vendor": "apl0", "flags": "+qscale", "global_quality": str(118 * QUANTISER)}
        stream.codec_context.thread_count = 1
        for name, code in BT709_LIMITED.items():
            setattr(stream.codec_context, name, code)
        shots = [[bytes(packet) for frame in _pictures(random) for packet in stream.encode(frame)] for _ in range(2)]
        turn = [*range(SWING), *range(SWING - 2, 0, -1)]
        _mux(path, stream, (shots[2 * k // frames][turn[k % len(turn)]] for k in range(frames)))


def _clips(folder: Path, count: int, seconds: float) -> list[Path]:
    """The first `count` clips, those that are missing made on all cores."""
    frames = round(seconds * RATE)
    files = [folder / "clips" / f"c{number:02d}_{seconds:g}s.mov" for number in range(count)]
    files[0].parent.mkdir(parents=True, exist_ok=True)
    with ProcessPoolExecutor() as pool:
        made = [pool.submit(_shoot, path, k, frames) for k, path in enumerate(files) if not path.is_file()]
        for number, one in enumerate(made):
            one.result()
            print(f"shot {number + 1} of {len(made)} clips", file=sys.stderr, flush=True)
    return files


def _stretched(folder: Path, clip: Path, seconds: float) -> Path:
    """A clip of another length: the packets of `clip` once or several times."""
    path = folder / "clips" / f"long_{seconds:g}s.mov"
    if not path.is_file():
        with av.open(str(clip)) as source:
            data = [bytes(packet) for packet in source.demux(video=0) if packet.size]
            frames = round(seconds * RATE)
            _mux(path, source.streams.video[0], (data[k % len(data)] for k in range(frames)))
    return path


def _project(folder: Path, files: list[Path]) -> Project:
    """A fresh project whose footage is `files`."""
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "footage").mkdir(parents=True)
    for path in files:
        os.link(path, folder / "footage" / path.name)
        (folder / "footage" / path.name).with_suffix(".txt").write_text(f"clip {path.stem}", encoding="utf-8")
    (folder / "cinetune.toml").write_text('preset = "pocket"\n', encoding="utf-8")
    return Project(folder)


def _decode(files: list[Path]) -> None:
    for path in files:
        with av.open(str(path)) as container:
            container.streams.video[0].thread_type = "AUTO"
            for _ in container.decode(video=0):
                pass


class Watch:
    """Adds up the wall time spent inside functions, each less what other watched functions took inside it."""

    def __init__(self) -> None:
        self.spent: defaultdict[str, float] = defaultdict(float)
        self._inner: list[float] = []

    def on(self, owner: Any, name: str, label: str, *, apart: bool = False) -> None:
        """Watch `owner.name`. `apart`: it runs beside the others, in a thread of its own."""
        function = getattr(owner, name)

        @wraps(function)
        def timed(*arguments: Any, **options: Any) -> Any:
            started = time.perf_counter()
            if not apart:
                self._inner.append(0.0)
            try:
                return function(*arguments, **options)
            finally:
                took = time.perf_counter() - started
                inner = 0.0 if apart else self._inner.pop()
                self.spent[label] += took - inner
                if not apart and self._inner:
                    self._inner[-1] += took

        setattr(owner, name, timed)


def _watched() -> Watch:
    watch = Watch()
    watch.on(ingest, "_sha", "ingest: hashing, beside decoding", apart=True)
    watch.on(reading, "_scan", "ingest: waiting for the decoder")
    watch.on(cuts.Watcher, "see", "ingest: measures")
    watch.on(scenedetect.AdaptiveDetector, "process_frame", "ingest: cut detection")
    watch.on(fields.FieldVote, "see", "ingest: fields")
    watch.on(slates.Samples, "see", "ingest: measures")
    watch.on(ingest, "usable_pieces", "ingest: shots")
    watch.on(prepare, "read_clip", "prepare: reading")
    for name in ("measure", "fingerprint", "strip", "find_copies"):
        watch.on(prepare, name, "prepare: measures")
    return watch


def _peak_of_this_program() -> float:
    """Peak memory in GiB. Linux hands what a parent took down to its children; its VmHWM begins anew."""
    status = Path("/proc/self/status")
    if not status.is_file():
        return peak_memory_gib()
    (line,) = (line for line in status.read_text().splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) / (1 << 20)


def _measure_memory(folder: Path, seconds: float, clip: Path) -> float:
    """Peak memory in GiB of a fresh process that ingests and prepares one clip of that length."""
    path = _stretched(folder, clip, seconds)
    command = [sys.executable, __file__, str(folder), "--memory-of", str(path)]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def _tables(folder: Path, files: list[Path], film: float) -> Iterator[str]:
    """Run everything; lines of Markdown as they come."""
    size = sum(path.stat().st_size for path in files)
    yield (
        f"{len(files)} clips, {film:.0f} s of film, {size / 2**30:.1f} GiB, {size / film / 1e6:.1f} MB a second; "
        f"{len(os.sched_getaffinity(0))} cores, {platform.machine()}, PyAV {av.__version__}\n"
    )
    project, watch = _project(folder / "project", files), _watched()
    steps: dict[str, Callable[[], object]] = {
        "plain decoding": lambda: _decode(files),
        "ingest": lambda: ingest.run(project, Quiet()),
        "prepare": lambda: prepare.run(project, Quiet()),
    }
    raw: dict[str, Any] = {"film_seconds": film, "wall": {}, "cpu": {}, "peak_gib": {}}
    yield "| step | wall s | processor s | times real time | peak GiB so far |\n|---|---|---|---|---|"
    for name, step in steps.items():
        wall, cpu = time.perf_counter(), time.process_time()
        step()
        raw["wall"][name], raw["cpu"][name] = time.perf_counter() - wall, time.process_time() - cpu
        raw["peak_gib"][name] = peak_memory_gib()
        yield _row(raw, name, film)
        for label, spent in watch.spent.items():
            if label.startswith(f"{name}: "):
                yield f"| {label} | {spent:.1f} | | | |"
    for key in ("wall", "cpu"):
        raw[key]["both"] = raw[key]["ingest"] + raw[key]["prepare"]
    raw["peak_gib"]["both"] = peak_memory_gib()
    yield _row(raw, "both", film).replace("| both", "| **ingest and prepare**")
    raw["parts"] = dict(watch.spent)
    yield "\n| one clip, a fresh process each | peak GiB |\n|---|---|"
    raw["peak_gib_of_length"] = {}
    for seconds in LENGTHS:
        peak = raw["peak_gib_of_length"][seconds] = _measure_memory(folder, seconds, files[0])
        yield f"| {seconds} s | {peak:.2f} |"
    (folder / "speed.json").write_text(json.dumps(raw, indent=1), encoding="utf-8")


def _row(raw: dict[str, Any], name: str, film: float) -> str:
    wall, cpu, peak = raw["wall"][name], raw["cpu"][name], raw["peak_gib"][name]
    return f"| {name} | {wall:.1f} | {cpu:.1f} | {film / wall:.2f} | {peak:.2f} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--clips", type=int, default=40)
    parser.add_argument("--seconds", type=float, default=24.0)
    parser.add_argument("--memory-of", type=Path, help="only print the peak memory that this one clip takes")
    options = parser.parse_args()
    if options.memory_of:
        project = _project(options.folder / "memory", [options.memory_of])
        for stage in (ingest, prepare):
            stage.run(project, Quiet())
        print(_peak_of_this_program())
        return
    files = _clips(options.folder, options.clips, options.seconds)
    film = float(len(files) * round(options.seconds * RATE) / RATE)
    lines: list[str] = []
    for line in _tables(options.folder, files, film):
        lines.append(line)
        print(line, flush=True)
    (options.folder / "speed.md").write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
