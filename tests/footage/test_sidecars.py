"""Captions, scenes and rights from the files people write."""

from __future__ import annotations

import json
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import pytest

from cinetune.artifacts import Colour, FootageClip, Rights, Shot
from cinetune.errors import ConfigError
from cinetune.footage.notes.sidecars import (
    GENERATED,
    CaptionRow,
    Generated,
    Notes,
    captions_of,
    footage_files,
    read_generated,
    rights_of,
    rows_for_shot,
    sidecar_files,
    unheard,
    write_generated,
)
from cinetune.timecode import Span


def read_rows(folder: Path, clip: Path) -> list[CaptionRow]:
    return Notes(folder, [clip]).rows(clip)


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
    found = [rows_for_shot(rows, index, start)[0] for index, start in ((0, 0), (1, 20), (1, 39), (2, 99), (3, 130))]
    assert [row.text for row in found] == ["zero", "the whole clip", "early", "late", "late"]
    assert found[0].scene == "castle" and found[1].source == "a.txt"
    assert rows_for_shot([], 0, 0) == []


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
        ("{nonsense", "not readable as JSON"),
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
    (tmp_path / "a.txt").write_bytes(b"\xff\x00b")
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


def test_a_row_with_number_and_start_fits_only_both(tmp_path):
    _jsonl(
        tmp_path / "metadata.jsonl",
        {"file_name": "a.mov", "text": "first", "shot": 0, "start_frame": 0},
        {"file_name": "a.mov", "text": "second", "shot": 1, "start_frame": 50},
    )
    rows = read_rows(tmp_path, tmp_path / "a.mov")
    assert rows_for_shot(rows, 1, 50)[0].text == "second"
    assert rows_for_shot(rows, 1, 30) == []  # cut again since: another shot has that number
    assert rows_for_shot(rows, 2, 90) == []


COLOUR = Colour(matrix="bt709", primaries="bt709", transfer="bt709", full_range=False, decided="test")


def _clip(name: str) -> FootageClip:
    return FootageClip(
        id=name, path=f"footage/{name}.mov", sha256=f"bytes of {name}", codec="h264", rate=Fraction(24), frames=90,
        width=80, height=48, pixel_aspect=Fraction(1), bars=(0, 0, 80, 48), colour=COLOUR, timecode=None,
    )  # fmt: skip


def _machine(clip: str, start: int, text: str = "by a machine", frames: int = 30) -> Generated:
    return Generated(
        file_name=f"{clip}.mov", clip_sha256=f"bytes of {clip}", start_frame=start, frames=frames, text=text,
        model="eye-7b", prompt_sha256="0" * 64,
    )  # fmt: skip


SHOTS = [
    Shot(id=f"a{k}", clip="a", span=Span(start=30 * k, frames=30, rate=Fraction(24)), source="test") for k in range(3)
]


@pytest.fixture
def film(tmp_path):
    """Clip a of three shots, and what `captions_of` says about them as (text, source, generated)."""
    (tmp_path / "footage").mkdir()

    def told():
        rows = captions_of(tmp_path, tmp_path / "footage", {"a": _clip("a")}, SHOTS)
        return [(row.text, row.source, row.generated) for row in rows]

    return tmp_path / "footage", told


MACHINE = ("by a machine", "generated (eye-7b)", True)


def test_a_person_always_wins(film):
    folder, told = film
    assert told() == [("", "none", False)] * 3
    write_generated(folder, [_machine("a", 30 * k) for k in range(3)])
    assert told() == [MACHINE] * 3
    _jsonl(folder / "metadata.jsonl", {"file_name": "a.mov", "text": "mine", "shot": 1})
    assert told() == [MACHINE, ("mine", "metadata.jsonl", False), MACHINE]
    (folder / "a.txt").write_text("the whole clip")
    assert [text for text, _, _ in told()] == ["the whole clip", "mine", "the whole clip"]


def test_a_row_that_only_names_the_scene_does_not_hide_a_caption(film, tmp_path):
    folder, told = film
    _jsonl(folder / "metadata.jsonl", *({"file_name": "a.mov", "scene": "square", "shot": k} for k in range(3)))
    write_generated(folder, [_machine("a", 0), _machine("a", 30)])
    assert told() == [MACHINE, MACHINE, ("", "metadata.jsonl", False)]
    (folder / "a.txt").write_text("by hand")
    assert told() == [("by hand", "a.txt", False)] * 3
    assert {row.scene for row in captions_of(tmp_path, folder, {"a": _clip("a")}, SHOTS)} == {"square"}


def test_an_earlier_shots_caption_does_not_fill_in_for_a_later_one(film):
    folder, told = film
    _jsonl(
        folder / "metadata.jsonl",
        {"file_name": "a.mov", "text": "first", "scene": "square", "start_frame": 0},
        {"file_name": "a.mov", "scene": "square", "start_frame": 30},
    )
    write_generated(folder, [_machine("a", 30 * k) for k in range(3)])
    assert told() == [("first", "metadata.jsonl", False), MACHINE, MACHINE]
    (folder / "captions.csv").write_text("file_name,start_frame,text\na.mov,30,second\n")
    assert [text for text, _, _ in told()] == ["first", "second", "second"]


def test_generated_captions_are_used_only_for_the_frames_they_were_written_for(film):
    folder, told = film
    write_generated(folder, [_machine("a", 0, frames=29), _machine("b", 30), _machine("a", 61)])
    assert told() == [("", "none", False)] * 3


def test_a_generated_caption_edited_in_place_is_the_persons(film):
    folder, told = film
    write_generated(folder, [_machine("a", 0), _machine("a", 30)])
    path = folder / GENERATED
    path.write_text(path.read_text().replace("by a machine", "by a  person", 1))
    assert told()[:2] == [("by a person", GENERATED, False), MACHINE]
    for _ in range(2):
        rows = read_generated(folder)
        assert [row.edited for row in rows] == [True, False]
        write_generated(folder, rows)


def test_the_generated_file_is_the_same_bytes_for_the_same_rows(tmp_path):
    rows = [_machine("b", 0, text="Ein Café — “draußen”"), _machine("a", 30), _machine("a", 0)]
    first = write_generated(tmp_path, rows).read_bytes()
    assert write_generated(tmp_path, reversed(rows)).read_bytes() == first
    assert sorted(read_generated(tmp_path), key=str) == sorted(rows, key=str)
    assert sidecar_files(tmp_path) == [] and footage_files(tmp_path) == []


@pytest.mark.parametrize("line", ['{"file_name": "a.mov"}', '{"file_name": "a.mov", "start_frame": "0"}', "nonsense"])
def test_a_damaged_generated_file_is_explained(tmp_path, line):
    (tmp_path / GENERATED).write_text(line + "\n")
    with pytest.raises(ConfigError) as caught:
        read_generated(tmp_path)
    assert GENERATED in caught.value.where


def test_a_footage_folder_beside_the_project(tmp_path):
    """Its path has dots in it, which once were walked upwards for ever."""
    (tmp_path / "reels").mkdir()
    (tmp_path / "film").mkdir()
    (tmp_path / "reels" / "a.txt").write_text("outside")
    root = tmp_path / "film"
    clip = Shot(id="a0", clip="a", span=Span(start=0, frames=30, rate=Fraction(24)), source="test")
    outside = replace(_clip("a"), path="../reels/a.mov")
    (row,) = captions_of(root, root / "../reels", {"a": outside}, [clip])
    assert (row.text, row.source) == ("outside", "a.txt")


@pytest.mark.parametrize("kind", ["jsonl", "csv"])
def test_rows_that_name_no_film_are_said_by_line(tmp_path, kind):
    _film(tmp_path, "day1/a.mov", "day2/a.mov", "b.mov")
    names = ["b.mov", "c.mov", "a.mov", "day1/a.mov", "/mnt/x/b.mov", "Br\u00fccke.mov"]
    if kind == "jsonl":
        _jsonl(tmp_path / "metadata.jsonl", *({"file_name": name, "text": "x"} for name in names))
        first, table = 1, "metadata.jsonl"
    else:
        table = "captions.csv"
        (tmp_path / table).write_text("file_name,text\n" + "".join(f"{name},x\n" for name in names), encoding="utf-8")
        first = 2
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "metadata.csv").write_text("day,weather\n1,rain\n")
    assert Notes(tmp_path).strays() == [
        f"{table}, line {first + 1}: 'c.mov' is no film here",
        f"{table}, line {first + 2}: 'a.mov' could be any of day1/a.mov, day2/a.mov",
        f"{table}, line {first + 5}: 'Brücke.mov' is no film here",
        "notes/metadata.csv is not read: no film lies in its folder or below",
    ]


def test_rows_that_no_shot_takes_are_said_by_line(tmp_path):
    root = tmp_path
    _film(root, "footage/a.mov")
    _jsonl(
        root / "footage" / "metadata.jsonl",
        {"file_name": "a.mov", "text": "zero", "shot": 0},
        {"file_name": "a.mov", "text": "one", "shot": 1, "start_frame": 40},
        {"file_name": "a.mov", "text": "early", "start_frame": 10},
        {"file_name": "a.mov", "text": "at 30", "start_frame": 30},
        {"file_name": "a.mov", "text": "past the end", "start_frame": 500},
    )
    mine = replace(_machine("a", 30), edited=True)
    write_generated(root / "footage", [mine, replace(_machine("a", 15), edited=True), _machine("a", 16)])
    assert unheard(root, root / "footage", {"a": _clip("a")}, SHOTS) == [
        "metadata.jsonl, line 2: no shot of a has shot = 1 and start_frame = 40",
        "metadata.jsonl, line 3: no shot of a has start_frame = 10",
        "metadata.jsonl, line 5: no shot of a has start_frame = 500",
        f"{GENERATED}, row 1: the caption you wrote for 30 frames of a.mov from 15 fits no shot any more",
    ]


def _film(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("x")


@pytest.mark.parametrize(
    ("written", "film"),
    [
        ("a.mov", "a.mov"),
        ("a", "a.mov"),
        ("./day1/a.mov", "day1/a.mov"),
        ("day1\\a.mov", "day1/a.mov"),
        ("a.mov", "day1/a.mov"),
        ("/mnt/show/day1/a.mov", "day1/a.mov"),
        ("cafe\u0301.mov", "caf\u00e9.mov"),
        ("caf\u00e9.mov", "cafe\u0301.mov"),
        ("A.MOV", "a.mov"),
    ],
)
@pytest.mark.parametrize("table", ["metadata.jsonl", "metadata.csv"])
def test_a_row_finds_its_film_by_path_or_name(tmp_path, table, written, film):
    _film(tmp_path, film, "other.mov")
    if table.endswith("csv"):
        (tmp_path / table).write_text(f"file_name,text\n{written},words\n", encoding="utf-8")
    else:
        _jsonl(tmp_path / table, {"file_name": written, "text": "words"})
    assert [row.text for row in read_rows(tmp_path, tmp_path / film)] == ["words"]
    assert read_rows(tmp_path, tmp_path / "other.mov") == []


@pytest.mark.parametrize(
    ("films", "written", "owner"),
    [
        (("a.mov", "A.mov"), "A.mov", "A.mov"),  # both are there: the spelling decides
        (("a.mov", "A.mov"), "A.MOV", None),  # either could be meant
        (("day1/a.mov", "day2/a.mov"), "a.mov", None),
        (("day1/a.mov", "a.mov"), "a.mov", "a.mov"),
        (("day1/a.mov",), "day2/a.mov", None),
    ],
)
def test_a_row_is_no_guess_between_films(tmp_path, films, written, owner):
    _film(tmp_path, *films)
    _jsonl(tmp_path / "metadata.jsonl", {"file_name": written, "text": "words"})
    found = [name for name in films if read_rows(tmp_path, tmp_path / name)]
    assert found == ([owner] if owner else [])


def test_caption_files_beside_their_film(tmp_path):
    _film(tmp_path, "caf\u00e9.mov", "b.mov")
    (tmp_path / "cafe\u0301.TXT").write_bytes("a\u0301 rider".encode("utf-16"))
    (tmp_path / "b.txt").write_bytes(b"\xef\xbb\xbfone\r\ntwo")
    assert [row.text for row in read_rows(tmp_path, tmp_path / "caf\u00e9.mov")] == ["a\u0301 rider"]
    assert [row.text for row in read_rows(tmp_path, tmp_path / "b.mov")] == ["one two"]


def test_a_line_separator_or_a_cell_of_two_lines_is_a_space(tmp_path):
    _film(tmp_path, "a.mov", "b.mov")
    _jsonl(tmp_path / "metadata.jsonl", {"file_name": "a.mov", "text": "x"})
    row = {"file_name": "a.mov", "text": "one\u2028two\x85three\x1cfour"}
    (tmp_path / "metadata.jsonl").write_text(json.dumps(row, ensure_ascii=False) + "\n", encoding="utf-8")
    (tmp_path / "captions.csv").write_bytes(b'file_name;text\r\nb.mov;"one\r\ntwo; three"\r\n')
    assert read_rows(tmp_path, tmp_path / "a.mov")[0].text == "one two three four"
    assert read_rows(tmp_path, tmp_path / "b.mov")[0].text == "one two; three"


@pytest.mark.parametrize("key", ["text", "caption", "scene", "owner", "licence", "consent", "document"])
@pytest.mark.parametrize("value", ["[1]", "NaN", "3", "null", "true", "{}", '"\\ud83d"'])
def test_values_that_are_not_text_are_refused_by_row(tmp_path, key, value):
    (tmp_path / "metadata.jsonl").write_text(f'{{"file_name": "z.mov"}}\n{{"file_name": "a.mov", "{key}": {value}}}\n')
    with pytest.raises(ConfigError) as caught:
        read_rows(tmp_path, tmp_path / "a.mov")
    assert caught.value.where.endswith("metadata.jsonl, line 2")
