"""The verbs about a project as a whole."""

from __future__ import annotations

import dataclasses
import json
import math
import shlex
from collections.abc import Sequence
from pathlib import Path
from string import ascii_lowercase
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from cinetune.cli.common import (
    HERE,
    PROJECT,
    AsJson,
    Folder,
    Settings,
    StageName,
    at,
    open_project,
    reporter_to,
    tell,
    verb,
)
from cinetune.errors import ConfigError
from cinetune.presets import Preset

if TYPE_CHECKING:
    from cinetune.store import Project


@verb(PROJECT, "cinetune new my-film --preset wan21")
def new(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="The folder to make.")],
    source: Annotated[
        Path | None,
        typer.Option("--from", metavar="TOML", help="Take over a dataset file of musubi-tuner or diffusion-pipe."),
    ] = None,
    preset: Annotated[
        Preset | None, typer.Option(help="The recipe: pocket to try things out (the default), wan21 for a film.")
    ] = None,
) -> None:
    """Make a project folder: settings, an example shot list, places for the film and for references."""
    from cinetune.new import make_project, project_name

    report = reporter_to()
    if source is not None:
        from cinetune.export_look import adopt_dataset

        adopt_dataset(folder, source, report, name=project_name(folder), preset=preset or "wan21")
    make_project(folder, report, preset=preset or "pocket")
    report.say(f"next   put clips into {folder / 'footage'}, then: cinetune plan{at(folder)}")


@verb(PROJECT, "cinetune doctor -C my-film")
def doctor(project: Folder = HERE, as_json: AsJson = False) -> None:
    """Check this machine: Python, torch, GPU, memory, disk, codecs, weights. Exit code 3 if something is missing."""
    from cinetune.console import table
    from cinetune.doctor import examine

    checks = examine(project)
    if as_json:
        tell(json.dumps([dataclasses.asdict(check) for check in checks], indent=1))
    else:
        marks = {"ok": "ok", "warn": "WARN", "fail": "FAIL"}
        tell(table([(marks[check.state], check.name, check.found.splitlines()[0]) for check in checks]))
        for check in checks:
            if check.remedy:
                tell(f"\n{check.name}: {check.found}\n  fix:   {check.remedy}")
    if any(check.state == "fail" for check in checks):
        raise typer.Exit(3)


@verb(PROJECT, "cinetune plan -C my-film --price 2.50")
def plan(
    project: Folder = HERE,
    settings: Settings = None,
    as_json: AsJson = False,
    price: Annotated[
        float | None, typer.Option(min=0, metavar="N", help="What an hour of the card costs, in any currency.")
    ] = None,
    every: Annotated[bool, typer.Option("--all", help="Also every setting with its origin.")] = False,
) -> None:
    """Dry run: which card, how long, how much; then what would happen. Downloads nothing."""
    from cinetune.console import table
    from cinetune.plan import make_plan

    if price is not None and not math.isfinite(price):
        raise ConfigError(f"--price {price} is no price", remedy="write --price 2.50")
    made = make_plan(open_project(project, settings), price=price)
    if as_json:
        tell(json.dumps(dataclasses.asdict(made), indent=1))
        return
    chosen = {key: pair for key, pair in made.settings.items() if every or pair[1] != "default"}
    cards, rates = _noted(made.cards)
    parts = {
        "Answer (calculated, not measured; reading and writing files not counted)": list(made.answer),
        "Stages": [(row.stage, row.state, row.why) for row in made.stages],
        "Estimate": list(made.facts),
        "Memory of training, GB": [(name, f"{size:.3f}") for name, size in made.memory],
        "Time on each card, with the settings as they are": cards,
        "Rates": rates,
        "What fits which card, for the same clips a step and the same segments": list(made.fits),
        "What so many shots can show (declared before any is rendered)": [(line,) for line in made.power],
        f"Settings{'' if every else ' that are not the default (--all lists every one)'}": [
            (key, json.dumps(value), origin) for key, (value, origin) in chosen.items()
        ],
    }
    tell("\n\n".join(f"{title}\n{table(rows)}" for title, rows in parts.items() if rows))
    for warning in made.warnings:
        tell(f"\nwarning: {warning}")


def _noted(rows: Sequence[tuple[str, ...]]) -> tuple[list[tuple[str, ...]], list[tuple[str, ...]]]:
    """The last column as letters, and what they stand for: it is a sentence that many rows share."""
    letters = dict(zip(dict.fromkeys(row[-1] for row in rows[1:]), ascii_lowercase, strict=False))
    body = [(*row[:-1], letters[row[-1]]) for row in rows[1:]]
    return [*rows[:1], *body], [(letter, why) for why, letter in letters.items()]


@verb(PROJECT, "cinetune run -C my-film --until prepare")
def run(
    project: Folder = HERE,
    settings: Settings = None,
    until: Annotated[StageName | None, typer.Option(help="Stop after this stage.")] = None,
    only: Annotated[StageName | None, typer.Option(help="Only this stage.")] = None,
    *,
    keep: Annotated[bool, typer.Option("--keep", help="First write the --set settings into cinetune.toml.")] = False,
    experiment: Annotated[
        Literal["ood"] | None,
        typer.Option(help="Run a whole experiment; ood: in and out of the film's world."),
    ] = None,
    quick: Annotated[bool, typer.Option("--quick", help="With --experiment: one seed.")] = False,
) -> None:
    """Run everything that is not done, in order. A second run does nothing."""
    asked = list(settings or ())
    if experiment:
        from cinetune.experiment import settings_of

        asked = settings_of(experiment, asked, quick=quick)
    if keep:
        from cinetune.config import keep_settings

        keep_settings(project / "cinetune.toml", asked)
        tell(f"wrote  {project / 'cinetune.toml'}: {', '.join(asked) or 'nothing to keep'}")
    opened = open_project(project, None if keep else asked)
    if experiment:
        _announce(opened, experiment)
    _run(opened, project, until=until, only=only)
    if experiment and only is None and until is None:
        _conclude(opened, experiment)
    if asked and not keep:
        tell("note   a run without these --set options makes the stages again that they concern. To keep them:")
        tell(f"       cinetune run{at(project)} --keep {_asked(asked)}")


def _announce(opened: Project, experiment: str) -> None:
    from cinetune.experiment import announce

    for line in announce(opened, experiment):
        tell(line)


def _conclude(opened: Project, experiment: str) -> None:
    from cinetune.experiment import concluded

    text, path = concluded(opened, experiment)
    tell(f"{text}wrote  {path}")


def _asked(settings: Sequence[str]) -> str:
    return " ".join(f"--set {shlex.quote(text)}" for text in settings)


def _run(opened: Project, folder: Path, *, until: str | None = None, only: str | None = None) -> None:
    from cinetune import pipeline
    from cinetune.plan import explain_shortage

    speaker = reporter_to()
    with explain_shortage(opened, only or ""):
        records = pipeline.run(opened, speaker, until=until, only=only)
    if not records:
        speaker.say("nothing to do: every stage is up to date")
    page = folder / "report" / "index.html"
    if page.is_file():
        speaker.say(f"open   {page}")


@verb(PROJECT, "cinetune status -C my-film")
def status(project: Folder = HERE, settings: Settings = None, as_json: AsJson = False) -> None:
    """Show which stages are done, which are stale and why."""
    from cinetune import pipeline
    from cinetune.console import duration, table

    opened = open_project(project, settings)
    rows = pipeline.status(opened)
    if as_json:
        tell(json.dumps([dataclasses.asdict(row) for row in rows], indent=1))
        return
    cells = [("stage", "state", "when (UTC)", "took", "why")]
    for row in rows:
        when = row.created_utc.removesuffix("+00:00").replace("T", " ")
        took = "" if row.wall_seconds is None else duration(row.wall_seconds)
        cells.append((row.stage, row.state, when, took, row.why))
    tell(table(cells))
    if other := pipeline.made_otherwise(opened):
        asked = _asked([f"{key}={json.dumps(value)}" for key, value in other.items()])
        tell("\nSome stages were made with settings that cinetune.toml does not have. To keep those:")
        tell(f"  cinetune run{at(project)} --keep {asked}")


@verb(PROJECT, "cinetune demo demo")
def demo(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Where to make the demo project.")],
    settings: Settings = None,
) -> None:
    """Shoot a small film on the backlot, then tell the whole story on it. Runs on two CPU cores."""
    from cinetune.demo import make_demo

    make_demo(folder, reporter_to())
    _run(open_project(folder, settings), folder)
