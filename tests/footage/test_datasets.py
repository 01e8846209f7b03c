"""Datasets of other trainers: what maps, what is said not to."""

from __future__ import annotations

import json

import pytest

from cinetune.errors import ConfigError
from cinetune.footage.notes.datasets import read_dataset

MUSUBI = """
[general]
resolution = [960, 540]
caption_extension = ".caption"
batch_size = 2
enable_bucket = true
num_repeats = 1

[[datasets]]
video_directory = "films"
cache_directory = "cache"
target_frames = [1, 25, 47]
frame_extraction = "{mode}"
source_fps = 30.0
num_repeats = 5
{more}
"""


def _films(folder, *names, extension=".txt"):
    folder.mkdir(parents=True)
    for name in names:
        (folder / f"{name}.mp4").write_bytes(b"film")
        (folder / f"{name}{extension}").write_text(f"  caption of\n {name} ")


def _read(tmp_path, text):
    (tmp_path / "dataset.toml").write_text(text)
    return read_dataset(tmp_path / "dataset.toml")


@pytest.mark.parametrize(
    ("mode", "more", "settings"),
    [
        ("head", "", {"windows": "head", "frames": 45}),
        ("chunk", "", {"windows": "all", "frames": 45}),
        ("slide", "frame_stride = 10", {"windows": "slide", "stride": 10, "frames": 45}),
        ("uniform", "frame_sample = 4", {"windows": "uniform", "max_windows_per_shot": 4, "frames": 45}),
        ("full", "max_frames = 129", {"windows": "all"}),
    ],
)
def test_musubi(tmp_path, mode, more, settings):
    _films(tmp_path / "films", "b", "a", extension=".caption")
    (tmp_path / "films" / "still.png").write_bytes(b"png")
    dataset = _read(tmp_path, MUSUBI.format(mode=mode, more=more))
    assert dataset.kind == "musubi-tuner"
    assert dataset.settings == {f"prepare.{k}": v for k, v in (settings | {"width": 960, "height": 544}).items()}
    assert [(clip.path.name, clip.group, clip.text) for clip in dataset.clips] == [
        ("a.mp4", "films", "caption of a"), ("b.mp4", "films", "caption of b"),
    ]  # fmt: skip
    told = "\n".join(dataset.notes)
    for words in ("960x540 became 960x544", "source_fps is not needed", "num_repeats = 5 is left behind",
                  "batch_size = 2", "enable_bucket is left behind", "1 files are not films"):  # fmt: skip
        assert words in told, words
    assert ("[1, 25, 47]: windows have one length here, 45" in told) == (mode != "full")
    assert "cache" not in told


def test_musubi_tables_and_pictures(tmp_path):
    _films(tmp_path / "films", "a", "b")
    rows = [{"video_path": "films/a.mp4", "caption": "one  film"}, {"video_path": "films/b.mp4"}]
    (tmp_path / "meta.jsonl").write_text("\n".join(map(json.dumps, rows)))
    part = '[[datasets]]\nvideo_jsonl_file = "meta.jsonl"\ntarget_frames = {}\n'
    text = part.format([33]) + part.format([17]) + '[[datasets]]\nimage_directory = "stills"\n'
    dataset = _read(tmp_path, text)
    assert [(clip.path.name, clip.text) for clip in dataset.clips] == [("a.mp4", "one film"), ("b.mp4", "")]
    assert dataset.settings == {"prepare.windows": "head", "prepare.frames": 33}
    told = "\n".join(dataset.notes)
    for words in ("prepare.frames would be 17", "datasets[2] holds pictures", "1 films have no caption", "b.mp4"):
        assert words in told, words


def test_diffusion_pipe(tmp_path):
    _films(tmp_path / "one" / "clips", "a")
    _films(tmp_path / "two" / "clips", "a", "b")
    text = (
        "resolutions = [512]\nenable_ar_bucket = true\nmin_ar = 0.5\nframe_buckets = [1, 33, 65]\n"
        '[[directory]]\npath = "one/clips"\nnum_repeats = 3\n[[directory]]\npath = "two/clips"\nmask_path = "m"\n'
    )
    dataset = _read(tmp_path, text)
    assert dataset.settings == {"prepare.windows": "head", "prepare.frames": 65}
    names = [(clip.group, clip.path.name) for clip in dataset.clips]
    assert len(set(names)) == 3 and names[0] == ("clips", "a.mp4")
    told = "\n".join(dataset.notes)
    for words in ("resolutions [512] are areas", "windows have one length here, 65", "num_repeats = 3",
                  "min_ar is left", "directory[1]: mask_path has no equal here"):  # fmt: skip
        assert words in told, words


def test_diffusion_pipe_with_one_size(tmp_path):
    _films(tmp_path / "clips", "a")
    dataset = _read(tmp_path, 'resolutions = [[1280, 720]]\n[[directory]]\npath = "clips"\n')
    assert (dataset.settings["prepare.width"], dataset.settings["prepare.height"]) == (1280, 720)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a = ", "not readable as TOML"),
        ("a = 1", "neither a musubi-tuner nor a diffusion-pipe dataset"),
        ('[[datasets]]\nvideo_directory = "gone"', "'gone' is not there"),
        ('[[datasets]]\nvideo_directory = "dataset.toml"', "is not a folder"),
        ('[[directory]]\nnum_repeats = 1', "'' is not there"),
        ('[[directory]]\npath = "empty"', "no film file is in this dataset"),
        ('[[datasets]]\nvideo_directory = "films"\nframe_extraction = "middle"', "'middle' is not known"),
        ('[[datasets]]\nvideo_jsonl_file = "bad.jsonl"', "not readable as JSON"),
        ('[[datasets]]\nvideo_jsonl_file = "odd.jsonl"', 'a row needs a "video_path"'),
        ('datasets = ["films"]', "must be tables"),
        ('[[datasets]]\nvideo_directory = "films"\ntarget_frames = "33"', "target_frames must be"),
        ('[[datasets]]\nvideo_directory = "films"\nresolution = [960]', "resolution must be"),
        ('[[datasets]]\nvideo_directory = 3', "video_directory must be"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said(tmp_path, text, words):
    _films(tmp_path / "films", "a")
    (tmp_path / "empty").mkdir()
    (tmp_path / "bad.jsonl").write_text("{")
    (tmp_path / "odd.jsonl").write_text('{"image_path": "a.png"}')
    with pytest.raises(ConfigError, match=words):
        _read(tmp_path, text)


@pytest.mark.parametrize("extension", ["txt", ".txt", "TXT"])
def test_a_caption_extension_with_or_without_its_dot(tmp_path, extension):
    _films(tmp_path / "films", "a")
    part = f'[[datasets]]\nvideo_directory = "films"\ntarget_frames = [33]\ncaption_extension = "{extension}"\n'
    assert [clip.text for clip in _read(tmp_path, part).clips] == ["caption of a"]


@pytest.mark.parametrize("extension", ["", ".", "/", "../x", "x" * 300])
def test_a_caption_extension_that_ends_no_name(tmp_path, extension):
    _films(tmp_path / "films", "a")
    part = f'[[datasets]]\nvideo_directory = "films"\ncaption_extension = "{extension}"\n'
    with pytest.raises(ConfigError, match="caption_extension"):
        _read(tmp_path, part)


def test_a_dataset_of_another_system(tmp_path):
    """Byte order mark, backslashes, a name in the other Unicode form, a line separator in a caption."""
    _films(tmp_path / "films", "caf\u00e9")
    row = {"video_path": "films\\cafe\u0301.mp4".replace("\\", "/"), "caption": "one\u2028two"}
    rows = json.dumps(row, ensure_ascii=False) + "\n" + json.dumps({"video_path": "films\\caf\u00e9.mp4"})
    (tmp_path / "meta.jsonl").write_bytes(rows.encode("utf-8-sig"))
    text = '\ufeff[[datasets]]\nvideo_jsonl_file = "meta.jsonl"\ntarget_frames = [33]\n'
    assert [(clip.path.name, clip.text) for clip in _read(tmp_path, text).clips] == [("caf\u00e9.mp4", "one two")]


@pytest.mark.parametrize("caption", [["a", "b"], None, 3, float("nan")])
def test_captions_that_are_not_text_are_refused_by_line(tmp_path, caption):
    _films(tmp_path / "films", "a")
    (tmp_path / "meta.jsonl").write_text("\n" + json.dumps({"video_path": "films/a.mp4", "caption": caption}))
    with pytest.raises(ConfigError) as caught:
        _read(tmp_path, '[[datasets]]\nvideo_jsonl_file = "meta.jsonl"\n')
    assert "line 2" in caught.value.where


def test_no_name_of_a_dataset_places_a_file(tmp_path):
    """A table called `...jsonl` has the stem `..`; a row may name a table of captions as its film."""
    _films(tmp_path / "films", "a")
    (tmp_path / "films" / "metadata.jsonl").write_text('{"file_name": "a.mp4", "text": "evil"}')
    rows = [{"video_path": "films/a.mp4"}, {"video_path": "films/metadata.jsonl"}]
    (tmp_path / "...jsonl").write_text("\n".join(map(json.dumps, rows)))
    dataset = _read(tmp_path, '[[datasets]]\nvideo_jsonl_file = "...jsonl"\ntarget_frames = [33]\n')
    assert [(clip.group, clip.path.name) for clip in dataset.clips] == [("films", "a.mp4")]
    assert any("metadata.jsonl is not a film" in note for note in dataset.notes)
