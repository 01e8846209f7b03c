"""How a run speaks: live bars on a terminal, plain lines elsewhere (logs, pipes, schedulers).

Names of files, clips and shots come from anybody, and a terminal obeys what is printed to it; so everything that is
said goes through `printable` here, and nowhere else.
"""

from __future__ import annotations

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


def tell(text: str, *, stream: TextIO) -> None:
    """Print lines."""
    stream.write(f"{printable(text)}\n")
    stream.flush()


class _LineBar:
    """Progress as a line every 10 seconds or every tenth of the work, whichever comes first, and at the end."""

    def __init__(self, stream: TextIO, label: str, total: int) -> None:
        self._stream, self._label, self._total = stream, label, total
        self._done, self._told, self._started = 0, 0, time.monotonic()
        self._last = self._started

    def advance(self, steps: int = 1, note: str = "") -> None:
        self._done += steps
        now = time.monotonic()
        due = now - self._last >= QUIET_SECONDS or self._done - self._told >= QUIET_SHARE * self._total
        if not due and self._done != self._total:
            return
        self._last, self._told = now, self._done
        left = (now - self._started) / max(self._done, 1) * (self._total - self._done)
        rest = f", about {duration(left)} left" if left > 0 else ""
        tell(f"  {self._label} {self._done}/{self._total}{rest}{f'  {note}' if note else ''}", stream=self._stream)


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
        yield _LineBar(self._stream, label, total)


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
