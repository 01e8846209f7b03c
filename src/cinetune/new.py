"""A new project folder: settings, an example shot list, places for the film and for reference pictures.

What the film itself can answer is not asked: where its first clips lie in the folder already, the size that training
and shooting use is chosen from their shape.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from string import Template

from cinetune.catalogue import find_release
from cinetune.config import preset_table
from cinetune.durable import atomic_write, sweep
from cinetune.errors import CinetuneError
from cinetune.footage.cut.framing import Glance, cut, glance, size_for
from cinetune.footage.notes.sidecars import footage_files, is_sequence
from cinetune.outside import toml_string
from cinetune.runtime import Reporter

__all__ = ["make_project", "project_name"]

FILES = {
    "cinetune.toml": "new_project.toml",
    "shots.toml": "new_shots.toml",
    "footage/README.txt": "new_footage.txt",
    "references/README.txt": "new_references.txt",
}
_LOOKED_AT = 3  # clips: enough to tell the shape of a film


def project_name(folder: Path) -> str:
    """A name for reports, edits and models, from the name of the folder: letters, digits, '.', '_' and '-'."""
    plain = re.sub(r"[^A-Za-z0-9._-]+", "-", folder.resolve().name).strip("-._")
    return plain[:60] or "film"


def make_project(folder: Path, report: Reporter, *, preset: str) -> None:
    """Write what is missing of a project; overwrites nothing. Raises `ConfigError` for an unknown preset, `StoreError`
    when the disk refuses."""
    for place in (folder, folder / "footage", folder / "references"):
        sweep(place)  # what a killed run left there
    family = preset_table(preset, where="--preset").get("model", {}).get("family", "pocket")
    sizes = ""
    if not (folder / "cinetune.toml").exists():
        sizes = _sizes(_looks(folder / "footage", report), family, report)
    words = {"preset": toml_string(preset), "name": toml_string(project_name(folder)), "sizes": sizes}
    for name, template in FILES.items():
        path = folder / name
        if path.exists():
            report.say(f"kept   {path}")
            continue
        text = resources.files("cinetune.presets").joinpath(template).read_text(encoding="utf-8")
        with atomic_write(path) as temporary:
            temporary.write_text(Template(text).substitute(words), encoding="utf-8")
        report.say(f"wrote  {path}")


def _looks(footage: Path, report: Reporter) -> list[Glance]:
    """The first clips there are, as far as they can be read; `ingest` will say what is wrong with the others."""
    films = [path for path in footage_files(footage) if not is_sequence(path)] if footage.is_dir() else []
    found: list[Glance] = []
    for path in films[:_LOOKED_AT]:
        try:
            seen = glance(path)
        except CinetuneError as error:
            report.warn(str(error))
            continue
        found += [seen] if seen else []
    return found


def _sizes(looks: Sequence[Glance], family: str, report: Reporter) -> str:
    """The size as lines of TOML for a section, if the first clips ask for another than the model's own."""
    if not looks:
        return ""
    own = find_release(family)
    shapes = [look.shape for look in looks]
    height, width = size_for(shapes, own)
    named = " and ".join(dict.fromkeys(f"{float(shape):.2f}:1" for shape in shapes))
    share = cut(shapes, own.height, own.width)
    if (height, width) == (own.height, own.width):
        report.say(f"film   {named}: {own.name}'s {own.width}x{own.height} cuts {float(share):.0%} of a side")
        return ""
    report.say(
        f"film   {named}: {width}x{height} is set and cuts {float(cut(shapes, height, width)):.0%} of a side; "
        f"{own.name}'s {own.width}x{own.height} would cut {float(share):.0%}"
    )
    why = f"chosen by the shape of the first clips, {named}"
    return f"height = {height}                  # {why}\nwidth = {width}\n"
