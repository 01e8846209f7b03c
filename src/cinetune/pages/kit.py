"""One HTML page from the gathered values: template, style and script live in `templates/` and are put inline."""

from __future__ import annotations

from typing import Any

__all__ = ["render"]


def render(context: dict[str, Any], template: str) -> str:
    """A page as text. What is not markup of our own is escaped; a name missing from `context` is an error."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("cinetune.pages"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(template).render(context)
