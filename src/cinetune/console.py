"""How a run speaks: live bars on a terminal, plain lines elsewhere (logs, pipes, schedulers).

Names of files, clips and shots come from anybody, and a terminal obeys what is printed to it; so everything that is
said goes through `printable` here, and nowhere else.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TextIO

from cinetune.outside import printable
from cinetune.runtime import Bar, Reporter, duration, table

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

__all__ = ["Lines", "Live", "duration", "reporter", "table", "tell"]

QUIET_SECONDS = 10.0
QUIET_SHARE = 0.1
SILENT_SECONDS = 60.0


def tell(text: str, *, stream: TextIO) -> None:
    """Print lines."""
    stream.write(f"{printable(text)}\n")
    stream.flush()


class _LineBar:
    """Progress as a line every 10 seconds or every tenth of the work, whichever comes first, and at the end; and a sign
    of life after each minute without one.

    What is left is judged by the pace since the first piece was done: before it models are loaded and judged.
    """

    def __init__(self, stream: TextIO, label: str, total: int) -> None:
        self._stream, self._label, self._total = stream, label, total
        self._done, self._told, self._note = 0, 0, ""
        self._first: tuple[float, int] | None = None
        self._last = time.monotonic()
        self._lock, self._ended = threading.Lock(), threading.Event()

    def advance(self, steps: int = 1, note: str = "") -> None:
        with self._lock:
            self._done += steps
            self._note = note
            now = time.monotonic()
            before, self._first = self._first, self._first or (now, self._done)
            due = now - self._last >= QUIET_SECONDS or self._done - self._told >= QUIET_SHARE * self._total
            if not steps or (not due and self._done != self._total):
                return
            self._told = self._done
            self._write(f"{self._left(now, before)}{f'  {note}' if note else ''}", now)

    def _left(self, now: float, first: tuple[float, int] | None) -> str:
        if first is None or self._done <= first[1]:
            return ""
        left = (now - first[0]) / (self._done - first[1]) * (self._total - self._done)
        return f", about {duration(left)} left" if left > 0 else ""

    def _write(self, rest: str, now: float) -> None:
        tell(f"  {self._label} {self._done}/{self._total}{rest}", stream=self._stream)
        self._last = now

    def keep_alive(self) -> None:
        """Speaks up whenever nothing was told for a minute, until `end`."""
        while not self._ended.wait(max(0.01, self._last + SILENT_SECONDS - time.monotonic())):
            with self._lock:
                now = time.monotonic()
                if now - self._last >= SILENT_SECONDS and not self._ended.is_set():
                    self._write(f"  still at work{f': {self._note}' if self._note else ''}", now)

    def end(self) -> None:
        self._ended.set()


class Lines:
    """A `Reporter` of plain lines."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def say(self, text: str) -> None:
        tell(text, stream=self._stream)

    def warn(self, text: str) -> None:
        self.say(f"warning: {text}")

    @contextmanager
    def progress(self, label: str, total: int) -> Iterator[Bar]:
        bar = _LineBar(self._stream, label, total)
        threading.Thread(target=bar.keep_alive, daemon=True).start()
        try:
            yield bar
        finally:
            bar.end()


class _LiveBar:
    def __init__(self, progress: Progress, task: TaskID) -> None:
        self._progress, self._task = progress, task

    def advance(self, steps: int = 1, note: str = "") -> None:
        self._progress.update(self._task, advance=steps, note=printable(note))


class Live:
    """A `Reporter` with live bars. Bars may nest; all share one display, because a terminal has only one."""

    def __init__(self, stream: TextIO) -> None:
        from rich.console import Console

        self._console = Console(file=stream, markup=False, highlight=False)
        self._progress: Progress | None = None

    def say(self, text: str) -> None:
        self._console.print(printable(text))

    def warn(self, text: str) -> None:
        self._console.print(f"warning: {printable(text)}", style="yellow")

    @contextmanager
    def progress(self, label: str, total: int) -> Iterator[Bar]:
        outermost = self._progress is None
        display = self._progress or self._display()
        self._progress = display
        if outermost:
            display.start()
        task = display.add_task(printable(label), total=total, note="")
        try:
            yield _LiveBar(display, task)
        finally:
            if outermost:
                display.update(task, note="")
                display.stop()
                self._progress = None
            else:
                display.remove_task(task)

    def _display(self) -> Progress:
        from rich import progress

        text: Any = {"markup": False}
        return progress.Progress(
            progress.TextColumn("  {task.description}", **text),
            progress.BarColumn(bar_width=28),
            progress.MofNCompleteColumn(),
            progress.TimeElapsedColumn(),
            progress.TimeRemainingColumn(),
            progress.TextColumn("{task.fields[note]}", style="dim", **text),
            console=self._console,
        )


def reporter(stream: TextIO) -> Reporter:
    """Live bars if `stream` is a terminal, else plain lines."""
    return Live(stream) if stream.isatty() else Lines(stream)
