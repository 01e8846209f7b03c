"""The project file: where each value comes from, and what is said about wrong ones."""

import json
import re
import unicodedata
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cinetune.config import PRESETS, Config, flatten, keep_settings, load_config, section_sha
from cinetune.errors import ConfigError


def write(folder: Path, text: str) -> Path:
    path = folder / "cinetune.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_values_come_from_default_preset_file_and_override_in_rising_order(tmp_path: Path) -> None:
    path = write(tmp_path, 'preset = "paper"\n[train]\nlr = 2e-5\n[model]\npath = "weights"\n')
    config, origins = load_config(path, overrides=("train.rank=4", "shoot.seeds=3"))
    assert (config.train.steps, origins["train.steps"]) == (4000, "preset paper")
    assert (config.train.lr, origins["train.lr"]) == (2e-5, "cinetune.toml")
    assert (config.train.rank, origins["train.rank"]) == (4, "--set")
    assert (config.train.patience, origins["train.patience"]) == (4, "default")
    assert set(origins) == set(flatten(config.model_dump()))


@pytest.mark.parametrize("preset", PRESETS)
def test_every_preset_loads(tmp_path: Path, preset: str) -> None:
    config, _ = load_config(write(tmp_path, f'preset = "{preset}"\n'))
    assert config.model.family == ("pocket" if preset == "pocket" else "wan21")


def test_the_paper_preset_is_the_published_recipe(tmp_path: Path) -> None:
    train = load_config(write(tmp_path, 'preset = "paper"\n'))[0].train
    assert (train.rank, train.alpha, train.targets, train.lr, train.steps) == (8, 16, "cross", 3e-5, 4000)
    assert (train.batch, train.accumulate, train.weight_decay, train.warmup) == (1, 4, 0.01, 0.05)
    assert train.augment.probability == 0


def test_an_override_may_choose_the_preset(tmp_path: Path) -> None:
    path = write(tmp_path, "")
    assert load_config(path, overrides=("preset=paper",))[0].model.family == "wan21"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("[train]\nlearning_rat = 1", "unknown key 'train.learning_rat'"),
        ("[train]\nranks = 4", "did you mean 'train.rank'"),
        ("[tran]\nlr = 1e-4", "did you mean 'train'"),
        ("[shoot]\nrank = 4", "did you mean 'train.rank'"),
        ("lr = 1e-4", "did you mean 'train.lr'"),
        ("[train.augment]\nblurr = 1.0", "did you mean 'train.augment.blur'"),
        ("[train]\nlr = -1.0", "train.lr: .*greater than 0"),
        ("[train]\nlr = nan", "train.lr: .*finite"),
        ('[train]\nlr = "fast"', "train.lr"),
        ("[train]\nbetas = [0.9, 1.5]", "train.betas.1"),
        ("[train.augment]\ngamma = [1.2, 0.8]", "first of the two"),
        ("[prepare]\nframes = 32", "use 29 or 33"),
        ("[shoot]\nsegment_frames = 80", "use 77 or 81"),
        ("[train]\nplain_arm = true", "plain_arm is a control"),
        ('[deliver]\nrate = "fast"', "not a frame rate"),
        ('[deliver]\nseq = "../up"', "file name"),
        ('name = "a/b"', "file name"),
        ('preset = "papr"', "no preset 'papr'"),
        ("[train", "not readable as TOML"),
        ("train = 3", "train: "),
    ],
)
def test_a_wrong_setting_is_named(tmp_path: Path, text: str, reason: str) -> None:
    with pytest.raises(ConfigError, match=reason) as caught:
        load_config(write(tmp_path, text))
    assert "\n" not in caught.value.where


def test_all_wrong_keys_are_named_at_once(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(write(tmp_path, "[train]\nlrr = 1\nrankk = 2\n[shoot]\nstep = 3\n"))
    assert all(key in str(caught.value) for key in ("'train.lr'", "'train.rank'", "'shoot.steps'"))


@pytest.mark.parametrize(
    ("override", "reason"),
    [
        ("train.lr", "has no '='"),
        ("train.lr.x=1", "value, not a section"),
        ("train.lrr=1", "did you mean 'train.lr'"),
        ("train.lr=fast", "train.lr: "),
        ("=3", "unknown key"),
    ],
)
def test_a_wrong_override_is_named(tmp_path: Path, override: str, reason: str) -> None:
    with pytest.raises(ConfigError, match=reason):
        load_config(write(tmp_path, "[train]\nlr = 1e-4\n"), overrides=(override,))


@pytest.mark.parametrize("content", [None, b"\xff\xfea", b'name = "caf\xe9"'])
def test_a_project_file_that_cannot_be_read(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "cinetune.toml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        load_config(path)
    assert str(path) in str(caught.value)


def test_a_folder_in_place_of_the_project_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "cinetune.toml").mkdir()
    with pytest.raises(ConfigError, match="a folder"):
        load_config(tmp_path / "cinetune.toml")


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
@given(
    lr=st.floats(1e-9, 1, exclude_min=False),
    steps=st.integers(1, 10**6),
    trigger=st.text(st.characters(min_codepoint=32, max_codepoint=0x2FFF, exclude_characters='"\\')),
)
def test_an_override_gives_exactly_that_value(tmp_path: Path, lr: float, steps: int, trigger: str) -> None:
    path = write(tmp_path, "[train]\nlr = 5e-5\n")
    quoted = json.dumps(trigger, ensure_ascii=False).replace("\x7f", "\\u007F")
    overrides = (f"train.lr={lr!r}", f"train.steps={steps}", f"prepare.trigger={quoted}")
    config, origins = load_config(path, overrides=overrides)
    assert (config.train.lr, config.train.steps, config.prepare.trigger) == (lr, steps, trigger)
    assert origins["train.lr"] == "--set"


def test_the_last_of_two_overrides_wins(tmp_path: Path) -> None:
    config, _ = load_config(write(tmp_path, ""), overrides=("train.rank=4", "train.rank=16"))
    assert config.train.rank == 16


NUMBERS = [
    key
    for key, value in flatten(Config().model_dump(mode="json")).items()
    if isinstance(value, int | float) and not isinstance(value, bool)
]


@pytest.mark.parametrize("key", NUMBERS)
def test_no_number_is_without_an_end(tmp_path: Path, key: str) -> None:
    """Not a number, endless, absurd, a word: refused by name when the project is opened, whichever setting it is."""
    path = write(tmp_path, "")
    wrong = ["nan", "inf", "-inf", "1e300", "true", '"\uff12"', "[]", "{}", "9" * 19]
    wrong += [] if key == "train.seed" else ["-1", "1" + "0" * 12]
    for value in wrong:
        with pytest.raises(ConfigError, match=re.escape(key)):
            load_config(path, overrides=(f"{key}={value}",))


@pytest.mark.parametrize("pair", ["[nan, 1]", "[0, inf]", "[-1e300, 1]", "[1, 0]", "[1]", "[1, 2, 3]", "[]"])
def test_ranges_have_two_ends_in_order(tmp_path: Path, pair: str) -> None:
    for key in ("train.augment.gamma", "train.augment.gain", "train.betas", "caption.words"):
        with pytest.raises(ConfigError, match=re.escape(key)):
            load_config(write(tmp_path, ""), overrides=(f"{key}={pair}",))


def test_paths_are_spelled_as_the_disk_spells_them(tmp_path: Path) -> None:
    """A settings file of one system, files that came over another: the same letters in another Unicode form."""
    for name in ("L\u00fct.cube", "F\u00fclme"):
        (tmp_path / unicodedata.normalize("NFD", name)).mkdir()
    rule = '[[footage.colour]]\nmatch = "*"\nlut = "L\u00fct.cube"\n'
    path = write(tmp_path, f'# mine\n[footage]\nfolder = "F\u00fclme"\n{rule}[model]\npath = "nowhere/\u00fc"\n')
    config, _ = load_config(path)
    assert (tmp_path / config.footage.folder).is_dir() and (tmp_path / config.footage.colour[0].lut).is_dir()
    assert config.model.path == "nowhere/\u00fc"
    keep_settings(path, ["train.rank=4", "score.reference.in=F\u00dcLME"])
    kept, _ = load_config(path)
    assert (kept.train.rank, kept.score.reference["in"]) == (4, config.footage.folder)


def test_a_presets_overlap_gives_way_to_a_short_segment(tmp_path: Path) -> None:
    path = write(tmp_path, 'preset = "pocket"\n[shoot]\nsegment_frames = 5\n')
    config, origins = load_config(path)
    assert config.shoot.overlap == 1 and "5 frames" in origins["shoot.overlap"]
    assert load_config(path, overrides=("shoot.segment_frames=17",))[0].shoot.overlap > 1
    with pytest.raises(ConfigError, match="a whole segment"):
        load_config(path, overrides=("shoot.overlap=5",))


def test_a_bare_word_is_a_string(tmp_path: Path) -> None:
    assert (
        load_config(write(tmp_path, ""), overrides=("prepare.trigger=autumn film",))[0].prepare.trigger == "autumn film"
    )


def test_section_hash_moves_only_with_its_sections() -> None:
    plain, other = Config(), Config(name="other")
    assert section_sha(plain, ("train",)) == section_sha(other, ("train",))
    changed = plain.model_copy(update={"train": plain.train.model_copy(update={"lr": 1.0})})
    assert section_sha(plain, ("train",)) != section_sha(changed, ("train",))
    assert section_sha(plain, ("shoot",)) == section_sha(changed, ("shoot",))


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_settings_saved_by_other_editors_are_read(tmp_path: Path, encoding: str) -> None:
    path = tmp_path / "cinetune.toml"
    path.write_bytes('name = "film"\r\n[prepare]\r\ntrigger = "noir, à bout"\r\n'.encode(encoding))
    assert load_config(path)[0].prepare.trigger == "noir, à bout"


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("[deliver]\nformats = []", "deliver.formats"),
        ("[deliver]\narms = []", "deliver.arms"),
        ('[deliver]\nrate = "1e999999999"', "not a frame rate"),
        ('[deliver]\nrate = "1000000"', "deliver.rate"),
        ('[footage]\nsequence_rate = "1/1000"', "footage.sequence_rate"),
        ('[footage]\nsequence_rate = "0"', "positive|footage.sequence_rate"),
        (f'[footage]\nfolder = "{"f" * 5000}"', "footage.folder"),
        ('[model]\npath = "a\\u0000b"', "model.path"),
        (f'[train]\ninit_from = "{"f" * 300}"', "train.init_from"),
        (f'name = "{"n" * 300}"', "name"),
        (f"x = {'[' * 20_000}", "nested"),
        (f"x = {'9' * 6000}", "TOML"),
    ],
)
def test_settings_that_would_end_in_a_crash_are_refused_at_load(tmp_path: Path, text: str, key: str) -> None:
    with pytest.raises(ConfigError, match=key) as caught:
        load_config(write(tmp_path, text))
    assert len(str(caught.value)) < 2000


@pytest.mark.parametrize(
    "text",
    [
        f"train.seed={'9' * 5000}", f"a{'.a' * 3000}=1", f"train.seed{'.a' * 3000}=1", f"train.seed={'[' * 20_000}",
        "name=\udcff", "train.seed={a={a={a=1}}}", "train.seed=1\nmodel.path = 2",
    ],
)  # fmt: skip
def test_overrides_that_no_shell_user_means_are_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(write(tmp_path, ""), overrides=(text,))
    assert len(str(caught.value)) < 2000


KEPT = """# my film
preset = "pocket"
name = "lantern"   # as on the slate

[train]
# steps = 4000
lr = 3e-5

[score]
"""


def test_settings_are_kept_in_the_file_with_its_comments(tmp_path: Path) -> None:
    path = tmp_path / "cinetune.toml"
    path.write_text(KEPT)
    asked = ["train.steps=20", "train.augment.probability=0.25", "deliver.bars=2.39", "train.lr=1e-4", 'name="a"']
    keep_settings(path, asked)
    assert load_config(path)[0] == load_config(_written(tmp_path / "before.toml", KEPT), overrides=tuple(asked))[0]
    text = path.read_text()
    assert all(line in text for line in ("# my film", "# as on the slate", "# steps = 4000", "[score]"))
    keep_settings(path, asked)
    assert path.read_text() == text


def _written(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


@pytest.mark.parametrize("asked", ["train.lrr=1", "train.steps", "train=1", "train.steps.more=1", "train.steps=-1"])
def test_what_is_refused_leaves_the_file_as_it_was(tmp_path: Path, asked: str) -> None:
    path = _written(tmp_path / "cinetune.toml", KEPT)
    with pytest.raises(ConfigError):
        keep_settings(path, ["train.steps=20", asked])
    assert path.read_text() == KEPT
    assert sorted(item.name for item in tmp_path.iterdir()) == ["cinetune.toml"]


def test_text_from_outside_is_written_as_text(tmp_path: Path) -> None:
    path = _written(tmp_path / "cinetune.toml", KEPT)
    keep_settings(path, ["prepare.trigger='a \"b\" [train] \\\\n'"])
    assert load_config(path)[0].prepare.trigger == 'a "b" [train] \\\\n'


@pytest.mark.parametrize("asked", ["deliver.rate=25", "deliver.rate=23.976", "deliver.bars=2.39"])
def test_a_number_is_taken_where_text_is_meant(tmp_path: Path, asked: str) -> None:
    config, _ = load_config(_written(tmp_path / "cinetune.toml", KEPT), overrides=(asked,))
    key, _, value = asked.partition("=")
    assert flatten(config.model_dump())[key] == value
