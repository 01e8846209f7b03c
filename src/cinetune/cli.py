"""The command line: each verb parses its options, calls one stage, and prints what was read and written, and what is
next."""

from __future__ import annotations

import dataclasses
import json
import os
import sys
import traceback
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cinetune.errors import CinetuneError, ran_out

if TYPE_CHECKING:
    from cinetune.runtime import Reporter
    from cinetune.store import Project, StageRecord

__all__ = ["app", "main"]

STORY, PROJECT, SHARE = "The story, in order", "The project", "Models"
NEW_FILES = {
    "cinetune.toml": "new_project.toml",
    "shots.toml": "new_shots.toml",
    "footage/README.txt": "new_footage.txt",
}
INTERRUPTED = 130

app = typer.Typer(
    help="Teach an open video generator the look of your film, shoot new shots in it, and prove whether it worked.",
    epilog="Add --debug to any command to see where an unexpected error came from.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

Folder = Annotated[Path, typer.Option("--project", "-C", metavar="DIR", help="The project folder.")]
Settings = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Override a setting, e.g. train.lr=1e-4. Repeatable."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON and nothing else.")]
Again = Annotated[bool, typer.Option("--again", help="Run it even though nothing changed.")]
HERE = Path()


def _version(asked: bool) -> None:
    if asked:
        from importlib import metadata

        print(f"cinetune {metadata.version('cinetune')}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Say the version, and no more.")
    ] = False,
) -> None:
    """Options before the verb."""


def _open(folder: Path, settings: list[str] | None) -> Project:
    from cinetune.store import Project

    return Project(folder, overrides=tuple(settings or ()))


def _reporter(*, to_stderr: bool = False) -> Reporter:
    from cinetune.console import reporter

    return reporter(sys.stderr if to_stderr else sys.stdout)


def _stage(name: str, folder: Path, settings: list[str] | None, *, again: bool, as_json: bool = False) -> None:
    """Run one stage if it is not done, and say what it read and wrote."""
    from cinetune import pipeline

    project = _open(folder, settings)
    report = _reporter(to_stderr=as_json)
    stage = pipeline.stage_named(name)
    records = pipeline.run(project, report, only=name, again=again)
    if not records:
        report.say(f"{name} is up to date; --again runs it anyway")
    for record in records:
        _say_record(record, stage.PARENTS, report)
    after = pipeline.STAGES[pipeline.STAGES.index(stage) + 1 :]
    if after:
        report.say(
            f"next   cinetune {after[0].NAME}{_at(folder)}   (or `cinetune run{_at(folder)}` for all that is left)"
        )


def _at(folder: Path) -> str:
    return "" if folder == HERE else f" -C {folder}"


def _say_record(record: StageRecord, parents: tuple[str, ...], report: Reporter) -> None:
    from cinetune.console import duration

    counts = ", ".join(f"{len(items)} {name}" for name, items in record.groups.items())
    report.say(f"read   {', '.join(parents) or 'the project folder'}")
    report.say(f"wrote  {counts or 'report/index.html'}   in {duration(record.provenance.wall_seconds)}")
    for note in record.notes:
        report.say(f"       {note}")


# ------------------------------------------------------------------------------------------------ the story


@app.command(rich_help_panel=STORY)
def ingest(
    project: Folder = HERE,
    settings: Settings = None,
    again: Again = False,
    explain: Annotated[str, typer.Option(metavar="CLIP", help="Show how one clip was cut, as a page.")] = "",
) -> None:
    """Look at every film file: what it is, where its shots are, or why it cannot be used."""
    if explain:
        from cinetune.footage.explain import write_explanation

        return print(f"open   {write_explanation(_open(project, settings), explain)}")
    _stage("ingest", project, settings, again=again)


@app.command(rich_help_panel=STORY)
def caption(
    project: Folder = HERE,
    settings: Settings = None,
    review: Annotated[bool, typer.Option("--review", help="Write the page to read and edit them on.")] = False,
) -> None:
    """Optional: let a vision-language model caption the shots that nobody captioned."""
    from cinetune.report.review import write_review
    from cinetune.stages import caption as stage

    (write_review if review else stage.run)(_open(project, settings), _reporter())


@app.command(rich_help_panel=STORY)
def prepare(project: Folder = HERE, settings: Settings = None, again: Again = False) -> None:
    """Choose the windows to train on, with captions, and keep whole scenes out for validation."""
    _stage("prepare", project, settings, again=again)


@app.command(rich_help_panel=STORY)
def cache(project: Folder = HERE, settings: Settings = None, again: Again = False) -> None:
    """Encode every window once: latents, first-frame conditions, text."""
    _stage("cache", project, settings, again=again)


@app.command(rich_help_panel=STORY)
def train(project: Folder = HERE, settings: Settings = None, again: Again = False) -> None:
    """Learn the look: a LoRA with held-out validation and early stopping. Continues after an interruption."""
    _stage("train", project, settings, again=again)


@app.command(rich_help_panel=STORY)
def keyframes(project: Folder = HERE, settings: Settings = None, again: Again = False) -> None:
    """Make the first picture of every planned shot, with and without the look."""
    _stage("keyframes", project, settings, again=again)


@app.command(rich_help_panel=STORY)
def expand(project: Folder = HERE, settings: Settings = None, again: Again = False) -> None:
    """Turn each keyframe into a moving shot, segment by segment."""
    _stage("expand", project, settings, again=again)


@app.command(rich_help_panel=STORY)
def deliver(project: Folder = HERE, settings: Settings = None, again: Again = False) -> None:
    """Write review movies, masters and a timeline for the edit."""
    _stage("deliver", project, settings, again=again)


@app.command(rich_help_panel=STORY)
def score(project: Folder = HERE, settings: Settings = None, again: Again = False, as_json: AsJson = False) -> None:
    """Measure whether the look arm is closer to the film than the base arm, shot by shot."""
    _stage("score", project, settings, again=again, as_json=as_json)
    if as_json:
        from cinetune.records import to_json

        cards = _open(project, settings).store.need_stage("score").groups["scorecards"]
        print("[" + ",\n".join(to_json(card) for card in cards) + "]")


@app.command(rich_help_panel=STORY)
def report(project: Folder = HERE, settings: Settings = None, again: Again = False) -> None:
    """Write report/index.html: one page a producer can read."""
    _stage("report", project, settings, again=again)
    print(f"open   {project / 'report' / 'index.html'}")


# ------------------------------------------------------------------------------------------------ the project


@app.command(rich_help_panel=PROJECT)
def new(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="The folder to make.")],
    source: Annotated[
        Path | None,
        typer.Option("--from", metavar="TOML", help="Take over a dataset file of musubi-tuner or diffusion-pipe."),
    ] = None,
) -> None:
    """Make a project folder: settings, an example shot list, a place for the film. Overwrites nothing."""
    from cinetune.store import atomic_write

    if source is not None:
        from cinetune.handover import adopt_dataset

        adopt_dataset(folder, source, _reporter())
    for name, template in NEW_FILES.items():
        path = folder / name
        if path.exists():
            print(f"kept   {path}")
            continue
        text = resources.files("cinetune.presets").joinpath(template).read_text(encoding="utf-8")
        with atomic_write(path) as temporary:
            temporary.write_text(text, encoding="utf-8")
        print(f"wrote  {path}")
    print(f"next   put clips into {folder / 'footage'}, then: cinetune plan -C {folder}")


@app.command(rich_help_panel=PROJECT)
def doctor(project: Folder = HERE, as_json: AsJson = False) -> None:
    """Check this machine: Python, torch, GPU, memory, disk, codecs, weights. Exit code 3 if something is missing."""
    from cinetune.console import table
    from cinetune.doctor import examine

    checks = examine(project)
    if as_json:
        print(json.dumps([dataclasses.asdict(check) for check in checks], indent=1))
    else:
        marks = {"ok": "ok", "warn": "WARN", "fail": "FAIL"}
        print(table([(marks[check.state], check.name, check.found.splitlines()[0]) for check in checks]))
        for check in checks:
            if check.remedy:
                print(f"\n{check.name}: {check.found}\n  fix:   {check.remedy}")
    if any(check.state == "fail" for check in checks):
        raise typer.Exit(3)


@app.command(rich_help_panel=PROJECT)
def plan(project: Folder = HERE, settings: Settings = None, as_json: AsJson = False) -> None:
    """Dry run: what would happen, what it would cost, every setting with its origin. Downloads nothing."""
    from cinetune.console import table
    from cinetune.plan import make_plan

    made = make_plan(_open(project, settings))
    if as_json:
        print(json.dumps(dataclasses.asdict(made), indent=1))
        return
    print("Stages")
    print(table([(row.stage, row.state, row.why) for row in made.stages]))
    print("\nSettings")
    print(table([(key, json.dumps(value), origin) for key, (value, origin) in made.settings.items()]))
    print("\nEstimate (calculated, not measured)")
    print(table(list(made.facts)))
    for warning in made.warnings:
        print(f"\nwarning: {warning}")


@app.command(rich_help_panel=PROJECT)
def run(
    project: Folder = HERE,
    settings: Settings = None,
    until: Annotated[str | None, typer.Option(metavar="STAGE", help="Stop after this stage.")] = None,
    only: Annotated[str | None, typer.Option(metavar="STAGE", help="Only this stage.")] = None,
) -> None:
    """Run everything that is not done, in order. A second run does nothing."""
    _run(_open(project, settings), project, until=until, only=only)


def _run(opened: Project, folder: Path, *, until: str | None = None, only: str | None = None) -> None:
    from cinetune import pipeline

    speaker = _reporter()
    records = pipeline.run(opened, speaker, until=until, only=only)
    if not records:
        speaker.say("nothing to do: every stage is up to date")
    page = folder / "report" / "index.html"
    if page.is_file():
        speaker.say(f"open   {page}")


@app.command(rich_help_panel=PROJECT)
def status(project: Folder = HERE, settings: Settings = None, as_json: AsJson = False) -> None:
    """Show which stages are done, which are stale and why."""
    from cinetune import pipeline
    from cinetune.console import duration, table

    rows = pipeline.status(_open(project, settings))
    if as_json:
        print(json.dumps([dataclasses.asdict(row) for row in rows], indent=1))
        return
    cells = [("stage", "state", "when (UTC)", "took", "why")]
    for row in rows:
        when = row.created_utc.removesuffix("+00:00").replace("T", " ")
        took = "" if row.wall_seconds is None else duration(row.wall_seconds)
        cells.append((row.stage, row.state, when, took, row.why))
    print(table(cells))


@app.command(rich_help_panel=PROJECT)
def demo(folder: Annotated[Path, typer.Argument(metavar="DIR", help="Where to make the demo project.")]) -> None:
    """Shoot a small film on the backlot, then tell the whole story on it. Runs on two CPU cores."""
    from cinetune.demo import make_demo

    make_demo(folder, _reporter())
    _run(_open(folder, None), folder)


# ------------------------------------------------------------------------------------------------ models


@app.command(rich_help_panel=SHARE)
def export(
    out: Annotated[Path, typer.Argument(metavar="OUT", help="A .safetensors file; a folder for merged, dataset.")],
    to: Annotated[
        str, typer.Option(help="diffusers, comfy, kohya, merged (the whole model), or dataset (the windows).")
    ] = "diffusers",
    arm: Annotated[str, typer.Option(help="Which trained look: look or plain.")] = "look",
    project: Folder = HERE,
    settings: Settings = None,
) -> None:
    """Write the trained look, or what it was trained on, for another program."""
    from cinetune import handover

    handover.export(_open(project, settings), out, _reporter(), to=to, arm=arm)
    print(f"wrote  {out}")


@app.command(rich_help_panel=SHARE)
def weights(project: Folder = HERE, as_json: AsJson = False) -> None:
    """List the weights there are to use, with size and licence. Downloads nothing."""
    from cinetune.console import table
    from cinetune.doctor import weights_table

    rows = weights_table(project)
    if as_json:
        print(json.dumps(rows, indent=1))
        return
    print(table([(row["name"], row["state"], row["size"], row["licence"]) for row in rows]))
    for row in rows:
        if row["remedy"]:
            print(f"\n{row['name']}: {row['state']}\n  fix:   {row['remedy']}")


# ------------------------------------------------------------------------------------------------ top level


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
        print(f"error: {known}", file=sys.stderr)
        return known.exit_code
    last = traceback.extract_tb(error.__traceback__)[-1]
    print(f"unexpected {type(error).__name__}: {error}", file=sys.stderr)
    print(f"  where: {Path(last.filename).name}:{last.lineno}, in {last.name}", file=sys.stderr)
    print("  This is a bug in cinetune. The same command with --debug shows the whole way there.", file=sys.stderr)
    return 1


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; the exit code: 0 ok, 1 a bug, 2 user, 3 environment, 4 gate failed, 130 interrupted."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in words
    _quiet_environment()
    try:
        result: Any = app([word for word in words if word != "--debug"], prog_name="cinetune", standalone_mode=False)
        code = result if isinstance(result, int) else 0
    except (KeyboardInterrupt, typer.Abort):
        code = INTERRUPTED
    except Exception as error:
        show, exit_code = getattr(error, "show", None), getattr(error, "exit_code", None)
        if callable(show) and isinstance(exit_code, int):  # typer's own: a wrong option or verb
            show()
            return exit_code
        return _say_error(error, debug=debug)
    if code == INTERRUPTED:
        print("\nstopped; the same command continues, and so does `cinetune run`", file=sys.stderr)
    return code
