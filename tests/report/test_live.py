"""The page of a run: what it says of logs, while they grow and when they end; and the local server that shows it."""

from __future__ import annotations

import json
import re
import socket
import threading
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cinetune.errors import ConfigError, StoreError
from cinetune.footage.video import write_video
from cinetune.pages.live import page, read_arms, watching, write_page
from cinetune.pages.watch import serving
from cinetune.records import log_line
from cinetune.store import Project
from cinetune.timecode import Fraction

Lay = Callable[..., Path]


def evaluation(step: int, distance: float, **more: Any) -> dict[str, Any]:
    levels = {"0.3000": 0.2 - step / 1e4, "0.6000": 0.3, "0.8000": 0.4, "0.9000": 0.5}
    return {
        "kind": "evaluation", "step": step, "v_loss": 0.25, "v_loss_at": levels, "v_loss_regraded": 0.4 - step / 1000,
        "v_loss_regraded_at": levels, "v_loss_windows": [0.3, 0.4], "v_loss_seen": 0.3 - step / 1000,
        "distance": distance, "distance_film": distance, "distance_regraded": distance, "motion": 0.8, "colour": 12.5,
        "jump": 0.4, "effect": step / 100, "adapter_norm": 1.0 + step, "noise": 0.02 if step == 0 else None, **more,
    }  # fmt: skip


@pytest.fixture
def lay(project: Project) -> Lay:
    """`lay(*events, arm=)` writes the files of a run: its log with ten steps, speed marks, sample films."""

    def write(*events: dict[str, Any], arm: str = "look", recipe: dict[str, Any] | None = None) -> Path:
        folder = project.root / "work" / "train" / arm
        folder.mkdir(parents=True, exist_ok=True)
        settings = project.config.train.model_dump(mode="json") | (recipe or {})
        scale = {"floor": 0.1, "ceiling": 1.2, "distance": "LPIPS formula on maps", "held": ["w1"], "shots": ["w1"],
                 "regraded": True}  # fmt: skip
        lines = [{"kind": "start", "step": 0, "arm": arm, "recipe": settings, "validation": scale}]
        lines += [
            {"kind": "step", "step": n, "loss": 0.3 + 0.01 * (n % 3), "grad_norm": 0.5, "lr": 1e-4}
            for n in range(1, 11)
        ]
        lines = sorted([*lines, *events], key=lambda line: line["step"])
        (folder / "log.jsonl").write_text("".join(map(log_line, lines)))
        mark = {"kind": "step", "seconds": 2.0, "at": 0, "host_gib": 1.5, "device_gib": None}
        marks = [mark | {"step": n} for n in (1, 2)]
        (folder / "speed.jsonl").write_text("".join(map(log_line, marks)))
        for line in lines:
            if line["kind"] == "evaluation":
                film = np.full((5, 16, 48, 3), 0.5, np.float32)
                (folder / "samples").mkdir(exist_ok=True)
                write_video(folder / "samples" / f"step_{line['step']:06d}.mp4", film, rate=Fraction(16))
        return folder

    return write


def text(html: str) -> str:
    """What a reader sees: no style, script or tags."""
    html = re.sub(r"(?s)<(style|script).*?</\1>|<title>.*?</title>", " ", html)
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", html))


END = {"kind": "end", "step": 10, "stopped": "reached 10 steps", "best_step": 5, "alarms": [], "why": "the lowest"}


def test_before_anything_there_is_a_page(project: Project) -> None:
    assert "Nothing has begun yet" in text(page(project))


def test_it_says_whether_it_learns_against_luck(project: Project, lay: Lay) -> None:
    for distance, word in ((0.75, "it learns"), (0.77, "probably"), (0.79, "cannot tell")):
        lay(evaluation(0, 0.8), evaluation(5, distance))
        said = text(page(project))
        assert word in said
        assert f"Distance to the film 0.8000 → {distance:.4f} at step 5" in said
    lay(evaluation(0, 0.8), evaluation(5, 0.79), END)
    assert re.search(r"[■] no\b", re.sub(r"\s+", " ", text(page(project)).replace("■", "■ ")))


def test_it_ranks_marks_and_names_the_kept_step(project: Project, lay: Lay) -> None:
    lay(evaluation(0, 0.8), evaluation(3, 0.71), evaluation(5, 0.70), evaluation(10, 0.75), END)
    html = page(project)
    rows = [re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", row)).split() for row in re.findall(r"(?s)<tr.*?</tr>", html)]
    ranked = [(row[0], row[1], " ".join(row[8:])) for row in rows[1:]]
    assert ranked == [
        ("1", "5", "kept"),
        ("2", "3", "as good as the best within A/A noise"),
        ("3", "10", ""),
        ("—", "0", "the untrained model; does not compete"),
    ]
    assert "Kept for the lowest" in text(html)
    assert "σ 0.30" in html and "σ 0.90" in html  # every noise level is drawn
    assert 'class="band noise"' in html
    assert "memory, peak 1.50 GiB" in text(html)


def test_alarms_are_in_words_with_their_remedy(project: Project, lay: Lay) -> None:
    alarm = {"kind": "alarm", "step": 5, "name": "frozen motion", "what": "samples <b>stop</b>", "remedy": "do less"}
    lay(evaluation(0, 0.8), evaluation(5, 0.7), alarm)
    html = page(project)
    assert "frozen motion since step 5" in text(html)
    assert "What to do: do less" in text(html)
    assert "<b>stop</b>" not in html  # escaped
    lay(evaluation(0, 0.8), evaluation(5, 0.7), alarm, {"kind": "alarm over", "step": 10, "name": "frozen motion"})
    assert "from step 5, over at step 10" in text(page(project))
    end = {"kind": "end", "step": 10, "stopped": "reached 10 steps", "best_step": 5, "why": "", "ranking": [],
           "alarms": ["frozen motion: samples move 0.05. What to do: do less"]}  # fmt: skip
    lay(evaluation(0, 0.8), evaluation(5, 0.7), alarm, end)
    assert "Samples move 0.05." in text(page(project))  # of the kept step, no longer as it was when it came


def test_a_line_that_is_being_written_is_left_out(project: Project, lay: Lay) -> None:
    folder = lay(evaluation(0, 0.8), evaluation(5, 0.7))
    with (folder / "log.jsonl").open("a") as log:
        log.write('{"kind": "evalu')
    assert read_arms(project)[0].step == 10
    assert "step 10 of" in text(page(project))


def test_what_is_left_of_other_settings_is_not_shown(project: Project, lay: Lay) -> None:
    lay(evaluation(0, 0.8), recipe={"rank": 99})
    assert read_arms(project) == []


def test_a_run_that_went_on_with_other_settings_is_shown(project: Project, lay: Lay) -> None:
    """Forced, its first line tells of the settings before; more checkpointing needs no force."""
    recipe = project.config.train.model_dump(mode="json")
    forced = {"kind": "forced", "step": 5, "changes": ["recipe: rank 99 -> 8"], "recipe": recipe}
    scale = {"floor": 0.2, "ceiling": 1.1, "distance": "maps", "held": [], "shots": [], "regraded": False}
    lay(evaluation(0, 0.8), forced | {"validation": scale}, recipe={"rank": 99})
    (run,) = read_arms(project)
    assert run.start["validation"]["floor"] == 0.2
    lay(evaluation(0, 0.8), recipe={"checkpointing": "selective", "trackers": ["wandb"]})
    assert len(read_arms(project)) == 1


def test_the_page_needs_nothing_from_elsewhere(project: Project, lay: Lay) -> None:
    lay(evaluation(0, 0.8), evaluation(5, 0.7))
    path = write_page(project)
    html = path.read_text()
    assert not re.findall(r"(?:src|href)=\"(?!#)[^\"]*", html) and "http:" not in html and "https:" not in html
    (listed,) = re.findall(r'class="list">(.*?)</script>', html)
    films = json.loads(listed)
    assert [film["step"] for film in films] == [0, 5]
    assert all((path.parent / film["path"]).is_file() for film in films)


def test_the_page_is_written_when_an_evaluation_comes_and_at_the_end(project: Project, lay: Lay) -> None:
    path = project.root / "work" / "train" / "index.html"
    with watching(project):
        lay(evaluation(0, 0.8))
    assert "too early to tell" in text(path.read_text())
    with pytest.raises(KeyboardInterrupt), watching(project):
        lay(evaluation(0, 0.8), evaluation(5, 0.7))
        raise KeyboardInterrupt
    assert "it learns" in text(path.read_text())


def ask(address: str, **headers: str) -> tuple[int, dict[str, str], bytes]:
    try:
        with urllib.request.urlopen(urllib.request.Request(address, headers=headers), timeout=10) as answer:
            return answer.status, dict(answer.headers), answer.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, dict(error.headers), error.read()


def test_it_is_served_as_it_grows_and_only_that(project: Project, lay: Lay) -> None:
    folder = lay(evaluation(0, 0.8))
    with serving(project) as address:
        assert address.startswith("http://127.0.0.1:")
        assert "too early to tell" in text(ask(address)[2].decode())
        lay(evaluation(0, 0.8), evaluation(5, 0.7))
        assert "it learns" in text(ask(address)[2].decode())
        film = (folder / "samples" / "step_000005.mp4").read_bytes()
        name = f"{address}look/samples/step_000005.mp4"
        assert ask(name)[2] == film
        status, headers, part = ask(name, Range="bytes=4-7")
        assert (status, headers["Content-Range"], part) == (206, f"bytes 4-7/{len(film)}", film[4:8])
        assert ask(name, Range=f"bytes={len(film)}-")[0] == 416
        for secret in ("../../cinetune.toml", "look/log.jsonl", "look/samples/../log.jsonl", "%2e%2e/lock"):
            assert ask(address + secret)[0] == 404
        assert ask(address, Host="evil.example:80")[0] == 403
        lay(evaluation(0, 0.8), evaluation(5, 0.7), END)
        ask(address)
    with pytest.raises(urllib.error.URLError):
        urllib.request.urlopen(address, timeout=2)
    assert not [thread for thread in threading.enumerate() if "serve" in thread.name]


def test_a_taken_port_is_a_typed_error(project: Project) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ConfigError, match=f"port {port} cannot be used") as caught, serving(project, port):
            pass
    assert caught.value.exit_code == 2
    assert "leave --port out" in str(caught.value)


CRAFTED: tuple[dict[str, Any], ...] = (
    {"kind": "evaluation", "step": 5},
    {"kind": "evaluation", "step": 5, "distance": "near", "colour": None},
    {"kind": "evaluation", "step": 5, "distance": [1], "colour": 1.0},
    {"kind": "alarm", "step": 5},
    {"kind": "end", "step": 11, "stopped": 1},
    {"kind": "end", "step": 11, "stopped": "", "why": "", "best_step": 5, "alarms": [1]},
    {"kind": "forced", "step": 5},
    {"kind": "step", "step": 5, "loss": "low"},
)


@pytest.mark.parametrize("line", CRAFTED, ids=str)
def test_a_line_that_training_did_not_write_is_named_not_a_crash(project: Project, lay: Lay, line: dict) -> None:
    lay(evaluation(0, 0.8), evaluation(4, 0.7), line)
    with pytest.raises(StoreError, match="what training does not write"):
        page(project)
    with watching(project):  # whoever trains is not disturbed
        pass
    with serving(project) as address, pytest.raises(urllib.error.HTTPError, match="500") as caught:
        urllib.request.urlopen(address, timeout=10)
    assert b"what training does not write" in caught.value.read()


def test_a_damaged_line_is_named(project: Project, lay: Lay) -> None:
    path = lay(evaluation(0, 0.8), evaluation(5, 0.7)) / "log.jsonl"
    path.write_bytes(path.read_bytes().replace(b'"loss": 0.3', b'"loss": 0.4', 1))
    with pytest.raises(StoreError, match=r"line 3 of a log is damaged"):
        page(project)
