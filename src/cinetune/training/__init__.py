"""Training of one look: the loop, its step, what it is judged by, and how it survives being killed."""

from cinetune.training.augment import regrade
from cinetune.training.data import WindowFile, load_empty, window_file
from cinetune.training.fingerprint import code_fingerprint
from cinetune.training.loop import Finished, train
from cinetune.training.parallel import World, alone, arrange
from cinetune.training.validate import HeldShot, Validator

__all__ = [
    "Finished",
    "HeldShot",
    "Validator",
    "WindowFile",
    "World",
    "alone",
    "arrange",
    "code_fingerprint",
    "load_empty",
    "regrade",
    "train",
    "window_file",
]
