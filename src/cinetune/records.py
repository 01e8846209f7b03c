"""How records are made and kept: stdlib dataclasses that pydantic checks where they are read from or written to JSON.
Unknown keys, NaN and a wrong `schema` are refused.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any, TypeVar, dataclass_transform

import pydantic

from cinetune.errors import StoreError

__all__ = ["SCHEMA", "artifact", "from_json", "to_json"]

SCHEMA = 1

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
