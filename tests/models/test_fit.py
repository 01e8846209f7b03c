"""Ways to save memory change no number, or change it by what is stated; what cannot be had is refused."""

from __future__ import annotations

import copy
import gc
import weakref
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from cinetune.cost.memory import Setting, training_memory
from cinetune.errors import ConfigError, ModelError
from cinetune.models import load_model
from cinetune.models.adapters.lora import add_lora, lora_state
from cinetune.models.family import Batch, Conditioning
from cinetune.models.memory import attention as attending
from cinetune.models.memory import fit as fitting
from cinetune.models.memory.attention import choose_attention, pick, remembered, time_attention, usable_attention
from cinetune.models.memory.fit import BlockOffload, Load, fit, place_on_device
from cinetune.models.memory.storage import FORMATS, StoredLinear, store_linears, stored_bytes
from cinetune.models.wan.wan21 import WanVideo
from cinetune.runtime import Device, Quiet
from cinetune.sections import ModelSection, TrainSection
from cinetune.training.step import flow_loss
from support import wan21_meta

CPU = Device("cpu", "float32", "test")
PLAIN = TrainSection(checkpointing="none")
FULL = TrainSection(checkpointing="full")
SELECTIVE = TrainSection(checkpointing="selective")


@dataclass(eq=False)
class Trained:
    """What some AdamW steps on fixed batches gave."""

    losses: list[float]
    gradients: dict[str, Tensor]
    adapter: dict[str, Tensor]

    def same_bits(self, other: Trained) -> bool:
        same = all(torch.equal(self.gradients[name], other.gradients[name]) for name in self.gradients)
        return (
            same
            and self.losses == other.losses
            and list(self.adapter) == list(other.adapter)
            and all(torch.equal(self.adapter[name], other.adapter[name]) for name in self.adapter)
        )


def batch(seed: int) -> tuple[Batch, Tensor, Tensor]:
    """Two random windows with their noise levels and noise."""
    gen = torch.Generator().manual_seed(seed)
    x, noise = (torch.randn(2, 16, 3, 8, 12, generator=gen) for _ in range(2))
    cond = Conditioning(
        text_BLD=torch.randn(2, 512, 32, generator=gen),
        image_BLD=torch.randn(2, 17, 32, generator=gen),
        latent_BCfhw=torch.randn(2, 20, 3, 8, 12, generator=gen),
    )
    return Batch(latents_BCfhw=x, cond=cond), torch.rand(2, generator=gen), noise


def trained(model: WanVideo, *, steps: int = 3, targets: str = "all-linear") -> Trained:
    """Losses, gradients of the first step, and the adapter after `steps`."""
    parameters = dict(add_lora(model, rank=2, alpha=4, targets=targets, seed=7))
    with torch.no_grad():  # with B = 0, A would have no gradient in the first step
        gen = torch.Generator().manual_seed(8)
        for name, parameter in parameters.items():
            if "lora_B" in name:
                parameter.copy_(torch.randn(parameter.shape, generator=gen) * 0.05)
    optimiser = torch.optim.AdamW(parameters.values(), lr=0.01)
    losses, gradients = [], {}
    for step in range(steps):
        loss = flow_loss(model, *batch(step)).mean()
        loss.backward()
        gradients = gradients or {name: parameter.grad.clone() for name, parameter in parameters.items()}  # type: ignore[union-attr]
        optimiser.step()
        optimiser.zero_grad()
        losses.append(loss.item())
    return Trained(losses, gradients, lora_state(model, "look"))


@pytest.fixture
def make(tiny_folder: Path) -> Callable[..., WanVideo]:
    """`make(recipe, storage="fp8")` loads the tiny model and fits it."""

    def load(recipe: TrainSection = PLAIN, **settings: Any) -> WanVideo:
        section = ModelSection(family="wan21", path=str(tiny_folder), **settings)
        model = load_model(section, device=CPU, parts="denoiser")
        assert isinstance(model, WanVideo)
        fit(model, section, recipe, CPU, Quiet())
        return model

    return load


@pytest.fixture
def plain(make: Callable[..., WanVideo]) -> Trained:
    return trained(make())


# -------------------------------------------------------------------------------------------------- checkpointing


@pytest.mark.parametrize("recipe", [FULL, SELECTIVE], ids=["full", "selective"])
def test_checkpointing_gives_the_same_bits(make: Callable[..., WanVideo], plain: Trained, recipe: TrainSection) -> None:
    model = make(recipe)
    assert trained(model).same_bits(plain)
    assert plain.losses[0] != plain.losses[2] and any(grad.any() for grad in plain.gradients.values())


class Operations(TorchDispatchMode):
    """Counts every operation by name."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[str] = Counter()

    def __torch_dispatch__(self, function: Any, types: Any, arguments: Any = (), options: Any = None) -> Any:
        self.counts[function.overloadpacket.__name__] += 1
        return function(*arguments, **(options or {}))


def test_checkpointing_computes_again_what_it_says(make: Callable[..., WanVideo]) -> None:
    """`selective` repeats the linear layers only, `full` attention too; there are three attentions in a block."""
    attention, linear = {}, {}
    for recipe in (PLAIN, SELECTIVE, FULL):
        model = make(recipe)
        add_lora(model, rank=2, alpha=4, targets="cross", seed=0)
        with Operations() as seen:
            flow_loss(model, *batch(0)).mean().backward()
        attention[recipe.checkpointing] = seen.counts["_scaled_dot_product_flash_attention_for_cpu"]
        linear[recipe.checkpointing] = seen.counts["addmm"]
    assert attention == {"none": 6, "selective": 6, "full": 12}
    assert linear["none"] < linear["selective"] == linear["full"]


def test_names_stay_as_they_are(make: Callable[..., WanVideo]) -> None:
    before = [name for name, _ in make().denoiser.named_modules()]
    model = make(SELECTIVE, storage="int8", offload_blocks=1)
    assert [name for name, _ in model.denoiser.named_modules()] == before
    assert type(model.denoiser.blocks[0]).__name__ == "WanTransformerBlock"


# ------------------------------------------------------------------------------------------------------- storage


def rounded_by_hand(model: WanVideo, name: str) -> WanVideo:
    """Every weight of the blocks' linear layers through the format and back, in the plain model."""
    for module in model.denoiser.blocks.modules():
        if type(module) is nn.Linear:
            code, scale = FORMATS[name].encode(module.weight)
            module.weight.data = FORMATS[name].decode(code, scale, module.weight.shape, torch.float32)
    return model


@pytest.mark.parametrize("name", sorted(FORMATS))
def test_storage_computes_with_exactly_the_rounded_weights(make: Callable[..., WanVideo], name: str) -> None:
    reference = trained(rounded_by_hand(make(), name))
    stored = make(FULL, storage=name)
    assert sum(isinstance(module, StoredLinear) for module in stored.denoiser.modules()) == 2 * 12
    assert trained(stored).same_bits(reference)


def test_float8_is_torchs_own_rounding(make: Callable[..., WanVideo]) -> None:
    """Scaling by a power of two is exact, so only float8's own rounding is left: half a unit of 3 bits, or of the
    smallest subnormal."""
    weight = torch.randn(64, 96, generator=torch.Generator().manual_seed(0)) * 0.02
    weight[3] *= 1e-4
    weight[4] = 0
    code, scale = FORMATS["fp8"].encode(weight)
    back = FORMATS["fp8"].decode(code, scale, weight.shape, torch.float32)
    assert torch.equal(back, (weight / scale).to(torch.float8_e4m3fn).float() * scale)
    bound = torch.maximum(weight.abs() * 2.0**-4, scale * 2.0**-10)
    assert bool(((back - weight).abs() <= bound).all())
    assert torch.equal(torch.log2(scale), torch.log2(scale).round())
    in_half = FORMATS["fp8"].decode(code, scale, weight.shape, torch.bfloat16)
    assert torch.equal(in_half.float()[:3], back[:3])  # nothing is lost in bfloat16 either


def test_int8_is_off_by_half_a_step_at_most() -> None:
    weight = torch.randn(64, 96, generator=torch.Generator().manual_seed(0)) * 0.02
    code, scale = FORMATS["int8"].encode(weight)
    error = (FORMATS["int8"].decode(code, scale, weight.shape, torch.float32) - weight).abs()
    assert bool((error <= scale / 2 * (1 + 1e-5)).all()) and int(code.abs().max()) == 127


def test_nf4_takes_the_nearest_of_the_published_levels() -> None:
    """The levels as printed in appendix E of arXiv 2305.14314; odd sizes are padded."""
    levels = torch.tensor(
        [
            -1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635,
            -0.18477343022823334, -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725,
            0.24611230194568634, 0.33791524171829224, 0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0,
        ]
    )  # fmt: skip
    weight = torch.randn(5, 77, generator=torch.Generator().manual_seed(0))
    code, scale = FORMATS["nf4"].encode(weight)
    back = FORMATS["nf4"].decode(code, scale, weight.shape, torch.float32)
    blocks = nn.functional.pad(weight.flatten(), (0, -weight.numel() % 64)).view(-1, 64)
    nearest = levels[(blocks[..., None] / blocks.abs().amax(1)[:, None, None] - levels).abs().argmin(-1)]
    want = (nearest * blocks.abs().amax(1, keepdim=True)).flatten()[: weight.numel()].view_as(weight)
    torch.testing.assert_close(back, want, rtol=0, atol=1e-6)


@pytest.mark.oracle
def test_codes_are_those_of_bitsandbytes() -> None:
    functional = pytest.importorskip("bitsandbytes.functional")
    weight = torch.randn(96, 128, generator=torch.Generator().manual_seed(0)) * 0.02
    assert torch.equal(functional.quantize_4bit(weight, blocksize=64, quant_type="nf4")[0].flatten(),
                       FORMATS["nf4"].encode(weight)[0].flatten())  # fmt: skip
    half = weight.half()
    assert torch.equal(functional.int8_vectorwise_quant(half)[0], FORMATS["int8"].encode(half)[0])


def test_no_decoded_weight_is_kept_for_the_backward(make: Callable[..., WanVideo]) -> None:
    """What autograd holds on to between forward and backward, with plain and with stored weights."""
    held: dict[str, set[torch.dtype]] = {}
    for storage in ("plain", "fp8"):
        model = make(storage=storage)
        add_lora(model, rank=2, alpha=4, targets="cross", seed=0)
        held[storage] = set()

        def pack(tensor: Tensor, kinds: set[torch.dtype] = held[storage]) -> Tensor:
            if tuple(tensor.shape) in {(96, 48), (48, 96)}:
                kinds.add(tensor.dtype)
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            flow_loss(model, *batch(0)).mean().backward()
    assert held == {"plain": {torch.float32}, "fp8": {torch.uint8}}


def test_14b_shapes_take_what_is_stated() -> None:
    """On the meta device: bytes of the whole denoiser in bfloat16 and with stored blocks."""
    denoiser: Any = wan21_meta()
    denoiser.to(torch.bfloat16)
    layers = [module for module in denoiser.blocks.modules() if isinstance(module, nn.Linear)]
    linear, rows = sum(m.weight.numel() for m in layers), sum(m.out_features for m in layers)
    found = {"plain": stored_bytes(denoiser)}
    for storage in FORMATS:
        block = copy.deepcopy(denoiser.blocks[0])
        store_linears(block, storage)
        found[storage] = found["plain"] - 40 * (stored_bytes(denoiser.blocks[0]) - stored_bytes(block))
    everything = 2 * 16_394_878_784
    assert linear == 40 * (10 * 5120**2 + 2 * 5120 * 13824) and linear / (everything / 2) > 0.98
    assert found["plain"] == everything
    assert found["fp8"] == found["int8"] == everything - linear + 4 * rows
    assert found["nf4"] == everything - 2 * linear + linear * 4.5 / 8
    assert [round(value / 2**30, 1) for value in found.values()] == [30.5, 15.5, 15.5, 8.9]


def test_a_weight_that_is_not_finite_is_refused() -> None:
    linear = nn.Linear(4, 4)
    linear.weight.data[1, 2] = float("nan")
    layer = nn.Sequential(linear)
    with pytest.raises(ModelError, match="weight 0 is not finite"):
        store_linears(layer, "fp8")


# ---------------------------------------------------------------------------------------------------- offloading


class Copies(BlockOffload):
    """A offload whose device is as far away as the CPU allows: home holds NaN, real copies are made and counted."""

    def __init__(self, blocks: list[nn.Module], device: torch.device) -> None:
        super().__init__(blocks, device)
        self.sent: list[int] = []
        self.alive: list[tuple[int, weakref.ref[Tensor]]] = []
        self.most = 0
        self.true: dict[int, tuple[int, Tensor]] = {}
        for number, slots in enumerate(self.slots):
            for _, _, home in slots:
                self.true[id(home)] = number, home.detach().clone()
                home.data = torch.full_like(home, 255 if home.dtype == torch.uint8 else float("nan"))

    def copy(self, home: Tensor) -> Tensor:
        number, true = self.true[id(home)]
        if not self.sent or self.sent[-1] != number:
            self.sent.append(number)
        copy = true.clone()
        self.alive = [pair for pair in self.alive if pair[1]() is not None] + [(number, weakref.ref(copy))]
        self.most = max(self.most, len({owner for owner, _ in self.alive}))
        return copy


def longer(folder: Path) -> WanVideo:
    """The tiny model with six blocks."""
    from diffusers import WanTransformer3DModel

    model = WanVideo.from_folder(folder, family="wan21", parts="denoiser")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        deeper = WanTransformer3DModel.from_config({**model.denoiser.config, "num_layers": 6})
        assert isinstance(deeper, WanTransformer3DModel)
        model._transformer = deeper
    model.denoiser.eval().requires_grad_(False)
    return model


@pytest.mark.parametrize("storage", ["plain", "fp8"])
def test_offloaded_blocks_give_the_same_bits_and_never_crowd_the_device(
    tiny_folder: Path, storage: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    reference = trained(rounded_by_hand(longer(tiny_folder), storage) if storage != "plain" else longer(tiny_folder))
    made: list[Copies] = []

    class Kept(Copies):
        def attach(self) -> None:
            made.append(self)
            super().attach()

    monkeypatch.setattr(fitting, "BlockOffload", Kept)
    section = ModelSection(storage=storage, offload_blocks=4)  # type: ignore[arg-type]
    model = longer(tiny_folder)
    place_on_device(model.denoiser, section, CPU)
    fit(model, section, FULL, CPU, Quiet())
    (offload,) = made
    assert [list(model.denoiser.blocks).index(block) for block in offload.blocks] == [0, 2, 3, 5]
    gc.disable()  # reference counts alone must free what is not needed any more
    try:
        assert trained(model).same_bits(reference)
    finally:
        gc.enable()
    # three steps: up, then down again; the last and the first block do not travel twice, and every guess was right
    assert offload.sent == [0, 1, 2, 3, 2, 1, 0] + [1, 2, 3, 2, 1, 0] * 2
    assert offload.most == 2
    offload.sent.clear()
    with torch.no_grad():
        for _ in range(2):
            flow_loss(model, *batch(0))
    assert offload.sent == [1, 2, 3, 0, 1, 2, 3, 0]


def test_offloading_on_the_cpu_moves_nothing(make: Callable[..., WanVideo], plain: Trained) -> None:
    model = make(FULL, offload_blocks=2)
    homes = {parameter.data_ptr() for parameter in model.denoiser.blocks.parameters()}
    assert trained(model).same_bits(plain)
    assert {p.data_ptr() for n, p in model.denoiser.blocks.named_parameters() if "lora" not in n} == homes


# ------------------------------------------------------------------------------------------- attention and refusals


def test_attention_is_chosen_with_its_reason() -> None:
    assert choose_attention("auto", CPU) == ("native", "no CUDA GPU")
    assert choose_attention("auto", Device("cuda:0", "float32", ""))[0] == "native"
    assert choose_attention("flash", CPU) == ("flash", "asked for in cinetune.toml")
    assert usable_attention(CPU) == ["native", "_native_math"]


def test_another_attention_is_used_and_differs_in_the_last_digits_only(
    make: Callable[..., WanVideo], plain: Trained
) -> None:
    other = trained(make(attention="_native_math"))
    assert other.losses == pytest.approx(plain.losses, rel=1e-4) and not other.same_bits(plain)
    make()  # diffusers keeps the last choice for the whole process


@pytest.mark.parametrize(
    ("recipe", "settings", "message"),
    [
        (PLAIN, {"attention": "flash"}, r"'flash' cannot be used: .*flash-attn(?s:.*)use one of native, _native_math"),
        (PLAIN, {"attention": "_native_cudnn"}, "it does not run on cpu"),
        (PLAIN, {"offload_blocks": 3}, "offload_blocks is 3, but the model has 2 blocks"),
        (PLAIN, {"offload_blocks": 1}, "saves nothing(?s:.*)full"),
        (SELECTIVE, {"attention": "_native_math"}, "cannot keep what the attention '_native_math'"),
        (TrainSection(compile=True), {"offload_blocks": 1}, "exclude each other"),
    ],
)
def test_what_cannot_be_had_is_refused(
    make: Callable[..., WanVideo], recipe: TrainSection, settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        make(recipe, **settings)


def test_compiling_without_a_compiler_is_refused(
    make: Callable[..., WanVideo], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(ConfigError, match=r"need a C\+\+ compiler"):
        make(TrainSection(compile=True))


def test_attention_without_a_backward_is_refused_for_training(make: Callable[..., WanVideo]) -> None:
    model = make()
    with pytest.raises(ConfigError, match=r"no backward(?s:.*)use one of native, _native_math"):
        fit(model, ModelSection(attention="sage"), PLAIN, CPU, Quiet())


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.filterwarnings("ignore")  # the compiler sets off warnings inside torch itself
@pytest.mark.parametrize("recipe", [PLAIN, SELECTIVE, FULL], ids=lambda recipe: recipe.checkpointing)
def test_compiled_blocks_give_the_same_numbers(
    make: Callable[..., WanVideo], plain: Trained, recipe: TrainSection
) -> None:
    """Fused kernels round differently: losses to 1e-5, gradients to 1e-4 of each tensor's largest."""
    torch._dynamo.reset()
    found = trained(make(recipe.model_copy(update={"compile": True})))
    assert found.losses == pytest.approx(plain.losses, rel=1e-5)
    for name, gradient in plain.gradients.items():
        torch.testing.assert_close(found.gradients[name], gradient, rtol=0, atol=1e-4 * float(gradient.abs().max()))
    assert not torch._dynamo.utils.counters["graph_break"]
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] >= 1


# ------------------------------------------------------------------------------------------------ what `auto` chooses


def test_timings_are_of_kernels_that_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    """Both of the CPU's are timed; one that returns something else is not."""
    place = torch.device("cpu")
    found = time_attention(["native", "_native_math"], 48, 2, 8, device=place, dtype=torch.float32)
    assert set(found) == {"native", "_native_math"} and min(found.values()) > 0
    plain = attending._attend

    def wrong(route: Any, *inputs: Any) -> list[Tensor]:
        out = plain(route, *inputs)
        return [*out[:-1], out[-1] * 1.1] if route.value == "_native_math" else out

    monkeypatch.setattr(attending, "_attend", wrong)
    assert set(time_attention(["native", "_native_math"], 48, 2, 8, device=place, dtype=torch.float32)) == {"native"}


def test_another_kernel_must_be_clearly_faster() -> None:
    assert pick({"native": 0.1, "_native_flash": 0.099}, 9).name == "native"
    assert pick({"native": 0.1, "_native_flash": 0.09}, 9).name == "_native_flash"
    assert pick({"native": 0.1, "_native_flash": 0.09}, 9).reason.endswith("_native_flash 90.0, native 100.0")


def test_a_choice_is_kept_for_its_card_and_shape(tmp_path: Path) -> None:
    memory, asked = tmp_path / "run" / "attention.json", list[int]()

    def measure() -> dict[str, float]:
        asked.append(1)
        return {"native": float(len(asked))}

    assert remembered(memory, ["card", 9], measure) == remembered(memory, ["card", 9], measure) == {"native": 1.0}
    assert remembered(memory, ["card", 10], measure) == {"native": 2.0}
    memory.write_text('{"key": ["card", 10]')
    assert remembered(memory, ["card", 10], measure) == {"native": 3.0}


def test_auto_keeps_what_there_is_room_for(tiny_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All blocks, the first of them, or none but attention; the same bits each time."""
    load = Load(shape=(2, 16, 3, 8, 12), image_tokens=17)
    recipe = TrainSection(checkpointing="auto", rank=2, targets="all-linear")
    plain, shape = trained(longer(tiny_folder)), fitting._shape(longer(tiny_folder).denoiser, load)

    def needs(kind: Any, kept: int = 0) -> int:
        setting = Setting(checkpointing=kind, kept_blocks=kept, batch=2, bytes_each=4)
        return training_memory(shape, 72, rank=2, targets="all-linear", setting=setting).total

    rooms = {("none", 0): needs("none"), ("selective", 3): needs("selective", 3), ("selective", 0): needs("selective")}
    assert list(rooms.values()) == sorted(set(rooms.values()), reverse=True)
    for (rest, kept), room in {**rooms, ("full", 0): 0}.items():
        monkeypatch.setattr(fitting, "_room", lambda *_, room=room: room)
        model, report = longer(tiny_folder), Quiet()
        fitted = fit(model, ModelSection(), recipe, CPU, report, load=load)
        assert (fitted.rest, fitted.kept) == (rest, kept)
        assert (f"checkpointing {rest}" + (" after the first 3 of 6 blocks" if kept else "") + ";") in report.lines[0]
        assert trained(model).same_bits(plain)


def test_no_offloaded_block_waits_on_the_device_while_others_need_it(
    tiny_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[Copies] = []

    class Kept(Copies):
        def attach(self) -> None:
            made.append(self)
            super().attach()

    monkeypatch.setattr(fitting, "BlockOffload", Kept)
    model = longer(tiny_folder)
    place_on_device(model.denoiser, ModelSection(offload_blocks=4), CPU)
    monkeypatch.setattr(fitting, "BlockOffload", BlockOffload)
    with torch.no_grad():
        flow_loss(model, *batch(0))
        on_device = [pair for pair in made[0].alive if pair[1]() is not None]
        assert {number for number, _ in on_device} == {0}, "sent ahead for the next pass"
        next(model.decode(torch.randn(1, 16, 1, 8, 12)))
    gc.collect()
    assert [pair for pair in made[0].alive if pair[1]() is not None] == []
