"""The cost formulas against published counts, and what a plan says."""

from pathlib import Path

import pytest
from diffusers import WanTransformer3DModel

from cinetune.models.pocket import DENOISER
from cinetune.models.wan21 import WanVideo
from cinetune.plan import RATES, WAN21, Denoiser, make_plan
from cinetune.store import Project
from support import save_tiny


def test_parameters_of_wan21_i2v_14b() -> None:
    assert WAN21.parameters() == 16_394_878_784
    assert WAN21.adapter_parameters(8, "cross") == 19_660_800


@pytest.mark.parametrize(
    ("frames", "height", "width", "tokens", "forward", "checkpointed", "kept"),
    [
        (33, 480, 832, 14_040, 0.509, 1.77, 1.26),
        (81, 480, 832, 32_760, 1.686, 6.34, 4.66),
        (33, 720, 1280, 32_400, 1.658, 6.23, 4.57),
        (81, 720, 1280, 75_600, 6.540, 26.40, 19.86),
    ],
)
def test_operations_match_the_counted_ones(
    frames: int, height: int, width: int, tokens: int, forward: float, checkpointed: float, kept: float
) -> None:
    """PFLOP as counted by torch's FlopCounterMode on the 14B model on the meta device."""
    assert WAN21.tokens(frames, height, width) == tokens
    assert WAN21.forward_flops(tokens) / 1e15 == pytest.approx(forward, rel=2e-3)
    assert WAN21.training_flops(tokens, checkpointing=True) / 1e15 == pytest.approx(checkpointed, rel=3e-3)
    assert WAN21.training_flops(tokens, checkpointing=False) / 1e15 == pytest.approx(kept, rel=3e-3)


@pytest.mark.parametrize(("tokens", "gigabytes"), [(14_040, 44), (32_400, 58), (75_600, 91)])
def test_training_memory(tokens: int, gigabytes: float) -> None:
    found = WAN21.training_bytes(tokens, rank=8, targets="cross", bytes_each=2, checkpointing=True)
    assert found / 1e9 == pytest.approx(gigabytes, rel=0.01)


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
    assert all(name in facts["training, at most"] for name in RATES["wan21"])
    assert facts["memory in training"] == "about 40.8 GiB"
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
    shape = Denoiser(
        layers=DENOISER["num_layers"],
        width=DENOISER["num_attention_heads"] * DENOISER["attention_head_dim"],
        ffn=DENOISER["ffn_dim"],
        channels_in=DENOISER["in_channels"],
        channels_out=DENOISER["out_channels"],
        text_width=DENOISER["text_dim"],
        image_width=DENOISER["image_dim"],
        frequencies=DENOISER["freq_dim"],
    )
    assert shape.parameters() == sum(p.numel() for p in WanTransformer3DModel(**DENOISER).parameters())
