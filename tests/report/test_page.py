"""The page as a whole: one file, well-formed, complete, and safe to open."""

from __future__ import annotations

import re
import shutil
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path

import pytest

from cinetune.errors import StoreError
from cinetune.results import Scored
from cinetune.runtime import Quiet
from cinetune.stages import report
from cinetune.store import Project

_VOID = {"meta", "img", "input", "br", "hr", "link", "source"}
_SVG = {"line", "circle", "rect", "path", "polyline"}  # written as <x/>


class _Page(HTMLParser):
    """Checks that tags nest, and collects what the tests ask about."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.links: list[str] = []
        self.text: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        self.tags.append((tag, found))
        self.links += [value for name, value in attrs if name in ("src", "href", "poster", "srcset") and value]
        if tag not in _VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag in _SVG | _VOID, tag
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> closes nothing"
        assert self.open[-1] == tag, f"</{tag}> closes <{self.open[-1]}> at line {self.getpos()}"
        self.open.pop()

    def handle_data(self, data: str) -> None:
        if not self.open or self.open[-1] not in ("script", "style"):
            self.text.append(data)

    @property
    def words(self) -> str:
        return re.sub(r"\s+", " ", "".join(self.text))


@pytest.fixture(scope="module")
def source(salt_road: Project) -> str:
    quiet = Quiet()
    record = report.run(salt_road, quiet)
    assert [ref.path for ref in record.groups["page"]] == ["report/index.html"]
    assert salt_road.store.path(record.groups["page"][0]).is_file()
    assert "report/index.html" in quiet.lines[-1]
    return (salt_road.root / "report" / "index.html").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def page(source: str) -> _Page:
    parsed = _Page()
    parsed.feed(source)
    parsed.close()
    return parsed


def test_it_is_well_formed_and_every_picture_is_described(page: _Page) -> None:
    assert page.open == []
    for tag, attributes in page.tags:
        if tag == "img":
            assert attributes.get("alt"), attributes
        if tag in ("video", "input"):
            assert attributes.get("aria-label"), attributes
    headings = [int(tag[1]) for tag, _ in page.tags if re.fullmatch(r"h[1-6]", tag)]
    assert headings[0] == 1
    assert headings.count(1) == 1
    assert all(after - before <= 1 for before, after in pairwise(headings))
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(ids) == len(set(ids))


def test_it_asks_for_nothing_outside_itself(page: _Page, source: str) -> None:
    assert page.links
    outside = [
        link for link in page.links if not link.startswith(("data:image/webp;base64,", "data:video/mp4;base64,", "#"))
    ]
    assert outside == []
    rest = re.sub(r"data:[a-z0-9/]+;base64,[A-Za-z0-9+/=]+", "", source)
    assert not re.search(r"https?://|@import|url\(", rest)
    policy = next(found["content"] for tag, found in page.tags if found.get("http-equiv") == "Content-Security-Policy")
    assert policy is not None
    assert policy.startswith("default-src 'none'")
    anchors = {link[1:] for link in page.links if link.startswith("#")}
    assert anchors <= {found["id"] for _, found in page.tags if "id" in found}


def test_every_shot_plays_every_arm(page: _Page) -> None:
    labels = [found["aria-label"] or "" for tag, found in page.tags if tag == "video"]
    for shot in ("in-01", "in-02", "out-01"):
        for arm in ("Base", "Look", "Plain"):
            assert f"{shot}, {arm}" in labels
    assert labels.count("in-01, as the film itself would show it") == 1
    assert not any("out-01" in label and "film itself" in label for label in labels)


def test_verdicts_are_in_words_with_their_numbers(page: _Page) -> None:
    for said in (
        "Yes at home, unclear away; it costs structure.",
        "Over 2 shots in the film's own world, the look sits closer to the film than the base model",
        "tone-curve distance 9.41 → 3.62 L*, change −5.8 (95 % interval −7.1 to −4.5; 90 % −6.8 to −4.8 against a "
        "margin of 1), p 0.0078, 0 of 8 shots moved the wrong way (of all such shots, up to 31% may): ●improved",
        "Does it copy? look: 0 of 3 suspect, nearest cosine 0.812",
        "For scale: the film's own scenes 4.10; noise, base against base 0.21",
    ):
        assert said in page.words
    for word in ("improved", "worse", "cannot tell", "no worse", "not measured"):
        assert word in page.words


def test_the_answer_comes_first_with_three_pictures_at_mid_shot(page: _Page, source: str) -> None:
    first = source[source.index('<section id="verdict"') : source.index('<section id="shots"')]
    assert first.count("<figure>") == 3 and "frame 4 of shot in-" in first
    assert "Training, plain: no gain: distance to the film" in page.words[: page.words.index("The shots")]
    assert source.index('class="headline"') < source.index('class="three"') < source.index('class="claims"')


def test_shots_are_sorted_worst_first_and_wear_their_change(page: _Page, source: str, salt_road: Project) -> None:
    cards = salt_road.store.need(Scored).scorecards
    rows = {shot: row for card in cards for shot, row in card.per_shot.get("tone_w1", {}).items()}
    changes = {shot: row["look"] - row["base"] for shot, row in rows.items()}
    order = [found["aria-label"] or "" for tag, found in page.tags if tag == "article"]
    assert order == [f"Shot {shot}" for shot in sorted(changes, key=lambda shot: -changes[shot])]
    assert source.count('<span class="pill good">tone-curve distance') == 3


def test_what_was_not_declared_has_an_arrow_and_no_word(page: _Page) -> None:
    assert "perceptual distance to the truth" in page.words and "▼" in page.words
    assert "q 0.0078" in page.words and "p 0.0078" in page.words


def test_shots_of_a_scene_stand_beside_the_films_own_scenes(page: _Page) -> None:
    """Seeds are averaged: 4 and 5 make 4.5. What was not measured is a dash."""
    place = page.words.index("Shots of one scene against each other")
    rows = "s1Base24.509.000.7501.002.00–the film's own scenesFilm21.503.000.9001.002.00–"
    assert rows in page.words[place : place + 900] and "(own: an encoder)" in page.words[place : place + 900]


def test_tone_curves_palettes_and_words_are_there(page: _Page, source: str) -> None:
    assert "Tone curve, in the film's own world" in page.words and "Palette, in the film's own world" in page.words
    assert source.count('class="palette"') == 2
    for word in ("Arm", "Window", "Held out", "A/A noise", "Margin", "Truth"):
        assert f"<dt>{word}" in source
    assert "prefers-color-scheme: light" in source and "@media print" in source and "<noscript>" in source


def test_what_is_missing_says_why(page: _Page) -> None:
    assert "not measured: no graded truth for these shots" in page.words
    assert "One seed: the noise of base against base is not known." in page.words
    assert "Not measured (the shots are one segment long): seams." in page.words
    assert "pocket features" in page.words
    assert "not a video: a text file" in page.words


def test_training_says_how_it_ended(page: _Page, source: str) -> None:
    assert "Step 180 was kept (▼), the best of 13 evaluations." in page.words
    assert "no gain of 0.001 in 3 evaluations" in page.words
    assert "no gain: distance to the film is 0.1490, 0.1480 before training" in page.words
    training = source[source.index('<section id="training"') : source.index('<section id="scores"')]
    assert training.count('class="chart"') == 5
    assert "ceiling: the first frame, frozen" in page.words


def test_prompts_are_text_and_nothing_else(page: _Page, source: str) -> None:
    assert '<script>alert("x")</script> & "quotes"' in page.words
    assert "<script>alert" not in source
    assert sum(tag == "script" for tag, _ in page.tags) == 1


@pytest.mark.parametrize("stage", ["ingest", "prepare", "train", "keyframes", "expand", "score"])
def test_a_missing_stage_is_named(salt_road: Project, tmp_path: Path, stage: str) -> None:
    for name in ("cinetune.toml", "shots.toml"):
        shutil.copy(salt_road.root / name, tmp_path)
    for name in ("references", "footage"):
        shutil.copytree(salt_road.root / name, tmp_path / name)
    shutil.copytree(salt_road.root / "work" / "stages", tmp_path / "work" / "stages")
    (tmp_path / "work" / "stages" / f"{stage}.json").unlink()
    with pytest.raises(StoreError, match=f"run `cinetune {stage}`"):
        report.run(Project(tmp_path), Quiet())
    assert not (tmp_path / "report").exists()


def test_inputs_follow_the_shot_list_and_its_pictures(salt_road: Project, tmp_path: Path) -> None:
    shutil.copytree(salt_road.root / "references", tmp_path / "references")
    for name in ("cinetune.toml", "shots.toml"):
        shutil.copy(salt_road.root / name, tmp_path)
    before = report.inputs(Project(tmp_path))
    assert before == report.inputs(salt_road)
    with (tmp_path / "references" / "in-01.png").open("ab") as file:
        file.write(b"x")
    after = report.inputs(Project(tmp_path))
    assert {name for name in before if before[name] != after[name]} == {"references/in-01.png"}
