"""The last stage: one self-contained HTML page that a producer can read, `report/index.html`."""

from __future__ import annotations

import time

from cinetune.artifacts import FileRef
from cinetune.pages.kit import render
from cinetune.report.view import gather
from cinetune.runtime import Reporter, provenance
from cinetune.store import Project, StageRecord, content_key, sha256_file

__all__ = ["NAME", "PARENTS", "SECTIONS", "inputs", "run"]

NAME = "report"
PARENTS = ("ingest", "prepare", "train", "keyframes", "expand", "deliver", "score")
SECTIONS = ("name", "preset", "model", "footage", "prepare", "train", "keyframes", "shoot", "deliver", "score")


def inputs(project: Project) -> dict[str, str]:
    """The shot list, and the pictures and films it names, by content."""
    found = {"shots": content_key(project.shots())}
    for shot in project.shots().shots:
        for path in (shot.reference, shot.truth):
            if path is not None:
                found[path] = sha256_file(project.root / path)
    return found


def run(project: Project, report: Reporter) -> StageRecord:
    """Write `report/index.html`. Raises `StoreError` naming the verb to run when a stage before it is missing."""
    started = time.monotonic()
    key = project.input_key(NAME, parents=PARENTS, sections=SECTIONS, inputs=inputs(project))
    page = render(gather(project, report), "report.html.j2")
    path = project.root / "report" / "index.html"
    project.store.write_text(path, page)
    size = len(page.encode()) / 1e6
    report.say(f"report/index.html, {size:.1f} MB, one file: it can be mailed or put on any web server")
    parents = tuple(record.output_sha for name in PARENTS if (record := project.store.load_stage(name)) is not None)
    made = provenance(seed=None, config_sha=key, parents=parents, device="cpu", wall_seconds=time.monotonic() - started)
    written = FileRef(path="report/index.html", sha256=sha256_file(path))
    return project.store.save_stage(NAME, key, {"page": [written]}, made=made)
