"""The verbs about models: what goes out, what there is to use."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Literal

import typer

from cinetune.cli.common import (
    DOCS,
    HERE,
    SHARE,
    AsJson,
    Folder,
    Settings,
    agreed,
    app,
    go_online,
    open_project,
    reporter_to,
    tell,
    verb,
)

ExportTo = Literal["diffusers", "comfy", "kohya", "merged", "merged-original", "hub", "dataset"]
LookName = Literal["look", "plain"]


@verb(SHARE, "cinetune export look.safetensors -C my-film --to comfy")
def export(
    out: Annotated[Path, typer.Argument(metavar="OUT", help="A .safetensors file, or a new folder.")],
    to: Annotated[
        ExportTo,
        typer.Option(
            help="An adapter for diffusers, comfy or kohya; merged, merged-original: the whole model; hub: a folder to "
            "publish; dataset: the windows.",
        ),
    ] = "diffusers",
    *,
    arm: Annotated[LookName, typer.Option(help="Which trained look.")] = "look",
    push: Annotated[str, typer.Option(metavar="USER/NAME", help="Publish OUT on the hub, private; see --public.")] = "",
    public: Annotated[bool, typer.Option("--public", help="With --push: everybody may see it.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="With --push: do not ask.")] = False,
    project: Folder = HERE,
    settings: Settings = None,
) -> None:
    """Write the trained look, or what it was trained on, for another program."""
    from cinetune import export_look

    if not (push and out.is_dir()):
        export_look.export(open_project(project, settings), out, reporter_to(), to="hub" if push else to, arm=arm)
        tell(f"wrote  {out}")
    if push:
        agreed(f"send {out} to {push}, {'for everybody to see' if public else 'private'}?", yes=yes)
        go_online()
        tell(f"sent   {export_look.push(out, push, public=public, report=reporter_to())}")


weights = typer.Typer(
    help="List the weights there are to use, or download some.",
    epilog=f"Example: cinetune weights pull wan21-480p --to /models/wan480\n\nDocs: {DOCS}/weights.md",
    invoke_without_command=True,
)
app.add_typer(weights, name="weights", rich_help_panel=SHARE)


@weights.callback()
def list_weights(context: typer.Context, project: Folder = HERE, as_json: AsJson = False) -> None:
    """List the weights there are to use, with size and licence. Only `cinetune weights pull` downloads."""
    from cinetune.console import table
    from cinetune.doctor import weights_table

    if context.invoked_subcommand:
        return
    rows = weights_table(project)
    if as_json:
        tell(json.dumps(rows, indent=1))
        return
    tell(table([(row["name"], row["state"], row["size"], row["licence"]) for row in rows]))
    for row in rows:
        if row["remedy"]:
            tell(f"\n{row['name']}: {row['state']}\n  fix:   {row['remedy']}")


@weights.command()
def pull(
    name: Annotated[str, typer.Argument(metavar="NAME", help="wan21-480p, wan21-720p, or a feature network.")],
    to: Annotated[Path | None, typer.Option(metavar="DIR", help="Where to; a folder named as the model.")] = None,
    project: Folder = HERE,
    *,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Download a model from the hub: licence and size first, every file checked, continued after an interruption."""
    go_online()
    from cinetune.metrics.networks import NETWORKS
    from cinetune.models.files import download

    network = next((row for row in NETWORKS if row.name == name and row.repository), None)
    tell(f"asking   {name}: what the hub has of it")
    if network is not None:
        remote = download.look_up_network(name, network.repository, network.licence)
        folder = to or _networks(project) / name
    else:
        remote = download.look_up(name)
        folder = to or Path(remote.repository.rsplit("/", 1)[-1])
    tell(f"model    {remote.repository} at commit {remote.commit[:12]}")
    tell(f"licence  {remote.licence} (its card says: {remote.said})")
    tell(f"size     {remote.size / 2**30:.1f} GiB in {len(remote.files)} files")
    tell(f"to       {folder}")
    agreed(f"download {remote.size / 2**30:.1f} GiB?", yes=yes)
    if network is not None:
        download.pull_network(remote, folder, reporter_to())
        tell(f'wrote    {folder}\nnext     name "{name}" in score.features')
        return
    download.pull(remote, folder, reporter_to())
    tell(f'wrote    {folder}\nnext     set model.path = "{folder.resolve()}" in cinetune.toml')


@weights.command()
def take(
    name: Annotated[str, typer.Argument(metavar="NAME", help="inception, i3d, lpips or efficientnet.")],
    files: Annotated[list[Path], typer.Argument(metavar="FILE...", help="The published file or files.")],
    project: Folder = HERE,
) -> None:
    """Take in a feature network that is published as plain files: checked, and written once as safetensors."""
    from cinetune.errors import ConfigError, ScoreError
    from cinetune.metrics.networks import convert, row_of

    try:
        row = row_of(name)
    except ScoreError as error:
        raise ConfigError(error.what, remedy=error.remedy) from error
    tell(f"network  {row.title}, {row.licence}")
    tell(f"wrote    {convert(row, files, _networks(project) / name)}")
    tell(f'next     name "{name}" in score.features')


def _networks(project: Path) -> Path:
    """Where feature networks lie: `score.networks` of the project, or a folder of that name here."""
    if (project / "cinetune.toml").is_file():
        return project / Path(open_project(project, None).config.score.networks).expanduser()
    return project / "networks"
