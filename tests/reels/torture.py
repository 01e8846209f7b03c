"""A torture reel: one small file for every trap that real footage holds, each with what is true of it.

Backlot scenes are panned over, so that every cut, bar, field and time stamp is known by construction. `TRAPS` is the
table; `shoot_torture` writes the files; `found` and `agrees` hold what ingest made of a file against its `Truth`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from fractions import Fraction
from functools import partial
from pathlib import Path

import numpy as np

from cinetune.artifacts import FootageClip, Rejected, Shot
from reels import leaders
from reels.spoiled import (
    barred,
    broken,
    cut,
    dissolved,
    faded,
    frozen,
    interlaced,
    movie,
    numbered,
    on_twos,
    opening,
    pan,
    raw,
    renamed,
    rotated,
    sound,
    telecined,
)

__all__ = ["SETTINGS", "TRAPS", "Trap", "Truth", "agrees", "found", "shoot_torture"]

Spans = tuple[tuple[int, int], ...]
SETTINGS = '[footage]\nmin_shot_seconds = 0.3\ninterlaced = "bwdif"\n'
"""What the truths of fields and of short files take for granted; everything else is the default."""
NTSC_FILM, NTSC, NTSC_FAST = Fraction(24000, 1001), Fraction(30000, 1001), Fraction(60000, 1001)
_LIMITED = "tagged bt709, limited range"


@dataclass(frozen=True, slots=True, kw_only=True)
class Truth:
    """What is true of a file; None = the trap says nothing about it. `refused` and `notes` are words that ingest's own
    must contain; `shots` are [start, end) in pictures; `colour` is `Colour.decided`; the rest as in `FootageClip`.
    """

    refused: str | None = None
    rate: Fraction | None = None
    frames: int | None = None
    shots: Spans | None = None
    bars: tuple[int, int, int, int] | None = None
    timecode: str | None = None
    colour: str | None = None
    codec: str | None = None
    pixel_aspect: Fraction | None = None
    by_time: bool | None = None
    turn: int | None = None
    fields: str | None = None
    order: str | None = None
    notes: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Trap:
    """One row: a `file` name (`%04d` = numbered pictures), the `trap` in words, its truth, and what writes it."""

    file: str
    trap: str
    truth: Truth
    shoot: Callable[[Path], object]


def found(truth: Truth, clip: FootageClip | None, shots: Sequence[Shot], rejected: Rejected | None) -> Truth:
    """What ingest says of a file, in all that `truth` speaks of, with ingest's full words."""
    if clip is None:
        return Truth(refused=rejected.reason if rejected else "not in any table")
    notes = dict.fromkeys(note for shot in shots for note in shot.notes)
    said = Truth(
        rate=clip.rate,
        frames=clip.frames,
        shots=tuple((shot.span.start, shot.span.end) for shot in shots),
        bars=clip.bars,
        timecode=clip.timecode,
        colour=clip.colour.decided,
        codec=clip.codec,
        pixel_aspect=clip.pixel_aspect,
        by_time=clip.reading.by_time,
        turn=clip.reading.turn,
        fields=clip.reading.fields,
        order=clip.reading.order,
        notes="; ".join([*clip.notes, *notes]),
    )
    silent = {field.name: None for field in fields(Truth) if getattr(truth, field.name) is None}
    return replace(said, **silent)


def agrees(truth: Truth, said: Truth) -> bool:
    """Whether `found` is the truth: equal, and in words the truth contained in what was said."""
    if any(words not in (heard or "") for words, heard in _words(truth, said)):
        return False
    return replace(said, refused=truth.refused if said.refused else None, notes=truth.notes) == truth


def _words(truth: Truth, said: Truth) -> list[tuple[str, str | None]]:
    return [(a, b) for a, b in ((truth.refused, said.refused), (truth.notes, said.notes)) if a is not None]


def _rates() -> list[Trap]:
    """Every rate, with a cut after half a second and a bit, and a start timecode (drop-frame where it exists)."""
    rows = [
        (NTSC_FILM, "01:00:00:00"),
        (Fraction(24), "10:59:59:23"),
        (Fraction(25), "02:10:00:10"),
        (NTSC, "01:00:59:28"),
        (NTSC, "01:00:59;28"),
        (Fraction(30), "00:00:00:00"),
        (Fraction(50), "23:59:59:40"),
        (NTSC_FAST, "01:09:59:58"),
        (NTSC_FAST, "01:00:59;58"),
        (Fraction(60), "12:00:00:00"),
    ]
    made: list[Trap] = []
    for number, (rate, timecode) in enumerate(rows):
        first, second = round(rate * Fraction(55, 100)), round(rate * Fraction(45, 100))
        kind = "drop-frame" if ";" in timecode else "non-drop"
        truth = Truth(rate=rate, frames=first + second, shots=((0, first), (first, first + second)), timecode=timecode)
        name, suffix = (("h264", "mp4"), ("prores_hq", "mov"))[number % 2]
        shoot = movie(partial(cut, first, second), name, rate, timecode)
        file = f"rate_{float(rate):.5g}{'_drop' if ';' in timecode else ''}.{suffix}"
        made.append(Trap(file=file, trap=f"{float(rate):.5g} fps, {kind} timecode", truth=truth, shoot=shoot))
    return made


def _phone() -> list[int]:
    """Time stamps of 48 frames at 30 fps: 24 up to a third of a frame late, then 24 that stay two pictures each."""
    late = np.random.default_rng(7).uniform(0, 1000, 24).astype(int)
    return [0, *(3000 * k + int(late[k]) for k in range(1, 24)), *(72000 + 6000 * k for k in range(24))]


_TWO = Truth(shots=((0, 14), (14, 24)))
_ONE = Truth(shots=((0, 16),))
_two, _one, _hd = partial(cut, 14, 10), partial(pan, 0, 16), partial(pan, 0, 8, height=720, width=960, speed=8.0)
_pal = raw(_one, tags=(5, 5, 6, 1), matrix="bt601")


def _row(file: str, trap: str, truth: Truth, shoot: Callable[[Path], object]) -> Trap:
    return Trap(file=file, trap=trap, truth=truth, shoot=shoot)


def _boxed(file: str, trap: str, bars: tuple[int, int, int, int], *, gain: float = 1.0, grain: float = 0.0) -> Trap:
    """A 64x48 picture inside bars, two shots."""
    film = partial(_framed, bars[0], bars[1], gain, grain)
    return _row(file, trap, replace(_TWO, bars=bars), movie(film))


def _framed(x: int, y: int, gain: float, grain: float) -> np.ndarray:
    return barred(_two(), x, y, gain=gain, grain=grain)


def _codec(file: str, codec: str, name: str, least: Fraction = Fraction(24)) -> Trap:
    big = {"height": 120, "width": 256} if codec.startswith("dnxhr") else {}
    truth = replace(_TWO, rate=least, codec=name, colour=_LIMITED, timecode="10:00:00:00")
    return _row(file, codec.replace("_", " "), truth, movie(partial(_two, **big), codec, least, "10:00:00:00"))


def _fields(order: str, rate: Fraction) -> Trap:
    truth = Truth(rate=rate, frames=30, shots=((0, 14), (14, 30)), fields="bwdif", order=order)
    name = f"{order}_{float(rate):.4g}"
    return _row(
        f"{name}.mp4", f"interlaced, {order}, {float(rate):.4g} fps", truth, raw(partial(interlaced, order), rate=rate)
    )


def _junk() -> list[Trap]:
    """Leaders and cards before a shot, and what is burnt in over ten."""

    codecs = {"mp4": "h264", "mov": "prores_hq"}

    def led(file: str, trap: str, frames: int, notes: str, film: Callable[[], np.ndarray]) -> Trap:
        truth = Truth(frames=frames + 16, shots=((frames, frames + 16),), notes=notes)
        return _row(file, trap, truth, movie(film, codecs[file[-3:]]))

    def over(file: str, trap: str, truth: Truth, drawn: Callable[[np.ndarray, int], np.ndarray]) -> Trap:
        return _row(file, trap, truth, movie(partial(leaders.over, drawn), codecs[file[-3:]]))

    return [
        led("countdown.mp4", "a countdown leader, then a shot", 72, "countdown leader", leaders.counted_down),
        led("colour_bars.mov", "colour bars off a tape, then a shot", 24, "colour bars 0..23", leaders.with_bars),
        led(
            "slate.mp4", "a slate with running figures, then a shot", 24, "slate, title or chart 0..23", leaders.slated
        ),
        led("chart.mov", "a grey chart, then a shot", 24, "slate, title or chart 0..23", leaders.charted),
        led("card.mp4", "a plain card under grain, then a shot", 24, "plain card 0..23", leaders.carded),
        over("proxy.mp4", "ten shots under strips of text", Truth(refused="burnt in over"), leaders.proxy),
        over("timecode.mov", "ten shots with a timecode window", Truth(notes="burnt in over"), leaders.timecode_window),
        over("logo.mp4", "ten shots with a half transparent logo", Truth(notes="burnt in over"), leaders.logo),
    ]


TRAPS: tuple[Trap, ...] = (
    *_rates(),
    _row(
        "phone.mp4",
        "varying rate: late frames, then frames that stay",
        Truth(rate=Fraction(30), frames=72, shots=((0, 24), (24, 72)), by_time=True, notes="24 repeated, 0 left out"),
        raw(partial(cut, 24, 24), rate=Fraction(30), stamps=_phone()),
    ),
    _row(
        "gap.mp4",
        "time stamps with a gap of minutes",
        Truth(refused="leave gaps"),
        raw(_one, stamps=[3750 * k + 27_000_000 * (k > 8) for k in range(16)]),
    ),
    _boxed("letterbox.mp4", "letterbox", (0, 12, 64, 48)),
    _boxed("letterbox_grain.mp4", "letterbox under grain", (0, 12, 64, 48), grain=0.02),
    _boxed("pillarbox_dark.mp4", "pillarbox, a dark picture with grain", (12, 0, 64, 48), gain=0.35, grain=0.01),
    _boxed("windowbox.mp4", "windowbox", (16, 12, 64, 48)),
    _boxed("night.mp4", "letterbox, night: nothing brighter than 12 %", (0, 12, 64, 48), gain=0.12),
    _row(
        "opening.mp4",
        "a letterbox that opens inside a shot",
        Truth(shots=((60, 90),), bars=(0, 4, 64, 56), notes="whose bars change"),
        movie(opening),
    ),
    _fields("tff", Fraction(25)),
    _fields("bff", Fraction(25)),
    _fields("tff", NTSC),
    _fields("bff", NTSC),
    _row(
        "pulldown.mp4",
        "3:2 pulldown, the cut inside a mixed frame",
        Truth(rate=NTSC_FILM, frames=40, shots=((0, 22), (22, 40)), fields="pulldown"),
        raw(telecined, rate=NTSC),
    ),
    *(
        _row(
            f"turned_{degrees}.mov",
            f"to be shown turned by {degrees} degrees",
            replace(_ONE, bars=(0, 0, 64, 48) if degrees == 180 else (0, 0, 48, 64), turn=turn),
            rotated(movie(_one, "prores_hq"), degrees),
        )
        for degrees, turn in ((90, 3), (180, 2), (270, 1))
    ),
    _row("turned_45.mov", "to be shown turned by 45 degrees", Truth(refused="rotated by"), rotated(movie(_one), 45)),
    _row(
        "anamorphic.mp4",
        "anamorphic, pixels twice as wide as high",
        replace(_ONE, pixel_aspect=Fraction(2), notes="anamorphic"),
        raw(_one, aspect=Fraction(2)),
    ),
    _row(
        "alpha.mov",
        "alpha in ProRes 4444",
        replace(_ONE, notes="alpha: laid over black"),
        raw(_one, encoder="prores_ks", pixels="yuva444p10le", options={"profile": "4"}),
    ),
    _row("full.mp4", "full range", replace(_ONE, colour="tagged bt709, full range"), raw(_one, tags=(1, 1, 1, 2))),
    _row(
        "untagged_hd.mp4",
        "untagged, 720 lines",
        Truth(colour="untagged, height 720 >= 720: taken as bt709, limited range (not said, assumed)"),
        raw(_hd, tags=(2, 2, 2, 0)),
    ),
    _row(
        "untagged_sd.mp4",
        "untagged, 48 lines",
        Truth(colour="untagged, height 48 < 720: taken as bt601, limited range (not said, assumed)"),
        raw(_one, tags=(2, 2, 2, 0), matrix="bt601"),
    ),
    _row("pal.mp4", "tagged BT.601", Truth(colour="tagged bt601, limited range"), _pal),
    _row(
        "hdr.mp4",
        "PQ in 10 bit HEVC",
        Truth(colour="tagged bt2020, limited range, tagged PQ: tone-mapped to SDR", codec="hevc"),
        raw(_one, encoder="libx265", pixels="yuv420p10le", matrix="bt2020", tags=(9, 9, 16, 1)),
    ),
    _row("linear.mp4", "transfer tagged linear", Truth(refused="tagged linear light"), raw(_one, tags=(1, 1, 8, 1))),
    _codec("hevc10.mp4", "hevc10", "hevc"),
    _codec("prores422.mov", "prores_hq", "prores"),
    _codec("prores4444.mov", "prores_4444", "prores"),
    _codec("dnxhr.mov", "dnxhr_hqx", "dnxhd"),
    _codec("dnxhr.mxf", "dnxhr_hqx_mxf", "dnxhd"),
    _row(
        "ffv1.mkv",
        "ffv1 10 bit in Matroska",
        replace(_TWO, rate=Fraction(24), codec="ffv1", colour=_LIMITED),
        raw(_two, encoder="ffv1", pixels="yuv422p10le", options={"level": "3"}),
    ),
    _row("fade.mp4", "a fade to black and back", Truth(frames=64, shots=((0, 20), (44, 64))), movie(faded)),
    _row("dissolve.mp4", "a dissolve of 12 frames", Truth(frames=60, shots=((0, 24), (36, 60))), movie(dissolved)),
    _row("black.mp4", "nothing but black", Truth(refused="16 black frames"), movie(partial(np.zeros, (16, 48, 64, 3)))),
    *(
        _row(file, f"a shot, then a frozen picture, {kind}", replace(_ONE, notes="frozen piece 16..35"), shoot)
        for file, kind, shoot in (
            ("frozen.mov", "ProRes", movie(frozen, "prores_hq")),
            ("frozen.mp4", "grain in H.264", movie(frozen)),
        )
    ),
    _row("twos.mp4", "every picture twice", Truth(shots=((0, 32),), notes="repeat the one before"), movie(on_twos)),
    _row(
        "scan.%04d.png",
        "numbered pictures, three missing",
        Truth(frames=30, shots=((0, 15), (18, 30)), timecode="00:00:41:17", notes="missing: 1016..1018"),
        numbered(partial(cut, 15, 15), first=1001, missing=(1016, 1017, 1018)),
    ),
    *_junk(),
    _row("half.mp4", "cut off in transfer", Truth(refused="truncated"), broken(movie(_two), lambda data: data[:-3000])),
    _row("empty.mov", "no bytes", Truth(refused="empty (0 bytes)"), lambda path: path.write_bytes(b"")),
    _row("sound.m4a", "sound without picture", Truth(refused="sound but no picture"), sound),
    _row("really_mp4.avi", "MP4 called .avi", replace(_TWO, codec="h264"), renamed(movie(_two), ".mp4")),
    _row("text.mp4", "text called .mp4", Truth(refused="not a video"), lambda path: path.write_text("not a film")),
)
"""Every trap, in the order of the table in docs/torture.md."""


def shoot_torture(folder: Path) -> list[Trap]:
    """Write every file of `TRAPS` into `folder`; the rows written. The same machine writes the same pictures."""
    folder.mkdir(parents=True, exist_ok=True)
    for trap in TRAPS:
        trap.shoot(folder / trap.file)
    return list(TRAPS)
