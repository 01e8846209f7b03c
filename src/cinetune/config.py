"""The project file `cinetune.toml`: every setting, its unit, its default and where that default comes from.

Values are taken from, in rising order: the defaults here, the preset the file names, the file, `--set key=value`.
Unknown keys are an error that names the nearest legal key. Checks across keys run before any stage starts.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import os
import re
import tomllib
from fractions import Fraction
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import pydantic

from cinetune.artifacts import PlannedShot, ShotPlan
from cinetune.errors import ConfigError
from cinetune.timecode import exact_rate, nearest_legal_frames

__all__ = ["MODEL_GEOMETRY", "PRESETS", "Config", "Geometry", "flatten", "load_config", "load_shots", "section_sha"]

PRESETS = ("paper", "pocket", "wan21")


class Geometry(NamedTuple):
    """What a model family expects of footage: frames per second, size in pixels, and what its sides must divide by."""

    rate: Fraction
    height: int
    width: int
    multiple: int


MODEL_GEOMETRY = {
    "pocket": Geometry(Fraction(16), 64, 96, 8),
    "wan21": Geometry(Fraction(16), 480, 832, 16),
}
"""Known without loading a model. Wan2.1: VAE stride 8 times patch 2; pocket: VAE stride 4 times patch 2."""


def _ordered(pair: tuple[float, float]) -> tuple[float, float]:
    if pair[0] > pair[1]:
        raise ValueError("the first of the two must not be larger than the second")
    return pair


Between = Annotated[tuple[float, float], pydantic.AfterValidator(_ordered)]
"""Lowest and highest value of a random range."""
Decay = Annotated[float, pydantic.Field(ge=0, lt=1)]
_SAFE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


class _Section(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class ModelSection(_Section):
    family: Literal["pocket", "wan21"] = "pocket"
    path: str = ""
    """Folder with the diffusers weights; empty = the weights inside the package (pocket only)."""
    device: str = "auto"
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    clip_preprocess: Literal["squash", "crop"] = "squash"
    """How the first frame reaches CLIP: the whole frame squashed to a square (original Wan) or diffusers' centre
    crop."""


class FootageSection(_Section):
    folder: str = "footage"
    detector: Literal["adaptive", "none"] = "adaptive"
    min_shot_seconds: float = pydantic.Field(default=0.5, gt=0)
    crop_bars: bool = True
    strict_rights: bool = False


class PrepareSection(_Section):
    frames: int = pydantic.Field(default=33, ge=5)
    """Frames of one training window at the model's native rate; must be 4n+1. The paper: 33."""
    height: int = pydantic.Field(default=0, ge=0)
    width: int = pydantic.Field(default=0, ge=0)
    """0 = the model's own training size."""
    trigger: str = ""
    """A phrase put before every training caption and every prompt of the look arm; empty = none."""
    windows: Literal["central", "head", "slide", "uniform", "all"] = "central"
    """Where they lie in a shot. `slide` lays one every `stride` frames at the model's rate; 0 = half a window."""
    stride: int = pydantic.Field(default=0, ge=0)
    max_windows_per_shot: int = pydantic.Field(default=0, ge=0)
    """0 = one for `central` and `uniform`, no limit for the others."""
    max_windows_per_scene: int = pydantic.Field(default=0, ge=0)
    min_motion: float = pydantic.Field(default=0.0, ge=0)
    min_sharpness: float = pydantic.Field(default=0.0, ge=0, le=1)
    """Windows with less are left out; 0 = off. Motion is in per cent of the picture's width per second."""
    held_fraction: float = pydantic.Field(default=0.2, ge=0, lt=1)
    """Share of *scenes* kept out of training, for validation."""
    on_leak: Literal["refuse", "move", "warn"] = "refuse"
    require_captions: bool = True


class AugmentSection(_Section):
    """Reference augmentation: the condition frame is re-graded at random while the target keeps the look."""

    probability: float = pydantic.Field(default=0.0, ge=0, le=1)
    saturation: Between = (0.85, 1.4)
    gain: Between = (0.94, 1.07)
    offset: Between = (-0.05, 0.05)
    gamma: Between = (0.8, 1.15)
    grain: float = pydantic.Field(default=0.0, ge=0)
    blur: float = pydantic.Field(default=0.0, ge=0)
    variants: int = pydantic.Field(default=4, ge=1)
    """How many re-graded condition frames are cached for each window."""
    single_frame: float = pydantic.Field(default=0.0, ge=0, le=1)
    """Share of steps on one-frame windows."""


class TrainSection(_Section):
    rank: int = pydantic.Field(default=8, ge=1)
    alpha: float = pydantic.Field(default=16.0, gt=0)
    targets: Literal["cross", "cross-text", "attention", "all-linear"] = "cross"
    lr: float = pydantic.Field(default=3e-5, gt=0)
    betas: tuple[Decay, Decay] = (0.9, 0.999)
    weight_decay: float = pydantic.Field(default=0.01, ge=0)
    warmup: float = pydantic.Field(default=0.05, ge=0, lt=1)
    """Share of `steps` in linear warm-up, then cosine to zero."""
    steps: int = pydantic.Field(default=4000, ge=1)
    batch: int = pydantic.Field(default=1, ge=1)
    accumulate: int = pydantic.Field(default=4, ge=1)
    max_grad_norm: float = pydantic.Field(default=1.0, gt=0)
    timesteps: Literal["logit-normal", "uniform"] = "logit-normal"
    shift: float = pydantic.Field(default=3.0, gt=0)
    caption_dropout: float = pydantic.Field(default=0.1, ge=0, le=1)
    checkpointing: bool = True
    augment: AugmentSection = AugmentSection()
    plain_arm: bool = False
    """Also train a second adapter without reference augmentation, as a control."""
    workers: int = pydantic.Field(default=1, ge=1)
    """Processes that train arms side by side, one CPU thread each; 1 = one arm after the other with all threads."""
    validate_every: int = pydantic.Field(default=200, ge=1)
    patience: int = pydantic.Field(default=4, ge=1)
    """Evaluations without an LPIPS gain of `min_delta` before training stops."""
    min_delta: float = pydantic.Field(default=0.001, ge=0)
    validation_shots: int = pydantic.Field(default=4, ge=1)
    validation_windows: int = pydantic.Field(default=16, ge=1)
    """Held-out windows the velocity loss is taken on, spread over the held-out scenes."""
    validation_steps: int = pydantic.Field(default=8, ge=1)
    checkpoint_every: int = pydantic.Field(default=100, ge=1)
    seed: int = 0


class KeyframesSection(_Section):
    method: Literal["as-is", "late", "restyle", "develop"] = "develop"
    candidates: int = pydantic.Field(default=1, ge=1)
    strength: float = pydantic.Field(default=0.6, gt=0, le=1)
    """`restyle` only: share of the noise schedule that is run."""


class ShootSection(_Section):
    segment_frames: int = pydantic.Field(default=33, ge=5)
    steps: int = pydantic.Field(default=40, ge=1)
    guidance: float = pydantic.Field(default=5.0, ge=1)
    shift: float = pydantic.Field(default=3.0, gt=0)
    seeds: int = pydantic.Field(default=1, ge=1)
    """Seeds rendered for each shot and arm; scores average over them."""
    anchor: float = pydantic.Field(default=0.0, ge=0, le=1)
    """Strength of the ramped colour anchor to the keyframe."""
    height: int = pydantic.Field(default=0, ge=0)
    width: int = pydantic.Field(default=0, ge=0)
    workers: int = pydantic.Field(default=1, ge=1)


class DeliverSection(_Section):
    formats: tuple[Literal["proxy", "prores_hq", "png16"], ...] = ("proxy", "prores_hq", "png16")
    conform: Literal["none", "hold", "retime"] = "hold"
    rate: str = "24"
    name: str = "{seq}_{shot}_{task}_v{version:03d}"
    seq: str = "SQ010"
    height: int = pydantic.Field(default=0, ge=0)
    """Picture height of movies (Lanczos from the master); 0 = as generated."""
    arms: tuple[Literal["base", "look", "plain"], ...] = ("base", "look")


class ScoreSection(_Section):
    alpha: float = pydantic.Field(default=0.05, gt=0, lt=1)
    primary: tuple[str, ...] = ("tone_w1", "colour_error")


class Config(_Section):
    """The whole project file."""

    preset: Literal["", "paper", "pocket", "wan21"] = ""
    name: str = "film"
    model: ModelSection = ModelSection()
    footage: FootageSection = FootageSection()
    prepare: PrepareSection = PrepareSection()
    train: TrainSection = TrainSection()
    keyframes: KeyframesSection = KeyframesSection()
    shoot: ShootSection = ShootSection()
    deliver: DeliverSection = DeliverSection()
    score: ScoreSection = ScoreSection()


def _legal_keys(model: type[pydantic.BaseModel], prefix: str = "") -> list[str]:
    keys: list[str] = []
    for name, info in model.model_fields.items():
        keys.append(prefix + name)
        inner = info.annotation
        if isinstance(inner, type) and issubclass(inner, pydantic.BaseModel):
            keys += _legal_keys(inner, f"{prefix}{name}.")
    return keys


def _unknown(key: str, legal: list[str]) -> str:
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
            lines.append(_unknown(key, legal))
        else:
            lines.append(f"{key}: {item['msg'].lower()} (got {item['input']!r})")
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


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ConfigError(
            f"no {path.name} here", where=str(path), remedy="`cinetune new DIR` makes a project"
        ) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, OSError) as error:
        raise ConfigError(f"not readable as TOML: {error}", where=str(path)) from error


def _override(text: str) -> tuple[str, Any]:
    key, equals, raw = text.partition("=")
    if not equals:
        raise ConfigError(f"--set {text!r} has no '='", remedy="write --set train.lr=1e-4")
    try:
        return key.strip(), tomllib.loads(f"v = {raw}")["v"]
    except tomllib.TOMLDecodeError:
        return key.strip(), raw  # a bare word: a string without quotes


def load_config(path: Path, *, overrides: tuple[str, ...] = ()) -> tuple[Config, dict[str, str]]:
    """The checked configuration and, for each dotted key, where its value came from (`default`, `preset paper`,
    `cinetune.toml`, `--set`).

    Raises `ConfigError` naming every wrong key at once, with the nearest legal one.
    """
    table = _read_toml(path)
    pairs = [_override(text) for text in overrides]
    preset = next((value for key, value in reversed(pairs) if key == "preset"), table.get("preset", ""))
    layers: list[tuple[str, dict[str, Any]]] = []
    if preset:
        if preset not in PRESETS:
            raise ConfigError(f"no preset {preset!r}", where=str(path), remedy=f"one of {', '.join(PRESETS)}")
        text = resources.files("cinetune.presets").joinpath(f"{preset}.toml").read_text(encoding="utf-8")
        layers.append((f"preset {preset}", flatten(tomllib.loads(text))))
    layers.append((path.name, flatten(table)))
    layers.append(("--set", dict(pairs)))
    merged: dict[str, Any] = {}
    origins: dict[str, str] = {}
    for origin, flat in layers:
        for key, value in flat.items():
            _assign(merged, key, value)
            origins[key] = origin
    try:
        config = Config.model_validate(merged)
    except pydantic.ValidationError as error:
        raise _explain(error, str(path)) from error
    _cross_check(config, str(path))
    return config, {key: origins.get(key, "default") for key in flatten(config.model_dump())}


def _cross_check(config: Config, where: str) -> None:
    spans = {"prepare.frames": config.prepare.frames, "shoot.segment_frames": config.shoot.segment_frames}
    for key, frames in spans.items():
        low, high = nearest_legal_frames(frames)
        if low != frames:
            remedy = f"use {low} or {high}"
            raise ConfigError(f"{key} = {frames} does not fit the frame rule 4n+1", where=where, remedy=remedy)
    if config.train.plain_arm and config.train.augment.probability == 0:
        remedy = "set train.augment.probability, or plain_arm = false"
        what = "train.plain_arm is a control for train.augment, which is off"
        raise ConfigError(what, where=where, remedy=remedy)
    exact_rate(config.deliver.rate)
    for key, name in (("name", config.name), ("deliver.seq", config.deliver.seq)):
        if not _SAFE_NAME.fullmatch(name):
            remedy = "use letters, digits, '.', '_' and '-'"
            raise ConfigError(f"{key} = {name!r} cannot be part of a file name", where=where, remedy=remedy)


def load_shots(path: Path) -> ShotPlan:
    """The shot list `shots.toml`: an array of tables `[[shot]]`, keys as `PlannedShot`.

    Raises `ConfigError` for unknown keys, unusable or repeated ids, and pictures that are not there.
    """
    table = _read_toml(path)
    unknown = sorted(set(table) - {"shot"})
    if unknown:
        remedy = "the shot list is an array of [[shot]] tables"
        raise ConfigError(_unknown(unknown[0], ["shot"]), where=str(path), remedy=remedy)
    try:
        plan = pydantic.TypeAdapter(ShotPlan).validate_python({"shots": table.get("shot", [])})
    except pydantic.ValidationError as error:
        extra = ("extra_forbidden", "unexpected_keyword_argument")
        item = next((item for item in error.errors() if item["type"] in extra), error.errors()[0])
        index = item["loc"][1] if len(item["loc"]) > 1 else "?"
        key = ".".join(str(part) for part in item["loc"][2:])
        unknown_key = _unknown(key, list(PlannedShot.__dataclass_fields__))
        what = unknown_key if item["type"] in extra else f"{key}: {item['msg'].lower()}"
        raise ConfigError(f"shot {index}: {what}", where=str(path)) from error
    seen: set[str] = set()
    for shot in plan.shots:
        _check_shot(shot, path)
        if shot.id in seen:
            raise ConfigError(f"two shots are called {shot.id!r}", where=str(path))
        seen.add(shot.id)
    return plan


def _check_shot(shot: PlannedShot, path: Path) -> None:
    if not _SAFE_NAME.fullmatch(shot.id):
        remedy = "use letters, digits, '.', '_' and '-'; it becomes part of file names"
        raise ConfigError(f"shot id {shot.id!r} cannot be used", where=str(path), remedy=remedy)
    if shot.seconds <= 0:
        raise ConfigError(f"shot {shot.id!r}: seconds must be more than 0, not {shot.seconds}", where=str(path))
    for role, name in (("reference", shot.reference), ("truth", shot.truth)):
        if name is None:
            continue
        if not Path(os.path.normpath(path.parent / name)).is_relative_to(os.path.normpath(path.parent)):
            remedy = "copy it into the project folder"
            raise ConfigError(
                f"shot {shot.id!r}: {role} {name!r} is outside the project", where=str(path), remedy=remedy
            )
        if not (path.parent / name).is_file():
            remedy = "give a path relative to the project folder"
            raise ConfigError(f"shot {shot.id!r}: {role} {name!r} does not exist", where=str(path), remedy=remedy)


def section_sha(config: Config, sections: tuple[str, ...]) -> str:
    """sha256 over the named sections, for staleness."""
    data = config.model_dump(mode="json")
    picked = json.dumps({name: data[name] for name in sections}, sort_keys=True)
    return hashlib.sha256(picked.encode()).hexdigest()
