"""Settings of `[caption]`: what cannot work is refused where it is read."""

from pathlib import Path

import pytest

from cinetune.config import load_config
from cinetune.errors import ConfigError


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("words = [100, 80]", "caption.words"),
        ("words = [0, 80]", "caption.words"),
        ("frames = 0", "caption.frames"),
        ("timeout = nan", "caption.timeout"),
        ('backend = "ftp"', "caption.backend"),
        ('api_key = "secret"', "unknown key 'caption.api_key'"),
    ],
)
def test_settings_that_cannot_work(tmp_path: Path, line: str, said: str) -> None:
    (tmp_path / "cinetune.toml").write_text(f"[caption]\n{line}\n")
    with pytest.raises(ConfigError, match=said):
        load_config(tmp_path / "cinetune.toml")


def test_the_defaults_are_settings_too(tmp_path: Path) -> None:
    (tmp_path / "cinetune.toml").write_text("")
    section = load_config(tmp_path / "cinetune.toml")[0].caption
    assert (section.backend, section.words, section.key_env) == ("transformers", (80, 100), "")


@pytest.mark.parametrize("pattern", ["(?=a)b", "(", r"(a)\1", "(a{900}){900}"])
def test_targets_are_of_a_language_that_cannot_hang(tmp_path: Path, pattern: str) -> None:
    (tmp_path / "cinetune.toml").write_text(f"[train]\ntargets = 'regex:{pattern}'\n")
    with pytest.raises(ConfigError, match="not a pattern"):
        load_config(tmp_path / "cinetune.toml")
