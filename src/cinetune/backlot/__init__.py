"""A procedural film set: scenes in two domains, camera moves, captions and film looks, in plain numpy."""

from cinetune.backlot.looks import LOOKS, FilmLook, apply_look, grade
from cinetune.backlot.scenes import HISTORICAL, SCIFI, Scene, caption, render, sample_scene, vocabulary

__all__ = [
    "HISTORICAL",
    "LOOKS",
    "SCIFI",
    "FilmLook",
    "Scene",
    "apply_look",
    "caption",
    "grade",
    "render",
    "sample_scene",
    "vocabulary",
]
