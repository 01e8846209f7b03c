"""Content credentials: signed with a chain made here, read back, and found broken when the movie is changed."""

from __future__ import annotations

import sys

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from cinetune.errors import ConfigError, FootageError
from cinetune.footage.video import write_video
from cinetune.footage.write import signing
from cinetune.footage.write.readback import movie_facts
from cinetune.footage.write.signing import check_signer, read_manifest, sign_movie
from films import FILM, drift
from signer import make_signer


@pytest.fixture
def signer(tmp_path):
    return make_signer(tmp_path, ec.SECP256R1())


@pytest.mark.parametrize(("codec", "suffix"), [("h264", ".mp4"), ("prores_hq", ".mov")])
def test_a_signed_movie_says_it_was_generated_and_holds_the_same_picture(tmp_path, signer, codec, suffix):
    path = tmp_path / f"a{suffix}"
    write_video(path, drift(1, 5), rate=FILM, codec=codec, timecode="01:00:00:00")
    before = movie_facts(path)
    sign_movie(path, **signer, title="SH_v001", tool="cinetune 1.2.3")
    assert movie_facts(path) == before and before.timecode == "01:00:00:00"
    manifest = read_manifest(path)
    active = manifest["manifests"][manifest["active_manifest"]]
    assert manifest["validation_state"] == "Valid"
    assert [item["code"] for item in manifest["validation_status"]] == ["signingCredential.untrusted"]
    assert (active["title"], active["signature_info"]["common_name"]) == ("SH_v001", "House")
    assert (
        active["claim_generator_info"][0] | {"name": "cinetune", "version": "1.2.3"}
        == active["claim_generator_info"][0]
    )
    (action,) = next(item for item in active["assertions"] if "actions" in item["label"])["data"]["actions"]
    assert action["digitalSourceType"].endswith("trainedAlgorithmicMedia")
    assert sorted(item.name for item in tmp_path.iterdir()) == [f"a{suffix}", "chain.pem", "key.pem"]


def test_a_movie_changed_after_signing_is_found_out(tmp_path, signer):
    path = tmp_path / "a.mp4"
    write_video(path, drift(1, 5), rate=FILM)
    sign_movie(path, **signer, title="a", tool="cinetune 1")
    data = bytearray(path.read_bytes())
    data[data.rindex(b"mdat") + 40] ^= 1
    path.write_bytes(bytes(data))
    assert read_manifest(path)["validation_state"] == "Invalid"


def test_a_signature_that_does_not_hold_is_not_delivered(tmp_path, signer, monkeypatch):
    path = tmp_path / "a.mp4"
    write_video(path, drift(1, 5), rate=FILM)
    before = path.read_bytes()
    monkeypatch.setattr(signing, "read_manifest", lambda path: {"validation_state": "Invalid"})
    with pytest.raises(FootageError, match="Invalid"):
        sign_movie(path, **signer, title="a", tool="cinetune 1")
    assert path.read_bytes() == before


def test_other_curves(tmp_path):
    check_signer(**make_signer(tmp_path, ec.SECP384R1()))


def test_unusable_signers_and_unsigned_files_have_reasons(tmp_path, signer):
    with pytest.raises(ConfigError, match="cannot sign"):
        check_signer(tmp_path / "none.pem", signer["key"])
    with pytest.raises(ConfigError, match="cannot sign"):
        check_signer(signer["certificate"], signer["certificate"])
    with pytest.raises(ConfigError, match="cannot sign"):
        check_signer(signer["key"], signer["key"])
    (tmp_path / "other").mkdir()
    with pytest.raises(ConfigError, match="not that of the first certificate"):
        check_signer(signer["certificate"], make_signer(tmp_path / "other", ec.SECP256R1())["key"])
    write_video(tmp_path / "a.mp4", drift(1, 2), rate=FILM)
    with pytest.raises(FootageError, match="manifest"):
        read_manifest(tmp_path / "a.mp4")


def test_without_the_library_it_says_how_to_get_it(signer, monkeypatch):
    monkeypatch.setitem(sys.modules, "c2pa", None)
    with pytest.raises(ConfigError, match=r"cinetune\[c2pa\]"):
        check_signer(**signer)
