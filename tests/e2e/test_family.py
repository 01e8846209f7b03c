"""`docs/extend/model.md` to the letter: one file, one row, one `case`, and the story runs with a new family."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import cinetune
from e2e.mini import make_mini
from support import save_tiny

FILE = '''"""A second family: the members of `VideoModel` and nothing else, on networks that exist already."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from cinetune.models.family import Conditioning, ModelInfo
from cinetune.models.wan.wan21 import WanVideo


class MirrorVideo:
    """Sees and makes every picture mirrored, so that nobody can mistake it for its networks' own family."""

    __slots__ = ("_inner",)

    def __init__(self, inner: WanVideo) -> None:
        self._inner = inner

    @classmethod
    def from_folder(cls, folder: Path, **how: Any) -> MirrorVideo:
        return cls(WanVideo.from_folder(folder, **how))

    @property
    def info(self) -> ModelInfo:
        return self._inner.info

    @property
    def denoiser(self) -> nn.Module:
        return self._inner.denoiser

    def encode_video(self, x_BCTHW: Tensor) -> Tensor:
        return self._inner.encode_video(x_BCTHW.flip(-1))

    def condition(
        self, prompts: Sequence[str], first_BCHW: Tensor, frames: int, *, last_BCHW: Tensor | None = None,
        negative: Sequence[str] | None = None,
    ) -> Conditioning:
        return self._inner.condition(prompts, first_BCHW.flip(-1), frames, last_BCHW=last_BCHW, negative=negative)

    def velocity(self, x_BCfhw: Tensor, sigma_B: Tensor, cond: Conditioning) -> Tensor:
        return self._inner.velocity(x_BCfhw, sigma_B, cond)

    def decode(self, z_BCfhw: Tensor) -> Iterator[Tensor]:
        yield from (chunk.flip(-1) for chunk in self._inner.decode(z_BCfhw))
'''
ROW = """    Release(
        key="mirror", family="mirror", name="Mirror", rate=Fraction(16), height=32, width=48, multiple=8, frames=9,
        shift=3.0, ram_gib=1, disk_gib=1, licence="MIT", small=True,
    ),
)  # fmt: skip
RELEASES = """
CASE = """        case "mirror":
            from cinetune.models.memory.fit import place_on_device
            from cinetune.models.mirror import MirrorVideo

            return MirrorVideo.from_folder(
                folder, family=section.family, release=section.release, device=place.name, dtype=place.dtype,
                parts=parts, place=partial(place_on_device, section=section, device=place),
            )
        case"""
SETTINGS = """
name = "mini"
[model]
family = "mirror"
path = "{model}"
[prepare]
frames = 9
held_fraction = 0.34
[train]
steps = 2
batch = 1
accumulate = 1
rank = 2
validate_every = 2
validation_seeds = 1
validation_shots = 1
validation_steps = 1
checkpoint_every = 2
[train.augment]
variants = 1
[shoot]
segment_frames = 9
steps = 1
guidance = 1.0
[deliver]
formats = ["proxy"]
"""


def replaced(path: Path, before: str, after: str) -> None:
    text = path.read_text(encoding="utf-8")
    assert text.count(before) >= 1, before
    path.write_text(text.replace(before, after, 1), encoding="utf-8")


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the source with the new family in it."""
    source, root = Path(cinetune.__file__).parent, tmp_path_factory.mktemp("src")
    copy = root / "cinetune"
    shutil.copytree(source, copy, ignore=shutil.ignore_patterns("__pycache__", "pocket_weights"))
    (copy / "models" / "pocket_weights").symlink_to(source / "models" / "pocket_weights")
    (copy / "models" / "mirror.py").write_text(FILE, encoding="utf-8")
    replaced(copy / "catalogue.py", ")  # fmt: skip\nRELEASES = ", ROW)
    loader = copy / "models" / "__init__.py"
    replaced(loader, "        case", CASE)
    return root


def run(package: Path, *words: str) -> str:
    environment = {**os.environ, "PYTHONPATH": str(package)}
    done = subprocess.run(
        [sys.executable, "-m", "cinetune", *words], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout + done.stderr


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_new_family_tells_the_whole_story(package: Path, tmp_path: Path) -> None:
    film = make_mini(tmp_path / "film")
    save_tiny(tmp_path / "weights")
    (tmp_path / "weights" / "cinetune.json").unlink()
    (film / "cinetune.toml").write_text(SETTINGS.format(model=tmp_path / "weights"), encoding="utf-8")
    planned = run(package, "plan", "-C", str(film))
    assert "48x32" in planned
    run(package, "run", "-C", str(film))
    assert (film / "report" / "index.html").is_file()
    assert "nothing to do" in run(package, "run", "-C", str(film)).lower()
    assert "mirror" in (film / "work" / "stages" / "train.json").read_text(encoding="utf-8")
