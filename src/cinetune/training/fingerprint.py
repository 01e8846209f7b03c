"""What an unfinished run was started from, so that it is never continued as something else by accident.

A fingerprint is a table of groups (`data set`, `recipe`, `base model`, `code`), each a table of names and values, or a
single value.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from cinetune.runtime import package_versions

__all__ = ["Fingerprint", "code_fingerprint", "differences", "summary"]

Fingerprint = Mapping[str, str | Mapping[str, Any]]

_PACKAGES = ("cinetune", "torch", "diffusers", "peft")
_SHAPES_NUMBERS = (
    "metrics/distances.py",
    "metrics/features.py",
    "metrics/similarity.py",
    "models/adapters/lora.py",
    "models/*.py",
    "models/memory/*.py",
    "models/wan/*.py",
    "runtime.py",
    "training/ahead.py",
    "training/augment.py",
    "training/ema.py",
    "training/data.py",
    "training/judge.py",
    "training/loop.py",
    "training/parallel.py",
    "training/step.py",
    "training/validate.py",
)
"""Our own sources that shape the numbers of a run: the step itself, its seeds, and what chooses the step that is kept.
Trackers, meters and alarms only look on."""


def code_fingerprint() -> dict[str, str]:
    """Versions of cinetune and of the libraries that compute, and a hash of our own sources that shape the numbers.

    After an upgrade an unfinished run is therefore refused unless it is forced; finished looks are not affected.
    """
    package = Path(__file__).parents[1]
    sources = [path for pattern in _SHAPES_NUMBERS for path in sorted(package.glob(pattern))]
    digest = hashlib.sha256(b"".join(path.read_bytes() for path in sources)).hexdigest()
    return package_versions(_PACKAGES) | {"sources": digest[:16]}


def differences(before: Fingerprint, now: Fingerprint) -> list[str]:
    """Every named part that differs, as `recipe: lr 3e-05 -> 0.0001`."""
    plain_before, plain_now = json.loads(json.dumps(before)), json.loads(json.dumps(now))
    return [line for group in sorted({*before, *now}) for line in _changes(group, plain_before, plain_now)]


def _changes(group: str, before: dict[str, Any], now: dict[str, Any]) -> Iterator[str]:
    old, new = before.get(group), now.get(group)
    if not (isinstance(old, dict) and isinstance(new, dict)):
        if old != new:
            yield f"{group}: {old} -> {new}"
        return
    for name in sorted(old.keys() | new.keys()):
        if name not in new:
            yield f"{group}: {name} is gone (was {old[name]})"
        elif name not in old:
            yield f"{group}: {name} is new ({new[name]})"
        elif old[name] != new[name]:
            yield f"{group}: {name} {old[name]} -> {new[name]}"


def summary(fingerprint: Fingerprint) -> dict[str, str]:
    """One value for each group: long tables by their hash."""
    found: dict[str, str] = {}
    for group, value in fingerprint.items():
        text = json.dumps(value, sort_keys=True)
        found[group] = value if isinstance(value, str) else hashlib.sha256(text.encode()).hexdigest()
    return found
