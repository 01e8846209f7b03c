"""What flows between stages: small frozen records on disk, never tensors.

Tensors and pictures live in files; a record names them by a path relative to the project folder and a sha256. Records
are made and checked by `cinetune.records`. A score that could not be computed is `value=None` with the reason in `why`.
"""

from __future__ import annotations

from dataclasses import field
from fractions import Fraction
from typing import Literal

from cinetune.records import SCHEMA, artifact
from cinetune.timecode import Span

__all__ = [
    "DEVELOPS",
    "Arm",
    "Claim",
    "ClipMeasures",
    "Colour",
    "CopySheet",
    "Cue",
    "Delivery",
    "Design",
    "Domain",
    "FileRef",
    "FootageClip",
    "Kept",
    "Keyframe",
    "LatentEntry",
    "Limits",
    "Look",
    "Measures",
    "ModelRef",
    "PlannedShot",
    "Provenance",
    "Reading",
    "Rejected",
    "Rights",
    "SceneMatch",
    "SceneSubject",
    "Score",
    "Scorecard",
    "Segment",
    "Sequence",
    "Shot",
    "ShotPlan",
    "Timing",
    "Trial",
    "Try",
    "Veto",
    "Window",
]

Domain = Literal["in", "out"]
Arm = Literal["base", "trigger", "look", "plain"]
"""What was rendered: the base model; the base model with the look's trigger phrase before its prompt; with the trained
look; with a control trained without reference augmentation."""
Split = Literal["train", "held"]
Method = Literal["as-is", "late", "restyle", "develop", "lead", "settle"]
DEVELOPS: tuple[Method, ...] = ("develop", "lead")
"""Methods whose keyframe is the first picture of the shot's own first segment, made from the reference."""


@artifact
class FileRef:
    """A file inside the project folder: POSIX path relative to it, and the sha256 of its bytes."""

    path: str
    sha256: str


@artifact
class Provenance:
    """How a record came to be. `parents` are the content keys of what it was made from."""

    tool: str
    commit: str | None
    dirty: bool | None
    packages: dict[str, str]
    device: str
    seed: int | None
    config_sha: str
    parents: tuple[str, ...]
    created_utc: str
    wall_seconds: float


@artifact
class Colour:
    """Colour as decoded, and in words how that was decided (`tagged bt709`, `untagged, height >= 720: taken as
    bt709`). `space` (`LogC3`, `PQ`, ...) or the `.cube` file `lut` leads from there to display R'G'B'; "" = it is."""

    matrix: str
    primaries: str
    transfer: str
    full_range: bool
    decided: str
    space: str = ""
    lut: str = ""


@artifact
class Reading:
    """How the frames of a file become the pictures of a clip. `by_time`: picture n is the frame on screen at
    (n + 1/2) / rate; `turn`: quarter turns anticlockwise; `fields`: the filter that makes whole frames of fields."""

    by_time: bool = False
    turn: int = 0
    fields: Literal["", "bwdif", "pulldown"] = ""
    order: Literal["tff", "bff"] = "tff"


@artifact
class Rights:
    owner: str = ""
    licence: str = ""
    consent: str = ""
    document: str = ""


@artifact
class FootageClip:
    """One film file as probed. `rate` is exact, `frames` counted by decoding, `bars` is the picture inside letterbox or
    pillarbox as (x, y, width, height). Sizes and places are those of the picture the right way up. `timecode` counts
    `timecode_base` frames a second where that is not `rate`."""

    id: str
    path: str
    sha256: str
    codec: str
    rate: Fraction
    frames: int
    width: int
    height: int
    pixel_aspect: Fraction
    bars: tuple[int, int, int, int]
    colour: Colour
    timecode: str | None
    timecode_base: Fraction | None = None
    reading: Reading = field(default_factory=Reading)
    rights: Rights = field(default_factory=Rights)
    notes: tuple[str, ...] = ()
    schema: int = SCHEMA


@artifact
class Rejected:
    """A file that could not be used, and why: a row of the ingest table."""

    path: str
    reason: str
    remedy: str
    schema: int = SCHEMA


@artifact
class Shot:
    """One shot: a span of one clip between two cuts. `source` says who cut it (`adaptive`, `edl`, `otio`,
    `xml`, `whole`)."""

    id: str
    clip: str
    span: Span
    source: str
    notes: tuple[str, ...] = ()
    schema: int = SCHEMA


@artifact
class Window:
    """`frames` model-rate frames of one shot. `source_frames` are the absolute source frame numbers, one per model
    frame; `crop` is (x, y, width, height) in source pixels before the resize to `width` x `height`."""

    id: str
    shot: str
    clip: str
    scene: str
    split: Split
    source_frames: tuple[int, ...]
    rate: Fraction
    crop: tuple[int, int, int, int]
    width: int
    height: int
    caption: str
    caption_source: str
    schema: int = SCHEMA


@artifact
class Measures:
    """What a candidate window looks like, as `cinetune.footage.cut.measure` defines it; `left_out` says why it is not
    among the windows, `same_as` which earlier shot shows the same picture; both empty if not."""

    window: str
    motion: float
    sharpness: float
    brightness: float
    black: float
    left_out: str = ""
    same_as: str = ""
    schema: int = SCHEMA


@artifact
class ModelRef:
    """The base model: family (`pocket`, `wan21`), folder or `builtin`, the sha256 over its weights, and which release
    they are ("" = none that is published)."""

    family: str
    location: str
    weights_sha256: str
    release: str = ""


@artifact
class LatentEntry:
    """Cached tensors of one window (safetensors): see `cinetune.stages.cache` for the names and shapes inside."""

    window: str
    split: Split
    scene: str
    model: ModelRef
    file: FileRef
    latent_shape: tuple[int, int, int, int]
    schema: int = SCHEMA


@artifact
class Look:
    """A trained adapter. `arm` is `look`, or `plain` for the control trained without reference augmentation."""

    name: str
    arm: Arm
    model: ModelRef
    rank: int
    alpha: float
    targets: str
    step: int
    stopped: str
    trigger: str
    dataset_sha: str
    recipe_sha: str
    weights: FileRef
    log: FileRef
    licence: str
    provenance: Provenance
    forced: tuple[str, ...] = ()
    """What had changed when an unfinished run was made to go on with `--force`; empty = one run of one recipe."""
    schema: int = SCHEMA


@artifact
class Trial:
    """One training of a sweep at its kept step: what it cost and what it reached; None, with the reason in `why`, where
    it failed. `colour` is the colour error of samples against the film, dE2000; memory is the peak of its process."""

    rank: int
    lr: float
    targets: str
    parameters: int | None = None
    memory_gib: float | None = None
    seconds_per_step: float | None = None
    v_loss: float | None = None
    v_loss_regraded: float | None = None
    distance: float | None = None
    noise: float | None = None
    colour: float | None = None
    step: int | None = None
    alarms: tuple[str, ...] = ()
    log: FileRef | None = None
    weights: FileRef | None = None
    why: str = ""
    schema: int = SCHEMA


@artifact
class Cue:
    """A prompt that takes over `at` seconds into a shot, at the segment that begins nearest to it."""

    at: float
    prompt: str


@artifact
class PlannedShot:
    """A shot to be made.

    `sequence` names the scene it is cut into: its shots are held against each other; deliveries are still named by
    `deliver.seq`.
    `reference` is a picture file relative to the project folder; `keyframe` a painted first picture that is taken as it
    is; `last` a picture to arrive at; `truth` an optional video file of what the film itself would show (known only on
    the backlot or for held-out shots). `prompts` take over later in the shot; `camera` is put behind every prompt.
    `height` and `width` in pixels, 0 = `shoot`'s; `rate` is the frame rate the list asks for, which must be the
    model's. `candidates` and `method` overrule those of `keyframes`; `pick` is the number of the candidate to use, from
    0, in place of the ranking's choice. `look_strength` scales the adapter of a trained arm, `preview_strength` that of
    `shoot.preview_adapter`."""

    id: str
    prompt: str
    domain: Domain
    reference: str = ""
    sequence: str = ""
    seconds: float = 2.0
    seed: int = 0
    negative: str = ""
    camera: str = ""
    prompts: tuple[Cue, ...] = ()
    height: int = 0
    width: int = 0
    rate: str = ""
    method: Method | None = None
    candidates: int | None = None
    pick: int | None = None
    look_strength: float = 1.0
    preview_strength: float = 1.0
    keyframe: str | None = None
    last: str | None = None
    truth: str | None = None


@artifact
class ShotPlan:
    shots: tuple[PlannedShot, ...]
    schema: int = SCHEMA


@artifact
class Keyframe:
    """The picked first picture of a shot in one arm and seed, its method and the ranking of candidates.

    `image` is the picture (16-bit PNG); `condition` the picture the model is given for the first segment (the reference
    itself for `as-is`, `develop` and `lead`, else `image`); `opening` the latents of the first segment where making the
    keyframe already made it (`develop` and `lead`, unless a person picked another candidate)."""

    shot: str
    arm: Arm
    seed: int
    method: Method
    image: FileRef
    condition: FileRef
    opening: FileRef | None
    candidates: tuple[FileRef, ...]
    scores: tuple[float, ...]
    picked: int
    schema: int = SCHEMA


@artifact
class Limits:
    """What true shots read: the 95th percentile of each measure over `clips` of the film."""

    seam: float
    jump: float
    drift: float
    flicker: float
    clips: int


@artifact
class Try:
    """What one try at a segment read, and in `over` which measures were outside the limits. `seam` is None for the
    first segment, which has no join."""

    seed: int
    seam: float | None
    jump: float
    drift: float
    flicker: float
    over: tuple[str, ...]


@artifact
class SceneMatch:
    """How far the shots of one scene (`PlannedShot.sequence`) are from each other, as means over pairs: difference of
    mean L* and distance of their palettes (`cinetune.metrics.scene_spread`). `who` is an arm, or `film` for the mean of
    the film's own scenes, which have neither name nor seed; `keyframe_...` is the same between first pictures."""

    scene: str
    who: str
    seed: int
    shots: int
    light: float
    palette: float
    keyframe_light: float
    keyframe_palette: float


@artifact
class SceneSubject:
    """How alike a scene's shots, and their first pictures, are to the `network` for frames of `score`
    (`cinetune.metrics.subject_likeness`); `who` as in `SceneMatch`; None was not measured, for the reason `why`."""

    scene: str
    who: str
    seed: int
    subject: float | None
    keyframe_subject: float | None
    network: str = ""
    why: str = ""


@artifact
class Segment:
    """`seed` is the one of the try that was kept; `prompt` the one that held in this segment, "" = the shot's; `tries`
    lists all that were made, in order."""

    first_frame: int
    frames: int
    seed: int
    prompt: str = ""
    tries: tuple[Try, ...] = ()


@artifact
class Timing:
    devices: int
    wall_seconds: float
    peak_gib: float | None


@artifact
class Sequence:
    """One generated shot. `video` is the lossless master (safetensors, uint16 `frames_THWC`); `seam_ratio` is |dF| at
    joins over |dF| beside them, `drift` the mean-colour dE2000 of the last frame against the keyframe; `made_by` is the
    base model as it ran (`cinetune.models.model_identity`), a preview's distilled adapter included; `limits` are those
    its segments were held against; `strength` is that of the arm's adapter; a `preview` is for the eye only."""

    shot: str
    arm: Arm
    seed: int
    domain: Domain
    rate: Fraction
    frames: int
    width: int
    height: int
    segments: tuple[Segment, ...]
    seam_ratio: float | None
    drift: float
    video: FileRef
    proxy: FileRef
    keyframe: str
    timing: Timing
    provenance: Provenance
    made_by: dict[str, str] = field(default_factory=dict)
    limits: Limits | None = None
    strength: float = 1.0
    preview: bool = False
    schema: int = SCHEMA


@artifact
class Delivery:
    shot: str
    arm: Arm
    format: str
    version: int
    files: tuple[FileRef, ...]
    rate: Fraction
    frames: int
    conform: str
    schema: int = SCHEMA


@artifact
class Kept:
    """An array that was worked out from a clip (`.npy`): features, or Lab pixels."""

    file: FileRef
    schema: int = SCHEMA


@artifact
class Numbers:
    """Numbers that several runs need and one of them worked out, such as losses of a model before it is trained."""

    values: tuple[float, ...]
    schema: int = SCHEMA


@artifact
class ClipMeasures:
    """Every row of the table of measures on one clip: `values`, None where `why` has the reason; `curve` is the
    perceptual distance to the truth frame by frame, empty where there is none."""

    values: dict[str, float | None]
    why: dict[str, str]
    curve: tuple[float, ...] = ()
    schema: int = SCHEMA


@artifact
class Claim:
    """One thing the page may put in words, declared before shots are made: what `metric` of `arm` does against
    `versus`.

    `closer`: it should improve. `guard`: it must not be lost. `interaction` (domain `both`): the effect inside the
    film's world differs from the one outside. `margin`, in the measure's own unit, is how much worse still counts as
    no worse; None = no such word."""

    kind: Literal["closer", "guard", "interaction"]
    metric: str
    arm: Arm
    versus: Arm
    domain: Literal["in", "out", "both"]
    margin: float | None = None


@artifact
class Design:
    """The experiment as declared: `sha` is over everything but `shots` (by domain) and `declared_utc`, the time at
    which this design was first seen in the project. `power` says in words what so many shots can show. Words hold for
    kinds of shots that at least one in `rarest` is of; rarer ones may not be among them."""

    arms: tuple[Arm, ...]
    seeds: int
    alpha: float
    claims: tuple[Claim, ...]
    shots: dict[str, int]
    power: tuple[str, ...]
    sha: str
    declared_utc: str
    rarest: int = 3
    schema: int = SCHEMA


@artifact
class Veto:
    """Why the named measures of an arm may not read `improved` in a domain, such as copies of training frames;
    `picture` is the evidence."""

    arm: Arm
    domain: Domain
    metrics: tuple[str, ...]
    why: str
    picture: FileRef | None = None
    schema: int = SCHEMA


@artifact
class CopySheet:
    """The shots of an arm that lie nearest to training frames, generated above real, and in words what came of it."""

    arm: Arm
    picture: FileRef
    said: str
    schema: int = SCHEMA


@artifact
class Score:
    """One number with its meaning. `better` is the direction that is good; `low`/`high` a 95 % interval and `low90`/
    `high90` a 90 % one; `n` the count of shots, `harmed` how many of them moved the wrong way, `harmed_most` the
    largest share of such shots that this leaves possible (one-sided 95 % bound).

    A row of a declared claim has its kind in `claim`, a `verdict` in words, and `adjusted`, its p after step-down
    over all claims of the page. Any other row is exploratory: no word, but `q`, its p after Benjamini and
    Hochberg."""

    metric: str
    version: str
    unit: str
    better: Literal["lower", "higher", "none"]
    value: float | None
    low: float | None = None
    high: float | None = None
    low90: float | None = None
    high90: float | None = None
    p: float | None = None
    adjusted: float | None = None
    q: float | None = None
    n: int = 0
    harmed: int | None = None
    harmed_most: float | None = None
    claim: Literal["", "closer", "guard", "interaction"] = ""
    margin: float | None = None
    verdict: str = ""
    why: str = ""


@artifact
class Scorecard:
    """Scores of one comparison: `arm` against `versus` in one `domain` (`both` for the interaction). `arms` holds each
    arm's own level, `effects` the paired differences arm - versus; `protocol` how it was measured; `warnings` what a
    reader must know."""

    arm: Arm
    versus: Arm
    domain: Literal["in", "out", "both"]
    shots: tuple[str, ...]
    seeds: tuple[int, ...]
    levels: dict[str, dict[str, float | None]]
    effects: tuple[Score, ...]
    per_shot: dict[str, dict[str, dict[str, float]]]
    protocol: dict[str, str]
    warnings: tuple[str, ...]
    curves: dict[str, tuple[float, ...]] = field(default_factory=dict)
    """Perceptual distance to the truth frame by frame, mean over shots, by arm."""
    schema: int = SCHEMA
