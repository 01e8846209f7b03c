"""The page to read and edit captions on: what it shows, and that what it gives back counts as a person's words."""

from __future__ import annotations

import base64
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from captioned import SHOTS, make_film
from cinetune.cli import main
from cinetune.errors import StoreError
from cinetune.footage.notes.sidecars import METADATA, Generated, write_generated
from cinetune.pages.review import write_review
from cinetune.runtime import Quiet
from cinetune.stages import prepare
from cinetune.store import Project

CHROMIUM = next(
    (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None
)
NASTY = 'a "moody" </script><b>barn</b> & more'


@pytest.fixture(scope="module")
def ingested(tmp_path_factory):
    """The film, ingested: shot 0 of c0 by a person, all of c2 without captions, the others by a machine."""
    root = make_film(tmp_path_factory.mktemp("ingested"))
    rows = [
        {"file_name": "c0.mp4", "shot": 0, "text": "by hand", "scene": "square", "owner": "us", "licence": "own"},
        {"file_name": "c1.mp4", "scene": "barn", "take": 7},
    ]
    (root / "footage" / METADATA).write_text("".join(json.dumps(row) + "\n" for row in rows))
    shas = {clip.path: clip.sha256 for clip in Project(root).store.need_stage("ingest").groups["clips"]}
    write_generated(
        root / "footage",
        [
            Generated(
                file_name=name, clip_sha256=shas[f"footage/{name}"], start_frame=start, frames=20, text=text,
                model="eye-7b", prompt_sha256="0" * 64,
            )
            for name, start, text in (("c0.mp4", 20, NASTY), ("c1.mp4", 0, "one"), ("c1.mp4", 20, "two"))
        ],
    )  # fmt: skip
    return root


@pytest.fixture
def film(ingested, tmp_path):
    return shutil.copytree(ingested, tmp_path / "film")


def browse(page: Path, folder: Path, script: str) -> dict[str, Any]:
    """What `script` says in a real browser, after it ran at the end of the page."""
    assert CHROMIUM is not None
    added = (
        f"<script>document.title = btoa(unescape(encodeURIComponent(JSON.stringify((() => {{{script}}})()))))</script>"
    )
    copy = folder / "copy.html"
    copy.write_text(page.read_text().replace("</body>", added + "</body>"))
    command = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={folder / 'profile'}"]
    done = subprocess.run(
        [*command, "--dump-dom", copy.as_uri()], capture_output=True, text=True, check=True, timeout=100
    )
    (title,) = re.findall(r"<title>(.*?)</title>", done.stdout)
    return json.loads(base64.b64decode(title))


def test_the_page_shows_every_shot_and_needs_nothing_else(film, capsys):
    assert main(["caption", "--review", "-C", str(film)]) == 0
    assert "captions.html" in capsys.readouterr().out
    page = (film / "report" / "captions.html").read_text(encoding="utf-8")
    assert [shot for shot in SHOTS if f">{shot}</h2>" not in page] == []
    assert page.count("data:image/webp;base64,") == 8 * len(SHOTS)
    assert re.findall(r'class="badge (\w+)"', page) == ["human", "generated", "generated", "generated", "none", "none"]
    assert "default-src 'none'" in page
    assert re.findall(r"""(?:src|href)=["'](?!data:)""", page) == []
    assert "http://" not in page and "https://" not in page
    assert "<b>barn</b>" not in page
    assert "it describes the look (&#34;moody&#34;)" in page


def test_ingest_comes_first(project, report):
    with pytest.raises(StoreError, match="ingest"):
        write_review(project, report)


def test_a_caption_of_an_inner_table_is_edited_there(film):
    """A numbered row of an inner folder comes before the table the page gives back."""
    inner = film / "footage" / "day1"
    inner.mkdir()
    shutil.move(film / "footage" / "c2.mp4", inner / "c2.mp4")
    (inner / METADATA).write_text('{"file_name": "c2.mp4", "shot": 1, "text": "inside"}\n')
    assert main(["ingest", "-C", str(film)]) == 0
    page = write_review(Project(film), Quiet()).read_text(encoding="utf-8")
    assert page.count(" readonly") == 1
    assert "edit this one in day1/metadata.jsonl" in page


@pytest.mark.skipif(CHROMIUM is None, reason="needs chromium")
def test_what_the_page_gives_back_counts_as_a_persons(film, tmp_path):
    """In a real browser: type a caption, accept one, accept nothing else; put the download into the folder."""
    page = write_review(Project(film), Quiet())
    script = """
        const area = articles[4].querySelector("textarea");
        area.value = "  typed in\\n the browser – «é» "; area.dispatchEvent(new Event("input"));
        const box = articles[1].querySelector(".ok");
        box.checked = true; box.dispatchEvent(new Event("change"));
        const first = articles[0].querySelector("textarea");
        first.value = "better by hand"; first.dispatchEvent(new Event("input"));
        document.querySelector('[data-show="generated"]').click();
        const shown = articles.filter((one) => !one.hidden).length;
        document.querySelector('[data-show="all"]').click();
        const search = document.getElementById("search");
        search.value = "C1.MP4"; search.dispatchEvent(new Event("input"));
        const found = articles.filter((one) => !one.hidden).map((one) => one.querySelector("h2").textContent);
        const notes = [...articles[1].querySelectorAll(".notes li")].map((one) => one.textContent);
        const counts = articles.map((one) => one.querySelector(".count").textContent);
        const progress = document.getElementById("progress").textContent;
        return { text: metadata(), shown, found, notes, counts, progress };
    """
    said = browse(page, tmp_path, script)
    assert (said["shown"], said["found"]) == (3, ["c1_s000", "c1_s001"])
    assert said["progress"] == "3 of 6 by a person"
    assert said["counts"][2] == "1 word"
    assert any("moody" in note for note in said["notes"])
    rows = [json.loads(line) for line in said["text"].splitlines()]
    assert rows == [
        {"file_name": "c0.mp4", "shot": 0, "text": "better by hand", "scene": "square", "owner": "us",
         "licence": "own", "start_frame": 0},
        {"file_name": "c1.mp4", "scene": "barn", "take": 7},
        {"file_name": "c0.mp4", "shot": 1, "start_frame": 20, "text": NASTY},
        {"file_name": "c2.mp4", "shot": 0, "start_frame": 0, "text": "typed in the browser – «é»"},
    ]  # fmt: skip
    (film / "footage" / METADATA).write_text(said["text"], encoding="utf-8")
    project = Project(film, overrides=("prepare.require_captions=false",))
    windows = prepare.run(project, Quiet()).groups["windows"]
    assert [(w.caption, w.caption_source, w.scene) for w in windows] == [
        ("better by hand", METADATA, "square"),
        (NASTY, METADATA, "c0"),
        ("one", "generated (eye-7b)", "barn"),
        ("two", "generated (eye-7b)", "barn"),
        ("typed in the browser – «é»", METADATA, "c2"),
        ("", "none", "c2"),
    ]


@pytest.mark.skipif(CHROMIUM is None, reason="needs chromium")
def test_the_button_makes_a_file(film, tmp_path):
    page = write_review(Project(film), Quiet())
    script = """
        const made = [];
        URL.createObjectURL = (blob) => { made.push(blob.size); return "blob:x"; };
        HTMLAnchorElement.prototype.click = function () { made.push(this.download); };
        const button = document.getElementById("download"), before = button.disabled;
        document.getElementById("accept").click();
        button.click();
        return { before, made, accepted: state.map((one) => one.accepted) };
    """
    said = browse(page, tmp_path, script)
    assert said["before"] is True
    assert said["made"][1] == METADATA and said["made"][0] > 100
    assert said["accepted"] == [False, True, True, True, False, False]
