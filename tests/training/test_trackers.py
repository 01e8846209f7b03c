"""Each tracker is run for real, offline, and its own files are read back with its own reader."""

from __future__ import annotations

import json
import sqlite3
import struct
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from cinetune.errors import ConfigError
from cinetune.runtime import Quiet
from cinetune.training import trackers
from cinetune.training.trackers import Trackers, numbers

LINES = [
    {"kind": "evaluation", "step": 0, "v_loss": 0.5, "v_loss_at": {"0.5": 0.25}, "v_loss_regraded": None, "curve": [1]},
    {"kind": "step", "step": 1, "loss": 0.75, "windows": ["a"], "single_frame": False},
    {"kind": "step", "step": 2, "loss": 0.5, "windows": ["a"], "single_frame": False},
]
GOES_ON = [{"kind": "step", "step": 2, "loss": 0.125}]
NAMES = ("tensorboard", "wandb", "trackio", "mlflow")
WRITE = """
import json, sys
from pathlib import Path
from cinetune.runtime import Quiet
from cinetune.training.trackers import Trackers
report = Quiet()
for after, lines in enumerate(json.loads(sys.argv[3])):
    followed = Trackers(names=sys.argv[2].split(), folder=Path(sys.argv[1]), project="film", run="look",
                        config={"lr": 0.001}, report=report)
    followed.start(after)
    for line in lines:
        followed.log(line)
    followed.close()
assert not report.warnings, report.warnings
"""


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two steps that was killed and goes on from its first, in every tracker that is installed. In a process
    of its own: trackers keep global state and start services.
    """
    folder = tmp_path_factory.mktemp("trackers")
    names = " ".join(name for name in NAMES if find_spec(name))
    command = [sys.executable, "-c", WRITE, str(folder), names, json.dumps([LINES, GOES_ON])]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=110)
    assert done.returncode == 0, done.stderr[-2000:]
    return folder


def test_numbers_are_the_curves_of_a_log_line() -> None:
    assert numbers(LINES[0]) == {"held/v_loss": 0.5, "held/v_loss_at/0.5": 0.25}
    assert numbers(LINES[1]) == {"train/loss": 0.75}
    assert numbers({"kind": "end", "step": 2, "best_step": 2}) == {}


def test_tensorboard_reads_its_events_back_and_forgets_what_came_after_the_checkpoint(written: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(written / "tensorboard"))
    events.Reload()
    assert [(event.step, event.value) for event in events.Scalars("train/loss")] == [(1, 0.75), (2, 0.125)]
    assert [event.value for event in events.Scalars("held/v_loss_at/0.5")] == [0.25]


def records(path: Path) -> Iterator[bytes]:
    """The records of a .wandb file: 7 bytes of header, then LevelDB's log format (its doc/log_format.md)."""
    data, place, whole = path.read_bytes(), 7, b""
    while place + 7 <= len(data):
        length, kind = struct.unpack("<HB", data[place + 4 : place + 7])
        whole += data[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in {1, 4}:  # a full record, or the last part of one
            yield whole
            whole = b""


def test_wandb_writes_offline_runs_with_the_numbers(written: Path) -> None:
    pytest.importorskip("wandb")
    from wandb.proto import wandb_internal_pb2

    messages: Any = wandb_internal_pb2  # its classes are made at import

    seen, config = [], {}
    for path in sorted((written / "wandb").rglob("offline-run-*/*.wandb")):
        for data in records(path):
            record = messages.Record()
            record.ParseFromString(data)
            config |= {item.key: json.loads(item.value_json) for item in record.run.config.update}
            row = {"/".join(item.nested_key) or item.key: json.loads(item.value_json) for item in record.history.item}
            seen += [(row["_step"], row["train/loss"])] if "train/loss" in row else []
    assert sorted(seen) == [(1, 0.75), (2, 0.125), (2, 0.5)]
    assert config["lr"] == 0.001


def test_trackio_keeps_the_numbers_in_its_database(written: Path) -> None:
    pytest.importorskip("trackio")
    with closing(sqlite3.connect(written / "trackio" / "film.db")) as database:
        rows = [(step, json.loads(row)) for step, row in database.execute("select step, metrics from metrics")]
    assert sorted((step, row["train/loss"]) for step, row in rows if "train/loss" in row) == [
        (1, 0.75), (2, 0.125), (2, 0.5),
    ]  # fmt: skip


def test_mlflow_reads_its_runs_back(written: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    from mlflow.tracking import MlflowClient

    client = MlflowClient(tracking_uri=(written / "mlflow").as_uri())
    experiment = client.get_experiment_by_name("film")
    assert experiment is not None
    runs = client.search_runs([experiment.experiment_id])
    curves = [[(m.step, m.value) for m in client.get_metric_history(run.info.run_id, "train/loss")] for run in runs]
    assert sorted(curves) == [[(1, 0.75), (2, 0.5)], [(2, 0.125)]]
    assert {(run.data.params["lr"], run.info.status) for run in runs} == {("0.001", "FINISHED")}


def test_a_missing_package_is_said_before_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(trackers.TRACKERS, "wandb", ("a_package_nobody_has", trackers.TRACKERS["wandb"][1]))
    with pytest.raises(ConfigError, match="a_package_nobody_has is not installed") as caught:
        Trackers(names=["wandb"], folder=tmp_path, project="film", run="look", config={}, report=Quiet())
    assert "cinetune[track]" in caught.value.remedy


def test_a_tracker_that_cannot_write_is_dropped_and_training_goes_on(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    (tmp_path / "tensorboard").write_text("a file where the folder should be")
    report = Quiet()
    followed = Trackers(names=["tensorboard"], folder=tmp_path, project="f", run="look", config={}, report=report)
    followed.start(0)
    for line in LINES:
        followed.log(line)
    followed.close()
    assert len(report.warnings) == 1 and "tensorboard fails" in report.warnings[0]
