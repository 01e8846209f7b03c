"""The project file `cinetune.toml`: every setting, its unit, its default and where that default comes from.

Values are taken from, in rising order: the defaults here, the preset the file names, the file, `--set key=value`.
Unknown keys are an error that names the nearest legal key. Checks across keys run before any stage starts.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import re
import tomllib
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any, Literal

import pydantic

from cinetune import outside
from cinetune.artifacts import Arm, PlannedShot
from cinetune.catalogue import Release, check_both, picture_size
from cinetune.durable import atomic_write
from cinetune.errors import ConfigError
from cinetune.outside import escaped, parse_toml
from cinetune.presets import PRESETS, Preset
from cinetune.sections import (
    FILM_RATE,
    CaptionSection,
    DeliverSection,
    FootageSection,
    KeyframesSection,
    ModelSection,
    ParallelSection,
    PrepareSection,
    ScoreSection,
    Section,
    ShootSection,
    TrainSection,
    delivery_name,
)
from cinetune.timecode import exact_rate, nearest_legal_frames

__all__ = [
    "PRESETS",
    "SAFE_NAME",
    "Config",
    "flatten",
    "keep_settings",
    "load_config",
    "need_file",
    "preset_table",
    "read_toml",
    "section_sha",
    "unknown_key",
]


SAFE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
"""What may become part of a file name."""
_SHOWN = 120  # letters of a wrong value that a message repeats
_DEEPEST = 10  # dots in a key
_FASTEST = 1000  # frames per second


class Config(Section):
    """The whole project file."""

    preset: Preset | Literal[""] = ""
    name: str = "film"
    model: ModelSection = ModelSection()
    footage: FootageSection = FootageSection()
    caption: CaptionSection = CaptionSection()
    prepare: PrepareSection = PrepareSection()
    train: TrainSection = TrainSection()
    parallel: ParallelSection = ParallelSection()
    keyframes: KeyframesSection = KeyframesSection()
    shoot: ShootSection = ShootSection()
    deliver: DeliverSection = DeliverSection()
    score: ScoreSection = ScoreSection()

    def train_size(self, base: Release | None = None) -> tuple[int, int]:
        """Picture (height, width) of training windows. Raises `ConfigError` for one the base model cannot take."""
        return picture_size(base or self.model.base(), self.prepare.height, self.prepare.width, section="prepare")

    def shoot_size(self, base: Release | None = None, shot: PlannedShot | None = None) -> tuple[int, int]:
        """Picture (height, width) of shots, or of one that may have a size of its own. Raises `ConfigError` for one the
        base model cannot take.
        """
        asked = shot if shot is not None and (shot.height or shot.width) else self.shoot
        return picture_size(base or self.model.base(), asked.height or 0, asked.width or 0, section="shoot")

    def arms(self) -> tuple[Arm, ...]:
        """The arms that are rendered, in the order of the page."""
        asked = self.score.design.arms
        there = {
            "base": True,
            "trigger": "trigger" in asked and bool(self.prepare.trigger),
            "look": True,
            "plain": "plain" in asked and self.train.plain_arm,
        }
        arms: tuple[Arm, ...] = ("base", "trigger", "look", "plain")
        return tuple(arm for arm in arms if there[arm])

    def claimed_against(self) -> Arm:
        """The arm that claims hold the look against: the base model, with the trigger phrase where that arm is there,
        so that a claim is about the adapter alone.
        """
        return "trigger" if "trigger" in self.arms() else "base"

    def shooting(self) -> ShootSection:
        """How shots are made: `shoot`, or its preview."""
        shoot = self.shoot
        if not shoot.preview:
            return shoot
        quick = {"steps": min(shoot.steps, shoot.preview_steps), "guidance": shoot.preview_guidance or shoot.guidance}
        return shoot.model_copy(update=quick)

    def preview_adapter(self, root: Path) -> Path | None:
        """The step-distilled adapter that shots are made with; None = none, as in every full shot."""
        named = self.shoot.preview_adapter
        return root / Path(named).expanduser() if self.shoot.preview and named else None


def _legal_keys(model: type[pydantic.BaseModel], prefix: str = "") -> list[str]:
    keys: list[str] = []
    for name, info in model.model_fields.items():
        keys.append(prefix + name)
        inner = info.annotation
        if isinstance(inner, type) and issubclass(inner, pydantic.BaseModel):
            keys += _legal_keys(inner, f"{prefix}{name}.")
    return keys


def unknown_key(key: str, legal: list[str]) -> str:
    """`unknown key 'train.lrr'; did you mean 'train.lr'?`, also when the right key sits in another section."""
    leaves = {name.rsplit(".", 1)[-1]: name for name in legal}
    leaf = key.rsplit(".", 1)[-1]
    near = difflib.get_close_matches(key, legal, n=1, cutoff=0.5)
    elsewhere = difflib.get_close_matches(leaf, list(leaves), n=1, cutoff=0.75)
    guess = leaves.get(leaf) or next(iter(near), "") or next((leaves[name] for name in elsewhere), "")
    return f"unknown key {key!r}" + (f"; did you mean {guess!r}?" if guess else "")


def _explain(error: pydantic.ValidationError, where: str) -> ConfigError:
    lines: list[str] = []
    legal = _legal_keys(Config)
    for item in error.errors():
        key = ".".join(str(part) for part in item["loc"])
        if item["type"] == "extra_forbidden":
            lines.append(unknown_key(key, legal))
        else:
            lines.append(f"{key}: {item['msg'].lower()} (got {repr(item['input'])[:_SHOWN]})")
    return ConfigError(
        "\n  ".join(lines), where=where, remedy="`cinetune plan` lists every key with its value and origin"
    )


def flatten(table: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested tables as one: `{"train": {"lr": 1}}` becomes `{"train.lr": 1}`."""
    flat: dict[str, Any] = {}
    for key, value in table.items():
        if isinstance(value, dict):
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = value
    return flat


def _assign(table: dict[str, Any], dotted: str, value: Any) -> None:
    *parents, leaf = dotted.split(".")
    for name in parents:
        inner = table.setdefault(name, {})
        if not isinstance(inner, dict):
            raise ConfigError(f"{name!r} in {dotted!r} is a value, not a section")
        table = inner
    table[leaf] = value


def read_toml(path: Path) -> dict[str, Any]:
    """A TOML file of the project. Raises `ConfigError` when it is missing or is none."""
    return outside.read_toml(need_file(path))


def need_file(path: Path) -> Path:
    """A file every project has. Raises `ConfigError` when it is missing."""
    if not path.exists():
        raise ConfigError(f"no {path.name} here", where=str(path), remedy="`cinetune new DIR` makes a project")
    return path


def _override(text: str) -> tuple[str, Any]:
    key, equals, raw = text.partition("=")
    if not equals:
        raise ConfigError(f"--set {text[:_SHOWN]!r} has no '='", remedy="write --set train.lr=1e-4")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ConfigError(f"--set {escaped(text[:_SHOWN])} is not UTF-8 text") from error
    if text.count(".", 0, len(key)) > _DEEPEST:
        raise ConfigError(f"--set {text[:_SHOWN]!r}: no key has so many parts")
    try:
        table = parse_toml(f"v = {raw}", where="--set")
    except ConfigError:
        table = {}
    return key.strip(), table["v"] if set(table) == {"v"} else raw  # a bare word: a string without quotes


def preset_table(preset: str, *, where: str) -> dict[str, Any]:
    """The sections of a preset as they are written. Raises `ConfigError`, which happened at `where`, if there is none
    of that name.
    """
    if preset not in PRESETS:
        raise ConfigError(f"no preset {preset!r}", where=where, remedy=f"one of {', '.join(PRESETS)}")
    return tomllib.loads(resources.files("cinetune.presets").joinpath(f"{preset}.toml").read_text(encoding="utf-8"))


def keep_settings(path: Path, overrides: Sequence[str]) -> None:
    """Write settings as `--set` takes them into the project file, comments and order kept. The file then gives what it
    gives together with them, or stays as it is.

    Raises `ConfigError` for settings that `load_config` refuses, and for a file in which a setting cannot be placed.
    """
    import tomlkit
    from tomlkit.exceptions import TOMLKitError

    wanted = load_config(path, overrides=tuple(overrides))[0]
    try:
        document = tomlkit.parse(outside.read_text(path))
        for dotted, value in map(_override, overrides):
            *parents, leaf = dotted.split(".")
            table: Any = document
            for name in parents:
                if name not in table:
                    table[name] = tomlkit.table()
                table = table[name]
            table[leaf] = value
        text = tomlkit.dumps(document)
        with atomic_write(path) as temporary:
            temporary.write_text(text, encoding="utf-8")
            if load_config(temporary, root=path.parent)[0] != wanted:
                raise ConfigError("the settings cannot be placed in it", where=str(path), remedy="write them by hand")
    except (TOMLKitError, TypeError, AttributeError) as error:
        raise ConfigError(f"it cannot be changed: {error}", where=str(path), remedy="write them by hand") from error


def load_config(
    path: Path, *, overrides: tuple[str, ...] = (), root: Path | None = None
) -> tuple[Config, dict[str, str]]:
    """The checked configuration, its paths as the disk spells them from `root` (the file's own folder) on, and for each
    dotted key where its value came from (`default`, `preset paper`, `cinetune.toml`, `--set`).

    Raises `ConfigError` naming every wrong key at once, with the nearest legal one.
    """
    table = read_toml(path)
    pairs = [_override(text) for text in overrides]
    preset = next((value for key, value in reversed(pairs) if key == "preset"), table.get("preset", ""))
    layers: list[tuple[str, dict[str, Any]]] = []
    if preset:
        layers.append((f"preset {preset}", flatten(preset_table(preset, where=str(path)))))
    layers.append((path.name, flatten(table)))
    layers.append(("--set", dict(pairs)))
    merged: dict[str, Any] = {}
    origins: dict[str, str] = {}
    for origin, flat in layers:
        for key, value in flat.items():
            _assign(merged, key, value)
            origins[key] = origin
    _fit_preset(merged, origins)
    try:
        config = Config.model_validate(merged, context={"root": path.parent if root is None else root})
    except pydantic.ValidationError as error:
        raise _explain(error, str(path)) from error
    _cross_check(config, str(path))
    return config, {key: origins.get(key, "default") for key in flatten(config.model_dump())}


def _fit_preset(merged: dict[str, Any], origins: dict[str, str]) -> None:
    """A preset's overlap gives way where the file asks for segments too short for it."""
    shoot, origin = merged.get("shoot"), origins.get("shoot.overlap", "")
    if not isinstance(shoot, dict) or not origin.startswith("preset"):
        return
    frames = shoot.get("segment_frames")
    if type(frames) is int and frames <= shoot["overlap"]:
        shoot["overlap"] = 1
        origins["shoot.overlap"] = f"a segment has {frames} frames"


def _check_delivery_names(section: DeliverSection, where: str) -> None:
    """Before anything is shot: a template that cannot be filled in would show only when all is done."""
    try:
        names = {delivery_name(section, shot="SH0010", task="look", version=number) for number in (1, 2)}
        if len(names) < 2 or (len(section.arms) > 1 and "{task}" not in section.name):
            raise ValueError("it gives two files one name")
    except ValueError as error:
        what, remedy = (
            f"deliver.name = {section.name[:200]!r}: {error}",
            "its fields: {seq} {shot} {task} {version:03d}",
        )
        raise ConfigError(what, where=where, remedy=remedy) from error


def _cross_check(config: Config, where: str) -> None:
    spans = {"prepare.frames": config.prepare.frames, "shoot.segment_frames": config.shoot.segment_frames}
    for key, frames in spans.items():
        low, high = nearest_legal_frames(frames)
        if low != frames:
            remedy = f"use {low} or {high}"
            raise ConfigError(f"{key} = {frames} does not fit the frame rule 4n+1", where=where, remedy=remedy)
    overlap, frames = config.shoot.overlap, config.shoot.segment_frames
    if nearest_legal_frames(overlap)[0] != overlap or overlap >= frames:
        what = f"shoot.overlap = {overlap} is not 4n+1, or a whole segment of {frames} frames"
        raise ConfigError(what, where=where, remedy="use 1, 5 or 9")
    if 0 < config.shoot.preview_guidance < 1:
        what = f"shoot.preview_guidance = {config.shoot.preview_guidance:g} is below 1"
        raise ConfigError(what, where=where, remedy="use 1 (no guidance) or more, or 0 for that of full shots")
    if config.shoot.preview and config.shoot.preview_adapter and config.shoot.shard:
        what = "shoot.preview_adapter cannot be added to a base in shards (shoot.shard)"
        raise ConfigError(what, where=where, remedy="preview without one of the two")
    for key, section in (("prepare", config.prepare), ("shoot", config.shoot)):
        check_both(section.height, section.width, section=key)
    if config.train.plain_arm and config.train.augment.probability == 0:
        remedy = "set train.augment.probability, or plain_arm = false"
        what = "train.plain_arm is a control for train.augment, which is off"
        raise ConfigError(what, where=where, remedy=remedy)
    for key, rate in (("deliver.rate", config.deliver.rate), ("footage.sequence_rate", config.footage.sequence_rate)):
        if key == "deliver.rate" and rate == FILM_RATE:
            continue
        if not 1 <= exact_rate(rate) <= _FASTEST:
            raise ConfigError(f"{key} = {rate!r} is no rate of a film", where=where, remedy=f"use 1 to {_FASTEST} fps")
    _check_delivery_names(config.deliver, where)
    for key, name in (("name", config.name), ("deliver.seq", config.deliver.seq)):
        if not SAFE_NAME.fullmatch(name):
            remedy = "use up to 100 letters, digits, '.', '_' and '-'"
            raise ConfigError(f"{key} = {name!r} cannot be part of a file name", where=where, remedy=remedy)


def section_sha(config: Config, sections: tuple[str, ...]) -> str:
    """sha256 over the named sections, for staleness."""
    data = config.model_dump(mode="json")
    picked = json.dumps({name: data[name] for name in sections}, sort_keys=True)
    return hashlib.sha256(picked.encode()).hexdigest()
