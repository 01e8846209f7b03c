"""What PyAV says, the same whichever release says it."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import pytest

from cinetune.footage.edit.finder import FileFinder
from cinetune.footage.read.libav import appears, exact, metadata, open_to_read
from cinetune.footage.video import probe
from films import write_counted


@dataclass
class Pair:
    """A rate as PyAV 19 gives it: two integers, false where libav has nothing to say."""

    numerator: int
    denominator: int

    def __bool__(self) -> bool:
        return self.numerator != 0 and self.denominator != 0


@dataclass
class Said:
    metadata: dict[str, str]


@pytest.mark.parametrize(
    ("said", "means"),
    [
        (Pair(24000, 1001), Fraction(24000, 1001)),
        (Fraction(1, 90000), Fraction(1, 90000)),
        (Pair(0, 1), None),
        (Pair(1, 0), None),
        (Fraction(0), None),
        (None, None),
    ],
)
def test_a_rational_is_exact_or_not_there(said: object, means: Fraction | None) -> None:
    assert exact(said) == means


def test_products_of_time_are_not_rounded() -> None:
    """Two pairs of 32-bit integers multiply with rounding; a day of film in fine ticks must not."""
    ticks, tick = 2_000_000_011, Pair(1001, 2_000_000_014)
    assert (exact(tick) or 0) * ticks == Fraction(1001 * 2_000_000_011, 2_000_000_014)


def test_bytes_that_are_no_text_can_be_written_again() -> None:
    words = metadata(Said({"titel": "caf\udce9", "ok": "Stra\u00dfe"}))
    assert words == {"titel": "caf\ufffd", "ok": "Stra\u00dfe"}
    "".join(words.values()).encode("utf-8")


def test_a_film_whose_title_is_latin_1_is_read(tmp_path: Path) -> None:
    """The name of the reel is written as UTF-8 of the same length, then spoiled in place."""
    path = tmp_path / "a.mov"
    with av.open(str(path), "w", options={"movflags": "use_metadata_tags"}) as container:
        container.metadata["reel_name"] = "Caf\u00e9"
        stream = container.add_stream("libx264", rate=24)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for number in range(30):
            frame = av.VideoFrame(64, 48, "yuv420p")
            frame.pts, frame.time_base = number, Fraction(1, 24)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    data = path.read_bytes()
    assert data.count("Caf\u00e9".encode()) >= 1
    path.write_bytes(data.replace("Caf\u00e9".encode(), b"Caf\xe9\xe9"))
    assert probe(path).frames == 30
    header = FileFinder([path]).header(path)
    assert header is not None and header.reel == "Caf\ufffd\ufffd"


def test_a_frame_without_a_stamp_has_no_time(tmp_path: Path) -> None:
    write_counted(tmp_path / "a.mp4", 3)
    with open_to_read(tmp_path / "a.mp4") as container:
        frames = list(container.decode(container.streams.video[0]))
    assert [appears(frame) for frame in frames] == [Fraction(1001 * k, 24000) for k in range(3)]
    assert appears(av.VideoFrame(16, 16, "yuv420p")) is None
