"""What the verbs share: the application, the common options, how a stage is run and what is said of it."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from cinetune import __version__

if TYPE_CHECKING:
    from cinetune.runtime import Reporter
    from cinetune.store import Project, StageRecord

__all__ = [
    "DOCS",
    "HERE",
    "PROJECT",
    "SHARE",
    "STORY",
    "Again",
    "AsJson",
    "Folder",
    "Settings",
    "StageName",
    "agreed",
    "app",
    "at",
    "go_online",
    "open_project",
    "reporter_to",
    "run_stage",
    "tell",
    "verb",
]

StageName = Literal["ingest", "prepare", "cache", "train", "keyframes", "expand", "deliver", "score", "report"]
"""As `cinetune.pipeline` has them, which is too heavy to import for a help text."""
STORY, PROJECT, SHARE = "The story, in order", "The project", "Models"

app = typer.Typer(
    help="Teach an open video generator the look of your film, shoot new shots in it, and prove whether it worked.",
    epilog="Add --debug to any command to see where an unexpected error came from.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

DOCS = "https://github.com/cinetune/cinetune/blob/main/docs/stages"


def verb(panel: str, example: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Makes a function a verb of that name, its help ending in an example and the address of its page."""

    def put(function: Callable[..., None]) -> Callable[..., None]:
        end = f"Example: {example}\n\nDocs: {DOCS}/{function.__name__}.md"
        return app.command(rich_help_panel=panel, epilog=end)(function)

    return put


Folder = Annotated[Path, typer.Option("--project", "-C", metavar="DIR", help="The project folder.")]
Settings = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Override a setting, e.g. train.lr=1e-4. Repeatable."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON and nothing else.")]
Again = Annotated[bool, typer.Option("--again", help="Run it even though nothing changed.")]
HERE = Path()
_OFFLINE = os.environ.get("HF_HUB_OFFLINE")
"""What the user said, before the command line sets it for its own process."""


def _version(asked: bool) -> None:
    if asked:
        tell(f"cinetune {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Say the version, and no more.")
    ] = False,
) -> None:
    """Options before the verb."""


def tell(text: str, *, to_stderr: bool = False) -> None:
    """Print lines, harmless to a terminal. Nothing else in these verbs prints."""
    from cinetune import console

    console.tell(text, stream=sys.stderr if to_stderr else sys.stdout)


def go_online() -> None:
    """Lift the offline mode every other verb works in, unless the user asked for it. Call it before the hub's library
    is imported, which looks only once.
    """
    if _OFFLINE is None:
        os.environ["HF_HUB_OFFLINE"] = "0"


def agreed(question: str, *, yes: bool) -> None:
    """Go on only when the person says so. Raises `ConfigError` where nobody can be asked, `typer.Abort` on a no."""
    from cinetune.errors import ConfigError

    if yes:
        return
    if not sys.stdin.isatty():
        raise ConfigError(f"{question} Nobody is there to answer", remedy="say so with --yes")
    typer.confirm(question, abort=True)


def open_project(folder: Path, settings: list[str] | None, *, force: bool = False) -> Project:
    """The project in a folder, with the settings of the command line over its file's."""
    from cinetune.store import Project

    return Project(folder, overrides=tuple(settings or ()), force=force)


def reporter_to(*, to_stderr: bool = False) -> Reporter:
    """Who speaks to the user: stderr where stdout carries JSON. Of several processes only the leading one does."""
    from cinetune.console import reporter
    from cinetune.processes import launched
    from cinetune.runtime import Quiet

    if not launched().main:
        return Quiet()
    return reporter(sys.stderr if to_stderr else sys.stdout)


def run_stage(
    name: str, folder: Path, settings: list[str] | None, *, again: bool, as_json: bool = False, force: bool = False
) -> None:
    """Run one stage if it is not done, and say what it read and wrote."""
    from cinetune import pipeline
    from cinetune.plan import explain_shortage

    project = open_project(folder, settings, force=force)
    report = reporter_to(to_stderr=as_json)
    stage = pipeline.stage_named(name)
    with explain_shortage(project, name):
        records = pipeline.run(project, report, only=name, again=again)
    if not records:
        report.say(f"{name} is up to date; --again runs it anyway")
    for record in records:
        _say_record(record, stage.reads, report)
    after = pipeline.STAGES[pipeline.STAGES.index(stage) + 1 :]
    if after:
        report.say(
            f"next   cinetune {after[0].name}{at(folder)}   (or `cinetune run{at(folder)}` for all that is left)"
        )


def at(folder: Path) -> str:
    return "" if folder == HERE else f" -C {shlex.quote(str(folder))}"


_CALLED = {"copies": "looks for copies of the film"}
"""Groups of records whose names alone would mislead."""


def _say_record(record: StageRecord, parents: tuple[str, ...], report: Reporter) -> None:
    from cinetune.console import duration

    counts = ", ".join(f"{len(items)} {_CALLED.get(name, name)}" for name, items in record.groups.items() if items)
    report.say(f"read   {', '.join(parents) or 'the project folder'}")
    report.say(f"wrote  {counts or 'report/index.html'}   in {duration(record.provenance.wall_seconds)}")
    for note in record.notes:
        report.say(f"       {note}")
