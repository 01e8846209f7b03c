"""Downloads from a real server in a process of its own, which drops, lies and refuses as the network does."""

from __future__ import annotations

import contextlib
import io
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import constants

from cinetune.catalogue import FACTS, RELEASES, find_release
from cinetune.cli import main
from cinetune.errors import CinetuneError, ConfigError, ServiceError, StoreError, WeightsError
from cinetune.models.files import download, weights
from cinetune.runtime import Quiet
from hub_server import COMMIT, Hub, serve_hub

NAME = "wan21-480p"
BIG = "transformer/diffusion_pytorch_model.safetensors"


@pytest.fixture(scope="module")
def published(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model as the hub would hold it, with files beside it that nobody needs."""
    root = tmp_path_factory.mktemp("hub")
    repository = root / RELEASES[NAME].repository
    shutil.copytree(tiny_folder, repository)
    (repository / "cinetune.json").unlink(missing_ok=True)
    (repository / "README.md").write_text("---\nlicense: apache-2.0\n---\n", encoding="utf-8")
    (repository / "examples").mkdir()
    (repository / "examples" / "big.json").write_text("{}", encoding="utf-8")
    (repository / "transformer" / "old.bin").write_bytes(b"pickle")
    return root


def connect(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    """This process was started offline, and with the real hub's address."""
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    template = constants.HUGGINGFACE_CO_URL_TEMPLATE.replace(constants.ENDPOINT, url)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(constants, "ENDPOINT", url)
    monkeypatch.setattr(download, "_SPARE", 0)
    monkeypatch.setattr(download, "_PAUSE", 0.01)


def same(folder: Path, published: Path) -> bool:
    source = published / RELEASES[NAME].repository
    wanted = {p.relative_to(source) for p in source.rglob("*") if p.is_file()}
    wanted -= {Path("examples/big.json"), Path("transformer/old.bin")}
    found = {p.relative_to(folder) for p in folder.rglob("*") if p.is_file()} - {
        Path(".cinetune-sha256.json"),
        Path(FACTS),
    }
    return wanted == found and all((folder / p).read_bytes() == (source / p).read_bytes() for p in wanted)


def test_the_offer_is_exact_and_downloads_nothing(
    published: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serve_hub(published, tmp_path / "log") as hub:
        connect(monkeypatch, hub.url)
        offer = download.look_up(NAME)
        assert hub.ranges("") == []
    paths = {file.path for file in offer.files}
    assert {BIG, "model_index.json", "README.md", "tokenizer/tokenizer.json"} <= paths
    assert not {path for path in paths if "example" in path or path.endswith(".bin")}
    source = published / RELEASES[NAME].repository
    assert offer.size == sum((source / path).stat().st_size for path in paths)
    assert (offer.commit, offer.licence, offer.said) == (COMMIT, "Apache-2.0", "apache-2.0")


def test_a_dropped_connection_goes_on_where_it_was(
    published: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    size = (published / RELEASES[NAME].repository / BIG).stat().st_size
    with serve_hub(published, tmp_path / "log", drop={BIG: size // 2 + 100}) as hub:
        connect(monkeypatch, hub.url)
        download.pull(download.look_up(NAME), tmp_path / "model", Quiet())
        assert hub.ranges(BIG) == [0, size // 2 + 100]
        assert same(tmp_path / "model", published)
        before = len(hub.requests())
        report = Quiet()
        download.pull(download.look_up(NAME), tmp_path / "model", report)  # again: nothing left to bring
        assert not [one for one in hub.requests()[before:] if not one["path"].startswith("/api/")]
        assert "0 files downloaded" in report.lines[-1]
    assert weights.check(tmp_path / "model") == []
    assert find_release("wan21", folder=tmp_path / "model").key == NAME
    assert not (tmp_path / "model" / ".partial").exists()
    known = weights.known_sha256(tmp_path / "model")
    assert any(key.startswith(BIG) for key in known)  # and so training need not hash 65 GB again


def test_wrong_bytes_never_get_a_name(published: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "model"
    with serve_hub(published, tmp_path / "log", wrong=[BIG]) as hub:
        connect(monkeypatch, hub.url)
        with pytest.raises(WeightsError, match=f"{BIG} is not what the hub lists"):
            download.pull(download.look_up(NAME), folder, Quiet())
    assert not (folder / BIG).exists() and not list((folder / ".partial").iterdir())
    assert weights.check(folder) != []
    with serve_hub(published, tmp_path / "log") as hub:
        connect(monkeypatch, hub.url)
        download.pull(download.look_up(NAME), folder, Quiet())
        assert hub.ranges(BIG) == [0]
    assert same(folder, published)


def test_a_file_that_was_changed_on_disk_is_brought_again(
    published: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "model"
    with serve_hub(published, tmp_path / "log") as hub:
        connect(monkeypatch, hub.url)
        download.pull(download.look_up(NAME), folder, Quiet())
        data = bytearray((folder / BIG).read_bytes())
        data[-1] ^= 1
        (folder / BIG).write_bytes(data)
        (folder / "model_index.json").write_bytes(b"{}")
        download.pull(download.look_up(NAME), folder, Quiet())
    assert same(folder, published)


@pytest.mark.parametrize(
    ("faults", "words", "remedy"),
    [
        ({"status": {"api": 401}}, r"refuses access \(401\)", "hf auth login"),
        ({"gated": True}, "only to people it knows", "accept its conditions"),
        ({"status": {"api": 404}}, r"does not have it \(404\)", "moved"),
        ({"status": {"model_index.json": 403}}, r"refuses access \(403\)", "hf auth login"),
    ],
)
def test_a_refusal_is_explained(
    published: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    faults: dict[str, object],
    words: str,
    remedy: str,
) -> None:
    with serve_hub(published, tmp_path / "log", **faults) as hub:
        connect(monkeypatch, hub.url)
        with pytest.raises(ServiceError, match=words) as caught:
            download.pull(download.look_up(NAME), tmp_path / "model", Quiet())
    assert remedy in caught.value.remedy and caught.value.exit_code == 3


def test_no_network_and_offline_are_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with pytest.raises(ServiceError, match="set to work offline"):
        download.look_up(NAME)
    connect(monkeypatch, f"http://127.0.0.1:{port}")
    with pytest.raises(ServiceError, match="cannot be reached"):
        download.look_up(NAME)


def test_a_full_disk_is_seen_before_the_first_byte(
    published: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serve_hub(published, tmp_path / "log") as hub:
        connect(monkeypatch, hub.url)
        offer = download.look_up(NAME)
        monkeypatch.setattr(download, "_SPARE", 1 << 60)
        with pytest.raises(StoreError, match=r"GiB are needed.*nothing was downloaded"):
            download.pull(offer, tmp_path / "model", Quiet())
        assert hub.ranges("") == []


SHA = "0" * 64
HOSTILE: dict[str, dict[str, Any]] = {
    "a hash that is a path": {"entry": {"lfs": {"oid": "../../victim", "size": 6}}},
    "a hash that is an absolute path": {"entry": {"lfs": {"oid": "/etc/passwd", "size": 6}}},
    "git's hash for a big file": {"entry": {"lfs": {"oid": "0" * 40, "size": 6}}},
    "a hash with a line break": {"entry": {"lfs": {"oid": SHA + "\n", "size": 6}}},
    "an empty hash": {"entry": {"lfs": None, "oid": ""}},
    "a hash that is a number": {"entry": {"lfs": {"oid": 7, "size": 6}}},
    "no size": {"entry": {"lfs": {"oid": SHA, "size": None}}},
    "a size below nothing": {"entry": {"lfs": {"oid": SHA, "size": -5}}},
    "half a byte": {"entry": {"lfs": {"oid": SHA, "size": 6.5}}},
    "a size that is true": {"entry": {"lfs": {"oid": SHA, "size": True}}},
    "an exabyte": {"entry": {"lfs": {"oid": SHA, "size": 10**18}}},
    "a file without a name": {"more": [{"type": "file"}]},
    "an entry that is no table": {"more": ["x"]},
    "a file twice": {"more": [{"type": "file", "path": "model_index.json", "size": 1, "oid": "0" * 40}]},
    "a file that differs in case": {"more": [{"type": "file", "path": "vae/CONFIG.json", "size": 1, "oid": "0" * 40}]},
    "a file inside a file": {"more": [{"type": "file", "path": f"{BIG}/a.json", "size": 1, "oid": "0" * 40}]},
    "a login page": {"says": {"facts": ["<html>log in</html>", 1]}},
    "nothing": {"says": {"facts": ["null", 1]}},
    "a list for facts": {"says": {"facts": ["[]", 1]}},
    "no commit": {"says": {"facts": ['{"sha": null}', 1]}},
    "a commit that is a path": {"says": {"facts": ['{"sha": "../../x"}', 1]}},
    "a page for the list": {"says": {"tree": ["<html>log in</html>", 1]}},
    "facts for the list": {"says": {"tree": ["{}", 1]}},
    "an empty list": {"says": {"tree": ["[]", 1]}},
    "nested without end": {"says": {"tree": ["[", 200_000]}},
    "a list without end": {"says": {"tree": [" ", 17 << 20]}},
}


@pytest.mark.parametrize("what", HOSTILE)
def test_a_hub_that_lies_is_refused_and_touches_nothing(
    what: str, published: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "victim").write_text("precious", encoding="utf-8")
    with serve_hub(published, tmp_path / "log", **HOSTILE[what]) as hub:
        connect(monkeypatch, hub.url)
        with pytest.raises(ServiceError, match="not as a hub does"):
            download.pull(download.look_up(NAME), tmp_path / "model", Quiet())
    assert {path.name for path in tmp_path.iterdir()} == {"log", "victim"}
    assert (tmp_path / "victim").read_text(encoding="utf-8") == "precious"


@pytest.mark.parametrize(
    "path",
    [
        "transformer/../../x.json",
        "/tmp/x.json",
        "..",
        "vae/..\\..\\x.json",
        "vae/\x1b.json",
        "vae/.hidden.json",
        "vae//x.json",
        "vae/" + "a" * 300 + ".json",
    ],
)
def test_a_name_that_could_lead_elsewhere_is_none_of_the_model(
    path: str, published: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serve_hub(
        published, tmp_path / "log", more=[{"type": "file", "path": path, "size": 1, "oid": "0" * 40}]
    ) as hub:
        connect(monkeypatch, hub.url)
        assert path not in {file.path for file in download.look_up(NAME).files}


def test_a_licence_with_terminal_codes_is_not_repeated(
    published: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    facts = json.dumps({"sha": COMMIT, "cardData": {"license": "\x1b]0;owned\x07"}})
    with serve_hub(published, tmp_path / "log", says={"facts": [facts, 1]}) as hub:
        connect(monkeypatch, hub.url)
        assert download.look_up(NAME).said == "not said"


def test_a_hub_that_drips_is_given_up_and_what_came_is_kept(
    published: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(download, "_LIST_SECONDS", 0.5)
    monkeypatch.setattr(download, "_PATIENCE", 0.5)
    monkeypatch.setattr(download, "_TRIES", 2)
    with serve_hub(published, tmp_path / "log", drip={"api": 0.05}) as hub:
        connect(monkeypatch, hub.url)
        with pytest.raises(ServiceError, match=r"more than 0\.5 s for its list"):
            download.look_up(NAME)
    report = Quiet()
    with serve_hub(published, tmp_path / "log", drip={BIG: 0.05}) as hub:
        connect(monkeypatch, hub.url)
        monkeypatch.setattr(download, "_LIST_SECONDS", 30.0)
        with pytest.raises(ServiceError, match=r"the hub sent \d+ bytes"):
            download.pull(download.look_up(NAME), tmp_path / "model", report)
    assert len(report.warnings) == 1 and f"{BIG}: the hub sent" in report.warnings[0]
    assert not (tmp_path / "model" / BIG).exists()


def test_models_that_are_not_there_yet_say_why() -> None:
    for name in ("wan21-flf2v", "wan22-i2v"):
        with pytest.raises(ConfigError, match="cannot be used yet") as caught:
            download.look_up(name)
        assert NAME in caught.value.remedy
    with pytest.raises(CinetuneError, match="no model is called"):
        download.look_up("wan")


def cinetune(hub: Hub, *words: str, **environment: str) -> subprocess.Popen[str]:
    settings = {key: value for key, value in os.environ.items() if key != "HF_HUB_OFFLINE"}
    settings |= {"HF_ENDPOINT": hub.url, "HF_HUB_DISABLE_XET": "1"} | environment
    command = [sys.executable, "-m", "cinetune", "weights", "pull", NAME, *words]
    pipe = subprocess.PIPE
    return subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=pipe, stderr=subprocess.PIPE, text=True, env=settings
    )


def test_the_verb_shows_and_asks_first(
    published: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")  # the verb changes it
    monkeypatch.chdir(tmp_path)
    with serve_hub(published, tmp_path / "log") as hub:
        connect(monkeypatch, hub.url)
        monkeypatch.setattr("sys.stdin", io.StringIO())
        assert main(["weights", "pull", NAME]) == 2
        out, err = capsys.readouterr()
        assert "--yes" in err and "GiB in" in out
        assert "licence  Apache-2.0 (its card says: apache-2.0)" in out
        assert hub.ranges("") == [] and [path.name for path in tmp_path.iterdir()] == ["log"]


def sizes(folder: Path) -> list[int]:
    """Of the parts; one that gets its name meanwhile is left out."""
    found: list[int] = []
    for path in folder.glob(".partial/*"):
        with contextlib.suppress(FileNotFoundError):
            found.append(path.stat().st_size)
    return found


def test_the_verb_survives_kill_nine(published: Path, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    with serve_hub(published, tmp_path / "log", delay=0.02) as hub:
        killed = cinetune(hub, "--to", str(folder), "--yes")
        deadline = time.monotonic() + 60
        while not any(size > 20_000 for size in sizes(folder)):
            assert time.monotonic() < deadline and killed.poll() is None, killed.communicate()
            time.sleep(0.01)
        killed.send_signal(signal.SIGKILL)
        killed.communicate()
    kept = max(sizes(folder))
    assert weights.check(folder) != []
    with serve_hub(published, tmp_path / "log") as hub:
        done = cinetune(hub, "--to", str(folder), "--yes")
        out, err = done.communicate(timeout=60)
        assert done.returncode == 0, err
        assert kept in [one["start"] for one in hub.requests()]
    assert same(folder, published)
    assert f'model.path = "{folder.resolve()}"' in out


def test_a_feature_network_is_pulled_with_its_settings_and_without_pickles(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from transformers import Dinov2Config, Dinov2Model

    from cinetune.metrics.networks import load_network, row_of

    row = row_of("dinov2")
    repository = tmp_path / "hub" / row.repository
    small = Dinov2Config(hidden_size=24, num_hidden_layers=1, num_attention_heads=2, image_size=224, patch_size=56)
    Dinov2Model(small).save_pretrained(repository)
    (repository / "pytorch_model.bin").write_bytes(b"pickle")
    (repository / "onnx").mkdir()
    (repository / "onnx" / "model.safetensors").write_bytes(b"other")
    with serve_hub(tmp_path / "hub", tmp_path / "log") as hub:
        connect(monkeypatch, hub.url)
        assert main(["weights", "pull", "dinov2", "-C", str(tmp_path), "--yes"]) == 0
        (repository / "model.safetensors").unlink()
        assert main(["weights", "pull", "dinov2", "--to", str(tmp_path / "other"), "--yes"]) == 3
    out, err = capsys.readouterr()
    assert "Apache-2.0" in out and 'name "dinov2" in score.features' in out
    assert "pickled weights are refused" in err
    folder = tmp_path / "networks" / "dinov2"
    assert {p.name for p in folder.iterdir() if p.is_file()} - {".cinetune-sha256.json"} == {
        "config.json",
        "model.safetensors",
    }
    assert load_network(row, folder).label.startswith("dinov2: DINOv2 ViT-B/14")


def test_a_network_is_taken_from_its_published_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import torch

    from cinetune.metrics.nets.i3d import I3dLogits
    from cinetune.metrics.networks import problems, row_of

    file = tmp_path / "i3d_pretrained_400.pt"
    torch.save(I3dLogits().state_dict(), file)
    assert main(["weights", "take", "i3d", str(file), "-C", str(tmp_path)]) == 0
    assert problems(row_of("i3d"), tmp_path / "networks" / "i3d") == ""
    assert main(["weights", "take", "sscd", str(file), "-C", str(tmp_path)]) == 2
    assert main(["weights", "take", "i3d", str(tmp_path / "none.pt"), "-C", str(tmp_path)]) == 3
    file.write_bytes(b"half")
    assert main(["weights", "take", "i3d", str(file), "-C", str(tmp_path)]) == 3
    assert "TorchScript" in capsys.readouterr().err
