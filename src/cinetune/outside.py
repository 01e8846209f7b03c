"""What comes from outside: the one boundary for text, tables and names that other people and programs wrote.

    read_text       TOML, CSV, JSONL, EDL, LUT, captions: byte order marks, UTF-16 that announces itself, a clear error
    parse_toml, parse_json, parse_xml, json_lines, csv_rows, safetensors_header
                    bounded in length, nesting, digits and count, so that no input takes long or much memory
    same_name ...   one comparison of file names
    escaped, toml_string, toml_comment
                    on one line, whatever it holds

Nothing but the error class a caller names leaves a reader. Bounds are far above what people write and far below what
hurts: the largest legal input of each takes seconds and well under 1 GiB.
"""

from __future__ import annotations

import codecs
import csv
import io
import json
import os
import re
import stat
import tomllib
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast
from xml.etree import ElementTree
from xml.parsers import expat

from cinetune.errors import CinetuneError, ConfigError, FootageError

__all__ = [
    "MOST_DEPTH",
    "MOST_NAME",
    "MOST_TABLE",
    "MOST_TEXT",
    "MOST_TOML",
    "Refuse",
    "count_of",
    "csv_rows",
    "decode_text",
    "escaped",
    "folded",
    "is_file",
    "json_lines",
    "name_parts",
    "on_disk",
    "one_line",
    "parse_json",
    "parse_toml",
    "parse_xml",
    "path_text",
    "printable",
    "read_bytes",
    "read_table",
    "read_text",
    "read_toml",
    "safetensors_header",
    "same_name",
    "spreadsheet_cell",
    "toml_comment",
    "toml_string",
]

Refuse = type[CinetuneError]
"""The class of error a reader raises: what a broken file means depends on whose file it is."""

MOST_TEXT = 64 << 20
"""Bytes of a text file; a feature film's XML has some tens of megabytes."""
MOST_TABLE = 16 << 20
"""Bytes of a caption table: 40 clips have some tens of kilobytes."""
MOST_TOML = 1 << 20
MOST_DEPTH = 100
"""Brackets, tables or elements inside each other."""
MOST_NAME = 255
"""Bytes of one file name, and `_MOST_PATH` of a path: to ask a disk for longer ones is an error on most."""
_MOST_PATH = 4000
_MOST_NODES = 1_000_000  # objects, lists or elements in one file
_MOST_ROWS = 200_000
_MOST_COLUMNS = 1000
_MOST_WHOLE = 2**63  # whole numbers beyond are damage, and no float holds them
_MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32"),  # begins with the mark of UTF-16, so it is asked for first
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_SAVE = "save it as UTF-8"
_TOML_PIECE = re.compile(
    r'"""(?:[^"\\]++|\\.|""?(?!"))*+"{3,5}'
    r"|'''(?:[^']++|''?(?!'))*+'{3,5}"
    r'|"(?:[^"\\\n]++|\\.)*+"'
    r"|'[^'\n]*+'"
    r"|#[^\n]*+|[^\"'#\[\]{}\n.,=]++|(?P<mark>[\[\]{}\n.,=])",
    re.DOTALL,
)
_TOML_ESCAPED = re.compile(r'["\\\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]')
_DELIMITERS = ",;\t"


def is_file(path: Path) -> bool:
    """Whether there is such a file. A name no disk would take (too long, a NUL in it) is one that is not there."""
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False


def read_bytes(path: Path, *, most: int = MOST_TEXT, refuse: Refuse = ConfigError) -> bytes:
    """The bytes of a file of at most `most`. Pipes and devices are not opened: they would be waited for."""
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise refuse("a folder, a pipe or a device, no file", where=str(path))
        with path.open("rb") as file:
            data = file.read(min(most, os.fstat(file.fileno()).st_size) + 1)
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else str(error)
        raise refuse(f"it cannot be read: {why}", where=str(path)[:_MOST_PATH]) from error
    if len(data) > most:
        raise refuse(f"it is larger than {most >> 20} MiB", where=str(path))
    return data


def decode_text(data: bytes, *, where: str, refuse: Refuse = ConfigError, eight_bit: bool = False) -> str:
    """Text as it announces itself by a byte order mark, else UTF-8.

    `eight_bit`: what is no UTF-8 is taken as Latin-1, for formats whose own words are ASCII in every 8-bit set.
    """
    encoding = next((name for mark, name in _MARKS if data.startswith(mark)), "utf-8")
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError as error:
        if encoding == "utf-8" and eight_bit:
            text = data.decode("latin-1")
        else:
            name = encoding.removesuffix("-sig").upper()
            raise refuse(f"it is not {name} text (byte {error.start})", where=where, remedy=_SAVE) from error
    if "\0" in text:
        what = "it holds NUL characters: no text, or UTF-16 without a byte order mark"
        raise refuse(what, where=where, remedy=_SAVE)
    return text


def read_text(path: Path, *, most: int = MOST_TEXT, refuse: Refuse = ConfigError, eight_bit: bool = False) -> str:
    """A text file as `decode_text` reads it, line ends as they are."""
    return decode_text(read_bytes(path, most=most, refuse=refuse), where=str(path), refuse=refuse, eight_bit=eight_bit)


def _bounded(value: Any, where: str, refuse: Refuse, *, finite: bool) -> Any:
    """The value, if its nesting, numbers and text are sane."""
    waiting = [(value, 1)]
    while waiting:
        node, depth = waiting.pop()
        if depth > MOST_DEPTH:
            raise refuse(f"it is nested more than {MOST_DEPTH} deep", where=where)
        if isinstance(node, dict):
            waiting += ((part, depth + 1) for part in node)
            waiting += ((part, depth + 1) for part in node.values())
        elif isinstance(node, list):
            waiting += ((part, depth + 1) for part in node)
        elif isinstance(node, str):
            if not node.isascii() and (half := re.search("[\ud800-\udfff]", node)):
                what = f"it holds half of a character ({half[0]!a}), as a text cut in the middle has it"
                raise refuse(what, where=where, remedy="write that text again")
        elif isinstance(node, int) and not -_MOST_WHOLE < node < _MOST_WHOLE:
            raise refuse("it holds a whole number of more than 18 digits", where=where)
        elif finite and isinstance(node, float) and not -float("inf") < node < float("inf"):
            raise refuse("it holds a number that is infinite or none (NaN)", where=where)
    return value


def parse_toml(text: str, *, where: str, refuse: Refuse = ConfigError) -> dict[str, Any]:
    """A TOML document, its nesting checked before it is parsed: the parser calls itself for every bracket."""
    if len(text) > MOST_TOML:
        raise refuse(f"it is larger than {MOST_TOML >> 20} MiB", where=where)
    depth = dots = at = 0
    while match := _TOML_PIECE.match(text, at):  # what no piece fits is an unfinished string: the parser says so
        at, mark = match.end(), match["mark"]
        depth += 1 if mark in ("[", "{") else -1 if mark in ("]", "}") else 0
        dots = dots + 1 if mark == "." else 0 if mark in ("\n", ",", "=") else dots
        if max(depth, dots) >= MOST_DEPTH:
            raise refuse(f"it is nested more than {MOST_DEPTH} deep", where=where)
    try:
        return _bounded(tomllib.loads(text), where, refuse, finite=False)
    except (ValueError, RecursionError) as error:
        raise refuse(f"not readable as TOML: {error}", where=where) from error


def read_toml(path: Path, *, refuse: Refuse = ConfigError) -> dict[str, Any]:
    return parse_toml(read_text(path, most=MOST_TOML, refuse=refuse), where=str(path), refuse=refuse)


def parse_json(
    text: str | bytes, *, where: str, refuse: Refuse = ConfigError, finite: bool = True, halves: bool = False
) -> Any:
    """A JSON value. NaN and infinity are refused, or with `finite=False` let through; half a character is refused, or
    with `halves` becomes a question mark.
    """
    marks = (b"[", b"{", b",") if isinstance(text, bytes) else ("[", "{", ",")
    counts = [cast(Any, text).count(mark) for mark in marks]
    if counts[0] + counts[1] > _MOST_NODES or counts[2] > 2 * _MOST_NODES:
        raise refuse(f"not readable as JSON: it has more than {_MOST_NODES} parts", where=where)
    try:
        value = json.loads(text)
        if halves:
            try:
                _bounded(value, where, refuse, finite=finite)
            except CinetuneError:
                value = json.loads(json.dumps(value, ensure_ascii=False).encode("utf-8", "replace"))
    except (ValueError, RecursionError) as error:
        what = error.msg if isinstance(error, json.JSONDecodeError) else str(error)
        raise refuse(f"not readable as JSON: {what}", where=where) from error
    return _bounded(value, where, refuse, finite=finite)


def read_table(path: Path, *, refuse: Refuse = ConfigError) -> dict[str, Any]:
    """A JSON file that holds one table, such as the `config.json` of a model."""
    table = parse_json(read_bytes(path, refuse=refuse), where=str(path), refuse=refuse)
    if not isinstance(table, dict):
        raise refuse("it holds no table", where=str(path))
    return table


def json_lines(text: str, *, where: str, refuse: Refuse = ConfigError) -> Iterator[tuple[int, Any]]:
    """(line number, value) of JSON lines. A line ends at a line feed and nowhere else: U+2028 is a letter of JSON."""
    at, number = 0, 0
    while at < len(text):
        end = text.find("\n", at)
        end = len(text) if end < 0 else end
        line, at, number = text[at:end].strip(" \t\r"), end + 1, number + 1
        if number > _MOST_ROWS:
            raise refuse(f"it has more than {_MOST_ROWS} lines", where=where)
        if line:
            yield number, parse_json(line, where=f"{where}, line {number}", refuse=refuse)


def csv_rows(
    text: str, *, where: str, needs: str, refuse: Refuse = ConfigError
) -> Iterator[tuple[int, dict[str, str]]]:
    """(line number, row by column) of a table with a heading that has a column `needs`, with commas, semicolons or tabs
    between cells. Rows with more cells than the heading are refused: a comma inside a text that lacks its quotes.
    """
    heading = re.split("[\r\n]", text.lstrip("\r\n"), maxsplit=1)[0]  # some programs end lines by a return alone
    delimiter = max(_DELIMITERS, key=heading.count)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    columns: list[str] = []
    try:
        for row in reader:
            place = f"{where}, line {reader.line_num}"
            if reader.line_num > _MOST_ROWS:
                raise refuse(f"it has more than {_MOST_ROWS} lines", where=where)
            if not any(cell.strip() for cell in row):
                continue
            if not columns:
                columns = [cell.strip() for cell in row]
                if needs not in columns or len(columns) > _MOST_COLUMNS:
                    found = ", ".join(repr(name[:40]) for name in columns[:8])
                    raise refuse(f'its heading has no column "{needs}", but {found}', where=where)
                twice = next((name for name in columns if name and columns.count(name) > 1), None)
                if twice is not None:
                    raise refuse(f"two of its columns are called {twice!r}", where=where)
                continue
            if any(cell.strip() for cell in row[len(columns) :]):
                remedy = f"put quotes around a text that has a {delimiter!r} in it"
                what = f"the row has {len(row)} cells under {len(columns)} headings"
                raise refuse(what, where=place, remedy=remedy)
            yield reader.line_num, dict(zip(columns, row, strict=False))
    except csv.Error as error:
        raise refuse(f"not a table: {error}", where=f"{where}, line {reader.line_num}") from error


def parse_xml(data: bytes, *, refuse: Refuse = FootageError, remedy: str = "") -> ElementTree.Element:
    """The root of an XML file read without trust: no document type, no entities, bounded depth and count."""
    builder = ElementTree.TreeBuilder()
    parser = expat.ParserCreate()
    parser.buffer_text = True
    depth = count = 0

    def forbid(*_: object) -> None:
        raise refuse("the XML defines a document type or entities of its own", remedy=remedy)

    def doctype(_name: str, system: str | None, public: str | None, internal: bool) -> None:
        if internal or system or public:
            forbid()

    def start(tag: str, attributes: dict[str, str]) -> None:
        nonlocal depth, count
        depth, count = depth + 1, count + 1 + len(attributes)
        if depth > 2 * MOST_DEPTH:  # each nest of sequences takes five elements
            raise refuse(f"the XML is nested more than {2 * MOST_DEPTH} deep", remedy=remedy)
        if count > _MOST_NODES:
            raise refuse(f"the XML has more than {_MOST_NODES} elements", remedy=remedy)
        builder.start(tag, attributes)

    def end(tag: str) -> None:
        nonlocal depth
        depth -= 1
        builder.end(tag)

    parser.StartDoctypeDeclHandler = doctype
    parser.EntityDeclHandler = forbid
    parser.StartElementHandler = start
    parser.EndElementHandler = end
    parser.CharacterDataHandler = builder.data
    try:
        parser.Parse(data, True)
    except (expat.ExpatError, ValueError, LookupError) as error:
        raise refuse(f"the XML cannot be read: {error}", remedy=remedy) from error
    return builder.close()


def safetensors_header(path: Path, *, refuse: Refuse) -> tuple[dict[str, Any], int]:
    """(header, first byte of the tensors) of a safetensors file, without its tensors.

    Every entry but `__metadata__` is a table with `dtype`, `shape` and `data_offsets` of whole numbers.
    """
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            length = int.from_bytes(file.read(8), "little")
            if length > size - 8:
                raise refuse("cut short (an interrupted download?)", where=str(path))
            if length > MOST_TEXT:
                raise refuse("not a safetensors file", where=str(path))
            data = file.read(length)
    except (OSError, ValueError) as error:
        raise refuse(f"it cannot be read: {error}", where=str(path)) from error
    try:
        header = parse_json(data, where=str(path), refuse=refuse)
    except CinetuneError as error:
        raise refuse(f"not a safetensors file: {error.what}", where=str(path)) from error
    if not isinstance(header, dict) or not all(
        name == "__metadata__" or _is_tensor(entry) for name, entry in header.items()
    ):
        raise refuse("not a safetensors file", where=str(path))
    return header, 8 + length


def _is_tensor(entry: Any) -> bool:
    if not isinstance(entry, dict) or not isinstance(entry.get("dtype"), str):
        return False
    numbers = entry.get("shape"), entry.get("data_offsets")
    whole = [isinstance(part, list) and all(type(each) is int and each >= 0 for each in part) for part in numbers]
    return all(whole) and len(cast(Any, numbers[1])) == 2


def count_of(name: str, default: int, *, refuse: Refuse = ConfigError) -> int:
    """A count >= 0 in the environment variable `name`. Raises `refuse` for what is none."""
    said = os.environ.get(name)
    if said is None:
        return default
    if re.fullmatch(r"\s*\d{1,9}\s*", said, re.ASCII) is None:
        raise refuse(
            f"{name} in the environment is no count: {escaped(said[:80])!r}", remedy=f"mend it, or unset {name}"
        )
    return int(said)


def folded(name: str) -> str:
    """A name as it is compared: Unicode's composed form, without case. macOS writes e + accent where others write é."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())


def name_parts(name: str) -> tuple[str, ...]:
    """The folders and file of a path of any system, compared form, without `.` and empty parts."""
    return tuple(part for part in folded(name.strip()).replace("\\", "/").split("/") if part not in ("", "."))


def on_disk(folder: Path, name: str) -> Path:
    """`folder / name` as the disk spells it: a part that is not there is looked up in the form in which names are
    compared, and taken where one entry alone answers. What is not there at all stays as it was written.
    """
    try:
        if (folder / name).exists():
            return folder / name
        whole = Path(name.replace("\\", "/"))
        place = Path(whole.anchor) if whole.anchor else folder
        for part in whole.relative_to(whole.anchor).parts:
            if not os.path.lexists(place / part):
                (part,) = (entry.name for entry in place.iterdir() if folded(entry.name) == folded(part))
            place /= part
    except (OSError, ValueError):  # no such folder, a name no disk takes, none or several entries
        return folder / name
    return place


def same_name(one: str, other: str) -> bool:
    """Whether two paths, or a path and a bare name, may mean one file: the shorter is the end of the longer."""
    first, second = name_parts(one), name_parts(other)
    short = min(len(first), len(second))
    return short > 0 and first[-short:] == second[-short:]


def one_line(text: str) -> str:
    """Words with single spaces between them; line breaks of every kind are spaces."""
    return " ".join(text.split())


def escaped(text: str) -> str:
    """On one line and harmless to a terminal: what cannot be printed is spelled out."""
    return "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in text)


_STEERS = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff\ufff9-\ufffb\U000e0000-\U000e007f]"
)
"""What steers a terminal instead of being shown by it: control codes, line breaks but one, changes of direction."""


def printable(text: str) -> str:
    """Lines that are harmless to a terminal, whatever names they hold: what would steer it is spelled out as JSON
    spells it, so that JSON stays JSON. Letters of all scripts, emoji, line feeds and tabs stay.
    """
    return _STEERS.sub(lambda match: "".join(f"\\u{unit:04x}" for unit in _units(match[0])), text)


def _units(letter: str) -> tuple[int, ...]:
    """The UTF-16 code units of a character."""
    code = ord(letter)
    return (code,) if code < 0x10000 else (0xD800 + (code - 0x10000 >> 10), 0xDC00 + (code - 0x10000 & 0x3FF))


def spreadsheet_cell(text: str) -> str:
    """Text that a spreadsheet takes for text: what begins like a formula gets an apostrophe before it."""
    return f"'{text}" if text.lstrip()[:1] in ("=", "+", "-", "@") or text[:1] in ("\t", "\r") else text


def toml_string(text: str) -> str:
    """A TOML basic string that reads back as `text`, on one line."""
    return '"' + _TOML_ESCAPED.sub(_toml_letter, text) + '"'


def _toml_letter(match: re.Match[str]) -> str:
    code = ord(match[0])
    if match[0] in '"\\':
        return "\\" + match[0]
    if 0xD800 <= code < 0xE000:
        return "\\uFFFD"
    return f"\\u{code:04X}"


def toml_comment(text: str) -> str:
    """A comment line, whatever the text holds."""
    return f"# {escaped(text)}\n"


def path_text(name: str) -> str:
    """For settings that name a file: the name, if a disk could take it. Raises `ValueError`."""
    if "\0" in name:
        raise ValueError("a file name holds no NUL")
    if len(os.fsencode(name)) > _MOST_PATH or any(len(os.fsencode(p)) > MOST_NAME for p in name.split("/")):
        raise ValueError(f"a file name has at most {MOST_NAME} bytes, a path {_MOST_PATH}")
    return name
