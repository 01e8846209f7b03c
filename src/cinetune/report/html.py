"""One HTML page from the gathered values: template, style and script live in `templates/` and are put inline."""

from __future__ import annotations

from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

__all__ = ["render"]


def render(context: dict[str, Any], template: str = "report.html.j2") -> str:
    """A page as text. What is not markup of our own is escaped; a name missing from `context` is an error."""
    environment = Environment(
        loader=PackageLoader("cinetune.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(template).render(context)
