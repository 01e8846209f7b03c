"""The cost formulas against what torch does: operations, bytes kept, bytes alive, without weights and for real."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import torch
from diffusers import WanTransformer3DModel
from peft import LoraConfig
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.checkpoint import CheckpointPolicy, checkpoint, create_selective_checkpoint_contexts

from cinetune.cost.memory import Setting, kept_by_block, shared_by_blocks, training_memory
from cinetune.cost.operations import Checkpointing, forward, training
from cinetune.cost.shape import TARGET_LAYERS, WAN21, Denoiser, denoiser_of
from cinetune.models.lora import TARGETS
from cinetune.models.pocket import DENOISER
from cinetune.training.shadow import count_operations, hollow, saved_bytes, trace_step

TINY_SHAPE = {
    "num_attention_heads": 2, "attention_head_dim": 24, "in_channels": 36, "out_channels": 16, "text_dim": 32,
    "freq_dim": 32, "ffn_dim": 96, "num_layers": 3, "image_dim": 32, "added_kv_proj_dim": 48, "rope_max_seq_len": 64,
    "cross_attn_norm": True, "qk_norm": "rms_norm_across_heads",
}  # fmt: skip
WIDE_SHAPE = TINY_SHAPE | {
    "num_attention_heads": 40, "attention_head_dim": 128, "text_dim": 4096, "freq_dim": 256, "ffn_dim": 13824,
    "num_layers": 2, "image_dim": 1280, "added_kv_proj_dim": 5120, "rope_max_seq_len": 1024,
}  # fmt: skip
TINY = denoiser_of(TINY_SHAPE, image_tokens=17, multiple=8)
POCKET = denoiser_of(DENOISER, image_tokens=65, multiple=8)
MODES: tuple[Checkpointing, ...] = ("none", "selective", "full")
RANK = 8


def save_attention(block: Callable[..., Tensor], *inputs: Any) -> Tensor:
    """Checkpointing that keeps the results of attention."""

    def policy(_: Any, op: Any, *args: Any, **kwargs: Any) -> CheckpointPolicy:
        kept = "scaled_dot_product" in str(op)
        return CheckpointPolicy.MUST_SAVE if kept else CheckpointPolicy.PREFER_RECOMPUTE

    contexts = partial(create_selective_checkpoint_contexts, policy)
    return checkpoint(block, *inputs, use_reentrant=False, context_fn=contexts)  # pyright: ignore[reportReturnType]


def denoiser(
    shape: dict[str, Any], *, targets: str, mode: Checkpointing = "none", device: str = "cpu",
    dtype: torch.dtype = torch.float32,
) -> WanTransformer3DModel:  # fmt: skip
    """A denoiser with a float32 adapter, as it is trained."""
    with torch.device(device):
        network = WanTransformer3DModel(**shape)
    wide = set(network._keep_in_fp32_modules or [])
    network.requires_grad_(False)
    for name, parameter in network.named_parameters():
        if not wide & set(name.split(".")):
            parameter.data = parameter.data.to(dtype)
    network.add_adapter(LoraConfig(r=RANK, target_modules=TARGETS[targets]))
    for parameter in network.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()
    if mode != "none":
        arguments = {"gradient_checkpointing_func": save_attention} if mode == "selective" else {}
        network.enable_gradient_checkpointing(**arguments)
    return network.train()


def loss_of(
    network: nn.Module, shape: Denoiser, grid: tuple[int, int, int], *, batch: int = 1,
    dtype: torch.dtype = torch.float32,
) -> Callable[[], Tensor]:  # fmt: skip
    """A step over clips of `grid` latent frames, rows and columns."""

    def random(*sizes: int) -> Tensor:
        return torch.randn(batch, *sizes, dtype=dtype)

    inputs = {
        "hidden_states": random(shape.channels_in, *grid), "timestep": torch.zeros(batch),
        "encoder_hidden_states": random(shape.text_tokens, shape.text_width),
        "encoder_hidden_states_image": random(shape.image_tokens, shape.image_width),
    }  # fmt: skip
    return lambda: network(**inputs, return_dict=False)[0].float().square().mean()


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
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_bytes_kept_by_a_block_of_full_width(dtype: torch.dtype, first: bool) -> None:
    """The list of `kept_by_block` against autograd's own, at 14B's width, for every choice of targets."""
    tokens, each = 288, dtype.itemsize
    for targets in TARGET_LAYERS:
        network, mode = denoiser(WIDE_SHAPE, targets=targets, dtype=dtype, device="meta"), FakeTensorMode()
        hollow(network, mode)
        with mode:
            context = torch.empty(1, 769, 5120, dtype=dtype)
            places = network.rope(torch.empty(1, 36, 3, 16, 24))
            x = torch.empty(1, tokens, 5120, dtype=dtype, requires_grad=not first)
            with saved_bytes(but=network) as kept:
                network.blocks[1](x, context, torch.empty(1, 6, 5120, dtype=dtype), places)
        mine = kept_by_block(WAN21, tokens, targets=targets, rank=RANK, bytes_each=each, first=first)
        shared = shared_by_blocks(WAN21, tokens, bytes_each=each)
        rope = 2 * 4 * tokens * 128 if targets in ("attention", "all-linear") or not first else 0
        assert kept() == mine + rope + (shared - 2 * 4 * tokens * 128 if each == 4 else 0), targets


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
def test_operations_of_the_whole_14b_model(mode: Checkpointing) -> None:
    """All 40 blocks, 33 frames of 480x832, forward and backward, to the last operation."""
    network = denoiser(WIDE_SHAPE | {"num_layers": 40}, targets="cross", mode=mode, device="meta")
    fake = FakeTensorMode()
    hollow(network, fake)
    with fake, count_operations() as counter:
        loss_of(network, WAN21, (9, 60, 104))().backward()
    predicted = training(WAN21, 14_040, rank=RANK, targets="cross", checkpointing=mode)
    assert predicted.total == counter.get_total_flops()
