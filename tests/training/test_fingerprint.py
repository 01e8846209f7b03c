"""What changed is said by name, and code counts."""

from __future__ import annotations

from cinetune.training import code_fingerprint
from cinetune.training.fingerprint import differences, summary


def test_every_change_is_named_with_both_values() -> None:
    before = {
        "recipe": {"lr": 3e-5, "betas": (0.9, 0.999), "rank": 8},
        "data set": {"window a": "train 11", "window b": "train 22"},
        "code": "one",
    }
    now = {
        "recipe": {"lr": 1e-4, "betas": [0.9, 0.999], "rank": 8},
        "data set": {"window a": "held 11", "window c": "train 33"},
        "code": "two",
    }
    assert differences(before, now) == [
        "code: one -> two",
        "data set: window a train 11 -> held 11",
        "data set: window b is gone (was train 22)",
        "data set: window c is new (train 33)",
        "recipe: lr 3e-05 -> 0.0001",
    ]
    assert differences(before, before) == []


def test_a_group_that_was_not_recorded_differs() -> None:
    assert differences({"recipe": "old hash"}, {"recipe": {"lr": 1}}) == ["recipe: old hash -> {'lr': 1}"]
    assert differences({}, {"code": "x"}) == ["code: None -> x"]


def test_code_is_versions_and_sources() -> None:
    found = code_fingerprint()
    assert set(found) == {"cinetune", "torch", "diffusers", "peft", "sources"}
    assert len(found["sources"]) == 16 and found == code_fingerprint()


def test_long_tables_are_summed_up() -> None:
    short = summary({"data set": "d", "recipe": {"lr": 1}})
    assert short["data set"] == "d" and len(short["recipe"]) == 64
    assert short["recipe"] != summary({"recipe": {"lr": 2}})["recipe"]
