"""Progress for people: live on a terminal, sparse lines elsewhere."""

import io
import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from cinetune.console import Lines, Live, duration, reporter, table, tell
from cinetune.outside import printable, spreadsheet_cell


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.04, "0.0 s"), (9.94, "9.9 s"), (42.4, "42 s"), (59.9, "60 s"), (185, "3 min 5 s"), (7800, "2 h 10 min")],
)
def test_durations_read_well(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_a_table_aligns_its_columns() -> None:
    assert table([("a", "bbb", ""), ("aaaa", "b", "c")]) == "  a     bbb\n  aaaa  b    c"
    assert table([]) == ""


ROWS = [("name", "how", "why"), ("a", "model.storage=nf4 model.offload_blocks=40", "a sentence of some words " * 4)]


@pytest.mark.parametrize("width", [50, 60, 80, 100])
def test_a_table_fits_its_width_and_breaks_between_words(width: int) -> None:
    lines = table(ROWS, width=width).splitlines()
    assert max(map(len, lines)) <= width
    assert "model.offload_blocks=40" in " ".join(lines)
    assert sorted(" ".join(lines).split()) == sorted(" ".join(" ".join(row) for row in ROWS).split())


def test_a_table_too_narrow_for_its_words_breaks_them() -> None:
    text = table([("a" * 30, "b" * 50)], width=40)
    assert max(map(len, text.splitlines())) <= 40
    assert text.replace("\n", "").replace(" ", "").count("b") == 50


def test_without_a_terminal_nothing_is_broken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    monkeypatch.setattr("sys.__stdout__", io.StringIO())
    assert len(table(ROWS).splitlines()) == 2


def test_lines_tell_every_tenth_and_the_end() -> None:
    stream = io.StringIO()
    with Lines(stream).progress("cache", 40) as bar:
        for number in range(40):
            bar.advance(note=f"w{number}")
    told = [line.split()[1].rstrip(",") for line in stream.getvalue().splitlines()]
    assert told == [f"{done}/40" for done in range(4, 41, 4)]


def told_by(
    clock: list[float], monkeypatch: pytest.MonkeyPatch, steps: list[tuple[float, int]], total: int
) -> list[str]:
    """What a bar of lines says when its pieces come at these times."""
    stream = io.StringIO()
    monkeypatch.setattr("cinetune.console.time.monotonic", lambda: clock[0])
    with Lines(stream).progress("train", total) as bar:
        for at, count in steps:
            clock[0] = at
            bar.advance(count)
    return stream.getvalue().splitlines()


def test_what_comes_before_the_first_piece_is_not_taken_for_its_pace(monkeypatch: pytest.MonkeyPatch) -> None:
    """Step 0 is evaluated for 150 s, then each step takes 2 s."""
    lines = told_by([0.0], monkeypatch, [(152.0 + 2 * k, 1) for k in range(10)], 10)
    assert lines[0] == "  train 1/10"
    assert lines[1] == "  train 2/10, about 16 s left"
    assert lines[-1] == "  train 10/10"


def test_a_run_that_goes_on_is_judged_by_its_own_pace(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = told_by([0.0], monkeypatch, [(1.0, 80), (4.0, 10), (7.0, 10)], 100)
    assert lines == ["  train 80/100", "  train 90/100, about 3.0 s left", "  train 100/100"]


def test_a_long_silence_is_broken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cinetune.console.SILENT_SECONDS", 0.02)
    stream, spoke = io.StringIO(), threading.Event()

    class Listening(io.StringIO):
        def write(self, text: str, /) -> int:
            spoke.set()
            return stream.write(text)

    with Lines(Listening()).progress("train", 3) as bar:
        bar.advance(0, "evaluating")
        assert spoke.wait(20)
    assert stream.getvalue().splitlines()[0] == "  train 0/3  still at work: evaluating"
    before = threading.active_count()
    with Lines(stream).progress("train", 1) as bar:
        bar.advance()
    assert threading.active_count() <= before + 1


def test_lines_of_a_single_piece() -> None:
    stream = io.StringIO()
    with Lines(stream).progress("report", 1) as bar:
        bar.advance()
    assert stream.getvalue() == "  report 1/1\n"


def test_what_stages_say_is_never_taken_for_markup() -> None:
    stream = io.StringIO()
    for speaker in (Lines(stream), Live(stream)):
        speaker.say("[train] lr 3e-5")
        speaker.warn("[/] odd")
    assert stream.getvalue() == "[train] lr 3e-5\nwarning: [/] odd\n" * 2


def test_live_bars_may_nest() -> None:
    stream = io.StringIO()
    speaker = Live(stream)
    with speaker.progress("train", 2) as outer:
        with speaker.progress("validate [0]", 1) as inner:
            inner.advance(note="shot")
        outer.advance(2)
    with speaker.progress("train again", 1) as bar:
        bar.advance()
    assert "train" in stream.getvalue()


def test_a_pipe_gets_lines() -> None:
    assert isinstance(reporter(io.StringIO()), Lines)


STEERING = [
    "\x1b]0;owned\x07", "\x1b[2J", "\x9b31m", "a\rb", "a\bb", "\x7f", "\u202etxt.exe", "\u2066x", "a\u2028b",
    "\ud83d", "\x00", "\U000e0041",
]  # fmt: skip


@pytest.mark.parametrize("text", STEERING)
def test_what_steers_a_terminal_is_spelled_out(text: str) -> None:
    """Wherever a name can get into what is said, on lines and on a live display."""
    for make in (Lines, Live):
        stream = io.StringIO()
        out = make(stream)
        out.say(f"clip {text}")
        out.warn(f"clip {text}")
        with out.progress(f"cache {text}", 1) as bar:
            bar.advance(1, note=f"clip {text}")
        tell(table([("a", text), (text, "b")]), stream=stream)
        said = stream.getvalue()
        assert text not in said and (text[0].isprintable() or text[0] not in said)
        said.encode()
        assert printable(text)[0:1] in said
    assert json.loads(printable(json.dumps(text, ensure_ascii=False))) == text, "JSON stays JSON"


@pytest.mark.parametrize("text", ["Bär.mp4", "映画", "👩‍🚀", "a\tb\nc", "שלום", "1\u00a0000"])
def test_letters_of_all_scripts_stay(text: str) -> None:
    assert printable(text) == text


def test_a_line_break_in_a_cell_makes_no_row() -> None:
    assert table([("a\nerror: b", "c")]) == "  a\\nerror: b  c"


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", " =1"])
def test_a_spreadsheet_calculates_nothing_we_write(text: str) -> None:
    assert spreadsheet_cell(text) == f"'{text}"
    assert spreadsheet_cell("Studio = us") == "Studio = us"


def test_a_reader_that_goes_away_ends_it_quietly(tmp_path: Path) -> None:
    """`cinetune plan | head -1`, and output that takes ASCII only."""
    command = [sys.executable, "-m", "cinetune"]
    folder = tmp_path / "Bär"
    settings = os.environ | {"PYTHONIOENCODING": "ascii"}
    made = subprocess.run([*command, "new", str(folder)], capture_output=True, env=settings, check=False)
    assert made.returncode == 0 and b"B\\xe4r" in made.stdout and made.stderr == b""
    with subprocess.Popen(
        [*command, "plan", "-C", str(folder)], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as plan:
        assert plan.stdout is not None and plan.stderr is not None
        plan.stdout.close()
        assert (plan.stderr.read(), plan.wait(60)) == (b"", 141)
