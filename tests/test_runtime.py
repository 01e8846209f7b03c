"""Named seeds, the choice of device, provenance."""

import multiprocessing
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch

from cinetune.errors import ConfigError
from cinetune.runtime import Bar, Quiet, Relay, choose_device, derive, generator, peak_memory_gib, provenance, relay


def test_seeds_depend_only_on_their_names() -> None:
    assert derive(0, "train/noise", 17) == derive(0, "train/noise", 17)
    names = [(0, "a", 1), (0, "a", 2), (1, "a", 1), (0, "b", 1), (0, "a")]
    assert len({derive(*name) for name in names}) == len(names)
    assert all(0 <= derive(*name) < 2**63 for name in names)


def test_a_seed_is_the_same_in_another_process() -> None:
    """Python's own hash() is salted per process; ours must not be."""
    code = "from cinetune.runtime import derive; print(derive(3, 'shoot', 0, 1))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(done.stdout) == derive(3, "shoot", 0, 1)


def test_generator_is_seeded_by_name() -> None:
    first, again, other = (torch.randn(4, generator=generator(0, name)) for name in ("x", "x", "y"))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_device_choice_gives_its_reason() -> None:
    device = choose_device()
    if not torch.cuda.is_available() and not torch.backends.mps.is_available():
        assert (device.name, device.dtype, device.reason) == ("cpu", "float32", "no GPU is visible")
    assert choose_device("cpu", "bfloat16").dtype == "bfloat16"
    assert choose_device("cpu").reason == "asked for in cinetune.toml"


@pytest.mark.parametrize("name", ["cuda:99", "tpu", "cuda:x", "cpu:1"])
def test_a_device_that_is_not_there_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="torch does not see"):
        choose_device(name)


def test_provenance_names_packages_and_parents() -> None:
    made = provenance(seed=7, config_sha="abc", parents=("p",), device="cpu", wall_seconds=1.23456)
    assert made.tool.startswith("cinetune ")
    assert {"torch", "diffusers", "python"} <= set(made.packages)
    assert (made.seed, made.parents, made.wall_seconds) == (7, ("p",), 1.235)
    assert made.created_utc.endswith("+00:00")


def test_quiet_keeps_what_was_said() -> None:
    report = Quiet()
    report.say("a")
    report.warn("b")
    with report.progress("work", 2) as bar:
        bar.advance(2, "note")
    assert (report.lines, report.warnings) == (["a"], ["b"])


def test_peak_memory_is_in_gib() -> None:
    assert 0.01 < peak_memory_gib() < 1000


class _Counting(Quiet):
    """Keeps how far each bar came."""

    def __init__(self) -> None:
        super().__init__()
        self.bars: list[tuple[str, int]] = []
        self.done, self.notes = 0, []

    @contextmanager
    def progress(self, label: str, total: int) -> Iterator[Bar]:
        self.bars.append((label, total))
        yield self

    def advance(self, steps: int = 1, note: str = "") -> None:
        self.done += steps
        self.notes.append(note)


def _work(far: Relay, name: str) -> None:
    far.say(f"{name} begins")
    with far.progress(name, 50) as bar:
        for _ in range(50):
            bar.advance(1, "loss 1")
    far.warn(f"{name} ends")


def test_what_other_processes_say_arrives_in_full() -> None:
    report, spawn = _Counting(), multiprocessing.get_context("spawn")
    with relay(report, "all", 100) as far:
        workers = [spawn.Process(target=_work, args=(far, name)) for name in ("a", "b")]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
    assert report.bars == [("all", 100)] and report.done == 100
    assert sorted(report.lines) == ["a begins", "b begins"] and sorted(report.warnings) == ["a ends", "b ends"]
    assert set(report.notes) == {"a: loss 1", "b: loss 1"}


def test_a_relay_ends_when_its_worker_fails() -> None:
    report = Quiet()
    with pytest.raises(ConfigError), relay(report, "all", 1) as far:
        far.say("last words")
        raise ConfigError("no")
    assert report.lines == ["last words"]
