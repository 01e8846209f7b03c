"""The last stage: one self-contained HTML page that a producer can read, `report/index.html`."""

from __future__ import annotations

from cinetune.artifacts import FileRef
from cinetune.pages.kit import render
from cinetune.report.view import gather
from cinetune.results import (
    Delivered,
    Expanded,
    Ingested,
    Keyframed,
    Prepared,
    Reported,
    Scored,
    Trained,
)
from cinetune.runtime import Reporter
from cinetune.stage import Made, Stage
from cinetune.store import Project, content_key, sha256_file

__all__ = ["STAGE", "inputs", "make", "run"]


def inputs(project: Project) -> dict[str, str]:
    """The shot list, and the pictures and films it names, by content."""
    found = {"shots": content_key(project.shots())}
    for shot in project.shots().shots:
        for path in (shot.reference, shot.truth):
            if path is not None:
                found[path] = project.store.sha256(project.root / path)
    return found


def make(project: Project, report: Reporter) -> Made[Reported]:
    """Write `report/index.html`. Raises `StoreError` naming the verb to run when a stage before it is missing."""
    page = render(gather(project, report), "report.html.j2")
    path = project.root / "report" / "index.html"
    project.store.write_text(path, page)
    size = len(page.encode()) / 1e6
    report.say(f"report/index.html, {size:.1f} MB, one file: it can be mailed or put on any web server")
    return Made(result=Reported(page=(FileRef(path="report/index.html", sha256=sha256_file(path)),)))


STAGE = Stage(
    result=Reported,
    make=make,
    inputs=inputs,
    parents=(Ingested, Prepared, Trained, Keyframed, Expanded, Delivered, Scored),
    sections=("name", "preset", "model", "footage", "prepare", "train", "keyframes", "shoot", "deliver", "score"),
)
run = STAGE.run
