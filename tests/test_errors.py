"""The error tree: one root, a remedy in the text, an exit code for each kind."""

import pytest

from cinetune import errors
from cinetune.errors import CinetuneError, GateFailed, StoreError, WeightsError

EXIT_CODES = {
    "CinetuneError": 2, "ClusterError": 3, "ConfigError": 2, "FootageError": 2, "GateFailed": 4,
    "ModelError": 2, "ScoreError": 2,
    "ServiceError": 3, "StoreError": 3, "WeightsError": 3,
}  # fmt: skip


CLASSES = [name for name in errors.__all__ if name[0].isupper()]


def test_every_error_has_the_designed_exit_code() -> None:
    assert {name: getattr(errors, name).exit_code for name in CLASSES} == EXIT_CODES


@pytest.mark.parametrize("name", CLASSES)
def test_every_error_is_a_cinetune_error(name: str) -> None:
    assert issubclass(getattr(errors, name), CinetuneError)


def test_the_message_says_what_where_and_how_to_mend_it() -> None:
    error = StoreError("the disk is full", where="work/objects", remedy="free space")
    assert str(error) == "the disk is full\n  where: work/objects\n  fix:   free space"
    assert (error.what, error.where, error.remedy) == ("the disk is full", "work/objects", "free space")


def test_parts_that_are_not_given_leave_no_empty_lines() -> None:
    assert str(WeightsError("no weights")) == "no weights"
    assert str(GateFailed("no effect", remedy="train longer")) == "no effect\n  fix:   train longer"
