"""A step-distilled adapter beside a look: the sum of both, its whole differences, and what is refused."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from cinetune.errors import ModelError, WeightsError
from cinetune.models.adapters import lora
from cinetune.models.adapters.distilled import DISTILLED, check_distilled, load_distilled
from cinetune.models.adapters.export import read_adapter, save_adapter
from cinetune.models.adapters.foreign import read_distilled
from cinetune.models.adapters.names import original_name
from cinetune.models.family import Conditioning
from cinetune.models.memory.storage import store_linears
from cinetune.models.wan.wan21 import WanVideo

RANK, ALPHA = 3, 6.0
PAIRED = (
    "blocks.0.attn1.to_q", "blocks.1.attn2.to_k", "blocks.1.attn2.add_k_proj", "blocks.0.ffn.net.2",
    "condition_embedder.text_embedder.linear_1", "condition_embedder.time_proj", "proj_out",
)  # fmt: skip
DIFFERENT = (
    "blocks.0.attn1.to_q.bias", "blocks.1.norm2.weight", "blocks.0.attn2.norm_added_k.weight",
    "blocks.1.scale_shift_table", "scale_shift_table", "patch_embedding.weight", "patch_embedding.bias",
    "condition_embedder.image_embedder.norm1.weight",
)  # fmt: skip
"""Of what published files hold beside pairs: biases, norms, modulation tables, the patch embedding."""


def published(name: str) -> str:
    """A difference as such files spell it."""
    spelled = "diffusion_model." + original_name(name)
    for ending, ours in ((".weight", ".diff"), (".bias", ".diff_b"), (".modulation", ".diff_m")):
        if spelled.endswith(ending):
            return spelled.removesuffix(ending) + ours
    raise AssertionError(name)


def draw(shape: torch.Size | tuple[int, ...], gen: torch.Generator) -> Tensor:
    return torch.randn(shape, generator=gen) * 0.1


@pytest.fixture
def made(model: WanVideo, tmp_path: Path) -> tuple[Path, dict[str, Tensor], dict[str, Tensor]]:
    """The file, the change of each weight that it has a pair of, and its differences, by parameter name."""
    gen = torch.Generator().manual_seed(2)
    own = dict(model.denoiser.named_parameters())
    tensors: dict[str, Tensor] = {}
    products: dict[str, Tensor] = {}
    for layer in PAIRED:
        out, inner = own[f"{layer}.weight"].shape
        down, up = draw((RANK, inner), gen), draw((out, RANK), gen)
        spelled = "diffusion_model." + original_name(f"{layer}.weight").removesuffix(".weight")
        tensors |= {f"{spelled}.lora_down.weight": down, f"{spelled}.lora_up.weight": up}
        tensors[f"{spelled}.alpha"] = torch.tensor(ALPHA)
        products[f"{layer}.weight"] = up @ down * (ALPHA / RANK)
    differences = {name: draw(own[name].shape, gen) for name in DIFFERENT}
    tensors |= {published(name): value for name, value in differences.items()}
    tensors["diffusion_model.blocks.0.self_attn.norm_q.diff"] = torch.zeros(48)  # as most of them are
    save_file(tensors, tmp_path / "few-steps.safetensors")
    return tmp_path / "few-steps.safetensors", products, differences


@pytest.fixture
def look(model: WanVideo, tmp_path: Path) -> tuple[Path, dict[str, Tensor]]:
    """An adapter file as a look is kept, and what it adds to each weight."""
    lora.add_lora(model, rank=2, alpha=4, targets="cross", name="draft", seed=0)
    gen = torch.Generator().manual_seed(4)
    state = {key: draw(value.shape, gen) for key, value in lora.lora_state(model, "draft").items()}
    model.denoiser.delete_adapters("draft")
    path = tmp_path / "look.safetensors"
    save_adapter(path, state, alpha=4, rank=2)
    layers = {key.rpartition(".lora_")[0] for key in state}
    return path, {
        f"{layer}.weight": 2 * state[f"{layer}.lora_B.weight"] @ state[f"{layer}.lora_A.weight"] for layer in layers
    }


def asked() -> tuple[Tensor, Tensor, Conditioning]:
    gen = torch.Generator().manual_seed(0)
    cond = Conditioning(
        text_BLD=torch.randn(1, 512, 32, generator=gen),
        image_BLD=torch.randn(1, 17, 32, generator=gen),
        latent_BCfhw=torch.randn(1, 20, 2, 4, 4, generator=gen),
    )
    return torch.randn(1, 16, 2, 4, 4, generator=gen), torch.tensor([0.6]), cond


@torch.no_grad()
def test_look_and_distilled_adapter_are_the_sum_of_both(
    model: WanVideo, tiny_folder: Path, made: tuple[Path, dict[str, Tensor], dict[str, Tensor]],
    look: tuple[Path, dict[str, Tensor]],
) -> None:  # fmt: skip
    """Against a model whose weights were added up by hand: W + s1 B1 A1 + s2 B2 A2, and s2 times each difference."""
    path, products, differences = made
    question = asked()  # one for all: what the embedders remember of it must not outlive a change
    lora.load_lora(model, look[0], name="look")
    distilled = load_distilled(model, path)
    answers = []
    for look_strength, strength in ((1.0, 1.0), (0.5, 1.25), (0.0, 0.7), (1.0, 0.25)):
        distilled.set_strength(strength)
        lora.use_loras(model, {"look": look_strength, DISTILLED: strength})
        summed = WanVideo.from_folder(tiny_folder, family="pocket")
        for name, parameter in summed.denoiser.named_parameters():
            for table, share in ((look[1], look_strength), (products, strength), (differences, strength)):
                if name in table:
                    parameter += share * table[name]
        answers.append(model.velocity(*question))
        torch.testing.assert_close(answers[-1], summed.velocity(*question), atol=2e-5, rtol=1e-4)
    for one, other in itertools.pairwise(answers):
        assert float((one - other).norm() / other.norm()) > 0.02, "strengths matter"


@torch.no_grad()
def test_strength_nothing_is_the_model_without_it_bit_for_bit(
    model: WanVideo, tiny_folder: Path, made: tuple[Path, dict[str, Tensor], dict[str, Tensor]],
    look: tuple[Path, dict[str, Tensor]],
) -> None:  # fmt: skip
    alone = WanVideo.from_folder(tiny_folder, family="pocket")
    plain = alone.velocity(*asked())
    lora.load_lora(alone, look[0], name="look")
    graded = alone.velocity(*asked())
    assert not torch.equal(plain, graded)
    lora.load_lora(model, look[0], name="look")
    distilled = load_distilled(model, made[0])
    for strength in (0.0, 0.9, 0.0):
        distilled.set_strength(strength)
        lora.use_loras(model, {"look": 1.0, DISTILLED: strength})
        assert torch.equal(model.velocity(*asked()), graded) == (strength == 0)
        lora.use_loras(model, {DISTILLED: strength})
        assert torch.equal(model.velocity(*asked()), plain) == (strength == 0)
    lora.use_loras(model, {"look": 0.3})
    lora.use_lora(model, "look")
    assert torch.equal(model.velocity(*asked()), graded), "a strength does not outlive its use"


def test_a_plain_look_can_be_one_and_what_a_look_may_not_hold_is_still_refused_there(
    model: WanVideo, made: tuple[Path, dict[str, Tensor], dict[str, Tensor]], look: tuple[Path, dict[str, Tensor]]
) -> None:
    pairs, differences = read_distilled(look[0])
    assert not differences and pairs.keys() == read_adapter(look[0]).keys()
    with pytest.raises(WeightsError, match="full differences"):
        read_adapter(made[0])
    pairs, differences = read_distilled(made[0])
    assert set(differences) == set(DIFFERENT) and len(pairs) == 2 * len(PAIRED)
    check_distilled(model.denoiser, "tiny", made[0])


def test_what_cannot_be_added_is_named(
    model: WanVideo, made: tuple[Path, dict[str, Tensor], dict[str, Tensor]], tmp_path: Path
) -> None:
    from safetensors.torch import load_file

    good = load_file(made[0])
    bias = "diffusion_model.blocks.0.self_attn.q.diff_b"
    inner = "diffusion_model.blocks.0.self_attn.q.diff"

    def refused(error: type[Exception], match: str, **changed: Tensor) -> None:
        path = tmp_path / "bad.safetensors"
        save_file(good | changed, path)
        with pytest.raises(error, match=match):
            check_distilled(model.denoiser, "tiny", path)
        with pytest.raises(error, match=match):
            load_distilled(model, path)
        assert DISTILLED not in lora.lora_names(model)

    refused(
        ModelError, r"another base: its blocks\.0\.attn1\.to_q\.bias is \(7,\), in .* \(48,\)", **{bias: torch.ones(7)}
    )
    refused(ModelError, "it is absent", **{"diffusion_model.blocks.9.diff_m": torch.ones(1, 6, 48)})
    refused(WeightsError, "no finite number", **{bias: torch.full((48,), torch.nan)})
    refused(WeightsError, "no part of a Wan denoiser", **{"single_blocks.0.diff_b": torch.ones(48)})
    refused(ModelError, "another base", **{"diffusion_model.head.head.lora_up.weight": torch.ones(5, RANK)})
    refused(WeightsError, "a DoRA", **{"diffusion_model.blocks.0.self_attn.q.dora_scale": torch.ones(48)})
    store_linears(model.denoiser.blocks[0], "int8")
    refused(ModelError, "stored in few bits", **{inner: torch.ones(48, 48)})
    save_file({bias: torch.ones(48)}, tmp_path / "no-pairs.safetensors")
    with pytest.raises(WeightsError, match="empty"):
        read_distilled(tmp_path / "no-pairs.safetensors")
