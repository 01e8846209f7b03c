"""To and from other programs: a trained look as one adapter file in their naming or merged into a whole model, the
prepared windows as a dataset, and a dataset made for another trainer as a new project.
"""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

from cinetune.artifacts import Look
from cinetune.durable import atomic_write, sweep, whole_folder
from cinetune.errors import ConfigError, StoreError
from cinetune.files import full_caption
from cinetune.outside import escaped, is_file, read_bytes, toml_comment, toml_string
from cinetune.results import Ingested, Prepared, Trained
from cinetune.runtime import Reporter
from cinetune.store import Project

if TYPE_CHECKING:
    from cinetune.footage.notes.datasets import Dataset

__all__ = ["TARGETS", "Target", "adopt_dataset", "export", "export_dataset", "export_look", "push"]

Target = Literal["diffusers", "comfy", "kohya", "merged", "merged-original", "hub"]
TARGETS: tuple[Target, ...] = get_args(Target)


def export(project: Project, out: Path, report: Reporter, *, to: str, arm: str = "look") -> None:
    """`export_look`, or with `to="dataset"` `export_dataset`. Raises `ConfigError` for another word, and as they do."""
    sweep(out.parent)  # what a killed export left there
    target: Target | None = next((name for name in TARGETS if name == to), None)
    if to == "dataset":
        export_dataset(project, out, report)
    elif target is None:
        raise ConfigError(f"cannot export to {to!r}", remedy=f"one of {', '.join(TARGETS)}, dataset")
    else:
        with report.progress(f"export {target}", 1) as bar:
            export_look(project, out, report, to=target, arm=arm)
            bar.advance()


def export_look(project: Project, out: Path, report: Reporter, *, to: Target, arm: str = "look") -> None:
    """Write the look of one arm to `out`: a .safetensors file, or for `merged`, `merged-original` and `hub` a new
    folder.

    Raises `StoreError` before training or for an arm that was not trained, `ConfigError` if `out` exists or has another
    suffix, `WeightsError` if the base weights are needed (`kohya`, `merged`, `merged-original`) and not there.
    """
    look = _look(project, arm)
    if out.exists():
        raise ConfigError(f"{out} is there already", remedy="choose another name; nothing is overwritten")
    if to in ("merged", "merged-original"):
        _merge(project, look, out, original=to == "merged-original")
        report.say(
            f"the base model with the look merged in; prompts begin with {look.trigger!r}" if look.trigger else ""
        )
    elif to == "hub":
        _hub_folder(project, look, out)
        report.say(f"read {out / 'README.md'} before you publish it: `cinetune export {out} --push USER/NAME`")
    elif out.suffix != ".safetensors":
        raise ConfigError(
            f"{out.name} must end in .safetensors", remedy=f"cinetune export --to {to} {out.name}.safetensors"
        )
    else:
        _adapter(project, look, out, to)


def _look(project: Project, arm: str) -> Look:
    looks: dict[str, Look] = {look.arm: look for look in project.store.need(Trained).looks}
    if arm not in looks:
        raise StoreError(f"no {arm!r} arm was trained", where=str(project.root), remedy=f"one of {', '.join(looks)}")
    return looks[arm]


def _adapter(project: Project, look: Look, out: Path, to: Literal["diffusers", "comfy", "kohya"]) -> None:
    from cinetune.models import empty_denoiser
    from cinetune.models.adapters.export import adapter_metadata, linear_shapes, read_adapter, save_adapter

    path = project.store.path(look.weights)
    shapes = linear_shapes(empty_denoiser(project.config.model)) if to == "kohya" else None
    state = read_adapter(path)
    # alpha is already in the numbers that read_adapter returns
    save_adapter(
        out,
        state,
        alpha=look.rank,
        rank=look.rank,
        format=to,
        metadata=adapter_metadata(path) | _facts(look),
        shapes=shapes,
    )


def _facts(look: Look) -> dict[str, str]:
    """What the header of every exported file says."""
    return {"base": look.model.weights_sha256, "trigger": look.trigger, "licence": look.licence, "name": look.name}


def _hub_folder(project: Project, look: Look, out: Path) -> None:
    """The look in both namings, the model card, and a picture: what a repository of its own holds."""
    from cinetune.report.modelcard import ADAPTER, write_card

    words = re.sub(r"[^A-Za-z0-9]+", "-", look.name).strip("-").lower() or "look"
    comfy = f"{words}-comfyui.safetensors"
    with whole_folder(out) as staging:
        _adapter(project, look, staging / ADAPTER, "diffusers")
        _adapter(project, look, staging / comfy, "comfy")
        write_card(project, look, staging, comfy=comfy)


def push(folder: Path, repository: str, *, public: bool, report: Reporter) -> str:
    """Upload what `export_look(to="hub")` wrote, as it lies there, and return its address. Only this sends anything.

    The repository is made private unless `public`. Raises `ConfigError` for a folder or a name that is none, and when
    the repository is there already and is public though that was not asked for; `ServiceError` when the hub refuses.
    """
    from huggingface_hub import HfApi

    from cinetune.models.files.download import hub_errors
    from cinetune.report.modelcard import ADAPTER

    if re.fullmatch(r"[\w.-]+/[\w.-]+", repository) is None:
        raise ConfigError(f"{repository!r} is not the name of a repository", remedy="--push USER/NAME")
    lacking = [name for name in ("README.md", ADAPTER) if not (folder / name).is_file()]
    if lacking:
        raise ConfigError(f"{folder} is not ready to be published: no {lacking[0]}", remedy="export it with --to hub")
    with hub_errors(repository):
        api = HfApi(library_name="cinetune")
        address = api.create_repo(repository, private=not public, exist_ok=True)
        if not public and not api.model_info(repository).private:
            remedy = "make it private on its page, or say --public"
            raise ConfigError(f"{repository} is there already and is public; nothing was sent", remedy=remedy)
        text = (folder / "README.md").read_text(encoding="utf-8")
        _write(folder / "README.md", text.replace("path/to/this/folder", repository))
        api.upload_folder(repo_id=repository, folder_path=folder, commit_message="A look trained with cinetune")
    report.say(f"{'public' if public else 'private'}: {address}")
    return str(address)


def _merge(project: Project, look: Look, out: Path, *, original: bool) -> None:
    from cinetune.models import load_model, model_folder, model_ref
    from cinetune.models.adapters.export import adapter_metadata, save_merged, save_merged_original
    from cinetune.models.adapters.lora import load_lora

    section = project.config.model
    if model_ref(section).weights_sha256 != look.model.weights_sha256:
        remedy = "set model.path to the model it was trained on"
        raise ConfigError("the look was trained on other weights than model.path holds", remedy=remedy)
    model = load_model(section, parts="denoiser")
    load_lora(model, project.store.path(look.weights), name=look.arm)
    if original:
        facts = adapter_metadata(project.store.path(look.weights)) | _facts(look)
        save_merged_original(model, out, name=look.arm, metadata=facts)
    else:
        save_merged(model, out, name=look.arm, base=model_folder(section))


def export_dataset(project: Project, out: Path, report: Reporter) -> None:
    """Write the prepared windows as a Hugging Face VideoFolder: `train/` and `validation/`, one mp4 for each window at
    the model's rate and size, `metadata.jsonl` with `file_name` and `text` as training gives it, and `rights.csv`.

    The films are lossless H.264 4:4:4, so all that is lost is the step to 8-bit Y'CbCr: under 2 of 255 levels. Raises
    `StoreError` before `prepare`, `ConfigError` if `out` exists, `FootageError` if footage is gone.
    """
    from cinetune.footage.notes.sidecars import rights_csv
    from cinetune.footage.video import read_window, write_video
    from cinetune.pages.sheet import start_label

    clips, windows = project.store.need(Ingested).by_id, project.store.need(Prepared).windows
    if out.exists():
        raise ConfigError(f"{out} is there already", remedy="choose another name; nothing is overwritten")
    trigger = project.config.prepare.trigger
    rows: dict[str, list[str]] = {}
    with whole_folder(out) as staging, report.progress("export", len(windows)) as bar:
        for window in windows:
            clip, folder = clips[window.clip], "train" if window.split == "train" else "validation"
            path = staging / folder / f"{window.id}.mp4"
            write_video(path, read_window(project.root, clip, window), rate=window.rate, codec="h264_lossless")
            row = {
                "file_name": path.name,
                "text": full_caption(trigger, window.caption),
                "scene": window.scene,
                "source": Path(clip.path).name,
                "timecode": start_label(clip, window.source_frames[0]),
                "owner": clip.rights.owner,
                "licence": clip.rights.licence,
            }
            rows.setdefault(folder, []).append(json.dumps(row, ensure_ascii=False))
            bar.advance(note=window.id)
        for folder, lines in rows.items():
            _write(staging / folder / "metadata.jsonl", "\n".join(lines) + "\n")
        _write(staging / "rights.csv", rights_csv(clips, windows)[0])


def adopt_dataset(folder: Path, source: Path, report: Reporter, *, name: str, preset: str) -> None:
    """Make the settings and the footage folder of a new project from another trainer's dataset file: films are linked,
    not copied; captions go into `metadata.jsonl`. What could not be mapped is said, and kept as comments.

    Raises `ConfigError` if the dataset cannot be read or another project is there already, `StoreError` if the disk
    refuses.
    """
    from cinetune.footage.notes.datasets import read_dataset

    dataset, target = read_dataset(source), folder / "cinetune.toml"
    settings = _adopted(dataset, source, name=name, preset=preset)
    if is_file(target) and read_bytes(target) == settings.encode():  # it is written last: only the rest was stopped
        report.say(f"kept   {folder / 'footage'}")
        return
    if os.path.lexists(target):
        raise ConfigError("there is a project already", where=str(folder), remedy="choose another folder")
    for place in (folder, folder / "footage"):
        sweep(place)  # what a killed run left there
    rows: list[str] = []
    for clip in dataset.clips:
        link = folder / "footage" / clip.group / clip.path.name
        made = link.is_symlink() and link.readlink() == clip.path  # by a run that was stopped half way
        if not made and (link.exists() or link.is_symlink()):
            raise ConfigError(f"{link} is there already", remedy="choose another folder; nothing is overwritten")
        try:
            link.parent.mkdir(parents=True, exist_ok=True)
            if not made:
                link.symlink_to(clip.path)
        except OSError as error:
            raise StoreError(f"cannot link a film: {error.strerror}", where=str(link)) from error
        if clip.text:
            row = {"file_name": f"{clip.group}/{clip.path.name}", "text": clip.text}
            rows.append(json.dumps(row, ensure_ascii=False))
    if rows:
        captions, text = folder / "footage" / "metadata.jsonl", "\n".join(rows) + "\n"
        if os.path.lexists(captions) and not (is_file(captions) and read_bytes(captions) == text.encode()):
            raise ConfigError(f"{captions} is there already", remedy="choose another folder; nothing is overwritten")
        _write(captions, text)
    _write(target, settings)
    report.say(f"{len(dataset.clips)} films of a {dataset.kind} dataset linked, {len(rows)} with captions")
    for note in dataset.notes:
        report.say(f"  {escaped(note)}")


def _adopted(dataset: Dataset, source: Path, *, name: str, preset: str) -> str:
    """The settings file of a project made from a dataset."""
    made_from = f"Made from the {dataset.kind} dataset {source.name}. `cinetune plan` lists every key."
    notes = "".join(map(toml_comment, [made_from, *dataset.notes]))
    settings = "".join(
        f"{key.removeprefix('prepare.')} = {toml_string(value) if isinstance(value, str) else value}\n"
        for key, value in dataset.settings.items()
    )
    return (
        f"{notes}preset = {toml_string(preset)}\nname = {toml_string(name)}\n\n"
        f'[model]\n# path = "/models/Wan2.1-I2V-14B-480P-Diffusers"\n\n'
        f"[prepare]\n{settings}"
    )


def _write(path: Path, text: str) -> None:
    with atomic_write(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
