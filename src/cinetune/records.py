"""How records are made and kept: stdlib dataclasses that pydantic checks where they are read from or written to JSON.
Unknown keys, NaN and a wrong `schema` are refused.

What is read back later carries a digest of itself under the key `seal`: a bit that flips on disk, or half of a file, is
refused and never believed. It keeps no secret: whoever edits a file can seal it again, so what is read is checked in
form as well.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, TypeVar, dataclass_transform

import pydantic

from cinetune.errors import StoreError

__all__ = ["SCHEMA", "artifact", "from_json", "log_line", "read_log", "seal_of", "sealed", "to_json", "unsealed"]

SCHEMA = 2
"""Raised when records of before can no longer be read as they were meant: their projects are refused."""
_SEAL = "seal"
_SHORT = 16
"""Hex digits of the seal of a log line."""

T = TypeVar("T")


@dataclass_transform(frozen_default=True, kw_only_default=True)
def artifact(cls: type[T]) -> type[T]:
    """A frozen, slotted, keyword-only dataclass that pydantic checks strictly at the file boundary."""
    made = dataclass(frozen=True, slots=True, kw_only=True)(cls)
    config = pydantic.ConfigDict(extra="forbid", allow_inf_nan=False)
    return pydantic.with_config(config)(made)


@cache
def _adapter(cls: Any) -> pydantic.TypeAdapter[Any]:
    return pydantic.TypeAdapter(cls)


def to_json(record: object) -> str:
    """Canonical JSON: sorted keys, Fractions as `num/den`. Raises `StoreError` if a float is NaN or infinite."""
    adapter = _adapter(type(record))
    try:
        plain = adapter.dump_python(record, mode="json")
        adapter.validate_json(json.dumps(plain, allow_nan=False))
        return json.dumps(plain, sort_keys=True, indent=1, allow_nan=False, ensure_ascii=False)
    except ValueError as error:
        raise StoreError(f"a {type(record).__name__} record would not be readable again: {error}") from error


def from_json(cls: Callable[..., T], text: str | bytes, *, where: str = "") -> T:
    """Read a record back. Raises `StoreError` on unknown keys, wrong types, or another schema version."""
    try:
        record = _adapter(cls).validate_json(text)
    except pydantic.ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        raise StoreError(
            f"not a valid {getattr(cls, '__name__', cls)} record: {key}: {first['msg']}",
            where=where,
            remedy="it was written by another version or edited by hand; delete it and run the stage again",
        ) from error
    if getattr(record, "schema", SCHEMA) != SCHEMA:
        raise StoreError(f"schema {record.schema} is not {SCHEMA}", where=where, remedy="run the stage again")
    return record


def seal_of(plain: Mapping[str, Any]) -> str:
    """sha256 over the content of a JSON object, in whatever order and layout it is written."""
    text = json.dumps(plain, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def sealed(plain: Mapping[str, Any]) -> str:
    """A JSON object as text, with its seal."""
    whole = {**plain, _SEAL: seal_of(plain)}
    return json.dumps(whole, indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False)


def unsealed(text: bytes, *, where: str) -> dict[str, Any] | None:
    """A JSON object whose seal is right, without it; None if it never had one (an earlier version wrote none).

    Raises `StoreError` for anything else.
    """
    try:
        plain = json.loads(text.decode())
    except (ValueError, RecursionError) as error:
        raise _damaged(where, "it is not JSON") from error
    if not isinstance(plain, dict):
        raise _damaged(where, "it is no record")
    seal = plain.pop(_SEAL, None)
    if seal is None:
        return None
    if seal != seal_of(plain):
        raise _damaged(where, "its contents do not match its own digest")
    return plain


def _damaged(where: str, why: str) -> StoreError:
    return StoreError(f"a record is damaged: {why}", where=where, remedy="delete it and run the stage again")


def log_line(record: Mapping[str, Any]) -> str:
    """One line of a log, sealed, with its line break."""
    return json.dumps({**record, _SEAL: seal_of(record)[:_SHORT]}, allow_nan=False) + "\n"


def read_log(path: Path) -> list[dict[str, Any]]:
    """The lines of a log, without their seals. Another process may be writing it, or was when it was killed: what
    follows the last whole line is left out. No file is an empty log.

    Raises `StoreError` when a line in the middle is damaged, or the file cannot be read.
    """
    try:
        lines = path.read_bytes().split(b"\n") if path.is_file() else []
    except OSError as error:
        raise StoreError(f"a log cannot be read: {error.strerror}", where=str(path)) from error
    whole = [_read_line(line) for line in lines]
    count = next((number for number, line in enumerate(whole) if line is None), len(whole))
    if any(line is not None for line in whole[count:]):
        remedy = f"delete {path.parent} to start over"
        raise StoreError(f"line {count + 1} of a log is damaged", where=str(path), remedy=remedy)
    return [line for line in whole if line is not None]


def _read_line(line: bytes) -> dict[str, Any] | None:
    """A line that is whole, and has the `kind` and `step` that every line has; else None."""
    try:
        record = json.loads(line.decode())
        seal = record.pop(_SEAL)
        good = seal == seal_of(record)[:_SHORT] and isinstance(record["kind"], str) and type(record["step"]) is int
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None
    return record if good else None
