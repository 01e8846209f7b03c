"""The contact sheet: every window on it, nothing from outside, and small."""

from __future__ import annotations

import base64
import io
import re
from dataclasses import replace
from fractions import Fraction
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from cinetune.artifacts import Colour, FootageClip, Measures, Rights, Split, Window
from cinetune.pages.sheet import WindowCard, render_sheet, start_label, strip
from films import FILM, drift

COLOUR = Colour(matrix="bt709", primaries="bt709", transfer="bt709", full_range=False, decided="")
CLIP = FootageClip(
    id="a", path="footage/day 1/a.mov", sha256="", codec="", rate=FILM, frames=200, width=96, height=64,
    pixel_aspect=Fraction(1), bars=(0, 0, 96, 64), colour=COLOUR, timecode="01:00:00:00",
    rights=Rights(owner="Studio <X>"),
)  # fmt: skip


def _card(
    number: int, *, scene: str = "castle", split: Split = "train", caption: str = "a rider", left_out: str = "",
    copy_of: str = "",
) -> WindowCard:  # fmt: skip
    window = Window(
        id=f"a_s{number:03d}_w00", shot=f"a_s{number:03d}", clip="a", scene=scene, split=split,
        source_frames=tuple(range(24 + number, 57 + number)), rate=Fraction(16), crop=(0, 0, 96, 64), width=96,
        height=64, caption=caption, caption_source="a.txt",
    )  # fmt: skip
    measures = Measures(
        window=window.id, motion=3.0 + number, sharpness=0.5, brightness=0.4, black=0.2, left_out=left_out
    )
    picture = strip(drift(number, 3, 64, 96))
    return WindowCard(window=window, clip=CLIP, measures=measures, strip=picture, copy_of=copy_of)


class _Tags(HTMLParser):
    def __init__(self, page):
        super().__init__()
        self.open: list[str] = []
        self.links: list[str] = []
        self.cards: list[dict[str, str]] = []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        found = {name: value or "" for name, value in attrs}
        self.links += [value for name, value in found.items() if name in ("src", "href")]
        if "card" in found.get("class", "").split():
            self.cards.append(found)
        if tag not in ("meta", "img", "input", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_every_window_with_what_an_editor_asks():
    cards = [
        _card(0),
        _card(1, scene="sea", split="held", copy_of="a_s000_w00"),
        _card(2, caption=""),
        _card(3, left_out="motion 0.10 is under prepare.min_motion 1"),
    ]
    page = render_sheet("My <film>", cards, ["Trigger said & done."])
    tags = _Tags(page)
    assert tags.open == []
    assert [(card["data-state"], card["data-motion"]) for card in tags.cards] == [
        ("train", "3.0"), ("train", "5.0"), ("out", "6.0"), ("held", "4.0"),
    ]  # fmt: skip
    for text in (
        "My &lt;film&gt;", "Trigger said &amp; done.", "2 windows to train on, 1 held out, 1 left out, from 1 file.",
        "33 frames at 16 fps, 96×64", "01:00:01:00", "a.mov", "footage/day 1/a.mov, source frames 24–56",
        "owner Studio &lt;X&gt;", "no caption", "is under prepare.min_motion", "shows the same picture as a_s000_w00",
        "20 % black",
    ):  # fmt: skip
        assert text in page, text
    assert re.findall(r"<h2>(\w+)</h2>", page) == ["castle", "sea"]


def test_nothing_comes_from_outside_the_page():
    page = render_sheet("film", [_card(0)], [])
    links = _Tags(page).links
    assert links and all(link.startswith(("data:image/webp;base64,", "#")) for link in links)
    assert "http://" not in page and "https://" not in page and "default-src 'none'" in page


def test_a_strip_is_three_pictures_side_by_side():
    frames = np.stack([np.full((480, 832, 3), value, np.float32) for value in (0.2, 0.5, 0.8)])
    picture = np.asarray(Image.open(io.BytesIO(strip(frames))).convert("RGB"), np.float32) / 255
    assert picture.shape == (120, 3 * 208 + 2 * 3, 3)
    assert [picture[60, x].mean() for x in (100, 315, 520)] == pytest.approx([0.2, 0.5, 0.8], abs=0.02)
    assert picture[60, 209].mean() == pytest.approx(46 / 255, abs=0.04)


def test_two_hundred_windows_of_noise_stay_a_small_page():
    rng = np.random.default_rng(0)
    coarse = rng.uniform(0, 1, (3, 30, 52, 3)).astype(np.float32)
    busy = np.repeat(np.repeat(coarse, 16, axis=1), 16, axis=2)
    card = replace(_card(0), strip=strip(busy))
    page = render_sheet("film", [card] * 200, [])
    assert len(page.encode()) < 8_000_000
    assert base64.b64encode(card.strip).decode() in page


@pytest.mark.parametrize(
    ("timecode", "rate", "label"),
    [
        ("01:00:00:00", FILM, "01:00:02:02"),
        (None, FILM, "+00:00:02:02"),
        ("nonsense", FILM, "+00:00:02:02"),
        ("00:59:58;00", Fraction(30000, 1001), "00:59:59;20"),
        ("10:00:00;00", Fraction(25), "+00:00:02:00"),
    ],
)
def test_timecode_of_the_first_frame(timecode, rate, label):
    assert start_label(replace(CLIP, timecode=timecode, rate=rate), 50) == label


def test_an_empty_sheet_is_a_page_too():
    assert _Tags(render_sheet("film", [], [])).cards == []
