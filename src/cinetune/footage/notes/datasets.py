"""Datasets made for other trainers, read so that they can become a project: what maps onto our settings, and in words
what does not.

    musubi-tuner      [general], [[datasets]] with video_directory or video_jsonl_file
    diffusion-pipe    [[directory]] with path

Both are read as their documentation describes them. Pictures, masks and control films are not taken over.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import pydantic

from cinetune.errors import ConfigError
from cinetune.outside import MOST_TABLE, escaped, folded, is_file, json_lines, on_disk, one_line, read_text, read_toml
from cinetune.timecode import nearest_legal_frames

__all__ = ["Clip", "Dataset", "read_dataset"]

_FILMS = frozenset((".avi", ".m4v", ".mkv", ".mov", ".mp4", ".mpg", ".mxf", ".ts", ".webm"))
_MODES = {"head": "head", "chunk": "all", "slide": "slide", "uniform": "uniform", "full": "all"}
_MULTIPLE = 16  # what Wan's sides must divide by
_LEAST_FRAMES = 5
_LONGEST_EXTENSION = 40
_COUNT = Annotated[int, pydantic.Field(ge=1, strict=True)]
_PAIR = tuple[_COUNT, _COUNT]
_KINDS: dict[str, tuple[Any, str]] = {
    "video_directory": (str, "a path"),
    "video_jsonl_file": (str, "a path"),
    "path": (str, "a path"),
    "caption_extension": (str, "a suffix such as .txt"),
    "frame_extraction": (str, "a word"),
    "target_frames": (list[_COUNT], "a list of counts"),
    "frame_buckets": (list[_COUNT], "a list of counts"),
    "frame_stride": (_COUNT, "a count"),
    "frame_sample": (_COUNT, "a count"),
    "resolution": (_COUNT | _PAIR, "a side or [width, height]"),
    "resolutions": (list[_COUNT | _PAIR], "a list of sides or [width, height] pairs"),
}
"""What we read, its type, and that type in words."""
_CACHES = {"cache_directory", "num_workers"}
_SIZES = {"resolutions", "enable_ar_bucket", "min_ar", "max_ar", "num_ar_buckets", "ar_buckets", "size_buckets"}


@dataclass(frozen=True, slots=True)
class Clip:
    """A film file, the folder name it gets in the footage folder, and its caption (empty if there is none)."""

    path: Path
    group: str
    text: str


@dataclass(slots=True)
class Dataset:
    """`settings` by dotted key, the clips in order, and `notes`: what was changed or left behind, one sentence each."""

    kind: str
    settings: dict[str, str | int] = field(default_factory=dict)
    clips: list[Clip] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def note(self, text: str) -> None:
        if text not in self.notes:
            self.notes.append(text)

    def set(self, key: str, value: str | int, *, where: str) -> None:
        """The first of several data sets decides; another value is noted."""
        if self.settings.setdefault(key, value) != value:
            self.note(f"{where}: {key} would be {value!r}; a project has one, {self.settings[key]!r} is kept")


def read_dataset(path: Path) -> Dataset:
    """Read a dataset TOML file; its paths are relative to it, else to the current folder.

    Raises `ConfigError` for files that are neither kind, folders that are not there, and when no film is found.
    """
    table = read_toml(path)
    if isinstance(table.get("datasets"), list):
        dataset = _musubi(table, path)
    elif isinstance(table.get("directory"), list):
        dataset = _diffusion_pipe(table, path)
    else:
        raise ConfigError(
            "neither a musubi-tuner nor a diffusion-pipe dataset: it has no [[datasets]] and no [[directory]]",
            where=str(path),
            remedy="for a folder of clips with captions beside them, copy it into `footage/` of a new project",
        )
    if not dataset.clips:
        listed = "".join(f"\n  {note}" for note in dataset.notes)
        raise ConfigError(f"no film file is in this dataset{listed}", where=str(path))
    bare = [clip.path.name for clip in dataset.clips if not clip.text]
    if bare:
        dataset.note(f"{len(bare)} films have no caption, the first is {bare[0]}: write them before `cinetune prepare`")
    return dataset


def _musubi(table: Mapping[str, Any], path: Path) -> Dataset:
    dataset = Dataset("musubi-tuner")
    for number, own in enumerate(table["datasets"]):
        where = f"datasets[{number}]"
        part = _checked(table.get("general", {}), own, where)
        known = {"caption_extension", "frame_extraction", "target_frames", "frame_stride", "frame_sample", "max_frames"}
        if "video_directory" in part:
            folder = _folder(path, part.pop("video_directory"), where)
            _take_folder(dataset, folder, _extension(part.get("caption_extension", ".txt"), where))
        elif "video_jsonl_file" in part:
            _take_jsonl(dataset, _found(path, part.pop("video_jsonl_file"), where))
        else:
            dataset.note(f"{where} holds pictures, not films: left behind")
            continue
        _musubi_windows(dataset, part, where)
        if size := part.pop("resolution", None):
            _size(dataset, [size, size] if isinstance(size, int) else size, where)
        _leave(dataset, {key: value for key, value in part.items() if key not in known}, where)
    return dataset


def _musubi_windows(dataset: Dataset, part: Mapping[str, Any], where: str) -> None:
    mode = part.get("frame_extraction", "head")
    if mode not in _MODES:
        raise ConfigError(f"frame_extraction {mode!r} is not known", where=where, remedy=f"one of {', '.join(_MODES)}")
    dataset.set("prepare.windows", _MODES[mode], where=where)
    if mode == "slide":
        dataset.set("prepare.stride", part.get("frame_stride", 1), where=where)
    if mode == "uniform":
        dataset.set("prepare.max_windows_per_shot", part.get("frame_sample", 1), where=where)
    if mode == "full":
        dataset.note(f'{where}: windows have one length here, so "full" became back to back windows of prepare.frames')
    else:
        _frames(dataset, part.get("target_frames", [1]), where, "target_frames")


def _diffusion_pipe(table: Mapping[str, Any], path: Path) -> Dataset:
    dataset = Dataset("diffusion-pipe")
    general = {key: value for key, value in table.items() if key != "directory"}
    dataset.set("prepare.windows", "head", where="")
    dataset.note(
        "each film gives the window at its start, as video_clip_mode does by default; prepare.windows has others"
    )
    for number, own in enumerate(table["directory"]):
        where = f"directory[{number}]"
        part = _checked(general, own, where)
        folder = _folder(path, part.pop("path", ""), where)
        _take_folder(dataset, folder, ".txt")
        if (folder / "captions.json").is_file():
            dataset.note(f"{where}: captions.json is not read; only .txt files beside the films are")
        _frames(dataset, part.pop("frame_buckets", [1, 33]), where, "frame_buckets")
        sizes = part.get("resolutions", [])
        if len(sizes) == 1 and isinstance(sizes[0], list):
            _size(dataset, sizes[0], where)
        elif sizes:
            dataset.note(f"{where}: resolutions {sizes} are areas; set prepare.width and prepare.height")
        _leave(dataset, {key: value for key, value in part.items() if key != "resolutions"}, where)
    return dataset


def _checked(general: Any, own: Any, where: str) -> dict[str, Any]:
    """One data set with what is general to all. Raises `ConfigError` for values of the wrong type."""
    if not isinstance(general, dict) or not isinstance(own, dict):
        raise ConfigError(f"{where} must be tables")
    part = {**general, **own}
    for key in part.keys() & _KINDS.keys():
        kind, meaning = _KINDS[key]
        try:
            pydantic.TypeAdapter(kind).validate_python(part[key])
        except pydantic.ValidationError as error:
            raise ConfigError(f"{key} must be {meaning}, not {repr(part[key])[:80]}", where=where) from error
    return part


def _frames(dataset: Dataset, lengths: list[int], where: str, key: str) -> None:
    longest = nearest_legal_frames(max(lengths, default=1))[0]
    if longest < _LEAST_FRAMES:
        dataset.note(f"{where}: {key} {lengths} are stills; windows of films are trained instead")
        return
    dataset.set("prepare.frames", longest, where=where)
    if len(lengths) > 1 or longest not in lengths:
        dataset.note(f"{where}: {key} {lengths}: windows have one length here, {longest}")


def _size(dataset: Dataset, size: list[int], where: str) -> None:
    legal = [max(_MULTIPLE, round(side / _MULTIPLE) * _MULTIPLE) for side in size]
    if legal != list(size):
        dataset.note(f"{where}: {size[0]}x{size[1]} became {legal[0]}x{legal[1]}, multiples of {_MULTIPLE}")
    dataset.set("prepare.width", legal[0], where=where)
    dataset.set("prepare.height", legal[1], where=where)


def _leave(dataset: Dataset, part: Mapping[str, Any], where: str) -> None:
    """Say what is left behind, each with its reason."""
    for key, value in part.items():
        if key in _CACHES or (key == "num_repeats" and value == 1):
            continue
        if key == "source_fps":
            dataset.note(f"{where}: source_fps is not needed, the rate is read from each file")
        elif key == "num_repeats":
            dataset.note(f"{where}: num_repeats = {value} is left behind: every window is seen equally often")
        elif key == "batch_size":
            dataset.note(f"batch_size = {value} is left behind: it is train.batch here")
        elif "bucket" in key or key in _SIZES:
            dataset.note(f"{key} is left behind: every window is cropped to one size")
        else:
            dataset.note(f"{where}: {key} has no equal here and is left behind")


def _extension(text: str, where: str) -> str:
    """With its dot: trainers take `txt` as they take `.txt`."""
    extension = "." + text.strip().lstrip(".")
    if extension == "." or len(extension) > _LONGEST_EXTENSION or "/" in extension or "\0" in extension:
        remedy = "write it as .txt"
        raise ConfigError(f"caption_extension {text[:40]!r} ends no file name", where=where, remedy=remedy)
    return extension


def _found(path: Path, name: str, where: str) -> Path:
    """A file or folder named from outside, with the separators of any system and in any Unicode form."""
    for candidate in (on_disk(path.parent, name), on_disk(Path(), name)):
        try:
            if name and candidate.exists():
                return candidate.resolve()
        except (OSError, ValueError):
            break  # no disk takes such a name
    remedy = "mend the path in the dataset file"
    raise ConfigError(f"{name[:200]!r} is not there", where=f"{path}, {where}", remedy=remedy)


def _folder(path: Path, name: str, where: str) -> Path:
    folder = _found(path, name, where)
    if not folder.is_dir():
        raise ConfigError(f"{name!r} is not a folder", where=f"{path}, {where}")
    return folder


def _take_folder(dataset: Dataset, folder: Path, extension: str) -> None:
    others = 0
    files = sorted(folder.iterdir())
    texts = {folded(file.name): file for file in reversed(files) if is_file(file)}
    for film in files:
        beside = film.with_name(film.stem + extension)
        text = beside if is_file(beside) else texts.get(folded(beside.name))
        if film.suffix.lower() in _FILMS:
            _take(dataset, film, folder.name, one_line(read_text(text, most=MOST_TABLE)) if text else "")
        elif is_file(film) and film.suffix not in (extension, ".toml", ".json", ".safetensors"):
            others += 1
    if others:
        dataset.note(f"{folder}: {others} files are not films and are left behind")


def _take_jsonl(dataset: Dataset, table: Path) -> None:
    for number, row in json_lines(read_text(table, most=MOST_TABLE), where=str(table)):
        where = f"{table}, line {number}"
        if not isinstance(row, dict) or not isinstance(row.get("video_path"), str):
            raise ConfigError('a row needs a "video_path"', where=where)
        if not isinstance(row.get("caption", ""), str):
            raise ConfigError(f"caption must be text, not {json.dumps(row['caption'])[:60]}", where=where)
        film = _found(table, row["video_path"], where)
        if film.is_dir():
            dataset.note(f"{where}: a folder of pictures is not read as a film")
        elif film.suffix.lower() not in _FILMS:
            dataset.note(f"{where}: {film.name} is not a film and is left behind")
        else:
            _take(dataset, film, table.stem, one_line(row.get("caption", "")))


def _take(dataset: Dataset, film: Path, group: str, text: str) -> None:
    """Add a film once, under a folder name that no other folder has taken, and that leads nowhere else."""
    if any(clip.path == film for clip in dataset.clips):
        return
    if escaped(film.name) != film.name:
        dataset.note(f"{escaped(str(film))}: its name cannot be written on one line in UTF-8, it is left behind")
        return
    group = re.sub(r"[^\w.-]+", "_", group).strip(".") or "films"
    while any(clip.group == group and clip.path.name == film.name for clip in dataset.clips):
        group += "_"
    dataset.clips.append(Clip(film, group, text))
