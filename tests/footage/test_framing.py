"""What a model's shape takes from the film's picture, and which legal size takes less."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from cinetune.catalogue import RELEASES
from cinetune.errors import FootageError
from cinetune.footage.cut.framing import crop_notes, cut, fitting_size, glance, lost, picture_notes, shape_of, size_for
from cinetune.footage.cut.windows import centre_crop
from cinetune.footage.video import write_video
from cinetune.runtime import Quiet
from cinetune.stages import ingest
from cinetune.store import Project
from films import FILM, drift

WAN = RELEASES["wan21-480p"]
POCKET = RELEASES["pocket"]


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory):
    """A clip of 160x96 with bars: the picture inside is 160x68, that is 2.35:1."""
    root = tmp_path_factory.mktemp("scope")
    (root / "footage").mkdir()
    (root / "cinetune.toml").write_text("")
    frames = drift(1, 30, 96, 160)
    frames[:, :14] = frames[:, 82:] = 0.0
    write_video(root / "footage" / "scope.mov", frames, rate=FILM, codec="prores_hq")
    (found,) = ingest.run(Project(root), Quiet()).groups["clips"]
    return replace(found, path=str(root / found.path))


def test_the_shape_is_that_of_the_picture_inside_the_bars(clip) -> None:
    assert clip.bars == (0, 14, 160, 68)
    assert shape_of(clip) == Fraction(160, 68)
    assert shape_of(replace(clip, pixel_aspect=Fraction(2))) == Fraction(320, 68)


def test_scope_on_wan_loses_a_quarter_of_its_width_and_a_size_that_keeps_it_is_named(clip) -> None:
    """By hand: 832/480 of 2.353 is 0.7366. 832 / 2.353 = 353.6, the nearest multiple of 16 is 352."""
    (note,) = crop_notes([clip, clip], WAN, height=480, width=832)
    assert note.startswith("2 clips of 2.35:1: 26% of the width is cut for 832x480")
    assert "prepare.height=352 prepare.width=832, and the same under [shoot], would cut 0%" in note
    assert crop_notes([clip], WAN, height=352, width=832) == []


def test_the_share_is_that_of_the_crop_which_prepare_makes(clip) -> None:
    _, y, across, down = centre_crop(clip, 832, 480)
    side, share = lost(shape_of(clip), height=480, width=832)
    assert side == "width" and (y, down) == (14, 68)
    assert across == round(160 * (1 - share))


def test_tall_films_lose_height_and_get_a_narrower_size() -> None:
    assert lost(Fraction(9, 16), height=480, width=832)[0] == "height"
    assert fitting_size(Fraction(9, 16), WAN, height=480, width=832) == (480, 272)


def test_what_fits_stays_as_it_is() -> None:
    assert size_for([Fraction(16, 9)], WAN) == (480, 832)
    assert size_for([], WAN) == (480, 832)


def test_clips_of_several_shapes_get_the_size_that_cuts_least_of_all() -> None:
    scope, flat, tall = Fraction(47, 20), Fraction(16, 9), Fraction(9, 16)
    assert size_for([scope, scope, flat], WAN) == (352, 832)
    assert size_for([flat, flat, flat, scope], WAN) == (464, 832), "16:9 fits it as well as 480, and scope better"
    found = size_for([scope, tall], WAN)
    assert cut([scope, tall], *found) <= min(cut([scope, tall], *size) for size in ((480, 832), (352, 832), (480, 272)))


def test_a_small_model_knows_no_size_but_its_own(clip) -> None:
    assert size_for([Fraction(47, 20)], POCKET) == (64, 96)
    (note,) = crop_notes([clip], POCKET, height=64, width=96)
    assert note == "1 clip of 2.35:1: 36% of the width is cut for 96x64"


def test_pictures_that_shots_start_from_are_told_by_kind(tmp_path: Path) -> None:
    """The size comes from the header alone, and counts as the picture is shown: a phone's portrait lies on its side."""
    for name, size in (("wide", (235, 100)), ("also", (470, 200)), ("fits", (832, 480))):
        Image.new("RGB", size).save(tmp_path / f"{name}.png")
    turned = Image.new("RGB", (832, 480))
    turned.getexif()[0x0112] = 6
    turned.save(tmp_path / "turned.jpg", exif=turned.getexif())
    shots = [(path.stem, path, (480, 832)) for path in sorted(tmp_path.iterdir())]
    assert picture_notes(shots) == [
        "the first pictures of also, wide: 26% of the width is cut for 832x480",
        "the first picture of turned: 67% of the height is cut for 832x480",
    ]
    (tmp_path / "no.png").write_bytes(b"no picture")
    with pytest.raises(FootageError, match="not a readable picture"):
        picture_notes([("no", tmp_path / "no.png", (480, 832))])


@given(shape=st.fractions(Fraction(1, 3), 4), release=st.sampled_from(list(RELEASES.values())))
@settings(max_examples=300, deadline=None)
def test_a_fitting_size_is_legal_never_larger_and_never_worse(shape: Fraction, release) -> None:
    own = {"height": release.height, "width": release.width}
    height, width = fitting_size(shape, release, **own)
    assert height % release.multiple == width % release.multiple == 0
    assert 0 < height <= release.height and 0 < width <= release.width
    assert lost(shape, height=height, width=width)[1] <= max(lost(shape, **own)[1], Fraction(release.multiple, height))
    if width == release.width and height < release.height:
        assert abs(height - width / shape) <= Fraction(release.multiple, 2) or height == release.multiple


def test_a_first_look_finds_rate_and_shape(clip, tmp_path: Path) -> None:
    found = glance(Path(clip.path))
    assert found is not None and (found.rate, found.shape) == (FILM, Fraction(160, 68))
    write_video(tmp_path / "one.mp4", np.full((1, 32, 48, 3), 0.5, np.float32), rate=Fraction(25))
    short = glance(tmp_path / "one.mp4")
    assert short is not None and (short.rate, short.shape) == (Fraction(25), Fraction(3, 2))


def test_a_first_look_at_what_is_no_film_says_so(tmp_path: Path) -> None:
    (tmp_path / "a.mov").write_bytes(b"not a film")
    with pytest.raises(FootageError, match="not a video"):
        glance(tmp_path / "a.mov")
