"""Several looks or checkpoints side by side: the declared claims of each project's own page in one table, and the same
shots by every look.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cinetune.pages import media
from cinetune.pages.kit import render
from cinetune.report import verdicts
from cinetune.results import Expanded, Scored
from cinetune.store import Project

__all__ = ["side_by_side", "write_beside"]

_WIDTH = 384


def side_by_side(projects: Sequence[Project]) -> list[list[str]]:
    """A head and a row for each claim that any of the projects declared; a column for each project, with the effect and
    its word. Every word is that project's own: looks are not tested against each other here, and projects with other
    shots or another design are not comparable, which the second row says. Raises `StoreError` where `score` has not
    run.
    """
    scored = [project.store.need(Scored) for project in projects]
    designs = [one.design[0].sha[:12] if one.design else "none" for one in scored]
    shots = [sorted({shot for card in one.scorecards for shot in card.shots}) for one in scored]
    same = "the same" if len(set(designs)) == 1 and all(own == shots[0] for own in shots) else "NOT the same"
    cells: dict[tuple[str, str, str], list[str]] = {}
    for column, one in enumerate(scored):
        for card in one.scorecards:
            for row in verdicts.rows(card):
                if row.declared:
                    place = (f"{card.arm} - {card.versus}", card.domain, row.title)
                    said = row.word if row.score.value is None else f"{row.effect} {row.word}"
                    cells.setdefault(place, ["" for _ in scored])[column] = said
    return [
        ["comparison", "domain", "measure", *_names(projects)],
        ["answer", "", "", *(verdicts.headline(verdicts.answers(one.scorecards)) for one in scored)],
        ["design and shots", "", same, *designs],
        *([*place, *found] for place, found in cells.items()),
    ]


def write_beside(projects: Sequence[Project]) -> Path:
    """Write `report/beside.html` of the first project: the table, and the middle of every shot that they share by each
    look. Raises `StoreError` where `expand` or `score` has not run.
    """
    head, answers, (_, _, same, *designs), *rows = side_by_side(projects)
    names = head[3:]
    context = {
        "film": projects[0].config.name.replace("-", " ").replace("_", " ").title(),
        "looks": list(zip(names, answers[3:], designs, strict=True)),
        "same": same == "the same",
        "rows": [(*row[:3], [_cell(said) for said in row[3:]]) for row in rows],
        "names": names,
        "shots": _shots(projects, names),
    }
    path = projects[0].root / "report" / "beside.html"
    projects[0].store.write_text(path, render(context, "beside.html.j2"))
    return path


def _names(projects: Sequence[Project]) -> list[str]:
    """Each project's name, with its folder where two have the same."""
    names = [project.config.name or project.root.name for project in projects]
    return [
        f"{name} ({project.root.name})" if names.count(name) > 1 else name
        for name, project in zip(names, projects, strict=True)
    ]


def _cell(said: str) -> tuple[str, str, str]:
    """Effect, word and the word's style."""
    effect, _, word = said.partition(" ") if said[:1] in "+\N{MINUS SIGN}0123456789" else ("", "", said)
    return effect, word, verdicts.tone_of(word) if word else "none"


def _shots(projects: Sequence[Project], names: Sequence[str]) -> list[dict[str, Any]]:
    """The shots of the first project that all have: base of the first, the look of each, the truth where known."""
    made = [project.store.need(Expanded).sequences for project in projects]
    found = []
    for shot in projects[0].shots().shots:
        looks = [media.first_seed(sequences, shot.id, "look") for sequences in made]
        base = media.first_seed(made[0], shot.id, "base")
        if base is None or not all(looks):
            continue
        rows = [("Base", _middle(projects[0], base)), *(
            (name, _middle(project, look)) for name, project, look in zip(names, projects, looks, strict=True) if look
        )]  # fmt: skip
        truth = media.truth_film(projects[0], shot, like=base)
        if truth is not None:
            rows.append(("As the film would show it", media.picture_uri(truth[0][len(truth[0]) // 2], width=_WIDTH)))
        found.append({"id": shot.id, "domain": shot.domain, "prompt": shot.prompt, "pictures": rows})
    return found


def _middle(project: Project, sequence: Any) -> str:
    picture = media.master_frames(project, sequence.video, [sequence.frames // 2])[0]
    assert picture is not None
    return media.picture_uri(picture, width=_WIDTH)
