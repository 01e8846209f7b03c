"""Teach an open video generator the look of your film, shoot new shots in it, and prove whether it worked.

    from pathlib import Path
    from cinetune import Project, Quiet, run, status

    project = Project(Path("my-film"))
    run(project, Quiet())
    for row in status(project):
        ...

Names are imported when they are first used, so that `import cinetune` costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cinetune.artifacts import Look, Scorecard, Sequence
    from cinetune.config import Config, load_config
    from cinetune.errors import CinetuneError
    from cinetune.footage.video import probe, write_video
    from cinetune.models import load_model
    from cinetune.models.family import VideoModel
    from cinetune.pipeline import STAGES, run, status
    from cinetune.runtime import Quiet, Reporter
    from cinetune.store import Project

__version__ = "0.1.0"
"""The only place that says it: packaging reads it here, and a source tree without metadata still knows what it is."""

__all__ = [
    "STAGES",
    "CinetuneError",
    "Config",
    "Look",
    "Project",
    "Quiet",
    "Reporter",
    "Scorecard",
    "Sequence",
    "VideoModel",
    "__version__",
    "load_config",
    "load_model",
    "probe",
    "run",
    "status",
    "write_video",
]

_HOME = {
    "STAGES": "pipeline", "CinetuneError": "errors", "Config": "config", "Look": "artifacts", "Project": "store",
    "Quiet": "runtime", "Reporter": "runtime", "Scorecard": "artifacts", "Sequence": "artifacts",
    "VideoModel": "models.family", "load_config": "config", "load_model": "models", "probe": "footage.video",
    "run": "pipeline", "status": "pipeline", "write_video": "footage.video",
}  # fmt: skip


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'cinetune' has no attribute {name!r}")
    return getattr(import_module(f"cinetune.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
