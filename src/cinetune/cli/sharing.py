"""The verbs about models: what goes out, what there is to use."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from cinetune.cli.common import HERE, SHARE, AsJson, Folder, Settings, app, open_project, reporter_to


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

    handover.export(open_project(project, settings), out, reporter_to(), to=to, arm=arm)
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
