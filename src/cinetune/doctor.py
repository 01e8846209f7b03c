"""Can this machine do the work? Each check says what it found and, if it is not well, the remedy."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from dataclasses import dataclass
from fractions import Fraction
from importlib import metadata
from pathlib import Path
from typing import Literal

import numpy as np

from cinetune.catalogue import NOT_YET, RELEASES, Release, find_release
from cinetune.config import Config, load_config
from cinetune.durable import atomic_write
from cinetune.errors import CinetuneError
from cinetune.footage.video import MOVIES, probe, read_frames, write_video
from cinetune.models import model_folder
from cinetune.models.files import weights
from cinetune.sections import ModelSection

__all__ = ["Check", "examine", "weights_table"]

_TRIED = (256, 144)
"""Width and height of the movie that each codec writes and reads; DNxHR takes nothing much smaller."""
_FRAMES = 5
_OFF = 0.03
"""Largest difference of a flat grey after coding, of 1."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One line of `cinetune doctor`."""

    name: str
    state: Literal["ok", "warn", "fail"]
    found: str
    remedy: str = ""


def examine(root: Path) -> list[Check]:
    """All checks, for the project in `root` or, where there is none, for the embedded model."""
    checks: list[Check] = []
    model = ModelSection()
    if (root / "cinetune.toml").is_file():
        try:
            model = load_config(root / "cinetune.toml")[0].model
            checks.append(Check(name="project", state="ok", found=str(root.resolve())))
        except CinetuneError as error:
            checks.append(Check(name="project", state="fail", found=error.what, remedy=error.remedy))
    base = find_release(model.family, release=model.release)
    return [
        *checks, _python(), _torch(), _torchvision(), _gpu(base), _memory(base), _disk(root, base), _writable(root),
        *_codecs(), _weights(model),
    ]  # fmt: skip


def _python() -> Check:
    found = ".".join(map(str, sys.version_info[:3]))
    good = sys.version_info >= (3, 11)
    return Check(
        name="python", state="ok" if good else "fail", found=found, remedy="" if good else "install Python 3.11"
    )


def _torch() -> Check:
    try:
        import torch
    except (ImportError, OSError) as error:
        return Check(name="torch", state="fail", found=str(error), remedy="pip install torch")
    build = f"CUDA {torch.version.cuda}" if torch.version.cuda else "CPU build"
    return Check(name="torch", state="ok", found=f"{torch.__version__}, {build}, {torch.get_num_threads()} threads")


def _torchvision() -> Check:
    """cinetune does not need torchvision, but one that was built for another torch breaks transformers' imports."""
    try:
        version = metadata.version("torchvision")
    except metadata.PackageNotFoundError:
        return Check(name="torchvision", state="ok", found="not installed (not needed)")
    try:
        import torchvision  # noqa: F401  # pyright: ignore[reportMissingImports]
    except (ImportError, RuntimeError, OSError) as error:
        remedy = "pip uninstall torchvision, or install the one made for this torch"
        return Check(name="torchvision", state="fail", found=f"{version} is broken: {error}", remedy=remedy)
    return Check(name="torchvision", state="ok", found=version)


def _gpu(base: Release) -> Check:
    try:
        import torch
    except (ImportError, OSError):
        return Check(name="GPU", state="warn", found="cannot be told without torch", remedy="pip install torch")
    if torch.cuda.is_available():
        found = [
            f"{torch.cuda.get_device_name(i)}, {torch.cuda.get_device_properties(i).total_memory / 2**30:.0f} GiB"
            for i in range(torch.cuda.device_count())
        ]
        return Check(name="GPU", state="ok", found="; ".join(found))
    if torch.backends.mps.is_available():
        return Check(name="GPU", state="ok", found="Apple GPU")
    if base.small:
        return Check(name="GPU", state="ok", found=f"none ({base.name} runs on the CPU)")
    remedy = 'use a machine with a CUDA GPU of 48 GB or more, or preset = "pocket"'
    return Check(name="GPU", state="warn", found="none", remedy=remedy)


def _memory(base: Release) -> Check:
    if not hasattr(os, "sysconf") or "SC_PHYS_PAGES" not in os.sysconf_names:
        return Check(name="memory", state="warn", found="cannot be told here")
    gib = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30
    if gib < base.ram_gib:
        remedy = f"{base.name} wants about {base.ram_gib} GiB"
        return Check(name="memory", state="warn", found=f"{gib:.1f} GiB", remedy=remedy)
    return Check(name="memory", state="ok", found=f"{gib:.1f} GiB")


def _disk(root: Path, base: Release) -> Check:
    place = next(path for path in (root.resolve(), *root.resolve().parents) if path.exists())
    free = shutil.disk_usage(place).free / 2**30
    if free < base.disk_gib:
        remedy = f"free at least {base.disk_gib} GiB"
        return Check(name="disk", state="warn", found=f"{free:.1f} GiB free", remedy=remedy)
    return Check(name="disk", state="ok", found=f"{free:.1f} GiB free")


def _writable(root: Path) -> Check:
    if not root.is_dir():
        return Check(name="folder", state="warn", found=f"{root} does not exist", remedy="`cinetune new` makes it")
    probe = root / ".cinetune-doctor"
    try:
        with atomic_write(probe) as temporary:
            temporary.write_text("x", encoding="utf-8")
        probe.unlink()
    except CinetuneError as error:
        return Check(name="folder", state="fail", found=error.what, remedy=error.remedy)
    return Check(name="folder", state="ok", found=f"{root.resolve()} can be written")


def _codecs() -> list[Check]:
    """Every kind of movie written and read back as `ingest` reads a film."""
    import av

    with tempfile.TemporaryDirectory(prefix="cinetune-doctor-") as folder:
        return [_codec(Path(folder), name, f"PyAV {av.__version__}") for name in MOVIES]


def _codec(folder: Path, name: str, reader: str) -> Check:
    movie, (width, height) = MOVIES[name], _TRIED
    path = folder / f"{name}{movie.suffix}"
    frames = np.linspace(0.2, 0.8, _FRAMES, dtype=np.float32)[:, None, None, None] * np.ones((height, width, 3), "f4")
    try:
        write_video(path, frames, rate=Fraction(24), codec=name, timecode="01:00:00:00")
        found = probe(path)
        off = float(np.abs(read_frames(path, range(_FRAMES), colour=found.colour, rate=found.rate) - frames).max())
    except (CinetuneError, OSError, TypeError, AttributeError, ValueError) as error:
        # A release of PyAV with another interface ends in a TypeError or the like; that is what is looked for here.
        remedy = 'pip install --force-reinstall "av>=15,<20"'
        return Check(name=name, state="fail", found=f"{reader}: {str(error).splitlines()[0]}", remedy=remedy)
    if (found.frames, found.rate) != (_FRAMES, Fraction(24)) or off > _OFF:
        wrong = f"{found.frames} frames at {found.rate} fps, levels off by {off:.3f}"
        remedy = "report it with the version of PyAV; do not deliver in this format"
        return Check(name=name, state="fail", found=f"{reader}: read back as {wrong}", remedy=remedy)
    return Check(name=name, state="ok", found=f"{movie.encoder}{movie.suffix}, written and read by {reader}")


def _weights(model: ModelSection) -> Check:
    try:
        folder = model_folder(model)
        weights.need_folder(folder)
        base = model.base()
    except CinetuneError as error:
        embedded = model.family == "pocket" and not model.path
        remedy = "install cinetune again: its embedded weights are missing" if embedded else error.remedy
        return Check(name="weights", state="fail", found=error.what, remedy=remedy)
    return Check(name="weights", state="ok", found=f"{base.name}, {folder}")


def weights_table(root: Path) -> list[dict[str, str]]:
    """The models there are to use: name, whether they are here, size, licence, and how to get them. No network."""
    rows: list[dict[str, str]] = []
    if (root / "cinetune.toml").is_file():
        model = load_config(root / "cinetune.toml")[0].model
        if model.family != "pocket" or model.path:
            rows.append(_weights_row("this project", model, size="", licence=""))
    rows.append(_weights_row("pocket (embedded)", ModelSection(), size="in the package", licence="Apache-2.0"))
    for name, source in RELEASES.items():
        if not source.repository:
            continue
        remedy = f"`cinetune weights pull {name}`, or {source.command}; then set model.path to that folder"
        rows.append(
            {"name": f"{name} ({source.repository})", "state": "to download", "size": f"{source.gib:.0f} GiB",
             "licence": source.licence, "remedy": remedy}
        )  # fmt: skip
    for name, why in NOT_YET.items():
        rows.append({"name": name, "state": "not yet", "size": "", "licence": "Apache-2.0", "remedy": why})
    return rows + _network_rows(root)


def _network_rows(root: Path) -> list[dict[str, str]]:
    """The feature networks that `score.features` can name, but for the base model's own."""
    from cinetune.metrics.networks import LEFT_OUT, NETWORKS, problems

    config = load_config(root / "cinetune.toml")[0] if (root / "cinetune.toml").is_file() else Config()
    folder = root / Path(config.score.networks).expanduser()
    rows: list[dict[str, str]] = []
    for row in NETWORKS:
        if row.name == "own":
            continue
        why = problems(row, folder / row.name)
        state = "usable" if not why else "to download" if row.repository else "to bring"
        brought = f"`cinetune weights take {row.name} FILE`, with {row.source}"
        remedy = f"`cinetune weights pull {row.name}`" if row.repository else brought
        rows.append(
            {"name": f"{row.name} ({row.title})", "state": state, "size": f"{row.mib} MiB", "licence": row.licence,
             "remedy": f"{remedy}; sees {row.sees}; blind to {row.blind}" if why else ""}
        )  # fmt: skip
    for name, why in LEFT_OUT.items():
        rows.append({"name": name, "state": "not offered", "size": "", "licence": "", "remedy": why})
    return rows


def _weights_row(name: str, model: ModelSection, *, size: str, licence: str) -> dict[str, str]:
    check = _weights(model)
    state = "usable" if check.state == "ok" else "not usable"
    return {"name": name, "state": state, "size": size, "licence": licence, "remedy": check.remedy}
