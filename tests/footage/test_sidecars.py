"""Captions, scenes and rights from the files people write."""

from __future__ import annotations

import json

import pytest

from cinetune.artifacts import Rights
from cinetune.errors import ConfigError
from cinetune.footage.sidecars import footage_files, read_rows, rights_of, row_for_shot


def _jsonl(path, *rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def test_shots_by_number_by_start_and_whole_clips(tmp_path):
    _jsonl(
        tmp_path / "metadata.jsonl",
        {"file_name": "a.mov", "text": "zero", "shot": 0, "scene": "castle"},
        {"file_name": "a.mov", "text": "late", "start_frame": 100},
        {"file_name": "a.mov", "text": "early", "start_frame": 40},
        {"file_name": "b.mov", "text": "not mine"},
    )
    (tmp_path / "a.txt").write_text("  the whole\n clip ")
    rows = read_rows(tmp_path, tmp_path / "a.mov")
    found = [
        row_for_shot(rows, index=index, start=start) for index, start in ((0, 0), (1, 20), (1, 39), (2, 99), (3, 130))
    ]
    assert [row.text for row in found] == ["zero", "the whole clip", "early", "late", "late"]
    assert found[0].scene == "castle" and found[1].source == "a.txt"
    assert row_for_shot([], index=0, start=0) is None


def test_tables_of_folders_above_name_the_path(tmp_path):
    (tmp_path / "day1").mkdir()
    (tmp_path / "captions.csv").write_text("file_name,caption,scene\nday1/a.mov,a barn,s1\na.mov,another file,s2\n")
    assert [(row.text, row.scene) for row in read_rows(tmp_path, tmp_path / "day1" / "a.mov")] == [("a barn", "s1")]


def test_rights_are_read(tmp_path):
    _jsonl(
        tmp_path / "metadata.jsonl",
        {"file_name": "a.mov", "text": "x", "owner": "Studio", "licence": "all rights", "consent": "yes"},
    )
    assert rights_of(read_rows(tmp_path, tmp_path / "a.mov")) == Rights(
        owner="Studio", licence="all rights", consent="yes"
    )
    assert rights_of([]) == Rights()


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("{nonsense", "not JSON"),
        ('{"text": "no file"}', "file_name"),
        ('{"file_name": "a.mov", "shot": "two"}', "shot must be a whole number"),
        ('{"file_name": "a.mov", "start_frame": -1}', "start_frame must be a whole number"),
    ],
)
def test_bad_rows_are_named(tmp_path, line, reason):
    (tmp_path / "metadata.jsonl").write_text('{"file_name": "z.mov"}\n' + line + "\n")
    with pytest.raises(ConfigError, match=reason) as caught:
        read_rows(tmp_path, tmp_path / "a.mov")
    assert "metadata.jsonl" in caught.value.where


def test_captions_that_are_not_text(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"\xff\xfe\x00b")
    with pytest.raises(ConfigError, match="UTF-8"):
        read_rows(tmp_path, tmp_path / "a.mov")


def test_sidecars_and_hidden_files_are_not_footage(tmp_path):
    for name in (
        "b.mov",
        "a.mp4",
        "a.txt",
        "a.edl",
        "metadata.jsonl",
        ".DS_Store",
        "sub/c.mkv",
        ".trash/d.mov",
        "odd.bin",
    ):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("x")
    assert [path.relative_to(tmp_path).as_posix() for path in footage_files(tmp_path)] == [
        "a.mp4",
        "b.mov",
        "odd.bin",
        "sub/c.mkv",
    ]
