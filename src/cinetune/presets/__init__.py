"""Project settings by name, as TOML files."""

from typing import Literal, get_args

Preset = Literal["like-ai-toolkit", "like-diffusion-pipe", "like-musubi", "paper", "pocket", "wan21"]
"""Those named like-... are the recipes of other trainers, for comparison."""
PRESETS: tuple[Preset, ...] = get_args(Preset)
