"""Every error cinetune raises on purpose.

    CinetuneError
    |-- ConfigError     cinetune.toml, shots.toml or the command line says something impossible
    |-- FootageError    a film file cannot be used as it is
    |-- WeightsError    model weights are missing, damaged or refused
    |-- ModelError      a model was asked for something it cannot do, or produced NaN
    |-- ServiceError    a model served by another program cannot be reached, refuses, or answers something else
    |-- ClusterError    the processes of one run cannot meet, or lost one another
    |-- StoreError      the project folder is damaged, locked, read-only, full, or from another version
    `-- ScoreError      a measurement that would not mean anything

Each message says what went wrong, where, and how to mend it. The command line turns the class into an exit code.
"""

from __future__ import annotations

import errno

__all__ = [
    "CinetuneError",
    "ClusterError",
    "ConfigError",
    "FootageError",
    "GateFailed",
    "ModelError",
    "ScoreError",
    "ServiceError",
    "StoreError",
    "WeightsError",
    "out_of_memory",
    "ran_out",
]


class CinetuneError(Exception):
    """Base of all deliberate errors: `what` happened, `where` (file, key, shot), and the `remedy`."""

    exit_code = 2

    def __init__(self, what: str, *, where: str = "", remedy: str = "") -> None:
        self.what = what
        self.where = where
        self.remedy = remedy
        lines = [what]
        if where:
            lines.append(f"  where: {where}")
        if remedy:
            lines.append(f"  fix:   {remedy}")
        super().__init__("\n".join(lines))


class ConfigError(CinetuneError):
    """The project file, the shot list or an option is wrong."""


class FootageError(CinetuneError):
    """A film file is unreadable, damaged, or of a kind we refuse; carries the reason for the per-file table."""


class WeightsError(CinetuneError):
    """Weights are missing, have another checksum, or come as a pickle."""

    exit_code = 3


class ModelError(CinetuneError):
    """A shape, a frame count or a target a model does not support, or a numeric failure inside it."""


class ServiceError(CinetuneError):
    """A model that another program serves cannot be reached, refuses us, or does not answer as it promised."""

    exit_code = 3


class ClusterError(CinetuneError):
    """The processes of one run cannot meet (a taken port, an unreachable machine), or one of them is gone."""

    exit_code = 3


class StoreError(CinetuneError):
    """The project folder cannot be read or written, or does not hold what its index says."""

    exit_code = 3


class ScoreError(CinetuneError):
    """A score was asked for on data that cannot support it."""


class GateFailed(CinetuneError):
    """A check the user asked to be enforced did not hold (no look effect, early alarm, strict rights)."""

    exit_code = 4


def out_of_memory(error: BaseException) -> bool:
    """Whether memory ran out, on a GPU or here: torch says the latter with a plain RuntimeError."""
    name = type(error).__name__
    return isinstance(error, MemoryError) or name == "OutOfMemoryError" or "can't allocate memory" in str(error)


_REFUSED = {
    errno.EACCES, errno.EPERM, errno.EIO, errno.EROFS, errno.ELOOP, errno.EISDIR, errno.ENOTDIR, errno.ENXIO,
    errno.ESTALE, errno.EDQUOT, errno.EFBIG, errno.EMFILE, errno.ENAMETOOLONG,
}  # fmt: skip
"""What a disk says of itself, and no program can foresee. That a file is not there is not among them: we must know."""


def ran_out(error: BaseException) -> CinetuneError | None:
    """Memory or disk that ran out inside a library, or that refuse, as one of our own errors."""
    if out_of_memory(error):
        remedy = "`cinetune plan` shows what needs how much, and the settings that need less"
        return StoreError("memory ran out; nothing that was finished is lost", remedy=remedy)
    if "No space left on device" in str(error):
        return StoreError("the disk is full; nothing was lost", remedy="free space and run the same command again")
    if isinstance(error, OSError) and error.errno in _REFUSED and error.filename is not None:
        return StoreError(f"the system refuses a file: {error.strerror}", where=repr(error.filename)[1:-1][:200])
    return None
