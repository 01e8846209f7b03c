"""The model card: a README.md in Markdown with the hub's metadata, so that who finds the adapter can use and judge it.

It tells what was measured, on what it was trained (counts and licences, never names or places of footage), the recipe,
and where every number comes from. The picture shows generated frames only.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cinetune.artifacts import Look, Scorecard
from cinetune.catalogue import RELEASES
from cinetune.durable import atomic_write
from cinetune.pages import media, sheets
from cinetune.records import read_log
from cinetune.report import verdicts
from cinetune.results import Expanded, Ingested, Prepared, Scored
from cinetune.store import Project

if TYPE_CHECKING:
    from huggingface_hub import EvalResult

__all__ = ["ADAPTER", "write_card"]

_FAMILIES = {"pocket": "cinetune's pocket model", "wan21": "Wan2.1 image-to-video"}
ADAPTER = "pytorch_lora_weights.safetensors"
"""The name diffusers looks for in a folder."""
_PICTURE = "sample.jpg"
_RECIPE = ("lr", "steps", "warmup", "batch", "accumulate", "timesteps", "shift", "caption_dropout", "seed")
"""Settings the card tells; others are behind the recipe's hash."""
_WHERE = {"in": "in the film's world", "out": "outside it", "both": "difference of the two"}


def write_card(project: Project, look: Look, folder: Path, *, comfy: str, repository: str = "") -> None:
    """Write `README.md` into `folder`, and `sample.jpg` when shots were made. `comfy` is the ComfyUI file's name there,
    `repository` the name on the hub ("" = not published).

    Raises `StoreError` if a record's file is missing or the disk refuses.
    """
    cards = _scorecards(project)
    sample = _sample(project, look)
    if sample is not None:
        with atomic_write(folder / _PICTURE) as temporary:
            sample.convert("RGB").save(temporary, "JPEG", quality=90)
    base = _base(look)
    text = _render(
        {
            "title": _plain(look.name or "A look") + ("" if look.arm == "look" else f" ({look.arm})"),
            "look": look,
            "trigger": _plain(look.trigger),
            "base": base,
            "family": _FAMILIES.get(look.model.family, look.model.family),
            "repository": repository or "path/to/this/folder",
            "comfy": comfy,
            "picture": _PICTURE if sample is not None else "",
            "rows": _rows(cards, look.arm),
            "warnings": sorted({_plain(line) for card in cards for line in card.warnings}),
            "recipe": _recipe(project, look),
            "data": _data(project),
            "packages": ", ".join(f"{name} {version}" for name, version in sorted(look.provenance.packages.items())),
        }
    )
    with atomic_write(folder / "README.md") as temporary:
        temporary.write_text(
            f"---\n{_metadata(look, cards, base, picture=sample is not None)}\n---\n{text}", encoding="utf-8"
        )


def _render(context: dict[str, Any]) -> str:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    loader = PackageLoader("cinetune.report")
    # Markdown, not HTML: `_plain` takes out of names what would be markup
    environment = Environment(loader=loader, undefined=StrictUndefined, autoescape=False, trim_blocks=True)
    return environment.get_template("card.md.j2").render(context)


def _plain(text: str) -> str:
    """One line without what Markdown, YAML or HTML would read as markup."""
    return re.sub(r"\s+", " ", re.sub(r"[`|<>\[\]\"\\]", "", text)).strip()


def _base(look: Look) -> str:
    """The base model's repository; empty when it is no published release."""
    return RELEASES[look.model.release].repository if look.model.release in RELEASES else ""


def _scorecards(project: Project) -> tuple[Scorecard, ...]:
    return (project.store.find(Scored) or Scored()).scorecards


def _rows(cards: tuple[Scorecard, ...], arm: str) -> list[dict[str, Any]]:
    """The declared claims of one arm, in the words of the report."""
    rows: list[dict[str, Any]] = []
    for card in cards:
        if card.arm != arm or card.versus == "plain":
            continue
        for row in verdicts.rows(card):
            if row.declared:
                rows.append({"where": _WHERE[card.domain], "shots": row.score.n, "row": row})
    return rows


def _recipe(project: Project, look: Look) -> list[tuple[str, Any]]:
    """What training was asked for, from the first line of its log; nothing if the log holds none."""
    log = read_log(project.store.path(look.log))
    asked = log[0].get("recipe", {}) if log else {}
    rows = [(f"`train.{key}`", asked[key]) for key in _RECIPE if key in asked]
    augment = asked.get("augment", {}).get("probability")
    return rows + ([("re-graded first frames", f"{augment:.0%} of the steps")] if augment else [])


def _data(project: Project) -> str:
    """Counts and licences of what it was trained on."""
    film, clips = project.store.need(Prepared), project.store.need(Ingested).by_id
    windows, trained = film.windows, film.training
    if not trained:
        return "not recorded"
    one = trained[0]
    licences = sorted({_plain(clips[w.clip].rights.licence) for w in trained if w.clip in clips} - {""})
    held = len({window.scene for window in windows if window.split != "train"})
    return (
        f"{len(trained)} windows of {len(one.source_frames)} frames at {one.width}x{one.height}, from "
        f"{len({window.scene for window in trained})} scenes; {held} more scenes held out; footage licences: "
        f"{', '.join(licences) or 'not recorded'}"
    )


def _sample(project: Project, look: Look) -> Any | None:
    """Base over look, a few frames of the first shot made with this arm; None when none was."""
    shots = (project.store.find(Expanded) or Expanded()).sequences
    made = next((shot for shot in shots if shot.arm == look.arm), None)
    if made is None:
        return None
    pair = [media.first_seed(shots, made.shot, "base"), media.first_seed(shots, made.shot, look.arm)]
    frames = media.sampled(made.frames, 4)
    rows = [(one.arm, media.master_frames(project, one.video, frames)) for one in pair if one is not None]
    return sheets.shot_strip(rows, columns=[f"frame {frame}" for frame in frames])


def _metadata(look: Look, cards: tuple[Scorecard, ...], base: str, *, picture: bool) -> str:
    """The YAML head, by the hub's own classes."""
    from huggingface_hub import ModelCardData

    results = _results(look, cards)
    data = ModelCardData(
        license=look.licence.lower() or None,
        library_name="diffusers",
        pipeline_tag="image-to-video",
        base_model=base or None,
        base_model_relation="adapter" if base else None,
        instance_prompt=_plain(look.trigger) or None,
        tags=["lora", "diffusers", "image-to-video", "cinetune", "template:diffusion-lora"],
        model_name=(_plain(look.name) or "look") if results else None,
        eval_results=results or None,
        widget=[{"text": _plain(look.trigger) or " ", "output": {"url": _PICTURE}}] if picture else None,
    )
    return data.to_yaml()


def _results(look: Look, cards: tuple[Scorecard, ...]) -> list[EvalResult]:
    """Each measured difference against the base; a metric that could not be measured is left out."""
    from huggingface_hub import EvalResult

    return [
        EvalResult(
            task_type="image-to-video",
            dataset_type="private",
            dataset_config=card.domain,  # the hub groups by type, config, split: names do not count
            dataset_name=f"{len(card.shots)} planned shots {_WHERE[card.domain]}",
            metric_type=score.metric,
            metric_name=f"{verdicts.title_of(score.metric)}, {look.arm} minus base ({score.verdict or 'no verdict'})",
            metric_value=score.value,
        )
        for card in cards
        if (card.arm, card.versus) == (look.arm, "base") and card.domain != "both"
        for score in card.effects
        if score.value is not None
    ]
