"""The local back end on tiny random models of the real classes; it passes without torchvision, which the families'
own processors need."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import torch
from transformers import Qwen2_5_VLForConditionalGeneration, Qwen3VLForConditionalGeneration

from cinetune.errors import ModelError, WeightsError
from cinetune.models.captioning.captioner import LocalCaptioner
from cinetune.models.files.weights import captioner_sha256
from tiny_vlm import FAMILIES, save_vlm

CLASSES = {"qwen2_5_vl": Qwen2_5_VLForConditionalGeneration, "qwen3_vl": Qwen3VLForConditionalGeneration}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("vlm")
    return {family: save_vlm(root / family, family) for family in FAMILIES}


@pytest.fixture
def copy(folders, tmp_path):
    """A copy of the Qwen2.5-VL folder to damage."""
    return shutil.copytree(folders["qwen2_5_vl"], tmp_path / "copy")


def _pictures(count: int) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [rng.integers(0, 256, (48, 80, 3), dtype=np.uint8) for _ in range(count)]


@pytest.mark.parametrize("family", FAMILIES)
def test_the_real_class_answers_from_its_pictures(folders, family):
    captioner = LocalCaptioner(folders[family])
    assert isinstance(captioner._model, CLASSES[family])
    pictures = _pictures(3)
    answer = captioner.ask(pictures, ["look"], tokens=24)
    assert answer and answer == captioner.ask(pictures, ["look"], tokens=24)

    def logits(shown):
        with torch.inference_mode():
            return captioner._model(**captioner.inputs(shown, ["look"])).logits[0, -1]

    seen = logits(pictures)
    assert not torch.allclose(seen, logits(pictures[::-1]), atol=1e-5)
    assert not torch.allclose(seen, logits([255 - picture for picture in pictures]), atol=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
def test_every_picture_gets_its_places_in_front_of_the_words(folders, family):
    captioner = LocalCaptioner(folders[family])
    inputs = captioner.inputs(_pictures(2), ["hello", "a barn", "again"])
    ids = inputs["input_ids"][0]
    image = captioner._model.config.image_token_id
    merge = captioner._images.merge_size**2
    assert int((ids == image).sum()) == sum(int(grid.prod()) // merge for grid in inputs["image_grid_thw"])
    assert torch.equal(inputs["mm_token_type_ids"][0], (ids == image).int())
    assert inputs["pixel_values"].shape[0] == int(inputs["image_grid_thw"].prod(1).sum())
    text = captioner._tokenizer.decode(ids).replace("<|image_pad|>", "")
    assert text == (
        "<|im_start|>user\n<|vision_start|><|vision_end|><|vision_start|><|vision_end|>hello<|im_end|>\n"
        "<|im_start|>assistant\na barn<|im_end|>\n<|im_start|>user\nagain<|im_end|>\n<|im_start|>assistant\n"
    )


def test_a_prompt_with_the_place_holder_is_refused(folders):
    """It would be read as a picture that is not there."""
    with pytest.raises(WeightsError, match="3 places for 2 pictures"):
        LocalCaptioner(folders["qwen3_vl"]).inputs(_pictures(2), ["write <|image_pad|>"])


@pytest.mark.parametrize("place", ["chat_template.jinja", "tokenizer"])
def test_chat_templates_are_found_where_the_families_keep_them(folders, copy, place):
    expected = LocalCaptioner(folders["qwen2_5_vl"]).inputs(_pictures(1), ["look"])["input_ids"]
    template = json.loads((copy / "chat_template.json").read_text())["chat_template"]
    (copy / "chat_template.json").unlink()
    if place == "tokenizer":
        settings = json.loads((copy / "tokenizer_config.json").read_text()) | {"chat_template": template}
        (copy / "tokenizer_config.json").write_text(json.dumps(settings))
    else:
        (copy / place).write_text(template)
    assert torch.equal(LocalCaptioner(copy).inputs(_pictures(1), ["look"])["input_ids"], expected)


def test_templates_that_do_not_fit(copy):
    (copy / "chat_template.json").write_text('{"chat_template": "{{ messages[0].role }}"}')
    with pytest.raises(WeightsError, match="0 places for 1 pictures"):
        LocalCaptioner(copy).inputs(_pictures(1), ["look"])
    (copy / "chat_template.json").write_text('{"chat_template": "{% broken"}')
    with pytest.raises(WeightsError, match="chat template fails"):
        LocalCaptioner(copy).inputs(_pictures(1), ["look"])
    (copy / "chat_template.json").write_text("{}")
    with pytest.raises(WeightsError, match="damaged"):
        LocalCaptioner(copy)
    (copy / "chat_template.json").unlink()
    with pytest.raises(WeightsError, match="no chat template"):
        LocalCaptioner(copy)


def test_more_than_the_model_can_read(folders):
    with pytest.raises(ModelError, match=r"do not fit the model's 4096") as caught:
        LocalCaptioner(folders["qwen2_5_vl"]).ask(_pictures(1), ["look"], tokens=5000)
    assert "caption.frames" in caught.value.remedy


def test_folders_that_hold_no_captioner(folders, copy, tmp_path):
    first = captioner_sha256(folders["qwen2_5_vl"])
    assert first == captioner_sha256(copy) != captioner_sha256(folders["qwen3_vl"])
    with pytest.raises(WeightsError, match="no such folder") as caught:
        captioner_sha256(tmp_path / "nowhere")
    assert "hf download Qwen/" in caught.value.remedy
    captioner_sha256.cache_clear()
    for name, content, said in (
        ("preprocessor_config.json", None, "preprocessor_config.json is missing"),
        ("model.safetensors", b"\x08\0\0\0\0\0\0\0{}", "cut short"),
        ("model.safetensors", None, "no .safetensors"),
        ("config.json", b'{"model_type": "llama"}', "it is a 'llama'"),
        ("config.json", b"{", "config.json: not readable as JSON"),
    ):
        if content is None:
            (copy / name).unlink()
        else:
            (copy / name).write_bytes(content)
        with pytest.raises(WeightsError, match=said):
            captioner_sha256(copy)


def test_weights_that_do_not_load(copy):
    (copy / "tokenizer.json").write_text("{")
    with pytest.raises(WeightsError, match="no model can be made"):
        LocalCaptioner(copy)
