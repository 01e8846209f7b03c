"""The sections of the project file: every setting with its default and its limits, and in words what its name does not
say. The pages of the verbs in `docs/stages` explain all of them.
"""

from __future__ import annotations

import os
import re
import string
from pathlib import Path
from typing import Annotated, Literal

import pydantic

from cinetune.artifacts import Method
from cinetune.catalogue import RELEASES, TARGETS, Release, find_release
from cinetune.outside import on_disk, path_text
from cinetune.patterns import Pattern, PatternError

__all__ = [
    "NOT_RECIPE",
    "AugmentSection",
    "CaptionSection",
    "ColourRule",
    "DeliverSection",
    "DesignSection",
    "FootageSection",
    "KeyframesSection",
    "ModelSection",
    "ParallelSection",
    "PrepareSection",
    "ScoreSection",
    "Section",
    "ShootSection",
    "TrainSection",
    "delivery_name",
]


class Section(pydantic.BaseModel):
    """Unknown keys and NaN are refused; nothing changes once it is read. Every number has a largest value, far above
    what anybody uses: a slip of the pen ends here, and not in a run that never does.
    """

    model_config = pydantic.ConfigDict(coerce_numbers_to_str=True, extra="forbid", frozen=True, allow_inf_nan=False)

    @pydantic.field_validator("*", mode="before")
    @classmethod
    def _no_word_for_a_number(cls, value: object, info: pydantic.ValidationInfo) -> object:
        wanted = cls.model_fields[info.field_name or ""].annotation
        if isinstance(value, bool) and wanted in (int, float):  # true would be 1
            raise ValueError("a number is wanted, not true or false")
        return value


def _ordered(pair: tuple[float, float]) -> tuple[float, float]:
    if pair[0] > pair[1]:
        raise ValueError("the first of the two must not be larger than the second")
    return pair


def _known_family(family: str) -> str:
    families = dict.fromkeys(row.family for row in RELEASES.values())
    if family not in families:
        raise ValueError(f"one of {', '.join(families)}")
    return family


def _known_targets(targets: str) -> str:
    if targets.startswith("regex:"):
        try:
            Pattern(targets.removeprefix("regex:"))
        except PatternError as error:
            raise ValueError(f"not a pattern: {error}") from error
    elif targets not in TARGETS:
        raise ValueError(f"one of {', '.join(TARGETS)}, or regex: and a pattern of layer names")
    return targets


_Factor = Annotated[float, pydantic.Field(ge=-1000, le=1000)]
Between = Annotated[tuple[_Factor, _Factor], pydantic.AfterValidator(_ordered)]
"""Lowest and highest value of a random range."""
_Power = Annotated[float, pydantic.Field(gt=0, le=1000)]
BetweenPositive = Annotated[tuple[_Power, _Power], pydantic.AfterValidator(_ordered)]
Decay = Annotated[float, pydantic.Field(ge=0, lt=1)]
_Words = Annotated[int, pydantic.Field(ge=1, le=10_000)]


def _path_name(name: str, info: pydantic.ValidationInfo) -> str:
    """A path as the disk spells it, from the folder of the project file; unchanged where that is not known."""
    root: Path | None = (info.context or {}).get("root")
    if not path_text(name) or root is None:
        return name
    found = on_disk(root, name)
    if found == root / name:
        return name
    return str(found) if Path(name).is_absolute() else os.path.relpath(found, root)


PathName = Annotated[str, pydantic.AfterValidator(_path_name)]


class ColourRule(pydantic.BaseModel):
    """`[[footage.colour]]`: colour of the files whose name, or path in `footage.folder`, fits the pattern `match`. What
    it leaves empty is read from the file.
    """

    model_config = pydantic.ConfigDict(extra="forbid", frozen=True)

    match: str
    space: Literal[
        "",
        "ACES2065-1",
        "ACEScg",
        "HLG",
        "Log3G10",
        "LogC3",
        "LogC4",
        "P3-D65",
        "PQ",
        "Rec2020",
        "Rec709",
        "S-Log3",
        "V-Log",
        "linear",
    ] = ""
    """What the code values mean; logs come with their makers' gamut (see `cinetune.footage.read.spaces`)."""
    lut: PathName = ""
    """A .cube file, relative to the project, from the file's R'G'B' to display R'G'B'; then `space` is not used."""
    matrix: Literal["", "bt601", "bt709", "bt2020"] = ""
    levels: Literal["", "full", "limited"] = ""


class ModelSection(Section):
    family: Annotated[str, pydantic.AfterValidator(_known_family)] = "pocket"
    release: str = ""
    """Which release of the family the weights are, where their folder does not say: `wan21-480p`, `wan21-720p`."""
    path: PathName = ""
    """Folder with the diffusers weights; empty = the weights inside the package (pocket only)."""
    device: str = "auto"
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    clip_preprocess: Literal["squash", "crop"] = "squash"
    """How the first frame reaches CLIP: the whole frame squashed to a square (original Wan) or diffusers' centre
    crop."""
    storage: Literal["plain", "fp8", "int8", "nf4"] = "plain"
    """How the frozen weights of the denoiser's blocks are kept; they compute in `dtype` unless `compute` says fp8."""
    compute: Literal["dtype", "fp8"] = "dtype"
    """`fp8` multiplies weights stored in fp8 as they are, inputs and gradients rounded to fp8 row by row. For cards
    that can (Hopper and later); it changes numbers and is never chosen for you."""
    offload_blocks: int = pydantic.Field(default=0, ge=0, le=1000)
    """Blocks whose weights stay in host memory and travel to the device each time they are needed."""
    vae_tile: int = pydantic.Field(default=0, ge=0, le=8192, multiple_of=16)
    """Side in pixels of the tiles that the VAE takes a picture in, at least 128; 0 = whole. Only for cards that cannot
    hold it: tiles show."""
    attention: Literal[
        "auto",
        "native",
        "_native_cudnn",
        "_native_flash",
        "_native_flash_3",
        "_native_efficient",
        "_native_math",
        "flash",
        "_flash_3",
        "xformers",
        "flex",
        "sage",
    ] = "auto"
    """diffusers' name of the attention kernels; `auto` takes the fastest here, timed when training starts, and says
    why."""

    @pydantic.model_validator(mode="after")
    def _stored_as_computed(self) -> ModelSection:
        if self.compute == "fp8" and self.storage != "fp8":
            raise ValueError('model.compute = "fp8" needs model.storage = "fp8"')
        return self

    @pydantic.model_validator(mode="after")
    def _of_the_family(self) -> ModelSection:
        known = [name for name, row in RELEASES.items() if row.family == self.family]
        if 0 < self.vae_tile < 128:
            raise ValueError(f"model.vae_tile must be 0 or at least 128, not {self.vae_tile}")
        if self.release and self.release not in known:
            raise ValueError(f"model.release must be one of {', '.join(known)}, not {self.release!r}")
        return self

    def base(self) -> Release:
        """The base model, without loading it. Raises `ConfigError` when nothing says which release it is."""
        folder = Path(self.path).expanduser() if self.path else None
        return find_release(self.family, release=self.release, folder=folder)


class FootageSection(Section):
    folder: PathName = "footage"
    detector: Literal["adaptive", "none"] = "adaptive"
    edit_list_time: Literal["auto", "source", "record"] = "auto"
    """`record` lays edit lists over the finished film, `source` over what it was cut from."""
    min_shot_seconds: float = pydantic.Field(default=0.5, gt=0, le=3600)
    crop_bars: bool = True
    strict_rights: bool = False
    variable_rate: Literal["resample", "refuse"] = "resample"
    alpha: Literal["black", "refuse"] = "black"
    interlaced: Literal["refuse", "bwdif", "keep"] = "refuse"
    pulldown: Literal["remove", "refuse"] = "remove"
    sequence_rate: str = "24"
    """Frames per second of numbered pictures whose headers do not say."""
    slates: Literal["drop", "keep"] = "drop"
    """Colour bars, countdown leaders, slates, title cards, charts and plain cards."""
    max_burn_in: float = pydantic.Field(default=0.05, ge=0, le=1)
    """Largest share of the picture that burnt-in text and logos may cover; 1 = all of it."""
    colour: tuple[ColourRule, ...] = ()


class PrepareSection(Section):
    frames: int = pydantic.Field(default=33, ge=5, le=10_001)
    """Frames of one training window at the model's native rate; must be 4n+1. The paper: 33."""
    height: int = pydantic.Field(default=0, ge=0, le=16_384)
    width: int = pydantic.Field(default=0, ge=0, le=16_384)
    """0 = the model's own training size."""
    trigger: str = ""
    """A phrase put before every training caption and every prompt of the look arm; empty = none."""
    windows: Literal["central", "head", "slide", "uniform", "all"] = "central"
    """Where they lie in a shot. `slide` lays one every `stride` frames at the model's rate; 0 = half a window."""
    stride: int = pydantic.Field(default=0, ge=0, le=100_000)
    max_windows_per_shot: int = pydantic.Field(default=0, ge=0, le=1_000_000)
    """0 = one for `central` and `uniform`, no limit for the others."""
    max_windows_per_scene: int = pydantic.Field(default=0, ge=0, le=1_000_000)
    min_motion: float = pydantic.Field(default=0.0, ge=0, le=10_000)
    min_sharpness: float = pydantic.Field(default=0.0, ge=0, le=1)
    """Windows with less are left out; 0 = off. Motion is in per cent of the picture's width per second."""
    held_fraction: float = pydantic.Field(default=0.2, ge=0, lt=1)
    """Share of *scenes* kept out of training, for validation."""
    on_leak: Literal["refuse", "move", "warn"] = "refuse"
    duplicates: Literal["keep", "drop"] = "keep"
    """Shots that show the same picture as one before them. Angles that are cut back to are such shots too."""
    require_captions: bool = True


class AugmentSection(Section):
    """Reference augmentation: the condition frame is re-graded at random while the target keeps the look."""

    probability: float = pydantic.Field(default=0.0, ge=0, le=1)
    saturation: Between = (0.85, 1.4)
    gain: Between = (0.94, 1.07)
    offset: Between = (-0.05, 0.05)
    gamma: BetweenPositive = (0.8, 1.15)
    grain: float = pydantic.Field(default=0.0, ge=0, le=1)
    blur: float = pydantic.Field(default=0.0, ge=0, le=1000)
    variants: int = pydantic.Field(default=4, ge=1, le=1000)
    """How many re-graded condition frames are cached for each window."""
    single_frame: float = pydantic.Field(default=0.0, ge=0, le=1)
    """Share of steps on one-frame windows."""


class TrainSection(Section):
    rank: int = pydantic.Field(default=8, ge=1, le=4096)
    alpha: float = pydantic.Field(default=16.0, gt=0, le=1_000_000)
    targets: Annotated[str, pydantic.AfterValidator(_known_targets)] = "cross"
    """Layers to adapt: cross, cross-text, attention, all-linear, or `regex:` and a pattern of whole layer names."""
    init_from: PathName = ""
    """An adapter, of any origin, to start from in place of a fresh one: a file or folder, relative to the project."""
    lr: float = pydantic.Field(default=3e-5, gt=0, le=100)
    betas: tuple[Decay, Decay] = (0.9, 0.999)
    weight_decay: float = pydantic.Field(default=0.01, ge=0, le=1000)
    warmup: float = pydantic.Field(default=0.05, ge=0, lt=1)
    """Share of `steps` in linear warm-up."""
    schedule: Literal["cosine", "constant"] = "cosine"
    """After warm-up: half a cosine down to zero, or no change."""
    steps: int = pydantic.Field(default=4000, ge=1, le=10_000_000)
    batch: int = pydantic.Field(default=1, ge=1, le=4096)
    accumulate: int = pydantic.Field(default=4, ge=1, le=100_000)
    max_grad_norm: float = pydantic.Field(default=1.0, gt=0, le=1_000_000_000)
    ema: Decay = 0.0
    """Decay of a moving average of the adapter, which is then what is evaluated and kept; 0 = off. It looks back about
    1 / (1 - ema) steps."""
    timesteps: Literal["logit-normal", "uniform"] = "logit-normal"
    shift: float = pydantic.Field(default=3.0, gt=0, le=1000)
    caption_dropout: float = pydantic.Field(default=0.1, ge=0, le=1)
    checkpointing: Literal["auto", "none", "selective", "full"] = "auto"
    """What is computed a second time in the backward, to save memory: nothing, all but attention, or every block;
    `auto` is the least that fits the card by the plan."""
    compile: bool = False
    """Compile the denoiser's blocks: minutes at the start, then faster steps; last digits differ."""
    products: Literal["layer", "float32"] = "layer"
    """The type in which a float32 adapter multiplies: its layer's, or float32, which copies every layer's input."""
    augment: AugmentSection = AugmentSection()
    plain_arm: bool = False
    """Also train a second adapter without reference augmentation, as a control."""
    workers: int = pydantic.Field(default=1, ge=1, le=1000)
    """Processes that train arms side by side, one CPU thread each; 1 = one arm after the other with all threads."""
    validate_every: int = pydantic.Field(default=200, ge=1, le=10_000_000)
    patience: int = pydantic.Field(default=4, ge=1, le=10_000_000)
    """Evaluations without an LPIPS gain of `min_delta` before training stops."""
    min_delta: float = pydantic.Field(default=0.001, ge=0, le=1_000_000)
    """Never less than the noise that `validation_seeds` measures."""
    validation_seeds: int = pydantic.Field(default=4, ge=1, le=1000)
    """Sampling seeds the untrained model is judged with, for the A/A noise of the distance; 1 = not measured."""
    validation_shots: int = pydantic.Field(default=4, ge=1, le=10_000)
    validation_windows: int = pydantic.Field(default=16, ge=1, le=1_000_000)
    """Held-out windows the velocity loss is taken on, spread over the held-out scenes."""
    validation_steps: int = pydantic.Field(default=8, ge=1, le=10_000)
    checkpoint_every: int = pydantic.Field(default=100, ge=1, le=10_000_000)
    trackers: tuple[Literal["tensorboard", "wandb", "trackio", "mlflow"], ...] = ()
    """Where the numbers of log.jsonl go as well, as local files beside it."""
    seed: int = pydantic.Field(default=0, ge=-(2**62), le=2**62)


NOT_RECIPE = {"checkpoint_every", "checkpointing", "init_from", "plain_arm", "trackers", "workers"}
"""Settings of `train` that change how a run is saved, where it runs or what else is trained, not what is asked for.
Checkpointing gives the same bits: a run that ran out of memory may go on with more of it, and with blocks offloaded.
`init_from` is a place: what lies there is in the fingerprint.
"""


class ParallelSection(Section):
    """How the processes that `torchrun` starts share the work; without it there is one and only the defaults fit."""

    data: Literal["ddp", "fsdp", "hsdp"] = "ddp"
    """Where the frozen base lies: whole on every card, in shards over all, or in shards inside each of `replicas`
    groups. The adapter and its optimiser are always whole."""
    replicas: int = pydantic.Field(default=0, ge=0, le=100_000)
    """`hsdp` only: groups of cards that hold one whole base each; 0 = one for each machine."""
    ulysses: int = pydantic.Field(default=1, ge=1, le=100_000)
    """Cards that share the tokens of one window (context parallel); neighbours, so keep them inside one machine."""
    backend: Literal["auto", "gloo", "nccl"] = "auto"
    timeout_minutes: float = pydantic.Field(default=30.0, gt=0, le=1_000_000)
    """How long one process waits for another before the run ends."""


class KeyframesSection(Section):
    method: Method = "develop"
    candidates: int = pydantic.Field(default=1, ge=1, le=1000)
    strength: float = pydantic.Field(default=0.6, gt=0, le=1)
    """`restyle` only: share of the noise schedule that is run."""


class ShootSection(Section):
    segment_frames: int = pydantic.Field(default=33, ge=5, le=10_001)
    steps: int = pydantic.Field(default=40, ge=1, le=10_000)
    guidance: float = pydantic.Field(default=5.0, ge=1, le=1000)
    shift: float = pydantic.Field(default=3.0, gt=0, le=1000)
    seeds: int = pydantic.Field(default=1, ge=1, le=1000)
    """Seeds rendered for each shot and arm; scores average over them."""
    overlap: int = pydantic.Field(default=1, ge=1, le=10_001)
    """Pictures that a segment shares with the one before it, 4n+1: it is led through them, and adds what follows."""
    anchor: float = pydantic.Field(default=0.0, ge=0, le=1)
    """Strength of the ramped colour anchor to the settled first segment."""
    tries: int = pydantic.Field(default=1, ge=1, le=16)
    """How often a segment that true shots of the film do not read like is made, at most; the best try is kept."""
    gate: Literal["report", "strict"] = "report"
    """`strict`: a segment that is still outside after its tries ends the run (exit code 4)."""
    preview: bool = False
    """A quick look: fewer steps, a smaller picture, steps cached. Labelled, never scored."""
    preview_steps: int = pydantic.Field(default=6, ge=1, le=10_000)
    preview_share: float = pydantic.Field(default=0.5, gt=0, le=1)
    """Of each side of the picture."""
    preview_cache: float = pydantic.Field(default=0.1, ge=0, lt=1)
    """Change of the first block's residual under which a step leaves out the other blocks; 0 = none does."""
    preview_adapter: PathName = ""
    """A step-distilled adapter beside the look's, in every arm of a preview: a file or folder, relative to the
    project."""
    preview_guidance: float = pydantic.Field(default=0.0, ge=0, le=1000)
    """Of previews; 0 = `guidance`. Distilled adapters are made for 1."""
    height: int = pydantic.Field(default=0, ge=0, le=16_384)
    width: int = pydantic.Field(default=0, ge=0, le=16_384)
    executor: Literal["local", "ray", "slurm"] = "local"
    """Who makes the shots: processes on this machine, a Ray cluster, or Slurm jobs."""
    workers: int = pydantic.Field(default=0, ge=0, le=10_000)
    """Processes, actors or jobs side by side, each with the model in memory; 0 = one for each card. On a machine with
    cards there is never more than one for each."""
    split_guidance: bool = False
    """Under `torchrun`: of the two passes of guidance each of two processes makes one."""
    ulysses: int = pydantic.Field(default=1, ge=1, le=100_000)
    """Under `torchrun`: processes that share the tokens of one pass."""
    shard: bool = False
    """Under `torchrun`: the frozen base lies in shards over all processes, which then make one shot at a time."""
    compile: bool = False
    """Compile the denoiser's blocks: minutes at the start of each worker, then faster steps; last digits differ. Not
    for previews, which leave out blocks."""
    options: dict[str, str | int | float] = {}
    """Of the executor: Slurm's by submitit's names (`slurm_partition`, `timeout_min`), Ray's for each actor."""

    @property
    def moves_last_digits(self) -> dict[str, int | bool]:
        """Settings under which the same shot is made in another way of adding up, where they are on."""
        shared = {"ulysses": self.ulysses} if self.ulysses > 1 else {}
        return shared | ({"compile": True} if self.compile and not self.preview else {})

    @property
    def at_once(self) -> int:
        """Shots made side by side on one card or CPU."""
        return max(self.workers, 1)


DeliveryName = Literal[
    "proxy", "proxy_hevc", "proxy_hevc10", "prores_hq", "prores_4444", "dnxhr_hqx", "dnxhr_hqx_mxf",
    "png16", "tiff16", "exr_linear", "exr_display",
]  # fmt: skip


FILM_RATE = "film"


class DeliverSection(Section):
    formats: tuple[DeliveryName, ...] = pydantic.Field(default=("proxy", "prores_hq", "png16"), min_length=1)
    conform: Literal["none", "hold", "blend", "retime", "minterpolate"] = "hold"
    rate: str = FILM_RATE
    """Frames per second of deliveries: `film` = what most of the film runs at, or a rate (`24`, `24000/1001`)."""
    bars: str = pydantic.Field(default="", pattern=r"^([1-9][0-9]{0,4}(\.[0-9]{1,6})?([:/][1-9][0-9]{0,4})?)?$")
    """Aspect ratio outside of which the picture is black (`2.39`, `16:9`); empty = no bars."""
    slate: Literal["second", "frame", "none"] = "second"
    burn_in: bool = True
    """Slate and burn-in are for the proxies; every other format is clean."""
    name: str = "{seq}_{shot}_{task}_v{version:03d}"
    seq: str = "SQ010"
    height: int = pydantic.Field(default=0, ge=0, le=16_384)
    """Picture height of movies (Lanczos from the master); 0 = as generated."""
    arms: tuple[Literal["base", "look", "plain"], ...] = pydantic.Field(default=("base", "look"), min_length=1)
    c2pa_certificate: PathName = ""
    """Certificate chain (PEM file) that .mp4 and .mov are signed with, and its key; empty = not signed."""
    c2pa_key: PathName = ""


def delivery_name(section: DeliverSection, *, shot: str, task: str, version: int) -> str:
    """`deliver.name` filled in: a file name without its suffix. It takes the four fields by name and nothing of them:
    `format` alone would look up attributes, and fill memory for `{version:0999999999d}`. Raises `ValueError`.
    """
    fields = {"seq": section.seq, "shot": shot, "task": task, "version": version}
    name = ""
    for text, field_name, layout, conversion in string.Formatter().parse(section.name):
        name += text
        if field_name is None:
            continue
        number = field_name == "version" and re.fullmatch(r"0?\d?d?", layout or "", re.ASCII)
        if field_name not in fields or conversion or not (number or not layout):
            raise ValueError(f"{{{field_name}{':' if layout else ''}{layout}}} is none of its fields")
        name += format(fields[field_name], layout or "")
    if re.fullmatch(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,199}", name) is None:
        raise ValueError(f"{name[:80]!r} is not a safe file name: use at most 200 letters, digits, '.', '_' and '-'")
    return name


class DesignSection(Section):
    """`[score.design]`: what the page may put in words, declared before shots are made. Other measures are exploratory:
    they get numbers, never a word. Seeds are `shoot.seeds`."""

    arms: tuple[Literal["base", "trigger", "look", "plain"], ...] = ("base", "trigger", "look", "plain")
    """What is rendered, where there is such a thing: `trigger`, the base model with the trigger phrase, needs
    `prepare.trigger`; `plain` needs `train.plain_arm`. `base` and `look` always are."""
    domains: tuple[Literal["in", "out"], ...] = ("in", "out")
    closer: tuple[str, ...] = ("tone_w1", "colour_error")
    """Measures that should improve."""
    guards: tuple[str, ...] = ("structure", "motion_error", "luma_flicker")
    """Measures that must not be lost."""
    interaction: tuple[str, ...] = ("colour_error",)
    """Measures whose effect is compared between the domains."""
    control: tuple[str, ...] = ("colour_error",)
    """Measures in which the look should beat the plain arm, in the film's domain."""
    margins: dict[str, Annotated[float, pydantic.Field(gt=0, le=1_000_000)]] = {}
    """How much worse still counts as no worse, by measure in its own unit, in place of the defaults."""
    rarest: int = pydantic.Field(default=3, ge=3, le=100)
    """One shot in so many may be of a kind that the look breaks, and words still hold; the rarer, the more shots a word
    needs: 8 for one in three, 23 for one in eight."""


FeatureName = Literal[
    "own", "clip-l", "clip-b", "dinov2", "inception", "efficientnet", "i3d", "vjepa2", "lpips"
]  # fmt: skip


class ScoreSection(Section):
    features: tuple[FeatureName, ...] = pydantic.Field(default=("own",), min_length=1)
    """Feature networks to measure with; `cinetune weights` lists them. `own` is the base model's image encoder. The
    first one for frames gives the measures their plain names."""
    networks: PathName = "networks"
    """Folder that holds the others, one folder each by name; relative to the project."""
    reference: dict[Literal["in", "out"], PathName] = {"in": "", "out": ""}
    """Real clips of each domain: a folder of clips, or one movie; empty = the truths that the shot list names."""
    alpha: float = pydantic.Field(default=0.05, gt=0, lt=1)
    design: DesignSection = DesignSection()


class CaptionSection(Section):
    """Captions by a vision-language model, for shots that have none."""

    backend: Literal["transformers", "http"] = "transformers"
    path: PathName = ""
    """`transformers`: the folder of a Qwen2.5-VL or Qwen3-VL model."""
    base_url: str = "http://127.0.0.1:8000/v1"
    model: str = ""
    """`http`: what the server calls the model."""
    key_env: str = ""
    """`http`: name of the environment variable with the key; empty = no key is sent."""
    frames: int = pydantic.Field(default=8, ge=1, le=64)
    size: int = pydantic.Field(default=512, ge=32, le=16_384)
    """Longest side of the pictures shown, in pixels."""
    words: tuple[_Words, _Words] = (80, 100)
    """Fewest and most words of a caption."""
    language: Literal["en", "any"] = "en"
    """`any` leaves out the checks that know English."""
    prompt: str = ""
    """A question of your own; empty = `cinetune.footage.notes.captions.PROMPT`."""
    workers: int = pydantic.Field(default=2, ge=1, le=1000)
    """`http`: questions asked at the same time."""
    timeout: float = pydantic.Field(default=180.0, gt=0, le=1_000_000)
    """`http`: seconds to wait for an answer."""
    retries: int = pydantic.Field(default=4, ge=0, le=1000)
    """`http`: how often a busy or failing server is asked again."""

    @pydantic.field_validator("words")
    @classmethod
    def _in_order(cls, words: tuple[int, int]) -> tuple[int, int]:
        if not 1 <= words[0] <= words[1]:
            raise ValueError("the first of the two must be at least 1 and not larger than the second")
        return words
