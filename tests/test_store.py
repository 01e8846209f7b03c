"""The project folder under faults: damage, full and read-only disks, a second writer, kill -9, other versions."""

import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import pytest

from cinetune.artifacts import FileRef, Keyframe, Provenance, Rejected, Shot
from cinetune.durable import PARTIAL, atomic_write
from cinetune.errors import StoreError
from cinetune.records import sealed, to_json
from cinetune.runtime import provenance
from cinetune.store import Project, Store, content_key, file_refs, sha256_file
from cinetune.timecode import Span

SHOT = Shot(id="a.0", clip="a", span=Span(start=0, frames=48, rate=Fraction(24)), source="whole")


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path)


def put(store: Store, data: bytes, suffix: str = ".bin") -> FileRef:
    with store.new_object(suffix) as (path, done):
        path.write_bytes(data)
    return done[0]


def keyframe(ref: FileRef) -> Keyframe:
    return Keyframe(
        shot="s1", arm="base", seed=0, method="as-is", image=ref, condition=ref, opening=None, candidates=(ref,),
        scores=(1.0,), picked=0,
    )  # fmt: skip


def leftovers(root: Path) -> list[str]:
    return [path.name for path in root.rglob(f"{PARTIAL}*")]


# ---------------------------------------------------------------- files


def test_an_object_is_named_by_its_bytes(store: Store) -> None:
    ref = put(store, b"frame")
    assert ref.path == f"work/objects/{ref.sha256[:2]}/{ref.sha256}.bin"
    assert store.path(ref).read_bytes() == b"frame"
    assert put(store, b"frame") == ref
    assert not leftovers(store.root)


def test_a_file_is_added_by_copy(store: Store, tmp_path: Path) -> None:
    source = tmp_path / "still.png"
    source.write_bytes(b"still")
    ref = store.add(source)
    assert ref.path.endswith(".png")
    assert source.read_bytes() == store.path(ref).read_bytes()


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    target = tmp_path / "record.json"
    target.write_text("old")
    with pytest.raises(ValueError, match="half way"), atomic_write(target) as temporary:
        temporary.write_text("new")
        raise ValueError("half way")
    assert target.read_text() == "old"
    assert not leftovers(tmp_path)


def test_a_failed_object_leaves_nothing(store: Store) -> None:
    with pytest.raises(ValueError, match="half way"), store.new_object(".bin") as (temporary, done):
        temporary.write_bytes(b"x")
        raise ValueError("half way")
    assert done == []
    assert [path for path in store.work.rglob("*") if path.is_file()] == []


def test_a_damaged_file_is_noticed(store: Store) -> None:
    ref = put(store, b"frame")
    (store.root / ref.path).write_bytes(b"frame!")
    with pytest.raises(StoreError, match="damaged"):
        store.path(ref)


def test_a_piece_that_is_no_json_is_named(store: Store) -> None:
    store.write_text(store.work / "units" / "cache" / "k.json", "{")
    with pytest.raises(StoreError, match="damaged"):
        store.unit("cache", "k", Keyframe, lambda: pytest.fail("made again"))


def test_a_missing_file_is_noticed(store: Store) -> None:
    ref = put(store, b"frame")
    (store.root / ref.path).unlink()
    assert store.missing(keyframe(ref)) == ref.path
    with pytest.raises(StoreError, match="missing"):
        store.path(ref)


@pytest.mark.parametrize("path", ["../secret", "/etc/hostname", "work/../../secret", "work/objects/../../../secret"])
def test_a_reference_cannot_leave_the_project(tmp_path: Path, path: str) -> None:
    (tmp_path / "secret").write_text("x")
    store = Store(tmp_path / "film")
    with pytest.raises(StoreError, match="outside the project"):
        store.path(FileRef(path=path, sha256=sha256_file(tmp_path / "secret")))


def test_every_reference_of_a_record_is_found(store: Store) -> None:
    ref = put(store, b"frame")
    assert list(file_refs([keyframe(ref)])) == [ref, ref, ref]
    assert list(file_refs(SHOT)) == []


# ---------------------------------------------------------------- pieces and stages


def test_a_finished_piece_is_not_made_again(store: Store) -> None:
    calls: list[int] = []

    def make() -> Keyframe:
        calls.append(1)
        return keyframe(put(store, b"frame"))

    first = store.unit("keyframes", "k1", Keyframe, make)
    assert store.has_unit("keyframes", "k1")
    assert store.unit("keyframes", "k1", Keyframe, make) == first
    assert len(calls) == 1
    (store.root / first.image.path).unlink()
    assert not store.has_unit("keyframes", "k1")
    assert store.unit("keyframes", "k1", Keyframe, make) == first, "a piece whose file is gone is made again"
    assert len(calls) == 2


def test_a_stage_round_trips(store: Store, made: Provenance) -> None:
    groups = {"shots": (SHOT,), "rejected": ()}
    saved = store.save_stage("ingest", "key", groups, made=made, notes=("one note",))
    assert store.load_stage("ingest") == saved
    assert saved.groups == groups
    assert store.need_stage("ingest").notes == ("one note",)


def test_the_output_hash_ignores_times_but_not_content(store: Store, made: Provenance) -> None:
    later = provenance(seed=1, config_sha="1", parents=("x",), device="cuda:0", wall_seconds=99.0)
    first = store.save_stage("ingest", "key", {"shots": [SHOT]}, made=made).output_sha
    assert store.save_stage("ingest", "key2", {"shots": [SHOT]}, made=later).output_sha == first
    other = Rejected(path="a", reason="b", remedy="c")
    assert store.save_stage("ingest", "key", {"shots": [SHOT], "rejected": [other]}, made=made).output_sha != first


def test_a_stage_that_has_not_run_is_named(store: Store) -> None:
    assert store.load_stage("train") is None
    with pytest.raises(StoreError, match="`train` has not been run yet") as caught:
        store.need_stage("train")
    assert "cinetune train" in caught.value.remedy


def damage(body: dict, how: str) -> str:
    """A stage record that is wrong in one way, and sealed again where that can be done: as somebody would craft it."""
    del body["seal"]
    match how:
        case "truncated":
            return json.dumps(body)[:-40]
        case "schema":
            body["schema"] = 1
        case "edited":
            body["groups"]["shots"]["items"][0]["clip"] = "b"
        case "unknown key":
            body["provenance"]["host"] = "me"
        case "kind":
            body["groups"]["shots"]["kind"] = "json"
        case "no key":
            del body["input_key"]
        case "list":
            return "[]"
        case "nested":
            return "[" * 100_000
        case "unsealed":
            return json.dumps(body)
        case "other stage":
            body["stage"] = "prepare"
        case "groups":
            body["groups"] = ["shots"]
        case "items":
            body["groups"]["shots"]["items"] = {"0": 1}
        case "inputs":
            body["inputs"] = {"settings": ["a"]}
        case "notes":
            body["notes"] = [{"a": 1}]
        case "number":
            body["output_sha"] = 10**400
    return sealed(body)


@pytest.mark.parametrize(
    "how", ["truncated", "schema", "edited", "unknown key", "kind", "no key", "list", "nested", "unsealed",
            "other stage", "groups", "items", "inputs", "notes", "number"],
)  # fmt: skip
def test_a_damaged_stage_record_is_refused(store: Store, made: Provenance, how: str) -> None:
    store.save_stage("ingest", "key", {"shots": [SHOT]}, made=made)
    path = store.stage_path("ingest")
    path.write_text(damage(json.loads(path.read_text()), how))
    with pytest.raises(StoreError) as caught:
        store.load_stage("ingest")
    assert caught.value.where == str(path)


def test_every_flipped_bit_of_a_record_is_noticed(store: Store, made: Provenance) -> None:
    store.save_stage("ingest", "key", {"shots": [SHOT]}, made=made)
    store.unit("cache", "k", Shot, lambda: SHOT)
    for path, read in (
        (store.stage_path("ingest"), lambda: store.load_stage("ingest")),
        (store.work / "units" / "cache" / "k.json", lambda: store.has_unit("cache", "k")),
    ):
        whole = path.read_bytes()
        for place in range(0, len(whole), 7):
            path.write_bytes(whole[:place] + bytes([whole[place] ^ 1 << place % 8]) + whole[place + 1 :])
            try:
                unchanged = read() in (store.load_stage("ingest") if path.parent.name == "stages" else None, False)
            except StoreError:
                continue
            # White space means nothing, and a piece whose seal lost its name is made again.
            assert unchanged or whole[place : place + 1].isspace(), (path, place, whole[place - 9 : place + 9])
        path.write_bytes(whole)


def test_a_piece_of_an_earlier_version_is_made_again(store: Store) -> None:
    store.write_text(store.work / "units" / "cache" / "k.json", to_json(SHOT))
    assert not store.has_unit("cache", "k")
    assert store.unit("cache", "k", Shot, lambda: SHOT) == SHOT and store.has_unit("cache", "k")


def test_content_keys_follow_content_only(made: Provenance) -> None:
    assert content_key("a", {"x": 1, "y": [2]}) == content_key("a", {"y": [2], "x": 1})
    assert content_key("a", SHOT) == content_key("a", SHOT)
    assert content_key("a", {"x": 1}) != content_key("a", {"x": 2})
    assert content_key({"provenance": 1, "x": 1}) == content_key({"provenance": 2, "x": 1})


def test_the_input_key_moves_with_settings_parents_and_inputs(project: Project, made: Provenance) -> None:
    def key(opened: Project, **inputs: str) -> str:
        return opened.input_key("train", parents=("ingest",), sections=("train",), inputs=inputs)

    base = key(project)
    assert key(Project(project.root)) == base
    assert key(Project(project.root, overrides=("train.lr=1e-3",))) != base
    assert key(Project(project.root, overrides=("shoot.steps=1",))) == base
    assert key(project, film="sha") != base
    project.store.save_stage("ingest", "k", {"shots": [SHOT]}, made=made)
    assert key(project) != base


# ---------------------------------------------------------------- a second writer


def test_a_second_process_cannot_hold_the_project(store: Store) -> None:
    code = f"""
        from pathlib import Path
        from cinetune.errors import StoreError
        from cinetune.store import Store
        try:
            with Store(Path({str(store.root)!r})).lock():
                print("got it")
        except StoreError as error:
            print(error)
    """
    with store.lock():
        assert f"process {os.getpid()}" in python(code)
    assert python(code) == "got it"


# ---------------------------------------------------------------- disks


def python(code: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=True, timeout=60
    )
    return done.stdout.strip()


def test_a_full_disk_is_named_and_leaves_nothing(store: Store) -> None:
    """/dev/full answers every write with the kernel's own `no space left`."""
    with pytest.raises(StoreError, match="disk is full"), store.new_object(".bin"), Path("/dev/full").open("w") as full:
        full.write("x")
        full.flush()
    assert not leftovers(store.root)


def test_an_array_of_which_a_disk_takes_a_part_is_a_full_disk(tmp_path: Path) -> None:
    """NumPy names no error then; a limit on the size of files cuts the write as a full disk does."""
    code = f"""
        import resource, signal
        from pathlib import Path
        import numpy as np
        from cinetune.durable import atomic_write
        from cinetune.errors import StoreError
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))
        try:
            with atomic_write(Path({str(tmp_path)!r}) / "a.npy") as temporary, temporary.open("wb") as file:
                np.save(file, np.zeros(100_000))
        except StoreError as error:
            print(error.what)
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=True)
    assert "disk is full" in done.stdout, done.stderr
    assert not list(tmp_path.iterdir())


def test_a_write_over_the_size_limit_leaves_the_old_record(tmp_path: Path) -> None:
    """A real write that fails half way: the process may not make files over 4 KiB."""
    (tmp_path / "record.json").write_text("old")
    code = f"""
        import resource
        from pathlib import Path
        from cinetune.errors import StoreError
        from cinetune.store import Store
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, {resource.RLIM_INFINITY}))
        try:
            Store(Path({str(tmp_path)!r})).write_text(Path({str(tmp_path / "record.json")!r}), "x" * 10_000)
        except StoreError as error:
            print(error.what)
    """
    assert python(code) == "the disk is full; nothing was lost"
    assert (tmp_path / "record.json").read_text() == "old"
    assert not leftovers(tmp_path)


@pytest.fixture
def read_only() -> Iterator[Path]:
    """A project folder nobody but root may write, in a place everybody may enter."""
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        (root / "cinetune.toml").write_text("")
        for path in (root / "cinetune.toml", root):
            path.chmod(path.stat().st_mode & ~0o222 | 0o555)
        yield root
        root.chmod(0o755)


@pytest.mark.parametrize("action", ["store.lock().__enter__()", "store.write_text(store.work / 'x.json', '{}')"])
def test_a_read_only_project_is_named(read_only: Path, action: str) -> None:
    code = f"""
        import os
        from pathlib import Path
        from cinetune.errors import StoreError
        from cinetune.store import Store
        if os.getuid() == 0:
            os.setuid(65534)
        store = Store(Path({str(read_only)!r}))
        try:
            {action}
        except StoreError as error:
            print(error.what, error.exit_code)
    """
    assert python(code) == "the project folder cannot be written 3"
    assert [path.name for path in read_only.iterdir()] == ["cinetune.toml"]


def test_kill_9_while_writing_loses_only_what_was_being_written(store: Store) -> None:
    ref = put(store, b"first")
    code = f"""
        import sys, time
        from pathlib import Path
        from cinetune.store import Store
        store = Store(Path({str(store.root)!r}))
        with store.lock(), store.new_object(".bin") as (path, done):
            path.write_bytes(b"half of the second")
            print("writing", flush=True)
            time.sleep(60)
    """
    with subprocess.Popen([sys.executable, "-c", textwrap.dedent(code)], stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout is not None
        assert writer.stdout.readline() == "writing\n"
        writer.send_signal(signal.SIGKILL)
    assert leftovers(store.root), "the half-written file is there until the next run"
    with store.lock():
        assert not leftovers(store.root)
    files = [path for path in (store.work / "objects").rglob("*") if path.is_file()]
    assert files == [store.path(ref)]
