"""The command line: each verb parses its options, calls one stage, and prints what was read and written, and what is
next."""

from __future__ import annotations

import io
import os
import sys
import traceback
from pathlib import Path
from typing import Any

import typer

from cinetune.cli import making, project, sharing
from cinetune.cli.common import app, tell
from cinetune.errors import CinetuneError, ClusterError, ran_out
from cinetune.processes import launched, leave_group

__all__ = ["app", "main"]

INTERRUPTED = 130
HUNG_UP = 141
VERBS = (making, project, sharing)
"""Importing them is what puts the verbs into the help, in this order."""


def _quiet_environment() -> None:
    """Before anything heavy is imported: work offline, keep other libraries' chatter off, use the cores we may use."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    for name, value in {
        "HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "TRANSFORMERS_VERBOSITY": "error", "DIFFUSERS_VERBOSITY": "error", "TOKENIZERS_PARALLELISM": "false",
        "TQDM_DISABLE": "1", "OMP_NUM_THREADS": str(cores),
    }.items():  # fmt: skip
        os.environ.setdefault(name, value)


def _say_error(error: BaseException, *, debug: bool) -> int:
    """Explain an error on stderr; the exit code."""
    if debug:
        traceback.print_exception(error)
    known = error if isinstance(error, CinetuneError) else ran_out(error)
    if known is not None:
        tell(f"error{_who()}: {known}", to_stderr=True)
        return known.exit_code
    last = traceback.extract_tb(error.__traceback__)[-1]
    tell(f"unexpected {type(error).__name__}: {error}", to_stderr=True)
    tell(f"  where: {Path(last.filename).name}:{last.lineno}, in {last.name}", to_stderr=True)
    tell("  This is a bug in cinetune. The same command with --debug shows the whole way there.", to_stderr=True)
    return 1


def _who() -> str:
    """Which process of several speaks."""
    try:
        here = launched()
    except ClusterError:  # what the launcher says is the error
        return ""
    return f" in process {here.rank} of {here.size}" if here.size > 1 else ""


def _ready_output() -> None:
    """Letters that the output cannot take are spelled out: a name must not end a run on an old terminal."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _hung_up() -> bool:
    """Whether nobody reads our output any more (`cinetune plan | head -1`); then it goes nowhere from now on."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return True
    return False


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; the exit code: 0 ok, 1 a bug, 2 user, 3 environment, 4 gate failed, 130 interrupted,
    141 when what reads the output went away.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in words
    _quiet_environment()
    _ready_output()
    try:
        result: Any = app([word for word in words if word != "--debug"], prog_name="cinetune", standalone_mode=False)
        code = result if isinstance(result, int) else 0
        leave_group()
        code = HUNG_UP if _hung_up() else code
    except (KeyboardInterrupt, typer.Abort):
        code = INTERRUPTED
    except SystemExit as error:  # how typer ends when what reads the output went away
        if not isinstance(error.__context__, BrokenPipeError):
            raise
        code = HUNG_UP
    except Exception as error:
        show, exit_code = getattr(error, "show", None), getattr(error, "exit_code", None)
        if callable(show) and isinstance(exit_code, int):  # typer's own: a wrong option or verb
            show()
            return exit_code
        return _say_error(error, debug=debug)
    if code == INTERRUPTED:
        tell("\nstopped; the same command continues, and so does `cinetune run`", to_stderr=True)
    return code
