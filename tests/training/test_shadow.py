"""The cost formulas against what torch does: operations, bytes kept, bytes alive, without weights and for real."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from cinetune.cost.memory import (
    Setting,
    Storage,
    base_weights,
    block_bytes,
    kept_by_block,
    shared_by_blocks,
    training_memory,
)
from cinetune.cost.operations import Checkpointing, forward, training
from cinetune.cost.shape import TARGET_LAYERS, WAN21, Denoiser
from cinetune.models.adapters.lora import Products
from cinetune.models.memory.storage import store_linears, stored_bytes
from cinetune.models.wan.pocket import DENOISER
from memory_trace import count_operations, hollow, saved_bytes, trace_step
from shadows import MODES, POCKET, RANK, TINY, TINY_SHAPE, WIDE_SHAPE, denoiser, loss_of
from support import wan21_meta


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("targets", TARGET_LAYERS)
def test_operations_of_a_training_step_are_those_torch_counts(targets: str, mode: Checkpointing) -> None:
    network = denoiser(TINY_SHAPE, targets=targets, mode=mode)
    with count_operations() as counter:
        loss_of(network, TINY, (3, 8, 12), batch=2)().backward()
    predicted = training(TINY, 72, rank=RANK, targets=targets, checkpointing=mode)
    assert predicted.total * 2 == counter.get_total_flops()


def test_operations_of_a_forward_are_those_torch_counts() -> None:
    network = denoiser(TINY_SHAPE, targets="cross")
    with torch.no_grad(), count_operations() as counter:
        loss_of(network, TINY, (3, 8, 12))()
    assert forward(TINY, 72, rank=RANK, targets="cross").total == counter.get_total_flops()
    network.disable_adapters()
    with torch.no_grad(), count_operations() as counter:
        loss_of(network, TINY, (3, 8, 12))()
    assert forward(TINY, 72).total == counter.get_total_flops()


@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize(
    ("dtype", "products"), [(torch.float32, "layer"), (torch.bfloat16, "layer"), (torch.bfloat16, "float32")]
)
def test_bytes_kept_by_a_block_of_full_width(dtype: torch.dtype, products: Products, first: bool) -> None:
    """The list of `kept_by_block` against autograd's own, at 14B's width, for every choice of targets."""
    tokens, each = 288, dtype.itemsize
    for targets in TARGET_LAYERS:
        network = denoiser(WIDE_SHAPE, targets=targets, dtype=dtype, device="meta", products=products)
        mode = FakeTensorMode()
        hollow(network, mode)
        with mode:
            context = torch.empty(1, 769, 5120, dtype=dtype)
            places = network.rope(torch.empty(1, 36, 3, 16, 24))
            x = torch.empty(1, tokens, 5120, dtype=dtype, requires_grad=not first)
            with saved_bytes(but=network) as kept:
                network.blocks[1](x, context, torch.empty(1, 6, 5120, dtype=dtype), places)
        setting = Setting(bytes_each=each, products=products)
        mine = kept_by_block(WAN21, tokens, targets=targets, rank=RANK, setting=setting, first=first)
        shared = shared_by_blocks(WAN21, tokens, bytes_each=each)
        rope = 2 * 4 * tokens * 128 if targets in ("attention", "all-linear") or not first else 0
        assert kept() == mine + rope + (shared - 2 * 4 * tokens * 128 if setting.product_bytes == each else 0), targets


def _peak(shape: Denoiser, tokens: int, *, targets: str, mode: Checkpointing, each: int, batch: int = 1) -> int:
    setting = Setting(checkpointing=mode, batch=batch, bytes_each=each)
    memory = training_memory(shape, tokens, rank=RANK, targets=targets, setting=setting)
    return memory.kept + memory.live


@pytest.mark.parametrize(
    ("targets", "mode"),
    [
        ("cross", "none"),
        ("cross", "full"),
        pytest.param("cross", "selective", marks=pytest.mark.slow),
        *(pytest.param("all-linear", mode, marks=pytest.mark.slow) for mode in MODES),
    ],
)
def test_peak_of_a_pocket_step_on_real_tensors(targets: str, mode: Checkpointing) -> None:
    """The tensors that torch had alive at once over nine frames, within 2 %."""
    torch.manual_seed(0)
    network = denoiser(DENOISER, targets=targets, mode=mode)
    trace = trace_step(loss_of(network, POCKET, (3, 16, 24), batch=2))
    predicted = _peak(POCKET, 288, targets=targets, mode=mode, each=4, batch=2)
    assert predicted == pytest.approx(trace.peak_bytes, rel=0.02)


@pytest.mark.parametrize(
    ("dtype", "mode"),
    [
        (torch.bfloat16, "full"),
        pytest.param(torch.bfloat16, "none", marks=pytest.mark.slow),
        pytest.param(torch.bfloat16, "selective", marks=pytest.mark.slow),
        *(pytest.param(torch.float32, mode, marks=pytest.mark.slow) for mode in MODES),
    ],
)
def test_peak_and_operations_of_a_step_at_full_width(dtype: torch.dtype, mode: Checkpointing) -> None:
    """Two blocks of 14B over 33 frames of 480x832 without its weights."""
    shape = replace(WAN21, layers=2)
    network, fake = denoiser(WIDE_SHAPE, targets="cross", mode=mode, dtype=dtype, device="meta"), FakeTensorMode()
    hollow(network, fake)
    with fake:
        trace = trace_step(loss_of(network, shape, (9, 60, 104), dtype=dtype))
    assert training(shape, 14_040, rank=RANK, targets="cross", checkpointing=mode).total == trace.operations
    predicted = _peak(shape, 14_040, targets="cross", mode=mode, each=dtype.itemsize)
    assert predicted == pytest.approx(trace.peak_bytes, rel=0.05)


@pytest.mark.slow
@pytest.mark.parametrize("mode", MODES)
def test_the_whole_14b_model(mode: Checkpointing) -> None:
    """All 40 blocks over 33 frames of 480x832: operations to the last one, the peak within 3 %. Traced on two to four
    blocks; every further one adds the same."""
    found: list[tuple[int, int]] = []
    for layers in (2, 3, 4):
        shape = WIDE_SHAPE | {"num_layers": layers}
        network = denoiser(shape, targets="cross", mode=mode, device="meta", dtype=torch.bfloat16)
        fake = FakeTensorMode()
        hollow(network, fake)
        with fake:
            trace = trace_step(loss_of(network, WAN21, (9, 60, 104), dtype=torch.bfloat16))
        found.append((trace.operations, trace.peak_bytes))
    (two, peak_two), (three, peak_three), (four, peak_four) = found
    assert four - three == three - two
    assert peak_four - peak_three == pytest.approx(peak_three - peak_two, rel=0.001)
    work = training(WAN21, 14_040, rank=RANK, targets="cross", checkpointing=mode)
    assert work.total == two + 38 * (three - two)
    predicted = _peak(WAN21, 14_040, targets="cross", mode=mode, each=2)
    assert predicted == pytest.approx(peak_two + 38 * (peak_three - peak_two), rel=0.03)


@pytest.mark.parametrize(("storage", "gib"), [("plain", 30.5), ("fp8", 15.5), ("int8", 15.5), ("nf4", 8.9)])
def test_weights_of_14b_as_they_are_stored(storage: Storage, gib: float) -> None:
    """Bytes of the real modules on the meta device, in bfloat16 but for what stays in float32; `gib` is what
    tests/models/test_fit.py finds with all of it in bfloat16."""
    network = wan21_meta()
    wide = set(network._keep_in_fp32_modules or [])
    for name, parameter in network.named_parameters():
        if not wide & set(name.split(".")):
            parameter.data = parameter.data.to(torch.bfloat16)
    if storage != "plain":
        for block in network.blocks:
            store_linears(block, storage)
    setting = Setting(storage=storage)
    assert base_weights(WAN21, setting) == stored_bytes(network)
    assert base_weights(WAN21, setting) / 2**30 == pytest.approx(gib, rel=0.01)
    assert block_bytes(WAN21, setting) == stored_bytes(network.blocks[0])
    # two offloaded blocks are on the card at a time (tests/models/test_fit.py)
    away = base_weights(WAN21, replace(setting, offload_blocks=40))
    assert away == stored_bytes(network) - 38 * stored_bytes(network.blocks[0])


@pytest.mark.parametrize("storage", ["fp8", "int8", "nf4"])
def test_peak_of_a_step_with_stored_weights(storage: Storage) -> None:
    """Two blocks of 14B's width and few tokens, so that unpacking weighs as much as all else."""
    network = denoiser(WIDE_SHAPE, targets="cross", mode="full", dtype=torch.bfloat16, device="meta", storage=storage)
    fake = FakeTensorMode(allow_non_fake_inputs=True)  # the levels of nf4
    hollow(network, fake)
    shape = replace(WAN21, layers=2)
    with fake:
        trace = trace_step(loss_of(network, shape, (3, 32, 32), dtype=torch.bfloat16))
    setting = Setting(checkpointing="full", storage=storage)
    memory = training_memory(shape, 768, rank=RANK, targets="cross", setting=setting)
    assert memory.kept + memory.live == pytest.approx(trace.peak_bytes, rel=0.1)
