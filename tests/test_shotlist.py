"""The shot list: read in order, checked whole, every fault named by shot and line, written and read again."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cinetune.artifacts import Cue
from cinetune.errors import ConfigError
from cinetune.shotlist import check_shots, load_shots, pick_candidates, shots_text

GOOD = '[[shot]]\nid = "s1"\nprompt = "a rider"\ndomain = "in"\nreference = "ref.png"\n'
CUES = "\n[[shot.prompts]]\nat = 2.0\nprompt = 'he stops'\n\n[[shot.prompts]]\nat = 4.0\nprompt = 'he leaves'\n"


def shots(folder: Path, text: str) -> Path:
    (folder / "ref.png").write_bytes(b"png")
    path = folder / "shots.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_shots_are_read_in_order(tmp_path: Path) -> None:
    plan = load_shots(shots(tmp_path, GOOD + GOOD.replace("s1", "s2") + "seconds = 4\n"))
    assert [(shot.id, shot.seconds) for shot in plan.shots] == [("s1", 2.0), ("s2", 4.0)]


def test_everything_a_shot_can_say(tmp_path: Path) -> None:
    text = GOOD + (
        'sequence = "SQ020"\nseconds = 6.0\nseed = 3\nnegative = "text"\ncamera = "slow push in"\nheight = 64\n'
        'width = 96\nrate = "16"\nmethod = "late"\ncandidates = 3\npick = 1\nlast = "ref.png"\n'
    )
    (shot,) = load_shots(shots(tmp_path, text + CUES)).shots
    assert (shot.sequence, shot.candidates, shot.camera, shot.last) == ("SQ020", 3, "slow push in", "ref.png")
    assert shot.prompts == (Cue(at=2.0, prompt="he stops"), Cue(at=4.0, prompt="he leaves"))


def test_a_painted_keyframe_is_its_own_reference(tmp_path: Path) -> None:
    (shot,) = load_shots(shots(tmp_path, GOOD.replace("reference", "keyframe"))).shots
    assert shot.reference == shot.keyframe == "ref.png"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (GOOD + GOOD, r"shot 's1' \(line 7\): two shots are called 's1'"),
        (GOOD + GOOD.replace("s1", "S1"), "two shots are called 's1'"),
        (GOOD.replace("ref.png", "gone.png"), r"\(line 5\): reference 'gone.png' does not exist"),
        (GOOD.replace("ref.png", "../ref.png"), "outside the project"),
        (GOOD.replace("ref.png", "/etc/hostname"), "outside the project"),
        (GOOD + 'truth = "gone.mp4"\n', r"\(line 6\): truth 'gone.mp4' does not exist"),
        (GOOD + 'keyframe = "gone.png"\n', "keyframe 'gone.png' does not exist"),
        (GOOD + 'last = "gone.png"\n', "last 'gone.png' does not exist"),
        (GOOD.replace('"in"', '"past"'), r"shot 's1' \(line 4\): domain"),
        (GOOD.replace("prompt", "promt"), r"\(line 3\): unknown key 'promt'; did you mean 'prompt'"),
        (GOOD.replace('"s1"', '"../s1"'), r"\(line 2\): shot id"),
        (GOOD + "seconds = 0\n", r"\(line 6\): seconds must be more than 0"),
        (GOOD + "seconds = nan\n", r"\(line 6\): seconds"),
        (GOOD + "seconds = 1e9\n", "at most 600"),
        (GOOD + 'method = "magic"\n', r"\(line 6\): method"),
        (GOOD + "candidates = 0\n", "candidates must be 1 or more"),
        (GOOD + "pick = -1\n", "pick counts from 0"),
        (GOOD + "look_strength = -0.5\n", r"\(line 6\): look_strength must be from 0 to 4, not -0.5"),
        (GOOD + "preview_strength = nan\n", r"\(line 6\): preview_strength"),
        (GOOD + "height = -8\n", "height counts from 0"),
        (GOOD + "height = 720\n", r"\(line 6\): height and width go together"),
        (GOOD + "width = 1280\n", r"\(line 6\): height and width go together"),
        (GOOD + 'rate = "fast"\n', "rate: not a frame rate"),
        (GOOD + 'sequence = "a/b"\n', "sequence 'a/b'"),
        (GOOD.replace("a rider", "a" * 5000), r"\(line 3\): prompt has 5000 characters"),
        (GOOD + CUES, r"\(line 8\): at = 2 must lie after 0 and before the end"),
        (GOOD + "seconds = 9\n" + CUES.replace("4.0", "1.0"), r"\(line 13\): at = 1 must lie after 2"),
        (GOOD + "seconds = 9\n" + CUES.replace("4.0", "nan"), r"\(line 13\)"),
        (
            GOOD + "seconds = 9\n" + CUES.replace("prompt = 'he stops'", "promt = 'he stops'"),
            r"\(line 10\): unknown key 'promt'",
        ),
        (GOOD + 'keyframe = "ref.png"\nmethod = "late"\n', "taken as it is"),
        (GOOD.replace('reference = "ref.png"\n', ""), r"\(line 1\): a shot needs a reference picture"),
        ("[[shots]]\n", "did you mean 'shot'"),
        ("shot = 3\n", "shot 0"),
        ("shot = [3]\n", "shot 0"),
        ('[[shot]]\nid = "s1"\n', "shot 's1'"),
    ],
)
def test_a_wrong_shot_is_named(tmp_path: Path, text: str, reason: str) -> None:
    with pytest.raises(ConfigError, match=reason):
        load_shots(shots(tmp_path, text))


def test_all_faults_are_named_at_once(tmp_path: Path) -> None:
    text = (
        GOOD + "seconds = 0\n" + GOOD.replace("s1", "s2").replace('"in"', '"past"') + GOOD.replace("ref.png", "x.png")
    )
    with pytest.raises(ConfigError) as caught:
        load_shots(shots(tmp_path, text))
    assert [line.split(":")[0].strip() for line in caught.value.what.splitlines()] == [
        "shot 's1' (line 6)",
        "shot 's2' (line 10)",
        "shot 's1' (line 13)",
        "shot 's1' (line 16)",
    ]


def test_lines_are_counted_past_text_that_looks_like_a_head(tmp_path: Path) -> None:
    text = GOOD.replace('"a rider"', '"""\n[[shot]]\nid = 7\n"""') + "seconds = 0\n"
    with pytest.raises(ConfigError, match=r"shot 's1' \(line 9\): seconds"):
        load_shots(shots(tmp_path, text))


def test_shots_written_as_one_table_are_named_without_a_line(tmp_path: Path) -> None:
    row = 'shot = [{id = "s1", prompt = "a", domain = "in", reference = "ref.png", seconds = 0}]\n'
    with pytest.raises(ConfigError, match=r"^shot 's1': seconds"):
        load_shots(shots(tmp_path, row))


def test_a_list_that_was_written_reads_as_it_was(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [
        {"id": "s1", "prompt": 'a "rider"\n\\ \x85 \u2028 é', "domain": "in", "reference": "ref.png", "seconds": 5.5},
        {"id": "s2", "prompt": "b", "domain": "out", "reference": "ref.png", "prompts": [{"at": 1.0, "prompt": "c"}]},
    ]
    (tmp_path / "ref.png").write_bytes(b"png")
    check_shots(rows, tmp_path)
    text = shots_text(rows)
    assert tomllib.loads(text) == {"shot": rows}
    assert [shot.id for shot in load_shots(shots(tmp_path, text)).shots] == ["s1", "s2"]
    with pytest.raises(ConfigError, match="cannot be written"):
        shots_text([{"seconds": float("nan")}])
    with pytest.raises(ConfigError, match="shot 's2': at = 7"):
        check_shots([rows[0], rows[1] | {"prompts": [{"at": 7.0, "prompt": "c"}]}], tmp_path)


@given(st.text())
def test_any_text_survives_the_shot_list(text: str) -> None:
    assert tomllib.loads(shots_text([{"prompt": text}])) == {"shot": [{"prompt": text}]}


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_a_list_saved_by_other_editors_is_read_and_its_lines_counted(tmp_path: Path, encoding: str) -> None:
    text = GOOD.replace("a rider", "a rider\u2028crosses").replace("\n", "\r\n")
    path = shots(tmp_path, "")
    path.write_bytes(text.encode(encoding))
    assert load_shots(path).shots[0].prompt == "a rider\u2028crosses"
    path.write_bytes((text + "seconds = 0\r\n").encode(encoding))
    with pytest.raises(ConfigError, match=rf"line {text.count(chr(10)) + 1}\)"):
        load_shots(path)


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (f'reference = "{"r" * 5000}"', "reference: a file name"),
        ('reference = "a\\u0000b"', "reference: a file name"),
        (f'reference = "ref.png"\ntruth = "{"a/" * 3000}"', "truth: a file name"),
        (f"seconds = 1{'0' * 6000}", "TOML"),
    ],
)
def test_shots_no_disk_could_hold(tmp_path: Path, line: str, reason: str) -> None:
    text = f'[[shot]]\nid = "x"\nprompt = "p"\ndomain = "in"\n{line}\n'
    with pytest.raises(ConfigError, match=reason):
        load_shots(shots(tmp_path, text))


def test_a_pick_is_written_and_nothing_else_changes(tmp_path: Path) -> None:
    text = "# mine\n" + GOOD + "# a note\n\n" + GOOD.replace("s1", "s2") + "pick = 3\n"
    path = shots(tmp_path, text)
    pick_candidates(path, ["s2=1", "s1=2"])
    assert [shot.pick for shot in load_shots(path).shots] == [2, 1]
    kept = path.read_text().splitlines()
    assert [line for line in kept if "pick" not in line] == [line for line in text.splitlines() if "pick" not in line]
    before = path.read_bytes()
    for wrong, reason in (("s3=1", "no shot is called 's3'"), ("s1=-1", "names no candidate"), ("s1", "no candidate")):
        with pytest.raises(ConfigError, match=reason):
            pick_candidates(path, ["s2=0", wrong])
    assert path.read_bytes() == before
