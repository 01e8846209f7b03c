"""Shot lists from tables and from the markers of a timeline, written by OTIO's own library."""

from __future__ import annotations

import unicodedata
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import opentimelineio as otio
import pytest

from cinetune.errors import CinetuneError, ConfigError, FootageError
from cinetune.footage.notes.shotlists import import_shots
from cinetune.footage.read.stills import read_image
from cinetune.footage.video import read_frames, write_video
from cinetune.shotlist import load_shots
from small_project import moving_picture


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "ref.png").write_bytes(b"png")
    return tmp_path


def table(root: Path, text: str) -> Path:
    path = root / "list.csv"
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_a_table_becomes_a_shot_list(root: Path, delimiter: str) -> None:
    rows = [
        ["id", "prompt", "domain", "reference", "seconds", "seed", "camera", "look_strength"],
        ["sh1", '"a rider; at dusk,\talone"', "in", "ref.png", "2.5", "3", "", "0.8"],
        [],
        ["sh2", "b", "out", "ref.png", "", "", "pan", ""],
    ]
    text = "\ufeff" + "".join(delimiter.join(row) + "\n" for row in rows)
    assert import_shots(root, table(root, text)) == 2
    one, two = load_shots(root / "shots.toml").shots
    assert (one.id, one.prompt, one.seconds, one.seed) == ("sh1", "a rider; at dusk,\talone", 2.5, 3)
    assert (one.look_strength, two.look_strength) == (0.8, 1.0)
    assert (two.id, two.domain, two.seconds, two.camera) == ("sh2", "out", 2.0, "pan")


def test_references_are_found_in_another_unicode_form(root: Path) -> None:
    (root / "ref.png").rename(root / unicodedata.normalize("NFD", "Br\u00fccke.png"))
    import_shots(root, table(root, "id,prompt,domain,reference\nsh1,a,in,Br\u00fccke.png\n"))
    (shot,) = load_shots(root / "shots.toml").shots
    assert (root / shot.reference).is_file() and not unicodedata.is_normalized("NFC", shot.reference)


def test_lines_may_end_by_a_return_alone(root: Path) -> None:
    """The delimiter is that of the heading, whatever the captions below it hold."""
    text = "id;prompt;domain;reference\rsh1;a, b, c, d;in;ref.png\rsh2;e, f, g, h;out;ref.png\r"
    path = root / "list.csv"
    path.write_bytes(text.encode())
    assert import_shots(root, path) == 2
    assert [shot.prompt for shot in load_shots(root / "shots.toml").shots] == ["a, b, c, d", "e, f, g, h"]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("id,promt\nx,y\n", "unknown key 'promt'; did you mean 'prompt'"),
        ("id,prompt,domain,reference,seconds\nx,y,in,ref.png,soon\n", r"seconds is not a number(.|\n)*line 2"),
        ("id,prompt\nx,y,z\n", "3 cells under 2 headings"),
        ("id,prompt,domain,reference\nx,y,in,gone.png\n", r"shot 'x' \(line 2\): reference 'gone.png' does not exist"),
        ("id,prompt,domain,reference\nx,y,in,ref.png\nx,y,in,ref.png\n", "two shots are called 'x'"),
        ("id,prompt,domain,reference,seconds\nx,y,in,ref.png,nan\n", r"seconds is not a number: 'nan'(.|\n)*line 2"),
        ("id,prompt,domain,reference,seed\nx,y,in,ref.png,\uff12\uff14\n", "seed is not a whole number"),
        ("id,prompt,domain,reference,look_strength\nx,y,in,ref.png,half\n", "look_strength is not a number: 'half'"),
        (
            "id,prompt,domain,reference,look_strength\nx,y,in,ref.png,4.1\n",
            r"\(line 2\): look_strength must be from 0 to 4",
        ),
        ("id,prompt,domain,reference,seed\nx,y,in,ref.png,1_000\n", "seed is not a whole number"),
        ("id,prompt,domain,reference,seconds\nx,y,in,ref.png,1e999\n", "seconds is not a number"),
        (f"id,prompt,domain,reference,seed\nx,y,in,ref.png,{'9' * 5000}\n", "seed is not a whole number"),
    ],
)
def test_a_table_with_a_fault_writes_nothing(root: Path, text: str, reason: str) -> None:
    with pytest.raises(ConfigError, match=reason):
        import_shots(root, table(root, text))
    assert not (root / "shots.toml").exists()


def test_shots_that_are_there_are_not_written_over(root: Path) -> None:
    path = table(root, "id,prompt,domain,reference\nx,y,in,ref.png\n")
    import_shots(root, path)
    with pytest.raises(ConfigError, match="has shots already"):
        import_shots(root, path)
    with pytest.raises(ConfigError, match=r"cannot be read from \.xlsx"):
        (root / "shots.toml").unlink()
        import_shots(root, root / "list.xlsx")


def timeline(root: Path, *, media: str = "film.mov", comment: str = "a rider stops", start: float = 12.0) -> Path:
    clip = otio.schema.Clip(
        name="c1",
        media_reference=otio.schema.ExternalReference(
            target_url=media,
            available_range=otio.opentime.TimeRange(
                otio.opentime.RationalTime(96, 24), otio.opentime.RationalTime(24, 24)
            ),
        )
        if media
        else otio.schema.MissingReference(),
    )
    span = otio.opentime.TimeRange(otio.opentime.RationalTime(96 + start, 24), otio.opentime.RationalTime(72, 24))
    clip.markers.append(otio.schema.Marker(name="SH 010", marked_range=span, comment=comment))
    track = otio.schema.Track(kind=otio.schema.TrackKind.Video, children=[clip])
    stack = otio.schema.Timeline("edit")
    stack.tracks.append(track)
    path = root / "edit.otio"
    otio.adapters.write_to_file(stack, str(path))
    return path


def test_a_marker_becomes_a_shot_with_the_frame_under_it(root: Path) -> None:
    write_video(root / "film.mov", moving_picture(4, frames=24), rate=Fraction(24), codec="prores_hq")
    assert import_shots(root, timeline(root)) == 1
    (shot,) = load_shots(root / "shots.toml").shots
    assert (shot.id, shot.prompt, shot.seconds, shot.domain) == ("SH_010", "a rider stops", 3.0, "in")
    picture = read_image(root / shot.reference)
    assert np.abs(picture - read_frames(root / "film.mov", [12])[0]).max() < 1e-4
    assert np.abs(picture - read_frames(root / "film.mov", [0])[0]).max() > 1e-2


@pytest.mark.parametrize(
    ("more", "reason"),
    [
        ({"media": ""}, "lies on no media"),
        ({"media": "gone.mov"}, "'gone.mov' is not there"),
        ({"comment": ""}, "has no comment"),
    ],
)
def test_a_marker_that_is_no_shot_is_named(root: Path, more: dict[str, Any], reason: str) -> None:
    write_video(root / "film.mov", moving_picture(4, frames=24), rate=Fraction(24), codec="prores_hq")
    with pytest.raises(CinetuneError, match=f"marker 'SH 010' on clip 'c1'.*{reason}"):
        import_shots(root, timeline(root, **more))
    assert not (root / "shots.toml").exists() and not (root / "references").exists()


@pytest.mark.parametrize("place", ["gap 'hole'", "track 'V1'", "timeline 'edit'", "stack 'nest'"])
def test_a_marker_that_lies_on_no_clip_is_named_and_not_dropped(root: Path, place: str) -> None:
    """Beside one that is sound: what was marked is shot, or said."""
    write_video(root / "film.mov", moving_picture(4, frames=24), rate=Fraction(24), codec="prores_hq")
    edit: Any = otio.adapters.read_from_file(str(timeline(root)))
    track = edit.tracks[0]
    track.name = "V1"
    span = otio.opentime.TimeRange(otio.opentime.RationalTime(0, 24), otio.opentime.RationalTime(24, 24))
    track.extend([otio.schema.Gap(name="hole", source_range=span), otio.schema.Stack(name="nest")])
    on = {"gap": track[1], "stack": track[2], "track": track, "timeline": edit.tracks}[place.split(maxsplit=1)[0]]
    on.markers.append(otio.schema.Marker(name="SH 020", marked_range=span, comment="he rides on"))
    otio.adapters.write_to_file(edit, str(root / "edit.otio"))
    with pytest.raises(FootageError, match=f"marker 'SH 020' on {place} lies on no media(.|\\n)*put it on a clip"):
        import_shots(root, root / "edit.otio")
    assert not (root / "shots.toml").exists() and not (root / "references").exists()


@pytest.mark.parametrize("text", ["", "{}", "[" * 5000, '{"OTIO_SCHEMA": "Timeline.1", "tracks": 3}'])
def test_damaged_timelines_are_refused(root: Path, text: str) -> None:
    (root / "edit.otio").write_text(text)
    with pytest.raises(FootageError):
        import_shots(root, root / "edit.otio")
