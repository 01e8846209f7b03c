"""Running tasks here, in worker processes, on a Ray cluster and in Slurm jobs: order, errors, and what is killed."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from cinetune.artifacts import Rejected
from cinetune.errors import CinetuneError, ClusterError, ConfigError, ModelError, StoreError
from cinetune.generation import Work, executors, run_tasks
from cinetune.records import read_log
from cinetune.sections import ShootSection
from cinetune.stage import _keeper
from cinetune.store import Store


def work(
    tasks: list[Any], opener: Callable[[], Any], done: list[Any] | None = None, said: list[str] | None = None
) -> Work:
    kept = [] if done is None else done
    say = (lambda _: None) if said is None else said.append
    return Work(tasks=tasks, open_maker=opener, done=lambda task, _: kept.append(task), say=say)


def _open(log: list[str], fail_at: set[int]):
    log.append("open")

    def make(task: int) -> None:
        if task in fail_at:
            raise ModelError(f"bad task {task}", remedy="none")
        log.append(f"make {task} with {torch.get_num_threads()} thread")

    return make


def _open_dying(folder: str, deadly: set[int], times: int):
    """Kills its process at some tasks, the first `times` that each is tried."""

    def make(task: int) -> None:
        with Path(folder, f"{task}.tries").open("a") as file:
            file.write(".")
        if task in deadly and Path(folder, f"{task}.tries").stat().st_size <= times:
            os.kill(os.getpid(), signal.SIGKILL)

    return make


def _open_lost(folder: str):
    """Loses its card at task 1, the first time."""

    def make(task: int) -> None:
        if task == 1 and not Path(folder, "lost").exists():
            Path(folder, "lost").touch()
            raise RuntimeError("CUDA error: unspecified launch failure\nlong advice")

    return make


def _open_waiting(folder: str):
    def make(task: int) -> None:
        Path(folder, f"{task}.pid").write_text(str(os.getpid()))
        time.sleep(600)

    return make


def _open_broken():
    raise StoreError("the model cannot be loaded", remedy="pull it")


def _open_card(folder: str):
    def make(task: int) -> None:
        mine = os.environ.get("CUDA_VISIBLE_DEVICES", "")
        Path(folder, f"{task}.card").write_text(mine)
        end = time.monotonic() + 120  # until the other worker has come, however busy the machine is
        while {path.read_text() for path in Path(folder).glob("*.card")} <= {mine, ""} and time.monotonic() < end:
            time.sleep(0.05)

    return make


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_serial_opens_once_runs_in_order_and_gives_threads_back() -> None:
    log: list[str] = []
    done: list[int] = []
    torch.set_num_threads(2)
    run_tasks(work([3, 1, 2], partial(_open, log, set()), done), workers=1)
    assert done == [3, 1, 2] and torch.get_num_threads() == 2
    assert log == ["open", "make 3 with 1 thread", "make 1 with 1 thread", "make 2 with 1 thread"]
    torch.set_num_threads(1)


def test_nothing_to_do_opens_nothing() -> None:
    log: list[str] = []
    run_tasks(work([], partial(_open, log, set())), workers=4)
    assert log == []


def test_what_cannot_be_made_does_not_stop_the_rest() -> None:
    done: list[int] = []
    said: list[str] = []
    with pytest.raises(ModelError, match="bad task 2\n  fix:   none"):
        run_tasks(work([1, 2, 3], partial(_open, [], {2}), done, said), workers=1)
    assert done == [1, 3] and said == ["2 failed: bad task 2; the rest goes on"]
    with pytest.raises(ModelError, match="2 of 4 cannot be made\n    2: bad task 2\n    3: bad task 3"):
        run_tasks(work([1, 2, 3, 4], partial(_open, [], {2, 3})), workers=1)


def test_when_nothing_can_be_made_the_rest_is_not_tried() -> None:
    log: list[str] = []
    with pytest.raises(ModelError, match="bad task 2"):
        run_tasks(work(list(range(9)), partial(_open, log, set(range(9)))), workers=1)
    assert log == ["open"]


def test_errors_of_the_place_stop_at_once() -> None:
    done: list[int] = []

    def opener():
        def make(task: int) -> None:
            if task == 2:
                raise StoreError("the disk is full")

        return make

    with pytest.raises(StoreError, match="disk is full"):
        run_tasks(work([1, 2, 3], opener, done), workers=1)
    assert done == [1]


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_there_is_one_worker_for_each_card(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5,7")
    assert executors.cards() == ["5", "7"]
    said: list[str] = []
    run_tasks(work([0, 1, 2, 3], partial(_open_card, str(tmp_path)), said=said), workers=4)
    assert {path.read_text() for path in tmp_path.glob("*.card")} == {"5", "7"}
    assert said == ["2 workers, not 4: one for each card"] and os.environ["CUDA_VISIBLE_DEVICES"] == "5,7"
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    assert executors.cards() == ["0", "1"]
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    assert executors.cards() == [] and ShootSection().at_once == 1


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_worker_that_dies_gives_its_task_to_another_and_that_is_said(tmp_path: Path) -> None:
    done: list[int] = []
    said: list[str] = []
    run_tasks(work([0, 1, 2], partial(_open_dying, str(tmp_path), {1}, 1), done, said), workers=2)
    assert sorted(done) == [0, 1, 2]
    assert said == ["1: its worker process died (signal 9); once more with another worker"]
    assert [(tmp_path / f"{n}.tries").stat().st_size for n in range(3)] == [1, 2, 1]


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_worker_whose_card_is_lost_is_replaced(tmp_path: Path) -> None:
    done: list[int] = []
    said: list[str] = []
    run_tasks(work([0, 1, 2], partial(_open_lost, str(tmp_path)), done, said), workers=2)
    assert sorted(done) == [0, 1, 2]
    assert said == ["1: its card is gone (CUDA error: unspecified launch failure); once more with another worker"]


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_task_that_kills_every_worker_fails_alone(tmp_path: Path) -> None:
    done: list[int] = []
    with pytest.raises(ModelError, match=r"1: its worker process died \(signal 9\), twice") as caught:
        run_tasks(work([0, 1, 2], partial(_open_dying, str(tmp_path), {1}, 9), done), workers=2)
    assert sorted(done) == [0, 2] and "lower shoot.workers" in caught.value.remedy
    with pytest.raises(ModelError, match="bad task 2\n  fix:   none"):
        run_tasks(work([1, 2], partial(_open, [], {2})), workers=2)
    with pytest.raises(StoreError, match="cannot be loaded\n  fix:   pull it"):
        run_tasks(work([1, 2], _open_broken), workers=2)


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.skipif(not Path("/proc").is_dir(), reason="needs /proc")
def test_an_interruption_ends_the_workers_without_a_traceback(tmp_path: Path) -> None:
    """Ctrl-C goes to the whole group, whatever its processes are doing: starting, loading or making."""
    (tmp_path / "main.py").write_text(_HEARING + _script(tmp_path))
    command = [sys.executable, str(tmp_path / "main.py")]
    for wait in (2.0, None):
        parent = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True)
        try:
            began = time.monotonic()
            while len(list(tmp_path.glob("*.pid"))) < 2 if wait is None else time.monotonic() < began + wait:
                assert parent.poll() is None
                time.sleep(0.05)
            os.killpg(parent.pid, signal.SIGINT)
            _, said = parent.communicate(timeout=120)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(parent.pid, signal.SIGKILL)
        assert said.count("Traceback") <= 1 and "spawn_main" not in said, "only the parent's own"
    assert not any(_alive(int(path.read_text())) for path in tmp_path.glob("*.pid"))


# a shell starts what it runs in the background with interrupts ignored, and its children inherit that
_HEARING = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"


def _script(folder: Path) -> str:
    return (
        f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r})\n"
        "import functools, test_executors as t\n"
        "from cinetune.generation import run_tasks\n"
        "if __name__ == '__main__':\n"
        f"    run_tasks(t.work([0, 1], functools.partial(t._open_waiting, {str(folder)!r})), workers=2)\n"
    )


# ---------------------------------------------------------------- claims: nothing lost, doubled or half


def _make_row(folder: str, pause: float, store: Store, *, together: int = 1) -> Callable[[Any], Rejected]:
    """`together`: how many processes must have begun a piece before the first one is finished."""

    def make(task: Any) -> Rejected:
        with Path(folder, f"{task.key}.made").open("a") as file:
            file.write(f"{os.getpid()}\n")
        end = time.monotonic() + 60
        while len(_makers(Path(folder))) < together and time.monotonic() < end:
            time.sleep(0.1)
        time.sleep(pause)
        return Rejected(path=task.key, reason="", remedy="")

    return make


def _makers(folder: Path) -> set[str]:
    """The processes that have begun a piece."""
    return {line for path in folder.glob("*.made") for line in path.read_text().split()}


class Shot:
    def __init__(self, number: int) -> None:
        self.key, self.label = f"k{number}", f"shot {number}"


def keeper(root: Path, *, pause: float = 0.0, wait: bool = True) -> Callable[[], Any]:
    return partial(_keeper, root, "expand", Rejected, partial(_make_row, str(root), pause), wait=wait)


def made(root: Path) -> dict[str, int]:
    """How often each piece was begun."""
    return {path.stem: len(path.read_text().splitlines()) for path in root.glob("*.made")}


def test_a_claimed_piece_is_made_once_by_whoever_claims_it(tmp_path: Path) -> None:
    store = Store(tmp_path)
    shot, keep = Shot(1), keeper(tmp_path, wait=False)()
    with store.claim("expand", shot.key) as ours:
        assert ours and keep(shot) is False and not store.has_unit("expand", shot.key)
    assert keep(shot) is True and keep(shot) is True
    assert made(tmp_path) == {"k1": 1} and not list((tmp_path / "work" / "claims").rglob("k*"))
    (log,) = (tmp_path / "work" / "logs" / "expand").iterdir()
    assert [line["kind"] for line in read_log(log)] == ["begin", "made"] and log.name.startswith("shot_1-k1")


def test_claims_of_the_dead_are_swept_and_those_of_the_living_are_not(tmp_path: Path) -> None:
    store = Store(tmp_path)
    child = os.fork()
    if child == 0:
        with store.claim("expand", "dead"):
            os._exit(0)
    os.waitpid(child, 0)
    assert (tmp_path / "work" / "claims" / "expand" / "dead").is_file()
    with store.claim("expand", "alive"), store.lock():
        assert [path.name for path in (tmp_path / "work" / "claims" / "expand").iterdir()] == ["alive"]


def test_what_fails_is_in_the_log_of_its_piece(tmp_path: Path) -> None:
    def opener(store: Store):
        def make(task: Any) -> Rejected:
            raise ModelError("no finite number")

        return make

    with pytest.raises(ModelError):
        _keeper(tmp_path, "expand", Rejected, opener, wait=True)(Shot(1))
    (log,) = (tmp_path / "work" / "logs" / "expand").iterdir()
    assert read_log(log)[-1]["why"] == "ModelError: no finite number"


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_crews_that_are_killed_at_random_make_every_piece_exactly_once(tmp_path: Path) -> None:
    """Two runs at once on one store, their workers killed again and again: one record of each piece, whole."""
    shots, store = [Shot(number) for number in range(12)], Store(tmp_path)
    said: list[str] = []
    run_tasks(work([*shots, *shots], keeper(tmp_path, pause=0.05), said=said), workers=3)
    assert made(tmp_path) == {shot.key: 1 for shot in shots}
    assert all(store.has_unit("expand", shot.key) for shot in shots)


# ---------------------------------------------------------------- Slurm


@pytest.mark.slow
@pytest.mark.timeout(900)
# submitit's local executor drops the handles of processes that it has told to end
@pytest.mark.filterwarnings("ignore:subprocess .* is still running:ResourceWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_jobs_make_every_piece_once_and_what_they_lose_is_submitted_again(tmp_path: Path) -> None:
    """By submitit's local executor: the same array, as processes."""
    pytest.importorskip("submitit")
    shots, store = [Shot(number) for number in range(6)], Store(tmp_path)
    done: list[Any] = []
    there = lambda shot: store.has_unit("expand", shot.key)  # noqa: E731
    options = {"folder": tmp_path / "jobs", "there": there, "cluster": "local"}
    run_tasks(work(shots, keeper(tmp_path, pause=0.2, wait=False), done), workers=2, executor="slurm", options=options)
    assert made(tmp_path) == {shot.key: 1 for shot in shots} and len(done) == 6
    said: list[str] = []
    lost = work([Shot(9)], partial(_open_dying, str(tmp_path), set(), 0), said=said)
    with pytest.raises(ClusterError, match="1 of 1 are missing"):
        run_tasks(lost, workers=1, executor="slurm", options=options)
    assert sum("submitted once more" in line for line in said) == 1
    with pytest.raises(ModelError, match="bad task 1"):
        run_tasks(
            work([1], partial(_open, [], {1})),
            workers=1,
            executor="slurm",
            options=options | {"there": lambda _: False},
        )


def test_the_script_of_a_job_asks_slurm_for_what_the_settings_say(tmp_path: Path) -> None:
    submitit = pytest.importorskip("submitit")
    from submitit.slurm.slurm import _make_sbatch_string as script

    own = {"array_parallelism": 4, "partition": "gpu", "gpus_per_node": 1, "time": 60, "job_name": "cinetune"}
    text = script(command="python worker.py", folder=tmp_path, map_count=8, **own)
    for line in ("#SBATCH --array=0-7%4", "#SBATCH --partition=gpu", "#SBATCH --gpus-per-node=1", "#SBATCH --time=60"):
        assert line in text
    assert submitit.__version__


@pytest.mark.parametrize("executor", ["slurm"])
def test_an_executor_that_is_not_there_is_named(executor: Any, tmp_path: Path) -> None:
    pytest.importorskip("submitit")
    options = {"folder": tmp_path, "there": lambda _: False}
    with pytest.raises(ConfigError, match="Slurm cannot be used"):
        run_tasks(work([1], partial(_open, [], set())), workers=1, executor=executor, options=options)


# ---------------------------------------------------------------- Ray


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], subprocess.Popen[bytes]]]:
    """A head without places for work on this machine; the value starts a further node with one, in its own group."""
    ray = pytest.importorskip("ray")
    home = tmp_path / "home"
    home.mkdir()
    # Ray writes a token into the home folder, and takes a proxy for the way to its own head.
    paths = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
    for name, value in {
        "HOME": str(home),
        "PYTHONPATH": paths,
        "no_proxy": "*",
        "RAY_USAGE_STATS_ENABLED": "0",
    }.items():
        monkeypatch.setenv(name, value)
    port = 20_000 + os.getpid() % 20_000
    start = [
        str(Path(sys.executable).parent / "ray"),
        "start",
        "--block",
        "--disable-usage-stats",
        "--object-store-memory=80000000",
    ]
    nodes: list[subprocess.Popen[bytes]] = []

    def node(*words: str) -> subprocess.Popen[bytes]:
        quiet = subprocess.DEVNULL
        nodes.append(subprocess.Popen([*start, *words], stdout=quiet, stderr=quiet, start_new_session=True))
        return nodes[-1]

    node("--head", f"--port={port}", "--num-cpus=0", "--include-dashboard=false")
    monkeypatch.setenv("RAY_ADDRESS", f"127.0.0.1:{port}")
    try:
        yield lambda: node(f"--address=127.0.0.1:{port}", "--num-cpus=1")
    finally:
        if ray.is_initialized():
            ray.shutdown()
        for one in nodes:
            if one.poll() is None:
                os.killpg(one.pid, signal.SIGKILL)
                one.wait()


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.filterwarnings("ignore")
def test_a_cluster_that_loses_a_node_makes_every_piece_exactly_once(cluster: Any, tmp_path: Path) -> None:
    import threading

    shots, store = [Shot(number) for number in range(6)], Store(tmp_path)
    first = cluster()
    time.sleep(15)  # two nodes that start at once on one machine take each other's ports
    cluster()
    done: list[Any] = []
    said: list[str] = []

    def lose() -> None:
        while len(_makers(tmp_path)) < 2:  # both nodes are in the middle of a piece
            time.sleep(0.1)
        time.sleep(1)
        os.killpg(first.pid, signal.SIGKILL)

    maker = partial(_make_row, str(tmp_path), 4.0, together=2)
    keep = partial(_keeper, tmp_path, "expand", Rejected, maker, wait=True)
    threading.Thread(target=lose, daemon=True).start()
    deadline = time.monotonic() + 120
    while True:  # the head needs a moment
        try:
            run_tasks(work(shots, keep, done, said), workers=2, executor="ray")
            break
        except (ConnectionError, CinetuneError):
            assert time.monotonic() < deadline
            time.sleep(2)
    assert {shot.key for shot in done} == {shot.key for shot in shots}
    assert all(store.has_unit("expand", shot.key) for shot in shots)
    assert sum(made(tmp_path).values()) <= len(shots) + 1, "only what the node was making was begun twice"
    assert any("died" in line or "cannot be reached" in line for line in said)


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.skipif(not Path("/proc").is_dir(), reason="needs /proc")
def test_workers_do_not_outlive_a_killed_parent(tmp_path: Path) -> None:
    script = (
        f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r})\n"
        "import functools, test_executors as t\n"
        "from cinetune.generation import Work, run_tasks\n"
        "if __name__ == '__main__':\n"
        f"    maker = functools.partial(t._open_waiting, {str(tmp_path)!r})\n"
        "    run_tasks(Work(tasks=[0, 1], open_maker=maker, done=lambda *_: None), workers=2)\n"
    )
    (tmp_path / "main.py").write_text(script)
    parent = subprocess.Popen([sys.executable, str(tmp_path / "main.py")])
    while len(pids := [p for p in tmp_path.glob("*.pid") if p.read_text()]) < 2:
        assert parent.poll() is None
        time.sleep(0.2)
    parent.kill()
    parent.wait()
    workers = [int(path.read_text()) for path in pids]
    end = time.monotonic() + 60
    while any(_alive(pid) for pid in workers) and time.monotonic() < end:
        time.sleep(0.2)
    assert not any(_alive(pid) for pid in workers)
