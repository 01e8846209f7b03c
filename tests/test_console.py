"""Progress for people: live on a terminal, sparse lines elsewhere."""

import io

import pytest

from cinetune.console import Lines, Live, duration, reporter, table


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
