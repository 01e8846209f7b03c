"""Each process reads its own rows of a sharded base, and together they are the base bit for bit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import safetensors
import torch
from torch.distributed.device_mesh import init_device_mesh

from cinetune.errors import WeightsError
from cinetune.models import load_model
from cinetune.models.files.weights import network_files
from cinetune.models.memory import share as reading
from cinetune.models.memory.share import Share
from cinetune.models.memory.spread import shard_base
from cinetune.models.wan.wan21 import WanVideo
from cinetune.processes import join_group
from cinetune.runtime import Device
from cinetune.sections import ModelSection, ParallelSection
from crew import crew

SIZE = 2


class Counted:
    """A safetensors file that counts the bytes of the slices taken from it."""

    total = 0

    def __init__(self, path: Path, framework: str) -> None:
        self.file: Any = safetensors.safe_open(path, framework)

    def __enter__(self) -> Counted:
        self.file.__enter__()
        return self

    def __exit__(self, *raised: object) -> None:
        self.file.__exit__(*raised)

    def keys(self) -> list[str]:
        return self.file.keys()

    def get_slice(self, name: str) -> CountedSlice:
        return CountedSlice(self.file.get_slice(name))


class CountedSlice:
    def __init__(self, part: Any) -> None:
        self.part = part

    def get_shape(self) -> list[int]:
        return self.part.get_shape()

    def __getitem__(self, rows: slice) -> torch.Tensor:
        values = self.part[rows]
        Counted.total += values.numel() * values.element_size()
        return values


def velocity(model: WanVideo) -> torch.Tensor:
    gen = torch.Generator().manual_seed(0)
    cond = model.condition(["a man"], torch.rand(1, 3, 32, 48, generator=gen) * 2 - 1, 9)
    with torch.no_grad():
        return model.velocity(torch.randn(1, 16, 3, 8, 12, generator=gen), torch.tensor([0.5]), cond)


@pytest.mark.parametrize(
    ("storage", "dtype"), [("plain", "float32"), ("plain", "bfloat16"), ("fp8", "bfloat16"), ("nf4", "float32")]
)
def test_each_process_reads_its_shard_and_no_more(
    tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, storage: str, dtype: str
) -> None:
    section = ModelSection.model_validate(
        {"family": "pocket", "path": str(tiny_folder), "storage": storage, "device": "cpu", "dtype": dtype}
    )
    device = Device("cpu", dtype, "test")
    whole: Any = load_model(section, device=device)
    want = {name: value.clone() for name, value in whole.denoiser.named_parameters()}
    held = sum(path.stat().st_size for path in network_files(tiny_folder / "transformer"))
    monkeypatch.setattr(reading, "safe_open", Counted)

    def job() -> None:
        rank = join_group(ModelSection(device="cpu"), ParallelSection()).rank
        model: Any = load_model(section, device=device, share=Share(rank=rank, size=SIZE))
        # rank 0 also holds what has a single row
        assert 0.4 * held < Counted.total < 0.6 * held, (Counted.total, held)
        mesh = init_device_mesh("cpu", (SIZE,), mesh_dim_names=("shard",))
        for one in (model, whole):
            shard_base(one.denoiser, mesh)
        found = dict(model.denoiser.named_parameters())
        assert found.keys() == want.keys()
        for name, value in found.items():
            assert value.dtype == want[name].dtype, name
            assert torch.equal(value.full_tensor(), want[name]), name
        assert torch.equal(velocity(model), velocity(whole)), "as that of a base that was read whole and then cut"

    crew(SIZE, job, tmp_path / "said")


@pytest.mark.parametrize("size", [1, 2, 3, 7])
@pytest.mark.parametrize("shape", [(96, 40), (7, 64), (1, 6, 32), (64,), (5, 24)])
def test_rows_are_those_that_torch_cuts(shape: tuple[int, ...], size: int) -> None:
    whole = torch.arange(torch.tensor(shape).prod().item()).view(shape)
    chunks = [*whole.chunk(size), *[whole[:0]] * size][:size]
    for rank, chunk in enumerate(chunks):
        assert torch.equal(whole[Share(rank=rank, size=size).rows(shape, "plain")], chunk)


@pytest.mark.parametrize("size", [1, 2, 3, 7])
@pytest.mark.parametrize("shape", [(96, 40), (7, 64), (5, 24), (64, 100)])
def test_rows_of_blocks_of_values_hold_every_block(shape: tuple[int, int], size: int) -> None:
    flat = torch.arange(shape[0] * shape[1])
    blocks = torch.nn.functional.pad(flat, (0, -len(flat) % 64), value=-1).view(-1, 64)
    for rank, chunk in enumerate([*blocks.chunk(size), *[blocks[:0]] * size][:size]):
        rows = Share(rank=rank, size=size).rows(shape, "nf4")
        held = set(flat.view(shape)[rows].flatten().tolist()) | {-1}
        assert set(chunk.flatten().tolist()) <= held
        assert len(held) <= chunk.numel() + 2 * shape[1] + 1


def test_files_that_lack_a_weight_are_refused(tiny_folder: Path, tmp_path: Path) -> None:
    import shutil

    from safetensors.torch import load_file, save_file

    broken = tmp_path / "broken"
    shutil.copytree(tiny_folder, broken)
    (path,) = network_files(broken / "transformer")
    tensors = load_file(path)
    del tensors["blocks.0.ffn.net.2.weight"]
    save_file(tensors, path)
    section = ModelSection.model_validate({"family": "pocket", "path": str(broken)})
    with pytest.raises(WeightsError, match=r"1 weights are in no file, first blocks\.0\.ffn"):
        load_model(section, share=Share(rank=0, size=2))
