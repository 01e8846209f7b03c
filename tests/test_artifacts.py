"""Records at the file boundary: exact round trips; unknown keys, NaN and other schemas refused."""

import dataclasses
import json
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cinetune import artifacts
from cinetune.artifacts import Colour, FileRef, FootageClip, Provenance, Score, Sequence, Shot, Timing, Window
from cinetune.errors import StoreError
from cinetune.records import from_json, log_line, read_log, to_json
from cinetune.timecode import Span

COLOUR = Colour(matrix="bt709", primaries="bt709", transfer="bt709", full_range=False, decided="tagged bt709")
CLIP = FootageClip(
    id="a", path="footage/a.mov", sha256="0" * 64, codec="prores", rate=Fraction(24000, 1001), frames=48, width=64,
    height=36, pixel_aspect=Fraction(4, 3), bars=(0, 4, 64, 28), colour=COLOUR, timecode="01:00:00:00",
)  # fmt: skip
SHOT = Shot(id="a.0", clip="a", span=Span(start=0, frames=48, rate=Fraction(24000, 1001)), source="whole")


def sequence(made: Provenance) -> Sequence:
    ref = FileRef(path="work/objects/00/0.safetensors", sha256="0" * 64)
    return Sequence(
        shot="s1", arm="look", seed=0, domain="in", rate=Fraction(16), frames=33, width=64, height=64, segments=(),
        seam_ratio=None, drift=0.5, video=ref, proxy=ref, keyframe="k",
        timing=Timing(devices=1, wall_seconds=1.0, peak_gib=None), provenance=made,
    )  # fmt: skip


@pytest.mark.parametrize("record", [CLIP, SHOT, COLOUR])
def test_round_trip(record: object) -> None:
    assert from_json(type(record), to_json(record)) == record


def test_round_trip_of_a_record_with_provenance(made: Provenance) -> None:
    record = sequence(made)
    assert from_json(Sequence, to_json(record)) == record


@given(st.fractions(min_value=Fraction(1, 1000), max_value=1000), st.text(), st.integers(0, 10**6))
def test_exact_values_survive(rate: Fraction, text: str, start: int) -> None:
    shot = dataclasses.replace(SHOT, id=text, span=Span(start=start, frames=1, rate=rate))
    assert from_json(Shot, to_json(shot)) == shot


def test_rates_are_written_as_fractions() -> None:
    assert json.loads(to_json(CLIP))["rate"] == "24000/1001"


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_number_that_is_none_is_not_written(value: float) -> None:
    with pytest.raises(StoreError, match="Score record"):
        to_json(Score(metric="m", version="1", unit="", better="lower", value=value))


def test_a_missing_score_is_none_with_the_reason() -> None:
    score = Score(metric="m", version="1", unit="", better="lower", value=None, why="fewer than 6 shots")
    assert from_json(Score, to_json(score)).why == "fewer than 6 shots"


def edited(**changes: object) -> str:
    return json.dumps(json.loads(to_json(CLIP)) | changes)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (edited(extra=1), "extra"),
        (edited(schema=1), "schema 1 is not 2"),
        (edited(frames="many"), "frames"),
        (edited(rate="fast"), "rate"),
        (edited(colour=dataclasses.asdict(COLOUR) | {"gamma": 2.2}), "colour.gamma"),
        ("{}", "id"),
        ("not json", "FootageClip"),
        ('{"id": ', "FootageClip"),
    ],
)
def test_a_damaged_record_is_refused(text: str, reason: str) -> None:
    with pytest.raises(StoreError, match=reason) as caught:
        from_json(FootageClip, text, where="clip.json")
    assert caught.value.where == "clip.json"


def test_nan_in_a_file_is_refused() -> None:
    plain = json.loads(to_json(Score(metric="m", version="1", unit="", better="lower", value=1.0)))
    with pytest.raises(StoreError, match="value"):
        from_json(Score, json.dumps(plain | {"value": float("nan")}))


@pytest.mark.parametrize("name", [name for name in artifacts.__all__ if isinstance(getattr(artifacts, name), type)])
def test_every_record_is_frozen_slotted_and_keyword_only(name: str) -> None:
    kind = getattr(artifacts, name)
    assert dataclasses.is_dataclass(kind)
    assert vars(kind)["__dataclass_params__"].frozen
    assert hasattr(kind, "__slots__")
    assert all(item.kw_only for item in dataclasses.fields(kind))


def test_a_window_has_one_source_frame_per_model_frame_on_disk() -> None:
    window = Window(
        id="w", shot="a.0", clip="a", scene="a", split="train", source_frames=(0, 2, 3), rate=Fraction(16),
        crop=(0, 0, 64, 36), width=64, height=32, caption="a rider", caption_source="sidecar",
    )  # fmt: skip
    assert json.loads(to_json(window))["source_frames"] == [0, 2, 3]


# ---------------------------------------------------------------- logs

LINES = [
    {"kind": "start", "step": 0, "arm": "look"},
    {"kind": "step", "step": 1, "loss": 0.5},
    {"kind": "end", "step": 1},
]


def log(tmp_path: Path, *lines: str) -> Path:
    path = tmp_path / "log.jsonl"
    path.write_text("".join(lines), encoding="utf-8")
    return path


def test_a_log_comes_back_and_half_a_line_at_its_end_does_not(tmp_path: Path) -> None:
    whole = [log_line(line) for line in LINES]
    assert read_log(log(tmp_path, *whole)) == LINES
    assert read_log(tmp_path / "none") == []
    for cut in range(1, len(whole[-1]) - 1):
        assert read_log(log(tmp_path, *whole[:-1], whole[-1][:-cut])) in (LINES[:-1], LINES[: 2 + (cut == 1)])


@pytest.mark.parametrize("middle", [
    "", "[]", "1", "null", "{}", "[" * 100_000, '{"kind": "step", "step": 1}', "\0", '{"seal": 1}', "9" * 5000,
    log_line({"kind": "step"}), log_line({"kind": 1, "step": 1}), log_line({"kind": "step", "step": True}),
    log_line({"kind": "step", "step": 1, "loss": 0.5}).replace("0.5", "0.6"),
])  # fmt: skip
def test_a_line_in_the_middle_that_is_not_ours_is_damage(tmp_path: Path, middle: str) -> None:
    path = log(tmp_path, log_line(LINES[0]), middle.rstrip("\n") + "\n", log_line(LINES[2]))
    with pytest.raises(StoreError, match="line 2 of a log is damaged"):
        read_log(path)
    assert read_log(log(tmp_path, log_line(LINES[0]), middle)) == LINES[:1]


def test_a_log_in_another_encoding_is_no_crash(tmp_path: Path) -> None:
    (tmp_path / "log.jsonl").write_bytes("\n".join(map(log_line, LINES)).encode("utf-16"))
    assert read_log(tmp_path / "log.jsonl") == []
