"""Every base model there is, by release: what it expects of footage, what it needs, where it can be had. No torch.

Two releases of one family have the same files but for their numbers (Wan2.1-I2V-14B at 480P and 720P), so the files do
not tell which they are. `cinetune weights pull` writes it into the folder (`cinetune.json`), or the user says it
(`model.release`); the name of a folder never counts.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

from cinetune.errors import ConfigError, StoreError, WeightsError
from cinetune.outside import read_table
from cinetune.records import artifact, from_json

__all__ = [
    "FACTS",
    "NOT_YET",
    "RELEASES",
    "TARGETS",
    "Recorded",
    "Release",
    "check_both",
    "find_release",
    "picture_size",
]

FACTS = "cinetune.json"
"""What is recorded beside a model's weights; it has the last word."""

_BLOCK = r"blocks\.\d+\."
TARGETS = {
    "cross": _BLOCK + r"attn2\.(to_q|to_k|to_v|to_out\.0|add_k_proj|add_v_proj)",
    "cross-text": _BLOCK + r"attn2\.(to_q|to_k|to_v|to_out\.0)",
    "attention": _BLOCK + r"attn[12]\.(to_q|to_k|to_v|to_out\.0)",
    "all-linear": _BLOCK + r"(attn[12]\.(to_q|to_k|to_v|to_out\.0|add_k_proj|add_v_proj)|ffn\.net\.(0\.proj|2))",
}
"""Layers of Wan's denoiser that an adapter can be put on by name: full-match patterns over module names. A list of
suffixes would not do: `to_q` is also in self-attention."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Release:
    """A base model as it was published. `rate` in frames per second, sizes in pixels, `frames` and `shift` of its own
    training; the sides of a picture are multiples of `multiple`. Memory and disk are what a run wants at least, in
    GiB; `components_gib` the networks at their usual precision (VAE and CLIP float32, the rest bfloat16). `small`: it
    is meant for a CPU. Without a repository the weights lie in the package. `key` is empty for weights that are no
    published release.
    """

    key: str
    family: str
    name: str
    rate: Fraction
    height: int
    width: int
    multiple: int
    frames: int
    shift: float
    ram_gib: int
    disk_gib: int
    licence: str
    repository: str = ""
    small: bool = False
    components_gib: Mapping[str, float] = field(default_factory=dict)
    targets: Mapping[str, str] = field(default_factory=lambda: TARGETS)

    @property
    def gib(self) -> float:
        """Size of the download; repositories that store the denoiser in float32 need about twice as much disk."""
        return round(sum(self.components_gib.values()), 2)

    @property
    def command(self) -> str:
        """How to get it without cinetune."""
        return f"hf download {self.repository} --local-dir {self.repository.rsplit('/', 1)[-1]}"


_WAN21 = Release(
    key="wan21-480p", family="wan21", name="Wan2.1-I2V-14B-480P", rate=Fraction(16), height=480, width=832,
    multiple=16, frames=81,
    shift=3.0, ram_gib=48, disk_gib=60, licence="Apache-2.0",
    repository="Wan-AI/Wan2.1-I2V-14B-480P-Diffusers",
    components_gib={"transformer": 30.54, "vae": 0.47, "text_encoder": 10.58, "image_encoder": 2.35},
)  # fmt: skip

_ROWS = (
    Release(
        key="pocket", family="pocket", name="pocket", rate=Fraction(16), height=64, width=96, multiple=8,
        frames=33, shift=3.0, ram_gib=4, disk_gib=2, licence="Apache-2.0", small=True,
    ),
    _WAN21,
    replace(
        _WAN21, key="wan21-720p", name="Wan2.1-I2V-14B-720P", height=720, width=1280, shift=5.0,
        repository="Wan-AI/Wan2.1-I2V-14B-720P-Diffusers",
    ),
)  # fmt: skip
RELEASES = {row.key: row for row in _ROWS}
"""The first of a family is meant as long as there are no weights to look at."""

NOT_YET = {
    "wan21-flf2v": "Wan2.1 FLF2V is always given a last frame, and shots here have none",
    "wan22-i2v": "Wan2.2 I2V-A14B has two experts, and a look would need an adapter for each",
}
"""Relatives that are asked for, and why they are not supported."""


@artifact
class Recorded:
    """The file `cinetune.json` in a folder of weights: which release it is, and facts that differ from the release's
    own. Everything may be left out.
    """

    release: str = ""
    commit: str = ""
    name: str | None = None
    rate: Fraction | None = None
    frames: int | None = None
    height: int | None = None
    width: int | None = None
    shift: float | None = None
    licence: str | None = None


def find_release(family: str, *, release: str = "", folder: Path | None = None) -> Release:
    """The base model of a family: the release that is named, else what the folder's own record says, else the only or,
    while there is no folder, the first one.

    Raises `ConfigError` when a folder of several possible releases does not say which it is, or says another than
    `release`; `WeightsError` when its record cannot be read.
    """
    known = {name: row for name, row in RELEASES.items() if row.family == family}
    there = folder is not None and folder.is_dir()
    recorded = _recorded(folder) if folder is not None and there else Recorded()
    if release and recorded.release and release != recorded.release:
        remedy = "name the folder of that release in model.path, or leave model.release out"
        what = f"model.release is {release}, but these weights are {recorded.release}"
        raise ConfigError(what, where=str(folder), remedy=remedy)
    name = release or recorded.release
    if name and name not in known:
        what = f"{name!r} is no release of {family}"
        raise ConfigError(what, where=str(folder or "model.release"), remedy=f"one of {', '.join(known)}")
    if there and len(known) > 1 and not name and not (recorded.height and recorded.width):
        choices = " or ".join(f'"{one}" ({row.width}x{row.height})' for one, row in known.items())
        raise ConfigError(
            f"which release of {family} is in this folder? Its files do not say",
            where=str(folder),
            remedy=f"set model.release = {choices}; `cinetune weights pull` writes it into the folder by itself",
        )
    row = known[name] if name else next(iter(known.values()))
    own = {part.name: getattr(recorded, part.name) for part in fields(row) if hasattr(recorded, part.name)}
    row = replace(row, key="" if there and not name else row.key)
    row = replace(row, **{key: value for key, value in own.items() if value is not None})
    return replace(row, multiple=_multiple(folder) or row.multiple) if folder is not None and there else row


def check_both(height: int, width: int, *, section: str) -> None:
    """Raise `ConfigError` for half a size: the other side would be the model's own, in another shape."""
    if bool(height) != bool(width):
        raise ConfigError(f"{section}.height and {section}.width go together", remedy="give both, or neither")


def picture_size(own: Release, height: int, width: int, *, section: str) -> tuple[int, int]:
    """Picture (height, width) that `section.height` and `.width` ask for; 0 and 0 = the model's own size.

    Raises `ConfigError` for half a size, and for sides that the model cannot take.
    """
    check_both(height, width, section=section)
    if not height:
        return own.height, own.width
    if height % own.multiple or width % own.multiple:
        near = [max(own.multiple, round(side / own.multiple) * own.multiple) for side in (height, width)]
        raise ConfigError(
            f"{own.name} needs sides that are multiples of {own.multiple}, not {width}x{height}",
            remedy=f"set {section}.height = {near[0]} and {section}.width = {near[1]}",
        )
    return height, width


def _recorded(folder: Path) -> Recorded:
    path = folder / FACTS
    if not path.is_file():
        return Recorded()
    try:
        return from_json(Recorded, path.read_bytes(), where=str(path))
    except (StoreError, OSError) as error:
        remedy = "delete it and set model.release, or run `cinetune weights pull` again"
        raise WeightsError(f"{FACTS} cannot be read: {error}", where=str(folder), remedy=remedy) from error


def _multiple(folder: Path) -> int:
    """Stride of the VAE times the denoiser's patch, from their configurations; 0 while they are not there."""
    try:
        vae, denoiser = (
            read_table(folder / part / "config.json", refuse=WeightsError) for part in ("vae", "transformer")
        )
    except WeightsError:
        return 0  # whoever needs the weights says what is wrong with them
    return _whole(vae, "scale_factor_spatial") * _whole(denoiser, "patch_size")


def _whole(table: dict[str, Any], key: str) -> int:
    value = table.get(key)
    side = value[-1] if isinstance(value, list) and value else value
    return side if isinstance(side, int) else 0
