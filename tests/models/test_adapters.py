"""Adapters of any origin: every spelling gives the same numbers, strength included; what cannot be carried is named."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from cinetune.errors import ModelError, WeightsError
from cinetune.models.adapters import lora
from cinetune.models.adapters.foreign import read_adapter
from cinetune.models.adapters.names import LAYERS, layer_name, original_name
from cinetune.models.family import Conditioning
from cinetune.models.files import weights
from cinetune.models.wan.wan21 import WanVideo
from support import remove_lora, wan21_meta

RANK, ALPHA = 4, 6.0
Spelling = Callable[[str], str]


def delta_parts(layers: tuple[str, ...] = tuple(LAYERS)) -> dict[str, tuple[Tensor, Tensor]]:
    """Random (A, B) by diffusers' layer name, as trained: alpha not applied. Binary fractions, so fp16 holds them."""
    gen = torch.Generator().manual_seed(3)

    def draw(*shape: int) -> Tensor:
        return torch.randint(-64, 64, shape, generator=gen) / 32

    return {f"blocks.{n}.{layer}": (draw(RANK, 48), draw(48, RANK)) for n in range(2) for layer in layers}


def original(layer: str) -> str:
    return original_name(f"{layer}.weight").removesuffix(".weight")


def kohya(layer: str) -> str:
    return "lora_unet_" + original(layer).replace(".", "_")


SPELLINGS: dict[str, tuple[Spelling, tuple[str, str], bool]] = {
    "kohya, musubi-tuner": (kohya, ("lora_down.weight", "lora_up.weight"), True),
    "VideoX-Fun": (lambda key: kohya(key).replace("unet_", "unet__"), ("lora_down.weight", "lora_up.weight"), True),
    "ComfyUI": (lambda key: f"diffusion_model.{original(key)}", ("lora_A.weight", "lora_B.weight"), True),
    "ComfyUI, down and up": (
        lambda key: f"diffusion_model.{original(key)}", ("lora_down.weight", "lora_up.weight"), True,
    ),
    "SimpleTuner": (lambda key: f"diffusion_model.{key}", ("lora_A.weight", "lora_B.weight"), True),
    "ai-toolkit": (lambda key: f"diffusion_model.{original(key)}", ("lora_A.weight", "lora_B.weight"), False),
    "DiffSynth": (original, ("lora_A.default.weight", "lora_B.default.weight"), False),
    "diffusers": (lambda key: f"transformer.{key}", ("lora_A.weight", "lora_B.weight"), False),
    "FastVideo": (lambda key: key, ("lora_A", "lora_B"), False),
}  # fmt: skip
"""Program: how it names a layer, its two halves, and whether it writes alpha beside them."""


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("program", SPELLINGS)
def test_every_spelling_is_the_same_adapter(tmp_path: Path, program: str, dtype: torch.dtype) -> None:
    spell, (down, up), writes_alpha = SPELLINGS[program]
    tensors: dict[str, Tensor] = {}
    for layer, (a, b) in delta_parts().items():
        tensors |= {f"{spell(layer)}.{down}": a.to(dtype), f"{spell(layer)}.{up}": b.to(dtype)}
        if writes_alpha:
            tensors[f"{spell(layer)}.alpha"] = torch.tensor(ALPHA, dtype=dtype)
    save_file(tensors, tmp_path / "x.safetensors")
    state = read_adapter(tmp_path / "x.safetensors")
    strength = ALPHA / RANK if writes_alpha else 1.0
    assert len(state) == 2 * 2 * 12
    for layer, (a, b) in delta_parts().items():
        assert state[f"{layer}.lora_A.weight"].dtype == torch.float32
        assert torch.equal(state[f"{layer}.lora_A.weight"], a)
        assert torch.equal(state[f"{layer}.lora_B.weight"], b * strength)


def peft_folder(folder: Path, spell: Spelling, **settings: object) -> Path:
    tensors: dict[str, Tensor] = {}
    for layer, (a, b) in delta_parts(("attn2.to_q", "attn2.to_k")).items():
        tensors |= {f"{spell(layer)}.lora_A.weight": a, f"{spell(layer)}.lora_B.weight": b}
    folder.mkdir()
    save_file(tensors, folder / "adapter_model.safetensors")
    settings = {"peft_type": "LORA", "r": RANK, "lora_alpha": ALPHA, "use_dora": False} | settings
    (folder / "adapter_config.json").write_text(json.dumps(settings))
    return folder


@pytest.mark.parametrize(
    ("spell", "settings", "scales"),
    [
        (lambda key: f"base_model.model.{key}", {}, (1.5, 1.5)),
        (lambda key: f"diffusion_model.{original(key)}", {"lora_alpha": RANK}, (1.0, 1.0)),
        (lambda key: f"base_model.model.{key}", {"use_rslora": True}, (3.0, 3.0)),
        (lambda key: f"base_model.model.{key}", {"alpha_pattern": {"attn2.to_k": 2}}, (1.5, 0.5)),
        (lambda key: f"base_model.model.{key}", {"alpha_pattern": {r"blocks\.\d+\.attn2\.to_q": 8}}, (2.0, 1.5)),
    ],
    ids=["PEFT", "diffusion-pipe", "rank-stabilised", "alpha by suffix", "alpha by pattern"],
)
def test_a_peft_folder_carries_its_strength(
    tmp_path: Path, spell: Spelling, settings: dict[str, object], scales: tuple[float, float]
) -> None:
    folder = peft_folder(tmp_path / "adapter", spell, **settings)
    for place in (folder, folder / "adapter_model.safetensors"):
        state = read_adapter(place)
        for layer, (_, b) in delta_parts(("attn2.to_q", "attn2.to_k")).items():
            scale = scales[0] if layer.endswith("to_q") else scales[1]
            assert torch.equal(state[f"{layer}.lora_B.weight"], b * scale)


def test_peft_itself_agrees_with_what_is_read(model: WanVideo, tmp_path: Path) -> None:
    """What PEFT saves from a model and what is read back move the weights by the same amount."""
    from peft import LoraConfig, get_peft_model

    denoiser: Any = model.denoiser
    wrapped: Any = get_peft_model(
        denoiser,
        LoraConfig(r=RANK, lora_alpha=int(ALPHA), target_modules=["attn2.to_q", "attn2.add_k_proj"], alpha_pattern={
            "attn2.add_k_proj": 10.0}, init_lora_weights=False),
    )  # fmt: skip
    wrapped.save_pretrained(tmp_path / "peft")
    state = read_adapter(tmp_path / "peft")
    layers = {k: m for k, m in wrapped.base_model.model.named_modules() if hasattr(m, "get_delta_weight")}
    assert len(layers) == 4 and len(state) == 8
    for key, layer in layers.items():
        ours = state[f"{key}.lora_B.weight"] @ state[f"{key}.lora_A.weight"]
        torch.testing.assert_close(ours, layer.get_delta_weight("default"), atol=1e-7, rtol=1e-6)


def test_settings_beside_a_file_are_a_part_of_it(tmp_path: Path) -> None:
    one = peft_folder(tmp_path / "one", lambda key: f"base_model.model.{key}")
    two = peft_folder(tmp_path / "two", lambda key: f"base_model.model.{key}", lora_alpha=12)
    assert weights.adapter_sha256(one) == weights.adapter_sha256(one / "adapter_model.safetensors")
    assert weights.adapter_sha256(one) != weights.adapter_sha256(two)
    (one / "adapter_config.json").unlink()
    with pytest.raises(WeightsError, match=r"strength.*not known.*adapter_config\.json is missing"):
        read_adapter(one)


HEAD = "diffusion_model.blocks.0.cross_attn.q"
LORA = {f"{HEAD}.lora_A.weight": torch.ones(2, 8), f"{HEAD}.lora_B.weight": torch.ones(8, 2)}


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({f"{HEAD}.dora_scale": torch.ones(8, 1)}, "a DoRA"),
        ({"transformer.blocks.0.attn2.to_q.lora_magnitude_vector": torch.ones(8)}, "a DoRA"),
        ({"base_model.model.blocks.0.attn2.to_q.lora_magnitude_vector.default.weight": torch.ones(8)}, "a DoRA"),
        ({f"{HEAD}.hada_w1_a": torch.ones(8, 2)}, "a LoHa"),
        ({f"{HEAD}.lokr_w1": torch.ones(2, 2)}, "a LoKr"),
        ({"lora_unet_blocks_0_ffn_0.oft_blocks": torch.ones(2, 2)}, "an OFT"),
        ({f"{HEAD}.lora_mid.weight": torch.ones(2, 2)}, "Tucker"),
        ({f"{HEAD}.diff": torch.ones(8, 8)}, "full differences"),
        ({f"{HEAD}.diff_b": torch.ones(8)}, "full differences"),
        ({"diffusion_model.blocks.0.norm3.diff": torch.ones(8)}, "full differences"),
        ({f"{HEAD}.lora_B.bias": torch.ones(8)}, "with biases"),
        ({"transformer_2.blocks.0.attn2.to_q.lora_A.weight": torch.ones(2, 8)}, r"second expert of Wan2\.2"),
        ({"lora_te_text_model.lora_down.weight": torch.ones(1, 1)}, "not a layer of a Wan LoRA"),
        ({"diffusion_model.blocks.0.cross_attn.z.lora_A.weight": torch.ones(1, 1)}, "not a layer of a Wan LoRA"),
        ({f"{HEAD.replace('.q', '.k')}.lora_A.weight": torch.ones(2, 8)}, "incomplete at"),
        ({f"{HEAD}.lora_A.weight": torch.full((2, 8), torch.nan)}, "NaN"),
    ],
)
def test_what_cannot_be_carried_is_refused_by_name(tmp_path: Path, more: dict[str, Tensor], words: str) -> None:
    save_file(LORA, tmp_path / "plain.safetensors")
    assert len(read_adapter(tmp_path / "plain.safetensors")) == 2
    save_file(LORA | more, tmp_path / "x.safetensors")
    with pytest.raises(WeightsError, match=words) as caught:
        read_adapter(tmp_path / "x.safetensors")
    assert "x.safetensors" in caught.value.where


def test_a_dora_by_its_settings_is_refused(tmp_path: Path) -> None:
    folder = peft_folder(tmp_path / "dora", lambda key: f"base_model.model.{key}", use_dora=True)
    with pytest.raises(WeightsError, match="DoRA"):
        read_adapter(folder)


def test_pickles_are_refused_in_folders_too(tmp_path: Path) -> None:
    torch.save(LORA, tmp_path / "adapter_model.bin")
    with pytest.raises(WeightsError, match="can run code"):
        read_adapter(tmp_path)
    (tmp_path / "adapter_model.bin").rename(tmp_path / "adapter_model.txt")
    with pytest.raises(WeightsError, match="holds neither"):
        read_adapter(tmp_path)


def test_original_names_of_the_whole_model_are_those_diffusers_converts_from() -> None:
    """On the full 14B shapes: diffusers' converter for original checkpoints leads every name back."""
    from diffusers.loaders.single_file_utils import convert_wan_transformer_to_diffusers

    state = wan21_meta().state_dict()
    renamed = {original_name(key): value for key, value in state.items()}
    assert len(renamed) == len(state) == 1303
    assert "blocks.39.norm3.weight" in renamed and "head.modulation" in renamed and "img_emb.proj.4.bias" in renamed
    back = convert_wan_transformer_to_diffusers(dict(renamed))
    assert all(back[key] is value for key, value in state.items()) and back.keys() == state.keys()
    with pytest.raises(ModelError, match="no name in the original"):
        original_name("blocks.0.attn1.add_q_proj.weight")


def test_no_layer_has_two_readings() -> None:
    for layer in LAYERS:
        for spelling in (layer, LAYERS[layer]):
            assert layer_name(f"blocks.3.{spelling}") == f"blocks.3.{layer}"
            assert layer_name(f"lora_unet_blocks_3_{spelling.replace('.', '_')}") == f"blocks.3.{layer}"
    assert layer_name("blocks.3.norm2") is None and layer_name("text_model.blocks.3.attn2.to_q") is None


def probe(model: WanVideo) -> Tensor:
    gen = torch.Generator().manual_seed(0)
    cond = Conditioning(
        text_BLD=torch.randn(1, 512, 32, generator=gen),
        image_BLD=torch.randn(1, 17, 32, generator=gen),
        latent_BCfhw=torch.randn(1, 20, 2, 4, 4, generator=gen),
    )
    return model.velocity(torch.randn(1, 16, 2, 4, 4, generator=gen), torch.tensor([0.6]), cond)


@pytest.mark.parametrize("program", ["ComfyUI", "kohya, musubi-tuner", "ai-toolkit"])
@pytest.mark.parametrize("alpha", [4.0, 16.0])
def test_the_fresh_adapter_plays_what_the_file_plays(
    tiny_folder: Path, tmp_path: Path, program: str, alpha: float
) -> None:
    spell, (down, up), writes_alpha = SPELLINGS[program]
    path, tensors = tmp_path / "x.safetensors", {}
    shapes = {"attn2.to_q", "attn2.to_k", "attn2.to_v", "attn2.to_out.0", "attn2.add_k_proj", "attn2.add_v_proj"}
    for layer, (a, b) in delta_parts(tuple(sorted(shapes))).items():
        tensors |= {f"{spell(layer)}.{down}": a, f"{spell(layer)}.{up}": b}
        if writes_alpha:
            tensors[f"{spell(layer)}.alpha"] = torch.tensor(ALPHA)
    save_file(tensors, path)
    loaded = WanVideo.from_folder(tiny_folder, family="pocket", parts="denoiser")
    ours = WanVideo.from_folder(tiny_folder, family="pocket", parts="denoiser")
    with torch.no_grad():
        base = probe(ours)
        lora.load_lora(loaded, path, name="foreign")
        lora.add_lora(ours, rank=RANK, alpha=alpha, targets="cross", name="look", seed=0)
        state = lora.start_from(ours, path, rank=RANK, alpha=alpha, targets="cross")
        lora.set_lora_state(ours, "look", state)
        assert torch.equal(probe(ours), probe(loaded))
        assert not torch.allclose(probe(ours), base)
    assert len(lora.lora_state(ours, "look")) == 24


def test_what_does_not_fit_is_refused(model: WanVideo, tmp_path: Path) -> None:
    def made(layers: tuple[str, ...], width: int = 48, rank: int = RANK) -> Path:
        state = {f"blocks.{n}.{layer}": None for n in range(2) for layer in layers}
        tensors = {f"transformer.{k}.lora_A.weight": torch.ones(rank, width) for k in state}
        tensors |= {f"transformer.{k}.lora_B.weight": torch.ones(width, rank) for k in state}
        save_file(tensors, tmp_path / "x.safetensors")
        return tmp_path / "x.safetensors"

    text = ("attn2.to_q", "attn2.to_k", "attn2.to_v", "attn2.to_out.0")
    start: dict[str, Any] = {"rank": RANK, "alpha": 4.0, "targets": "cross"}
    with pytest.raises(ModelError, match="of another base"):
        lora.start_from(model, made(text, width=64), **start)
    with pytest.raises(ModelError, match=r"rank 2, not 4[\s\S]*train\.rank = 2"):
        lora.start_from(model, made(text, rank=2), **start)
    with pytest.raises(ModelError, match=r"other layers[\s\S]*only in the targets[\s\S]*'cross-text'"):
        lora.start_from(model, made(text), **start)
    with pytest.raises(ModelError, match=r"only in the file[\s\S]*'cross-text'"):
        lora.start_from(model, made(text), rank=RANK, alpha=4.0, targets=r"regex:blocks\.\d+\.attn2\.to_k")
    assert len(lora.start_from(model, made(text), rank=RANK, alpha=4.0, targets="cross-text")) == 16


def test_targets_may_be_a_pattern(model: WanVideo) -> None:
    added = lora.add_lora(model, rank=2, alpha=2, targets=r"regex:blocks\.\d+\.attn2\.(to_k|to_v)", seed=0)
    assert {re.sub(r"blocks\.\d+\.|\.lora_.*", "", name) for name, _ in added} == {"attn2.to_k", "attn2.to_v"}
    remove_lora(model, "look")
    with pytest.raises(ModelError, match=r"no layer of .* matches the LoRA targets 'regex:attn2"):
        lora.add_lora(model, rank=2, alpha=2, targets="regex:attn2.to_k", seed=0)
    with pytest.raises(ModelError, match="no adapter file can name"):
        lora.add_lora(model, rank=2, alpha=2, targets="regex:.*(to_k|time_proj)", seed=0)
    assert lora.lora_names(model) == []


@pytest.mark.parametrize("table", [
    {"(.*)*" * 8 + "X": 4}, {"(a+)+$": 4}, {"(.*a){20}": 1}, {f"(x|{n})*.*y": 4 for n in range(300)},
])  # fmt: skip
def test_a_pattern_that_never_ends_does_not_hang(tmp_path: Path, table: dict[str, int]) -> None:
    """`alpha_pattern` comes with the file; Python's own matcher takes for ever for each of these."""
    a, b = "base_model.model.blocks.0.attn2.to_q.lora_A.weight", "base_model.model.blocks.0.attn2.to_q.lora_B.weight"
    save_file({a: torch.ones(4, 8), b: torch.ones(8, 4)}, tmp_path / "adapter_model.safetensors")
    settings = {"r": 4, "lora_alpha": 8, "alpha_pattern": table}
    (tmp_path / "adapter_config.json").write_text(json.dumps(settings), encoding="utf-8")
    state = read_adapter(tmp_path)
    assert float(state["blocks.0.attn2.to_q.lora_B.weight"][0, 0]) == 2.0  # no row fits, so lora_alpha holds


@pytest.mark.timeout(60)
def test_many_patterns_have_their_limit_together(tmp_path: Path) -> None:
    a, b = "base_model.model.blocks.0.attn2.to_q.lora_A.weight", "base_model.model.blocks.0.attn2.to_q.lora_B.weight"
    save_file({a: torch.ones(4, 8), b: torch.ones(8, 4)}, tmp_path / "adapter_model.safetensors")
    table = {f"(.*.*.*.*)*{number}!": 4 for number in range(4000)}
    (tmp_path / "adapter_config.json").write_text(json.dumps({"r": 4, "lora_alpha": 8, "alpha_pattern": table}))
    with pytest.raises(WeightsError, match="too long"):
        read_adapter(tmp_path)


@pytest.mark.parametrize("alpha", [0, True, "0", "much", None])
def test_a_strength_that_is_none(tmp_path: Path, alpha: object) -> None:
    folder = peft_folder(tmp_path / "adapter", lambda key: f"base_model.model.{key}")
    settings = json.loads((folder / "adapter_config.json").read_text()) | {"lora_alpha": alpha}
    (folder / "adapter_config.json").write_text(json.dumps(settings))
    if alpha is None:
        assert read_adapter(folder), "nothing is said: alpha = rank"
        return
    with pytest.raises(WeightsError, match="header is damaged"):
        read_adapter(folder)


@pytest.mark.parametrize(
    "table", [[1], {"(?=a)b": 4}, {"(": 4}, {str(n): 4 for n in range(6000)}, {"blocks.0.attn2.to_q": []}]
)
def test_a_table_of_patterns_that_cannot_be_taken_is_named(tmp_path: Path, table: object) -> None:
    a, b = "base_model.model.blocks.0.attn2.to_q.lora_A.weight", "base_model.model.blocks.0.attn2.to_q.lora_B.weight"
    save_file({a: torch.ones(4, 8), b: torch.ones(8, 4)}, tmp_path / "adapter_model.safetensors")
    (tmp_path / "adapter_config.json").write_text(json.dumps({"r": 4, "lora_alpha": 8, "alpha_pattern": table}))
    with pytest.raises(WeightsError, match="header is damaged"):
        read_adapter(tmp_path)


@pytest.mark.parametrize(
    "pattern", ["cross_attn.q", "attn2.to_q", r"blocks\.\d+\.cross_attn\.q", r"blocks\..*\.attn2\.to_q"]
)
@pytest.mark.parametrize(
    "spell",
    [
        lambda key: f"base_model.model.{key}",
        lambda key: f"base_model.model.{original(key)}",
        lambda key: f"diffusion_model.{original(key)}",
    ],
    ids=["diffusers", "original", "ComfyUI"],
)
def test_settings_and_layers_may_be_spelled_differently(tmp_path: Path, pattern: str, spell: Spelling) -> None:
    folder = peft_folder(tmp_path / "adapter", spell, alpha_pattern={pattern: 16})
    state = read_adapter(folder)
    for layer, (_, b) in delta_parts(("attn2.to_q", "attn2.to_k")).items():
        scale = 16 / RANK if layer.endswith("to_q") else ALPHA / RANK
        assert torch.equal(state[f"{layer}.lora_B.weight"], b * scale)


def test_a_strength_beside_its_layer_may_be_spelled_differently(tmp_path: Path) -> None:
    tensors: dict[str, Tensor] = {}
    for layer, (a, b) in delta_parts(("attn2.to_q",)).items():
        tensors |= {f"diffusion_model.{original(layer)}.lora_down.weight": a, f"transformer.{layer}.lora_up.weight": b}
        tensors[f"{kohya(layer)}.alpha"] = torch.tensor(16.0)
    save_file(tensors, tmp_path / "x.safetensors")
    state = read_adapter(tmp_path / "x.safetensors")
    for layer, (_, b) in delta_parts(("attn2.to_q",)).items():
        assert torch.equal(state[f"{layer}.lora_B.weight"], b * (16 / RANK))


Q = "blocks.0.attn2.to_q"


FOUR = {f"{Q}.lora_A.weight": torch.ones(4, 8), f"{Q}.lora_B.weight": torch.ones(8, 4)}
NONE = {f"{Q}.lora_A.weight": torch.zeros(0, 8), f"{Q}.lora_B.weight": torch.zeros(8, 0)}


@pytest.mark.parametrize(
    "tensors",
    [
        NONE,
        NONE | {f"{Q}.alpha": torch.tensor(4.0)},
        FOUR | {f"{Q}.lora_A.weight": torch.ones(4, 0)},
        FOUR | {f"{Q}.alpha": torch.ones(2)},
        FOUR | {f"{Q}.alpha": torch.ones(0)},
        FOUR | {f"{Q}.alpha": torch.tensor(float("nan"))},
        FOUR | {f"transformer.{Q}.lora_B.weight": torch.ones(8, 4)},
        FOUR | {f"{Q}.lora_A.weight": torch.ones(4, 8, 1)},
        FOUR | {f"{Q}.alpha": torch.tensor(0.0)},
        FOUR | {f"{Q}.lora_A.weight": torch.ones(4, 8, dtype=torch.int64)},
        FOUR | {f"{Q}.lora_B.weight": torch.ones(8, 4, dtype=torch.bool)},
        {key.replace("0", "\uff10"): value for key, value in FOUR.items()},
        {key.replace("0", "9" * 5000): value for key, value in FOUR.items()},
    ],
)
@pytest.mark.parametrize("settings", ["{}", json.dumps({"transformer.lora_alpha": 4})])
def test_adapters_of_rank_zero_and_other_damage(tmp_path: Path, tensors: dict[str, Tensor], settings: str) -> None:
    save_file(tensors, tmp_path / "a.safetensors", metadata={"lora_adapter_metadata": settings})
    with pytest.raises(WeightsError):
        read_adapter(tmp_path / "a.safetensors")


@pytest.mark.parametrize(
    "settings", ["[" * 5000, "9" * 6000, '{"a": "\\ud83d"}', "[1]", "nul", '{"lora_alpha": 1e999}']
)
def test_settings_that_are_damaged(tmp_path: Path, settings: str) -> None:
    tensors = {f"{Q}.lora_A.weight": torch.ones(4, 8), f"{Q}.lora_B.weight": torch.ones(8, 4)}
    save_file(tensors, tmp_path / "a.safetensors", metadata={"lora_adapter_metadata": settings})
    with pytest.raises(WeightsError, match="header is damaged"):
        read_adapter(tmp_path / "a.safetensors")


def test_settings_with_a_byte_order_mark(tmp_path: Path) -> None:
    folder = peft_folder(tmp_path / "adapter", lambda key: f"base_model.model.{key}")
    beside = folder / "adapter_config.json"
    beside.write_bytes(b"\xef\xbb\xbf" + beside.read_bytes())
    assert read_adapter(folder)
