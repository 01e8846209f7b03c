"""The verbs of the story, in its order: each runs one stage."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from cinetune.cli.common import (
    HERE,
    STORY,
    Again,
    AsJson,
    Folder,
    Settings,
    open_project,
    reporter_to,
    run_stage,
    tell,
    verb,
)


@verb(STORY, "cinetune ingest -C my-film")
def ingest(
    project: Folder = HERE,
    settings: Settings = None,
    again: Again = False,
    explain: Annotated[str, typer.Option(metavar="CLIP", help="Show how one clip was cut, as a page.")] = "",
) -> None:
    """Look at every film file: what it is, where its shots are, or why it cannot be used."""
    if explain:
        from cinetune.pages.explain import write_explanation

        return tell(f"open   {write_explanation(open_project(project, settings), explain)}")
    run_stage("ingest", project, settings, again=again)


@verb(STORY, "cinetune caption -C my-film --review")
def caption(
    project: Folder = HERE,
    settings: Settings = None,
    review: Annotated[bool, typer.Option("--review", help="Write the page to read and edit them on.")] = False,
) -> None:
    """Optional: let a vision-language model caption the shots that nobody captioned."""
    from cinetune.pages.review import write_review
    from cinetune.stages import caption as stage

    (write_review if review else stage.run)(open_project(project, settings), reporter_to())


@verb(STORY, "cinetune prepare -C my-film --set prepare.frames=17")
def prepare(project: Folder = HERE, settings: Settings = None, again: Again = False) -> None:
    """Choose the windows to train on, with captions, and keep whole scenes out for validation."""
    run_stage("prepare", project, settings, again=again)


@verb(STORY, "cinetune cache -C my-film")
def cache(project: Folder = HERE, settings: Settings = None, again: Again = False) -> None:
    """Encode every window once: latents, first-frame conditions, text."""
    run_stage("cache", project, settings, again=again)


@verb(STORY, "cinetune train -C my-film --watch")
def train(
    project: Folder = HERE,
    settings: Settings = None,
    again: Again = False,
    *,
    force: Annotated[
        bool, typer.Option("--force", help="Go on with an unfinished run although something changed.")
    ] = False,
    init_from: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Start from an adapter of any origin: file or folder.")
    ] = None,
    watch: Annotated[bool, typer.Option("--watch", help="Serve a live page of the run on this machine.")] = False,
    port: Annotated[
        int, typer.Option(min=0, max=65535, metavar="N", help="Port of the live page (implies --watch); 0 = any free.")
    ] = 0,
) -> None:
    """Learn the look: a LoRA with held-out validation and early stopping. Continues after an interruption."""
    settings = [*(settings or []), *([f"train.init_from={init_from.resolve()}"] if init_from else [])]
    if not (watch or port):
        return run_stage("train", project, settings, again=again, force=force)
    from cinetune.pages.watch import serving

    with serving(open_project(project, settings), port) as address:
        tell(f"watch  {address}   (the same page stays in {project / 'work' / 'train' / 'index.html'})")
        run_stage("train", project, settings, again=again, force=force)


@verb(STORY, "cinetune sweep -C my-film --rank 4,8,16")
def sweep(
    project: Folder = HERE,
    settings: Settings = None,
    rank: Annotated[str, typer.Option(metavar="LIST", help="Ranks to try, e.g. 4,8,16.")] = "",
    lr: Annotated[str, typer.Option(metavar="LIST", help="Learning rates to try, e.g. 1e-3,2e-3.")] = "",
    targets: Annotated[str, typer.Option(metavar="LIST", help="Targets to try, e.g. cross,attention.")] = "",
    *,
    preset: Annotated[str, typer.Option(metavar="LIST", help="Recipes to try, e.g. paper,like-musubi.")] = "",
    as_json: AsJson = False,
) -> None:
    """Optional: train the look with several settings and compare them in one table."""
    from cinetune import sweep as sweeping
    from cinetune.console import table

    asked = {"preset": preset, "rank": rank, "lr": lr, "targets": targets}
    found = sweeping.run(open_project(project, settings), asked, reporter_to(to_stderr=as_json))
    tell(found.json if as_json else f"{table(found.rows)}\n\nopen   {found.page}")


@verb(STORY, "cinetune shots list.csv -C my-film")
def shots(
    source: Annotated[Path, typer.Argument(metavar="FILE", help="A .csv of shots, or an .otio timeline with markers.")],
    project: Folder = HERE,
) -> None:
    """Optional: write shots.toml from a table, or from the markers of a timeline."""
    from cinetune.footage.notes.shotlists import import_shots

    tell(f"wrote  {import_shots(project, source)} shots   in {project / 'shots.toml'}")


@verb(STORY, "cinetune keyframes -C my-film")
def keyframes(
    project: Folder = HERE,
    settings: Settings = None,
    again: Again = False,
    pick: Annotated[
        list[str] | None,
        typer.Option(metavar="ID=K", help="Write candidate K (from 0) of a shot into the shot list. Repeatable."),
    ] = None,
) -> None:
    """Make the first picture of every planned shot, with and without the look."""
    if pick:
        from cinetune.shotlist import pick_candidates

        pick_candidates(project / "shots.toml", pick)
    run_stage("keyframes", project, settings, again=again)


@verb(STORY, "cinetune expand -C my-film")
def expand(project: Folder = HERE, settings: Settings = None, again: Again = False) -> None:
    """Turn each keyframe into a moving shot, segment by segment."""
    run_stage("expand", project, settings, again=again)


@verb(STORY, "cinetune deliver -C my-film --set deliver.rate=25")
def deliver(project: Folder = HERE, settings: Settings = None, again: Again = False) -> None:
    """Write review movies, masters and a timeline for the edit."""
    run_stage("deliver", project, settings, again=again)


@verb(STORY, "cinetune score -C my-film --json")
def score(project: Folder = HERE, settings: Settings = None, again: Again = False, as_json: AsJson = False) -> None:
    """Measure whether the look arm is closer to the film than the base arm, shot by shot."""
    run_stage("score", project, settings, again=again, as_json=as_json)
    if as_json:
        from cinetune.records import to_json
        from cinetune.results import Scored

        cards = open_project(project, settings).store.need(Scored).scorecards
        tell("[" + ",\n".join(to_json(card) for card in cards) + "]")


@verb(STORY, "cinetune report -C my-film")
def report(
    project: Folder = HERE,
    settings: Settings = None,
    again: Again = False,
    form: Annotated[
        Literal["html", "markdown", "json", "csv"],
        typer.Option("--format", help="markdown, json and csv print the scores without pictures."),
    ] = "html",
    beside: Annotated[
        list[Path] | None,
        typer.Option(help="Another project (another look, another checkpoint) to show the claims of, side by side."),
    ] = None,
    vbench: Annotated[
        Path | None,
        typer.Option(help="Write the videos here in VBench's layout; once its results are there, compare the arms."),
    ] = None,
) -> None:
    """Write report/index.html: one page a producer can read."""
    if vbench:
        from cinetune.console import table
        from cinetune.report.vbench import compared, write_videos

        opened = open_project(project, settings)
        if vbench.exists():
            tell(table(compared(opened, vbench)))
        else:
            tell(f"wrote  {write_videos(opened, vbench)} videos   in {vbench}")
        return
    if beside:
        from cinetune.console import table
        from cinetune.report.beside import side_by_side, write_beside

        opened_all = [open_project(folder, settings if folder == project else None) for folder in (project, *beside)]
        tell(table([tuple(row) for row in side_by_side(opened_all)]))
        tell(f"\nopen   {write_beside(opened_all)}")
        return
    if form != "html":
        from cinetune.report.formats import FORMATS
        from cinetune.results import Scored

        opened = open_project(project, settings)
        scored = opened.store.need(Scored)
        design = scored.design[0] if scored.design else None
        tell(FORMATS[form](opened.config.name, scored.scorecards, design).rstrip("\n"))
        return
    run_stage("report", project, settings, again=again)
    tell(f"open   {project / 'report' / 'index.html'}")
