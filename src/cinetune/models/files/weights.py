"""Whether a folder really holds the weights it should, and by which hash they are known.

Nothing here touches the network: a missing model is an error that says what to download and with which command.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

from cinetune.catalogue import RELEASES
from cinetune.durable import atomic_write, sweep
from cinetune.errors import CinetuneError, StoreError, WeightsError, out_of_memory
from cinetune.outside import one_line, read_table, safetensors_header
from cinetune.records import sealed, unsealed
from cinetune.store import sha256_file

__all__ = [
    "CAPTIONERS",
    "COMPONENTS",
    "adapter_file",
    "adapter_input",
    "adapter_settings",
    "adapter_sha256",
    "built_from",
    "captioner_sha256",
    "check",
    "keep_sha256",
    "known_sha256",
    "need_folder",
    "network_files",
    "read_config",
    "stamp",
    "weights_sha256",
]

COMPONENTS = {
    "transformer": "WanTransformer3DModel",
    "vae": "AutoencoderKLWan",
    "text_encoder": "UMT5EncoderModel",
    "image_encoder": "CLIPVisionModel",
}
"""Folder of each network in diffusers layout, and its class."""

_FILES = ("model_index.json", "tokenizer/tokenizer_config.json", "image_processor/preprocessor_config.json")
_HASHED = (*COMPONENTS, "tokenizer", "image_processor")
_PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")
_ADAPTER_FILES = ("adapter_model.safetensors", "pytorch_lora_weights.safetensors")
"""What PEFT and diffusers call the file inside an adapter's folder."""
_SIDECAR = ".cinetune-sha256.json"
_SIDECAR_BYTES = 256 << 20


_AGAIN = "download a complete copy again"
_UNBUILT = (ArithmeticError, AttributeError, LookupError, OSError, RuntimeError, TypeError, ValueError)

CAPTIONERS = ("qwen2_vl", "qwen2_5_vl", "qwen3_vl", "qwen3_vl_moe")
"""Values of `model_type` that `cinetune.models.captioning.captioner` can run."""
_CAPTIONER_REMEDY = (
    "download a Qwen2.5-VL or Qwen3-VL model, for example `hf download Qwen/Qwen3-VL-8B-Instruct --local-dir "
    'Qwen3-VL-8B-Instruct` (Apache-2.0), then set caption.path to that folder; or set caption.backend = "http"'
)


def need_folder(folder: Path) -> None:
    """Raise `WeightsError` with every problem of a weights folder and what to download."""
    problems = check(folder)
    if not problems:
        return
    options = "; or ".join(
        f"`{row.command}` ({row.licence}, about {row.gib:.0f} GiB)" for row in RELEASES.values() if row.repository
    )
    raise WeightsError(
        "the model's weights cannot be used:\n  - " + "\n  - ".join(problems),
        where=str(folder),
        remedy=f"download a complete copy: {options}; then set model.path to that folder",
    )


def check(folder: Path) -> list[str]:
    """Everything that is wrong with a Wan2.1 image-to-video folder in diffusers layout; empty = usable.

    Looks at names, configurations and the headers and lengths of the safetensors files, never at all their bytes.
    """
    if not folder.is_dir():
        return ["there is no such folder"]
    problems = [f"{name} is missing" for name in _FILES if not (folder / name).is_file()]
    for name in COMPONENTS:
        part = folder / name
        if not (part / "config.json").is_file():
            problems.append(f"{name}/config.json is missing")
            continue
        problems += _check_files(part)
    if (folder / "transformer" / "config.json").is_file():
        problems += _check_kind(folder)
    return problems


def adapter_file(path: Path) -> Path:
    """The safetensors file of an adapter: the path itself, or what PEFT or diffusers wrote into the folder.

    Raises `WeightsError` if there is none, or only a pickle.
    """
    if path.is_dir():
        files = [path / name for name in _ADAPTER_FILES if (path / name).is_file()]
        pickles = sorted(file.name for file in path.iterdir() if file.suffix in _PICKLES)
        if not files and pickles:
            raise _pickled(path / pickles[0])
        if not files:
            what = f"the folder holds neither {' nor '.join(_ADAPTER_FILES)}"
            raise WeightsError(what, where=str(path), remedy="name the .safetensors file itself")
        return files[0]
    if not path.is_file():
        raise WeightsError("there is no such adapter file", where=str(path))
    if path.suffix != ".safetensors":
        raise _pickled(path)
    return path


def _pickled(path: Path) -> WeightsError:
    what = f"{path.suffix or 'this kind of'} files are refused: loading one can run code"
    return WeightsError(what, where=str(path), remedy="ask for a .safetensors file")


def adapter_settings(file: Path) -> Path | None:
    """`adapter_config.json` beside a file that PEFT wrote; it holds alpha, so it is a part of the adapter."""
    beside = file.with_name("adapter_config.json")
    return beside if file.name == _ADAPTER_FILES[0] and beside.is_file() else None


def adapter_sha256(path: Path) -> str:
    """sha256 of an adapter's file, and of the settings that belong to it. Raises `WeightsError` as `adapter_file`."""
    file = adapter_file(path)
    settings = adapter_settings(file)
    digest = sha256_file(file)
    return digest if settings is None else hashlib.sha256(f"{digest} {sha256_file(settings)}".encode()).hexdigest()


def adapter_input(setting: str, path: Path | None) -> dict[str, str]:
    """For the inputs of a stage: sha256 of the adapter that a setting names, or what is wrong with it; empty without
    one.
    """
    try:
        return {setting: adapter_sha256(path)} if path else {}
    except WeightsError as error:
        return {setting: error.what}


def _check_kind(folder: Path) -> list[str]:
    """Refuse relatives of Wan2.1 I2V that load without complaint and then do something else."""
    try:
        config = read_table(folder / "transformer" / "config.json", refuse=WeightsError)
    except WeightsError as error:
        return [f"transformer/config.json: {error.what}"]
    problems: list[str] = []
    if (folder / "transformer_2").is_dir():
        problems.append("this is a Wan2.2 model with two experts, not Wan2.1 image-to-video")
    if config.get("image_dim") is None or config.get("added_kv_proj_dim") is None:
        problems.append("its transformer has no image branch: it is not a Wan2.1 image-to-video model")
    if config.get("pos_embed_seq_len") is not None:
        problems.append("it is the first-and-last-frame model (FLF2V), which always needs a last frame")
    return problems


def _check_files(part: Path) -> list[str]:
    """Problems of one network's files: shards named by the index, pickles, truncation."""
    names = {path.name for path in part.glob("*.safetensors")}
    for index in part.glob("*.safetensors.index.json"):
        try:
            named = read_table(index, refuse=WeightsError).get("weight_map")
        except WeightsError as error:
            return [f"{part.name}/{index.name}: {error.what}"]
        if not isinstance(named, dict) or not all(isinstance(name, str) for name in named.values()):
            return [f"{part.name}/{index.name} names no files"]
        wanted = set(named.values())
        missing = sorted(wanted - names)
        if missing:
            return [f"{part.name}: {len(missing)} of {len(wanted)} files are missing, first {missing[0]}"]
    if not names:
        if any(path.suffix in _PICKLES for path in part.iterdir()):
            return [f"{part.name} holds pickled weights only, which are refused because loading one can run code"]
        return [f"{part.name} holds no .safetensors file"]
    return [f"{part.name}/{name} is {problem}" for name in sorted(names) if (problem := _damage(part / name))]


def network_files(part: Path) -> list[Path]:
    """The safetensors files of one network's folder: those that its index names, where it has one."""
    for index in part.glob("*.safetensors.index.json"):
        named = read_table(index, refuse=WeightsError).get("weight_map")
        if not isinstance(named, dict):
            raise WeightsError("it names no files", where=str(index), remedy=_AGAIN)
        return sorted({part / str(name) for name in named.values()})
    return sorted(part.glob("*.safetensors"))


def read_config(folder: Path, name: str) -> dict[str, Any]:
    """A configuration of a weights folder. Raises `WeightsError`."""
    return read_table(folder / name, refuse=WeightsError)


@contextmanager
def built_from(folder: Path) -> Iterator[None]:
    """What a library says when a folder's files make no model, as `WeightsError`; that memory ran out stays itself."""
    from huggingface_hub.errors import StrictDataclassError  # only where it will be imported anyway
    from safetensors import SafetensorError

    try:
        yield
    except (*_UNBUILT, SafetensorError, StrictDataclassError) as error:
        if out_of_memory(error) or isinstance(error, CinetuneError):
            raise
        said = one_line(str(error))[:300] or "no reason given"
        what = f"no model can be made of these files: {type(error).__name__}: {said}"
        raise WeightsError(what, where=str(folder), remedy=_AGAIN) from error


def _damage(path: Path) -> str:
    """Empty for a safetensors file whose length is what its header promises, else what is wrong."""
    try:
        header, start = safetensors_header(path, refuse=WeightsError)
    except WeightsError as error:
        return error.what
    end = max((entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"), default=0)
    return "" if path.stat().st_size == start + end else "cut short (an interrupted download?)"


@cache
def weights_sha256(folder: Path) -> str:
    """sha256 over the names and bytes of all networks, their configurations and the tokenizer.

    Hashing tens of gigabytes takes minutes, so for large models the hash of each file is kept in
    `.cinetune-sha256.json` inside the folder and used again while the file's size and time are unchanged. A folder that
    cannot be written is hashed anew by every process.
    """
    return _sha256(
        folder,
        [
            path
            for name in _HASHED
            for path in sorted((folder / name).rglob("*"))
            if path.suffix in (".safetensors", ".json", ".model")
        ],
    )


def _check_captioner(folder: Path) -> list[str]:
    if not folder.is_dir():
        return ["there is no such folder"]
    try:
        kind = read_table(folder / "config.json", refuse=WeightsError).get("model_type")
    except WeightsError as error:
        return [f"config.json: {error.what}"]
    if kind not in CAPTIONERS:
        return [f"it is a {kind!r}, not one of {', '.join(CAPTIONERS)}"]
    needed = ("preprocessor_config.json", "tokenizer_config.json")
    return [f"{name} is missing" for name in needed if not (folder / name).is_file()] + _check_files(folder)


@cache
def captioner_sha256(folder: Path) -> str:
    """sha256 over the weights, configurations and templates of a vision-language model, kept as `weights_sha256` does.

    Raises `WeightsError` with what to download when the folder holds none that can be run.
    """
    problems = _check_captioner(folder)
    if problems:
        what = "the captioning model cannot be used:\n  - " + "\n  - ".join(problems)
        raise WeightsError(what, where=str(folder), remedy=_CAPTIONER_REMEDY)
    kinds = (".safetensors", ".json", ".jinja", ".txt")
    own = (path for path in sorted(folder.iterdir()) if path.name != _SIDECAR)
    return _sha256(folder, [path for path in own if path.suffix in kinds])


def stamp(folder: Path, path: Path) -> str:
    """A file by name, size and time: while they are the same, so is its hash."""
    status = path.stat()
    return f"{path.relative_to(folder).as_posix()}:{status.st_size}:{status.st_mtime_ns}"


def known_sha256(folder: Path) -> dict[str, str]:
    """Hashes of the folder's files that were worked out before, by `stamp`."""
    try:
        kept = unsealed((folder / _SIDECAR).read_bytes(), where=str(folder)) or {}
    except (OSError, StoreError):
        return {}  # it is only a cache
    return {key: value for key, value in kept.items() if isinstance(value, str)}


def keep_sha256(folder: Path, table: dict[str, str]) -> None:
    """Keep hashes for `known_sha256`. A disk that refuses is no error: it is only a cache."""
    if not os.access(folder, os.W_OK):
        return
    try:
        sweep(folder)
        with atomic_write(folder / _SIDECAR) as temporary:
            temporary.write_text(sealed(table), encoding="utf-8")
    except StoreError:
        pass


def _sha256(folder: Path, paths: list[Path]) -> str:
    keep = sum(path.stat().st_size for path in paths) > _SIDECAR_BYTES
    known = known_sha256(folder) if keep else {}
    table: dict[str, str] = {}
    for path in paths:
        key = stamp(folder, path)
        table[key] = known.get(key) or sha256_file(path)
    if keep and table != known:
        keep_sha256(folder, table)
    lines = "\n".join(f"{key.split(':')[0]} {digest}" for key, digest in table.items())
    return hashlib.sha256(lines.encode()).hexdigest()
