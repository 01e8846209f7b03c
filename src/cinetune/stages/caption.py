"""`cinetune caption`: captions for shots that have none, by a vision-language model. Optional; `prepare` reads them.

Reads `ingest` and the sidecars, writes `captions.generated.jsonl` into the footage folder. A shot that a person
captioned is left alone. Every caption is kept as soon as it is made, so a stopped run goes on where it was. It is no
part of `cinetune run`: no stage depends on a model that may not be there.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from cinetune.artifacts import FootageClip, Shot
from cinetune.config import Config
from cinetune.errors import CinetuneError, ConfigError, FootageError, ModelError, WeightsError
from cinetune.footage.notes.captions import PROMPT, ask_again, complaints, frames_to_show, question, tidy
from cinetune.footage.notes.sidecars import (
    GENERATED,
    CaptionRow,
    Generated,
    captions_of,
    read_generated,
    write_generated,
)
from cinetune.records import artifact
from cinetune.results import Ingested
from cinetune.runtime import Reporter, choose_device, table
from cinetune.store import Project, Store, content_key

if TYPE_CHECKING:
    import numpy as np

    from cinetune.models.captioning.captioner import Captioner

__all__ = ["NAME", "run"]

NAME = "caption"
VERSION = 1
"""Part of every unit key: raise it when the same frames and question would be treated in another way."""
_GIVE_UP = 3  # failures before the first success; then it is the model or the server, not the shots


@artifact
class _Caption:
    """One answer: its text, the complaints it still deserves, how often the model was asked, the frames it saw."""

    text: str
    complaints: tuple[str, ...]
    asked: int
    shown: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Task:
    """One shot to be captioned; `key` names its unit."""

    key: str
    shot: Shot
    clip: FootageClip


def run(project: Project, report: Reporter) -> None:
    """Caption every shot that no person captioned, and write them down for `prepare`.

    Raises `StoreError` before `ingest`, `WeightsError` or `ServiceError` when the model cannot be used, and
    `ModelError` at the end when some shots got no caption; what was made is kept and written in every case.
    """
    with project.store.lock():
        film = project.store.need(Ingested)
        clips, shots = film.by_id, film.shots
        folder = project.root / project.config.footage.folder
        rows = captions_of(project.root, folder, clips, shots)
        wanted = [shot for shot, row in zip(shots, rows, strict=True) if row.generated or not row.text]
        if not wanted:
            report.say("a person captioned every shot: nothing to do")
            return
        name, sha = _model(project.config)
        tasks = [_task(project.config, shot, clips[shot.clip], sha) for shot in wanted]
        todo = [task for task in tasks if not project.store.has_unit(NAME, task.key)]
        if len(todo) < len(tasks):
            report.say(f"{len(tasks) - len(todo)} of {len(tasks)} captions are there already")
        failures: dict[str, CinetuneError] = {}
        if todo:
            captioner = _captioner(project.config, report)
            try:
                failures = _ask_all(project, todo, captioner, report)
            finally:
                _write(project, folder, tasks, name)
        _write(project, folder, tasks, name)
        report.say(_table(project.store, shots, rows, tasks, failures))
        written = Path(os.path.relpath(folder / GENERATED, project.root)).as_posix()
        report.say(f"{len(tasks) - len(failures)} captions by {name} in {written}")
        report.say("next   cinetune caption --review, to read and edit them; then cinetune prepare")
    if failures:
        listed = "\n  ".join(f"{shot}: {error.what}" for shot, error in failures.items())
        remedy = next(iter(failures.values())).remedy or "run it again, or caption these shots by hand"
        raise ModelError(f"{len(failures)} shots got no caption:\n  {listed}", remedy=remedy)


def _model(config: Config) -> tuple[str, str]:
    """The model's name, and what identifies it. Raises `WeightsError` or `ConfigError` when none is set."""
    section = config.caption
    match section.backend:
        case "http":
            return section.model, section.model
        case "transformers":
            from cinetune.models.files import weights

            if not section.path:
                remedy = 'set caption.path to a Qwen2.5-VL or Qwen3-VL folder, or caption.backend = "http"'
                raise WeightsError("caption.path is empty: there is no model to write captions", remedy=remedy)
            folder = Path(section.path).expanduser()
            return folder.resolve().name, weights.captioner_sha256(folder)


def _captioner(config: Config, report: Reporter) -> Captioner:
    """The model, ready to be asked. Raises `ConfigError` for a key that is not there."""
    section = config.caption
    match section.backend:
        case "http":
            from cinetune.models.captioning.chat import ChatCaptioner

            key = os.environ.get(section.key_env, "").strip() if section.key_env else ""
            if section.key_env and not (key and key.isascii() and key.isprintable()):
                state = "cannot be a key" if key else "is not set"
                remedy = f"export {section.key_env}=... in the shell, or set caption.key_env to another name"
                raise ConfigError(f"caption.key_env names {section.key_env}, which {state}", remedy=remedy)
            return ChatCaptioner(
                section.base_url, section.model,
                key=key, timeout=section.timeout, retries=section.retries, say=report.warn,
            )  # fmt: skip
        case "transformers":
            from cinetune.models.captioning.captioner import LocalCaptioner

            device = choose_device(config.model.device, config.model.dtype)
            report.say(f"loading {section.path} on {device.name} in {device.dtype} ({device.reason})")
            return LocalCaptioner(Path(section.path).expanduser(), device=device.name, dtype=device.dtype)


def _template(config: Config) -> str:
    return config.caption.prompt or PROMPT


def _task(config: Config, shot: Shot, clip: FootageClip, model: str) -> _Task:
    section = config.caption
    key = content_key(
        NAME, VERSION, model, _template(config), clip.sha256, clip.colour, [shot.span.start, shot.span.frames],
        str(clip.rate), list(clip.bars), str(clip.pixel_aspect),
        section.model_dump(mode="json", include={"backend", "frames", "size", "words", "language"}),
    )  # fmt: skip
    return _Task(key=key, shot=shot, clip=clip)


def _ask_all(
    project: Project, todo: Sequence[_Task], captioner: Captioner, report: Reporter
) -> dict[str, CinetuneError]:
    """Make the missing captions; the failures by shot. Raises what concerns more than one shot."""
    config = project.config
    failures: dict[str, CinetuneError] = {}
    workers = config.caption.workers if config.caption.backend == "http" else 1
    with ThreadPoolExecutor(workers) as pool, report.progress(NAME, len(todo)) as bar:
        futures = {pool.submit(_keep, project, captioner, task): task for task in todo}
        try:
            for number, future in enumerate(as_completed(futures), start=1):
                shot = futures[future].shot.id
                try:
                    future.result()
                except (ModelError, FootageError) as error:
                    failures[shot] = error
                    if len(failures) == number >= _GIVE_UP:
                        raise
                bar.advance(note=shot)
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
    return dict(sorted(failures.items()))


def _keep(project: Project, captioner: Captioner, task: _Task) -> None:
    project.store.unit(NAME, task.key, _Caption, lambda: _make(project, captioner, task))


def _make(project: Project, captioner: Captioner, task: _Task) -> _Caption:
    """Ask, check the answer, and ask once more if it has faults; the answer with fewer of them is kept."""
    section, span = project.config.caption, task.shot.span
    shown = frames_to_show(span, section.frames)
    pictures = _pictures(project.root, task.clip, shown, section.size)
    first = question(section.prompt, span, shown, words=section.words)
    tokens = 64 + 4 * section.words[1]

    def ask(*turns: str) -> tuple[str, tuple[str, ...]]:
        text = tidy(captioner.ask(pictures, turns, tokens=tokens))
        return text, complaints(text, words=section.words, language=section.language)

    text, found = ask(first)
    asked = 1
    if found:
        again, left = ask(first, text, ask_again(found)) if text else ask(first)
        asked = 2
        if again and (not text or len(left) <= len(found)):
            text, found = again, left
    if not text:
        raise ModelError("the model answered without words")
    return _Caption(text=text, complaints=found, asked=asked, shown=shown)


def _pictures(root: Path, clip: FootageClip, shown: Sequence[int], size: int) -> list[np.ndarray]:
    """The picture inside the bars, with square pixels, its longer side at most `size`: [H, W, 3] uint8 each."""
    import numpy as np

    from cinetune.footage.video import read_clip

    across, down = clip.bars[2] * clip.pixel_aspect, clip.bars[3]
    scale = min(1, size / max(across, down))
    shape = (max(1, round(across * scale)), max(1, round(down * scale)))
    film = read_clip(root, clip, shown, crop=clip.bars, size=shape)
    return list(np.rint(np.clip(film, 0, 1) * 255).astype(np.uint8))


def _write(project: Project, folder: Path, tasks: Sequence[_Task], model: str) -> None:
    """The file for `prepare`: the captions that are there, a shot's older one where the new one is not, and every row a
    person edited."""
    prompt = hashlib.sha256(_template(project.config).encode()).hexdigest()
    before = {(row.clip_sha256, row.start_frame, row.frames): row for row in read_generated(folder)}
    rows = {place: row for place, row in before.items() if row.edited}
    for task in tasks:
        span = task.shot.span
        place = (task.clip.sha256, span.start, span.frames)
        made = project.store.find_unit(NAME, task.key, _Caption)
        if made is not None:
            rows[place] = Generated(
                file_name=Path(os.path.relpath(project.root / task.clip.path, folder)).as_posix(),
                clip_sha256=task.clip.sha256,
                start_frame=span.start,
                frames=span.frames,
                text=made.text,
                model=model,
                prompt_sha256=prompt,
            )
        elif place in before:
            rows[place] = before[place]
    if rows != before:
        write_generated(folder, rows.values())


def _table(
    store: Store,
    shots: Sequence[Shot],
    rows: Sequence[CaptionRow],
    tasks: Sequence[_Task],
    failures: dict[str, CinetuneError],
) -> str:
    """One line per shot: who captioned it, how long it is, and what a person should look at."""
    made = {task.shot.id: store.find_unit(NAME, task.key, _Caption) for task in tasks}
    cells = [("shot", "caption by", "words", "notes")]
    for shot, row in zip(shots, rows, strict=True):
        caption = made.get(shot.id)
        if shot.id in failures:
            cells.append((shot.id, "-", "", f"NO CAPTION: {failures[shot.id].what}"))
        elif caption is None:
            cells.append((shot.id, row.source, str(len(row.text.split())), ""))
        else:
            notes = "".join(f"WARNING: {what}. " for what in caption.complaints).rstrip(". ")
            cells.append((shot.id, "the model", str(len(caption.text.split())), notes))
    return table(cells, indent="", width=0)
