"""Fields: told by what the lines show, made whole or refused; pulldown gives back the film frames, at any seek."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

from cinetune.errors import FootageError
from cinetune.footage.video import probe, read_frames
from cinetune.sections import FootageSection
from films import FILM, counter, write_tagged
from reels.spoiled import pan, raw

NTSC = Fraction(30000, 1001)
BLEND = FootageSection(interlaced="bwdif")
HEIGHT, WIDTH = 96, 160


def film(frames: int, speed: float = 3.0) -> list[np.ndarray]:
    """Soft texture that moves sideways; below it the number of the frame."""
    rng = np.random.default_rng(5)
    wide = np.kron(rng.uniform(0.2, 0.8, (6, 60)), np.ones((8, 8)))
    soft = sum(np.roll(wide, k, axis=1) for k in range(-3, 4)) / 7
    made = []
    for number in range(frames):
        frame = np.zeros((HEIGHT, WIDTH, 3), np.float32)
        for bit in range(10):
            frame[:48, bit * 16 : (bit + 1) * 16] = (number >> bit) & 1
        at = round(number * speed)
        frame[48:] = np.roll(soft, -at, axis=1)[:, :WIDTH, None]
        made.append(frame)
    return made


def weave(top: np.ndarray, bottom: np.ndarray) -> np.ndarray:
    frame = top.copy()
    frame[1::2] = bottom[1::2]
    return frame


def interlaced(frames: int, *, order: str) -> list[np.ndarray]:
    """Two moments in each frame, the first on the top lines (`tff`) or the bottom ones (`bff`)."""
    moments = film(2 * frames)
    pairs = list(zip(moments[::2], moments[1::2], strict=True))
    return [weave(a, b) if order == "tff" else weave(b, a) for a, b in pairs]


def telecined(frames: int, *, phase: int = 0) -> list[np.ndarray]:
    """3:2 pulldown: of four film frames five of video, the third and fourth of them mixed."""
    source = film(frames)
    video = []
    for k in range(0, frames - 3, 4):
        a, b, c, d = source[k : k + 4]
        video += [a, b, weave(b, c), weave(c, d), d]
    return video[phase:]


def write(path, frames, *, flagged: bool = False, rate: Fraction = NTSC) -> None:
    flags = {"flags": "+ildct+ilme", "x264-params": "tff=1"} if flagged else {}
    write_tagged(path, frames, tags=(1, 1, 1, 1), rate=rate, options={"g": "15"} | flags)


@pytest.mark.parametrize("order", ["tff", "bff"])
@pytest.mark.parametrize("flagged", [False, True], ids=["unflagged", "flagged"])
def test_interlace_is_seen_and_refused_or_made_whole(tmp_path, order, flagged):
    path = tmp_path / "a.mp4"
    write(path, interlaced(40, order=order), flagged=flagged, rate=Fraction(25))
    with pytest.raises(FootageError, match=f"interlaced, {order}") as caught:
        probe(path)
    assert "footage.interlaced" in caught.value.remedy
    facts = probe(path, settings=BLEND)
    assert (facts.reading.fields, facts.reading.order, facts.frames, facts.rate) == ("bwdif", order, 40, 25)
    assert facts.notes == (
        f"interlaced, {order} (100% of frames by idet): deinterlaced with bwdif, one frame of two fields",
    )
    got = read_frames(path, range(4, 36), colour=facts.colour, rate=facts.rate, reading=facts.reading)
    whole, combed = np.stack(film(80)[8:72:2]), np.stack(interlaced(40, order=order)[4:36])
    lines = np.abs(np.diff(combed[:, 48:], axis=1)).mean(), np.abs(np.diff(got[:, 48:], axis=1)).mean()
    assert lines[1] < 0.5 * lines[0]
    assert np.abs(got - whole)[:, 52:92].mean() < 0.5 * np.abs(combed - whole)[:, 52:92].mean()


def test_deinterlaced_frames_do_not_depend_on_where_reading_began(tmp_path):
    path = tmp_path / "a.mp4"
    write(path, interlaced(120, order="tff"), rate=Fraction(25))
    facts = probe(path, settings=BLEND)
    how = {"colour": facts.colour, "rate": facts.rate, "reading": facts.reading}
    assert np.array_equal(read_frames(path, range(120), **how)[100:110], read_frames(path, range(100, 110), **how))


@pytest.mark.parametrize("phase", [0, 1, 2, 3, 4])
def test_pulldown_gives_back_the_film(tmp_path, phase):
    path = tmp_path / "a.mp4"
    write(path, telecined(80, phase=phase))
    facts = probe(path)
    assert (facts.reading.fields, facts.rate) == ("pulldown", FILM)
    assert facts.notes == ("3:2 pulldown: removed, 24000/1001 fps",)
    how = {"colour": facts.colour, "rate": facts.rate, "reading": facts.reading}
    whole = read_frames(path, range(facts.frames), **how)
    numbers = [counter(frame) for frame in whole]
    inner = numbers[4:-4]
    assert inner == list(range(inner[0], inner[0] + len(inner)))
    assert np.abs(whole[10] - film(80)[numbers[10]])[52:92].mean() < 0.02
    late = [facts.frames - 9, 60, 61, 62, 63, 64]
    assert [counter(frame) for frame in read_frames(path, late, **how)] == [numbers[n] for n in late]
    with pytest.raises(FootageError, match="3:2 pulldown"):
        probe(path, settings=FootageSection(pulldown="refuse"))


def cut_and_telecined(cut: int, order: str) -> tuple[np.ndarray, np.ndarray]:
    """40 film frames with a cut, on video by 3:2 pulldown, and as they were: a light scene, then a dark one."""
    shots = (pan(number, frames, height=96, width=128, speed=3) for number, frames in ((0, cut), (1, 40 - cut)))
    source = np.concatenate(list(shots))
    video = []
    for a, b, c, d in source.reshape(10, 4, *source.shape[1:]):
        mixed = (weave(b, c), weave(c, d)) if order == "tff" else (weave(c, b), weave(d, c))
        video += [a, b, *mixed, d]
    return np.stack(video), source


@pytest.mark.parametrize("order", ["tff", "bff"])
@pytest.mark.parametrize("phase", [0, *(pytest.param(phase, marks=pytest.mark.slow) for phase in range(1, 5))])
@pytest.mark.parametrize("cut", [20, 21, 22, 23])
def test_a_cut_anywhere_in_the_cycle_of_pulldown_stays_a_cut(tmp_path, cut, phase, order):
    """Its light, that is: in 4:2:0 lines of two shots share the chroma of a mixed frame. `phase` frames are missing at
    the head.
    """
    video, source = cut_and_telecined(cut, order)
    raw(lambda: video[phase:], rate=NTSC)(tmp_path / "a.mp4")
    facts = probe(tmp_path / "a.mp4")
    assert (facts.reading.fields, facts.rate) == ("pulldown", FILM)
    how = {"colour": facts.colour, "rate": facts.rate, "reading": facts.reading}
    got = read_frames(tmp_path / "a.mp4", range(12, 28), **how)
    light, true = (film @ np.array([0.2126, 0.7152, 0.0722], np.float32) for film in (got, source[8:32]))
    apart = np.array([np.abs(frame - true).mean(axis=(1, 2)) for frame in light])
    numbers = [int(k) + 8 for k in apart.argmin(axis=1)]
    assert numbers == list(range(numbers[0], numbers[0] + 16)) and numbers[2] < cut < numbers[-2]
    assert apart.min(axis=1).max() < 0.02


def test_combs_are_looked_for_at_video_rates_and_can_be_kept(tmp_path):
    """At 24 fps nothing was shot in fields: fine detail must not cost a clip."""
    path = tmp_path / "a.mp4"
    write(path, interlaced(40, order="tff"), rate=FILM)
    assert probe(path).reading.fields == ""
    write(path, interlaced(40, order="tff"), rate=Fraction(25))
    kept = probe(path, settings=FootageSection(interlaced="keep"))
    assert kept.reading.fields == "" and kept.notes == ("interlaced, tff (100% of frames by idet): kept as it is",)


@pytest.mark.parametrize("flagged", [False, True])
def test_progressive_film_is_left_alone_whatever_its_flag_says(tmp_path, flagged):
    path = tmp_path / "a.mp4"
    write(path, film(60), flagged=flagged)
    facts = probe(path)
    assert facts.reading.fields == "" and facts.rate == NTSC
    said = ("flagged interlaced, but its frames are whole (idet): read as they are",)
    assert facts.notes == (said if flagged else ())
