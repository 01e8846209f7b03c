"""Where and how a run happens: device and dtype with the reason for the choice, named random seeds, provenance, and
progress.

Torch is imported inside the functions that need it, so that the command line starts without it.
"""

from __future__ import annotations

import hashlib
import multiprocessing
import platform
import shutil
import subprocess
import sys
import textwrap
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from importlib import metadata
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from cinetune import __version__
from cinetune.artifacts import Provenance
from cinetune.errors import ConfigError
from cinetune.outside import printable

if TYPE_CHECKING:
    import torch

__all__ = [
    "Bar",
    "Device",
    "Quiet",
    "Relay",
    "Reporter",
    "choose_device",
    "derive",
    "duration",
    "generator",
    "package_versions",
    "peak_memory_gib",
    "provenance",
    "relay",
    "table",
]

_NARROWEST, _LONGEST_WORD = 8, 40  # characters: a table's column, and a word that is not broken without need
_PACKAGES = ("cinetune", "torch", "diffusers", "transformers", "peft", "av", "numpy", "scipy")


class Bar(Protocol):
    """A running progress display."""

    def advance(self, steps: int = 1, note: str = "") -> None: ...


class Reporter(Protocol):
    """How stages speak to a person: lines, warnings, and progress over long work."""

    def say(self, text: str) -> None: ...
    def warn(self, text: str) -> None: ...
    @contextmanager
    def progress(self, label: str, total: int) -> Iterator[Bar]: ...


class Quiet:
    """A `Reporter` that keeps what was said in lists instead of showing it (libraries, tests)."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.warnings: list[str] = []

    def say(self, text: str) -> None:
        self.lines.append(text)

    def warn(self, text: str) -> None:
        self.warnings.append(text)

    @contextmanager
    def progress(self, label: str, total: int) -> Iterator[Bar]:
        yield self

    def advance(self, steps: int = 1, note: str = "") -> None:
        pass


class Relay:
    """A `Reporter` for worker processes: it can be pickled, and what is said to it is said where `relay` was called."""

    def __init__(self, connection: Any, lock: Any, label: str = "") -> None:
        self._connection, self._lock, self._label = connection, lock, label

    def say(self, text: str) -> None:
        self._send("say", text)

    def warn(self, text: str) -> None:
        self._send("warn", text)

    @contextmanager
    def progress(self, label: str, total: int) -> Iterator[Bar]:
        yield Relay(self._connection, self._lock, label)

    def advance(self, steps: int = 1, note: str = "") -> None:
        self._send("advance", steps, f"{self._label}: {note}" if note else self._label)

    def _send(self, *message: Any) -> None:
        with self._lock:
            self._connection.send(message)


@contextmanager
def relay(report: Reporter, label: str, total: int) -> Iterator[Relay]:
    """A `Relay` to `report` for the length of the `with` block; the work of all processes is one bar of `total`."""
    spawn = multiprocessing.get_context("spawn")
    reader, writer = spawn.Pipe(duplex=False)
    ended = threading.Event()

    def listen(bar: Bar) -> None:
        speak = {"say": report.say, "warn": report.warn, "advance": bar.advance}
        while reader.poll(0.1) or not ended.is_set():
            while reader.poll():
                kind, *values = reader.recv()
                speak[kind](*values)

    with report.progress(label, total) as bar:
        listener = threading.Thread(target=listen, args=(bar,), daemon=True)
        listener.start()
        try:
            yield Relay(writer, spawn.Lock())
        finally:
            ended.set()
            listener.join()


@dataclass(frozen=True, slots=True)
class Device:
    """The chosen torch device and floating type by name (`cuda:0`, `bfloat16`), and why."""

    name: str
    dtype: str
    reason: str


def choose_device(device: str = "auto", dtype: str = "auto") -> Device:
    """Pick CUDA, then Apple MPS, then CPU; bfloat16 where the hardware has it natively, float32 on CPU.

    Raises `ConfigError` when a device is asked for by name and is not there.
    """
    import torch

    mps = torch.backends.mps.is_available()
    if device == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if mps else "cpu"
        reason = {"cuda": "a CUDA device is visible", "mps": "an Apple GPU is visible"}.get(name, "no GPU is visible")
    else:
        name, reason = device, "asked for in cinetune.toml"
        kind, _, index = name.partition(":")
        count = {"cuda": torch.cuda.device_count(), "mps": int(mps), "cpu": 1}.get(kind, 0)
        if not (index or "0").isdecimal() or int(index or 0) >= count:
            remedy = 'set model.device = "auto", or install a build of torch that sees the device'
            raise ConfigError(f"model.device is {device!r}, which torch does not see here", remedy=remedy)
    if dtype == "auto":
        dtype = "bfloat16" if name.startswith("cuda") and torch.cuda.is_bf16_supported() else "float32"
    return Device(name, dtype, reason)


def derive(seed: int, *names: str | int) -> int:
    """A 63-bit seed for one named purpose: `derive(0, "train/noise", 17)` never depends on what ran before it."""
    text = "/".join([str(seed), *map(str, names)])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def generator(seed: int, *names: str | int) -> torch.Generator:
    """A CPU `torch.Generator` seeded by `derive`: the same noise on every device."""
    import torch

    return torch.Generator().manual_seed(derive(seed, *names))


def duration(seconds: float) -> str:
    """`42 s`, `3 min 5 s`, `2 h 10 min`."""
    if seconds < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def table(rows: Sequence[tuple[str, ...]], *, indent: str = "  ", width: int | None = None) -> str:
    """Left-aligned columns, the last one ragged. Cells are broken so that no line is longer than `width`; None takes
    the terminal's, and 0, or no terminal, breaks nothing. A line break in a cell makes no row of its own."""
    rows = [tuple(printable(cell).replace("\n", "\\n") for cell in row) for row in rows]
    if not rows:
        return ""
    if width is None:
        width = shutil.get_terminal_size(fallback=(0, 0)).columns
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    if width:
        widths = _narrowed(rows, widths, width - len(indent) - 2 * (len(widths) - 1))
    lines: list[str] = []
    for row in rows:
        cells = [_broken(cell, size) for cell, size in zip(row, widths, strict=True)]
        for parts in zip_longest(*cells, fillvalue=""):
            line = "  ".join(part.ljust(size) for part, size in zip(parts, widths, strict=True))
            lines.append((indent + line).rstrip())
    return "\n".join(lines)


def _narrowed(rows: Sequence[tuple[str, ...]], widths: Sequence[int], room: int) -> list[int]:
    """The widest columns made narrower until all fit `room`, as long as that can be done between words."""
    columns = range(len(widths))
    words = [max((len(word) for row in rows for word in row[column].split()), default=0) for column in columns]
    widths, least = list(widths), [min(size, _LONGEST_WORD) for size in words]
    while sum(widths) > room:
        loose = [column for column in columns if widths[column] > least[column]]
        if loose:
            widths[max(loose, key=lambda column: widths[column])] -= 1
        elif max(least) > _NARROWEST:
            least = [min(size, max(_NARROWEST, max(least) - 1)) for size in least]
        else:
            break
    return widths


def _broken(cell: str, width: int) -> list[str]:
    return [cell] if len(cell) <= width else textwrap.wrap(cell, width, break_on_hyphens=False)


def peak_memory_gib() -> float:
    """Peak resident memory of this process so far, in GiB."""
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1 << 30 if sys.platform == "darwin" else 1 << 20)


@cache
def _git(*arguments: str) -> str | None:
    """Output of git about cinetune's own source tree; None when it is installed from a wheel."""
    root = Path(__file__).resolve().parents[2]
    if not (root / ".git").exists():
        return None
    try:
        done = subprocess.run(["git", *arguments], cwd=root, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def package_versions(names: Iterable[str]) -> dict[str, str]:
    """The installed version of each package; `unknown` where it runs without the metadata that an installer writes."""
    found: dict[str, str] = {}
    for name in names:
        try:
            found[name] = __version__ if name == "cinetune" else metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "unknown"
    return found


@cache
def _versions() -> dict[str, str]:
    return package_versions(_PACKAGES) | {"python": platform.python_version()}


def provenance(
    *, seed: int | None, config_sha: str, parents: tuple[str, ...], device: str, wall_seconds: float
) -> Provenance:
    """Who made an artifact: version, commit, packages, device, seed, parents, time."""
    status = _git("status", "--porcelain")
    return Provenance(
        tool=f"cinetune {_versions()['cinetune']}",
        commit=_git("rev-parse", "HEAD"),
        dirty=None if status is None else bool(status),
        packages=dict(_versions()),
        device=device,
        seed=seed,
        config_sha=config_sha,
        parents=parents,
        created_utc=datetime.now(UTC).isoformat(timespec="seconds"),
        wall_seconds=round(wall_seconds, 3),
    )
