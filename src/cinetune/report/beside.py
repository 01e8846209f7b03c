"""Several looks or checkpoints side by side: the declared claims of each project's own page, in one table."""

from __future__ import annotations

from collections.abc import Sequence

from cinetune.report import verdicts
from cinetune.results import Scored
from cinetune.store import Project

__all__ = ["side_by_side"]


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
    names = [project.config.name or project.root.name for project in projects]
    return [
        ["comparison", "domain", "measure", *names],
        ["answer", "", "", *(verdicts.headline(verdicts.answers(one.scorecards)) for one in scored)],
        ["design and shots", "", same, *designs],
        *([*place, *found] for place, found in cells.items()),
    ]
