"""What a project states about its files where the files do not say: tables of `cinetune.toml` that stages and readers
share.
"""

from __future__ import annotations

from typing import Literal

import pydantic

__all__ = ["ColourRule"]


class ColourRule(pydantic.BaseModel):
    """`[[footage.colour]]`: colour of the files whose name, or path in `footage.folder`, fits the pattern `match`. What
    it leaves empty is read from the file.
    """

    model_config = pydantic.ConfigDict(extra="forbid", frozen=True)

    match: str
    space: Literal[
        "",
        "ACES2065-1",
        "ACEScg",
        "HLG",
        "Log3G10",
        "LogC3",
        "LogC4",
        "P3-D65",
        "PQ",
        "Rec2020",
        "Rec709",
        "S-Log3",
        "V-Log",
        "linear",
    ] = ""
    """What the code values mean; logs come with their makers' gamut (see `cinetune.footage.spaces`)."""
    lut: str = ""
    """A .cube file, relative to the project, from the file's R'G'B' to display R'G'B'; then `space` is not used."""
    matrix: Literal["", "bt601", "bt709", "bt2020"] = ""
    levels: Literal["", "full", "limited"] = ""
