"""One HTML page from the gathered values: template, style and script live in `templates/` and are put inline."""

from __future__ import annotations

from typing import Any

from cinetune.footage.sheet import render_page

__all__ = ["render"]


def render(context: dict[str, Any], template: str = "report.html.j2") -> str:
    """A page as text. What is not markup of our own is escaped; a name missing from `context` is an error."""
    return render_page(template, context, package="cinetune.report")
