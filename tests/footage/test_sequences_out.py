"""Picture sequences that cannot be written or do not read back stop with words, and leave nothing half-made."""

from __future__ import annotations

import sys
from fractions import Fraction

import numpy as np
import pytest

from cinetune.errors import ConfigError, FootageError, StoreError
from cinetune.footage.write import sequences as sequences_out
from cinetune.footage.write.formats import DELIVERIES, Picture, SlateCard
from cinetune.footage.write.sequences import STILLS, read_header, read_values, write_still
from films import FILM, patches
from killed import left_by_a_killed_run

TOLD = {"rate": FILM, "timecode": "01:02:03:04", "notes": {"shot": "SQ010 SH0010"}}


@pytest.mark.parametrize("name", STILLS)
def test_values_and_header_come_back(tmp_path, name):
    path = tmp_path / f"a{STILLS[name].suffix}"
    write_still(path, patches(33, 47), STILLS[name], **TOLD)
    header = read_header(path)
    assert header["space"] == STILLS[name].space
    if name != "png16":
        assert (header["rate"], header["timecode"]) == (FILM, "01:02:03:04")
        assert header["notes"] == {"shot": "SQ010 SH0010", "colour": STILLS[name].colour}
    assert read_values(path).dtype == (np.float16 if "exr" in name else np.uint16)


@pytest.mark.parametrize("name", STILLS)
@pytest.mark.parametrize("fault", ["read_values", "read_header"])
def test_a_file_that_reads_back_otherwise_is_refused(tmp_path, name, fault, monkeypatch):
    """A single value one step off, or another header."""
    whole = getattr(sequences_out, fault)

    def off(path):
        found = whole(path)
        if fault == "read_header":
            return found | {"space": "other"}
        found = found.copy()
        found[0, 0, 0] = found[0, 0, 0] + 1
        return found

    monkeypatch.setattr(sequences_out, fault, off)
    with pytest.raises(FootageError, match="does not read back as promised"):
        write_still(tmp_path / f"a{STILLS[name].suffix}", patches(32, 48), STILLS[name], **TOLD)


@pytest.mark.parametrize("name", ["tiff16", "exr_linear"])
def test_an_unwritable_folder(tmp_path, name):
    with pytest.raises(StoreError, match="cannot write"):
        write_still(tmp_path / "none" / f"a{STILLS[name].suffix}", patches(32, 48), STILLS[name], **TOLD)


def test_without_openimageio_exr_says_how_to_get_it_and_the_rest_works(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "OpenImageIO", None)
    with pytest.raises(ConfigError, match=r"cinetune\[color\]"):
        DELIVERIES["exr_linear"].check()
    for name in set(DELIVERIES) - {"exr_linear", "exr_display"}:
        DELIVERIES[name].check()
    master = np.rint(np.stack([patches(32, 48)] * 2) * 65535).astype(np.uint16)
    picture = Picture(frames_THWC=master, shown=[0, 1], rate=Fraction(24))
    card = SlateCard(film="film", shot="SH0010", version=1, look="look", conform="none")
    assert len(DELIVERIES["tiff16"].write(tmp_path / "a", picture, card)) == 2


def test_a_sequence_is_whole_or_not_there(tmp_path, monkeypatch):
    """What a killed run left is made anew, a failure leaves nothing, a folder that is there is never written into."""
    master = np.rint(np.stack([patches(32, 48)] * 3) * 65535).astype(np.uint16)
    picture = Picture(frames_THWC=master, shown=[0, 1, 2], rate=Fraction(24))
    card = SlateCard(film="film", shot="SH0010", version=1, look="look", conform="none")
    stale = left_by_a_killed_run(tmp_path / "a_tiff16")
    assert len(DELIVERIES["tiff16"].write(tmp_path / "a", picture, card)) == 3
    assert len(list((tmp_path / "a_tiff16").iterdir())) == 3 and not stale.exists()
    before = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "a_tiff16").iterdir()}
    with pytest.raises(StoreError, match="cannot write"):
        DELIVERIES["tiff16"].write(tmp_path / "a", picture, card)
    assert {path.name: path.stat().st_mtime_ns for path in (tmp_path / "a_tiff16").iterdir()} == before
    monkeypatch.setattr(sequences_out, "read_header", lambda path: {})
    with pytest.raises(FootageError):
        DELIVERIES["png16"].write(tmp_path / "a", picture, card)
    assert [path.name for path in tmp_path.iterdir()] == ["a_tiff16"]
