"""Captions by a model: complete, checked, resumable, and never in the place of a person's."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time

import pytest

from caption_server import serve
from captioned import GOOD, SHOTS, make_film, settings
from cinetune.cli import main
from cinetune.errors import ConfigError, ModelError, ServiceError, StoreError, WeightsError
from cinetune.footage.notes.sidecars import GENERATED, read_generated
from cinetune.models.captioning import chat
from cinetune.pipeline import status
from cinetune.runtime import Quiet
from cinetune.stages import caption, prepare
from cinetune.store import Project
from tiny_vlm import save_vlm


@pytest.fixture(scope="module")
def ingested(tmp_path_factory):
    return make_film(tmp_path_factory.mktemp("ingested"))


@pytest.fixture
def film(ingested, tmp_path):
    """A copy of the ingested film to work on."""
    return shutil.copytree(ingested, tmp_path / "film")


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(chat, "FIRST_WAIT", 0.01)
    monkeypatch.setenv("no_proxy", "*")


def ask(film, server, *overrides) -> Quiet:
    """Run the stage against a server; what it said."""
    (film / "cinetune.toml").write_text(settings(backend="http", base_url=server.url, model="eye-7b"))
    report = Quiet()
    caption.run(Project(film, overrides=overrides), report)
    return report


def captions(film) -> list[tuple[str, str, str]]:
    """(shot, text, source) of each window that `prepare` makes."""
    windows = prepare.run(Project(film), Quiet()).groups["windows"]
    return [(window.shot, window.caption, window.caption_source) for window in windows]


def test_every_shot_is_captioned_and_prepare_takes_it(film, tmp_path):
    steps = [{"status": 429, "headers": {"Retry-After": "0"}}, {"status": 500}, {"caption": f'"{GOOD}"'}]
    with serve(tmp_path, steps) as server:
        report = ask(film, server)
        requests = server.requests()
    assert len(requests) == len(SHOTS) + 2
    content = requests[-1]["body"]["messages"][0]["content"]
    assert [part["type"] for part in content] == ["image_url"] * 3 + ["text"]
    assert "These 3 pictures" in content[-1]["text"]
    assert "80 to 100 words" in content[-1]["text"]
    assert captions(film) == [(shot, GOOD, "generated (eye-7b)") for shot in SHOTS]
    rows = read_generated(film / "footage")
    assert [(row.file_name, row.start_frame, row.frames) for row in rows] == [
        (f"c{clip}.mp4", start, 20) for clip in range(3) for start in (0, 20)
    ]
    assert {(row.model, row.edited, len(row.prompt_sha256)) for row in rows} == {("eye-7b", False, 64)}
    assert sum(shot in line for line in report.lines for shot in SHOTS) >= 6
    assert "WARNING" not in "".join(report.lines)


def test_captions_do_not_make_ingest_stale(film, tmp_path):
    """Captions concern `prepare` alone: the footage need not be looked at again."""
    with serve(tmp_path, [{"caption": GOOD}]) as server:
        ask(film, server)
        prepare.run(Project(film), Quiet())
        (film / "footage" / GENERATED).write_text("")
        states = {row.stage: row for row in status(Project(film))}
    assert states["ingest"].state == "done"
    assert (states["prepare"].state, states["prepare"].why) == ("stale", f"footage/{GENERATED} changed")


def test_a_person_is_never_asked_twice(film, tmp_path):
    """Neither a text file, nor a table's row, nor an edit of the generated file is written over or sent to a model."""
    with serve(tmp_path, [{"caption": GOOD}]) as server:
        ask(film, server)
        path = film / "footage" / GENERATED
        lines = path.read_text().splitlines()
        row = json.loads(lines[5])
        lines[5] = json.dumps(row | {"text": "edited by hand"})
        path.write_text("\n".join(lines))
        (film / "footage" / "c0.txt").write_text("both by hand")
        (film / "footage" / "captions.csv").write_text("file_name,shot,caption\nc1.mp4,1,one by hand\n")
        before = len(server.requests())
        report = ask(film, server, 'caption.prompt="another question"')
        asked = server.requests()[before:]
    assert len(asked) == 2  # c1_s000 and c2_s000
    assert [request["body"]["messages"][0]["content"][-1]["text"] for request in asked] == ["another question"] * 2
    assert captions(film) == [
        ("c0_s000", "both by hand", "c0.txt"),
        ("c0_s001", "both by hand", "c0.txt"),
        ("c1_s000", GOOD, "generated (eye-7b)"),
        ("c1_s001", "one by hand", "captions.csv"),
        ("c2_s000", GOOD, "generated (eye-7b)"),
        ("c2_s001", "edited by hand", GENERATED),
    ]
    assert (film / "footage" / "c0.txt").read_text() == "both by hand"
    assert any("c0.txt" in line for line in report.lines)
    for clip in range(1, 3):
        (film / "footage" / f"c{clip}.txt").write_text("by hand")
    report = Quiet()
    caption.run(Project(film, overrides=("caption.model=",)), report)
    assert report.lines == ["a person captioned every shot: nothing to do"]


def test_a_faulty_answer_is_sent_back_once(film, tmp_path):
    poor = GOOD.replace("A rider", "A cinematic rider")
    with serve(tmp_path, [{"caption": poor}, {"caption": GOOD}]) as server:
        ask(film, server, "caption.workers=1")
        first, second, third = server.requests()[:3]
        assert len(server.requests()) == len(SHOTS) + 1
    assert second["body"]["messages"][:1] == first["body"]["messages"]
    roles = [(message["role"], message["content"]) for message in second["body"]["messages"][1:]]
    assert roles[0] == ("assistant", poor)
    assert roles[1][0] == "user"
    assert 'describes the look ("cinematic")' in roles[1][1]
    assert len(third["body"]["messages"]) == 1
    assert {text for _, text, _ in captions(film)} == {GOOD}


def test_an_answer_that_stays_faulty_is_kept_with_a_warning(film, tmp_path):
    poor, worse = GOOD.replace("A rider", "A cinematic rider"), "This video is moody."
    with serve(tmp_path, [{"caption": poor}, {"caption": worse}, {"caption": GOOD}]) as server:
        report = ask(film, server, "caption.workers=1")
        assert len(server.requests()) == len(SHOTS) + 1
    assert captions(film)[0][1] == poor
    (line,) = [line for text in report.lines for line in text.splitlines() if "WARNING" in line]
    assert line.startswith("c0_s000")
    assert '"cinematic"' in line


def test_one_shot_that_fails_does_not_stop_the_others(film, tmp_path):
    nothing = {"text": '{"choices": [{"message": {"content": ""}, "finish_reason": "content_filter"}]}'}
    with serve(tmp_path, [{"caption": GOOD}, nothing, {"caption": GOOD}]) as server:
        with pytest.raises(ModelError, match=r"1 shots got no caption:\n  c0_s001: .*content_filter"):
            ask(film, server, "caption.workers=1")
        assert len(read_generated(film / "footage")) == 5
        ask(film, server)
        assert len(server.requests()) == len(SHOTS) + 1
    assert len(read_generated(film / "footage")) == 6


def test_a_model_that_fails_at_everything_is_given_up_soon(film, tmp_path):
    with serve(tmp_path, [{"status": 400, "text": "no pictures, please"}]) as server:
        with pytest.raises(ModelError, match="no pictures, please"):
            ask(film, server, "caption.workers=1")
        assert len(server.requests()) <= 4
    assert not (film / "footage" / GENERATED).exists()


def test_a_server_that_dies_loses_nothing(film, tmp_path):
    steps = [{"caption": GOOD}, {"caption": GOOD}, {"status": 503}]
    with serve(tmp_path, steps) as server, pytest.raises(ServiceError, match="503"):
        ask(film, server, "caption.workers=1", "caption.retries=0")
    assert len(read_generated(film / "footage")) == 2
    with serve(tmp_path, [{"caption": GOOD}]) as server:
        report = ask(film, server)
        assert len(server.requests()) == 4
    assert "2 of 6 captions are there already" in report.lines


def test_a_killed_run_goes_on(film, tmp_path):
    units = film / "work" / "units" / "caption"
    with serve(tmp_path, [{"caption": GOOD, "delay": 0.4}]) as server:
        (film / "cinetune.toml").write_text(settings(backend="http", base_url=server.url, model="eye-7b", workers=1))
        command = [sys.executable, "-m", "cinetune", "caption", "-C", str(film)]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, env=os.environ | {"no_proxy": "*"})
        deadline = time.monotonic() + 60
        while len(list(units.glob("[0-9a-f]*.json"))) < 2 and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
        done = len(list(units.glob("[0-9a-f]*.json")))
        assert 2 <= done < len(SHOTS)
        assert not (film / "footage" / GENERATED).exists()
        before = len(server.requests())
        report = Quiet()
        caption.run(Project(film), report)
        assert len(server.requests()) - before == len(SHOTS) - done
        whole = (film / "footage" / GENERATED).read_bytes()
        caption.run(Project(film), report)
        assert len(server.requests()) - before == len(SHOTS) - done
    assert (film / "footage" / GENERATED).read_bytes() == whole
    assert len(read_generated(film / "footage")) == len(SHOTS)


def test_another_model_captions_again(film, tmp_path):
    with serve(tmp_path, [{"caption": GOOD}]) as server:
        ask(film, server)
        ask(film, server, "caption.model=eye-70b")
        assert len(server.requests()) == 2 * len(SHOTS)
        ask(film, server)
        assert len(server.requests()) == 2 * len(SHOTS)
    assert {row.model for row in read_generated(film / "footage")} == {"eye-7b"}


def test_a_local_model_of_the_real_class(film, tmp_path, capsys):
    folder = save_vlm(tmp_path / "Tiny-VL", "qwen2_5_vl")
    (film / "cinetune.toml").write_text(settings(path=str(folder)) + "words = [4, 6]\n")
    assert main(["caption", "-C", str(film)]) == 0
    out, _ = capsys.readouterr()
    assert "loading" in out and "next   cinetune caption --review" in out
    rows = read_generated(film / "footage")
    assert len(rows) == len(SHOTS)
    assert {row.model for row in rows} == {"Tiny-VL"}
    assert all(row.text for row in rows)
    assert out.count("WARNING: ") >= len(SHOTS)  # random weights say nothing sensible, and it is told
    assert {source for _, _, source in captions(film)} == {"generated (Tiny-VL)"}
    assert main(["caption", "-C", str(film)]) == 0
    out, _ = capsys.readouterr()
    assert "6 of 6 captions are there already" in out and "loading" not in out


@pytest.mark.parametrize(
    ("overrides", "error", "said"),
    [
        ((), WeightsError, "caption.path is empty"),
        (("caption.path=nowhere",), WeightsError, "no such folder"),
        (("caption.backend=http",), ConfigError, "caption.model is empty"),
        (("caption.backend=http", "caption.model=m", "caption.base_url=ftp://x"), ConfigError, "caption.base_url"),
        (
            ("caption.backend=http", "caption.model=m", "caption.key_env=NO_SUCH"),
            ConfigError,
            "NO_SUCH, which is not set",
        ),
        (("caption.backend=http", "caption.model=m", "caption.key_env=ODD"), ConfigError, "cannot be a key"),
        (
            ("caption.backend=http", "caption.model=m", "caption.base_url=http://127.0.0.1:1/v1"),
            ServiceError,
            "reached",
        ),
    ],
)
def test_what_is_missing_is_said(film, monkeypatch, overrides, error, said):
    monkeypatch.setenv("ODD", "a\nb")
    with pytest.raises(error, match=said) as caught:
        caption.run(Project(film, overrides=overrides), Quiet())
    assert caught.value.remedy
    assert not (film / "footage" / GENERATED).exists()


def test_ingest_comes_first(project, report):
    with pytest.raises(StoreError, match="ingest"):
        caption.run(project, report)


def test_prepare_says_who_can_help(film):
    with pytest.raises(ConfigError, match="6 shots have no caption") as caught:
        prepare.run(Project(film), Quiet())
    assert "cinetune caption" in caught.value.remedy


def test_nothing_heavy_is_imported_before_it_is_needed():
    code = "import sys, cinetune.stages.caption, cinetune.models.captioning.chat; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert {"torch", "transformers", "cinetune.models.captioning.captioner"} & set(done.stdout.split()) == set()
