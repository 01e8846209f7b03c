"""Adapters: which layers, how many parameters, what stays untouched."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from cinetune.catalogue import TARGETS
from cinetune.errors import ModelError, WeightsError
from cinetune.models.adapters import export, lora
from cinetune.models.family import Conditioning
from cinetune.models.wan.wan21 import WanVideo
from memory_trace import saved_bytes
from support import remove_lora, tiny_wan, wan21_meta


def probe(model: WanVideo) -> Tensor:
    gen = torch.Generator().manual_seed(0)
    cond = Conditioning(
        text_BLD=torch.randn(1, 512, 32, generator=gen),
        image_BLD=torch.randn(1, 17, 32, generator=gen),
        latent_BCfhw=torch.randn(1, 20, 2, 4, 4, generator=gen),
    )
    return model.velocity(torch.randn(1, 16, 2, 4, 4, generator=gen), torch.tensor([0.6]), cond)


def shake(model: WanVideo, name: str, seed: int = 1) -> None:
    """Give an adapter random values: a fresh one has B = 0 and does nothing."""
    gen = torch.Generator().manual_seed(seed)
    state = lora.lora_state(model, name)
    lora.set_lora_state(
        model, name, {key: torch.randn(value.shape, generator=gen) * 0.2 for key, value in state.items()}
    )


@dataclass
class Meta:
    """The full-size denoiser without its memory, as much of a model as adapters need."""

    denoiser: torch.nn.Module
    info: object


def test_presets_on_the_full_model(model: WanVideo) -> None:
    meta = Meta(wan21_meta(), model.info)
    table = {
        "cross": (240, 19_660_800),
        "cross-text": (160, 13_107_200),
        "attention": (320, 26_214_400),
        "all-linear": (480, 44_892_160),
        r"blocks\.\d+\.attn2\.(to_q|to_k|to_v)": (120, 9_830_400),
        r"blocks\.\d+\.attn2\.(to_k|to_v)": (80, 6_553_600),
    }
    assert set(TARGETS) < set(table)
    for targets, (modules, parameters) in table.items():
        added = lora.add_lora(meta, rank=8, alpha=16, targets=targets, seed=0)  # pyright: ignore[reportArgumentType]
        assert len(added) == 2 * modules and sum(p.numel() for _, p in added) == parameters, targets
        remove_lora(meta, "look")  # pyright: ignore[reportArgumentType]


def test_only_the_adapter_trains_and_in_float32(tiny_folder: Path) -> None:
    model = WanVideo.from_folder(tiny_folder, family="pocket", dtype="bfloat16")
    added = lora.add_lora(model, rank=4, alpha=8, targets="cross", seed=0)
    assert {p.dtype for _, p in added} == {torch.float32}
    assert model.denoiser.patch_embedding.weight.dtype == torch.bfloat16
    assert {id(p) for p in model.denoiser.parameters() if p.requires_grad} == {id(p) for _, p in added}
    probe(model).square().mean().backward()
    gradients = {name: p.grad for name, p in added}
    assert all(bool(g.any()) for name, g in gradients.items() if g is not None and ".lora_B." in name)
    assert all(g is not None for g in gradients.values())


def test_nothing_matched_is_an_error(model: WanVideo) -> None:
    with pytest.raises(ModelError, match=r"matches the LoRA targets(?s:.*)train\.targets(?s:.*)cross-text"):
        lora.add_lora(model, rank=4, alpha=4, targets=r"blocks\.\d+\.attn9\.to_q", seed=0)
    with pytest.raises(ModelError, match="matches"):  # a suffix is no full match
        lora.add_lora(model, rank=4, alpha=4, targets="to_q", seed=0)
    assert lora.lora_names(model) == []


def test_disabled_is_the_base_bit_for_bit(model: WanVideo) -> None:
    with torch.no_grad():
        base = probe(model)
        lora.add_lora(model, rank=4, alpha=8, targets="all-linear", name="look", seed=0)
        assert torch.equal(probe(model), base)  # fresh: B = 0
        shake(model, "look")
        look = probe(model)
        assert not torch.allclose(look, base)
        lora.use_lora(model, None)
        assert torch.equal(probe(model), base)
        lora.use_lora(model, "look")
        assert torch.equal(probe(model), look)
        remove_lora(model, "look")
        assert torch.equal(probe(model), base)
        assert not any("lora" in name for name, _ in model.denoiser.named_modules())


def test_two_adapters_do_not_mix(model: WanVideo) -> None:
    with torch.no_grad():
        base = probe(model)
        lora.add_lora(model, rank=4, alpha=8, targets="cross", name="look", seed=0)
        shake(model, "look")
        look = probe(model)
        lora.add_lora(model, rank=2, alpha=2, targets="attention", name="plain", seed=0)
        shake(model, "plain", seed=2)
        plain = probe(model)
        assert lora.lora_names(model) == ["look", "plain"]
        lora.use_lora(model, "look")
        assert torch.equal(probe(model), look) and not torch.allclose(look, plain)
        lora.use_lora(model, None)
        assert torch.equal(probe(model), base)
        lora.use_lora(model, "plain")
        remove_lora(model, "look")
        lora.use_lora(model, "plain")
        assert torch.equal(probe(model), plain)


def test_using_the_base_between_steps_keeps_the_adapter_trainable(model: WanVideo) -> None:
    added = lora.add_lora(model, rank=2, alpha=2, targets="cross", seed=0)
    lora.use_lora(model, None)
    lora.use_lora(model, "look")
    probe(model).sum().backward()
    assert all(p.requires_grad and p.grad is not None for _, p in added)


def test_the_start_depends_on_the_seed_alone(tiny_folder: Path) -> None:
    states: list[dict[str, Tensor]] = []
    for noise, seed in ((0, 7), (1, 7), (2, 8)):
        torch.manual_seed(noise)
        want = torch.random.get_rng_state()
        model = WanVideo.from_folder(tiny_folder, family="pocket")
        lora.add_lora(model, rank=4, alpha=4, targets="cross", seed=seed)
        assert torch.equal(torch.random.get_rng_state(), want)
        states.append(lora.lora_state(model, "look"))
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])
    assert not torch.equal(
        states[0]["blocks.0.attn2.to_q.lora_A.weight"], states[2]["blocks.0.attn2.to_q.lora_A.weight"]
    )


def test_state_goes_back_in(model: WanVideo) -> None:
    lora.add_lora(model, rank=4, alpha=8, targets="cross", seed=0)
    kept = lora.lora_state(model, "look")
    shake(model, "look")
    lora.set_lora_state(model, "look", kept)
    assert all(torch.equal(value, kept[key]) for key, value in lora.lora_state(model, "look").items())


@pytest.mark.parametrize("change", ["missing", "extra", "shape"])
def test_a_state_that_does_not_fit_is_refused(model: WanVideo, change: str) -> None:
    lora.add_lora(model, rank=4, alpha=8, targets="cross", seed=0)
    state = lora.lora_state(model, "look")
    key = "blocks.0.attn2.to_q.lora_A.weight"
    match change:
        case "missing":
            del state[key]
        case "extra":
            state["blocks.9.attn2.to_q.lora_A.weight"] = state[key]
        case _:
            state[key] = state[key][:2]
    with pytest.raises(ModelError, match="does not fit"):
        lora.set_lora_state(model, "look", state)


def test_unknown_and_taken_names(model: WanVideo) -> None:
    with pytest.raises(ModelError, match="no adapter called 'look'"):
        lora.use_lora(model, "look")
    lora.use_lora(model, None)
    lora.add_lora(model, rank=2, alpha=2, targets="cross", seed=0)
    with pytest.raises(ModelError, match="already has"):
        lora.add_lora(model, rank=2, alpha=2, targets="cross", seed=0)


def test_layers_of_different_rank_load(model: WanVideo, tmp_path: Path) -> None:
    gen = torch.Generator().manual_seed(0)
    state: dict[str, Tensor] = {}
    for layer, rank in (("to_q", 2), ("to_k", 4)):
        state[f"blocks.1.attn2.{layer}.lora_A.weight"] = torch.randn(rank, 48, generator=gen)
        state[f"blocks.1.attn2.{layer}.lora_B.weight"] = torch.randn(48, rank, generator=gen)
    save_file(
        {f"diffusion_model.{k.replace('attn2.to_', 'cross_attn.')}": v for k, v in state.items()},
        tmp_path / "m.safetensors",
    )
    lora.load_lora(model, tmp_path / "m.safetensors", name="look")
    back = lora.lora_state(model, "look")
    assert set(back) == set(state) and all(torch.equal(back[key], value) for key, value in state.items())
    layers = {key: module for key, module in model.denoiser.named_modules() if hasattr(module, "scaling")}
    assert len(layers) == 2 and all(module.scaling == {"look": 1.0} for module in layers.values())


def test_pickles_are_refused(model: WanVideo, tmp_path: Path) -> None:
    path = tmp_path / "look.bin"
    torch.save({"transformer.blocks.0.attn2.to_q.lora_A.weight": torch.zeros(2, 48)}, path)
    with pytest.raises(WeightsError, match="can run code"):
        lora.load_lora(model, path, name="look")
    disguised = path.rename(tmp_path / "look.safetensors")
    with pytest.raises(WeightsError, match="not readable as safetensors"):
        lora.load_lora(model, disguised, name="look")
    with pytest.raises(WeightsError, match="no such"):
        lora.load_lora(model, tmp_path / "none.safetensors", name="look")


def test_an_adapter_of_a_larger_model_is_refused(model: WanVideo, tmp_path: Path) -> None:
    path = tmp_path / "look.safetensors"
    pair = {"lora_A.weight": torch.ones(2, 48), "lora_B.weight": torch.ones(48, 2)}
    export.save_adapter(path, {f"blocks.7.attn2.to_q.{k}": v for k, v in pair.items()}, alpha=2, rank=2)
    with pytest.raises(ModelError, match=r"blocks\.7.*absent"):
        lora.load_lora(model, path, name="look")
    wide = {"lora_A.weight": torch.ones(2, 64), "lora_B.weight": torch.ones(64, 2)}
    export.save_adapter(path, {f"blocks.0.attn2.to_q.{k}": v for k, v in wide.items()}, alpha=2, rank=2)
    with pytest.raises(ModelError, match=r"of another base.* is 64x64, in tiny it is 48x48"):
        lora.load_lora(model, path, name="look")
    assert lora.lora_names(model) == []


# ------------------------------------------------------------------------------------------------ the type of products


def adapted(products: lora.Products, dtype: torch.dtype) -> tuple[WanVideo, list[nn.Parameter]]:
    """The tiny model in a type (but for what stays in float32) with an adapter whose B does something."""
    model = tiny_wan()
    wide = set(model.denoiser._keep_in_fp32_modules or [])
    for name, parameter in model.denoiser.named_parameters():
        if not wide & set(name.split(".")):
            parameter.data = parameter.data.to(dtype)
    model._dtype = dtype
    made = lora.add_lora(model, rank=4, alpha=8, targets="all-linear", seed=3, products=products)
    gen = torch.Generator().manual_seed(4)
    with torch.no_grad():
        for name, parameter in made:
            if "lora_B" in name:
                parameter.copy_(torch.randn(parameter.shape, generator=gen) * 0.05)
    return model, [parameter for _, parameter in made]


def gradient(products: lora.Products, dtype: torch.dtype) -> Tensor:
    """All of the adapter's gradients of one loss, as one vector."""
    model, trained = adapted(products, dtype)
    gen = torch.Generator().manual_seed(5)
    x, cond = torch.randn(1, 16, 3, 8, 12, generator=gen), torch.randn(1, 20, 3, 8, 12, generator=gen)
    told = Conditioning(
        text_BLD=torch.randn(1, 512, 32, generator=gen), image_BLD=torch.randn(1, 17, 32, generator=gen),
        latent_BCfhw=cond,
    )  # fmt: skip
    model.velocity(x, torch.tensor([0.5]), told).square().mean().backward()
    assert all(parameter.dtype == parameter.grad.dtype == torch.float32 for parameter in trained)  # type: ignore[union-attr]
    return torch.cat([parameter.grad.flatten() for parameter in trained])  # type: ignore[union-attr]


def test_products_in_the_layers_type_cost_no_more_than_the_model_does() -> None:
    """Against everything in float32, the gradient of a bfloat16 model is off by its own rounding; an adapter that
    multiplies in bfloat16 adds at most a quarter of that."""
    true = gradient("float32", torch.float32)
    assert torch.equal(gradient("layer", torch.float32), true), "in a float32 model they are the same"
    off = {
        name: float((gradient(name, torch.bfloat16) - true).norm() / true.norm()) for name in ("float32", "layer")
    }  # fmt: skip
    assert 0 < off["layer"] < 1.25 * off["float32"] < 0.1


def test_an_adapter_in_the_layers_type_copies_no_input() -> None:
    """The float32 copies that autograd would keep of every adapted layer's input."""
    kept: dict[str, int] = {}
    for name in ("float32", "layer"):
        model, _ = adapted(name, torch.bfloat16)  # type: ignore[arg-type]
        block = model.denoiser.blocks[1]
        inputs = torch.randn(1, 72, 48, dtype=torch.bfloat16, requires_grad=True), torch.randn(1, 529, 48).bfloat16()
        places = model.denoiser.rope(torch.empty(1, 36, 3, 8, 12))
        with saved_bytes(but=model.denoiser) as seen:
            block(*inputs, torch.randn(1, 6, 48).bfloat16(), places)
        kept[name] = seen()
    assert kept["layer"] < kept["float32"] - 72 * 48 * 4 * 5
