"""The card of a look that was measured: the numbers are the scorecards' own, and the picture is of generated frames."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from huggingface_hub import ModelCard
from PIL import Image

from cinetune.report.modelcard import write_card
from cinetune.report.verdicts import title_of
from cinetune.store import Project


def test_what_was_measured_is_on_the_card(salt_road: Project, tmp_path: Path) -> None:
    look = next(look for look in salt_road.store.need_stage("train").groups["looks"] if look.arm == "look")
    write_card(salt_road, look, tmp_path, comfy="look-comfyui.safetensors", repository="me/salt")
    text = (tmp_path / "README.md").read_text(encoding="utf-8")
    told: Any = ModelCard(text).data  # its class takes its attributes from the text
    cards = salt_road.store.need_stage("score").groups["scorecards"]
    scores = {
        (score.metric, score.value)
        for one in cards
        if (one.arm, one.versus) == ("look", "base") and one.domain != "both"
        for score in one.effects
        if score.value is not None
    }
    assert {(result.metric_type, result.metric_value) for result in told.eval_results} == scores
    for result in told.eval_results:
        assert result.dataset_config in ("in", "out")
        assert ("in the film's world" in result.dataset_name) == (result.dataset_config == "in")
    assert {result.dataset_config for result in told.eval_results} == {one.domain for one in cards} - {"both"}
    assert scores and 'adapter = "me/salt"' in text
    for metric in salt_road.config.score.design.closer:
        assert f"| {title_of(metric)} |" in text
    assert "Nothing was measured" not in text and str(salt_road.root) not in text
    with Image.open(tmp_path / "sample.jpg") as picture:
        assert picture.width > 4 * 96
