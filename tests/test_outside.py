"""The boundary for what comes from outside: encodings, bounds, names, and text that leaves on one line."""

from __future__ import annotations

import json
import os
import struct
import tomllib
import unicodedata
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cinetune.errors import ClusterError, ConfigError, FootageError, WeightsError
from cinetune.outside import (
    count_of,
    csv_rows,
    decode_text,
    escaped,
    is_file,
    json_lines,
    on_disk,
    parse_json,
    parse_toml,
    parse_xml,
    path_text,
    read_bytes,
    read_text,
    safetensors_header,
    same_name,
    toml_comment,
    toml_string,
)

WORDS = 'name = "café, naïve, 映画"\n'


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
def test_text_is_read_as_it_announces_itself(tmp_path, encoding):
    (tmp_path / "a.toml").write_bytes(WORDS.encode(encoding))
    assert read_text(tmp_path / "a.toml") == WORDS


@pytest.mark.parametrize("mark", [b"\xff\xfe", b"\xfe\xff"])
def test_utf_16_of_either_order(mark):
    order = "utf-16-le" if mark == b"\xff\xfe" else "utf-16-be"
    assert decode_text(mark + WORDS.encode(order), where="a") == WORDS


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        ("café".encode("latin-1"), "not UTF-8 text"),
        ("no mark".encode("utf-16-le"), "UTF-16 without a byte order mark"),
        (b"\xff\xfea", "not UTF-16 text"),
        (b"\xef\xbb\xbf\xff", "not UTF-8 text"),
    ],
)
def test_other_text_is_refused_and_says_what_to_do(data, reason):
    with pytest.raises(FootageError, match=reason) as caught:
        decode_text(data, where="a.txt", refuse=FootageError)
    assert (caught.value.where, caught.value.remedy) == ("a.txt", "save it as UTF-8")


def test_eight_bit_text_where_a_format_is_ascii_anyway():
    assert decode_text("café".encode("latin-1"), where="", eight_bit=True) == "café"
    with pytest.raises(ConfigError):
        decode_text(b"a\0b\xff", where="", eight_bit=True)


def test_files_that_are_none_are_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for name, reason in (("pipe", "a pipe"), (".", "a folder"), ("gone", "No such file"), ("x" * 5000, "too long")):
        with pytest.raises(ConfigError, match=reason):
            read_bytes(tmp_path / name)
    (tmp_path / "big").write_bytes(b"x" * 11)
    with pytest.raises(ConfigError, match="larger than"):
        read_bytes(tmp_path / "big", most=10)
    assert not is_file(tmp_path / ("x" * 5000)) and not is_file(tmp_path / "a\0b") and is_file(tmp_path / "big")


@pytest.mark.parametrize(
    "text",
    [
        "x = " + "[" * 20_000,
        "x = " + "{a=" * 20_000,
        "x = " + "[" * 150 + "]" * 150,
        "[a" + ".a" * 3000 + "]\nx = 1",
        "a" + ".a" * 400_000 + " = 1",
        "x = " + "9" * 6000,
        "x = 0x" + "f" * 6000,
        'x = "\\ud83d"',
        "x = 1\nx = 2",
        "x" * (1 << 20),
        "x = '''" + "'' " * 300_000,
        'x = """' + '\\"' * 400_000,
    ],
    ids=lambda text: f"{text[:14]}...{len(text)}",
)
def test_toml_that_would_hang_or_recurse_is_refused(text):
    with pytest.raises(ConfigError):
        parse_toml(text, where="a.toml")


def test_toml_of_people_passes():
    """Brackets and dots inside text and comments are no nesting."""
    lines = ["[a.b.c]", f"x = '{'[' * 200}{'.' * 200}'", f"# {'[' * 200}", f'y = """\n{"{[" * 100}\\""""""']
    lines += [f"z = [{', '.join(['0.5'] * 300)}]", "[[shot]]\nid = 'a'\n" * 300]
    table = parse_toml("\n".join(lines), where="a")
    assert (len(table["shot"]), len(table["a"]["b"]["c"]["z"])) == (300, 300)
    assert table["a"]["b"]["c"]["y"].endswith('"""')


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("[" * 200_000, "readable as JSON"),
        ("[" * 500 + "]" * 500, "nested more than"),
        ("9" * 6000, "digits"),
        ("1" + "0" * 30, "digits"),
        ("1e999", "infinite"),
        ("[NaN]", "NaN"),
        ('{"a": "\\ud83d"}', "half of a character"),
        ('{"\\udc00": 1}', "half of a character"),
        ("[" + "[]," * 1_100_000 + "0]", "more than"),
        (b"\xff", "readable as JSON"),
    ],
    ids=lambda text: f"{str(text)[:14]}",
)
def test_json_that_hurts_is_refused(text, reason):
    with pytest.raises(FootageError, match=reason):
        parse_json(text, where="a.json", refuse=FootageError)


def test_half_a_letter_is_mended_where_it_does_not_matter():
    assert parse_json('["a\\ud83d", 1e999]', where="", finite=False, halves=True) == ["a?", float("inf")]


@given(st.recursive(st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(), st.lists, max_leaves=20))
def test_sane_json_comes_through(value):
    assert parse_json(json.dumps(value), where="") == value


def test_json_lines_end_at_a_line_feed_and_nowhere_else():
    rows = [{"text": "one\u2028two\x85three\u2029"}, {"text": "\x0b".join("ab")}]
    text = "".join(json.dumps(row, ensure_ascii=False).replace("\\u000b", "\\u000b") + "\r\n\n" for row in rows)
    assert list(json_lines(text, where="a")) == [(1, rows[0]), (3, rows[1])]
    with pytest.raises(ConfigError) as caught:
        list(json_lines('{}\n\n{"a": "\\ud800"}\n', where="a.jsonl"))
    assert caught.value.where == "a.jsonl, line 3"


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_tables_are_read_as_spreadsheets_write_them(delimiter, end):
    cells = [
        ["file_name", "text"],
        ["a.mov", f'"one{end}two, three;\tfour ""five"""'],
        [""],
        ["b.mov", "six\u2028seven"],
    ]
    text = end.join(delimiter.join(row) for row in cells) + end
    rows = [row for _, row in csv_rows(text, where="a.csv", needs="file_name")]
    assert rows == [
        {"file_name": "a.mov", "text": f'one{end}two, three;\tfour "five"'},
        {"file_name": "b.mov", "text": "six\u2028seven"},
    ]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("clip,text\na,b\n", 'no column "file_name"'),
        ("file_name,text\na.mov,a rider, crossing\n", "3 cells under 2 headings"),
        ("file_name,text,text\na.mov,a,b\n", "two of its columns"),
        ("file_name,text\na.mov," + "x" * 200_000, "not a table"),
        ('file_name,text\na.mov,"a rider\nb.mov,a boat\n', "not a table"),  # the quote would swallow every row after it
        ('file_name,text\na.mov,"a 12" screen"\n', "not a table"),
        ("file_name" + "," * 2000 + "\n", "no column"),
        ("file_name\n" + "\n" * 300_000, "more than"),
    ],
)
def test_tables_that_are_none_are_refused_by_row(text, reason):
    with pytest.raises(ConfigError, match=reason):
        list(csv_rows(text, where="a.csv", needs="file_name"))


@pytest.mark.parametrize(("made", "asked"), [("NFC", "NFD"), ("NFD", "NFC"), ("NFC", "NFC")])
def test_a_file_is_found_in_another_unicode_form_and_case(tmp_path, made, asked):
    place = tmp_path / unicodedata.normalize(made, "Gr\u00fcn")
    place.mkdir()
    path = place / unicodedata.normalize(made, "Br\u00fccke.png")
    path.write_bytes(b"x")
    named = unicodedata.normalize(asked, "Gr\u00fcn/Br\u00fccke.png")
    for name in (named, named.upper(), named.replace("/", "\\"), f"./{named}", str(tmp_path / named)):
        assert on_disk(tmp_path, name) == path or on_disk(tmp_path, name).samefile(path)
    assert on_disk(tmp_path, "gone/x.png") == tmp_path / "gone/x.png"
    for name in ("x" * 5000, "a\0b", "", "../../etc"):
        assert on_disk(tmp_path, name) == tmp_path / name
    (place / "A.mov").write_bytes(b"1")
    (place / "a.MOV").write_bytes(b"2")
    several = "Gr\u00fcn/a.mov"
    assert on_disk(tmp_path, several) == tmp_path / several, "several answer, so none does"


@pytest.mark.parametrize(
    "data",
    [
        b"<a>" * 5000,
        b"<a/>" * 3,
        b"<r>" + b"<a/>" * 1_100_000 + b"</r>",
        b"<!DOCTYPE a [<!ENTITY b 'c'>]><a>&b;</a>",
        b"<?xml version='1.0' encoding='klingon'?><a/>",
        b"",
        b"<a>\x00</a>",
    ],
    ids=lambda data: str(data[:20]),
)
def test_xml_that_hurts_is_refused(data):
    with pytest.raises(FootageError):
        parse_xml(data)


def tensors(header: object, *, body: int = 8, length: int | None = None) -> bytes:
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + bytes(body)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x01",
        tensors({}, length=2**63),
        tensors({}, length=2**40),
        tensors([1]),
        tensors({"a": 1}),
        tensors({"a": {"dtype": "F32", "shape": [1], "data_offsets": [0]}}),
        tensors({"a": {"dtype": "F32", "shape": [1], "data_offsets": ["0", "4"]}}),
        tensors({"a": {"dtype": "F32", "shape": [True], "data_offsets": [0, 4]}}),
        struct.pack("<Q", 4000) + b"[" * 4000,
        struct.pack("<Q", 4) + b"\xff\xfe\x00\x00",
    ],
)
def test_broken_headers_of_weights(tmp_path, data):
    (tmp_path / "a.safetensors").write_bytes(data)
    with pytest.raises(WeightsError):
        safetensors_header(tmp_path / "a.safetensors", refuse=WeightsError)


def test_a_header_of_weights(tmp_path):
    entry = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}
    data = tensors({"a": entry, "__metadata__": {"b": "c"}})
    (tmp_path / "a.safetensors").write_bytes(data)
    header, start = safetensors_header(tmp_path / "a.safetensors", refuse=WeightsError)
    assert header == {"a": entry, "__metadata__": {"b": "c"}} and start == len(data) - 8


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("caf\u00e9.mov", "cafe\u0301.MOV", True),
        ("/mnt/show/a.mov", "a.mov", True),
        ("D:\\rushes\\day1\\a.mov", "day1/a.mov", True),
        ("./a.mov", "a.mov", True),
        ("day2/a.mov", "day1/a.mov", False),
        ("aa.mov", "a.mov", False),
        ("", "a.mov", False),
        ("STRASSE.mov", "straße.mov", True),
    ],
)
def test_one_comparison_of_names(one, other, same):
    assert same_name(one, other) is same is same_name(other, one)


@given(st.text())
def test_toml_strings_read_back(text):
    line = f"x = {toml_string(text)}"
    assert len(line.splitlines()) == 1
    assert tomllib.loads(line)["x"] == text


def test_half_a_letter_does_not_break_a_toml_string():
    assert tomllib.loads(f"x = {toml_string('a' + chr(0xD83D))}")["x"] == "a\ufffd"


@given(st.text(alphabet=st.characters(codec=None)))
def test_comments_and_escapes_stay_on_their_line(text):
    line = toml_comment(text)
    assert len(line.splitlines()) == 1 and tomllib.loads(line + "a = 1") == {"a": 1}
    assert escaped(text).isprintable()


def test_numbers_of_the_environment(monkeypatch):
    monkeypatch.delenv("RANK", raising=False)
    assert count_of("RANK", 3) == 3
    monkeypatch.setenv("RANK", " 2 ")
    assert count_of("RANK", 3) == 2
    for wrong in ("x", "-1", "1.5", "", "9" * 5000, "²"):
        monkeypatch.setenv("RANK", wrong)
        with pytest.raises(ClusterError, match="RANK"):
            count_of("RANK", 0, refuse=ClusterError)


def test_paths_no_disk_takes():
    assert path_text("a/" * 1500) == "a/" * 1500
    for wrong in ("x" * 256, "a/" * 2500, "a\0b", "é" * 128, "\ud83d"):
        with pytest.raises(ValueError, match=r"."):
            path_text(wrong)


@given(st.binary(max_size=300))
def test_bytes_are_text_or_the_error_that_was_asked_for(data):
    for eight_bit in (False, True):
        with suppress(FootageError):
            text = decode_text(data, where="a", refuse=FootageError, eight_bit=eight_bit)
            assert "\0" not in text and text.encode().decode() == text
