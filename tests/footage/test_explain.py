"""The page about one clip: every cut and shot is on it, with the right pictures, and nothing from outside."""

from __future__ import annotations

import base64
import io
import re

import numpy as np
import pytest
from PIL import Image

from cinetune.cli import main
from cinetune.errors import ConfigError, FootageError, StoreError
from cinetune.footage.video import write_video
from cinetune.pages.explain import write_explanation
from cinetune.runtime import Quiet
from cinetune.stages import ingest
from cinetune.store import Project
from films import FILM, drift


@pytest.fixture
def reel(project: Project) -> Project:
    """30 frames, 12 black ones, 24 and 5 more, 80x48 in a letterbox of 80x64; a second clip and a refused one."""
    film = [drift(1, 30), np.zeros((12, 48, 80, 3), np.float32), drift(2, 24), drift(4, 5)]
    padded = np.pad(np.concatenate(film), ((0, 0), (8, 8), (0, 0), (0, 0)))
    footage = project.root / "footage"
    write_video(footage / "castle <1>.mov", padded, rate=FILM, codec="prores_hq", timecode="01:00:00:00")
    write_video(footage / "sea.mp4", drift(9, 24), rate=FILM)
    (footage / "notes.mov").write_text("my notes")
    ingest.run(project, Quiet())
    return project


def pictures(page: str) -> list[np.ndarray]:
    found = re.findall(r'src="data:image/webp;base64,([^"]+)"', page)
    return [
        np.asarray(Image.open(io.BytesIO(base64.b64decode(text))).convert("RGB"), np.float32) / 255 for text in found
    ]


def test_every_cut_every_shot_and_every_gap(reel: Project):
    path = write_explanation(reel, "castle_1_")
    page = path.read_text(encoding="utf-8")
    assert path == reel.root / "work" / "ingest" / "explain_castle_1_.html"
    cuts = [tuple(map(int, pair)) for pair in re.findall(r"frame (\d+) \| (\d+)", page)]
    assert cuts == [(29, 30), (41, 42), (65, 66)]
    spans = [tuple(map(int, pair)) for pair in re.findall(r"<p>frames (\d+)–(\d+),", page)]
    assert spans == [(0, 29), (30, 41), (42, 65), (66, 70)]
    for words in (
        "footage/castle &lt;1&gt;.mov", "24000/1001 fps, exact; 71 pictures", "starts at 01:00:00:00", "progressive",
        "the picture is 80×48 at 0, 8", "12 black frames", "<p>black</p>",
        "<p>under 0.5 s (footage.min_shot_seconds)</p>",
        "01:00:01:18 – 01:00:02:17", "54 of 71 pictures are in shots", "castle_1__s001", "cuts detected",
    ):  # fmt: skip
        assert words in page, words
    assert "http" not in page.replace("http-equiv", "") and "default-src 'none'" in page


def test_the_pictures_are_the_frames_around_the_cut_with_the_bars_drawn(reel: Project):
    shown = pictures(write_explanation(reel, "footage/castle <1>.mov").read_text(encoding="utf-8"))
    assert [picture.shape[1] for picture in shown] == [246, 163, 246, 163, 246, 163, 246]
    before, after = shown[1][12:52, :80], shown[1][12:52, 83:]
    assert np.abs(before - drift(1, 30)[29][4:44]).mean() < 0.06
    assert after.mean() < 0.05
    line = shown[1][7, 5:75]
    assert line[:, 0].mean() > 0.4 and line[:, 0].mean() > 1.4 * line[:, 2].mean(), "an amber line just outside"
    assert shown[1][3, 5:75].mean() < 0.05, "the bar itself stays black"


def test_a_clip_without_bars_or_cuts(reel: Project):
    page = write_explanation(reel, "sea").read_text(encoding="utf-8")
    assert "the whole picture is kept" in page and "1 shot, in order" in page and " | " not in page


def test_what_cannot_be_explained(reel: Project, capsys: pytest.CaptureFixture[str]):
    with pytest.raises(ConfigError, match=r"(?s)no clip 'see'.*'sea'"):
        write_explanation(reel, "see")
    with pytest.raises(ConfigError, match=r"notes\.mov is no clip: not a video"):
        write_explanation(reel, "notes")
    (reel.root / "footage" / "sea.mp4").write_bytes(b"another film")
    with pytest.raises(FootageError, match="not the one that was ingested"):
        write_explanation(reel, "sea")
    assert main(["ingest", "--explain", "casle_1", "-C", str(reel.root)]) == 2
    assert "castle_1_" in capsys.readouterr().err
    assert main(["ingest", "--explain", "castle_1_", "-C", str(reel.root)]) == 0
    assert "explain_castle_1_.html" in capsys.readouterr().out


def test_before_the_first_ingest(project: Project):
    with pytest.raises(StoreError):
        write_explanation(project, "sea")
