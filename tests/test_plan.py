"""The cost formulas against published counts, and what a plan says."""

from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import WanTransformer3DModel

from cinetune.cli import main
from cinetune.cost.cards import CARDS, Fit, cheapest, elementwise_bytes, step_seconds, work_seconds
from cinetune.cost.memory import Memory, Setting
from cinetune.cost.operations import Checkpointing, Operations, forward, training, video_decoding
from cinetune.cost.shape import TARGET_LAYERS, WAN21, denoiser_of
from cinetune.cost.shooting import clips_at_once
from cinetune.errors import StoreError
from cinetune.models.adapters.lora import add_lora
from cinetune.models.wan.pocket import DENOISER
from cinetune.models.wan.wan21 import WanVideo
from cinetune.plan import explain_shortage, make_plan
from cinetune.plan.bill import bills, cheapest_card
from cinetune.plan.run import shapes_of
from cinetune.plan.together import RANKS, shared_facts, shared_seconds
from cinetune.store import Project
from support import save_tiny, tiny_wan


def test_parameters_of_wan21_i2v_14b() -> None:
    assert WAN21.parameters() == 16_394_878_784
    assert WAN21.adapter_parameters(8, "cross") == 19_660_800


@pytest.mark.parametrize("targets", [*TARGET_LAYERS, r"regex:blocks\.1\.(attn1\.to_q|ffn\.net\.2)"])
def test_adapter_parameters_are_those_that_are_trained(targets: str) -> None:
    model = tiny_wan()
    shape = denoiser_of(model.denoiser.config, image_tokens=17, multiple=8)
    trained = add_lora(model, rank=3, alpha=3, targets=targets, seed=0)
    assert shape.adapter_parameters(3, targets) == sum(parameter.numel() for _, parameter in trained)


@pytest.mark.parametrize(("name", "seconds"), [("A100 80 GB", 2715.5 / 80)])
def test_a_forward_takes_about_the_published_time(name: str, seconds: float) -> None:
    """Wan2.1's own table: 40 steps with guidance, 81 frames of 720x1280, one card."""
    card = next(card for card in CARDS if card.name == name)
    moved = elementwise_bytes(WAN21, 75_600, Setting(), 1)
    assert work_seconds(forward(WAN21, 75_600), card, moved=moved) == pytest.approx(seconds, rel=0.15)


@pytest.mark.parametrize(("frames", "height", "width", "tokens"), [(33, 480, 832, 14_040), (81, 720, 1280, 75_600)])
def test_tokens(frames: int, height: int, width: int, tokens: int) -> None:
    assert WAN21.tokens(frames, height, width) == tokens


def test_a_shot_on_several_cards_is_predicted(tmp_path: Path) -> None:
    run, _ = shapes_of(planned(tmp_path, 'preset = "wan21"\n'))
    assert run is not None
    card = next(card for card in CARDS if card.name == "H200")
    frames, size = run.config.shoot.segment_frames, run.shoot_size
    decoding = video_decoding(run.encoders, frames, *size) / card.convolution
    alone, two, four, eight = (shared_seconds(run, card, ranks) for ranks in RANKS)
    assert alone == run.segment_seconds(card, run.setting, frames)
    assert two == pytest.approx((alone - decoding) / 2 + decoding)  # guidance: one pass each
    # 40 passes of each group in 40 blocks deal four tensors of half the tokens, half of it away
    tokens = run.denoiser.tokens(frames, *size)
    assert four == pytest.approx((alone - decoding) / 4 + decoding + 40 * 40 * 4 * tokens / 2 * 5120 * 2 / 2 / 360e9)
    assert alone > two > four > eight
    efficiency = [alone / seconds / ranks for seconds, ranks in zip((two, four, eight), RANKS[1:], strict=True)]
    assert efficiency == sorted(efficiency, reverse=True) and efficiency[0] > 0.9
    said = dict(shared_facts(run))
    assert set(said) == {"a shot on n A100 80 GB", "a shot on n H200"} and "predicted" in said["a shot on n H200"]


def test_less_memory_costs_more_operations() -> None:
    modes: tuple[Checkpointing, ...] = ("none", "selective", "full")
    work = [training(WAN21, 14_040, rank=8, targets="cross", checkpointing=mode).total for mode in modes]
    assert work == sorted(work)


def test_more_costs_more() -> None:
    by_rank = [WAN21.adapter_parameters(rank, "cross") for rank in (4, 8, 64)]
    by_targets = [WAN21.adapter_parameters(8, name) for name in ("cross-text", "cross", "attention", "all-linear")]
    assert by_rank == sorted(by_rank)
    assert by_targets == sorted(by_targets)


def test_the_published_recipe_takes_hours_on_a_large_gpu(tmp_path: Path) -> None:
    (tmp_path / "cinetune.toml").write_text('preset = "paper"\n')
    made = make_plan(Project(tmp_path))
    facts = dict(made.facts)
    assert facts["training window"] == "33 frames of 832x480 = 14,040 tokens"
    assert [row[0] for row in made.cards[1:]] == [card.name for card in CARDS]
    parts = dict(made.memory)
    assert parts["together"] == pytest.approx(sum(parts.values()) - parts["together"], abs=0.01)
    assert [row[0].split()[0] for row in made.fits[1::3]] == ["24", "48", "80", "141"]
    trained = made.fits[2::3]
    assert {row[1] for row in trained} == {"train"}
    assert all(float(row[2].split()[0]) <= size for row, size in zip(trained, (24, 48, 80, 141), strict=True))
    assert "train.checkpointing=selective" in trained[2][4], "a large card need not compute attention twice"
    slow = {row[0]: row[1] for row in made.cards[1:]}
    assert slow["RTX 4090"] == "does not fit", "the settings as they are need twice its memory"
    assert slow["H200"].endswith(" s")
    assert any("model.path is empty" in warning for warning in made.warnings)
    assert any(warning.startswith("shots.toml") for warning in made.warnings)


def test_shots_and_seeds_multiply(tmp_path: Path) -> None:
    (tmp_path / "cinetune.toml").write_text('preset = "paper"\n[shoot]\nseeds = 3\nsegment_frames = 33\n')
    (tmp_path / "r.png").write_bytes(b"")
    shot = '[[shot]]\nid = "{}"\nprompt = "p"\ndomain = "in"\nreference = "r.png"\nseconds = {}\n'
    (tmp_path / "shots.toml").write_text(shot.format("a", 2.0) + shot.format("b", 5.0))
    facts = dict(make_plan(Project(tmp_path)).facts)
    assert facts["shots"] == "2 in 2 arms x 3 seeds = 24 segments", "2 s is one segment of 33 frames, 5 s are three"


def test_the_shape_is_read_from_the_weights_folder(tmp_path: Path) -> None:
    save_tiny(tmp_path / "model")
    real = sum(p.numel() for p in WanVideo.from_folder(tmp_path / "model", family="wan21").denoiser.parameters())
    (tmp_path / "cinetune.toml").write_text('[model]\nfamily = "wan21"\npath = "{}"\n'.format(tmp_path / "model"))
    (tmp_path / "shots.toml").write_text("")
    made = make_plan(Project(tmp_path))
    assert dict(made.facts)["model"] == f"wan21, denoiser of {real / 1e6:.2f} million parameters"
    assert dict(made.facts)["shooting"] == "known once shots.toml names shots"
    assert made.warnings == ()


def test_parameters_of_the_pocket_model() -> None:
    """The formula holds at its size too: widths and depths enter in every term."""
    shape = denoiser_of(DENOISER, image_tokens=65, multiple=8)
    assert shape.parameters() == sum(p.numel() for p in WanTransformer3DModel(**DENOISER).parameters())


def test_first_frames_are_encoded_together_only_while_they_are_small(tmp_path: Path) -> None:
    """Five of 720p at once would need 81 GB; pocket's are a batch."""
    assert clips_at_once(33, 720, 1280) == clips_at_once(33, 480, 832) == 1
    assert clips_at_once(33, 96, 160) > 5
    large = "[prepare]\nheight = 720\nwidth = 1280\n"
    needs = []
    for preset in ("wan21", "paper"):
        (tmp_path / "cinetune.toml").write_text(f'preset = "{preset}"\n' + large)
        row = make_plan(Project(tmp_path)).fits[7]
        assert (row[1], row[4]) == ("cache", "as it is")
        needs.append(row[2])
    assert needs[0] == needs[1], "re-graded first frames cost time, not memory"


def test_storage_saves_memory_and_costs_time() -> None:
    card = CARDS[0]
    found = {
        storage: step_seconds(WAN21, 14_040, card, rank=8, targets="cross", setting=Setting(storage=storage))
        for storage in ("plain", "fp8", "int8", "nf4")
    }
    assert list(found.values()) == sorted(found.values())
    assert found["nf4"] > 1.01 * found["plain"]


def _fit(seconds: float, weights: int, **chosen: Any) -> Fit:
    return Fit(setting=Setting(**chosen), memory=Memory(weights=weights), seconds=seconds)


def test_of_equally_fast_settings_the_plainest_is_taken() -> None:
    plain, small, slow = _fit(1.0, 30), _fit(0.99, 20, storage="fp8"), _fit(2.0, 10, offload_blocks=9)
    assert cheapest([small, plain, slow], 40) is plain
    assert cheapest([small, plain, slow], 25) is small
    assert cheapest([small, plain, slow], 15) is slow
    assert cheapest([small, plain, slow], 5) is None


ERRORS = (torch.OutOfMemoryError("CUDA out of memory"), MemoryError(), RuntimeError("you can't allocate memory"))


@pytest.mark.parametrize("error", ERRORS)
def test_a_shortage_of_memory_says_what_needs_less(tmp_path: Path, error: BaseException) -> None:
    (tmp_path / "cinetune.toml").write_text('preset = "pocket"\n')
    refused = pytest.raises(StoreError, match="memory ran out in train")
    with refused as caught, explain_shortage(Project(tmp_path), "train"):
        raise error
    tried = dict(make_plan(Project(tmp_path)).memory)["together"]
    below = [line.split() for line in caught.value.remedy.splitlines() if "s a step" in line]
    assert below
    assert all(float(words[0]) < tried for words in below)
    assert f"{tried:.3f}" in caught.value.remedy
    assert "offload_blocks" not in caught.value.remedy, "on the CPU blocks have nowhere to go"


@pytest.mark.parametrize(
    ("stage", "needed", "offered", "foreign"),
    [
        ("cache", "encoding a window", "prepare.frames", "a step"),
        ("keyframes", "shooting was expected", "shoot.segment_frames=33", "a step"),
        ("expand", "shooting was expected", "model.offload_blocks=", "train."),
    ],
)
def test_every_stage_explains_its_own_shortage(
    tmp_path: Path, stage: str, needed: str, offered: str, foreign: str
) -> None:
    (tmp_path / "cinetune.toml").write_text('preset = "wan21"\n')
    refused = pytest.raises(StoreError, match=f"memory ran out in {stage}")
    with refused as caught, explain_shortage(Project(tmp_path), stage):
        raise MemoryError
    said = caught.value.remedy
    assert needed in said and offered in said and foreign not in said
    tried = float(next(line.split()[-1] for line in said.splitlines() if "together" in line))
    if stage == "cache":
        return  # nothing but a smaller picture helps
    options = [float(line.split()[0]) for line in said.splitlines() if " GB  " in line]
    assert options and max(options) < tried


def test_a_run_knows_the_stage_that_ran_out(tmp_path: Path) -> None:
    """Without a name it is the first stage that is not done; those without a model have no table."""
    (tmp_path / "cinetune.toml").write_text('preset = "pocket"\n')
    with pytest.raises(StoreError, match="memory ran out in ingest") as caught, explain_shortage(Project(tmp_path)):
        raise MemoryError
    assert "GB" not in caught.value.remedy


def test_other_errors_pass_through(tmp_path: Path) -> None:
    (tmp_path / "cinetune.toml").write_text("")
    with pytest.raises(RuntimeError, match="shape"), explain_shortage(Project(tmp_path)):
        raise RuntimeError("shape mismatch")


def planned(folder: Path, toml: str, shots: str = "") -> Project:
    (folder / "cinetune.toml").write_text(toml)
    (folder / "shots.toml").write_text(shots)
    return Project(folder)


SHOT = '[[shot]]\nid = "sh{0}"\nprompt = "a rider"\ndomain = "in"\nreference = "r.png"\nseconds = 5.0\n'


def test_the_answer_comes_first_in_ten_lines(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    (tmp_path / "r.png").write_bytes(b"png")
    planned(tmp_path, 'preset = "wan21"\n', "".join(SHOT.format(k) for k in range(8)))
    assert main(["plan", "-C", str(tmp_path), "--price", "2.5"]) == 0
    lines = capsys.readouterr().out.splitlines()
    answer = lines[: lines.index("")]
    assert answer[0].startswith("Answer") and len(answer) <= 10
    assert {"model", "for", "card", "stages", "total", "disk", "price"} <= {line.split()[0] for line in answer[1:]}
    tables = [line for line in lines if "warning" not in line and "fix:" not in line]
    assert [line for line in tables if len(line) > 80] == []


def test_the_bill_is_the_sum_of_its_stages_and_grows_with_the_shots(tmp_path: Path) -> None:
    run, _ = shapes_of(planned(tmp_path, 'preset = "wan21"\n'))
    assert run is not None
    one, two = bills(run, [5.0]), bills(run, [5.0, 5.0])
    for first, second in zip(one, two, strict=True):
        assert first.hours == pytest.approx(sum(first.seconds.values()) / 3600)
        assert second.seconds["train"] == first.seconds["train"]
        assert second.seconds["keyframes"] == pytest.approx(2 * first.seconds["keyframes"])
    assert [bill.card for bill in one] == [card.name for card in run.cards]


def test_evaluations_are_in_the_bill(tmp_path: Path) -> None:
    """By hand: step 0, five more and the noise of step 0; the loss on 2 x 4 windows at 4 levels and 2 kinds of first
    frame, the effect on 4, clips of 2 shots x 2 kinds in 3 passes each."""
    text = """preset = "wan21"
[train]
steps = 100
validate_every = 20
validation_windows = 4
validation_shots = 2
validation_steps = 3
validation_seeds = 2
"""
    run, _ = shapes_of(planned(tmp_path, text))
    assert run is not None
    card = next(card for card in CARDS if card.name == "H200")
    bill = next(bill for bill in bills(run, []) if bill.card == "H200")
    each = work_seconds(
        forward(run.denoiser, run.tokens, rank=8, targets="cross"), card,
        moved=elementwise_bytes(run.denoiser, run.tokens, run.setting, 1),
    )  # fmt: skip
    decode = work_seconds(Operations(convolution=video_decoding(run.encoders, 33, 480, 832)), card)
    clips = 4 * (3 * each + decode)
    evaluation = (2 * 4 * 4 * 2 + 2 * 4) * each + clips
    assert bill.seconds["train"] == pytest.approx(100 * run.step(card) + 6 * evaluation + clips)


def test_a_card_that_is_too_small_says_what_it_takes(tmp_path: Path) -> None:
    run, _ = shapes_of(planned(tmp_path, 'preset = "wan21"\n'))
    assert run is not None
    found = {bill.card: bill for bill in bills(run, [])}
    best = cheapest_card(tuple(found.values()))
    assert best.fits and next(bill for bill in found.values() if bill.fits) is best
    assert found["H200"].fits and found["H200"].how == ""
    assert found["RTX 6000 Ada"].how == "", "text encoder and CLIP wait in host memory"
    assert "model.offload_blocks=" in found["RTX 4090"].how


def test_pocket_is_billed_on_the_cores_it_is_meant_for(tmp_path: Path) -> None:
    made = make_plan(planned(tmp_path, 'preset = "pocket"\n'), price=0.1)
    answer = dict(made.answer)
    assert answer["card"].startswith("none: 2 CPU cores") and answer["for"].startswith("40 windows assumed, a 5 s shot")
    assert "price" in answer and "others" not in answer


def test_power_is_said_before_anything_is_rendered(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = planned(tmp_path, 'preset = "pocket"\n')
    shot = '[[shot]]\nid = "{0}"\nprompt = "a hill"\ndomain = "{1}"\nreference = "r.png"\nseed = 1\n\n'
    text = "".join(shot.format(f"{domain}{number}", domain) for domain in ("in", "out") for number in range(8))
    (root.root / "shots.toml").write_text(text, encoding="utf-8")
    (root.root / "r.png").write_bytes(b"")
    made = make_plan(root)
    assert "8 shots in domain `in`: an effect of d >= 1.16" in made.power[1]
    assert not (tmp_path / "work").exists(), "a dry run declares nothing"
    assert main(["plan", "-C", str(root.root)]) == 0
    assert "16 shots a domain would show d >= 0.75" in capsys.readouterr().out
    wrong = Project(root.root, overrides=('score.design.closer=["beauty"]',))
    assert any("'beauty', which is not measured" in warning for warning in make_plan(wrong).warnings)
