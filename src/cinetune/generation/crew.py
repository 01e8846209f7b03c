"""Worker processes on this machine: each loads the model once, has a card of its own, and ends with its parent."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import connection
from typing import Any, TypeVar

import torch

from cinetune.errors import ModelError
from cinetune.generation.executors import FAULTS, Maker, Work, lost_device
from cinetune.nursery import deaf_to_interrupts, worker_context

__all__ = ["run_apart", "run_crew"]

T = TypeVar("T")
_LEAVE = 5.0
"""Seconds a worker has to leave when there is nothing left to do."""


@dataclass(slots=True)
class _Seat:
    """A place at which one worker works: its card, its process, the line to it, and what it is making."""

    card: str | None
    process: Any
    line: Any
    number: int | None = None
    ready: bool = False
    why: str = ""


def run_crew(work: Work[Any], seats: Sequence[str | None]) -> None:
    """Make the tasks in one process for each entry of `seats`, a card or None. Raises as `Work.failing` does, and what
    opening the maker raises.
    """
    waiting = deque(range(len(work.tasks)))
    crew: list[_Seat] = []
    try:
        for card in seats:
            crew.append(_hire(work.open_maker, card))
        openings = 0
        while waiting or any(seat.number is not None for seat in crew):
            ready = connection.wait([part for seat in crew for part in (seat.line, seat.process.sentinel)])
            for place, seat in enumerate(crew):
                if seat.line not in ready and seat.process.sentinel not in ready:
                    continue
                if _heard(work, seat, waiting):
                    continue
                why = _gone(seat)
                if not seat.ready:
                    openings += 1
                    if openings > len(seats):
                        what = f"worker processes died while they loaded the model ({why})"
                        remedy = "often too little memory: lower shoot.workers and run again"
                        raise ModelError(what, where="shoot.workers", remedy=remedy)
                elif seat.number is not None and work.lost(seat.number, why):
                    waiting.appendleft(seat.number)
                crew[place] = _hire(work.open_maker, seat.card)
    finally:
        _dismiss(crew)


def _heard(work: Work[Any], seat: _Seat, waiting: deque[int]) -> bool:
    """Take in what a worker says and give it something to do; False when it is gone."""
    try:
        kind, value = seat.line.recv()
    except (EOFError, ConnectionError):
        return False
    match kind:
        case "ready":
            seat.ready = True
        case "broken":
            raise value
        case "lost":
            seat.why = f"its card is gone ({value.splitlines()[0][:120]})"
            return False
        case "made" | "failed":
            number, seat.number = seat.number, None
            assert number is not None
            (work.finished if kind == "made" else work.failing)(number, value)
    if waiting:
        seat.number = waiting.popleft()
        try:
            seat.line.send(work.tasks[seat.number])
        except (BrokenPipeError, ConnectionError):
            return False
    return True


def _gone(seat: _Seat) -> str:
    """End what is left of a worker; why it went."""
    seat.process.join(_LEAVE)
    seat.process.kill()
    seat.process.join()
    seat.line.close()
    code = seat.process.exitcode
    if seat.why:
        return seat.why
    return f"its worker process died (signal {-code})" if code < 0 else f"its worker process ended (exit {code})"


def _hire(open_maker: Callable[[], Maker], card: str | None) -> _Seat:
    context = worker_context(card)
    ours, theirs = context.Pipe()
    with deaf_to_interrupts(), _seeing(card):
        process = context.Process(target=_worker, args=(theirs, open_maker, dict(os.environ)), daemon=True)
        process.start()
    theirs.close()
    return _Seat(card, process, ours)


def _dismiss(crew: Sequence[_Seat]) -> None:
    """Idle workers leave; those that are in the middle of something are ended."""
    for seat in crew:
        if seat.number is None and seat.ready:
            seat.line.close()
        else:
            seat.process.kill()
    for seat in crew:
        seat.process.join(_LEAVE)
        seat.process.kill()
        seat.process.join()
        seat.line.close()


@contextmanager
def _seeing(card: str | None) -> Iterator[None]:
    """What is started inside the block sees one card only."""
    before = os.environ.get("CUDA_VISIBLE_DEVICES")
    if card is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = card
    try:
        yield
    finally:
        if card is not None:
            os.environ.pop("CUDA_VISIBLE_DEVICES")
            if before is not None:
                os.environ["CUDA_VISIBLE_DEVICES"] = before


def _worker(line: Any, open_maker: Callable[[], Maker], environment: dict[str, str]) -> None:
    """A worker process: open once, then make what comes until the line closes. `environment` is its parent's as it is
    now; that of the process it was forked from may be older.
    """
    os.environ.clear()
    os.environ.update(environment)
    threading.Thread(target=_die_with_parent, daemon=True).start()
    torch.set_num_threads(1)
    try:
        maker = open_maker()
    except FAULTS as error:
        line.send(("broken", _portable(error)))
        return
    line.send(("ready", None))
    while True:
        try:
            task = line.recv()
        except (EOFError, ConnectionError):
            return
        try:
            answer = ("made", maker(task))
        except FAULTS as error:
            answer = ("lost", str(error)) if lost_device(error) else ("failed", _portable(error))
        line.send(answer)
        if answer[0] == "lost":
            return


def _portable(error: Exception) -> Exception:
    """The error, or one that can be sent in its place."""
    try:
        pickle.loads(pickle.dumps(error))
    except (pickle.PickleError, TypeError, AttributeError):
        return ModelError(f"{type(error).__name__}: {error}")
    return error


def _die_with_parent() -> None:
    """A worker whose parent was killed would go on for ever, with the model in memory."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def run_apart(call: Callable[[], T]) -> T:
    """The result of one call in a process of its own, which an interruption ends. Raises what the call raises, and
    `ModelError` when the process dies.
    """
    results: list[Any] = []
    work = Work(tasks=[None], open_maker=_Once(call), done=lambda _, result: results.append(result))
    run_crew(work, [None])
    work.conclude()
    return results[0]


@dataclass(frozen=True, slots=True)
class _Once:
    call: Callable[[], Any]

    def __call__(self) -> Maker:
        return lambda _: self.call()
